//! A pod's volumes on this machine: made before its containers, brought up to date while it runs, removed after it.
use super::env::{Facts, field_value, resource_value};
use super::payload::{self, File, Payload, PayloadError};
use super::{files, mounts};
use crate::objects::{ObjectError, Objects};
use crate::plan::{pod, qos, quantity};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath, Pod,
    ProjectedVolumeSource, Secret, Volume, VolumeProjection,
};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

const DEFAULT_MODE: i32 = 0o644;

/// A volume that cannot be made (yet): the pod waits and an event says so.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("{kind} {name:?} not found")]
    NotFound { kind: &'static str, name: String },
    #[error("{kind} references non-existent {key_kind} key: {key}")]
    NoKey { kind: &'static str, key_kind: &'static str, key: String },
    #[error("hostPath type check failed: {path} is not {wanted}")]
    HostPath { path: String, wanted: &'static str },
    #[error("field {0} is not supported in a volume")]
    Field(String),
    #[error("volumes of this type are not there yet")]
    Unsupported,
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_path_buf();
    move |source| VolumeError::Io { what, path, source }
}

/// Which volume failed, for the event.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
pub struct MountError {
    pub volume: String,
    pub source: VolumeError,
}

/// Host paths of a pod's volumes by name.
pub type VolumePaths = BTreeMap<String, PathBuf>;

/// Where volumes lie, and where their contents come from.
#[derive(Clone)]
pub struct Volumes {
    /// The kubelet's folder; pods lie below `pods/<uid>`.
    pub root: PathBuf,
    pub objects: Objects,
}

impl Volumes {
    pub fn pod_folder(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    fn folder(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod_folder(uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
    }

    /// Makes all volumes or brings them up to date. `fresh`: read from the API, not from what was read lately.
    pub async fn mount(&self, pod: &Pod, facts: &Facts<'_>, fresh: bool) -> Result<VolumePaths, MountError> {
        let mut paths = VolumePaths::new();
        let volumes = pod::spec(pod).volumes.as_deref().unwrap_or(&[]);
        let made = volumes.iter().map(|volume| async move {
            let path = self.mount_one(pod, volume, facts, fresh).await;
            path.map_err(|source| MountError { volume: volume.name.clone(), source })
        });
        for (volume, path) in volumes.iter().zip(futures::future::join_all(made).await) {
            paths.insert(volume.name.clone(), path?);
        }
        Ok(paths)
    }

    async fn mount_one(
        &self,
        pod: &Pod,
        volume: &Volume,
        facts: &Facts<'_>,
        fresh: bool,
    ) -> Result<PathBuf, VolumeError> {
        let uid = pod::uid(pod);
        if let Some(source) = &volume.host_path {
            return host_path(source);
        }
        if let Some(source) = &volume.config_map {
            let name = source.name.as_str();
            let optional = source.optional == Some(true);
            let map = self.objects.config_map(pod::namespace(pod), name, fresh).await?;
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let payload = match map {
                Some(map) => config_map_payload(&map, source.items.as_deref(), mode, optional)?,
                None if optional => Payload::new(),
                None => return Err(VolumeError::NotFound { kind: "configmap", name: name.to_owned() }),
            };
            return self.write(pod, "configmap", &volume.name, &payload, false);
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or("");
            let optional = source.optional == Some(true);
            let secret = self.objects.secret(pod::namespace(pod), name, fresh).await?;
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let payload = match secret {
                Some(secret) => secret_payload(&secret, source.items.as_deref(), mode, optional)?,
                None if optional => Payload::new(),
                None => return Err(VolumeError::NotFound { kind: "secret", name: name.to_owned() }),
            };
            return self.write(pod, "secret", &volume.name, &payload, true);
        }
        if let Some(source) = &volume.downward_api {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let payload = downward_payload(pod, source.items.as_deref().unwrap_or(&[]), mode, facts)?;
            return self.write(pod, "downward-api", &volume.name, &payload, true);
        }
        if let Some(source) = &volume.projected {
            let payload = self.projected_payload(pod, source, facts, fresh).await?;
            return self.write(pod, "projected", &volume.name, &payload, true);
        }
        if let Some(source) = &volume.empty_dir {
            return empty_dir(pod, source, &self.folder(uid, "empty-dir", &volume.name), facts);
        }
        let value = serde_json::to_value(volume).unwrap_or_default();
        if value.as_object().is_some_and(|object| object.keys().all(|key| key == "name")) {
            let path = self.folder(uid, "empty-dir", &volume.name);
            return empty_dir(pod, &EmptyDirVolumeSource::default(), &path, facts);
        }
        Err(VolumeError::Unsupported)
    }

    fn write(
        &self,
        pod: &Pod,
        plugin: &str,
        name: &str,
        payload: &Payload,
        memory: bool,
    ) -> Result<PathBuf, VolumeError> {
        let path = self.folder(pod::uid(pod), plugin, name);
        let new = !path.exists();
        files::folder(&path, 0o777).map_err(io_error("make", &path))?;
        if memory && new {
            mounts::tmpfs(&path, None).map_err(io_error("mount tmpfs on", &path))?;
        }
        let group = fs_group(pod);
        if group.is_some() && std::fs::metadata(&path).is_ok_and(|meta| Some(meta.gid()) != group) {
            chown(&path, None, group).map_err(io_error("change the owner of", &path))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o3777))
                .map_err(io_error("change the mode of", &path))?;
        }
        let now = jiff::Timestamp::now();
        let stamp = format!("{}.{:09}", now.strftime("%Y_%m_%d_%H_%M_%S"), now.subsec_nanosecond());
        payload::write(&path, payload, group, &stamp)?;
        Ok(path)
    }

    async fn projected_payload(
        &self,
        pod: &Pod,
        source: &ProjectedVolumeSource,
        facts: &Facts<'_>,
        fresh: bool,
    ) -> Result<Payload, VolumeError> {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let mut payload = Payload::new();
        let parts =
            source.sources.iter().flatten().map(|part| self.projection(pod, part, mode, facts, fresh));
        for part in futures::future::join_all(parts).await {
            payload.extend(part?);
        }
        Ok(payload)
    }

    async fn projection(
        &self,
        pod: &Pod,
        part: &VolumeProjection,
        mode: i32,
        facts: &Facts<'_>,
        fresh: bool,
    ) -> Result<Payload, VolumeError> {
        let namespace = pod::namespace(pod);
        if let Some(map) = &part.config_map {
            let optional = map.optional == Some(true);
            return match self.objects.config_map(namespace, &map.name, fresh).await? {
                Some(found) => config_map_payload(&found, map.items.as_deref(), mode, optional),
                None if optional => Ok(Payload::new()),
                None => Err(VolumeError::NotFound { kind: "configmap", name: map.name.clone() }),
            };
        }
        if let Some(secret) = &part.secret {
            let optional = secret.optional == Some(true);
            return match self.objects.secret(namespace, &secret.name, fresh).await? {
                Some(found) => secret_payload(&found, secret.items.as_deref(), mode, optional),
                None if optional => Ok(Payload::new()),
                None => Err(VolumeError::NotFound { kind: "secret", name: secret.name.clone() }),
            };
        }
        if let Some(downward) = &part.downward_api {
            return downward_payload(pod, downward.items.as_deref().unwrap_or(&[]), mode, facts);
        }
        if let Some(token) = &part.service_account_token {
            let seconds = token.expiration_seconds.unwrap_or(3600);
            let text = self.objects.token(pod, token.audience.as_deref(), seconds).await?;
            let owner = common_user(pod);
            // A token is the pod's alone: its user's or its group's, and only then everyone's in the container.
            let mode = if owner.is_some() || fs_group(pod).is_some() { 0o600 } else { mode as u32 };
            let file = File { data: text.into_bytes(), mode, owner };
            return Ok(Payload::from([(token.path.clone(), file)]));
        }
        Err(VolumeError::Unsupported)
    }

    /// Removes all that the pod left on this machine but its logs.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        mounts::remove_folder(&self.pod_folder(uid))
    }

    /// Pods that have a folder here.
    pub fn pods(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join("pods")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

pub fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod::spec(pod).security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// The user that all containers run as, if it is one.
fn common_user(pod: &Pod) -> Option<u32> {
    let pod_user = pod::spec(pod).security_context.as_ref().and_then(|s| s.run_as_user);
    let all = pod::containers(pod).iter().chain(pod::init_containers(pod));
    let mut users = all.map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(pod_user));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

fn select(
    kind: &'static str,
    key_kind: &'static str,
    all: &BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<Payload, VolumeError> {
    let file =
        |data: &Vec<u8>, mode: i32| File { data: data.clone(), mode: mode as u32 & 0o7777, owner: None };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(all.iter().map(|(key, data)| (key.clone(), file(data, mode))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match all.get(&item.key) {
            Some(data) => {
                payload.insert(item.path.clone(), file(data, item.mode.unwrap_or(mode)));
            }
            None if optional => {}
            None => return Err(VolumeError::NoKey { kind, key_kind, key: item.key.clone() }),
        }
    }
    Ok(payload)
}

fn config_map_payload(
    map: &ConfigMap,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<Payload, VolumeError> {
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.as_bytes().to_vec()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    let all: BTreeMap<String, Vec<u8>> = text.chain(binary).collect();
    select("configmap", "config", &all, items, mode, optional)
}

fn secret_payload(
    secret: &Secret,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<Payload, VolumeError> {
    let all: BTreeMap<String, Vec<u8>> =
        secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect();
    select("references", "secret", &all, items, mode, optional)
}

fn downward_payload(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    facts: &Facts<'_>,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    for item in items {
        let text = if let Some(field) = &item.field_ref {
            field_value(pod, field, facts).ok_or_else(|| VolumeError::Field(field.field_path.clone()))?
        } else if let Some(resource) = &item.resource_field_ref {
            let unknown = || VolumeError::Field(resource.resource.clone());
            let container = pod::containers(pod).first().ok_or_else(unknown)?;
            resource_value(pod, container, resource, facts).ok_or_else(unknown)?
        } else {
            return Err(VolumeError::Field(item.path.clone()));
        };
        let mode = item.mode.unwrap_or(mode) as u32 & 0o7777;
        payload.insert(item.path.clone(), File { data: text.into_bytes(), mode, owner: None });
    }
    Ok(payload)
}

fn empty_dir(
    pod: &Pod,
    source: &EmptyDirVolumeSource,
    path: &Path,
    facts: &Facts<'_>,
) -> Result<PathBuf, VolumeError> {
    let new = !path.exists();
    if new {
        std::fs::create_dir_all(path).map_err(io_error("make", path))?;
    }
    if source.medium.as_deref() == Some("Memory") {
        let limit = source.size_limit.as_ref().and_then(|q| quantity::whole(&q.0)).filter(|v| *v > 0);
        let pod_limit = qos::pod_resources(pod).memory_limit;
        let size =
            [limit, pod_limit, Some(facts.allocatable_memory)].into_iter().flatten().filter(|v| *v > 0).min();
        mounts::tmpfs(path, size.map(|v| v as u64)).map_err(io_error("mount tmpfs on", path))?;
    }
    if new {
        let group = fs_group(pod);
        if group.is_some() {
            chown(path, None, group).map_err(io_error("change the owner of", path))?;
        }
        let mode = if group.is_some() { 0o2777 } else { 0o777 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(io_error("change the mode of", path))?;
    }
    Ok(path.to_path_buf())
}

fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&source.path);
    let kind = source.type_.as_deref().unwrap_or("");
    let wrong = |wanted| VolumeError::HostPath { path: source.path.clone(), wanted };
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            std::fs::create_dir_all(&path).map_err(io_error("make", &path))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
                .map_err(io_error("change the mode of", &path))?;
        }
        "FileOrCreate" if !path.exists() => {
            files::replace(&path, b"", 0o644).map_err(io_error("make", &path))?
        }
        _ => {}
    }
    let meta = std::fs::metadata(&path).ok();
    let is = |check: fn(&std::fs::FileType) -> bool| meta.as_ref().is_some_and(|m| check(&m.file_type()));
    match kind {
        "" => {}
        "Directory" | "DirectoryOrCreate" if is(|t| t.is_dir()) => {}
        "File" | "FileOrCreate" if is(|t| t.is_file()) => {}
        "Socket" if is(|t| t.is_socket()) => {}
        "CharDevice" if is(|t| t.is_char_device()) => {}
        "BlockDevice" if is(|t| t.is_block_device()) => {}
        "Directory" | "DirectoryOrCreate" => return Err(wrong("a directory")),
        "File" | "FileOrCreate" => return Err(wrong("a file")),
        "Socket" => return Err(wrong("a socket file")),
        "CharDevice" => return Err(wrong("a character device")),
        "BlockDevice" => return Err(wrong("a block device")),
        _ => return Err(wrong("of a known type")),
    }
    Ok(path)
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
