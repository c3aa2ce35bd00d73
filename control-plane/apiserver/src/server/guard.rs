//! A connection's bytes on their way in: looked at, slowed down, cut; and shared out fairly with other connections.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::frames::{FrameGuard, Verdict};

/// After so many bytes the other connections have their turn.
const TURN: usize = 64 * 1024;

/// What the connection's requests tell its reader, and what that found.
#[derive(Clone)]
pub struct Meter(Option<Arc<Shared>>);

struct Shared {
    frames: Mutex<FrameGuard>,
    cut: OnceLock<&'static str>,
}

impl Meter {
    /// Of an HTTP/2 connection; HTTP/1.1 has one request at a time, whose answer slows it down already.
    pub fn new(http2: bool) -> Meter {
        let shared = || Shared { frames: Mutex::new(FrameGuard::new(Instant::now())), cut: OnceLock::new() };
        Meter(http2.then(|| Arc::new(shared())))
    }

    /// What there was too much of, where that ended the connection.
    pub fn cut(&self) -> Option<&'static str> {
        self.0.as_ref()?.cut.get().copied()
    }

    /// A request had no identity.
    pub fn refused(&self) {
        if let Some(shared) = &self.0 {
            shared.frames.lock().refused(Instant::now());
        }
    }
}

/// A stream whose reading is guarded.
pub struct Guarded<S> {
    stream: S,
    meter: Meter,
    /// Nothing is read before.
    wait: Option<Pin<Box<Sleep>>>,
    /// Bytes read since the stream last had nothing.
    turn: usize,
}

impl<S> Guarded<S> {
    pub fn new(stream: S, meter: Meter) -> Guarded<S> {
        Guarded { stream, meter, wait: None, turn: 0 }
    }
}

/// The error of a connection that was cut here.
#[derive(Debug, thiserror::Error)]
#[error("too many {0}")]
struct TooMany(&'static str);

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(cause) = this.meter.cut() {
            return Poll::Ready(Err(io::Error::other(TooMany(cause))));
        }
        if let Some(wait) = &mut this.wait {
            if wait.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            this.wait = None;
        }
        if this.turn >= TURN {
            this.turn = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = into.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, into);
        let bytes = &into.filled()[before..];
        match read {
            Poll::Ready(Ok(())) => this.turn += bytes.len(),
            _ => this.turn = 0,
        }
        let Some(shared) = this.meter.0.as_ref().filter(|_| !bytes.is_empty()) else { return read };
        let verdict = shared.frames.lock().read(bytes, Instant::now());
        match verdict {
            Verdict::Fine => {}
            Verdict::Wait(time) => {
                let time = time.min(Duration::from_secs(1));
                this.wait = Some(Box::pin(tokio::time::sleep(time)));
            }
            Verdict::Cut(cause) => {
                let _ = shared.cut.set(cause);
                return Poll::Ready(Err(io::Error::other(TooMany(cause))));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
