//! A member of the consumer group: it polls Kafka, and acts on assignments and revocations.
//!
//! One thread polls Kafka's client, because a member that does not poll in time is removed from the group. This thread
//! never handles a record, so no record can delay it. For each assigned partition, a pipeline starts at the committed
//! offset. When a partition is revoked, its pipeline may finish the batch that it is inserting, within
//! [`RELEASE_TIMEOUT`](super::RELEASE_TIMEOUT); the partition is released only after the pipeline has ended. Until the
//! member leaves, the callbacks of Kafka's client only record assignments and revocations. If the outcome of a commit
//! is unknown, the member leaves the group and joins it again. If that commit reaches Kafka later, Kafka refuses it,
//! because the commit belongs to the previous membership.
//!
//! Invariants: a partition never has two pipelines, no record is read outside a pipeline, and no partition is released
//! while one of its commits is under way, unless the process is about to exit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio_util::sync::CancellationToken;

use crate::group::applied_watches::AppliedWatches;
use crate::group::assignment::WaitingPartition;
use crate::group::rebalance::Release;
use crate::group::{GroupError, LeaveReason};
use crate::kafka::client::POLL_TIMEOUT;
use crate::kafka::group_context::{GroupConsumer, RebalanceEvent};
use crate::pipeline::context::Services;
use crate::pipeline::{Pipeline, PipelineEnd};

/// A member: its consumer and its pipelines.
pub(super) struct Member {
    pub(super) services: Arc<Services>,
    pub(super) consumer: Arc<GroupConsumer>,
    pub(super) applied_watches: Arc<AppliedWatches>,
    pub(super) pipelines: BTreeMap<i32, Pipeline>,
    /// Assigned partitions whose committed offsets Kafka has not returned yet.
    pub(super) opening: Option<Vec<i32>>,
    /// Partitions that the group assigned to this member but that Kafka's client does not fetch yet, because no broker
    /// reports where their logs begin and end. The partition that has waited longest comes first.
    pub(super) waiting: VecDeque<WaitingPartition>,
    /// Before this moment, Kafka is not asked again where the log of a waiting partition begins and ends.
    pub(super) ask_again: Instant,
    /// Revoked partitions that are not released yet.
    pub(super) releasing: Option<Release>,
}

impl Member {
    /// A member without partitions.
    pub(super) fn new(
        services: Arc<Services>,
        consumer: Arc<GroupConsumer>,
        applied_watches: Arc<AppliedWatches>,
    ) -> Self {
        Self {
            services,
            consumer,
            applied_watches,
            pipelines: BTreeMap::new(),
            opening: None,
            waiting: VecDeque::new(),
            ask_again: Instant::now(),
            releasing: None,
        }
    }

    /// Joins the group, and stays a member until `shutdown` or until it must join again.
    pub(super) fn run(mut self, shutdown: &CancellationToken) -> Result<LeaveReason, GroupError> {
        self.consumer.subscribe(&[&self.services.topic]).map_err(|error| self.kafka_error(error))?;
        let mut outcome = Ok(None);
        while matches!(outcome, Ok(None)) && !shutdown.is_cancelled() {
            outcome = self.step();
        }
        self.leave(shutdown)?;
        outcome.map(|reason| reason.unwrap_or(LeaveReason::Shutdown))
    }

    /// Polls once, and acts on assignments, revocations and pipelines that ended.
    fn step(&mut self) -> Result<Option<LeaveReason>, GroupError> {
        self.poll()?;
        for event in self.consumer.context().take_events() {
            match event {
                RebalanceEvent::Assigned(partitions) => self.opening = Some(partitions),
                RebalanceEvent::Revoked(partitions) => self.begin_release(partitions),
            }
        }
        if let Some(reason) = self.open_assigned()? {
            return Ok(Some(reason));
        }
        if let Some(reason) = self.end_release()? {
            return Ok(Some(reason));
        }
        let mut running = self.pipelines.iter().filter(|(partition, _)| !self.is_releasing(**partition));
        match running.find(|(_, pipeline)| pipeline.has_ended()) {
            Some((partition, _)) => self.end_unexpected(*partition).map(Some),
            None => Ok(None),
        }
    }

    fn poll(&self) -> Result<(), GroupError> {
        match self.consumer.poll(POLL_TIMEOUT) {
            None => Ok(()),
            Some(Ok(record)) => Err(GroupError::Stray(rdkafka::Message::partition(&record))),
            Some(Err(KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId))) => {
                Err(self.fenced())
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => Err(self.kafka_error(error)),
            // A broker may disconnect and come back, so a single error is not yet a failure. `ops::freshness` checks
            // whether Kafka answers at all.
            Some(Err(error)) => {
                tracing::debug!(%error, "poll kafka");
                Ok(())
            }
        }
    }

    /// Decides what to do after a pipeline ended although this process had not stopped it.
    fn end_unexpected(&mut self, partition: i32) -> Result<LeaveReason, GroupError> {
        match self.pipelines.remove(&partition).and_then(Pipeline::ended) {
            Some(PipelineEnd::CommitUnknown) => Ok(LeaveReason::CommitUnknown),
            Some(PipelineEnd::Fenced) => Err(self.fenced()),
            Some(PipelineEnd::Stopped) | None => Err(GroupError::PipelineEnded(partition)),
        }
    }

    /// Updates the metric `partitions_owned`.
    pub(super) fn count_partitions(&self) {
        self.services.metrics.partitions_owned.set(self.pipelines.len() as i64);
    }

    pub(super) fn kafka_error(&self, source: KafkaError) -> GroupError {
        GroupError::Kafka { topic: self.services.topic.clone(), source }
    }

    pub(super) fn fenced(&self) -> GroupError {
        GroupError::Fenced(self.services.topic.clone())
    }
}
