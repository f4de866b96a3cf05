//! All keys of a file.
//!
//! Invariants: a key is found only by its token, and the whole hash of the token is compared in constant time; no two
//! keys have the same id or the same hash. No I/O: [`super::file`] reads the file.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;

use super::token::TokenHash;

/// Maximum number of keys in one file.
const MAX_KEYS: usize = 100_000;

/// A key as a file declares it: what a service reads from each `[[key]]`.
pub trait DeclaredKey: DeserializeOwned + 'static {
    /// What the service uses after the declaration has been checked.
    type Key: Send + Sync + 'static;

    /// The id, by which errors and logs name the key.
    fn id(&self) -> &str;

    /// The SHA-256 of the token, as hexadecimal digits.
    fn sha256(&self) -> &str;

    /// Makes the key that the service uses. `before` is the key in use that has the same id, if there is one. The new
    /// key keeps the limiter of each rate that has not changed, so that a reload does not reset what was charged.
    ///
    /// # Errors
    /// What is wrong with the declaration, as a phrase about the key: `its tenant must be …`.
    fn resolve(self, before: Option<&Self::Key>) -> Result<Self::Key, String>;
}

/// All keys of a file, by the first bytes of the hash of their token (`TokenHash::prefix`).
#[derive(Debug)]
pub struct KeySet<K>(HashMap<[u8; 8], Entry<K>>);

#[derive(Debug)]
struct Entry<K> {
    id: String,
    hash: TokenHash,
    key: Arc<K>,
}

