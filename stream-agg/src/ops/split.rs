//! `stream-agg split`: divides a declared batch into parts that are inserted separately, for example because ClickHouse
//! refuses to insert the whole batch at once.
//!
//! The batch keeps its records. The command adds split points to the intent, which is the metadata of the committed
//! offset. A split point is the offset at which one part of the batch ends and the next part begins. Aggregators insert
//! each part like a batch of its own: with its own deduplication token, and with its own marker. So the marker of a
//! table partition shows which parts of the batch the table partition holds. Each run of the command halves the parts.

use std::fmt;

use crate::config::Config;
use crate::ops::offline::{CommittedIntent, Offline, OfflineError};
use crate::protocol::intent::{Intent, MAX_SPLIT_POINTS};
use crate::protocol::progress::{NextOffset, Offset};

/// Why a batch was not split.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// No batch is declared.
    #[error(
        "split partition {partition}: no batch of this partition is declared, so there is nothing to split; use the \
         partition number from the aggregator's error message"
    )]
    NothingDeclared {
        /// The Kafka partition.
        partition: u16,
    },
    /// No part has more than one offset, or the intent already has the maximum number of split points.
    #[error(
        "split partition {partition}: the batch of offsets {from} to {last} cannot be split further (number of \
         parts: {parts}); if the inserts fail because of the record at offset N, \
         `stream-agg skip {partition} --offset N` turns the lines of this record into dead letters"
    )]
    Indivisible {
        /// The Kafka partition.
        partition: u16,
        /// First offset of the batch.
        from: NextOffset,
        /// Last offset of the batch.
        last: Offset,
        /// The number of parts that the batch already has.
        parts: usize,
    },
    /// Aggregators run, no readable intent is committed, another process committed while the command ran, or a request
    /// to Kafka failed.
    #[error("split partition {partition}")]
    Offline {
        /// The Kafka partition.
        partition: u16,
        /// The cause.
        source: OfflineError,
    },
}

/// The result of [`split`]: the parts of the batch according to the committed intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The Kafka partition.
    pub partition: u16,
    /// First offset of the batch.
    pub from: NextOffset,
    /// The ends of all parts, ascending. The end of a part is its last offset plus one.
    pub ends: Vec<NextOffset>,
}

/// Halves each part of the declared batch of a Kafka partition that has more than one offset. A batch that was never
/// split is one part. If the intent has too little room for all new split points, only the widest parts are halved.
///
/// # Errors
/// The batch cannot be split, aggregators run, another process committed, or a request failed. This function has then
/// not changed the intent, unless Kafka stored the new intent and its answer was lost.
pub async fn split(config: &Config, partition: u16) -> Result<Split, SplitError> {
    let offline_error = |source| SplitError::Offline { partition, source };
    let offline = Offline::new(config, partition).map_err(offline_error)?;
    let CommittedIntent { committed, from, intent } = offline.intent().await.map_err(offline_error)?;
    let Some(last) = intent.last else { return Err(SplitError::NothingDeclared { partition }) };
    let split = halved(from, &intent.ends());
    if split == intent.split {
        return Err(SplitError::Indivisible { partition, from, last, parts: split.len() + 1 });
    }
    offline.wait_for_inserts_to_end(&committed).await.map_err(offline_error)?;
    let intent = Intent { split, ..intent };
    offline.replace(&committed, from, &intent).await.map_err(offline_error)?;
    Ok(Split { partition, from, ends: intent.ends() })
}

/// Halves each part that has more than one offset, the widest parts first, and stops when there are
/// [`MAX_SPLIT_POINTS`] split points. Returns the old and the new split points, ascending. The first part begins at
/// `from`. `ends` has the end of each part, so the last item of `ends` is the end of the batch.
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
            "partition {partition}: the batch from offset {from} will be inserted in {} parts, ",
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
