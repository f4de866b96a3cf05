//! The page `docs/built-in-rollups.md`, which documents the declared rollups.

use std::fmt::Write as _;

use super::definition::Rollup;
use super::dimension::Condition;
use super::grain::Grain;
use super::measure::Measure;
use super::rollups::Rollups;

impl Rollups {
    /// The page, in Markdown.
    pub fn page(&self) -> String {
        let mut page = String::from(
            "# Built-in rollups\n\n\
             Generated from `schemas/rollups.toml`; a test says when this page is stale, and writes it again. \
             [rollups](rollups.md) says how to declare more.\n\n\
             Each row below is a rollup that the aggregator keeps exact, and a view of the same name in `bi` (`poll_votes` is \
             the view `polls`). `tenant` and, unless the grain is none, the start of the bucket belong to every key. A measure marked * is not additive: \
             it cannot be summed over rows.\n\n\
             | rollup | one bucket is | broken down by | measures | only events where | kept |\n\
             |---|---|---|---|---|---|\n",
        );
        for rollup in self.iter() {
            // Writing to a String cannot fail.
            let _ = writeln!(page, "{}", row(rollup));
        }
        page
    }
}

fn row(rollup: &Rollup) -> String {
    let dimensions: Vec<_> = rollup.dimensions.iter().map(|dimension| format!("`{dimension}`")).collect();
    let measures: Vec<_> = rollup.measures.iter().map(|(name, measure)| described(name, measure)).collect();
    let conditions: Vec<_> = rollup.conditions.iter().map(condition).collect();
    let kept = rollup.retention_days.map_or("for ever".to_owned(), |days| format!("{days} days"));
    format!(
        "| `{}` | {} | {} | {} | {} | {kept} |",
        rollup.name,
        bucket(rollup.grain),
        dimensions.join(", "),
        measures.join(", "),
        conditions.join(" and "),
    )
}

fn bucket(grain: Grain) -> &'static str {
    match grain {
        Grain::Minute => "a minute",
        Grain::QuarterHour => "15 minutes",
        Grain::Hour => "an hour",
        Grain::Day => "a UTC day",
        Grain::None => "all time",
    }
}

fn described(name: &str, measure: &Measure) -> String {
    let mark = if measure.is_additive() { "" } else { "*" };
    format!("`{name}`{mark} = {measure}")
}

fn condition(condition: &Condition) -> String {
    let values: Vec<_> = condition.values.iter().map(|value| format!("\"{value}\"")).collect();
    format!("`{}` is {}", condition.field, values.join(" or "))
}

#[cfg(test)]
mod tests {
    use std::{fs, path};

    use super::*;

    #[test]
    fn the_page_of_the_built_in_rollups_is_up_to_date() {
        let file = path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/built-in-rollups.md");
        let page = Rollups::built_in().page();
        if fs::read_to_string(&file).is_ok_and(|current| current == page) {
            return;
        }
        fs::write(&file, page).unwrap();
        panic!("docs/built-in-rollups.md was stale; the test has rewritten it, commit it");
    }
}
