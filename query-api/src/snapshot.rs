//! All answers of one refresh, and the statement that reads them.
//!
//! No I/O: `refresh.rs` sends the statement and passes in the rows; `http/` and `live/` send the answers to readers.
//!
//! This file names every kind of prepared answer. If the rollups that `/analytics` reads are not declared, there is no
//! snapshot. Each other answer is served only if the rollups that it reads are declared. A rollup that lacks a column
//! that the answer reads counts as not declared.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
use crate::answers::{LeftOut, Refresh, Scope, SnapshotAnswer};
use crate::rendered::AsOf;

/// The answers of one refresh.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Everything that was in Kafka before this moment is counted; `None` before the aggregator has
    /// reported progress of all partitions.
    pub(crate) as_of: Option<UnixMillis>,
    /// Whether the rollup of the country counters is declared.
    pub(crate) has_counters: bool,
    /// Whether the rollup of the polls is declared.
    pub(crate) has_polls: bool,
    tenants: HashMap<String, TenantAnswers>,
}

/// The answers of one tenant.
#[derive(Debug)]
pub(crate) struct TenantAnswers {
    /// The hours of `/analytics`.
    pub(crate) analytics: Analytics,
    /// The country counters; `None` where their rollup is not declared, or where no refresh has read them yet.
    pub(crate) counters: Option<Arc<Counters>>,
    /// The polls; `None` where their rollup is not declared, or where no refresh has read them yet.
    pub(crate) polls: Option<Arc<Polls>>,
    /// What `/v1/live` shows.
    pub(crate) live: Arc<LiveAnswer>,
    /// Whether a reader has read any of these answers.
    was_read: AtomicBool,
}

/// What `/v1/live` shows.
#[derive(Debug, Default)]
pub(crate) struct LiveAnswer {
    /// Everything that was in Kafka before this moment is counted; `None` before a refresh has read this answer, and
    /// before the aggregator has reported progress of all partitions.
    pub(crate) as_of: Option<UnixMillis>,
    /// The events of each of the last 60 minutes, of the current hour and of the current day; `None` where their
    /// rollups are not declared, or where no refresh has read them yet.
    pub(crate) series: Option<Series>,
    /// The number of users in the last 5 and 30 minutes; `None` where its rollup is not declared, or where no refresh
    /// has read it yet.
    pub(crate) active: Option<ActiveUsers>,
}

impl Snapshot {
    /// The answers of a tenant; `None` if the refresh did not read them. Notes that a reader has read these answers.
    pub(crate) fn tenant(&self, name: &str) -> Option<&TenantAnswers> {
        let answers = self.tenants.get(name)?;
        // Only the first reader writes: if each reader did, the cores would contend for the cache line.
        if !answers.was_read.load(Ordering::Relaxed) {
            answers.was_read.store(true, Ordering::Relaxed);
        }
        Some(answers)
    }

    /// The tenants whose answers a reader has read.
    pub(crate) fn read_tenants(&self) -> impl Iterator<Item = &str> {
        let read = self.tenants.iter().filter(|(_, answers)| answers.was_read.load(Ordering::Relaxed));
        read.map(|(tenant, _)| tenant.as_str())
    }
}

/// The one statement that reads all answers.
pub(crate) struct SnapshotStatement {
    /// Hash of the rollups of this process.
    rollups_hash: u64,
    /// The SELECTs of freshness and analytics, which every refresh reads.
    always: String,
    /// The SELECTs of the country counters; `None` where their rollup is not declared.
    counters: Option<String>,
    /// The SELECTs of the polls; `None` where their rollup is not declared.
    polls: Option<String>,
    /// The SELECTs of the series of `/v1/live`; `None` where their rollups are not declared.
    series: Option<String>,
    /// The SELECTs of the number of users in the last 5 and 30 minutes; `None` where its rollup is not declared.
    active: Option<String>,
}

/// Which answers a statement reads besides analytics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reads {
    counters: bool,
    polls: bool,
    series: bool,
    active: bool,
}

