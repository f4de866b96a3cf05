//! TLS at the edge, with a real client and with certificates that the tests create.

use std::io;
use std::sync::Arc;

use devstack::wait_for;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::HttpResponse;
use crate::oracle::{Oracle, TestEvent, now};
use crate::wire::{connect, connect_and_send, read_until_closed};
use crate::world::{DEADLINE, Edge, World};

/// A certificate for `localhost` and its key.
struct Certificate {
    der: CertificateDer<'static>,
    pem: String,
    key: String,
}

impl Certificate {
    fn new() -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self { der: cert.der().clone(), pem: cert.pem(), key: signing_key.serialize_pem() }
    }
}

/// Writes the certificate and the key for the edge of this world. Returns the edge's variables that name the files.
fn install(world: &World, certificate: &str, key: &str) -> [(&'static str, String); 2] {
    [("TLS_KEY", world.write("tls.key", key)), ("TLS_CERT", world.write("tls.crt", certificate))]
}

async fn start(world: &World, certificate: &Certificate, more: &[(&str, &str)]) -> Edge {
    let files = install(world, &certificate.pem, &certificate.key);
    let files = files.each_ref().map(|(name, path)| (*name, path.as_str()));
    let mut service = world.start("ingest", &[&files[..], more].concat());
    service.wait_ready().await.unwrap();
    Edge::new(service)
}

/// A TLS client that trusts only the certificates that it is created with.
struct Client(TlsConnector);

impl Client {
    fn new(trusted: &[&Certificate], protocol: &str) -> Self {
        let mut roots = RootCertStore::empty();
        trusted.iter().for_each(|certificate| roots.add(certificate.der.clone()).unwrap());
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Self(TlsConnector::from(Arc::new(config)))
    }

    async fn connect(&self, edge: &Edge) -> io::Result<TlsStream<TcpStream>> {
        let stream = self.0.connect("localhost".try_into().unwrap(), connect(edge).await).await?;
        assert_eq!(
            stream.get_ref().1.alpn_protocol(),
            self.0.config().alpn_protocols.first().map(Vec::as_slice)
        );
        Ok(stream)
    }

    /// Posts a line over a new connection; returns the answer and the certificate of the edge.
    async fn post(&self, edge: &Edge, line: String) -> (HttpResponse, CertificateDer<'static>) {
        let stream = self.connect(edge).await.unwrap();
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        let request =
            Request::post("https://localhost/v1/events")
                .header("host", "localhost")
                .body(Full::<Bytes>::from(line));
        (answered(stream, request.unwrap()).await, shown)
    }
}

async fn answered(stream: TlsStream<TcpStream>, request: Request<Full<Bytes>>) -> HttpResponse {
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = TokioIo::new(stream);
    let answer: Response<Incoming> = if http2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    } else {
        let (mut sender, connection) = http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    };
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    HttpResponse { status: head.status.as_u16(), headers: head.headers, text }
}

#[tokio::test]
async fn events_sent_with_http1_and_http2_over_tls_are_counted() {
    let world = World::new("tls_protocols").await;
    let _aggregator = world.aggregator().await;
    let certificate = Certificate::new();
    let edge = start(&world, &certificate, &[]).await;
    let mut rng = fastrand::Rng::with_seed(31);
    let mut oracle = Oracle::default();
    for protocol in ["http/1.1", "h2"] {
        let client = Client::new(&[&certificate], protocol);
        for _ in 0..20 {
            let made = TestEvent::random(&mut rng, now());
            let (answer, _) = client.post(&edge, made.line()).await;
            oracle.record_report(&answer, &[Some(made)]);
        }
    }
    assert!(Client::new(&[&certificate], "smtp").connect(&edge).await.is_err());
    world.assert_counted(&oracle.counts()).await;
    edge.assert_balanced().await;
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_failed_request_and_a_bad_one_is_not_used() {
    let world = World::new("tls_reload").await;
    let (first, second, third) = (Certificate::new(), Certificate::new(), Certificate::new());
    let mut edge = start(&world, &first, &[]).await;
    let client = Client::new(&[&first, &second, &third], "h2");
    let shown = async |edge: &Edge| {
        let (answer, shown) = client.post(edge, r#"{"event":"a"}"#.to_owned()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        shown
    };
    assert_eq!(shown(&edge).await, first.der);
    install(&world, &second.pem, &second.key);
    wait_for("the new certificate", DEADLINE, async || shown(&edge).await == second.der).await.unwrap();
    let is_stale = async |edge: &Edge| edge.metric("ingest_tls_stale").await == 1;
    wait_for("`ingest_tls_stale` to be 0", DEADLINE, async || !is_stale(&edge).await).await.unwrap();

    install(&world, &third.pem, &first.key);
    wait_for("`ingest_tls_stale` to be 1", DEADLINE, async || is_stale(&edge).await).await.unwrap();
    assert_eq!(shown(&edge).await, second.der);
    install(&world, &third.pem, &third.key);
    wait_for("the third certificate", DEADLINE, async || shown(&edge).await == third.der).await.unwrap();
    assert!(!is_stale(&edge).await);

    let log = std::fs::read_to_string(edge.service.process().log()).unwrap();
    assert!(log.contains("tls.key") && log.contains("it does not belong to the certificate"), "{log}");
    let of_keys = [&first, &second, &third].map(|certificate| certificate.key.lines().nth(1).unwrap());
    assert!(of_keys.iter().all(|line| !log.contains(line)), "{log}");
    edge.assert_balanced().await;
}

#[tokio::test]
async fn connections_without_tls_are_closed_and_do_not_disturb_other_clients() {
    let world = World::new("tls_strangers").await;
    let certificate = Certificate::new();
    let edge = start(&world, &certificate, &[("HEADER_TIMEOUT", "2s")]).await;
    let client = Client::new(&[&certificate], "http/1.1");
    let hello: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let mut strangers = Vec::new();
    for bytes in [
        &b""[..],
        hello,
        b"POST /v1/events HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\0\xff\x16garbage, and more of it",
    ] {
        strangers.push(connect_and_send(&edge, bytes).await);
    }
    // While the edge waits for the handshakes of the first two connections, it serves other clients.
    let (answer, _) = client.post(&edge, r#"{"event":"a"}"#.to_owned()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    for mut stranger in strangers {
        let received = read_until_closed(&mut stranger).await;
        assert!(!received.starts_with(b"HTTP"), "{received:?}");
    }
    // The time limit of a handshake, `HEADER_TIMEOUT`, also holds for the first request after the handshake.
    let mut silent = client.connect(&edge).await.unwrap();
    assert!(read_until_closed(&mut silent).await.is_empty());

    assert_eq!(edge.metric("ingest_tls_handshake_failures_total").await, 4);
    let (answer, _) = client.post(&edge, r#"{"event":"a"}"#.to_owned()).await;
    assert_eq!(
        (answer.status, edge.metric("ingest_events_received_total").await),
        (200, 2),
        "{}",
        answer.text
    );
    let closed = wait_for("all connections to be closed", DEADLINE, async || {
        edge.metric("ingest_connections").await == 0
    });
    closed.await.unwrap();
    edge.assert_balanced().await;
}
