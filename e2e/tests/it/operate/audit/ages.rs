//! The audit is also exact for lines whose time of arrival at the edge is long before Kafka appended their record: a
//! spool held them, or the clock of the edge was wrong.

use schemas::event;
use schemas::line::{self, Prefix};
use schemas::time::{DAY, UnixMillis};
use uuid::Builder;

use super::{
    KP, audit, latest, make_tables_look_old, wait_for_clean_audit_of, wait_for_finding, wait_for_progress,
};
use crate::oracle::now;
use crate::world::World;

fn days_ago(days: i64) -> UnixMillis {
    UnixMillis(now().0 - days * DAY)
}

/// Appends a record of two events whose client time and time of arrival are both `days` days ago.
fn produce(world: &World, days: i64, more: &[(&str, &str)]) {
    produce_events_of(world, days_ago(days), days_ago(days), more);
}

/// Appends a record of two events with the client time `sent` and the time of arrival `arrived`.
fn produce_events_of(world: &World, sent: UnixMillis, arrived: UnixMillis, more: &[(&str, &str)]) {
    let client = format!(r#"{{"event":"click","device_id":"d","client_time":"{sent}"}}"#);
    let prefix = Prefix::new("default", "203.0.113.7".parse().unwrap(), arrived);
    let mut value = Vec::new();
    line::write(&prefix, &client, &event::parse::<()>(&client).unwrap(), &mut value);
    let value = [&value[..], &value].join(&b'\n');
    let random = fastrand::u128(..).to_le_bytes();
    let id = Builder::from_unix_timestamp_millis(arrived.0.unsigned_abs(), random.first_chunk().unwrap());
    let id = id.into_uuid().to_string();
    world.produce(KP, &[&[("v", "1"), ("n", "2"), ("id", id.as_str())], more].concat(), &value);
}

/// Changes the ledger as if the broker had appended some records `days` days earlier. The SQL condition `records`
/// selects these records.
async fn backdate_in_ledger(world: &World, records: &str, days: u8) {
    world.rows(&format!("INSERT INTO ledger SELECT * REPLACE (kafka_time - INTERVAL {days} DAY AS kafka_time) FROM ledger WHERE {records} OR tenant = '' AND hwm = (SELECT min(hwm) FROM ledger WHERE hwm > 1)")).await;
    let moved = format!(
        "DELETE FROM ledger WHERE tenant = '*' AND {records} AND kafka_time > now() - INTERVAL 1 DAY"
    );
    world.rows(&moved).await;
}

const SPOOLED: &[(&str, &str)] = &[("spooled", "1")];

#[tokio::test]
async fn a_record_that_a_spool_held_for_days_is_compared_with_its_raw_rows_and_rollups() {
    let world = World::new("audit_spooled").await;
    let _aggregator = world.aggregator().await;
    make_tables_look_old(&world).await;
    for days in [0, 13, 3, 0] {
        produce(&world, days, SPOOLED);
    }
    // The longest span that an operator may audit, the span of the aggregator's own audits, and a shorter span.
    for days in ["29", "2", "1"] {
        wait_for_clean_audit_of(&world, &["--days", days], 8).await;
    }
    assert_eq!(latest(&world, "expected", "events", "all").await, ["8"]);
    let day = &days_ago(13).to_string()[..10];
    world
        .rows(&format!("INSERT INTO rollup_sums SELECT * FROM rollup_sums WHERE rollup = 'event_hourly' AND toDate(bucket) = '{day}'"))
        .await;
    let twice = format!("event_hourly, events of {day}: 0 missing, 2 duplicate");
    wait_for_finding(&world, &["--days", "29"], &[&twice, "missing=0 duplicate=2"]).await;
    let lost = format!("DELETE FROM events WHERE toDate(server_time) = '{day}' AND line = 1");
    world.rows(&lost).await;
    wait_for_finding(&world, &["--days", "2"], &["partition 3: 1 missing, 0 duplicate; found 7, expected 8"])
        .await;
}

#[tokio::test]
async fn expired_raw_rows_are_not_reported_as_missing_but_other_raw_rows_are() {
    let world = World::new("audit_expired").await;
    let _aggregator = world.aggregator().await;
    produce_events_of(&world, days_ago(27), days_ago(0), &[]);
    produce(&world, 40, &[]);
    produce(&world, 0, &[]);
    wait_for_progress(&world, 3).await;
    // Changes the tables as if Kafka had appended the first two records 26 days ago, and as if a spool had held the
    // second record for 14 days before that. The lines of the second record thus arrived 40 days ago. ClickHouse may
    // have dropped raw rows of that age, so the test deletes them.
    backdate_in_ledger(&world, "ko <= 1", 26).await;
    world.rows("INSERT INTO events SELECT * REPLACE (server_time - INTERVAL 26 DAY AS server_time) FROM events WHERE tenant != '' AND ko = 0").await;
    world.rows("DELETE FROM events WHERE tenant != '' AND (ko = 1 OR ko = 0 AND server_time > now() - INTERVAL 1 DAY)").await;
    // To the audits, the tables look younger than their retention in the first pass and older in the second pass.
    for _ in 0..2 {
        wait_for_clean_audit_of(&world, &["--days", "29"], 4).await;
        let noted = latest(&world, "note", "events", "all").await.remove(0);
        assert!(noted.starts_with("2 lines may have arrived before"), "{noted}");
        assert_eq!(latest(&world, "found", "users_daily", "all").await, ["6"]);
        make_tables_look_old(&world).await;
    }
    world.rows("DELETE FROM events WHERE tenant != '' AND ko = 2 AND line = 1").await;
    wait_for_finding(
        &world,
        &["--days", "29"],
        &["partition 3: 1 missing, 0 duplicate; found 3, expected 4"],
    )
    .await;
}

#[tokio::test]
async fn a_broker_clock_that_goes_back_temporarily_causes_no_audit_findings() {
    let world = World::new("audit_clock").await;
    let _aggregator = world.aggregator().await;
    make_tables_look_old(&world).await;
    for days in [6, 0, 0] {
        produce(&world, days, SPOOLED);
    }
    wait_for_clean_audit_of(&world, &["--days", "2"], 6).await;
    backdate_in_ledger(&world, "ko = 1", 5).await;
    assert_eq!(world.number("SELECT count() FROM ledger WHERE tenant = '*'").await, 3);
    audit(&world, &["--days", "2"]).await.unwrap();
    wait_for_clean_audit_of(&world, &["--days", "29"], 6).await;
}

#[tokio::test]
async fn events_whose_time_is_not_trusted_are_compared_on_the_day_of_their_arrival() {
    let world = World::new("audit_times").await;
    let _aggregator = world.aggregator().await;
    let today = now();
    let yesterday = UnixMillis(today.0 - DAY);
    let from = UnixMillis::parse("2000-01-01 00:00:00").unwrap();
    // The earliest and the latest client time that the aggregator trusts by default: the start of 2000, and a day after
    // the arrival. Each is followed by a time that is a millisecond outside the limit.
    for sent in [from, UnixMillis(from.0 - 1), today, UnixMillis(today.0 + 1)] {
        produce_events_of(&world, sent, yesterday, &[]);
    }
    wait_for_clean_audit_of(&world, &[], 8).await;
    assert_eq!(world.number("SELECT sum(time_replaced) FROM ledger").await, 4);
    assert_eq!(latest(&world, "(expected, found)", "event_daily", "all").await, ["(8,8)"]);
}
