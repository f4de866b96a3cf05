use std::collections::BTreeSet;
use std::{fs, path};

use super::*;

const ON: Databases<'_> = Databases { tables: "millrace", views: "bi" };

fn parse(text: &str) -> Rollups {
    Rollups::parse("test", text).unwrap()
}

fn create(rollups: &Rollups, name: &str) -> String {
    let views = views(rollups, ON);
    let view = views.iter().find(|view| view.name == name).unwrap();
    view.create("bi", Rights::Definers(Definers::DEFAULT))
}

#[test]
fn a_rollups_view_sums_by_its_key_and_leaves_markers_out() {
    assert_eq!(
        create(&Rollups::built_in(), "event_daily"),
        "CREATE OR REPLACE VIEW bi.`event_daily`
(
    `tenant` String COMMENT 'whose data it is',
    `day` Date COMMENT 'UTC day',
    `event` String COMMENT 'event as sent; empty if absent',
    `country` String COMMENT 'country as sent; empty if absent',
    `events` Int64 COMMENT 'additive: number of events',
    `complete` Int64 COMMENT '0 while as_of of the view freshness is before the end of the day; then 1, though late events may follow'
)
DEFINER = bi_owner SQL SECURITY DEFINER
AS SELECT CAST(T.`tenant`, 'String') AS `tenant`, toDate(T.`bucket`) AS `day`, T.`dim1` AS `event`, T.`dim2` AS `country`, \
         if(sum(T.`rows`) > 9223372036854775807, toInt64('9223372036854775807'), toInt64(sum(T.`rows`))) AS `events`, \
         toInt64(assumeNotNull((SELECT as_of FROM bi.freshness)) >= toDateTime(addDays(toDate(T.`bucket`), 1), 'UTC')) AS `complete`
FROM millrace.rollup_sums AS T WHERE T.tenant != '' AND T.rollup = 'event_daily' AND T.expires = '2149-06-06' GROUP BY T.`tenant`, toDate(T.`bucket`), T.`dim1`, T.`dim2`
COMMENT 'events per day by event, country; kept for ever'"
    );
}

#[test]
fn distinct_counts_are_merged_and_marked_as_not_additive() {
    let sql = create(&Rollups::built_in(), "users_hourly");
    assert!(sql.contains("toInt64(uniqExactMerge(T.`uniq1`))) AS `users`"), "{sql}");
    assert!(sql.contains("`users` Int64 COMMENT 'NOT additive: distinct users'"), "{sql}");
}

#[test]
fn users_of_weeks_and_months_are_merged_from_days_and_never_from_a_part_of_them() {
    let week = create(&Rollups::built_in(), "users_weekly");
    assert!(
        week.contains(
            "T.rollup = 'users_daily' AND T.expires = '2149-06-06' GROUP BY T.`tenant`, toMonday(T.`bucket`), T.`dim1`"
        ),
        "{week}"
    );
    assert!(week.contains("COMMENT 'users per ISO week by event; kept for ever'"), "{week}");
    let days = "[[rollup]]\nname = \"users_all_daily\"\ngrain = \"day\"\ndimensions = []\nretention = \"90d\"\n\
                measures = { users = \"uniq_exact(user)\" }\n";
    let month = create(&parse(days), "users_all_monthly");
    assert!(month.contains("AND toStartOfMonth(T.`bucket`) >= toDate(now('UTC')) - 90 GROUP BY"), "{month}");
    let hours = parse(&days.replace("day\"", "hour\""));
    assert!(
        views(&hours, ON).iter().all(|view| !view.name.starts_with("users_all_w")),
        "only a daily rollup has weekly views"
    );
}

#[test]
fn a_minimum_of_no_values_is_zero_beside_a_row_count_of_zero() {
    let text = "[[rollup]]\nname = \"r\"\ngrain = \"none\"\ndimensions = []\n\
                measures = { least = \"min(prop_n)\", most = \"max(param_int)\" }\n\
                [[field]]\nname = \"n\"\npath = \"n\"\ntype = \"int\"\n";
    let sql = create(&parse(text), "r");
    let unknown = "if(min(T.`min1`) = toInt128('170141183460469231731687303715884105727'), toInt64(0), ";
    assert_eq!(sql.matches(unknown).count(), 2, "{sql}");
    assert!(sql.contains("`least_rows` Int64 COMMENT 'additive: ") && !sql.contains("most_rows"), "{sql}");
    let taken = text.replace("dimensions = []", "dimensions = [\"props.least_rows\"]");
    let error = Rollups::parse("test", &taken).unwrap_err().to_string();
    assert!(error.contains("there is already a column `least_rows`"), "{error}");
}

