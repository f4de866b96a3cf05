//! The balance of the edge's counters: every received event has exactly one outcome. Pure.

use crate::client::metric_in;

/// Describes the counters on a metrics page of the edge that do not balance; `None` if all counters balance.
pub fn unbalanced(page: &str) -> Option<String> {
    let events = |name: &str| metric_in(page, &format!("ingest_events_{name}")).unwrap_or_default();
    let [received, accepted, rejected] = ["received_total", "accepted_total", "rejected_total"].map(events);
    let ends = ["delivered_total", "spooled_total", "queued", "not_durable_total", "lost_total"];
    let ended: u64 = ends.map(events).iter().sum();
    let sum = || ends.map(|name| format!("{name} {}", events(name))).join(" + ");
    if received != accepted + rejected {
        Some(format!("received {received} != accepted {accepted} + rejected {rejected}"))
    } else if accepted != ended {
        Some(format!("accepted {accepted} != {}", sum()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_do_not_balance_are_named() {
        let page = |received: u64, delivered: u64| {
            format!(
                "# HELP ingest_events_received_total Lines read.\n\
                 ingest_events_received_total{{route=\"events\"}} {received}\n\
                 ingest_events_received_total{{route=\"votes\"}} 2\n\
                 ingest_events_accepted_total 5\ningest_events_rejected_total{{code=\"bad_json\"}} 1\n\
                 ingest_events_delivered_total {delivered}\ningest_events_queued 1\n"
            )
        };
        assert_eq!(unbalanced(&page(4, 4)), None);
        assert_eq!(unbalanced(&page(5, 4)).unwrap(), "received 7 != accepted 5 + rejected 1");
        let sum = "accepted 5 != delivered_total 3 + spooled_total 0 + queued 1 + not_durable_total 0 + lost_total 0";
        assert_eq!(unbalanced(&page(4, 3)).unwrap(), sum);
    }
}
