//! The inserts of a running aggregator, as ClickHouse's query log and part log show them.

use devstack::wait_for;

use crate::oracle::{Oracle, TestEvent, now};
use crate::profile::{LOADER, Profiled};
use crate::wire::produce;
use crate::world::{DEADLINE, World};

/// The table of each insert for a batch with events of today, sorted. `rollup_sums` gets two inserts, because it is
/// partitioned by the day on which rows expire: the rows of `event_minutely` expire after 7 days, and all other rows
/// never expire.
const TABLES_OF_A_BATCH: [&str; 5] = ["events", "ledger", "rollup_states", "rollup_sums", "rollup_sums"];

/// The settings that every insert must have.
const SETTINGS: [(&str, &str); 18] = [
    ("async_insert", "0"),
    ("send_progress_in_http_headers", "0"),
    ("deduplicate_insert_select", "force_enable"),
    ("deduplicate_insert", "enable"),
    ("max_insert_threads", "1"),
    ("min_insert_block_size_rows", "1000000000"),
    ("min_insert_block_size_bytes", "0"),
    ("max_insert_block_size", "10000000"),
    ("use_strict_insert_block_limits", "0"),
    ("max_insert_block_size_bytes", "0"),
    ("max_partitions_per_insert_block", "1"),
    ("aggregate_functions_null_for_empty", "0"),
    ("empty_result_for_aggregation_by_empty_set", "0"),
    ("limit", "0"),
    ("offset", "0"),
    ("max_execution_time", "25"),
    ("timeout_overflow_mode", "throw"),
    ("read_overflow_mode", "throw"),
];

/// Settings that would make ClickHouse, among other things, split blocks, collect small inserts, ignore deduplication
/// tokens and truncate answers. They are in the settings profile of the user that inserts. The settings that a request
/// sends must take away the effects of this profile.
const HOSTILE: [(&str, &str); 21] = [
    ("async_insert", "1"),
    ("send_progress_in_http_headers", "1"),
    ("max_partitions_per_insert_block", "7"),
    ("max_execution_time", "1000"),
    ("timeout_overflow_mode", "break"),
    ("read_overflow_mode", "break"),
    ("insert_deduplicate", "0"),
    ("deduplicate_insert", "disable"),
    ("deduplicate_insert_select", "disable"),
    ("max_insert_threads", "4"),
    ("max_threads", "4"),
    ("max_block_size", "1000"),
    ("min_insert_block_size_rows", "1000"),
    ("min_insert_block_size_bytes", "1000"),
    ("max_insert_block_size", "1000"),
    ("max_insert_block_size_bytes", "10000"),
    ("use_strict_insert_block_limits", "1"),
    ("aggregate_functions_null_for_empty", "1"),
    ("empty_result_for_aggregation_by_empty_set", "1"),
    ("limit", "1"),
    ("offset", "1"),
];

/// Number of records in a large batch, and number of lines in each record.
const LARGE: (usize, usize) = (50, 2000);

/// The FROM and WHERE clauses that select the inserts of batches from ClickHouse's query log.
fn of_batches(world: &World) -> String {
    format!(
        "FROM system.query_log WHERE type = 'QueryFinish' AND current_database = '{}'
         AND query_kind = 'Insert' AND position(query, ' FROM input(') > 0",
        world.name()
    )
}

