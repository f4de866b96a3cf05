//! The pure steps that process an event, as separate functions, so that the instructions of each can be counted.
//!
//! On a shared machine, elapsed times differ from run to run. The number of instructions is the same for the same
//! program and data, so a single run shows whether a step needs more instructions than before.

use std::hint::black_box;
use std::num::NonZeroU32;

use devstack::traffic::BATCH;
use ingest::accept::decode;
use ingest::accept::enrich::{self, Partitions};
use ingest::accept::identity::Identity;
use ingest::endpoints::counters::AllowedEvents;
use ingest::endpoints::reactions;
use schemas::line::Prefix;
use schemas::record::{Head, Kind};
use schemas::time::UnixMillis;
use stream_agg::protocol::declaration::Declaration;
use stream_agg::protocol::limits::DecodeLimits;
use stream_agg::protocol::progress::{NextOffset, Offset};
use stream_agg::protocol::window::Window;
use stream_agg::rows::batch::Batch;
use stream_agg::rows::cells::{Source, cells};
use stream_agg::rows::decode::{DecodedLines, LedgerEntry, Record, decode};
use uuid::Uuid;

use crate::input::{Work, records};

/// The arrival time of all requests and records: 2026-11-21 04:10:00 UTC.
const NOW: UnixMillis = UnixMillis(1_795_234_200_000);
const TENANT: &str = "default";
/// Number of events in each request and in each record.
const LINES: u32 = BATCH as u32;
/// Number of requests that one run of the step `split` or `enrich` processes.
const REQUESTS: usize = 64;
/// Number of records that one run of the step `rows` or `cells` processes.
const RECORDS: usize = 500;
/// The steps `enrich` and `reaction` distribute lines over eight partitions.
const PARTITIONS: Partitions<'static> =
    Partitions { count: NonZeroU32::MIN.saturating_add(7), spare: 0, hot_keys: None };

/// One step, which can be repeated.
pub struct Step {
    /// The name on the command line.
    pub name: &'static str,
    /// Number of events that one run processes.
    pub events: u64,
    once: Box<dyn Fn()>,
}

impl Step {
    fn new(name: &'static str, events: u64, once: impl Fn() + 'static) -> Self {
        Self { name, events, once: Box::new(once) }
    }

    /// Runs the step this many times.
    pub fn run(&self, times: u64) {
        (0..times).for_each(|_| (self.once)());
    }
}

/// All steps with this kind of events, in the order in which an event passes them.
pub fn all(work: Work) -> Vec<Step> {
    let requests = records::bodies(work, REQUESTS, NOW);
    let (decoding, enriching) = (requests.clone(), requests);
    let prefix = prefix();
    let records = records::values(work, RECORDS, NOW);
    let (batch, declaration) = (batch(&records), Declaration::built_in());
    let (request, row) = ((BATCH * REQUESTS) as u64, (BATCH * RECORDS) as u64);
    let mut steps = vec![
        Step::new("split", request, move || {
            for body in &decoding {
                let lines = decode::lines(black_box(body.as_bytes()), 10_000);
                black_box(lines.map(|lines| lines.len()).ok());
            }
        }),
        Step::new("enrich", request, move || {
            for body in &enriching {
                let lines = decode::lines(body.as_bytes(), 10_000).expect("few lines");
                let identity = Identity::None;
                black_box(enrich::enrich(
                    &lines,
                    AllowedEvents::Any,
                    TENANT,
                    identity,
                    None,
                    &prefix,
                    PARTITIONS,
                ));
            }
        }),
        Step::new("rows", row, move || {
            black_box(decoded(black_box(&records)));
        }),
        Step::new("cells", row, move || {
            black_box(cells(
                black_box(&batch),
                &declaration,
                Source { log_generation: 1, partition: 3, declaration_hash: 7 },
            ));
        }),
    ];
    // A reaction does not depend on the kind of events, so this step is listed for one kind only.
    if work == Work::Lean {
        steps.insert(2, reaction());
    }
    steps
}

fn reaction() -> Step {
    let prefix = prefix();
    Step::new("reaction", 1, move || {
        let query = black_box("timestamp=1606867140000&user=u1&click");
        let line = reactions::by_query(query, UnixMillis(0)..=NOW).expect("a reaction");
        let lines = decode::lines(line.as_bytes(), 1).expect("one line");
        black_box(enrich::enrich(
            &lines,
            AllowedEvents::Any,
            TENANT,
            Identity::None,
            None,
            &prefix,
            PARTITIONS,
        ));
    })
}

fn prefix() -> Prefix {
    Prefix::new(TENANT, [203, 0, 113, 7].into(), NOW)
}

fn decoded(records: &[Vec<u8>]) -> (DecodedLines, Vec<LedgerEntry>) {
    let (mut window, mut out) = (Window::new(), DecodedLines::default());
    let entries = (0..).zip(records).map(|(offset, value)| {
        let id = Uuid::from_u128(offset as u128 + 1);
        let head = Ok(Head { lines: LINES, id, spooled: false, kind: Kind::Events, trace: None });
        let record = Record {
            offset: Offset::new(offset),
            kafka_time: NOW,
            head: &head,
            known: false,
            skipped: false,
            value,
        };
        decode(&record, &DecodeLimits::default(), &mut window, &mut out).expect("the format is known")
    });
    let entries = entries.collect();
    (out, entries)
}

fn batch(records: &[Vec<u8>]) -> Batch {
    let (decoded, entries) = decoded(records);
    Batch { start: NextOffset::new(0), end: NextOffset::new(RECORDS as i64), decoded, entries }
}
