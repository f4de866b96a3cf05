//! Finds the country of a client's address in a database, which is reloaded when its file changes.
//!
//! The file has MaxMind's format (MMDB) and contains `country.iso_code`, as MaxMind's Country and City databases do.
//! The database is kept in memory, so that a lookup does no I/O. Invariant: a file that is not valid never replaces the
//! database in use.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs, io};

use arc_swap::ArcSwap;
use maxminddb::{Reader, path};
use prometheus::IntGauge;
use runtime::follow::follow;
use runtime::vars::{VarError, Vars};
use schemas::event::Country;
use tokio_util::sync::CancellationToken;

/// Path of a MaxMind database (`.mmdb`) that finds the country of a client's address: `GEOIP_DB`, default none. It sets
/// `country` if the client sends none. To update it, rename a new file to this path; the edge then reloads it.
#[derive(Clone)]
pub struct GeoIpConfig {
    path: PathBuf,
    stamp: Stamp,
    database: Arc<Database>,
}

impl GeoIpConfig {
    /// Reads `GEOIP_DB` and the file that it names; `None` if the variable is unset or empty.
    pub fn from_vars(vars: &Vars) -> Result<Option<Self>, VarError> {
        let value = vars.string_or("GEOIP_DB", "");
        if value.is_empty() {
            return Ok(None);
        }
        let path = PathBuf::from(&value);
        // The stamp is taken before the file is read, so that a change in between is noticed later.
        let read = Stamp::of(&path).and_then(|stamp| Ok((stamp, Database::read(&path)?)));
        let (stamp, database) =
            read.map_err(|reason| VarError::Invalid { name: "GEOIP_DB", value, reason })?;
        Ok(Some(Self { path, stamp, database: Arc::new(database) }))
    }

    /// The size of the file, which is kept in memory.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(self.stamp.length).unwrap_or(usize::MAX)
    }
}

/// Leaves out the content of the file.
impl fmt::Debug for GeoIpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeoIpConfig").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Identifies a version of the file. The content is not compared, because it may be large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Result<Self, String> {
        let of = |file: fs::Metadata| Self {
            inode: file.ino(),
            length: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        };
        fs::metadata(path).map(of).map_err(|error: io::Error| error.to_string())
    }
}

/// A parsed database.
struct Database(Reader<Vec<u8>>);

impl Database {
    fn read(path: &Path) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        Reader::from_source(bytes)
            .map(Self)
            .map_err(|error| format!("it is not a country database in the MMDB format: {error}"))
    }

    fn country(&self, ip: IpAddr) -> Option<Country> {
        let found = self.0.lookup(ip).ok()?;
        let code: Option<&str> = found.decode_path(&path!["country", "iso_code"]).ok()?;
        Country::parse(code?)
    }
}

/// The country database in use.
pub struct GeoIp {
    path: PathBuf,
    /// The stamp of the file when the configuration was read.
    initial: Stamp,
    current: ArcSwap<Database>,
    stale: IntGauge,
}

impl GeoIp {
    /// Starts with the database that the configuration has read. `stale` is 1 while the file cannot be read or is not
    /// valid.
    pub fn new(config: &GeoIpConfig, stale: IntGauge) -> Self {
        let GeoIpConfig { path, stamp, database } = config.clone();
        Self { path, initial: stamp, current: ArcSwap::new(database), stale }
    }

    /// The country of an address, if the database has it.
    pub fn country(&self, ip: IpAddr) -> Option<Country> {
        self.current.load().country(ip)
    }

    /// Watches the file and applies its changes, until `stop` is cancelled.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let path = self.path.clone();
        follow(Ok(self.initial), move || Stamp::of(&path), move |now| self.apply(now), stop).await;
    }

    /// Replaces the database with the content of the file. If the file cannot be read or is not valid, keeps the
    /// database, logs the error and sets `stale` to 1.
    fn apply(&self, now: &Result<Stamp, String>) {
        match now.clone().and_then(|_| Database::read(&self.path)) {
            Ok(database) => {
                tracing::info!("reloaded the country database");
                self.current.store(Arc::new(database));
                self.stale.set(0);
            }
            Err(error) => {
                tracing::error!(
                    error,
                    "cannot reload the country database from GEOIP_DB; the previous one stays in use"
                );
                self.stale.set(1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
