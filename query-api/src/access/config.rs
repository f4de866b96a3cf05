//! The variables that say who may read.

use runtime::keys::KeyFile;
use runtime::vars::{VarError, Vars};

use super::keys::DeclaredKey;

/// Who may read.
#[derive(Debug, Clone)]
pub struct AccessConfig {
    /// Whether a reader needs a key: `READ_AUTH`, `none` or `required`, default `none`.
    auth: ReadAuth,
    /// The file that declares the keys of readers: `READ_KEYS_FILE`, required unless `READ_AUTH` is `none`.
    file: Option<KeyFile>,
}

/// Whether a reader needs a key.
#[derive(Debug, Clone, Copy)]
enum ReadAuth {
    /// Readers need no key: everybody reads the tenant `default`.
    None,
    /// Every reader needs a key, and reads what the key permits.
    Required,
}

impl AccessConfig {
    /// Reads `READ_AUTH`, `READ_KEYS_FILE` and the key file, and checks them.
    pub(crate) fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let file = KeyFile::from_vars::<DeclaredKey>(vars, "READ_KEYS_FILE")?;
        let value = vars.string_or("READ_AUTH", "none");
        let auth = match (value.as_str(), &file) {
            ("none", None) => Ok(ReadAuth::None),
            ("none", Some(_)) => Err("READ_KEYS_FILE is set, but `none` ignores keys; use `required`"),
            ("required", Some(_)) => Ok(ReadAuth::Required),
            ("required", None) => Err("it needs READ_KEYS_FILE"),
            _ => Err("it must be `none` or `required`"),
        };
        match auth {
            Ok(auth) => Ok(Self { auth, file }),
            Err(reason) => Err(VarError::Invalid { name: "READ_AUTH", value, reason: reason.to_owned() }),
        }
    }

    /// The key file; `None` if readers need no key.
    pub(super) fn keys(&self) -> Option<&KeyFile> {
        match self.auth {
            ReadAuth::None => None,
            ReadAuth::Required => self.file.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_auth_required_needs_a_readable_key_file() {
        let read = |pairs: &[(&str, &str)]| AccessConfig::from_vars(&Vars::from_pairs(pairs.iter().copied()));
        let error = |pairs: &[(&str, &str)]| read(pairs).unwrap_err().to_string();
        assert!(error(&[("READ_AUTH", "required")]).contains("it needs READ_KEYS_FILE"));
        assert!(error(&[("READ_AUTH", "optional")]).contains("`none` or `required`"));
        assert!(error(&[("READ_KEYS_FILE", "/nowhere/keys.toml")]).contains("READ_KEYS_FILE"));
        assert!(read(&[]).unwrap().keys().is_none());
    }
}
