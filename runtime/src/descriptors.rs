//! The limit on open files of this process.
//!
//! Each connection is one. Systems start a process with a low soft limit, often 1,024, for the sake of programs that use
//! `select`, and let it raise the limit up to the hard one. Ours do not use it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. A process that may not do so still runs, with fewer connections.
pub(crate) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!("up to {} open files", shown(maximum)),
        Err(error) => tracing::warn!(
            "up to {} open files: raise the limit to {}: {error}",
            shown(current),
            shown(maximum)
        ),
    }
}

/// How many files this process may have open at once; 0 is no limit.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(0)
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "any number of".to_owned(), |limit| limit.to_string())
}
