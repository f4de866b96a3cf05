//! The admin port: is it alive, may it get traffic, what has it counted.

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

/// What keeps a service from being ready; `Ok` when nothing does.
pub type Readiness = Result<(), String>;

/// What the admin port tells.
pub struct Admin {
    /// `/metrics`.
    pub registry: Registry,
    /// `/readyz`: `200`, or `503` with the reason. `/healthz` never asks it: a
    /// process that waits for Kafka must not be restarted for it.
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
}

impl Admin {
    /// Answers on `listener` until `shutdown`. End it last: probes and scrapes go on during a drain.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let admin = Arc::new(self);
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = admin.answer(request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(answer) }
        });
        if let Err(error) = Server::default().until(listener, service, shutdown, Duration::from_secs(1)).await
        {
            tracing::debug!(%error, "admin port");
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match (self.readiness)() {
                Ok(()) => text(StatusCode::OK, "ready\n"),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "there is /healthz, /readyz and /metrics\n"),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut page = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            Ok(()) => text(StatusCode::OK, page),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
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
    fn check(readiness: &'static str, method: &Method, path: &str, status: u16, body: &str) {
        let registry = Registry::new();
        let counter = IntCounter::new("things_total", "Things.").unwrap();
        registry.register(Box::new(counter)).unwrap();
        let readiness = move || if readiness.is_empty() { Ok(()) } else { Err(readiness.to_owned()) };
        let answer = Admin { registry, readiness: Box::new(readiness) }.answer(method, path);
        assert_eq!(answer.status().as_u16(), status);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(answer.into_body().collect()).unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&bytes).contains(body), "{bytes:?}");
    }

    #[test]
    fn not_ready_says_why_and_stays_healthy() {
        check("kafka: no answer", &Method::GET, "/readyz", 503, "kafka: no answer");
        check("kafka: no answer", &Method::GET, "/healthz", 200, "ok");
    }

    #[test]
    fn metrics_are_what_was_registered() {
        check("", &Method::GET, "/metrics", 200, "things_total 0");
    }

    #[test]
    fn other_paths_and_methods_are_told_what_there_is() {
        check("", &Method::GET, "/", 404, "/healthz");
        check("", &Method::POST, "/readyz", 405, "use GET");
    }
}
