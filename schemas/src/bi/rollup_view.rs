//! The view of a rollup, and the views that merge its days into weeks and months.

use std::iter;

use super::Databases;
use super::bucket::Bucket;
use super::int64;
use super::service_views::AS_OF;
use super::view::{Kind, Owner, View, ViewColumn, column, identifier, of, text_of};
use crate::rollup::layout::MeasureColumn;
use crate::rollup::{Condition, Dimension, Distinct, Measure, Number, Rollup};

/// The view `name` of `rollup`. `bucket` is the length of the view's buckets; if it is `None`, the view has no time
/// column.
pub(super) fn of_rollup(rollup: &Rollup, name: &str, bucket: Option<Bucket>, on: Databases<'_>) -> View {
    let tenant = column("tenant", Kind::String, "whose data it is", &text_of("tenant"));
    let mut key: Vec<_> = bucket.map(Bucket::column).into_iter().collect();
    key.extend(rollup.dimensions.iter().enumerate().map(|(at, dimension)| of_dimension(at, dimension)));
    // The view groups by the tenant as it is stored (LowCardinality): grouping by the plain text takes a sixth longer.
    let mut group = vec![of("tenant")];
    group.extend(key.iter().map(|column| column.expression.clone()));
    let whole =
        bucket.zip(rollup.retention_days).and_then(|(bucket, days)| bucket.whole_bucket_condition(days));
    let from = format!(
        "FROM {}.{} AS T WHERE {}{} GROUP BY {}",
        on.tables,
        rollup.table().name(),
        rollup.condition(),
        whole.map(|whole| format!(" AND {whole}")).unwrap_or_default(),
        group.join(", ")
    );
    let measures = rollup.measures.iter().zip(rollup.measure_columns());
    let measures = measures.flat_map(|((name, measure), stored)| of_measure(name, measure, stored));
    let complete = bucket.map(|bucket| complete(bucket, on));
    View {
        name: name.to_owned(),
        comment: described(rollup, bucket),
        owner: Owner::Views,
        columns: iter::once(tenant).chain(key).chain(measures).chain(complete).collect(),
        table: rollup.table().name(),
        from,
    }
}

/// What a view of a rollup shows, in a sentence.
fn described(rollup: &Rollup, bucket: Option<Bucket>) -> String {
    let measures: Vec<_> = rollup.measures.iter().map(|(name, _)| name.as_str()).collect();
    let dimensions: Vec<_> = rollup.dimensions.iter().map(ToString::to_string).collect();
    let per = bucket.map(|bucket| format!(" per {}", bucket.noun())).unwrap_or_default();
    let by = if dimensions.is_empty() { String::new() } else { format!(" by {}", dimensions.join(", ")) };
    let conditions: Vec<_> = rollup.conditions.iter().map(condition).collect();
    let only = if conditions.is_empty() { "" } else { ", only where " };
    let kept = rollup.retention_days.map_or("for ever".to_owned(), |days| format!("for {days} days"));
    format!("{}{per}{by}{only}{}; kept {kept}", measures.join(", "), conditions.join(" and "))
}

fn condition(condition: &Condition) -> String {
    format!("{} is {}", condition.field, condition.values.join(" or "))
}

fn of_dimension(at: usize, dimension: &Dimension) -> ViewColumn {
    let name = dimension.column_name();
    let comment = match dimension {
        Dimension::Column(_) => format!("{dimension} as sent; empty if absent"),
        Dimension::Prop(_) => format!("field {dimension}; empty if absent"),
    };
    column(&name, Kind::String, &comment, &of(&Rollup::dimension_column(at)))
}

/// The column `complete`: whether everything that was in Kafka before the end of the bucket is counted.
fn complete(bucket: Bucket, on: Databases<'_>) -> ViewColumn {
    let end = bucket.end();
    let comment = format!(
        "0 while as_of of the view {AS_OF} is before the end of the {}; then 1, though late events may follow",
        bucket.noun()
    );
    let expression =
        format!("toInt64(assumeNotNull((SELECT as_of FROM {}.{AS_OF})) >= {end})", identifier(on.views));
    column("complete", Kind::Int64, &comment, &expression)
}

/// The column of a measure. A minimum or maximum of a field that events may lack also gets the column `<name>_rows`:
/// the number of events, or 0 if none of them has the field.
fn of_measure(name: &str, measure: &Measure, stored: MeasureColumn) -> impl Iterator<Item = ViewColumn> {
    let distinct = |d: &Distinct| match d {
        Distinct::User => "users",
        Distinct::Session => "sessions",
        Distinct::DeviceId => "devices",
    };
    let rows = measure.rows_column(name);
    let unknown = rows.as_ref().map(|rows| format!("; 0 where {rows} is 0")).unwrap_or_default();
    let (comment, function) = match measure {
        Measure::Count => ("additive: number of events".to_owned(), "sum"),
        Measure::CountOf(_) => (format!("additive: {measure}, events that have it"), "sum"),
        Measure::Sum(_) => (format!("additive: {measure}"), "sum"),
        Measure::Min(_) => (format!("NOT additive: {measure}, combine with min{unknown}"), "min"),
        Measure::Max(_) => (format!("NOT additive: {measure}, combine with max{unknown}"), "max"),
        Measure::UniqExact(d) => (format!("NOT additive: distinct {}", distinct(d)), "uniqExactMerge"),
    };
    let value = format!("{function}({})", of(&stored.name()));
    let neutral = match measure {
        Measure::Min(Number::Field(_)) => Some(i128::MAX),
        Measure::Max(Number::Field(_)) => Some(i128::MIN),
        Measure::Min(Number::ParamInt | Number::Sequence)
        | Measure::Max(Number::ParamInt | Number::Sequence)
        | Measure::Count
        | Measure::CountOf(_)
        | Measure::Sum(_)
        | Measure::UniqExact(_) => None,
    };
    // The aggregator stores the value `neutral` if no event of a group has the field.
    let is_neutral = neutral.map(|neutral| format!("{value} = toInt128('{neutral}')"));
    let beside = rows.zip(is_neutral.as_ref()).map(|(rows, is_neutral)| {
        let comment = format!(
            "additive: number of events, or 0 where none of them has a value; {name} is unknown there"
        );
        let events = int64::of_u64(&format!("sum({})", of("rows")));
        column(&rows, Kind::Int64, &comment, &format!("if({is_neutral}, toInt64(0), {events})"))
    });
    let number = match stored {
        MeasureColumn::Rows | MeasureColumn::Uniq(_) => int64::of_u64(&value),
        MeasureColumn::Sum(_) | MeasureColumn::Min(_) | MeasureColumn::Max(_) => int64::of_i128(&value),
    };
    let expression = match is_neutral {
        Some(is_neutral) => format!("if({is_neutral}, toInt64(0), {number})"),
        None => number,
    };
    [column(name, Kind::Int64, &comment, &expression)].into_iter().chain(beside)
}
