//! The polls of one tick, rendered.
//!
//! A poll needs no declaration: it exists by being voted on. So one without votes is an answer
//! without options, like an hour without events. Bounded: the [`MAX_POLLS`] with most votes and
//! those that readers asked for, of each the [`MAX_OPTIONS`] options with most votes. What may be
//! missing is said (`complete`), and a poll beyond the bound is unknown, never empty.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use schemas::rollup::Rollups;
use schemas::time::UnixMillis;
use serde::Serialize;

use crate::snapshot::{Aging, Rendered, rfc3339};

/// Polls that every statement asks for: those with most votes.
pub const MAX_POLLS: usize = 500;
/// Options that are told of one poll: those with most votes.
pub const MAX_OPTIONS: usize = 50;
/// The rollup that polls are read from.
pub const ROLLUP: &str = "poll_votes";
/// Its columns that are read.
pub const COLUMNS: [&str; 4] = ["poll", "option", "votes", "voters"];

/// Whether what polls are read from is declared.
pub fn are_served(rollups: &Rollups) -> bool {
    rollups.get(ROLLUP).is_some_and(|rollup| rollup.has_columns(&COLUMNS))
}

/// One option of a poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Its name.
    pub option: String,
    /// Votes for it.
    pub votes: u64,
    /// Distinct voters for it; votes without a voter do not count here.
    pub voters: u64,
}

/// An answer in each of its forms.
#[derive(Debug)]
pub struct Forms {
    /// `{"data":[…],"meta":{…}}`.
    pub json: Aging,
    /// A header and a row an option; RFC 4180.
    pub csv: Rendered,
}

/// What a statement told of the polls.
#[derive(Debug)]
pub struct Polls {
    /// Each poll by itself.
    by_name: HashMap<String, Forms>,
    /// All of them, the one with most votes first.
    pub all: Forms,
    /// What is told of a poll without votes.
    empty: Forms,
    /// Whether there is no other poll.
    complete: bool,
    /// Polls that were asked for by name.
    asked: Vec<String>,
}

impl Polls {
    /// Renders what a statement told: the polls in `asked` and [`MAX_POLLS`] others.
    pub fn new(rows: Vec<(String, Tally)>, asked: Vec<String>, as_of: Option<UnixMillis>) -> Self {
        let mut polls: BTreeMap<String, Vec<Tally>> = BTreeMap::new();
        for (poll, tally) in rows {
            polls.entry(poll).or_default().push(tally);
        }
        let mut polls: Vec<_> = polls.into_iter().collect();
        for (_, tallies) in &mut polls {
            tallies.sort_by(|a, b| b.votes.cmp(&a.votes).then_with(|| a.option.cmp(&b.option)));
        }
        // Stable, so that those of as many votes stand by name.
        polls.sort_by_key(|(_, tallies)| u64::MAX - tallies.iter().map(|tally| tally.votes).sum::<u64>());
        let complete = polls.len() < MAX_POLLS;
        let whole = complete && polls.iter().all(|(_, tallies)| tallies.len() < MAX_OPTIONS);
        let all: Vec<_> = polls
            .iter()
            .flat_map(|(poll, tallies)| tallies.iter().map(move |tally| (&**poll, tally)))
            .collect();
        let all = Forms::of_all(&all, as_of, whole);
        let by_name =
            polls.into_iter().map(|(poll, tallies)| (poll, Forms::of_one(&tallies, as_of))).collect();
        Self { by_name, all, empty: Forms::of_one(&[], as_of), complete, asked }
    }

    /// The answer of one poll; none if this tick does not know it.
    pub fn poll(&self, name: &str) -> Option<&Forms> {
        let is_known = self.complete || self.is_asked(name);
        self.by_name.get(name).or(is_known.then_some(&self.empty))
    }

    /// Whether it was asked for by name.
    pub fn is_asked(&self, name: &str) -> bool {
        self.asked.iter().any(|asked| asked == name)
    }
}

/// The fields in the order in which they are sent.
#[derive(Serialize)]
struct Answer<T> {
    data: T,
    meta: Meta,
}

#[derive(Serialize)]
struct Meta {
    as_of: Option<String>,
    stale: bool,
    /// Whether nothing was left out for its number.
    complete: bool,
    exact: bool,
    rows: usize,
}

/// A row of all polls.
#[derive(Serialize)]
struct Row<'a> {
    poll: &'a str,
    #[serde(flatten)]
    tally: &'a Tally,
}

impl Forms {
    fn of_one(tallies: &[Tally], as_of: Option<UnixMillis>) -> Self {
        let csv = csv("option,votes,voters\r\n", tallies.iter().map(|tally| ([].as_slice(), tally)));
        Self { json: json(tallies, tallies.len(), as_of, tallies.len() < MAX_OPTIONS), csv }
    }

    fn of_all(rows: &[(&str, &Tally)], as_of: Option<UnixMillis>, complete: bool) -> Self {
        let named = rows.iter().map(|(poll, tally)| (std::slice::from_ref(poll), *tally));
        let csv = csv("poll,option,votes,voters\r\n", named);
        let data: Vec<_> = rows.iter().map(|(poll, tally)| Row { poll, tally }).collect();
        Self { json: json(&data, data.len(), as_of, complete), csv }
    }
}

fn json(data: impl Serialize + Copy, rows: usize, as_of: Option<UnixMillis>, complete: bool) -> Aging {
    Aging::new(as_of, |stale| {
        let meta = Meta { as_of: as_of.map(rfc3339), stale, complete, exact: true, rows };
        let body = serde_json::to_string(&Answer { data, meta });
        Rendered::new("application/json", body.expect("numbers and texts become JSON"))
    })
}

fn csv<'a>(header: &str, rows: impl Iterator<Item = (&'a [&'a str], &'a Tally)>) -> Rendered {
    let mut body = header.to_owned();
    for (names, Tally { option, votes, voters }) in rows {
        for name in names.iter().copied().chain([&**option]) {
            field(name, &mut body);
            body.push(',');
        }
        // Writing to a String cannot fail.
        let _ = write!(body, "{votes},{voters}\r\n");
    }
    Rendered::new("text/csv; charset=utf-8; header=present", body)
}

/// A field as RFC 4180 has it: between quotes where it holds what would end it.
fn field(text: &str, out: &mut String) {
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
        let csv = |polls: &Polls, name: &str| polls.poll(name).map(|forms| text(&forms.csv).to_owned());
        let empty = Some("option,votes,voters\r\n".to_owned());
        assert_eq!(csv(&many(MAX_POLLS - 1), "other"), empty);
        assert_eq!(csv(&many(MAX_POLLS), "other"), None);
        assert_eq!(csv(&many(MAX_POLLS), "asked"), empty);
        assert_eq!(csv(&many(MAX_POLLS), "poll 7"), Some("option,votes,voters\r\na,1,0\r\n".to_owned()));
    }

    #[test]
    fn what_may_be_left_out_is_said() {
        let is_complete = |forms: &Forms| {
            let json = text(forms.json.at(UnixMillis(0), 5000, false));
            serde_json::from_str::<serde_json::Value>(json).unwrap()["meta"]["complete"] == true
        };
        assert!(is_complete(&many(MAX_POLLS - 1).all) && !is_complete(&many(MAX_POLLS).all));
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
        assert!(are_served(&Rollups::built_in()));
        assert!(!are_served(&Rollups::parse("", other).unwrap()), "it has no option");
    }
}
