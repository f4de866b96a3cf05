//! What the pipelines of the process share, and what the two sides of one pipeline share.

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
use crate::kafka::membership::Consumer;
use crate::kafka::topic::TopicWatch;
use crate::metrics::Metrics;
use crate::pipeline::budget::Room;
use crate::pipeline::track::Track;
use crate::protocol::declaration::Declaration;
use crate::protocol::progress::NextOffset;

/// How long Kafka may take to tell where a log ends.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What all pipelines of the process share.
pub struct Shared {
    /// Topic of the records.
    pub topic: String,
    /// When a batch closes.
    pub batch: BatchConfig,
    /// Which rows records become.
    pub declaration: Arc<Declaration>,
    /// What ClickHouse holds.
    pub store: Store,
    /// How many large batches there may be.
    pub room: Room,
    /// The way into ClickHouse.
    pub inserter: Arc<Inserter>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is in trouble.
    pub health: Arc<Health>,
    /// Knows whether the topic is still the same.
    pub topic_watch: Arc<TopicWatch>,
    /// Told of each assignment, of nothing too.
    pub assigned: Notify,
    /// Runs the tasks that insert.
    pub runtime: Handle,
}

/// One side of a pipeline.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) shared: Arc<Shared>,
    pub(crate) consumer: Arc<Consumer>,
    /// Member id under which the partition was assigned.
    pub(crate) member: Arc<str>,
    pub(crate) kp: u16,
    pub(crate) track: Arc<Track>,
    pub(crate) stop: CancellationToken,
    pub(crate) give_up: CancellationToken,
    pub(crate) commits: Arc<()>,
}

impl Part {
    /// Where the log begins and where it ends, as Kafka tells now. Blocks.
    pub(crate) fn watermarks(&self) -> KafkaResult<(NextOffset, NextOffset)> {
        let (low, end) = self.consumer.fetch_watermarks(&self.shared.topic, self.kp.into(), ASK_TIMEOUT)?;
        Ok((NextOffset::new(low), NextOffset::new(end)))
    }
}

#[cfg(test)]
impl Part {
    /// A part of partition 0 whose Kafka and ClickHouse never answer.
    pub(crate) fn unanswered(runtime: Handle) -> Self {
        use runtime::vars::Vars;

        // A port at which nobody listens.
        let vars = [("KAFKA_BROKERS", "127.0.0.1:1"), ("CLICKHOUSE_URL", "http://127.0.0.1:1")];
        let config = crate::Config::from_vars(&Vars::from_pairs(vars)).expect("two variables are enough");
        let (metrics, health) = (Arc::new(Metrics::default()), Arc::new(Health::new("127.0.0.1:1")));
        let asker = Arc::new(crate::kafka::client::asker(&config).expect("the settings are right"));
        let store = Store::new(&config.migrate.store);
        let topic_watch = TopicWatch::new("events".to_owned(), asker, Arc::clone(&health));
        let consumer =
            crate::kafka::client::consumer(&config, None, &health).expect("the settings are right");
        let shared = Shared {
            topic: "events".to_owned(),
            batch: config.batch.clone(),
            declaration: Arc::new(config.declaration(0)),
            store,
            room: Room::new(&config.batch),
            inserter: Arc::new(Inserter::new(
                &config.migrate.store,
                Arc::clone(&metrics),
                Arc::clone(&health),
            )),
            metrics,
            health,
            topic_watch: Arc::new(topic_watch),
            assigned: Notify::new(),
            runtime,
        };
        Self {
            shared: Arc::new(shared),
            consumer: Arc::new(consumer),
            member: Arc::default(),
            kp: 0,
            track: Arc::new(Track::new()),
            stop: CancellationToken::new(),
            give_up: CancellationToken::new(),
            commits: Arc::new(()),
        }
    }

    /// Its shared part.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Its consumer.
    pub(crate) fn consumer(&self) -> Arc<Consumer> {
        Arc::clone(&self.consumer)
    }

    /// The queue of its partition.
    pub(crate) fn queue(
        &self,
    ) -> rdkafka::consumer::base_consumer::PartitionQueue<crate::kafka::membership::Membership> {
        let queue = self.consumer.split_partition_queue(&self.shared.topic, self.kp.into());
        queue.expect("a consumer has a queue for each partition")
    }
}
