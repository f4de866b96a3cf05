//! The view of a rollup.

use super::view::{View, ViewColumn, column, of};
use crate::rollup::layout::MeasureColumn;
use crate::rollup::{Dimension, Distinct, Grain, Measure, Number, Rollup};

pub(super) fn of_rollup(rollup: &Rollup, database: &str) -> View {
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
    let measures = rollup.measures.iter().zip(rollup.measure_columns());
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

fn of_dimension(at: usize, dimension: &Dimension) -> ViewColumn {
    let name = dimension.column_name();
    let comment = match dimension {
        Dimension::Column(_) => format!("{dimension} as sent; empty if absent"),
        Dimension::Prop(_) => format!("field {dimension}; empty if absent"),
    };
    column(&name, "String", &comment, &of(&Rollup::dimension_column(at)))
}

fn of_measure(name: &str, measure: &Measure, stored: MeasureColumn) -> ViewColumn {
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
    let value = format!("{function}({})", of(&stored.name()));
    let value = match measure {
        Measure::Min(Number::Field(_)) => present(&value, i128::MAX),
        Measure::Max(Number::Field(_)) => present(&value, i128::MIN),
        Measure::Min(Number::ParamInt | Number::Sequence)
        | Measure::Max(Number::ParamInt | Number::Sequence)
        | Measure::Count
        | Measure::CountOf(_)
        | Measure::Sum(_)
        | Measure::UniqExact(_) => value,
    };
    // Sums and extremes are stored as Int128.
    let expression = match stored {
        MeasureColumn::Rows | MeasureColumn::Uniq(_) => value,
        MeasureColumn::Sum(_) | MeasureColumn::Min(_) | MeasureColumn::Max(_) => match kind {
            "Int64" => saturated("toInt64", &value, i64::MIN.into(), i64::MAX.into()),
            _ => saturated("toUInt64", &value, 0, u64::MAX.into()),
        },
    };
    column(name, kind, &comment, &expression)
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
