use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::routing::post;
use tokio::net::TcpListener;

use super::*;

#[test]
fn the_code_of_an_error_tells_what_became_of_the_query() {
    let error = "bad response: Code: 158. DB::Exception: Limit for rows exceeded. (TOO_MANY_ROWS)";
    assert_eq!(kind(error), Kind::TooWide);
    assert_eq!(kind("Code: 159. DB::Exception: Timeout exceeded"), Kind::TooSlow);
    assert_eq!(kind("Code: 1580. DB::Exception"), Kind::Unavailable);
    assert_eq!(kind("connection refused"), Kind::Unavailable);
}

/// What ClickHouse 26.7 sends for two rows of a statement of ours, in RowBinaryWithNamesAndTypes.
fn two_rows() -> Vec<u8> {
    let mut bytes = vec![6];
    let names = ["part", "start", "keys", "figures", "size", "total"];
    let types = ["UInt8", "Int64", "Array(Nullable(String))", "Array(Nullable(Int128))", "UInt64", "UInt64"];
    for text in names.into_iter().chain(types) {
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&1_795_875_540_000_i64.to_le_bytes());
    // The aggregator declares what we do; `r` counts since 2026-11-28 14:19:00.001.
    bytes.extend_from_slice(&[2, 0, 0, 0, 1, b'r', 1, 0]);
    bytes.extend_from_slice(&1_795_875_540_001_i128.to_le_bytes());
    bytes.extend_from_slice(&[0; 16]);
    bytes.push(1);
    bytes.extend_from_slice(&1_795_737_600_i64.to_le_bytes());
    // The keys `a` and null; the figures -5 and null.
    bytes.extend_from_slice(&[2, 0, 1, b'a', 1, 2, 0]);
    bytes.extend_from_slice(&(-5_i128).to_le_bytes());
    bytes.push(1);
    bytes.extend_from_slice(&7_u64.to_le_bytes());
    bytes.extend_from_slice(&8_u64.to_le_bytes());
    bytes
}

/// Sends the statement to a server that answers this. Returns what was fetched, and the request it got.
async fn sent(statement: Statement, status: StatusCode, body: Vec<u8>) -> (Result<Fetched, Problem>, String) {
    let seen = Arc::new(Mutex::new(String::new()));
    let sees = Arc::clone(&seen);
    let answer = move |uri: Uri, text: String| async move {
        *sees.lock().unwrap() = format!("{uri}\n{text}");
        (status, body)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, Router::new().route("/", post(answer))).into_future());
    let config = ClickHouseConfig {
        url,
        database: "millrace".to_owned(),
        user: "poller".to_owned(),
        password: String::new(),
    };
    let mut database = Database::new(&config);
    database.client = database.client.with_compression(clickhouse::Compression::None);
    let fetched = database.fetch(statement).await;
    let seen = seen.lock().unwrap().clone();
    (fetched, seen)
}

fn statement() -> Statement {
    Statement {
        text: "SELECT '?' /* as it is */".to_owned(),
        parameters: vec![
            ("filter0".to_owned(), Parameter::Texts(vec!["it's".to_owned(), r"a\|b".to_owned()])),
            ("starts".to_owned(), Parameter::Moments(vec![1, 2])),
        ],
        settings: vec![("max_rows_to_read", "9".to_owned())],
    }
}

#[tokio::test]
async fn rows_are_read_and_parameters_and_settings_stand_beside_the_statement() {
    let (fetched, request) = sent(statement(), StatusCode::OK, two_rows()).await;
    let keys = vec![Some("a".to_owned()), None];
    let row =
        FetchedRow { part: 1, start: 1_795_737_600, keys, figures: vec![Some(-5), None], size: 7, total: 8 };
    let as_of = Some(UnixMillis(1_795_875_540_000));
    let reach = Reach { since: [("r".to_owned(), 1_795_875_541)].into(), theirs: None };
    assert_eq!(fetched, Ok(Fetched { as_of, reach, rows: vec![row] }));
    let (uri, text) = request.split_once('\n').unwrap();
    assert!(uri.contains("max_rows_to_read=9"), "{uri}");
    for (name, value) in [
        ("query", "SELECT '?' /* as it is */"),
        ("param_filter0", r"['it\'s','a\\|b']"),
        ("param_starts", "[1,2]"),
    ] {
        assert!(text.contains(&format!("name=\"{name}\"\r\n\r\n{value}\r\n")), "{text}");
    }
}

#[tokio::test]
async fn a_query_that_reads_too_much_is_too_wide() {
    let error = b"Code: 158. DB::Exception: Limit for rows exceeded. (TOO_MANY_ROWS)".to_vec();
    let (fetched, _) = sent(statement(), StatusCode::INTERNAL_SERVER_ERROR, error).await;
    assert_eq!(fetched, Err(Kind::TooWide.into()));
}

#[test]
fn the_rollups_of_another_declaration_are_read() {
    let first = |declared: &str| FetchedRow {
        part: 0,
        start: 0,
        keys: vec![Some(declared.to_owned())],
        figures: Vec::new(),
        size: 0,
        total: 0,
    };
    assert_eq!(reach(&first("")).theirs, None);
    let declared = Rollups::built_in();
    assert_eq!(reach(&first(declared.source())).theirs, Some(declared));
    // What a later release declares cannot be read here, so nothing of it is taken for ours.
    assert_eq!(reach(&first("[[view]]")).theirs, Some(no_rollups()));
}
