//! Restores a partition after its assignment: reads ClickHouse, then checks that the commit, the log and the tables
//! agree.
//!
//! Invariant: the pipeline reads no record until this check has succeeded. If ClickHouse does not answer, the restore
//! retries without a time limit.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use schemas::time::UnixMillis;
use uuid::Uuid;

use crate::apply::store::{Store, StoreError};
use crate::apply::{configs, markers};
use crate::pipeline::context::Services;
use crate::protocol::declaration::Declaration;
use crate::protocol::intent::Intent;
use crate::protocol::limits::DecodeLimits;
use crate::protocol::progress::{NextOffset, Offset};
use crate::protocol::recover::{KafkaState, RecoverError, Resume, resume};
use crate::protocol::window::{Window, WindowMark};

/// What a pipeline needs to continue a partition.
pub struct RestoredPartition {
    /// The offset at which the partition continues, and which batch is declared.
    pub resume: Resume,
    /// The declaration to continue with. If a batch is declared or records are adopted, it is the declaration that the
    /// intent names, otherwise the declaration of this process.
    pub declaration: Arc<Declaration>,
    /// The deduplication window of the records below `resume.from`.
    pub window: Window,
    /// The offsets of the markers above `resume.from`, ascending. Some may belong to the declared batch. The others
    /// were found by `stream-agg adopt`, and a batch after the declared one must end at each of them.
    pub fixed_ends: Vec<NextOffset>,
}

/// Restores `partition`. `found` is the state of the partition in Kafka.
///
/// # Errors
/// The commit, the log and the tables disagree, or this release cannot read the committed intent or a declaration that
/// the intent needs.
pub async fn restore(
    services: &Services,
    partition: u16,
    found: &KafkaState,
) -> Result<RestoredPartition, RecoverError> {
    services.health.retry_clickhouse(|| try_restore(services, partition, found)).await
}

async fn try_restore(
    services: &Services,
    partition: u16,
    found: &KafkaState,
) -> Result<Result<RestoredPartition, RecoverError>, StoreError> {
    let Services { store, declaration: ours, .. } = services;
    let intent = found.intent().map(|(_, intent)| intent);
    let mut declaration = Arc::clone(ours);
    // The rows of a declared batch and of adopted records must be made with the declaration that the intent names.
    let unfinished = intent.as_ref().filter(|intent| intent.last.is_some() || intent.adopted.is_some());
    if let Some(Intent { declaration_hash, .. }) =
        unfinished.filter(|intent| intent.declaration_hash != ours.hash())
    {
        match configs::read(store, *declaration_hash).await? {
            Ok(other) => declaration = Arc::new(other),
            Err(unknown) => return Ok(Err(RecoverError::UnknownDeclaration(unknown))),
        }
    }
    // If the intent is lost, the generation of the log is unknown, so the markers of all generations are read.
    let log_generation = intent.as_ref().map(|intent| intent.log_generation);
    let markers = markers::of_log(store, partition, log_generation).await?;
    services.inserter.set_clock(markers.now);
    let resume = match resume(found, &markers.all, markers.now, ours.hash()) {
        Ok(resume) => resume,
        Err(finding) => return Ok(Err(finding)),
    };
    let (WindowMark { floor, digest: expected }, from) = (resume.intent.window, resume.from);
    let window = match window(store, partition, &resume).await?.verified(&resume.intent.window) {
        Ok(window) => window,
        Err(found) => return Ok(Err(RecoverError::WindowDiffers { floor, from, found, expected })),
    };
    let adopted =
        markers.all.iter().map(|marker| marker.applied_end).filter(|applied_end| *applied_end > from);
    let fixed_ends = adopted.collect::<BTreeSet<_>>().into_iter().collect();
    Ok(Ok(RestoredPartition { resume, declaration, window, fixed_ends }))
}

/// The columns of the ledger that the window needs.
#[derive(clickhouse::Row, serde::Deserialize)]
struct LedgerRow {
    #[serde(rename = "ko")]
    raw_offset: u64,
    #[serde(rename = "millis")]
    kafka_time: i64,
    #[serde(rename = "id")]
    record_id: String,
    ids: Vec<u64>,
}

