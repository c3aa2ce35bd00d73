//! A client whose identity is replaced while it is used: it follows a kubeconfig file.
//!
//! Requests that begin after the file changed carry the new identity; what is under way (watches, upgraded
//! connections) goes on with the old one, which the server looks at for every new request.

use arc_swap::ArcSwap;
use http::{Request, Response};
use kube::client::Body;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tower::Service;

use crate::connect::{ConnectError, from_kubeconfig};
use keelson_daemon::DrainWatcher;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The service behind the client; clones share the identity.
#[derive(Clone)]
struct Rotating(Arc<ArcSwap<kube::Client>>);

impl Service<Request<Body>> for Rotating {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, kube::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = self.0.load_full();
        Box::pin(async move { client.send(request).await })
    }
}

/// A client that follows the kubeconfig at `path` until the drain begins. The file must be there and good now; later a
/// bad one is told and the last good one kept.
pub async fn following(path: &Path, drain: DrainWatcher) -> Result<kube::Client, ConnectError> {
    let first = from_kubeconfig(path).await?;
    let current = Arc::new(ArcSwap::from_pointee(first));
    tokio::spawn(follow(path.to_owned(), current.clone(), drain));
    Ok(kube::Client::new(Rotating(current), "default"))
}

async fn follow(path: PathBuf, current: Arc<ArcSwap<kube::Client>>, drain: DrainWatcher) {
    let mut seen = changed_at(&path);
    while drain.until(tokio::time::sleep(LOOK)).await.is_some() {
        let now = changed_at(&path);
        if now.is_none() || now == seen {
            continue;
        }
        seen = now;
        match from_kubeconfig(&path).await {
            Ok(client) => {
                current.store(Arc::new(client));
                tracing::info!(path = %path.display(), "identity read again");
            }
            Err(error) => tracing::warn!(path = %path.display(), %error, "new kubeconfig not used"),
        }
    }
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}
