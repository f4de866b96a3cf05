//! SIGTERM and SIGINT become tokens that say "stop" and "stop at once".

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a process is told by its signals.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled by the first signal: finish what was taken, then end.
    pub requested: CancellationToken,
    /// Cancelled by the second: save what must be saved, wait for nobody.
    pub hurried: CancellationToken,
}

/// SIGXFSZ on Linux and macOS.
const FILE_TOO_LONG: SignalKind = SignalKind::from_raw(25);

/// Listens for SIGTERM and SIGINT for as long as the runtime lives.
pub fn listen() -> std::io::Result<Shutdown> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // A file that may not grow (`ulimit -f`) is then an error of its write, as a full disk is, and not
    // the end of the process. Its handler stays, though nobody listens.
    let _stays = signal(FILE_TOO_LONG)?;
    let shutdown = Shutdown::default();
    let told = shutdown.clone();
    tokio::spawn(async move {
        next(&mut terminate, &mut interrupt).await;
        told.requested.cancel();
        next(&mut terminate, &mut interrupt).await;
        told.hurried.cancel();
    });
    Ok(shutdown)
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
