use proptest::prelude::*;
use schemas::rollup::Rollups;

use super::*;
use crate::protocol::limits::MAX_GROUPS;

const NOW: &str = "2026-11-21 04:10:00";

fn time(text: &str) -> UnixMillis {
    UnixMillis::parse(text).unwrap()
}

fn push(rows: &mut Rows, tenant: &str, event: &str, at: UnixMillis, user: &str, number: i64) {
    push_with_props(rows, tenant, event, at, user, number, "{}");
}

fn push_with_props(
    rows: &mut Rows,
    tenant: &str,
    event: &str,
    at: UnixMillis,
    user: &str,
    number: i64,
    props: &str,
) {
    rows.tenant.push(tenant);
    rows.event.push(event);
    rows.country.push("");
    rows.device_os.push("");
    rows.user_id.push("");
    rows.device_id.push(user);
    rows.session.push(user);
    rows.param_str.push("");
    rows.props.push(props);
    rows.param_int.push(number);
    rows.sequence.push(number.unsigned_abs());
    rows.event_time.push(at);
    rows.received.push(time(NOW));
    rows.ko.push(0);
}

fn aggregate_rows<'r>(rollup: &Rollup, rows: &'r Rows, max_groups: usize) -> Aggregate<'r> {
    aggregate(rollup, &Strata::of(rows), max_groups)
}

fn rollup(declaration: &str) -> Rollup {
    Rollups::parse("test", &format!("[[rollup]]\nname = \"r\"\n{declaration}"))
        .unwrap()
        .iter()
        .next()
        .unwrap()
        .clone()
}

/// Groups as text: tenant, bucket, dimensions, count, other measures.
fn shown(rollup: &Rollup, rows: &Rows) -> Vec<String> {
    shown_of(&aggregate_rows(rollup, rows, MAX_GROUPS), rows)
}

fn shown_of(aggregate: &Aggregate<'_>, rows: &Rows) -> Vec<String> {
    let group = |group: u32| {
        let at = group as usize;
        let mut words = vec![rows.tenant.texts.get(aggregate.tenants[at]).to_owned()];
        words.push(aggregate.buckets[at].to_string()[..16].to_owned());
        words.extend(
            aggregate
                .dimensions
                .iter()
                .map(|dimension| dimension.texts().get(dimension.numbers[at]).to_owned()),
        );
        words.push(aggregate.counts[at].to_string());
        words.extend(aggregate.measures.iter().map(|(_, values)| match values {
            Values::Numbers(values) => values[at].to_string(),
            Values::Distinct(sets) => format!("{} distinct", sets.get(group).len()),
        }));
        words.join(" ")
    };
    aggregate.cells.values().flatten().map(|at| group(*at)).collect()
}

fn sample() -> Rows {
    let mut rows = Rows::default();
    push(&mut rows, "a", "click", time("2026-11-21 04:00:00"), "u1", 5);
    push(&mut rows, "a", "click", time("2026-11-21 04:59:59.999"), "u1", -7);
    push(&mut rows, "a", "click", time("2026-11-21 05:00:00"), "u2", 1);
    push(&mut rows, "b", "click", time("2026-11-21 04:00:00"), "", 2);
    push(&mut rows, "a", "view", time("2026-10-21 04:30:00"), "u3", 3);
    rows
}

#[test]
fn events_are_grouped_by_tenant_bucket_and_dimensions() {
    let rollup = rollup(
        "grain = \"hour\"\ndimensions = [\"event\"]\nmeasures = { n = \"count\", v = \"sum(param_int)\" }",
    );
    assert_eq!(
        shown(&rollup, &sample()),
        [
            "a 2026-11-21 04:00 click 2 -2",
            "a 2026-11-21 05:00 click 1 1",
            "b 2026-11-21 04:00 click 1 2",
            "a 2026-10-21 04:00 view 1 3",
        ]
    );
    let cells = aggregate_rows(&rollup, &sample(), MAX_GROUPS).cells;
    assert_eq!(cells.into_keys().collect::<Vec<_>>(), [Expiry::NEVER], "the rollup has no retention");
}

#[test]
fn every_measure_and_a_dimension_of_many_values_are_aggregated() {
    let rollup = rollup(
        "grain = \"none\"\ndimensions = [\"device_id\"]\n\
         measures = { a = \"min(param_int)\", b = \"max(param_int)\", c = \"max(sequence)\", d = \"uniq_exact(session)\" }",
    );
    assert_eq!(
        shown(&rollup, &sample()),
        [
            "a 1970-01-01 00:00 u1 2 -7 5 7 1 distinct",
            "a 1970-01-01 00:00 u2 1 1 1 1 1 distinct",
            "b 1970-01-01 00:00  1 2 2 2 0 distinct",
            "a 1970-01-01 00:00 u3 1 3 3 3 1 distinct",
        ]
    );
}

