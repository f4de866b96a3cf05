//! The table of measured figures and their goals.

use super::table;

/// The bound of a goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// The figure should not be above this number.
    AtMost(f64),
    /// The figure should not be below this number.
    AtLeast(f64),
}

/// A goal and the figure that a run measured.
#[derive(Debug, Clone)]
pub struct Goal {
    /// The goal's name in the first column of the table, such as `5b` or `page`.
    pub number: &'static str,
    /// What was measured, with its unit.
    pub what: String,
    /// The figure.
    pub measured: f64,
    /// What the figure should be.
    pub bound: Bound,
}

impl Goal {
    fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.measured <= most,
            Bound::AtLeast(least) => self.measured >= least,
        }
    }

    fn cells(&self) -> [String; 5] {
        let bound = match self.bound {
            Bound::AtMost(most) => format!("≤ {most}"),
            Bound::AtLeast(least) => format!("≥ {least}"),
        };
        let verdict = if self.is_met() { "met" } else { "missed" };
        let measured = format!("{:.2}", self.measured);
        [self.number.to_owned(), self.what.clone(), measured, bound, verdict.to_owned()]
    }
}

/// The goals as an aligned Markdown table.
pub fn markdown(goals: &[Goal]) -> String {
    let rows: Vec<_> = goals.iter().map(Goal::cells).collect();
    table::aligned(&["goal", "what", "measured", "wanted", ""], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(measured: f64, bound: Bound, expected: &str) {
        let goal = Goal { number: "4", what: "cores".to_owned(), measured, bound };
        let page = markdown(&[goal]);
        assert_eq!(page.lines().last(), Some(expected), "{page}");
    }

    #[test]
    fn a_goal_says_whether_it_is_met() {
        check(1.128, Bound::AtMost(0.2), "| 4    | cores | 1.13     | ≤ 0.2  | missed |");
        check(0.2, Bound::AtMost(0.2), "| 4    | cores | 0.20     | ≤ 0.2  | met |");
        check(0.99, Bound::AtLeast(1.0), "| 4    | cores | 0.99     | ≥ 1    | missed |");
    }
}
