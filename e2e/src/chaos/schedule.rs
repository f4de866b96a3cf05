//! Generates the faults of a run from a seed: the process, the time and the kind of each fault.
//!
//! Invariants: the same seed and length give the same faults. In a run of a minute or more without long faults, every
//! kind of process is killed at least three times. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

/// A run is divided into slots of about this length, in seconds. Each slot has a kill of every process except the last
/// aggregator. About half of the slots also have a kill of the last aggregator; this kill is left out if the aggregator
/// has left the group at that time.
const SLOT_SECONDS: f64 = 14.0;
/// Number of seconds at the end of the schedule in which no fault begins, so that each process can recover
/// under load.
const FAULT_FREE_END_SECONDS: f64 = 3.0;
/// Number of aggregators. The last one leaves and joins the group again in every slot.
pub const AGGREGATORS: usize = 3;
/// The session timeout of an aggregator in seconds. If Kafka gets no heartbeat from an aggregator for this long, other
/// aggregators take over its partitions.
pub const SESSION_SECONDS: f64 = 6.0;

/// Lengths of the long pauses of an aggregator, in seconds.
pub const LONG_PAUSE_SECONDS: [u64; 2] = [60, 75];
/// Length of ClickHouse's outages in a long run, in seconds.
pub const OUTAGE_SECONDS: u64 = 40;

/// A process that gets faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The edge.
    Edge,
    /// An aggregator, by its number.
    Aggregator(usize),
    /// The Kafka broker.
    Kafka,
    /// The ClickHouse server.
    ClickHouse,
}

impl Target {
    /// All processes that get faults, each aggregator separately.
    pub const ALL: [Self; 3 + AGGREGATORS] = [
        Self::Edge,
        Self::Aggregator(0),
        Self::Aggregator(1),
        Self::Aggregator(2),
        Self::Kafka,
        Self::ClickHouse,
    ];

    /// The kind of this process. The report counts kills by kind.
    pub fn kind(self) -> Kind {
        match self {
            Self::Edge => Kind::Edge,
            Self::Aggregator(_) => Kind::Aggregator,
            Self::Kafka => Kind::Kafka,
            Self::ClickHouse => Kind::ClickHouse,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aggregator(number) => write!(f, "agg-{number}"),
            other => f.write_str(other.kind().name()),
        }
    }
}

/// Kinds of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The edge.
    Edge,
    /// All aggregators.
    Aggregator,
    /// The Kafka broker.
    Kafka,
    /// The ClickHouse server.
    ClickHouse,
}

impl Kind {
    /// All kinds, in the order of the report.
    pub const ALL: [Self; 4] = [Self::Edge, Self::Aggregator, Self::Kafka, Self::ClickHouse];

    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Aggregator => "agg",
            Self::Kafka => "kafka",
            Self::ClickHouse => "clickhouse",
        }
    }
}

/// What happens to a process: a fault or, for an aggregator, leaving or joining the consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL, and a restart after this time.
    Kill(Duration),
    /// SIGSTOP, and SIGCONT after this time.
    Pause(Duration),
    /// SIGTERM, and no restart.
    Leave,
    /// A start after [`Action::Leave`].
    Join,
}

impl Action {
    /// How long the process is down or paused; zero for [`Action::Leave`] and [`Action::Join`].
    fn lasts(self) -> Duration {
        match self {
            Self::Kill(lasts) | Self::Pause(lasts) => lasts,
            Self::Leave | Self::Join => Duration::ZERO,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(down) => write!(f, "kill for {:.1} s", down.as_secs_f64()),
            Self::Pause(lasts) => write!(f, "pause for {:.1} s", lasts.as_secs_f64()),
            Self::Leave => f.write_str("leave"),
            Self::Join => f.write_str("join"),
        }
    }
}

/// An action and its time. An action waits until the previous action on the same process is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The time since the start of the run.
    pub at: Duration,
    /// The action.
    pub action: Action,
}

/// The faults of each process, in the order of their times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule(BTreeMap<Target, Vec<Fault>>);

