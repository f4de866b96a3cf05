//! Votes: lines that name a poll, an option and perhaps a voter become ordinary events.
//!
//! `{"poll":"best-shoe","option":"a","voter":"u1"}` is rewritten to
//! `{"event":"vote","poll":"best-shoe","option":"a","user_id":"u1"}`, so it takes the way of
//! every event: `poll` and `option` are kept in `props`, and the voter is the user. All other
//! fields stay as they are, and are checked as in every event.
//!
//! Invariant: a line that leaves here good is an event `vote` with a poll and an option. The
//! lines are pure; what the polls' results are is fetched by [`refresh`], which no vote waits for.

pub mod results;

pub mod refresh;

use std::borrow::Cow;

use schemas::event::{self, Code, Fault, MAX_ID_BYTES, MAX_LINE_BYTES};
use schemas::object;
use serde_json::value::RawValue;

use crate::accept::decode::Line;

/// The event that a vote becomes.
const EVENT: &str = "vote";
/// Longest name of a poll and of an option, in bytes.
pub const MAX_NAME_BYTES: usize = 200;

/// What makes a vote.
const OURS: [&str; 3] = ["poll", "option", "voter"];

/// The lines of one request, as events.
#[derive(Debug)]
pub struct Votes<'a> {
    /// Each with its event.
    lines: Vec<(Line<'a>, Result<String, Fault>)>,
    poll: Option<String>,
}

impl<'a> Votes<'a> {
    /// Rewrites the lines of a request.
    pub fn read(lines: &[Line<'a>]) -> Self {
        let mut polls = Vec::new();
        let mut rewritten = |text: &str| -> Result<String, Fault> {
            let (line, poll) = rewrite(text)?;
            if !polls.contains(&poll) && polls.len() < 2 {
                polls.push(poll);
            }
            Ok(line)
        };
        let lines = lines.iter().map(|line| (*line, line.text.and_then(&mut rewritten))).collect();
        Self { lines, poll: polls.pop().filter(|_| polls.is_empty()) }
    }

    /// The events, numbered as the lines that they were.
    pub fn lines(&self) -> Vec<Line<'_>> {
        self.lines
            .iter()
            .map(|(line, text)| Line { text: text.as_deref().map_err(|fault| *fault), ..*line })
            .collect()
    }

    /// The poll that all of them name; none if they name several.
    pub fn into_poll(self) -> Option<String> {
        self.poll
    }
}

/// A vote as an event, and the poll it names.
fn rewrite(line: &str) -> Result<(String, String), Fault> {
    if line.len() > MAX_LINE_BYTES {
        return Err(Fault::line(Code::LineTooLong));
    }
    let Ok(fields) = object::fields(line) else {
        // The way of every event knows best what is wrong.
        return Err(event::parse::<()>(line).err().unwrap_or(Fault::line(Code::BadJson)));
    };
    let poll = named(&fields, "poll")?.ok_or(Fault::field(Code::MissingField, "poll"))?;
    named(&fields, "option")?.ok_or(Fault::field(Code::MissingField, "option"))?;
    named(&fields, "voter")?;
    match named(&fields, "event")? {
        Some(event) if event != EVENT => return Err(Fault::field(Code::UnknownEvent, "event")),
        _ => {}
    }
    Ok((written(&fields), poll))
}

/// The text of a field of ours; `null` and an empty text are absence, as everywhere.
fn named(fields: &[(Cow<'_, str>, &RawValue)], name: &'static str) -> Result<Option<String>, Fault> {
    let mut values = fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.get());
    let value = values.next().unwrap_or("null");
    if values.next().is_some() {
        return Err(Fault::field(Code::DuplicateKey, name));
    }
    let text: Option<String> = serde_json::from_str(value).map_err(|_| match value.as_bytes()[0] {
        b'"' => Fault::line(Code::BadJson), // half a surrogate pair
        _ => Fault::field(Code::BadType, name),
    })?;
    match text.filter(|text| !text.is_empty()) {
        Some(text) if text.len() > limit(name) => Err(Fault::field(Code::TooLong, name)),
        text => Ok(text),
    }
}

fn limit(name: &str) -> usize {
    if name == "voter" { MAX_ID_BYTES } else { MAX_NAME_BYTES }
}

/// Our fields go first: of several values at one path of `props`, where dots in names are steps
/// too, the first one counts.
fn written(fields: &[(Cow<'_, str>, &RawValue)]) -> String {
    let (ours, others): (Vec<_>, Vec<_>) =
        fields.iter().filter(|(name, _)| name != "event").partition(|(name, _)| OURS.contains(&&**name));
    let mut line = format!(r#"{{"event":"{EVENT}""#);
    for (name, value) in ours.into_iter().chain(others) {
        let name = if name == "voter" { "user_id" } else { &**name };
        line.push(',');
        line += &serde_json::to_string(name).expect("text is written to memory");
        line.push(':');
        line += value.get();
    }
    line.push('}');
    line
}

#[cfg(test)]
mod tests;
