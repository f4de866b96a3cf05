//! The expected totals of a table, and how the actual totals differ from them.
//!
//! The expected totals are computed only from the declarations of the rollups and from the lines, without code of the
//! aggregator. Therefore a bug in the aggregator cannot also make the expected totals wrong. Pure.

use std::collections::BTreeMap;

use schemas::rollup::layout::MeasureColumn;
use schemas::rollup::{Column, Dimension, Grain, Measure, Rollup};
use schemas::time::{DAY, UnixMillis};

use super::accumulator::{Accumulator, merge_function};
use super::difference::{Cells, Difference, Key, differences};
use super::line::Line;

/// Replaces a figure that cannot be read. It differs from every expected figure, because no total of the load is
/// negative.
const NOT_A_NUMBER: i64 = -1;

/// The totals of a table: the statement that reads them, and the expected figures.
pub struct Totals {
    /// The name of the table or rollup.
    pub table: String,
    /// The statement that reads the table: the columns of the key, then the figures.
    pub sql: String,
    /// Columns of the key.
    pub key: Vec<String>,
    /// Columns of the figures; the first one counts events.
    pub figures: Vec<String>,
    grain: Grain,
    dimensions: Vec<Dimension>,
    measures: Vec<Measure>,
    /// The rollup, whose conditions and retention decide which events count. `None` for the raw table and the ledger.
    rollup: Option<Rollup>,
    cells: BTreeMap<Key, Vec<Accumulator>>,
}

impl Totals {
    /// Totals of the raw table: events per hour, event and country.
    pub fn of_raw() -> Self {
        Self {
            table: "events".to_owned(),
            sql: "SELECT toUnixTimestamp(toStartOfHour(client_time)), event, country, count() FROM events
                  WHERE tenant != '' GROUP BY 1, 2, 3"
                .to_owned(),
            key: ["hour", "event", "country"].map(str::to_owned).into(),
            figures: vec!["rows".to_owned()],
            grain: Grain::Hour,
            dimensions: [Column::Event, Column::Country].map(Dimension::Column).into(),
            measures: vec![Measure::Count],
            rollup: None,
            cells: BTreeMap::new(),
        }
    }

    /// Totals of the ledger over all its rows: the sum of `stored`, and the sum of `lines - rejected - duplicates`.
    /// Both sums must be the same number.
    pub fn of_ledger() -> Self {
        Self {
            table: "ledger".to_owned(),
            sql: "SELECT sum(stored), sum(lines - rejected - duplicates) FROM ledger WHERE tenant != ''"
                .to_owned(),
            key: Vec::new(),
            figures: ["stored", "lines - rejected - duplicates"].map(str::to_owned).into(),
            grain: Grain::None,
            dimensions: Vec::new(),
            measures: vec![Measure::Count, Measure::Count],
            rollup: None,
            cells: BTreeMap::new(),
        }
    }

    /// Totals of a rollup by bucket and all dimensions.
    pub fn of_rollup(rollup: &Rollup) -> Self {
        // The count of events comes first, so that a difference shows how many events it affects. Every rollup has
        // this count.
        let count = (MeasureColumn::Rows, Measure::Count);
        let measures = rollup.measures.iter().map(|(_, measure)| measure.clone());
        let columns = rollup.measure_columns().into_iter().zip(measures);
        let measures: Vec<_> =
            std::iter::once(count).chain(columns.filter(|(_, measure)| *measure != Measure::Count)).collect();
        let bucket =
            (rollup.grain != Grain::None).then_some(("bucket", "toUnixTimestamp(bucket)".to_owned()));
        let names: Vec<_> = rollup.dimensions.iter().map(Dimension::column_name).collect();
        let dimensions = names.iter().enumerate();
        let dimensions = dimensions.map(|(at, name)| (name.as_str(), Rollup::dimension_column(at)));
        let key: Vec<_> = bucket.into_iter().chain(dimensions).collect();
        let figures = measures
            .iter()
            .map(|(column, measure)| format!("{}({})", merge_function(measure), column.name()));
        let selected: Vec<_> = key.iter().map(|(_, sql)| sql.clone()).chain(figures).collect();
        let group: Vec<_> = (1..=key.len()).map(|place| place.to_string()).collect();
        let sql = format!(
            "SELECT {} FROM {} WHERE tenant != '' AND rollup = '{}' GROUP BY {}",
            selected.join(", "),
            rollup.table().name(),
            rollup.name,
            group.join(", ")
        );
        Self {
            table: rollup.name.clone(),
            sql,
            key: key.into_iter().map(|(name, _)| name.to_owned()).collect(),
            figures: measures.iter().map(|(column, _)| column.name()).collect(),
            grain: rollup.grain,
            dimensions: rollup.dimensions.clone(),
            measures: measures.into_iter().map(|(_, measure)| measure).collect(),
            rollup: Some(rollup.clone()),
            cells: BTreeMap::new(),
        }
    }

    /// Totals of a rollup by bucket only, because folded groups keep their bucket and lose their dimensions.
    pub fn of_buckets(rollup: &Rollup) -> Self {
        Self::of_rollup(&Rollup { dimensions: Vec::new(), ..rollup.clone() })
    }

