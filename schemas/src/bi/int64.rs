//! Converts numbers of the tables to `Int64`. A number out of range becomes the nearest bound: a number that wraps
//! around would be much further from the true value.
//!
//! The SQL does not use `least` and `greatest`: for Int128, their results become wrong when ClickHouse compiles the
//! expression, which it does after a few runs (seen on 26.7.2.1).

/// Converts `value`, a UInt64.
pub(super) fn of_u64(value: &str) -> String {
    format!("if({value} > {most}, toInt64('{most}'), toInt64({value}))", most = i64::MAX)
}

/// Converts `value`, an Int128.
pub(super) fn of_i128(value: &str) -> String {
    let (least, most) = (i64::MIN, i64::MAX);
    format!(
        "multiIf({value} > toInt128('{most}'), toInt64('{most}'), {value} < toInt128('{least}'), \
         toInt64('{least}'), toInt64({value}))"
    )
}
