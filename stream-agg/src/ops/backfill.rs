//! `stream-agg backfill`: fills a new rollup with the events that were stored before the rollup was declared.
//!
//! Each raw row names the declaration under which it was stored. The command reads the raw rows whose declaration lacks
//! the rollup, and aggregates them with the code that aggregates live rows. Invariant: each of these rows is counted
//! once, even if the command is killed, repeated or run twice at the same time.
//!
//! This holds because every run cuts the raw rows into the same chunks ([`cut`]) and inserts a chunk in the same way as
//! a live batch ([`crate::apply::insert`]): ClickHouse inserts a cell only if the marker of its table partition shows
//! that the cell is missing, and each insert has a deduplication token. The marker and the token contain the name of
//! the rollup, because several rollups share a table. Unlike a live batch, a chunk is not declared in Kafka: raw rows
//! below a committed offset do not change, so a later run can compute the same chunk from them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemas::rollup::Rollup;
use schemas::tables::{RAW_DAYS, partition_droppable_from};
use schemas::time::{DAY, HOUR, UnixMillis};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::apply::insert::{DeclaredBatch, Inserter, NotApplied, StoppedBatch, Token};
use crate::apply::store::{Store, StoreError};
use crate::apply::tables::{self, TablesError};
use crate::apply::{self, configs, markers};
use crate::config::Config;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::ops::in_use::{self, InUseError};
use crate::protocol::declaration::UnknownDeclaration;
use crate::protocol::limits::MAX_GROUPS;
use crate::protocol::progress::Offset;
use crate::rows::cells::{self, Cells, Source};
use crate::rows::strata::Strata;

mod cut;

mod raw;

mod since;

use cut::{Chunk, RawDay};
use raw::DeclarationsWithoutRollup;
use since::SinceBefore;

/// Number of rows at which a chunk is full, to bound memory. The last record of a chunk may bring it above this number.
/// A later release may use another number without counting a record twice: a chunk also ends where a chunk that an
/// earlier run inserted ends.
const MAX_CHUNK_ROWS: u64 = 100_000;
/// A day of raw rows is skipped if ClickHouse may drop it within this time. Otherwise, ClickHouse could drop the rows
/// while they are counted, and the rollup would have only a part of the day.
const EXPIRY_MARGIN_MS: i64 = HOUR;
/// Minimum time per inserted cell, so that the deduplication tokens of a backfill do not displace those of live
/// batches. A table remembers its last 50,000 tokens, and must remember the token of a live batch for 55 s, because an
/// insert may take that long ([`crate::apply::verdict::MAX_INSERT_LIFETIME_MS`]). A backfill adds only 2,200 tokens in
/// 55 s.
const MIN_INSERT_TIME: Duration = Duration::from_millis(25);

