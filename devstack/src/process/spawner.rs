//! Starts every child from one thread that lives as long as the process.
//!
//! Reason: the kernel sends a child its parent-death signal when the *thread* that started it ends, and an
//! async runtime ends threads at any time.

use std::io;
use std::process::{Child, Command};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::thread;

/// A command to start, and the channel for its result.
type Request = (Command, mpsc::SyncSender<io::Result<Child>>);

static REQUESTS: LazyLock<Mutex<mpsc::Sender<Request>>> = LazyLock::new(|| {
    let (requests, queue) = mpsc::channel::<Request>();
    let spawner = thread::Builder::new().name("spawner".to_owned()).spawn(move || {
        for (mut command, answer) in queue {
            // If the caller no longer waits for the result, the handle of the child is dropped, and the child runs on
            // until this process dies.
            let _unheard = answer.send(command.spawn());
        }
    });
    spawner.expect("a process that cannot start a thread cannot start children either");
    Mutex::new(requests)
});

/// Starts `command`. Blocks until the child is forked or the start has failed.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    let (answer, started) = mpsc::sync_channel(1);
    let gone = || io::Error::other("the thread that starts children has ended");
    REQUESTS.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer)).map_err(|_| gone())?;
    started.recv().map_err(|_| gone())?
}
