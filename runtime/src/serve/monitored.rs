//! A connection's bytes and answers, told to its [`Pulse`] as they pass.

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

use super::pulse::Pulse;
use super::unparsed::Unparsed;

/// A pulse that connection, requests and answers share.
#[derive(Clone)]
pub(super) struct SharedPulse(Arc<Mutex<Pulse>>);

impl SharedPulse {
    /// Of a connection that was accepted just now.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Pulse::new(Instant::now()))))
    }

    /// Looks at it, or tells it something.
    pub(super) fn lock(&self) -> MutexGuard<'_, Pulse> {
        // No call can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come; it ends when what is returned is dropped.
    pub(super) fn asked(&self) -> Asked {
        self.lock().asked();
        Asked(self.clone())
    }
}

/// A request that is being answered.
pub(super) struct Asked(SharedPulse);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.lock().answered(Instant::now());
    }
}

/// A plain stream, or one with TLS.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// How long a peer may pause in sending what nobody reads, while our last answer reaches it.
const LINGER: Duration = Duration::from_secs(1);
/// How long it may go on.
const LONGEST_LINGER: Duration = Duration::from_secs(10);

/// A stream whose pulse is taken.
pub(super) struct Watched {
    stream: Stream,
    pulse: SharedPulse,
    /// What is being sent in place of an answer of hyper's own.
    in_place: Option<Bytes>,
    /// Ends the wait for the peer, once we have said our last, and when it ends at the latest.
    lingering: Option<(Pin<Box<Sleep>>, Instant)>,
}

impl Watched {
    pub(super) fn new(stream: Stream, pulse: SharedPulse) -> Self {
        Self { stream, pulse, in_place: None, lingering: None }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            self.pulse.lock().read(read, Instant::now());
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, in_place, .. } = &mut *self;
        let unparsed = || Unparsed::of_answer(bytes).map(Unparsed::answer);
        let Some(mut answer) = in_place.take().or_else(unparsed) else {
            return Pin::new(stream).poll_write(context, bytes);
        };
        while !answer.is_empty() {
            match Pin::new(&mut *stream).poll_write(context, &answer) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => answer.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // It is called again with the same bytes.
                    *in_place = Some(answer);
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
            && (self.in_place.is_some() || Unparsed::of_answer(first).is_some())
        {
            return self.poll_write(context, first);
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Says that we have said our last, and then reads on until the peer has too: closed with bytes
    /// unread, a connection is reset, and a peer that still sends would lose our answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, lingering, .. } = &mut *self;
        let (over, latest) = match lingering {
            Some(lingering) => lingering,
            None => {
                ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
                lingering.insert((Box::pin(time::sleep(LINGER)), Instant::now() + LONGEST_LINGER))
            }
        };
        let mut unwanted = [MaybeUninit::uninit(); 8 * 1024];
        while over.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::uninit(&mut unwanted);
            let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            over.as_mut().reset((Instant::now() + LINGER).min(*latest));
        }
        Poll::Ready(Ok(()))
    }
}

/// The body of an answer.
pub(super) enum Said<B> {
    /// The service's.
    Service(B),
    /// Ours, in place of the service's; none once it was sent.
    Ours(Option<Bytes>),
}

/// An answer's body; its request is answered when it has been sent.
pub(super) struct Answering<B> {
    pub(super) body: Said<B>,
    pub(super) _asked: Asked,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answering<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.body {
            Said::Service(body) => Pin::new(body).poll_frame(context),
            Said::Ours(body) => Poll::Ready(body.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Said::Service(body) => body.is_end_stream(),
            Said::Ours(body) => body.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Said::Service(body) => body.size_hint(),
            Said::Ours(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
        }
    }
}
