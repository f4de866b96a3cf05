//! Compares the tables and the answers of the query API with the outcomes that the clients saw, once everything is
//! stored.

use std::time::Duration;

use devstack::wait_for;
use schemas::time::UnixMillis;

use super::load::journal::{self, SharedJournal};
use super::load::requests::{LARGE_LINES, TAG};
use super::load::{Journal, Request};
use super::rollups::{self, FOLDING_ROLLUP};
use crate::client::Http;
use crate::world::World;
use answers::HourlyAnswers;
use difference::{Cells, Difference, differences};
use line::Line;
use stored_requests::{RequestMismatch, StoredRequest, StoredRequests};
use totals::Totals;

pub mod stored_requests;

pub mod line;

pub mod totals;

pub mod difference;

mod accumulator;

mod answers;

/// Maximum number of wrong requests, and of wrong cells of each table, that are reported one by one.
const MOST_REPORTED: usize = 3;
/// Longest wait until the answers of the query API are up to date.
const ANSWERS_DEADLINE: Duration = Duration::from_secs(30);

/// The result of the comparison.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Missing events, summed over all tables and answers.
    pub(crate) missing: u64,
    /// Events that are counted too often, summed over all tables and answers.
    pub(crate) duplicated: u64,
    /// The problems, as lines of text. The first wrong requests, and the first wrong cells of each table, have a line
    /// each; the others share a line with their number.
    pub(crate) lines: Vec<String>,
    /// Stored requests of thousands of lines.
    pub(crate) large: u64,
    /// Stored events with hostile fields.
    pub(crate) hostile: u64,
}

/// Compares the raw table, the ledger, every rollup and the answers of the query API with the journal.
pub(crate) async fn verify(journal: &SharedJournal, world: &World, api: &Http) -> anyhow::Result<Verdict> {
    let stored = read_stored_requests(world).await?;
    let expected = Expected::new(&journal::lock(journal), &stored);
    let mut verdict = Verdict { large: expected.large, hostile: expected.hostile, ..Verdict::default() };
    verdict.add_requests(&expected, world).await?;
    for totals in &expected.totals {
        let found = totals.found(world.try_rows(&totals.sql).await?);
        verdict.add_differences(totals.differences(&found));
    }
    verdict.add_answers(&expected.answers, api).await;
    Ok(verdict)
}

/// The expected contents of all tables and answers, and the requests that have wrong rows in the raw table.
struct Expected {
    /// Rows that belong to no request of the journal.
    unknown_rows: u64,
    mismatches: Vec<RequestMismatch>,
    totals: Vec<Totals>,
    answers: HourlyAnswers,
    /// Requests of thousands of lines that must be stored.
    large: u64,
    /// Events with hostile fields that must be stored.
    hostile: u64,
}

impl Expected {
    fn new(journal: &Journal, stored: &StoredRequests) -> Self {
        let known = 1..=journal.requests() as u32;
        let unknown = stored.iter().filter(|(number, _)| !known.contains(number));
        let rollups = rollups::declared();
        let rollups = rollups.iter().map(|rollup| {
            if rollup.name == FOLDING_ROLLUP { Totals::of_buckets(rollup) } else { Totals::of_rollup(rollup) }
        });
        let mut expected = Self {
            unknown_rows: unknown.map(|(_, stored)| stored.rows).sum(),
            mismatches: Vec::new(),
            totals: [Totals::of_raw(), Totals::of_ledger()].into_iter().chain(rollups).collect(),
            answers: HourlyAnswers::default(),
            large: 0,
            hostile: 0,
        };
        for (request, outcome, sent) in journal.replay() {
            expected.mismatches.extend(stored_requests::check_request(&request, outcome, stored));
            let stored = stored.get(&request.number).copied().unwrap_or_default();
            if stored_requests::must_count(outcome, stored) {
                expected.add(&request, sent);
            }
        }
        expected
    }

