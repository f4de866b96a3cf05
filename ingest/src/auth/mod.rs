//! Authenticates the sender of a request, and limits how many events it may send.
//!
//! A sender is identified by its key, its address or both. Each key and each address may have a rate. Nothing in this
//! folder reads a body.

pub mod client_ip;

pub mod keys;

pub mod key_file;

pub mod rate;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ::http::request::Parts;
use runtime::keys::RateConfig;
use runtime::serve::PeerAddr;
use runtime::vars::{VarError, Vars};

use self::client_ip::ClientIpConfig;
use self::key_file::{Keys, KeysConfig};
use self::keys::Caller;
use self::rate::{AddressRates, Charge};
use crate::metrics::Metrics;
use crate::outcome::Refusal;

/// Who may send, and how much.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// The keys, and whether a request needs one.
    pub keys: KeysConfig,
    /// The rate of each address; `None`: no limit.
    pub address_rate: Option<RateConfig>,
    /// How the address of a client is found.
    pub client_ip: ClientIpConfig,
}

impl AuthConfig {
    /// Reads and checks the environment variables of the fields above.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        Ok(Self {
            keys: KeysConfig::from_vars(vars)?,
            address_rate: rate::of_addresses(vars)?,
            client_ip: ClientIpConfig::from_vars(vars)?,
        })
    }
}

/// Authenticates senders and charges their rates; shared by all requests.
pub struct Auth {
    keys: Keys,
    address_rates: Option<AddressRates>,
    client_ip: ClientIpConfig,
    metrics: Arc<Metrics>,
}

impl Auth {
    /// Starts with the keys of the configuration. Nothing is charged to any rate yet.
    pub fn new(config: &AuthConfig, metrics: &Arc<Metrics>) -> Self {
        Self {
            keys: Keys::new(&config.keys, metrics.keys_stale.clone()),
            address_rates: config.address_rate.map(AddressRates::new),
            client_ip: config.client_ip.clone(),
            metrics: Arc::clone(metrics),
        }
    }

    /// The keys. The caller watches their file for changes.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Finds the address of the client, and counts where it was found.
    pub fn client_ip(&self, head: &Parts) -> IpAddr {
        let (ip, source) = client_ip::client_ip(peer(head), &head.headers, &self.client_ip.trusted);
        self.metrics.client_ip(source);
        ip
    }

    /// The part of the client's address that may be stored.
    pub fn stored_ip(&self, ip: IpAddr) -> IpAddr {
        self.client_ip.mode.apply(ip)
    }

    /// Returns the sender of a request, and charges one event before the body is read, so that a sender that has used
    /// up its rate is refused cheaply.
    pub fn authenticate(&self, head: &Parts, ip: IpAddr) -> Result<Caller, Refusal> {
        let caller = self.keys.authenticate(head, ip)?;
        self.charge(&caller, ip, Charge::First)?;
        Ok(caller)
    }

    /// Charges events to the rate of the key and to the rate of the address.
    pub fn charge(&self, caller: &Caller, ip: IpAddr, charge: Charge) -> Result<(), Refusal> {
        let by_address = || self.address_rates.as_ref().map_or(Ok(()), |rates| rates.charge(ip, charge));
        caller.charge(charge).and_then(|()| by_address()).inspect_err(|_| self.metrics.rate_limited.inc())
    }
}

/// The address of the connection's peer; `0.0.0.0` for a request without a connection, as in a test.
fn peer(head: &Parts) -> IpAddr {
    let peer = head.extensions.get::<PeerAddr>().map(|PeerAddr(addr)| addr.ip());
    peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}
