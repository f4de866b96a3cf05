//! What is done to whom, and when, from a seed.
//!
//! Invariants: the same seed and length give the same faults; from a minute on, every
//! kind of process is killed at least three times. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

/// The run is cut into slots of about this length, each with a kill of everything.
const SLOT: f64 = 14.0;
/// No fault begins so near the end: what it meant to break must get going again under load.
const LAST: f64 = 3.0;
/// Aggregators at once; the last one comes and goes.
pub const AGGREGATORS: usize = 3;
/// How long an aggregator must be silent until the others take over, in seconds.
pub const SESSION: f64 = 6.0;

/// Long pauses of an aggregator, in seconds.
pub const LONG_PAUSES: [u64; 2] = [60, 75];
/// How long ClickHouse is away in a long run, in seconds.
pub const AWAY: u64 = 40;

/// A process that faults happen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The edge.
    Edge,
    /// An aggregator, by its number.
    Aggregator(usize),
    /// The broker.
    Kafka,
    /// The database.
    ClickHouse,
}

impl Target {
    /// All, each aggregator for itself.
    pub const ALL: [Self; 3 + AGGREGATORS] = [
        Self::Edge,
        Self::Aggregator(0),
        Self::Aggregator(1),
        Self::Aggregator(2),
        Self::Kafka,
        Self::ClickHouse,
    ];

    /// Its kind, as the report names it.
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
    /// The broker.
    Kafka,
    /// The database.
    ClickHouse,
}

impl Kind {
    /// All, in the order of the report.
    pub const ALL: [Self; 4] = [Self::Edge, Self::Aggregator, Self::Kafka, Self::ClickHouse];

    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Aggregator => "agg",
            Self::Kafka => "kafka",
            Self::ClickHouse => "clickhouse",
        }
    }
}

/// What is done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `kill -9`, and a start after so long.
    Kill(Duration),
    /// SIGSTOP, and SIGCONT after so long.
    Pause(Duration),
    /// It is asked to end, and stays away.
    Leave,
    /// It comes back.
    Join,
}

impl Action {
    /// How long the process does nothing, if it is to come back by itself.
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

/// An action and its time from the start of the run. It waits until what was done to
/// the same process before is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub at: Duration,
    /// What.
    pub action: Action,
}

/// The faults of each process in the order of their times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule(BTreeMap<Target, Vec<Fault>>);

impl Schedule {
    /// The faults of a run of this length.
    pub fn new(seed: u64, length: Duration) -> Self {
        let mut plan = Plan { rng: Rng::with_seed(seed), faults: Self::default() };
        let length = length.as_secs_f64();
        let slots = ((length - LAST) / SLOT).round().max(1.0);
        let slot = (length - LAST).max(0.0) / slots;
        // Short runs hold short pauses, or they would hold nothing else.
        let longest_pause = (length / 8.0).clamp(2.0, 20.0);
        for number in 0..slots as u32 {
            let start = f64::from(number) * slot;
            plan.slot(start..start + slot, longest_pause);
        }
        plan.faults.0.values_mut().for_each(|faults| faults.sort_by_key(|fault| fault.at));
        plan.faults
    }

    /// The same, and what a long run has besides: aggregators silent past session, deadline and token, and
    /// ClickHouse away for 40 s, once paused and once killed; before and after the change in its middle.
    pub fn with_long_faults(mut self, length: Duration) -> Self {
        let pause = |seconds| Action::Pause(Duration::from_secs(seconds));
        let [long, longer] = LONG_PAUSES;
        let faults = [
            (Target::Aggregator(0), 0.05, pause(long)),
            (Target::Aggregator(1), 0.2, pause(longer)),
            (Target::ClickHouse, 0.36, pause(AWAY)),
            (Target::ClickHouse, 0.65, Action::Kill(Duration::from_secs(AWAY))),
            (Target::Aggregator(0), 0.8, pause(long)),
        ];
        for (target, at, action) in faults {
            let (begin, lasts) = (length.mul_f64(at), action.lasts());
            let faults = self.0.entry(target).or_default();
            // Or all that was meant to happen meanwhile would happen at once afterwards.
            faults.retain(|fault| !(begin..begin + lasts).contains(&fault.at));
            faults.push(Fault { at: begin, action });
            faults.sort_by_key(|fault| fault.at);
        }
        self
    }

    /// What happens to one process.
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
        // Now and then two of them at the same moment.
        let together = (self.rng.u8(..2) == 0).then(|| self.within(&slot, 0.0..0.8));
        let with = self.rng.usize(..5);
        for (number, target) in Target::ALL.into_iter().filter(|t| *t != Target::Aggregator(2)).enumerate() {
            let alone = self.within(&slot, 0.0..0.9);
            let is_with = number == with || number == (with + 2) % 5;
            let at = together.filter(|_| is_with).unwrap_or(alone);
            let down = self.down(target);
            self.add(target, at, Action::Kill(down));
        }
        let visitor = Target::Aggregator(2);
        let (leaves, joins) = (self.within(&slot, 0.0..0.4), self.within(&slot, 0.5..0.9));
        // A kill of one that is about to leave, or has just come.
        if self.rng.bool() {
            let at = self.within(&slot, 0.0..1.0);
            let down = self.down(visitor);
            self.add(visitor, at, Action::Kill(down));
        }
        self.add(visitor, leaves, Action::Leave);
        self.add(visitor, joins, Action::Join);
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

    /// One aggregator in four stays away for longer than its session.
    fn down(&mut self, target: Target) -> Duration {
        let seconds = match target.kind() {
            Kind::Aggregator if self.rng.u8(..4) == 0 => SESSION + 1.0 + self.rng.f64(),
            Kind::ClickHouse => self.rng.f64() * 2.0,
            _ => self.rng.f64(),
        };
        Duration::from_secs_f64(seconds)
    }

    /// One pause in three is longer than an aggregator's session, where the run is long enough.
    fn pause(&mut self, longest: f64) -> Duration {
        let long = self.rng.u8(..3) == 0 && longest > SESSION;
        let range = if long { SESSION..longest } else { 1.0..longest.min(4.0) };
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
    fn the_same_seed_gives_the_same_faults_and_another_one_others() {
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
    fn a_long_run_has_long_pauses_and_clickhouse_away() {
        let length = Duration::from_secs(600);
        let schedule = Schedule::new(5, length).with_long_faults(length);
        let long = |fault: &Fault| fault.action.lasts() >= Duration::from_secs(AWAY);
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
        assert!(pauses.iter().any(|lasts| *lasts > 2.0 * SESSION), "{pauses:?}");
        assert!(pauses.iter().all(|lasts| (1.0..=20.0).contains(lasts)), "{pauses:?}");
    }
}
