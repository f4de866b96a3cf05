//! The statement of an insert, and its settings. Pure.
//!
//! Invariant: a statement sets every setting that decides into how many parts ClickHouse writes the rows, whether it
//! checks the deduplication token, and how long the insert may run. The server's defaults, which a deployment may
//! change, do not matter.

use schemas::time::{SECOND, UnixMillis};

use crate::apply::store::COMPLETE_ANSWER_SETTINGS;
use crate::apply::verdict::{MAX_EXECUTION_MS, Target};
use crate::rows::cells::{Cell, Source};

/// Settings of every insert, in addition to [`COMPLETE_ANSWER_SETTINGS`]. With these settings, one block becomes one
/// part, completely or not at all. ClickHouse checks the token, and answers only after the insert has ended or failed.
const SETTINGS: [(&str, &str); 12] = [
    ("async_insert", "0"),
    ("wait_end_of_query", "1"),
    // If headers were sent early, a later error would follow a status of 200.
    ("send_progress_in_http_headers", "0"),
    // This is the setting for an INSERT SELECT. By default, the server may ignore the token of such a statement.
    ("deduplicate_insert_select", "force_enable"),
    ("deduplicate_insert", "enable"),
    ("max_insert_threads", "1"),
    ("min_insert_block_size_rows", "1000000000"),
    ("min_insert_block_size_bytes", "0"),
    ("max_insert_block_size", "10000000"),
    ("use_strict_insert_block_limits", "0"),
    ("max_insert_block_size_bytes", "0"),
    ("max_partitions_per_insert_block", "1"),
];

/// All settings of one attempt under `token`. No two attempts to insert a cell have the same deadline, so the deadline
/// makes the query id of the attempt unique.
pub(super) fn settings(cell: &Cell, token: &str, deadline: UnixMillis) -> Vec<(&'static str, String)> {
    let Cell { table, partition_id, .. } = cell;
    let own = [
        ("insert_deduplication_token", token.to_owned()),
        ("query_id", format!("sa/{token}/{table}/{partition_id}/{}", deadline.0)),
        ("max_execution_time", (MAX_EXECUTION_MS / SECOND).to_string()),
    ];
    let fixed = COMPLETE_ANSWER_SETTINGS.into_iter().chain(SETTINGS);
    own.into_iter().chain(fixed.map(|(name, value)| (name, value.to_owned()))).collect()
}

/// The statement inserts through the table function `input()`, because only an `INSERT SELECT` can have a condition.
/// The condition is that [`Target::admits`] holds, and that the statement runs on the server whose markers were read.
/// The statement throws if the condition does not hold, so an answer without an error means that the rows were
/// accepted.
pub(super) fn statement(
    cell: &Cell,
    source: Source,
    target: Target,
    deadline: UnixMillis,
    server: &str,
) -> String {
    let Cell { table, partition_id, block, .. } = cell;
    let names: Vec<_> = block.structure.iter().map(|(name, _)| name.as_str()).collect();
    let columns: Vec<_> =
        block.structure.iter().map(|(name, kind)| format!("{name} {}", kind.replace('\'', "\\'"))).collect();
    let (names, columns) = (names.join(", "), columns.join(", "));
    format!(
        "INSERT INTO {table} ({names}) SELECT {names} FROM input('{columns}') WHERE NOT throwIf((SELECT max(hwm) \
         FROM {table} WHERE _partition_id = '{partition_id}' AND {markers}) > {start}, 'ahead') \
         AND NOT throwIf(now64(3) >= fromUnixTimestamp64Milli({deadline}), 'late') \
         AND NOT throwIf(toString(serverUUID()) != '{server}', 'another server') FORMAT Native",
        markers = cell.marker_rows(source),
        start = target.start,
        deadline = deadline.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::progress::NextOffset;
    use crate::rows::native::BlockBuilder;

    fn cell() -> Cell {
        let mut block = BlockBuilder::new(1, 1);
        block.fixed("t", "DateTime('UTC')", [[0; 4]]);
        Cell {
            table: "x",
            backfill: None,
            partition_id: "202611".to_owned(),
            expires_at: None,
            rows: 1,
            block: block.finish(),
        }
    }

    #[test]
    fn a_statement_inserts_only_missing_rows_and_only_before_its_deadline() {
        let source = Source { log_generation: 2, partition: 3, declaration_hash: 1 };
        let target = Target { start: NextOffset::new(7), end: NextOffset::new(10), expires_at: None };
        assert_eq!(
            statement(&cell(), source, target, UnixMillis(123), "0c3a"),
            r"INSERT INTO x (t) SELECT t FROM input('t DateTime(\'UTC\')') WHERE NOT throwIf((SELECT max(hwm) FROM x WHERE _partition_id = '202611' AND tenant = '' AND kp = 3 AND g = 2) > 7, 'ahead') AND NOT throwIf(now64(3) >= fromUnixTimestamp64Milli(123), 'late') AND NOT throwIf(toString(serverUUID()) != '0c3a', 'another server') FORMAT Native"
        );
    }

    /// Checks a setting of an attempt with the token `t` and the deadline 123.
    #[track_caller]
    fn check(name: &str, expected: &str) {
        let settings = settings(&cell(), "t", UnixMillis(123));
        let found: Vec<_> = settings.iter().filter(|(other, _)| *other == name).collect();
        assert!(matches!(found.as_slice(), [(_, value)] if value == expected), "{name}: {found:?}");
    }

    #[test]
    fn one_block_becomes_one_part_with_any_server_defaults() {
        check("async_insert", "0");
        check("max_insert_threads", "1");
        // These limits must not split the largest block: 1 M rows (the maximum of `BATCH_MAX_ROWS`), plus the rows of
        // one more record.
        check("min_insert_block_size_rows", "1000000000");
        check("max_insert_block_size", "10000000");
        check("min_insert_block_size_bytes", "0");
        check("max_insert_block_size_bytes", "0");
        check("use_strict_insert_block_limits", "0");
    }

    #[test]
    fn every_statement_has_a_token_and_a_time_limit() {
        check("insert_deduplication_token", "t");
        check("deduplicate_insert_select", "force_enable");
        check("deduplicate_insert", "enable");
        check("query_id", "sa/t/x/202611/123");
        check("max_execution_time", "25");
        check("timeout_overflow_mode", "throw");
    }

    #[test]
    fn errors_set_the_status_and_no_limit_truncates_the_condition() {
        check("wait_end_of_query", "1");
        check("send_progress_in_http_headers", "0");
        check("read_overflow_mode", "throw");
        check("limit", "0");
        check("offset", "0");
        check("aggregate_functions_null_for_empty", "0");
        check("empty_result_for_aggregation_by_empty_set", "0");
    }
}
