//! Chaos: kills, pauses, stops and starts the real programs under load by a seeded schedule, waits until they have
//! stored everything, and then compares every table and every answer of the query API with the responses of the edge.
//!
//! Invariants: chaos uses only interfaces that users and operators of the services have; its time and memory are
//! bounded by the length of the run; no process outlives the run. Chaos never relies on the services' own metrics to
//! decide whether the counts are right; the metrics only help to decide when to count and whether the run tested
//! enough.

use std::collections::HashMap;
use std::iter;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use devstack::process::log_tail;
use devstack::{Kafka, Service, Stack, wait_for};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{self, JoinSet};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::client::Http;
use crate::world::World;
use load::journal::{self, SharedJournal};
use load::sender::Sender;
use load::{Journal, Outcome};
use mid_run_change::MidRunChange;
use observe::{Clock, Counter, RunStats};
use report::{Long, Report};
use rollups::MAX_GROUPS;
use schedule::{AGGREGATORS, SESSION_SECONDS, Schedule, Target};
use supervisor::{Supervised, Supervisor};
use verify::Verdict;

pub mod schedule;

pub mod rollups;

pub mod observe;

pub mod load;

pub mod verify;

pub mod report;

mod mid_run_change;

mod supervisor;

/// Name of the topic, the database, the consumer group and the directory with the data and logs of the services.
const NAME: &str = "chaos";
/// Longest wait from the end of the load until all processes run again.
const RECOVER_DEADLINE: Duration = Duration::from_secs(90);
/// Longest wait after recovery until everything is counted. When a kill of ClickHouse loses a part, the aggregator
/// waits twice for 55 s before it inserts the rows under another token.
const COUNT_DEADLINE: Duration = Duration::from_secs(240);
/// The fraction of a long run after which the change is made. If the change were later, too few faults would happen
/// with small windows. If it were earlier, more requests would stay unanswered, because there are no retries after it.
const CHANGE_AT: f64 = 0.6;
/// Longest time to read and compare all tables and answers.
const VERIFY_DEADLINE: Duration = Duration::from_secs(300);
/// Interval between two progress lines.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Log end offsets count as final once they have not changed for this long. Also the timeout of requests to the admin
/// ports of the edge and the aggregators.
const QUIET: Duration = Duration::from_secs(1);

/// The options of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long faults and load last.
    pub length: Duration,
    /// The seed of faults and load.
    pub seed: u64,
    /// Whether half of the batches have event ids and are retried until they are acknowledged.
    pub event_ids: bool,
    /// Whether the edge has a spool, which survives kills of the edge. With a spool, the edge acknowledges events
    /// during an outage of Kafka.
    pub spool: bool,
    /// Whether the run also has long faults and, in its middle, a change of partitions, rollups and deduplication
    /// windows.
    pub long: bool,
}

impl Options {
    fn schedule(&self) -> Schedule {
        let schedule = Schedule::new(self.seed, self.length);
        if self.long { schedule.with_long_faults(self.length) } else { schedule }
    }
}

