//! Hostile clients at the level of TCP: each gets an answer or its connection is closed, no part of a body is read as
//! a request, and all other clients are served.

use std::time::Duration;

use devstack::wait_for;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{interval, timeout};

use crate::client::{Http, HttpResponse};
use crate::wire::{connect, connect_and_send, read_until_closed};
use crate::world::{DEADLINE, Edge, World};

const EVENT: &str = r#"{"event":"a"}"#;
/// A request that is hidden in bodies. If the edge read it as a request, the edge would accept a click.
const HIDDEN: &str = "POST /analytics/1700000000000/smuggled/click HTTP/1.1\r\nHost: x\r\n\r\n";

/// An edge with short timeouts, so that it closes connections quickly.
async fn edge_with_short_timeouts(world: &World) -> Edge {
    let timeouts = [
        ("HEADER_TIMEOUT", "1s"),
        ("KEEP_ALIVE_TIMEOUT", "1s"),
        ("BODY_IDLE_TIMEOUT", "1s"),
        // `BODY_TIMEOUT` is so long that it never expires in these tests. Only the timeouts above and `BODY_MIN_RATE`
        // end a request.
        ("BODY_TIMEOUT", "60s"),
    ];
    let mut service = world.start("ingest", &timeouts);
    service.wait_ready().await.unwrap();
    Edge::new(service)
}

/// The status codes of all answers to these bytes.
async fn codes(edge: &Edge, sent: &[u8]) -> Vec<u16> {
    let mut stream = connect(edge).await;
    // The edge may close the connection before all bytes are sent.
    let _cut = stream.write_all(sent).await;
    let received = read_until_closed(&mut stream).await;
    let received = String::from_utf8_lossy(&received).into_owned();
    received.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().unwrap()).collect()
}

/// A request for `/v1/events` with these header lines.
fn post(headers: &str, body: &str) -> String {
    format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n{body}")
}

/// The answer to one event. Uses a new connection, because the edge may close an idle connection at any time.
async fn answer(edge: &Edge) -> HttpResponse {
    Http::new(edge.service.http()).post_lines(&[EVENT.to_owned()]).await
}

/// Checks that the edge still serves, and that before this check it had received exactly `received` lines. If the edge
/// had read [`HIDDEN`] as a request, it would have counted one more line.
async fn assert_healthy(edge: &Edge, received: u64) {
    let answer = answer(edge).await;
    assert_eq!((answer.status, answer.json()["accepted"].clone()), (200, json!(1)), "{}", answer.text);
    assert_eq!(edge.metric("ingest_events_received_total").await, received + 1);
    edge.assert_balanced().await;
}

#[tokio::test]
async fn no_request_hides_in_the_body_of_another() {
    let world = World::new("hostile_smuggling").await;
    let edge = edge_with_short_timeouts(&world).await;
    let with_event = format!("{EVENT}{HIDDEN}");
    let chunked = format!("0\r\n\r\n{HIDDEN}");
    let in_a_chunk = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    let te = "Transfer-Encoding: chunked";
    let all = format!("Content-Length: {}", chunked.len());
    // If a request has both `Content-Length` and `Transfer-Encoding: chunked`, the edge ignores the length, reads the
    // chunks, and closes the connection after its answer. Each answer is 400, because the chunks have no valid event.
    for sent in [post(&format!("{all}\r\n{te}"), &chunked), post(&format!("{te}\r\n{all}"), &chunked)] {
        assert_eq!(codes(&edge, sent.as_bytes()).await, [400], "{sent}");
    }
    let sent = post(&format!("Content-Length: 4\r\n{te}"), &in_a_chunk);
    assert_eq!(codes(&edge, sent.as_bytes()).await, [400], "{sent}");

    for headers in [
        "Content-Length: 13\r\nContent-Length: 0",
        "Content-Length: 0\r\nContent-Length: 13",
        "Content-Length: 13, 13",
        "Content-Length: +13",
        "Content-Length: 0xd",
        "Content-Length: -1",
        "Content-Length: 13 13",
        "Content-Length:",
        "Content-Length: 18446744073709551629",
        "Content-Length : 13",
        "Content-Length: 1\r\n 3",
        "Content-Length\r\n: 13",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding:\u{b}chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: x\rContent-Length: 13",
        "X: \0\r\nContent-Length: 13",
        "X\0: x\r\nContent-Length: 13",
    ] {
        for body in [&with_event, &in_a_chunk] {
            assert_eq!(codes(&edge, post(headers, body).as_bytes()).await, [400], "{headers:?}");
        }
    }
    let old = post(te, &in_a_chunk).replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(codes(&edge, old.as_bytes()).await, [400]);
    // One request above had `HIDDEN` in a chunk, so the edge received the two lines of `HIDDEN` as lines of a body.
    assert_healthy(&edge, 2).await;
}

