//! Where the address of a client was found; a label in metrics.

/// Where the address of a client was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressSource {
    /// The peer of the connection, because the request has no forwarding header.
    Peer,
    /// The peer of the connection, because the request has a forwarding header but the peer is not in
    /// `TRUSTED_PROXIES`: either the client forged the header, or the proxy is missing from the variable.
    Untrusted,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded`.
    Forwarded,
    /// `X-Forwarded-For` or `Forwarded` with a malformed hop: the client is the hop to the right of the malformed one,
    /// or the peer if the malformed hop is the rightmost one.
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
