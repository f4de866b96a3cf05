use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// A running server whose service notifies `arrived` when it has a request, and answers once `release` is notified.
struct Held {
    addr: SocketAddr,
    arrived: Arc<Notify>,
    release: Arc<Notify>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<Result<(), DrainOverran>>,
}

async fn held(drain: Duration) -> Held {
    held_by(Server::default(), drain).await
}

async fn held_by(server: Server, drain: Duration) -> Held {
    let listener = bind("127.0.0.1:0".parse().unwrap(), "LISTEN_ADDR").unwrap();
    let addr = listener.local_addr().unwrap();
    let (arrived, release, shutdown) =
        (Arc::new(Notify::new()), Arc::new(Notify::new()), CancellationToken::new());
    let service = {
        let (arrived, release) = (Arc::clone(&arrived), Arc::clone(&release));
        service_fn(move |request: Request<Incoming>| {
            let (arrived, release) = (Arc::clone(&arrived), Arc::clone(&release));
            async move {
                arrived.notify_one();
                release.notified().await;
                let peer = request.extensions().get::<PeerAddr>().expect("the peer is in the extensions").0;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(peer.ip().to_string()))))
            }
        })
    };
    let served = tokio::spawn(server.until(listener, service, shutdown.clone(), drain));
    Held { addr, arrived, release, shutdown, served }
}

#[tokio::test]
async fn a_request_taken_before_the_stop_is_answered_and_later_ones_are_refused() {
    let held = held(Duration::from_secs(30)).await;
    let request = tokio::spawn(reqwest::get(format!("http://{}/", held.addr)));
    held.arrived.notified().await;
    held.shutdown.cancel();
    held.release.notify_one();
    let answer = request.await.unwrap().unwrap();
    assert_eq!(answer.text().await.unwrap(), "127.0.0.1");
    held.served.await.unwrap().unwrap();
    assert!(reqwest::get(format!("http://{}/", held.addr)).await.unwrap_err().is_connect());
}

#[tokio::test]
async fn an_ipv4_peer_of_a_dual_stack_socket_has_an_ipv4_address() {
    let listener = bind(every_address(0), "LISTEN_ADDR").unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = service_fn(|request: Request<Incoming>| async move {
        let peer = request.extensions().get::<PeerAddr>().expect("the peer is in the extensions").0;
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(peer.ip().to_string()))))
    });
    let serving = Server::default().until(listener, service, CancellationToken::new(), Duration::ZERO);
    let _serving = tokio::spawn(serving);
    for (host, peer) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        let answer = reqwest::get(format!("http://{host}:{port}/")).await.unwrap();
        assert_eq!(answer.text().await.unwrap(), peer);
    }
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    let held = held(Duration::from_millis(1)).await;
    let request = tokio::spawn(reqwest::get(format!("http://{}/", held.addr)));
    held.arrived.notified().await;
    held.shutdown.cancel();
    assert_eq!(
        held.served.await.unwrap().unwrap_err().to_string(),
        "open connections did not finish within 1ms"
    );
    request.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_complete_its_headers_is_closed() {
    let held = held(Duration::from_secs(30)).await;
    for sent in [&b""[..], b"P", b"GET / HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = TcpStream::connect(held.addr).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let start = time::Instant::now();
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{sent:?}: {answer:?}");
        assert_eq!(start.elapsed().as_secs(), ConnectionLimits::default().header_time.as_secs(), "{sent:?}");
    }
}

/// Everything that is received until the connection ends.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_the_longer_idle_timeout() {
    let held = held(Duration::from_secs(30)).await;
    held.release.notify_one();
    let mut stream = TcpStream::connect(held.addr).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let start = time::Instant::now();
    assert!(until_closed(&mut stream).await.starts_with("HTTP/1.1 200"));
    // Not exactly 75 s: while a packet is in transit, the paused clock may already jump to another deadline.
    assert!((75..=80).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test]
