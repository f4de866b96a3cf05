//! Every acknowledged event counts exactly once: without faults, with changed or damaged logs and tables, and with
//! batches that ClickHouse refuses.

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
