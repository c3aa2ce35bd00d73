//! What all controllers are started with.

use std::sync::Arc;

use keelson_client::projections::SharedInformers;
use keelson_client::{EventRecorder, ObjectKey, WorkQueue};
use keelson_daemon::Context;

use super::worker::{Reconcile, work};

/// One controller's means: its own client and recorder, the shared informers, a queue of keys.
#[derive(Clone)]
pub struct Base {
    pub client: kube::Client,
    pub shared: SharedInformers,
    pub recorder: EventRecorder,
    pub ctx: Context,
    pub queue: WorkQueue<ObjectKey>,
}

impl Base {
    /// Means for the controller that reports events as `component`.
    pub fn new(
        client: kube::Client,
        component: &'static str,
        shared: &SharedInformers,
        ctx: &Context,
    ) -> Self {
        Base {
            recorder: EventRecorder::start(client.clone(), component, ctx.clock.clone(), ctx.drain.clone()),
            client,
            shared: shared.clone(),
            ctx: ctx.clone(),
            queue: WorkQueue::new(),
        }
    }

    /// Works once `synced` is done, until the drain begins.
    pub async fn run<R: Reconcile>(
        self,
        reconciler: Arc<R>,
        workers: usize,
        synced: impl Future<Output = ()>,
    ) {
        if self.ctx.drain.until(synced).await.is_some() {
            work(reconciler, self.queue, workers, self.ctx.drain).await;
        }
    }
}
