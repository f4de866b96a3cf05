//! For any headers, the edge finds the address of the client. If the peer is not a trusted proxy, the address of the
//! client is the address of the peer.

#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue};
use ingest::address_source::AddressSource;
use ingest::auth::client_ip::{Networks, client_ip};
use libfuzzer_sys::fuzz_target;

static TRUSTED: LazyLock<Networks> =
    LazyLock::new(|| "10.0.0.0/8,2001:db8::/32".parse().expect("the networks are valid"));

fuzz_target!(|input: &[u8]| {
    let Some((first, lines)) = input.split_first() else { return };
    let name = if first % 2 == 0 { "x-forwarded-for" } else { "forwarded" };
    let values = lines.split(|byte| *byte == b'\n').map(HeaderValue::from_bytes);
    let headers: HeaderMap = values
        .filter_map(|value| Some((name.parse().expect("the header name is valid"), value.ok()?)))
        .collect();
    let found = |peer: [u8; 4]| client_ip(IpAddr::from(peer), &headers, &TRUSTED);
    let (ip, source) = found([10, 0, 0, 1]);
    assert_eq!(ip, ip.to_canonical());
    assert_ne!(source, AddressSource::Untrusted);
    assert_eq!(found([203, 0, 113, 7]).0, IpAddr::from([203, 0, 113, 7]));
});
