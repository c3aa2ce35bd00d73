//! Answers that their client does not read: found, and ended.
//!
//! An answer's body is asked for its next piece when the client has room for it. One that had a piece and was not asked again
//! for too long has a client that does not read; what serves it is dropped, which frees what it holds (HTTP/2: the stream is
//! reset; HTTP/1.1: the connection ends). A body that has nothing to give, such as a quiet watch, is not meant.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::body::{Body, BoxError};

/// Since when a body has a piece that nobody asks for; none while it has nothing to give or has ended.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Option<Instant>>);

impl Progress {
    fn given(&self, at: Option<Instant>) {
        *self.0.lock() = at;
    }

    fn stalled(&self, limit: Duration) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() >= limit)
    }
}

tokio::task_local! {
    static PROGRESS: Arc<Progress>;
}

/// Runs what serves one answer (or one connection of one answer at a time) until it ends, or until the answer's client has
/// not read for `limit`; then gives `None`.
pub async fn unless_stalled<F: Future>(work: F, limit: Duration) -> Option<F::Output> {
    let progress = Arc::new(Progress::default());
    let mut work = pin!(PROGRESS.scope(progress.clone(), work));
    loop {
        // The first poll makes no timer: most answers are complete with it.
        tokio::select! {
            biased;
            done = work.as_mut() => return Some(done),
            () = tokio::time::sleep(limit) => {
                if progress.stalled(limit) {
                    return None;
                }
            }
        }
    }
}

/// Runs HTTP/2 streams as tasks, each under [`unless_stalled`].
#[derive(Clone)]
pub struct Streams {
    pub limit: Duration,
    /// Streams that were ended.
    pub ended: Arc<AtomicU64>,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, work: F) {
        let Streams { limit, ended } = self.clone();
        tokio::spawn(async move {
            if unless_stalled(work, limit).await.is_none() {
                ended.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// The requests of a connection that are not yet answered whole.
#[derive(Debug)]
pub struct Activity {
    under_way: AtomicUsize,
    used: AtomicBool,
    quiet_since: Mutex<Instant>,
}

/// One of them; over when it is dropped.
#[derive(Debug)]
pub struct UnderWay(Arc<Activity>);

impl Activity {
    pub fn new() -> Arc<Activity> {
        Arc::new(Activity {
            under_way: AtomicUsize::new(0),
            used: AtomicBool::new(false),
            quiet_since: Mutex::new(Instant::now()),
        })
    }

    pub fn begin(self: &Arc<Activity>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.used.store(true, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// No request has come yet.
    pub fn is_unused(&self) -> bool {
        !self.used.load(Ordering::Relaxed)
    }

    /// Since when nothing is under way; `None` while something is.
    pub fn quiet_since(&self) -> Option<Instant> {
        let since = *self.quiet_since.lock();
        (self.under_way.load(Ordering::Acquire) == 0).then_some(since)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.quiet_since.lock() = Instant::now();
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Larger pieces are given in slices: what the protocol holds of an answer that nobody reads is no more than this.
const SLICE: usize = 64 * 1024;

/// A body that tells how it is read.
pub struct Told {
    body: Body,
    /// What is left of a large piece.
    left: Bytes,
    progress: Option<Arc<Progress>>,
    _under_way: UnderWay,
}

impl Told {
    /// Made while the answer's own future runs.
    pub fn new(body: Body, under_way: UnderWay) -> Told {
        let progress = if body.is_empty() { None } else { PROGRESS.try_with(Arc::clone).ok() };
        if let Some(progress) = &progress {
            // A client without room for the first piece does not read either.
            progress.given(Some(Instant::now()));
        }
        Told { body, left: Bytes::new(), progress, _under_way: under_way }
    }
}

impl HttpBody for Told {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = if self.left.is_empty() {
            Pin::new(&mut self.body).poll_frame(context)
        } else {
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.left)))))
        };
        let polled = match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let frame = match frame.into_data() {
                    Ok(mut piece) if piece.len() > SLICE => {
                        self.left = piece.split_off(SLICE);
                        Frame::data(piece)
                    }
                    Ok(piece) => Frame::data(piece),
                    Err(other) => other,
                };
                Poll::Ready(Some(Ok(frame)))
            }
            other => other,
        };
        if let Some(progress) = &self.progress {
            let gave = matches!(polled, Poll::Ready(Some(Ok(_))));
            progress.given(gave.then(Instant::now));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        match hint.exact() {
            Some(length) => SizeHint::with_exact(length + self.left.len() as u64),
            None => hint,
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.given(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_large_piece_is_given_in_slices() {
        let activity = Activity::new();
        for length in [0, 1, SLICE, SLICE + 1, 5 * SLICE / 2] {
            let whole: Bytes = (0..length).map(|n| n as u8).collect::<Vec<_>>().into();
            let mut body = Told::new(Body::full(whole.clone()), activity.begin());
            assert_eq!(body.size_hint().exact(), Some(length as u64));
            let mut got = Vec::new();
            while !body.is_end_stream() {
                let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
                let piece = frame.unwrap().unwrap().into_data().unwrap();
                assert!(piece.len() <= SLICE);
                got.extend_from_slice(&piece);
                assert_eq!(body.size_hint().exact(), Some((length - got.len()) as u64));
            }
            assert_eq!(got, whole);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_does_not_read_is_ended() {
        const LIMIT: Duration = Duration::from_secs(60);
        let activity = Activity::new();
        let told = |pieces: usize| {
            let body = Body::chunks((0..pieces).map(|_| Bytes::from_static(b"x")));
            Told::new(body, activity.begin())
        };
        // Reads one piece and then no more.
        let stuck = async {
            let mut body = told(3);
            std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
            std::future::pending::<()>().await;
        };
        let begun = Instant::now();
        assert_eq!(unless_stalled(stuck, LIMIT).await, None);
        assert!(begun.elapsed() >= LIMIT && begun.elapsed() <= 2 * LIMIT);
        assert!(activity.quiet_since().is_some(), "nothing is held any more");
        // Has no room for the first piece.
        let unasked = async {
            let _body = told(3);
            std::future::pending::<()>().await;
        };
        assert_eq!(unless_stalled(unasked, LIMIT).await, None);
        // Reads slowly, but reads.
        let slow = async {
            let mut body = told(10);
            for _ in 0..10 {
                std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
                tokio::time::sleep(LIMIT / 2).await;
            }
        };
        assert_eq!(unless_stalled(slow, LIMIT).await, Some(()));
        // Has nothing to give for hours.
        let quiet = async {
            let stream = futures::stream::pending();
            let mut body = Told::new(Body::Stream(Box::pin(stream)), activity.begin());
            let wait = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
            tokio::time::timeout(100 * LIMIT, wait).await.is_err()
        };
        assert_eq!(unless_stalled(quiet, LIMIT).await, Some(true));
    }
}
