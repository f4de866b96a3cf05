//! Every acknowledged event counts exactly once: without faults, after logs and tables were changed or damaged, and
//! when ClickHouse refuses a batch.

mod journey;

mod repeats;

mod two_servers;

mod ownership;

mod adopt;

mod generations;

mod damaged_logs;

mod record_times;

mod ends_of_time;

mod declarations;

mod inserts;

mod lost_parts;

mod refused_batches;
