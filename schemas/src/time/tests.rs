use jiff::{Timestamp, civil, tz::TimeZone};
use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(text: &str, millis: impl Into<Option<i64>>) {
    assert_eq!(UnixMillis::parse(text).map(|t| t.0), millis.into(), "{text}");
}

#[test]
fn the_forms_of_a_time_that_clients_write_are_read() {
    check("2020-12-01 23:59:00", 1_606_867_140_000);
    check("2020-12-01 23:59:00.25", 1_606_867_140_250);
    check("2020-12-01T23:59:00Z", 1_606_867_140_000);
    check("2020-12-02t01:59:00.123456789+02:00", 1_606_867_140_123);
    check("2020-12-01T18:59:00-05:00", 1_606_867_140_000);
    check("2020-12-01T23:59:00.2Z", 1_606_867_140_200);
    check("2020-12-01T23:59:00.25Z", 1_606_867_140_250);
    check("2000-02-29 00:00:00.001", 951_782_400_001);
    check("2020-12-02T05:29:00+0530", 1_606_867_140_000);
    check("2020-12-02T05:29:00.5+0530", 1_606_867_140_500);
    check("2020-12-01T18:59:00-05", 1_606_867_140_000);
    check("2020-12-01T23:59:00", 1_606_867_140_000);
    check("2020-12-01T23:59:00,25Z", 1_606_867_140_250);
    check("2020-12-01 23:59:00,2", 1_606_867_140_200);
    assert_eq!(UnixMillis::from_integer(1_606_867_140_000), Some(UnixMillis(1_606_867_140_000)));
}

#[test]
fn a_text_that_is_not_a_time_is_refused() {
    for text in [
        "",
        "2020-12-01",
        "2020-13-01 00:00:00",
        "2020-02-30 00:00:00",
        "2021-02-29 00:00:00",
        "1900-02-29 00:00:00",
        "2020-00-01 00:00:00",
        "2020-12-01 23:59:00.2x5",
        "2020-12-01 24:00:00",
        "2020-12-01 23:59:00.",
        "2020-12-01 23:59:00 ",
        "2020-12-01 23:59:00+2:00",
        "2020-12-01T23:59:00+053",
        "2020-12-01T23:59:00 0530",
        "2020-12-01T23:59:00+2400",
        "2020-12-01T23:59:00,",
        "1899-12-31 23:59:59",
        "2300-01-01 00:00:00",
        "+020-12-01 00:00:00",
        "２０20-12-01 00:00:00",
    ] {
        check(text, None);
    }
}

#[test]
fn each_byte_of_a_time_must_be_a_digit_or_the_separator_of_its_place() {
    const TIME: &str = "2025-11-21 04:05:06.789";
    // The three digits of the fraction are not changed, because a byte other than a digit can be valid there: `Z` may
    // replace the last digit.
    for (at, original) in TIME.bytes().enumerate().take(20) {
        for byte in 0..128 {
            let mut changed = TIME.as_bytes().to_vec();
            changed[at] = byte;
            let is_of_its_kind = match original {
                b'0'..=b'9' => byte.is_ascii_digit(),
                b' ' => matches!(byte, b' ' | b'T' | b't'),
                b'.' => matches!(byte, b'.' | b','),
                _ => byte == original,
            };
            let text = String::from_utf8(changed).unwrap();
            if !is_of_its_kind {
                check(&text, None);
            } else if let Some(time) = UnixMillis::parse(&text) {
                let written = format!("{time}");
                assert_eq!(written.replace([' ', '.'], "?"), text.replace(['T', 't', ' ', '.', ','], "?"));
            }
        }
    }
}

#[test]
fn the_ends_of_the_range_are_those_of_datetime64() {
    check("1900-01-01 00:00:00", EARLIEST.0);
    check("2299-12-31 23:59:59.999", END.0 - 1);
    assert_eq!(UnixMillis::from_integer(END.0), None);
    assert_eq!(UnixMillis::from_integer(i64::MIN), None);
}

proptest! {
    #[test]
    fn written_times_are_read_back_and_agree_with_another_calendar(millis in EARLIEST.0..END.0) {
        let time = UnixMillis(millis);
        prop_assert_eq!(UnixMillis::parse(&time.to_string()), Some(time));
        let other = Timestamp::from_millisecond(millis).unwrap();
        prop_assert_eq!(UnixMillis::parse(&other.to_string()), Some(time));
        let date = civil::DateTime::from(other.to_zoned(TimeZone::UTC)).date();
        prop_assert_eq!(time.civil(), (i64::from(date.year()), date.month() as u32, date.day() as u32));
        let hour = time.floor(HOUR);
        prop_assert!(hour <= time && time.0 - hour.0 < HOUR && hour.0 % HOUR == 0);
    }

    #[test]
    fn no_text_panics(text in "[0-9TtZz:. +-]{0,32}|.{0,40}") {
        let _ = UnixMillis::parse(&text);
    }
}
