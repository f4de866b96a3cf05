//! SIGTERM and SIGINT cancel tokens: the first signal means "stop", the second "stop at once".

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The tokens that signals to this process cancel.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled by the first signal: finish the work that was accepted, then stop.
    pub requested: CancellationToken,
    /// Cancelled by the second signal: save what must be saved and stop without waiting.
    pub immediate: CancellationToken,
}

/// SIGXFSZ on Linux and macOS.
const FILE_TOO_LONG: SignalKind = SignalKind::from_raw(25);

/// Listens for SIGTERM and SIGINT for as long as the runtime lives.
pub fn listen() -> std::io::Result<Shutdown> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // With a handler, a write beyond the file size limit (`ulimit -f`) fails as it does on a full disk;
    // without one, the signal ends the process. The handler stays installed after its receiver is dropped.
    let _installed = signal(FILE_TOO_LONG)?;
    let shutdown = Shutdown::default();
    let tokens = shutdown.clone();
    tokio::spawn(async move {
        next(&mut terminate, &mut interrupt).await;
        tokens.requested.cancel();
        next(&mut terminate, &mut interrupt).await;
        tokens.immediate.cancel();
    });
    Ok(shutdown)
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
