//! The limit on open files of this process.
//!
//! Each connection needs one file descriptor. A process usually starts with a soft limit of 1,024, because `select`
//! cannot handle larger descriptors, and may raise the limit up to the hard limit. Our programs do not use `select`, so
//! they raise it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard limit. If that fails, the process still runs, but can have fewer connections
/// open.
pub(crate) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!("the limit on open files is {}", shown(maximum)),
        Err(error) => tracing::warn!(
            "cannot raise the limit on open files from {} to {}: {error}",
            shown(current),
            shown(maximum)
        ),
    }
}

/// How many files this process may have open at once; 0 means that there is no limit.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(0)
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}
