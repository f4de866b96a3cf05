//! Country codes.

use std::fmt;

/// A country code of two or three ASCII letters in upper case; empty if the country is not known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Country([u8; 3]);

impl Country {
    /// Reads a code in upper or lower case; `None` unless it is two or three ASCII letters.
    #[inline]
    pub fn parse(text: &str) -> Option<Self> {
        let (code, third) = match *text.as_bytes() {
            [first, second] => ([first, second, 0], None),
            [first, second, third] => ([first, second, third], Some(third)),
            _ => return None,
        };
        let are_letters = code[..2].iter().chain(&third).all(u8::is_ascii_alphabetic);
        are_letters.then(|| Self(code.map(|byte| byte.to_ascii_uppercase())))
    }

    /// The code; empty if the country is not known.
    pub fn as_str(&self) -> &str {
        let length = self.0.iter().take_while(|b| **b != 0).count();
        str::from_utf8(&self.0[..length]).expect("a code consists of ASCII letters")
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}
