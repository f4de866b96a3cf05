//! Where the spool is, and how large it may become.

use std::path::PathBuf;

use runtime::vars::{VarError, Vars};
use schemas::record;

const GIB: usize = 1 << 30;

/// Where the spool is, and how large it may become.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// The directory, with one file per topic, which no other edge may use: `SPOOL_DIR`, default none, and then
    /// there is no spool.
    pub directory: PathBuf,
    /// Bytes of all records in the spool; its file may become twice as long: `SPOOL_MAX_BYTES`,
    /// default 10 GiB.
    pub max_bytes: u64,
    /// Bytes that the spool leaves free on its disk: `SPOOL_MIN_FREE`, default 1 GiB.
    pub min_free: u64,
}

impl SpoolConfig {
    /// Reads and checks the variables above; `None` if there is no spool.
    pub fn from_vars(vars: &Vars) -> Result<Option<Self>, VarError> {
        let directory = vars.string_or("SPOOL_DIR", "");
        let max_bytes = vars.bytes_or("SPOOL_MAX_BYTES", 10 * GIB)?;
        let min_free = vars.bytes_or("SPOOL_MIN_FREE", GIB)?;
        if max_bytes < record::MAX_BYTES {
            return Err(VarError::Invalid {
                name: "SPOOL_MAX_BYTES",
                value: max_bytes.to_string(),
                reason: format!("it must be at least {}, the size of the largest record", record::MAX_BYTES),
            });
        }
        let spool =
            Self { directory: directory.into(), max_bytes: max_bytes as u64, min_free: min_free as u64 };
        Ok(Some(spool).filter(|spool| !spool.directory.as_os_str().is_empty()))
    }
}
