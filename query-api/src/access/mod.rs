//! Access of readers: which tenant's data a reader gets, what the reader may ask for, and how often.
//!
//! `config` reads the variables `READ_AUTH` and `READ_KEYS_FILE`. `keys` parses what a key of `READ_KEYS_FILE` permits.
//! `layers` finds the reader of each request, charges the request to a rate of the reader's key, and refuses prepared
//! answers that show more than the key permits. `reader` is the part of a key that the routes need.
//!
//! A route that takes a [`KnownReader`] answers with the data of that reader's tenant. Only `/v1/pipeline` answers
//! about all tenants, and only operators get its answer. Queries, retention and funnels check with [`Reader`] whether
//! the reader may ask for the requested measures, and count only events that meet the filters of the key.
//!
//! Invariants, with `READ_AUTH=required`:
//! - No request without a valid token gets data. Only CORS preflights and requests for the files of the web page, which
//!   contain no data, need no token.
//! - All tokens that are not valid are refused in the same way.

mod config;

mod keys;

mod layers;

mod reader;

pub(crate) use config::AccessConfig;
pub(crate) use layers::{Access, Cost};
pub(crate) use reader::{DEFAULT_TENANT, KnownReader, Reader};
