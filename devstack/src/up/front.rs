//! One port for writes and reads, as behind a gateway in production.

use std::convert::Infallible;

use http::{Method, Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use tower::{Service, ServiceExt, service_fn};

/// Path prefixes of reads that may be sent with POST. Reads with GET need no entry here.
const POSTED_READS: [&str; 3] = ["/v1/query", "/v1/retention", "/v1/funnel"];

/// Routes requests whose path begins with one of [`POSTED_READS`] to `reads`, all other POST and OPTIONS requests to
/// `writes`, and every other method to `reads`.
pub(super) fn route<W, R, WriteBody, ReadBody>(
    writes: W,
    reads: R,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Either<WriteBody, ReadBody>>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
where
    W: Service<Request<Incoming>, Response = Response<WriteBody>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
    R: Service<Request<Incoming>, Response = Response<ReadBody>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
{
    service_fn(move |request: Request<Incoming>| {
        let (writes, reads) = (writes.clone(), reads.clone());
        async move {
            // A query that is posted as JSON is still a read.
            let path = request.uri().path();
            let is_query = POSTED_READS.iter().any(|read| path.starts_with(read));
            match *request.method() {
                Method::POST | Method::OPTIONS if !is_query => {
                    writes.oneshot(request).await.map(|answer| answer.map(Either::Left))
                }
                _ => reads.oneshot(request).await.map(|answer| answer.map(Either::Right)),
            }
        }
    })
}
