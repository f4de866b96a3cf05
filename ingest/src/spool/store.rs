//! The file of the spool: the records, keyed by their ids, which are ordered by time.
//!
//! Invariants: when [`Store::apply`] returns, the whole change is on the disk or none of it; only one process uses the
//! file at a time; damage is found when the file is opened. The values are in a table of their own, so that listing the
//! records reads no values.

use std::fs;
use std::io::{self, ErrorKind};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use redb::{Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable};
use redb::{TableDefinition, WriteTransaction};
use schemas::time::UnixMillis;
use uuid::Uuid;

/// The partition, the number of lines and the bytes of each record.
const RECORDS: TableDefinition<'_, u128, (u32, u32, u32)> = TableDefinition::new("records");
/// The value of each record.
const VALUES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("values");
/// The number of partitions that the topic had when Kafka was last reached.
const PARTITIONS: TableDefinition<'_, (), u32> = TableDefinition::new("partitions");

/// The size of redb's cache of pages, in bytes.
pub(crate) const CACHE_BYTES: usize = 16 << 20;
/// When the last record is removed, the file is compacted if it is longer than this.
const COMPACT_BYTES: u64 = 64 << 20;

/// A record of the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpooledRecord {
    /// The id of the record, which contains the time of its creation.
    pub id: Uuid,
    /// The partition of the record.
    pub partition: u32,
    /// The number of lines.
    pub lines: u32,
    /// The value of the Kafka record.
    pub value: Vec<u8>,
}

/// A record without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordInfo {
    /// The id of the record, which contains the time of its creation.
    pub id: Uuid,
    /// The partition of the record.
    pub partition: u32,
    /// The number of lines.
    pub lines: u32,
    /// The bytes of the value.
    pub bytes: u32,
}

impl RecordInfo {
    /// When the record was created.
    pub fn created_at(&self) -> UnixMillis {
        created_at(self.id)
    }
}

/// When the record with this id was created.
pub fn created_at(id: Uuid) -> UnixMillis {
    // The first 48 bits of a UUIDv7 are milliseconds since the epoch.
    UnixMillis((id.as_u128() >> 80) as i64)
}

/// Changes that are made together, with one fsync.
#[derive(Debug, Default)]
pub struct Change {
    /// Records to add.
    pub put: Vec<SpooledRecord>,
    /// Ids of the records to remove.
    pub remove: Vec<Uuid>,
    /// The number of partitions of the topic, if it changes.
    pub partitions: Option<u32>,
}

/// How much is in the spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolTotals {
    /// The number of records.
    pub records: u64,
    /// The bytes of their values.
    pub bytes: u64,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is damaged.
    #[error("read {path}: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file.
        reason: String,
    },
    /// Another process uses the file.
    #[error("open {0}: another process uses it; stop the edge that uses this spool first")]
    InUse(PathBuf),
    /// The disk failed, or the process may not access the file.
    #[error("use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: Box<redb::Error>,
    },
}

/// An open spool file.
pub struct Store {
    database: Database,
    path: PathBuf,
    totals: SpoolTotals,
}

/// The path of the file for a topic.
pub fn path(directory: &Path, topic: &str) -> PathBuf {
    directory.join(format!("{topic}.redb"))
}

/// Renames a file that cannot be read. Returns its new path.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let now = UnixMillis::from(SystemTime::now()).0;
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".corrupt-{now}"));
    fs::rename(path, &aside)?;
    Ok(aside.into())
}

impl Store {
    /// Opens the file at `path`, or creates it, and reads all of it to find damage.
    pub fn open_or_create(path: &Path) -> Result<Self, StoreError> {
        if let Some(directory) = path.parent() {
            let created = fs::create_dir_all(directory);
            created.map_err(|error| store_error(path, redb::Error::Io(error)))?;
        }
        Self::open_with(path, |builder| builder.create(path))
    }

