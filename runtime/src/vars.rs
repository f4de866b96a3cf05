//! Environment variables, read once and checked before the service starts.
//!
//! Invariant: every variable that a service understands is read through a [`Vars`], which records the variable with
//! its resolved value. So `--check-config` lists exactly the variables that have an effect. There is no global state:
//! a test makes its own `Vars` from pairs.

pub mod origins;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

/// The variables of one process, and the values that were read so far.
pub struct Vars {
    given: BTreeMap<String, String>,
    resolved: RefCell<BTreeMap<String, String>>,
}

/// A variable that cannot be used. The message contains the name of the variable, and what is wrong or what to write.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VarError {
    /// Required, but absent or empty.
    #[error("variable {name} is not set: {hint}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What the variable is for, with an example.
        hint: &'static str,
    },
    /// Set to a value that is not allowed.
    #[error("variable {name}=`{value}` is not usable: {reason}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// The value. A duration may be in other units than the user wrote, for example `10m 1s` for `601s`.
        value: String,
        /// What is wrong, or which values are allowed.
        reason: String,
    },
    /// Settings that a library does not accept.
    #[error("variable {name} is not usable: {reason}")]
    Refused {
        /// The variable, or the common prefix of several variables.
        name: String,
        /// What the library says.
        reason: String,
    },
    /// A setting of a library for which the service has a fixed value.
    #[error("variable {name} cannot be set: {reason}")]
    Fixed {
        /// The variable.
        name: String,
        /// Why the value is fixed.
        reason: &'static str,
    },
}

/// Settings of a library for which a service has fixed values: no variable may set them.
pub struct Fixed {
    /// The names that the library uses for the settings, including aliases.
    pub names: &'static [&'static str],
    /// Why their values are fixed.
    pub reason: &'static str,
}

impl Vars {
    /// The environment of this process. A variable that is empty or not UTF-8 counts as absent.
    #[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
    pub fn from_env() -> Self {
        Self::from_pairs(
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
        )
    }