#[test]
fn a_view_with_the_rights_of_its_reader_names_no_definer() {
    for view in views(&Rollups::built_in(), ON) {
        let sql = view.create("bi", Rights::Reader);
        assert!(sql.contains("SQL SECURITY INVOKER") && !sql.contains("DEFINER"), "{sql}");
    }
}

#[test]
fn the_definer_is_granted_the_columns_that_views_read_and_no_others() {
    let text = "[[rollup]]\nname = \"r\"\ngrain = \"hour\"\ndimensions = [\"event\"]\n\
                measures = { n = \"count\", u = \"uniq_exact(user)\" }\n\
                [[field]]\nname = \"plan\"\npath = \"plan\"\ntype = \"string\"\n";
    let [owner, freshness] = &definers(&parse(text), ON, Definers::DEFAULT)[..] else {
        panic!("`definers` must return two definers")
    };
    let grants = &owner.grants;
    assert_eq!(
        grants[0],
        "GRANT SELECT(`kafka_time`, `ko`, `kp`, `line`, `reason`, `tenant`, `text`) ON millrace.dead_letters"
    );
    assert!(grants[1].contains("`prop_plan`") && grants[1].ends_with(" ON millrace.events"), "{}", grants[1]);
    for hidden in ["place", "cfg", "hwm", "ko"] {
        assert!(!grants[1].contains(&format!("`{hidden}`")), "{}", grants[1]);
    }
    assert_eq!(
        grants[2..],
        [
            "GRANT SELECT(`duplicates`, `kafka_time`, `lines`, `rejected`, `stored`, `tenant`, `time_replaced`) \
             ON millrace.ledger",
            "GRANT SELECT(`bucket`, `dim1`, `expires`, `rollup`, `rows`, `tenant`, `uniq1`) ON millrace.rollup_states",
            "GRANT SELECT(`as_of`) ON bi.freshness",
        ]
    );
    assert_eq!((owner.name.as_str(), freshness.name.as_str()), ("bi_owner", "bi_freshness"));
    assert_eq!(freshness.grants, ["GRANT SELECT(`as_of`, `g`, `kp`, `partitions`) ON millrace.progress"]);
}

#[test]
fn every_view_leaves_marker_rows_out() {
    // The view `freshness` needs no filter: it reads the table `progress`, which has no marker rows.
    for view in views(&Rollups::built_in(), ON).iter().filter(|view| view.name != FRESHNESS) {
        let sql = view.create("bi", Rights::Definers(Definers::DEFAULT)).replace('`', "");
        assert!(sql.contains("WHERE T.tenant != ''"), "{}", view.name);
    }
}

#[test]
fn no_rollup_can_have_the_name_of_another_view() {
    for view in views(&Rollups::built_in(), ON) {
        let text = format!(
            "[[rollup]]\nname = \"{}\"\ngrain = \"day\"\ndimensions = []\nmeasures = {{ n = \"count\" }}\n",
            view.name
        );
        let is_own = Rollups::built_in().get(&view.name).is_some();
        assert_eq!(Rollups::parse("test", &text).is_ok(), is_own, "{}", view.name);
    }
}

#[test]
fn the_comment_of_a_measure_says_whether_it_is_additive() {
    for view in views(&Rollups::built_in(), ON) {
        let sql = view.create("bi", Rights::Reader);
        for column in view.interface() {
            let (name, kind) = column.split_once(' ').unwrap();
            let name = name.split_once('.').unwrap().1;
            let is_no_measure =
                ["events_recent", "dead_letters"].contains(&view.name.as_str()) || name == "complete";
            let says = ["additive", "NOT additive"]
                .map(|word| sql.contains(&format!("`{name}` {kind} COMMENT '{word}: ")))
                .contains(&true);
            assert_eq!(says, kind == "Int64" && !is_no_measure, "{}.{name}", view.name);
        }
    }
}

/// Dashboards are built on these columns. A column that was released is never renamed, retyped or removed.
#[test]
fn released_columns_of_views_are_never_renamed_retyped_or_removed() {
    let file = path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/bi-columns.txt");
    let kept: Vec<_> = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    let now: Vec<_> = views(&Rollups::built_in(), ON).iter().flat_map(View::interface).collect();
    let is_there: BTreeSet<_> = now.iter().collect();
    let lost: Vec<_> = kept.iter().filter(|column| !is_there.contains(column)).collect();
    assert!(lost.is_empty(), "columns that dashboards may use are gone: {lost:?}");
    if kept != now {
        fs::write(&file, now.join("\n") + "\n").unwrap();
        panic!("golden/bi-columns.txt was out of date; the test has rewritten it: commit the file");
    }
}
