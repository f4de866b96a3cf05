//! The rows of a funnel. Pure.

use serde::Serialize;

use super::params::Funnel;
use crate::people::lane::Counted;
use crate::people::render::Table;

/// The steps in their order.
#[derive(Debug, PartialEq)]
pub(in crate::people) struct Steps(Vec<StepRow>);

#[derive(Debug, PartialEq, Serialize)]
struct StepRow {
    /// The step as the request writes it.
    step: String,
    /// Number of users who reached this step.
    users: u64,
    /// The share of the users of the first step who reached this step; null if the first step has no users.
    of_first: Option<f64>,
    /// The share of the users of the previous step who reached this step; null if the previous step has no users, and
    /// for the first step.
    of_previous: Option<f64>,
}

impl Steps {
    pub(super) fn new(request: &Funnel, counted: &Counted) -> Self {
        // If no user has an event of these steps, `sumForEach` aggregates no rows and returns an empty array.
        let figures = counted.rows.first().map_or(&[][..], |row| &row.figures);
        let users = |at: usize| figures.get(at).copied().unwrap_or(0);
        let row = |(at, step): (usize, &super::params::Step)| StepRow {
            step: step.text.clone(),
            users: users(at),
            of_first: share(users(at), users(0)),
            of_previous: at.checked_sub(1).and_then(|before| share(users(at), users(before))),
        };
        Self(request.steps.iter().enumerate().map(row).collect())
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Table for Steps {
    fn rows(&self) -> usize {
        self.0.len()
    }

    fn json(&self) -> Box<serde_json::value::RawValue> {
        serde_json::value::to_raw_value(&self.0).expect("numbers and texts become JSON")
    }

    fn csv(&self) -> Vec<Vec<String>> {
        let share = |share: &Option<f64>| share.map(|share| share.to_string()).unwrap_or_default();
        let mut rows = vec![["step", "users", "of_first", "of_previous"].map(str::to_owned).to_vec()];
        rows.extend(self.0.iter().map(|StepRow { step, users, of_first, of_previous }| {
            vec![step.clone(), users.to_string(), share(of_first), share(of_previous)]
        }));
        rows
    }
}
