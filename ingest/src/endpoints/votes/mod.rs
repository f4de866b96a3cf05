//! Rewrites votes, which are lines with a poll, an option and perhaps a voter, into ordinary events.
//!
//! `{"poll":"best-shoe","option":"a","voter":"u1"}` is rewritten to
//! `{"event":"vote","poll":"best-shoe","option":"a","user_id":"u1"}`, which is then handled like any other
//! event: `poll` and `option` are stored in `props`, and the voter is the user. If the line
//! has a field `event`, its value must be `vote`, `null` or empty. All other fields of the line are copied unchanged,
//! and are then checked like the fields of any other event.
//!
//! Invariant: a line that is rewritten without a fault is an event named `vote` with a poll and an option. No I/O in
//! this file; [`refresh`] fetches poll results in the background, and no vote waits for a fetch.

pub mod results;

pub mod refresh;

use std::borrow::Cow;

use schemas::event::{self, Code, Fault, MAX_ID_BYTES, MAX_LINE_BYTES};
use schemas::object;
use serde_json::value::RawValue;

use crate::line::Line;

/// The name of the event that a vote becomes.
const EVENT: &str = "vote";
/// The longest name of a poll or of an option, in bytes.
pub const MAX_NAME_BYTES: usize = 200;

/// The fields of a vote.
const VOTE_FIELDS: [&str; 3] = ["poll", "option", "voter"];

/// The votes of one request, as events.
#[derive(Debug)]
pub struct Votes<'a> {
    /// Each line of the request, with the event that it becomes or with its fault.
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

    /// The rewritten lines. Each has the number of its original line, and the text of its event or its fault.
    pub fn lines(&self) -> Vec<Line<'_>> {
        self.lines
            .iter()
            .map(|(line, text)| Line { text: text.as_deref().map_err(|fault| *fault), ..*line })
            .collect()
    }

    /// The poll that all votes name; `None` if no line is a vote, or if the votes name several polls.
    pub fn into_poll(self) -> Option<String> {
        self.poll
    }
}

/// Rewrites one line. Returns the line of the event and the poll of the vote.
fn rewrite(line: &str) -> Result<(String, String), Fault> {
    if line.len() > MAX_LINE_BYTES {
        return Err(Fault::line(Code::LineTooLong));
    }
    let Ok(fields) = object::fields(line) else {
        // `object::fields` does not say what is wrong with the line; the event parser does.
        return Err(event::parse::<()>(line).err().unwrap_or(Fault::line(Code::BadJson)));
    };
    let poll = text_of(&fields, "poll")?.ok_or(Fault::field(Code::MissingField, "poll"))?;
    text_of(&fields, "option")?.ok_or(Fault::field(Code::MissingField, "option"))?;
    text_of(&fields, "voter")?;
    match text_of(&fields, "event")? {
        Some(event) if event != EVENT => return Err(Fault::field(Code::UnknownEvent, "event")),
        _ => {}
    }
    Ok((event_line(&fields), poll))
}

/// The text of a field of a vote; `None` if the field is absent, `null` or empty. These three mean the same in every
/// event.
fn text_of(fields: &[(Cow<'_, str>, &RawValue)], name: &'static str) -> Result<Option<String>, Fault> {
    let mut values = fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.get());
    let value = values.next().unwrap_or("null");
    if values.next().is_some() {
        return Err(Fault::field(Code::DuplicateKey, name));
    }
    let text: Option<String> = serde_json::from_str(value).map_err(|_| match value.as_bytes()[0] {
        b'"' => Fault::line(Code::BadJson), // an unpaired surrogate
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

/// The line of the event that a vote becomes: `event`, then the fields of the vote, then all other fields. `poll` and
/// `option` are stored in `props`. No other field can replace them there, because [`rewrite`] refuses a line that
/// repeats one of them.
fn event_line(fields: &[(Cow<'_, str>, &RawValue)]) -> String {
    let (vote, others): (Vec<_>, Vec<_>) = fields
        .iter()
        .filter(|(name, _)| name != "event")
        .partition(|(name, _)| VOTE_FIELDS.contains(&&**name));
    let mut line = format!(r#"{{"event":"{EVENT}""#);
    for (name, value) in vote.into_iter().chain(others) {
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
