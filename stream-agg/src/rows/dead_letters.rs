//! The rows of the table `dead_letters`, column by column: dead letters, which are lines of a batch that could not
//! become events, and samples of lines that the edge rejected.
//!
//! Invariant: all columns have the same length, and the length of each text is limited.

use schemas::event::{Code, Fault};
use schemas::line::{self, ReadError};
use schemas::record::HeadError;
use schemas::sample::Sample;
use schemas::time::UnixMillis;

use crate::protocol::progress::Offset;
use crate::rows::columns::{Interned, Texts};

/// The tenant in a dead letter whose line names no readable tenant.
const UNKNOWN_TENANT: &str = "?";
/// Why a line became a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The line cannot be read, or no table can store its time of arrival. Unless a clock is wrong by many years, the
    /// edge writes no such line.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The record has more stored lines than the column `line` can number.
    #[error("read a line: its record has more than {} stored lines", u32::from(u16::MAX) + 1)]
    Beyond,
    /// The headers of the record cannot be read. The edge writes no such record.
    #[error(transparent)]
    Head(HeadError),
    /// The record was in a spool for too long. The ledger drops old rows. Without the row of an earlier copy of the
    /// record, the aggregator could not know that the record is a repeat. The limit is far below the retention of the
    /// ledger.
    #[error("read a line: its record was spooled for more than {days} days")]
    SpooledTooLong {
        /// Maximum number of days that a record may be in a spool.
        days: i64,
    },
    /// An operator skipped the record.
    #[error("read a line: `stream-agg skip` made its record a dead letter")]
    Skipped,
    /// The record should hold samples of rejected lines, but the line is not a sample.
    #[error("read a line: its record should hold samples of rejected lines, but the line is not a sample")]
    Sample,
}

impl Reason {
    /// The code that the column `reason` of the table `dead_letters` contains. The code of a reason never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read(ReadError::Event(fault)) => fault.code.as_str(),
            Self::Read(ReadError::Added(_)) => "bad_added_field",
            Self::Beyond => "too_many_lines",
            Self::Head(_) => "bad_header",
            Self::SpooledTooLong { .. } => "spooled_too_long",
            Self::Skipped => "skipped",
            Self::Sample => "bad_sample",
        }
    }

    /// The reason for bytes that are not UTF-8.
    pub fn bad_utf8() -> Self {
        Self::Read(ReadError::Event(Fault::line(Code::BadUtf8)))
    }
}

/// The column `reason` of a line that the edge rejected: `edge:` and the code that the client got. If the code is about
/// a field, another colon and the field follow.
fn edge_reason(sample: &Sample<'_>) -> String {
    match &sample.field {
        Some(field) => format!("edge:{}:{field}", sample.code),
        None => format!("edge:{}", sample.code),
    }
}

/// The dead letters and the samples of a batch. Each field is named like the column of the table `dead_letters` that it
/// fills.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the columns are documented in schemas/sql/0004_dead_letters.sql")]
pub struct DeadLetters {
    pub tenant: Interned,
    pub reason: Interned,
    pub ko: Vec<u64>,
    pub line: Vec<u32>,
    pub text: Texts,
    pub kafka_time: Vec<UnixMillis>,
}

impl DeadLetters {
    /// The number of dead letters and samples.
    pub fn len(&self) -> usize {
        self.ko.len()
    }

    /// Whether there are no dead letters and no samples.
    pub fn is_empty(&self) -> bool {
        self.ko.is_empty()
    }

    /// Appends line `number` of the record at `offset`; at most the first `max_bytes` of the line are kept.
    pub fn push(
        &mut self,
        offset: Offset,
        kafka_time: UnixMillis,
        number: u32,
        line: &[u8],
        reason: &Reason,
        max_bytes: usize,
    ) {
        self.push_position(offset, kafka_time, number);
        self.tenant.push(line::tenant_of(line).unwrap_or(UNKNOWN_TENANT));
        self.reason.push(reason.code());
        let text = String::from_utf8_lossy(&line[..line.len().min(max_bytes)]);
        // U+FFFD has three bytes and may replace a single byte, so the text can be longer than `max_bytes` and is cut
        // again.
        self.text.push(&text[..text.floor_char_boundary(max_bytes)]);
    }

    /// Appends line `number` of the record at `offset`. The line should be a sample of a line that the edge rejected.
    /// If it is not a sample, it gets the reason [`Reason::Sample`], and at most its first `max_bytes` are kept.
    pub fn push_sample(
        &mut self,
        offset: Offset,
        kafka_time: UnixMillis,
        number: u32,
        line: &[u8],
        max_bytes: usize,
    ) {
        let Some(sample) = Sample::read(line) else {
            return self.push(offset, kafka_time, number, line, &Reason::Sample, max_bytes);
        };
        self.push_position(offset, kafka_time, number);
        self.tenant.push(&sample.tenant);
        self.reason.push(&edge_reason(&sample));
        self.text.push(&sample.text);
    }

    fn push_position(&mut self, offset: Offset, kafka_time: UnixMillis, number: u32) {
        self.ko.push(offset.to_u64());
        self.line.push(number);
        self.kafka_time.push(kafka_time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::limits::MAX_DEAD_LETTER_BYTES;

    #[test]
    fn a_dead_letter_keeps_the_beginning_of_its_line_as_text() {
        let mut letters = DeadLetters::default();
        let mut push = |line: &[u8]| {
            letters.push(Offset::new(7), UnixMillis(9), 3, line, &Reason::Beyond, MAX_DEAD_LETTER_BYTES);
        };
        push(b"a\xffb");
        push("é".repeat(4096).as_bytes());
        push(&[b"x".as_slice(), "é".repeat(4096).as_bytes()].concat());
        push(&[0xff; 5000]);
        assert_eq!(letters.text.get(0), "a\u{fffd}b");
        assert_eq!(letters.text.get(1), "é".repeat(2048));
        assert_eq!(letters.text.get(2), format!("x{}", "é".repeat(2047)));
        assert_eq!(letters.text.get(3), "\u{fffd}".repeat(4096 / 3));
        assert_eq!((letters.ko[0], letters.line[0], letters.kafka_time[0]), (7, 3, UnixMillis(9)));
        assert_eq!(letters.reason.get(0), "too_many_lines");
    }

    #[test]
    fn a_dead_letter_has_the_tenant_of_its_line_if_it_is_readable() {
        let mut letters = DeadLetters::default();
        for line in [r#"{"tenant":"a","x"#, r#"{"tenant":"NO","x"#, "", r#"{"tenant":"a"#] {
            letters.push(Offset::new(7), UnixMillis(9), 0, line.as_bytes(), &Reason::bad_utf8(), 9);
        }
        assert_eq!([0, 1, 2, 3].map(|row| letters.tenant.get(row)), ["a", "?", "?", "?"]);
    }
}
