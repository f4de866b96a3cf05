//! Warnings about accepted events: about labels (`client_time`, `country`, `device_os`) that cannot be read and are
//! therefore left out of the event, and about field names that other SDKs use.
//!
//! For example, an event with `userId` instead of `user_id` is valid but has no user, although its client meant to send
//! one.

use std::borrow::Cow;

use schemas::event::{Event, Parsed, Props};

/// The fields that a warning may name. Arrays with a counter for each field have the same order.
pub const FIELDS: [&str; 8] =
    ["client_time", "device_os", "country", "user_id", "device_id", "session", "event_id", "properties"];

/// The code of the warning that the client probably means a field of [`FIELDS`] but sends it under another name.
const LOOKS_LIKE: &str = "looks_like";

/// The fields that an event probably sends under names of other SDKs: one bit per field, in the order of [`FIELDS`].
#[derive(Debug, Clone, Copy, Default)]
pub struct LookAlikes(u8);

impl<'a> Props<'a> for LookAlikes {
    fn push(&mut self, name: Cow<'a, str>, _: &'a str) {
        if let Some(at) = intended_field(name.as_bytes()) {
            self.0 |= 1 << at;
        }
    }
}

/// Returns the index in [`FIELDS`] of the field that the client probably means, if `name` is a field name of Segment,
/// PostHog, Mixpanel, Amplitude or GA4. The index of `properties` is returned for an object, such as `params`, whose
/// fields belong at the top level, next to `event`. The function is called for every unknown field, so it compares the
/// length of the name first, which is fast.
fn intended_field(name: &[u8]) -> Option<usize> {
    const CLIENT_TIME: usize = 0;
    const USER_ID: usize = 3;
    const DEVICE_ID: usize = 4;
    const SESSION: usize = 5;
    const EVENT_ID: usize = 6;
    const PROPERTIES: usize = 7;
    Some(match name.len() {
        4 if name == b"time" => CLIENT_TIME,
        6 if name == b"userId" => USER_ID,
        6 if name == b"params" => PROPERTIES,
        8 if name == b"deviceId" => DEVICE_ID,
        9 if name == b"timestamp" => CLIENT_TIME,
        9 if name == b"client_id" => DEVICE_ID,
        9 if name == b"messageId" => EVENT_ID,
        9 if name == b"insert_id" => EVENT_ID,
        9 if name == b"sessionId" => SESSION,
        10 if name == b"session_id" => SESSION,
        10 if name == b"$device_id" => DEVICE_ID,
        10 if name == b"properties" => PROPERTIES,
        11 if name == b"distinct_id" => USER_ID,
        11 if name == b"anonymousId" => DEVICE_ID,
        16 if name == b"event_properties" => PROPERTIES,
        16 if name == b"timestamp_micros" => CLIENT_TIME,
        _ => return None,
    })
}

/// Whether [`of`] may return a warning about a line. This check is fast. The result is false for most
/// lines, so [`of`] is seldom called.
pub fn may_apply(parsed: &Parsed<'_, LookAlikes>) -> bool {
    parsed.props.0 != 0 || !parsed.left_out.is_empty()
}

/// The code and the field of each warning about a line.
pub fn of<'p>(parsed: &'p Parsed<'_, LookAlikes>) -> impl Iterator<Item = (&'static str, &'static str)> + 'p {
    let left_out = parsed.left_out.faults().filter_map(|fault| Some((fault.code.as_str(), fault.field?)));
    let looks_like = move |(at, field): (usize, &'static str)| {
        let is_named = parsed.props.0 & (1 << at) != 0 && lacks(&parsed.event, field);
        is_named.then_some((LOOKS_LIKE, field))
    };
    left_out.chain(FIELDS.into_iter().enumerate().filter_map(looks_like))
}

/// Whether `event` has no value for `field`. If the event has a value, a similar name needs no warning. Always true for
/// `properties`, which is not a field of [`Event`], and for fields that [`intended_field`] never returns.
fn lacks(event: &Event<'_>, field: &str) -> bool {
    match field {
        "client_time" => event.client_time.is_none(),
        "user_id" => event.user_id.is_empty(),
        "device_id" => event.device_id.is_empty(),
        "session" => event.session.is_empty(),
        "event_id" => event.event_id.is_none(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use schemas::event;

    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &[(&str, &str)]) {
        let parsed = event::parse::<LookAlikes>(line).unwrap();
        assert_eq!(of(&parsed).collect::<Vec<_>>(), expected, "{line}");
    }

    #[test]
    fn field_names_of_other_sdks_cause_a_warning_with_the_intended_field() {
        let looks_like =
            |fields: &[&'static str]| fields.iter().map(|field| (LOOKS_LIKE, *field)).collect::<Vec<_>>();
        // The first event has the field names of Segment, the second those of PostHog, the third those of Mixpanel and
        // Amplitude, and the fourth those of GA4.
        check(
            r#"{"event":"a","userId":"u","anonymousId":"d","messageId":"m","timestamp":"t","properties":{}}"#,
            &looks_like(&["client_time", "user_id", "device_id", "event_id", "properties"]),
        );
        check(r#"{"event":"a","distinct_id":"u","$device_id":"d"}"#, &looks_like(&["user_id", "device_id"]));
        check(r#"{"event":"a","time":1,"event_properties":{}}"#, &looks_like(&["client_time", "properties"]));
        check(r#"{"event":"a","client_id":"c","session_id":1}"#, &looks_like(&["device_id", "session"]));
    }

    #[test]
    fn a_field_name_of_another_sdk_causes_no_warning_if_the_intended_field_is_present() {
        check(r#"{"event":"a","userId":"u","user_id":"u","time":1,"client_time":1700000000000}"#, &[]);
        check(r#"{"event":"a","plan":"gold","times":3}"#, &[]);
    }

    #[test]
    fn a_label_that_cannot_be_read_causes_a_warning() {
        check(
            r#"{"event":"a","country":"T1","client_time":"yesterday","timestamp":1}"#,
            &[("bad_time", "client_time"), ("bad_country", "country"), (LOOKS_LIKE, "client_time")],
        );
    }
}
