//! Records in the [`Activity`] of a connection when bytes are read and written, and when requests begin and end.
//!
//! [`MonitoredStream`] also replaces the responses that hyper makes itself, and gives the peer time to receive the last
//! response before the connection is closed.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{self, Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::activity::Activity;
use super::protocol_refusal::ProtocolRefusal;

/// The activity that a connection, its requests and its responses share.
#[derive(Clone)]
pub(super) struct SharedActivity(Arc<Mutex<Activity>>);

impl SharedActivity {
    /// The activity of a connection that was accepted just now.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Activity::new(Instant::now()))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Activity> {
        // No method of `Activity` panics half-way, so the value is consistent even after a panic elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a request arrived. The request ends when the guard is dropped.
    pub(super) fn request(&self) -> InFlight {
        self.lock().request();
        InFlight(self.clone())
    }
}

/// A request that is being answered.
pub(super) struct InFlight(SharedActivity);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.lock().response(Instant::now());
    }
}

/// A plain stream, or one with TLS.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// How long we wait for more bytes from the peer before we close a connection on which we have sent everything.
const LINGER: Duration = Duration::from_secs(1);
/// How long a peer may keep sending bytes after we have sent everything, before we close the connection.
const LONGEST_LINGER: Duration = Duration::from_secs(10);

/// A stream that records its reads and writes in the activity of its connection.
pub(super) struct MonitoredStream {
    stream: Stream,
    activity: SharedActivity,
    /// Whether the last write was pending, because the peer accepted no bytes.
    is_blocked: bool,
    /// The unsent rest of our response, which is sent instead of a response that hyper made itself.
    replacement: Option<Bytes>,
    /// Set after we have sent everything and wait until the peer stops sending: the timer that ends this wait
    /// ([`LINGER`]), and the moment at which the wait ends at the latest ([`LONGEST_LINGER`]).
    lingering: Option<(Pin<Box<Sleep>>, Instant)>,
}

impl MonitoredStream {
    pub(super) fn new(stream: Stream, activity: SharedActivity) -> Self {
        Self { stream, activity, is_blocked: false, replacement: None, lingering: None }
    }

    /// Takes the result of a write, and records it as activity if the peer accepts bytes again after a pending write.
    fn record_write(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if self.is_blocked && polled.is_ready() {
            self.activity.lock().written(Instant::now());
        }
        self.is_blocked = polled.is_pending();
        polled
    }
}

impl AsyncRead for MonitoredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            self.activity.lock().read(read, Instant::now());
        }
        polled
    }
}

impl AsyncWrite for MonitoredStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, replacement, .. } = &mut *self;
        let refusal = || ProtocolRefusal::of_response(bytes).map(ProtocolRefusal::response);
        let Some(mut response) = replacement.take().or_else(refusal) else {
            let polled = Pin::new(stream).poll_write(context, bytes);
            return self.record_write(polled);
        };
        while !response.is_empty() {
            match Pin::new(&mut *stream).poll_write(context, &response) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => response.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // hyper will call this method with the same bytes again; then the rest of our response is written.
                    *replacement = Some(response);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(first) = slices.first()
            && (self.replacement.is_some() || ProtocolRefusal::of_response(first).is_some())
        {
            return self.poll_write(context, first);
        }
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.record_write(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Closes our side of the connection. Then reads and discards bytes until the peer closes its side, has sent
    /// nothing for [`LINGER`], or has kept sending for [`LONGEST_LINGER`]. Without this wait, a peer that is still
    /// sending would lose our response: the kernel resets a connection that is closed with unread bytes.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, lingering, .. } = &mut *self;
        let (timeout, latest) = match lingering {
            Some(lingering) => lingering,
            None => {
                ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
                lingering.insert((Box::pin(time::sleep(LINGER)), Instant::now() + LONGEST_LINGER))
            }
        };
        let mut unwanted = [MaybeUninit::uninit(); 8 * 1024];
        while timeout.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::uninit(&mut unwanted);
            let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            timeout.as_mut().reset((Instant::now() + LINGER).min(*latest));
        }
        Poll::Ready(Ok(()))
    }
}

/// The body of a response.
pub(super) enum ResponseBody<B> {
    /// The body of a response of the service.
    Service(B),
    /// The refusal of a request that never reached the service; `None` once this body was sent.
    Refusal(Option<Bytes>),
}

/// The body of a response. Its request is in flight until hyper drops the body.
pub(super) struct MonitoredBody<B> {
    pub(super) body: ResponseBody<B>,
    pub(super) _in_flight: InFlight,
}

impl<B: Body<Data = Bytes> + Unpin> Body for MonitoredBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.body {
            ResponseBody::Service(body) => Pin::new(body).poll_frame(context),
            ResponseBody::Refusal(body) => Poll::Ready(body.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            ResponseBody::Service(body) => body.is_end_stream(),
            ResponseBody::Refusal(body) => body.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            ResponseBody::Service(body) => body.size_hint(),
            ResponseBody::Refusal(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64))
            }
        }
    }
}
