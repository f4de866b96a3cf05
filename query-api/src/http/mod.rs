//! Requests for prepared answers: each request is answered from the latest snapshot, or waits for the next one.
//! [`respond`] also makes the responses with other answers.

mod params;

mod accept;

mod wait;

mod response;

mod routes;

pub(crate) use response::respond;
pub(crate) use routes::routes;

#[cfg(test)]
mod tests;
