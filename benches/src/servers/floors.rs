//! Floors: servers that do a known part of Millrace's work and nothing else. A floor shows the best figures that this
//! machine can reach for that part of the work, so the reports can give Millrace's figures as a share of them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use prometheus::Registry;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::admin::{Admin, Readiness};
use runtime::serve::{self, Server};
use runtime::vars::{VarError, Vars};
use tokio_util::sync::CancellationToken;
use tower::service_fn;

/// A kind of floor: what the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// Floor A: reads the body, answers 200.
    Read,
    /// Floor B: reads the body, writes it to Kafka as one record, answers once Kafka has acknowledged the record with
    /// `acks=all`.
    Produce,
    /// Floor C: answers with a constant text, which is about as long as an answer of the query API.
    Constant,
}

impl Floor {
    /// The value of the variable `FLOOR` that selects this floor.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Produce => "produce",
            Self::Constant => "constant",
        }
    }
}

/// The configuration of a floor's process.
pub struct Config {
    floor: Floor,
    listen_addr: SocketAddr,
    admin_addr: SocketAddr,
    brokers: String,
    topic: String,
}

impl Config {
    /// Reads `FLOOR`, `LISTEN_ADDR`, `ADMIN_ADDR`, `KAFKA_BROKERS` and `TOPIC`.
    pub fn from_vars(vars: &Vars) -> Result<Self, VarError> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let name = vars.required("FLOOR", "read, produce or constant")?;
        let floor =
            [Floor::Read, Floor::Produce, Floor::Constant].into_iter().find(|floor| floor.name() == name);
        Ok(Self {
            floor: floor.ok_or(VarError::Invalid {
                name: "FLOOR",
                value: name,
                reason: "it must be read, produce or constant".to_owned(),
            })?,
            listen_addr: vars.parsed_or("LISTEN_ADDR", any)?,
            admin_addr: vars.parsed_or("ADMIN_ADDR", any)?,
            brokers: vars.string_or("KAFKA_BROKERS", ""),
            topic: vars.string_or("TOPIC", ""),
        })
    }
}

/// Serves a floor until the bench kills this process.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let Config { floor, topic, .. } = config;
    let listener = serve::bind(config.listen_addr, "LISTEN_ADDR")?;
    let admin = serve::bind(config.admin_addr, "ADMIN_ADDR")?;
    let ready = Admin { registry: Registry::new(), readiness: Box::new(|| Readiness::Ready) };
    tokio::spawn(ready.serve(admin, CancellationToken::new()));
    let producer = if floor == Floor::Produce { Some(producer(&config.brokers)?) } else { None };
    let service = service_fn(move |request: Request<Incoming>| {
        let (producer, topic) = (producer.clone(), topic.clone());
        async move {
            let answer = match producer {
                Some(producer) => produce(request, &producer, &topic).await,
                None if floor == Floor::Constant => answer(StatusCode::OK, CONSTANT),
                None => read(request).await,
            };
            Ok::<_, Infallible>(answer)
        }
    });
    Server::default().until(listener, service, CancellationToken::new(), Duration::ZERO).await?;
    Ok(())
}

const CONSTANT: &str = "unique_users,1000\nclicks,1000\nimpressions,1000\n";

/// A producer with the same acknowledgements, compression, linger time and queue limit as the edge's producer. But the
/// edge groups the lines of several requests into one record, and this floor sends one record for each request.
fn producer(brokers: &str) -> anyhow::Result<FutureProducer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "0")
        .set("queue.buffering.max.kbytes", "262144");
    config.create().context("create a producer")
}

async fn read(request: Request<Incoming>) -> Response<Full<Bytes>> {
    match request.into_body().collect().await {
        Ok(_) => answer(StatusCode::OK, "{}"),
        Err(_) => answer(StatusCode::BAD_REQUEST, "{}"),
    }
}

async fn produce(
    request: Request<Incoming>,
    producer: &FutureProducer,
    topic: &str,
) -> Response<Full<Bytes>> {
    let Ok(body) = request.into_body().collect().await else { return answer(StatusCode::BAD_REQUEST, "{}") };
    let body = body.to_bytes();
    let record = FutureRecord::<(), _>::to(topic).payload(&body[..]);
    match producer.send(record, Duration::from_secs(10)).await {
        Ok(_) => answer(StatusCode::OK, "{}"),
        Err(_) => answer(StatusCode::SERVICE_UNAVAILABLE, "{}"),
    }
}

fn answer(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}
