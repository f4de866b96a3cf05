//! The configuration of the page.

use std::fmt;
use std::str::FromStr;

use runtime::vars::{VarError, Vars};

/// The page under `/`.
#[derive(Debug, Clone)]
pub struct PageConfig {
    /// Which sites may show the page in a frame, written as `frame-ancestors` of a content security policy:
    /// `PAGE_FRAME_ANCESTORS`, default `'none'`. For example `https://intranet.example.com`.
    pub frame_ancestors: FrameAncestors,
}

/// The source list of `frame-ancestors`, without characters that would end the directive or the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameAncestors(String);

impl PageConfig {
    /// Reads and checks `PAGE_FRAME_ANCESTORS`.
    pub(crate) fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let nobody = FrameAncestors("'none'".to_owned());
        Ok(Self { frame_ancestors: vars.parsed_or("PAGE_FRAME_ANCESTORS", nobody)? })
    }
}

impl FromStr for FrameAncestors {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_word = |byte: u8| byte.is_ascii_graphic() && !b";,".contains(&byte);
        let are_words = text.split(' ').all(|word| !word.is_empty() && word.bytes().all(is_word));
        if are_words {
            Ok(Self(text.to_owned()))
        } else {
            Err(
                "write origins separated by single spaces, for example `https://intranet.example.com`, or `'none'`",
            )
        }
    }
}

impl fmt::Display for FrameAncestors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_origins_cannot_add_a_directive_to_the_policy() {
        for text in ["'none'", "'self' https://intranet.example.com", "*"] {
            assert_eq!(text.parse().map(|FrameAncestors(words)| words), Ok(text.to_owned()));
        }
        for text in ["", " ", "*; script-src *", "a,b", "a\nb", "ä"] {
            assert!(text.parse::<FrameAncestors>().is_err(), "{text:?}");
        }
    }
}
