//! Builds a block in ClickHouse's Native format, column by column.
//!
//! Only the types of the columns of Millrace's tables are supported. Each column begins with its name and type, so a
//! block contains its own structure. Invariant: every column has as many values as the block has rows.

use bytes::Bytes;

/// A block that is being built.
#[derive(Debug)]
pub struct BlockBuilder {
    rows: usize,
    columns_left: usize,
    structure: Vec<(String, String)>,
    bytes: Vec<u8>,
}

/// A complete block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeBlock {
    /// Name and type of each column.
    pub structure: Vec<(String, String)>,
    /// The bytes of the block.
    pub bytes: Bytes,
}

impl BlockBuilder {
    /// A block with this number of columns and rows.
    pub fn new(columns: usize, rows: usize) -> Self {
        let mut bytes = Vec::new();
        varuint(columns as u64, &mut bytes);
        varuint(rows as u64, &mut bytes);
        Self { rows, columns_left: columns, structure: Vec::with_capacity(columns), bytes }
    }

    /// The complete block.
    ///
    /// # Panics
    /// If the block has fewer columns than [`BlockBuilder::new`] was given.
    pub fn finish(self) -> NativeBlock {
        assert_eq!(self.columns_left, 0, "a block must have all its columns");
        NativeBlock { structure: self.structure, bytes: self.bytes.into() }
    }

    /// Appends a column of values of a fixed width, each in ClickHouse's representation.
    pub fn fixed<const N: usize>(
        &mut self,
        name: &str,
        kind: &str,
        values: impl IntoIterator<Item = [u8; N]>,
    ) {
        self.head(name, kind);
        self.bytes.reserve(self.rows * N);
        let start = self.bytes.len();
        values.into_iter().for_each(|value| self.bytes.extend_from_slice(&value));
        assert_eq!(self.bytes.len() - start, self.rows * N, "`{name}` must have one value per row");
    }

    /// Appends a column of texts.
    pub fn text<'t>(&mut self, name: &str, kind: &str, values: impl IntoIterator<Item = &'t str>) {
        self.head(name, kind);
        let mut count = 0;
        for value in values {
            text(value, &mut self.bytes);
            count += 1;
        }
        assert_eq!(count, self.rows, "`{name}` must have one value per row");
    }

    /// Appends a column with few distinct texts: `LowCardinality(String)`. Each value is an index into `keys`. All
    /// indexes are written in 1, 2 or 4 bytes, depending on the number of keys.
    pub fn low_cardinality(&mut self, name: &str, keys: &[&str], values: impl IntoIterator<Item = u32>) {
        /// The version that ClickHouse calls `SharedDictionariesWithAdditionalKeys`. The flags below say that the keys
        /// are in this block; a dictionary that several blocks share is not used.
        const KEYS_VERSION: u64 = 1;
        const HAS_ADDITIONAL_KEYS: u64 = 1 << 9;
        const NEEDS_UPDATE: u64 = 1 << 10;
        self.head(name, "LowCardinality(String)");
        if self.rows == 0 {
            return;
        }
        // The type of the indexes, UInt8, UInt16 or UInt32: ClickHouse's number for the type, and its width in bytes.
        let (index, width): (u64, usize) = match keys.len() {
            0..=0x100 => (0, 1),
            0x101..=0x1_0000 => (1, 2),
            _ => (2, 4),
        };
        for word in [KEYS_VERSION, HAS_ADDITIONAL_KEYS | NEEDS_UPDATE | index, keys.len() as u64] {
            self.bytes.extend_from_slice(&word.to_le_bytes());
        }
        keys.iter().for_each(|key| text(key, &mut self.bytes));
        self.bytes.extend_from_slice(&(self.rows as u64).to_le_bytes());
        self.bytes.reserve(self.rows * width);
        let start = self.bytes.len();
        match width {
            1 => self.bytes.extend(values.into_iter().map(|value| value as u8)),
            _ => values
                .into_iter()
                .for_each(|value| self.bytes.extend_from_slice(&value.to_le_bytes()[..width])),
        }
        assert_eq!(self.bytes.len() - start, self.rows * width, "`{name}` must have one value per row");
    }

    /// Appends a column of sets, as states of `uniqExact(UInt64)`: for each set the number of hashes, then the hashes
    /// in any order.
    pub fn unique_states<'s>(&mut self, name: &str, values: impl IntoIterator<Item = &'s [u64]>) {
        self.head(name, "AggregateFunction(uniqExact, UInt64)");
        let mut count = 0;
        for hashes in values {
            varuint(hashes.len() as u64, &mut self.bytes);
            hashes.iter().for_each(|hash| self.bytes.extend_from_slice(&hash.to_le_bytes()));
            count += 1;
        }
        assert_eq!(count, self.rows, "`{name}` must have one value per row");
    }

    /// Appends a column of lists of numbers, `Array(UInt64)`: first the end of each list, as an index into the numbers
    /// of all lists, then these numbers.
    pub fn arrays<'s>(&mut self, name: &str, values: impl IntoIterator<Item = &'s [u64]> + Clone) {
        self.head(name, "Array(UInt64)");
        let (mut count, mut end) = (0, 0);
        for numbers in values.clone() {
            end += numbers.len() as u64;
            self.bytes.extend_from_slice(&end.to_le_bytes());
            count += 1;
        }
        assert_eq!(count, self.rows, "`{name}` must have one value per row");
        values.into_iter().flatten().for_each(|number| self.bytes.extend_from_slice(&number.to_le_bytes()));
    }

    fn head(&mut self, name: &str, kind: &str) {
        self.columns_left = self.columns_left.checked_sub(1).expect("`new` got the count of all columns");
        text(name, &mut self.bytes);
        text(kind, &mut self.bytes);
        self.structure.push((name.to_owned(), kind.to_owned()));
    }
}

