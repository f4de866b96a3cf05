//! `stream-agg split`: splits a declared batch that ClickHouse refuses as a whole into smaller inserts.
//!
//! The batch still has the same records. Its intent gets split points, which are offsets at which one part of the batch
//! ends and the next begins. Each part is inserted with its own token and condition, so the marker of a table partition
//! shows which parts of the batch the table partition holds. If the command is run again, it halves the parts again.

use std::fmt;

use crate::config::Config;
use crate::ops::offline::{Offline, OfflineError};
use crate::protocol::intent::{Intent, MAX_SPLIT_POINTS};
use crate::protocol::progress::{NextOffset, Offset};

/// Why a batch was not split.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// No batch is declared.
    #[error(
        "split partition {partition}: no batch of this partition waits to be inserted, so there is nothing to split; take \
         the partition from the message of the aggregator"
    )]
    NothingDeclared {
        /// The Kafka partition.
        partition: u16,
    },
    /// The parts are single records, or an intent has no room for more split points.
    #[error(
        "split partition {partition}: its batch, offsets {from} to {last}, already has {parts} parts and cannot be \
         split further; `stream-agg skip {partition} --offset N` turns one of its records into a dead letter"
    )]
    Indivisible {
        /// The Kafka partition.
        partition: u16,
        /// First offset of the batch.
        from: NextOffset,
        /// The last offset.
        last: Offset,
        /// The number of parts.
        parts: usize,
    },
    /// Kafka or ClickHouse failed, or aggregators run.
    #[error("split partition {partition}")]
    Offline {
        /// The Kafka partition.
        partition: u16,
        /// What failed.
        source: OfflineError,
    },
}

/// How the new intent splits the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The Kafka partition.
    pub partition: u16,
    /// First offset of the batch.
    pub from: NextOffset,
    /// For each part, the offset after its last one, ascending.
    pub ends: Vec<NextOffset>,
}

/// Halves each part of the declared batch of a Kafka partition. If the intent has no room for that many split points,
/// only the widest parts are halved.
///
/// # Errors
/// Why the batch cannot be split; nothing has changed then.
pub async fn split(config: &Config, partition: u16) -> Result<Split, SplitError> {
    let offline_error = |source| SplitError::Offline { partition, source };
    let offline = Offline::new(config, partition).map_err(offline_error)?;
    let (from, intent) = offline.intent().await.map_err(offline_error)?;
    let Some(last) = intent.last else { return Err(SplitError::NothingDeclared { partition }) };
    let split = halved(from, &intent.ends());
    if split == intent.split {
        return Err(SplitError::Indivisible { partition, from, last, parts: split.len() + 1 });
    }
    offline.wait_for_inserts_to_end(&Some((from, intent.to_string()))).await.map_err(offline_error)?;
    let intent = Intent { split, ..intent };
    offline.commit(from, &intent).map_err(offline_error)?;
    Ok(Split { partition, from, ends: intent.ends() })
}

/// Halves the widest parts, as many as an intent has room for, and returns all split points. The parts begin at
/// `from` and end at `ends`.
fn halved(from: NextOffset, ends: &[NextOffset]) -> Vec<NextOffset> {
    let starts = [from].into_iter().chain(ends.iter().copied());
    let mut parts: Vec<_> = starts.zip(ends.iter().copied()).collect();
    let points = parts.len() - 1;
    let width = |(start, end): &(NextOffset, NextOffset)| end.to_i64() - start.to_i64();
    parts.sort_by_key(|part| std::cmp::Reverse(width(part)));
    let halves = parts.iter().filter(|part| width(part) > 1).take(MAX_SPLIT_POINTS.saturating_sub(points));
    let middles = halves.map(|part| NextOffset::new(part.0.to_i64() + width(part) / 2));
    let mut split: Vec<_> = ends[..points].iter().copied().chain(middles).collect();
    split.sort_unstable();
    split
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, from, ends } = self;
        write!(
            f,
            "partition {partition}: the batch from offset {from} is inserted in {} parts, ",
            ends.len()
        )?;
        let ends: Vec<_> = ends.iter().map(ToString::to_string).collect();
        write!(f, "which end before the offsets {}", ends.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(from: i64, ends: &[i64], expected: &[i64]) {
        let offsets = |numbers: &[i64]| numbers.iter().copied().map(NextOffset::new).collect::<Vec<_>>();
        assert_eq!(halved(NextOffset::new(from), &offsets(ends)), offsets(expected));
    }

    #[test]
    fn each_part_of_more_than_one_offset_is_halved() {
        check(10, &[20], &[15]);
        check(10, &[15, 20], &[12, 15, 17]);
        check(10, &[12, 15, 17, 20], &[11, 12, 13, 15, 16, 17, 18]);
        check(10, &[11], &[]);
        check(10, &[11, 12], &[11]);
        check(10, &[11, 13], &[11, 12]);
    }

    #[test]
    fn there_are_never_more_split_points_than_an_intent_may_have() {
        let mut ends = vec![NextOffset::new(1 << 40)];
        for _ in 0..10 {
            let split = halved(NextOffset::ZERO, &ends);
            assert!(split.len() <= MAX_SPLIT_POINTS && split.is_sorted());
            ends = split.into_iter().chain([NextOffset::new(1 << 40)]).collect();
        }
        assert_eq!(ends.len(), MAX_SPLIT_POINTS + 1);
    }
}
