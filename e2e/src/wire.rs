//! Sends bytes that no HTTP client would send, and writes records directly to Kafka.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use crate::oracle::{TestEvent, now};
use crate::world::{DEADLINE, Edge, World};

/// The enriched line that the edge would write into a record for a client's `line`.
pub fn enriched(line: &str) -> String {
    let time = now();
    format!(r#"{{"tenant":"default","ip":"203.0.113.7","server_time":"{time}",{}"#, &line[1..])
}

/// Appends a record with these events to a partition of the topic, and waits until Kafka has acknowledged it.
pub fn produce(world: &World, partition: i32, made: &[TestEvent]) {
    let (id, lines) = (Uuid::now_v7().to_string(), made.len().to_string());
    let value: Vec<_> = made.iter().map(|made| enriched(&made.line())).collect();
    world.produce(partition, &[("v", "1"), ("n", &lines), ("id", &id)], value.join("\n").as_bytes());
}

/// Connects to the edge's port for clients.
pub async fn connect(edge: &Edge) -> TcpStream {
    let address = edge.service.http();
    TcpStream::connect(address.trim_start_matches("http://")).await.unwrap()
}

/// Connects to the edge and sends these bytes.
pub async fn connect_and_send(edge: &Edge, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(edge).await;
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Reads until the edge closes the connection, and returns what was read. The client leaves the connection open.
pub async fn read_until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut received = Vec::new();
    // An error of the read is ignored: if the edge closes the connection before it has read all bytes, the connection
    // is reset.
    let _reset =
        timeout(DEADLINE, stream.read_to_end(&mut received)).await.expect("the edge closes the connection");
    received
}

/// The start of an answer up to its status code; empty if the edge closed the connection first.
pub async fn first_line(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut line = [0; 12];
    let read = timeout(DEADLINE, stream.read_exact(&mut line)).await.expect("the edge answers or closes");
    read.map_or(String::new(), |_| String::from_utf8_lossy(&line).into_owned())
}
