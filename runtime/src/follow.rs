//! Reloads files that change while the process runs.
//!
//! The content of a file, or only its metadata, is read periodically and compared with what was read before. The files
//! are not watched with inotify: Kubernetes updates a mounted file by replacing a symlink, and a watch on the file
//! would not notice this change.

use std::time::Duration;

use tokio::task;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often files are read.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// Calls `read` periodically, and calls `changed` with a value that differs from the value in use. The value in use is
/// `seen` at first, then the value of the last call of `changed`. A new value is used only after two reads in a row
/// have returned it, because a single read may see a file that is only partly written. Runs until `ended` is
/// cancelled or a closure panics. Both closures may block. If `read` fails, it returns the error as a value; `changed`
/// is then called once for the error, not at each read.
pub async fn follow<T: PartialEq + Send + 'static>(
    mut seen: T,
    read: impl Fn() -> T + Clone + Send + 'static,
    mut changed: impl FnMut(&T) + Send + 'static,
    ended: CancellationToken,
) {
    let mut ticks = interval(READ_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = None;
    while ended.run_until_cancelled(ticks.tick()).await.is_some() {
        let Ok(now) = task::spawn_blocking(read.clone()).await else { return };
        if now != seen && before.as_ref() == Some(&now) {
            let call = move || {
                changed(&now);
                (changed, now)
            };
            let Ok(called) = task::spawn_blocking(call).await else { return };
            (changed, seen) = called;
            before = None;
        } else {
            before = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_that_is_read_only_once_is_not_used() {
        let mut texts = ["a", "half", "b", "b", "b", ""].into_iter().chain(std::iter::repeat("b"));
        let read = Arc::new(Mutex::new(move || texts.next().unwrap()));
        let (sender, received) = mpsc::channel();
        let ended = CancellationToken::new();
        let changed = move |now: &&'static str| sender.send(*now).unwrap();
        let following = follow("a", move || read.lock().unwrap()(), changed, ended.clone());
        let following = tokio::spawn(following);
        sleep(9 * READ_INTERVAL).await;
        ended.cancel();
        following.await.unwrap();
        assert_eq!(received.iter().collect::<Vec<_>>(), ["b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_change_is_reported_once() {
        let file = Arc::new(Mutex::new("a"));
        let read = {
            let file = Arc::clone(&file);
            move || *file.lock().unwrap()
        };
        let (sender, received) = mpsc::channel();
        let ended = CancellationToken::new();
        let following = follow("a", read, move |now| sender.send(*now).unwrap(), ended.clone());
        let following = tokio::spawn(following);
        for now in ["a", "b", "b", "a"] {
            *file.lock().unwrap() = now;
            sleep(3 * READ_INTERVAL).await;
        }
        ended.cancel();
        following.await.unwrap();
        assert_eq!(received.iter().collect::<Vec<_>>(), ["b", "a"]);
    }
}
