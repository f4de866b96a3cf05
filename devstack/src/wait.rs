//! Waits for a condition, with a deadline.

use std::time::Duration;

use tokio::time::{self, Instant};

/// Interval between two checks of a condition.
const INTERVAL: Duration = Duration::from_millis(20);

/// A condition that did not hold by its deadline.
#[derive(Debug, thiserror::Error)]
#[error("wait for {what}: it did not happen within {deadline:?}")]
pub struct DeadlineExceeded {
    /// The condition.
    pub what: String,
    /// The longest wait.
    pub deadline: Duration,
}

/// Checks every 20 ms until `condition` holds, and returns how long that took. A check that hangs counts
/// against the deadline too.
pub async fn wait_for(
    what: impl Into<String>,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) -> Result<Duration, DeadlineExceeded> {
    let started = Instant::now();
    let checks = async {
        while !condition().await {
            time::sleep(INTERVAL).await;
        }
    };
    match time::timeout(deadline, checks).await {
        Ok(()) => Ok(started.elapsed()),
        Err(_) => Err(DeadlineExceeded { what: what.into(), deadline }),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn the_wait_ends_when_the_condition_holds() {
        let mut looks = 0;
        let waited = wait_for("the third check", Duration::from_secs(1), async || {
            looks += 1;
            looks == 3
        });
        assert!(waited.await.unwrap() >= 2 * INTERVAL);
    }

    #[tokio::test]
    async fn the_error_names_the_condition_and_the_deadline_even_if_a_check_hangs() {
        let overdue = wait_for("a dead server", Duration::from_millis(30), async || pending().await).await;
        assert_eq!(overdue.unwrap_err().to_string(), "wait for a dead server: it did not happen within 30ms");
    }
}
