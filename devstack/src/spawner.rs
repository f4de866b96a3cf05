//! Starts every child from one thread that lives as long as the process.
//!
//! Why: the kernel sends a child its death signal when the *thread* that
//! started it ends, and threads of an async runtime come and go.

use std::io;
use std::process::{Child, Command};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::thread;

/// A child to start, and where to tell how that went.
type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

static ORDERS: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
    let (orders, queue) = mpsc::channel::<Order>();
    let spawner = thread::Builder::new().name("spawner".to_owned()).spawn(move || {
        for (mut command, answer) in queue {
            // Nobody waits any more: the child is dropped, and ends with us.
            let _unheard = answer.send(command.spawn());
        }
    });
    spawner.expect("a process that cannot have one more thread cannot start children either");
    Mutex::new(orders)
});

/// Starts `command`. Blocks for as long as a fork takes.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    let (answer, started) = mpsc::sync_channel(1);
    let gone = || io::Error::other("the thread that starts children is gone");
    ORDERS.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer)).map_err(|_| gone())?;
    started.recv().map_err(|_| gone())?
}
