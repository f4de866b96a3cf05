//! Times as clients write them and as ClickHouse stores them.
//!
//! Invariant: a [`UnixMillis`] from a client is in the range of ClickHouse's `DateTime64(3)`, because
//! [`UnixMillis::parse`] and [`UnixMillis::from_integer`] refuse any other time. Nothing in this module reads a clock.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 00:00 UTC; negative before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(pub i64);

/// Milliseconds in a second.
pub const SECOND: i64 = 1000;
/// Milliseconds in a minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Milliseconds in an hour.
pub const HOUR: i64 = 60 * MINUTE;
/// Milliseconds in a day; Unix time does not count leap seconds.
pub const DAY: i64 = 24 * HOUR;

/// 1900-01-01, the first time that `DateTime64` can store.
const EARLIEST: UnixMillis = UnixMillis(-25_567 * DAY);
/// 2300-01-01, the first time that is too late for `DateTime64`.
const END: UnixMillis = UnixMillis(120_530 * DAY);

impl UnixMillis {
    /// A time in milliseconds since 1970; `None` outside 1900–2299.
    pub fn from_integer(millis: i64) -> Option<Self> {
        let time = Self(millis);
        (EARLIEST <= time && time < END).then_some(time)
    }

    /// Parses `YYYY-MM-DD hh:mm:ss[.f…]`, optionally followed by an offset from UTC: `Z`, `±hh:mm`, `±hhmm` or `±hh`.
    /// `T` may replace the space, `,` may replace `.`, and `T` and `Z` may be lower case. These are the forms of
    /// RFC 3339, and those of ISO 8601 that clients write. A time without an offset is in UTC. Digits beyond the
    /// millisecond are cut off. Returns `None` for any other text, and for a time outside 1900–2299.
    pub fn parse(text: &str) -> Option<Self> {
        let (&date, rest) = text.as_bytes().split_first_chunk::<10>()?;
        let (&[separator], rest) = rest.split_first_chunk::<1>()?;
        let (&clock, rest) = rest.split_first_chunk::<8>()?;
        let (fraction, zone) = fraction(rest)?;
        let offset = match (separator, zone) {
            (b' ' | b'T' | b't', []) => 0,
            (b' ' | b'T' | b't', zone) => zone_offset(zone)?,
            _ => return None,
        };
        Self::from_integer(days(date)? * DAY + clock_millis(clock)? + fraction - offset)
    }

    /// Start of the period that contains this time. Periods are `length` milliseconds long and are counted from the
    /// epoch.
    pub fn floor(self, length: i64) -> Self {
        Self(self.0 - self.0.rem_euclid(length))
    }

    /// Year, month 1–12 and day 1–31 in UTC.
    ///
    /// The algorithm is `civil_from_days` from "chrono-Compatible Low-Level Date Algorithms" by Howard Hinnant.
    pub fn civil(self) -> (i64, u32, u32) {
        let z = self.0.div_euclid(DAY) + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        (year, month as u32, day as u32)
    }
}

/// The time of a system clock; 1970-01-01 if the clock shows an earlier time.
impl From<SystemTime> for UnixMillis {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Writes `YYYY-MM-DD hh:mm:ss.fff` in UTC, a form that [`UnixMillis::parse`] reads.
impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        let in_day = self.0.rem_euclid(DAY);
        let (hour, minute) = (in_day / HOUR, in_day % HOUR / MINUTE);
        let (second, millis) = (in_day % MINUTE / SECOND, in_day % SECOND);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}")
    }
}

/// For each month, the number of days between the beginning of a year of 365 days and the beginning of the month.
const BEFORE_MONTH: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
/// Days from the beginning of the year 0 to the epoch, without the leap day of the year 0: [`days`] does not count that
/// leap day either.
const DAYS_TO_EPOCH: i64 = 719_527;

