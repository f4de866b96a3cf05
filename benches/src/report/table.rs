//! The table of a run as Markdown, and every figure as CSV.

use std::array;
use std::fmt::Write as _;

/// The unit that a row counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Requests.
    Requests,
    /// Events.
    Events,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Events => "events",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// What the row counts.
    pub unit: Unit,
    /// The measurements. A row that is printed needs at least one.
    pub repeats: Vec<Repeat>,
    /// A remark, such as a share of a floor or a check of counts.
    pub note: String,
}

/// The figures of one measurement.
#[derive(Debug, Clone, Default)]
pub struct Repeat {
    /// Number of units.
    pub units: u64,
    /// Units a second.
    pub rate: f64,
    /// Median and 99th percentile of the latency in milliseconds, if requests were sent.
    pub latency: Option<(f64, f64)>,
    /// CPU seconds of each process.
    pub cpu_seconds: Vec<(&'static str, f64)>,
    /// Peak memory in MiB of the first process in `cpu_seconds`, if it was measured.
    pub peak_mib: Option<f64>,
    /// Bytes on disk per unit, if they were measured.
    pub bytes_per_unit: Option<f64>,
}

impl Repeat {
    /// CPU seconds of each process per million units.
    fn cpu_per_million(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.cpu_seconds.iter().map(|(process, seconds)| (*process, seconds / self.units as f64 * 1e6))
    }
}

impl Row {
    /// A row without measurements.
    pub fn new(what: impl Into<String>, unit: Unit) -> Self {
        Self { what: what.into(), unit, repeats: Vec::new(), note: String::new() }
    }

    /// The number of units, summed over all repeats.
    pub fn units(&self) -> u64 {
        self.repeats.iter().map(|repeat| repeat.units).sum()
    }

    /// The median rate as a percentage of the median rate of `other`.
    pub fn percent_of(&self, other: &Self) -> f64 {
        100.0 * self.rate().median / other.rate().median
    }

    /// The median number of cores that the first process in `cpu_seconds` kept busy.
    pub fn cores(&self) -> f64 {
        let cores = |repeat: &Repeat| repeat.cpu_seconds[0].1 * repeat.rate / repeat.units as f64;
        Spread::of(self.repeats.iter().map(cores)).median
    }

    /// CPU seconds per million units of all processes together: the median over all repeats.
    pub fn total_cpu(&self) -> f64 {
        let total = |repeat: &Repeat| repeat.cpu_per_million().map(|(_, seconds)| seconds).sum();
        Spread::of(self.repeats.iter().map(total)).median
    }

    /// The greatest peak memory of any repeat in MiB, or `None` if no repeat measured it.
    pub fn peak_mib(&self) -> Option<f64> {
        self.repeats.iter().filter_map(|repeat| repeat.peak_mib).reduce(f64::max)
    }

    /// The median bytes on disk per unit, if they were measured.
    pub fn bytes_per_unit(&self) -> Option<f64> {
        let bytes: Vec<_> = self.repeats.iter().filter_map(|repeat| repeat.bytes_per_unit).collect();
        (!bytes.is_empty()).then(|| Spread::of(bytes.into_iter()).median)
    }

    /// Median and 99th percentile of the latency in milliseconds, each as the median over all repeats; `None` if no
    /// requests were sent.
    pub fn latency(&self) -> Option<(f64, f64)> {
        let latencies: Vec<_> = self.repeats.iter().filter_map(|repeat| repeat.latency).collect();
        let of = |quantile: fn(&(f64, f64)) -> f64| Spread::of(latencies.iter().map(quantile)).median;
        (!latencies.is_empty()).then(|| (of(|latency| latency.0), of(|latency| latency.1)))
    }

    fn rate(&self) -> Spread {
        Spread::of(self.repeats.iter().map(|repeat| repeat.rate))
    }

    fn cells(&self) -> [String; 5] {
        let Spread { min, median, max } = self.rate();
        let rate = format!("{} ({}–{})", grouped(median), grouped(min), grouped(max));
        let latencies: Vec<_> = self.repeats.iter().filter_map(|repeat| repeat.latency).collect();
        let latency = if latencies.is_empty() {
            String::new()
        } else {
            let p50 = Spread::of(latencies.iter().map(|(p50, _)| *p50));
            let p99 = Spread::of(latencies.iter().map(|(_, p99)| *p99));
            format!("{:.1} / {:.1}", p50.median, p99.median)
        };
        [self.what.clone(), format!("{rate} {}/s", self.unit.name()), latency, self.cpu(), self.note.clone()]
    }

    /// The text of the CPU column: for each process, its name and its median CPU seconds per million units. The
    /// processes are in the order in which the first repeat has them.
    fn cpu(&self) -> String {
        let processes = self.repeats[0].cpu_seconds.iter().map(|(process, _)| *process);
        let medians = processes.map(|process| {
            let of_process = self.repeats.iter().flat_map(Repeat::cpu_per_million);
            let seconds = of_process.filter(|(name, _)| *name == process).map(|(_, seconds)| seconds);
            format!("{process} {:.2}", Spread::of(seconds).median)
        });
        medians.collect::<Vec<_>>().join(", ")
    }
}

/// The minimum, the median and the maximum of some figures.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The smallest figure.
    pub min: f64,
    /// The median. For an even number of figures, the mean of the two in the middle.
    pub median: f64,
    /// The largest figure.
    pub max: f64,
}

