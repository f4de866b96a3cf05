//! The outcome of each event, and the reasons for which a request is refused.
//!
//! Terms: an *event* is either accepted, or *rejected* with a [`Code`]. A *request* either succeeds, or is *refused*
//! with a [`Refusal`], which is rendered as a *problem* (RFC 9457).
//!
//! Invariant: every line received ends in exactly one [`Outcome`], and every request that does not succeed has exactly
//! one [`Refusal`]. The metric of an outcome and the status code of a refusal are chosen only by an exhaustive match on
//! these two types, so no outcome and no refusal can be forgotten.

use std::borrow::Cow;

use ::http::StatusCode;
use schemas::event::Code;
use schemas::time::UnixMillis;

use crate::content::{Encoding, MEDIA_TYPES};
use crate::route::Route;

/// The final outcome of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The event is not valid; the response lists the first such events as errors.
    Rejected(Code),
    /// Kafka has acknowledged the event.
    Delivered,
    /// The event is in the spool, because Kafka was unreachable or overloaded, or did not acknowledge the event in
    /// time.
    Spooled,
    /// Neither Kafka nor the spool has confirmed that it stored the event; the response asks the client to send the
    /// event again.
    NotDurable,
    /// The event was accepted, but neither Kafka nor the spool has confirmed that it stored the event, and the client
    /// may not know that it should send the event again.
    Lost(Loss),
}

/// How an event was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The process stopped before Kafka or the spool confirmed the event.
    Stopped,
    /// The request was already answered (`202`, or `204` for a reaction), and then neither Kafka nor the spool
    /// confirmed the event.
    Answered,
}

impl Outcome {
    /// This outcome, for an event whose request was already answered with success. `NotDurable` becomes `Lost`, because
    /// the response can no longer ask the client to send the event again.
    pub fn after_early_response(self) -> Self {
        match self {
            Self::NotDurable => Self::Lost(Loss::Answered),
            Self::Rejected(_) | Self::Delivered | Self::Spooled | Self::Lost(_) => self,
        }
    }
}

impl Loss {
    /// All variants, so that the metric of each starts at zero.
    pub const ALL: [Self; 2] = [Self::Stopped, Self::Answered];

    /// The value of the label `reason` in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Answered => "answered",
        }
    }
}

/// Why a request is not answered with success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The body contains no line.
    EmptyBody,
    /// The body contains lines, but no valid one; the response lists the errors.
    AllLinesInvalid,
    /// The body is cut off, or is not in the encoding that `Content-Encoding` names.
    BadEncoding,
    /// The body is compressed with this encoding, but `Content-Encoding` does not name it.
    UndeclaredEncoding(Encoding),
    /// The `timestamp` of a reaction is not a number, or is before the first or after the second of these times. The
    /// aggregator would ignore a time outside these limits and count the reaction in the hour of its arrival, so the
    /// sender would not find the reaction in the hour of its `timestamp`.
    BadTime(UnixMillis, UnixMillis),
    /// A parameter of a reaction is missing or not valid; the text says what is wrong.
    BadQuery(Cow<'static, str>),
    /// The header `Idempotency-Key` is repeated, or its value is empty, longer than this many bytes or not printable
    /// ASCII.
    BadIdempotencyKey(usize),
    /// The client closed the connection before the end of the body, or violated the protocol in the body.
    Aborted,
    /// The request has no key, and a key is required.
    NoKey,
    /// The key of the request is not in the key file.
    UnknownKey,
    /// The key is disabled.
    KeyDisabled,
    /// The key allows only certain origins, and the request has no header `Origin` or names another origin.
    OriginDenied,
    /// The key does not allow the address of the client.
    IpDenied,
    /// The request exceeds the rate of its key or of its address; it would be allowed after this many seconds.
    RateLimited(u32),
    /// The edge has no route with the path of the request.
    NotFound,
    /// The path allows only `POST`.
    MethodNotAllowed,
    /// The body arrived too slowly.
    BodyTimeout,
    /// The body, as it was sent, is longer than this many bytes.
    BodyTooLarge(usize),
    /// The decompressed body is longer than this many bytes.
    DecodedTooLarge(usize),
    /// The body contains more than this many events.
    TooManyEvents(usize),
    /// The edge does not read this media type.
    ContentType,
    /// The edge does not read this encoding, or the body is encoded more than once.
    ContentEncoding,
    /// The request caused a panic, which was caught, or the edge could not allocate memory to decompress the body.
    Internal,
    /// The request would exceed a limit; none of its events is stored.
    Overloaded(Bound),
    /// For at least one event of the request, neither Kafka nor the spool has confirmed that it stored the event. The
    /// events of the request may or may not be stored.
    NotDurable,
    /// Kafka has not been reached yet, so the number of partitions is not known.
    NoPartitions,
    /// The spool is full, and the events could not go to Kafka; none of the events is stored.
    SpoolFull,
    /// The edge is stopping and accepts nothing more.
    Draining,
}

