//! The measurements. Each one starts servers, measures them, and returns figures for the report.

pub mod rest;

mod edge;

mod reads;

mod queries;

mod page;

mod dashboards;

mod whole_way;

mod drain;

mod stored;

use devstack::Stack;

use crate::plan::{Measurement, Plan};
use crate::progress;
use crate::report::goals::Goal;
use crate::report::table::Row;
use rest::Rest;

/// Requests a second in a small deployment.
const SMALL_RATE: f64 = 200.0;

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Throughput, latency and CPU time under load.
    pub rows: Vec<Row>,
    /// CPU time and freshness while few events arrive.
    pub rests: Vec<Rest>,
    /// Measured figures that have goals.
    pub goals: Vec<Goal>,
}

/// A run: its plan, and the Kafka and ClickHouse that it uses.
pub struct Bench {
    plan: Plan,
    stack: Stack,
}

impl Bench {
    /// Starts Kafka and ClickHouse.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        progress::print("starting Kafka and ClickHouse");
        let mut stack = Stack::for_test("bench")?;
        dashboards::declare(&stack.clickhouse)?;
        stack.start().await?;
        Ok(Self { plan, stack })
    }

    /// Measures what the plan includes, then stops Kafka and ClickHouse.
    pub async fn run(self) -> anyhow::Result<Report> {
        let Self { plan, mut stack } = self;
        let mut report = Report::default();
        // `rest` comes first. After another measurement, ClickHouse would still merge parts of its tables, and `rest`
        // would count the CPU time of these merges.
        if plan.includes(Measurement::Rest) {
            report.rests = rest::measure(&plan, &mut stack).await?;
            report.goals.extend(report.rests.iter().flat_map(Rest::goals));
        }
        if plan.includes(Measurement::Edge) {
            report.rows.extend(edge::measure(&plan, &mut stack).await?);
        }
        if plan.includes(Measurement::Reads) {
            let (rows, goals) = reads::measure(&plan, &stack).await?;
            report.rows.extend(rows);
            report.goals.extend(goals);
        }
        if plan.includes(Measurement::Queries) {
            let (rows, goals) = queries::measure(&plan, &mut stack).await?;
            report.rows.extend(rows);
            report.goals.extend(goals);
        }
        if plan.includes(Measurement::Dashboards) {
            let (rows, goals) = dashboards::measure(&plan, &stack).await?;
            report.rows.extend(rows);
            report.goals.extend(goals);
        }
        if plan.includes(Measurement::WholeWay) {
            report.rows.push(whole_way::measure(&plan, &mut stack).await?);
        }
        if plan.includes(Measurement::Drain) {
            let (rows, goals) = drain::measure(&plan, &mut stack).await?;
            report.rows.extend(rows);
            report.goals.extend(goals);
        }
        stack.stop().await?;
        Ok(report)
    }
}
