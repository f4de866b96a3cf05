//! Membership of the consumer group: which partitions are ours, from where on.
//!
//! One thread polls, so that the group knows we live; it never handles a record.
//! Assigned partitions get a pipeline at their committed offset; revoked ones stop at
//! a batch boundary, within [`RELEASE`], before they are let go. The callbacks only
//! take notes. Where the end of a commit is unknown, the group is left, so that the
//! commit is refused if it arrives late, and joined anew. Invariants: no two pipelines
//! of one partition, no record outside one, no partition let go with a commit under way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio_util::sync::CancellationToken;

use crate::group::assignment::Waiting;
use crate::group::tracks::Tracks;
use crate::group::{GroupError, Left};
use crate::kafka::client::POLL;
use crate::kafka::commit::Ended;
use crate::kafka::membership::{Change, Consumer};
use crate::pipeline::Pipeline;
use crate::pipeline::context::Shared;

/// The member: its consumer and its pipelines.
pub(super) struct Member {
    pub(super) shared: Arc<Shared>,
    pub(super) consumer: Arc<Consumer>,
    pub(super) tracks: Arc<Tracks>,
    pub(super) pipelines: BTreeMap<i32, Pipeline>,
    /// Assigned, and not yet taken, for Kafka has not told from where on.
    pub(super) opening: Option<Vec<i32>>,
    /// Of these, those that the client is not assigned yet, for no broker tells of their logs; the first has
    /// waited longest.
    pub(super) waiting: VecDeque<Waiting>,
    /// When a broker is asked about them again.
    pub(super) ask_again: Instant,
    /// Revoked, and not yet let go; and when they are at the latest.
    pub(super) releasing: Option<(Vec<i32>, Instant)>,
}

impl Member {
    /// A member without partitions.
    pub(super) fn new(shared: Arc<Shared>, consumer: Arc<Consumer>, tracks: Arc<Tracks>) -> Self {
        Self {
            shared,
            consumer,
            tracks,
            pipelines: BTreeMap::new(),
            opening: None,
            waiting: VecDeque::new(),
            ask_again: Instant::now(),
            releasing: None,
        }
    }

    pub(super) fn run(mut self, shutdown: &CancellationToken) -> Result<Left, GroupError> {
        self.consumer.subscribe(&[&self.shared.topic]).map_err(|error| self.failed(error))?;
        let mut outcome = Ok(None);
        while matches!(outcome, Ok(None)) && !shutdown.is_cancelled() {
            outcome = self.step();
        }
        self.leave(shutdown)?;
        outcome.map(|left| left.unwrap_or(Left::Told))
    }

    pub(super) fn step(&mut self) -> Result<Option<Left>, GroupError> {
        self.poll()?;
        let changes = std::mem::take(&mut *self.consumer.context().changes());
        for change in changes {
            match change {
                Change::Assigned(partitions) => self.opening = Some(partitions),
                Change::Revoked(partitions) => self.begin_release(partitions),
            }
        }
        if let Some(left) = self.open()? {
            return Ok(Some(left));
        }
        if let Some(left) = self.end_release()? {
            return Ok(Some(left));
        }
        let ended =
            self.pipelines.iter().find(|(kp, pipeline)| pipeline.has_ended() && !self.is_releasing(**kp));
        match ended {
            Some((kp, _)) => self.end(*kp).map(Some),
            None => Ok(None),
        }
    }

    /// Looks how a pipeline ended that nobody told to.
    pub(super) fn end(&mut self, kp: i32) -> Result<Left, GroupError> {
        match self.pipelines.remove(&kp).and_then(Pipeline::ended) {
            Some(Ended::Unsure) => Ok(Left::Unsure),
            Some(Ended::Fenced) => Err(GroupError::Fenced(self.shared.topic.clone())),
            Some(Ended::Told) | None => Err(GroupError::PipelineEnded(kp)),
        }
    }

    pub(super) fn poll(&self) -> Result<(), GroupError> {
        match self.consumer.poll(POLL) {
            None => Ok(()),
            Some(Ok(record)) => Err(GroupError::Stray(rdkafka::Message::partition(&record))),
            Some(Err(KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId))) => {
                Err(GroupError::Fenced(self.shared.topic.clone()))
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => Err(self.failed(error)),
            // Brokers that come and go; whether Kafka answers is asked each second.
            Some(Err(error)) => {
                tracing::debug!(%error, "poll kafka");
                Ok(())
            }
        }
    }

    pub(super) fn count(&self) {
        self.shared.metrics.partitions_owned.set(self.pipelines.len() as i64);
    }

    pub(super) fn failed(&self, source: KafkaError) -> GroupError {
        GroupError::Kafka { topic: self.shared.topic.clone(), source }
    }
}
