//! Cancels tokens on SIGTERM and SIGINT: the first signal means "stop", the second "stop at once".

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The tokens that are cancelled when this process receives SIGTERM or SIGINT.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled by the first signal: finish the work that was accepted, then stop.
    pub requested: CancellationToken,
    /// Cancelled by the second signal: save what must be saved and stop without waiting.
    pub immediate: CancellationToken,
}

/// SIGXFSZ, which is signal 25 on Linux and macOS. The kernel sends it to a process that writes beyond the file size
/// limit (`ulimit -f`).
const FILE_TOO_LONG: SignalKind = SignalKind::from_raw(25);

/// Starts a task that listens for SIGTERM and SIGINT, and installs a handler for SIGXFSZ.
pub fn listen() -> std::io::Result<Shutdown> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // With a handler for SIGXFSZ, a write beyond the file size limit returns an error, like a write to a full disk.
    // Without a handler, the signal ends the process. The handler stays installed after `_installed` is dropped.
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
