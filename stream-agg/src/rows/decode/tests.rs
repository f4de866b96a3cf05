use schemas::line::Prefix;
use schemas::sample::Sample;
use schemas::{event, line};

use super::*;

const ID: Uuid = Uuid::from_u128(7);
/// When lines arrive at the edge and Kafka appends their record, unless a test sets another time.
const ARRIVED: &str = "2026-11-21 04:00:00";

fn enriched(client: &str) -> Vec<u8> {
    enriched_at(ARRIVED, client)
}

fn enriched_at(time: &str, client: &str) -> Vec<u8> {
    let time = UnixMillis::parse(time).unwrap();
    let prefix = Prefix::new("default", "203.0.113.7".parse().unwrap(), time);
    let mut out = Vec::new();
    line::write(&prefix, client, &event::parse::<()>(client).unwrap(), &mut out);
    out
}

fn decoded(
    head: Result<Head, HeadError>,
    lines: &[Vec<u8>],
) -> (Result<LedgerEntry, HeadError>, DecodedLines) {
    let mut stream = Stream::default();
    let entry = stream.take(42, UnixMillis::parse(ARRIVED).unwrap().0, head, lines);
    (entry, stream.out)
}

/// Decodes records one after the other, and keeps the window and the decoded lines in between.
#[derive(Default)]
struct Stream {
    window: Window,
    out: DecodedLines,
    known: bool,
    skipped: bool,
}

impl Stream {
    fn take(
        &mut self,
        offset: i64,
        time: i64,
        head: Result<Head, HeadError>,
        lines: &[Vec<u8>],
    ) -> Result<LedgerEntry, HeadError> {
        let record = Record {
            offset: Offset::new(offset),
            kafka_time: UnixMillis(time),
            head: &head,
            known: self.known,
            skipped: self.skipped,
            value: &lines.join(&b"\n"[..]),
        };
        decode(&record, &DecodeLimits::default(), &mut self.window, &mut self.out)
    }

    /// Decodes a record of events. Returns the counts of its ledger entry: lines, rejected, duplicates, stored.
    fn counts(&mut self, offset: i64, time: i64, record: u128, lines: &[Vec<u8>]) -> [u32; 4] {
        let head = Ok(Head {
            lines: lines.len() as u32,
            id: Uuid::from_u128(record),
            spooled: false,
            kind: Kind::Events,
            trace: None,
        });
        counts(&self.take(offset, time, head, lines).unwrap())
    }
}

fn counts(entry: &LedgerEntry) -> [u32; 4] {
    [entry.lines, entry.rejected, entry.duplicates, entry.stored]
}

