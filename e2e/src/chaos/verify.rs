//! Once all is quiet: what the clients were told against what the tables and answers say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use devstack::wait_for;
use schemas::time::{HOUR, UnixMillis};

use crate::chaos::book::Book;
use crate::chaos::difference::{Cells, Difference, differences};
use crate::chaos::line::Line;
use crate::chaos::load::{LARGE, Request, TAG};
use crate::chaos::presence::{self, Presence, Stored, Wrong};
use crate::chaos::rollups::{self, FOLDING};
use crate::chaos::sender::{self, SharedBook};
use crate::chaos::sums::Sums;
use crate::client::Http;
use crate::world::World;

/// How many wrong requests, and cells of a table, are told one by one.
const TOLD: usize = 3;
/// How long the query API may take until all its answers are of now.
const ANSWERS_DEADLINE: Duration = Duration::from_secs(30);

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Events not counted, over all tables and answers.
    pub(crate) missing: u64,
    /// Events counted too often.
    pub(crate) duplicated: u64,
    /// What is wrong, for a person.
    pub(crate) lines: Vec<String>,
    /// Requests of thousands of lines that are stored.
    pub(crate) large: u64,
    /// Events with hostile fields that are stored.
    pub(crate) hostile: u64,
}

/// Compares everything.
pub(crate) async fn verify(book: &SharedBook, world: &World, api: &Http) -> anyhow::Result<Verdict> {
    let presence = read_presence(world).await?;
    let must = Must::of(&sender::open(book), &presence);
    let mut verdict = Verdict { large: must.large, hostile: must.hostile, ..Verdict::default() };
    verdict.requests(&must, world).await?;
    for sums in &must.sums {
        let found = sums.found(world.try_rows(&sums.sql).await?);
        verdict.differences(sums.differences(&found));
    }
    verdict.answers(&must.answers, api).await;
    Ok(verdict)
}

/// What must be, and what of it the raw table holds request by request.
struct Must {
    /// Rows that are of no request.
    strangers: u64,
    wrong: Vec<Wrong>,
    sums: Vec<Sums>,
    answers: Answers,
    /// Requests of thousands of lines.
    large: u64,
    /// Events with hostile fields.
    hostile: u64,
}

impl Must {
    fn of(book: &Book, presence: &Presence) -> Self {
        let known = 1..=book.requests() as u32;
        let strangers = presence.iter().filter(|(number, _)| !known.contains(number));
        let rollups = rollups::declared();
        let rollups = rollups.iter().map(|rollup| {
            if rollup.name == FOLDING { Sums::of_buckets(rollup) } else { Sums::of_rollup(rollup) }
        });
        let mut must = Self {
            strangers: strangers.map(|(_, stored)| stored.rows).sum(),
            wrong: Vec::new(),
            sums: [Sums::of_raw(), Sums::of_ledger()].into_iter().chain(rollups).collect(),
            answers: Answers::default(),
            large: 0,
            hostile: 0,
        };
        for (request, fate, sent) in book.replay() {
            must.wrong.extend(presence::judge(&request, fate, presence));
            let stored = presence.get(&request.number).copied().unwrap_or_default();
            if presence::counts(fate, stored) {
                must.add(&request, sent);
            }
        }
        must
    }

    fn add(&mut self, request: &Request, sent: UnixMillis) {
        self.large += u64::from(request.events.len() >= LARGE);
        self.hostile += request.hostile as u64;
        for line in request.events.iter().map(|line| Line::read(line)) {
            self.sums.iter_mut().for_each(|sums| sums.add(&line, sent));
            self.answers.add(&line);
        }
    }
}

/// The column that tells the request of a row, as its number; 0 for a row of none.
fn request() -> String {
    format!(
        "toUInt32OrZero(substring(if(startsWith(param_str, '{TAG}'), param_str, user_id), {}))",
        TAG.len() + 1
    )
}

async fn read_presence(world: &World) -> anyhow::Result<Presence> {
    let sql = format!(
        "SELECT {}, count(), uniqExact(sequence) FROM events WHERE tenant != '' GROUP BY 1",
        request()
    );
    let number = |text: &String| text.parse::<u64>().unwrap_or_default();
    let stored =
        |row: Vec<String>| (number(&row[0]) as u32, Stored { rows: number(&row[1]), lines: number(&row[2]) });
    Ok(world.try_rows(&sql).await?.into_iter().map(stored).collect())
}

