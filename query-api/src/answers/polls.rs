//! `/v1/polls` and `/v1/polls/{poll}`: votes and voters by option.
//!
//! A poll needs no declaration: it exists as soon as somebody votes. So a poll without votes is an answer
//! without options, as an hour without events is. Bounded: the [`LARGEST_POLLS`] with the most votes and
//! those that readers asked for, each with the [`MAX_OPTIONS`] options that have the most votes. `complete`
//! in an answer says whether anything may be missing; a poll that was not read is unknown, never empty.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use clickhouse::query::Query;
use schemas::time::UnixMillis;
use serde::Serialize;

use super::row::{Columns, SnapshotRow};
use super::{RollupSource, Scope, SnapshotAnswer, TENANT};
use crate::rendered::{AgingBody, Rendered, rfc3339};

/// Polls that every refresh reads: those with the most votes.
const LARGEST_POLLS: usize = 500;
/// Options that are read of one poll: those with the most votes.
const MAX_OPTIONS: usize = 50;

/// The polls of one refresh, rendered.
#[derive(Debug)]
pub(crate) struct Polls {
    by_name: HashMap<String, PollAnswer>,
    /// All of them, by descending votes.
    pub(crate) all: PollAnswer,
    /// The answer for a poll without votes.
    empty: PollAnswer,
    /// Whether every poll was read.
    complete: bool,
    /// Polls that were read because readers asked for them.
    wanted: Vec<String>,
}

/// An answer in both formats.
#[derive(Debug)]
pub(crate) struct PollAnswer {
    /// `{"data":[…],"meta":{…}}`.
    pub(crate) json: AgingBody,
    /// A header line, then a line for each option.
    pub(crate) csv: Rendered,
}

/// `?` are: tenant, wanted polls, tenant, [`LARGEST_POLLS`], [`MAX_OPTIONS`].
const FROM: &str = " FROM (
    SELECT poll AS name, option AS choice, sum(votes) AS counted, uniqExactMerge(voters) AS people FROM {poll_votes}
    WHERE tenant = ? AND poll != '' AND (has(CAST(?, 'Array(String)'), poll) OR poll IN (
        SELECT poll FROM {poll_votes} WHERE tenant = ? AND poll != '' GROUP BY poll ORDER BY sum(votes) DESC, poll LIMIT ?))
    GROUP BY poll, option HAVING counted > 0 ORDER BY counted DESC, choice LIMIT ? BY name
)";

impl SnapshotAnswer for Polls {
    const NAME: &'static str = "polls";
    const SOURCES: &'static [RollupSource] = &[("poll_votes", &["poll", "option", "votes", "voters"])];

    fn select() -> String {
        let columns = Columns {
            poll: "name",
            option: "choice",
            votes: "counted",
            voters: "people",
            ..Columns::DEFAULT
        };
        columns.select() + FROM
    }

    fn bind(statement: Query, scope: &Scope) -> Query {
        statement.bind(TENANT).bind(&scope.polls).bind(TENANT).bind(LARGEST_POLLS).bind(MAX_OPTIONS)
    }

    fn owns(row: &SnapshotRow) -> bool {
        !row.poll.is_empty()
    }

    fn render(rows: Vec<SnapshotRow>, scope: &Scope, as_of: Option<UnixMillis>) -> Self {
        let tally =
            |row: SnapshotRow| (row.poll, Tally { option: row.option, votes: row.votes, voters: row.voters });
        Self::new(rows.into_iter().map(tally).collect(), scope.polls.clone(), as_of)
    }
}

impl Polls {
    /// Renders the rows of the polls in `wanted` and of the [`LARGEST_POLLS`].
    fn new(rows: Vec<(String, Tally)>, wanted: Vec<String>, as_of: Option<UnixMillis>) -> Self {
        let mut polls: BTreeMap<String, Vec<Tally>> = BTreeMap::new();
        for (poll, tally) in rows {
            polls.entry(poll).or_default().push(tally);
        }
        let mut polls: Vec<_> = polls.into_iter().collect();
        for (_, tallies) in &mut polls {
            tallies.sort_by(|a, b| b.votes.cmp(&a.votes).then_with(|| a.option.cmp(&b.option)));
        }
        // A stable sort, so polls with equal votes stay sorted by name.
        polls.sort_by_key(|(_, tallies)| u64::MAX - tallies.iter().map(|tally| tally.votes).sum::<u64>());
        let complete = polls.len() < LARGEST_POLLS;
        let all_options = complete && polls.iter().all(|(_, tallies)| tallies.len() < MAX_OPTIONS);
        let all: Vec<_> = polls
            .iter()
            .flat_map(|(poll, tallies)| tallies.iter().map(move |tally| (&**poll, tally)))
            .collect();
        let all = PollAnswer::of_all(&all, as_of, all_options);
        let by_name =
            polls.into_iter().map(|(poll, tallies)| (poll, PollAnswer::of_one(&tallies, as_of))).collect();
        Self { by_name, all, empty: PollAnswer::of_one(&[], as_of), complete, wanted }
    }

