//! Groups the rows of a batch once, for all rollups.
//!
//! A *stratum* is the set of rows with the same tenant, event, country, `device_os`, minute of the event time and UTC
//! day of receipt. All rows of a stratum have the same bucket in every grain, because no bucket begins in the middle of
//! a minute. The retention of a bucket, if it ends, ends with a UTC day, so either all rows of a stratum were received
//! before the end or none was. Therefore a rollup whose dimensions and conditions use only event, country and
//! `device_os` groups strata instead of rows. Most rollups are like this. Pure.

use std::cell::OnceCell;
use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};
use schemas::rollup::Distinct;
use schemas::time::{DAY, MINUTE};
use xxhash_rust::xxh3::xxh3_64;

use crate::rows::columns::{RowId, Rows};
use crate::rows::order::{self, Ranked};

/// Index of a stratum in its batch. Strata are in the order of their first rows.
pub type StratumId = u32;

/// All strata of a batch.
pub struct Strata<'r> {
    /// The rows of the batch.
    pub rows: &'r Rows,
    /// The stratum of each row.
    pub of_row: Vec<StratumId>,
    /// The first row of each stratum.
    pub firsts: Vec<RowId>,
    /// How many rows each stratum has.
    pub counts: Vec<u64>,
    distinct: [OnceCell<Hashed>; 3],
}

/// Rows and strata, sorted by the hash of one field of the rows: the user, the session or the device id. Rows in which
/// the field is empty are left out.
pub struct Hashed {
    /// The distinct hashes, ascending.
    pub hashes: Vec<u64>,
    /// Rows, each with the index of its hash in `hashes`.
    pub rows: Vec<(RowId, u32)>,
    /// Strata, each with the index of a hash in `hashes`. A stratum has one entry for each distinct hash of its rows.
    pub by_stratum: Vec<(StratumId, u32)>,
}

impl<'r> Strata<'r> {
    /// Finds the strata of `rows`.
    pub fn of(rows: &'r Rows) -> Self {
        let hasher = DefaultHashBuilder::default();
        let key = |row: usize| {
            let texts = [&rows.tenant, &rows.event, &rows.country, &rows.device_os];
            let times = (rows.event_time[row].floor(MINUTE), rows.received[row].floor(DAY));
            (texts.map(|texts| texts.numbers[row]), times)
        };
        let mut known = HashTable::<(StratumId, RowId)>::new();
        let (mut firsts, mut counts) = (Vec::new(), Vec::new());
        let mut of_row = Vec::with_capacity(rows.len());
        for row in 0..rows.len() {
            let own = key(row);
            let number = firsts.len() as StratumId;
            let entry = known.entry(
                hasher.hash_one(own),
                |(_, first)| key(*first as usize) == own,
                |(_, first)| hasher.hash_one(key(*first as usize)),
            );
            let stratum = entry.or_insert((number, row as RowId)).get().0;
            if stratum == number {
                firsts.push(row as RowId);
                counts.push(0);
            }
            counts[stratum as usize] += 1;
            of_row.push(stratum);
        }
        Self { rows, of_row, firsts, counts, distinct: Default::default() }
    }

    /// The rows and strata, sorted by the hash of the field `distinct`. The result is computed once for all rollups of
    /// the batch.
    pub fn hashed(&self, distinct: Distinct) -> &Hashed {
        let place = match distinct {
            Distinct::User => 0,
            Distinct::Session => 1,
            Distinct::DeviceId => 2,
        };
        self.distinct[place].get_or_init(|| self.hash(distinct))
    }

    fn hash(&self, distinct: Distinct) -> Hashed {
        let rows = self.rows;
        let text = |row: RowId| match distinct {
            Distinct::User => rows.user(row),
            Distinct::Session => rows.session.get(row),
            Distinct::DeviceId => rows.device_id.get(row),
        };
        let with_text: Vec<_> = (0..rows.len() as RowId).filter(|row| !text(*row).is_empty()).collect();
        let hashes = with_text.iter().map(|row| xxh3_64(text(*row).as_bytes()));
        let Ranked { keys, ranks } = order::ranked(hashes, |hash| *hash);
        let places: Vec<_> = (0..with_text.len() as u32).collect();
        let sorted = order::by_rank(&places, keys.len(), |place| ranks[place as usize]);
        let in_order = sorted.iter().map(|place| (with_text[*place as usize], ranks[*place as usize]));
        let in_order: Vec<_> = in_order.collect();
        let mut last = vec![u32::MAX; self.firsts.len()];
        let strata = in_order.iter().map(|(row, rank)| (self.of_row[*row as usize], *rank));
        let by_stratum = strata
            .filter(|(stratum, rank)| std::mem::replace(&mut last[*stratum as usize], *rank) != *rank)
            .collect();
        Hashed { hashes: keys, rows: in_order, by_stratum }
    }
}
