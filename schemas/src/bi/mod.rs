//! The views for analysts in the database `bi`: plain types, and a comment on every column.
//!
//! Invariants: no view shows a marker row; a filter on a view reaches the primary key of the table that it
//! reads; a reader of the views needs no grant on the tables, because a view reads with the grants of its
//! definer, where that user exists. Names are quoted: a field of `props` may be called `from`.

mod view;

mod rollup_view;

mod line_views;

use std::collections::{BTreeMap, BTreeSet};

use self::line_views::{events_recent, rejected_lines};
use self::rollup_view::of_rollup;
pub use self::rollup_view::time_column;
pub use self::view::{Rights, View};
pub use crate::reserved_names::{EVENTS_RECENT, REJECTED_LINES};
use crate::rollup::Rollups;

/// The default definer: the user with whose grants the views read. It cannot log in.
pub const DEFINER: &str = "bi_owner";

/// All views on the tables of `database`: one for each rollup, one for recent raw events and one for
/// rejected lines.
pub fn views(rollups: &Rollups, database: &str) -> Vec<View> {
    let of_lines = [events_recent(rollups.fields(), database), rejected_lines(database)];
    rollups.iter().map(|rollup| of_rollup(rollup, database)).chain(of_lines).collect()
}

/// The grants that the definer of all [`views`] needs, and no more: the columns that the views read. A reader can
/// make the definer evaluate a predicate on everything that the definer may read (ClickHouse issues 116028 and
/// 118063, fixed in 26.6.5.113, 26.7.7.84 and 26.8.3.74).
pub fn grants(rollups: &Rollups, database: &str) -> Vec<String> {
    let views = views(rollups, database);
    let mut tables = BTreeMap::<_, BTreeSet<_>>::new();
    for view in &views {
        tables.entry(view.table).or_default().extend(view.reads());
    }
    let grant = |(table, columns): (&str, BTreeSet<&str>)| {
        let columns: Vec<_> = columns.into_iter().map(|column| format!("`{column}`")).collect();
        format!("GRANT SELECT({}) ON {database}.{table}", columns.join(", "))
    };
    tables.into_iter().map(grant).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str) -> String {
        let views = views(&Rollups::built_in(), "millrace");
        views.iter().find(|view| view.name == name).unwrap().create("bi", Rights::Definer(DEFINER))
    }

    #[test]
    fn a_rollups_view_sums_by_its_key_and_leaves_markers_out() {
        assert_eq!(
            view("event_daily"),
            "CREATE OR REPLACE VIEW bi.`event_daily`
(
    `tenant` String COMMENT 'whose data it is',
    `day` DateTime('UTC') COMMENT 'start of the day, UTC',
    `event` String COMMENT 'event as sent; empty if absent',
    `country` String COMMENT 'country as sent; empty if absent',
    `events` UInt64 COMMENT 'additive: number of events'
)
DEFINER = bi_owner SQL SECURITY DEFINER
AS SELECT T.`tenant` AS `tenant`, T.`bucket` AS `day`, T.`dim1` AS `event`, T.`dim2` AS `country`, sum(T.`rows`) AS `events`
FROM millrace.rollup_sums AS T WHERE T.tenant != '' AND T.rollup = 'event_daily' AND T.expires = '2149-06-06' GROUP BY T.`tenant`, T.`bucket`, T.`dim1`, T.`dim2`
COMMENT 'events per day by event, country; kept for ever'"
        );
    }

    #[test]
    fn distinct_counts_are_merged_and_marked_as_not_additive() {
        let sql = view("users_hourly");
        assert!(sql.contains("uniqExactMerge(T.`uniq1`) AS `users`"), "{sql}");
        assert!(sql.contains("`users` UInt64 COMMENT 'NOT additive: distinct users'"), "{sql}");
    }

    #[test]
    fn a_view_with_the_rights_of_its_reader_names_no_definer() {
        for view in views(&Rollups::built_in(), "millrace") {
            let sql = view.create("bi", Rights::Reader);
            assert!(sql.contains("SQL SECURITY INVOKER") && !sql.contains(DEFINER), "{sql}");
        }
    }

    #[test]
    fn the_definer_is_granted_the_columns_that_views_read_and_no_others() {
        let text = "[[rollup]]\nname = \"r\"\ngrain = \"hour\"\ndimensions = [\"event\"]\n\
                    measures = { n = \"count\", u = \"uniq_exact(user)\" }\n\
                    [[field]]\nname = \"plan\"\npath = \"plan\"\ntype = \"string\"\n";
        let grants = grants(&Rollups::parse("test", text).unwrap(), "millrace");
        assert_eq!(
            grants[0],
            "GRANT SELECT(`kafka_time`, `reason`, `tenant`, `text`) ON millrace.dead_letters"
        );
        assert!(
            grants[1].contains("`prop_plan`") && grants[1].ends_with(" ON millrace.events"),
            "{}",
            grants[1]
        );
        for hidden in ["place", "cfg", "hwm", "ko"] {
            assert!(!grants[1].contains(&format!("`{hidden}`")), "{}", grants[1]);
        }
        let states = "GRANT SELECT(`bucket`, `dim1`, `expires`, `rollup`, `rows`, `tenant`, `uniq1`) ON millrace.rollup_states";
        assert_eq!(grants[2..], [states]);
    }

    #[test]
    fn every_view_leaves_marker_rows_out() {
        for view in views(&Rollups::built_in(), "millrace") {
            assert!(
                view.create("bi", Rights::Definer(DEFINER)).replace('`', "").contains("WHERE T.tenant != ''"),
                "{}",
                view.name
            );
        }
    }
}