impl Schedule {
    /// The faults of a run of this length.
    pub fn new(seed: u64, length: Duration) -> Self {
        let mut plan = Plan { rng: Rng::with_seed(seed), faults: Self::default() };
        let length = length.as_secs_f64();
        let slots = ((length - FAULT_FREE_END_SECONDS) / SLOT_SECONDS).round().max(1.0);
        let slot = (length - FAULT_FREE_END_SECONDS).max(0.0) / slots;
        // Short runs have only short pauses, because longer pauses would take up most of the run.
        let longest_pause = (length / 8.0).clamp(2.0, 20.0);
        for number in 0..slots as u32 {
            let start = f64::from(number) * slot;
            plan.slot(start..start + slot, longest_pause);
        }
        plan.faults.0.values_mut().for_each(|faults| faults.sort_by_key(|fault| fault.at));
        plan.faults
    }

    /// Adds the faults of a long run, before and after the change in the middle: three pauses of aggregators and two
    /// outages of ClickHouse. Each pause lasts at least 60 s: the session of the aggregator expires, and no insert can
    /// run that long. Each outage lasts 40 s; one is a pause, the other a kill.
    pub fn with_long_faults(mut self, length: Duration) -> Self {
        let pause = |seconds| Action::Pause(Duration::from_secs(seconds));
        let [long, longer] = LONG_PAUSE_SECONDS;
        let faults = [
            (Target::Aggregator(0), 0.05, pause(long)),
            (Target::Aggregator(1), 0.2, pause(longer)),
            (Target::ClickHouse, 0.36, pause(OUTAGE_SECONDS)),
            (Target::ClickHouse, 0.65, Action::Kill(Duration::from_secs(OUTAGE_SECONDS))),
            (Target::Aggregator(0), 0.8, pause(long)),
        ];
        for (target, at, action) in faults {
            let (begin, lasts) = (length.mul_f64(at), action.lasts());
            let faults = self.0.entry(target).or_default();
            // Removes the other faults of this process that would begin during the long fault. These faults would wait
            // until the long fault ends, and then follow one another without a break.
            faults.retain(|fault| !(begin..begin + lasts).contains(&fault.at));
            faults.push(Fault { at: begin, action });
            faults.sort_by_key(|fault| fault.at);
        }
        self
    }

    /// The faults of one process.
    pub fn of(&self, target: Target) -> &[Fault] {
        self.0.get(&target).map_or(&[], Vec::as_slice)
    }
}

struct Plan {
    rng: Rng,
    faults: Schedule,
}

impl Plan {
    fn slot(&mut self, slot: Range<f64>, longest_pause: f64) {
        // In half of the slots two processes are killed at the same moment.
        let together = (self.rng.u8(..2) == 0).then(|| self.within(&slot, 0.0..0.8));
        let with = self.rng.usize(..5);
        for (number, target) in Target::ALL.into_iter().filter(|t| *t != Target::Aggregator(2)).enumerate() {
            let alone = self.within(&slot, 0.0..0.9);
            let is_with = number == with || number == (with + 2) % 5;
            let at = together.filter(|_| is_with).unwrap_or(alone);
            let down = self.down(target);
            self.add(target, at, Action::Kill(down));
        }
        let joiner = Target::Aggregator(2);
        let (leaves, joins) = (self.within(&slot, 0.0..0.4), self.within(&slot, 0.5..0.9));
        // Half of the slots also have a kill of this aggregator, possibly just before it leaves or just after it joins.
        // Between leaving and joining there is no process, so the supervisor leaves out the kill.
        if self.rng.bool() {
            let at = self.within(&slot, 0.0..1.0);
            let down = self.down(joiner);
            self.add(joiner, at, Action::Kill(down));
        }
        self.add(joiner, leaves, Action::Leave);
        self.add(joiner, joins, Action::Join);
        for _ in 0..self.rng.u8(1..=2) {
            let target = Target::ALL[self.rng.usize(..Target::ALL.len())];
            let at = self.within(&slot, 0.0..0.9);
            let lasts = self.pause(longest_pause);
            self.add(target, at, Action::Pause(lasts));
        }
    }

