//! Every line of any body is either rejected, or stored so that the aggregator can read it.

#![no_main]

use std::num::NonZeroU32;

use ingest::accept::decode;
use ingest::accept::enrich::{Partitions, enrich};
use ingest::accept::identity::Identity;
use ingest::endpoints::counters::AllowedEvents;
use libfuzzer_sys::fuzz_target;
use schemas::line::{self, Prefix};
use schemas::record;
use schemas::time::UnixMillis;

const MAX_LINES: usize = 50;

fuzz_target!(|input: &[u8]| {
    let Some((first, body)) = input.split_first() else { return };
    let identity = if first & 2 == 0 { Identity::None } else { Identity::Request("key") };
    let Ok(lines) = decode::lines(body, MAX_LINES) else { return };
    assert!(lines.len() <= MAX_LINES && lines.is_sorted_by_key(|line| line.number));
    let prefix = Prefix::new("default", [203, 0, 113, 7].into(), UnixMillis(0));
    let to = Partitions { count: const { NonZeroU32::new(3).unwrap() }, spare: 1, hot_keys: None };
    let (chunks, report) = enrich(&lines, AllowedEvents::Any, "default", identity, None, &prefix, to);
    assert_eq!(report.received() as usize, lines.len());
    let mut stored = 0;
    for chunk in &chunks {
        let value = chunk.value.strip_suffix(b"\n").expect("a line break ends every line");
        for line in record::lines(value) {
            let line = str::from_utf8(line).expect("a stored line is valid UTF-8");
            line::read::<()>(line).expect("the aggregator can read a stored line");
            stored += 1;
        }
    }
    assert_eq!(stored, report.accepted);
});
