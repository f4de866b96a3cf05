//! The outcome of a run, and whether enough faults happened for the run to prove something. Pure.

use serde_json::json;

use crate::chaos::schedule::Kind;

/// Minimum number of kills of each kind of process. A run with fewer kills fails, because it proves too little.
const LEAST_KILLS: u64 = 3;
/// Minimum of [`Report::recovered_intents`]. A run below this minimum fails, because it proves too little.
const LEAST_RECOVERED: u64 = 5;
/// Maximum share of unanswered requests, in percent. A run above this maximum fails, because it proves too little: the
/// events of an unanswered request may or may not be stored.
const MAX_UNANSWERED_PERCENT: usize = 5;

/// The additional figures of a long run: a run with long faults and a change in the middle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Long {
    /// Pauses of aggregators of at least 60 s. That is longer than the session timeout (6 s) and longer than the time
    /// in which a sent insert must end (55 s: it must start within 30 s, and ClickHouse stops it 25 s later).
    pub pauses: u64,
    /// Outages of ClickHouse of at least 40 s.
    pub clickhouse_away: u64,
    /// Partitions that were added during the run and hold records.
    pub partitions_added: u64,
    /// Events in the rollup that was added during the run.
    pub declared_later: u64,
    /// Partitions whose deduplication window has dropped records.
    pub windows_popped: u64,
}

impl Long {
    fn figures(&self) -> [(&'static str, u64); 5] {
        [
            ("long_pauses", self.pauses),
            ("clickhouse_away", self.clickhouse_away),
            ("partitions_added", self.partitions_added),
            ("declared_later", self.declared_later),
            ("windows_popped", self.windows_popped),
        ]
    }
}

/// The outcome of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of kills of each kind of process, in the order of [`Kind::ALL`].
    pub kills: [u64; 4],
    /// Number of times that a process was paused with SIGSTOP.
    pub pauses: u64,
    /// Number of requests that the load made. A retried request counts once.
    pub requests: usize,
    /// Requests that the edge acknowledged.
    pub acked: usize,
    /// Requests without an answer, or with an answer that does not say whether the events are stored.
    pub unanswered: usize,
    /// Batches that one process declared and that another process, or the same process after a restart, then rebuilt.
    pub recovered_intents: u64,
    /// Cells that a process did not insert, because their markers showed that an earlier owner had inserted them.
    pub conditional_skips: u64,
    /// Stored requests of thousands of lines.
    pub large: u64,
    /// Stored events with hostile fields.
    pub hostile: u64,
    /// Events that a rollup counted in `(other)`, because a batch had reached the group limit of the rollup.
    pub folded: u64,
    /// Events that went into the spool.
    pub spooled: u64,
    /// Whether the edge had a spool.
    pub spool: bool,
    /// The additional figures of a long run; `None` for other runs.
    pub long: Option<Long>,
    /// Missing events, summed over all tables and answers.
    pub missing: u64,
    /// Events that are counted too often, summed over all tables and answers.
    pub duplicated: u64,
    /// All problems, as lines of text. The first wrong requests, and the first wrong cells of each table, have a line
    /// each; the others share a line with their number.
    pub problems: Vec<String>,
}

