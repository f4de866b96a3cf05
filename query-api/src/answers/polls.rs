//! `/v1/polls` and `/v1/polls/{poll}`: votes and voters by option.
//!
//! A poll needs no declaration: it exists from its first vote on. So the answer for a poll without votes has no
//! options, and is not an error. The work is bounded: for each tenant, a refresh reads the [`LARGEST_POLLS`] polls with
//! the most votes and the polls that readers asked for; for each poll, it reads the [`MAX_OPTIONS`] options with the
//! most votes. `complete` in an answer is false if anything may be missing. A poll that was not read but may have votes
//! is unknown: it has no answer, and is never shown as a poll without votes.
//!
//! A refresh counts the votes of each poll that it reads. It merges the voters of a poll only if the number of votes
//! changed since the last merge, and the number of voters that one refresh may merge is limited. Polls that were never
//! merged have priority, then polls whose last merge is the oldest. A poll that is not merged because of this limit
//! keeps its previous answer with the `as_of` of that answer; if it has no previous answer, it is unknown.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use clickhouse::query::Query;
use schemas::time::UnixMillis;
use serde::Serialize;

use super::row::{Columns, SnapshotRow};
use super::{LeftOut, Refresh, RollupSource, Scope, SnapshotAnswer};
use crate::rendered::{AgingBody, AsOf, Rendered, rfc3339};

/// How many polls of each tenant a refresh always reads: the polls with the most votes.
const LARGEST_POLLS: usize = 500;
/// How many options of a poll a refresh reads: the options with the most votes.
const MAX_OPTIONS: usize = 50;
/// The value of `part` in rows with the votes of a poll.
const POLLS_PART: u8 = 4;
/// The value of `part` in rows with an option of a poll.
const OPTIONS_PART: u8 = 5;

/// The rendered answers for the polls of one tenant, after one refresh.
#[derive(Debug)]
pub(crate) struct Polls {
    by_name: HashMap<String, Arc<Poll>>,
    /// The answer with every poll in `by_name`, by descending votes.
    pub(crate) all: PollAnswer,
    /// The answer for a poll without votes.
    empty: PollAnswer,
    /// True if the refresh read fewer than [`LARGEST_POLLS`] polls. Then it read every poll that has votes.
    complete: bool,
    /// Polls that have votes but no answer, because their voters were never merged.
    waiting: HashSet<String>,
    /// Polls that this or an earlier refresh read because readers asked for them.
    wanted: HashSet<String>,
}

/// A poll whose voters were merged, by this or an earlier refresh.
#[derive(Debug)]
struct Poll {
    /// Votes for all options, including options that are not in the answer.
    total: u64,
    /// The options with the most votes, in the order of the answer.
    tallies: Vec<Tally>,
    /// When the voters were merged, in milliseconds since 1970.
    merged: UnixMillis,
    answer: PollAnswer,
}

/// An answer as JSON and as CSV.
#[derive(Debug)]
pub(crate) struct PollAnswer {
    /// `{"data":[…],"meta":{…}}`.
    pub(crate) json: AgingBody,
    /// A header line, then a line for each option.
    pub(crate) csv: Rendered,
}

/// The values of the `?`, in order: tenants; [`LARGEST_POLLS`]; tenants and names of the polls that readers
/// asked for.
const COUNTED: &str = "
    SELECT who, name, total FROM (
        SELECT who, name, total, row_number() OVER (PARTITION BY who ORDER BY total DESC, name) AS place FROM (
            SELECT tenant AS who, poll AS name, sum(votes) AS total FROM {poll_votes} WHERE tenant IN ? AND poll != '' GROUP BY who, name HAVING total > 0
        )
    ) WHERE place <= ? OR (who, name) IN (SELECT W.1, W.2 FROM (SELECT arrayJoin(arrayZip(CAST(?, 'Array(String)'), CAST(?, 'Array(String)'))) AS W))
";

