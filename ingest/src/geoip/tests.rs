use ipnet::IpNet;
use tempfile::TempDir;

use super::*;

/// What a side of a node leads to.
#[derive(Clone, Copy)]
enum Side {
    Nothing,
    Node(usize),
    Data(usize),
}

/// A file of MaxMind's format that knows these networks.
pub(crate) fn mmdb(networks: &[(&str, &str)]) -> Vec<u8> {
    let (mut nodes, mut data) = (vec![[Side::Nothing; 2]], Vec::new());
    for (network, country) in networks {
        // In a tree of IPv6, where addresses of IPv4 follow 96 zeros.
        let (bits, length) = match network.parse().unwrap() {
            IpNet::V4(v4) => (u128::from(u32::from(v4.network())), 96 + v4.prefix_len()),
            IpNet::V6(v6) => (u128::from(v6.network()), v6.prefix_len()),
        };
        let mut at = 0;
        for depth in 1..length {
            let side = (bits >> (128 - depth) & 1) as usize;
            at = match nodes[at][side] {
                Side::Node(next) => next,
                Side::Nothing | Side::Data(_) => {
                    nodes.push([Side::Nothing; 2]);
                    nodes[at][side] = Side::Node(nodes.len() - 1);
                    nodes.len() - 1
                }
            };
        }
        nodes[at][(bits >> (128 - length) & 1) as usize] = Side::Data(data.len());
        data.extend(map(&[("country", map(&[("iso_code", text(country))]))]));
    }
    let count = nodes.len();
    let value = |side: Side| match side {
        Side::Nothing => count,
        Side::Node(node) => node,
        Side::Data(offset) => count + 16 + offset,
    };
    let tree = nodes.iter().flatten().flat_map(|side| value(*side).to_be_bytes()[5..].to_vec());
    let mut file: Vec<u8> = tree.chain([0; 16]).chain(data).collect();
    file.extend(b"\xab\xcd\xefMaxMind.com");
    file.extend(map(&[
        ("node_count", number(6, &(count as u32).to_be_bytes())),
        ("record_size", number(5, &24_u16.to_be_bytes())),
        ("ip_version", number(5, &6_u16.to_be_bytes())),
        ("database_type", text("Country")),
        ("languages", vec![0, 4]), // an empty array
        ("binary_format_major_version", number(5, &2_u16.to_be_bytes())),
        ("binary_format_minor_version", number(5, &0_u16.to_be_bytes())),
        ("build_epoch", vec![8, 2, 0, 0, 0, 0, 0, 0, 0, 1]), // 64 bits are an extended type
        ("description", map(&[])),
    ]));
    file
}

fn control(kind: u8, size: usize) -> u8 {
    assert!(size < 29, "longer ones have another form");
    kind << 5 | size as u8
}

fn text(text: &str) -> Vec<u8> {
    [&[control(2, text.len())], text.as_bytes()].concat()
}

fn number(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[control(kind, bytes.len())], bytes].concat()
}

fn map(fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let fields_of = |(name, value): &(&str, Vec<u8>)| [text(name), value.clone()].concat();
    [vec![control(7, fields.len())], fields.iter().flat_map(fields_of).collect()].concat()
}

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
fn a_changed_file_is_taken_and_a_bad_one_keeps_the_one_before() {
    let file = file(&[("203.0.113.0/24", "DE")]);
    let mut seen = Ok(file.geoip.first);
    let mut look = |country: &str, stale: i64| {
        seen = file.geoip.look(seen.clone());
        assert_eq!((file.country("203.0.113.9").as_str(), file.geoip.stale.get()), (country, stale));
    };
    look("DE", 0);
    fs::write(file.path(), "no such file").unwrap();
    look("DE", 1);
    fs::remove_file(file.path()).unwrap();
    look("DE", 1);
    fs::write(file.path(), mmdb(&[("203.0.113.0/24", "FR")])).unwrap();
    look("FR", 0);
    // By renaming, as it should be: another file of the same length.
    let next = file.path().with_extension("next");
    fs::write(&next, mmdb(&[("203.0.113.0/24", "JP")])).unwrap();
    fs::rename(next, file.path()).unwrap();
    look("JP", 0);
}

#[test]
fn a_bad_file_is_named_at_the_start() {
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
        error.starts_with(&format!("{says}it is no file of countries: ")) && error.lines().count() == 1,
        "{error}"
    );
    fs::write(&path, mmdb(&[])).unwrap();
    assert_eq!(start(), Ok(true));
}
