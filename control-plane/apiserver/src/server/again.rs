//! Polling that goes on by itself when its future is woken while it runs.
//!
//! hyper hands a request's body to its handler through a channel within the connection's task: a handler that asks for the
//! body wakes the task it runs in. The runtime takes such a task for one that yields: it goes to the end of the queue, and
//! another thread is woken to take it. Once for every request with a body, that costs more than reading the body.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// How often it goes on by itself before others have their turn.
const ROUNDS: usize = 4;

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
/// Woken while it was running.
const WOKEN: u8 = 2;

/// The wakes of the future inside: those of its own run stay here, others go to its task.
struct Bell {
    state: AtomicU8,
    task: Mutex<Waker>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let within = |state| (state != WAITING).then_some(WOKEN);
        if self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, within).is_err() {
            self.task.lock().wake_by_ref();
        }
    }
}

/// See the module. One for each future.
#[derive(Default)]
pub struct Again {
    bell: Option<(Arc<Bell>, Waker)>,
}

impl Again {
    /// Polls the future, as often as it is woken meanwhile, within reason.
    pub fn poll<F: Future + ?Sized>(
        &mut self,
        context: &mut Context<'_>,
        mut future: Pin<&mut F>,
    ) -> Poll<F::Output> {
        let (bell, waker) = self.bell.get_or_insert_with(|| {
            let task = Mutex::new(context.waker().clone());
            let bell = Arc::new(Bell { state: AtomicU8::new(WAITING), task });
            let waker = Waker::from(bell.clone());
            (bell, waker)
        });
        bell.task.lock().clone_from(context.waker());
        for _ in 0..ROUNDS {
            bell.state.store(RUNNING, Ordering::Release);
            if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(waker)) {
                return Poll::Ready(done);
            }
            let rests = bell.state.compare_exchange(RUNNING, WAITING, Ordering::AcqRel, Ordering::Acquire);
            if rests.is_ok() {
                return Poll::Pending;
            }
        }
        bell.state.store(WAITING, Ordering::Release);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn wakes_of_its_own_run_stay_within_and_others_do_not() {
        let wakes = Arc::new(Wakes::default());
        let task = Waker::from(wakes.clone());
        let polls = Arc::new(AtomicUsize::new(0));
        let kept = Arc::new(Mutex::new(None));
        // Wakes itself in this many of its first polls.
        let future = |busy: usize| {
            let (polls, kept) = (polls.clone(), kept.clone());
            poll_fn(move |context| {
                if polls.fetch_add(1, Ordering::SeqCst) < busy {
                    context.waker().wake_by_ref();
                }
                *kept.lock() = Some(context.waker().clone());
                Poll::<()>::Pending
            })
        };
        // (busy, polls in one go, wakes of the task in it)
        for (busy, polled, woken) in [(0, 1, 0), (1, 2, 0), (3, 4, 0), (usize::MAX, ROUNDS, 1)] {
            let (mut future, mut again) = (Box::pin(future(busy)), Again::default());
            assert!(again.poll(&mut Context::from_waker(&task), future.as_mut()).is_pending());
            assert_eq!(polls.swap(0, Ordering::SeqCst), polled, "{busy}");
            assert_eq!(wakes.0.swap(0, Ordering::SeqCst), woken, "{busy}");
            // From outside, at rest.
            kept.lock().take().expect("a waker").wake();
            assert_eq!(wakes.0.swap(0, Ordering::SeqCst), 1, "{busy}");
        }
    }
}
