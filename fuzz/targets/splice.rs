//! The stored line of a valid event has the fields that the client sent, except fields with the names `tenant`, `ip`
//! and `server_time`. The stored line has the edge's values for these three names.

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
    same::assert_same(str::from_utf8(&stored).expect("the stored line is valid UTF-8"), line);
});
