//! The views for analysts in the database `bi`: plain types, and a comment on every column.
//!
//! Invariants: no view shows a marker row; a filter on a view reaches the primary key of the table that it
//! reads; a reader of the views needs no grant on the tables, because a view reads with the grants of its
//! definer, where that user exists. Names are quoted: a field of `props` may be called `from`.

use std::collections::{BTreeMap, BTreeSet};

use crate::field::{Field, Kind};
pub use crate::reserved_names::{EVENTS_RECENT, REJECTED_LINES};
use crate::rollup::layout::MeasureColumn;
use crate::rollup::{Dimension, Distinct, Grain, Measure, Number, Rollup, Rollups};

/// The default definer: the user with whose grants the views read. It cannot log in.
pub const DEFINER: &str = "bi_owner";

/// With whose grants a view reads the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights<'a> {
    /// Those of this user: readers of the view need none on the tables.
    Definer(&'a str),
    /// Those of the reader: nobody sees more than they may already read.
    Reader,
}

/// One view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its name in the `bi` database.
    pub name: String,
    /// What it shows, in a sentence.
    pub comment: String,
    columns: Vec<Column>,
    /// The table that it reads.
    table: &'static str,
    /// What follows the columns of the `SELECT`.
    from: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    kind: &'static str,
    comment: String,
    expression: String,
}

/// All views on the tables of `database`: one for each rollup, one for recent raw events and one for
/// rejected lines.
pub fn views(rollups: &Rollups, database: &str) -> Vec<View> {
    let of_lines = [events_recent(rollups.fields(), database), rejected_lines(database)];
    rollups.iter().map(|rollup| of_rollup(rollup, database)).chain(of_lines).collect()
}

impl View {
    /// The statement that creates or replaces it in the database `bi`.
    pub fn create(&self, bi: &str, rights: Rights<'_>) -> String {
        let declared: Vec<_> = self
            .columns
            .iter()
            .map(|c| format!("    `{}` {} COMMENT '{}'", c.name, c.kind, escaped(&c.comment)))
            .collect();
        let selected: Vec<_> =
            self.columns.iter().map(|c| format!("{} AS `{}`", c.expression, c.name)).collect();
        let security = match rights {
            Rights::Definer(definer) => format!("DEFINER = {definer} SQL SECURITY DEFINER"),
            Rights::Reader => "SQL SECURITY INVOKER".to_owned(),
        };
        format!(
            "CREATE OR REPLACE VIEW {bi}.`{name}`\n(\n{declared}\n)\n{security}\n\
             AS SELECT {selected}\n{from}\nCOMMENT '{comment}'",
            name = self.name,
            declared = declared.join(",\n"),
            selected = selected.join(", "),
            from = self.from,
            comment = escaped(&self.comment),
        )
    }

