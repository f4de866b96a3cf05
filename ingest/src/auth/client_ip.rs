//! Finds the address of the client behind trusted proxies.
//!
//! Invariants: a peer that is not trusted is the client, whatever its headers say; behind a trusted peer, the hops in
//! the header are read from the right, and the first hop that is not a trusted proxy is the client. If all hops are
//! trusted, the leftmost hop is the client. A malformed hop ends the reading, and the hop to its right, or the peer if
//! there is none, is the client. The hops to the left of the client are never used, because the client may have forged
//! them. No input causes an error. No I/O.
//!
//! If a request has both `X-Forwarded-For` and `Forwarded`, only `X-Forwarded-For` is read. A proxy that writes only
//! one of the two headers must remove the other header, because the client may have forged it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ::http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use runtime::vars::{VarError, Vars};

use crate::address_source::AddressSource;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// How the address of a client is found, and how much of it is stored.
#[derive(Debug, Clone, Default)]
pub struct ClientIpConfig {
    /// Proxies whose `X-Forwarded-For` or `Forwarded` header is trusted: `TRUSTED_PROXIES`, networks or addresses
    /// separated by commas, default none. Set it behind a proxy, otherwise every client has the proxy's address.
    pub trusted: Networks,
    /// How much of a client's address is stored: `IP_MODE`, `full`, `mask` (the /24 of IPv4, the /48 of IPv6) or `drop`
    /// (nothing), default `full`.
    pub mode: IpMode,
}

impl ClientIpConfig {
    /// Reads and checks the variables above.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let invalid = |name, value: String, reason| VarError::Invalid { name, value, reason };
        let (trusted, mode) = (vars.string_or("TRUSTED_PROXIES", ""), vars.string_or("IP_MODE", "full"));
        Ok(Self {
            trusted: trusted.parse().map_err(|reason| invalid("TRUSTED_PROXIES", trusted, reason))?,
            mode: mode.parse().map_err(|reason| invalid("IP_MODE", mode, reason))?,
        })
    }
}

/// A list of networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is in one of the networks. The address must not be an IPv4-mapped IPv6 address.
    pub fn contain(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&ip))
    }
}

impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = |text: &str| {
            let address = || Some(IpNet::from(IpAddr::from_str(text).ok()?.to_canonical()));
            text.parse().ok().or_else(address).ok_or_else(|| {
                format!("`{text}` is not a network; write for example `10.0.0.0/8` or `2001:db8::1`")
            })
        };
        text.split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(network)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// How much of the client's address is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IpMode {
    /// The whole address.
    #[default]
    Full,
    /// The network of the address: the /24 of IPv4, the /48 of IPv6.
    Mask,
    /// No part of the address: `::` is stored instead.
    Drop,
}

impl FromStr for IpMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(Self::Full),
            "mask" => Ok(Self::Mask),
            "drop" => Ok(Self::Drop),
            _ => Err("it must be `full`, `mask` or `drop`".to_owned()),
        }
    }
}

impl IpMode {
    /// The part of `ip` that is stored.
    pub fn apply(self, ip: IpAddr) -> IpAddr {
        match self {
            Self::Full => ip,
            Self::Mask => network(ip, 24, 48),
            Self::Drop => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

/// The network that contains `ip`, with a prefix of `v4_bits` or `v6_bits`.
pub(super) fn network(ip: IpAddr, v4_bits: u8, v6_bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Net::new_assert(ip, v4_bits).network().into(),
        IpAddr::V6(ip) => Ipv6Net::new_assert(ip, v6_bits).network().into(),
    }
}

/// The client's address, and where it was found; `peer` is the peer of the connection.
pub fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> (IpAddr, AddressSource) {
    let peer = peer.to_canonical();
    let (name, source, address): (_, _, fn(&str) -> Option<IpAddr>) =
        match (headers.contains_key(X_FORWARDED_FOR), headers.contains_key(FORWARDED)) {
            (true, _) => (X_FORWARDED_FOR, AddressSource::XForwardedFor, node),
            (false, true) => (FORWARDED, AddressSource::Forwarded, element),
            (false, false) => return (peer, AddressSource::Peer),
        };
    if !trusted.contain(peer) {
        return (peer, AddressSource::Untrusted);
    }
    let mut client = peer;
    for line in headers.get_all(name).iter().rev() {
        // Split at every comma, quoted or not: a quote that a client left open must
        // not hide what a proxy appends.
        for hop in line.as_bytes().rsplit(|byte| *byte == b',') {
            match str::from_utf8(hop).ok().map(str::trim).and_then(address) {
                Some(ip) => client = ip,
                None => return (client, AddressSource::Malformed),
            }
            if !trusted.contain(client) {
                return (client, source);
            }
        }
    }
    (client, source)
}

/// The address in the `for` parameter of an element of `Forwarded`. `None` if the element is malformed, does not have
/// exactly one `for` parameter, or has an unmatched quote or a backslash.
///
/// A proxy may copy text from the client into other parameters, such as `host="x"`. If the copied text contains a
/// comma, the caller splits the text into pieces, and a piece may look like an element with an address. The caller
/// reads the rightmost piece first. This piece has an unmatched quote or a backslash, so the result is `None`, and the
/// caller reads no further piece.
fn element(text: &str) -> Option<IpAddr> {
    if text.contains('\\') || text.matches('"').count() % 2 == 1 {
        return None;
    }
    let mut found = None;
    for pair in text.split(';') {
        let (name, value) = pair.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") && found.replace(value.trim()).is_some() {
            return None;
        }
    }
    let value = found?;
    node(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// Parses an address that may have a port, brackets and a zone.
fn node(text: &str) -> Option<IpAddr> {
    let address = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let good = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            address.contains(':').then_some(address).filter(|_| good)?
        }
        None => text,
    };
    let bare = match address.split_once('%') {
        Some((bare, zone)) if !zone.is_empty() && bare.contains(':') => bare,
        Some(_) => return None,
        None => address,
    };
    let with_port = || bare.parse().ok().filter(|_| !text.starts_with('[')).map(|addr: SocketAddr| addr.ip());
    bare.parse().ok().or_else(with_port).map(|ip: IpAddr| ip.to_canonical())
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests;
