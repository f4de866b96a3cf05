//! Who takes part in a comparison, and how it is run.
//!
//! Contestants run in turn, A B C A B C, so that a machine that slows down slows all of them,
//! and none counts before each has been warmed up.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use devstack::{Service, usage};

use crate::load::{Load, Outcome};
use crate::measure::say;
use crate::table::{Repeat, Row, Unit};
use crate::world;

/// Connections at once, unless a contestant says otherwise.
const CONNECTIONS: usize = 500;

/// Of each contestant before anything counts: Kafka's JVM compiles its code in its first seconds.
const WARM_UP: Duration = Duration::from_secs(2);

/// A server under a load.
pub struct Contestant {
    what: String,
    load: Load,
    unit: Unit,
    per_request: usize,
    /// Names and ids of the processes whose CPU it costs.
    processes: Vec<(&'static str, u32)>,
}

impl Contestant {
    /// `service`, whose program is called `name`, under as many requests as it answers.
    pub fn new(
        what: impl Into<String>,
        name: &'static str,
        service: &mut Service,
        requests: &Arc<[Bytes]>,
    ) -> anyhow::Result<Self> {
        let load = Load {
            addr: world::addr(service)?,
            connections: CONNECTIONS,
            rate: None,
            requests: Arc::clone(requests),
        };
        let processes = vec![(name, service.process().id())];
        Ok(Self { what: what.into(), load, unit: Unit::Requests, per_request: 1, processes })
    }

    /// Counted in events, so many in each request.
    pub fn of_events(self, per_request: usize) -> Self {
        Self { unit: Unit::Events, per_request, ..self }
    }

    /// By so many connections.
    pub fn by(mut self, connections: usize) -> Self {
        self.load.connections = connections;
        self
    }

    /// At so many requests a second instead of flat out.
    pub fn at(mut self, rate: f64) -> Self {
        self.load.rate = Some(rate);
        self
    }

    /// It costs this process CPU too.
    pub fn with(mut self, name: &'static str, process: u32) -> Self {
        self.processes.push((name, process));
        self
    }

    /// Its line of the table, with nothing measured yet.
    pub fn row(&self) -> Row {
        Row::new(&*self.what, self.unit)
    }

    /// Puts it under its load for `duration`.
    pub async fn run(&self, duration: Duration) -> anyhow::Result<Outcome> {
        let outcome = self.load.run(duration).await?;
        let Outcome { answered, failed, .. } = outcome;
        ensure!(failed == 0, "{}: {failed} requests failed, {answered} did not", self.what);
        Ok(outcome)
    }

    /// CPU seconds of each of its processes so far.
    pub fn cpu(&self) -> anyhow::Result<Vec<f64>> {
        self.processes.iter().map(|(_, id)| usage::seconds(*id)).collect()
    }

    /// What a run came to that began when [`Contestant::cpu`] was `before` and ends now.
    pub fn repeat(&self, outcome: &Outcome, before: &[f64]) -> anyhow::Result<Repeat> {
        let units = outcome.answered * self.per_request as u64;
        let after = self.cpu()?;
        let names = self.processes.iter().map(|(name, _)| *name);
        let seconds = names.zip(after.iter().zip(before).map(|(after, before)| after - before));
        Ok(Repeat {
            units,
            rate: units as f64 / outcome.elapsed.as_secs_f64(),
            latency: Some((outcome.millis(0.5), outcome.millis(0.99))),
            cpu_seconds: seconds.collect(),
            ..Repeat::default()
        })
    }
}

/// Runs the contestants in turn, so many times; a line of the table for each.
pub async fn compare(
    contestants: &[Contestant],
    repeats: usize,
    duration: Duration,
) -> anyhow::Result<Vec<Row>> {
    let mut rows: Vec<_> = contestants.iter().map(Contestant::row).collect();
    for contestant in contestants {
        say(&format!("{}, warming up", contestant.what));
        contestant.run(WARM_UP).await?;
    }
    for repeat in 1..=repeats {
        for (row, contestant) in rows.iter_mut().zip(contestants) {
            say(&format!("{}, {repeat} of {repeats}", contestant.what));
            let before = contestant.cpu()?;
            let outcome = contestant.run(duration).await?;
            row.repeats.push(contestant.repeat(&outcome, &before)?);
        }
    }
    Ok(rows)
}
