//! The prepared answers. The file of an answer has the SQL that reads the answer, the values that are bound, and the
//! rendering of the rows.
//!
//! One statement reads all answers of all tenants: each answer contributes SELECTs with the columns of [`row`],
//! joined by UNION ALL. Counting events is cheap, so every refresh counts them again. Merging the `uniqExact`
//! states of users is expensive, so a number of users from an earlier refresh is kept while it is still right
//! ([`merge`] decides this for hours and days). Pure: no I/O and no clock in here. CONTRIBUTING.md lists what a new
//! answer needs.

pub(crate) mod row;

pub(crate) mod freshness;

mod merge;

pub(crate) mod analytics;

pub(crate) mod counters;

pub(crate) mod polls;

pub(crate) mod series;

use clickhouse::query::Query;
use schemas::rollup::Rollups;
use schemas::time::UnixMillis;

use self::row::SnapshotRow;
use crate::rendered::AsOf;

/// What one refresh reads.
#[derive(Debug)]
pub(crate) struct Scope {
    /// The moment of the refresh.
    pub(crate) now: UnixMillis,
    /// The tenants whose answers are read; sorted.
    pub(crate) tenants: Vec<String>,
    /// Tenant and start of each cold hour that readers asked for; sorted.
    pub(crate) hours: Vec<(String, UnixMillis)>,
    /// Tenant and name of each poll that readers asked for; sorted.
    pub(crate) polls: Vec<(String, String)>,
    /// Which answers the statement leaves out.
    pub(crate) left_out: LeftOut,
    /// The approximate limit on the users that the refresh merges for all hours together.
    pub(crate) max_users: u64,
    /// The approximate limit on the voters that the refresh merges for all polls together.
    pub(crate) max_voters: u64,
}

/// Which answers a statement leaves out because earlier statements were too slow. Each variant also leaves out the
/// answers of the variants before it. An answer that is left out keeps its previous content and `as_of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum LeftOut {
    /// Nothing: the statement reads all answers.
    #[default]
    Nothing,
    /// Cold hours, and polls that are not among the largest.
    ColdKeys,
    /// All polls, and what `/v1/live` shows.
    Polls,
    /// The country counters.
    Counters,
}

impl Scope {
    /// A scope in which readers asked for no hour and no poll.
    #[cfg(test)]
    pub(crate) fn of_tenants(tenants: &[&str]) -> Self {
        Self {
            now: UnixMillis(0),
            tenants: tenants.iter().map(|tenant| (*tenant).to_owned()).collect(),
            hours: Vec::new(),
            polls: Vec::new(),
            left_out: LeftOut::Nothing,
            max_users: 15_000_000,
            max_voters: 5_000_000,
        }
    }

    /// The cold hours that the statement reads.
    fn read_hours(&self) -> &[(String, UnixMillis)] {
        if self.left_out >= LeftOut::ColdKeys { &[] } else { &self.hours }
    }

    /// The polls that the statement reads in addition to the largest ones.
    fn read_polls(&self) -> &[(String, String)] {
        if self.left_out >= LeftOut::ColdKeys { &[] } else { &self.polls }
    }
}

/// A refresh, and the tenant whose answers are being rendered.
#[derive(Clone, Copy)]
pub(crate) struct Refresh<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) scope: &'a Scope,
    /// Everything that was in Kafka before this moment is in the rows.
    pub(crate) as_of: &'a AsOf,
    /// When all rows had arrived.
    pub(crate) read_at: UnixMillis,
}

/// The name of a rollup, and the dimensions and measures that an answer reads from it.
pub(crate) type RollupSource = (&'static str, &'static [&'static str]);

/// One kind of answer in a snapshot. A value is the answer for one tenant.
pub(crate) trait SnapshotAnswer: Sized {
    /// The name of the answer in logs.
    const NAME: &'static str;
    /// The rollups that the answer is read from.
    const SOURCES: &'static [RollupSource];

    /// The SELECTs, joined by UNION ALL. The name of a rollup in braces is a placeholder for the rows of that rollup.
    fn select() -> String;

    /// Binds the values of this answer's SELECTs, in the order of their `?`. `previous` has the previous answers, each
    /// with its tenant.
    fn bind(statement: Query, scope: &Scope, previous: &[(&str, &Self)]) -> Query;

    /// Whether this answer's SELECTs returned the row.
    fn owns(row: &SnapshotRow) -> bool;

    /// Renders the answer from the rows of a tenant; what the statement did not read again is taken from `previous`.
    fn render(rows: Vec<SnapshotRow>, refresh: Refresh<'_>, previous: Option<&Self>) -> Self;

    /// The first source that `rollups` lacks, or declares without a column that the answer reads. `None` if there is no
    /// such source: the answer can be served.
    fn undeclared(rollups: &Rollups) -> Option<RollupSource> {
        let is_declared = |(name, columns): &RollupSource| {
            rollups.get(name).is_some_and(|rollup| rollup.has_columns(columns))
        };
        Self::SOURCES.iter().copied().find(|source| !is_declared(source))
    }
}

/// A moment in whole seconds since 1970, clamped to the range of ClickHouse's `DateTime`.
fn date_time(moment: UnixMillis) -> u32 {
    u32::try_from(moment.0.max(0) / 1000).unwrap_or(u32::MAX)
}
