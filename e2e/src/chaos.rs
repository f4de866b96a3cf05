//! Chaos: the real programs under load, killed, paused, added and removed by a seeded
//! schedule, then left alone until they are done, then counted.
//!
//! Invariants: it knows nothing of the services but what their users and operators see;
//! time and everything it remembers are bounded by the length of the run; no process
//! outlives it. What is absent: any judgement by the services' own figures.

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
use book::{Book, Fate};
use change::Change;
use clock::Clock;
use counter::Counter;
use lane::{Lane, Subject};
use report::{Long, Report};
use rollups::MAX_GROUPS;
use schedule::{AGGREGATORS, SESSION, Schedule, Target};
use sender::{Sender, SharedBook};
use tally::Tally;
use verify::Verdict;

pub mod schedule;

pub mod load;

pub mod book;

pub mod presence;

pub mod line;

pub mod difference;

pub mod sums;

pub mod report;

pub mod rollups;

pub mod counter;

mod clock;

mod figure;

mod tally;

mod change;

mod lane;

mod sender;

mod verify;

/// Of the topic, the database, the group and the directory of logs.
const NAME: &str = "chaos";
/// From the end of the load until what was broken runs again.
const SETTLE: Duration = Duration::from_secs(90);
/// From then until everything is counted. A part that ClickHouse took and lost when it was killed is waited
/// for twice, 55 s each time, before its rows are sent under another token.
const COUNTED: Duration = Duration::from_secs(240);
/// Part of a long run after which its change comes. Not later, so that small windows meet many faults, and not
/// earlier: without repeats more requests stay unanswered.
const CHANGE: f64 = 0.6;
/// For all tables and answers to be read and compared.
const VERIFY: Duration = Duration::from_secs(300);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);
/// The ends of the logs count if they are still there after so long.
const QUIET: Duration = Duration::from_secs(1);

/// What a person asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long faults and load last.
    pub length: Duration,
    /// What they are.
    pub seed: u64,
    /// Whether some events have an `event_id` and are sent until they are acknowledged.
    pub event_ids: bool,
    /// Whether the edge has a spool, which outlives it: then events are acknowledged while Kafka is away.
    pub spool: bool,
    /// Whether it has long faults besides, and a change in its middle.
    pub long: bool,
}

impl Options {
    fn schedule(&self) -> Schedule {
        let schedule = Schedule::new(self.seed, self.length);
        if self.long { schedule.with_long_faults(self.length) } else { schedule }
    }
}

/// Runs it all; `say` is told how it goes, line by line.
pub async fn run(options: &Options, say: impl Fn(&str)) -> anyhow::Result<Report> {
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
    say("everything runs");

    let asked = services.iter_mut().map(|(target, service)| {
        let log = service.process().log().to_owned();
        (*target, Http::patient(service.admin(), QUIET), log)
    });
    let asked = asked.collect();
    let edge = &services[0].1;
    let run = Run {
        asked,
        clock: Arc::new(Clock::start()),
        length: options.length,
        edge: edge.http(),
        edge_admin: Http::patient(edge.admin(), QUIET),
        kafka: Kafka::given(stack.kafka.brokers()),
        world,
        book: Arc::new(Mutex::new(Book::new(options.seed, options.event_ids))),
        tally: Arc::default(),
        spool: options.spool,
        change: Arc::default(),
        all_over: Arc::new(Semaphore::new(0)),
        stop: CancellationToken::new(),
    };
    // The directory stays ours until the end.
    let Stack { kafka, clickhouse, directory: _directory } = stack;
    let servers =
        [(Target::Kafka, Subject::Kafka(kafka)), (Target::ClickHouse, Subject::ClickHouse(clickhouse))];
    let services = services.into_iter().map(|(target, service)| (target, Subject::Service(service)));
    let lanes = run.spawn_lanes(services.chain(servers), &options.schedule());
    let changing = async {
        if options.long {
            run.change_midway(&mut api).await;
        }
    };
    tokio::join!(run.settle(&say), changing);
    api.wait_ready().await?;
    let api_http = Http::patient(api.http(), SETTLE);
    let verifying = verify::verify(&run.book, &run.world, &api_http);
    let mut verdict = time::timeout(VERIFY, verifying).await.context("count everything in time")??;
    let long = if options.long { Some(run.look_at_long(&mut verdict).await?) } else { None };
    // The product's own judge, which must find what we find: nothing.
    let file = run.change.file().unwrap_or(&rollups);
    if let Err(error) = run.world.run("stream-agg", &["audit"], &[("ROLLUPS_FILE", file)]).await {
        run.tally.wrong(format!("{error:#}"));
    }
    // Only now, because the lanes hold what was just asked.
    run.stop.cancel();
    lanes.join_all().await;
    Ok(run.report(verdict, long))
}

