//! One process and what happens to it, one fault after the other.
//!
//! Invariants: a process that should run and has ended is started again, whoever ended it,
//! on the same ports; when a lane is done, its process runs or has left on purpose.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use devstack::process::Process;
use devstack::{ClickHouse, Kafka, Service};
use rustix::process::Signal;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::chaos::change::Change;
use crate::chaos::clock::Clock;
use crate::chaos::counter::Counter;
use crate::chaos::schedule::{Action, Fault, Target};
use crate::chaos::tally::Tally;
use crate::client::Http;

/// Between two looks whether it lives.
const WATCH: Duration = Duration::from_millis(250);
/// A scrape of its metrics.
const SCRAPE: Duration = Duration::from_millis(500);
/// A server that will not start after so many tries will not at all.
const STARTS: usize = 3;

/// The status of a program of ours that has panicked.
const PANICKED: i32 = 101;
/// A start that takes longer is told.
const WORTH_A_NOTE: Duration = Duration::from_secs(3);

/// The process itself.
pub(crate) enum Subject {
    Kafka(Kafka),
    ClickHouse(ClickHouse),
    Service(Service),
}

impl Subject {
    /// Starts it; servers are waited for, services become ready in their own time.
    async fn start(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Kafka(kafka) => kafka.start().await,
            Self::ClickHouse(clickhouse) => clickhouse.start().await,
            Self::Service(service) => service.restart(),
        }
    }

    fn process(&mut self) -> anyhow::Result<&mut Process> {
        match self {
            Self::Kafka(kafka) => kafka.process(),
            Self::ClickHouse(clickhouse) => clickhouse.process(),
            Self::Service(service) => Ok(service.process()),
        }
    }
}

/// A process, its name, and what is known of it.
pub(crate) struct Lane {
    target: Target,
    subject: Subject,
    tally: Arc<Tally>,
    clock: Arc<Clock>,
    /// Until it has followed it.
    change: Option<Arc<Change>>,
    /// Its metrics, if it is one of ours.
    metrics: Option<Http>,
    /// What it had counted in this life when it was last asked.
    counted: [u64; Counter::ALL.len()],
    /// Whether it should run.
    wanted: bool,
}

impl Lane {
    /// The lane of a process that runs.
    pub(crate) fn new(
        target: Target,
        subject: Subject,
        tally: Arc<Tally>,
        clock: Arc<Clock>,
        change: Arc<Change>,
    ) -> Self {
        let metrics = match &subject {
            Subject::Service(service) => Some(Http::patient(service.admin(), SCRAPE)),
            Subject::Kafka(_) | Subject::ClickHouse(_) => None,
        };
        let change = Some(change);
        Self { target, subject, tally, clock, change, metrics, counted: Default::default(), wanted: true }
    }

    /// Lets the faults happen that begin within `length`, and returns when the last one is over.
    pub(crate) async fn suffer(&mut self, faults: &[Fault], length: Duration) -> anyhow::Result<()> {
        for fault in faults {
            self.watch().await?;
            while self.clock.elapsed() < fault.at {
                time::sleep((fault.at - self.clock.elapsed().min(fault.at)).min(WATCH)).await;
                self.watch().await?;
            }
            if self.clock.elapsed() > length {
                return Ok(());
            }
            // What has left cannot be hurt.
            if !self.wanted && matches!(fault.action, Action::Kill(_) | Action::Pause(_)) {
                continue;
            }
            let at = self.clock.elapsed().as_secs_f64();
            self.tally.note(format!("{at:.1} {} {}", self.target, fault.action));
            self.inflict(fault.action).await?;
        }
        Ok(())
    }

    /// Keeps the process running until `stop`, and tells what it has counted.
    pub(crate) async fn keep(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled() {
            self.watch().await?;
            time::sleep(WATCH).await;
        }
        self.scrape().await;
        self.life_is_over();
        Ok(())
    }

    /// Starts it again if it has ended by itself or must follow the change, and asks what it has counted.
    async fn watch(&mut self) -> anyhow::Result<()> {
        self.follow().await?;
        if let Some(status) = self.subject.process()?.exited()
            && self.wanted
        {
            let text = format!("{} ended by itself, {status}", self.target);
            match self.target {
                // Fenced by its own next life, it is meant to end.
                Target::Aggregator(_) if status.code() != Some(PANICKED) => self.tally.note(text),
                Target::Aggregator(_) | Target::Edge => self.tally.wrong(text),
                Target::Kafka | Target::ClickHouse => self.tally.note(text),
            }
            self.life_is_over();
            self.start().await?;
        }
        self.scrape().await;
        Ok(())
    }

    /// Kills an aggregator when it is its turn to start under the later declaration: what it had
    /// declared is finished by a process that declares otherwise.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let (Target::Aggregator(number), Subject::Service(service)) = (self.target, &mut self.subject) else {
            return Ok(());
        };
        let Some(settings) = self.change.as_ref().and_then(|change| change.settings(number)) else {
            return Ok(());
        };
        self.change = None;
        for (name, value) in settings {
            service.set(name, &value);
        }
        let at = self.clock.elapsed().as_secs_f64();
        self.tally.note(format!("{at:.1} {} changes its declaration", self.target));
        if self.wanted { self.inflict(Action::Kill(Duration::ZERO)).await } else { Ok(()) }
    }

    async fn inflict(&mut self, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Kill(down) => {
                self.scrape().await;
                self.subject.process()?.kill9();
                self.tally.killed(self.target.kind());
                self.tally.away(self.target, down);
                self.life_is_over();
                time::sleep(down).await;
                self.start().await
            }
            Action::Pause(lasts) => {
                self.subject.process()?.signal(Signal::STOP)?;
                self.tally.paused(self.target, lasts);
                time::sleep(lasts).await;
                self.subject.process()?.signal(Signal::CONT)
            }
            Action::Leave => {
                self.wanted = false;
                self.scrape().await;
                if let Subject::Service(service) = &mut self.subject
                    && let Err(error) = service.terminate().await
                {
                    self.tally.note(format!("{} did not end in time: {error:#}", self.target));
                }
                self.life_is_over();
                Ok(())
            }
            Action::Join => {
                self.wanted = true;
                if self.subject.process()?.exited().is_some() { self.start().await } else { Ok(()) }
            }
        }
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        // While nothing can be sent or stored, no other fault would show anything.
        let _held = matches!(self.target, Target::Kafka | Target::ClickHouse).then(|| self.clock.hold());
        let started = Instant::now();
        for _ in 1..STARTS {
            match self.subject.start().await {
                Ok(()) => {
                    let took = started.elapsed();
                    if took > WORTH_A_NOTE {
                        self.tally.note(format!("{} took {:.1} s to start", self.target, took.as_secs_f64()));
                    }
                    return Ok(());
                }
                Err(error) => self.tally.note(format!("{} did not start: {error:#}", self.target)),
            }
            self.subject.process()?.kill9();
        }
        self.subject.start().await.with_context(|| format!("start {} again", self.target))
    }

    /// Asks what it has counted; one that does not answer keeps what it last said.
    async fn scrape(&mut self) {
        let Some(metrics) = self.metrics.as_ref().filter(|_| self.wanted) else { return };
        for counter in Counter::of(self.target.kind()) {
            if let Some(value) = metrics.metric(counter.metric()).await {
                let counted = &mut self.counted[counter as usize];
                *counted = value.max(*counted);
            }
        }
    }

    fn life_is_over(&mut self) {
        self.tally.ended(std::mem::take(&mut self.counted));
    }
}
