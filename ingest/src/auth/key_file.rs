//! The variables for keys, and the keys in use.

use std::net::IpAddr;
use std::sync::Arc;

use ::http::request::Parts;
use prometheus::IntGauge;
use runtime::keys::{FollowedKeys, KeyFile};
use runtime::vars::{VarError, Vars};
use tokio_util::sync::CancellationToken;

use super::keys::{self, AuthMode, Caller, DeclaredKey};
use crate::outcome::Refusal;

/// The keys, and whether a request needs one.
#[derive(Debug, Clone, Default)]
pub struct KeysConfig {
    /// Whether requests need a write key: `AUTH`, `none`, `optional` or `required`, default `none`. With `optional`,
    /// events without a key belong to the tenant `default`.
    pub mode: AuthMode,
    /// Path of the TOML file with the write keys: `KEYS_FILE`, default none. Needed unless `AUTH` is `none`; the edge
    /// reads it again within seconds of a change. `ingest key new` makes an entry.
    file: Option<KeyFile>,
}

impl KeysConfig {
    /// Reads and checks the variables above and the key file.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let invalid = |value: &str, reason: &str| {
            let (value, reason) = (value.to_owned(), reason.to_owned());
            VarError::Invalid { name: "AUTH", value, reason }
        };
        let file = KeyFile::from_vars::<DeclaredKey>(vars, "KEYS_FILE")?;
        let text = vars.string_or("AUTH", "none");
        let mode = match text.as_str() {
            "none" => AuthMode::None,
            "optional" => AuthMode::Optional,
            "required" => AuthMode::Required,
            _ => return Err(invalid(&text, "it must be `none`, `optional` or `required`")),
        };
        match (mode, &file) {
            (AuthMode::None, Some(_)) => {
                Err(invalid(&text, "KEYS_FILE is set, but `none` ignores keys; use `optional` or `required`"))
            }
            (AuthMode::Optional | AuthMode::Required, None) => Err(invalid(&text, "it needs KEYS_FILE")),
            _ => Ok(Self { mode, file }),
        }
    }
}

/// The keys in use, and whether a request needs one.
pub struct Keys {
    mode: AuthMode,
    followed: Arc<FollowedKeys<DeclaredKey>>,
}

impl Keys {
    /// Starts with the keys that the file had when the configuration was read. `stale` is 1 while the file cannot
    /// be read or is not valid.
    pub fn new(config: &KeysConfig, stale: IntGauge) -> Self {
        Self { mode: config.mode, followed: Arc::new(FollowedKeys::new(config.file.as_ref(), stale)) }
    }

    /// Authenticates the sender of a request with the keys in use.
    pub fn authenticate(&self, head: &Parts, ip: IpAddr) -> Result<Caller, Refusal> {
        keys::authenticate(self.mode, |token| self.followed.find(token), head, ip)
    }

    /// Watches the file and applies its changes, until `stop` is cancelled.
    pub fn follow(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        Arc::clone(&self.followed).follow(stop)
    }
}

#[cfg(test)]
mod tests;
