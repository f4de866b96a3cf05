//! Direct access to the topic and the consumer group of a [`World`], without the services of Millrace.

use std::collections::BTreeMap;

use devstack::wait_for;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::record::Head;

use super::{DEADLINE, PARTITIONS, World};

impl World {
    /// Appends a record to a partition of the topic, bypassing the edge, and waits until Kafka has acknowledged it.
    pub fn produce(&self, partition: i32, headers: &[(&str, &str)], value: &[u8]) {
        let add = |all: OwnedHeaders, (key, value): &(&str, &str)| {
            all.insert(Header { key, value: Some(value.as_bytes()) })
        };
        let headers = headers.iter().fold(OwnedHeaders::new(), add);
        let record = BaseRecord::<(), _>::to(self.name).partition(partition).payload(value).headers(headers);
        let producer: BaseProducer = self.kafka().create().unwrap();
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(DEADLINE).unwrap();
    }

    /// Commits the same offset and metadata for every partition, without joining the consumer group.
    pub fn commit(&self, offset: i64, metadata: &str) {
        (0..PARTITIONS).for_each(|partition| self.commit_partition(partition, offset, metadata));
    }

    /// Commits an offset with metadata for one partition.
    pub fn commit_partition(&self, partition: i32, offset: i64, metadata: &str) {
        let tool: BaseConsumer = self.kafka().set("group.id", self.name).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(self.name, partition).set_metadata(metadata);
        list.set_all_offsets(Offset::Offset(offset)).unwrap();
        tool.commit(&list, CommitMode::Sync).unwrap();
    }

    /// The committed offset of a partition and its metadata.
    pub fn committed(&self, partition: i32) -> (i64, String) {
        self.try_committed(partition).expect("Kafka answers with a committed offset")
    }

    /// The committed offset of a partition and its metadata; none if nothing is committed or Kafka does not answer.
    pub fn try_committed(&self, partition: i32) -> Option<(i64, String)> {
        let tool: BaseConsumer = self.kafka().set("group.id", self.name).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(self.name, partition);
        let answer = tool.committed_offsets(list, DEADLINE).ok()?;
        let element = answer.elements().remove(0);
        Some((element.offset().to_raw().filter(|offset| *offset >= 0)?, element.metadata().to_owned()))
    }

    /// The records in the topic, with their headers. Records that arrive during the call are left out.
    pub fn records(&self) -> Vec<(Head, Vec<u8>)> {
        let reader: BaseConsumer = self.kafka().set("group.id", "reader").create().unwrap();
        let (mut from, mut ends, mut left) = (TopicPartitionList::new(), BTreeMap::new(), 0);
        for partition in 0..PARTITIONS {
            let (start, end) = reader.fetch_watermarks(self.name, partition, DEADLINE).unwrap();
            left += end - start;
            ends.insert(partition, end);
            from.add_partition_offset(self.name, partition, Offset::Beginning).unwrap();
        }
        reader.assign(&from).unwrap();
        let mut records = Vec::new();
        while left > 0 {
            let record = reader.poll(DEADLINE).expect("Kafka returns all records in time").unwrap();
            if record.offset() >= ends[&record.partition()] {
                continue;
            }
            left -= 1;
            let headers = record.headers().unwrap().iter();
            let head = Head::read(headers.map(|header| (header.key, header.value.unwrap()))).unwrap();
            records.push((head, record.payload().unwrap().to_vec()));
        }
        records
    }

    /// Deletes all records of the topic.
    pub async fn delete_records(&self) {
        let tool: BaseConsumer = self.kafka().create().unwrap();
        let mut ends = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let (_, end) = tool.fetch_watermarks(self.name, partition, DEADLINE).unwrap();
            ends.add_partition_offset(self.name, partition, Offset::Offset(end)).unwrap();
        }
        self.admin().delete_records(&ends, &AdminOptions::new()).await.unwrap();
    }

    /// Deletes the topic and waits until Kafka no longer lists it.
    pub async fn delete_topic(&self) {
        self.admin().delete_topics(&[self.name], &AdminOptions::new()).await.unwrap();
        let tool: BaseConsumer = self.kafka().create().unwrap();
        let waited = wait_for("the topic to be gone", DEADLINE, async || {
            let all = tool.fetch_metadata(None, DEADLINE).unwrap();
            all.topics().iter().all(|topic| topic.name() != self.name)
        });
        waited.await.unwrap();
    }

    /// Sets one setting of the topic, and resets all others to Kafka's defaults.
    pub async fn set_topic(&self, name: &str, value: &str) {
        let topic = AlterConfig::new(ResourceSpecifier::Topic(self.name)).set(name, value);
        let answers = self.admin().alter_configs([&topic], &AdminOptions::new()).await.unwrap();
        answers.into_iter().for_each(|answer| drop(answer.unwrap()));
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.kafka().create().unwrap()
    }

    /// The configuration of a client, with the brokers of this world.
    pub fn kafka(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }
}
