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
        Ok(Err(error)) if error.is_namespace_terminating() => {
            tracing::debug!(controller = reconciler.name(), object = %key, "left alone: its namespace is going away");
            queue.forget(&key);
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

/// An error with its sources; of an answer of the server its words alone.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        // Box<kube::Error> is a source by itself.
        let api = error
            .downcast_ref::<kube::Error>()
            .or_else(|| error.downcast_ref::<Box<kube::Error>>().map(|b| &**b));
        if let Some(api @ kube::Error::Api(_)) = api {
            text.push_str(&super::message(api));
            break;
        }
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
