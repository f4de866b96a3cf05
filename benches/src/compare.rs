//! Compares servers under load.
//!
//! A *candidate* is a server with the load that is sent to it. Candidates are measured in turn, A B C A B C: if the
//! machine slows down, this affects all of them. All candidates are warmed up before the first measurement.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use devstack::{Service, usage};

use crate::load::{Load, Outcome};
use crate::plan::Plan;
use crate::progress;
use crate::report::table::{Repeat, Row, Unit};
use crate::servers::world;

/// Number of simultaneous connections, unless a candidate has another number.
const CONNECTIONS: usize = 500;

/// Length of each candidate's warm-up. The warm-up is needed because Kafka's JVM compiles code in its first seconds.
const WARM_UP: Duration = Duration::from_secs(2);

/// A server, and the load for it.
pub struct Candidate {
    what: String,
    load: Load,
    unit: Unit,
    per_request: usize,
    /// Names and ids of the processes whose CPU time is counted for the candidate.
    processes: Vec<(&'static str, u32)>,
}

impl Candidate {
    /// A candidate whose load sends `requests` to `service` as fast as the service answers them. `name` is the name of
    /// the service's program.
    pub fn new(
        what: impl Into<String>,
        name: &'static str,
        service: &mut Service,
        requests: &Arc<[Bytes]>,
    ) -> anyhow::Result<Self> {
        Ok(Self::at(what, world::addr(service)?, (name, service.process().id()), requests))
    }

    /// A candidate whose load sends `requests` to `addr`. `process` is the name and the id of the process that listens
    /// on `addr`.
    pub fn at(
        what: impl Into<String>,
        addr: SocketAddr,
        process: (&'static str, u32),
        requests: &Arc<[Bytes]>,
    ) -> Self {
        let requests = Arc::clone(requests);
        let load = Load { addr, connections: CONNECTIONS, rate: None, requests };
        Self { what: what.into(), load, unit: Unit::Requests, per_request: 1, processes: vec![process] }
    }

    /// Counts events instead of requests. Each request has `per_request` events.
    pub fn of_events(self, per_request: usize) -> Self {
        Self { unit: Unit::Events, per_request, ..self }
    }

    /// Uses this number of connections.
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.load.connections = connections;
        self
    }

    /// Sends `rate` requests a second instead of as many as the server answers.
    pub fn at_rate(mut self, rate: f64) -> Self {
        self.load.rate = Some(rate);
        self
    }

    /// Also counts the CPU time of this process.
    pub fn with_process(mut self, name: &'static str, process: u32) -> Self {
        self.processes.push((name, process));
        self
    }

    /// The candidate's row in the report's table, still without measurements.
    pub fn row(&self) -> Row {
        Row::new(&*self.what, self.unit)
    }

    /// Sends the load for `duration`.
    pub async fn run(&self, duration: Duration) -> anyhow::Result<Outcome> {
        let outcome = self.load.run(duration).await?;
        let Outcome { answered, failed, .. } = outcome;
        ensure!(failed == 0, "{}: {failed} requests failed, {answered} did not", self.what);
        Ok(outcome)
    }

    /// CPU seconds that each process of the candidate has used so far.
    pub fn cpu(&self) -> anyhow::Result<Vec<f64>> {
        self.processes.iter().map(|(_, id)| usage::seconds(*id)).collect()
    }

    /// The figures of a run that has just ended. `before` is the value of [`Candidate::cpu`] at the start of the run.
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

/// Measures each candidate `plan.repeats` times, in turn, and returns a row of the report's table for each candidate.
pub async fn compare(candidates: &[Candidate], plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let mut rows: Vec<_> = candidates.iter().map(Candidate::row).collect();
    for candidate in candidates {
        progress::print(&format!("{}, warming up", candidate.what));
        candidate.run(WARM_UP).await?;
    }
    for repeat in 1..=plan.repeats {
        for (row, candidate) in rows.iter_mut().zip(candidates) {
            progress::print(&format!("{}, {repeat} of {}", candidate.what, plan.repeats));
            let before = candidate.cpu()?;
            let outcome = candidate.run(plan.duration).await?;
            row.repeats.push(candidate.repeat(&outcome, &before)?);
        }
    }
    Ok(rows)
}