impl Verdict {
    async fn requests(&mut self, must: &Must, world: &World) -> anyhow::Result<()> {
        let Must { strangers, wrong, .. } = must;
        if *strangers > 0 {
            self.duplicated += strangers;
            self.lines.push(format!("events: {strangers} rows of no request"));
        }
        self.missing += wrong.iter().map(Wrong::missing).sum::<u64>();
        self.duplicated += wrong.iter().map(Wrong::duplicated).sum::<u64>();
        for wrong in wrong.iter().take(TOLD) {
            let places = places(wrong, world).await?;
            self.lines.push(format!("{wrong}{places}"));
        }
        self.told(wrong.len(), "requests");
        Ok(())
    }

    pub(crate) fn differences(&mut self, found: Vec<Difference>) {
        self.missing += found.iter().map(Difference::missing).sum::<u64>();
        self.duplicated += found.iter().map(Difference::duplicated).sum::<u64>();
        self.lines.extend(found.iter().take(TOLD).map(ToString::to_string));
        self.told(found.len(), "cells of this table");
    }

    async fn answers(&mut self, answers: &Answers, api: &Http) {
        let expected = answers.expected();
        let mut found = Cells::new();
        let matching = wait_for("answers of now", ANSWERS_DEADLINE, async || {
            found = ask(&expected, api).await;
            found == expected
        });
        // What still differs is told below.
        let _overdue = matching.await;
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let key = texts(&["hour"]);
        let figures = texts(&["clicks", "impressions", "users"]);
        self.differences(differences("query-api", &key, &figures, &expected, &found));
    }

    fn told(&mut self, wrong: usize, what: &str) {
        if wrong > TOLD {
            self.lines.push(format!("… and {} more {what}", wrong - TOLD));
        }
    }
}

/// Where the rows of a doubled line stand.
async fn places(wrong: &Wrong, world: &World) -> anyhow::Result<String> {
    if wrong.duplicated() == 0 {
        return Ok(String::new());
    }
    let sql = format!(
        "SELECT sequence, toString(arraySort(groupArray((kp, ko, line)))) FROM events
         WHERE tenant != '' AND {} = {} GROUP BY sequence ORDER BY count() DESC, sequence LIMIT 1",
        request(),
        wrong.number
    );
    let rows = world.try_rows(&sql).await?;
    let told =
        rows.iter().map(|row| format!("; the line of sequence {} at (kp, ko, line) {}", row[0], row[1]));
    Ok(told.collect())
}

/// What the query API must answer.
#[derive(Default)]
struct Answers(BTreeMap<i64, Hour>);

#[derive(Default)]
struct Hour {
    clicks: i64,
    impressions: i64,
    users: BTreeSet<String>,
}

impl Answers {
    fn add(&mut self, line: &Line<'_>) {
        let (clicks, impressions) = match &*line.event.event {
            "click" => (1, 0),
            "impression" => (0, 1),
            _ => return,
        };
        let hour = self.0.entry(line.time().floor(HOUR).0 / 1000).or_default();
        hour.clicks += clicks;
        hour.impressions += impressions;
        hour.users.extend(line.event.user().map(str::to_owned));
    }

    fn expected(&self) -> Cells {
        let figures = |hour: &Hour| vec![hour.clicks, hour.impressions, hour.users.len() as i64];
        self.0.iter().map(|(start, hour)| (vec![start.to_string()], figures(hour))).collect()
    }
}

/// The answers for these hours; an hour without one is left out.
async fn ask(hours: &Cells, api: &Http) -> Cells {
    let mut found = Cells::new();
    for hour in hours.keys() {
        let path = format!("/analytics?timestamp={}000", hour[0]);
        let Ok(answer) = api.try_send("GET", &path, &[], "").await else { continue };
        let figure = |name: &str| {
            let line = answer.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(','));
            line.and_then(|figure| figure.parse().ok())
        };
        let figures = ["clicks", "impressions", "unique_users"].map(figure);
        if let [Some(clicks), Some(impressions), Some(users)] = figures {
            found.insert(hour.clone(), vec![clicks, impressions, users]);
        }
    }
    found
}
