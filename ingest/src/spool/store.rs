//! The spool's file: records by their ids, which are in the order of time.
//!
//! Invariants: a change is on the disk, whole, when [`Store::apply`] returns, or has
//! not happened; one process has the file at a time; what is not as it was written is
//! found when the file is opened. The bytes of the values stand in a table of their
//! own, so that a list of records reads none of them.

use std::fs;
use std::io::{self, ErrorKind};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use redb::{Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable};
use redb::{TableDefinition, WriteTransaction};
use schemas::time::UnixMillis;
use uuid::Uuid;

/// Partition, lines and bytes of each record.
const RECORDS: TableDefinition<'_, u128, (u32, u32, u32)> = TableDefinition::new("records");
/// What each record holds.
const VALUES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("values");
/// How many partitions the topic had when Kafka was last reached.
const PARTITIONS: TableDefinition<'_, (), u32> = TableDefinition::new("partitions");

/// Pages that are kept in memory.
const CACHE_BYTES: usize = 16 << 20;
/// A file that is empty again gives its room back once it is longer.
const COMPACT_BYTES: u64 = 64 << 20;

/// A record as it stands in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its identity, which says when it was made.
    pub id: Uuid,
    /// Where in the topic it belongs.
    pub partition: u32,
    /// Its lines.
    pub lines: u32,
    /// The value of the Kafka record.
    pub value: Vec<u8>,
}

/// A record without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its identity, which says when it was made.
    pub id: Uuid,
    /// Where in the topic it belongs.
    pub partition: u32,
    /// Its lines.
    pub lines: u32,
    /// Bytes of its value.
    pub bytes: u32,
}

impl Entry {
    /// When the record was made.
    pub fn made(&self) -> UnixMillis {
        made(self.id)
    }
}

/// When the record of this id was made.
pub fn made(id: Uuid) -> UnixMillis {
    // The first 48 bits of a UUIDv7 are milliseconds since the epoch.
    UnixMillis((id.as_u128() >> 80) as i64)
}

/// What is changed together, under one fsync.
#[derive(Debug, Default)]
pub struct Change {
    /// Records that come in.
    pub put: Vec<Stored>,
    /// Records that go.
    pub remove: Vec<Uuid>,
    /// How many partitions the topic has.
    pub partitions: Option<u32>,
}

/// How much is in the spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not as it was written.
    #[error("read {path}: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has it.
    #[error("open {0}: another process has it; stop the edge that uses this spool first")]
    InUse(PathBuf),
    /// The disk, or the rights on it.
    #[error("use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Box<redb::Error>,
    },
}

/// An open spool file.
pub struct Store {
    database: Database,
    path: PathBuf,
    totals: Totals,
}

/// The file of a topic's spool.
pub fn path(directory: &Path, topic: &str) -> PathBuf {
    directory.join(format!("{topic}.redb"))
}

/// Puts a file aside that cannot be read. Returns its new name.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let now = UnixMillis::from(SystemTime::now()).0;
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".corrupt-{now}"));
    fs::rename(path, &aside)?;
    Ok(aside.into())
}

impl Store {
    /// Opens the file at `path`, made anew if it is not there, and reads all of it to see
    /// that it is as it was written.
    pub fn open_or_create(path: &Path) -> Result<Self, StoreError> {
        if let Some(directory) = path.parent() {
            let made = fs::create_dir_all(directory);
            made.map_err(|error| trouble(path, redb::Error::Io(error)))?;
        }
        Self::opened(path, |builder| builder.create(path))
    }

    /// The same for a file that must be there.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::opened(path, |builder| builder.open(path))
    }

    fn opened(
        path: &Path,
        open: impl FnOnce(&mut Builder) -> Result<Database, DatabaseError>,
    ) -> Result<Self, StoreError> {
        caught(path, || {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            let mut store =
                Self { database: open(&mut builder)?, path: path.into(), totals: Totals::default() };
            // Makes the tables of a new file.
            store.write(&Change::default())?;
            for entry in store.read_entries()? {
                store.totals.records += 1;
                store.totals.bytes += u64::from(entry.bytes);
            }
            Ok(store)
        })
    }

    /// Makes a change, with one fsync for all of it.
    pub fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        let path = self.path.clone();
        caught(&path, || self.write(change))
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

    /// The oldest records after the one of id `after`, up to so many records and bytes, but at
    /// least one if there is any.
    pub fn oldest(&self, after: Uuid, records: usize, bytes: usize) -> Result<Vec<Stored>, StoreError> {
        caught(&self.path, || {
            let transaction = self.database.begin_read()?;
            let (entries, values) = (transaction.open_table(RECORDS)?, transaction.open_table(VALUES)?);
            let (mut oldest, mut total) = (Vec::new(), 0);
            for entry in entries.range(after.as_u128().saturating_add(1)..)? {
                let (id, entry) = entry?;
                let Entry { id, partition, lines, bytes: length } = read_entry(id.value(), entry.value());
                total += length as usize;
                if oldest.len() == records || (total > bytes && !oldest.is_empty()) {
                    break;
                }
                let value = values.get(id.as_u128())?.map(|value| value.value().to_vec());
                let value = value.ok_or_else(|| redb::Error::Corrupted(format!("no value of {id}")))?;
                oldest.push(Stored { id, partition, lines, value });
            }
            Ok(oldest)
        })
    }

    /// All records, oldest first, without their values.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        caught(&self.path, || self.read_entries())
    }

    fn read_entries(&self) -> Result<Vec<Entry>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let records = transaction.open_table(RECORDS)?;
        let entries = records.iter()?.map(|entry| {
            let (id, entry) = entry?;
            Ok(read_entry(id.value(), entry.value()))
        });
        entries.collect()
    }

    /// When the oldest record was made, if there is any.
    pub fn oldest_made(&self) -> Result<Option<UnixMillis>, StoreError> {
        caught(&self.path, || {
            let transaction = self.database.begin_read()?;
            let first = transaction.open_table(RECORDS)?.first()?.map(|(id, _)| id.value());
            Ok(first.map(|id| made(Uuid::from_u128(id))))
        })
    }

    /// How many partitions the topic had when Kafka was last reached; 0 if it never was.
    pub fn partitions(&self) -> Result<u32, StoreError> {
        caught(&self.path, || {
            let transaction = self.database.begin_read()?;
            let count = transaction.open_table(PARTITIONS)?.get(())?.map(|count| count.value());
            Ok(count.unwrap_or(0))
        })
    }

    /// How much is in it.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The file.
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
    mut totals: Totals,
) -> Result<Totals, redb::Error> {
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

fn read_entry(id: u128, (partition, lines, bytes): (u32, u32, u32)) -> Entry {
    Entry { id: Uuid::from_u128(id), partition, lines, bytes }
}

/// Does something with the file. What redb cannot make sense of may also be a panic
/// there; for us the file is then as bad as one whose sums are wrong.
fn caught<T>(path: &Path, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreError> {
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| trouble(path, error)),
        Err(_) => {
            Err(StoreError::Corrupt { path: path.into(), reason: "the store gave up on it".to_owned() })
        }
    }
}

fn trouble(path: &Path, error: redb::Error) -> StoreError {
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
        // It has not begun as one of ours, or ends too soon.
        E::Io(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            StoreError::Corrupt { path, reason: error.to_string() }
        }
        other => StoreError::Io { path, source: Box::new(other) },
    }
}

#[cfg(test)]
mod tests;
