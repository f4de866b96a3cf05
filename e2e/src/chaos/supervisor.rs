//! The supervisor of one process: injects the faults of the process one after another, and restarts it when it exits.
//!
//! Invariants: a process that should run and has exited for any reason is restarted on the same ports. When a
//! supervisor returns without an error, its process runs or was stopped on purpose.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use devstack::process::Process;
use devstack::{ClickHouse, Kafka, Service};
use rustix::process::Signal;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::chaos::mid_run_change::MidRunChange;
use crate::chaos::observe::{Clock, Counter, RunStats};
use crate::chaos::schedule::{Action, Fault, Target};
use crate::client::Http;

/// Interval between two checks of whether the process runs.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Longest wait for the metrics of the process.
const SCRAPE_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum number of attempts to start a process.
const START_TRIES: usize = 3;

/// The exit code of Millrace's programs after a panic.
const PANIC_CODE: i32 = 101;
/// A start that takes longer than this is noted in the progress lines.
const SLOW_START: Duration = Duration::from_secs(3);

/// A supervised process.
pub(crate) enum Supervised {
    Kafka(Kafka),
    ClickHouse(ClickHouse),
    Service(Service),
}

impl Supervised {
    /// Starts the process. Waits until Kafka or ClickHouse answers, but does not wait until a service is ready.
    async fn start(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Kafka(kafka) => kafka.start().await,
            Self::ClickHouse(clickhouse) => clickhouse.start().await,
            Self::Service(service) => service.restart(),
        }
    }

    /// The child process, for example to send it a signal.
    fn handle(&mut self) -> anyhow::Result<&mut Process> {
        match self {
            Self::Kafka(kafka) => kafka.process(),
            Self::ClickHouse(clickhouse) => clickhouse.process(),
            Self::Service(service) => Ok(service.process()),
        }
    }
}

/// Supervises one process.
pub(crate) struct Supervisor {
    target: Target,
    process: Supervised,
    stats: Arc<RunStats>,
    clock: Arc<Clock>,
    /// The change in the middle of a long run, until it is applied to the process.
    change: Option<Arc<MidRunChange>>,
    /// A client for the metrics of the process, if the process is a service of Millrace.
    metrics: Option<Http>,
    /// The counters of the process since its last start, as they were last read.
    counters: [u64; Counter::ALL.len()],
    /// Whether the process should run.
    should_run: bool,
}

impl Supervisor {
    /// A supervisor for a running process.
    pub(crate) fn new(
        target: Target,
        process: Supervised,
        stats: Arc<RunStats>,
        clock: Arc<Clock>,
        change: Arc<MidRunChange>,
    ) -> Self {
        let metrics = match &process {
            Supervised::Service(service) => Some(Http::with_timeout(service.admin(), SCRAPE_TIMEOUT)),
            Supervised::Kafka(_) | Supervised::ClickHouse(_) => None,
        };
        let change = Some(change);
        Self {
            target,
            process,
            stats,
            clock,
            change,
            metrics,
            counters: Default::default(),
            should_run: true,
        }
    }

    /// Injects the faults that begin within `length`, and returns when the last one is over.
    pub(crate) async fn inject(&mut self, faults: &[Fault], length: Duration) -> anyhow::Result<()> {
        for fault in faults {
            self.watch().await?;
            while self.clock.elapsed() < fault.at {
                time::sleep((fault.at - self.clock.elapsed().min(fault.at)).min(CHECK_INTERVAL)).await;
                self.watch().await?;
            }
            if self.clock.elapsed() > length {
                return Ok(());
            }
            // After `Action::Leave`, there is no process that could be killed or paused.
            if !self.should_run && matches!(fault.action, Action::Kill(_) | Action::Pause(_)) {
                continue;
            }
            let at = self.clock.elapsed().as_secs_f64();
            self.stats.note(format!("{at:.1} {} {}", self.target, fault.action));
            self.apply(fault.action).await?;
        }
        Ok(())
    }

