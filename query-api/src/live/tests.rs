use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use futures_util::StreamExt as _;
use schemas::rollup::Rollups;
use tower::ServiceExt as _;

use super::*;
use crate::access::{DEFAULT_TENANT, KnownReader};
use crate::answers::Scope;
use crate::answers::row::SnapshotRow;
use crate::config::RefreshConfig;
use crate::metrics::Metrics;
use crate::snapshot::{Snapshot, SnapshotStatement};

fn state() -> Arc<AppState> {
    let refresh = RefreshConfig { interval: Duration::from_secs(3), deadline: Duration::from_secs(10) };
    Arc::new(AppState::new(refresh, Metrics::new()))
}

/// A snapshot of these tenants. Its `as_of` is the current time if `is_known`, and otherwise unknown.
fn snapshot_of(tenants: &[&str], rows: Vec<SnapshotRow>, is_known: bool) -> Snapshot {
    let now = UnixMillis::from(SystemTime::now());
    let scope = Scope { now, ..Scope::of_tenants(tenants) };
    let reach = SnapshotRow { as_of: if is_known { now.0 } else { 0 }, ..SnapshotRow::default() };
    let rows = rows.into_iter().chain([reach]).collect();
    SnapshotStatement::new(&Rollups::built_in()).unwrap().render(rows, &scope, now, None)
}

fn snapshot() -> Snapshot {
    snapshot_of(&[DEFAULT_TENANT], Vec::new(), true)
}

/// Opens a stream for a reader without a key.
fn open(service: Arc<LiveService>) -> Result<Messages, Problem> {
    super::open(service, Arc::default())
}

fn service(state: &Arc<AppState>, streams: usize) -> Arc<LiveService> {
    Arc::new(LiveService {
        state: Arc::clone(state),
        instance: "i".to_owned(),
        streams: Arc::new(OpenStreams::new(streams)),
        closing: CancellationToken::new(),
    })
}

/// The text of the next message.
async fn next(stream: &mut Pin<Box<impl Stream<Item = Result<Event, Infallible>>>>) -> Option<String> {
    let event = stream.next().await?.unwrap();
    let response = Sse::new(futures_util::stream::iter([Ok::<_, Infallible>(event)])).into_response();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_first_message_is_sent_at_once_and_another_with_each_snapshot() {
    let state = state();
    state.publish(snapshot());
    let mut stream = Box::pin(open(service(&state, 1)).unwrap().into_stream());
    let started = Instant::now();
    let first = next(&mut stream).await.unwrap();
    assert!(first.starts_with("id: i-1\ndata: {\"as_of\":\"20"), "{first}");
    assert!(first.contains("\"stale\":false,\"series\":{\"minutes\":[") && first.contains("\"active\":null"));
    assert_eq!(started.elapsed(), Duration::ZERO);
    state.publish(snapshot());
    assert!(next(&mut stream).await.unwrap().starts_with("id: i-2\n"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_latest_state_and_not_a_queue() {
    let state = state();
    state.publish(snapshot());
    let mut stream = Box::pin(open(service(&state, 1)).unwrap().into_stream());
    assert!(next(&mut stream).await.unwrap().starts_with("id: i-1\n"));
    (0..5).for_each(|_| state.publish(snapshot()));
    assert!(next(&mut stream).await.unwrap().starts_with("id: i-6\n"));
    assert!(time::timeout(Duration::from_secs(1), next(&mut stream)).await.is_err(), "a message was queued");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_opened_before_the_first_snapshot_waits_for_it() {
    let state = state();
    let mut stream = Box::pin(open(service(&state, 1)).unwrap().into_stream());
    assert!(time::timeout(Duration::from_secs(9), next(&mut stream)).await.is_err());
    state.publish(snapshot());
    assert!(next(&mut stream).await.unwrap().starts_with("id: i-1\n"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_shows_the_tenant_of_its_reader_once_a_refresh_has_read_it() {
    let state = state();
    state.publish(snapshot());
    let reader = Arc::new(Reader { tenant: "acme".to_owned(), ..Reader::default() });
    let mut stream = Box::pin(super::open(service(&state, 1), reader).unwrap().into_stream());
    assert!(
        time::timeout(Duration::from_secs(9), next(&mut stream)).await.is_err(),
        "acme was sent too early"
    );
    assert_eq!(state.wanted_tenants.current(Instant::now().into_std()), ["acme"]);
    let row = |tenant: &str, events| SnapshotRow {
        part: 8,
        tenant: tenant.to_owned(),
        events,
        ..SnapshotRow::default()
    };
    let rows = vec![row(DEFAULT_TENANT, 5), row("acme", 7)];
    state.publish(snapshot_of(&["acme", DEFAULT_TENANT], rows, true));
    let message = next(&mut stream).await.unwrap();
    assert!(message.contains("\"events\":7") && !message.contains("\"events\":5"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_becomes_stale_is_sent_again() {
    let state = state();
    let old = snapshot_of(&[DEFAULT_TENANT], Vec::new(), false);
    state.publish(snapshot());
    let mut stream = Box::pin(open(service(&state, 1)).unwrap().into_stream());
    assert!(next(&mut stream).await.unwrap().contains("\"stale\":false"));
    // In production, the latest snapshot becomes stale when it is too old. Instead, this test replaces the latest
    // snapshot with a stale snapshot under the same snapshot number.
    state.snapshot.store(Some(Arc::new(old)));
    let again = next(&mut stream).await.unwrap();
    assert!(again.starts_with("id: i-1\n") && again.contains("\"stale\":true"), "{again}");
}

#[tokio::test(start_paused = true)]
async fn streams_end_at_the_shutdown_and_none_is_opened_after_it() {
    let state = state();
    let service = service(&state, 2);
    state.publish(snapshot());
    let mut stream = Box::pin(open(Arc::clone(&service)).unwrap().into_stream());
    assert!(next(&mut stream).await.is_some());
    service.closing.cancel();
    assert_eq!(next(&mut stream).await, None);
    assert_eq!(open(service).err().map(|problem| problem.kind), Some(Kind::NoStream));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_before_its_connection_is_too_old() {
    let state = state();
    let mut stream = Box::pin(open(service(&state, 1)).unwrap().into_stream());
    let started = Instant::now();
    assert_eq!(next(&mut stream).await, None);
    assert_eq!(started.elapsed(), LIFETIME);
}

#[tokio::test(start_paused = true)]
async fn a_stream_beyond_the_limit_is_refused() {
    let state = state();
    let service = service(&state, 1);
    let first = open(Arc::clone(&service)).unwrap();
    assert_eq!(open(Arc::clone(&service)).err().map(|problem| problem.kind), Some(Kind::NoStream));
    drop(first);
    assert!(open(service).is_ok());
}

#[tokio::test]
async fn a_stream_is_never_compressed_or_cached() {
    let state = state();
    state.publish(snapshot());
    let closing = CancellationToken::new();
    let routes = routes(state, closing.clone()).layer(Extension(KnownReader::default()));
    let request = Request::get(ROUTE).header("accept-encoding", "gzip, zstd").body(Body::empty()).unwrap();
    let response = routes.oneshot(request).await.unwrap();
    let headers = response.headers();
    assert_eq!(response.status(), 200);
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-store, no-transform");
    assert_eq!(headers["x-accel-buffering"], "no");
    assert!(!headers.contains_key("content-encoding"));
    closing.cancel();
}
