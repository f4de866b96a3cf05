//! The load of a run: requests from a seed, a journal of the requests and their outcomes, and the sender.

pub mod requests;

pub mod journal;

pub(super) mod sender;

pub use journal::{Journal, Outcome};
pub use requests::{Request, RequestStream};
