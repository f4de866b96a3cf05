use tempfile::TempDir;

use self::mmdb::mmdb;
use super::*;

#[path = "../../../tests/geoip/mmdb.rs"]
mod mmdb;

struct File {
    directory: TempDir,
    geoip: GeoIp,
}

impl File {
    fn path(&self) -> PathBuf {
        self.directory.path().join("countries.mmdb")
    }

    fn country(&self, ip: &str) -> String {
        self.geoip.country(ip.parse().unwrap()).unwrap_or_default().as_str().to_owned()
    }
}

fn file(networks: &[(&str, &str)]) -> File {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("countries.mmdb");
    fs::write(&path, mmdb(networks)).unwrap();
    let vars = Vars::from_pairs([("GEOIP_DB", path.to_str().unwrap())]);
    let config = GeoIpConfig::from_vars(&vars).unwrap().unwrap();
    File { directory, geoip: GeoIp::new(&config, IntGauge::new("stale", "stale").unwrap()) }
}

#[test]
fn an_address_has_the_country_of_its_network() {
    let networks =
        [("203.0.113.0/24", "DE"), ("198.51.100.7/32", "fr"), ("2001:db8::/32", "JP"), ("192.0.2.0/24", "?")];
    let file = file(&networks);
    for (ip, country) in [
        ("203.0.113.9", "DE"),
        ("203.0.114.9", ""),
        ("198.51.100.7", "FR"),
        ("198.51.100.8", ""),
        ("2001:db8:1::1", "JP"),
        ("2001:db9::1", ""),
        ("192.0.2.1", ""),
    ] {
        assert_eq!(file.country(ip), country, "{ip}");
    }
}

#[test]
fn a_changed_file_is_loaded_and_an_invalid_file_keeps_the_previous_database() {
    let file = file(&[("203.0.113.0/24", "DE")]);
    let mut seen = Ok(file.geoip.initial);
    let mut look = |country: &str, stale: i64| {
        let now = Stamp::of(&file.path());
        assert_ne!(now, std::mem::replace(&mut seen, now.clone()), "the stamp did not change with the file");
        file.geoip.apply(&now);
        assert_eq!((file.country("203.0.113.9").as_str(), file.geoip.stale.get()), (country, stale));
    };
    fs::write(file.path(), "no such file").unwrap();
    look("DE", 1);
    fs::remove_file(file.path()).unwrap();
    look("DE", 1);
    fs::write(file.path(), mmdb(&[("203.0.113.0/24", "FR")])).unwrap();
    look("FR", 0);
    // A new file of the same length is renamed to the path, as the help of `GEOIP_DB` recommends.
    let next = file.path().with_extension("next");
    fs::write(&next, mmdb(&[("203.0.113.0/24", "JP")])).unwrap();
    fs::rename(next, file.path()).unwrap();
    look("JP", 0);
}

#[test]
fn an_invalid_file_fails_the_start_and_is_named() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("countries.mmdb");
    let start = || {
        let vars = Vars::from_pairs([("GEOIP_DB", path.to_str().unwrap())]);
        GeoIpConfig::from_vars(&vars).map(|config| config.is_some()).map_err(|error| error.to_string())
    };
    let says = format!("variable GEOIP_DB=`{}` is not usable: ", path.display());
    assert_eq!(start(), Err(format!("{says}No such file or directory (os error 2)")));
    fs::write(&path, "text").unwrap();
    let error = start().unwrap_err();
    assert!(
        error.starts_with(&format!("{says}it is not a country database in the MMDB format: "))
            && error.lines().count() == 1,
        "{error}"
    );
    fs::write(&path, mmdb(&[])).unwrap();
    assert_eq!(start(), Ok(true));
}