/// Restores, from the ledger, the window of the records below the committed offset.
async fn window(store: &Store, partition: u16, resume: &Resume) -> Result<Window, StoreError> {
    let condition = format!("ko >= {}", resume.intent.window.floor);
    let mut window = Window::new();
    for LedgerRow { raw_offset, kafka_time, record_id, ids } in
        ledger(store, partition, resume, &condition).await?
    {
        window.append(offset(raw_offset), UnixMillis(kafka_time), id(&record_id), &ids);
    }
    Ok(window)
}

/// Computes from the ledger the mark (floor and digest) of the window of the records below `resume.from`, for a caller
/// that does not know the floor. Let `T` be the latest time that Kafka gave one of these records. The window begins at
/// the first record whose time is not earlier than `T` minus the window's maximum age. It also contains every record
/// after that one, even a record with an earlier time, which exists if the clock of a broker went back: a restored
/// window always includes every record after its floor. If there are more ids than the window may hold, the oldest
/// records are left out.
///
/// # Errors
/// The error of ClickHouse.
pub async fn rebuild_window(
    store: &Store,
    partition: u16,
    resume: &Resume,
    limits: &DecodeLimits,
) -> Result<WindowMark, StoreError> {
    let age = limits.window.age_ms;
    let Resume { from, intent: Intent { log_generation, .. }, .. } = resume;
    let below = format!(
        "FROM ledger WHERE tenant = '*' AND g = {log_generation} AND kp = {partition} AND ko < {from}"
    );
    let condition = format!(
        "ko >= (SELECT min(ko) {below} AND kafka_time >= \
         (SELECT max(kafka_time) {below}) - INTERVAL {age} MILLISECOND)"
    );
    let mut window = Window::new();
    for LedgerRow { raw_offset, kafka_time, record_id, ids } in
        ledger(store, partition, resume, &condition).await?
    {
        window.push(offset(raw_offset), UnixMillis(kafka_time), id(&record_id), &ids, &limits.window);
    }
    Ok(window.mark(resume.from))
}

/// Reads the rows of the ledger below `resume.from` that meet `condition`, to restore a window from them. Leaves out
/// records without ids, because a window never holds them.
async fn ledger(
    store: &Store,
    partition: u16,
    resume: &Resume,
    condition: &str,
) -> Result<Vec<LedgerRow>, StoreError> {
    let Resume { from, intent, .. } = resume;
    let sql = format!(
        "SELECT ko, toUnixTimestamp64Milli(kafka_time) AS millis, toString(record_id) AS id, ids FROM ledger \
         WHERE tenant = '*' AND g = {} AND kp = {partition} AND ko < {from} AND {condition} \
         AND (notEmpty(ids) OR record_id != toUUID('{nil}')) ORDER BY ko",
        intent.log_generation,
        nil = Uuid::nil(),
    );
    store.rows(&sql).await
}

fn offset(raw: u64) -> Offset {
    Offset::new(raw.cast_signed())
}

fn id(text: &str) -> Uuid {
    Uuid::try_parse(text).unwrap_or_default()
}

/// Returns the ids among `ids` that belong to records in the ledger below `start`. Retries until ClickHouse answers.
pub async fn known_in_ledger(
    services: &Services,
    log_generation: u16,
    partition: u16,
    ids: &HashSet<Uuid>,
    start: NextOffset,
) -> HashSet<Uuid> {
    let list: Vec<_> = ids.iter().map(|id| format!("'{id}'")).collect();
    let sql = format!(
        "SELECT toString(record_id) FROM ledger \
         WHERE tenant = '*' AND g = {log_generation} AND kp = {partition} AND ko < {start} AND record_id IN ({})",
        list.join(", ")
    );
    let found = services.health.retry_clickhouse(|| services.store.rows::<String>(&sql)).await;
    found.iter().map(|text| id(text)).collect()
}
