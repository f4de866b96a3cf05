//! What a query API with a given configuration needs: memory, time to stop, ports and connections.

use runtime::admin;
use runtime::needs::{Address, Needs};

use crate::app::DRAIN_DEADLINE;
use crate::config::Config;
use crate::people::MAX_CACHE_BYTES;
use crate::query::sql::MAX_ROWS;

/// Bytes that a fetched row takes if it has one dimension and one measure: the struct, its two vectors and a short
/// text. Added up by hand, not measured. Rows of most queries have few dimensions and measures; a row with more takes
/// more.
const ROW_BYTES: usize = 200;

/// What a query API with this configuration needs.
pub fn needs(config: &Config) -> Needs {
    let query = &config.query;
    let statements = query.concurrency.get() + query.slow_concurrency.get();
    let clickhouse = Address::of_url("CLICKHOUSE_URL", &config.clickhouse.url);
    Needs {
        memory: vec![
            ("answers to queries: QUERY_CACHE_BYTES", query.cache_bytes),
            ("answers of /v1/retention and /v1/funnel", MAX_CACHE_BYTES),
            (
                "rows of statements: QUERY_CONCURRENCY, QUERY_SLOW_CONCURRENCY",
                statements * MAX_ROWS * ROW_BYTES,
            ),
        ],
        stop: vec![
            ("requests that still arrive: DRAIN_DELAY", config.drain_delay),
            ("open requests", DRAIN_DEADLINE),
            ("probes and scrapes", admin::DRAIN),
        ],
        listens: vec![("LISTEN_ADDR", config.listen_addr), ("ADMIN_ADDR", config.admin_addr)],
        connects: vec![clickhouse.expect("the variable was checked when it was read")],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::vars::Vars;

    use super::*;

    #[track_caller]
    fn needs_of(pairs: &[(&str, &str)]) -> Needs {
        let given = [("CLICKHOUSE_URL", "http://c:8123")];
        needs(&Config::from_vars(&Vars::from_pairs(given.iter().chain(pairs).copied())).unwrap())
    }

    #[test]
    fn memory_depends_on_the_cache_and_the_concurrent_statements() {
        let all = needs_of(&[]).memory_bytes();
        assert_eq!(all, (128 << 20) + 6 * 100_001 * 200);
        assert_eq!(needs_of(&[("QUERY_CACHE_BYTES", "1MiB")]).memory_bytes(), all - (63 << 20));
        assert_eq!(needs_of(&[("QUERY_CONCURRENCY", "5")]).memory_bytes(), all + 100_001 * 200);
    }

    #[test]
    fn a_longer_drain_delay_makes_the_stop_longer() {
        assert_eq!(needs_of(&[]).longest_stop(), Duration::from_secs(16));
        assert_eq!(needs_of(&[("DRAIN_DELAY", "15s")]).longest_stop(), Duration::from_secs(26));
    }

    #[test]
    fn only_a_connection_to_clickhouse_is_needed() {
        let all: Vec<_> = needs_of(&[]).connects.iter().map(Address::to_string).collect();
        assert_eq!(all, ["c:8123"]);
    }
}
