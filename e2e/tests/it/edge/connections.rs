//! Limits on open connections: for each client address, for all addresses together, and by the number of file
//! descriptors.

use std::fs;

use devstack::wait_for;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::wire::{connect_and_send, first_line, read_until_closed};
use crate::world::{DEADLINE, Edge, World};

/// A request with one event. The edge keeps its connection open after the answer.
const REQUEST: &[u8] = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"event\":\"a\"}";

async fn start(world: &World, more: &[(&str, &str)]) -> Edge {
    let mut service = world.start("ingest", more);
    service.wait_ready().await.unwrap();
    Edge::new(service)
}

#[tokio::test]
async fn connections_above_the_limit_of_an_address_are_closed_at_once_and_counted() {
    let world = World::new("connections_per_ip").await;
    let edge = start(&world, &[("MAX_CONNECTIONS_PER_IP", "3")]).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = connect_and_send(&edge, REQUEST).await;
        assert_eq!(first_line(&mut stream).await, "HTTP/1.1 200");
        open.push(stream);
    }
    assert!(read_until_closed(&mut connect_and_send(&edge, REQUEST).await).await.is_empty());
    assert_eq!(edge.metric("ingest_connections").await, 3);
    assert_eq!(edge.metric("ingest_connections_refused_total").await, 1);

    open.pop();
    let again = async || first_line(&mut connect_and_send(&edge, REQUEST).await).await == "HTTP/1.1 200";
    wait_for("a connection to be allowed again", DEADLINE, again).await.unwrap();
    edge.assert_balanced().await;
}

#[tokio::test]
async fn a_connection_above_the_total_limit_waits_until_another_one_ends() {
    let world = World::new("connections_all").await;
    let edge = start(&world, &[("MAX_CONNECTIONS", "1"), ("KEEP_ALIVE_TIMEOUT", "1s")]).await;
    let mut first = connect_and_send(&edge, REQUEST).await;
    assert_eq!(first_line(&mut first).await, "HTTP/1.1 200");
    let mut second = connect_and_send(&edge, REQUEST).await;
    assert_eq!(edge.metric("ingest_connections").await, 1);
    let (_, answer) = tokio::join!(read_until_closed(&mut first), first_line(&mut second));
    assert_eq!(answer, "HTTP/1.1 200");
    edge.assert_balanced().await;
}

#[tokio::test]
async fn without_free_file_descriptors_idle_connections_are_closed_for_new_ones() {
    let world = World::new("connections_descriptors").await;
    let mut edge = start(&world, &[]).await;
    let process = edge.service.process().id();
    let used = fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() as u64;
    let few = Rlimit { current: Some(used + 20), maximum: Some(used + 20) };
    prlimit(Pid::from_raw(process.try_into().unwrap()), Resource::Nofile, few).unwrap();
    // The client leaves each connection open and idle. The edge closes some of them to get free file descriptors; with
    // enough descriptors, it would close an idle connection only after 75 s (`KEEP_ALIVE_TIMEOUT`).
    let mut idle = Vec::new();
    for _ in 0..40 {
        let mut stream = connect_and_send(&edge, REQUEST).await;
        assert_eq!(first_line(&mut stream).await, "HTTP/1.1 200");
        idle.push(stream);
    }
    let failures = async || edge.metric("ingest_accept_failures_total").await;
    wait_for("a failed accept to be counted", DEADLINE, async || failures().await > 0).await.unwrap();
    edge.assert_balanced().await;
}
