//! Bounds the memory of answers with many rows while they are rendered and sent.
//!
//! Such an answer takes milliseconds to render, and occupies megabytes until the reader has received it. So it is
//! rendered on the blocking pool, where it delays no other request. All such answers share a memory limit. An answer is
//! refused if it and the answers that are being sent would together exceed the limit. But an answer that exceeds the
//! limit by itself is still sent if no other long answer is being sent. Every answer is rendered completely before it
//! is sent. So its ETag and its length are known, and it is compressed once.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task;

use crate::problem::{Kind, Problem};

/// Answers of at most about this many bytes are rendered without the blocking pool, and do not count toward the limit.
const SMALL_BYTES: usize = 256 << 10;
/// Up to this many fetched rows are shaped without the blocking pool, because that takes at most a few milliseconds.
pub(super) const FEW_ROWS: usize = 5_000;
/// About how many bytes all answers longer than [`SMALL_BYTES`] may take together. An answer with the maximum number of
/// rows (100,000), one dimension with short texts and one measure takes about half of this.
const MAX_BYTES: usize = 32 << 20;
/// Number of bytes that each permit of the semaphore stands for.
const PERMIT_BYTES: usize = 1 << 10;

/// The memory that long answers share.
pub(super) struct LongAnswers {
    memory: Arc<Semaphore>,
}

/// The bytes of a body, and the permit for their memory. The permit is held until the last byte was sent or the
/// connection ended.
struct Reserved {
    bytes: Bytes,
    _memory: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Reserved {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl LongAnswers {
    pub(super) fn new() -> Self {
        Self { memory: Arc::new(Semaphore::new(MAX_BYTES / PERMIT_BYTES)) }
    }

    /// The response that `render` makes. `bytes` is about the size of the answer in memory before it is rendered.
    ///
    /// # Errors
    /// The long answers that are being sent leave too little of the shared memory.
    pub(super) async fn response(
        &self,
        bytes: usize,
        render: impl FnOnce() -> Response + Send + 'static,
    ) -> Result<Response, Problem> {
        if bytes <= SMALL_BYTES {
            return Ok(render());
        }
        let permits = u32::try_from(bytes.min(MAX_BYTES) / PERMIT_BYTES).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.memory).try_acquire_many_owned(permits);
        let memory = memory.map_err(|_| Problem::from(Kind::Busy))?;
        let response = on_blocking_pool(true, render).await;
        let (head, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("reading a body that is in memory cannot fail");
        Ok(Response::from_parts(head, Body::from(Bytes::from_owner(Reserved { bytes, _memory: memory }))))
    }
}

/// The result of `work`. If `takes_long`, the work runs on the blocking pool, where it delays no other request.
pub(super) async fn on_blocking_pool<T: Send + 'static>(
    takes_long: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if takes_long { task::spawn_blocking(work).await.expect("the work does not panic") } else { work() }
}

#[cfg(test)]
mod tests {
    use axum::body::HttpBody as _;

    use super::*;

    async fn sent(answers: &LongAnswers, bytes: usize) -> Result<Response, Problem> {
        answers.response(bytes, move || Response::new(Body::from(vec![b'x'; bytes]))).await
    }

    #[tokio::test]
    async fn long_answers_take_bounded_memory_until_they_are_sent_and_small_ones_never_wait() {
        let answers = LongAnswers::new();
        let longest = sent(&answers, MAX_BYTES).await.unwrap();
        assert_eq!(longest.body().size_hint().exact(), Some(MAX_BYTES as u64));
        assert_eq!(sent(&answers, SMALL_BYTES + 1).await.unwrap_err(), Kind::Busy.into());
        assert!(sent(&answers, SMALL_BYTES).await.is_ok());
        // An HTTP server reads the bytes from the body before it sends them. They are still in memory then, so the
        // permit is still held.
        let bytes = to_bytes(longest.into_body(), usize::MAX).await.unwrap();
        assert!(sent(&answers, SMALL_BYTES + 1).await.is_err());
        drop(bytes);
        assert!(sent(&answers, SMALL_BYTES + 1).await.is_ok());
    }

    #[tokio::test]
    async fn an_answer_longer_than_the_shared_limit_is_sent_alone() {
        let answers = LongAnswers::new();
        let longest = sent(&answers, 2 * MAX_BYTES).await.unwrap();
        assert!(sent(&answers, SMALL_BYTES + 1).await.is_err());
        drop(longest);
        assert!(sent(&answers, SMALL_BYTES + 1).await.is_ok());
    }
}