    /// Adds an event that was sent at `sent`, if the table must count it.
    pub fn add(&mut self, line: &Line<'_>, sent: UnixMillis) {
        if !self.counts(line, sent) {
            return;
        }
        let bucket =
            (self.grain != Grain::None).then(|| (self.grain.bucket(line.time()).0 / 1000).to_string());
        let dimensions = self.dimensions.iter().map(|dimension| line.text(dimension));
        let key = bucket.into_iter().chain(dimensions).collect();
        let measures = &self.measures;
        let figures =
            self.cells.entry(key).or_insert_with(|| measures.iter().map(Accumulator::new).collect());
        for (figure, measure) in figures.iter_mut().zip(measures) {
            figure.add(measure, &line.event);
        }
    }

    /// Whether the table must count an event that was sent at `sent`.
    fn counts(&self, line: &Line<'_>, sent: UnixMillis) -> bool {
        self.rollup.as_ref().is_none_or(|rollup| {
            // The load sends no event whose age is close to a retention, so the exact time of expiry does not matter.
            let has_expired = |days: u32| line.time().0 + i64::from(days) * DAY < sent.0;
            let meets = |field: &Dimension, values: &[String]| values.contains(&line.text(field));
            !rollup.retention_days.is_some_and(has_expired)
                && rollup.conditions.iter().all(|condition| meets(&condition.field, &condition.values))
        })
    }

    /// The expected cells.
    pub fn expected(&self) -> Cells {
        let figures = |figures: &Vec<Accumulator>| figures.iter().map(Accumulator::value).collect();
        self.cells.iter().map(|(key, accumulators)| (key.clone(), figures(accumulators))).collect()
    }

    /// The actual cells, from the rows that the statement returns.
    pub fn found(&self, rows: Vec<Vec<String>>) -> Cells {
        let cell = |mut row: Vec<String>| {
            let figures = row.split_off(self.key.len());
            (row, figures.iter().map(|figure| figure.parse().unwrap_or(NOT_A_NUMBER)).collect())
        };
        rows.into_iter().map(cell).collect()
    }

    /// The differences between the expected cells and `found`.
    pub fn differences(&self, found: &Cells) -> Vec<Difference> {
        differences(&self.table, &self.key, &self.figures, &self.expected(), found)
    }
}

#[cfg(test)]
mod tests {
    use schemas::rollup::Rollups;

    use super::*;

    const SENT: UnixMillis = UnixMillis(1_767_227_400_000);
    const LINE: &str = r#"{"event":"vote","client_time":1767227400000,"device_id":"d","session":"s","sequence":1,"country":"DE","param_int":7,"poll":"p","option":"yes"}"#;

    fn totals(of: &str) -> Totals {
        let rollups = Rollups::built_in();
        rollups.get(of).map_or_else(Totals::of_raw, Totals::of_rollup)
    }

    #[track_caller]
    fn check(of: &str, lines: &[&str], cells: &[(&[&str], &[i64])]) {
        let mut totals = totals(of);
        lines.iter().for_each(|line| totals.add(&Line::read(line), SENT));
        let owned = |(key, figures): &(&[&str], &[i64])| {
            (key.iter().map(|text| (*text).to_owned()).collect(), figures.to_vec())
        };
        assert_eq!(totals.expected(), cells.iter().map(owned).collect::<Cells>(), "{of}");
    }

    #[test]
    fn every_table_counts_events_as_its_declaration_says() {
        let lines = [LINE, LINE];
        check("events", &lines, &[(&["1767225600", "vote", "DE"], &[2])]);
        check("event_minutely", &lines, &[(&["1767227400", "vote"], &[2])]);
        check("event_hourly", &lines, &[(&["1767225600", "vote", "DE", ""], &[2, 14])]);
        check("users_daily", &lines, &[(&["1767225600", "vote"], &[2, 1])]);
        check("sessions_daily", &lines, &[(&["1767225600", ""], &[2, 1])]);
        check("poll_votes", &lines, &[(&["p", "yes"], &[2, 1])]);
    }

    #[test]
    fn an_event_that_is_too_old_or_fails_a_condition_does_not_count() {
        let other = r#"{"event":"click","client_time":"2020-12-01 00:00:00","device_id":"d"}"#;
        check("event_minutely", &[other], &[]);
        check("poll_votes", &[other], &[]);
        check("event_daily", &[other], &[(&["1606780800", "click", ""], &[1])]);
    }

    #[test]
    fn the_statement_of_a_rollup_reads_its_key_then_the_count_then_the_measures() {
        assert_eq!(
            totals("users_hourly").sql,
            "SELECT toUnixTimestamp(bucket), dim1, sum(rows), uniqExactMerge(uniq1) FROM rollup_states \
             WHERE tenant != '' AND rollup = 'users_hourly' GROUP BY 1, 2"
        );
    }

    /// Numbers of missing and duplicated events if an event was sent once and a table counts it `times` times.
    fn difference(times: i64) -> Option<(u64, u64)> {
        let mut totals = totals("event_hourly");
        totals.add(&Line::read(LINE), SENT);
        let row = ["1767225600", "vote", "DE", ""].map(str::to_owned).into_iter();
        let row = row.chain([times.to_string(), (7 * times).to_string()]).collect();
        let rows = if times == 0 { vec![] } else { vec![row] };
        let found = totals.found(rows);
        let differences = totals.differences(&found);
        assert!(differences.len() <= 1);
        differences.first().map(|difference| (difference.missing(), difference.duplicated()))
    }

    #[test]
    fn a_missing_and_a_doubled_event_are_found() {
        assert_eq!(difference(1), None);
        assert_eq!(difference(0), Some((1, 0)));
        assert_eq!(difference(2), Some((0, 1)));
    }
}
