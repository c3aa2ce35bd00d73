//! Worker loops over a queue of keys.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use keelson_client::{ObjectKey, WorkQueue};
use keelson_daemon::DrainWatcher;
use tokio::task::JoinSet;

use super::ReconcileError;

/// Brings one key to its desired state; `Some(delay)`: look again after it.
pub trait Reconcile: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    fn reconcile(
        &self,
        key: &ObjectKey,
    ) -> impl Future<Output = Result<Option<Duration>, ReconcileError>> + Send;
}

/// Works on `queue` with `workers` tasks until the drain begins; ends when all have ended.
pub async fn work<R: Reconcile>(
    reconciler: Arc<R>,
    queue: WorkQueue<ObjectKey>,
    workers: usize,
    drain: DrainWatcher,
) {
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let (reconciler, queue, drain) = (reconciler.clone(), queue.clone(), drain.clone());
        tasks.spawn(async move {
            while let Some(Some(key)) = drain.until(queue.get()).await {
                one(&*reconciler, &queue, key).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

async fn one<R: Reconcile>(reconciler: &R, queue: &WorkQueue<ObjectKey>, key: ObjectKey) {
    // A panic ends the work on this key alone; it is tried again with back-off like any error.
    match AssertUnwindSafe(reconciler.reconcile(&key)).catch_unwind().await {
        Ok(Ok(again)) => {
            queue.forget(&key);
            if let Some(delay) = again {
                queue.add_after(key.clone(), delay);
            }
        }
        Ok(Err(error)) => {
            if error.is_race() {
                tracing::debug!(controller = reconciler.name(), object = %key, error = %chain(&error), "trying again");
            } else {
                tracing::warn!(controller = reconciler.name(), object = %key, error = %chain(&error), "reconcile failed");
            }
            queue.add_rate_limited(key.clone());
        }
        Err(_) => {
            tracing::error!(controller = reconciler.name(), object = %key, "reconcile panicked");
            queue.add_rate_limited(key.clone());
        }
    }
    queue.done(key);
}

/// An error with its sources.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
