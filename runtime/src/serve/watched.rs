//! A connection's bytes and answers, told to its [`Pulse`] as they pass.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::pulse::Pulse;

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

/// A stream whose pulse is taken.
pub(super) struct Watched {
    pub(super) stream: Stream,
    pub(super) pulse: SharedPulse,
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
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// An answer's body, if it has one; its request is answered when it has been sent.
pub(super) struct Answering<B> {
    pub(super) body: Option<B>,
    pub(super) _asked: Asked,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answering<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}
