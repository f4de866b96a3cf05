//! Numbers of the tables as `Int64`. What is out of range becomes the nearest bound, because a number that wraps
//! would be wrong by far.
//!
//! Not with `least` and `greatest`: with Int128 their results are wrong once ClickHouse has compiled them, after a
//! few runs (seen on 26.7.2.1).

/// `value`, a UInt64.
pub(super) fn of_u64(value: &str) -> String {
    format!("if({value} > {most}, toInt64('{most}'), toInt64({value}))", most = i64::MAX)
}

/// `value`, an Int128.
pub(super) fn of_i128(value: &str) -> String {
    let (least, most) = (i64::MIN, i64::MAX);
    format!(
        "multiIf({value} > toInt128('{most}'), toInt64('{most}'), {value} < toInt128('{least}'), \
         toInt64('{least}'), toInt64({value}))"
    )
}
