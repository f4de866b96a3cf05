//! The parameters of `/v1/funnel`.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use schemas::rollup::Rollups;

use crate::access::Reader;
use crate::filter::{Filter, Test};
use crate::people::{render, source};
use crate::problem::Problem;
use crate::query::grain::{Calendar, Week};
use crate::query::params::{self, BOUND, FILTER, Format, Given, Parameter, Shape, Values, add_filter, zone};
use crate::query::window::Bound;

/// A request for a funnel.
#[derive(Debug, Clone)]
pub(crate) struct Funnel {
    pub(super) steps: Vec<Step>,
    /// The longest time from the first step to the last, in seconds.
    pub(super) within_seconds: u32,
    pub(super) from: Bound,
    pub(super) to: Bound,
    pub(super) calendar: Calendar,
    /// Conditions that the event of every step must also meet.
    pub(super) filters: Vec<Filter>,
    pub(in crate::people) format: Option<Format>,
    pub(in crate::people) given: Given<Self>,
}

/// A step of a funnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// The step as the request writes it.
    pub(super) text: String,
    /// Names of the events that count as this step.
    pub(super) events: Vec<String>,
}

/// The smallest and the largest number of steps.
const STEPS: std::ops::RangeInclusive<usize> = 2..=8;
/// The largest value of the parameter `within`, in seconds.
const MAX_WITHIN_SECONDS: u32 = 7 * 86_400;
/// The units of the parameter `within`, and their lengths in seconds.
const UNITS: [(&str, u32); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

/// All parameters, in the order in which an answer repeats them.
pub(crate) static PARAMETERS: [Parameter<Funnel>; 7] = [
    Parameter {
        name: "steps",
        default: None,
        doc: "The steps in their order, 2 to 8, each `event:eq:<name>` or `event:in:<name>|<name>`. The same event \
              name may not be in two steps. Required.",
        shape: Shape::Many,
        values: Values::Text("^event:(eq|in):"),
        read: |request, text| {
            if request.steps.len() == *STEPS.end() {
                return Err(format!("there may be at most {} steps", STEPS.end()));
            }
            Step::parse(text).map(|step| request.steps.push(step))
        },
    },
    Parameter {
        name: "within",
        default: Some("1d"),
        doc: "The longest time (inclusive) from the first step to the last: `90s`, `30m`, `12h`, up to `7d`.",
        shape: Shape::One,
        values: Values::Text("^[0-9]+[smhd]$"),
        read: |request, text| within(text).map(|within| request.within_seconds = within),
    },
    Parameter {
        name: "from",
        default: Some("-7d"),
        doc: "The start, like `from` of [queries](query.md). The window has at most 31 days and lies within the days \
              for which events are kept.",
        shape: Shape::One,
        values: Values::Text(BOUND),
        read: |request, text| Bound::parse(text).map(|bound| request.from = bound),
    },
    Parameter {
        name: "to",
        default: Some("now"),
        doc: "The end (exclusive), like `to` of [queries](query.md). Only events before it count.",
        shape: Shape::One,
        values: Values::Text(BOUND),
        read: |request, text| Bound::parse(text).map(|bound| request.to = bound),
    },
    Parameter {
        name: "tz",
        default: Some("UTC"),
        doc: "The time zone of dates in `from` and `to`, by its IANA name.",
        shape: Shape::One,
        values: Values::Text(""),
        read: |request, text| zone(text).map(|zone| request.calendar.zone = zone),
    },
    Parameter {
        name: "filter",
        default: None,
        doc: "A condition that the events of all steps meet; may be given up to 16 times, and all must hold. Its \
              field is `event`, `country`, `device_os`, `device_id`, `user_id`, `session` or `param_str`.",
        shape: Shape::Many,
        values: Values::Text(FILTER),
        read: |request, text| add_filter(&mut request.filters, text),
    },
    Parameter {
        name: "format",
        default: None,
        doc: "`json` or `csv`. By default, the suffix of the path decides, then the header `Accept`, then `json`.",
        shape: Shape::One,
        values: Values::OneOf(&["json", "csv"]),
        read: |request, text| render::format(text).map(|format| request.format = Some(format)),
    },
];

impl Funnel {
    /// Reads the parameters of a URL or of a JSON body.
    pub(in crate::people) fn parse(pairs: &[(String, String)]) -> Result<Self, Problem> {
        let mut request = Self {
            steps: Vec::new(),
            within_seconds: 0,
            from: Bound::Now,
            to: Bound::Now,
            calendar: Calendar { zone: TimeZone::UTC, week: Week::Monday },
            filters: Vec::new(),
            format: None,
            given: Given::default(),
        };
        request.given = params::read(&PARAMETERS, &mut request, pairs)?;
        if request.steps.len() < *STEPS.start() {
            return Err(Problem::bad("steps", format!("there must be at least {} steps", STEPS.start())));
        }
        // If two steps had the same event name, ClickHouse would count one event as both steps.
        let mut seen = BTreeSet::new();
        let mut events = request.steps.iter().flat_map(|step| &step.events);
        match events.find(|event| !seen.insert(*event)) {
            Some(event) => Err(Problem::bad("steps", format!("the event `{event}` is in two steps"))),
            None => Ok(request),
        }
    }

    /// Adds the filters of the reader's key. The answer repeats the request in its member `query`, but without these
    /// filters.
    ///
    /// # Errors
    /// The key does not permit a count of users.
    pub(in crate::people) fn of_reader(
        mut self,
        reader: &Reader,
        rollups: &Rollups,
    ) -> Result<Self, Problem> {
        source::check_reader(rollups, reader, "steps")?;
        self.filters.extend(reader.filters.iter().cloned());
        Ok(self)
    }

    /// A filter that accepts the events of all steps.
    pub(super) fn all_events(&self) -> Filter {
        let events = self.steps.iter().flat_map(|step| step.events.clone());
        Filter { field: "event".to_owned(), test: Test::In(events.collect()) }
    }
}

impl Step {
    fn parse(text: &str) -> Result<Self, String> {
        match Filter::parse(text)? {
            Filter { field, test: Test::In(mut events) } if field == "event" => {
                events.sort_unstable();
                events.dedup();
                Ok(Self { text: text.to_owned(), events })
            }
            _ => Err("write each step as event:eq:<name> or event:in:<name>|<name>".to_owned()),
        }
    }
}

fn within(text: &str) -> Result<u32, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (count, unit) = text.split_at(digits);
    let seconds = UNITS.into_iter().find(|(name, _)| *name == unit).map(|(_, seconds)| seconds);
    let within = seconds.and_then(|seconds| count.parse::<u32>().ok()?.checked_mul(seconds));
    let within = within.filter(|within| (1..=MAX_WITHIN_SECONDS).contains(within));
    within.ok_or_else(|| "it must be a time from 1s to 7d, for example 30m".to_owned())
}
