//! The examples for the shell, JavaScript, Python and Go in `docs/clients.md` work as the page says.

use std::process::Command;

use devstack::{python, wait_for};
use runtime::vars::Vars;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{DEADLINE, World};

const PAGE: &str = include_str!("../../../../docs/clients.md");
/// The files that the page links to.
const FILES: [(&str, &str); 2] = [
    ("millrace.js", include_str!("../../../../docs/clients/millrace.js")),
    ("millrace.py", include_str!("../../../../docs/clients/millrace.py")),
];
/// The address that the page uses for the edge.
const ADDRESS: &str = "https://events.example.com";

/// The page's code blocks in `language`, with [`ADDRESS`] replaced by the address `edge`.
fn blocks(language: &str, edge: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let after_fences = PAGE.split(&fence).skip(1);
    after_fences.map(|rest| rest.split("```").next().unwrap().replace(ADDRESS, edge)).collect()
}

/// Runs a program in the world's directory. Returns what it prints.
fn run(world: &World, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(world.directory()).output();
    let output = output.unwrap_or_else(|error| panic!("run {program}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "run {program}: {}: {printed}{errors}", output.status);
    printed
}

/// Writes the client libraries where scripts can import them.
fn write_files(world: &World) {
    for (name, text) in FILES {
        world.write(name, text);
    }
    world.write("package.json", r#"{"type":"module"}"#);
}

/// A proxy in front of the edge. It answers the request of the first connection with 502 itself. It forwards the
/// request of the second connection, but closes that connection as soon as the edge begins its answer. It forwards all
/// later connections unchanged.
async fn unreliable_proxy(listener: TcpListener, edge: String) {
    for connection in 0.. {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut edge = TcpStream::connect(edge.trim_start_matches("http://")).await.unwrap();
        match connection {
            0 => {
                let mut head = [0; 64];
                client.read_exact(&mut head).await.unwrap();
                let bad_gateway =
                    b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                client.write_all(bad_gateway).await.unwrap();
            }
            1 => {
                let (mut from_edge, mut to_edge) = edge.split();
                let (mut from_client, _) = client.split();
                let mut answer = [0; 1];
                tokio::select! {
                    _ = tokio::io::copy(&mut from_client, &mut to_edge) => {}
                    read = from_edge.read(&mut answer) => assert_eq!(read.unwrap(), 1),
                }
            }
            _ => drop(tokio::spawn(async move {
                // An error here only means that the client or the edge closed its connection.
                let _ended = tokio::io::copy_bidirectional(&mut client, &mut edge).await;
            })),
        }
    }
}

/// The languages whose first example on the page is a program that the tests run, each with the file for the program
/// and the expected output.
const PROGRAMS: [(&str, &str, &str); 3] =
    [("js", "script.mjs", "2\n"), ("python", "program.py", "3\n"), ("go", "program.go", "stored\n")];
/// Number of events that all programs send together.
const SENT: u64 = 2 + 3 + 2;

/// Runs the page's program in this language against the address `edge`, and checks what the program prints.
fn run_program(world: &World, (language, name, printed): (&str, &str, &str), edge: &str) {
    let program = world.write(name, &blocks(language, edge)[0]);
    let output = match language {
        "js" => run(world, "node", &[&program]),
        "go" => run(world, "go", &["run", &program]),
        _ => run(world, python::find(&Vars::from_env()).unwrap().to_str().unwrap(), &[&program]),
    };
    assert_eq!(output, printed, "{language}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sent_again_after_a_lost_answer_counts_once() {
    let world = World::new("clients_again").await;
    let (edge, _aggregator) = tokio::join!(world.edge(), world.aggregator());
    write_files(&world);
    for program in PROGRAMS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let proxy = tokio::spawn(unreliable_proxy(listener, edge.service.http()));
        run_program(&world, program, &address);
        proxy.abort();
    }
    // The edge got each batch twice: the proxy dropped the edge's first answer, so the client sent the batch again.
    let lines = "SELECT sum(lines) FROM ledger";
    let waited = wait_for("all records", DEADLINE, async || world.number(lines).await == 2 * SENT);
    waited.await.unwrap();
    assert_eq!(world.number("SELECT sum(stored) FROM ledger").await, SENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_sends_a_batch_that_is_too_large_in_parts() {
    let world = World::new("clients_parts").await;
    let mut edge = world.start("ingest", &[("MAX_EVENTS", "1")]);
    edge.wait_ready().await.unwrap();
    let _aggregator = world.aggregator().await;
    write_files(&world);
    for program in PROGRAMS {
        run_program(&world, program, &edge.http());
    }
    let stored = "SELECT sum(stored) FROM ledger";
    wait_for("all events", DEADLINE, async || world.number(stored).await == SENT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_for_clients_are_accepted_and_counted() {
    let world = World::new("clients").await;
    let (edge, _aggregator, _api) = world.pipeline().await;
    let address = edge.service.http();
    let shell = blocks("sh", &address);
    assert_eq!(shell.len(), 2);
    let reports: String = shell.iter().map(|block| run(&world, "bash", &["-euc", block])).collect();
    assert!(reports.contains(r#""accepted":1,"#) && reports.contains(r#""accepted":2,"#), "{reports}");
    write_files(&world);
    for program in PROGRAMS {
        run_program(&world, program, &address);
    }

    let counted =
        "SELECT event, sum(events) FROM rollup.event_hourly WHERE tenant != '' GROUP BY event ORDER BY event";
    let expected = [["from_curl", "3"], ["from_go", "2"], ["from_javascript", "2"], ["from_python", "3"]];
    let waited = wait_for("the event counts", DEADLINE, async || world.rows(counted).await == expected);
    waited.await.unwrap();
}
