//! What readers get: fresh answers of the query API, and the views for analysts.

mod freshness;

mod snapshot;

mod tenants;

mod analysts;

mod query;

mod access;

mod openapi;

mod random_queries;

mod query_page;

mod page;

mod people;

mod live;

mod pipeline;
