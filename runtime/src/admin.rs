//! The admin port: liveness, readiness and metrics.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use crate::serve::Server;

/// How long open probes and scrapes may take to finish at shutdown.
pub const DRAIN: Duration = Duration::from_secs(1);

/// Whether a service may get traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// The service may get traffic.
    Ready,
    /// The service may get traffic, but has a problem that an operator should know of. The text describes the problem.
    Degraded(String),
    /// The service may not get traffic, for this reason.
    Not(String),
}

/// What the admin port serves.
pub struct Admin {
    /// The metrics that `/metrics` shows.
    pub registry: Registry,
    /// Decides the response to `/readyz`: `200` if the service is ready or degraded, `503` otherwise. The body says why
    /// the service is degraded or not ready. `/healthz` always returns `200`: Kubernetes restarts a process whose
    /// liveness probe fails, and a restart does not help a service that waits for Kafka.
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
}

impl Admin {
    /// Serves on `listener` until `shutdown` is cancelled. Cancel it last, after the service has drained: probes and
    /// scrapes must be answered during the drain.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let admin = Arc::new(self);
        let service = service_fn(move |request: Request<Incoming>| {
            let response = admin.respond(request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        });
        if let Err(error) = Server::default().until(listener, service, shutdown, DRAIN).await {
            tracing::debug!(%error, "the admin port did not drain");
        }
    }

    fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match (self.readiness)() {
                Readiness::Ready => text(StatusCode::OK, "ready\n"),
                Readiness::Degraded(reason) => text(StatusCode::OK, format!("degraded: {reason}\n")),
                Readiness::Not(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "the paths are /healthz, /readyz and /metrics\n"),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut page = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            Ok(()) => text(StatusCode::OK, page),
            Err(error) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the metrics: {error}\n"))
            }
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use prometheus::IntCounter;

    use super::*;

    #[track_caller]
    fn check(readiness: Readiness, method: &Method, path: &str, status: u16, body: &str) {
        let registry = Registry::new();
        let counter = IntCounter::new("things_total", "Things.").unwrap();
        registry.register(Box::new(counter)).unwrap();
        let readiness = Box::new(move || readiness.clone());
        let response = Admin { registry, readiness }.respond(method, path);
        assert_eq!(response.status().as_u16(), status);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&bytes).contains(body), "{bytes:?}");
    }

    #[test]
    fn not_ready_says_why_and_stays_healthy() {
        let not = || Readiness::Not("kafka: no answer".to_owned());
        check(not(), &Method::GET, "/readyz", 503, "kafka: no answer");
        check(not(), &Method::GET, "/healthz", 200, "ok");
    }

    #[test]
    fn degraded_is_ready_and_says_why() {
        let degraded = Readiness::Degraded("kafka: no answer".to_owned());
        check(degraded, &Method::GET, "/readyz", 200, "degraded: kafka: no answer");
    }

    #[test]
    fn the_metrics_page_has_the_registered_metrics() {
        check(Readiness::Ready, &Method::GET, "/metrics", 200, "things_total 0");
    }

    #[test]
    fn other_paths_and_methods_are_answered_with_the_valid_ones() {
        check(Readiness::Ready, &Method::GET, "/", 404, "/healthz");
        check(Readiness::Ready, &Method::POST, "/readyz", 405, "use GET");
    }
}