#[test]
fn rows_past_the_retention_are_left_out() {
    let declared = |days| {
        rollup(&format!(
            "grain = \"hour\"\ndimensions = [\"event\"]\nmeasures = {{ n = \"count\" }}\nretention = \"{days}d\""
        ))
    };
    let mut rows = Rows::default();
    push(&mut rows, "a", "old", time("2026-08-31 23:00:00"), "", 0);
    push(&mut rows, "a", "new", time("2026-09-23 00:00:00"), "", 0);
    assert_eq!(shown(&declared(400), &rows).len(), 2);
    // The retention begins when the day of the bucket ends, on 24 September. The row is received 58 days later, on
    // 21 November.
    assert_eq!(shown(&declared(59), &rows), ["a 2026-09-23 00:00 new 1"]);
    assert!(shown(&declared(58), &rows).is_empty());
}

#[test]
fn rows_of_one_minute_count_until_it_is_past_its_retention() {
    let rollup = rollup(
        "grain = \"minute\"\ndimensions = [\"event\"]\nmeasures = { n = \"count\" }\nretention = \"7d\"",
    );
    let mut rows = Rows::default();
    for _ in 0..3 {
        push(&mut rows, "a", "e", time("2026-11-21 04:10:00"), "", 0);
    }
    rows.received[1] = time("2026-11-28 23:59:59.999");
    rows.received[2] = time("2026-11-29 00:00:00");
    assert_eq!(shown(&rollup, &rows), ["a 2026-11-21 04:10 e 2"]);
}

