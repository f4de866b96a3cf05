//! Kafka and ClickHouse of the local stack keep acknowledged data when they are stopped or killed. Every test that
//! stops or kills them relies on this.
#![expect(clippy::unwrap_used, reason = "a panic with its line is the best report a test can give")]

use std::time::Duration;

use devstack::{Stack, wait_for};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_killed_clickhouse_keeps_every_acknowledged_insert() {
    let mut stack = Stack::for_test("clickhouse_kill").unwrap();
    stack.clickhouse.start().await.unwrap();
    let client = stack.clickhouse.client();
    client.query("CREATE TABLE kept (n UInt64) ENGINE = MergeTree ORDER BY n").execute().await.unwrap();
    client.query("INSERT INTO kept SELECT number FROM numbers(1000)").execute().await.unwrap();

    stack.clickhouse.kill9().unwrap();
    stack.clickhouse.start().await.unwrap();

    assert_eq!(client.query("SELECT sum(n) FROM kept").fetch_one::<u64>().await.unwrap(), 499_500);
    stack.clickhouse.stop().await.unwrap();
    stack.clickhouse.start().await.unwrap();
    assert_eq!(client.query("SELECT count() FROM kept").fetch_one::<u64>().await.unwrap(), 1_000);
}

#[tokio::test]
async fn a_stopped_or_killed_kafka_keeps_its_records() {
    let mut stack = Stack::for_test("kafka_restart").unwrap();
    stack.kafka.start().await.unwrap();
    stack.kafka.create_topic("events", 1).await.unwrap();
    stack.kafka.create_topic("events", 1).await.unwrap();

    produce(&stack, "first");
    stack.kafka.kill9().unwrap();
    stack.kafka.start().await.unwrap();
    produce(&stack, "second");
    stack.kafka.stop().await.unwrap();
    stack.kafka.start().await.unwrap();

    assert_eq!(consume(&stack, 2).await, ["first", "second"]);
}

/// Sends a record with this text to Kafka, and returns after Kafka has acknowledged the record.
fn produce(stack: &Stack, text: &str) {
    let mut config = stack.kafka.client_config();
    let producer: ThreadedProducer<DefaultProducerContext> = config.set("acks", "all").create().unwrap();
    producer.send(BaseRecord::<(), _>::to("events").payload(text)).unwrap();
    producer.flush(DEADLINE).unwrap();
}

async fn consume(stack: &Stack, count: usize) -> Vec<String> {
    let mut config = stack.kafka.client_config();
    let consumer: BaseConsumer =
        config.set("group.id", "test").set("auto.offset.reset", "earliest").create().unwrap();
    consumer.subscribe(&["events"]).unwrap();
    let mut read = Vec::new();
    wait_for(format!("{count} records"), DEADLINE, async || {
        if let Some(Ok(record)) = consumer.poll(Duration::from_millis(10)) {
            read.push(String::from_utf8(record.payload().unwrap().to_vec()).unwrap());
        }
        read.len() == count
    })
    .await
    .unwrap();
    read
}
