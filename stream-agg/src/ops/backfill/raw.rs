//! Reads raw rows from ClickHouse into the columns ([`Rows`]) that rollups are computed from.
//!
//! The raw table lacks two of these columns. The time of an event is derived from the client time, the server time and
//! the limits under which the event was stored. The time at which Kafka appended the record is needed only to find rows
//! past their retention, so the server time is used instead. Columns that no rollup reads get a constant.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::rollup::{Dimension, Rollup};
use schemas::row::TimeLimits;
use schemas::tables::partition_id;
use schemas::time::UnixMillis;
use uuid::Uuid;

use crate::apply::store::{Store, StoreError};
use crate::ops::backfill::cut::{Chunk, RawDay, RawRecord};
use crate::rows::columns::Rows;

/// Timeout of a query of the raw table.
const READ_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The declarations without the rollup under which raw rows were stored. The key is the hash of a declaration, and the
/// value the limits within which this declaration trusts client times.
pub(super) type DeclarationsWithoutRollup = BTreeMap<u64, TimeLimits>;

/// The columns of a raw row that a backfill reads.
#[derive(clickhouse::Row, serde::Deserialize)]
struct RawRow {
    #[serde(rename = "cfg")]
    declaration_hash: u64,
    ko: u64,
    line: u16,
    tenant: String,
    event: String,
    client_millis: i64,
    server_millis: i64,
    user_id: String,
    device_id: String,
    device_os: String,
    session: String,
    sequence: u64,
    param_int: i64,
    param_str: String,
    country: String,
    props_text: String,
}

/// The hashes of the declarations under which raw rows were stored.
pub(super) async fn declarations(store: &Store) -> Result<Vec<u64>, StoreError> {
    let sql = "SELECT DISTINCT cfg FROM events WHERE tenant != '' ORDER BY cfg";
    store.rows_within(READ_TIMEOUT, sql).await
}

/// All raw days that have rows stored under one of the declarations `without_rollup`, by day.
pub(super) async fn raw_days(
    store: &Store,
    without_rollup: &DeclarationsWithoutRollup,
) -> Result<Vec<RawDay>, StoreError> {
    let sql = format!(
        "SELECT DISTINCT toUnixTimestamp64Milli(toDateTime64(toStartOfDay(server_time), 3, 'UTC')) AS day, kp \
         FROM events WHERE tenant != '' AND {} ORDER BY day, kp",
        of(without_rollup)
    );
    let rows: Vec<(i64, u16)> = store.rows_within(READ_TIMEOUT, &sql).await?;
    Ok(rows.into_iter().map(|(day, partition)| RawDay { day: UnixMillis(day), partition }).collect())
}

/// The records of a raw day that have rows stored under one of the declarations `without_rollup`.
/// [`RawRecord::rows`] is the number of these rows.
pub(super) async fn records(
    store: &Store,
    raw_day: RawDay,
    without_rollup: &DeclarationsWithoutRollup,
) -> Result<Vec<RawRecord>, StoreError> {
    let sql = format!(
        "SELECT g, ko, count() AS rows FROM events WHERE {} GROUP BY g, ko ORDER BY g, ko",
        in_raw_day(raw_day, without_rollup)
    );
    store.rows_within(READ_TIMEOUT, &sql).await
}

/// The rows of a chunk that were stored under one of the declarations `without_rollup`, by offset and line number.
pub(super) async fn rows(
    store: &Store,
    raw_day: RawDay,
    chunk: &Chunk,
    without_rollup: &DeclarationsWithoutRollup,
    rollup: &Rollup,
) -> Result<Rows, StoreError> {
    let sql = format!(
        "SELECT cfg, ko, line, tenant, event, toUnixTimestamp64Milli(client_time) AS client_millis, \
         toUnixTimestamp64Milli(server_time) AS server_millis, user_id, device_id, device_os, session, sequence, \
         param_int, param_str, country, {props} AS props_text FROM events \
         WHERE {raw_day} AND g = {log_generation} AND ko BETWEEN {first} AND {last} ORDER BY ko, line",
        // The column `props` is the largest one, and most rollups do not need it.
        props = if reads_props(rollup) { "props" } else { "'{}'" },
        raw_day = in_raw_day(raw_day, without_rollup),
        log_generation = chunk.log_generation,
        first = chunk.offsets.start(),
        last = chunk.offsets.end(),
    );
    let read: Vec<RawRow> = store.rows_within(READ_TIMEOUT, &sql).await?;
    let mut rows = Rows::default();
    for row in read {
        let limits =
            without_rollup.get(&row.declaration_hash).expect("only rows of these declarations are read");
        push(&row, limits, &mut rows);
    }
    Ok(rows)
}

fn push(row: &RawRow, limits: &TimeLimits, rows: &mut Rows) {
    let (sent_at, arrived) = (UnixMillis(row.client_millis), UnixMillis(row.server_millis));
    // There is no `..` here, so after a column is added to `Rows`, this code does not compile until the new column gets
    // a value below. All columns must have the same length.
    let Rows {
        tenant,
        event,
        client_time,
        server_time,
        ip,
        user_id,
        device_id,
        device_os,
        session,
        sequence,
        param_int,
        param_str,
        country,
        event_id,
        props,
        ko,
        line,
        event_time,
        received,
    } = rows;
    tenant.push(&row.tenant);
    event.push(&row.event);
    client_time.push(sent_at);
    server_time.push(arrived);
    ip.push([0; 16]);
    user_id.push(&row.user_id);
    device_id.push(&row.device_id);
    device_os.push(&row.device_os);
    session.push(&row.session);
    sequence.push(row.sequence);
    param_int.push(row.param_int);
    param_str.push(&row.param_str);
    country.push(&row.country);
    event_id.push(Uuid::nil());
    props.push(&row.props_text);
    ko.push(row.ko);
    line.push(row.line);
    event_time.push(limits.event_time(Some(sent_at), arrived).time);
    received.push(arrived);
}

fn reads_props(rollup: &Rollup) -> bool {
    let conditions = rollup.conditions.iter().map(|condition| &condition.field);
    let of_props = |field: &Dimension| matches!(field, Dimension::Prop(_));
    rollup.dimensions.iter().chain(conditions).any(of_props)
        || rollup.measures.iter().any(|(_, measure)| measure.field().is_some())
}

fn in_raw_day(raw_day: RawDay, without_rollup: &DeclarationsWithoutRollup) -> String {
    let RawDay { day, partition } = raw_day;
    let id = partition_id(day);
    format!("_partition_id = '{id}' AND tenant != '' AND kp = {partition} AND {}", of(without_rollup))
}

fn of(without_rollup: &DeclarationsWithoutRollup) -> String {
    let hashes: Vec<_> = without_rollup.keys().map(u64::to_string).collect();
    format!("cfg IN ({})", hashes.join(", "))
}
