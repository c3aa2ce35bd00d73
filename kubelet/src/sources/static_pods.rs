//! Static pods: manifests in a folder. A manifest that cannot be read keeps what it last was, with a warning.
use crate::plan::hash::hex;
use crate::plan::pod;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const MAX_SIZE: u64 = 1 << 20;

/// Why a manifest is not used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is larger than {MAX_SIZE} bytes", .0.display())]
    TooLarge(PathBuf),
    #[error("{} is no Pod: {reason}", path.display())]
    Parse { path: PathBuf, reason: String },
    #[error("{} refers to the API ({what}), which a static pod may not", path.display())]
    RefersToApi { path: PathBuf, what: &'static str },
}

type Stamp = (Option<SystemTime>, u64);

/// The folder, and what it last held.
pub struct StaticPods {
    folder: PathBuf,
    files: BTreeMap<PathBuf, (Stamp, Option<Pod>)>,
    read_once: bool,
}

impl StaticPods {
    pub fn new(folder: PathBuf) -> Self {
        StaticPods { folder, files: BTreeMap::new(), read_once: false }
    }

    /// All pods, when anything changed since the last call; `None` when nothing did.
    pub fn read(&mut self, node: &str) -> Option<Vec<Pod>> {
        let mut seen = BTreeMap::new();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let Ok(meta) = std::fs::metadata(&path) else { continue };
            if meta.is_file() && !hidden {
                seen.insert(path, (meta.modified().ok(), meta.len()));
            }
        }
        let same = self.read_once
            && seen.len() == self.files.len()
            && seen.iter().all(|(path, stamp)| self.files.get(path).is_some_and(|(old, _)| old == stamp));
        if same {
            return None;
        }
        self.read_once = true;
        let mut files = BTreeMap::new();
        for (path, stamp) in seen {
            let before = self.files.remove(&path);
            let pod = match before {
                Some((old, pod)) if old == stamp => pod,
                before => match load(&path, node) {
                    Ok(pod) => Some(pod),
                    Err(error) => {
                        tracing::warn!(error = %error, "static pod manifest not used");
                        before.and_then(|(_, pod)| pod)
                    }
                },
            };
            files.insert(path, (stamp, pod));
        }
        self.files = files;
        Some(self.files.values().filter_map(|(_, pod)| pod.clone()).collect())
    }
}

fn load(path: &Path, node: &str) -> Result<Pod, ManifestError> {
    let read = |source| ManifestError::Read { path: path.to_path_buf(), source };
    let size = std::fs::metadata(path).map_err(read)?.len();
    if size > MAX_SIZE {
        return Err(ManifestError::TooLarge(path.to_path_buf()));
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    parse(&text, path, node)
}

/// Reads a manifest (YAML or JSON) and makes it this node's static pod.
pub fn parse(text: &str, path: &Path, node: &str) -> Result<Pod, ManifestError> {
    let wrong = |reason: String| ManifestError::Parse { path: path.to_path_buf(), reason };
    let manifest: serde_json::Value =
        serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
    // As JSON: a decoder of pods from YAML would be megabytes of code beside the one that reads the API's answers. Where in
    // that JSON it failed says nothing of the file.
    let mut pod: Pod = serde_json::from_str(&manifest.to_string()).map_err(|error| {
        let text = error.to_string();
        wrong(text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text).to_owned())
    })?;
    let name = pod.metadata.name.clone().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| wrong("metadata.name is missing".into()))?;
    if pod.spec.as_ref().is_none_or(|spec| spec.containers.is_empty()) {
        return Err(wrong("spec.containers is empty".into()));
    }
    if let Some(what) = refers_to_api(&pod) {
        return Err(ManifestError::RefersToApi { path: path.to_path_buf(), what });
    }
    let mut hasher = Sha256::new();
    hasher.update(node.as_bytes());
    hasher.update(path.as_os_str().as_encoded_bytes());
    hasher.update(text.as_bytes());
    let hash = hex(&hasher.finalize()[..16]);
    pod.metadata.uid = Some(pod.metadata.uid.filter(|uid| !uid.is_empty()).unwrap_or_else(|| hash.clone()));
    pod.metadata.name = Some(format!("{name}-{}", node.to_lowercase()));
    pod.metadata.namespace.get_or_insert_with(|| "default".into());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(pod::CONFIG_SOURCE.to_owned(), "file".into());
    annotations.insert(pod::CONFIG_HASH.to_owned(), hash);
    annotations.insert(pod::CONFIG_SEEN.to_owned(), jiff::Timestamp::now().to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    spec.service_account_name = None;
    let everything = Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Toleration::default()
    };
    spec.tolerations.get_or_insert_default().push(everything);
    pod.status = None;
    Ok(pod)
}

/// A static pod runs without the API server; upstream refuses those that need it.
fn refers_to_api(pod: &Pod) -> Option<&'static str> {
    let spec = pod::spec(pod);
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Some("serviceAccountName");
    }
    for volume in spec.volumes.iter().flatten() {
        if volume.config_map.is_some() || volume.secret.is_some() {
            return Some("a configMap or secret volume");
        }
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        for source in sources {
            if source.config_map.is_some()
                || source.secret.is_some()
                || source.service_account_token.is_some()
            {
                return Some("a projected volume");
            }
        }
    }
    for container in pod::containers(pod).iter().chain(pod::init_containers(pod)) {
        let (config_maps, secrets) = crate::host::env::references(container);
        if !config_maps.is_empty() || !secrets.is_empty() {
            return Some("a variable from a ConfigMap or Secret");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n";

    #[test]
    fn a_manifest_becomes_this_nodes_pod() {
        let pod = parse(MANIFEST, Path::new("/m/web.yaml"), "Node-1").unwrap();
        assert_eq!(pod::full_name(&pod), "default/web-node-1");
        assert!(pod::is_static(&pod) && !pod::is_mirror(&pod));
        assert_eq!(pod::uid(&pod).len(), 32);
        let other =
            parse(&MANIFEST.replace("image: i", "image: j"), Path::new("/m/web.yaml"), "Node-1").unwrap();
        assert_ne!(pod::uid(&pod), pod::uid(&other));
    }

    #[test]
    fn what_needs_the_api_is_refused() {
        let with = |extra: &str| {
            let text = MANIFEST.replace("containers:", &format!("{extra}, containers:"));
            parse(&text, Path::new("x"), "n").unwrap_err().to_string()
        };
        assert!(with("serviceAccountName: x").contains("serviceAccountName"));
        assert!(with("volumes: [{name: v, secret: {secretName: s}}]").contains("secret volume"));
        assert!(parse("kind: [", Path::new("x"), "n").is_err());
        assert!(
            parse(
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}",
                Path::new("x"),
                "n"
            )
            .is_err()
        );
    }

    #[test]
    fn changes_of_the_folder_are_seen_and_a_broken_file_keeps_its_pod() {
        let dir = tempfile::tempdir().unwrap();
        let mut pods = StaticPods::new(dir.path().to_path_buf());
        assert_eq!(pods.read("n").unwrap().len(), 0);
        assert!(pods.read("n").is_none());
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, MANIFEST).unwrap();
        assert_eq!(pods.read("n").unwrap().len(), 1);
        std::fs::write(&file, "not a pod at all").unwrap();
        assert_eq!(pods.read("n").unwrap().len(), 1, "the last good one stays");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(pods.read("n").unwrap().len(), 0);
    }
}
