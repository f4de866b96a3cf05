//! A partition that is stopped until an operator acts.

use rdkafka::error::KafkaError;
use runtime::error::chain;
use schemas::record::HeadError;

use crate::health::Component;
use crate::pipeline::context::{PartitionContext, Services};
use crate::protocol::progress::{NextOffset, Offset};
use crate::protocol::recover::{RecoverError, help, help_format, help_unreadable};

/// Why a partition is stopped until an operator acts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoppedPartition {
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error("stopped at offset {0}")]
    Format(Offset, #[source] HeadError),
    #[error("records from offset {0} on are not applied, and the first of them are no longer in the log")]
    RecordsGone(NextOffset, #[source] KafkaError),
    #[error("kafka's client cannot read the records at offset {0} or after it")]
    Unreadable(NextOffset, #[source] KafkaError),
}

impl PartitionContext {
    /// Reports why the partition cannot continue and what an operator can do. Then waits for the signal to stop
    /// the pipeline.
    pub(super) fn report_and_wait(&self, stopped: &StoppedPartition) {
        let component = Component::Partition(self.partition.into());
        let Services { health, metrics, runtime, .. } = &*self.services;
        let help = match stopped {
            StoppedPartition::Recover(error) => error.help(self.partition),
            StoppedPartition::RecordsGone(..) => help(self.partition),
            StoppedPartition::Format(offset, _) => help_format(self.partition, *offset),
            StoppedPartition::Unreadable(..) => help_unreadable(self.partition),
        };
        let reason = chain(stopped) + &help;
        tracing::error!("{component}: {reason}");
        health.degraded(component, reason);
        let _counted = metrics.partition_stopped();
        runtime.block_on(self.stop.cancelled());
        health.recovered(component);
    }
}
