//! The parameters of `/v1/retention`.

use jiff::tz::TimeZone;
use schemas::rollup::Rollups;

use super::MAX_PERIODS;
use crate::access::Reader;
use crate::filter::Filter;
use crate::people::{render, source};
use crate::problem::Problem;
use crate::query::grain::{Calendar, Grain, Week};
use crate::query::params::{
    self, BOUND, FILTER, Format, Given, Parameter, Shape, Values, add_filter, choice, week, zone,
};
use crate::query::window::Bound;

/// A request for a retention table.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    first: Option<Filter>,
    again: Option<Filter>,
    /// Conditions that every counted event must also meet.
    pub(super) filters: Vec<Filter>,
    pub(super) grain: Grain,
    /// Number of later periods for which each cohort has a cell, besides the cell for the cohort's own period.
    pub(super) periods: usize,
    pub(super) from: Option<Bound>,
    pub(super) to: Bound,
    pub(super) calendar: Calendar,
    pub(in crate::people) format: Option<Format>,
    pub(in crate::people) given: Given<Self>,
}

/// All parameters, in the order in which an answer repeats them.
pub(crate) static PARAMETERS: [Parameter<Retention>; 10] = [
    Parameter {
        name: "first",
        default: None,
        doc: "The event that puts a user into a cohort: a condition `field:op:value` like that of `filter`, for \
              example `event:eq:signup`. Required.",
        shape: Shape::One,
        values: Values::Text(FILTER),
        read: |request, text| Filter::parse(text).map(|filter| request.first = Some(filter)),
    },
    Parameter {
        name: "again",
        default: None,
        doc: "The event that a user of a cohort must have in a period to be counted in it: a condition like that of \
              `first`. Required.",
        shape: Shape::One,
        values: Values::Text(FILTER),
        read: |request, text| Filter::parse(text).map(|filter| request.again = Some(filter)),
    },
    Parameter {
        name: "filter",
        default: None,
        doc: "A condition that both events meet; may be given up to 16 times, and all must hold. As in \
              [queries](query.md).",
        shape: Shape::Many,
        values: Values::Text(FILTER),
        read: |request, text| add_filter(&mut request.filters, text),
    },
    Parameter {
        name: "grain",
        default: Some("day"),
        doc: "Length of a period: `day` or `week`.",
        shape: Shape::One,
        values: Values::OneOf(&["day", "week"]),
        read: |request, text| {
            choice(text, &[("day", Grain::Day), ("week", Grain::Week)]).map(|grain| request.grain = grain)
        },
    },
    Parameter {
        name: "periods",
        default: Some("8"),
        doc: "How many later periods are counted for each cohort. Cohorts and later periods together are at most 64.",
        shape: Shape::One,
        values: Values::Number(1, MAX_PERIODS - 1),
        read: |request, text| {
            let periods = text.parse().ok().filter(|periods| (1..MAX_PERIODS).contains(periods));
            let reason = || format!("it must be a number from 1 to {}", MAX_PERIODS - 1);
            periods.map(|periods| request.periods = periods).ok_or_else(reason)
        },
    },
    Parameter {
        name: "from",
        default: None,
        doc: "The start of the first cohort, like `from` of [queries](query.md). If absent: the start of the last \
              8 periods, the current one included.",
        shape: Shape::One,
        values: Values::Text(BOUND),
        read: |request, text| Bound::parse(text).map(|bound| request.from = Some(bound)),
    },
    Parameter {
        name: "to",
        default: Some("now"),
        doc: "The end of the last cohort (exclusive).",
        shape: Shape::One,
        values: Values::Text(BOUND),
        read: |request, text| Bound::parse(text).map(|bound| request.to = bound),
    },
    Parameter {
        name: "tz",
        default: Some("UTC"),
        doc: "The time zone of the periods, by its IANA name.",
        shape: Shape::One,
        values: Values::Text(""),
        read: |request, text| zone(text).map(|zone| request.calendar.zone = zone),
    },
    Parameter {
        name: "week",
        default: Some("mon"),
        doc: "The first day of a week: `mon` or `sun`.",
        shape: Shape::One,
        values: Values::OneOf(&["mon", "sun"]),
        read: |request, text| week(text).map(|week| request.calendar.week = week),
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

impl Retention {
    /// Reads the parameters of a URL or of a JSON body.
    pub(in crate::people) fn parse(pairs: &[(String, String)]) -> Result<Self, Problem> {
        let mut request = Self {
            first: None,
            again: None,
            filters: Vec::new(),
            grain: Grain::Day,
            periods: 0,
            from: None,
            to: Bound::Now,
            calendar: Calendar { zone: TimeZone::UTC, week: Week::Monday },
            format: None,
            given: Given::default(),
        };
        request.given = params::read(&PARAMETERS, &mut request, pairs)?;
        for (name, event) in [("first", &request.first), ("again", &request.again)] {
            if event.is_none() {
                return Err(Problem::bad(name, "it is required, for example event:eq:signup"));
            }
        }
        Ok(request)
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
        source::check_reader(rollups, reader, "first")?;
        self.filters.extend(reader.filters.iter().cloned());
        Ok(self)
    }

    /// The event that puts a user into a cohort.
    pub(super) fn first(&self) -> &Filter {
        self.first.as_ref().expect("a request without `first` is refused")
    }

    /// The event that a user of a cohort must have in a period to be counted in the cell of this period.
    pub(super) fn again(&self) -> &Filter {
        self.again.as_ref().expect("a request without `again` is refused")
    }
}
