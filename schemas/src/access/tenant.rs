//! Reads the file that declares which tenants have their own database of views.

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::Spanned;

use crate::line::is_tenant;

/// Maximum number of tenants in a file. Each tenant has a database of views, and every migration replaces all views,
/// so each tenant makes migrations longer.
const MAX_TENANTS: usize = 1_000;

/// The SHA-256 of the empty text. An operator who hashes the password from a variable that is not set gets this value.
const SHA256_OF_EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A tenant whose analysts see its rows and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// The name of the tenant, as in events and in the edge's file of write keys.
    pub name: String,
    /// The SHA-256 of the password of [`Tenant::reader`], as lower case hexadecimal digits.
    pub password_sha256: String,
}

/// The enabled tenants of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tenants(Vec<Tenant>);

/// Why a file of tenants is not valid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct TenantsError {
    line: usize,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tenant: Vec<Spanned<Declared>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    name: String,
    password_sha256: String,
    #[serde(default = "yes")]
    enabled: bool,
}

fn yes() -> bool {
    true
}

impl Tenants {
    /// Parses the text of a file. An error may quote names of fields and tenants, but no other values, because a value
    /// may be a password.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub fn parse(text: &str) -> Result<Self, TenantsError> {
        let line = |at: usize| 1 + text[..at].matches('\n').count();
        let bad = |error: toml::de::Error| {
            TenantsError {
            line: line(error.span().map_or(0, |span| span.start)),
            reason: match error.message() {
                // The parser's own message would quote the value.
                text if text.starts_with("invalid type") || text.starts_with("invalid value") => {
                    "a value has the wrong type: names and hashes are texts in quotes, `enabled` is true or false"
                        .to_owned()
                }
                text => text.to_owned(),
            },
        }
        };
        let declared = toml::from_str::<File>(text).map_err(bad)?.tenant;
        let (mut tenants, mut names) = (Vec::new(), BTreeSet::new());
        for one in declared {
            let (line, one) = (line(one.span().start), one.into_inner());
            let wrong = |reason: String| TenantsError { line, reason };
            let Declared { name, password_sha256, enabled } = one;
            if !is_tenant(&name) {
                let reason = "the name of a tenant must be 1 to 64 characters, each one of a-z, 0-9, _ and -";
                return Err(wrong(reason.to_owned()));
            }
            if password_sha256.len() != 64 || !password_sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
                let reason = format!("tenant `{name}`: its password_sha256 must be 64 hexadecimal digits");
                return Err(wrong(reason));
            }
            if password_sha256.eq_ignore_ascii_case(SHA256_OF_EMPTY) {
                return Err(wrong(format!(
                    "tenant `{name}`: its password_sha256 is the hash of an empty password"
                )));
            }
            if !names.insert(name.clone()) {
                return Err(wrong(format!("tenant `{name}` occurs twice")));
            }
            if names.len() > MAX_TENANTS {
                return Err(wrong(format!("more than {MAX_TENANTS} tenants in the file")));
            }
            if enabled {
                tenants.push(Tenant { name, password_sha256: password_sha256.to_ascii_lowercase() });
            }
        }
        Ok(Self(tenants))
    }

    /// The enabled tenants, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Tenant> {
        self.0.iter()
    }

    /// Whether no tenant is enabled.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Tenant {
    /// The database of the tenant's views, named after `bi`, the database of the views over all tenants.
    pub fn database(&self, bi: &str) -> String {
        format!("{bi}_{}", self.name)
    }

    /// The definer of this tenant's views: the user whose rights the views use. It is named after `of_all`, the
    /// definer of the views over all tenants.
    pub fn definer(&self, of_all: &str) -> String {
        format!("{of_all}_{}", self.name)
    }

    /// The user of ClickHouse that the analysts of this tenant log in as.
    pub fn reader(&self) -> String {
        format!("bi_reader_{}", self.name)
    }

    /// The condition of the tenant's row policy. The name has no character that needs an escape.
    pub fn condition(&self) -> String {
        format!("tenant = '{}'", self.name)
    }
}
