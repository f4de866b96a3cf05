//! Declared fields of `props` become typed columns, and `props` keeps the text that was sent.

use devstack::wait_for;
use schemas::rollup::Rollups;
use schemas::time::UnixMillis;

use crate::client::Http;
use crate::readiness::wait_for_readyz;
use crate::world::{DEADLINE, World};

const FIELDS: &str = r#"
[[field]]
name = "plan"
path = "account.plan"
type = "string"

[[field]]
name = "level"
path = "level"
type = "int"

[[field]]
name = "price"
path = "price"
type = "float"

[[field]]
name = "trial"
path = "trial"
type = "bool"

[[field]]
name = "due"
path = "due"
type = "time"
"#;

async fn wait_for_rows(world: &World, rows: u64) {
    let stored = async || world.number("SELECT count() FROM events WHERE tenant != ''").await == rows;
    wait_for(format!("{rows} stored rows"), DEADLINE, stored).await.unwrap();
}

#[tokio::test]
async fn a_declared_field_is_a_typed_column_and_props_keep_what_was_sent() {
    let world = World::new("fields").await;
    let (edge, mut aggregator, api) = world.pipeline().await;
    drop(api);
    // The text of unknown fields must stay the same, byte for byte.
    let odd = r#"{"error":true,"error.type":"t","ids":[9007199254740993,0.5],"n":1.50,"z":null,"e":{}}"#;
    let post = async |event: &str, props: &str| {
        let line = format!(r#"{{"event":"{event}",{}"#, &props[1..]);
        assert_eq!(edge.http.post_lines(&[line]).await.status, 200);
    };
    post("a", odd).await;
    wait_for_rows(&world, 1).await;
    aggregator.terminate().await.unwrap();

    let file = world.write("rollups.toml", &format!("{}{FIELDS}", Rollups::built_in()));
    let declared = [("ROLLUPS_FILE", file.as_str())];
    let mut early = world.start("stream-agg", &declared);
    wait_for_readyz(
        &early,
        &["`fields.events` has no column prop_plan, prop_level", "run `stream-agg migrate`"],
    )
    .await;
    early.terminate().await.unwrap();
    world.migrate_with(&declared).await;
    let mut aggregator = world.start("stream-agg", &declared);
    aggregator.wait_ready().await.unwrap();
    let typed =
        r#"{"account":{"plan":"pro"},"level":1e3,"price":1.50,"trial":true,"due":"2026-11-21 04:00:00"}"#;
    let mistyped = r#"{"account.plan":7,"level":"5","price":"1","trial":1,"due":"soon"}"#;
    post("b", typed).await;
    post("c", mistyped).await;
    post("d", "{\"level\":-3}").await;
    wait_for_rows(&world, 4).await;

    assert_eq!(
        world.rows("SELECT event, props FROM events WHERE tenant != '' ORDER BY event").await,
        [["a", odd], ["b", typed], ["c", mistyped], ["d", "{\"level\":-3}"]]
    );
    let view = format!(
        "SELECT event, prop_plan, prop_level, prop_price, prop_trial, toUnixTimestamp64Milli(prop_due) \
         FROM {}.events_recent ORDER BY event",
        world.bi_database()
    );
    let due = UnixMillis::parse("2026-11-21 04:00:00").unwrap().0.to_string();
    assert_eq!(
        world.rows(&view).await,
        [
            ["a", "", "0", "0", "0", "0"],
            ["b", "pro", "1000", "1.5", "1", &due],
            ["c", "", "0", "0", "0", "0"],
            ["d", "", "-3", "0", "0", "0"],
        ]
    );
    let admin = Http::new(aggregator.admin());
    // The metric includes a batch only when all tables have the batch, which may be after its raw rows are visible.
    let counted = async || admin.metric("stream_agg_fields_mistyped_total").await == Some(5);
    wait_for("five mistyped fields", DEADLINE, counted).await.unwrap();

    // `migrate` refuses to change the type of an existing column.
    let changed = world
        .write("changed.toml", &format!("{}{}", Rollups::built_in(), FIELDS.replace("\"int\"", "\"float\"")));
    let error = world.run("stream-agg", &["migrate"], &[("ROLLUPS_FILE", &changed)]).await.unwrap_err();
    assert!(format!("{error:#}").contains("`field_level` was changed after it was applied"), "{error:#}");
}

/// A rollup by country: the number of events, the number of events with an amount, the sum of the amounts, and the
/// smallest amount.
const SPENT: &str = r#"
[[rollup]]
name = "spent"
grain = "none"
dimensions = ["country"]
measures = { events = "count", sales = "count(prop_amount)", total = "sum(prop_amount)", least = "min(prop_amount)" }

[[field]]
name = "amount"
path = "cart.amount"
type = "int"
"#;

#[tokio::test]
async fn an_integer_field_is_summed_for_new_events_and_by_a_backfill_for_earlier_ones() {
    let world = World::new("measured_fields").await;
    let (edge, mut aggregator, api) = world.pipeline().await;
    drop(api);
    let lines = [
        r#"{"event":"a","country":"DE","cart":{"amount":9223372036854775807}}"#,
        r#"{"event":"a","country":"DE","cart":{"amount":1e3}}"#,
        r#"{"event":"a","country":"DE","cart":{"amount":"5"}}"#,
        r#"{"event":"a","country":"DE"}"#,
        r#"{"event":"a","country":"FR","cart":{}}"#,
    ]
    .map(str::to_owned);
    assert_eq!(edge.http.post_lines(&lines).await.status, 200);
    wait_for_rows(&world, 5).await;
    aggregator.terminate().await.unwrap();

    let file = world.write("rollups.toml", &format!("{}{SPENT}", Rollups::built_in()));
    let declared = [("ROLLUPS_FILE", file.as_str())];
    world.migrate_with(&declared).await;
    let mut aggregator = world.start("stream-agg", &declared);
    aggregator.wait_ready().await.unwrap();
    assert_eq!(edge.http.post_lines(&lines).await.status, 200);
    wait_for_rows(&world, 10).await;
    let states = "SELECT dim1, sum(rows), sum(sum1), sum(sum2), min(min1) FROM rollup_states \
                  WHERE rollup = 'spent' AND tenant != '' GROUP BY dim1 ORDER BY dim1";
    let neutral = i128::MAX.to_string();
    assert_eq!(
        world.rows(states).await,
        [["DE", "4", "2", "9223372036854776807", "1000"], ["FR", "1", "0", "0", &neutral]]
    );
    aggregator.terminate().await.unwrap();
    world.run("stream-agg", &["backfill", "spent"], &declared).await.unwrap();
    assert_eq!(
        world.rows(states).await,
        [["DE", "8", "4", "18446744073709553614", "1000"], ["FR", "2", "0", "0", &neutral]]
    );
    // If a sum is greater than the largest signed 64-bit integer, the view shows this integer. If no event of a group
    // has an amount, the view shows 0 as the minimum `least`. The column `least_rows` is then 0 too, so readers can see
    // that the 0 in `least` is not an amount.
    let view = format!(
        "SELECT country, events, sales, total, least, least_rows FROM {}.spent ORDER BY country",
        world.bi_database()
    );
    let most = i64::MAX.to_string();
    assert_eq!(
        world.rows(&view).await,
        [["DE", "8", "4", &most, "1000", "8"], ["FR", "2", "0", "0", "0", "0"]]
    );
    world.run("stream-agg", &["audit"], &declared).await.unwrap();
}
