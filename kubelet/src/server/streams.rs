//! exec, attach, and port-forward where [`forward`] cannot do it: the runtime is asked for a streaming address, the client's upgrade is repeated towards
//! it, and from then on bytes are relayed both ways, unread. The runtime's streaming server listens on loopback or a
//! local address; nothing but what CRI answered is ever connected to.
use super::{Body, Query, Server, forward, text};
use crate::cri::api;
use crate::plan::observed::RunState;
use crate::plan::pod;
use crate::worker::PodView;
use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use keelson_streams::Impatient;
use std::time::Duration;
use tokio::net::TcpStream;

/// Headers of the handshake that both sides must see.
const PASSED: &[&str] = &[
    "x-stream-protocol-version",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "sec-websocket-accept",
];

/// The runtime writes a container's output to its log and to all who are attached in turn: one that does not read holds up the
/// container, its log and the log's rotation.
const UNREAD: Duration = Duration::from_secs(20);

fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}

impl Server {
    fn find(
        &self,
        namespace: &str,
        pod_name: &str,
        uid: Option<&str>,
    ) -> Result<PodView, Box<Response<Body>>> {
        let view = self.workers.by_name(namespace, pod_name);
        view.filter(|view| uid.is_none_or(|uid| pod::uid(&view.pod) == uid)).ok_or_else(|| {
            let message = format!("pod {pod_name:?} not found in namespace {namespace:?}");
            Box::new(text(StatusCode::NOT_FOUND, message))
        })
    }

    pub(super) async fn exec_or_attach(
        &self,
        request: Request<Incoming>,
        attach: bool,
        (namespace, pod_name, uid, container): (&str, &str, Option<&str>, &str),
        query: &Query,
    ) -> Response<Body> {
        let view = match self.find(namespace, pod_name, uid) {
            Ok(view) => view,
            Err(response) => return *response,
        };
        let running = view.observed.latest(container).filter(|c| c.state == RunState::Running);
        let Some(running) = running else {
            return text(StatusCode::NOT_FOUND, format!("container not found ({container:?})"));
        };
        let either = |a: &str, b: &str| query.flag(a) || query.flag(b);
        let (stdin, stdout) = (either("input", "stdin"), either("output", "stdout"));
        let tty = query.flag("tty");
        let stderr = either("error", "stderr") && !tty;
        if !stdin && !stdout && !stderr {
            return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
        }
        let id = running.id.clone();
        let url = if attach {
            let request = api::AttachRequest { container_id: id, stdin, tty, stdout, stderr };
            self.kubelet.cri.attach_url(request).await
        } else {
            let command = query.all("command");
            if command.is_empty() {
                return text(StatusCode::BAD_REQUEST, "you must specify a command");
            }
            let request = api::ExecRequest { container_id: id, cmd: command, tty, stdin, stdout, stderr };
            self.kubelet.cri.exec_url(request).await
        };
        match url {
            Ok(url) => relay(request, &url, attach.then_some(UNREAD)).await,
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.runtime_message()),
        }
    }

    pub(super) async fn port_forward(
        &self,
        request: Request<Incoming>,
        namespace: &str,
        pod_name: &str,
        uid: Option<&str>,
        query: &Query,
    ) -> Response<Body> {
        let view = match self.find(namespace, pod_name, uid) {
            Ok(view) => view,
            Err(response) => return *response,
        };
        let Some(sandbox) = view.observed.sandboxes.first().filter(|s| s.ready) else {
            return text(StatusCode::NOT_FOUND, format!("pod {pod_name:?} has no running sandbox"));
        };
        let mut ports = Vec::new();
        for list in query.all("port") {
            for port in list.split(',') {
                match port.parse::<u16>() {
                    Ok(port) if port > 0 => ports.push(i32::from(port)),
                    _ => return text(StatusCode::BAD_REQUEST, format!("invalid port {port:?}")),
                }
            }
        }
        if forward::wanted(&request) {
            let netns = match pod::host_network(&view.pod) {
                true => Some(forward::Place::Host),
                false => self.kubelet.cri.sandbox_netns(&sandbox.id).await.map(forward::Place::Netns),
            };
            if let Some(place) = netns {
                return forward::serve(request, place, pod_name.to_owned());
            }
        }
        // A runtime that does not tell where the pod's network is forwards itself.
        match self.kubelet.cri.port_forward_url(&sandbox.id, ports).await {
            Ok(url) => relay(request, &url, None).await,
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.runtime_message()),
        }
    }
}

/// Repeats the upgrade at `url` and joins the two connections. With a limit, a client that does not read for so long is cut off.
async fn relay(mut request: Request<Incoming>, url: &str, unread: Option<Duration>) -> Response<Body> {
    let Some(protocol) = request.headers().get(UPGRADE).cloned() else {
        return text(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request");
    };
    let bad = |what: &str, error: &dyn std::fmt::Display| {
        text(StatusCode::BAD_GATEWAY, format!("the runtime's streaming server {what}: {error}"))
    };
    let uri: http::Uri = match url.parse() {
        Ok(uri) => uri,
        Err(error) => return bad("has no usable address", &error),
    };
    let host = uri.host().unwrap_or("127.0.0.1").trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(80);
    let stream = match TcpStream::connect((host.as_str(), port)).await {
        Ok(stream) => stream,
        Err(error) => return bad("cannot be reached", &error),
    };
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = match hyper::client::conn::http1::handshake(TokioIo::new(stream)).await {
        Ok(parts) => parts,
        Err(error) => return bad("does not speak HTTP", &error),
    };
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut upstream = Request::builder()
        .method(request.method())
        .uri(path)
        .header(http::header::HOST, format!("{host}:{port}"))
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, protocol);
    for header in PASSED {
        for value in request.headers().get_all(name(header)) {
            upstream = upstream.header(name(header), value);
        }
    }
    let upstream = match upstream.body(Empty::<Bytes>::new()) {
        Ok(upstream) => upstream,
        Err(error) => return bad("cannot be asked", &error),
    };
    let mut answer = match sender.send_request(upstream).await {
        Ok(answer) => answer,
        Err(error) => return bad("did not answer", &error),
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let body = answer.into_body().map_err(std::io::Error::other).boxed();
        let mut response = Response::new(body);
        *response.status_mut() = status;
        return response;
    }
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for header in [UPGRADE, CONNECTION].into_iter().chain(PASSED.iter().map(|header| name(header))) {
        for value in answer.headers().get_all(&header) {
            response.headers_mut().append(header.clone(), value.clone());
        }
    }
    let theirs = hyper::upgrade::on(&mut answer);
    let ours = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let joined = tokio::try_join!(ours, theirs);
        let Ok((ours, theirs)) = joined else { return };
        let mut ours = Impatient::new(TokioIo::new(ours), unread.unwrap_or(Duration::MAX));
        let mut theirs = TokioIo::new(theirs);
        let _ = tokio::io::copy_bidirectional_with_sizes(&mut ours, &mut theirs, 64 << 10, 64 << 10).await;
    });
    response
}
