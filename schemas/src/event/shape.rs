//! Checks of JSON values that are stored as they were sent: their depth and their numbers.

use super::fault::{Code, Fault};

/// Maximum number of nested objects and arrays, including the event's own object.
pub const MAX_DEPTH: usize = 16;

/// Checks the depth and the numbers of the value of one field.
pub(super) fn check_shape(json: &str) -> Result<(), Fault> {
    let Shape { depth, fits_double } = Shape::of(json);
    if 1 + depth > MAX_DEPTH {
        return Err(Fault::line(Code::TooDeep));
    }
    if fits_double { Ok(()) } else { Err(Fault::line(Code::BadJson)) }
}

/// The properties of a JSON value that are checked.
struct Shape {
    /// How deep the value is nested; 0 for a number, a string, `true`, `false`, `null`.
    depth: usize,
    /// Whether each number of the value fits into a double: JSON readers disagree about larger numbers.
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
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'"' => at += string_length(&bytes[at..]),
                b'-' | b'0'..=b'9' => {
                    let length = 1 + bytes[at..].iter().take_while(|byte| is_in_number(**byte)).count();
                    shape.fits_double &= fits_double(&json[at - 1..][..length]);
                    at += length - 1;
                }
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

/// The length of a string in bytes, with its closing quote. `bytes` begins just after the opening quote, which does not
/// count.
fn string_length(bytes: &[u8]) -> usize {
    let mut is_escaped = false;
    let is_end = |byte: &u8| {
        let is_end = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    };
    bytes.iter().position(is_end).map_or(bytes.len(), |at| at + 1)
}

fn is_in_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Whether a JSON number fits into a double.
fn fits_double(number: &str) -> bool {
    // A number without an exponent fits if it has fewer digits than the largest double, which has 309.
    let is_small = number.len() <= 300 && !number.contains(['e', 'E']);
    is_small || number.parse().is_ok_and(f64::is_finite)
}
