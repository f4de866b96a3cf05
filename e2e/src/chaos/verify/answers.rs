//! The answers of the query API, hour by hour: the expected answers and the actual ones.

use std::collections::{BTreeMap, BTreeSet};

use schemas::time::HOUR;

use super::difference::Cells;
use super::line::Line;
use crate::client::Http;

/// The expected figures of each hour.
#[derive(Default)]
pub(super) struct HourlyAnswers(BTreeMap<i64, Hour>);

#[derive(Default)]
struct Hour {
    clicks: i64,
    impressions: i64,
    users: BTreeSet<String>,
}

impl HourlyAnswers {
    pub(super) fn add(&mut self, line: &Line<'_>) {
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

    pub(super) fn expected(&self) -> Cells {
        let figures = |hour: &Hour| vec![hour.clicks, hour.impressions, hour.users.len() as i64];
        self.0.iter().map(|(start, hour)| (vec![start.to_string()], figures(hour))).collect()
    }
}

/// The answers for the hours of `expected`. Leaves out each hour for which there is no answer with all three figures.
pub(super) async fn read(expected: &Cells, api: &Http) -> Cells {
    let mut found = Cells::new();
    for hour in expected.keys() {
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