    fn add(&mut self, request: &Request, sent: UnixMillis) {
        self.large += u64::from(request.events.len() >= LARGE_LINES);
        self.hostile += request.hostile as u64;
        for line in request.events.iter().map(|line| Line::read(line)) {
            self.totals.iter_mut().for_each(|totals| totals.add(&line, sent));
            self.answers.add(&line);
        }
    }
}

/// The SQL expression for the number of the request to which a row belongs; 0 if it belongs to none.
fn request_number() -> String {
    format!(
        "toUInt32OrZero(substring(if(startsWith(param_str, '{TAG}'), param_str, user_id), {}))",
        TAG.len() + 1
    )
}

async fn read_stored_requests(world: &World) -> anyhow::Result<StoredRequests> {
    let sql = format!(
        "SELECT {}, count(), uniqExact(sequence) FROM events WHERE tenant != '' GROUP BY 1",
        request_number()
    );
    let number = |text: &String| text.parse::<u64>().unwrap_or_default();
    let stored = |row: Vec<String>| {
        (number(&row[0]) as u32, StoredRequest { rows: number(&row[1]), lines: number(&row[2]) })
    };
    Ok(world.try_rows(&sql).await?.into_iter().map(stored).collect())
}

impl Verdict {
    async fn add_requests(&mut self, expected: &Expected, world: &World) -> anyhow::Result<()> {
        let Expected { unknown_rows, mismatches, .. } = expected;
        if *unknown_rows > 0 {
            self.duplicated += unknown_rows;
            self.lines.push(format!("events: {unknown_rows} rows belong to no request"));
        }
        self.missing += mismatches.iter().map(RequestMismatch::missing).sum::<u64>();
        self.duplicated += mismatches.iter().map(RequestMismatch::duplicated).sum::<u64>();
        for mismatch in mismatches.iter().take(MOST_REPORTED) {
            let places = places(mismatch, world).await?;
            self.lines.push(format!("{mismatch}{places}"));
        }
        self.add_rest(mismatches.len(), "requests");
        Ok(())
    }

    pub(crate) fn add_differences(&mut self, found: Vec<Difference>) {
        self.missing += found.iter().map(Difference::missing).sum::<u64>();
        self.duplicated += found.iter().map(Difference::duplicated).sum::<u64>();
        self.lines.extend(found.iter().take(MOST_REPORTED).map(ToString::to_string));
        self.add_rest(found.len(), "cells");
    }

    async fn add_answers(&mut self, answers: &HourlyAnswers, api: &Http) {
        let expected = answers.expected();
        let mut found = Cells::new();
        let matching = wait_for("answers that are up to date", ANSWERS_DEADLINE, async || {
            found = answers::read(&expected, api).await;
            found == expected
        });
        // If the answers still differ at the deadline, the differences are reported below.
        let _overdue = matching.await;
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let key = texts(&["hour"]);
        let figures = texts(&["clicks", "impressions", "users"]);
        self.add_differences(differences("query-api", &key, &figures, &expected, &found));
    }

    /// Adds a line for the problems that are not reported one by one.
    fn add_rest(&mut self, problems: usize, what: &str) {
        if problems > MOST_REPORTED {
            let more = problems - MOST_REPORTED;
            self.lines.push(format!("… and {more} more wrong {what} besides the {MOST_REPORTED} above"));
        }
    }
}

/// Describes where one line of the request is stored: the partition, offset and line number of each row of the line
/// with the most rows. Empty if the request has no row that must not exist.
async fn places(mismatch: &RequestMismatch, world: &World) -> anyhow::Result<String> {
    if mismatch.duplicated() == 0 {
        return Ok(String::new());
    }
    let sql = format!(
        "SELECT sequence, toString(arraySort(groupArray((kp, ko, line)))) FROM events
         WHERE tenant != '' AND {} = {} GROUP BY sequence ORDER BY count() DESC, sequence LIMIT 1",
        request_number(),
        mismatch.number
    );
    let rows = world.try_rows(&sql).await?;
    let places =
        rows.iter().map(|row| format!("; its line with sequence {} is at (kp, ko, line) {}", row[0], row[1]));
    Ok(places.collect())
}
