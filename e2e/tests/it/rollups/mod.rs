//! Rollups and fields that operators declare: they answer after a restart, a backfill adds events that were stored
//! before, and readers know from which moment on a rollup has every event.

mod declared;

mod fields;

mod backfill;

mod since;