#[tokio::test]
async fn every_insert_carries_its_token_and_the_settings_that_exactness_rests_on() {
    let Profiled { stack: _stack, world } = Profiled::new("inserts_settings", &HOSTILE).await;
    let (mut rng, mut oracle) = (fastrand::Rng::with_seed(100), Oracle::default());
    let made: Vec<_> = (0..3).map(|_| TestEvent::random(&mut rng, now())).collect();
    produce(&world, 0, &made);
    made.iter().for_each(|made| oracle.record(made));
    let mut aggregator = world.start("stream-agg", &LOADER);
    world.assert_counted(&oracle.counts()).await;
    aggregator.terminate().await.unwrap();

    world.rows("SYSTEM FLUSH LOGS").await;
    // The query log has only the settings that differ from ClickHouse's own defaults. For any other setting, the
    // statement reads the default.
    let of_name = |name: &str| format!("SELECT default FROM system.settings WHERE name = '{name}'");
    let names = SETTINGS.map(|(name, _)| {
        format!("if(mapContains(Settings, '{name}'), Settings['{name}'], ({}))", of_name(name))
    });
    let inserts = world
        .rows(&format!(
            "SELECT extract(query, '^INSERT INTO (\\\\w+)') AS name, query_id,
                    Settings['insert_deduplication_token'], {} {} ORDER BY name",
            names.join(", "),
            of_batches(&world)
        ))
        .await;
    let tables: Vec<_> = inserts.iter().map(|insert| insert[0].as_str()).collect();
    assert_eq!(tables, TABLES_OF_A_BATCH, "one insert for each cell");
    let expected = SETTINGS.map(|(_, value)| value);
    for insert in &inserts {
        let [table, query, token, settings @ ..] = insert.as_slice() else { panic!("{insert:?}") };
        assert_eq!(token, &inserts[0][2], "the token of the only batch, in {table}");
        assert!(token.starts_with("0/inserts_settings/0/0-0/"), "{token}");
        assert!(query.starts_with(&format!("sa/{token}/{table}/")), "{query}");
        for ((name, _), (found, expected)) in SETTINGS.iter().zip(settings.iter().zip(expected)) {
            assert_eq!(found, expected, "{name} in {table}");
        }
    }
}

#[tokio::test]
async fn one_insert_makes_one_part_for_any_size_and_any_server_defaults() {
    let Profiled { stack: _stack, world } = Profiled::new("inserts_parts", &HOSTILE).await;
    let (mut rng, mut oracle) = (fastrand::Rng::with_seed(101), Oracle::default());
    let mut append = |records: usize, lines: usize| {
        for _ in 0..records {
            let made: Vec<_> = (0..lines).map(|_| TestEvent::random(&mut rng, now())).collect();
            produce(&world, 0, &made);
            made.iter().for_each(|made| oracle.record(made));
        }
    };
    let (records, lines) = LARGE;
    append(records, lines);
    let rows = (records * lines).to_string();
    // The batch closes as soon as it has all records, because `BATCH_MAX_ROWS` is the number of their lines.
    let whole = [("BATCH_MAX_ROWS", rows.as_str()), ("BATCH_MAX_AGE", "60s"), ("BATCH_MAX_BYTES", "512MiB")];
    let mut aggregator = world.start("stream-agg", &[LOADER.as_slice(), &whole].concat());
    let recorded = "SELECT count() FROM ledger WHERE tenant != ''";
    let large = async || world.number(recorded).await == records as u64;
    wait_for("the ledger to have the large batch", DEADLINE, large).await.unwrap();
    aggregator.terminate().await.unwrap();
    // A small batch is tested too: if the insert did not override the settings in `HOSTILE`, the server would hold back
    // the few rows of the batch to collect more.
    append(1, 3);
    let _aggregator = world.start("stream-agg", &LOADER);
    world.assert_counted(&oracle.counts()).await;

    world.rows("SYSTEM FLUSH LOGS").await;
    let parts = "SELECT query_id, count() AS parts, sum(rows) AS rows FROM system.part_log
                 WHERE event_type = 'NewPart' AND database = currentDatabase() GROUP BY query_id";
    let inserts = world
        .rows(&format!(
            "SELECT extract(query, '^INSERT INTO (\\\\w+)') AS name, made.parts, made.rows
             FROM (SELECT query, query_id {}) AS inserts LEFT JOIN ({parts}) AS made USING (query_id)
             ORDER BY name, made.rows",
            of_batches(&world)
        ))
        .await;
    let tables: Vec<_> = inserts.iter().map(|insert| insert[0].as_str()).collect();
    assert_eq!(tables, TABLES_OF_A_BATCH.map(|table| [table; 2]).concat(), "two batches: {inserts:?}");
    for insert in &inserts {
        assert_eq!(insert[1], "1", "parts of one insert: {insert:?}");
    }
    // An insert into `events` has a row for each event of the batch and one marker row.
    let of_events: Vec<_> = inserts.iter().filter(|insert| insert[0] == "events").collect();
    assert_eq!([&of_events[0][2], &of_events[1][2]], ["4", &(records * lines + 1).to_string()]);
}
