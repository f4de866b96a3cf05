//! Directories for the data and logs of a local stack.
//!
//! Invariant: at most one [`DataDirectory`] exists for a path, over all processes. Each one holds a lock on a file
//! in its directory. The kernel releases the lock when the process dies.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::binaries;

/// Name of the lock file in a data directory.
const LOCK: &str = "lock";

/// A directory that belongs to this process until the value is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Opens the directory at `path` and keeps its contents, or creates an empty one. Returns an error if the directory
    /// is in use.
    pub fn open(path: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let path = path.into();
        match Self::try_open(&path)? {
            Some(directory) => Ok(directory),
            None => bail!("use {}: another process uses it; stop that process first", path.display()),
        }
    }

    /// An empty directory for the test `name`, under the target directory. Whether the test passes or fails, the
    /// contents remain until the next run of the same test.
    pub fn for_test(name: &str) -> anyhow::Result<Self> {
        let home = binaries::directory()?.join("devstack-data");
        // Two runs of a test may overlap: the second run takes a directory with the next number.
        for n in 1..=64 {
            if let Some(directory) = Self::try_open(&home.join(format!("{name}-{n}")))? {
                directory.clear()?;
                return Ok(directory);
            }
        }
        bail!("find an unused directory for {name} in {}: all 64 are in use", home.display())
    }

    /// Removes everything in the directory except the lock file.
    pub fn clear(&self) -> anyhow::Result<()> {
        let entries = fs::read_dir(&self.path).with_context(|| format!("list {}", self.path.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", self.path.display()))?;
            let path = entry.path();
            let removed = match entry.file_name() == LOCK {
                true => Ok(()),
                false if path.is_dir() => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            removed.with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the subdirectory `name`. Creates the subdirectory if it does not exist.
    pub fn subdirectory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    fn try_open(path: &Path) -> anyhow::Result<Option<Self>> {
        fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
        let lock = File::create(path.join(LOCK)).with_context(|| format!("lock {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_is_refused_in_one_line() {
        let held = DataDirectory::for_test("in_use").unwrap();
        let error = DataDirectory::open(held.path()).unwrap_err().to_string();
        assert!(error.ends_with("another process uses it; stop that process first"), "{error}");
    }

    #[test]
    fn a_second_run_at_the_same_time_gets_its_own_empty_directory() {
        let first = DataDirectory::for_test("twice").unwrap();
        fs::write(first.path().join("file"), "kept").unwrap();
        let second = DataDirectory::for_test("twice").unwrap();
        assert_ne!(first.path(), second.path());
        assert!(first.path().join("file").exists());
        assert!(!second.path().join("file").exists());
    }
}
