//! The records of one request, until their results are known.

use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use super::accumulator::Receipt;
use super::cluster::Cluster;
use crate::outcome::Refusal;

/// The records with the lines of one request.
#[must_use = "a request is durable only once all its records are durable"]
pub struct PendingRecords {
    /// One receipt for each record.
    pub(super) receipts: Vec<Receipt>,
    /// How long the request waits for its records.
    pub(super) wait: Duration,
    pub(super) cluster: Arc<Cluster>,
}

impl PendingRecords {
    /// Waits until all records have ended. Returns a refusal if a record is not durable, or if the records take longer
    /// than `wait`.
    pub async fn durable(self) -> Result<(), Refusal> {
        let all = async {
            for receipt in &self.receipts {
                receipt.wait().await;
            }
        };
        if time::timeout(self.wait, all).await.is_err() {
            self.cluster.request_check();
            return Err(Refusal::NotDurable);
        }
        result_of_request(self.receipts.iter().filter_map(|receipt| receipt.get()))
    }
}

/// The result of a request, from the results of its records. If all records have the same result, the request gets
/// this result. If the results differ, the refusal is [`Refusal::NotDurable`]: a refusal such as [`Refusal::SpoolFull`]
/// says that no event is stored, which would be false if another record of the request is stored.
fn result_of_request<'a>(mut records: impl Iterator<Item = &'a Result<(), Refusal>>) -> Result<(), Refusal> {
    let first = records.next().unwrap_or(&Ok(()));
    if records.all(|result| result == first) { first.clone() } else { Err(Refusal::NotDurable) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Bound;

    #[test]
    fn a_request_is_said_to_be_stored_nowhere_only_if_none_of_its_records_is_stored() {
        let full = Err(Refusal::SpoolFull);
        let shed = Err(Refusal::Overloaded(Bound::ProducerQueue));
        let of = |records: &[Result<(), Refusal>]| result_of_request(records.iter());
        assert_eq!(of(&[Ok(()), Ok(())]), Ok(()));
        assert_eq!(of(&[full.clone(), full.clone()]), full);
        assert_eq!(of(&[shed.clone(), shed.clone()]), shed);
        for records in [[Ok(()), full.clone()], [full.clone(), Ok(())], [shed, Err(Refusal::NotDurable)]] {
            assert_eq!(of(&records), Err(Refusal::NotDurable));
        }
    }
}