/// A rollup that `/analytics` reads is not declared, or is declared without a column that `/analytics` reads.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no rollup `{0}` with the columns that /analytics reads is declared: add it to the ROLLUPS_FILE")]
pub(crate) struct NotDeclared(&'static str);

impl SnapshotStatement {
    /// The statement for the answers whose rollups are declared. Logs which other answers, except the active users,
    /// cannot be served.
    ///
    /// # Errors
    /// A rollup that `/analytics` reads is not declared, or is declared without a column that `/analytics` reads.
    pub(crate) fn new(rollups: &Rollups) -> Result<Self, NotDeclared> {
        if let Some((rollup, _)) = Analytics::undeclared(rollups) {
            return Err(NotDeclared(rollup));
        }
        let select = |sql: String| rollups.iter().fold(sql, |sql, rollup| rollup.substitute_in(&sql));
        Ok(Self {
            rollups_hash: rollups.hash(),
            always: select(format!("{}\nUNION ALL\n{}", freshness::select(), Analytics::select())),
            counters: is_served::<Counters>(rollups).then(|| select(Counters::select())),
            polls: is_served::<Polls>(rollups).then(|| select(Polls::select())),
            series: is_served::<Series>(rollups).then(|| select(Series::select())),
            // Few deployments declare the rollup of active users, so its absence is not worth a warning.
            active: ActiveUsers::undeclared(rollups).is_none().then(|| select(ActiveUsers::select())),
        })
    }

    /// The text of the statement, and which answers it reads.
    fn text(&self, left_out: LeftOut) -> (String, Reads) {
        let counters = self.counters.as_ref().filter(|_| left_out < LeftOut::Counters);
        let [polls, series, active] = [&self.polls, &self.series, &self.active]
            .map(|select| select.as_ref().filter(|_| left_out < LeftOut::Polls));
        let selects = [Some(&self.always), counters, polls, series, active];
        let selects: Vec<_> = selects.into_iter().flatten().cloned().collect();
        let reads = Reads {
            counters: counters.is_some(),
            polls: polls.is_some(),
            series: series.is_some(),
            active: active.is_some(),
        };
        (selects.join("\nUNION ALL\n"), reads)
    }

    /// The statement with its values bound. Among these values are counts from the snapshot `previous`: if the current
    /// count of an hour, a day or a poll is the same, ClickHouse need not merge the users of the hour or day, or the
    /// voters of the poll, again.
    pub(crate) fn query(&self, client: &Client, scope: &Scope, previous: Option<&Snapshot>) -> Query {
        let (text, reads) = self.text(scope.left_out);
        let of_tenants = scope.tenants.iter().filter_map(|tenant| {
            previous
                .and_then(|previous| previous.tenants.get(tenant))
                .map(|answers| (tenant.as_str(), answers))
        });
        let analytics: Vec<_> =
            of_tenants.clone().map(|(tenant, answers)| (tenant, &answers.analytics)).collect();
        let query = freshness::bind(client.query(&text), self.rollups_hash);
        let mut query = Analytics::bind(query, scope, &analytics);
        if reads.counters {
            query = Counters::bind(query, scope, &[]);
        }
        if reads.polls {
            let polls =
                of_tenants.clone().filter_map(|(tenant, answers)| Some((tenant, answers.polls.as_deref()?)));
            query = Polls::bind(query, scope, &polls.collect::<Vec<_>>());
        }
        if reads.series {
            let series =
                of_tenants.filter_map(|(tenant, answers)| Some((tenant, answers.live.series.as_ref()?)));
            query = Series::bind(query, scope, &series.collect::<Vec<_>>());
        }
        if reads.active {
            query = ActiveUsers::bind(query, scope, &[]);
        }
        query
    }

    /// The snapshot, rendered from the rows that the statement had returned by `read_at`. Answers that the statement
    /// left out are taken from `previous`.
    pub(crate) fn render(
        &self,
        mut rows: Vec<SnapshotRow>,
        scope: &Scope,
        read_at: UnixMillis,
        previous: Option<&Snapshot>,
    ) -> Snapshot {
        let (_, reads) = self.text(scope.left_out);
        let mut counters = take::<Counters>(&mut rows);
        let mut polls = take::<Polls>(&mut rows);
        let (mut series, mut active) = (take::<Series>(&mut rows), take::<ActiveUsers>(&mut rows));
        let mut hours = take::<Analytics>(&mut rows);
        let as_of = AsOf::new(freshness::as_of(&rows));
        let tenants = scope.tenants.iter().map(|tenant| {
            let refresh = Refresh { tenant, scope, as_of: &as_of, read_at };
            let previous = previous.and_then(|previous| previous.tenants.get(tenant));
            let of = |rows: &mut HashMap<String, _>| rows.remove(tenant).unwrap_or_default();
            let analytics =
                Analytics::render(of(&mut hours), refresh, previous.map(|previous| &previous.analytics));
            let counters = if reads.counters {
                Some(Arc::new(Counters::render(of(&mut counters), refresh, None)))
            } else {
                previous.and_then(|previous| previous.counters.clone())
            };
            let previous_polls = previous.and_then(|previous| previous.polls.as_ref());
            let polls = if reads.polls {
                let previous = previous_polls.map(|polls| &**polls);
                Some(Arc::new(Polls::render(of(&mut polls), refresh, previous)))
            } else {
                previous_polls.cloned()
            };
            let previous_live = previous.map(|previous| &previous.live);
            let live = if reads.series || reads.active {
                let previous = previous_live.and_then(|live| live.series.as_ref());
                Arc::new(LiveAnswer {
                    as_of: as_of.moment,
                    series: reads.series.then(|| Series::render(of(&mut series), refresh, previous)),
                    active: reads.active.then(|| ActiveUsers::render(of(&mut active), refresh, None)),
                })
            } else {
                previous_live.cloned().unwrap_or_default()
            };
            let was_read = AtomicBool::new(false);
            (tenant.clone(), TenantAnswers { analytics, counters, polls, live, was_read })
        });
        Snapshot {
            as_of: as_of.moment,
            has_counters: self.counters.is_some(),
            has_polls: self.polls.is_some(),
            tenants: tenants.collect(),
        }
    }
}

fn is_served<A: SnapshotAnswer>(rollups: &Rollups) -> bool {
    let Some((rollup, columns)) = A::undeclared(rollups) else { return true };
    let (answer, columns) = (A::NAME, columns.join(", "));
    tracing::warn!(
        "{answer} are not served: no rollup `{rollup}` with the columns {columns} is declared; to serve them, add it \
         to the ROLLUPS_FILE"
    );
    false
}

/// Removes the rows of the answer `A` from `rows`, and returns them grouped by tenant.
fn take<A: SnapshotAnswer>(rows: &mut Vec<SnapshotRow>) -> HashMap<String, Vec<SnapshotRow>> {
    let mut taken: HashMap<String, Vec<SnapshotRow>> = HashMap::new();
    for row in rows.extract_if(.., |row| A::owns(row)) {
        taken.entry(row.tenant.clone()).or_default().push(row);
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::{fs, path};

    use super::*;

    fn statement(rollups: &[&str]) -> Result<SnapshotStatement, NotDeclared> {
        let declared = Rollups::built_in();
        let text: String =
            rollups.iter().map(|name| format!("[[rollup]]\n{}", declared.get(name).unwrap())).collect();
        SnapshotStatement::new(&Rollups::parse("", &text).unwrap())
    }

    #[test]
    fn an_answer_whose_rollup_is_not_declared_is_left_out_of_the_statement() {
        let text = |rollups: &[&str]| statement(rollups).map(|statement| statement.text(LeftOut::Nothing).0);
        let all = text(&["users_hourly", "event_hourly", "event_daily", "poll_votes"]).unwrap();
        assert!(all.contains("country_totals") && all.contains("'poll_votes'") && !all.contains('{'));
        let needed = text(&["users_hourly", "event_hourly"]).unwrap();
        assert!(!needed.contains("country_totals") && !needed.contains("poll_votes"), "{needed}");
        let error = text(&["users_hourly"]).unwrap_err().to_string();
        assert!(
            error.starts_with("no rollup `event_hourly` with the columns that /analytics reads"),
            "{error}"
        );
    }

    #[test]
    fn polls_are_left_out_before_counters_and_hours_are_always_read() {
        let statement = SnapshotStatement::new(&Rollups::built_in()).unwrap();
        let reads = |left_out| {
            let (text, Reads { counters, polls, series, active }) = statement.text(left_out);
            assert_eq!((text.contains("country_totals"), text.contains("'poll_votes'")), (counters, polls));
            assert_eq!((text.contains("'event_minutely'"), active), (series, false));
            assert!(text.contains("'users_hourly'"));
            (counters, polls, series)
        };
        assert_eq!(reads(LeftOut::ColdKeys), (true, true, true));
        assert_eq!(reads(LeftOut::Polls), (true, false, false));
        assert_eq!(reads(LeftOut::Counters), (false, false, false));
    }

    #[test]
    fn each_tenant_gets_only_its_own_rows() {
        let statement = SnapshotStatement::new(&Rollups::built_in()).unwrap();
        let row = |part, tenant: &str| SnapshotRow { part, tenant: tenant.to_owned(), ..Default::default() };
        let rows = vec![
            SnapshotRow { hour: 3600, clicks: 2, ..row(1, "a") },
            SnapshotRow { hour: 3600, users: 1, ..row(2, "a") },
            SnapshotRow { poll: "p".to_owned(), total: 4, ..row(4, "b") },
            SnapshotRow { poll: "p".to_owned(), option: "x".to_owned(), votes: 4, total: 4, ..row(5, "b") },
        ];
        let scope = Scope::of_tenants(&["a", "b"]);
        let snapshot = statement.render(rows, &scope, UnixMillis(0), None);
        let body = |tenant| {
            let answers = snapshot.tenant(tenant).unwrap();
            let (hour, _) = answers.analytics.hour(UnixMillis(3_600_000)).unwrap();
            let poll = answers.polls.as_ref().unwrap().poll("p").unwrap();
            [&hour.body, &poll.csv.body].map(|body| String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(body("a"), ["unique_users,1\nclicks,2\nimpressions,0\n", "option,votes,voters\r\n"]);
        assert_eq!(
            body("b"),
            ["unique_users,0\nclicks,0\nimpressions,0\n", "option,votes,voters\r\nx,4,0\r\n"]
        );
        assert!(snapshot.tenant("c").is_none());
        let mut read: Vec<_> = snapshot.read_tenants().collect();
        read.sort_unstable();
        assert_eq!(read, ["a", "b"]);
    }

    #[test]
    fn the_statement_equals_its_golden_file() {
        let statement = SnapshotStatement::new(&Rollups::built_in()).unwrap();
        let found = format!("{}\n", statement.text(LeftOut::Nothing).0);
        let file = path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/answers/statement.sql");
        if fs::read_to_string(&file).is_ok_and(|golden| golden == found) {
            return;
        }
        fs::write(&file, found).unwrap();
        panic!("src/answers/statement.sql was stale; the test has rewritten it, review and commit it");
    }
}
