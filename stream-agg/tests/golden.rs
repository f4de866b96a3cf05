//! The same records give the same rows in every release that can finish their batch.
//!
//! A batch that one release declares may be finished by the next release. If this test fails because rows were changed
//! on purpose, raise `DECODE_VERSION` and add a file `golden/cells-v<version>.txt`. Keep the file of the previous
//! version, and keep the code that makes the rows of that version (`DecodeLimits::version`). If only the order of rows
//! in a block has changed, update the hashes in the files instead.

#![expect(clippy::unwrap_used, reason = "in a test a panic with its line is the best report")]

use schemas::record::{Head, Kind};
use schemas::time::UnixMillis;
use stream_agg::protocol::declaration::Declaration;
use stream_agg::protocol::limits::{DecodeLimits, READABLE_VERSIONS};
use stream_agg::protocol::progress::{NextOffset, Offset};
use stream_agg::protocol::window::Window;
use stream_agg::rows::batch::Batch;
use stream_agg::rows::cells::{Cell, Source, cells};
use stream_agg::rows::decode::{DecodedLines, Record, decode};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// Lines as the edge writes them, and two lines that become dead letters.
const LINES: &str = include_str!("golden/lines.ndjson");
/// The cells that [`LINES`] become in each version that this release can read, the oldest version first. A file has one
/// line per cell: the table, the table partition, the number of rows including the marker, and the hash of the block.
const CELLS: [&str; 2] = [include_str!("golden/cells-v1.txt"), include_str!("golden/cells-v2.txt")];

#[test]
fn the_same_records_give_the_same_rows_in_every_release_that_can_finish_them() {
    assert_eq!(READABLE_VERSIONS.count(), CELLS.len());
    for (version, cells) in READABLE_VERSIONS.zip(CELLS) {
        let shown = made_by(version);
        assert_eq!(shown, cells.lines().collect::<Vec<_>>(), "version {version}\n{}\n", shown.join("\n"));
    }
}

/// The cells of all lines, as decode version `version` makes them.
fn made_by(version: u32) -> Vec<String> {
    let built_in = Declaration::built_in();
    let declaration = Declaration { limits: DecodeLimits { version, ..built_in.limits }, ..built_in };
    let (mut window, mut decoded, mut entries) = (Window::new(), DecodedLines::default(), Vec::new());
    for (number, value) in LINES.lines().collect::<Vec<_>>().chunks(4).enumerate() {
        let id = Uuid::from_u128(0x0192_f0c1_0000_7000_8000_0000_0000_0000 + number as u128);
        let value = value.join("\n");
        let record = Record {
            offset: Offset::new(number as i64),
            kafka_time: UnixMillis::parse("2026-11-21 04:00:02").unwrap(),
            head: &Ok(Head { lines: 4, id, spooled: false, kind: Kind::Events, trace: None }),
            known: false,
            skipped: false,
            value: value.as_bytes(),
        };
        entries.push(decode(&record, &declaration.limits, &mut window, &mut decoded).unwrap());
    }
    let (start, end) = (NextOffset::ZERO, NextOffset::new(entries.len() as i64));
    let batch = Batch { start, end, decoded, entries };
    let made = cells(&batch, &declaration, Source { log_generation: 0, partition: 3, declaration_hash: 1 });
    let shown = |Cell { table, partition_id, rows, block, .. }: &Cell| {
        format!("{table} {partition_id} {rows} {:016x}", xxh3_64(&block.bytes))
    };
    let mut shown: Vec<_> = made.all.iter().map(shown).collect();
    shown.sort();
    shown
}
