//! Images: present or pulled in the background, with credentials from the pod's secrets and back-off after failures.
use crate::cri::{Cri, CriError, api};
use crate::events::{Events, Severity};
use crate::host::security::ImageUser;
use crate::objects::Objects;
use crate::plan::backoff::Backoff;
use crate::plan::pod;
use crate::unflushed::Unflushed;
use base64::Engine as _;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

/// An image that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// What containers are created from.
    pub id: String,
    pub user: ImageUser,
}

/// What is known of the image a container wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageState {
    Present(ImageInfo),
    /// On its way: the pod is woken when it is there.
    Pulling,
    /// Not to be had now; the reason is what the container's status shows.
    Failed {
        reason: &'static str,
        message: String,
        retry: Option<Duration>,
    },
}

enum Pull {
    Running(Vec<Arc<Notify>>),
    /// Ended; the pod that asked takes the result once.
    Done(Result<ImageInfo, (&'static str, String)>),
}

/// A pull belongs to one pod and image: another pod's credentials are another matter.
type Key = (String, String);

struct Inner {
    cri: Cri,
    objects: Objects,
    events: Events,
    pulls: Mutex<HashMap<Key, Pull>>,
    backoff: Mutex<Backoff>,
    parallel: Semaphore,
    unflushed: Arc<Unflushed>,
    /// When each image was last used by a container that was started here (for collection).
    used: Mutex<HashMap<String, Instant>>,
}

/// Looks after images; cheap to clone.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn now_nanos() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

impl Images {
    /// `unflushed` notes what is pulled and not on the disk yet.
    pub fn new(
        cri: Cri,
        objects: Objects,
        events: Events,
        parallel: usize,
        unflushed: Arc<Unflushed>,
    ) -> Self {
        let backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        Images {
            inner: Arc::new(Inner {
                cri,
                objects,
                events,
                pulls: Mutex::default(),
                backoff: Mutex::new(backoff),
                parallel: Semaphore::new(parallel.max(1)),
                unflushed,
                used: Mutex::default(),
            }),
        }
    }

    /// Answers at once where the image stands; starts a pull where one is due, and `wake` is told when it ends.
    pub async fn ensure(&self, pod: &Arc<Pod>, container: &Container, wake: &Arc<Notify>) -> ImageState {
        let image = container.image.clone().unwrap_or_default();
        let key = (pod::uid(pod).to_owned(), image.clone());
        if let Some(state) = self.running_pull(&key, wake) {
            return state;
        }
        let policy = policy(container);
        if policy != "Always" {
            match self.present(&image).await {
                Ok(Some(info)) => {
                    let message = format!("Container image {image:?} already present on machine");
                    self.inner.events.container(pod, &container.name, Severity::Normal, "Pulled", message);
                    return ImageState::Present(info);
                }
                Ok(None) => {}
                Err(error) => {
                    let message = format!("Failed to inspect image {image:?}: {}", error.runtime_message());
                    return failed("ImageInspectError", message, Some(Duration::from_secs(5)));
                }
            }
        }
        if policy == "Never" {
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            self.inner.events.container(
                pod,
                &container.name,
                Severity::Warning,
                "ErrImageNeverPull",
                &*message,
            );
            return failed("ErrImageNeverPull", message, None);
        }
        let backoff_key = format!("{}/{image}", key.0);
        let waiting = lock(&self.inner.backoff).remaining_since_update(&backoff_key, now_nanos());
        if let Some(left) = waiting {
            let message = format!("Back-off pulling image {image:?}");
            self.inner.events.container(pod, &container.name, Severity::Normal, "BackOff", &*message);
            return failed("ImagePullBackOff", message, Some(left));
        }
        self.start_pull(pod, container, key, wake);
        ImageState::Pulling
    }

    fn running_pull(&self, key: &Key, wake: &Arc<Notify>) -> Option<ImageState> {
        let mut pulls = lock(&self.inner.pulls);
        match pulls.get_mut(key)? {
            Pull::Running(waiters) => {
                if !waiters.iter().any(|w| Arc::ptr_eq(w, wake)) {
                    waiters.push(wake.clone());
                }
                Some(ImageState::Pulling)
            }
            Pull::Done(_) => match pulls.remove(key) {
                Some(Pull::Done(Ok(info))) => Some(ImageState::Present(info)),
                Some(Pull::Done(Err((reason, message)))) => {
                    let left = lock(&self.inner.backoff)
                        .remaining_since_update(&format!("{}/{}", key.0, key.1), now_nanos());
                    Some(failed(reason, message, left))
                }
                _ => None,
            },
        }
    }

    fn start_pull(&self, pod: &Arc<Pod>, container: &Container, key: Key, wake: &Arc<Notify>) {
        lock(&self.inner.pulls).insert(key.clone(), Pull::Running(vec![wake.clone()]));
        let (images, pod, name) = (self.clone(), pod.clone(), container.name.clone());
        tokio::spawn(async move {
            let image = key.1.clone();
            let events = &images.inner.events;
            events.container(&pod, &name, Severity::Normal, "Pulling", format!("Pulling image {image:?}"));
            let begun = Instant::now();
            let result = images.pull_noted(&pod, &image).await;
            let backoff_key = format!("{}/{image}", key.0);
            let done = match result {
                Ok(info) => {
                    lock(&images.inner.backoff).reset(&backoff_key);
                    let took = begun.elapsed().as_millis();
                    let message = format!("Successfully pulled image {image:?} in {took}ms");
                    events.container(&pod, &name, Severity::Normal, "Pulled", message);
                    Ok(info)
                }
                Err(text) => {
                    let now = now_nanos();
                    lock(&images.inner.backoff).next(&backoff_key, now, now);
                    let reason = if text.contains("invalid reference format")
                        || text.contains("failed to parse image")
                    {
                        "InvalidImageName"
                    } else {
                        "ErrImagePull"
                    };
                    let message = format!("Failed to pull image {image:?}: {text}");
                    events.container(&pod, &name, Severity::Warning, "Failed", message);
                    events.container(&pod, &name, Severity::Warning, "Failed", format!("Error: {reason}"));
                    Err((reason, text))
                }
            };
            let mut pulls = lock(&images.inner.pulls);
            if let Some(Pull::Running(waiters)) = pulls.insert(key, Pull::Done(done)) {
                waiters.iter().for_each(|waiter| waiter.notify_one());
            }
        });
    }

    /// A pull that a power cut may fall into: noted before, flushed after it while the pod goes on. The runtime's words, where it
    /// failed.
    async fn pull_noted(&self, pod: &Pod, image: &str) -> Result<ImageInfo, String> {
        let before = self.inner.cri.image_status(image).await.ok().flatten().map(|image| image.id);
        self.inner.unflushed.begin(image).await.map_err(|error| chain(&error))?;
        let result = self.pull(pod, image).await.map_err(|error| error.runtime_message());
        // What was there already brings nothing new.
        let same = matches!(&result, Ok(info) if before.as_ref() == Some(&info.id));
        let (inner, name) = (self.inner.clone(), image.to_owned());
        tokio::spawn(async move {
            if let Err(error) = inner.unflushed.end(&inner.cri, &name, !same).await {
                tracing::warn!(image = name, error = chain(&error), "a pulled image is not told as flushed");
            }
        });
        result
    }

    async fn pull(&self, pod: &Pod, image: &str) -> Result<ImageInfo, CriError> {
        let credentials = self.credentials(pod, image).await;
        let _permit = self.inner.parallel.acquire().await;
        let mut last = None;
        // Every matching credential is tried, and no credential at all when there is none.
        let attempts: Vec<Option<api::AuthConfig>> =
            if credentials.is_empty() { vec![None] } else { credentials.into_iter().map(Some).collect() };
        for auth in attempts {
            match self.inner.cri.pull_image(image, auth).await {
                Ok(reference) => {
                    let found = self.present(image).await?;
                    return Ok(found.unwrap_or(ImageInfo { id: reference, user: ImageUser::default() }));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(CriError::Incomplete {
            call: "PullImage",
            subject: image.to_owned(),
            missing: "an attempt",
        }))
    }

    async fn present(&self, image: &str) -> Result<Option<ImageInfo>, CriError> {
        let found = self.inner.cri.image_status(image).await?;
        Ok(found.map(|image| {
            lock(&self.inner.used).insert(image.id.clone(), Instant::now());
            ImageInfo {
                user: ImageUser { uid: image.uid.map(|uid| uid.value), username: image.username },
                id: image.id,
            }
        }))
    }

    /// Credentials for the image's registry from the pod's pull secrets, most specific first.
    async fn credentials(&self, pod: &Pod, image: &str) -> Vec<api::AuthConfig> {
        let mut found = Vec::new();
        for reference in pod::spec(pod).image_pull_secrets.iter().flatten() {
            match self.inner.objects.secret(pod::namespace(pod), &reference.name, true).await {
                Ok(Some(secret)) => found.extend(matching(&secret, image)),
                Ok(None) => {
                    let message = format!(
                        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                        reference.name
                    );
                    self.inner.events.pod(pod, Severity::Warning, "FailedToRetrieveImagePullSecret", message);
                }
                Err(error) => {
                    tracing::warn!(error = %error, pod = pod::name(pod), "image pull secret not read")
                }
            }
        }
        found.sort_by_key(|(specific, _)| std::cmp::Reverse(*specific));
        found.into_iter().map(|(_, auth)| auth).collect()
    }

    /// When each image was last used, by id.
    pub fn last_used(&self) -> HashMap<String, Instant> {
        lock(&self.inner.used).clone()
    }

    pub fn mark_used(&self, id: &str) {
        lock(&self.inner.used).insert(id.to_owned(), Instant::now());
    }

    /// Forgets what belongs to a pod that is gone.
    pub fn forget_pod(&self, uid: &str) {
        lock(&self.inner.pulls).retain(|key, pull| key.0 != uid || matches!(pull, Pull::Running(_)));
    }

    pub fn forget_image(&self, id: &str) {
        lock(&self.inner.used).remove(id);
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn failed(reason: &'static str, message: String, retry: Option<Duration>) -> ImageState {
    ImageState::Failed { reason, message, retry }
}

/// The pull policy: given, else Always for `:latest` or no tag.
pub fn policy(container: &Container) -> &str {
    if let Some(policy) = container.image_pull_policy.as_deref().filter(|p| !p.is_empty()) {
        return policy;
    }
    let image = container.image.as_deref().unwrap_or("");
    let last = image.rsplit('/').next().unwrap_or("");
    let latest = !image.contains('@') && last.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest");
    if latest { "Always" } else { "IfNotPresent" }
}

/// Registry (with path) an image comes from, with docker.io for short names.
fn registry_path(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let first = name.split('/').next().unwrap_or("");
    let named = name.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    if named { name.to_owned() } else { format!("index.docker.io/{name}") }
}

fn matching(secret: &Secret, image: &str) -> Vec<(usize, api::AuthConfig)> {
    let data = secret.data.as_ref();
    let file = |key: &str| data.and_then(|d| d.get(key)).and_then(|b| serde_json::from_slice(&b.0).ok());
    let auths: Option<serde_json::Value> = match secret.type_.as_deref() {
        Some("kubernetes.io/dockercfg") => file(".dockercfg"),
        _ => file(".dockerconfigjson").and_then(|v: serde_json::Value| v.get("auths").cloned()),
    };
    let path = registry_path(image);
    let Some(serde_json::Value::Object(auths)) = auths else { return vec![] };
    let entries = auths.into_iter().filter_map(|(server, entry)| {
        let prefix = server
            .trim_start_matches("https://")
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .trim_end_matches("/v1")
            .trim_end_matches("/v2")
            .to_owned();
        let prefix = if prefix == "docker.io" { "index.docker.io".to_owned() } else { prefix };
        registry_matches(&prefix, &path).then(|| (prefix.len(), auth_config(&entry)))
    });
    entries.collect()
}

/// Whether a configured registry (host globs allowed) covers the image's path.
fn registry_matches(prefix: &str, path: &str) -> bool {
    let (host, rest) = prefix.split_once('/').unwrap_or((prefix, ""));
    let (image_host, image_rest) = path.split_once('/').unwrap_or((path, ""));
    let (labels, image_labels): (Vec<&str>, Vec<&str>) =
        (host.split('.').collect(), image_host.split('.').collect());
    let host_matches = labels.len() == image_labels.len()
        && labels.iter().zip(&image_labels).all(|(pattern, label)| glob(pattern, label));
    let inside = rest.is_empty()
        || image_rest == rest
        || image_rest.strip_prefix(rest).is_some_and(|left| left.starts_with(['/', ':']));
    host_matches && inside
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text
            .strip_prefix(head)
            .is_some_and(|rest| (0..=rest.len()).any(|i| rest.is_char_boundary(i) && glob(tail, &rest[i..]))),
    }
}

fn auth_config(entry: &serde_json::Value) -> api::AuthConfig {
    let text = |name: &str| entry.get(name).and_then(|v| v.as_str()).unwrap_or("").to_owned();
    let (mut username, mut password) = (text("username"), text("password"));
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth").trim()).unwrap_or_default();
    if let Some((user, pass)) = String::from_utf8_lossy(&decoded).split_once(':') {
        username = user.to_owned();
        password = pass.trim_end_matches('\0').to_owned();
    }
    api::AuthConfig {
        username,
        password,
        // The runtime compares this with the registry's host as a URL; the registry was matched here already.
        server_address: String::new(),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        auth: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_follow_the_tag() {
        let of = |image: &str| {
            let container = Container { image: Some(image.into()), ..Container::default() };
            policy(&container).to_owned()
        };
        assert_eq!(of("nginx"), "Always");
        assert_eq!(of("nginx:latest"), "Always");
        assert_eq!(of("reg:5000/nginx"), "Always");
        assert_eq!(of("nginx:1"), "IfNotPresent");
        assert_eq!(of("nginx@sha256:00"), "IfNotPresent");
    }

    #[test]
    fn credentials_are_found_by_registry_and_path() {
        let config = serde_json::json!({"auths": {
            "reg.example.org": {"auth": base64::engine::general_purpose::STANDARD.encode("u:p:w")},
            "https://reg.example.org/team": {"username": "t", "password": "x"},
            "*.wild.org": {"username": "w", "password": "x"},
            "https://index.docker.io/v1/": {"username": "d", "password": "x"}}});
        let data = base64::engine::general_purpose::STANDARD.encode(config.to_string());
        let secret: Secret = serde_json::from_value(serde_json::json!({
            "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data}}))
        .unwrap();
        let users = |image: &str| {
            let mut found = matching(&secret, image);
            found.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
            found.into_iter().map(|(_, a)| format!("{}/{}", a.username, a.password)).collect::<Vec<_>>()
        };
        assert_eq!(users("reg.example.org/team/app:1"), ["t/x", "u/p:w"]);
        assert_eq!(users("reg.example.org/teams/app"), ["u/p:w"]);
        assert_eq!(users("a.wild.org/x"), ["w/x"]);
        assert_eq!(users("a.b.wild.org/x"), Vec::<String>::new());
        assert_eq!(users("nginx"), ["d/x"]);
    }
}
