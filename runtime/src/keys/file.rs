//! The key file, which is reloaded when it changes.
//!
//! Invariant: a file that is not valid never replaces the keys in use.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use tokio_util::sync::CancellationToken;

use super::set::{DeclaredKey, KeySet};
use crate::follow::follow;
use crate::vars::{VarError, Vars};

/// A key file as it was when the configuration was read.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
    text: String,
}

impl KeyFile {
    /// Reads and checks the file that the variable `name` names; `None` if the variable is not set.
    pub fn from_vars<D: DeclaredKey>(vars: &Vars, name: &'static str) -> Result<Option<Self>, VarError> {
        vars.file(name, |path, text| {
            let file = Self { path: path.into(), text: text.to_owned() };
            KeySet::parse::<D>(text, &KeySet::default()).map(|_| file)
        })
    }
}

/// The keys in use. `D` is the form in which the file declares a key.
pub struct FollowedKeys<D: DeclaredKey> {
    current: ArcSwap<KeySet<D::Key>>,
    file: Option<KeyFile>,
    stale: IntGauge,
}

impl<D: DeclaredKey> FollowedKeys<D> {
    /// Starts with the keys that the file had when the configuration was read; without a file there is no key. `stale`
    /// is 1 while the file cannot be read or is not valid.
    pub fn new(file: Option<&KeyFile>, stale: IntGauge) -> Self {
        let text = file.map_or("", |file| &file.text);
        let set =
            KeySet::parse::<D>(text, &KeySet::default()).expect("the configuration has checked the file");
        Self { current: ArcSwap::from_pointee(set), file: file.cloned(), stale }
    }

    /// Finds the key of a token that a client presents, among the keys in use.
    pub fn find(&self, token: &[u8]) -> Option<Arc<D::Key>> {
        self.current.load().find(token).cloned()
    }

    /// Reads the file periodically and applies its changes, until `stop` is cancelled.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let Some(KeyFile { path, text }) = self.file.clone() else { return };
        let read = move || fs::read_to_string(&path).map_err(|error| error.to_string());
        follow(Ok(text), read, move |now| self.apply(now), stop).await;
    }

    /// Replaces the keys in use with the keys of the file. `read` is the text of the file, or why it could not be read.
    /// If the file could not be read or is not valid, keeps the keys in use, logs the error, and sets `stale` to 1.
    fn apply(&self, read: &Result<String, String>) {
        let parse =
            |text: &String| KeySet::parse::<D>(text, &self.current.load()).map_err(|error| error.to_string());
        match read.as_ref().map_err(String::clone).and_then(parse) {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "reloaded the key file");
                self.current.store(Arc::new(keys));
                self.stale.set(0);
            }
            Err(error) => {
                tracing::error!(error, "cannot use the key file; the previous keys stay in use");
                self.stale.set(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::set::tests::PlainKey;
    use super::super::token::generate;
    use super::*;

    #[test]
    fn a_bad_file_keeps_the_previous_keys_and_sets_the_metric() {
        let ((a, toml_a), (b, toml_b)) = (generate("a", "one"), generate("b", "two"));
        let file = KeyFile { path: "unread".into(), text: toml_a.clone() };
        let keys = FollowedKeys::<PlainKey>::new(Some(&file), IntGauge::new("stale", "Stale.").unwrap());
        let known = |token: &str| keys.find(token.as_bytes()).is_some();
        for bad in [Ok("[[key]]".to_owned()), Err("no such file".to_owned())] {
            keys.apply(&bad);
            assert_eq!((known(&a), known(&b), keys.stale.get()), (true, false, 1));
        }
        keys.apply(&Ok(toml_a + &toml_b));
        assert_eq!((known(&a), known(&b), keys.stale.get()), (true, true, 0));
        keys.apply(&Ok(toml_b));
        assert_eq!((known(&a), known(&b), keys.stale.get()), (false, true, 0));
    }

    #[test]
    fn a_file_that_is_not_valid_is_refused_with_its_variable_and_path() {
        let vars = Vars::from_pairs([("KEYS", "/nowhere/keys.toml")]);
        let error = KeyFile::from_vars::<PlainKey>(&vars, "KEYS").unwrap_err().to_string();
        assert!(error.starts_with("variable KEYS=`/nowhere/keys.toml` is not usable"), "{error}");
    }
}