    /// The answer for one poll; `None` if it was not read.
    pub(crate) fn poll(&self, name: &str) -> Option<&PollAnswer> {
        let is_known = self.complete || self.is_wanted(name);
        self.by_name.get(name).or(is_known.then_some(&self.empty))
    }

    /// Whether this poll was read because a reader asked for it.
    pub(crate) fn is_wanted(&self, name: &str) -> bool {
        self.wanted.iter().any(|wanted| wanted == name)
    }
}

/// One option of a poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Tally {
    option: String,
    votes: u64,
    /// Distinct voters of this option; votes without a voter do not count here.
    voters: u64,
}

/// The JSON body, its fields in the order in which they are sent.
#[derive(Serialize)]
struct PollBody<T> {
    data: T,
    meta: Meta,
}

#[derive(Serialize)]
struct Meta {
    as_of: Option<String>,
    stale: bool,
    /// Whether no bound left anything out.
    complete: bool,
    exact: bool,
    rows: usize,
}

/// An option in the answer with all polls.
#[derive(Serialize)]
struct NamedTally<'a> {
    poll: &'a str,
    #[serde(flatten)]
    tally: &'a Tally,
}

impl PollAnswer {
    fn of_one(tallies: &[Tally], as_of: Option<UnixMillis>) -> Self {
        let csv = csv("option,votes,voters\r\n", tallies.iter().map(|tally| ([].as_slice(), tally)));
        Self { json: json(tallies, tallies.len(), as_of, tallies.len() < MAX_OPTIONS), csv }
    }

    fn of_all(rows: &[(&str, &Tally)], as_of: Option<UnixMillis>, complete: bool) -> Self {
        let named = rows.iter().map(|(poll, tally)| (std::slice::from_ref(poll), *tally));
        let csv = csv("poll,option,votes,voters\r\n", named);
        let data: Vec<_> = rows.iter().map(|(poll, tally)| NamedTally { poll, tally }).collect();
        Self { json: json(&data, data.len(), as_of, complete), csv }
    }
}

fn json(data: impl Serialize + Copy, rows: usize, as_of: Option<UnixMillis>, complete: bool) -> AgingBody {
    AgingBody::new(as_of, |stale| {
        let meta = Meta { as_of: as_of.map(rfc3339), stale, complete, exact: true, rows };
        Rendered::json(&PollBody { data, meta })
    })
}

fn csv<'a>(header: &str, rows: impl Iterator<Item = (&'a [&'a str], &'a Tally)>) -> Rendered {
    let mut body = header.to_owned();
    for (names, Tally { option, votes, voters }) in rows {
        for name in names.iter().copied().chain([&**option]) {
            write_field(name, &mut body);
            body.push(',');
        }
        // Writing to a String cannot fail.
        let _ = write!(body, "{votes},{voters}\r\n");
    }
    Rendered::csv(body)
}

/// Appends a field of CSV, in quotes if it contains a character that would end it (RFC 4180).
fn write_field(text: &str, out: &mut String) {
    if text.contains(['"', ',', '\r', '\n']) {
        out.push('"');
        *out += &text.replace('"', "\"\"");
        out.push('"');
    } else {
        *out += text;
    }
}

#[cfg(test)]
mod tests {
    use schemas::rollup::Rollups;

    use super::*;

    fn row(poll: &str, option: &str, votes: u64) -> (String, Tally) {
        (poll.to_owned(), Tally { option: option.to_owned(), votes, voters: votes / 2 })
    }

    fn text(rendered: &Rendered) -> &str {
        str::from_utf8(&rendered.body).unwrap()
    }

