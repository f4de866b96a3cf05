//! The file of keys, taken anew when it changes.

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

use super::keys::{self, Auth, Caller, KeySet};
use crate::outcome::Refusal;

/// Who may send.
#[derive(Debug, Clone, Default)]
pub struct KeysConfig {
    /// Whether requests need a key: `AUTH`, `none`, `optional` or `required`, default `none`.
    pub auth: Auth,
    /// The file that declares the keys: `KEYS_FILE`, needed unless `AUTH` is `none`.
    file: Option<Source>,
}

#[derive(Debug, Clone)]
struct Source {
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
            let source = Source { path: path.into(), text: text.to_owned() };
            KeySet::parse(text, &KeySet::default()).map(|_| source)
        };
        let file = vars.file("KEYS_FILE", read)?;
        let text = vars.string_or("AUTH", "none");
        let auth = match text.as_str() {
            "none" => Auth::None,
            "optional" => Auth::Optional,
            "required" => Auth::Required,
            _ => return Err(invalid(&text, "it is `none`, `optional` or `required`")),
        };
        match (auth, &file) {
            (Auth::None, Some(_)) => Err(invalid(&text, "KEYS_FILE is set; say `optional` or `required`")),
            (Auth::Optional | Auth::Required, None) => Err(invalid(&text, "it needs KEYS_FILE")),
            _ => Ok(Self { auth, file }),
        }
    }
}

/// The keys of now.
pub struct Keys {
    auth: Auth,
    current: ArcSwap<KeySet>,
    file: Option<Source>,
    stale: IntGauge,
}

impl Keys {
    /// The keys that the file had when its configuration was read. `stale` is 1 while the file is bad.
    pub fn new(config: &KeysConfig, stale: IntGauge) -> Self {
        let text = config.file.as_ref().map_or("", |source| &source.text);
        let set = KeySet::parse(text, &KeySet::default()).expect("it was checked with the configuration");
        Self { auth: config.auth, current: ArcSwap::from_pointee(set), file: config.file.clone(), stale }
    }

    /// Who sends a request, by the keys of now, or why they may not.
    pub fn admit(&self, head: &Parts, ip: IpAddr) -> Result<Caller, Refusal> {
        keys::admit(self.auth, &self.current, head, ip)
    }

    /// Looks at the file again and again, until `ended`.
    pub async fn follow(self: Arc<Self>, ended: CancellationToken) {
        let Some(Source { path, text }) = self.file.clone() else { return };
        let read = move || fs::read_to_string(&path).map_err(|error| error.to_string());
        follow(Ok(text), read, move |now| self.take(now), ended).await;
    }

    /// Takes what the file is now; where it is bad, only the metric changes.
    fn take(&self, read: &Result<String, String>) {
        let parse =
            |text: &String| KeySet::parse(text, &self.current.load()).map_err(|error| error.to_string());
        match read.as_ref().map_err(String::clone).and_then(parse) {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "took the file of keys");
                self.current.store(Arc::new(keys));
                self.stale.set(0);
            }
            Err(error) => {
                tracing::error!(error, "the file of keys is bad; the keys read before stay");
                self.stale.set(1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
