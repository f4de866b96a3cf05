//! Rollups and fields that operators declare. A new rollup or field can be queried after a restart of the services. A
//! backfill adds to a rollup the events that were stored before the rollup was declared. Readers can see from which
//! moment on a rollup has every event.

mod declared;

mod fields;

mod backfill;

mod since;
