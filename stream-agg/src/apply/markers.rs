//! Reads markers from ClickHouse: up to which offset each table partition holds the records of a Kafka partition.
//!
//! Every query that returns [`Markers`] also reads ClickHouse's clock, because ClickHouse checks the deadlines of
//! inserts by it, and the id of the server, because markers of another server prove nothing.

use std::fmt::Write as _;
use std::iter;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use schemas::time::UnixMillis;
use tokio::time::Instant;

use crate::apply::store::{Store, StoreError};
use crate::apply::tables::CELL_TABLES;
use crate::protocol::progress::NextOffset;
use crate::protocol::recover::Marker;
use crate::rows::cells::{Cell, Source, marker_rows};

/// Maximum age of a reading of ClickHouse's clock. The clock may be set back at any moment. A deadline that is computed
/// from an earlier reading is then too late on the changed clock, and a delayed statement could still insert its rows.
const MAX_CLOCK_AGE: Duration = Duration::from_secs(10);

/// Markers, and the time of ClickHouse's clock when they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markers {
    /// One marker for each table partition that has markers.
    pub all: Vec<Marker>,
    /// The time of ClickHouse's clock.
    pub now: UnixMillis,
}

impl Markers {
    /// The offset in the marker of the table partition that `cell` belongs to; 0 if there is no marker.
    pub fn of(&self, cell: &Cell) -> NextOffset {
        let found = self.all.iter().find(|m| m.table == cell.table && m.partition_id == cell.partition_id);
        found.map_or(NextOffset::ZERO, |marker| marker.applied_end)
    }
}

/// The highest marker that batches of a Kafka partition have written in each table partition. `log_generation` selects
/// the markers of one generation of the log; `None` means all generations.
pub async fn of_log(
    store: &Store,
    partition: u16,
    log_generation: Option<u16>,
) -> Result<Markers, StoreError> {
    let of_generation =
        log_generation.map(|log_generation| format!(" AND g = {log_generation}")).unwrap_or_default();
    let parts =
        CELL_TABLES.iter().map(|table| (*table, marker_rows(table, None, partition) + &of_generation));
    read(store, parts).await
}

/// The newest generation of the log of a Kafka partition that has a marker in any table. Reading only the ledger would
/// not suffice: the ledger drops rows after 30 days, but some table partitions of other tables never expire. If a
/// generation were reused after the ledger has dropped its markers, the markers in those table partitions would make
/// the records of a new log look as if they were stored already.
pub async fn newest_generation(store: &Store, partition: u16) -> Result<Option<u16>, StoreError> {
    let of_table = |table: &&str| {
        format!(
            "SELECT max(g) AS newest FROM {table} WHERE {} HAVING count() > 0",
            marker_rows(table, None, partition)
        )
    };
    let of_tables = CELL_TABLES.iter().map(of_table).collect::<Vec<_>>().join(" UNION ALL ");
    let sql = format!("SELECT max(newest) FROM ({of_tables}) HAVING count() > 0");
    Ok(store.rows::<u16>(&sql).await?.first().copied())
}

/// The markers that the backfill of `rollup` left in `table`.
pub async fn of_backfill(
    store: &Store,
    table: &str,
    rollup: &str,
    source: Source,
) -> Result<Markers, StoreError> {
    let rows =
        marker_rows(table, Some(rollup), source.partition) + &format!(" AND g = {}", source.log_generation);
    read(store, iter::once((table, rows))).await
}

/// The markers of the table partitions that these cells belong to.
pub async fn of_cells(
    store: &Store,
    cells: impl Iterator<Item = &Cell>,
    source: Source,
) -> Result<Markers, StoreError> {
    let mut tables: Vec<(&str, String, String)> = Vec::new();
    for cell in cells {
        let Cell { table, partition_id, .. } = cell;
        match tables.iter_mut().find(|(name, ..)| name == table) {
            // Writing to a String cannot fail.
            Some((.., ids)) => drop(write!(ids, ", '{partition_id}'")),
            None => tables.push((table, cell.marker_rows(source), format!("'{partition_id}'"))),
        }
    }
    let parts = tables.into_iter();
    let parts = parts.map(|(table, rows, ids)| (table, format!("{rows} AND _partition_id IN ({ids})")));
    read(store, parts).await
}

