//! What becomes of an event, and why a request is refused.
//!
//! Invariant: every line that was received ends in exactly one [`Outcome`]; every
//! request that is not answered with success, in exactly one [`Refusal`]. Status
//! codes and metric labels come from these by exhaustive match, and from nowhere else.

use std::borrow::Cow;

use ::http::StatusCode;
use schemas::event::Code;
use schemas::time::UnixMillis;

use crate::accept::body;

/// What finally became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its line is bad; its sender was told.
    Rejected(Code),
    /// Kafka has acknowledged it.
    Delivered,
    /// Kafka has not taken it in time; it is safe in the spool.
    Spooled,
    /// Neither Kafka nor the spool has taken it; its sender was told to send again.
    NotDurable,
    /// It was taken and is stored nowhere, and its sender was not told to send again.
    Lost(Loss),
}

/// How an event is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Given up at the end of the process.
    Stopped,
    /// Neither Kafka nor the spool has taken it, and it was answered before.
    Answered,
}

impl Outcome {
    /// The same of an event that was answered before.
    pub fn once_answered(self) -> Self {
        match self {
            Self::NotDurable => Self::Lost(Loss::Answered),
            Self::Rejected(_) | Self::Delivered | Self::Spooled | Self::Lost(_) => self,
        }
    }
}

impl Loss {
    /// All of them, for metrics that start at zero.
    pub const ALL: [Self; 2] = [Self::Stopped, Self::Answered];

