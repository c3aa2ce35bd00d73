//! A client that says which component it is: the API server names the owner of the fields it writes after that
//! (`metadata.managedFields`).

use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};
use keelson_base::consts::KUBERNETES_VERSION;
use kube::client::Body;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tower::Service;

#[derive(Clone)]
struct Named {
    client: kube::Client,
    agent: HeaderValue,
}

impl Service<Request<Body>> for Named {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, kube::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| self.agent.clone());
        let client = self.client.clone();
        Box::pin(async move { client.send(request).await })
    }
}

/// The client, under a component's name: `kubelet`, `kube-scheduler`…
pub fn named(client: kube::Client, component: &str) -> kube::Client {
    let namespace = client.default_namespace().to_owned();
    match HeaderValue::from_str(&format!("{component}/{KUBERNETES_VERSION} keelson")) {
        Ok(agent) => kube::Client::new(Named { client, agent }, namespace),
        // A name no header can carry is none.
        Err(_) => client,
    }
}
