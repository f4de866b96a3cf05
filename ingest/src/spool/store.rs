//! The file of the spool: a redb database with the records, keyed by their ids, which are ordered by time.
//!
//! Invariants: when [`Store::apply`] returns, either the whole change or nothing of it is on the disk; only one process
//! uses the file at a time; damage is found when the file is opened. The values of the records are in a separate table,
//! so that listing the records does not read the values.

use std::fs;
use std::io::{self, ErrorKind};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use redb::{Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable};
use redb::{TableDefinition, WriteTransaction};
use schemas::time::UnixMillis;
use uuid::Uuid;

/// Maps the id of each record to its partition, its number of lines, and the length of its value in bytes.
const RECORDS: TableDefinition<'_, u128, (u32, u32, u32)> = TableDefinition::new("records");
/// Maps the id of each record to its value.
const VALUES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("values");
/// The number of partitions of the topic, as Kafka last reported it.
const PARTITIONS: TableDefinition<'_, (), u32> = TableDefinition::new("partitions");

/// The size of redb's cache of pages, in bytes.
pub(crate) const CACHE_BYTES: usize = 16 << 20;
/// When the spool becomes empty, its file is compacted if the file has more bytes than this.
const COMPACT_BYTES: u64 = 64 << 20;

/// A record of the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpooledRecord {
    /// The id of the record: a UUIDv7, which contains the time at which the record was created.
    pub id: Uuid,
    /// The partition of the Kafka topic to which the record is sent.
    pub partition: u32,
    /// The number of lines in the value.
    pub lines: u32,
    /// The value of the Kafka record.
    pub value: Vec<u8>,
}

/// A record without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordInfo {
    /// The id of the record: a UUIDv7, which contains the time at which the record was created.
    pub id: Uuid,
    /// The partition of the Kafka topic to which the record is sent.
    pub partition: u32,
    /// The number of lines in the value.
    pub lines: u32,
    /// The length of the value in bytes.
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
    /// The new number of partitions of the topic; `None` keeps the stored number.
    pub partitions: Option<u32>,
}

/// How much is in the spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolTotals {
    /// The number of records.
    pub records: u64,
    /// The total length of the values of the records, in bytes.
    pub bytes: u64,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is damaged, or is not a spool file that this version can read.
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
    /// Any other error, for example: the disk failed, the file does not exist, or the process may not access the file.
    #[error("use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of redb, which contains the error of the operating system if there is one.
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

/// The path of the spool file for the records of `topic`.
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

    /// Like [`Store::open_or_create`], but returns an error if the file does not exist.
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

    /// Writes all parts of `change` in one transaction, with one fsync.
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

    /// Returns the oldest records whose ids are greater than `after`: at most `records` records, whose values have at
    /// most `bytes` bytes in total. If the first record is larger than `bytes`, only the first record is returned.
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
                let value =
                    value.ok_or_else(|| redb::Error::Corrupted(format!("the record {id} has no value")))?;
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

    /// The number of partitions of the topic, as Kafka last reported it; 0 if the number is unknown.
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

/// Calls `work`, which uses the file. redb may panic if the file is damaged, so a panic is caught and returned as
/// [`StoreError::Corrupt`].
fn catch_panic<T>(path: &Path, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreError> {
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| store_error(path, error)),
        Err(_) => Err(StoreError::Corrupt {
            path: path.into(),
            reason: "redb panicked while it used the file".to_owned(),
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
        // `InvalidData`: the file is empty or does not begin with redb's magic number. `UnexpectedEof`: the file is
        // truncated.
        E::Io(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            StoreError::Corrupt { path, reason: error.to_string() }
        }
        other => StoreError::Io { path, source: Box::new(other) },
    }
}

#[cfg(test)]
mod tests;