impl Spread {
    /// The spread of `figures`. There must be at least one figure.
    pub fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<_> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        let median = sorted[last / 2].midpoint(sorted[sorted.len() / 2]);
        Self { min: sorted[0], median, max: sorted[last] }
    }
}

const HEADER: [&str; 5] =
    ["what", "throughput: median (min–max)", "p50 / p99 ms", "CPU seconds per million", "note"];

/// The rows as an aligned Markdown table.
pub fn markdown(rows: &[Row]) -> String {
    let rows: Vec<_> = rows.iter().map(Row::cells).collect();
    aligned(&HEADER, &rows)
}

/// An aligned Markdown table of a header and rows of text, with any number of columns.
pub fn aligned<const N: usize>(header: &[&str; N], rows: &[[String; N]]) -> String {
    let header = header.map(str::to_owned);
    let widths: [usize; N] = array::from_fn(|at| {
        let longest = rows.iter().chain([&header]).map(|cells| cells[at].chars().count()).max();
        longest.expect("there is a header")
    });
    let rule = widths.map(|width| "-".repeat(width));
    let lines = [&header, &rule].into_iter().chain(rows);
    lines.map(|cells| line(cells, &widths)).collect()
}

fn line<const N: usize>(cells: &[String; N], widths: &[usize; N]) -> String {
    let padded: Vec<_> = cells.iter().zip(widths).map(|(text, width)| format!("{text:width$}")).collect();
    format!("| {} |\n", padded.join(" | "))
}

/// The measurements as CSV, with one line for each repeat and process.
pub fn csv(rows: &[Row]) -> String {
    let mut page = String::from(
        "what,unit,repeat,units,units_per_s,p50_ms,p99_ms,peak_mib,bytes_per_unit,process,cpu_s_per_million\n",
    );
    for row in rows {
        let (what, unit) = (row.what.replace(',', ";"), row.unit.name());
        for (number, repeat) in (1..).zip(&row.repeats) {
            let (p50, p99) = repeat
                .latency
                .map_or_else(Default::default, |(p50, p99)| (format!("{p50:.3}"), format!("{p99:.3}")));
            let [peak, bytes] = [repeat.peak_mib, repeat.bytes_per_unit]
                .map(|figure| figure.map_or_else(String::new, |figure| format!("{figure:.1}")));
            for (process, seconds) in repeat.cpu_per_million() {
                let Repeat { units, rate, .. } = repeat;
                // Writing to a String cannot fail.
                let _ = writeln!(
                    page,
                    "{what},{unit},{number},{units},{rate:.0},{p50},{p99},{peak},{bytes},{process},{seconds:.4}"
                );
            }
        }
    }
    page
}

/// Rounds a figure and groups its digits: `1234567.8` becomes `1,234,568`.
fn grouped(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let repeat = |rate, p50, p99, seconds| Repeat {
            units: 2_000_000,
            rate,
            latency: Some((p50, p99)),
            cpu_seconds: vec![("ingest", seconds)],
            ..Repeat::default()
        };
        let repeats = vec![
            repeat(1_234_567.8, 1.0, 5.0, 1.0),
            repeat(900.0, 2.0, 6.0, 0.5),
            repeat(2e6, 3.0, 70.0, 2.0),
        ];
        Row { repeats, note: "80 % of B".to_owned(), ..Row::new("edge, durable", Unit::Events) }
    }

    #[test]
    fn a_line_shows_medians_and_the_spread() {
        let expected = "\
| what          | throughput: median (min–max)       | p50 / p99 ms | CPU seconds per million | note      |
| ------------- | ---------------------------------- | ------------ | ----------------------- | --------- |
| edge, durable | 1,234,568 (900–2,000,000) events/s | 2.0 / 6.0    | ingest 0.50             | 80 % of B |
";
        assert_eq!(markdown(&[row()]), expected);
    }

    #[test]
    fn every_figure_is_in_the_csv() {
        let csv = csv(&[row(), Row { repeats: Vec::new(), ..row() }]);
        assert_eq!(csv.lines().count(), 4, "{csv}");
        assert_eq!(
            csv.lines().nth(2),
            Some("edge; durable,events,2,2000000,900,2.000,6.000,,,ingest,0.2500")
        );
    }

    #[test]
    fn the_median_of_an_even_count_is_the_mean_of_the_two_in_the_middle() {
        let median = |figures: &[f64]| Spread::of(figures.iter().copied()).median;
        assert_eq!(
            [median(&[4.0]), median(&[4.0, 1.0]), median(&[9.0, 1.0, 4.0]), median(&[9.0, 1.0, 4.0, 2.0])],
            [4.0, 2.5, 4.0, 3.0]
        );
    }

    #[test]
    fn a_percentage_compares_medians() {
        let half = Row { repeats: vec![Repeat { rate: 617_283.9, ..row().repeats[0].clone() }], ..row() };
        assert!((half.percent_of(&row()) - 50.0).abs() < 1e-9);
        assert_eq!(row().units(), 6_000_000);
    }
}
