//! `/containerLogs/<namespace>/<pod>/<container>`.
use super::{Body, Query, Server, text};
use crate::cri::api;
use crate::host::config::log_folder;
use crate::logs::follow::{self, LogOptions};
use crate::logs::read::Stream;
use crate::plan::pod;
use crate::worker::PodView;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStatus;
use std::path::PathBuf;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Blocks on their way to a client; a slow one holds the reader back.
const QUEUE: usize = 8;

fn options(query: &Query) -> Result<LogOptions, String> {
    let number = |key: &str| -> Result<Option<i64>, String> {
        let Some(text) = query.get(key).filter(|text| !text.is_empty()) else { return Ok(None) };
        let value = text.parse::<i64>().map_err(|_| format!("{key}: {text:?} is no number"))?;
        if value < 0 { Err(format!("{key}: must be greater than or equal to 0")) } else { Ok(Some(value)) }
    };
    let since = match (number("sinceSeconds")?, query.get("sinceTime")) {
        (Some(seconds), _) => Timestamp::from_second(Timestamp::now().as_second() - seconds).ok(),
        (None, Some(time)) if !time.is_empty() => {
            Some(time.parse::<Timestamp>().map_err(|_| format!("sinceTime: {time:?} is no RFC 3339 time"))?)
        }
        _ => None,
    };
    let stream = match query.get("stream") {
        None | Some("" | "All") => None,
        Some("Stdout") => Some(Stream::Stdout),
        Some("Stderr") => Some(Stream::Stderr),
        Some(other) => return Err(format!("stream: {other:?} is none of All, Stdout, Stderr")),
    };
    Ok(LogOptions {
        follow: query.flag("follow"),
        timestamps: query.flag("timestamps"),
        tail: number("tailLines")?.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        since,
        limit: number("limitBytes")?.map(|n| n.unsigned_abs()),
        stream,
    })
}

/// Which attempt's log is meant, or why there is none (upstream's texts).
fn attempt(view: &PodView, container: &str, previous: bool) -> Result<u32, (StatusCode, String)> {
    let name = pod::name(&view.pod);
    let status = &view.status;
    let all = status
        .container_statuses
        .iter()
        .flatten()
        .chain(status.init_container_statuses.iter().flatten())
        .chain(status.ephemeral_container_statuses.iter().flatten());
    let found: Option<&ContainerStatus> = all.into_iter().find(|s| s.name == container);
    if pod::find(&view.pod, container).is_none() {
        return Err((StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {name:?}")));
    }
    let status = found.ok_or((
        StatusCode::BAD_REQUEST,
        format!("container {container:?} in pod {name:?} is not available"),
    ))?;
    let mut attempts: Vec<u32> =
        view.observed.containers.iter().filter(|c| c.name == container).map(|c| c.restart_count).collect();
    attempts.sort_unstable();
    if previous {
        let current = attempts.pop();
        let earlier = attempts.pop().or_else(|| {
            // The runtime forgot the container; its log may still lie here.
            let ended = status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
            current.filter(|current| ended && *current > 0).map(|current| current - 1)
        });
        return earlier.ok_or((
            StatusCode::BAD_REQUEST,
            format!("previous terminated container {container:?} in pod {name:?} not found"),
        ));
    }
    match (attempts.pop(), status.state.as_ref().and_then(|s| s.waiting.as_ref())) {
        (Some(attempt), _) => Ok(attempt),
        (None, Some(waiting)) => {
            let reason = waiting.reason.as_deref().unwrap_or("");
            let message = if matches!(reason, "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName") {
                format!(
                    "container {container:?} in pod {name:?} is waiting to start: trying and failing to pull image"
                )
            } else if reason.is_empty() || reason == "ContainerCreating" {
                format!("container {container:?} in pod {name:?} is waiting to start: ContainerCreating")
            } else {
                format!("container {container:?} in pod {name:?} is waiting to start: {reason}")
            };
            Err((StatusCode::BAD_REQUEST, message))
        }
        (None, None) => Err((
            StatusCode::BAD_REQUEST,
            format!("container {container:?} in pod {name:?} is not available"),
        )),
    }
}

impl Server {
    pub(super) async fn container_logs(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        query: &Query,
    ) -> Response<Body> {
        let options = match options(query) {
            Ok(options) => options,
            Err(message) => return text(StatusCode::BAD_REQUEST, message),
        };
        let Some(view) = self.workers.by_name(namespace, name) else {
            return text(StatusCode::NOT_FOUND, format!("pod {name:?} not found in namespace {namespace:?}"));
        };
        let attempt = match attempt(&view, container, query.flag("previous")) {
            Ok(attempt) => attempt,
            Err((status, message)) => return text(status, message),
        };
        let folder = log_folder(&self.kubelet.config.pod_logs, &view.pod);
        let path = folder.join(container).join(format!("{attempt}.log"));
        if tokio::fs::metadata(&path).await.is_err() {
            let message =
                format!("the log of container {container:?} in pod {name:?} is not there (any more)");
            return text(StatusCode::NOT_FOUND, message);
        }
        let id = view.observed.containers.iter().find(|c| c.name == container && c.restart_count == attempt);
        self.stream_log(path, options, id.map(|c| c.id.clone()))
    }

    fn stream_log(&self, path: PathBuf, options: LogOptions, id: Option<String>) -> Response<Body> {
        let (sender, receiver) = mpsc::channel::<Bytes>(QUEUE);
        let cri = self.kubelet.cri.clone();
        tokio::spawn(async move {
            let mut looks = 0u32;
            let ended = async move || {
                // The file is looked at more often than the runtime is asked.
                looks = looks.wrapping_add(1);
                let Some(id) = id.as_deref() else { return true };
                if looks % 5 != 1 {
                    return false;
                }
                match cri.container_status(id).await {
                    Ok(Some(status)) => status.state != api::ContainerState::ContainerRunning as i32,
                    Ok(None) => true,
                    // A runtime that is away says nothing about the container.
                    Err(_) => false,
                }
            };
            if let Err(error) = follow::send(path, options, sender, ended).await {
                tracing::debug!(error = %error, "log stream ended early");
            }
        });
        let frames = ReceiverStream::new(receiver).map(|data| Ok(Frame::data(data)));
        let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
        let kind = http::HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        response
    }
}