    /// The name in metrics.
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
    /// No line in it.
    EmptyBody,
    /// Lines, but no good one; the report goes with the answer.
    AllLinesInvalid,
    /// The body is not what `Content-Encoding` says, or is cut off.
    BadEncoding,
    /// The body is compressed in this way, which no header says.
    UndeclaredEncoding(&'static str),
    /// A reaction at a time that is not within these: its hour could not be asked for.
    BadTime(UnixMillis, UnixMillis),
    /// A parameter of a reaction; says which, and what is wrong.
    BadQuery(Cow<'static, str>),
    /// An `Idempotency-Key` that is empty, too long, repeated or not printable.
    BadIdempotencyKey,
    /// The client went away within its body, or broke the protocol there.
    Aborted,
    /// No key, where one is needed.
    NoKey,
    /// A key that nobody has declared.
    UnknownKey,
    /// A key that is switched off.
    KeyDisabled,
    /// A page of an origin that the key does not allow.
    OriginDenied,
    /// An address that the key does not allow.
    IpDenied,
    /// More events than the rate of the key or of the address allows; so many seconds until then.
    RateLimited(u32),
    /// Not a path of ours.
    NotFound,
    /// A path of ours, but only by `POST`.
    MethodNotAllowed,
    /// The body came too slowly.
    BodyTimeout,
    /// The body is longer than this many bytes.
    BodyTooLarge(usize),
    /// The body inflates to more than this many bytes.
    DecodedTooLarge(usize),
    /// More than this many events.
    TooManyEvents(usize),
    /// A media type that we do not read.
    ContentType,
    /// An encoding, or a chain of them, that we do not read.
    ContentEncoding,
    /// A panic; it is caught and the process lives.
    Internal,
    /// A bound was met; nothing of the request was taken.
    Overloaded(Bound),
    /// Neither acknowledged by Kafka in time nor in the spool.
    NotDurable,
    /// Kafka was never reached, so no partition is known.
    NoPartitions,
    /// Kafka takes nothing and the spool has no room.
    SpoolFull,
    /// The edge ends, and takes nothing any more.
    Draining,
}

/// The bounds at which requests are shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Requests at once.
    Requests,
    /// Bytes of bodies in memory.
    InFlightBytes,
    /// Bytes that Kafka has not acknowledged.
    UnackedBytes,
    /// librdkafka's own queue.
    ProducerQueue,
}

impl Refusal {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::EmptyBody
            | Self::AllLinesInvalid
            | Self::BadEncoding
            | Self::UndeclaredEncoding(_)
            | Self::BadQuery(_)
            | Self::BadTime(..)
            | Self::BadIdempotencyKey
            | Self::Aborted => StatusCode::BAD_REQUEST,
            Self::NoKey | Self::UnknownKey => StatusCode::UNAUTHORIZED,
            Self::KeyDisabled | Self::OriginDenied | Self::IpDenied => StatusCode::FORBIDDEN,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge(_) | Self::DecodedTooLarge(_) | Self::TooManyEvents(_) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::ContentType | Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded(_)
            | Self::NotDurable
            | Self::NoPartitions
            | Self::SpoolFull
            | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The name in `code`, part of the HTTP contract.
    pub fn code(&self) -> &'static str {
        match self {
            Self::EmptyBody => "empty_body",
            Self::AllLinesInvalid => "all_lines_invalid",
            Self::BadEncoding | Self::UndeclaredEncoding(_) => "bad_encoding",
            Self::BadTime(..) => "bad_time",
            Self::BadQuery(_) => "bad_query",
            Self::BadIdempotencyKey => "bad_idempotency_key",
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

    /// The kind of refusal, in a phrase.
    pub fn title(&self) -> &'static str {
        match self {
            Self::EmptyBody => "The body is empty",
            Self::AllLinesInvalid => "No event is valid",
            Self::BadEncoding | Self::UndeclaredEncoding(_) => "The body cannot be decompressed",
            Self::BadQuery(_) => "A parameter cannot be used",
            Self::BadTime(..) => "The time is not accepted",
            Self::BadIdempotencyKey => "The Idempotency-Key cannot be used",
            Self::Aborted => "The body is incomplete",
            Self::NoKey => "A key is required",
            Self::UnknownKey => "The key is unknown",
            Self::KeyDisabled => "The key is disabled",
            Self::OriginDenied | Self::IpDenied => "The key is not valid here",
            Self::RateLimited(_) => "Too many events",
            Self::NotFound => "There is no such path",
            Self::MethodNotAllowed => "The method is not allowed",
            Self::BodyTimeout => "The body arrived too slowly",
            Self::BodyTooLarge(_) | Self::DecodedTooLarge(_) => "The body is too long",
            Self::TooManyEvents(_) => "Too many events in one request",
            Self::ContentType => "The media type is not supported",
            Self::ContentEncoding => "The encoding is not supported",
            Self::Internal => "An error of the server",
            Self::Overloaded(_) => "The server is overloaded",
            Self::NotDurable | Self::NoPartitions | Self::SpoolFull => "The events could not be stored",
            Self::Draining => "The server is stopping",
        }
    }