/// Starts all servers and services, sends the load, injects the faults, and compares what was counted with what was
/// sent. Calls `print` with each line of progress.
pub async fn run(options: &Options, print: impl Fn(&str)) -> anyhow::Result<Report> {
    let mut stack = Stack::for_test("chaos-servers")?;
    stack.start().await?;
    let world = World::unmigrated(NAME, stack.kafka.brokers(), stack.clickhouse.url());
    let rollups = world.write("rollups.toml", &rollups::declaration());
    let declared = [("ROLLUPS_FILE", rollups.as_str())];
    world.migrate_with(&declared).await;
    let mut services = start(&world, options.spool, &rollups);
    for service in services.iter_mut().map(|(_, service)| service) {
        service.wait_ready().await?;
    }
    let mut api = world.start("query-api", &declared);
    api.wait_ready().await?;
    print("all processes run");

    let admin_ports = services.iter_mut().map(|(target, service)| {
        let log = service.process().log().to_owned();
        (*target, Http::with_timeout(service.admin(), QUIET), log)
    });
    let admin_ports = admin_ports.collect();
    let edge = &services[0].1;
    let run = Run {
        admin_ports,
        clock: Arc::new(Clock::start()),
        length: options.length,
        edge: edge.http(),
        edge_admin: Http::with_timeout(edge.admin(), QUIET),
        kafka: Kafka::external(stack.kafka.brokers()),
        world,
        journal: Arc::new(Mutex::new(Journal::new(options.seed, options.event_ids))),
        stats: Arc::default(),
        spool: options.spool,
        change: Arc::default(),
        faults_over: Arc::new(Semaphore::new(0)),
        stop: CancellationToken::new(),
    };
    // `_directory` keeps the `DataDirectory` alive until the end of the run, and with it the lock on the directory.
    let Stack { kafka, clickhouse, directory: _directory } = stack;
    let servers =
        [(Target::Kafka, Supervised::Kafka(kafka)), (Target::ClickHouse, Supervised::ClickHouse(clickhouse))];
    let services = services.into_iter().map(|(target, service)| (target, Supervised::Service(service)));
    let supervisors = run.spawn_supervisors(services.chain(servers), &options.schedule());
    let changing = async {
        if options.long {
            run.change_midway(&mut api).await;
        }
    };
    tokio::join!(run.send_and_wait(&print), changing);
    api.wait_ready().await?;
    let api_http = Http::with_timeout(api.http(), RECOVER_DEADLINE);
    let verifying = verify::verify(&run.journal, &run.world, &api_http);
    let mut verdict =
        time::timeout(VERIFY_DEADLINE, verifying).await.context("compare the tables with the journal")??;
    let long = if options.long { Some(run.inspect_long(&mut verdict).await?) } else { None };
    // The `audit` command of the aggregator must also find no difference.
    let file = run.change.file().unwrap_or(&rollups);
    if let Err(error) = run.world.run("stream-agg", &["audit"], &[("ROLLUPS_FILE", file)]).await {
        run.stats.problem(format!("{error:#}"));
    }
    // The supervisors stop only now, because they own the processes that were used until here.
    run.stop.cancel();
    supervisors.join_all().await;
    Ok(run.report(verdict, long))
}

/// Starts the edge, and the aggregators as static members of the group. Batches close early, so that a fault at almost
/// any time hits a batch that is declared and not yet applied.
fn start(world: &World, spool: bool, rollups: &str) -> Vec<(Target, Service)> {
    let max_groups = MAX_GROUPS.to_string();
    let session = format!("{}", SESSION_SECONDS * 1000.0);
    let aggregator = |number: usize| {
        let name = Target::Aggregator(number).to_string();
        let more = [
            ("GROUP_INSTANCE_ID", name.as_str()),
            ("BATCH_MAX_AGE", "300ms"),
            ("ROLLUPS_FILE", rollups),
            ("ROLLUP_MAX_GROUPS", max_groups.as_str()),
            ("KAFKA_OPT_session.timeout.ms", session.as_str()),
        ];
        (Target::Aggregator(number), world.start("stream-agg", &more))
    };
    let directory = world.directory().join("spool");
    let directory = directory.to_str().expect("the path is valid UTF-8");
    // The edge waits only briefly for Kafka, because a killed broker is soon back, and events must go into the spool
    // before that.
    let spooling = [("SPOOL_DIR", directory), ("DURABLE_WAIT", "1s")];
    let edge = (Target::Edge, world.start("ingest", if spool { &spooling } else { &[] }));
    iter::once(edge).chain((0..AGGREGATORS).map(aggregator)).collect()
}

