//! TLS: a certificate and its key from two PEM files, taken anew when these change.
//!
//! Invariants: what is served is a certificate with its own key, so bad files change nothing but
//! a metric; no text of a file of keys gets into a log or an error.

use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error, ServerConfig};
use tokio_rustls::{Accept, TlsAcceptor};
use tokio_util::sync::CancellationToken;

use crate::follow::follow;
use crate::vars::{VarError, Vars};

/// What clients may speak, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where certificate and key are, and what was read there at the start.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    files: Files,
    pair: Pair,
}

#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// The texts of both files.
#[derive(Clone, PartialEq, Eq)]
struct Pair {
    certificate: String,
    key: String,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair")
    }
}

/// Which of the two files is bad, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    Certificate(String),
    Key(String),
}

impl TlsConfig {
    /// Reads and checks the files that `TLS_CERT` (the certificate, then those of its issuers) and
    /// `TLS_KEY` name; `None` if neither is set.
    pub fn from_vars(vars: &Vars) -> Result<Option<Self>, VarError> {
        let read = |path: &str, text: &str| Ok::<_, Infallible>((PathBuf::from(path), text.to_owned()));
        let missing = |name, hint| Err(VarError::Missing { name, hint });
        match (vars.file("TLS_CERT", read)?, vars.file("TLS_KEY", read)?) {
            (None, None) => Ok(None),
            (Some(_), None) => missing("TLS_KEY", "TLS_CERT needs it: a PEM file with its private key"),
            (None, Some(_)) => missing("TLS_CERT", "TLS_KEY needs it: a PEM file with its certificate"),
            (Some((certificate_file, certificate)), Some((key_file, key))) => {
                let files = Files { certificate: certificate_file, key: key_file };
                let pair = Pair { certificate, key };
                pair.server_config().map_err(|fault| {
                    let name = if matches!(fault, Fault::Certificate(_)) { "TLS_CERT" } else { "TLS_KEY" };
                    let (file, reason) = files.blame(&fault);
                    VarError::Invalid { name, value: file.display().to_string(), reason: reason.to_owned() }
                })?;
                Ok(Some(Self { files, pair }))
            }
        }
    }
}

/// The certificate and key of now.
pub struct Tls {
    config: TlsConfig,
    current: ArcSwap<ServerConfig>,
    stale: IntGauge,
}

impl Tls {
    /// The pair that the files had when their configuration was read. `stale` is 1 while they are bad.
    pub fn new(config: TlsConfig, stale: IntGauge) -> Self {
        let current = config.pair.server_config().expect("it was checked with the configuration");
        Self { config, current: ArcSwap::from_pointee(current), stale }
    }

    /// Looks at the files again and again, until `ended`.
    pub async fn follow(self: Arc<Self>, ended: CancellationToken) {
        let files = self.config.files.clone();
        follow(Ok(self.config.pair.clone()), move || files.read(), move |now| self.take(now), ended).await;
    }

    /// Takes what the files are now; where they are bad, only the metric changes.
    fn take(&self, read: &Result<Pair, Fault>) {
        match read.as_ref().map_err(Fault::clone).and_then(Pair::server_config) {
            Ok(config) => {
                tracing::info!("took the certificate and its key");
                self.stale.set(0);
                self.current.store(Arc::new(config));
            }
            Err(fault) => {
                let (file, reason) = self.config.files.blame(&fault);
                tracing::error!(file = %file.display(), reason, "bad certificate or key; the old stay");
                self.stale.set(1);
            }
        }
    }

    /// A handshake, with the pair of now.
    pub(super) fn accept(&self, stream: TcpStream) -> Accept<TcpStream> {
        TlsAcceptor::from(self.current.load_full()).accept(stream)
    }
}

impl Files {
    fn read(&self) -> Result<Pair, Fault> {
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| error.to_string());
        Ok(Pair {
            certificate: read(&self.certificate).map_err(Fault::Certificate)?,
            key: read(&self.key).map_err(Fault::Key)?,
        })
    }

    fn blame<'a>(&'a self, fault: &'a Fault) -> (&'a Path, &'a str) {
        match fault {
            Fault::Certificate(reason) => (&self.certificate, reason),
            Fault::Key(reason) => (&self.key, reason),
        }
    }
}

impl Pair {
    fn server_config(&self) -> Result<ServerConfig, Fault> {
        // The reasons are not what rustls says, which may quote the file.
        let certificates = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Fault::Certificate("it is not PEM".to_owned()))?;
        if certificates.is_empty() {
            return Err(Fault::Certificate("there is no certificate in it".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|error| {
            Fault::Key(match error {
                pem::Error::NoItemsFound => "there is no private key in it, or an encrypted one".to_owned(),
                _ => "it is not PEM".to_owned(),
            })
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows a suite for each version");
        let made = builder.with_no_client_auth().with_single_cert(certificates, key);
        let mut config = made.map_err(|error| match error {
            Error::InconsistentKeys(_) => Fault::Key("it does not belong to the certificate".to_owned()),
            Error::InvalidCertificate(error) => {
                Fault::Certificate(format!("it is of no kind that can be used: {error}"))
            }
            _ => Fault::Key("it is of no kind that can be used; RSA, ECDSA and Ed25519 can".to_owned()),
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