async fn at_the_limit_of_connections_a_connection_that_becomes_idle_makes_room() {
    let connections = NonZeroUsize::new(1).unwrap();
    let limits = ConnectionLimits { connections, ..ConnectionLimits::default() };
    let held = held_by(Server { limits, ..Server::default() }, Duration::from_secs(30)).await;
    let connect = async || {
        let mut stream = TcpStream::connect(held.addr).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        stream
    };
    let _busy = connect().await;
    held.arrived.notified().await;
    let mut waiting = connect().await;
    // No connection is idle before the first request is answered.
    held.release.notify_one();
    let start = time::Instant::now();
    held.arrived.notified().await;
    assert!(start.elapsed() < ConnectionLimits::default().idle_time, "{:?}", start.elapsed());
    held.release.notify_one();
    let mut answer = [0; 12];
    waiting.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// Sends a response of 64 MiB to a client that pauses before each 4 MiB that it reads. Returns how many bytes the
/// client received. The idle timeout of the connection is one second.
async fn received_with_pauses(pause: Duration) -> usize {
    const BODY: usize = 64 << 20;
    let listener = bind("127.0.0.1:0".parse().unwrap(), "LISTEN_ADDR").unwrap();
    let addr = listener.local_addr().unwrap();
    let service = service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![0; BODY]))))
    });
    let limits = ConnectionLimits { idle_time: Duration::from_secs(1), ..ConnectionLimits::default() };
    let server = Server { limits, ..Server::default() };
    tokio::spawn(server.until(listener, service, CancellationToken::new(), Duration::ZERO));
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let (mut received, mut piece) = (0, vec![0; 4 << 20]);
    while received < BODY {
        time::sleep(pause).await;
        match stream.read_exact(&mut piece).await {
            Ok(read) => received += read,
            Err(_) => break,
        }
    }
    received
}

#[tokio::test]
async fn a_client_may_read_a_long_response_slowly_but_not_stop() {
    assert_eq!(received_with_pauses(Duration::from_millis(200)).await, 64 << 20);
    assert!(received_with_pauses(Duration::from_secs(3)).await < 64 << 20);
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_ends_with_its_next_answer() {
    let held = held(Duration::from_secs(30)).await;
    let mut stream = TcpStream::connect(held.addr).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    held.arrived.notified().await;
    time::sleep(ConnectionLimits::default().age.mul_f64(1.1)).await;
    let start = time::Instant::now();
    held.release.notify_one();
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    assert!(start.elapsed() < ConnectionLimits::default().header_time);
}

#[tokio::test]
async fn a_client_that_sends_more_than_is_read_gets_the_response_and_no_reset() {
    let held = held(Duration::from_secs(30)).await;
    held.release.notify_one();
    let mut stream = TcpStream::connect(held.addr).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 8388608\r\n\r\n").await.unwrap();
    // Like most clients, this one reads only after it has sent everything.
    stream.write_all(&vec![b'x'; 8 << 20]).await.unwrap();
    assert!(until_closed(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_burst_of_clients_waits_to_be_accepted_and_none_is_reset() {
    const CLIENTS: usize = 500;
    let listener = bind("127.0.0.1:0".parse().unwrap(), "LISTEN_ADDR").unwrap();
    let addr = listener.local_addr().unwrap();
    // No server accepts yet: all clients wait in the kernel's queue.
    let clients = (0..CLIENTS).map(|_| async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        stream
    });
    let connecting = time::timeout(Duration::from_secs(20), join_all(clients));
    let clients = connecting.await.expect("the kernel's queue holds all clients");
    let service =
        service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(Full::new(Bytes::new()))));
    let shutdown = CancellationToken::new();
    tokio::spawn(Server::default().until(listener, service, shutdown.clone(), Duration::ZERO));
    for mut client in clients {
        assert!(until_closed(&mut client).await.starts_with("HTTP/1.1 200"));
    }
    shutdown.cancel();
}

#[tokio::test]
async fn the_error_about_a_port_in_use_names_its_variable() {
    let first = bind("127.0.0.1:0".parse().unwrap(), "LISTEN_ADDR").unwrap();
    let addr = first.local_addr().unwrap();
    let error = bind(addr, "LISTEN_ADDR").unwrap_err().to_string();
    assert_eq!(
        error,
        format!("listen on {addr}: the port is in use; free it or set LISTEN_ADDR to another address")
    );
}

#[tokio::test]
async fn a_stop_without_connections_is_immediate() {
    let listener = bind("127.0.0.1:0".parse().unwrap(), "LISTEN_ADDR").unwrap();
    let service = service_fn(|_: Request<Incoming>| pending::<Result<Response<Full<Bytes>>, Infallible>>());
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    Server::default().until(listener, service, shutdown, Duration::from_secs(3600)).await.unwrap();
}