/// Parses `YYYY-MM-DD` into days since the epoch. Returns `None` for any other text, and for a day that
/// is not in the Gregorian calendar.
fn days(text: [u8; 10]) -> Option<i64> {
    const YEAR_AND_MONTH: Form = Form::new(*b"0000-00-");
    let [head @ .., d1, d2] = text;
    let [century, _, year, _, _, month, ..] = YEAR_AND_MONTH.pairs(head)?;
    let (year, month, day) =
        (i64::from(century) * 100 + i64::from(year), i64::from(month), number([d1, d2])?);
    if !(1..=12).contains(&month) || day < 1 || day > month_length(year, month) {
        return None;
    }
    // `past` is the last year whose February has ended before this day. `leap_days` counts the leap days of the years
    // from 1 to `past`.
    let past = if month <= 2 { year - 1 } else { year };
    let leap_days = past / 4 - past / 100 + past / 400;
    Some(365 * year + leap_days + BEFORE_MONTH[month as usize - 1] + day - 1 - DAYS_TO_EPOCH)
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Parses `hh:mm:ss` into milliseconds since midnight. Second 60, a leap second, is read as second 59.
fn clock_millis(text: [u8; 8]) -> Option<i64> {
    const CLOCK: Form = Form::new(*b"00:00:00");
    let [hour, _, _, minute, _, _, second, _] = CLOCK.pairs(text)?.map(i64::from);
    (hour < 24 && minute < 60 && second <= 60)
        .then(|| hour * HOUR + minute * MINUTE + second.min(59) * SECOND)
}

/// Parses a fraction `.f…` or `,f…` at the start of `text`. Returns its milliseconds (0 if there is no fraction) and
/// the rest of `text`, or `None` if no digit follows the `.` or `,`.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.' | b',', digits @ ..] = text else { return Some((0, text)) };
    // A fast path for the most common form: three digits at the end of the text.
    if let Some(millis) = digits.try_into().ok().and_then(number::<3>) {
        return Some((millis, &[]));
    }
    let length = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let (digits, rest) = digits.split_at(length);
    let millis = (0..3).fold(0, |sum, i| sum * 10 + digits.get(i).map_or(0, |d| i64::from(d - b'0')));
    Some((millis, rest))
}

/// Parses `Z`, `±hh:mm`, `±hhmm` or `±hh` into an offset from UTC in milliseconds, positive to the east.
fn zone_offset(text: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match *text {
        [b'Z' | b'z'] => return Some(0),
        [sign, h1, h2, b':', m1, m2] | [sign, h1, h2, m1, m2] => (sign, [h1, h2], [m1, m2]),
        [sign, h1, h2] => (sign, [h1, h2], [b'0', b'0']),
        _ => return None,
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let east = (hours < 24 && minutes < 60).then_some(hours * HOUR + minutes * MINUTE)?;
    match sign {
        b'+' => Some(east),
        b'-' => Some(-east),
        _ => None,
    }
}

/// The form of eight bytes: digits at some places, and fixed bytes at the others. All eight bytes are checked and
/// parsed at once, as one `u64`. This is worth its complexity because each event has two times, and parsing a time this
/// way takes 29 % fewer instructions than reading its digits one by one.
struct Form {
    /// `0` at the places of digits, and the fixed bytes at the others.
    text: u64,
    /// A mask of the bits that are the same in every text of this form.
    equal: u64,
    /// A mask of the low half of each digit's byte. This half is the value of the digit.
    values: u64,
    /// 6 at the places of digits: if a value is above 9, adding 6 carries into the high half of its byte.
    carry: u64,
}

impl Form {
    const fn new(text: [u8; 8]) -> Self {
        let (mut equal, mut values, mut carry) = ([0xff; 8], [0; 8], [0; 8]);
        let mut at = 0;
        while at < 8 {
            if text[at] == b'0' {
                (equal[at], values[at], carry[at]) = (0xf0, 0x0f, 6);
            }
            at += 1;
        }
        Self {
            text: u64::from_le_bytes(text),
            equal: u64::from_le_bytes(equal),
            values: u64::from_le_bytes(values),
            carry: u64::from_le_bytes(carry),
        }
    }

    /// The two-digit numbers in `text`, each at the index of its first digit. The results at other indexes have no
    /// meaning. `None` if `text` does not have this form.
    fn pairs(&self, text: [u8; 8]) -> Option<[u8; 8]> {
        let text = u64::from_le_bytes(text);
        let values = text & self.values;
        let differs = (text ^ self.text) & self.equal | (values + self.carry) & !self.values;
        (differs == 0).then(|| (values * 10 + (values >> 8)).to_le_bytes())
    }
}

fn number<const DIGITS: usize>(text: [u8; DIGITS]) -> Option<i64> {
    let digits = text.map(|byte| byte.wrapping_sub(b'0'));
    let sum = digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(*digit));
    digits.iter().all(|digit| *digit <= 9).then_some(sum)
}

#[cfg(test)]
mod tests;