/// The part of the statement that merges voters: the first text, then [`COUNTED`], then the second text. The values of
/// the `?` in the second text, in order: the tenants, names, votes, voters and moments of the last merges; the number
/// of voters that may be merged; [`MAX_OPTIONS`]. The last poll that is merged may bring the total above the number
/// of voters that may be merged.
///
/// The cost of a merge is an estimate of the number of voters: the number of votes, or the voters of the last merge
/// plus the votes since that merge, whichever is less. It is an upper estimate, except for a poll with more than
/// [`MAX_OPTIONS`] options: of such a poll, only the voters of the options in the last answer are known.
const MERGED: [&str; 2] = [
    " FROM (
    SELECT who, name, choice, counted, people, sum(counted) OVER (PARTITION BY who, name) AS total FROM (
        SELECT tenant AS who, poll AS name, option AS choice, sum(votes) AS counted, uniqExactMerge(voters) AS people FROM {poll_votes}
        WHERE poll != '' AND (tenant, poll) IN (
            SELECT who, name FROM (
                SELECT who, name, cost, sum(cost) OVER (ORDER BY merged, total, who, name ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS running FROM (
                    SELECT who, name, total, merged, if(known = 0, total, least(total, people + toUInt64(abs(toInt64(total) - toInt64(known))))) AS cost
                    FROM (",
    ") AS C LEFT JOIN (
                        SELECT K.1 AS who, K.2 AS name, K.3 AS known, K.4 AS people, K.5 AS merged
                        FROM (SELECT arrayJoin(arrayZip(CAST(?, 'Array(String)'), CAST(?, 'Array(String)'), CAST(?, 'Array(UInt64)'), CAST(?, 'Array(UInt64)'), CAST(?, 'Array(UInt64)'))) AS K)
                    ) AS M USING (who, name)
                    WHERE total != known
                )
            ) WHERE running - cost < ?
        )
        GROUP BY who, name, choice HAVING counted > 0
    ) ORDER BY counted DESC, choice LIMIT ? BY who, name
)",
];

impl SnapshotAnswer for Polls {
    const NAME: &'static str = "polls";
    const SOURCES: &'static [RollupSource] = &[("poll_votes", &["poll", "option", "votes", "voters"])];

    fn select() -> String {
        let polls = Columns {
            part: "toUInt8(4)",
            tenant: "toString(who)",
            poll: "name",
            total: "total",
            ..Columns::DEFAULT
        };
        let options = Columns {
            part: "toUInt8(5)",
            tenant: "toString(who)",
            poll: "name",
            option: "choice",
            votes: "counted",
            voters: "people",
            total: "total",
            ..Columns::DEFAULT
        };
        let (polls, options) = (polls.select(), options.select());
        let [before, after] = MERGED;
        format!("{polls} FROM ({COUNTED})\nUNION ALL\n{options}{before}{COUNTED}{after}")
    }

    fn bind(statement: Query, scope: &Scope, previous: &[(&str, &Self)]) -> Query {
        let (tenants, names): (Vec<&str>, Vec<&str>) =
            scope.read_polls().iter().map(|(tenant, poll)| (&**tenant, &**poll)).unzip();
        let known = previous.iter().flat_map(|(tenant, polls)| {
            polls.by_name.iter().map(|(name, poll)| (*tenant, name.as_str(), &**poll))
        });
        let mut known: Vec<_> = known.collect();
        known.sort_unstable_by_key(|(tenant, name, _)| (*tenant, *name));
        let voters = |poll: &Poll| poll.tallies.iter().map(|tally| tally.voters).sum::<u64>();
        let bind_counted =
            |statement: Query| statement.bind(&scope.tenants).bind(LARGEST_POLLS).bind(&tenants).bind(&names);
        bind_counted(bind_counted(statement))
            .bind(known.iter().map(|(tenant, ..)| *tenant).collect::<Vec<_>>())
            .bind(known.iter().map(|(_, name, _)| *name).collect::<Vec<_>>())
            .bind(known.iter().map(|(.., poll)| poll.total).collect::<Vec<_>>())
            .bind(known.iter().map(|(.., poll)| voters(poll)).collect::<Vec<_>>())
            .bind(known.iter().map(|(.., poll)| poll.merged.0).collect::<Vec<_>>())
            .bind(scope.max_voters)
            .bind(MAX_OPTIONS)
    }

    fn owns(row: &SnapshotRow) -> bool {
        row.part == POLLS_PART || row.part == OPTIONS_PART
    }

    fn render(rows: Vec<SnapshotRow>, refresh: Refresh<'_>, previous: Option<&Self>) -> Self {
        let mut totals = BTreeMap::new();
        let mut merged: HashMap<String, (u64, Vec<Tally>)> = HashMap::new();
        for row in rows {
            if row.part == POLLS_PART {
                totals.insert(row.poll, row.total);
            } else {
                let (total, tallies) = merged.entry(row.poll).or_default();
                *total = row.total;
                tallies.push(Tally { option: row.option, votes: row.votes, voters: row.voters });
            }
        }
        Self::new(totals, merged, refresh, previous)
    }
}

