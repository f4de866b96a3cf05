//! The state that all pipelines of the process share ([`Services`]), and the state that the collector and the applier
//! of one pipeline share ([`PartitionContext`]).

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::apply::insert::Inserter;
use crate::apply::store::Store;
use crate::config::BatchConfig;
use crate::health::Health;
use crate::kafka::group_context::GroupConsumer;
use crate::kafka::topic::TopicWatch;
use crate::metrics::Metrics;
use crate::pipeline::applied_watch::AppliedWatch;
use crate::pipeline::budget::LargeBatchBudget;
use crate::protocol::declaration::Declaration;
use crate::protocol::progress::NextOffset;

/// Timeout of a request to Kafka for the offsets at which a log begins and ends.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What all pipelines of the process share.
pub struct Services {
    /// Topic of the records.
    pub topic: String,
    /// When a batch closes.
    pub batch: BatchConfig,
    /// The rollups, fields and limits that decide which rows a record becomes.
    pub declaration: Arc<Declaration>,
    /// The client for queries to ClickHouse.
    pub store: Store,
    /// Limits the number of large batches.
    pub large_batches: LargeBatchBudget,
    /// Inserts batches into ClickHouse.
    pub inserter: Arc<Inserter>,
    /// The metrics of the process.
    pub metrics: Arc<Metrics>,
    /// The parts of the process that fail, each with its reason. The readiness probe reports them.
    pub health: Arc<Health>,
    /// Detects that the topic was deleted and created again.
    pub topic_watch: Arc<TopicWatch>,
    /// Notified after each assignment of partitions to this member, even if it assigns none. The check for partitions
    /// without an owner then begins.
    pub assigned: Notify,
    /// Runs the tasks of the pipelines.
    pub runtime: Handle,
}

/// What the collector and the applier of one pipeline share.
#[derive(Clone)]
pub(crate) struct PartitionContext {
    pub(crate) services: Arc<Services>,
    pub(crate) consumer: Arc<GroupConsumer>,
    /// Member id under which the partition was assigned.
    pub(crate) member: Arc<str>,
    pub(crate) partition: u16,
    pub(crate) applied_watch: Arc<AppliedWatch>,
    pub(crate) stop: CancellationToken,
    pub(crate) give_up: CancellationToken,
    pub(crate) commits: Arc<()>,
}

impl PartitionContext {
    /// Asks Kafka for the offsets at which the log begins and ends. Blocks.
    pub(crate) fn watermarks(&self) -> KafkaResult<(NextOffset, NextOffset)> {
        let (low, end) =
            self.consumer.fetch_watermarks(&self.services.topic, self.partition.into(), ASK_TIMEOUT)?;
        Ok((NextOffset::new(low), NextOffset::new(end)))
    }
}

#[cfg(test)]
impl PartitionContext {
    /// The context of partition 0 with a Kafka and a ClickHouse that never answer.
    pub(crate) fn unanswered(runtime: Handle) -> Self {
        use runtime::vars::Vars;

        // No process listens on this port.
        let vars = [("KAFKA_BROKERS", "127.0.0.1:1"), ("CLICKHOUSE_URL", "http://127.0.0.1:1")];
        let config = crate::Config::from_vars(&Vars::from_pairs(vars)).expect("two variables are enough");
        let (metrics, health) = (Arc::new(Metrics::default()), Arc::new(Health::new("127.0.0.1:1")));
        let metadata_client =
            Arc::new(crate::kafka::client::metadata_client(&config).expect("the settings are valid"));
        let store = Store::new(&config.migrate.store);
        let topic_watch = TopicWatch::new("events".to_owned(), metadata_client, Arc::clone(&health));
        let consumer =
            crate::kafka::client::group_consumer(&config, None, &health).expect("the settings are valid");
        let services = Services {
            topic: "events".to_owned(),
            batch: config.batch.clone(),
            declaration: Arc::new(config.declaration(0)),
            large_batches: LargeBatchBudget::new(&config.batch),
            inserter: Arc::new(Inserter::new(
                &config.migrate.store,
                store.clone(),
                Arc::clone(&metrics),
                Arc::clone(&health),
            )),
            store,
            metrics,
            health,
            topic_watch: Arc::new(topic_watch),
            assigned: Notify::new(),
            runtime,
        };
        Self {
            services: Arc::new(services),
            consumer: Arc::new(consumer),
            member: Arc::default(),
            partition: 0,
            applied_watch: Arc::new(AppliedWatch::new()),
            stop: CancellationToken::new(),
            give_up: CancellationToken::new(),
            commits: Arc::new(()),
        }
    }

    /// The services of the process.
    pub(crate) fn services(&self) -> Arc<Services> {
        Arc::clone(&self.services)
    }

    /// The consumer of the group.
    pub(crate) fn consumer(&self) -> Arc<GroupConsumer> {
        Arc::clone(&self.consumer)
    }

    /// The queue of the partition.
    pub(crate) fn queue(
        &self,
    ) -> rdkafka::consumer::base_consumer::PartitionQueue<crate::kafka::group_context::GroupContext> {
        let queue = self.consumer.split_partition_queue(&self.services.topic, self.partition.into());
        queue.expect("a consumer has a queue for each partition")
    }
}
