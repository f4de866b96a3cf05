//! The answers, one file each: the SQL that reads an answer, the values bound there, and how its rows are
//! rendered.
//!
//! One statement reads all answers: each contributes a SELECT with the columns of [`row`], joined by
//! UNION ALL. Pure: no I/O and no clock in here. A new answer is a file here, its lines in
//! `snapshot.rs`, and a route.

pub(crate) mod row;

pub(crate) mod freshness;

pub(crate) mod analytics;

pub(crate) mod counters;

pub(crate) mod polls;

pub(crate) mod series;

use clickhouse::query::Query;
use schemas::rollup::Rollups;
use schemas::time::UnixMillis;

use self::row::SnapshotRow;

/// Until snapshots know tenants, they are of the one that everything belongs to without keys.
const TENANT: &str = crate::access::DEFAULT_TENANT;

/// What one refresh reads.
#[derive(Debug)]
pub(crate) struct Scope {
    /// The moment of the refresh.
    pub(crate) now: UnixMillis,
    /// Starts of the hours that readers asked for, outside the hot window; sorted.
    pub(crate) hours: Vec<UnixMillis>,
    /// Names of the polls that readers asked for; sorted.
    pub(crate) polls: Vec<String>,
}

/// A rollup, and those of its dimensions and measures that an answer reads.
pub(crate) type RollupSource = (&'static str, &'static [&'static str]);

/// One answer of a snapshot.
pub(crate) trait SnapshotAnswer: Sized {
    /// What the answer is called in logs.
    const NAME: &'static str;
    /// The rollups that it is read from.
    const SOURCES: &'static [RollupSource];

    /// Its SELECT. The name of a rollup in braces stands for the rows of that rollup.
    fn select() -> String;

    /// Binds the values of its SELECT, in the order of its `?`.
    fn bind(statement: Query, scope: &Scope) -> Query;

    /// Whether its SELECT returned this row.
    fn owns(row: &SnapshotRow) -> bool;

    /// Renders its rows. Everything that was in Kafka before `as_of` is in them.
    fn render(rows: Vec<SnapshotRow>, scope: &Scope, as_of: Option<UnixMillis>) -> Self;

    /// The first source that is not declared; `None` if the answer can be served.
    fn undeclared(rollups: &Rollups) -> Option<RollupSource> {
        let is_declared = |(name, columns): &RollupSource| {
            rollups.get(name).is_some_and(|rollup| rollup.has_columns(columns))
        };
        Self::SOURCES.iter().copied().find(|source| !is_declared(source))
    }
}

/// A moment as seconds since 1970, or the nearest one that ClickHouse's `DateTime` can hold.
fn date_time(moment: UnixMillis) -> u32 {
    u32::try_from(moment.0.max(0) / 1000).unwrap_or(u32::MAX)
}
