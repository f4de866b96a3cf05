//! `/v1/live`: the current counts of events and users, as a stream of server-sent events. The HTML page shows them.
//!
//! Each new snapshot and each change of `stale` causes a message. A message has the whole current state, so a reader
//! that lost messages or its connection needs no earlier messages.
//!
//! Invariants:
//! - A stream sends no statement to ClickHouse, and shows only the data of its reader's tenant.
//! - A message is rendered only when the connection can send it. So a slow reader gets the latest state, and no
//!   messages queue up.
//! - At most [`MAX_STREAMS`] streams are open, and at most half of that number for one key.
//! - A stream is open for at most [`LIFETIME`]. After a key is revoked, its open streams go on for at most
//!   this time.

mod message;

mod open_streams;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use axum::routing::get;
use futures_util::Stream;
use futures_util::stream::unfold;
use schemas::time::UnixMillis;
use tokio::sync::watch;
use tokio::time::{self, Instant, Sleep};
use tokio_util::sync::CancellationToken;

use crate::access::{KnownReader, Reader};
use crate::problem::{Kind, Problem};
use crate::snapshot::{Snapshot, TenantAnswers};
use crate::state::AppState;
use open_streams::{Full, OpenStream, OpenStreams};

/// Maximum number of streams that may be open in one process.
const MAX_STREAMS: usize = 1_000;
/// After this time without a message, the stream sends a comment, because proxies close silent connections.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The maximum duration of a stream. The stream ends between two messages, and the reader connects again, perhaps to
/// another replica. When a connection reaches `MAX_CONNECTION_AGE` (default 300 s ± 10 %), the server closes the
/// connection, which could cut a message. A stream that opened together with its connection ends before this age.
const LIFETIME: Duration = Duration::from_secs(240);
/// The path, which is also the label of the route in metrics.
const ROUTE: &str = "/v1/live";
/// Tells nginx not to buffer the messages.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The state that all streams share.
struct LiveService {
    state: Arc<AppState>,
    /// A random prefix of the message ids, so that ids of different processes differ.
    instance: String,
    streams: Arc<OpenStreams>,
    /// Ends all streams when it is cancelled.
    closing: CancellationToken,
}

/// The route `/v1/live`. All of its streams end when `closing` is cancelled.
pub(crate) fn routes(state: Arc<AppState>, closing: CancellationToken) -> Router {
    let service = LiveService {
        state,
        instance: format!("{:08x}", fastrand::u32(..)),
        streams: Arc::new(OpenStreams::new(MAX_STREAMS)),
        closing,
    };
    Router::new().route(ROUTE, get(live)).with_state(Arc::new(service))
}

async fn live(State(service): State<Arc<LiveService>>, KnownReader(reader): KnownReader) -> Response {
    let metrics = &Arc::clone(&service.state).metrics;
    let response = match open(service, reader) {
        Ok(messages) => response(messages),
        Err(problem) => problem.into_response(),
    };
    metrics.answered(ROUTE, response.status());
    response
}

fn open(service: Arc<LiveService>, reader: Arc<Reader>) -> Result<Messages, Problem> {
    if service.closing.is_cancelled() {
        return Err(Kind::NoStream.into());
    }
    let is_unknown = |snapshot: &Arc<Snapshot>| snapshot.tenant(&reader.tenant).is_none();
    if service.state.snapshot.load().as_ref().is_some_and(is_unknown) {
        let wanted = service.state.wanted_tenants.want(reader.tenant.clone(), Instant::now().into_std());
        wanted.map_err(|_| Kind::TooManyKeys)?;
    }
    let stream = service.streams.open(reader.id.as_deref()).map_err(|full| match full {
        Full::Process => Kind::NoStream,
        Full::Key => Kind::NoStreamOfKey,
    })?;
    let open = CountedStream { stream: Some(stream), service: Arc::clone(&service) };
    service.count();
    Ok(Messages {
        snapshots: service.state.snapshots.subscribe(),
        end: Box::pin(time::sleep(LIFETIME)),
        sent: None,
        reader,
        open,
    })
}

fn response(messages: Messages) -> Response {
    let sse = Sse::new(messages.into_stream()).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    let mut response = sse.into_response();
    let headers = response.headers_mut();
    // A proxy that compresses or buffers messages would delay them.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

impl LiveService {
    /// Sets the metric `live_streams` to the number of open streams.
    fn count(&self) {
        self.state.metrics.live_streams(self.streams.len());
    }
}

/// An open stream. The metric of open streams counts it until it is dropped.
struct CountedStream {
    service: Arc<LiveService>,
    stream: Option<OpenStream>,
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        drop(self.stream.take());
        self.service.count();
    }
}

/// Produces the messages of one stream.
struct Messages {
    snapshots: watch::Receiver<u64>,
    /// A timer that ends the stream after [`LIFETIME`].
    end: Pin<Box<Sleep>>,
    /// The snapshot number and the value of `stale` in the latest message; `None` before the first message.
    sent: Option<(u64, bool)>,
    reader: Arc<Reader>,
    open: CountedStream,
}

impl Messages {
    fn into_stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        unfold(self, async |mut messages| Some((Ok(messages.next().await?), messages)))
    }

    /// Waits for the next message. The first message is sent as soon as a snapshot contains the reader's tenant. After
    /// that, each new snapshot and each change of `stale` causes a message. `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        let service = Arc::clone(&self.open.service);
        let state = &service.state;
        loop {
            if service.closing.is_cancelled() {
                return None;
            }
            // Read the number before the snapshot. If a new snapshot is published between the two reads, this message
            // shows it under the old number, and the next message shows it again. In the opposite order, the old
            // snapshot would get the new number, and the new snapshot would not be sent.
            let number = *self.snapshots.borrow_and_update();
            let snapshot = state.snapshot.load();
            let answers = snapshot.as_ref().and_then(|snapshot| snapshot.tenant(&self.reader.tenant));
            if let Some(TenantAnswers { live, .. }) = answers {
                let now = UnixMillis::from(SystemTime::now());
                let is_stale = message::is_stale(state, live, now);
                if self.sent.replace((number, is_stale)) != Some((number, is_stale)) {
                    let data = message::render(live, now, is_stale);
                    return Some(Event::default().id(format!("{}-{number}", service.instance)).data(data));
                }
            }
            tokio::select! {
                () = service.closing.cancelled() => return None,
                () = &mut self.end => return None,
                changed = self.snapshots.changed() => changed.ok()?,
                // If refreshes fail, no new snapshot arrives. Check regularly whether the latest one is stale by now.
                () = time::sleep_until(Instant::now() + state.refresh.interval) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
