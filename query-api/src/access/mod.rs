//! Access of readers: which tenant's data a reader gets, what the reader may ask for, and how often.
//!
//! `config` reads the variables. `keys` parses what a key of the file permits. `layers` finds the reader of each
//! request and charges the request to the rates of the reader's key. `reader` is the part of a key that the routes
//! need. A route that takes a [`KnownReader`] answers with the data of that reader's tenant, and checks with [`Reader`]
//! whether the reader may ask for the requested measures and events.
//!
//! Invariants, with `READ_AUTH=required`:
//! - No request without a valid token gets data. Only the HTML page, which contains no data, and CORS preflights need
//!   no token.
//! - All tokens that are not valid are refused in the same way.

mod config;

mod keys;

mod layers;

mod reader;

pub(crate) use config::AccessConfig;
pub(crate) use layers::{Access, Cost};
pub(crate) use reader::{DEFAULT_TENANT, KnownReader, Reader};