    /// Keeps the process running until `stop`, and then reports its counters.
    pub(crate) async fn keep_running(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled() {
            self.watch().await?;
            time::sleep(CHECK_INTERVAL).await;
        }
        self.scrape().await;
        self.report_counters();
        Ok(())
    }

    /// Restarts the process if it has exited unexpectedly or must run with the changed settings. Reads its counters.
    async fn watch(&mut self) -> anyhow::Result<()> {
        self.follow_change().await?;
        if let Some(status) = self.process.handle()?.exited()
            && self.should_run
        {
            let text = format!("{} ended unexpectedly, {status}", self.target);
            match self.target {
                // An exit without a panic can be right for an aggregator: it must exit if Kafka has fenced it, because
                // a process that started later joined the group as the same static member.
                Target::Aggregator(_) if status.code() != Some(PANIC_CODE) => self.stats.note(text),
                Target::Aggregator(_) | Target::Edge => self.stats.problem(text),
                Target::Kafka | Target::ClickHouse => self.stats.note(text),
            }
            self.report_counters();
            self.start().await?;
        }
        self.scrape().await;
        Ok(())
    }

    /// Gives an aggregator the changed settings once its turn has come. Then kills and restarts the aggregator, unless
    /// it has left the group. The kill can leave a declared batch unfinished, which a process with other rollups must
    /// then finish.
    async fn follow_change(&mut self) -> anyhow::Result<()> {
        let (Target::Aggregator(number), Supervised::Service(service)) = (self.target, &mut self.process)
        else {
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
        self.stats.note(format!("{at:.1} {} gets one more rollup and a small dedup window", self.target));
        if self.should_run { self.apply(Action::Kill(Duration::ZERO)).await } else { Ok(()) }
    }

    async fn apply(&mut self, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Kill(down) => {
                self.scrape().await;
                self.process.handle()?.kill9();
                self.stats.add_kill(self.target.kind());
                self.stats.count_clickhouse_outage(self.target, down);
                self.report_counters();
                time::sleep(down).await;
                self.start().await
            }
            Action::Pause(lasts) => {
                self.process.handle()?.signal(Signal::STOP)?;
                self.stats.add_pause(self.target, lasts);
                time::sleep(lasts).await;
                self.process.handle()?.signal(Signal::CONT)
            }
            Action::Leave => {
                self.should_run = false;
                self.scrape().await;
                if let Supervised::Service(service) = &mut self.process
                    && let Err(error) = service.terminate().await
                {
                    self.stats.note(format!("{} did not end in time: {error:#}", self.target));
                }
                self.report_counters();
                Ok(())
            }
            Action::Join => {
                self.should_run = true;
                if self.process.handle()?.exited().is_some() { self.start().await } else { Ok(()) }
            }
        }
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        // The clock is stopped while Kafka or ClickHouse starts: no scheduled fault begins and no new request is made
        // meanwhile. A slow machine thus gets the same faults under the same load as a fast machine.
        let _held = matches!(self.target, Target::Kafka | Target::ClickHouse).then(|| self.clock.hold());
        let started = Instant::now();
        for _ in 1..START_TRIES {
            match self.process.start().await {
                Ok(()) => {
                    let took = started.elapsed();
                    if took > SLOW_START {
                        self.stats.note(format!("{} took {:.1} s to start", self.target, took.as_secs_f64()));
                    }
                    return Ok(());
                }
                Err(error) => self.stats.note(format!("{} did not start: {error:#}", self.target)),
            }
            self.process.handle()?.kill9();
        }
        self.process.start().await.with_context(|| format!("start {} again", self.target))
    }

    /// Reads the counters of the process. If the process does not answer, keeps the last values.
    async fn scrape(&mut self) {
        let Some(metrics) = self.metrics.as_ref().filter(|_| self.should_run) else { return };
        for counter in Counter::of(self.target.kind()) {
            if let Some(value) = metrics.metric(counter.metric()).await {
                let last = &mut self.counters[counter as usize];
                *last = value.max(*last);
            }
        }
    }

    fn report_counters(&mut self) {
        self.stats.add_counters(std::mem::take(&mut self.counters));
    }
}
