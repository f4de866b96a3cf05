//! Who reads: whose data a request is answered from.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;

use crate::problem::{Kind, Problem};

/// Tenant of everything that no key names.
pub(crate) const DEFAULT_TENANT: &str = "default";

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Reader {
    /// Whose data it is answered from.
    pub(crate) tenant: String,
}

/// The reader of a request; handlers take it as an argument.
#[derive(Debug, Clone)]
pub(crate) struct KnownReader(pub(crate) Arc<Reader>);

impl<S: Sync> FromRequestParts<S> for KnownReader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // `identify` is a layer of all routes, so a request without a reader is a bug of ours.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Kind::Unavailable.into())
    }
}

/// Adds the reader to each request.
pub(crate) async fn identify(mut request: Request, next: Next) -> Response {
    let reader = Reader { tenant: DEFAULT_TENANT.to_owned() };
    request.extensions_mut().insert(KnownReader(Arc::new(reader)));
    next.run(request).await
}
