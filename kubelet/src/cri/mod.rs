//! CRI v1 over the runtime's unix socket: thin typed calls with a deadline each, and the conversion of what the
//! runtime says into [`crate::plan::observed`]. Nothing here decides anything.
mod convert;
pub mod events;
mod leases;
pub mod network_notes;

pub use convert::{CONTAINER_NAME, Ending, POD_NAME, POD_NAMESPACE, POD_UID, container_annotations};
pub use keelson_proto::cri as api;

use crate::plan::observed::{ObservedContainer, ObservedSandbox};
use api::image_service_client::ImageServiceClient;
use api::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint, Uri};

/// Calls that only read.
const READ: Duration = Duration::from_secs(30);
/// Calls that change something.
const WRITE: Duration = Duration::from_secs(240);
/// An image pull; the runtime gives up by itself when nothing comes.
const PULL: Duration = Duration::from_secs(3600);
const MAX_MESSAGE: usize = 16 << 20;

/// A call to the runtime that failed.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    #[error("the runtime socket {} cannot be used: {source}", path.display())]
    Endpoint { path: PathBuf, source: tonic::transport::Error },
    #[error("{call} {subject}: {}", status.message())]
    Call { call: &'static str, subject: String, status: Box<tonic::Status> },
    #[error("{call} {subject}: no answer within {} s", limit.as_secs())]
    Timeout { call: &'static str, subject: String, limit: Duration },
    #[error("{call} {subject}: the answer lacks {missing}")]
    Incomplete { call: &'static str, subject: String, missing: &'static str },
}

impl CriError {
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            CriError::Call { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.code() == Some(tonic::Code::NotFound)
    }

    /// The runtime is not there (it restarts, say).
    pub fn is_unavailable(&self) -> bool {
        matches!(self.code(), Some(tonic::Code::Unavailable)) || matches!(self, CriError::Timeout { .. })
    }

    /// The runtime's own words.
    pub fn runtime_message(&self) -> String {
        match self {
            CriError::Call { status, .. } => status.message().to_owned(),
            other => other.to_string(),
        }
    }
}

/// A connection to the runtime; cheap to clone, connects again by itself when the runtime restarts.
#[derive(Clone)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    channel: Channel,
}

async fn timed<T>(
    call: &'static str,
    subject: &str,
    limit: Duration,
    future: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, CriError> {
    match tokio::time::timeout(limit, future).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            Err(CriError::Call { call, subject: subject.to_owned(), status: Box::new(status) })
        }
        Err(_) => Err(CriError::Timeout { call, subject: subject.to_owned(), limit }),
    }
}

/// A channel to a unix socket that connects when first used and again after each loss.
pub fn unix_channel(socket: &Path) -> Result<Channel, CriError> {
    let path = socket.to_path_buf();
    let endpoint = Endpoint::try_from("http://runtime.invalid")
        .map_err(|source| CriError::Endpoint { path: path.clone(), source })?;
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    })))
}

impl Cri {
    /// Prepares a client for the socket; the first call connects.
    pub fn new(socket: &Path) -> Result<Self, CriError> {
        let channel = unix_channel(socket)?;
        Ok(Cri {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            channel,
        })
    }

