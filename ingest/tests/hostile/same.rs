//! Compares a stored line with the line that a client sent.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemas::{event, line};
use serde_json::value::RawValue;

/// What the edge adds to each line.
const ADDED: [&str; 3] = ["tenant", "ip", "server_time"];

type Object = BTreeMap<String, Box<RawValue>>;

/// The fields that a client may set. If a name occurs several times, the last field counts.
pub(crate) fn fields(object: &str) -> BTreeMap<String, String> {
    let all: Object =
        serde_json::from_str(object).unwrap_or_else(|error| panic!("parse the line {object}: {error}"));
    let is_added = |name: &str| ADDED.contains(&name);
    // The edge stores a line break between two tokens as a space.
    let text = |value: &RawValue| value.get().replace(['\n', '\r'], " ");
    all.into_iter().filter(|(name, _)| !is_added(name)).map(|(name, value)| (name, text(&value))).collect()
}

/// Checks that the stored line has the fields that were sent and the fields that the edge adds. Reads the line with the
/// aggregator's parser and, independently, with `serde_json`.
#[track_caller]
pub(crate) fn assert_same(stored: &str, sent: &str) {
    type Props<'a> = Vec<(Cow<'a, str>, &'a str)>;
    let read = line::read::<Props<'_>>(stored)
        .unwrap_or_else(|error| panic!("read the stored line {stored}: {error}"));
    let flat = sent.replace(['\n', '\r'], " ");
    let parsed = event::parse::<Props<'_>>(&flat).unwrap();
    assert_eq!((read.tenant, &read.event, &read.props), ("default", &parsed.event, &parsed.props), "{sent}");
    assert_eq!(fields(stored), fields(sent));
    let added: Object = serde_json::from_str(stored).unwrap();
    assert!(ADDED.iter().all(|name| added.contains_key(*name)), "{stored}");
}
