//! The views for analysts in the database `bi`: plain types, and a comment on every column.
//!
//! Invariants:
//! - No view shows a marker row.
//! - A filter on a view can use the primary key of the table that the view reads.
//! - A reader of the views needs no grant on the tables, because a view uses the grants of its definer. (If the server
//!   does not have the definer, the view uses the grants of the reader.)
//! - A column that a released version of Millrace had keeps its name and type.
//!
//! The names of columns are quoted in SQL, because a column may show a field of an event's `props`, and such a field
//! may be called `from`, which is a word of SQL.

mod view;

mod int64;

mod bucket;

mod rollup_view;

mod line_views;

mod service_views;

mod grants;

use self::bucket::Bucket;
pub use self::bucket::time_column;
pub use self::grants::{Definer, definers, tenants_definer};
use self::line_views::{dead_letters, events_recent, rejected_lines};
use self::rollup_view::of_rollup;
use self::service_views::{country_totals, freshness, pipeline_health};
pub use self::view::{Definers, Rights, View, identifier};
use crate::reserved_names::PIPELINE_HEALTH;
pub use crate::reserved_names::{EVENTS_RECENT, FRESHNESS, REJECTED_LINES};
use crate::rollup::{Grain, Rollup, Rollups};
use crate::tables;

/// Where the tables are, and where the views are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Databases<'a> {
    /// The database of the tables.
    pub tables: &'a str,
    /// The database of the views.
    pub views: &'a str,
}

/// Rollups whose view has another name than the rollup.
const VIEW_NAMES: [(&str, &str); 1] = [("poll_votes", "polls")];

/// Daily rollups that also have views by ISO week and by month, because a distinct count of a week cannot be computed
/// from the distinct counts of its days.
const MERGED_VIEWS: [(&str, [(&str, Bucket); 2]); 2] = [
    ("users_daily", [("users_weekly", Bucket::Week), ("users_monthly", Bucket::Month)]),
    ("users_all_daily", [("users_all_weekly", Bucket::Week), ("users_all_monthly", Bucket::Month)]),
];

/// All views, in this order: each view reads only tables and earlier views.
pub fn views(rollups: &Rollups, on: Databases<'_>) -> Vec<View> {
    let of_rollups = rollups.iter().map(|rollup| {
        let bucket = Bucket::of(rollup.grain);
        of_rollup(rollup, view_name(rollup), bucket, on)
    });
    let merged = MERGED_VIEWS.iter().filter_map(|(rollup, views)| {
        let rollup = rollups.get(rollup).filter(|rollup| rollup.grain == Grain::Day)?;
        Some(views.map(|(name, bucket)| of_rollup(rollup, name, Some(bucket), on)))
    });
    let totals = tables::COUNTRY_TOTALS.is_declared(rollups).then(|| country_totals(on));
    let of_lines = [events_recent(rollups.fields(), on), rejected_lines(on), dead_letters(on)];
    [freshness(on)]
        .into_iter()
        .chain(of_rollups)
        .chain(merged.flatten())
        .chain(totals)
        .chain(of_lines)
        .chain([pipeline_health(on)])
        .collect()
}

/// The views of one tenant: all except `pipeline_health`, because a row of the ledger, which `pipeline_health` reads,
/// counts the lines of all tenants.
pub fn tenants_views(rollups: &Rollups, on: Databases<'_>) -> Vec<View> {
    let mut views = views(rollups, on);
    views.retain(|view| view.name != PIPELINE_HEALTH);
    views
}

/// The name of a rollup's view.
pub fn view_name(rollup: &Rollup) -> &str {
    let renamed = VIEW_NAMES.iter().find(|(name, _)| *name == rollup.name);
    renamed.map_or(rollup.name.as_str(), |(_, view)| view)
}

#[cfg(test)]
mod tests;
