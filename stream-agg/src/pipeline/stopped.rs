//! A partition that cannot go on before an operator helps.

use rdkafka::error::KafkaError;
use runtime::error::chain;
use schemas::record::HeadError;

use crate::health::Concern;
use crate::pipeline::context::{Part, Shared};
use crate::protocol::progress::{NextOffset, Offset};
use crate::protocol::recover::{Finding, help, help_format, help_unreadable};

/// Why a partition cannot go on before somebody helps.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stuck {
    #[error(transparent)]
    Finding(#[from] Finding),
    #[error("stopped at offset {0}")]
    Format(Offset, #[source] HeadError),
    #[error("records from offset {0} on are not applied and no longer in the log")]
    Gone(NextOffset, #[source] KafkaError),
    #[error("kafka's client cannot read the records at offset {0} or behind it")]
    Unreadable(NextOffset, #[source] KafkaError),
}

impl Part {
    /// Does nothing until told to stop, and says why.
    pub(super) fn hold(&self, stuck: &Stuck) {
        let concern = Concern::Partition(self.kp.into());
        let Shared { health, metrics, runtime, .. } = &*self.shared;
        let help = match stuck {
            Stuck::Finding(finding) => finding.help(self.kp),
            Stuck::Gone(..) => help(self.kp),
            Stuck::Format(offset, _) => help_format(self.kp, *offset),
            Stuck::Unreadable(..) => help_unreadable(self.kp),
        };
        let reason = chain(stuck) + &help;
        tracing::error!("{concern}: {reason}");
        health.trouble(concern, reason);
        let _counted = metrics.partition_stopped();
        runtime.block_on(self.stop.cancelled());
        health.well(concern);
    }
}
