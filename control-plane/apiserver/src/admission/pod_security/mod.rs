//! PodSecurity: what a namespace's labels `pod-security.kubernetes.io/<mode>[-version]` allow its pods. The levels are
//! upstream's Pod Security Standards; without labels everything is allowed.

mod checks;

use super::{Admission, AdmissionAttributes, ClusterReads, Operation};
use crate::authn::reads::{self, ObjectHead, Parsed};
use checks::{PodView, violations};
use k8s_openapi::api::core::v1::PodSpec;
use keelson_api::doc::{Doc, Struct, Value};
use keelson_api::f::{apps_v1 as apps, batch_v1 as batch, core_v1 as c};
use keelson_api::field_errors::{ErrorList, FieldPath};
use keelson_api::schema::Field;
use keelson_api::status::{GroupResource, Status};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Existing pods that a changed namespace's warnings look at.
const MAX_PODS: usize = 3000;

/// How much is allowed; ordered by strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// The minor version of the standards; [`Version::LATEST`] is always the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32);

impl Version {
    const LATEST: Version = Version(u32::MAX);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standard {
    level: Level,
    version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::LATEST => write!(f, "{level}:latest"),
            Version(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    enforce: Standard,
    audit: Standard,
    warn: Standard,
}

fn parse_level(text: &str) -> Result<Level, String> {
    match text {
        "privileged" => Ok(Level::Privileged),
        "baseline" => Ok(Level::Baseline),
        "restricted" => Ok(Level::Restricted),
        _ => Err("must be one of privileged, baseline, restricted".to_owned()),
    }
}

fn parse_version(text: &str) -> Result<Version, String> {
    if text == "latest" {
        return Ok(Version::LATEST);
    }
    let wrong = || "must be \"latest\" or \"v1.x\"".to_owned();
    let minor = text.strip_prefix("v1.").ok_or_else(wrong)?;
    let canonical = minor == "0" || !minor.starts_with('0');
    if !canonical || minor.is_empty() || !minor.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    minor.parse().map(Version).map_err(|_| wrong())
}

type Labels = BTreeMap<String, String>;

/// The policy of a namespace's labels. What cannot be understood is enforced as the strictest, warned of as nothing.
fn policy(labels: &Labels) -> (Policy, ErrorList) {
    let open = Standard { level: Level::Privileged, version: Version::LATEST };
    let mut errors = ErrorList::default();
    let mut mode = |name: &str, on_error: Level| {
        let (metadata, mut standard, mut level_given) = (FieldPath::new("metadata"), open, None);
        let path = metadata.child("labels");
        let key = format!("{PREFIX}{name}");
        if let Some(text) = labels.get(&key) {
            level_given = Some(parse_level(text).is_ok());
            standard.level = parse_level(text).unwrap_or_else(|why| {
                errors.invalid(&path.key(&key), text.as_str(), why);
                on_error
            });
        }
        let key = format!("{PREFIX}{name}-version");
        let version = labels.get(&key);
        if let Some(text) = version {
            standard.version = parse_version(text).unwrap_or_else(|why| {
                errors.invalid(&path.key(&key), text.as_str(), why);
                Version::LATEST
            });
        }
        (standard, level_given, version.is_some())
    };
    let (enforce, enforce_given, _) = mode("enforce", Level::Restricted);
    let (audit, _, _) = mode("audit", Level::Privileged);
    let (mut warn, warn_given, warn_version) = mode("warn", Level::Privileged);
    if warn_given.is_none() && enforce_given == Some(true) && enforce.level > warn.level {
        warn.level = enforce.level;
        if !warn_version {
            warn.version = enforce.version;
        }
    }
    (Policy { enforce, audit, warn }, errors)
}

fn labels_of(doc: &Doc) -> Labels {
    let labels = doc.meta().labels().into_iter().flat_map(|l| l.str_pairs());
    labels.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

pub(super) struct PodSecurity {
    reads: Arc<dyn ClusterReads>,
    /// Of namespaces.
    policies: Parsed<Policy>,
}

/// Where the pod is, in an object that makes pods.
fn template_path(a: &AdmissionAttributes<'_>) -> Option<&'static [Field]> {
    Some(match (a.group, a.resource) {
        ("apps", "deployments") => &[apps::deployment::SPEC, apps::deployment_spec::TEMPLATE],
        ("apps", "replicasets") => &[apps::replica_set::SPEC, apps::replica_set_spec::TEMPLATE],
        ("apps", "statefulsets") => &[apps::stateful_set::SPEC, apps::stateful_set_spec::TEMPLATE],
        ("apps", "daemonsets") => &[apps::daemon_set::SPEC, apps::daemon_set_spec::TEMPLATE],
        ("batch", "jobs") => &[batch::job::SPEC, batch::job_spec::TEMPLATE],
        ("batch", "cronjobs") => &[
            batch::cron_job::SPEC,
            batch::cron_job_spec::JOB_TEMPLATE,
            batch::job_template_spec::SPEC,
            batch::job_spec::TEMPLATE,
        ],
        ("", "replicationcontrollers") => {
            &[c::replication_controller::SPEC, c::replication_controller_spec::TEMPLATE]
        }
        ("", "podtemplates") => &[c::pod_template::TEMPLATE],
        _ => return None,
    })
}

fn annotations(meta: keelson_api::doc::MetaView<'_>) -> Labels {
    let pairs = meta.annotations().into_iter().flat_map(|a| a.str_pairs());
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn unreadable(e: impl fmt::Display) -> Status {
    Status::internal(format!("cannot read the pod: {e}"))
}

fn view_of_pod(pod: &Doc) -> Result<PodView, Status> {
    let spec = pod.part_to_typed::<PodSpec>(&[c::pod::SPEC]).map_err(unreadable)?.unwrap_or_default();
    Ok(PodView { annotations: annotations(pod.meta()), spec })
}

fn view_of_template(object: &Doc, path: &[Field]) -> Result<Option<PodView>, Status> {
    let Some(template) = object.get(path).and_then(Value::as_struct) else { return Ok(None) };
    let mut at = path.to_vec();
    at.push(c::pod_template_spec::SPEC);
    let Some(spec) = object.part_to_typed::<PodSpec>(&at).map_err(unreadable)? else { return Ok(None) };
    let meta = template.child(c::pod_template_spec::METADATA);
    let annotations = meta.map(keelson_api::doc::MetaView::from_struct).map(annotations).unwrap_or_default();
    Ok(Some(PodView { annotations, spec }))
}

/// Whether an update changes anything that the standards look at: containers and their images.
fn significant(new: &Doc, old: &Doc) -> bool {
    let lists = [
        (c::pod_spec::CONTAINERS, c::container::NAME, c::container::IMAGE),
        (c::pod_spec::INIT_CONTAINERS, c::container::NAME, c::container::IMAGE),
        (c::pod_spec::EPHEMERAL_CONTAINERS, c::ephemeral_container::NAME, c::ephemeral_container::IMAGE),
    ];
    lists.into_iter().any(|(list, name, image)| {
        let containers = |doc: &Doc| -> Vec<(String, String)> {
            let text = |c: &Struct| (c.str(name).to_owned(), c.str(image).to_owned());
            doc.list(&[c::pod::SPEC, list]).iter().filter_map(Value::as_struct).map(text).collect()
        };
        containers(new) != containers(old)
    })
}

impl PodSecurity {
    pub(super) fn new(reads: Arc<dyn ClusterReads>) -> PodSecurity {
        PodSecurity { reads, policies: Parsed::default() }
    }

    fn namespace_policy(&self, namespace: &str) -> Option<Policy> {
        let text = self.reads.get("", "namespaces", "", namespace)?;
        let told = self.policies.of(("", namespace), std::slice::from_ref(&text), |_| {
            let head: ObjectHead = reads::parse(&text, "namespaces", "", namespace)?;
            Some(policy(&head.metadata.labels).0)
        });
        told.map(|policy| *policy)
    }

    /// The pod that a request to `pods` makes or changes, if the standards look at it.
    fn concerned<'a>(
        object: Option<&'a Doc>,
        old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Option<&'a Doc> {
        const IGNORED: [&str; 8] =
            ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];
        let pod = object.filter(|_| a.is("", "pods") && !IGNORED.contains(&a.subresource))?;
        match (a.operation, old) {
            (Operation::Create, _) => Some(pod),
            (Operation::Update, Some(old)) => significant(pod, old).then_some(pod),
            _ => None,
        }
    }

    fn namespace(&self, new: &Doc, old: Option<&Doc>) -> Result<(), Status> {
        let (_, errors) = policy(&labels_of(new));
        let old_errors = old.map(|o| policy(&labels_of(o)).1);
        if errors.is_empty() || old_errors.is_some_and(|old| old.aggregate() == errors.aggregate()) {
            return Ok(());
        }
        Err(Status::invalid(&GroupResource::new("", "Namespace"), new.meta().name(), &errors))
    }

    /// What of the pods that are there already would violate a namespace's new policy.
    fn existing(&self, new: &Doc, old: &Doc) -> Vec<String> {
        let (now, before) = (policy(&labels_of(new)).0.enforce, policy(&labels_of(old)).0.enforce);
        let relaxed = now.version == before.version && now.level <= before.level;
        if now == before || now.level == Level::Privileged || relaxed {
            return Vec::new();
        }
        let namespace = new.meta().name();
        let pods = self.reads.list("", "pods", namespace);
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for bytes in pods.iter().take(MAX_PODS) {
            let Ok(pod) = serde_json::from_slice::<StoredPod>(bytes) else { continue };
            let view = PodView { annotations: pod.metadata.annotations, spec: pod.spec };
            let reasons: Vec<String> = violations(&view, now).into_iter().map(|v| v.reason).collect();
            if !reasons.is_empty() {
                found.entry(reasons.join(", ")).or_default().push(pod.metadata.name);
            }
        }
        let mut warnings = Vec::new();
        if pods.len() > MAX_PODS {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {MAX_PODS} of {} existing pods",
                pods.len()
            ));
        }
        if !found.is_empty() {
            warnings.push(format!(
                "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{now}\""
            ));
        }
        let mut lines: Vec<String> =
            found.into_iter().map(|(reason, names)| decorated(&reason, &names)).collect();
        lines.sort();
        warnings.extend(lines);
        warnings
    }
}

#[derive(serde::Deserialize)]
struct StoredPod {
    metadata: reads::HeadMeta,
    spec: PodSpec,
}

fn decorated(reason: &str, names: &[String]) -> String {
    let first = names.iter().min().map_or("", String::as_str);
    match names.len() {
        1 => format!("{first}: {reason}"),
        2 => format!("{first} (and 1 other pod): {reason}"),
        n => format!("{first} (and {} other pods): {reason}", n - 1),
    }
}

fn text(found: &[checks::Violation]) -> String {
    let parts: Vec<String> = found
        .iter()
        .map(|v| if v.detail.is_empty() { v.reason.clone() } else { format!("{} ({})", v.reason, v.detail) })
        .collect();
    parts.join(", ")
}

impl Admission for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate(
        &self,
        object: Option<&Doc>,
        old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        if let (true, Some(namespace)) = (a.is_main("", "namespaces"), object) {
            return self.namespace(namespace, old);
        }
        let Some(pod) = PodSecurity::concerned(object, old, a) else { return Ok(()) };
        let Some(policy) = self.namespace_policy(a.namespace) else {
            return Err(Status::internal(format!("failed to lookup namespace {:?}", a.namespace)));
        };
        if policy.enforce.level == Level::Privileged {
            return Ok(());
        }
        let found = violations(&view_of_pod(pod)?, policy.enforce);
        if found.is_empty() {
            return Ok(());
        }
        let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, text(&found));
        Err(a.forbidden(Some(pod), why))
    }

    fn warnings(&self, object: &Doc, old: Option<&Doc>, a: &AdmissionAttributes<'_>) -> Vec<String> {
        if a.is_main("", "namespaces") {
            return old.map(|old| self.existing(object, old)).unwrap_or_default();
        }
        if a.namespace.is_empty() || !matches!(a.operation, Operation::Create | Operation::Update) {
            return Vec::new();
        }
        let view = || match template_path(a).filter(|_| a.subresource.is_empty()) {
            Some(path) => view_of_template(object, path).ok().flatten(),
            None => PodSecurity::concerned(Some(object), old, a).and_then(|pod| view_of_pod(pod).ok()),
        };
        if template_path(a).is_none() && !a.is("", "pods") {
            return Vec::new();
        }
        let Some(policy) = self.namespace_policy(a.namespace).filter(|p| p.warn.level > Level::Privileged)
        else {
            return Vec::new();
        };
        let found = view().map(|view| violations(&view, policy.warn)).unwrap_or_default();
        if found.is_empty() {
            return Vec::new();
        }
        vec![format!("would violate PodSecurity \"{}\": {}", policy.warn, text(&found))]
    }
}

#[cfg(test)]
#[path = "../pod_security_tests.rs"]
mod tests;
