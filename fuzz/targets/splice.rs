//! A valid line is stored as the client sent it, with exactly the fields that the edge adds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use schemas::event;
use schemas::line::{self, Prefix};
use schemas::time::UnixMillis;

#[path = "../../ingest/tests/hostile/same.rs"]
mod same;

fuzz_target!(|line: &str| {
    let Ok(parsed) = event::parse::<()>(line) else { return };
    let prefix = Prefix::new("default", [203, 0, 113, 7].into(), UnixMillis(0));
    let mut stored = Vec::new();
    line::write(&prefix, line, &parsed, &mut stored);
    same::assert_same(str::from_utf8(&stored).expect("it was text"), line);
});
