//! Keys: a file declares which clients may use a service. The service reloads the file when it changes.
//!
//! A *token* is the secret that a client sends with a request. A *key* is what the file declares for this token: the
//! hash of the token, an id, and what the client may do. Each service defines what a key can permit ([`DeclaredKey`]).
//! This module reloads the file and finds the key of a token. It also provides the limiter of a rate ([`Rate`]), with
//! which a service enforces the rates of a key.

mod token;

mod set;

mod file;

mod rate;

pub use file::{FollowedKeys, KeyFile};
pub use rate::{Rate, RateConfig};
pub use set::{DeclaredKey, KeyFileError, KeySet};
pub use token::{bearer, generate};
