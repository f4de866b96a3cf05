//! Keys: a file declares who may use a service, each by the hash of a token; the service reloads it.
//!
//! The services declare what a key permits ([`DeclaredKey`]); this folder knows how a key is found, how its file
//! is read again, and how its rate is charged. A *token* is the secret that a client presents; a *key* is what
//! the file declares for it.

mod token;

mod set;

mod file;

mod rate;

pub use file::{FollowedKeys, KeyFile};
pub use rate::{Rate, RateConfig};
pub use set::{DeclaredKey, KeyFileError, KeySet};
pub use token::{bearer, generate};
