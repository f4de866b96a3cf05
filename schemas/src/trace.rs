//! W3C trace context (<https://www.w3.org/TR/trace-context/>): which trace a request belongs to.

/// Length in bytes of a `traceparent` of version 00.
const LENGTH: usize = 55;

/// A `traceparent` of version 00: `00-<trace>-<parent>-<flags>`, in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent([u8; LENGTH]);

impl TraceParent {
    /// Reads the value of a header; `None` if it is not a `traceparent`. If the version is later than 00, only the
    /// fields of version 00 are kept, as the standard requires.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (start, more) = value.split_first_chunk::<LENGTH>()?;
        let well_formed = (0..).zip(start).all(|(at, byte)| match at {
            2 | 35 | 52 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
        let known = match &start[..2] {
            b"00" => more.is_empty(),
            b"ff" => false,
            _ => more.first().is_none_or(|byte| *byte == b'-'),
        };
        let is_zero = |digits: &[u8]| digits.iter().all(|digit| *digit == b'0');
        if !well_formed || !known || is_zero(&start[3..35]) || is_zero(&start[36..52]) {
            return None;
        }
        let mut own = Self(*start);
        if !start.starts_with(b"00") {
            own.0[..2].copy_from_slice(b"00");
            // Version 00 defines only the flag `sampled`, so the other flags of a later version are cleared.
            let flags = if own.is_sampled() { b"01" } else { b"00" };
            own.0[LENGTH - 2..].copy_from_slice(flags);
        }
        Some(own)
    }

    /// Whether the caller may have recorded the trace (flag `sampled`).
    pub fn is_sampled(&self) -> bool {
        let digit = char::from(self.0[LENGTH - 1]).to_digit(16).unwrap_or_default();
        digit % 2 == 1
    }

    /// The trace id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.as_str()[3..35]
    }

    /// The `traceparent` as text, in the form of version 00.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hexadecimal digits and dashes are valid UTF-8")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[track_caller]
    fn check(value: &str, expected: Option<&str>) {
        assert_eq!(TraceParent::parse(value.as_bytes()).as_ref().map(TraceParent::as_str), expected);
    }

    #[test]
    fn a_traceparent_is_read_unchanged() {
        check(GOOD, Some(GOOD));
        let read = TraceParent::parse(GOOD.as_bytes()).unwrap();
        assert_eq!((read.trace_id(), read.is_sampled()), ("0af7651916cd43dd8448eb211c80319c", true));
        for (flags, sampled) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
            let value = format!("{}{flags}", &GOOD[..53]);
            assert_eq!(TraceParent::parse(value.as_bytes()).unwrap().is_sampled(), sampled, "{flags}");
        }
    }

    #[test]
    fn only_the_fields_of_version_00_are_kept_from_a_later_version() {
        check(&format!("cc{}", &GOOD[2..]), Some(GOOD));
        check(&format!("cc{}-what the future will be like", &GOOD[2..]), Some(GOOD));
        check(&format!("cc{}fd", &GOOD[2..53]), Some(GOOD));
        check(&format!("cc{}.what", &GOOD[2..]), None);
        check(&format!("ff{}", &GOOD[2..]), None);
    }

    #[test]
    fn a_malformed_traceparent_is_none() {
        check("", None);
        check(&GOOD[..54], None);
        check(&format!("{GOOD}-more"), None);
        check(&GOOD.to_uppercase(), None);
        check(&GOOD.replace('-', "_"), None);
        check(&GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)), None);
        check(&GOOD.replace("b7ad6b7169203331", &"0".repeat(16)), None);
        check(&"é".repeat(30), None);
    }
}
