//! Where the spool is, and how large it may become.

use std::path::PathBuf;

use runtime::vars::{VarError, Vars};
use schemas::record;

const GIB: usize = 1 << 30;

/// Where the spool is, and how large it may become.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// Directory where the edge stores events while Kafka is unreachable: `SPOOL_DIR`, default none. Without this
    /// directory, clients get `503` while Kafka is unreachable. Give each edge its own directory on a volume that
    /// outlives the process.
    pub directory: PathBuf,
    /// Largest total size of the records in the spool: `SPOOL_MAX_BYTES`, default 10 GiB. The file of the spool may
    /// become twice as large as this limit. Choose a limit for the longest outage of Kafka that the spool should cover.
    pub max_bytes: u64,
    /// Free space that the spool leaves on its disk: `SPOOL_MIN_FREE`, default 1 GiB. The spool counts as full when
    /// one more record could leave less free space.
    pub min_free: u64,
}

impl SpoolConfig {
    /// Reads and checks the variables of the spool. Returns `None` if `SPOOL_DIR` is empty or not set.
    pub fn from_vars(vars: &Vars) -> Result<Option<Self>, VarError> {
        let directory = vars.string_or("SPOOL_DIR", "");
        let max_bytes = vars.bytes_or("SPOOL_MAX_BYTES", 10 * GIB)?;
        let min_free = vars.bytes_or("SPOOL_MIN_FREE", GIB)?;
        if max_bytes < record::MAX_BYTES {
            return Err(VarError::Invalid {
                name: "SPOOL_MAX_BYTES",
                value: max_bytes.to_string(),
                reason: format!(
                    "it must be at least {} bytes, the size of the largest record",
                    record::MAX_BYTES
                ),
            });
        }
        let spool =
            Self { directory: directory.into(), max_bytes: max_bytes as u64, min_free: min_free as u64 };
        Ok(Some(spool).filter(|spool| !spool.directory.as_os_str().is_empty()))
    }
}
