use super::*;

const GOOD: &str = r#"
[[rollup]]
name = "plays"
grain = "day"
dimensions = ["country"]
measures = { plays = "count" }
"#;

#[track_caller]
fn refused(change: (&str, &str), line: usize, reason: &str) {
    let text = GOOD.replace(change.0, change.1);
    assert_ne!(text, GOOD, "the change changes nothing");
    let error = Rollups::parse("my.toml", &text).unwrap_err();
    assert_eq!((error.line, error.file.as_str()), (line, "my.toml"), "{error}");
    assert!(error.reason.contains(reason), "{error}");
}

#[test]
fn a_mistake_is_named_with_its_line() {
    refused(
        ("grain = \"day\"", "grain = \"week\""),
        4,
        "`week` is not a grain; there are minute, 15m, hour, day, none",
    );
    refused(("\"country\"", "\"contry\""), 5, "`contry` is not a dimension; there are event, country");
    refused(
        ("\"count\"", "\"avg(param_int)\""),
        6,
        "`avg(param_int)` is not a measure; there are count, sum(param_int)",
    );
    refused(("name = \"plays\"", "name = \"Plays!\""), 3, "`Plays!` is not a name");
    refused(("name = \"plays\"", "name = \"events\""), 3, "there is already a table `events`");
    refused(("plays = \"count\"", "country = \"count\""), 6, "there is already a column `country`");
    refused(("plays = \"count\"", "hwm = \"count\""), 6, "there is already a column `hwm`");
    refused(("plays = \"count\"", "index = \"count\""), 6, "`index` is a word of SQL");
    refused(("\"country\"", "\"props.null\""), 5, "`null` is a word of SQL");
    refused(("name = \"plays\"", "name = \"table\""), 3, "`table` is a word of SQL");
    refused(("name = \"plays\"", "name = \"events_recent\""), 3, "there is already a table `events_recent`");
    refused(("plays = \"count\"", ""), 3, "it has no measure");
    refused(("grain = \"day\"", "grain = \"day\"\nretention = \"1y\""), 5, "`1y` is not a retention");
    refused(("grain = \"day\"", "grain = \"day\"\nretention = \"14601d\""), 5, "from 1d to 14600d");
    refused(("grain = \"day\"", "grian = \"day\""), 4, "unknown field `grian`");
    refused(("grain = \"day\"\n", ""), 2, "missing field `grain`");
    refused(("[[rollup]]", "[[rollup]"), 2, "");
}

#[test]
fn a_mistake_in_a_path_or_a_condition_is_named_with_its_line() {
    refused(("\"country\"", "\"props.\""), 5, "`` is not a path of names");
    refused(("\"country\"", "\"props.a-b\""), 5, "`a-b` is not a path of names");
    refused(("\"country\"", "\"country\", \"props.country\""), 5, "there is already a column `country`");
    refused(
        ("measures", "where = { evnt = \"play\" }\nmeasures"),
        6,
        "`evnt` is not a dimension; there are event",
    );
    refused(("measures", "where = { event = [] }\nmeasures"), 6, "`event` is compared with nothing");
    refused(("measures", "where = { event = 1 }\nmeasures"), 6, "");
}

#[test]
fn props_and_conditions_are_read() {
    let text = GOOD
        .replace("\"country\"", "\"props.plan.tier\"")
        .replace("measures", "where = { event = [\"play\", \"view\"], \"props.app\" = \"tv\" }\nmeasures");
    let rollups = Rollups::parse("", &text).unwrap();
    let rollup = rollups.get("plays").unwrap();
    assert_eq!(rollup.dimensions[0].to_string(), "props.plan.tier");
    assert_eq!(rollup.dimensions[0].column_name(), "plan_tier");
    let conditions: Vec<_> =
        rollup.conditions.iter().map(|c| (c.field.to_string(), c.values.join("|"))).collect();
    assert_eq!(conditions, [("event".into(), "play|view".into()), ("props.app".into(), "tv".into())]);
    assert!(rollup.create_table().contains("    plan_tier String,\n"));
}

#[test]
fn a_name_can_be_declared_once() {
    let error = Rollups::parse("my.toml", &GOOD.repeat(2)).unwrap_err();
    assert_eq!(error.to_string(), "read rollups: my.toml:9: there is already a table `plays`");
}

#[test]
fn agreement_shows_in_the_hash() {
    let rollups = |text: &str| Rollups::parse("", text).unwrap();
    assert_eq!(rollups(GOOD).hash(), rollups(&GOOD.replace("\"day\"", "  \"day\"")).hash());
    assert_ne!(rollups(GOOD).hash(), rollups(&GOOD.replace("day", "hour")).hash());
}

