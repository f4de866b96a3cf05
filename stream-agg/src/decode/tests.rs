use schemas::line::Prefix;
use schemas::{event, line};

use super::*;

const ID: Uuid = Uuid::from_u128(7);

fn enriched(client: &str) -> Vec<u8> {
    let time = UnixMillis::parse("2026-11-21 04:00:00").unwrap();
    let prefix = Prefix::new("default", "203.0.113.7".parse().unwrap(), time);
    let mut out = Vec::new();
    line::write(&prefix, client, &event::parse::<()>(client).unwrap(), &mut out);
    out
}

fn decoded(head: Result<Head, HeadError>, lines: &[Vec<u8>]) -> (Result<Entry, HeadError>, Rows) {
    let mut rows = Rows::default();
    let record = Record {
        offset: Offset::new(42),
        kafka_time: UnixMillis(1000),
        head: &head,
        value: &lines.join(&b"\n"[..]),
    };
    let entry = decode(&record, &TimeLimits::default(), &mut rows);
    (entry, rows)
}

fn head(lines: u32) -> Result<Head, HeadError> {
    Ok(Head { lines, id: ID, spooled: false })
}

#[test]
fn a_line_becomes_a_row_with_its_place_in_kafka() {
    let sent =
        r#"{"event":"click","client_time":"2020-12-01 23:59:00","device_id":"d","country":"de","x":1}"#;
    let (entry, rows) = decoded(head(1), &[enriched(sent)]);
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
    let (entry, rows) = decoded(head(4), &[good.clone(), b"{\"event\":".to_vec(), vec![0xff], good]);
    let entry = entry.unwrap();
    assert_eq!((entry.lines, entry.rejected, entry.stored), (4, 2, 2));
    assert_eq!(entry.first_fault.unwrap().0, 1);
    assert_eq!(rows.line, [0, 1]);
}

#[test]
fn a_time_that_is_not_believed_stays_in_the_row_and_is_counted() {
    let (entry, rows) = decoded(head(1), &[enriched(r#"{"event":"a","client_time":"1999-01-01 00:00:00"}"#)]);
    assert_eq!(entry.unwrap().time_replaced, 1);
    assert_eq!(rows.client_time[0], UnixMillis::parse("1999-01-01 00:00:00").unwrap());
    assert_eq!(rows.event_time[0], rows.server_time[0]);
}

#[test]
fn a_foreign_record_is_all_rejected() {
    let (entry, rows) = decoded(Err(HeadError::Header("v")), &[enriched(r#"{"event":"a"}"#)]);
    let entry = entry.unwrap();
    assert_eq!((entry.lines, entry.rejected, entry.record_id), (1, 1, Uuid::nil()));
    assert!(rows.is_empty());
}

#[test]
fn a_later_format_is_never_skipped() {
    let (entry, rows) = decoded(Err(HeadError::Version(9)), &[enriched(r#"{"event":"a"}"#)]);
    assert_eq!(entry, Err(HeadError::Version(9)));
    assert!(rows.is_empty());
}
