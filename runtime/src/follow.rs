//! Files that are taken anew when they change, while the process runs.
//!
//! They are read again and compared, not watched: a change that comes by a swapped link, as
//! Kubernetes makes it, would be missed.

use std::time::Duration;

use tokio::task;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Calls `changed` with what `read` gives once that differs from the time before, at first from
/// `seen`, and is the same twice, so that a file is not taken while it is written; until `ended`.
/// Both may block. What cannot be read belongs into what is read, so that it is complained of once.
pub async fn follow<T: PartialEq + Send + 'static>(
    mut seen: T,
    read: impl Fn() -> T + Clone + Send + 'static,
    mut changed: impl FnMut(&T) + Send + 'static,
    ended: CancellationToken,
) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = None;
    while ended.run_until_cancelled(looks.tick()).await.is_some() {
        let Ok(now) = task::spawn_blocking(read.clone()).await else { return };
        if now != seen && before.as_ref() == Some(&now) {
            let tell = move || {
                changed(&now);
                (changed, now)
            };
            let Ok(told) = task::spawn_blocking(tell).await else { return };
            (changed, seen) = told;
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
    async fn what_is_there_for_one_look_only_is_not_taken() {
        let mut texts = ["a", "half", "b", "b", "b", ""].into_iter().chain(std::iter::repeat("b"));
        let read = Arc::new(Mutex::new(move || texts.next().unwrap()));
        let (told, heard) = mpsc::channel();
        let ended = CancellationToken::new();
        let changed = move |now: &&'static str| told.send(*now).unwrap();
        let following = follow("a", move || read.lock().unwrap()(), changed, ended.clone());
        let following = tokio::spawn(following);
        sleep(9 * LOOK_EVERY).await;
        ended.cancel();
        following.await.unwrap();
        assert_eq!(heard.iter().collect::<Vec<_>>(), ["b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_change_is_told_once() {
        let file = Arc::new(Mutex::new("a"));
        let read = {
            let file = Arc::clone(&file);
            move || *file.lock().unwrap()
        };
        let (told, heard) = mpsc::channel();
        let ended = CancellationToken::new();
        let following = follow("a", read, move |now| told.send(*now).unwrap(), ended.clone());
        let following = tokio::spawn(following);
        for now in ["a", "b", "b", "a"] {
            *file.lock().unwrap() = now;
            sleep(3 * LOOK_EVERY).await;
        }
        ended.cancel();
        following.await.unwrap();
        assert_eq!(heard.iter().collect::<Vec<_>>(), ["b", "a"]);
    }
}
