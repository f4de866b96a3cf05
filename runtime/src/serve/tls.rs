//! TLS: a certificate and its private key from two PEM files, reloaded when the files change.
//!
//! Invariants: the certificate and the key in use always belong together. If changed files cannot be used, the
//! previous pair stays in use, and a log line and a metric report it. No text of a key file appears in a log or an
//! error.

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

/// The protocols that clients may use (ALPN), best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The paths of the certificate and the key, and the texts that were read at the start.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    files: Files,
    pair: Pair,
}

#[derive(Debug, Clone)]
struct Files {
    /// Path of a PEM file with the certificate, then its issuers' certificates: `TLS_CERT`, default none. Needs
    /// `TLS_KEY`. A changed file is used within seconds.
    certificate: PathBuf,
    /// Path of a PEM file with the private key of the certificate: `TLS_KEY`, default none. Needs `TLS_CERT`.
    key: PathBuf,
}

/// The contents of the certificate file and of the key file.
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

/// The file that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
enum BadFile {
    Certificate(String),
    Key(String),
}

impl TlsConfig {
    /// Reads and checks the certificate file (`TLS_CERT`: the certificate, then the certificates of its issuers) and
    /// the key file (`TLS_KEY`). Returns `None` if neither variable is set.
    pub fn from_vars(vars: &Vars) -> Result<Option<Self>, VarError> {
        let read = |path: &str, text: &str| Ok::<_, Infallible>((PathBuf::from(path), text.to_owned()));
        let missing = |name, hint| Err(VarError::Missing { name, hint });
        match (vars.file("TLS_CERT", read)?, vars.file("TLS_KEY", read)?) {
            (None, None) => Ok(None),
            (Some(_), None) => missing("TLS_KEY", "TLS_CERT also needs a PEM file with the private key"),
            (None, Some(_)) => missing("TLS_CERT", "TLS_KEY also needs a PEM file with the certificate"),
            (Some((certificate_file, certificate)), Some((key_file, key))) => {
                let files = Files { certificate: certificate_file, key: key_file };
                let pair = Pair { certificate, key };
                pair.server_config().map_err(|bad| {
                    let name = if matches!(bad, BadFile::Certificate(_)) { "TLS_CERT" } else { "TLS_KEY" };
                    let (file, reason) = files.blame(&bad);
                    VarError::Invalid { name, value: file.display().to_string(), reason: reason.to_owned() }
                })?;
                Ok(Some(Self { files, pair }))
            }
        }
    }
}

/// The certificate and key in use.
pub struct Tls {
    config: TlsConfig,
    current: ArcSwap<ServerConfig>,
    stale: IntGauge,
}

impl Tls {
    /// Uses the certificate and key that were read with the configuration. `stale` is 1 while the files cannot be used.
    pub fn new(config: TlsConfig, stale: IntGauge) -> Self {
        let current = config.pair.server_config().expect("the pair was checked with the configuration");
        Self { config, current: ArcSwap::from_pointee(current), stale }
    }

    /// Reloads the files when they change, until `ended` is cancelled.
    pub async fn follow(self: Arc<Self>, ended: CancellationToken) {
        let files = self.config.files.clone();
        follow(Ok(self.config.pair.clone()), move || files.read(), move |read| self.reload(read), ended)
            .await;
    }

    /// Uses the certificate and key that were read from the files. If the files cannot be used, the previous
    /// certificate and key stay in use, the reason is logged, and `stale` becomes 1.
    fn reload(&self, read: &Result<Pair, BadFile>) {
        match read.as_ref().map_err(BadFile::clone).and_then(Pair::server_config) {
            Ok(config) => {
                tracing::info!("reloaded the certificate and its key");
                self.stale.set(0);
                self.current.store(Arc::new(config));
            }
            Err(bad) => {
                let (file, reason) = self.config.files.blame(&bad);
                tracing::error!(
                    file = %file.display(),
                    reason,
                    "cannot use the certificate or key; the previous certificate and key stay in use"
                );
                self.stale.set(1);
            }
        }
    }

    /// Starts the TLS handshake on `stream` with the current certificate and key.
    pub(super) fn accept(&self, stream: TcpStream) -> Accept<TcpStream> {
        TlsAcceptor::from(self.current.load_full()).accept(stream)
    }
}

impl Files {
    fn read(&self) -> Result<Pair, BadFile> {
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| error.to_string());
        Ok(Pair {
            certificate: read(&self.certificate).map_err(BadFile::Certificate)?,
            key: read(&self.key).map_err(BadFile::Key)?,
        })
    }

    fn blame<'a>(&'a self, bad: &'a BadFile) -> (&'a Path, &'a str) {
        match bad {
            BadFile::Certificate(reason) => (&self.certificate, reason),
            BadFile::Key(reason) => (&self.key, reason),
        }
    }
}

impl Pair {
    fn server_config(&self) -> Result<ServerConfig, BadFile> {
        // Errors about the key file have our own texts, because a text of rustls may quote the private key. Errors
        // about the certificate may quote its file, which is not secret.
        let certificates = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| BadFile::Certificate("it is not PEM".to_owned()))?;
        if certificates.is_empty() {
            return Err(BadFile::Certificate("there is no certificate in it".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|error| {
            BadFile::Key(match error {
                pem::Error::NoItemsFound => {
                    "it has no unencrypted private key; encrypted keys are not supported".to_owned()
                }
                _ => "it is not PEM".to_owned(),
            })
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has a cipher suite for each TLS version");
        let config = builder.with_no_client_auth().with_single_cert(certificates, key);
        let mut config = config.map_err(|error| match error {
            Error::InconsistentKeys(_) => BadFile::Key("it does not belong to the certificate".to_owned()),
            Error::InvalidCertificate(error) => BadFile::Certificate(format!("it cannot be used: {error}")),
            _ => BadFile::Key("it cannot be used; RSA, ECDSA and Ed25519 are supported".to_owned()),
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