/// Why a key file is not valid. The message may quote names and values from the file, but no `sha256`: someone may have
/// written a token there by mistake.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// The file is not TOML of the expected form.
    #[error("line {line}: {message}")]
    Toml {
        /// The line of the error, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A key is not valid.
    #[error("line {line}: key `{id}`: {reason}")]
    Key {
        /// The line at which the key begins, from 1.
        line: usize,
        /// The id of the key.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// The file declares more keys than are allowed.
    #[error("there are {0} keys, and at most {MAX_KEYS} are allowed")]
    TooMany(usize),
}

impl<K> Default for KeySet<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K> KeySet<K> {
    /// Parses the text of a file that declares keys in the form `D`. `before` contains the keys that are in use now;
    /// [`DeclaredKey::resolve`] gets the key with the same id.
    pub fn parse<D: DeclaredKey<Key = K>>(text: &str, before: &Self) -> Result<Self, KeyFileError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File<D> {
            #[serde(default = "Vec::new")]
            key: Vec<Spanned<D>>,
        }
        let line = |at: usize| 1 + text[..at].matches('\n').count();
        let bad = |error: toml::de::Error| KeyFileError::Toml {
            line: line(error.span().map_or(0, |span| span.start)),
            message: match error.message() {
                // The message of the TOML parser quotes the wrong value, which could be a token.
                text if text.starts_with("invalid type") || text.starts_with("invalid value") => {
                    "a value has the wrong type or is out of range".to_owned()
                }
                text => text.to_owned(),
            },
        };
        let declared = toml::from_str::<File<D>>(text).map_err(bad)?.key;
        if declared.len() > MAX_KEYS {
            return Err(KeyFileError::TooMany(declared.len()));
        }
        let before: HashMap<_, _> = before.0.values().map(|entry| (entry.id.as_str(), &*entry.key)).collect();
        let (mut keys, mut ids) = (HashMap::new(), HashSet::new());
        for declared in declared {
            let (line, declared) = (line(declared.span().start), declared.into_inner());
            let id = declared.id().to_owned();
            let wrong = |reason: &str| KeyFileError::Key { line, id: id.clone(), reason: reason.to_owned() };
            let hash = TokenHash::from_hex(declared.sha256());
            let hash = hash.ok_or_else(|| wrong("its sha256 must be 64 hexadecimal digits"))?;
            let key = declared.resolve(before.get(id.as_str()).copied()).map_err(|reason| wrong(&reason))?;
            let entry = Entry { id: id.clone(), hash, key: Arc::new(key) };
            if keys.insert(hash.prefix(), entry).is_some() || !ids.insert(id.clone()) {
                return Err(wrong("its id or its sha256 occurs twice"));
            }
        }
        Ok(Self(keys))
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of a token that a client presents.
    pub fn find(&self, token: &[u8]) -> Option<&Arc<K>> {
        let hash = TokenHash::of(token);
        // The lookup by the first bytes is not in constant time. Its timing could at most reveal the first bytes of a
        // stored hash. These bytes do not help an attacker to find the token, because the token is random.
        self.0.get(&hash.prefix()).filter(|entry| entry.hash.equals(&hash)).map(|entry| &entry.key)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::token::generate;
    use super::*;

    /// A key without permissions, for tests that only look keys up.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(in super::super) struct PlainKey {
        id: String,
        tenant: String,
        sha256: String,
    }

    impl DeclaredKey for PlainKey {
        type Key = String;

        fn id(&self) -> &str {
            &self.id
        }

        fn sha256(&self) -> &str {
            &self.sha256
        }

        fn resolve(self, before: Option<&String>) -> Result<String, String> {
            match (self.tenant.as_str(), before) {
                ("bad", _) => Err("its tenant is bad".to_owned()),
                ("same", Some(before)) => Ok(before.clone()),
                (tenant, _) => Ok(tenant.to_owned()),
            }
        }
    }

    fn parse(text: &str) -> Result<KeySet<String>, KeyFileError> {
        KeySet::parse::<PlainKey>(text, &KeySet::default())
    }

    #[test]
    fn an_error_about_a_wrong_type_quotes_no_value_of_the_file() {
        let (token, toml) = generate("a", "one");
        for value in [format!("[{token:?}]"), format!("{{{token} = 1}}")] {
            let error = parse(&toml.replace("\"one\"", &value)).unwrap_err().to_string();
            assert!(error.contains("line 3") && error.contains("wrong type"), "{error}");
            assert!(!error.contains(&token), "{error}");
        }
        let error = parse(&format!("key = {token:?}")).unwrap_err().to_string();
        assert!(!error.contains(&token), "{error}");
    }

    #[test]
    fn a_key_is_found_by_its_token_alone() {
        let ((a, toml_a), (b, toml_b)) = (generate("a", "one"), generate("b", "two"));
        let keys = parse(&(toml_a.clone() + &toml_b)).unwrap();
        assert_eq!(keys.find(a.as_bytes()).map(|key| key.as_str()), Some("one"));
        assert_eq!(keys.find(b.as_bytes()).map(|key| key.as_str()), Some("two"));
        let hash = toml_a.lines().find_map(|line| line.strip_prefix("sha256 = ")).unwrap().trim_matches('"');
        for wrong in ["", hash, &a[1..]] {
            assert!(keys.find(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn an_error_in_a_file_names_the_line_and_the_key_and_quotes_no_token() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        let (a, b) = (generate("a", "one").1, generate("b", "bad").1);
        assert!(error("[[key]]\nid = 1").starts_with("line 2: "), "{}", error("[[key]]\nid = 1"));
        assert!(error(&format!("{a}colour = 1")).starts_with("line 5: unknown field `colour`"));
        assert_eq!(error(&format!("{a}\n{b}")), "line 6: key `b`: its tenant is bad");
        assert_eq!(error(&format!("{a}{a}")), "line 5: key `a`: its id or its sha256 occurs twice");
        let secret = "[[key]]\nid = \"a\"\ntenant = \"one\"\nsha256 = \"mr_secret\"";
        assert_eq!(error(secret), "line 1: key `a`: its sha256 must be 64 hexadecimal digits");
        assert!(!error("[[key]]\nmr_secret").contains("mr_secret"));
    }

    #[test]
    fn a_reloaded_key_is_given_the_previous_key_of_the_same_id() {
        let before = parse(&generate("a", "one").1).unwrap();
        let (token, toml) = generate("a", "same");
        let after = KeySet::parse::<PlainKey>(&toml, &before).unwrap();
        assert_eq!(after.find(token.as_bytes()).map(|key| key.as_str()), Some("one"));
    }

    #[test]
    fn the_number_of_keys_is_limited() {
        let key = |n: usize| format!("[[key]]\nid=\"{n}\"\ntenant=\"a\"\nsha256=\"{n:064x}\"\n");
        let text: String = (0..=MAX_KEYS).map(key).collect();
        assert_eq!(parse(&text).unwrap_err(), KeyFileError::TooMany(MAX_KEYS + 1));
    }
}
