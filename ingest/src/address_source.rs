//! Where the address of a client was found; a label in metrics.

/// Where the address of a client was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressSource {
    /// The peer of the connection; the request has no forwarding header.
    Peer,
    /// The peer of the connection, because the peer is not trusted to send a forwarding header: either the client
    /// forged the header, or the proxy is missing from `TRUSTED_PROXIES`.
    Untrusted,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded`.
    Forwarded,
    /// `X-Forwarded-For` or `Forwarded`, read from the right up to the first malformed hop.
    Malformed,
}

impl AddressSource {
    /// All sources, so that the metric of each starts at zero.
    pub const ALL: [Self; 5] =
        [Self::Peer, Self::Untrusted, Self::XForwardedFor, Self::Forwarded, Self::Malformed];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Untrusted => "untrusted",
            Self::XForwardedFor => "x_forwarded_for",
            Self::Forwarded => "forwarded",
            Self::Malformed => "malformed",
        }
    }
}