    /// What is wrong with the request.
    pub fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::EmptyBody => "the body holds no event".into(),
            Self::AllLinesInvalid => "no event of the body is valid; `errors` lists the first of them".into(),
            Self::BadEncoding => "the body is not complete data of its `Content-Encoding`".into(),
            Self::UndeclaredEncoding(encoding) => {
                format!("the body is compressed with {encoding}, but no `Content-Encoding` says so").into()
            }
            Self::BadQuery(reason) => reason.clone(),
            Self::BadTime(from, to) => {
                format!("`timestamp` is not in milliseconds since 1970, or not from {} to {}", from.0, to.0)
                    .into()
            }
            Self::BadIdempotencyKey => "`Idempotency-Key` is not 1 to 128 printable bytes, once".into(),
            Self::Aborted => "the body ended early".into(),
            Self::NoKey => "the request has no key".into(),
            Self::UnknownKey => "there is no such key".into(),
            Self::KeyDisabled => "the key is disabled".into(),
            Self::OriginDenied => "the key is not for pages of this origin".into(),
            Self::IpDenied => "the key is not for this address".into(),
            Self::RateLimited(_) => {
                "more events a second than are allowed; none of this request was stored".into()
            }
            Self::NotFound => {
                "there are POST /v1/events, POST /v1/counters, POST /v1/votes and POST /analytics".into()
            }
            Self::MethodNotAllowed => "this path takes POST only".into(),
            Self::BodyTimeout => "the body was not complete in time".into(),
            Self::BodyTooLarge(limit) => format!("the body is longer than {limit} bytes").into(),
            Self::DecodedTooLarge(limit) => {
                format!("the decompressed body is longer than {limit} bytes").into()
            }
            Self::TooManyEvents(limit) => format!("the body holds more than {limit} events").into(),
            Self::ContentType => {
                format!("the body may be {} or application/*+json", body::MEDIA_TYPES.join(", ")).into()
            }
            Self::ContentEncoding => "the body may be sent plain, as gzip or as zstd, once".into(),
            Self::Internal => "the server failed; it may have stored the events or not".into(),
            Self::Overloaded(_) => "too much arrives at once; nothing of this request was stored".into(),
            Self::NotDurable => "the events may be stored or not".into(),
            Self::NoPartitions => "kafka was not reached yet; nothing of this request was stored".into(),
            Self::SpoolFull => {
                "kafka is unreachable and the spool is full; nothing of this request was stored".into()
            }
            Self::Draining => "this server is stopping; nothing of this request was stored".into(),
        }
    }

    /// What the sender should do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::EmptyBody => "send JSON objects, one a line or in an array",
            Self::AllLinesInvalid => "correct the events that `errors` lists; docs/events.md has every field",
            Self::BadEncoding => "send the whole compressed body, or send it uncompressed",
            Self::UndeclaredEncoding(_) => "name the compression in the header `Content-Encoding`",
            Self::BadQuery(_) => "correct the parameter",
            Self::BadTime(..) => "send milliseconds, for example Date.now(), not seconds",
            Self::BadIdempotencyKey => {
                "send a short random key, such as a UUID, and the same one when you retry"
            }
            Self::Aborted => "send the request again",
            Self::NoKey => "send a key as `Authorization: Bearer`, `X-Write-Key` or `?key=`",
            Self::UnknownKey | Self::KeyDisabled => "ask the operator for a valid key",
            Self::OriginDenied | Self::IpDenied => {
                "ask the operator to allow this origin or address for the key"
            }
            Self::RateLimited(_) => "wait as long as `Retry-After` says, then send the request again",
            Self::NotFound => "correct the path",
            Self::MethodNotAllowed => "use POST",
            Self::BodyTimeout => "send the request again, over a better connection or in smaller parts",
            Self::BodyTooLarge(_) | Self::DecodedTooLarge(_) | Self::TooManyEvents(_) => {
                "send fewer events in one request"
            }
            Self::ContentType => "name one of these media types, or none",
            Self::ContentEncoding => "use one of the encodings that `Accept-Encoding` lists",
            Self::Internal => "send the request once more, with the same Idempotency-Key or event ids",
            Self::Overloaded(_) | Self::NoPartitions | Self::SpoolFull | Self::Draining => {
                "wait as long as `Retry-After` says, then send the request again"
            }
            Self::NotDurable => {
                "wait as long as `Retry-After` says, then send the request again, with the same Idempotency-Key or \
                 event ids"
            }
        }
    }

    /// The limit that was passed, if it was one of size.
    pub fn limit(&self) -> Option<usize> {
        match self {
            Self::BodyTooLarge(limit) | Self::DecodedTooLarge(limit) | Self::TooManyEvents(limit) => {
                Some(*limit)
            }
            _ => None,
        }
    }
}

impl Bound {
    /// All bounds, for metrics that start at zero.
    pub const ALL: [Self; 4] = [Self::Requests, Self::InFlightBytes, Self::UnackedBytes, Self::ProducerQueue];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::InFlightBytes => "in_flight_bytes",
            Self::UnackedBytes => "unacked_bytes",
            Self::ProducerQueue => "producer_queue",
        }
    }
}