impl Polls {
    /// The polls after a refresh. `totals` has the votes of all polls that were read; `merged` has the votes and
    /// options of the polls whose voters were merged.
    fn new(
        totals: BTreeMap<String, u64>,
        mut merged: HashMap<String, (u64, Vec<Tally>)>,
        refresh: Refresh<'_>,
        previous: Option<&Self>,
    ) -> Self {
        let Refresh { tenant, scope, as_of, read_at } = refresh;
        let complete = totals.len() < LARGEST_POLLS;
        let (mut by_name, mut waiting) = (HashMap::new(), HashSet::new());
        for (name, total) in totals {
            let before = previous.and_then(|previous| previous.by_name.get(&name));
            let poll = match (merged.remove(&name), before) {
                (Some((total, tallies)), _) => Some(Arc::new(Poll::new(total, tallies, read_at, as_of))),
                (None, Some(before)) if before.total == total => {
                    Some(Arc::new(Poll::new(total, before.tallies.clone(), before.merged, as_of)))
                }
                (None, before) => before.cloned(),
            };
            match poll {
                Some(poll) => _ = by_name.insert(name, poll),
                None => _ = waiting.insert(name),
            }
        }
        let mut wanted: HashSet<String> =
            scope.polls.iter().filter(|(of, _)| of == tenant).map(|(_, name)| name.clone()).collect();
        if scope.left_out >= LeftOut::ColdKeys {
            wanted.retain(|name| previous.is_some_and(|previous| previous.wanted.contains(name)));
            for name in &wanted {
                let before = previous.and_then(|previous| previous.by_name.get(name));
                if let (Some(before), false) = (before, waiting.contains(name)) {
                    by_name.entry(name.clone()).or_insert_with(|| Arc::clone(before));
                }
            }
        }
        let all = Self::all(&by_name, as_of, complete && waiting.is_empty());
        Self { by_name, all, empty: PollAnswer::of_one(&[], as_of), complete, waiting, wanted }
    }

    /// The answer with every poll in `by_name`, ordered by descending votes, then name. Its `as_of` is the earliest
    /// `as_of` of these polls.
    fn all(by_name: &HashMap<String, Arc<Poll>>, as_of: &AsOf, complete: bool) -> PollAnswer {
        let mut polls: Vec<_> = by_name.iter().collect();
        polls.sort_unstable_by(|(a_name, a), (b_name, b)| {
            b.total.cmp(&a.total).then_with(|| a_name.cmp(b_name))
        });
        let oldest = polls.iter().map(|(_, poll)| &poll.answer.json.as_of).min_by_key(|as_of| as_of.moment);
        let all_options = complete && polls.iter().all(|(_, poll)| poll.tallies.len() < MAX_OPTIONS);
        let rows: Vec<_> = polls
            .iter()
            .flat_map(|(name, poll)| poll.tallies.iter().map(move |tally| (name.as_str(), tally)))
            .collect();
        PollAnswer::of_all(&rows, oldest.unwrap_or(as_of), all_options)
    }

    /// The answer for one poll; `None` if the poll is unknown.
    pub(crate) fn poll(&self, name: &str) -> Option<&PollAnswer> {
        let is_known = (self.complete || self.is_wanted(name)) && !self.waiting.contains(name);
        let known = self.by_name.get(name).map(|poll| &poll.answer);
        known.or(is_known.then_some(&self.empty))
    }

    /// Whether this or an earlier refresh read the poll because a reader asked for it.
    pub(crate) fn is_wanted(&self, name: &str) -> bool {
        self.wanted.contains(name)
    }
}

impl Poll {
    fn new(total: u64, mut tallies: Vec<Tally>, merged: UnixMillis, as_of: &AsOf) -> Self {
        tallies.sort_by(|a, b| b.votes.cmp(&a.votes).then_with(|| a.option.cmp(&b.option)));
        let answer = PollAnswer::of_one(&tallies, as_of);
        Self { total, tallies, merged, answer }
    }
}

/// One option of a poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Tally {
    option: String,
    votes: u64,
    /// Distinct voters for this option; votes without a voter do not count here.
    voters: u64,
}

#[derive(Serialize)]
struct Meta {
    as_of: Option<String>,
    stale: bool,
    /// False if polls or options may be missing because of a limit.
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
    fn of_one(tallies: &[Tally], as_of: &AsOf) -> Self {
        let csv = csv("option,votes,voters\r\n", tallies.iter().map(|tally| ([].as_slice(), tally)));
        Self { json: json(tallies, tallies.len(), as_of, tallies.len() < MAX_OPTIONS), csv }
    }

