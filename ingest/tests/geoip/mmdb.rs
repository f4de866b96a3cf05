//! Builds databases that map IP addresses to countries, in MaxMind's format (MMDB).

use std::net::IpAddr;

/// One of the two branches of a node in the search tree: one branch is for addresses whose next bit is 0, the other for
/// addresses whose next bit is 1. `Node` holds the index of the next node, `Data` an offset in the data section.
#[derive(Clone, Copy)]
enum Side {
    Nothing,
    Node(usize),
    Data(usize),
}

/// A database in MaxMind's format with these networks, each with its country.
pub(crate) fn mmdb(networks: &[(&str, &str)]) -> Vec<u8> {
    let (mut nodes, mut data) = (vec![[Side::Nothing; 2]], Vec::new());
    for (network, country) in networks {
        // The search tree is for IPv6 addresses. An IPv4 address is in the tree as 96 zero bits, then its 32 bits.
        let (address, length) = network.split_once('/').unwrap();
        let length: u32 = length.parse().unwrap();
        let (bits, length) = match address.parse().unwrap() {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), 96 + length),
            IpAddr::V6(v6) => (v6.to_bits(), length),
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
        ("build_epoch", vec![8, 2, 0, 0, 0, 0, 0, 0, 0, 1]), // the type of 64-bit integers is an extended one
        ("description", map(&[])),
    ]));
    file
}

fn control(kind: u8, size: usize) -> u8 {
    assert!(size < 29, "a size of 29 or more is encoded in another form");
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
