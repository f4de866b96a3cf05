//! What readers get: fresh answers of the query API, and the views for analysts.

mod freshness;

mod analysts;

mod query;

mod people;

mod live;