    fn of_all(rows: &[(&str, &Tally)], as_of: &AsOf, complete: bool) -> Self {
        let named = rows.iter().map(|(poll, tally)| (std::slice::from_ref(poll), *tally));
        let csv = csv("poll,option,votes,voters\r\n", named);
        let data: Vec<_> = rows.iter().map(|(poll, tally)| NamedTally { poll, tally }).collect();
        Self { json: json(&data, data.len(), as_of, complete), csv }
    }
}

fn json(data: impl Serialize, rows: usize, as_of: &AsOf, complete: bool) -> AgingBody {
    let meta = |as_of: Option<UnixMillis>, stale| Meta {
        as_of: as_of.map(rfc3339),
        stale,
        complete,
        exact: true,
        rows,
    };
    AgingBody::new(as_of, &data, meta)
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

/// Appends a field of CSV, in quotes if it contains a comma, a quote or a line break (RFC 4180).
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

    /// A poll, and its options with their votes; each option has half as many voters as votes.
    type Row<'a> = (&'a str, &'a [(&'a str, u64)]);

    const NOW: UnixMillis = UnixMillis(1_763_697_906_000);

    fn tally((option, votes): &(&str, u64)) -> Tally {
        Tally { option: (*option).to_owned(), votes: *votes, voters: votes / 2 }
    }

    /// The polls after a refresh that merged the voters of the polls in `merged`, and only counted the votes of the
    /// polls in `counted`.
    fn refresh(
        as_of: Option<UnixMillis>,
        left_out: LeftOut,
        merged: &[Row<'_>],
        counted: &[(&str, u64)],
        previous: Option<&Polls>,
    ) -> Polls {
        let polls = vec![("a".to_owned(), "asked".to_owned()), ("b".to_owned(), "other".to_owned())];
        let scope = Scope { polls, left_out, ..Scope::of_tenants(&["a", "b"]) };
        let as_of = AsOf::new(as_of);
        let refresh = Refresh { tenant: "a", scope: &scope, as_of: &as_of, read_at: NOW };
        let total = |options: &[(&str, u64)]| options.iter().map(|(_, votes)| votes).sum::<u64>();
        let totals =
            merged.iter().map(|(poll, options)| (*poll, total(options))).chain(counted.iter().copied());
        let merged = merged.iter().map(|(poll, options)| {
            ((*poll).to_owned(), (total(options), options.iter().map(tally).collect()))
        });
        Polls::new(
            totals.map(|(poll, total)| (poll.to_owned(), total)).collect(),
            merged.collect(),
            refresh,
            previous,
        )
    }

    fn polls(merged: &[Row<'_>]) -> Polls {
        refresh(Some(NOW), LeftOut::Nothing, merged, &[], None)
    }

    fn many(count: usize) -> Polls {
        let names: Vec<_> = (0..count).map(|n| format!("poll {n}")).collect();
        polls(&names.iter().map(|name| (name.as_str(), &[("a", 1)][..])).collect::<Vec<_>>())
    }

    fn text(rendered: &Rendered) -> &str {
        str::from_utf8(&rendered.body).unwrap()
    }

    fn csv(polls: &Polls, name: &str) -> Option<String> {
        polls.poll(name).map(|answer| text(&answer.csv).replace("\r\n", " "))
    }

    const EMPTY: &str = "option,votes,voters ";

    #[test]
    fn a_poll_lists_its_options_by_votes_and_then_by_name() {
        let polls = polls(&[("p", &[("b", 4), ("a", 4), ("c", 9)])]);
        let poll = polls.poll("p").unwrap();
        assert_eq!(text(&poll.csv), "option,votes,voters\r\nc,9,4\r\na,4,2\r\nb,4,2\r\n");
        assert_eq!(
            text(poll.json.at(NOW, 5000, false)),
            r#"{"data":[{"option":"c","votes":9,"voters":4},{"option":"a","votes":4,"voters":2},{"option":"b","votes":4,"voters":2}],"meta":{"as_of":"2025-11-21T04:05:06.000Z","stale":false,"complete":true,"exact":true,"rows":3}}"#
        );
    }

    #[test]
    fn all_polls_are_sorted_by_votes_and_then_by_name() {
        let polls = polls(&[("z", &[("a", 1)]), ("q", &[("a", 1)]), ("p", &[("a", 1), ("b", 1)])]);
        assert_eq!(
            text(&polls.all.csv),
            "poll,option,votes,voters\r\np,a,1,0\r\np,b,1,0\r\nq,a,1,0\r\nz,a,1,0\r\n"
        );
        let json = text(polls.all.json.at(NOW, 5000, false));
        assert!(json.starts_with(r#"{"data":[{"poll":"p","option":"a","votes":1,"voters":0},"#), "{json}");
    }

    #[test]
    fn names_are_quoted_where_csv_needs_it() {
        let polls = polls(&[("a,b", &[("say \"hi\"\n", 1)])]);
        assert_eq!(text(&polls.all.csv), "poll,option,votes,voters\r\n\"a,b\",\"say \"\"hi\"\"\n\",1,0\r\n");
    }

    #[test]
    fn a_poll_without_votes_is_empty_and_one_beyond_the_bound_is_unknown() {
        assert_eq!(csv(&many(LARGEST_POLLS - 1), "another").as_deref(), Some(EMPTY));
        assert_eq!(csv(&many(LARGEST_POLLS), "another"), None);
        assert_eq!(csv(&many(LARGEST_POLLS), "asked").as_deref(), Some(EMPTY));
        assert_eq!(csv(&many(LARGEST_POLLS), "other"), None, "only tenant `b` asked for `other`");
        assert_eq!(csv(&many(LARGEST_POLLS), "poll 7"), Some(format!("{EMPTY}a,1,0 ")));
    }

    #[test]
    fn an_answer_that_may_lack_polls_or_options_is_not_complete() {
        let is_complete = |answer: &PollAnswer| {
            let json = text(answer.json.at(UnixMillis(0), 5000, false));
            serde_json::from_str::<serde_json::Value>(json).unwrap()["meta"]["complete"] == true
        };
        assert!(is_complete(&many(LARGEST_POLLS - 1).all) && !is_complete(&many(LARGEST_POLLS).all));
        let options = |count: usize| {
            let names: Vec<_> = (0..count).map(|n| n.to_string()).collect();
            polls(&[("p", &names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>())])
        };
        let (fits, full) = (options(MAX_OPTIONS - 1), options(MAX_OPTIONS));
        assert!(is_complete(&fits.all) && is_complete(fits.poll("p").unwrap()));
        assert!(!is_complete(&full.all) && !is_complete(full.poll("p").unwrap()));
        assert!(!is_complete(&refresh(Some(NOW), LeftOut::Nothing, &[], &[("p", 4)], None).all));
    }

    #[test]
    fn a_poll_whose_voters_are_not_merged_keeps_its_answer_and_as_of() {
        let (early, late) = (UnixMillis(NOW.0 - 5000), NOW);
        let first = refresh(Some(early), LeftOut::Nothing, &[("p", &[("a", 4)])], &[], None);
        let check = |second: Polls, as_of| {
            let answer = second.poll("p").unwrap();
            assert_eq!(text(&answer.csv), "option,votes,voters\r\na,4,2\r\n");
            assert_eq!((answer.json.as_of.moment, second.all.json.as_of.moment), (Some(as_of), Some(as_of)));
        };
        check(refresh(Some(late), LeftOut::Nothing, &[], &[("p", 4)], Some(&first)), late);
        check(refresh(Some(late), LeftOut::Nothing, &[], &[("p", 5)], Some(&first)), early);
        let never = refresh(Some(late), LeftOut::Nothing, &[], &[("p", 5)], None);
        assert!(never.poll("p").is_none());
    }

    #[test]
    fn a_cold_poll_that_is_left_out_keeps_its_answer() {
        let first = refresh(Some(NOW), LeftOut::Nothing, &[("asked", &[("a", 4)])], &[], None);
        let without = refresh(Some(NOW), LeftOut::ColdKeys, &[], &[], Some(&first));
        assert_eq!(csv(&without, "asked"), Some(format!("{EMPTY}a,4,2 ")));
    }

    #[test]
    fn polls_are_served_where_their_rollup_is_declared() {
        let other = "[[rollup]]\nname = \"poll_votes\"\ngrain = \"none\"\n\
                     dimensions = [\"props.poll\"]\nmeasures = { votes = \"count\" }\n";
        assert_eq!(Polls::undeclared(&Rollups::built_in()), None);
        assert!(Polls::undeclared(&Rollups::parse("", other).unwrap()).is_some(), "no column `option`");
    }
}
