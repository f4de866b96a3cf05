//! HTTP: a request is answered from the latest snapshot, or waits for the next one.

mod params;

mod wait;

mod response;

mod routes;

pub(crate) use response::respond;
pub(crate) use routes::routes;
