//! Rollups and fields that operators declare: they answer after a restart, a backfill adds what was stored before, and
//! readers know from when on they have every event.

mod declared;

mod fields;

mod backfill;

mod since;
