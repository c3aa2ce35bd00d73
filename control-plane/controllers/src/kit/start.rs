//! What all controllers are started with.

use std::sync::Arc;

use keelson_client::projections::SharedInformers;
use keelson_client::{EventRecorder, Informer, ObjectKey, Projection, WorkQueue};
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

    /// Marks every object that is there or changes.
    pub fn follow<P: Projection>(&self, informer: &Informer<P>) {
        let queue = self.queue.clone();
        informer.on_change(move |change| {
            if change.new.is_some() {
                queue.add(change.key.clone());
            }
        });
    }

    /// The work of the reconciler that `make` makes with these means: once the informers are `synced`, until the drain begins.
    pub fn work<
        R: Reconcile,
        S: Future<Output = ()>,
        M: FnOnce(Base) -> R,
        W: FnOnce(SharedInformers) -> S,
    >(
        self,
        make: M,
        workers: usize,
        synced: W,
    ) -> impl Future<Output = ()> + use<R, S, M, W> {
        let reconciler = Arc::new(make(self.clone()));
        let synced = synced(self.shared.clone());
        self.run(reconciler, workers, synced)
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