/// The limits above which requests are shed, which means that they are refused at once with `503`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Concurrent requests.
    Requests,
    /// Bytes of bodies in memory.
    InFlightBytes,
    /// Bytes of lines that wait for Kafka or the spool.
    UnackedBytes,
    /// The queue of librdkafka's producer.
    ProducerQueue,
}

/// The HTTP status of a refusal, with the data that its response must contain.
///
/// Each variant contains what its response needs, so that no response can have status `503` or `429` without
/// `Retry-After`, or `413` without the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// `400`.
    BadRequest,
    /// `401`, with `WWW-Authenticate`.
    Unauthorized,
    /// `403`.
    Forbidden,
    /// `404`.
    NotFound,
    /// `405`, with `Allow`.
    MethodNotAllowed,
    /// `408`.
    RequestTimeout,
    /// `413`.
    PayloadTooLarge {
        /// The limit, in bytes or events.
        limit: usize,
    },
    /// `415`, because of the media type.
    UnsupportedMediaType,
    /// `415`, because of the encoding; with `Accept-Encoding`.
    UnsupportedEncoding,
    /// `429`.
    TooManyRequests {
        /// Seconds until the request would be allowed.
        retry_after: u32,
    },
    /// `500`.
    InternalServerError,
    /// `503`.
    ServiceUnavailable {
        /// Seconds after which a retry may succeed.
        retry_after: u32,
    },
}

