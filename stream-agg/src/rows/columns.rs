//! The rows of a batch, column by column, as they will be inserted into ClickHouse.
//!
//! No event is kept as a struct. In columns with few distinct texts, each text is stored as its number in an
//! [`Interner`]; the texts of other columns are stored end to end. Invariant: all columns have the same length.

use std::ops::Range;

use hashbrown::HashTable;
use schemas::time::UnixMillis;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// Index of a row in its batch.
pub type RowId = u32;

/// Texts, one for each row.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    all: String,
    ends: Vec<u32>,
}

impl Texts {
    /// Appends a text.
    ///
    /// # Panics
    /// If all texts together reach 4 GiB. A batch is limited far below that.
    pub fn push(&mut self, text: &str) {
        self.push_with(|all| all.push_str(text));
    }

    /// Appends a text. `write` must add the text at the end of its argument, and change nothing else in it.
    pub fn push_with(&mut self, write: impl FnOnce(&mut String)) {
        write(&mut self.all);
        self.ends.push(u32::try_from(self.all.len()).expect("a batch is far smaller than 4 GiB"));
    }

    /// The text at `index`.
    pub fn get(&self, index: RowId) -> &str {
        &self.all[self.range(index as usize)]
    }

    /// The number of texts.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    fn range(&self, index: usize) -> Range<usize> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        start as usize..self.ends[index] as usize
    }
}

/// Stores each distinct text once. The number of a text is its place in the order of first use.
#[derive(Debug, Clone, Default)]
pub struct Interner {
    texts: Texts,
    numbers: HashTable<u32>,
}

impl Interner {
    /// The number of `text`. A new text is added.
    pub fn intern(&mut self, text: &str) -> u32 {
        let Self { texts, numbers } = self;
        let hash = xxh3_64(text.as_bytes());
        if let Some(number) = numbers.find(hash, |number| texts.get(*number) == text) {
            return *number;
        }
        let number = texts.count() as u32;
        texts.push(text);
        numbers.insert_unique(hash, number, |number| xxh3_64(texts.get(*number).as_bytes()));
        number
    }

    /// The text with this number.
    pub fn get(&self, number: u32) -> &str {
        self.texts.get(number)
    }

    /// The number of distinct texts.
    pub fn count(&self) -> usize {
        self.texts.count()
    }

    /// For each number, the rank of its text when all texts are sorted by their bytes.
    pub fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.count() as u32).collect();
        order.sort_unstable_by_key(|number| self.get(*number));
        let mut ranks = vec![0; order.len()];
        for (rank, number) in order.into_iter().enumerate() {
            ranks[number as usize] = rank as u32;
        }
        ranks
    }
}

/// A text column with few distinct values.
#[derive(Debug, Default)]
pub struct Interned {
    /// The distinct texts.
    pub texts: Interner,
    /// The number of the text of each row.
    pub numbers: Vec<u32>,
}

impl Interned {
    /// Appends a text.
    pub fn push(&mut self, text: &str) {
        // Neighbouring rows usually have the same text, because the lines of one request are next to each other and
        // come from one client. So a text that is equal to the text of the previous row is not hashed.
        let last = self.numbers.last().copied().filter(|last| self.texts.get(*last) == text);
        let number = last.unwrap_or_else(|| self.texts.intern(text));
        self.numbers.push(number);
    }

    /// The text of a row.
    pub fn get(&self, row: RowId) -> &str {
        self.texts.get(self.numbers[row as usize])
    }
}

/// The rows of a batch. Each field is named like the column of the table `events` that it fills. Only `event_time` and
/// `received` are not columns of `events`: they determine how rollups count the row.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the columns are documented in schemas/sql/0001_events.sql")]
pub struct Rows {
    pub tenant: Interned,
    pub event: Interned,
    pub client_time: Vec<UnixMillis>,
    pub server_time: Vec<UnixMillis>,
    /// IPv4 addresses are mapped to IPv6.
    pub ip: Vec<[u8; 16]>,
    pub user_id: Texts,
    pub device_id: Texts,
    pub device_os: Interned,
    pub session: Texts,
    pub sequence: Vec<u64>,
    pub param_int: Vec<i64>,
    pub param_str: Texts,
    pub country: Interned,
    pub event_id: Vec<Uuid>,
    /// JSON text that ClickHouse can always read, even if ClickHouse could not read the JSON that the client sent.
    pub props: Texts,
    pub ko: Vec<u64>,
    pub line: Vec<u16>,
    /// The time that decides which bucket of a rollup counts the event.
    pub event_time: Vec<UnixMillis>,
    /// When the row was received: the earlier of `server_time` and the time at which Kafka appended the record. A
    /// rollup leaves out a row if the retention of the row's bucket had ended at this time. The earlier time is used
    /// because one clock that is ahead must not cause a row to be left out.
    pub received: Vec<UnixMillis>,
}

impl Rows {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ko.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ko.is_empty()
    }

    /// The user: `user_id`, or else `device_id`; empty if the client sent neither.
    pub fn user(&self, row: RowId) -> &str {
        match self.user_id.get(row) {
            "" => self.device_id.get(row),
            user => user,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_one_number() {
        let mut column = Interned::default();
        for text in ["b", "a", "", "b", "c", "a"] {
            column.push(text);
        }
        assert_eq!(column.numbers, [0, 1, 2, 0, 3, 1]);
        assert_eq!((column.get(3), column.get(2)), ("b", ""));
        assert_eq!(column.texts.ranks(), [2, 1, 0, 3]);
    }
}
