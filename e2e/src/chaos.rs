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

pub mod hostile;

pub mod counter;

mod clock;

mod figure;

mod tally;

mod lane;

mod sender;

mod turn;

mod verify;

/// Of the topic, the database, the group and the directory of logs.
const NAME: &str = "chaos";
/// From the end of the load until what was broken runs again.
const SETTLE: Duration = Duration::from_secs(90);
/// From then until everything is counted. A part that ClickHouse took and lost when it was killed is waited
/// for twice, 55 s each time, before its rows are sent under another token.
const COUNTED: Duration = Duration::from_secs(240);
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
    /// Whether it has two halves, with long faults in the first and a change before the second.
    pub long: bool,
}

impl Options {
    /// What happens from one change to the next, and for how long.
    fn phases(&self) -> Vec<(Schedule, Duration)> {
        if !self.long {
            return vec![(Schedule::new(self.seed, self.length), self.length)];
        }
        let half = self.length / 2;
        let first = Schedule::new(self.seed, half).with_long_faults(half);
        // Any other seed.
        vec![(first, half), (Schedule::new(!self.seed, half), half)]
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
        edge: edge.http(),
        edge_admin: Http::patient(edge.admin(), QUIET),
        kafka: Kafka::given(stack.kafka.brokers()),
        world,
        book: Arc::new(Mutex::new(Book::new(options.seed, options.event_ids))),
        tally: Arc::default(),
        spool: options.spool,
    };
    // The directory stays ours until the end.
    let Stack { kafka, clickhouse, directory: _directory } = stack;
    let servers =
        [(Target::Kafka, Subject::Kafka(kafka)), (Target::ClickHouse, Subject::ClickHouse(clickhouse))];
    let services = services.into_iter().map(|(target, service)| (target, Subject::Service(service)));
    let mut subjects: Vec<_> = services.chain(servers).collect();
    let mut file = rollups;
    for (number, (schedule, length)) in options.phases().into_iter().enumerate() {
        if number > 0 {
            file = turn::turn(&run.world, &run.kafka, &run.book, &mut subjects, &mut api).await?;
            api.wait_ready().await?;
            say("half of it is over; more partitions, another declaration, small windows");
        }
        subjects = Phase::new(&run, length).pass(subjects, &schedule, &say).await;
    }
    let api_http = Http::patient(api.http(), SETTLE);
    let verifying = verify::verify(&run.book, &run.world, &api_http);
    let mut verdict = time::timeout(VERIFY, verifying).await.context("count everything in time")??;
    let long = if options.long { Some(run.look_at_long(&mut verdict).await?) } else { None };
    // The product's own judge, which must find what we find: nothing.
    if let Err(error) = run.world.run("stream-agg", &["audit"], &[("ROLLUPS_FILE", &file)]).await {
        run.tally.wrong(format!("{error:#}"));
    }
    // Only now, because they are what was just asked.
    drop(subjects);
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
    edge: String,
    edge_admin: Http,
    /// Whom to ask why events are not counted: admin port and log of each.
    asked: Vec<(Target, Http, PathBuf)>,
    kafka: Kafka,
    world: World,
    book: SharedBook,
    tally: Arc<Tally>,
    spool: bool,
}

/// Load and faults, until all that they brought is counted.
struct Phase<'r> {
    run: &'r Run,
    clock: Arc<Clock>,
    /// How long faults and load last, by the clock.
    length: Duration,
    /// A permit for each lane whose faults are over.
    all_over: Arc<Semaphore>,
    stop: CancellationToken,
}

impl<'r> Phase<'r> {
    /// Its clock begins.
    fn new(run: &'r Run, length: Duration) -> Self {
        let (all_over, stop) = (Arc::new(Semaphore::new(0)), CancellationToken::new());
        Self { run, clock: Arc::new(Clock::start()), length, all_over, stop }
    }

    /// Lets it all happen, and hands the processes back.
    async fn pass(
        self,
        subjects: Vec<(Target, Subject)>,
        schedule: &Schedule,
        say: &impl Fn(&str),
    ) -> Vec<(Target, Subject)> {
        let lanes = self.spawn_lanes(subjects, schedule);
        self.settle(say).await;
        self.stop.cancel();
        lanes.join_all().await
    }

    /// Each process suffers its faults, and is then kept running until the phase ends.
    fn spawn_lanes(
        &self,
        subjects: Vec<(Target, Subject)>,
        schedule: &Schedule,
    ) -> JoinSet<(Target, Subject)> {
        let mut lanes = JoinSet::new();
        for (target, subject) in subjects {
            let (tally, all_over, stop) = (self.run.tally.clone(), self.all_over.clone(), self.stop.clone());
            let (faults, clock, length) =
                (schedule.of(target).to_vec(), Arc::clone(&self.clock), self.length);
            let handle = Handle::current();
            let life = async move || {
                let mut lane = Lane::new(target, subject, Arc::clone(&tally), clock);
                let suffered = lane.suffer(&faults, length).await;
                all_over.add_permits(1);
                if let Err(error) = suffered.and(lane.keep(&stop).await) {
                    tally.wrong(format!("{target}: {error:#}"));
                }
                lane.into_subject()
            };
            // A thread for each: starting a broker blocks, and must not keep others from their times.
            lanes.spawn_blocking(move || handle.block_on(life()));
        }
        lanes
    }

    /// Sends the load, waits until faults and load are over and everything is counted, and
    /// says how far it is meanwhile.
    async fn settle(&self, say: &impl Fn(&str)) {
        let settled = async {
            let Run { edge, book, tally, .. } = self.run;
            let sender = Sender::new(edge.clone(), book, tally);
            let sending = sender.send(&self.clock, self.length, SETTLE / 2);
            let breaking = async {
                self.clock.reaches(self.length).await;
                time::timeout(SETTLE, self.all_over.acquire_many(Target::ALL.len() as u32)).await
            };
            let ((), lanes) = tokio::join!(sending, breaking);
            if lanes.is_err() {
                tally.wrong(format!("not all that was broken runs again after {SETTLE:?}"));
            }
            self.run.wait_until_counted().await;
        };
        tokio::pin!(settled);
        let mut progress = time::interval_at(Instant::now() + PROGRESS, PROGRESS);
        loop {
            tokio::select! {
                () = &mut settled => break,
                _ = progress.tick() => say(&self.run.progress(self.clock.elapsed())),
            }
        }
        say(&self.run.progress(self.clock.elapsed()));
    }
}

impl Run {
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

    /// What a long run has shown besides; what the rollup of its second half lacks goes into the verdict.
    async fn look_at_long(&self, verdict: &mut Verdict) -> anyhow::Result<Long> {
        let (declared_later, differences) = turn::declared_later(&self.world).await?;
        verdict.differences(differences);
        Ok(Long {
            pauses: self.tally.long_pauses(),
            clickhouse_away: self.tally.clickhouse_away(),
            partitions_added: turn::partitions_added(&self.kafka, NAME)?,
            declared_later,
            windows_popped: turn::windows_popped(&self.world),
        })
    }

    fn progress(&self, elapsed: Duration) -> String {
        let book = sender::open(&self.book);
        let notes = self.tally.take_notes();
        let notes = if notes.is_empty() { "nothing".to_owned() } else { notes.join("; ") };
        format!(
            "{:.0} s: {} requests, {} acked, {} refused, {} open; {notes}",
            elapsed.as_secs_f64(),
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