    /// Variables from the caller, for tests and for services that run as a library.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let given = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        Self { given, resolved: RefCell::default() }
    }

    /// The value of the variable `name`, or `default` if it is not set.
    pub fn string_or(&self, name: &'static str, default: &str) -> String {
        let value = self.given.get(name).map_or(default, String::as_str).to_owned();
        self.record(name, &value);
        value
    }

    /// The value of the variable `name`, which has no default. `hint` says in the error what the variable is for.
    pub fn required(&self, name: &'static str, hint: &'static str) -> Result<String, VarError> {
        let value = self.given.get(name).cloned().ok_or(VarError::Missing { name, hint })?;
        self.record(name, &value);
        Ok(value)
    }

    /// The value of the variable `name`, parsed as `T`, or `default` if it is not set.
    pub fn parsed_or<T>(&self, name: &'static str, default: T) -> Result<T, VarError>
    where
        T: FromStr<Err: Display> + Display,
    {
        self.read(name, default, |text| text.parse().map_err(|e: T::Err| e.to_string()), T::to_string)
    }

    /// The value of the variable `name` as a duration (`250ms`, `5s`, `10m`, `1h`), or `default` if it is not set.
    pub fn duration_or(&self, name: &'static str, default: Duration) -> Result<Duration, VarError> {
        let parse = |text: &str| {
            humantime::parse_duration(text).map_err(|e| format!("{e}; write for example `5s` or `250ms`"))
        };
        self.read(name, default, parse, |d| humantime::format_duration(*d).to_string())
    }

    /// Like [`Vars::duration_or`], but the duration must be above zero.
    pub fn positive_duration_or(&self, name: &'static str, default: Duration) -> Result<Duration, VarError> {
        let duration = self.duration_or(name, default)?;
        if duration.is_zero() {
            let reason = "it must be above zero, for example `5s`".to_owned();
            return Err(VarError::Invalid { name, value: "0s".to_owned(), reason });
        }
        Ok(duration)
    }

    /// Like [`Vars::duration_or`], but the duration must be at most `most`; the error gives the reason `why`.
    pub fn duration_up_to(
        &self,
        name: &'static str,
        default: Duration,
        most: Duration,
        why: &str,
    ) -> Result<Duration, VarError> {
        let duration = self.duration_or(name, default)?;
        if duration <= most {
            return Ok(duration);
        }
        let [value, most] = [duration, most].map(|duration| humantime::format_duration(duration).to_string());
        Err(VarError::Invalid { name, value, reason: format!("{why}; write at most {most}") })
    }

    /// The value of the variable `name` as a size in bytes (`8MiB`, `65536`), or `default` if it is not set.
    pub fn bytes_or(&self, name: &'static str, default: usize) -> Result<usize, VarError> {
        let parse = |text: &str| {
            let size = ByteSize::from_str(text).map_err(|e| format!("{e}; write for example `8MiB`"))?;
            usize::try_from(size.as_u64()).map_err(|e| e.to_string())
        };
        self.read(name, default, parse, size)
    }

    /// Reads the file whose path is the value of the variable `name`, and returns what `parse` makes of its path and
    /// text. Returns `None` if the variable is not set.
    pub fn file<T, E: Display>(
        &self,
        name: &'static str,
        parse: impl Fn(&str, &str) -> Result<T, E>,
    ) -> Result<Option<T>, VarError> {
        let path = self.string_or(name, "");
        if path.is_empty() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        text.and_then(|text| parse(&path, &text).map_err(|error| error.to_string()))
            .map(Some)
            .map_err(|reason| VarError::Invalid { name, value: path, reason })
    }

    /// All variables whose name starts with `prefix`: settings that are passed through to a library. The keys of the
    /// map are the names without `prefix`.
    pub fn with_prefix(&self, prefix: &str) -> BTreeMap<String, String> {
        let given =
            self.given.iter().filter_map(|(name, value)| Some((name, name.strip_prefix(prefix)?, value)));
        given
            .map(|(name, rest, value)| {
                self.record(name, value);
                (rest.to_owned(), value.clone())
            })
            .collect()
    }

    /// Like [`Vars::with_prefix`], but returns an error if a variable sets one of the `fixed` settings to any value.
    /// A fixed setting is recognised in upper and lower case, with `_` instead of `.`, and after a prefix of the
    /// library such as `topic.`.
    pub fn passed_through(
        &self,
        prefix: &str,
        fixed: &[Fixed],
    ) -> Result<BTreeMap<String, String>, VarError> {
        let settings = self.with_prefix(prefix);
        for name in settings.keys() {
            if let Some(Fixed { reason, .. }) = fixed.iter().find(|fixed| fixed.has(name)) {
                return Err(VarError::Fixed { name: format!("{prefix}{name}"), reason });
            }
        }
        Ok(settings)
    }

    /// Every variable that was read so far with its resolved value, sorted by name. Secrets are hidden.
    pub fn resolved(&self) -> Vec<(String, String)> {
        self.resolved.borrow().clone().into_iter().collect()
    }

    fn read<T>(
        &self,
        name: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
        show: impl Fn(&T) -> String,
    ) -> Result<T, VarError> {
        let value = match self.given.get(name) {
            Some(text) => {
                parse(text).map_err(|reason| VarError::Invalid { name, value: text.clone(), reason })?
            }
            None => default,
        };
        self.record(name, &show(&value));
        Ok(value)
    }

    fn record(&self, name: &str, value: &str) {
        let lower = name.to_ascii_lowercase();
        let secret = SECRETS.iter().any(|word| lower.ends_with(word));
        let shown = if secret && !value.is_empty() { "(set)" } else { value };
        self.resolved.borrow_mut().insert(name.to_owned(), shown.to_owned());
    }
}

/// Formats a size as a whole number of the largest unit that divides it, as in `96MiB`, or else as a number of bytes.
fn size(bytes: &usize) -> String {
    const UNITS: [(&str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| *bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

impl Fixed {
    fn has(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase().replace('_', ".");
        let is_of = |fixed: &str| {
            name.strip_suffix(fixed).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        self.names.iter().any(|fixed| is_of(fixed))
    }
}

/// Endings of names, in lower case. A variable whose name has one of these endings holds a secret.
const SECRETS: [&str; 6] = ["password", "passphrase", "token", "secret", "key.pem", "credentials"];

#[cfg(test)]
mod tests;
