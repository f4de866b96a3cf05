//! What Millrace counts, from the request to the answer: votes, batches of devices, reactions and counters by country.
//! The votes and the batches are also tested under the load that Millrace must handle.

mod votes;

mod device_batches;

mod reactions_by_path;

mod reactions_by_query;

mod country_counters;

pub(super) mod load;