/// The edge, and the aggregators, which have names that outlive them. Batches are
/// short, so that there is always one that is declared and not yet applied.
fn start(world: &World, spool: bool, rollups: &str) -> Vec<(Target, Service)> {
    let max_groups = MAX_GROUPS.to_string();
    let session = format!("{}", SESSION * 1000.0);
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
    let directory = directory.to_str().expect("a path of text");
    // A broker that was killed is soon back: events go into the spool before.
    let spooling = [("SPOOL_DIR", directory), ("DURABLE_WAIT", "1s")];
    let edge = (Target::Edge, world.start("ingest", if spool { &spooling } else { &[] }));
    iter::once(edge).chain((0..AGGREGATORS).map(aggregator)).collect()
}

/// A run while it lasts.
struct Run {
    clock: Arc<Clock>,
    /// How long faults and load last, by the clock.
    length: Duration,
    edge: String,
    edge_admin: Http,
    /// Whom to ask why events are not counted: admin port and log of each.
    asked: Vec<(Target, Http, PathBuf)>,
    kafka: Kafka,
    world: World,
    book: SharedBook,
    tally: Arc<Tally>,
    spool: bool,
    change: Arc<Change>,
    /// A permit for each lane whose faults are over.
    all_over: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Run {
    /// Each process suffers its faults, and is then kept running until the run ends.
    fn spawn_lanes(
        &self,
        subjects: impl Iterator<Item = (Target, Subject)>,
        schedule: &Schedule,
    ) -> JoinSet<()> {
        let mut lanes = JoinSet::new();
        for (target, subject) in subjects {
            let (tally, all_over, stop) = (self.tally.clone(), self.all_over.clone(), self.stop.clone());
            let (clock, change) = (Arc::clone(&self.clock), Arc::clone(&self.change));
            let (faults, length) = (schedule.of(target).to_vec(), self.length);
            let handle = Handle::current();
            let life = async move || {
                let mut lane = Lane::new(target, subject, Arc::clone(&tally), clock, change);
                let suffered = lane.suffer(&faults, length).await;
                all_over.add_permits(1);
                if let Err(error) = suffered.and(lane.keep(&stop).await) {
                    tally.wrong(format!("{target}: {error:#}"));
                }
            };
            // A thread for each: starting a broker blocks, and must not keep others from their times.
            lanes.spawn_blocking(move || handle.block_on(life()));
        }
        lanes
    }

    /// Makes the change in the middle of a long run.
    async fn change_midway(&self, api: &mut Service) {
        self.clock.reaches(self.length.mul_f64(CHANGE)).await;
        match self.change.make(&self.world, &self.kafka, &self.book, api).await {
            Ok(()) => {
                let at = self.clock.elapsed().as_secs_f64();
                self.tally.note(format!("{at:.1} more partitions, another declaration, small windows"));
            }
            Err(error) => self.tally.wrong(format!("change in mid-run: {error:#}")),
        }
    }

    /// Sends the load, waits until faults and load are over and everything is counted, and
    /// says how far it is meanwhile.
    async fn settle(&self, say: &impl Fn(&str)) {
        let settled = async {
            let sender = Sender::new(self.edge.clone(), &self.book, &self.tally);
            let sending = sender.send(&self.clock, self.length, SETTLE / 2);
            let breaking = async {
                self.clock.reaches(self.length).await;
                time::timeout(SETTLE, self.all_over.acquire_many(Target::ALL.len() as u32)).await
            };
            let ((), lanes) = tokio::join!(sending, breaking);
            if lanes.is_err() {
                self.tally.wrong(format!("not all that was broken runs again after {SETTLE:?}"));
            }
            self.wait_until_counted().await;
        };
        tokio::pin!(settled);
        let mut progress = time::interval_at(Instant::now() + PROGRESS, PROGRESS);
        loop {
            tokio::select! {
                () = &mut settled => break,
                _ = progress.tick() => say(&self.progress()),
            }
        }
        say(&self.progress());
    }

    async fn wait_until_counted(&self) {
        let mut open = String::new();
        let mut ends = Vec::new();
        let counted = wait_for("everything to be counted", COUNTED, async || {
            let before = ends.clone();
            let looked = self.look(&mut ends).await;
            let settled = looked.as_ref().is_ok_and(String::is_empty) && before == ends;
            open = looked.unwrap_or_else(|error| format!("{error:#}"));
            if !settled {
                time::sleep(QUIET).await;
            }
            settled
        });
        if let Err(overdue) = counted.await {
            self.tally.wrong(format!("{overdue}: {open}"));
            self.ask_why().await;
        }
    }

    /// What each service says of itself: why it does not go on, most likely.
    async fn ask_why(&self) {
        for (target, admin, log) in &self.asked {
            let said = match admin.try_send("GET", "/readyz", &[], "").await {
                Ok(answer) => answer.text,
                Err(error) => format!("{error:#}"),
            };
            self.tally.wrong(format!("{target} says {:?}; {}", said.trim_end(), log_tail(log)));
        }
    }

    /// Where the logs end, and what is not yet counted of them; empty if all is.
    async fn look(&self, ends: &mut Vec<u64>) -> anyhow::Result<String> {
        let edge = async |name: &str| self.edge_admin.metric(name).await.context("ask the edge");
        let queued = edge("ingest_events_queued").await?;
        let spooled = edge("ingest_spool_records").await?;
        // Until it is open, nobody knows what is in it.
        ensure!(!self.spool || edge("ingest_spool_up").await? == 1, "the spool is off");
        *ends = task::block_in_place(|| self.kafka.log_ends(NAME))?;
        let sql =
            "SELECT kp, max(next_offset) FROM progress WHERE g = (SELECT max(g) FROM progress) GROUP BY kp";
        let rows = self.world.try_rows(sql).await?;
        let number = |text: &str| text.parse::<u64>().ok();
        let told: HashMap<_, _> = rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect();
        let next = |kp: usize| told.get(&Some(kp as u64)).copied().flatten().unwrap_or(0);
        let behind = ends.iter().enumerate().filter(|(kp, end)| next(*kp) < **end);
        let behind = behind.map(|(kp, end)| format!("partition {kp} is at {} of {end}", next(kp)));
        let waiting = (queued > 0).then(|| format!("{queued} events wait in the edge"));
        let kept = (spooled > 0).then(|| format!("{spooled} records wait in the spool"));
        Ok(waiting.into_iter().chain(kept).chain(behind).collect::<Vec<_>>().join(", "))
    }

    /// What a long run has shown besides; what the rollup declared in its middle lacks goes into the verdict.
    async fn look_at_long(&self, verdict: &mut Verdict) -> anyhow::Result<Long> {
        let (declared_later, differences) = change::declared_later(&self.world).await?;
        verdict.differences(differences);
        Ok(Long {
            pauses: self.tally.long_pauses(),
            clickhouse_away: self.tally.clickhouse_away(),
            partitions_added: change::partitions_added(&self.kafka, NAME)?,
            declared_later,
            windows_popped: change::windows_popped(&self.world),
        })
    }

    fn progress(&self) -> String {
        let book = sender::open(&self.book);
        let notes = self.tally.take_notes();
        let notes = if notes.is_empty() { "nothing".to_owned() } else { notes.join("; ") };
        format!(
            "{:.0} s: {} requests, {} acked, {} refused, {} open; {notes}",
            self.clock.elapsed().as_secs_f64(),
            book.requests(),
            book.count(Fate::Acked),
            book.count(Fate::Refused),
            book.count(Fate::Unanswered),
        )
    }

    fn report(&self, verdict: Verdict, long: Option<Long>) -> Report {
        let book = sender::open(&self.book);
        let counted = |counter| self.tally.counted(counter);
        Report {
            kills: self.tally.kills(),
            pauses: self.tally.pauses(),
            requests: book.requests(),
            acked: book.count(Fate::Acked),
            unanswered: book.count(Fate::Unanswered),
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
            // The reasons last, where a log that is cut still has them.
            problems: verdict.lines.into_iter().chain(self.tally.take_wrong()).collect(),
        }
    }
}
