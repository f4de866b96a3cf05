//! Checks that Kafka itself sets the times of the topic's records (`LogAppendTime`).
//!
//! The deduplication window measures age by these times. The moment `as_of` of an answer promises that every record
//! which Kafka appended before that moment is counted. The window and `as_of` need times that do not go backwards, even
//! if the clocks of edges do.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use crate::config::KafkaConfig;

/// Timeout of reading the settings of the topic.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// The topic setting, and the value that it must have.
pub const SETTING: (&str, &str) = ("message.timestamp.type", "LogAppendTime");

/// A client for the settings of topics.
pub type Admin = AdminClient<DefaultClientContext>;

/// Who sets the times of new records: Kafka's `message.timestamp.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// Kafka, as required.
    LogAppendTime,
    /// The producers. An unknown value of the setting is treated as `CreateTime`.
    CreateTime,
    /// Unknown, because this process has no right to read the setting or Kafka's answer does not contain the setting.
    Unknown,
}

/// Asks Kafka who sets the times of the records of `topic`.
///
/// # Errors
/// Kafka did not answer, or has no such topic.
pub async fn timestamp_type(admin: &Admin, topic: &str) -> KafkaResult<TimestampType> {
    let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT));
    let answers = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await?;
    let answer = answers.into_iter().next().unwrap_or(Err(RDKafkaErrorCode::UnknownTopicOrPartition));
    judge(answer).map_err(KafkaError::AdminOp)
}

fn judge(answer: Result<ConfigResource, RDKafkaErrorCode>) -> Result<TimestampType, RDKafkaErrorCode> {
    use RDKafkaErrorCode::{ClusterAuthorizationFailed, TopicAuthorizationFailed};
    let (name, wanted) = SETTING;
    match answer {
        Ok(topic) => match topic.get(name).and_then(|entry| entry.value.as_deref()) {
            Some(value) if value == wanted => Ok(TimestampType::LogAppendTime),
            Some(_) => Ok(TimestampType::CreateTime),
            None => Ok(TimestampType::Unknown),
        },
        Err(TopicAuthorizationFailed | ClusterAuthorizationFailed) => Ok(TimestampType::Unknown),
        Err(error) => Err(error),
    }
}

/// The instruction to an operator if the producers of a topic set the times.
pub fn help(kafka: &KafkaConfig) -> String {
    let (KafkaConfig { brokers, topic, .. }, (name, value)) = (kafka, SETTING);
    format!(
        "producers set the times of records of topic `{topic}`, but Kafka must set them: run `kafka-configs.sh \
         --bootstrap-server {brokers} --alter --entity-type topics --entity-name {topic} --add-config {name}={value}`"
    )
}

/// The warning if Kafka does not show the setting to this process ([`TimestampType::Unknown`]).
pub fn warning(topic: &str) -> String {
    let (name, value) = SETTING;
    format!(
        "topic `{topic}`: Kafka does not show the setting {name} to this process, so the process cannot check that the \
         value is {value}; with another value, repeated events may count twice. Check that this process has the right \
         DescribeConfigs on the topic"
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::admin::{ConfigEntry, ConfigSource, OwnedResourceSpecifier};

    use super::*;

    fn described(name: &str, value: Option<&str>) -> ConfigResource {
        let entry = ConfigEntry {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            source: ConfigSource::Default,
            is_read_only: false,
            is_default: true,
            is_sensitive: false,
        };
        ConfigResource { specifier: OwnedResourceSpecifier::Topic("t".to_owned()), entries: vec![entry] }
    }

    #[test]
    fn only_log_append_time_is_accepted_and_a_hidden_setting_is_unknown() {
        use RDKafkaErrorCode as C;
        let of = |value| judge(Ok(described("message.timestamp.type", Some(value))));
        assert_eq!(of("LogAppendTime"), Ok(TimestampType::LogAppendTime));
        assert_eq!(of("CreateTime"), Ok(TimestampType::CreateTime));
        assert_eq!(of("something new"), Ok(TimestampType::CreateTime));
        assert_eq!(judge(Ok(described("retention.ms", Some("LogAppendTime")))), Ok(TimestampType::Unknown));
        assert_eq!(judge(Ok(described("message.timestamp.type", None))), Ok(TimestampType::Unknown));
        for code in [C::TopicAuthorizationFailed, C::ClusterAuthorizationFailed] {
            assert_eq!(judge(Err(code)), Ok(TimestampType::Unknown));
        }
        for code in [C::UnknownTopicOrPartition, C::RequestTimedOut] {
            assert_eq!(judge(Err(code)), Err(code));
        }
    }
}
