//! Access of readers: whose data a request is answered from, what the reader may ask for, and how often.
//!
//! `config` reads the variables, `keys` says what a key of the file permits, `layers` find the reader of a
//! request and charge the rates of its key, `reader` is what the routes know of the reader. A route that takes
//! a [`KnownReader`] answers from the tenant of that reader, and checks with [`Reader`] whether the reader may ask
//! for what the request asks for.
//!
//! Invariants: with `READ_AUTH=required` no route is called without a valid token, except for preflights, which get
//! no data; all tokens that are not valid are refused in the same way.

mod config;

mod keys;

mod layers;

mod reader;

pub(crate) use config::AccessConfig;
pub(crate) use layers::{Access, Cost};
pub(crate) use reader::{DEFAULT_TENANT, KnownReader, Reader};
