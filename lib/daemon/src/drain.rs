//! One drain per process: graceful, then a deadline, then forced.
//!
//! Every long task holds a [`DrainWatcher`]; [`DrainTrigger::drain`] tells them all and waits until each has dropped its
//! own, or until the deadline.

use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Starts the drain; kept by the composition root.
#[derive(Debug)]
pub struct DrainTrigger {
    signal: watch::Sender<bool>,
    holders: mpsc::Receiver<()>,
}

/// Tells a task that the drain has begun; the process waits for its drop.
#[derive(Clone, Debug)]
pub struct DrainWatcher {
    signal: watch::Receiver<bool>,
    _holder: mpsc::Sender<()>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every holder let go.
    Cleanly,
    /// The deadline passed with holders left.
    ByDeadline,
}

/// A trigger and its first watcher.
pub fn channel() -> (DrainTrigger, DrainWatcher) {
    let (signal, watcher) = watch::channel(false);
    let (holder, holders) = mpsc::channel(1);
    (DrainTrigger { signal, holders }, DrainWatcher { signal: watcher, _holder: holder })
}

impl DrainTrigger {
    /// Tells all watchers and waits for their drop, at most `deadline`.
    pub async fn drain(mut self, deadline: Duration) -> Drained {
        self.signal.send_replace(true);
        match tokio::time::timeout(deadline, self.holders.recv()).await {
            Ok(_) => Drained::Cleanly,
            Err(_) => Drained::ByDeadline,
        }
    }
}

impl DrainWatcher {
    /// Resolves when the drain begins (at once when it has begun, or when the trigger is gone).
    pub async fn drained(&self) {
        let mut signal = self.signal.clone();
        // An error means that the trigger was dropped: the process is going down.
        let _ = signal.wait_for(|begun| *begun).await;
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        *self.signal.borrow()
    }

    /// Runs `work` until it ends or the drain begins; `None` when the drain came first.
    pub async fn until<F: Future>(&self, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.drained() => None,
            output = work => Some(output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_every_holder() {
        let (trigger, watcher) = channel();
        let task = tokio::spawn({
            let watcher = watcher.clone();
            async move {
                watcher.drained().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                drop(watcher);
            }
        });
        drop(watcher);
        assert_eq!(trigger.drain(Duration::from_secs(5)).await, Drained::Cleanly);
        assert!(task.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn drain_gives_up_at_its_deadline() {
        let (trigger, watcher) = channel();
        assert_eq!(watcher.until(async { 3 }).await, Some(3));
        assert_eq!(trigger.drain(Duration::from_secs(5)).await, Drained::ByDeadline);
        assert_eq!(watcher.until(std::future::pending::<()>()).await, None);
    }
}
