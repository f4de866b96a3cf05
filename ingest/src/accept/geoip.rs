//! The country of a client's address, from a file that is read again when it changes.
//!
//! The file has MaxMind's format (MMDB) with `country.iso_code`, as the Country and City databases have. It is kept in
//! memory, so that a lookup does no I/O. Invariant: a file that is not valid never replaces the one in use.

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

/// Path of a MaxMind database (`.mmdb`) that finds the country of a client's address: `GEOIP_DB`, default none. It fills
/// `country` where the client sends none; replace the file by renaming, and the edge reads it again.
#[derive(Clone)]
pub struct GeoIpConfig {
    path: PathBuf,
    stamp: Stamp,
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

/// What changes when a file changes. The file may be large, so its content is not compared.
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

/// The content of a file.
struct Database(Reader<Vec<u8>>);

impl Database {
    fn read(path: &Path) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        Reader::from_source(bytes)
            .map(Self)
            .map_err(|error| format!("it is not a file of countries in the MMDB format: {error}"))
    }

    fn country(&self, ip: IpAddr) -> Option<Country> {
        let found = self.0.lookup(ip).ok()?;
        let code: Option<&str> = found.decode_path(&path!["country", "iso_code"]).ok()?;
        Country::parse(code?)
    }
}

/// The countries that are valid now.
pub struct GeoIp {
    path: PathBuf,
    /// The stamp of the file when the configuration was read.
    initial: Stamp,
    current: ArcSwap<Database>,
    stale: IntGauge,
}

impl GeoIp {
    /// Starts with the file as it was when the configuration was read. `stale` is 1 while the file is not valid.
    pub fn new(config: &GeoIpConfig, stale: IntGauge) -> Self {
        let GeoIpConfig { path, stamp, database } = config.clone();
        Self { path, initial: stamp, current: ArcSwap::new(database), stale }
    }

    /// The country of an address, if the file has it.
    pub fn country(&self, ip: IpAddr) -> Option<Country> {
        self.current.load().country(ip)
    }

    /// Watches the file and applies its changes, until `stop`.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let path = self.path.clone();
        follow(Ok(self.initial), move || Stamp::of(&path), move |now| self.apply(now), stop).await;
    }

    /// Replaces the countries by those of the file; if the file is not valid, only the metric changes.
    fn apply(&self, now: &Result<Stamp, String>) {
        match now.clone().and_then(|_| Database::read(&self.path)) {
            Ok(database) => {
                tracing::info!("read the file of countries");
                self.current.store(Arc::new(database));
                self.stale.set(0);
            }
            Err(error) => {
                tracing::error!(error, "the file of countries is not valid; the previous one stays in use");
                self.stale.set(1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
