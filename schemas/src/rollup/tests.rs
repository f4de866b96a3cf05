use super::*;
use crate::time::UnixMillis;

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
    assert_ne!(text, GOOD, "the text to replace is not in GOOD");
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
    refused(
        ("name = \"plays\"", "name = \"events\""),
        3,
        "there is already a table, view or rollup `events`",
    );
    refused(("plays = \"count\"", "country = \"count\""), 6, "there is already a column `country`");
    refused(("plays = \"count\"", "hwm = \"count\""), 6, "there is already a column `hwm`");
    refused(("plays = \"count\"", "index = \"count\""), 6, "`index` is a keyword of SQL");
    refused(("\"country\"", "\"props.null\""), 5, "`null` is a keyword of SQL");
    refused(("name = \"plays\"", "name = \"table\""), 3, "`table` is a keyword of SQL");
    refused(
        ("name = \"plays\"", "name = \"events_recent\""),
        3,
        "there is already a table, view or rollup `events_recent`",
    );
    refused(("plays = \"count\"", ""), 3, "rollup `plays` has no measure");
    refused(("grain = \"day\"", "grain = \"day\"\nretention = \"1y\""), 5, "`1y` is not a retention");
    refused(("grain = \"day\"", "grain = \"day\"\nretention = \"14601d\""), 5, "from 1d to 14600d");
    refused(
        ("grain = \"day\"", "grain = \"none\"\nretention = \"7d\""),
        5,
        "a bucket of all time does not expire",
    );
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
    refused(("measures", "where = { event = [] }\nmeasures"), 6, "`event` has no value to compare with");
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
}

#[test]
fn a_name_can_be_declared_once() {
    let error = Rollups::parse("my.toml", &GOOD.repeat(2)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "read rollups: my.toml:9: there is already a table, view or rollup `plays`"
    );
}

#[test]
fn equal_declarations_have_equal_hashes_and_different_ones_do_not() {
    let rollups = |text: &str| Rollups::parse("", text).unwrap();
    assert_eq!(rollups(GOOD).hash(), rollups(&GOOD.replace("\"day\"", "  \"day\"")).hash());
    assert_ne!(rollups(GOOD).hash(), rollups(&GOOD.replace("day", "hour")).hash());
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

#[test]
fn more_dimensions_or_measures_than_table_columns_are_refused_at_their_line() {
    let listed = |n: usize, item: fn(usize) -> String| (0..n).map(item).collect::<Vec<_>>().join(", ");
    let dimensions = |n| listed(n, |at| format!("\"props.p{at}\""));
    let good = |text: &str| assert!(Rollups::parse("", text).is_ok(), "{text}");
    good(&GOOD.replace("\"country\"", &dimensions(6)));
    refused(("\"country\"", &dimensions(7)), 5, "a rollup has at most 6 dimensions");
    let sums = |n| listed(n, |at| format!("s{at} = \"sum(param_int)\""));
    good(&GOOD.replace("plays = \"count\"", &format!("{}, m = \"min(sequence)\"", sums(4))));
    let reason = "`sum(param_int)` is one too many: a rollup has at most 4 measures of each kind";
    refused(("plays = \"count\"", &sums(5)), 6, reason);
}

#[test]
fn a_mistake_in_a_field_is_named_with_its_line() {
    const FIELD: &str = "\n[[field]]\nname = \"plan\"\npath = \"account.plan\"\ntype = \"string\"\n";
    let parse = |text: &str| Rollups::parse("my.toml", text);
    assert_eq!(parse(&format!("{GOOD}{FIELD}")).unwrap().fields()[0].column(), "prop_plan");
    for (change, line, reason) in [
        (("string", "text"), 11, "`text` is not a type; there are string, int, float, bool, time"),
        (("account.plan", "a-b"), 10, "`a-b` is not a path of names"),
        (("\"plan\"", "\"Plan\""), 9, "`Plan` is not a name"),
        (("path", "way"), 10, "unknown field `way`"),
    ] {
        let error = parse(&format!("{GOOD}{}", FIELD.replace(change.0, change.1))).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(error.reason.contains(reason), "{error}");
    }
    let error = parse(&format!("{GOOD}{FIELD}{FIELD}")).unwrap_err();
    assert_eq!(error.to_string(), "read rollups: my.toml:14: there is already a field `plan`");
}

#[test]
fn more_different_retentions_than_eight_are_refused_at_the_line_of_the_ninth() {
    let rollups = |retentions: &[u32]| {
        let all = retentions.iter().enumerate().map(|(at, days)| {
            GOOD.replace("plays\"", &format!("r{at}\"")) + &format!("retention = \"{days}d\"\n")
        });
        Rollups::parse("my.toml", &all.collect::<String>())
    };
    assert!(rollups(&[1, 2, 3, 4, 5, 6, 7, 8, 8, 1]).is_ok());
    let error = rollups(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap_err();
    assert_eq!(error.line, 63, "{error}");
    assert!(error.reason.contains("at most 8 different retentions"), "{error}");
}

#[test]
fn only_integer_fields_can_be_measured() {
    let parse = |kind: &str, measure: &str| {
        let field = format!("[[field]]\nname = \"amount\"\npath = \"cart.amount\"\ntype = \"{kind}\"\n");
        Rollups::parse("my.toml", &(GOOD.replace("\"count\"", &format!("\"{measure}\"")) + &field))
    };
    for measure in ["sum(prop_amount)", "min(prop_amount)", "max(prop_amount)", "count(prop_amount)"] {
        let rollups = parse("int", measure).unwrap();
        let (_, read) = &rollups.get("plays").unwrap().measures[0];
        assert_eq!((read.to_string(), read.field()), (measure.to_owned(), rollups.fields().first()));
        assert_eq!(Rollups::parse("text", &rollups.to_string()), Ok(rollups));
        let error = parse("float", measure).unwrap_err();
        assert!(
            error.reason.starts_with(&format!("`{measure}` is not a measure; there are count, ")),
            "{error}"
        );
    }
}
