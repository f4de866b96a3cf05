//! The country of a client's address, by a file that is read anew while the edge runs.
//!
//! The file is of MaxMind's format and has `country.iso_code`, as those called Country and
//! City have. It is in memory whole, so that a look-up is a few dozen steps and no I/O.
//! Invariant: a bad file never takes the place of a good one.

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

/// The file of countries: `GEOIP_DB`, default none, and then clients tell their country or nobody does.
#[derive(Clone)]
pub struct GeoIpConfig {
    path: PathBuf,
    seen: Stamp,
    database: Arc<Database>,
}

impl GeoIpConfig {
    /// Reads the variable above, and the file.
    pub fn from_vars(vars: &Vars) -> Result<Option<Self>, VarError> {
        let value = vars.string_or("GEOIP_DB", "");
        if value.is_empty() {
            return Ok(None);
        }
        let path = PathBuf::from(&value);
        // Before the file is read: a change meanwhile is seen later.
        let read = Stamp::of(&path).and_then(|seen| Ok((seen, Database::read(&path)?)));
        let (seen, database) =
            read.map_err(|reason| VarError::Invalid { name: "GEOIP_DB", value, reason })?;
        Ok(Some(Self { path, seen, database: Arc::new(database) }))
    }
}

/// Without what is in the file.
impl fmt::Debug for GeoIpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeoIpConfig").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What changes with a file. It may be large, so it is not read to be compared.
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

/// A file that was read.
struct Database(Reader<Vec<u8>>);

impl Database {
    fn read(path: &Path) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        Reader::from_source(bytes).map(Self).map_err(|error| format!("it is no file of countries: {error}"))
    }

    fn country(&self, ip: IpAddr) -> Option<Country> {
        let found = self.0.lookup(ip).ok()?;
        let code: Option<&str> = found.decode_path(&path!["country", "iso_code"]).ok()?;
        Country::parse(code?)
    }
}

/// The countries of now.
pub struct GeoIp {
    path: PathBuf,
    /// When the configuration was read.
    first: Stamp,
    current: ArcSwap<Database>,
    stale: IntGauge,
}

impl GeoIp {
    /// Those that the file had when its configuration was read. `stale` is 1 while the file is bad.
    pub fn new(config: &GeoIpConfig, stale: IntGauge) -> Self {
        let GeoIpConfig { path, seen, database } = config.clone();
        Self { path, first: seen, current: ArcSwap::new(database), stale }
    }

    /// The country of an address, if the file knows it.
    pub fn country(&self, ip: IpAddr) -> Option<Country> {
        self.current.load().country(ip)
    }

    /// Looks at the file again and again, until `ended`.
    pub async fn follow(self: Arc<Self>, ended: CancellationToken) {
        let path = self.path.clone();
        follow(Ok(self.first), move || Stamp::of(&path), move |now| self.take(now), ended).await;
    }

    /// Takes what the file is now; where it is bad, only the metric changes.
    fn take(&self, now: &Result<Stamp, String>) {
        match now.clone().and_then(|_| Database::read(&self.path)) {
            Ok(database) => {
                tracing::info!("took the file of countries");
                self.current.store(Arc::new(database));
                self.stale.set(0);
            }
            Err(error) => {
                tracing::error!(error, "the file of countries is bad; the one read before stays");
                self.stale.set(1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