impl RefusalKind {
    /// The status of the response.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::PayloadTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType | Self::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ServiceUnavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Refusal {
    /// The HTTP status of the refusal, with the data that its response must contain.
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::EmptyBody
            | Self::AllLinesInvalid
            | Self::BadEncoding
            | Self::UndeclaredEncoding(_)
            | Self::BadQuery(_)
            | Self::BadTime(..)
            | Self::BadIdempotencyKey(_)
            | Self::Aborted => RefusalKind::BadRequest,
            Self::NoKey | Self::UnknownKey => RefusalKind::Unauthorized,
            Self::KeyDisabled | Self::OriginDenied | Self::IpDenied => RefusalKind::Forbidden,
            Self::RateLimited(seconds) => RefusalKind::TooManyRequests { retry_after: *seconds },
            Self::NotFound => RefusalKind::NotFound,
            Self::MethodNotAllowed => RefusalKind::MethodNotAllowed,
            Self::BodyTimeout => RefusalKind::RequestTimeout,
            Self::BodyTooLarge(limit) | Self::DecodedTooLarge(limit) | Self::TooManyEvents(limit) => {
                RefusalKind::PayloadTooLarge { limit: *limit }
            }
            Self::ContentType => RefusalKind::UnsupportedMediaType,
            Self::ContentEncoding => RefusalKind::UnsupportedEncoding,
            Self::Internal => RefusalKind::InternalServerError,
            Self::Overloaded(_) | Self::NotDurable | Self::NoPartitions | Self::Draining => {
                RefusalKind::ServiceUnavailable { retry_after: 1 }
            }
            Self::SpoolFull => RefusalKind::ServiceUnavailable { retry_after: 5 },
        }
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.kind().status()
    }

    /// The limit, in bytes or events, that a request with status `413` exceeded; `None` for every other refusal.
    pub fn limit(&self) -> Option<usize> {
        if let RefusalKind::PayloadTooLarge { limit } = self.kind() { Some(limit) } else { None }
    }

    /// The value of `code` in the problem, which is part of the HTTP API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::EmptyBody => "empty_body",
            Self::AllLinesInvalid => "all_lines_invalid",
            Self::BadEncoding | Self::UndeclaredEncoding(_) => "bad_encoding",
            Self::BadTime(..) => "bad_time",
            Self::BadQuery(_) => "bad_query",
            Self::BadIdempotencyKey(_) => "bad_idempotency_key",
            Self::Aborted => "aborted",
            Self::NoKey => "no_key",
            Self::UnknownKey => "unknown_key",
            Self::KeyDisabled => "key_disabled",
            Self::OriginDenied => "origin_denied",
            Self::IpDenied => "ip_denied",
            Self::RateLimited(_) => "rate_limited",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooLarge(_) => "body_too_large",
            Self::DecodedTooLarge(_) => "decoded_too_large",
            Self::TooManyEvents(_) => "too_many_events",
            Self::ContentType => "content_type",
            Self::ContentEncoding => "content_encoding",
            Self::Internal => "internal",
            Self::Overloaded(_) => "overloaded",
            Self::NotDurable | Self::NoPartitions => "not_durable",
            Self::SpoolFull => "spool_full",
            Self::Draining => "draining",
        }
    }

    /// The title of the problem: a short phrase.
    pub fn title(&self) -> &'static str {
        match self {
            Self::EmptyBody => "The body is empty",
            Self::AllLinesInvalid => "No event is valid",
            Self::BadEncoding | Self::UndeclaredEncoding(_) => "The body does not match its Content-Encoding",
            Self::BadQuery(_) => "A parameter is not valid",
            Self::BadTime(..) => "The timestamp is not valid",
            Self::BadIdempotencyKey(_) => "The Idempotency-Key is not valid",
            Self::Aborted => "The body is incomplete",
            Self::NoKey => "A key is required",
            Self::UnknownKey => "The key is unknown",
            Self::KeyDisabled => "The key is disabled",
            Self::OriginDenied | Self::IpDenied => "The key does not allow this origin or address",
            Self::RateLimited(_) => "Too many events",
            Self::NotFound => "There is no such path",
            Self::MethodNotAllowed => "The method is not allowed",
            Self::BodyTimeout => "The body arrived too slowly",
            Self::BodyTooLarge(_) | Self::DecodedTooLarge(_) => "The body is too long",
            Self::TooManyEvents(_) => "Too many events in one request",
            Self::ContentType => "The media type is not supported",
            Self::ContentEncoding => "The encoding is not supported",
            Self::Internal => "Internal server error",
            Self::Overloaded(_) => "The server is overloaded",
            Self::NotDurable | Self::NoPartitions | Self::SpoolFull => "The events could not be stored",
            Self::Draining => "The server is stopping",
        }
    }

    /// The reason for the refusal, as a clause.
    pub fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::EmptyBody => "the body contains no event".into(),
            Self::AllLinesInvalid => {
                "the body contains no valid event; `errors` lists the first invalid events".into()
            }
            Self::BadEncoding => {
                "the body is incomplete, or not valid in the encoding that `Content-Encoding` names".into()
            }
            Self::UndeclaredEncoding(encoding) => format!(
                "the body is compressed with {}, but `Content-Encoding` does not name this encoding",
                encoding.as_str()
            )
            .into(),
            Self::BadQuery(reason) => reason.clone(),
            Self::BadTime(from, to) => {
                format!("`timestamp` must be in milliseconds since 1970, from {} to {}", from.0, to.0).into()
            }
            Self::BadIdempotencyKey(max_bytes) => format!(
                "`Idempotency-Key` must occur once and have 1 to {max_bytes} printable ASCII characters"
            )
            .into(),
            Self::Aborted => "the body ended before it was complete".into(),
            Self::NoKey => "the request has no key".into(),
            Self::UnknownKey => "the server does not know the key of the request".into(),
            Self::KeyDisabled => "the key of the request is disabled".into(),
            Self::OriginDenied => {
                "the key allows only certain origins, and the header `Origin` of the request names none of them"
                    .into()
            }
            Self::IpDenied => "the key does not allow requests from this address".into(),
            Self::RateLimited(_) => {
                "the request exceeds the allowed events per second; no event of the request was stored".into()
            }
            Self::NotFound => {
                let posts = Route::ALL.into_iter().filter_map(Route::path).map(|path| format!("POST {path}"));
                format!("the server accepts only {}", listed(posts, "and")).into()
            }
            Self::MethodNotAllowed => "this path accepts only POST".into(),
            Self::BodyTimeout => "the body was not complete in time".into(),
            Self::BodyTooLarge(limit) => format!("the body is longer than {limit} bytes").into(),
            Self::DecodedTooLarge(limit) => {
                format!("the decompressed body is longer than {limit} bytes").into()
            }
            Self::TooManyEvents(limit) => format!("the body contains more than {limit} events").into(),
            Self::ContentType => {
                let types = MEDIA_TYPES.into_iter().chain(["application/*+json"]).map(str::to_owned);
                format!("the media type must be {}", listed(types, "or")).into()
            }
            Self::ContentEncoding => {
                let encodings = Encoding::ALL.into_iter().map(|encoding| encoding.as_str().to_owned());
                format!("the body must be encoded at most once, as {}", listed(encodings, "or")).into()
            }
            Self::Internal => "the server failed; the events may or may not be stored".into(),
            Self::Overloaded(_) => {
                "the server is at one of its limits; no event of the request was stored".into()
            }
            Self::NotDurable => {
                "the server could not confirm that it stored the events; the events may or may not be stored"
                    .into()
            }
            Self::NoPartitions => "kafka has not been reached yet; no event of the request was stored".into(),
            Self::SpoolFull => {
                "kafka does not accept the events and the spool is full; no event of the request was stored"
                    .into()
            }
            Self::Draining => "the server is stopping; no event of the request was stored".into(),
        }
    }

    /// What the client should do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::EmptyBody => "send JSON objects, one per line or in an array",
            Self::AllLinesInvalid => {
                "correct the events that `errors` lists; docs/events.md describes every field"
            }
            Self::BadEncoding => "send the complete compressed body, or send it uncompressed",
            Self::UndeclaredEncoding(_) => "name the compression in the header `Content-Encoding`",
            Self::BadQuery(_) => "correct the parameter",
            Self::BadTime(..) => "send milliseconds, for example Date.now(), not seconds",
            Self::BadIdempotencyKey(_) => {
                "send a short random key, such as a UUID, and the same key when you retry"
            }
            Self::Aborted => "send the request again",
            Self::NoKey => {
                "send a key in the header `Authorization: Bearer` or `X-Write-Key`, or as the parameter `?key=`"
            }
            Self::UnknownKey | Self::KeyDisabled => "ask the operator for a valid key",
            Self::OriginDenied | Self::IpDenied => {
                "ask the operator to allow this origin or address for the key"
            }
            Self::NotFound => "correct the path",
            Self::MethodNotAllowed => "use POST",
            Self::BodyTimeout => "send the request again, over a faster connection or in smaller parts",
            Self::BodyTooLarge(_) | Self::DecodedTooLarge(_) | Self::TooManyEvents(_) => {
                "send fewer events in one request"
            }
            Self::ContentType => "use one of these media types, or send no `Content-Type`",
            Self::ContentEncoding => "use one of the encodings that `Accept-Encoding` lists",
            Self::Internal => {
                "wait a moment, longer after each attempt, then send the request again, with the same Idempotency-Key or \
                 event ids"
            }
            Self::RateLimited(_)
            | Self::Overloaded(_)
            | Self::NoPartitions
            | Self::SpoolFull
            | Self::Draining => "wait for the time in `Retry-After`, then send the request again",
            Self::NotDurable => {
                "wait for the time in `Retry-After`, then send the request again, with the same Idempotency-Key or \
                 event ids"
            }
        }
    }
}

/// Joins items as in a sentence: `a, b and c`.
fn listed(items: impl Iterator<Item = String>, conjunction: &str) -> String {
    let items: Vec<_> = items.collect();
    match items.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} {conjunction} {last}", others.join(", ")),
        None => String::new(),
    }
}

impl Bound {
    /// All limits, so that the metric of each starts at zero.
    pub const ALL: [Self; 4] = [Self::Requests, Self::InFlightBytes, Self::UnackedBytes, Self::ProducerQueue];

    /// The value of the label `reason` in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::InFlightBytes => "in_flight_bytes",
            Self::UnackedBytes => "unacked_bytes",
            Self::ProducerQueue => "producer_queue",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_list_the_accepted_paths_encodings_and_media_types() {
        assert_eq!(
            Refusal::NotFound.detail(),
            "the server accepts only POST /v1/events, POST /v1/counters, POST /v1/votes and POST /analytics"
        );
        assert_eq!(
            Refusal::ContentEncoding.detail(),
            "the body must be encoded at most once, as gzip, zstd or identity"
        );
        assert!(Refusal::ContentType.detail().ends_with("x-www-form-urlencoded or application/*+json"));
    }
}
