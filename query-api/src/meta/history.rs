//! Which events each rollup has counted, according to the latest refresh.

use schemas::time::UnixMillis;

use crate::reach::Reach;

/// 2299-12-30, in seconds since 1970. While the aggregator does not count the events of a Kafka partition into a
/// rollup, it stores 2299-12-31 as the moment since which the rollup is complete (`stream_agg::protocol::since`). So a
/// moment at or after this constant means "not counted". The day between the two dates leaves room for rounding.
const NOT_COUNTED: i64 = 10_413_619_200;

/// Which events a rollup has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum History {
    /// All events that ever arrived.
    Whole,
    /// All events that arrived at or after this moment. Earlier events may be missing, for example because they arrived
    /// before the rollup was declared.
    Since(UnixMillis),
    /// For at least one Kafka partition, the aggregator does not count events into the rollup at present.
    NotCounted,
    /// This process has not had an answer from ClickHouse yet.
    Unknown,
}

impl History {
    fn of(since: i64) -> Self {
        match since {
            ..=0 => Self::Whole,
            NOT_COUNTED.. => Self::NotCounted,
            since => Self::Since(UnixMillis(since * 1000)),
        }
    }

    /// The name of the variant in `/v1/meta`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Since(_) => "since",
            Self::NotCounted => "not_counted",
            Self::Unknown => "unknown",
        }
    }

    /// The moment of [`History::Since`]; `None` for every other variant.
    pub(super) fn since(self) -> Option<UnixMillis> {
        if let Self::Since(since) = self { Some(since) } else { None }
    }
}

/// The history of `rollup`. The map `reach.since` has an entry for each rollup that lacks events; a rollup without an
/// entry has counted every event. If `reach` is `None`, ClickHouse has not answered yet.
pub(super) fn of(reach: Option<&Reach>, rollup: &str) -> History {
    match reach {
        Some(reach) => reach.since.get(rollup).map_or(History::Whole, |since| History::of(*since)),
        None => History::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moment_that_marks_an_uncounted_rollup_is_never_shown() {
        for (text, history) in [
            ("1970-01-01 00:00:00.000", History::Whole),
            ("2299-12-31 00:00:00.000", History::NotCounted),
            ("2026-11-29 06:00:00.000", History::Since(UnixMillis(1_795_932_000_000))),
        ] {
            let since = [("a".to_owned(), UnixMillis::parse(text).unwrap().0)];
            assert_eq!(of(Some(&Reach::new(None, &since, "")), "a"), history, "{text}");
        }
        assert_eq!(of(None, "a"), History::Unknown);
        assert_eq!(of(Some(&Reach::default()), "a"), History::Whole);
    }
}
