//! Rollups and fields that operators declare. They can be queried after a restart. A backfill adds the events that were
//! stored before the rollup was declared. Readers can see from which moment on a rollup has every event.

mod declared;

mod fields;

mod backfill;

mod since;
