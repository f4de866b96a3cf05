use ::http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn trusted() -> Networks {
    "10.0.0.0/8, 2001:db8:1::/48,192.0.2.1".parse().unwrap()
}

fn found(peer: &str, headers: &[(&HeaderName, &[u8])]) -> (IpAddr, AddressSource) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_bytes(value).unwrap());
    }
    client_ip(peer.parse().unwrap(), &map, &trusted())
}

#[track_caller]
fn check(peer: &str, headers: &[(&HeaderName, &str)], ip: &str, source: AddressSource) {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    assert_eq!(found(peer, &headers), (ip.parse().unwrap(), source), "{headers:?}");
}

#[test]
fn without_proxies_the_peer_is_the_client() {
    check("203.0.113.7", &[], "203.0.113.7", AddressSource::Peer);
    check("::ffff:203.0.113.7", &[], "203.0.113.7", AddressSource::Peer);
    check("10.0.0.1", &[], "10.0.0.1", AddressSource::Peer);
    check("203.0.113.7", &[(&X_FORWARDED_FOR, "1.1.1.1")], "203.0.113.7", AddressSource::Untrusted);
}

#[test]
fn hops_are_read_from_the_right_while_they_are_trusted() {
    let check =
        |headers: &[(&HeaderName, &str)], ip| check("10.0.0.1", headers, ip, AddressSource::XForwardedFor);
    check(&[(&X_FORWARDED_FOR, "203.0.113.7")], "203.0.113.7");
    check(&[(&X_FORWARDED_FOR, "6.6.6.6, 203.0.113.7,10.1.1.1 ,192.0.2.1")], "203.0.113.7");
    check(&[(&X_FORWARDED_FOR, "6.6.6.6"), (&X_FORWARDED_FOR, "203.0.113.7, 10.1.1.1")], "203.0.113.7");
    check(&[(&X_FORWARDED_FOR, "x,\"y, 203.0.113.7")], "203.0.113.7");
    // If all hops are trusted, the leftmost one is the client.
    check(&[(&X_FORWARDED_FOR, "10.9.9.9, 10.1.1.1")], "10.9.9.9");
    check(&[(&FORWARDED, "for=6.6.6.6"), (&X_FORWARDED_FOR, "203.0.113.7")], "203.0.113.7");
}

#[test]
fn ports_brackets_zones_and_ipv4_mapping_are_removed_from_addresses() {
    let check = |node, ip| check("10.0.0.1", &[(&X_FORWARDED_FOR, node)], ip, AddressSource::XForwardedFor);
    check("203.0.113.7:4711", "203.0.113.7");
    check("[2001:db8::7]:4711", "2001:db8::7");
    check("[2001:db8::7]", "2001:db8::7");
    check("2001:db8::7", "2001:db8::7");
    check("fe80::1%eth0", "fe80::1");
    check("[fe80::1%eth0]:1", "fe80::1");
    check("::ffff:203.0.113.7", "203.0.113.7");
    check("[::ffff:203.0.113.7]:1", "203.0.113.7");
}

#[test]
fn forwarded_is_read_if_there_is_no_x_forwarded_for() {
    let check = |value, ip| check("10.0.0.1", &[(&FORWARDED, value)], ip, AddressSource::Forwarded);
    check("for=203.0.113.7", "203.0.113.7");
    check("For=\"[2001:db8::7]:4711\";proto=https;by=10.0.0.1", "2001:db8::7");
    check("for=6.6.6.6, for=203.0.113.7;host=example.com, for=10.1.1.1", "203.0.113.7");
    check("for=\"6.6.6.6, for=203.0.113.7", "203.0.113.7");
}