    /// The columns of the table that it reads; each is written as `T.…`.
    fn reads(&self) -> impl Iterator<Item = &str> {
        let texts = self.columns.iter().map(|column| column.expression.as_str()).chain([self.from.as_str()]);
        let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        texts.flat_map(|text| text.split("T.").skip(1)).map(move |rest| {
            let name = rest.strip_prefix('`').unwrap_or(rest);
            &name[..name.find(|c| !is_in_name(c)).unwrap_or(name.len())]
        })
    }
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

fn of_rollup(rollup: &Rollup, database: &str) -> View {
    let mut key = vec![column("tenant", "String", "whose data it is", &of("tenant"))];
    if let Some(name) = time_column(rollup.grain) {
        key.push(column(
            name,
            "DateTime('UTC')",
            &format!("start of the {}, UTC", name.replace('_', " of an ")),
            &of("bucket"),
        ));
    }
    key.extend(rollup.dimensions.iter().enumerate().map(|(at, dimension)| of_dimension(at, dimension)));
    let group: Vec<_> = key.iter().map(|c| c.expression.clone()).collect();
    let from = format!(
        "FROM {database}.{} AS T WHERE {} GROUP BY {}",
        rollup.table().name(),
        rollup.condition(),
        group.join(", ")
    );
    let measures = rollup.measures.iter().zip(rollup.stored());
    let measures = measures.map(|((name, measure), stored)| of_measure(name, measure, stored));
    let comment = match rollup.retention_days {
        Some(days) => format!("{}; kept for {days} days", described(rollup)),
        None => format!("{}; kept for ever", described(rollup)),
    };
    let (name, table) = (rollup.name.clone(), rollup.table().name());
    View { name, comment, columns: key.into_iter().chain(measures).collect(), table, from }
}

/// What a rollup aggregates, in a phrase.
fn described(rollup: &Rollup) -> String {
    let measures: Vec<_> = rollup.measures.iter().map(|(name, _)| name.as_str()).collect();
    let dimensions: Vec<_> = rollup.dimensions.iter().map(ToString::to_string).collect();
    let per = time_column(rollup.grain)
        .map(|name| format!(" per {}", name.replace('_', " of an ")))
        .unwrap_or_default();
    let by = if dimensions.is_empty() { String::new() } else { format!(" by {}", dimensions.join(", ")) };
    format!("{}{per}{by}", measures.join(", "))
}

/// The time column of a rollup's view, which is named after the grain.
pub fn time_column(grain: Grain) -> Option<&'static str> {
    match grain {
        Grain::Minute => Some("minute"),
        Grain::QuarterHour => Some("quarter_hour"),
        Grain::Hour => Some("hour"),
        Grain::Day => Some("day"),
        Grain::None => None,
    }
}

fn of_dimension(at: usize, dimension: &Dimension) -> Column {
    let name = dimension.column_name();
    let comment = match dimension {
        Dimension::Column(_) => format!("{dimension} as sent; empty if absent"),
        Dimension::Prop(_) => format!("field {dimension}; empty if absent"),
    };
    column(&name, "String", &comment, &of(&Rollup::dimension_column(at)))
}

fn of_measure(name: &str, measure: &Measure, stored: MeasureColumn) -> Column {
    let number = |n: &Number| match n {
        Number::ParamInt | Number::Field(_) => "Int64",
        Number::Sequence => "UInt64",
    };
    let distinct = |d: &Distinct| match d {
        Distinct::User => "users",
        Distinct::Session => "sessions",
        Distinct::DeviceId => "devices",
    };
    // Every event has a `param_int` and a `sequence`.
    let absent = |n: &Number| if let Number::Field(_) = n { "; 0 where no event has it" } else { "" };
    let (kind, comment, function) = match measure {
        Measure::Count => ("UInt64", "additive: number of events".to_owned(), "sum"),
        Measure::CountOf(_) => ("UInt64", format!("additive: {measure}, events that have it"), "sum"),
        Measure::Sum(n) => (number(n), format!("additive: {measure}"), "sum"),
        Measure::Min(n) => {
            (number(n), format!("NOT additive: {measure}, combine with min{}", absent(n)), "min")
        }
        Measure::Max(n) => {
            (number(n), format!("NOT additive: {measure}, combine with max{}", absent(n)), "max")
        }
        Measure::UniqExact(d) => {
            ("UInt64", format!("NOT additive: distinct {}", distinct(d)), "uniqExactMerge")
        }
    };
    let value = format!("{function}({})", of(&stored.column()));
    let value = match measure {
        Measure::Min(Number::Field(_)) => present(&value, i128::MAX),
        Measure::Max(Number::Field(_)) => present(&value, i128::MIN),
        _ => value,
    };
    // Sums and extremes are stored as Int128.
    let expression = match (stored, kind) {
        (MeasureColumn::Rows | MeasureColumn::Uniq(_), _) => value,
        (_, "Int64") => saturated("toInt64", &value, i64::MIN.into(), i64::MAX.into()),
        _ => saturated("toUInt64", &value, 0, u64::MAX.into()),
    };
    column(name, kind, &comment, &expression)
}

