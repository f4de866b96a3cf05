//! How each service sets up its process at the start: its limit on open files, and the addresses where it listens.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use devstack::{ports, wait_for};
use rustix::process::{Resource, getrlimit};

use crate::client::Http;
use crate::world::{DEADLINE, World};

/// A child process that is killed when this value is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The soft and the hard limit on open files of a process.
fn open_files(process: u32) -> (String, String) {
    let limits =
        std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

#[tokio::test]
async fn a_service_raises_its_open_files_limit_and_answers_on_ipv4_and_ipv6() {
    for service in ["ingest", "stream-agg", "query-api"] {
        let [http, admin] = [(); 2].map(|()| ports::free().unwrap());
        let child = Command::new("sh")
            // Starts the service with a low soft limit on open files, as containerd and systemd do.
            .args(["-c", "ulimit -S -n 256 && exec \"$0\""])
            .arg(super::program(service))
            .env_clear()
            .envs([("KAFKA_BROKERS", "127.0.0.1:1"), ("CLICKHOUSE_URL", "http://127.0.0.1:1")])
            .env("LISTEN_ADDR", format!("[::]:{http}"))
            .env("ADMIN_ADDR", format!("[::]:{admin}"))
            .stderr(Stdio::null())
            .spawn();
        let child = Killed(child.unwrap());
        for host in ["127.0.0.1", "[::1]"] {
            let asked = Http::new(format!("http://{host}:{admin}"));
            let answers = async || {
                asked.try_send("GET", "/healthz", &[], "").await.is_ok_and(|answer| answer.status == 200)
            };
            wait_for(format!("{service} to answer on {host}"), DEADLINE, answers).await.unwrap();
        }
        let (soft, hard) = open_files(child.0.id());
        assert_eq!(soft, hard, "{service}");
        if service == "ingest" {
            let shown = Http::new(format!("http://[::1]:{admin}")).metric("ingest_open_files_limit").await;
            assert_eq!(shown, getrlimit(Resource::Nofile).maximum, "the metric must show the hard limit");
        }
    }
}

#[tokio::test]
async fn an_ipv4_client_keeps_its_ipv4_address_on_a_dual_stack_socket() {
    let world = World::new("process_ipv4").await;
    let (mut edge, _aggregator) = tokio::join!(world.edge(), world.aggregator());
    let port = edge.service.http().rsplit(':').next().unwrap().to_owned();
    edge.service.terminate().await.unwrap();
    edge.service.set("LISTEN_ADDR", &format!("[::]:{port}"));
    // The edge trusts `X-Forwarded-For` only in requests from this IPv4 network. So the edge must read the client's
    // address `::ffff:127.0.0.1` on the IPv6 socket as `127.0.0.1`.
    edge.service.set("TRUSTED_PROXIES", "127.0.0.0/8");
    edge.service.restart().unwrap();
    edge.service.wait_ready().await.unwrap();
    let line = r#"{"event":"a"}"#.to_owned();
    let sent = edge.http.send("POST", "/v1/events", &[("x-forwarded-for", "203.0.113.7")], line).await;
    assert_eq!(sent.status, 200, "{}", sent.text);
    let stored = "SELECT ip FROM events WHERE tenant != ''";
    wait_for("the event", DEADLINE, async || !world.rows(stored).await.is_empty()).await.unwrap();
    assert_eq!(world.rows(stored).await, [["::ffff:203.0.113.7"]]);
}
