//! The file that declares the keys; it is read again when it changes.
//!
//! Invariant: a file that is not valid never replaces the keys in use.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ::http::request::Parts;
use arc_swap::ArcSwap;
use prometheus::IntGauge;
use runtime::follow::follow;
use runtime::vars::{VarError, Vars};
use tokio_util::sync::CancellationToken;

use super::keys::{self, AuthMode, Caller, KeySet};
use crate::outcome::Refusal;

/// The keys, and whether a request needs one.
#[derive(Debug, Clone, Default)]
pub struct KeysConfig {
    /// Whether requests need a write key: `AUTH`, `none`, `optional` or `required`, default `none`. With `optional`, events
    /// without a key belong to the tenant `default`.
    pub mode: AuthMode,
    /// Path of the TOML file with the write keys: `KEYS_FILE`, default none. Needed unless `AUTH` is `none`; the edge reads
    /// it again within seconds of a change. `ingest key new` makes an entry.
    file: Option<KeyFile>,
}

#[derive(Debug, Clone)]
struct KeyFile {
    path: PathBuf,
    text: String,
}

impl KeysConfig {
    /// Reads and checks the variables above, and the file.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let invalid = |value: &str, reason: &str| {
            let (value, reason) = (value.to_owned(), reason.to_owned());
            VarError::Invalid { name: "AUTH", value, reason }
        };
        let read = |path: &str, text: &str| {
            let file = KeyFile { path: path.into(), text: text.to_owned() };
            KeySet::parse(text, &KeySet::default()).map(|_| file)
        };
        let file = vars.file("KEYS_FILE", read)?;
        let text = vars.string_or("AUTH", "none");
        let mode = match text.as_str() {
            "none" => AuthMode::None,
            "optional" => AuthMode::Optional,
            "required" => AuthMode::Required,
            _ => return Err(invalid(&text, "it must be `none`, `optional` or `required`")),
        };
        match (mode, &file) {
            (AuthMode::None, Some(_)) => {
                Err(invalid(&text, "KEYS_FILE is set; use `optional` or `required`"))
            }
            (AuthMode::Optional | AuthMode::Required, None) => Err(invalid(&text, "it needs KEYS_FILE")),
            _ => Ok(Self { mode, file }),
        }
    }
}

/// The keys that are valid now.
pub struct Keys {
    mode: AuthMode,
    current: ArcSwap<KeySet>,
    file: Option<KeyFile>,
    stale: IntGauge,
}

impl Keys {
    /// Starts with the keys that the file had when the configuration was read. `stale` is 1 while the file is not valid.
    pub fn new(config: &KeysConfig, stale: IntGauge) -> Self {
        let text = config.file.as_ref().map_or("", |file| &file.text);
        let set = KeySet::parse(text, &KeySet::default()).expect("the configuration has checked the file");
        Self { mode: config.mode, current: ArcSwap::from_pointee(set), file: config.file.clone(), stale }
    }

    /// Returns the sender of a request, by the keys that are valid now.
    pub fn authenticate(&self, head: &Parts, ip: IpAddr) -> Result<Caller, Refusal> {
        keys::authenticate(self.mode, &self.current, head, ip)
    }

    /// Watches the file and applies its changes, until `stop`.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let Some(KeyFile { path, text }) = self.file.clone() else { return };
        let read = move || fs::read_to_string(&path).map_err(|error| error.to_string());
        follow(Ok(text), read, move |now| self.apply(now), stop).await;
    }

    /// Replaces the keys by those of the file; if the file is not valid, only the metric changes.
    fn apply(&self, read: &Result<String, String>) {
        let parse =
            |text: &String| KeySet::parse(text, &self.current.load()).map_err(|error| error.to_string());
        match read.as_ref().map_err(String::clone).and_then(parse) {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "read the file of keys");
                self.current.store(Arc::new(keys));
                self.stale.set(0);
            }
            Err(error) => {
                tracing::error!(error, "the file of keys is not valid; the keys read before stay in use");
                self.stale.set(1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