/// A UUID in ClickHouse's representation: its two halves, each little-endian.
pub fn uuid(value: uuid::Uuid) -> [u8; 16] {
    let (high, low) = value.as_u64_pair();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high.to_le_bytes());
    bytes[8..].copy_from_slice(&low.to_le_bytes());
    bytes
}

fn text(value: &str, out: &mut Vec<u8>) {
    varuint(value.len() as u64, out);
    out.extend_from_slice(value.as_bytes());
}

fn varuint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_its_columns_each_with_name_and_type() {
        let mut block = BlockBuilder::new(2, 3);
        block.fixed("n", "UInt16", [1_u16, 2, 0x0304].map(u16::to_le_bytes));
        block.text("t", "String", ["a", "", "bc"]);
        let expected = b"\x02\x03\x01n\x06UInt16\x01\x00\x02\x00\x04\x03\x01t\x06String\x01a\x00\x02bc";
        assert_eq!(block.finish().bytes, expected.as_slice());
    }

    #[test]
    fn a_low_cardinality_column_is_its_keys_and_an_index_for_each_row() {
        let mut block = BlockBuilder::new(1, 2);
        block.low_cardinality("c", &["", "x"], [1, 0]);
        let mut expected = b"\x01\x02\x01c\x16LowCardinality(String)".to_vec();
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(b"\x02\0\0\0\0\0\0\0\x00\x01x\x02\0\0\0\0\0\0\0\x01\0");
        assert_eq!(block.finish().bytes, expected.as_slice());
    }

    #[test]
    fn indexes_are_as_wide_as_the_number_of_keys_needs() {
        for (count, index, width) in [(256, 0, 1), (257, 1, 2), (65_536, 1, 2), (65_537, 2, 4)] {
            let texts: Vec<_> = (0..count).map(|n: u32| n.to_string()).collect();
            let keys: Vec<_> = texts.iter().map(String::as_str).collect();
            let mut block = BlockBuilder::new(1, 1);
            block.low_cardinality("c", &keys, [count - 1]);
            let bytes = block.finish().bytes;
            let head = 2 + 2 + 1 + "LowCardinality(String)".len() + 8;
            assert_eq!(u64::from_le_bytes(*bytes[head..].first_chunk().unwrap()), 0x600 + index);
            assert!(bytes.ends_with(&(count - 1).to_le_bytes()[..width]));
            let places = 8 + width;
            assert_eq!(bytes[bytes.len() - places..][..8], 1_u64.to_le_bytes(), "{count}");
        }
    }

    #[test]
    fn a_state_is_a_count_and_hashes() {
        let mut block = BlockBuilder::new(1, 2);
        block.unique_states("u", [&[][..], &[1, 2]]);
        let mut expected = b"\x01\x02\x01u\x24AggregateFunction(uniqExact, UInt64)\x00\x02".to_vec();
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(block.finish().bytes, expected.as_slice());
    }

    #[test]
    fn arrays_are_their_ends_and_then_all_numbers() {
        let mut block = BlockBuilder::new(1, 3);
        block.arrays("a", [&[1, 2][..], &[], &[3]]);
        let mut expected = b"\x01\x03\x01a\x0dArray(UInt64)".to_vec();
        [2_u64, 2, 3, 1, 2, 3].iter().for_each(|word| expected.extend_from_slice(&word.to_le_bytes()));
        assert_eq!(block.finish().bytes, expected.as_slice());
    }

    #[test]
    fn a_uuid_is_two_little_endian_halves() {
        let value = uuid::Uuid::parse_str("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        let expected =
            [0x77_66_55_44_33_22_11_00_u64, 0xff_ee_dd_cc_bb_aa_99_88].map(u64::to_be_bytes).concat();
        assert_eq!(uuid(value).to_vec(), expected);
    }

    #[test]
    #[should_panic(expected = "`n` must have one value per row")]
    fn a_column_with_too_few_values_panics() {
        BlockBuilder::new(1, 2).fixed("n", "UInt16", [[0, 0]]);
    }
}