#[test]
fn only_events_that_meet_every_condition_count() {
    let rollup = rollup(
        "grain = \"none\"\ndimensions = [\"props.poll\", \"props.a.b\"]\n\
         where = { event = [\"vote\", \"poll\"], device_id = \"u1\", \"props.a.b\" = [\"1\", \"x\"] }\n\
         measures = { votes = \"count\" }",
    );
    let mut rows = sample();
    let sent = [
        ("vote", "u1", r#"{"poll":"p","a":{"b":1}}"#),
        ("poll", "u1", r#"{"a.b":"x"}"#),
        ("vote", "u2", r#"{"a":{"b":1}}"#),
        ("vote", "u1", r#"{"a":{"b":2}}"#),
        ("vote", "u1", r#"{"poll":"p","a":{"b":1}}"#),
    ];
    for (event, user, props) in sent {
        push_with_props(&mut rows, "a", event, time(NOW), user, 0, props);
    }
    assert_eq!(shown(&rollup, &rows), ["a 1970-01-01 00:00 p 1 2", "a 1970-01-01 00:00  x 1"]);
}

#[test]
fn groups_beyond_the_limit_fold_and_every_row_still_counts() {
    let rollup = rollup(
        "grain = \"hour\"\ndimensions = [\"event\", \"device_id\"]\n\
         measures = { n = \"count\", u = \"uniq_exact(user)\", v = \"sum(param_int)\" }",
    );
    let mut rows = sample();
    push(&mut rows, "a", "click", time("2026-11-21 04:30:00"), "u1", 1);
    push(&mut rows, "a", "view", time("2026-11-21 05:30:00"), "u9", 1);
    let folded = aggregate_rows(&rollup, &rows, 1);
    assert_eq!(
        shown_of(&folded, &rows),
        [
            "a 2026-11-21 04:00 click u1 3 1 distinct -1",
            "a 2026-11-21 05:00 (other) (other) 2 2 distinct 2",
            "b 2026-11-21 04:00 (other) (other) 1 0 distinct 2",
            "a 2026-10-21 04:00 (other) (other) 1 1 distinct 3",
        ]
    );
    assert_eq!(folded.folded_rows, 4);
    let whole = aggregate_rows(&rollup, &rows, 5);
    assert_eq!((shown_of(&whole, &rows), whole.folded_rows), (shown(&rollup, &rows), 0));
}

#[test]
fn folded_rows_counts_rows_and_not_strata() {
    let rollup = rollup("grain = \"hour\"\ndimensions = [\"event\"]\nmeasures = { n = \"count\" }");
    let mut rows = sample();
    for _ in 0..3 {
        push(&mut rows, "a", "view", time("2026-11-21 05:30:00"), "u9", 1);
    }
    let folded = aggregate_rows(&rollup, &rows, 3);
    assert!(shown_of(&folded, &rows).contains(&"a 2026-11-21 05:00 (other) 3".to_owned()));
    assert_eq!(folded.folded_rows, 3 + 1);
}

#[test]
fn groups_without_dimensions_do_not_fold() {
    let rollup = rollup("grain = \"hour\"\ndimensions = []\nmeasures = { n = \"count\" }");
    let rows = sample();
    let aggregate = aggregate_rows(&rollup, &rows, 1);
    assert_eq!((aggregate.folded_rows, aggregate.buckets.len()), (0, 4));
}

proptest! {
    /// Each group has the count and the sum of its rows, and as many hashes as its rows have distinct users.
    #[test]
    fn sums_and_sets_are_those_of_the_rows(
        sent in prop::collection::vec((0..3_u8, 0..4_i64, 0..5_u8, any::<i64>()), 0..60),
    ) {
        let mut rows = Rows::default();
        for (event, hour, user, number) in &sent {
            let at = UnixMillis(time(NOW).0 - hour * 3_600_000);
            let user = if *user == 0 { String::new() } else { user.to_string() };
            push(&mut rows, "t", &event.to_string(), at, &user, *number);
        }
        let rollup = rollup(
            "grain = \"hour\"\ndimensions = [\"event\"]\n\
             measures = { n = \"count\", u = \"uniq_exact(user)\", v = \"sum(param_int)\" }",
        );
        let mut expected = BTreeMap::new();
        for (event, hour, user, number) in &sent {
            let (n, users, v) = expected.entry((*event, *hour)).or_insert((0_u64, std::collections::BTreeSet::new(), 0_i128));
            *n += 1;
            *v += i128::from(*number);
            if *user > 0 {
                users.insert(*user);
            }
        }
        let mut expected: Vec<_> = expected
            .into_iter()
            .map(|((event, hour), (n, users, v))| {
                let bucket = UnixMillis(time(NOW).0 - hour * 3_600_000).floor(3_600_000);
                format!("t {} {event} {n} {} distinct {v}", &bucket.to_string()[..16], users.len())
            })
            .collect();
        let mut found = shown(&rollup, &rows);
        expected.sort();
        found.sort();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_sum_of_the_largest_numbers_does_not_overflow() {
    let rollup = rollup("grain = \"none\"\ndimensions = []\nmeasures = { v = \"sum(param_int)\" }");
    let mut rows = Rows::default();
    (0..3).for_each(|_| push(&mut rows, "a", "e", time(NOW), "u", i64::MAX));
    assert_eq!(shown(&rollup, &rows), [format!("a 1970-01-01 00:00 3 {}", 3 * i128::from(i64::MAX))]);
}

#[test]
fn a_sample_has_the_hashes_in_the_lowest_sixteenth_of_the_range() {
    let sixteenth = 1_u64 << 60;
    assert_eq!(Sets::sample(&[0, sixteenth - 1, sixteenth, u64::MAX]), [0, sixteenth - 1]);
    assert!(Sets::sample(&[]).is_empty());
}

#[test]
fn events_without_a_number_in_a_field_do_not_change_its_measures() {
    let declaration = "grain = \"day\"\ndimensions = [\"event\"]\n\
         measures = { a = \"count(prop_n)\", b = \"sum(prop_n)\", c = \"min(prop_n)\", d = \"max(prop_n)\" }\n\
         [[field]]\nname = \"n\"\npath = \"x.n\"\ntype = \"int\"\n";
    let mut rows = Rows::default();
    let all = [
        ("e", r#"{"x":{"n":-7}}"#),
        ("e", r#"{"x.n":2.0}"#),
        ("e", r#"{"x":{"n":0.5}}"#),
        ("e", r#"{"x":{"n":"9"}}"#),
        ("none", r#"{"n":1}"#),
    ];
    for (event, props) in all {
        push_with_props(&mut rows, "t", event, time(NOW), "", 100, props);
    }
    let (most, least) = (i128::MAX, i128::MIN);
    assert_eq!(
        shown(&rollup(declaration), &rows),
        [
            "t 2026-11-21 00:00 e 4 2 -5 -7 2".to_owned(),
            format!("t 2026-11-21 00:00 none 1 0 0 {most} {least}")
        ]
    );
}