/// Reads only ClickHouse's clock, and the id of the server.
pub async fn clock(store: &Store) -> Result<UnixMillis, StoreError> {
    Ok(read(store, iter::empty()).await?.now)
}

async fn read<'t>(
    store: &Store,
    tables: impl Iterator<Item = (&'t str, String)>,
) -> Result<Markers, StoreError> {
    // The first SELECT adds a row that belongs to no table, so the clock is returned even if there are no markers.
    let mut sql = "SELECT t, p, h, toUnixTimestamp64Milli(now64(3)), toString(serverUUID()) FROM (\
                   SELECT '' AS t, '' AS p, toUInt64(0) AS h"
        .to_owned();
    for (table, condition) in tables {
        // Writing to a String cannot fail.
        let _ = write!(
            sql,
            " UNION ALL SELECT '{table}', CAST(_partition_id, 'String'), max(hwm) FROM {table} \
             WHERE {condition} GROUP BY _partition_id"
        );
    }
    sql.push(')');
    let rows: Vec<(String, String, u64, i64, String)> = store.rows(&sql).await?;
    let first = rows
        .first()
        .ok_or_else(|| StoreError::Unreachable("the query for markers returned no rows".to_owned()))?;
    store.servers.answered(&first.4)?;
    let now = UnixMillis(first.3);
    let found = rows.into_iter().filter(|(table, ..)| !table.is_empty());
    let all = found
        .map(|(table, partition_id, applied_end, ..)| Marker {
            table,
            partition_id,
            applied_end: next_offset(applied_end),
        })
        .collect();
    Ok(Markers { all, now })
}

fn next_offset(applied_end: u64) -> NextOffset {
    NextOffset::new(i64::try_from(applied_end).unwrap_or(i64::MAX))
}

/// The latest reading of ClickHouse's clock.
#[derive(Debug, Default)]
pub struct ServerClock(Mutex<Option<(UnixMillis, Instant)>>);

impl ServerClock {
    /// Stores a new reading of ClickHouse's clock, which showed `now` when ClickHouse answered.
    pub fn set(&self, now: UnixMillis) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, Instant::now()));
    }

    /// The current time of ClickHouse's clock; `None` if there is no reading, or if it is older than [`MAX_CLOCK_AGE`].
    /// The clock of this machine is never used instead, because it may differ from ClickHouse's clock by more than the
    /// time for which a statement is valid.
    ///
    /// The result is the last reading plus the time since the answer with this reading arrived. So the result is behind
    /// ClickHouse's clock by at most the time that the answer took, and never ahead, unless ClickHouse's clock was
    /// changed after the reading.
    pub fn now(&self) -> Option<UnixMillis> {
        let (then, at) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let age = at.elapsed();
        (age < MAX_CLOCK_AGE).then(|| UnixMillis(then.0 + age.as_millis() as i64))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reading_of_the_servers_clock_is_valid_for_ten_seconds() {
        let clock = ServerClock::default();
        assert_eq!(clock.now(), None, "the clock was never read");
        // A time in 1970 shows that the clock of this machine is not used.
        clock.set(UnixMillis(1000));
        assert_eq!(clock.now(), Some(UnixMillis(1000)));
        time::advance(Duration::from_millis(9_999)).await;
        assert_eq!(clock.now(), Some(UnixMillis(10_999)));
        time::advance(Duration::from_millis(1)).await;
        assert_eq!(clock.now(), None, "ten seconds old");
        clock.set(UnixMillis(5));
        assert_eq!(clock.now(), Some(UnixMillis(5)), "set back, and read again");
    }
}