impl Report {
    /// All reasons why the run failed; none if it passed.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = self.problems.clone();
        if self.missing + self.duplicated > 0 {
            failures.push(format!("{} events missing, {} duplicated", self.missing, self.duplicated));
        }
        for (kind, kills) in Kind::ALL.into_iter().zip(self.kills) {
            if kills < LEAST_KILLS {
                failures.push(format!(
                    "too little happened: {} was killed {kills} times, at least {LEAST_KILLS} are needed",
                    kind.name()
                ));
            }
        }
        if self.recovered_intents < LEAST_RECOVERED {
            failures.push(format!(
                "too little happened: {} intents were recovered, at least {LEAST_RECOVERED} are needed",
                self.recovered_intents
            ));
        }
        let long = self.long.iter().flat_map(Long::figures);
        for (what, count) in self.needed().chain(long) {
            if count == 0 {
                failures.push(format!("too little happened: the number of `{what}` is 0"));
            }
        }
        if self.acked == 0 || self.unanswered * 100 > self.requests * MAX_UNANSWERED_PERCENT {
            failures.push(format!(
                "too few outcomes are known: of {} requests, {} were acked and {} stayed unanswered; \
                 at least one must be acked, and at most {MAX_UNANSWERED_PERCENT} % may stay unanswered",
                self.requests, self.acked, self.unanswered
            ));
        }
        failures
    }

    /// What must happen at least once in a run, and how often it happened. Only a run with a spool must have events in
    /// the spool.
    fn needed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let spooled = self.spool.then_some(("events in the spool", self.spooled));
        let others =
            [("large requests", self.large), ("hostile fields", self.hostile), ("folded rows", self.folded)];
        others.into_iter().chain(spooled)
    }

    /// The report as one line of text.
    pub fn line(&self) -> String {
        let kills =
            Kind::ALL.into_iter().zip(self.kills).map(|(kind, kills)| format!("{}:{kills}", kind.name()));
        format!(
            "chaos: kills={} pauses={} acked={} unanswered={} recovered_intents={} conditional_skips={} \
             large={} hostile={} folded={} spooled={}{} missing={} duplicated={}",
            kills.collect::<Vec<_>>().join(","),
            self.pauses,
            self.acked,
            self.unanswered,
            self.recovered_intents,
            self.conditional_skips,
            self.large,
            self.hostile,
            self.folded,
            self.spooled,
            self.long
                .iter()
                .flat_map(Long::figures)
                .map(|(name, figure)| format!(" {name}={figure}"))
                .collect::<String>(),
            self.missing,
            self.duplicated
        )
    }

    /// The report as one JSON object, with the failures.
    pub fn json(&self) -> String {
        let kills: serde_json::Map<_, _> = Kind::ALL
            .into_iter()
            .zip(self.kills)
            .map(|(kind, kills)| (kind.name().to_owned(), json!(kills)))
            .collect();
        let long: serde_json::Map<_, _> = self
            .long
            .iter()
            .flat_map(Long::figures)
            .map(|(name, figure)| (name.to_owned(), json!(figure)))
            .collect();
        json!({
            "long": long, "kills": kills, "pauses": self.pauses, "requests": self.requests, "acked": self.acked,
            "unanswered": self.unanswered, "recovered_intents": self.recovered_intents,
            "conditional_skips": self.conditional_skips, "large": self.large, "hostile": self.hostile,
            "folded": self.folded, "spooled": self.spooled, "missing": self.missing,
            "duplicated": self.duplicated, "failures": self.failures(),
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        Report {
            kills: [3, 8, 4, 5],
            pauses: 6,
            requests: 1010,
            acked: 1000,
            unanswered: 2,
            recovered_intents: 5,
            large: 1,
            hostile: 1,
            folded: 1,
            spooled: 1,
            spool: true,
            ..Report::default()
        }
    }

    fn long() -> Long {
        Long { pauses: 2, clickhouse_away: 2, partitions_added: 1, declared_later: 7, windows_popped: 6 }
    }

    #[test]
    fn the_last_line_of_a_long_run_has_its_further_figures() {
        let line = Report { long: Some(long()), ..good() }.line();
        let besides =
            "spooled=1 long_pauses=2 clickhouse_away=2 partitions_added=1 declared_later=7 windows_popped=6 ";
        assert!(line.contains(besides), "{line}");
    }

    #[test]
    fn the_last_line_has_all_figures() {
        assert_eq!(
            good().line(),
            "chaos: kills=edge:3,agg:8,kafka:4,clickhouse:5 pauses=6 acked=1000 unanswered=2 \
             recovered_intents=5 conditional_skips=0 large=1 hostile=1 folded=1 spooled=1 missing=0 \
             duplicated=0"
        );
        let json: serde_json::Value = serde_json::from_str(&good().json()).unwrap();
        assert_eq!((&json["kills"]["agg"], &json["failures"]), (&json!(8), &json!([])));
    }

    #[track_caller]
    fn check(spoil: impl Fn(&mut Report), reason: &str) {
        let mut report = good();
        spoil(&mut report);
        let failures = report.failures();
        assert!(failures.len() == 1 && failures[0].contains(reason), "{failures:?}");
    }

    #[test]
    fn a_run_fails_if_too_little_happened_or_if_a_count_is_wrong() {
        assert!(good().failures().is_empty());
        check(|report| report.kills[2] = 2, "kafka was killed 2 times");
        check(|report| report.recovered_intents = 4, "4 intents were recovered");
        check(|report| report.large = 0, "number of `large requests` is 0");
        check(|report| report.hostile = 0, "number of `hostile fields` is 0");
        check(|report| report.folded = 0, "number of `folded rows` is 0");
        check(|report| report.spooled = 0, "number of `events in the spool` is 0");
        assert!(Report { spooled: 0, spool: false, ..good() }.failures().is_empty());
        check(|report| report.long = Some(Long { windows_popped: 0, ..long() }), "`windows_popped` is 0");
        assert!(Report { long: Some(long()), ..good() }.failures().is_empty());
        check(|report| report.unanswered = 51, "51 stayed unanswered");
        check(|report| report.acked = 0, "0 were acked");
        check(|report| report.missing = 1, "1 events missing");
        check(|report| report.duplicated = 1, "1 duplicated");
        check(|report| report.problems.push("no answer".to_owned()), "no answer");
    }
}
