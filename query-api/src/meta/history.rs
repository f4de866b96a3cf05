//! From which moment on each rollup has every event, as the aggregator notes it in `rollup_since`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clickhouse::Row;
use schemas::time::UnixMillis;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time;

use crate::config::ClickHouseConfig;
use crate::query::fetch::Database;
use crate::query::sql::Statement;
use crate::state::AppState;

/// Longest wait for ClickHouse. The rest of `/v1/meta` needs no database, so it does not wait for long.
const DEADLINE: Duration = Duration::from_secs(1);

/// A moment at or after this one means that the aggregator does not count into the rollup at present: it stores
/// 2299-12-31 then (`stream_agg::protocol::since`). This is two days earlier, because of clocks and rounding.
const NOT_COUNTED: i64 = 10_413_619_200_000;

const STATEMENT: &str = "SELECT toString(rollup) AS named, toUnixTimestamp64Milli(max(since)) AS counted_from FROM rollup_since FINAL GROUP BY named";

/// Which events a rollup has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum History {
    /// All that ever arrived.
    Whole,
    /// All since a moment: it was declared later than others.
    Since(UnixMillis),
    /// The aggregator does not count into it at present.
    NotCounted,
    /// ClickHouse did not say.
    Unknown,
}

impl History {
    fn of(since: i64) -> Self {
        match since {
            ..=0 => Self::Whole,
            NOT_COUNTED.. => Self::NotCounted,
            since => Self::Since(UnixMillis(since)),
        }
    }

    /// As `/v1/meta` names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Since(_) => "since",
            Self::NotCounted => "not_counted",
            Self::Unknown => "unknown",
        }
    }

    /// The moment of `since`.
    pub(super) fn since(self) -> Option<UnixMillis> {
        if let Self::Since(since) = self { Some(since) } else { None }
    }
}

/// What ClickHouse has of each rollup that was declared late; `None` if it did not answer.
pub(super) type Histories = Option<Arc<HashMap<String, History>>>;

/// The history of `rollup`. A rollup without a row was declared before the first event.
pub(super) fn of(histories: &Histories, rollup: &str) -> History {
    match histories {
        Some(known) => known.get(rollup).copied().unwrap_or(History::Whole),
        None => History::Unknown,
    }
}

/// Asks ClickHouse at most once for each snapshot, however many ask for `/v1/meta`.
pub(super) struct HistoryReader {
    database: Database,
    state: Arc<AppState>,
    /// The snapshot at which ClickHouse was last asked, and what is known since.
    last: Mutex<(Option<u64>, Histories)>,
}

#[derive(Row, Deserialize)]
struct SinceRow {
    named: String,
    counted_from: i64,
}

impl HistoryReader {
    pub(super) fn new(clickhouse: &ClickHouseConfig, state: Arc<AppState>) -> Self {
        Self { database: Database::new(clickhouse), state, last: Mutex::default() }
    }

    /// The histories of this moment, or the latest ones if ClickHouse does not answer.
    pub(super) async fn read(&self) -> Histories {
        let snapshot = *self.state.snapshots.borrow();
        let mut last = self.last.lock().await;
        if last.0 != Some(snapshot) {
            last.0 = Some(snapshot);
            let statement = Statement { text: STATEMENT.to_owned(), ..Statement::default() };
            if let Ok(Ok(rows)) = time::timeout(DEADLINE, self.database.rows::<SinceRow>(statement)).await {
                let histories = rows.into_iter().map(|row| (row.named, History::of(row.counted_from)));
                last.1 = Some(Arc::new(histories.collect()));
            }
        }
        last.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_of_a_rollup_that_is_not_counted_is_never_shown_as_a_moment() {
        for (text, history) in [
            ("1970-01-01 00:00:00.000", History::Whole),
            ("2299-12-31 00:00:00.000", History::NotCounted),
            ("2026-11-29 06:00:00.000", History::Since(UnixMillis(1_795_932_000_000))),
        ] {
            assert_eq!(History::of(UnixMillis::parse(text).unwrap().0), history, "{text}");
        }
        assert_eq!(of(&None, "a"), History::Unknown);
        assert_eq!(of(&Some(Arc::default()), "a"), History::Whole);
    }
}
