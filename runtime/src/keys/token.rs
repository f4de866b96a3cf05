//! Tokens: reads the token of a request, compares its hash, and generates new tokens.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

/// The SHA-256 of a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token that a client presents.
    pub(super) fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Reads 64 hexadecimal digits.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(Self(hash))
    }

    /// The first bytes of the hash, under which `KeySet` stores a key.
    pub(super) fn prefix(&self) -> [u8; 8] {
        *self.0.first_chunk().expect("a hash has at least 8 bytes")
    }

    /// Compares in constant time.
    pub(super) fn equals(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// The token in `Authorization: Bearer …`.
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().as_bytes())
}

/// Makes a new token and the TOML that declares a key for it. The TOML contains only the hash of the token.
pub fn generate(id: &str, tenant: &str) -> (String, String) {
    // Each of the two UUIDs has 122 random bits from the operating system.
    let token = format!("mr_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let hash = Sha256::digest(&token).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let toml =
        format!("[[key]]\nid = {}\ntenant = \"{tenant}\"\nsha256 = \"{hash}\"\n", toml::Value::from(id));
    (token, toml)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_hash_is_read_from_its_digits() {
        let digits = "BA7816BF8F01CFEA414140DE5DAE2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-2, B.1
        let hash = TokenHash::from_hex(digits).unwrap();
        assert!(hash.equals(&TokenHash::of(b"abc")) && !hash.equals(&TokenHash::of(b"abd")));
        for bad in ["", "00", &digits.replace('B', "x"), &digits.replace("BA", "ä")] {
            assert!(TokenHash::from_hex(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_token_follows_bearer_in_any_case() {
        let token = |value: &'static str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            bearer(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(token("bearer  a b "), Some(b"a b".to_vec()));
        assert_eq!((token("Basic a"), token("Bearer")), (None, None));
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn each_token_is_new_and_its_declaration_does_not_contain_it() {
        let (token, toml) = generate("a \"b\"", "acme");
        assert!(!toml.contains(&token));
        assert_ne!(generate("a", "acme").0, token);
    }
}