#[test]
fn a_malformed_hop_makes_the_hop_to_its_right_the_client() {
    let check = |name: &HeaderName, value: &str, ip| {
        check("10.0.0.1", &[(name, value)], ip, AddressSource::Malformed);
    };
    for bad in [
        "",
        "unknown",
        "1.2.3",
        "1.2.3.4:x",
        "1.2.3.4:65536",
        "[1.2.3.4]",
        "[::1",
        "::1]",
        "1.2.3.4%e",
        "[::1]x",
    ] {
        check(&X_FORWARDED_FOR, bad, "10.0.0.1");
        check(&X_FORWARDED_FOR, &format!("6.6.6.6, {bad}, 10.1.1.1"), "10.1.1.1");
    }
    for bad in ["for", "for=_hidden", "proto=http", "for=1.1.1.1;for=2.2.2.2", "for=1.1.1.1;host=\"a\\\"b\""]
    {
        check(&FORWARDED, bad, "10.0.0.1");
    }
    // The client's Host header, quoted by a proxy, contains text that looks like a hop.
    check(&FORWARDED, "for=1.1.1.1;host=\"x,for=6.6.6.6;y=\"", "10.0.0.1");
    check(&FORWARDED, "for=1.1.1.1;host=\"x\\\",for=6.6.6.6;y=\\\"z\"", "10.0.0.1");
}

#[test]
fn an_invalid_network_or_ip_mode_fails_the_start() {
    let read = |pair| ClientIpConfig::from_vars(&Vars::from_pairs([pair])).map_err(|error| error.to_string());
    let error = read(("TRUSTED_PROXIES", "10.0.0.0/8,10.0.0.0/33")).unwrap_err();
    assert!(error.contains("TRUSTED_PROXIES") && error.contains("`10.0.0.0/33` is not a network"), "{error}");
    assert!(read(("IP_MODE", "hash")).unwrap_err().contains("`full`, `mask` or `drop`"));
    assert_eq!(read(("IP_MODE", "mask")).unwrap().mode, IpMode::Mask);
}

#[test]
fn the_ip_mode_selects_the_part_of_an_address_that_is_kept() {
    let kept = |mode: IpMode, ip: &str| mode.apply(ip.parse().unwrap()).to_string();
    assert_eq!(kept(IpMode::Full, "203.0.113.7"), "203.0.113.7");
    assert_eq!(kept(IpMode::Mask, "203.0.113.7"), "203.0.113.0");
    assert_eq!(kept(IpMode::Mask, "2001:db8:1:2::7"), "2001:db8:1::");
    assert_eq!(kept(IpMode::Drop, "203.0.113.7"), "::");
}

/// What a client may send as the left part of a forwarding header: any bytes that a header can contain.
fn spoofed() -> impl Strategy<Value = Vec<u8>> {
    let byte =
        prop_oneof![Just(b','), Just(b'"'), Just(b'\\'), Just(b';'), Just(b'='), 32..127_u8, 128..=255_u8];
    prop_oneof![
        "(6\\.6\\.6\\.6|for=6\\.6\\.6\\.6|for=\"6\\.6\\.6\\.6|\\[::1\\]:1)(, ?6\\.6\\.6\\.6)*"
            .prop_map(String::into_bytes),
        prop::collection::vec(byte, 0..60),
    ]
}

proptest! {
    #[test]
    fn a_spoofed_left_part_never_changes_the_client_address(spoofed in spoofed(), hops in prop::collection::vec(0..255_u8, 0..4), as_line: bool) {
        let mut ours = vec!["203.0.113.7".to_owned()];
        ours.extend(hops.iter().map(|hop| format!("10.0.0.{hop}")));
        for (name, by_hop) in [(&X_FORWARDED_FOR, ""), (&FORWARDED, "for=")] {
            let ours = ours.iter().map(|ip| format!("{by_hop}{ip}")).collect::<Vec<_>>().join(", ").into_bytes();
            let headers: Vec<(&HeaderName, &[u8])> = vec![(name, &spoofed[..]), (name, &ours[..])];
            let joined = [&spoofed[..], b", ", &ours[..]].concat();
            let joined: Vec<(&HeaderName, &[u8])> = vec![(name, &joined[..])];
            let (ip, _) = found("10.0.0.1", if as_line { &headers } else { &joined });
            prop_assert_eq!(ip, "203.0.113.7".parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn any_header_gives_an_address(value in spoofed(), peer: Ipv6Addr) {
        for name in [&X_FORWARDED_FOR, &FORWARDED] {
            let (ip, source) = found(&peer.to_string(), &[(name, &value)]);
            prop_assert!(source != AddressSource::Untrusted || ip == IpAddr::from(peer).to_canonical());
            let (ip, _) = found("10.0.0.1", &[(name, &value)]);
            prop_assert_eq!(ip, ip.to_canonical());
        }
    }
}