#[test]
fn sums_make_a_summing_table_without_a_column_list() {
    assert_eq!(
        Rollups::built_in().get("event_hourly").unwrap().create_table(),
        "CREATE TABLE IF NOT EXISTS event_hourly
(
    tenant LowCardinality(String),
    bucket DateTime('UTC'),
    event LowCardinality(String),
    country LowCardinality(String),
    device_os LowCardinality(String),
    g UInt16,
    kp UInt16,
    events UInt64,
    value Int64,
    hwm SimpleAggregateFunction(max, UInt64)
)
ENGINE = SummingMergeTree()
PARTITION BY toYYYYMM(bucket)
ORDER BY (tenant, bucket, event, country, device_os, g, kp)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, \
         fsync_part_directory = 1, old_parts_lifetime = 480"
    );
}

#[test]
fn a_distinct_count_makes_an_aggregating_table_with_a_count_of_its_own() {
    let sql = Rollups::built_in().get("users_hourly").unwrap().create_table();
    for part in [
        "    users AggregateFunction(uniqExact, UInt64),\n    rows SimpleAggregateFunction(sum, UInt64),\n    hwm ",
        "ENGINE = AggregatingMergeTree\n",
        "index_granularity = 128",
    ] {
        assert!(sql.contains(part), "no {part:?} in {sql}");
    }
}

#[test]
fn short_retention_cuts_by_day_and_no_grain_does_not_cut() {
    let rollup = |text: String| Rollups::parse("", &text).unwrap().get("plays").unwrap().clone();
    let daily = rollup(GOOD.replace("grain = \"day\"", "grain = \"minute\"\nretention = \"7d\""));
    assert_eq!(daily.partition_by(), PartitionBy::Day);
    assert!(daily.create_table().contains("TTL toStartOfDay(bucket) + INTERVAL 1 DAY + INTERVAL 7 DAY"));
    let monthly = rollup(GOOD.replace("grain = \"day\"", "grain = \"day\"\nretention = \"400d\""));
    assert_eq!(monthly.partition_by(), PartitionBy::Month);
    assert!(
        monthly
            .create_table()
            .contains("TTL toDateTime(toStartOfMonth(bucket)) + INTERVAL 1 MONTH + INTERVAL 400 DAY")
    );
    let whole = rollup(GOOD.replace("grain = \"day\"", "grain = \"none\"\nretention = \"7d\""));
    assert_eq!(whole.partition_by(), PartitionBy::Nothing);
    assert!(!whole.create_table().contains("bucket") && !whole.create_table().contains("TTL"));
}

#[test]
fn a_table_partition_is_named_by_its_start() {
    let time = UnixMillis::parse("2020-12-31 23:59:59.999").unwrap();
    let start = |by: PartitionBy| by.start(time).to_string();
    assert_eq!(start(PartitionBy::Day), "2020-12-31 00:00:00.000");
    assert_eq!(start(PartitionBy::Month), "2020-12-01 00:00:00.000");
    assert_eq!(start(PartitionBy::Nothing), "1970-01-01 00:00:00.000");
}

#[test]
fn a_bucket_is_named_by_its_start() {
    let time = UnixMillis::parse("2020-12-31 23:59:59.999").unwrap();
    let bucket = |grain: Grain| grain.bucket(time).to_string();
    assert_eq!(bucket(Grain::Minute), "2020-12-31 23:59:00.000");
    assert_eq!(bucket(Grain::QuarterHour), "2020-12-31 23:45:00.000");
    assert_eq!(bucket(Grain::Hour), "2020-12-31 23:00:00.000");
    assert_eq!(bucket(Grain::Day), "2020-12-31 00:00:00.000");
    assert_eq!(bucket(Grain::None), "1970-01-01 00:00:00.000");
}

#[track_caller]
fn check_cut(cut: PartitionBy, id: &str, ends: Option<&str>) {
    let time = |text| UnixMillis::parse(text).unwrap();
    let start = cut.start(time("2026-12-21 04:05:06"));
    assert_eq!(cut.id(start), id);
    assert_eq!(cut.ends(start, 2), ends.map(time));
}

#[test]
fn a_table_partition_has_clickhouses_name_and_ends_with_its_last_row() {
    check_cut(PartitionBy::Day, "20261221", Some("2026-12-24 00:00:00"));
    check_cut(PartitionBy::Month, "202612", Some("2027-01-03 00:00:00"));
    check_cut(PartitionBy::Nothing, "all", None);
}
