//! Rollups and fields that operators declare: they answer after a restart, and a backfill adds what was stored before.

mod declared;

mod fields;

mod backfill;