#[tokio::test]
async fn a_body_whose_chunks_are_broken_is_refused_and_its_connection_closed() {
    let world = World::new("hostile_chunks").await;
    let edge = edge_with_short_timeouts(&world).await;
    let chunked = "Transfer-Encoding: chunked";
    for size in ["", "x", "-1", "+d", "0xd", "d d", "10000000000000000d", "d\n", "d;\n", "d\r", " d"] {
        let sent = post(chunked, &format!("{size}\r\n{EVENT}\r\n0\r\n\r\n{HIDDEN}"));
        assert_eq!(codes(&edge, sent.as_bytes()).await, [400], "{size:?}");
    }
    // A chunk that is one byte longer than its declared size, and a chunk whose declared size is impossible.
    let sent = post(chunked, &format!("c\r\n{EVENT}\r\n0\r\n\r\n{HIDDEN}"));
    assert_eq!(codes(&edge, sent.as_bytes()).await, [400]);
    let sent = post(chunked, &format!("ffffffffffffff00\r\n{}", "x".repeat(9 << 20)));
    assert!(matches!(codes(&edge, sent.as_bytes()).await[..], [] | [413]));

    // Chunks of one byte, chunk extensions and a trailer are unusual but valid.
    let bytes: String = EVENT.chars().map(|byte| format!("1;x=y\r\n{byte}\r\n")).collect();
    let sent = post(chunked, &format!("{bytes}0\r\nTrailer: x\r\n\r\n"));
    assert_eq!(codes(&edge, sent.as_bytes()).await, [200]);
    assert_healthy(&edge, 1).await;
}

