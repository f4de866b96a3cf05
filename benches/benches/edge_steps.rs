//! The pure steps of the edge: a body becomes enriched lines, laid by partition.

use std::hint::black_box;
use std::num::NonZeroU32;

use criterion::{Criterion, Throughput};
use ingest::compat;
use ingest::decode::{self, Format};
use ingest::enrich::{self, Partitions, Takes};
use ingest::identity::Identity;
use schemas::line::Prefix;
use schemas::time::UnixMillis;

const TENANT: &str = "default";

/// Thirty events of one device, as system 2 sends them.
fn device_batch() -> String {
    let line = |sequence: u32| {
        format!(
            r#"{{"client_time":"2020-12-01 23:59:{:02}","device_id":"0287D9AA-4ADF-4B37-A60F-3E9E645C821E","device_os":"iOS 13.5.1","session":"ybuRi8mAUypxjbxQ","sequence":{sequence},"event":"app_start","param_int":{},"param_str":"some text"}}"#,
            sequence % 60,
            sequence * 7919,
        )
    };
    (1..=30).map(line).collect::<Vec<_>>().join("\n")
}

fn edge_steps(criterion: &mut Criterion) {
    let prefix =
        Prefix::new(TENANT, "203.0.113.7".parse().expect("an address"), UnixMillis(1_763_697_600_123));
    let to = Partitions { count: NonZeroU32::MIN.saturating_add(7), spare: 0, counting: None };
    let batch = device_batch();
    let mut steps = criterion.benchmark_group("edge");

    steps.throughput(Throughput::Elements(30));
    steps.bench_function("decode 30 device events", |bencher| {
        bencher.iter(|| {
            decode::lines(black_box(batch.as_bytes()), Format::Ndjson, 10_000).map(|lines| lines.len())
        });
    });
    let lines = decode::lines(batch.as_bytes(), Format::Ndjson, 10_000).expect("few lines");
    steps.bench_function("check, splice and lay out 30 device events", |bencher| {
        bencher.iter(|| {
            enrich::enrich(black_box(&lines), Takes::Any, TENANT, Identity::None, None, &prefix, to)
        });
    });

    steps.throughput(Throughput::Elements(1));
    steps.bench_function("a reaction, address to chunk", |bencher| {
        bencher.iter(|| {
            let line =
                compat::by_query(black_box("timestamp=1606867140000&user=u1&click")).expect("a reaction");
            let lines = decode::lines(line.as_bytes(), Format::Ndjson, 1).expect("one line");
            enrich::enrich(&lines, Takes::Any, TENANT, Identity::None, None, &prefix, to)
        });
    });
    steps.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    edge_steps(&mut criterion);
    criterion.final_summary();
}
