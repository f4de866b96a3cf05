//! The differences between the actual and the expected contents of a table or of the query API's answers, key by key.
//! Here a *cell* is a key with its figures. Pure.

use std::collections::BTreeMap;
use std::fmt;

use schemas::time::UnixMillis;

/// The key of a cell: the start of its bucket in Unix seconds, if the table has buckets, and then its dimensions.
pub type Key = Vec<String>;

/// The figures of each cell.
pub type Cells = BTreeMap<Key, Vec<i64>>;

/// A cell that does not hold the expected figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The table and the cell, in words.
    pub place: String,
    /// The expected figures; empty if the cell must not exist.
    pub expected: Vec<i64>,
    /// The actual figures; empty if the cell is missing.
    pub found: Vec<i64>,
}

impl Difference {
    /// Number of missing events: how far the first figure is too low. If the first figure is right, 1 if the first
    /// wrong figure is too low, otherwise 0.
    pub fn missing(&self) -> u64 {
        u64::try_from(-self.excess()).unwrap_or(0)
    }

    /// Number of events that are counted too often: how far the first figure is too high. If the first figure is right,
    /// 1 if the first wrong figure is too high, otherwise 0.
    pub fn duplicated(&self) -> u64 {
        u64::try_from(self.excess()).unwrap_or(0)
    }

    fn excess(&self) -> i64 {
        let at = |figures: &[i64], n: usize| figures.get(n).copied().unwrap_or(0);
        let difference = |n: usize| at(&self.found, n).saturating_sub(at(&self.expected, n));
        let others = (1..self.expected.len().max(self.found.len())).map(|n| difference(n).signum());
        Some(difference(0)).into_iter().chain(others).find(|excess| *excess != 0).unwrap_or(0)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, expected, found } = self;
        write!(f, "{place}: expected {expected:?}, found {found:?}")
    }
}

/// The cells of `table` in which `found` differs from `expected`.
pub fn differences(
    table: &str,
    key: &[String],
    figures: &[String],
    expected: &Cells,
    found: &Cells,
) -> Vec<Difference> {
    let unexpected = found.keys().filter(|cell| !expected.contains_key(*cell));
    let cells = expected.keys().chain(unexpected);
    let compared = cells.map(|cell| {
        let figures_of = |cells: &Cells| cells.get(cell).cloned().unwrap_or_default();
        (cell, figures_of(expected), figures_of(found))
    });
    let differing = compared.filter(|(_, expected, found)| expected != found);
    differing
        .map(|(cell, expected, found)| Difference {
            place: place(table, key, cell, figures),
            expected,
            found,
        })
        .collect()
}

/// Describes a cell, for example ``event_hourly bucket 2026-11-21 08:00 event `click` (events, value)``.
fn place(table: &str, key: &[String], cell: &[String], figures: &[String]) -> String {
    let named = key.iter().zip(cell).map(|(name, value)| match name.as_str() {
        "bucket" | "hour" => {
            let time = UnixMillis(value.parse::<i64>().unwrap_or(0) * 1000).to_string();
            format!(" {name} {}", time.get(..16).unwrap_or(&time))
        }
        _ => format!(" {name} `{value}`"),
    });
    format!("{table}{} ({})", named.collect::<String>(), figures.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_difference_names_its_cell_and_both_figures() {
        let expected = Cells::from([(texts(&["1767225600", "vote", "DE"]), vec![1, 7])]);
        let key = texts(&["bucket", "event", "country"]);
        let found = differences("event_hourly", &key, &texts(&["events", "value"]), &expected, &Cells::new());
        assert_eq!(
            found[0].to_string(),
            "event_hourly bucket 2026-01-01 00:00 event `vote` country `DE` (events, value): \
             expected [1, 7], found []"
        );
    }

    #[test]
    fn a_wrong_number_of_users_counts_as_one_missing_or_duplicated_event() {
        let difference = |expected, found| Difference { place: String::new(), expected, found };
        assert_eq!(difference(vec![5, 3], vec![5, 1]).missing(), 1);
        assert_eq!(difference(vec![5, 3], vec![5, 4]).duplicated(), 1);
        assert_eq!(difference(vec![5, 3], vec![4, 3]).missing(), 1);
    }
}
