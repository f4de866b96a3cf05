use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::routing::post;
use tokio::net::TcpListener;

use super::*;

#[test]
fn the_error_code_of_clickhouse_decides_the_kind_of_problem() {
    let error = "bad response: Code: 158. DB::Exception: Limit for rows exceeded. (TOO_MANY_ROWS)";
    assert_eq!(kind(error), Kind::TooWide);
    assert_eq!(kind("Code: 159. DB::Exception: Timeout exceeded"), Kind::TooSlow);
    assert_eq!(kind("Code: 1580. DB::Exception"), Kind::Unavailable);
    assert_eq!(kind("connection refused"), Kind::Unavailable);
}

/// What ClickHouse 26.7 sends for one [`FetchedRow`], in RowBinaryWithNamesAndTypes.
fn one_row() -> Vec<u8> {
    let mut bytes = vec![6];
    let names = ["Part", "Start", "Keys", "Figures", "Size", "Total"];
    let types = ["UInt8", "Int64", "Array(Nullable(String))", "Array(Nullable(Int128))", "UInt64", "UInt64"];
    for text in names.into_iter().chain(types) {
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend_from_slice(text.as_bytes());
    }
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

/// Sends the statement to a server that responds with this status and body. Returns the fetched rows, and the request
/// that the server received.
async fn sent(
    statement: Statement,
    status: StatusCode,
    body: Vec<u8>,
) -> (Result<Vec<FetchedRow>, Problem>, String) {
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
    let fetched = database.rows(statement).await;
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
async fn parameters_and_settings_are_sent_apart_from_the_statement() {
    let (fetched, request) = sent(statement(), StatusCode::OK, one_row()).await;
    let keys = vec![Some("a".to_owned()), None];
    let row =
        FetchedRow { part: 1, start: 1_795_737_600, keys, figures: vec![Some(-5), None], size: 7, total: 8 };
    assert_eq!(fetched, Ok(vec![row]));
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