#[tokio::test]
async fn a_request_head_that_is_not_valid_http1_is_refused() {
    let world = World::new("hostile_heads").await;
    let edge = edge_with_short_timeouts(&world).await;
    let long = |bytes| format!("POST /v1/events?{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(bytes));
    let header = |bytes: usize| post(&format!("X: {}\r\nContent-Length: 0", "x".repeat(bytes)), "");
    let headers = |count| post(&"X: x\r\n".repeat(count), "");
    for (sent, expected) in [
        ("GET /\r\n\r\n".to_owned(), [400].as_slice()),
        ("\0\u{1} / HTTP/1.1\r\n\r\n".to_owned(), &[400]),
        ("POST /v1/events HTTP/7.3\r\nHost: x\r\n\r\n".to_owned(), &[400]),
        ("POST  /v1/events HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), &[400]),
        ("POST /v1/ev ents HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), &[400]),
        ("CONNECT elsewhere:80 HTTP/1.1\r\nHost: elsewhere\r\n\r\n".to_owned(), &[404]),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), &[404]),
        ("POST //v1/events HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), &[404]),
        (long(17 << 10), &[431]),
        (long(60 << 10), &[431]),
        (header(17 << 10), &[431]),
        (headers(70), &[431]),
    ] {
        let start = &sent[..sent.len().min(60)];
        assert_eq!(codes(&edge, sent.as_bytes()).await, expected, "{start:?}");
    }
    // These heads are so long that the edge closes the connection before it has read them completely. The unread bytes
    // make TCP reset the connection, and the client may then lose the answer.
    for sent in [long(10 << 20), header(10 << 20), headers(1 << 20)] {
        assert!(matches!(codes(&edge, sent.as_bytes()).await[..], [] | [431]));
    }
    let tls_client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
    assert_eq!(codes(&edge, tls_client_hello).await, [400]);

    // Unusual but valid: an absolute URI as the target, and header lines that end without a carriage return.
    let absolute = post("Content-Length: 13", EVENT).replace("/v1/events", "http://elsewhere/v1/events");
    assert_eq!(codes(&edge, absolute.as_bytes()).await, [200]);
    let body = format!("{EVENT}\n{HIDDEN}");
    let bare = post(&format!("Content-Length: {}", body.len()), "").replace("\r\n", "\n") + &body;
    assert_eq!(codes(&edge, bare.as_bytes()).await, [200], "line ends without a carriage return");
    // The first valid request had one line. The second had three: the event and, as invalid lines, the two lines of
    // `HIDDEN`.
    assert_healthy(&edge, 1 + 3).await;
}

/// Writes `bytes` every 100 ms until a write fails.
async fn drip(mut stream: OwnedWriteHalf, bytes: &'static [u8]) {
    let mut ticks = interval(Duration::from_millis(100));
    while stream.write_all(bytes).await.is_ok() {
        ticks.tick().await;
    }
}

#[tokio::test]
async fn slow_request_heads_and_bodies_time_out() {
    let world = World::new("hostile_slow").await;
    let edge = edge_with_short_timeouts(&world).await;
    let head = b"POST /v1/events HTTP/1.1\r\n";
    let endless = post("Content-Length: 1000", "{");
    let check = async |start: &[u8], more: &'static [u8], expected: &str| {
        let (mut read, write) = connect_and_send(&edge, start).await.into_split();
        let dripping = tokio::spawn(drip(write, more));
        let closed = timeout(DEADLINE / 4, read_until_closed(&mut read)).await;
        let received = closed.expect("the edge closes the connection long before `BODY_TIMEOUT` expires");
        assert!(String::from_utf8_lossy(&received).starts_with(expected), "{received:?}");
        dripping.abort();
    };
    tokio::join!(
        check(head, b"X: x\r\n", ""),
        check(head, b"x", ""),
        check(endless.as_bytes(), b"", "HTTP/1.1 408 "),
        // No pause between two bytes is too long, but the body arrives more slowly than `BODY_MIN_RATE` allows.
        check(endless.as_bytes(), b" ", "HTTP/1.1 408 "),
        async { assert_eq!(answer(&edge).await.status, 200) },
    );
    let released = async || edge.metric("ingest_inflight_bytes").await == 0;
    wait_for("`ingest_inflight_bytes` to be 0", DEADLINE, released).await.unwrap();
    assert_healthy(&edge, 1).await;
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// The method `POST`, the scheme `http`, the path `/v1/events` and the authority `x`, encoded with HPACK.
const HEAD: &[u8] = b"\x83\x86\x04\x0a/v1/events\x41\x01x";

/// The error code of the edge's first GOAWAY frame that reports an error; `None` if there is no such frame.
fn goaway(mut received: &[u8]) -> Option<u32> {
    while received.len() >= 9 {
        let length = u32::from_be_bytes([0, received[0], received[1], received[2]]) as usize;
        let (frame, rest) = received.split_at_checked(9 + length)?;
        match frame[3] {
            GOAWAY if frame[13..17] != [0; 4] => {
                return frame[13..17].try_into().map(u32::from_be_bytes).ok();
            }
            _ => received = rest,
        }
    }
    None
}

#[tokio::test]
async fn a_connection_that_abuses_http2_is_closed_while_others_are_served() {
    let world = World::new("hostile_http2").await;
    let edge = edge_with_short_timeouts(&world).await;
    let opened = |stream| frame(HEADERS, END_HEADERS, stream, HEAD);
    let streams = || (0..5000_u32).map(|stream| 2 * stream + 1);
    let reset =
        streams().flat_map(|stream| [opened(stream), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())]);
    // The header `te: x`. In HTTP/2, `trailers` is the only allowed value of `te`.
    let bad_head = [HEAD, b"\x00\x02te\x01x"].concat();
    let bad_heads = streams().map(|stream| frame(HEADERS, END_HEADERS, stream, &bad_head));
    let endless_head = [frame(HEADERS, 0, 1, HEAD)].into_iter();
    let endless_head = endless_head.chain((0..5000).map(|_| frame(CONTINUATION, 0, 1, b"\x00\x01x\x01x")));
    let pings = (0..200_000).map(|_| frame(PING, 0, 0, &[0; 8]));
    let (protocol_error, enhance_your_calm) = (1, 11);
    for (what, frames, expected) in [
        ("rapid reset", reset.collect::<Vec<_>>(), Some(enhance_your_calm)),
        ("requests that make the edge send resets", bad_heads.collect(), Some(enhance_your_calm)),
        ("a header block without an end", endless_head.collect(), Some(enhance_your_calm)),
        ("data for a stream that is not open", vec![frame(DATA, 0, 1, b"x")], Some(protocol_error)),
        ("pings", pings.collect(), None),
    ] {
        let mut stream = connect(&edge).await;
        let start = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])];
        let sent = [start.concat(), frames.concat()].concat();
        let (received, answer) = tokio::join!(
            async {
                // The edge may close the connection before all frames are sent.
                let _cut = timeout(DEADLINE, stream.write_all(&sent)).await;
                read_until_closed(&mut stream).await
            },
            answer(&edge)
        );
        assert_eq!(answer.status, 200, "{what}: {}", answer.text);
        if expected.is_some() {
            assert_eq!(goaway(&received), expected, "{what}");
        }
    }
    assert_healthy(&edge, 5).await;
}