    /// The connection, for the event streams.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub async fn version(&self) -> Result<api::VersionResponse, CriError> {
        let request = api::VersionRequest { version: "v1".into() };
        timed("Version", "", READ, self.runtime.clone().version(request)).await
    }

    pub async fn status(&self) -> Result<api::RuntimeStatus, CriError> {
        let request = api::StatusRequest { verbose: false };
        let response = timed("Status", "", READ, self.runtime.clone().status(request)).await?;
        response.status.ok_or(CriError::Incomplete {
            call: "Status",
            subject: String::new(),
            missing: "status",
        })
    }

    /// What the runtime says it can do.
    pub async fn features(&self) -> Result<api::RuntimeFeatures, CriError> {
        let request = api::StatusRequest { verbose: false };
        let response = timed("Status", "", READ, self.runtime.clone().status(request)).await?;
        Ok(response.features.unwrap_or_default())
    }

    /// The image the runtime makes sandboxes from, where it tells.
    pub async fn sandbox_image(&self) -> Option<String> {
        let request = api::StatusRequest { verbose: true };
        let info = timed("Status", "", READ, self.runtime.clone().status(request)).await.ok()?.info;
        let config: serde_json::Value = serde_json::from_str(info.get("config")?).ok()?;
        Some(config.get("sandboxImage")?.as_str()?.to_owned())
    }

    /// Tells the runtime the pod range, where it wants to know.
    pub async fn update_pod_cidr(&self, cidr: &str) -> Result<(), CriError> {
        let network_config = Some(api::NetworkConfig { pod_cidr: cidr.to_owned() });
        let runtime_config = Some(api::RuntimeConfig { network_config });
        let request = api::UpdateRuntimeConfigRequest { runtime_config };
        timed("UpdateRuntimeConfig", cidr, READ, self.runtime.clone().update_runtime_config(request)).await?;
        Ok(())
    }

    pub async fn run_sandbox(
        &self,
        config: api::PodSandboxConfig,
        handler: &str,
    ) -> Result<String, CriError> {
        let subject =
            config.metadata.as_ref().map_or(String::new(), |m| format!("{}/{}", m.namespace, m.name));
        let request = api::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        let response =
            timed("RunPodSandbox", &subject, WRITE, self.runtime.clone().run_pod_sandbox(request)).await?;
        Ok(response.pod_sandbox_id)
    }

    pub async fn stop_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = api::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        ends(id, || {
            let mut runtime = self.runtime.clone();
            let request = request.clone();
            timed("StopPodSandbox", id, WRITE, async move { runtime.stop_pod_sandbox(request).await })
        })
        .await
    }

    /// One that still runs is stopped.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = api::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        ends(id, || {
            let mut runtime = self.runtime.clone();
            let request = request.clone();
            timed("RemovePodSandbox", id, WRITE, async move { runtime.remove_pod_sandbox(request).await })
        })
        .await
    }

    /// `None` when the runtime does not know it.
    pub async fn sandbox_status(&self, id: &str) -> Result<Option<ObservedSandbox>, CriError> {
        let request = api::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        match timed("PodSandboxStatus", id, READ, self.runtime.clone().pod_sandbox_status(request)).await {
            Ok(response) => Ok(response.status.map(convert::sandbox)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The sandbox's network namespace as a path, where the runtime tells (it tells in the specification it ran with).
    pub async fn sandbox_netns(&self, id: &str) -> Option<std::path::PathBuf> {
        let request = api::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let answer =
            timed("PodSandboxStatus", id, READ, self.runtime.clone().pod_sandbox_status(request)).await;
        let info: serde_json::Value = serde_json::from_str(answer.ok()?.info.get("info")?).ok()?;
        let namespaces = info.pointer("/runtimeSpec/linux/namespaces")?.as_array()?;
        let network = namespaces.iter().find(|namespace| namespace["type"] == "network")?;
        Some(network["path"].as_str()?.into())
    }

    /// All sandboxes, or those of one pod.
    pub async fn list_sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<api::PodSandbox>, CriError> {
        let filter =
            pod_uid.map(|uid| api::PodSandboxFilter { label_selector: by_uid(uid), ..Default::default() });
        let request = api::ListPodSandboxRequest { filter };
        let subject = pod_uid.unwrap_or("");
        Ok(timed("ListPodSandbox", subject, READ, self.runtime.clone().list_pod_sandbox(request))
            .await?
            .items)
    }

    pub async fn list_containers(&self, pod_uid: Option<&str>) -> Result<Vec<api::Container>, CriError> {
        let filter =
            pod_uid.map(|uid| api::ContainerFilter { label_selector: by_uid(uid), ..Default::default() });
        let request = api::ListContainersRequest { filter };
        let subject = pod_uid.unwrap_or("");
        Ok(timed("ListContainers", subject, READ, self.runtime.clone().list_containers(request))
            .await?
            .containers)
    }

    /// `None` when the runtime does not know it. The message is the runtime's; termination messages are read later.
    pub async fn container_status(&self, id: &str) -> Result<Option<api::ContainerStatus>, CriError> {
        let request = api::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        match timed("ContainerStatus", id, READ, self.runtime.clone().container_status(request)).await {
            Ok(response) => Ok(response.status),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn create_container(
        &self,
        sandbox: &str,
        config: api::ContainerConfig,
        sandbox_config: api::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let subject = config.metadata.as_ref().map_or(String::new(), |m| m.name.clone());
        let request = api::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(timed("CreateContainer", &subject, WRITE, self.runtime.clone().create_container(request))
            .await?
            .container_id)
    }

    pub async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let request = api::StartContainerRequest { container_id: id.to_owned() };
        timed("StartContainer", id, WRITE, self.runtime.clone().start_container(request)).await?;
        Ok(())
    }

    /// Sends the stop signal, and SIGKILL after `grace`.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = api::StopContainerRequest { container_id: id.to_owned(), timeout };
        let limit = WRITE.saturating_add(grace);
        ignore_missing(timed("StopContainer", id, limit, self.runtime.clone().stop_container(request)).await)
    }

    pub async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let request = api::RemoveContainerRequest { container_id: id.to_owned() };
        ignore_missing(
            timed("RemoveContainer", id, WRITE, self.runtime.clone().remove_container(request)).await,
        )
    }

    pub async fn reopen_log(&self, id: &str) -> Result<(), CriError> {
        let request = api::ReopenContainerLogRequest { container_id: id.to_owned() };
        timed("ReopenContainerLog", id, READ, self.runtime.clone().reopen_container_log(request)).await?;
        Ok(())
    }

    /// Runs a command in a container and waits for its end. A command that takes longer is ended by the runtime.
    pub async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        limit: Duration,
    ) -> Result<api::ExecSyncResponse, CriError> {
        let timeout = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        let request = api::ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout };
        timed("ExecSync", id, limit.saturating_add(READ), self.runtime.clone().exec_sync(request)).await
    }

    pub async fn exec_url(&self, request: api::ExecRequest) -> Result<String, CriError> {
        let subject = request.container_id.clone();
        Ok(timed("Exec", &subject, READ, self.runtime.clone().exec(request)).await?.url)
    }

    pub async fn attach_url(&self, request: api::AttachRequest) -> Result<String, CriError> {
        let subject = request.container_id.clone();
        Ok(timed("Attach", &subject, READ, self.runtime.clone().attach(request)).await?.url)
    }

    pub async fn port_forward_url(&self, sandbox: &str, ports: Vec<i32>) -> Result<String, CriError> {
        let request = api::PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: ports };
        Ok(timed("PortForward", sandbox, READ, self.runtime.clone().port_forward(request)).await?.url)
    }

    pub async fn container_stats(&self) -> Result<Vec<api::ContainerStats>, CriError> {
        let request = api::ListContainerStatsRequest { filter: None };
        Ok(timed("ListContainerStats", "", READ, self.runtime.clone().list_container_stats(request))
            .await?
            .stats)
    }

    /// `None` when the image is not there.
    pub async fn image_status(&self, image: &str) -> Result<Option<api::Image>, CriError> {
        let request = api::ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        Ok(timed("ImageStatus", image, READ, self.images.clone().image_status(request)).await?.image)
    }

    /// Pulls an image and answers its reference.
    pub async fn pull_image(&self, image: &str, auth: Option<api::AuthConfig>) -> Result<String, CriError> {
        let request = api::PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config: None };
        Ok(timed("PullImage", image, PULL, self.images.clone().pull_image(request)).await?.image_ref)
    }

    pub async fn list_images(&self) -> Result<Vec<api::Image>, CriError> {
        let request = api::ListImagesRequest { filter: None };
        Ok(timed("ListImages", "", READ, self.images.clone().list_images(request)).await?.images)
    }

    pub async fn remove_image(&self, image: &str) -> Result<(), CriError> {
        let request = api::RemoveImageRequest { image: Some(image_spec(image)) };
        ignore_missing(timed("RemoveImage", image, WRITE, self.images.clone().remove_image(request)).await)
    }

    pub async fn image_filesystems(&self) -> Result<Vec<api::FilesystemUsage>, CriError> {
        let request = api::ImageFsInfoRequest {};
        let response = timed("ImageFsInfo", "", READ, self.images.clone().image_fs_info(request)).await?;
        Ok(response.image_filesystems)
    }

    /// One container with its termination message; `None` when the runtime does not know it.
    pub async fn observe_container(
        &self,
        id: &str,
        sandbox: &str,
    ) -> Result<Option<ObservedContainer>, CriError> {
        let Some(mut status) = self.container_status(id).await? else { return Ok(None) };
        if status.state == api::ContainerState::ContainerExited as i32 {
            let own = crate::host::termination::message(&status);
            if !own.is_empty() {
                status.message = own;
            }
        }
        Ok(Some(convert::container(status, sandbox.to_owned())))
    }

    /// Looks a pod's containers up whole: every sandbox and container with its status. `known` holds what was seen
    /// before: an ended container never changes and a ready sandbox keeps its address, so they are not asked again.
    pub async fn observe(&self, uid: &str, known: &Known) -> Result<Observation, CriError> {
        let (sandboxes, containers) =
            tokio::try_join!(self.list_sandboxes(Some(uid)), self.list_containers(Some(uid)))?;
        let mut seen = Observation::default();
        for item in sandboxes {
            let ready = item.state == api::PodSandboxState::SandboxReady as i32;
            let cached = known.sandboxes.get(&item.id).filter(|s| s.ready == ready && !s.ips.is_empty());
            match cached {
                Some(cached) => seen.pod.sandboxes.push(cached.clone()),
                None => seen.pod.sandboxes.extend(self.sandbox_status(&item.id).await?),
            }
        }
        for item in containers {
            let state = convert::state(item.state);
            let cached = known.containers.get(&item.id).filter(|c| c.state == state);
            match cached {
                Some(cached) => seen.pod.containers.push(cached.clone()),
                None => {
                    seen.pod.containers.extend(self.observe_container(&item.id, &item.pod_sandbox_id).await?)
                }
            }
        }
        seen.pod = seen.pod.sorted();
        Ok(seen)
    }
}

