//! The handlers of the routes: each turns a request into the content of its response. Cheap checks come first.

use std::net::IpAddr;
use std::time::SystemTime;

use ::http::request::Parts;
use ::http::{Method, Request};
use bytes::Bytes;
use hyper::body::Body;
use schemas::time::UnixMillis;
use schemas::trace::TraceParent;

use super::preferences::Preferences;
use super::response::{ApiResponse, ResponseBody};
use crate::accept::identity::Identity;
use crate::accept::report::Report;
use crate::accept::{Accepted, RequestContext, body};
use crate::app::App;
use crate::auth::keys::Caller;
use crate::endpoints::reactions;
use crate::outcome::Refusal;
use crate::publish::{Ack, PendingRecords};
use crate::route::Route;

/// A request that has passed [`admit`], and how to answer it.
struct AdmittedRequest {
    context: RequestContext,
    preferences: Preferences,
    /// When the request is answered.
    ack: Ack,
    /// The trace of the request; `None` if there is no trace or it is not sampled.
    trace: Option<TraceParent>,
}

/// Answers one request.
pub async fn respond<B>(app: &App, request: Request<B>, server_time: UnixMillis) -> ApiResponse
where
    B: Body<Data = Bytes> + Unpin,
{
    let (head, mut body) = request.into_parts();
    let (route, ip) = (Route::of(head.uri.path()), app.auth.client_ip(&head));
    let caller = match admit(app, route, &head, ip) {
        Ok(caller) => caller,
        Err(refusal) => return refuse_unread(refusal, &head, body).await,
    };
    let preferences = Preferences::of(&head.headers);
    let ack = preferences.ack(app.ack);
    let trace = head.extensions.get().copied().filter(TraceParent::is_sampled);
    let context = RequestContext { route, caller, ip, server_time };
    let request = AdmittedRequest { context, preferences, ack, trace };
    match route {
        Route::Events | Route::Counters | Route::Votes => {
            match app.acceptor.read_body(&head.headers, &mut body).await {
                Ok(body) => store_events(app, &request, &head, body).await,
                Err(refusal) => refuse_unread(refusal, &head, body).await,
            }
        }
        Route::Analytics => match reactions::line_of(&head.uri, app.times.accepted(server_time)) {
            Ok(line) => store_reaction(app, &request, line, &head, body).await,
            Err(refusal) => refuse_unread(refusal, &head, body).await,
        },
        Route::Other => refuse_unread(Refusal::NotFound, &head, body).await,
    }
}

/// Makes the checks that need only the head of a request, and returns the caller.
fn admit(app: &App, route: Route, head: &Parts, ip: IpAddr) -> Result<Caller, Refusal> {
    if route == Route::Other {
        return Err(Refusal::NotFound);
    }
    if head.method != Method::POST {
        return Err(Refusal::MethodNotAllowed);
    }
    app.auth.authenticate(head, ip)
}

async fn store_events(
    app: &App,
    request: &AdmittedRequest,
    head: &Parts,
    body: impl AsRef<[u8]> + Send,
) -> ApiResponse {
    let body = match store(app, request, head, body).await {
        Ok(_) if request.preferences.minimal => ResponseBody::StoredMinimal(request.ack),
        Ok(report) if request.context.route == Route::Votes => vote_response(app, request, report),
        Ok(report) => ResponseBody::Stored(request.ack, report),
        Err(refused) => return ApiResponse::new(refused),
    };
    ApiResponse { applied: request.preferences, ..ApiResponse::new(body) }
}

/// The response to votes: the report and, if all votes name one poll and its result is known, the last fetched result.
fn vote_response(app: &App, request: &AdmittedRequest, mut report: Report) -> ResponseBody {
    let latest = app.poll_results.load();
    let (tenant, now) = (request.context.caller.tenant(), SystemTime::now().into());
    let poll =
        latest.as_ref().zip(report.poll.take()).and_then(|(latest, poll)| latest.of(tenant, poll, now));
    ResponseBody::Voted(request.ack, report, poll)
}

/// Stores a reaction. The body of the request, if it has one, is not used.
async fn store_reaction<B>(
    app: &App,
    request: &AdmittedRequest,
    line: String,
    head: &Parts,
    mut body: B,
) -> ApiResponse
where
    B: Body<Data = Bytes> + Unpin,
{
    let applied = Preferences { minimal: false, ..request.preferences };
    let stored = store(app, request, head, line).await;
    let close = !body::drain(&mut body, &head.headers).await;
    match stored {
        Ok(_) => ApiResponse { body: ResponseBody::NoContent, close, applied },
        Err(refused) => ApiResponse { close, ..ApiResponse::new(refused) },
    }
}

/// Publishes the lines of `body`. If the request has [`Ack::Durable`], waits until the lines are durable.
async fn store(
    app: &App,
    request: &AdmittedRequest,
    head: &Parts,
    body: impl AsRef<[u8]> + Send,
) -> Result<Report, ResponseBody> {
    let bytes = body.as_ref().len();
    let publish = || accept_and_publish(app, request, head, body);
    let (report, pending) = app.acceptor.cpu_work().run(bytes, publish).await?;
    match (pending, request.ack) {
        (None, _) => return Err(ResponseBody::Refused(Refusal::AllLinesInvalid, Some(report))),
        (Some(pending), Ack::Durable) => pending.durable().await?,
        (Some(_), Ack::Accepted) => {}
    }
    Ok(report)
}

/// Turns `body` into lines and publishes the lines. Drops `body` and the lines before returning, to free their memory
/// while the request waits for Kafka. Returns no pending records if no line is valid.
fn accept_and_publish(
    app: &App,
    request: &AdmittedRequest,
    head: &Parts,
    body: impl AsRef<[u8]>,
) -> Result<(Report, Option<PendingRecords>), Refusal> {
    let AdmittedRequest { context, ack, trace, .. } = request;
    let identity = Identity::of(&head.headers, context.caller.identity())?;
    // While the number of partitions is not known, the request is refused here, before `accept` counts its lines as
    // received.
    let partitions = app.publisher.partitions()?;
    let Accepted { chunks, report, samples } =
        app.acceptor.accept(&app.auth, context, identity, body.as_ref(), partitions)?;
    drop(body);
    let pending = if chunks.is_empty() { None } else { Some(app.publisher.publish(chunks, *ack, *trace)?) };
    // Send the samples last: if the request is refused above, its client repeats it, and the samples are sent then.
    if !samples.is_empty() {
        app.publisher.send_samples(partitions.spare, &samples);
    }
    Ok((report, pending))
}

/// Refuses a request whose body may not have been read to its end. The response closes the connection if
/// [`body::drain`] does not reach the end of the body.
async fn refuse_unread<B>(refusal: Refusal, head: &Parts, mut body: B) -> ApiResponse
where
    B: Body<Data = Bytes> + Unpin,
{
    let close = !body::drain(&mut body, &head.headers).await;
    ApiResponse { close, ..ApiResponse::refused(refusal) }
}