    fn within(&mut self, slot: &Range<f64>, part: Range<f64>) -> f64 {
        let length = slot.end - slot.start;
        slot.start + length * (part.start + self.rng.f64() * (part.end - part.start))
    }

    /// The time from a kill to the next start. For one in four kills of an aggregator, this time is longer than the
    /// session timeout.
    fn down(&mut self, target: Target) -> Duration {
        let seconds = match target.kind() {
            Kind::Aggregator if self.rng.u8(..4) == 0 => SESSION_SECONDS + 1.0 + self.rng.f64(),
            Kind::ClickHouse => self.rng.f64() * 2.0,
            _ => self.rng.f64(),
        };
        Duration::from_secs_f64(seconds)
    }

    /// The length of a pause. If the run is long enough, one pause in three is longer than an aggregator's session
    /// timeout.
    fn pause(&mut self, longest: f64) -> Duration {
        let long = self.rng.u8(..3) == 0 && longest > SESSION_SECONDS;
        let range = if long { SESSION_SECONDS..longest } else { 1.0..longest.min(4.0) };
        Duration::from_secs_f64(range.start + self.rng.f64() * (range.end - range.start))
    }

    fn add(&mut self, target: Target, at: f64, action: Action) {
        self.faults.0.entry(target).or_default().push(Fault { at: Duration::from_secs_f64(at), action });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn all(schedule: &Schedule) -> impl Iterator<Item = (Kind, Fault)> {
        Target::ALL.into_iter().flat_map(|t| schedule.of(t).iter().map(move |fault| (t.kind(), *fault)))
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_seed_other_faults() {
        assert_eq!(Schedule::new(1, MINUTE), Schedule::new(1, MINUTE));
        assert_ne!(Schedule::new(1, MINUTE), Schedule::new(2, MINUTE));
    }

    #[test]
    fn a_minute_kills_every_kind_more_than_three_times_whatever_the_seed() {
        for seed in 0..200 {
            let schedule = Schedule::new(seed, MINUTE);
            for kind in Kind::ALL {
                let kills =
                    all(&schedule).filter(|(of, f)| *of == kind && matches!(f.action, Action::Kill(_)));
                assert!(kills.count() > 3, "{} with seed {seed}", kind.name());
            }
            let pauses = all(&schedule).filter(|(_, f)| matches!(f.action, Action::Pause(_)));
            assert!(pauses.count() > 3, "seed {seed}");
        }
    }

    #[test]
    fn a_long_run_has_long_pauses_and_outages_during_which_no_fault_begins() {
        let length = Duration::from_secs(600);
        let schedule = Schedule::new(5, length).with_long_faults(length);
        let long = |fault: &Fault| fault.action.lasts() >= Duration::from_secs(OUTAGE_SECONDS);
        assert_eq!(all(&schedule).filter(|(_, fault)| long(fault)).count(), 5);
        for target in Target::ALL {
            let faults = schedule.of(target);
            assert!(faults.is_sorted_by_key(|fault| fault.at));
            let waits = |pair: &[Fault]| long(&pair[0]) && pair[1].at < pair[0].at + pair[0].action.lasts();
            assert!(!faults.windows(2).any(waits), "{target}: {faults:?}");
        }
    }

    #[test]
    fn faults_come_in_order_and_end_before_the_run() {
        for seconds in [1, 10, 60, 1800] {
            let schedule = Schedule::new(3, Duration::from_secs(seconds));
            for target in Target::ALL {
                assert!(schedule.of(target).is_sorted_by_key(|fault| fault.at));
            }
            assert!(all(&schedule).all(|(_, fault)| fault.at <= Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn long_runs_pause_longer_than_a_session_and_never_longer_than_twenty_seconds() {
        let schedule = Schedule::new(4, Duration::from_secs(1800));
        let pauses: Vec<_> = all(&schedule)
            .filter_map(|(_, f)| if let Action::Pause(p) = f.action { Some(p.as_secs_f64()) } else { None })
            .collect();
        assert!(pauses.iter().any(|lasts| *lasts > 2.0 * SESSION_SECONDS), "{pauses:?}");
        assert!(pauses.iter().all(|lasts| (1.0..=20.0).contains(lasts)), "{pauses:?}");
    }
}