/// The state of a run.
struct Run {
    clock: Arc<Clock>,
    /// How long faults and load last, measured by `clock`.
    length: Duration,
    edge: String,
    edge_admin: Http,
    /// The admin ports and the logs of the edge and of each aggregator. If events are not counted, the readiness and
    /// the end of each log are reported to show the reason.
    admin_ports: Vec<(Target, Http, PathBuf)>,
    kafka: Kafka,
    world: World,
    journal: SharedJournal,
    stats: Arc<RunStats>,
    spool: bool,
    change: Arc<MidRunChange>,
    /// Each supervisor adds a permit when its faults are over.
    faults_over: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Run {
    /// Starts a supervisor for each process. The supervisor injects the faults of the process and then keeps the
    /// process running until the run ends.
    fn spawn_supervisors(
        &self,
        processes: impl Iterator<Item = (Target, Supervised)>,
        schedule: &Schedule,
    ) -> JoinSet<()> {
        let mut supervisors = JoinSet::new();
        for (target, process) in processes {
            let (stats, faults_over, stop) =
                (self.stats.clone(), self.faults_over.clone(), self.stop.clone());
            let (clock, change) = (Arc::clone(&self.clock), Arc::clone(&self.change));
            let (faults, length) = (schedule.of(target).to_vec(), self.length);
            let handle = Handle::current();
            let supervise = async move || {
                let mut supervisor = Supervisor::new(target, process, Arc::clone(&stats), clock, change);
                let injected = supervisor.inject(&faults, length).await;
                faults_over.add_permits(1);
                if let Err(error) = injected.and(supervisor.keep_running(&stop).await) {
                    stats.problem(format!("{target}: {error:#}"));
                }
            };
            // Each supervisor has its own thread: the start of a broker blocks, and must not delay other faults.
            supervisors.spawn_blocking(move || handle.block_on(supervise()));
        }
        supervisors
    }

    /// Makes the change in the middle of a long run.
    async fn change_midway(&self, api: &mut Service) {
        self.clock.wait_until(self.length.mul_f64(CHANGE_AT)).await;
        match self.change.make(&self.world, &self.kafka, &self.journal, api).await {
            Ok(()) => {
                let at = self.clock.elapsed().as_secs_f64();
                self.stats.note(format!("{at:.1} more partitions, other rollups, small windows"));
            }
            Err(error) => self.stats.problem(format!("make the change in the middle of the run: {error:#}")),
        }
    }

    /// Sends the load, waits until faults and load are over and everything is counted, and prints progress meanwhile.
    async fn send_and_wait(&self, print: &impl Fn(&str)) {
        let counted = async {
            let sender = Sender::new(self.edge.clone(), &self.journal, &self.stats);
            let sending = sender.send(&self.clock, self.length, RECOVER_DEADLINE / 2);
            let recovering = async {
                self.clock.wait_until(self.length).await;
                time::timeout(RECOVER_DEADLINE, self.faults_over.acquire_many(Target::ALL.len() as u32)).await
            };
            let ((), recovered) = tokio::join!(sending, recovering);
            if recovered.is_err() {
                self.stats.problem(format!(
                    "not all processes run again {RECOVER_DEADLINE:?} after the end of the load"
                ));
            }
            self.wait_until_counted().await;
        };
        tokio::pin!(counted);
        let mut progress = time::interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                () = &mut counted => break,
                _ = progress.tick() => print(&self.progress()),
            }
        }
        print(&self.progress());
    }

    async fn wait_until_counted(&self) {
        let mut open = String::new();
        let mut ends = Vec::new();
        let counted = wait_for("everything to be counted", COUNT_DEADLINE, async || {
            let before = ends.clone();
            let uncounted = self.uncounted(&mut ends).await;
            let settled = uncounted.as_ref().is_ok_and(String::is_empty) && before == ends;
            open = uncounted.unwrap_or_else(|error| format!("{error:#}"));
            if !settled {
                time::sleep(QUIET).await;
            }
            settled
        });
        if let Err(overdue) = counted.await {
            self.stats.problem(format!("{overdue}: {open}"));
            self.report_readiness().await;
        }
    }

    /// Reports the readiness of the edge and of each aggregator, with the end of the log. The two texts usually show
    /// why events are not counted.
    async fn report_readiness(&self) {
        for (target, admin, log) in &self.admin_ports {
            let readiness = match admin.try_send("GET", "/readyz", &[], "").await {
                Ok(answer) => answer.text,
                Err(error) => format!("{error:#}"),
            };
            self.stats.problem(format!("{target} /readyz: {:?}; {}", readiness.trim_end(), log_tail(log)));
        }
    }

    /// Reads the log end offsets into `ends`. Describes what is not yet counted; empty if everything is
    /// counted.
    async fn uncounted(&self, ends: &mut Vec<u64>) -> anyhow::Result<String> {
        let edge =
            async |name: &str| self.edge_admin.metric(name).await.context("read the metrics of the edge");
        let queued = edge("ingest_events_queued").await?;
        let spooled = edge("ingest_spool_records").await?;
        // Until the spool is open, it accepts no records, and the number of records in it is unknown.
        ensure!(!self.spool || edge("ingest_spool_up").await? == 1, "the spool accepts no records");
        *ends = task::block_in_place(|| self.kafka.log_ends(NAME))?;
        let sql =
            "SELECT kp, max(next_offset) FROM progress WHERE g = (SELECT max(g) FROM progress) GROUP BY kp";
        let rows = self.world.try_rows(sql).await?;
        let number = |text: &str| text.parse::<u64>().ok();
        let applied: HashMap<_, _> = rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect();
        let next = |partition: usize| applied.get(&Some(partition as u64)).copied().flatten().unwrap_or(0);
        let behind = ends.iter().enumerate().filter(|(partition, end)| next(*partition) < **end);
        let behind = behind.map(|(partition, end)| {
            format!("partition {partition} is counted up to offset {} of {end}", next(partition))
        });
        let waiting = (queued > 0).then(|| format!("{queued} events wait in the edge"));
        let kept = (spooled > 0).then(|| format!("{spooled} records wait in the spool"));
        Ok(waiting.into_iter().chain(kept).chain(behind).collect::<Vec<_>>().join(", "))
    }

    /// The further figures of a long run. Also compares the rollup that the change added with the raw rows, and adds
    /// the differences to the verdict.
    async fn inspect_long(&self, verdict: &mut Verdict) -> anyhow::Result<Long> {
        let (declared_later, differences) = mid_run_change::events_of_added_rollup(&self.world).await?;
        verdict.add_differences(differences);
        Ok(Long {
            pauses: self.stats.long_pauses(),
            clickhouse_away: self.stats.clickhouse_outages(),
            partitions_added: mid_run_change::partitions_added(&self.kafka, NAME)?,
            declared_later,
            windows_popped: mid_run_change::windows_with_drops(&self.world),
        })
    }

    fn progress(&self) -> String {
        let journal = journal::lock(&self.journal);
        let notes = self.stats.take_notes();
        let notes = if notes.is_empty() { "nothing".to_owned() } else { notes.join("; ") };
        format!(
            "{:.0} s: {} requests, {} acked, {} refused, {} unanswered; {notes}",
            self.clock.elapsed().as_secs_f64(),
            journal.requests(),
            journal.count(Outcome::Acked),
            journal.count(Outcome::Refused),
            journal.count(Outcome::Unanswered),
        )
    }

    fn report(&self, verdict: Verdict, long: Option<Long>) -> Report {
        let journal = journal::lock(&self.journal);
        let counted = |counter| self.stats.counter(counter);
        Report {
            kills: self.stats.kills(),
            pauses: self.stats.pauses(),
            requests: journal.requests(),
            acked: journal.count(Outcome::Acked),
            unanswered: journal.count(Outcome::Unanswered),
            recovered_intents: counted(Counter::RecoveredIntents),
            conditional_skips: counted(Counter::SkippedCells),
            large: verdict.large,
            hostile: verdict.hostile,
            folded: counted(Counter::FoldedRows),
            spooled: counted(Counter::SpooledEvents),
            spool: self.spool,
            long,
            missing: verdict.missing,
            duplicated: verdict.duplicated,
            // The problems noted during the run come last, because they show the reasons, and a log that is too long
            // usually loses its beginning.
            problems: verdict.lines.into_iter().chain(self.stats.take_problems()).collect(),
        }
    }
}