    /// Like [`Store::open_or_create`], for a file that must exist.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, |builder| builder.open(path))
    }

    fn open_with(
        path: &Path,
        open: impl FnOnce(&mut Builder) -> Result<Database, DatabaseError>,
    ) -> Result<Self, StoreError> {
        catch_panic(path, || {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            let mut store =
                Self { database: open(&mut builder)?, path: path.into(), totals: SpoolTotals::default() };
            // Creates the tables of a new file.
            store.write(&Change::default())?;
            for entry in store.read_entries()? {
                store.totals.records += 1;
                store.totals.bytes += u64::from(entry.bytes);
            }
            Ok(store)
        })
    }

    /// Makes a change, with one fsync.
    pub fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        let path = self.path.clone();
        catch_panic(&path, || self.write(change))
    }

    fn write(&mut self, change: &Change) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let totals = write_in(&transaction, change, self.totals)?;
        transaction.commit()?;
        self.totals = totals;
        if totals.records == 0 && !change.remove.is_empty() && self.file_bytes() > COMPACT_BYTES {
            self.database.compact()?;
        }
        Ok(())
    }

    /// The oldest records after the id `after`: at most `records` records and `bytes` bytes, but at least one record if
    /// there is any.
    pub fn oldest(
        &self,
        after: Uuid,
        records: usize,
        bytes: usize,
    ) -> Result<Vec<SpooledRecord>, StoreError> {
        catch_panic(&self.path, || {
            let transaction = self.database.begin_read()?;
            let (entries, values) = (transaction.open_table(RECORDS)?, transaction.open_table(VALUES)?);
            let (mut oldest, mut total) = (Vec::new(), 0);
            for entry in entries.range(after.as_u128().saturating_add(1)..)? {
                let (id, entry) = entry?;
                let RecordInfo { id, partition, lines, bytes: length } =
                    read_entry(id.value(), entry.value());
                total += length as usize;
                if oldest.len() == records || (total > bytes && !oldest.is_empty()) {
                    break;
                }
                let value = values.get(id.as_u128())?.map(|value| value.value().to_vec());
                let value = value.ok_or_else(|| redb::Error::Corrupted(format!("no value of {id}")))?;
                oldest.push(SpooledRecord { id, partition, lines, value });
            }
            Ok(oldest)
        })
    }

    /// All records, oldest first, without their values.
    pub fn entries(&self) -> Result<Vec<RecordInfo>, StoreError> {
        catch_panic(&self.path, || self.read_entries())
    }

    fn read_entries(&self) -> Result<Vec<RecordInfo>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let records = transaction.open_table(RECORDS)?;
        let entries = records.iter()?.map(|entry| {
            let (id, entry) = entry?;
            Ok(read_entry(id.value(), entry.value()))
        });
        entries.collect()
    }

    /// When the oldest record was created, if there is any.
    pub fn oldest_created_at(&self) -> Result<Option<UnixMillis>, StoreError> {
        catch_panic(&self.path, || {
            let transaction = self.database.begin_read()?;
            let first = transaction.open_table(RECORDS)?.first()?.map(|(id, _)| id.value());
            Ok(first.map(|id| created_at(Uuid::from_u128(id))))
        })
    }

    /// The number of partitions that the topic had when Kafka was last reached; 0 if it is not known.
    pub fn partitions(&self) -> Result<u32, StoreError> {
        catch_panic(&self.path, || {
            let transaction = self.database.begin_read()?;
            let count = transaction.open_table(PARTITIONS)?.get(())?.map(|count| count.value());
            Ok(count.unwrap_or(0))
        })
    }

    /// How much is in the spool.
    pub fn totals(&self) -> SpoolTotals {
        self.totals
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file_bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.len())
    }
}

fn write_in(
    transaction: &WriteTransaction,
    change: &Change,
    mut totals: SpoolTotals,
) -> Result<SpoolTotals, redb::Error> {
    let (mut records, mut values) = (transaction.open_table(RECORDS)?, transaction.open_table(VALUES)?);
    for record in &change.put {
        let (id, bytes) = (record.id.as_u128(), record.value.len() as u32);
        values.insert(id, record.value.as_slice())?;
        if records.insert(id, (record.partition, record.lines, bytes))?.is_none() {
            totals.records += 1;
            totals.bytes += u64::from(bytes);
        }
    }
    for id in &change.remove {
        values.remove(id.as_u128())?;
        if let Some(gone) = records.remove(id.as_u128())? {
            totals.records -= 1;
            totals.bytes -= u64::from(gone.value().2);
        }
    }
    let mut partitions = transaction.open_table(PARTITIONS)?;
    if let Some(count) = change.partitions {
        partitions.insert((), count)?;
    }
    Ok(totals)
}

fn read_entry(id: u128, (partition, lines, bytes): (u32, u32, u32)) -> RecordInfo {
    RecordInfo { id: Uuid::from_u128(id), partition, lines, bytes }
}

/// Does `work` on the file. redb may panic if the file is damaged; the file then counts as corrupt, as with a wrong
/// checksum.
fn catch_panic<T>(path: &Path, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreError> {
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| store_error(path, error)),
        Err(_) => Err(StoreError::Corrupt {
            path: path.into(),
            reason: "the database panicked while it used the file".to_owned(),
        }),
    }
}

fn store_error(path: &Path, error: redb::Error) -> StoreError {
    use redb::Error as E;
    let path = path.to_owned();
    match error {
        E::DatabaseAlreadyOpen | E::LockProtocolMismatch => StoreError::InUse(path),
        E::Corrupted(_)
        | E::UpgradeRequired(_)
        | E::RepairAborted
        | E::TableTypeMismatch { .. }
        | E::TypeDefinitionChanged { .. }
        | E::TableIsMultimap(_)
        | E::LockPoisoned(_) => StoreError::Corrupt { path, reason: error.to_string() },
        // The file does not begin like a file of redb, or the file is truncated.
        E::Io(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            StoreError::Corrupt { path, reason: error.to_string() }
        }
        other => StoreError::Io { path, source: Box::new(other) },
    }
}

#[cfg(test)]
mod tests;
