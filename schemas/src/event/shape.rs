//! Checks of JSON values that are stored as they were sent: their depth and their numbers.

use super::fault::{Code, Fault};

/// How deep objects and arrays may nest; the event's own object counts.
pub const MAX_DEPTH: usize = 16;

/// Checks a value in the event's object.
pub(super) fn check_shape(json: &str) -> Result<(), Fault> {
    let Shape { depth, fits_double } = Shape::of(json);
    if 1 + depth > MAX_DEPTH {
        return Err(Fault::line(Code::TooDeep));
    }
    if fits_double { Ok(()) } else { Err(Fault::line(Code::BadJson)) }
}

/// What is checked of a JSON value.
struct Shape {
    /// How deep it nests; 0 for a number, a string, `true`, `false`, `null`.
    depth: usize,
    /// Whether each number fits into a double: JSON readers disagree about larger numbers.
    fits_double: bool,
}

impl Shape {
    fn of(json: &str) -> Self {
        match json.as_bytes()[0] {
            b'{' | b'[' => Self::nested(json),
            b'-' | b'0'..=b'9' => Self { depth: 0, fits_double: fits_double(json) },
            _ => Self { depth: 0, fits_double: true },
        }
    }

    fn nested(json: &str) -> Self {
        let bytes = json.as_bytes();
        let (mut open, mut shape) = (0_usize, Self { depth: 0, fits_double: true });
        let (mut in_string, mut escaped) = (false, false);
        // Start of the number that the loop is in.
        let mut number = None;
        for (at, byte) in bytes.iter().enumerate() {
            if let (Some(start), false) = (number, is_in_number(*byte)) {
                shape.fits_double &= fits_double(&json[start..at]);
                number = None;
            }
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'-' | b'0'..=b'9' => _ = number.get_or_insert(at),
                b'{' | b'[' => {
                    open += 1;
                    shape.depth = shape.depth.max(open);
                }
                b'}' | b']' => open -= 1,
                _ => {}
            }
        }
        shape
    }
}

fn is_in_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Whether a JSON number fits into a double.
fn fits_double(number: &str) -> bool {
    // Without an exponent and with no more digits than the largest double has, it fits.
    let is_small = number.len() <= 300 && !number.contains(['e', 'E']);
    is_small || number.parse().is_ok_and(f64::is_finite)
}