/// Why a rollup was not filled, or only partly filled. Running the command again counts nothing twice.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// The rollup is not declared.
    #[error("backfill `{name}`: no such rollup is declared; the declared rollups are {}", known.join(", "))]
    NotDeclared {
        /// The name in the command.
        name: String,
        /// The declared rollups.
        known: Vec<String>,
    },
    /// Aggregators may still store raw rows under a declaration without the rollup.
    #[error(
        "backfill `{name}`: some partitions do not use a declaration with this rollup: {partitions}; start \
         aggregators that declare it, stop all others, wait until the new ones own every partition, and run this \
         command again"
    )]
    Behind {
        /// The rollup.
        name: String,
        /// The Kafka partitions that have no declaration or one without the rollup, with the hash of that declaration.
        partitions: String,
    },
    /// The declarations in use could not be read.
    #[error("backfill")]
    InUse(#[from] InUseError),
    /// A declaration that raw rows name by its hash is missing in the table `configs`, or cannot be read.
    #[error("backfill")]
    UnknownDeclaration(#[from] UnknownDeclaration),
    /// ClickHouse dropped raw rows while they were read.
    #[error("backfill: raw rows of {day} were dropped while they were read; run this command again")]
    Vanished {
        /// The day on which the rows arrived.
        day: String,
    },
    /// A chunk cannot be inserted until an operator acts.
    #[error("backfill: insert a chunk")]
    Stopped(#[source] StoppedBatch),
    /// A table or column that this release needs is missing or has another type.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// ClickHouse did not answer, or refused the request.
    #[error("backfill: send a request to clickhouse")]
    Store(#[from] StoreError),
}

/// The result of a backfill.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Filled {
    /// The rollup.
    pub rollup: String,
    /// The first day, `YYYY-MM-DD`, that the backfill counted: it counted events that arrived on this day or later.
    /// `None` if it counted no day.
    pub since: Option<String>,
    /// Number of raw rows that were counted.
    pub rows: u64,
    /// Number of cells into which these raw rows were aggregated.
    pub cells: u64,
    /// Number of these cells that other runs had inserted.
    pub cells_there: u64,
    /// Number of raw rows that were counted in the group `(other)`, because a chunk had too many groups.
    pub folded_rows: u64,
}

/// Fills the rollup `name`. If ClickHouse is unavailable, inserts are repeated until it accepts them; a failed query is
/// an error at once.
///
/// # Errors
/// Why the rollup is not filled, or only partly filled.
pub async fn backfill(config: &Config, name: &str) -> Result<Filled, BackfillError> {
    let rollups = &config.migrate.rollups;
    let rollup = rollups.get(name).ok_or_else(|| BackfillError::NotDeclared {
        name: name.to_owned(),
        known: rollups.iter().map(|rollup| rollup.name.clone()).collect(),
    })?;
    let store = Store::new(&config.migrate.store);
    tables::check(&store, rollups.fields()).await?;
    let in_use = check_in_use(config, &store, name).await?;
    let since_before = SinceBefore::read(&store, name, &in_use).await?;
    let without_rollup = declarations_without(&store, rollup).await?;
    let metrics = Arc::new(Metrics::default());
    let health = Arc::new(Health::new(&config.migrate.kafka.brokers));
    let mut backfill = Backfill {
        topic: &config.migrate.kafka.topic,
        declaration_hash: configs::own_declaration(&store, config).await?.hash(),
        rollup,
        inserter: Arc::new(Inserter::new(&config.migrate.store, store.clone(), Arc::clone(&metrics), health)),
        store,
        filled: Filled {
            rollup: name.to_owned(),
            since: None,
            rows: 0,
            cells: 0,
            cells_there: 0,
            folded_rows: 0,
        },
        without_rollup,
    };
    let first_raw_day = backfill.fill().await?;
    since_before.replace(&backfill.store, name, first_raw_day).await?;
    Ok(Filled { cells_there: metrics.cells_skipped.get(), ..backfill.filled })
}

/// Checks that every Kafka partition uses a declaration with the rollup `name`, and returns these partitions. A
/// partition is left out if it has no commit and its log never had a record. If a partition used a declaration without
/// the rollup, the aggregator could still store raw rows that the rollup does not count.
async fn check_in_use(config: &Config, store: &Store, name: &str) -> Result<Vec<u16>, BackfillError> {
    let partitions = in_use::by_partition(config, store).await?;
    let behind = partitions.iter().filter_map(|(partition, declared)| match declared {
        None => Some(format!("partition {partition} uses no declaration yet")),
        Some(declared) if declared.rollups.get(name).is_none() => {
            Some(format!("partition {partition} uses declaration {:016x}", declared.hash()))
        }
        Some(_) => None,
    });
    let behind: Vec<_> = behind.collect();
    if behind.is_empty() {
        return Ok(partitions.into_iter().map(|(partition, _)| partition).collect());
    }
    Err(BackfillError::Behind { name: name.to_owned(), partitions: behind.join(", ") })
}

/// The declarations without `rollup` under which raw rows were stored.
async fn declarations_without(
    store: &Store,
    rollup: &Rollup,
) -> Result<DeclarationsWithoutRollup, BackfillError> {
    let mut without_rollup = DeclarationsWithoutRollup::new();
    for declaration_hash in raw::declarations(store).await? {
        let declared = configs::read(store, declaration_hash).await??;
        if declared.rollups.get(&rollup.name).is_none() {
            without_rollup.insert(declaration_hash, declared.limits.time);
        }
    }
    Ok(without_rollup)
}

/// A backfill that is running.
struct Backfill<'c> {
    topic: &'c str,
    /// Hash of the declaration of this process.
    declaration_hash: u64,
    rollup: &'c Rollup,
    without_rollup: DeclarationsWithoutRollup,
    store: Store,
    inserter: Arc<Inserter>,
    filled: Filled,
}

impl Backfill<'_> {
    /// Fills the rollup from the raw rows, day by day. Returns the start of the first day from which the rollup is
    /// complete: it has every event that arrived on this day or later.
    async fn fill(&mut self) -> Result<UnixMillis, BackfillError> {
        let mut first_day = since::first_raw_day(apply::since::now(&self.store).await?);
        if self.without_rollup.is_empty() {
            return Ok(first_day);
        }
        let raw_days = raw::raw_days(&self.store, &self.without_rollup).await?;
        for (at, raw_day) in (1..).zip(&raw_days) {
            let (day, partition) = (day(raw_day.day), raw_day.partition);
            if self.fill_raw_day(*raw_day).await? {
                self.filled.since.get_or_insert_with(|| day.clone());
                tracing::info!(
                    "step {at} of {}: counted events that arrived on {day} in partition {partition}; {} rows so far",
                    raw_days.len(),
                    self.filled.rows
                );
            } else {
                first_day = first_day.max(UnixMillis(raw_day.day.0 + DAY));
                tracing::warn!(
                    "skipped events that arrived on {day} in partition {partition}, because ClickHouse is about to \
                     drop their raw rows"
                );
            }
        }
        Ok(first_day)
    }

    /// Fills the rollup from the raw rows of one day and one Kafka partition. Fills nothing and returns `false` if
    /// ClickHouse may be about to drop the raw rows of this day.
    async fn fill_raw_day(&mut self, raw_day: RawDay) -> Result<bool, BackfillError> {
        let (table, source) = (self.rollup.table().name(), self.source(raw_day));
        let markers = markers::of_backfill(&self.store, table, &self.rollup.name, source).await?;
        self.inserter.set_clock(markers.now);
        if markers.now.0 >= partition_droppable_from(raw_day.day, RAW_DAYS).0 - EXPIRY_MARGIN_MS {
            return Ok(false);
        }
        let records = raw::records(&self.store, raw_day, &self.without_rollup).await?;
        let reached: BTreeSet<_> = markers.all.iter().map(|marker| marker.applied_end).collect();
        for chunk in cut::cut(records, &reached, MAX_CHUNK_ROWS) {
            self.fill_chunk(raw_day, &chunk, markers.now).await?;
        }
        Ok(true)
    }

    async fn fill_chunk(
        &mut self,
        raw_day: RawDay,
        chunk: &Chunk,
        now: UnixMillis,
    ) -> Result<(), BackfillError> {
        let begun = Instant::now();
        let rows = raw::rows(&self.store, raw_day, chunk, &self.without_rollup, self.rollup).await?;
        if rows.len() as u64 != chunk.rows {
            return Err(BackfillError::Vanished { day: day(raw_day.day) });
        }
        let (source, start, end) = (self.source(raw_day), chunk.start(), chunk.applied_end());
        // The limit on groups is a constant instead of the declared limit, which may differ in the next run: if this
        // run inserts only some cells of the chunk, the next run must aggregate the chunk into the same rows.
        let (rollup, strata) = (std::iter::once(self.rollup), Strata::of(&rows));
        let name = &*self.rollup.name;
        let Cells { all: mut cells, folded_rows, .. } =
            cells::rollup_cells(rollup, &strata, source, end, MAX_GROUPS, Some(name));
        // Cells past their retention are not inserted, because ClickHouse would drop them at once.
        cells.retain(|cell| cell.expires_at.is_none_or(|ends| ends > now));
        self.filled.rows += chunk.rows;
        self.filled.folded_rows += folded_rows;
        self.filled.cells += cells.len() as u64;
        let until = begun + MIN_INSERT_TIME * u32::try_from(cells.len()).unwrap_or(u32::MAX);
        let token = Token::of_backfill(source, self.topic, name, start, Offset::new(end.to_i64() - 1));
        // `rebuilt` is true because an earlier run may have inserted some of the cells.
        let declared = DeclaredBatch { token, source, start, end, cells, rebuilt: true };
        let applied = self.inserter.apply(declared, &CancellationToken::new(), || ()).await;
        match applied {
            Ok(()) => {}
            Err(NotApplied::Stopped(stopped)) => return Err(BackfillError::Stopped(stopped)),
            Err(NotApplied::GivenUp) => unreachable!("a backfill is never cancelled"),
        }
        time::sleep_until(until).await;
        Ok(())
    }

    fn source(&self, raw_day: RawDay) -> Source {
        Source {
            log_generation: raw_day.marker_generation(),
            partition: raw_day.partition,
            declaration_hash: self.declaration_hash,
        }
    }
}

/// The day that contains the moment `start`, as `YYYY-MM-DD`.
fn day(start: UnixMillis) -> String {
    let (year, month, day) = start.floor(DAY).civil();
    format!("{year:04}-{month:02}-{day:02}")
}

/// A line for each field.
impl fmt::Display for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rollup, since, rows, cells, cells_there, folded_rows } = self;
        let since = since.as_deref().map_or_else(
            || {
                "nothing: ClickHouse has no raw rows that the rollup lacks, or will soon drop all raw rows that the \
                 rollup lacks"
                    .to_owned()
            },
            |day| format!("events that arrived on {day} or later; no older raw rows could be counted"),
        );
        writeln!(f, "rollup        {rollup}")?;
        writeln!(f, "filled with   {since}")?;
        writeln!(f, "raw rows      {rows}")?;
        writeln!(f, "cells         {cells}, of which other runs had inserted {cells_there}")?;
        write!(f, "folded rows   {folded_rows}, counted in the group `(other)`")
    }
}
