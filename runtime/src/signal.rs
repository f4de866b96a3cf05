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

/// Listens for SIGTERM and SIGINT for as long as the runtime lives.
pub fn listen() -> std::io::Result<Shutdown> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
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
