//! All answers of one refresh, and the statement that reads them.
//!
//! Pure: `refresh.rs` sends the statement and passes its rows in; `http/` sends what comes out.
//! Here is the list of the answers: analytics are required, the others are served where their rollups are
//! declared.

use clickhouse::Client;
use clickhouse::query::Query;
use schemas::rollup::Rollups;
use schemas::time::UnixMillis;

use crate::answers::analytics::Analytics;
use crate::answers::counters::Counters;
use crate::answers::freshness;
use crate::answers::polls::Polls;
use crate::answers::row::SnapshotRow;
use crate::answers::series::{ActiveUsers, Series};
use crate::answers::{Scope, SnapshotAnswer};

/// The answers of one refresh.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Everything that was in Kafka before this moment is counted; `None` before the aggregator has
    /// reported progress.
    pub(crate) as_of: Option<UnixMillis>,
    /// The hours of `/analytics`.
    pub(crate) analytics: Analytics,
    /// The country counters; `None` where their rollup is not declared.
    pub(crate) counters: Option<Counters>,
    /// The polls; `None` where their rollup is not declared.
    pub(crate) polls: Option<Polls>,
    /// What `/v1/live` shows; `None` where its rollups are not declared.
    pub(crate) series: Option<Series>,
    /// Users of the last minutes; `None` where their rollup is not declared.
    pub(crate) active: Option<ActiveUsers>,
}

/// The one statement that reads all answers.
pub(crate) struct SnapshotStatement {
    sql: String,
    has_counters: bool,
    has_polls: bool,
    has_series: bool,
    has_active: bool,
}

/// The rollup that analytics need is not declared.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("rollup `{0}`, from which reactions are read, is not declared: add it to the ROLLUPS_FILE")]
pub(crate) struct NotDeclared(&'static str);

impl SnapshotStatement {
    /// The statement for what is declared; logs which answers cannot be served.
    pub(crate) fn new(rollups: &Rollups) -> Result<Self, NotDeclared> {
        let (has_counters, has_polls) = (is_served::<Counters>(rollups), is_served::<Polls>(rollups));
        if let Some((rollup, _)) = Analytics::undeclared(rollups) {
            return Err(NotDeclared(rollup));
        }
        let has_series = is_served::<Series>(rollups);
        // Few need it, so it is not worth a warning.
        let has_active = ActiveUsers::undeclared(rollups).is_none();
        let mut selects = vec![freshness::select(), Analytics::select()];
        if has_counters {
            selects.push(Counters::select());
        }
        if has_polls {
            selects.push(Polls::select());
        }
        if has_series {
            selects.push(Series::select());
        }
        if has_active {
            selects.push(ActiveUsers::select());
        }
        let sql = selects.join("\nUNION ALL\n");
        let sql = rollups.iter().fold(sql, |sql, rollup| rollup.substitute_in(&sql));
        Ok(Self { sql, has_counters, has_polls, has_series, has_active })
    }

    /// The statement with its values bound.
    pub(crate) fn query(&self, client: &Client, scope: &Scope) -> Query {
        let mut query = Analytics::bind(client.query(&self.sql), scope);
        if self.has_counters {
            query = Counters::bind(query, scope);
        }
        if self.has_polls {
            query = Polls::bind(query, scope);
        }
        if self.has_series {
            query = Series::bind(query, scope);
        }
        if self.has_active {
            query = ActiveUsers::bind(query, scope);
        }
        query
    }

    /// The snapshot, from the rows that the statement returned.
    pub(crate) fn render(&self, mut rows: Vec<SnapshotRow>, scope: &Scope) -> Snapshot {
        let counters = take::<Counters>(&mut rows);
        let polls = take::<Polls>(&mut rows);
        let (series, active) = (take::<Series>(&mut rows), take::<ActiveUsers>(&mut rows));
        let hours = take::<Analytics>(&mut rows);
        let as_of = freshness::as_of(&rows);
        Snapshot {
            as_of,
            analytics: Analytics::render(hours, scope, as_of),
            counters: self.has_counters.then(|| Counters::render(counters, scope, as_of)),
            polls: self.has_polls.then(|| Polls::render(polls, scope, as_of)),
            series: self.has_series.then(|| Series::render(series, scope, as_of)),
            active: self.has_active.then(|| ActiveUsers::render(active, scope, as_of)),
        }
    }
}

fn is_served<A: SnapshotAnswer>(rollups: &Rollups) -> bool {
    let Some((rollup, columns)) = A::undeclared(rollups) else { return true };
    let (answer, columns) = (A::NAME, columns.join(", "));
    tracing::warn!("{answer} are not served: rollup `{rollup}` with {columns} is not declared");
    false
}

/// Removes the rows of one answer.
fn take<A: SnapshotAnswer>(rows: &mut Vec<SnapshotRow>) -> Vec<SnapshotRow> {
    rows.extract_if(.., |row| A::owns(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(rollups: &[&str]) -> Result<String, NotDeclared> {
        let declared = Rollups::built_in();
        let text: String =
            rollups.iter().map(|name| format!("[[rollup]]\n{}", declared.get(name).unwrap())).collect();
        SnapshotStatement::new(&Rollups::parse("", &text).unwrap()).map(|statement| statement.sql)
    }

    #[test]
    fn an_answer_whose_rollup_is_not_declared_is_left_out_of_the_statement() {
        let all = statement(&["users_hourly", "event_hourly", "event_daily", "poll_votes"]).unwrap();
        assert!(all.contains("country_totals") && all.contains("'poll_votes'") && !all.contains('{'));
        let needed = statement(&["users_hourly", "event_hourly"]).unwrap();
        assert!(!needed.contains("country_totals") && !needed.contains("poll_votes"), "{needed}");
        let error = statement(&["users_hourly"]).unwrap_err().to_string();
        assert!(error.starts_with("rollup `event_hourly`, from which reactions are read"), "{error}");
    }
}