    fn many(polls: usize) -> Polls {
        let rows = (0..polls).map(|n| row(&format!("poll {n}"), "a", 1)).collect();
        Polls::new(rows, vec!["asked".to_owned()], None)
    }

    #[test]
    fn a_poll_tells_its_options_by_votes_and_then_by_name() {
        let rows = vec![row("p", "b", 4), row("p", "a", 4), row("p", "c", 9)];
        let as_of = UnixMillis::parse("2026-11-21 04:05:06");
        let polls = Polls::new(rows, Vec::new(), as_of);
        let poll = polls.poll("p").unwrap();
        assert_eq!(text(&poll.csv), "option,votes,voters\r\nc,9,4\r\na,4,2\r\nb,4,2\r\n");
        assert_eq!(
            text(poll.json.at(as_of.unwrap(), 5000, false)),
            r#"{"data":[{"option":"c","votes":9,"voters":4},{"option":"a","votes":4,"voters":2},{"option":"b","votes":4,"voters":2}],"meta":{"as_of":"2026-11-21T04:05:06.000Z","stale":false,"complete":true,"exact":true,"rows":3}}"#
        );
    }

    #[test]
    fn all_polls_stand_by_votes_and_then_by_name() {
        let rows = vec![row("z", "a", 1), row("q", "a", 1), row("p", "a", 1), row("p", "b", 1)];
        let polls = Polls::new(rows, Vec::new(), None);
        assert_eq!(
            text(&polls.all.csv),
            "poll,option,votes,voters\r\np,a,1,0\r\np,b,1,0\r\nq,a,1,0\r\nz,a,1,0\r\n"
        );
        let json = text(polls.all.json.at(UnixMillis(0), 5000, false));
        assert!(json.starts_with(r#"{"data":[{"poll":"p","option":"a","votes":1,"voters":0},"#), "{json}");
    }

    #[test]
    fn names_are_quoted_where_csv_needs_it() {
        let polls = Polls::new(vec![row("a,b", "say \"hi\"\n", 1)], Vec::new(), None);
        assert_eq!(text(&polls.all.csv), "poll,option,votes,voters\r\n\"a,b\",\"say \"\"hi\"\"\n\",1,0\r\n");
    }

    #[test]
    fn a_poll_without_votes_is_empty_and_one_beyond_the_bound_is_unknown() {
        let csv = |polls: &Polls, name: &str| polls.poll(name).map(|answer| text(&answer.csv).to_owned());
        let empty = Some("option,votes,voters\r\n".to_owned());
        assert_eq!(csv(&many(LARGEST_POLLS - 1), "other"), empty);
        assert_eq!(csv(&many(LARGEST_POLLS), "other"), None);
        assert_eq!(csv(&many(LARGEST_POLLS), "asked"), empty);
        assert_eq!(csv(&many(LARGEST_POLLS), "poll 7"), Some("option,votes,voters\r\na,1,0\r\n".to_owned()));
    }

    #[test]
    fn what_may_be_left_out_is_said() {
        let is_complete = |answer: &PollAnswer| {
            let json = text(answer.json.at(UnixMillis(0), 5000, false));
            serde_json::from_str::<serde_json::Value>(json).unwrap()["meta"]["complete"] == true
        };
        assert!(is_complete(&many(LARGEST_POLLS - 1).all) && !is_complete(&many(LARGEST_POLLS).all));
        let options =
            |count| Polls::new((0..count).map(|n| row("p", &n.to_string(), 1)).collect(), Vec::new(), None);
        let (fits, full) = (options(MAX_OPTIONS - 1), options(MAX_OPTIONS));
        assert!(is_complete(&fits.all) && is_complete(fits.poll("p").unwrap()));
        assert!(!is_complete(&full.all) && !is_complete(full.poll("p").unwrap()));
    }

    #[test]
    fn polls_are_served_where_their_rollup_is_declared() {
        let other = "[[rollup]]\nname = \"poll_votes\"\ngrain = \"none\"\n\
                     dimensions = [\"props.poll\"]\nmeasures = { votes = \"count\" }\n";
        assert_eq!(Polls::undeclared(&Rollups::built_in()), None);
        assert!(Polls::undeclared(&Rollups::parse("", other).unwrap()).is_some(), "it has no option");
    }
}