/// What an observation found.
#[derive(Default)]
pub struct Observation {
    pub pod: crate::plan::observed::ObservedPod,
}

/// What was already learnt of a pod's sandboxes and containers, by id.
#[derive(Default)]
pub struct Known {
    pub sandboxes: HashMap<String, ObservedSandbox>,
    pub containers: HashMap<String, ObservedContainer>,
}

impl Known {
    pub fn of(pod: &crate::plan::observed::ObservedPod) -> Self {
        Known {
            sandboxes: pod.sandboxes.iter().map(|s| (s.id.clone(), s.clone())).collect(),
            containers: pod.containers.iter().map(|c| (c.id.clone(), c.clone())).collect(),
        }
    }
}

fn by_uid(uid: &str) -> HashMap<String, String> {
    HashMap::from([(POD_UID.to_owned(), uid.to_owned())])
}

fn image_spec(image: &str) -> api::ImageSpec {
    api::ImageSpec { image: image.to_owned(), ..Default::default() }
}

/// Ends a sandbox by `call`; one that the runtime does not know has ended. Where what is kept of its network is in the way
/// ([`network_notes`]), that goes, and it is called once more.
async fn ends<T, F>(id: &str, call: impl Fn() -> F) -> Result<(), CriError>
where
    F: Future<Output = Result<T, CriError>>,
{
    match ignore_missing(call().await) {
        Err(CriError::Call { status, .. })
            if network_notes::forget_broken(Path::new(network_notes::FOLDER), id) > 0 =>
        {
            tracing::warn!(
                sandbox = id,
                error = status.message(),
                "the note of its network was broken, ended without it"
            );
            ignore_missing(call().await)
        }
        outcome => outcome,
    }
}

fn ignore_missing<T>(result: Result<T, CriError>) -> Result<(), CriError> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}
