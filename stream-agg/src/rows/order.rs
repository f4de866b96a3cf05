//! Sorts the rows of a batch by counting instead of comparing.
//!
//! Pure. The key of each row is replaced by its rank among the distinct keys, and rows are sorted by rank. Counting
//! is fast because a batch has many rows and few ranks, for example one rank for each device.

use hashbrown::HashTable;

use crate::rows::columns::RowId;

/// Sorts the rows in `order` by their ranks, which are all below `ranks`. Rows of equal rank keep their order.
pub fn by_rank(order: &[RowId], ranks: usize, rank: impl Fn(RowId) -> u32) -> Vec<RowId> {
    let mut places = vec![0_u32; ranks];
    order.iter().for_each(|row| places[rank(*row) as usize] += 1);
    let mut start = 0;
    for place in &mut places {
        start += std::mem::replace(place, start);
    }
    let mut sorted = vec![0; order.len()];
    for row in order {
        let place = &mut places[rank(*row) as usize];
        sorted[*place as usize] = *row;
        *place += 1;
    }
    sorted
}

/// The distinct keys of rows, and the rank of each row.
pub struct Ranked<K> {
    /// The distinct keys, ascending.
    pub keys: Vec<K>,
    /// For each row, the index of the row's key in `keys`.
    pub ranks: Vec<u32>,
}

/// Ranks rows by their keys. `keys` has the key of each row. `hash` must return equal hashes for equal keys.
pub fn ranked<K: Copy + Ord>(keys: impl Iterator<Item = K>, hash: impl Fn(&K) -> u64) -> Ranked<K> {
    let (mut distinct, mut numbers) = (Vec::new(), Vec::with_capacity(keys.size_hint().0));
    let mut known = HashTable::<u32>::new();
    for key in keys {
        // Neighbouring rows often have the same key, because the lines of one request usually come from one user and
        // are next to each other in a record. For such a row, no lookup in `known` is needed.
        if let Some(last) = numbers.last().copied().filter(|last| distinct[*last as usize] == key) {
            numbers.push(last);
            continue;
        }
        let entry = known.entry(
            hash(&key),
            |number| distinct[*number as usize] == key,
            |number| hash(&distinct[*number as usize]),
        );
        let number = *entry.or_insert(distinct.len() as u32).get();
        if number as usize == distinct.len() {
            distinct.push(key);
        }
        numbers.push(number);
    }
    let mut order: Vec<(K, u32)> = distinct.into_iter().zip(0..).collect();
    order.sort_unstable();
    let mut places = vec![0; order.len()];
    for (place, (_, number)) in (0..).zip(&order) {
        places[*number as usize] = place;
    }
    numbers.iter_mut().for_each(|number| *number = places[*number as usize]);
    Ranked { keys: order.into_iter().map(|(key, _)| key).collect(), ranks: numbers }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    #[test]
    fn keys_are_ranked_by_their_order_and_equal_keys_have_equal_ranks() {
        let ranked = ranked(["b", "b", "", "a", "b"].into_iter(), |key| xxh3_64(key.as_bytes()));
        assert_eq!((ranked.keys, ranked.ranks), (vec!["", "a", "b"], vec![2, 2, 0, 1, 2]));
    }

    #[test]
    fn rows_of_equal_rank_keep_their_order() {
        let ranks = [2, 0, 2, 1, 0];
        assert_eq!(by_rank(&[4, 3, 2, 1, 0], 3, |row| ranks[row as usize]), [4, 1, 3, 2, 0]);
    }
}
