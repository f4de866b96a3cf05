//! What Millrace counts: votes, batches of devices, reactions and counters by country, each from the request to the
//! answer, and the load that it must bear.

mod votes;

mod device_batches;

mod reactions_by_path;

mod reactions_by_query;

mod country_counters;

pub(super) mod load;