/// A line with this event id.
fn line_with_id(id: u128) -> Vec<u8> {
    enriched(&format!(r#"{{"event":"a","event_id":"{}"}}"#, Uuid::from_u128(id)))
}

fn head(lines: u32) -> Result<Head, HeadError> {
    Ok(Head { lines, id: ID, spooled: false, kind: Kind::Events, trace: None })
}

#[test]
fn a_line_becomes_a_row_with_its_kafka_offset_and_line_number() {
    let sent =
        r#"{"event":"click","client_time":"2020-12-01 23:59:00","device_id":"d","country":"de","x":1}"#;
    let (entry, DecodedLines { rows, .. }) = decoded(head(1), &[enriched(sent)]);
    assert_eq!(entry.unwrap().stored, 1);
    assert_eq!((rows.tenant.get(0), rows.event.get(0), rows.country.get(0)), ("default", "click", "DE"));
    assert_eq!((rows.user(0), rows.props.get(0)), ("d", r#"{"x":1}"#));
    assert_eq!((rows.ko[0], rows.line[0]), (42, 0));
    assert_eq!(rows.client_time[0], UnixMillis::parse("2020-12-01 23:59:00").unwrap());
    assert_eq!(rows.event_time[0], rows.client_time[0]);
    assert_eq!(rows.ip[0][10..], [0xff, 0xff, 203, 0, 113, 7]);
}

#[test]
fn a_line_that_cannot_be_read_is_counted_and_the_others_are_numbered_densely() {
    let good = enriched(r#"{"event":"a"}"#);
    let (entry, DecodedLines { rows, dead_letters, .. }) =
        decoded(head(4), &[good.clone(), b"{\"event\":".to_vec(), vec![0xff], good]);
    let entry = entry.unwrap();
    assert_eq!((entry.lines, entry.rejected, entry.stored), (4, 2, 2));
    assert_eq!(entry.first_rejected.unwrap().0, 1);
    assert_eq!(rows.line, [0, 1]);
    assert_eq!((dead_letters.ko, dead_letters.line), (vec![42, 42], vec![1, 2]));
    assert_eq!([0, 1].map(|row| dead_letters.reason.get(row)), ["bad_json", "bad_utf8"]);
}

#[test]
fn a_client_time_that_is_not_trusted_stays_in_the_row_and_is_counted() {
    let sent = r#"{"event":"a","client_time":"1999-01-01 00:00:00"}"#;
    let (entry, DecodedLines { rows, .. }) = decoded(head(1), &[enriched(sent)]);
    assert_eq!(entry.unwrap().time_replaced, 1);
    assert_eq!(rows.client_time[0], UnixMillis::parse("1999-01-01 00:00:00").unwrap());
    assert_eq!(rows.event_time[0], rows.server_time[0]);
}

#[test]
fn a_row_is_received_at_the_earlier_of_the_times_of_edge_and_kafka() {
    let appended = UnixMillis::parse("2026-11-21 04:00:00").unwrap();
    for (arrived, received) in
        [("2026-11-20 04:00:00", "2026-11-20 04:00:00"), ("2026-11-21 05:00:00", "2026-11-21 04:00:00")]
    {
        let mut stream = Stream::default();
        stream.take(42, appended.0, head(1), &[enriched_at(arrived, r#"{"event":"a"}"#)]).unwrap();
        assert_eq!(stream.out.rows.received, [UnixMillis::parse(received).unwrap()]);
    }
}

#[test]
fn a_server_time_far_from_kafkas_time_is_replaced_and_counted() {
    let appended = UnixMillis::parse("2026-11-21 04:00:00").unwrap();
    let check = |arrived: &str, replaced: bool| {
        let mut stream = Stream::default();
        let line = enriched_at(arrived, r#"{"event":"a","client_time":"2001-01-01 00:00:00"}"#);
        let entry = stream.take(42, appended.0, head(1), &[line, enriched_at(arrived, r#"{"event":"b"}"#)]);
        assert_eq!(entry.unwrap().arrival_replaced, 2 * u32::from(replaced), "{arrived}");
        let stored = if replaced { appended } else { UnixMillis::parse(arrived).unwrap() };
        let rows = &stream.out.rows;
        assert_eq!(rows.server_time, [stored; 2], "{arrived}");
        let sent = UnixMillis::parse("2001-01-01 00:00:00").unwrap();
        assert_eq!((&rows.client_time, &rows.event_time), (&vec![sent, stored], &vec![sent, stored]));
    };
    check("2026-11-06 03:59:59.999", true);
    check("2026-11-06 04:00:00", false);
    check("2026-11-21 05:00:00", false);
    check("2026-11-21 05:00:00.001", true);
    check("1969-12-31 23:59:59.999", true);
    check("2059-01-01 00:00:00", true);
}

#[test]
fn lines_with_a_time_that_no_table_can_store_become_dead_letters() {
    for (appended, stored) in [("2058-12-31 23:59:59.999", 1), ("2059-01-01 00:00:00", 0)] {
        let mut stream = Stream::default();
        let appended = UnixMillis::parse(appended).unwrap();
        let entry = stream.take(42, appended.0, head(1), &[line_with_id(1)]).unwrap();
        assert_eq!(counts(&entry), [1, 1 - stored, 0, stored]);
    }
}

#[test]
fn all_lines_of_a_record_with_unreadable_headers_are_rejected() {
    let (entry, DecodedLines { rows, dead_letters, .. }) =
        decoded(Err(HeadError::Header("v")), &[enriched(r#"{"event":"a"}"#)]);
    let entry = entry.unwrap();
    assert_eq!((entry.lines, entry.rejected, entry.record_id), (1, 1, Uuid::nil()));
    assert!(rows.is_empty());
    assert_eq!((dead_letters.reason.get(0), dead_letters.tenant.get(0)), ("bad_header", "default"));
}

#[test]
fn a_record_in_a_later_format_is_an_error_and_stores_nothing() {
    for error in [HeadError::Version(9), HeadError::Kind("new".to_owned())] {
        let mut stream = Stream::default();
        let entry = stream.take(42, 1000, Err(error.clone()), &[line_with_id(1)]);
        assert_eq!(entry, Err(error));
        assert!(stream.out.rows.is_empty() && stream.out.dead_letters.is_empty());
        assert_eq!(stream.window.floor(), None);
    }
}

#[test]
fn a_record_that_an_operator_skips_is_all_dead_letters_and_stores_nothing() {
    let mut stream = Stream { skipped: true, ..Stream::default() };
    for head in [head(2), Err(HeadError::Version(9)), Err(HeadError::Kind("new".to_owned()))] {
        let entry = stream.take(42, 1000, head, &[line_with_id(1), line_with_id(2)]).unwrap();
        assert_eq!(counts(&entry), [2, 2, 0, 0]);
    }
    assert_eq!((stream.out.rows.len(), stream.out.dead_letters.len()), (0, 6));
    assert_eq!(stream.out.dead_letters.reason.get(0), "skipped");
    // No line of the skipped record was stored, so the same line in a later record is not a repeat.
    stream.skipped = false;
    assert_eq!(stream.counts(43, 1000, 8, &[line_with_id(1)]), [1, 0, 0, 1]);
}

#[test]
fn samples_of_rejected_lines_are_kept_once_and_not_counted_as_lines() {
    let sample = |code, field| Sample::new("acme", UnixMillis(5), code, field, b"{").write();
    let lines = [sample("bad_json", None), sample("bad_type", Some("event")), line_with_id(1)];
    let mut stream = Stream::default();
    let head = Head { lines: 3, id: ID, spooled: false, kind: Kind::Rejected, trace: None };
    for offset in [10, 11] {
        let entry = stream.take(offset, 0, Ok(head), &lines).unwrap();
        assert_eq!((counts(&entry), entry.ids.len(), entry.record_id), ([0; 4], 0, ID));
    }
    let letters = &stream.out.dead_letters;
    assert_eq!((&letters.ko, &letters.line), (&vec![10; 3], &vec![0, 1, 2]), "the second record is a repeat");
    let shown = |row| (letters.tenant.get(row), letters.reason.get(row), letters.text.get(row));
    assert_eq!(shown(0), ("acme", "edge:bad_json", "{"));
    assert_eq!(shown(1), ("acme", "edge:bad_type:event", "{"));
    assert_eq!((shown(2).0, shown(2).1), ("default", "bad_sample"), "an event is not a sample");
    assert_eq!(stream.counts(12, 0, 12, &[line_with_id(1)]), [1, 0, 0, 1], "samples add no event ids");
}

#[test]
fn an_event_with_an_id_is_stored_once_and_one_without_an_id_each_time() {
    let plain = enriched(r#"{"event":"a"}"#);
    let nil = line_with_id(0);
    let mut stream = Stream::default();
    let lines = [line_with_id(1), plain.clone(), line_with_id(2), line_with_id(1), nil.clone(), nil.clone()];
    assert_eq!(stream.counts(10, 0, 1, &lines), [6, 0, 1, 5], "two lines of the record have the same id");
    let lines = [line_with_id(2), plain, b"{".to_vec(), line_with_id(3), nil];
    assert_eq!(stream.counts(11, 0, 2, &lines), [5, 1, 1, 3], "a line repeats an id of record 10");
    assert_eq!(stream.out.rows.line, [0, 1, 2, 3, 4, 0, 1, 2]);
    assert_eq!(stream.out.dead_letters.line, [2]);
    assert_eq!(stream.counts(12, DAY, 3, &[line_with_id(1)]), [1, 0, 1, 0], "record 10 is at the age limit");
    assert_eq!(stream.counts(13, DAY + 1, 4, &[line_with_id(1)]), [1, 0, 0, 1], "record 10 is too old");
}

#[test]
fn an_event_of_another_tenant_is_another_event() {
    let mut other = line_with_id(1);
    let at = other.windows(7).position(|text| text == b"default").unwrap();
    other.splice(at..at + 7, *b"another");
    assert_eq!(Stream::default().counts(10, 0, 1, &[line_with_id(1), other]), [2, 0, 0, 2]);
}

#[test]
fn the_ledger_holds_the_ids_of_stored_lines() {
    let (mut stream, plain) = (Stream::default(), enriched(r#"{"event":"a"}"#));
    stream.counts(10, 0, 1, &[line_with_id(1)]);
    let entry =
        stream.take(11, 0, head(4), &[line_with_id(2), line_with_id(1), plain, line_with_id(3)]).unwrap();
    assert_eq!(entry.ids, [2, 3].map(|id| line_id("default", Uuid::from_u128(id))));
}

#[test]
fn nothing_of_a_repeated_record_is_stored() {
    let mut stream = Stream::default();
    let lines = [enriched(r#"{"event":"a"}"#), b"{".to_vec(), line_with_id(1)];
    assert_eq!(stream.counts(10, 0, 1, &lines), [3, 1, 0, 2]);
    assert_eq!(stream.counts(11, 0, 1, &lines), [3, 1, 2, 0]);
    stream.known = true;
    assert_eq!(stream.counts(12, 0, 2, &lines), [3, 1, 2, 0], "the ledger has the record");
    assert_eq!(stream.out.rows.len(), 2);
}

/// The moment at which a record was created, in milliseconds since 1970, and a record id (UUIDv7) with this moment.
fn record_created() -> (i64, Uuid) {
    let created_at = 1_700_000_000_000;
    (created_at, Uuid::from_u128(((created_at as u128) << 80) | (7 << 76) | (2 << 62) | 1))
}

#[test]
fn a_batch_is_decoded_with_the_limits_that_it_was_declared_with() {
    let (created_at, id) = record_created();
    let head = Ok(Head { lines: 1, id, spooled: true, kind: Kind::Events, trace: None });
    let limits = DecodeLimits { spooled_days: 3, dead_letter_bytes: 9, ..DecodeLimits::default() };
    let check = |kafka_time, limits: &DecodeLimits, expected: Option<&str>| {
        let (line, mut out) = (line_with_id(1), DecodedLines::default());
        let record = Record {
            offset: Offset::new(10),
            kafka_time: UnixMillis(kafka_time),
            head: &head,
            known: false,
            skipped: false,
            value: &line,
        };
        let entry = decode(&record, limits, &mut Window::new(), &mut out).unwrap();
        let letter = (entry.rejected > 0).then(|| out.dead_letters.text.get(0));
        assert_eq!(letter, expected);
    };
    check(created_at + 3 * DAY, &limits, None);
    check(created_at + 3 * DAY + 1, &limits, Some("{\"tenant\""));
    check(created_at + 3 * DAY + 1, &DecodeLimits::default(), None);
}

#[test]
fn a_record_that_was_spooled_for_too_long_becomes_dead_letters() {
    let (created_at, id) = record_created();
    let check = |spooled, kafka_time, expected: [u32; 4]| {
        let mut stream = Stream::default();
        let entry = stream.take(
            10,
            kafka_time,
            Ok(Head { lines: 1, id, spooled, kind: Kind::Events, trace: None }),
            &[line_with_id(1)],
        );
        assert_eq!(counts(&entry.unwrap()), expected);
        (0..stream.out.dead_letters.len() as u32).for_each(|row| {
            assert_eq!(stream.out.dead_letters.reason.get(row), "spooled_too_long");
        });
    };
    check(true, created_at + 14 * DAY, [1, 0, 0, 1]);
    check(true, created_at + 14 * DAY + 1, [1, 1, 0, 0]);
    check(false, created_at + 14 * DAY + 1, [1, 0, 0, 1]);
}

/// Decodes a record that has two lines and the header `n` = `declared`, and checks which miscount is reported.
#[track_caller]
fn check_miscount(kind: Kind, declared: u32, expected: Option<Miscount>) {
    let mut stream = Stream::default();
    let head = Head { lines: declared, id: ID, spooled: false, kind, trace: None };
    let entry = stream.take(42, 1000, Ok(head), &[line_with_id(1), line_with_id(2)]).unwrap();
    let of_events = if kind == Kind::Events { 2 } else { 0 };
    assert_eq!(counts(&entry), [of_events, 0, 0, of_events], "the header `n` has no effect on the counts");
    assert_eq!(stream.out.rows.len() + stream.out.dead_letters.len(), 2, "each line is kept once");
    let records = u64::from(expected.is_some());
    assert_eq!(stream.out.miscounted, Miscounted { records, first: expected });
}

#[test]
fn a_record_with_a_wrong_line_count_is_reported_and_its_lines_are_stored() {
    let miscount = |declared| Some(Miscount { offset: Offset::new(42), declared, read: 2 });
    for kind in [Kind::Events, Kind::Rejected] {
        check_miscount(kind, 2, None);
        check_miscount(kind, 3, miscount(3));
        check_miscount(kind, 1, miscount(1));
        check_miscount(kind, 0, miscount(0));
    }
    let shown = miscount(3).unwrap().to_string();
    assert_eq!(shown, "the record at offset 42 has 2 lines, but its header `n` says 3");
}

#[test]
fn all_miscounted_records_are_counted_and_the_first_is_reported() {
    let mut stream = Stream::default();
    let miscounted = [(10, head(2)), (11, head(1)), (12, head(5)), (13, Err(HeadError::Header("n")))];
    for (offset, head) in miscounted {
        stream.take(offset, 0, head, &[line_with_id(offset as u128)]).unwrap();
    }
    let first = Some(Miscount { offset: Offset::new(10), declared: 2, read: 1 });
    assert_eq!(stream.out.miscounted, Miscounted { records: 2, first });
    // No line of a repeated record is stored, but the number of its lines is still compared with its header `n`.
    stream.take(14, 0, head(3), &[line_with_id(1)]).unwrap();
    assert_eq!(stream.out.miscounted.records, 3);
}
