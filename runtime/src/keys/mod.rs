//! Keys: a file declares who may use a service, with the hash of a token for each key. The service reloads the file
//! when it changes.
//!
//! The services declare what a key permits ([`DeclaredKey`]); this module finds keys, reloads their file, and charges
//! their rates. A *token* is the secret that a client presents; a *key* is what the file declares for it.

mod token;

mod set;

mod file;

mod rate;

pub use file::{FollowedKeys, KeyFile};
pub use rate::{Rate, RateConfig};
pub use set::{DeclaredKey, KeyFileError, KeySet};
pub use token::{bearer, generate};
