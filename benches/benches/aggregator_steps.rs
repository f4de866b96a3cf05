//! The pure steps of the aggregator: records become rows, rows become cells.

use std::hint::black_box;

use benches::work;
use criterion::{Criterion, Throughput};
use schemas::record::{Head, Kind};
use schemas::rollup::Rollups;
use schemas::time::UnixMillis;
use stream_agg::batch::Batch;
use stream_agg::cells::{Source, cells};
use stream_agg::decode::{Decoded, Entry, Limits, Record, decode};
use stream_agg::progress::{NextOffset, Offset};
use stream_agg::window::Window;
use uuid::Uuid;

/// 2026-11-21 04:10:00, when all records were taken.
const NOW: UnixMillis = UnixMillis(1_795_234_200_000);
/// Records of a batch, of 30 lines each.
const RECORDS: usize = 4_000;
const EVENTS: u64 = 30 * RECORDS as u64;

fn decoded(records: &[Vec<u8>]) -> (Decoded, Vec<Entry>) {
    let (mut window, mut out) = (Window::new(), Decoded::default());
    let entries = (0..).zip(records).map(|(offset, value)| {
        let id = Uuid::from_u128(offset as u128 + 1);
        let head = Ok(Head { lines: 30, id, spooled: false, kind: Kind::Events });
        let record =
            Record { offset: Offset::new(offset), kafka_time: NOW, head: &head, known: false, value };
        decode(&record, &Limits::default(), &mut window, &mut out).expect("the format is known")
    });
    let entries = entries.collect();
    (out, entries)
}

fn batch(records: &[Vec<u8>]) -> Batch {
    let (decoded, entries) = decoded(records);
    Batch { lo: NextOffset::new(0), hwm: NextOffset::new(RECORDS as i64), decoded, entries }
}

fn aggregator_steps(criterion: &mut Criterion) {
    let records = work::records(RECORDS, NOW);
    let rollups = Rollups::built_in();
    let source = Source { g: 1, kp: 3, cfg: 7 };
    let mut steps = criterion.benchmark_group("aggregator");
    steps.sample_size(10).throughput(Throughput::Elements(EVENTS));
    steps.bench_function("decode", |bencher| bencher.iter(|| decoded(black_box(&records))));
    let batch = batch(&records);
    steps.bench_function("cells", |bencher| {
        bencher.iter(|| cells(black_box(&batch), &rollups, source));
    });
    steps.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    aggregator_steps(&mut criterion);
    criterion.final_summary();
}
