//! A server that does nothing: it answers 200 to everything, echoes what it is sent, lists nothing, and its watches say
//! nothing. A test that passes against it checks nothing.

use crate::api;
use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::net::TcpListener;

/// Starts it; returns its address.
pub async fn start() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("the stub cannot listen")?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let service = hyper::service::service_fn(answer);
                // A client that goes away ends its connection; nothing is to be done.
                let _ =
                    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(address)
}

/// A kubeconfig for it.
pub fn kubeconfig(address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: stub\nclusters:\n- name: stub\n  cluster:\n    server: http://{address}\n\
         contexts:\n- name: stub\n  context:\n    cluster: stub\n    user: stub\nusers:\n- name: stub\n  user:\n    token: stub\n"
    )
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let watch = head.uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("watch=")));
    let sent = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = match (&head.method, serde_json::from_slice(&sent)) {
        (&Method::GET, _) if watch => Bytes::new(),
        (&Method::GET, _) => plausible(head.uri.path(), json!({}), false),
        (_, Ok(object @ Value::Object(_))) => plausible(head.uri.path(), object, true),
        _ => sent,
    };
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// An object, or an empty list, of the kind that the path is about, so that no test fails for the answer's type alone.
fn plausible(path: &str, mut object: Value, echoed: bool) -> Bytes {
    let words: Vec<&str> = path.split('/').collect();
    let known = words.iter().enumerate().rev().find_map(|(at, word)| {
        let in_version = |kind: &api::Kind| {
            let root = if kind.api_version.contains('/') { "apis" } else { "api" };
            path.starts_with(&format!("/{root}/{}/", kind.api_version))
        };
        let kind = api::KINDS.iter().find(|kind| kind.plural == *word && in_version(kind));
        kind.map(|kind| (words.get(at + 1), kind))
    });
    let Some((name, kind)) = known else { return object.to_string().into() };
    object["apiVersion"] = json!(kind.api_version);
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"]["resourceVersion"] = json!("1");
    if echoed || name.is_some() {
        object["kind"] = json!(kind.kind);
        object["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    } else {
        object["kind"] = json!(kind.list);
        object["items"] = json!([]);
    }
    if let Some(name) = name {
        object["metadata"]["name"] = json!(name);
    }
    object.to_string().into()
}
