//! The side of a pipeline that applies batches: declare → insert, strictly one after another.

use std::sync::Arc;
use std::time::SystemTime;

use schemas::time::UnixMillis;
use tokio::sync::mpsc;
use tokio::time;

use crate::apply::insert::NotApplied;
use crate::health::Concern;
use crate::kafka::commit::{Committed, Committer, Ended};
use crate::kafka::topic::Recreated;
use crate::pipeline::context::Part;
use crate::pipeline::message::{Closed, Handed};
use crate::protocol::intent::Intent;
use crate::protocol::progress::{Offset, Progress};

impl Part {
    /// Declares and inserts one batch after another until there are no more, or told to stop.
    pub(super) async fn apply_all(
        self,
        mut batches: mpsc::Receiver<Handed>,
        progress: Progress,
        known: Committed,
        after: Option<Intent>,
    ) -> Ended {
        let committer = Committer {
            consumer: Arc::clone(&self.consumer),
            topic: self.shared.topic.clone(),
            kp: self.kp,
            member: Arc::clone(&self.member),
            known,
            under_way: Arc::clone(&self.commits),
            give_up: self.give_up.clone(),
            metrics: Arc::clone(&self.shared.metrics),
            health: Arc::clone(&self.shared.health),
        };
        let mut applier = Applier { part: &self, committer, progress, after };
        applier.apply_all(&mut batches).await.err().unwrap_or(Ended::Told)
    }
}

/// The other side of a pipeline.
struct Applier<'p> {
    part: &'p Part,
    committer: Committer,
    progress: Progress,
    /// To commit if nothing follows.
    after: Option<Intent>,
}

impl Applier<'_> {
    async fn apply_all(&mut self, batches: &mut mpsc::Receiver<Handed>) -> Result<(), Ended> {
        let max_age = self.part.shared.batch.max_age;
        loop {
            let handed = match time::timeout(max_age, batches.recv()).await {
                Ok(Some(handed)) => handed,
                Ok(None) => break,
                Err(_) => {
                    self.settle().await?;
                    continue;
                }
            };
            match handed {
                // It is declared by the next owner, who is free to cut it otherwise.
                Handed::Batch(closed) if !closed.work.rebuilt && self.part.stop.is_cancelled() => break,
                Handed::Batch(closed) => self.apply(*closed).await?,
                Handed::Quiet(after) => self.after = Some(*after),
            }
        }
        self.settle().await
    }

    async fn apply(&mut self, closed: Closed) -> Result<(), Ended> {
        let Closed { work, intent, after, counts, as_of, place } = closed;
        let Part { shared, track, give_up, .. } = self.part;
        // After its records were read, before anything is done with them.
        let same = give_up.run_until_cancelled(shared.topic_watch.check()).await;
        same.ok_or(Ended::Told)?.map_err(|Recreated| Ended::Told)?;
        if work.rebuilt {
            shared.metrics.recovered_intents.inc();
        } else {
            self.committer.commit(work.lo, &intent).await?;
        }
        let g = work.source.g;
        self.progress.declare(Offset::new(work.hwm.to_i64() - 1), work.cells.len());
        let progress = &mut self.progress;
        let applied = shared.inserter.apply(work, give_up, || progress.cell_applied()).await;
        match applied {
            Ok(()) => {}
            Err(NotApplied::GivenUp) => return Err(Ended::Told),
            Err(NotApplied::Stopped(stopped)) => {
                shared.health.alarm(Concern::Inserts(self.part.kp.into()), &stopped);
                let _counted = shared.metrics.partition_stopped();
                self.part.stop.cancelled().await;
                return Err(Ended::Told);
            }
        }
        drop(place);
        track.advance(g, self.progress.applied(), as_of);
        self.after = after;
        shared.metrics.applied(&counts, UnixMillis::from(SystemTime::now()).0 / 1000);
        Ok(())
    }

    /// Commits that all is applied and nothing declared.
    async fn settle(&mut self) -> Result<(), Ended> {
        if self.progress.may_declare()
            && let Some(after) = self.after.take()
        {
            self.committer.commit(self.progress.applied(), &after).await?;
        }
        Ok(())
    }
}
