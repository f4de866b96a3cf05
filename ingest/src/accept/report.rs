//! The accepted and rejected lines of a request, for its response and for metrics.

use schemas::event::{Code, Fault, Parsed};
use serde::Serialize;

use crate::warnings::{self, LookAlikes};

/// A report lists at most this many errors and at most this many warnings. The others are only counted.
pub const MAX_ERRORS: usize = 20;

/// The accepted and rejected lines of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The number of valid lines.
    pub accepted: u32,
    /// The number of invalid lines.
    pub rejected: u32,
    /// The first invalid lines, at most [`MAX_ERRORS`].
    pub errors: Vec<LineError>,
    /// The number of invalid lines for each [`Code`], in the order of [`Code::ALL`].
    pub by_code: [u32; Code::ALL.len()],
    /// The first warnings about valid lines, at most [`MAX_ERRORS`].
    pub warnings: Vec<LineError>,
    /// The number of warnings for each field, in the order of [`warnings::FIELDS`].
    pub warned: [u32; warnings::FIELDS.len()],
    /// The number of valid lines in which the client sent a field that only the edge may set, such as `ip`. The edge
    /// replaced the field.
    pub reserved_replaced: u32,
    /// The number of valid lines that were spread over all partitions because their user sends too many events.
    pub spread: u32,
    /// The poll of the votes in the request; `None` if the votes name several polls, or if no line is a vote.
    pub poll: Option<String>,
}

/// An error or a warning about a line, as the response lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LineError {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong.
    pub code: &'static str,
    /// The known field that the error or warning is about; `None` for an error of the line as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'static str>,
}

impl Report {
    /// The number of lines that were read.
    pub fn received(&self) -> u32 {
        self.accepted + self.rejected
    }

    /// The number of warnings.
    pub fn warnings(&self) -> u32 {
        self.warned.iter().sum()
    }

    /// Adds the warnings about a valid line.
    pub(super) fn warn(&mut self, line: usize, parsed: &Parsed<'_, LookAlikes>) {
        for (code, field) in warnings::of(parsed) {
            let at = warnings::FIELDS
                .iter()
                .position(|other| *other == field)
                .expect("`FIELDS` contains every field that a warning names");
            self.warned[at] += 1;
            if self.warnings.len() < MAX_ERRORS {
                self.warnings.push(LineError { line, code, field: Some(field) });
            }
        }
    }

    /// Adds an invalid line.
    pub(super) fn reject(&mut self, line: usize, Fault { code, field }: Fault) {
        self.rejected += 1;
        self.by_code[code as usize] += 1;
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(LineError { line, code: code.as_str(), field });
        }
    }
}