fn events_recent(fields: &[Field], database: &str) -> View {
    let plain = |name: &str, kind: &'static str, comment: &str| column(name, kind, comment, &of(name));
    let columns = [
        plain("tenant", "String", "whose data it is"),
        plain("event", "String", "name"),
        plain(
            "client_time",
            "DateTime64(3, 'UTC')",
            "when it happened, as sent; server_time if nothing was sent",
        ),
        plain("server_time", "DateTime64(3, 'UTC')", "when the request arrived"),
        column("ip", "String", "address of the client", "replaceRegexpOne(toString(T.`ip`), '^::ffff:', '')"),
        plain("user_id", "String", "who did it"),
        plain("device_id", "String", "on which device"),
        plain("device_os", "String", "operating system of the device"),
        plain("session", "String", "session it belongs to"),
        plain("sequence", "UInt64", "position in the session"),
        plain("param_int", "Int64", "a number of the client's"),
        plain("param_str", "String", "a text of the client's"),
        plain("country", "String", "two or three letters, upper case"),
        plain("event_id", "UUID", "identity; zero if none"),
        plain("props", "String", "all other fields, as JSON text"),
    ];
    let columns = columns.into_iter().chain(fields.iter().map(of_field)).collect();
    View {
        name: EVENTS_RECENT.to_owned(),
        comment: "single events of the last 31 days, as stored".to_owned(),
        columns,
        table: "events",
        from: format!("FROM {database}.events AS T WHERE T.`tenant` != ''"),
    }
}

fn of_field(field: &Field) -> Column {
    let name = field.column();
    match field.kind {
        // BI tools differ in how they show booleans.
        Kind::Bool => column(&name, "Int64", &field.comment(), &format!("toInt64({})", of(&name))),
        kind => column(&name, kind.column_type(), &field.comment(), &of(&name)),
    }
}

fn rejected_lines(database: &str) -> View {
    let columns = vec![
        column("tenant", "String", "whose data it would have been", &of("tenant")),
        column("received", "DateTime64(3, 'UTC')", "when Kafka took the sample", &of("kafka_time")),
        column("code", "String", "what is wrong, as the sender was told", "splitByChar(':', T.`reason`)[2]"),
        column("field", "String", "with which field; empty if with none", "splitByChar(':', T.`reason`)[3]"),
        column("line", "String", "the first 4 KiB of the line as sent", &of("text")),
    ];
    View {
        name: REJECTED_LINES.to_owned(),
        comment:
            "samples of lines that were rejected, at most ten a second of each edge, of the last 14 days"
                .to_owned(),
        columns,
        table: "dead_letters",
        from: format!(
            "FROM {database}.dead_letters AS T WHERE T.`tenant` != '' AND startsWith(T.`reason`, 'edge:')"
        ),
    }
}

/// `value`, or 0 where it is `neutral`, which the aggregator stores if no event of a group has the field.
fn present(value: &str, neutral: i128) -> String {
    format!("if({value} = toInt128('{neutral}'), toInt128(0), {value})")
}

/// `value`, an Int128, converted by `convert`, or the nearest bound if it is out of range. Not with `least` and
/// `greatest`: with Int128 their results are wrong once ClickHouse has compiled them, after a few runs (seen on
/// 26.7.2.1).
fn saturated(convert: &str, value: &str, least: i128, most: i128) -> String {
    format!(
        "multiIf({value} > toInt128('{most}'), {convert}('{most}'), {value} < toInt128('{least}'), \
         {convert}('{least}'), {convert}({value}))"
    )
}

/// A column of the table that the view reads. The alias of the table is in upper case, which no declared name
/// is: a dimension may be called `t`.
fn of(column: &str) -> String {
    format!("T.`{column}`")
}

fn column(name: &str, kind: &'static str, comment: &str, expression: &str) -> Column {
    Column { name: name.to_owned(), kind, comment: comment.to_owned(), expression: expression.to_owned() }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
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
FROM millrace.rollup_sums AS T WHERE T.tenant != '' AND T.rollup = 'event_daily' GROUP BY T.`tenant`, T.`bucket`, T.`dim1`, T.`dim2`
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
        let states =
            "GRANT SELECT(`bucket`, `dim1`, `rollup`, `rows`, `tenant`, `uniq1`) ON millrace.rollup_states";
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
