//! ServiceAccount: every pod runs as one that exists, gets its token and the cluster's root certificate mounted, and its
//! pull secrets.

use super::pod_refs::{
    ContainerKind, containers, env_secrets, is_mirror, projections, refers_to_secrets, spec, structs,
};
use super::{Admission, AdmissionAttributes, ClusterReads, Operation};
use crate::authn::reads::Parsed;
use keelson_api::doc::{Doc, Struct, Value};
use keelson_api::f::core_v1 as c;
use keelson_api::status::Status;
use keelson_api::t::core_v1 as t;
use rand::Rng;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

const DEFAULT: &str = "default";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// One hour and seven seconds: tokens of this life are believed longer by the server, for clients that read the file
/// only once.
const TOKEN_SECONDS: i64 = 60 * 60 + 7;
const ENFORCE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

pub(super) struct ServiceAccount {
    reads: Arc<dyn ClusterReads>,
    parsed: Parsed<Account>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Account {
    metadata: AccountMeta,
    secrets: Vec<Named>,
    image_pull_secrets: Vec<Named>,
    automount_service_account_token: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AccountMeta {
    annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

/// See [`super::Chain::awaits_default_account`].
pub(super) fn awaits_default<'a>(
    reads: &dyn ClusterReads,
    object: &Doc,
    a: &AdmissionAttributes<'a>,
) -> Option<&'a str> {
    if !a.is_main("", "pods") || a.operation != Operation::Create || is_mirror(object) {
        return None;
    }
    let name = object.str(&[c::pod::SPEC, c::pod_spec::SERVICE_ACCOUNT_NAME]);
    let wanted = name.is_empty() || name == DEFAULT;
    (wanted && reads.get("", "serviceaccounts", a.namespace, DEFAULT).is_none()).then_some(a.namespace)
}

impl ServiceAccount {
    pub(super) fn new(reads: Arc<dyn ClusterReads>) -> ServiceAccount {
        ServiceAccount { reads, parsed: Parsed::default() }
    }

    fn account(&self, pod: &Doc, a: &AdmissionAttributes<'_>) -> Result<(String, Arc<Account>), Status> {
        let name = pod.str(&[c::pod::SPEC, c::pod_spec::SERVICE_ACCOUNT_NAME]).to_owned();
        let namespace = a.namespace;
        if name.is_empty() {
            let pod_name = pod.meta().name().to_owned();
            return Err(a.forbidden(
                Some(pod),
                format!("no service account specified for pod {namespace}/{pod_name}"),
            ));
        }
        match self.parsed.read(self.reads.as_ref(), "", "serviceaccounts", namespace, &name) {
            Some(account) => Ok((name, account)),
            None => {
                let why = format!(
                    "error looking up service account {namespace}/{name}: serviceaccount {} not found",
                    keelson_api::field_errors::quoted(&name)
                );
                Err(a.forbidden(Some(pod), why))
            }
        }
    }

    fn check_mirror(pod: &Doc, a: &AdmissionAttributes<'_>) -> Result<(), Status> {
        let Some(spec) = spec(pod) else { return Ok(()) };
        let refuse = |why| Err(a.forbidden(Some(pod), why));
        if !spec.str(c::pod_spec::SERVICE_ACCOUNT_NAME).is_empty() {
            return refuse("a mirror pod may not reference service accounts");
        }
        if refers_to_secrets(spec) {
            return refuse("a mirror pod may not reference secrets");
        }
        let token = |volume| projections(volume).any(|s| s.has(c::volume_projection::SERVICE_ACCOUNT_TOKEN));
        if structs(spec.list(c::pod_spec::VOLUMES)).any(token) {
            return refuse("a mirror pod may not use ServiceAccountToken volume projections");
        }
        Ok(())
    }
}

impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn mutate(&self, pod: &mut Doc, _old: Option<&Doc>, a: &AdmissionAttributes<'_>) -> Result<(), Status> {
        if !a.is_main("", "pods") || a.operation != Operation::Create {
            return Ok(());
        }
        // A kubelet deletes a mirror pod that differs from what it made.
        if is_mirror(pod) {
            return ServiceAccount::check_mirror(pod, a);
        }
        if pod.str(&[c::pod::SPEC, c::pod_spec::SERVICE_ACCOUNT_NAME]).is_empty() {
            pod.set(&[c::pod::SPEC, c::pod_spec::SERVICE_ACCOUNT_NAME], DEFAULT);
        }
        let (name, account) = self.account(pod, a)?;
        // The old name of the field says the same.
        pod.set(&[c::pod::SPEC, c::pod_spec::SERVICE_ACCOUNT], name);
        let wish = pod.bool(&[c::pod::SPEC, c::pod_spec::AUTOMOUNT_SERVICE_ACCOUNT_TOKEN]);
        let mount = wish.or(account.automount_service_account_token).unwrap_or(true);
        let Some(spec) = pod.get_mut(&[c::pod::SPEC]).and_then(Value::as_struct_mut) else { return Ok(()) };
        if mount {
            mount_token(spec);
        }
        if spec.list(c::pod_spec::IMAGE_PULL_SECRETS).is_empty() && !account.image_pull_secrets.is_empty() {
            let secrets: Vec<Value> = account.image_pull_secrets.iter().map(|s| reference(&s.name)).collect();
            spec.set(c::pod_spec::IMAGE_PULL_SECRETS, secrets);
        }
        Ok(())
    }

    fn validate(
        &self,
        object: Option<&Doc>,
        _old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        let Some(pod) = object.filter(|_| a.is("", "pods")) else { return Ok(()) };
        let ephemeral = match (a.operation, a.subresource) {
            (Operation::Create, "") => false,
            (Operation::Update, "ephemeralcontainers") => true,
            _ => return Ok(()),
        };
        if !ephemeral && is_mirror(pod) {
            return ServiceAccount::check_mirror(pod, a);
        }
        let (name, account) = self.account(pod, a)?;
        if !account.metadata.annotations.get(ENFORCE_SECRETS).is_some_and(|v| is_true(v)) {
            return Ok(());
        }
        match spec(pod).and_then(|spec| unlisted_secret(spec, &name, &account, ephemeral)) {
            Some(why) => Err(a.forbidden(Some(pod), why)),
            None => Ok(()),
        }
    }
}

/// Texts that Go's `strconv.ParseBool` takes for true.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// The first secret that the account does not list, in upstream's words.
fn unlisted_secret(spec: &Struct, account_name: &str, account: &Account, ephemeral: bool) -> Option<String> {
    let listed = |name: &str| account.secrets.iter().any(|s| s.name == name);
    let tail = format!("is not allowed because service account {account_name} does not reference that");
    if !ephemeral {
        for volume in structs(spec.list(c::pod_spec::VOLUMES)) {
            let secret = volume.child(c::volume::SECRET).map(|s| s.str(c::secret_volume_source::SECRET_NAME));
            if let Some(secret) = secret.filter(|s| !listed(s)) {
                return Some(format!("volume with secret.secretName=\"{secret}\" {tail} secret"));
            }
        }
    }
    for (kind, fields, container) in containers(spec) {
        if (kind == ContainerKind::Ephemeral) != ephemeral {
            continue;
        }
        let label = match kind {
            ContainerKind::Init => "init container",
            ContainerKind::Main => "container",
            ContainerKind::Ephemeral => "ephemeral container",
        };
        let name = container.str(fields.name);
        if let Some((var, secret)) = env_secrets(fields, container).find(|(_, secret)| !listed(secret)) {
            let what = var.map_or_else(|| "envFrom".to_owned(), |var| format!("envVar {var}"));
            return Some(format!(
                "{label} {name} with {what} referencing secret.secretName=\"{secret}\" {tail} secret"
            ));
        }
    }
    if ephemeral {
        return None;
    }
    for (i, pull) in structs(spec.list(c::pod_spec::IMAGE_PULL_SECRETS)).enumerate() {
        let name = pull.str(c::local_object_reference::NAME);
        if !account.image_pull_secrets.iter().any(|s| s.name == name) {
            return Some(format!("imagePullSecrets[{i}].name=\"{name}\" {tail} imagePullSecret"));
        }
    }
    None
}

fn reference(name: &str) -> Value {
    let mut reference = Struct::new(t::LOCAL_OBJECT_REFERENCE);
    reference.set(c::local_object_reference::NAME, name);
    reference.into()
}

/// Mounts the token volume in every container that mounts nothing at its place.
fn mount_token(spec: &mut Struct) {
    let existing = structs(spec.list(c::pod_spec::VOLUMES))
        .map(|v| v.str(c::volume::NAME))
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let has_volume = existing.is_some();
    let name = existing.unwrap_or_else(generate_name);
    let mut needed = false;
    for field in [c::pod_spec::INIT_CONTAINERS, c::pod_spec::CONTAINERS] {
        let Some(list) = spec.get_mut(field).and_then(Value::as_list_mut) else { continue };
        for container in list.iter_mut().filter_map(Value::as_struct_mut) {
            let mounts = container.list(c::container::VOLUME_MOUNTS);
            if structs(mounts).any(|m| m.str(c::volume_mount::MOUNT_PATH) == MOUNT_PATH) {
                continue;
            }
            let mut mount = Struct::new(t::VOLUME_MOUNT);
            mount.set(c::volume_mount::NAME, name.as_str());
            mount.set(c::volume_mount::READ_ONLY, true);
            mount.set(c::volume_mount::MOUNT_PATH, MOUNT_PATH);
            push(container, c::container::VOLUME_MOUNTS, mount);
            needed = true;
        }
    }
    if needed && !has_volume {
        push(spec, c::pod_spec::VOLUMES, token_volume(&name));
    }
}

/// Appends to a list field, made where it is absent.
pub(super) fn push(within: &mut Struct, field: keelson_api::schema::Field, item: Struct) {
    match within.get_mut(field).and_then(Value::as_list_mut) {
        Some(list) => list.push(item.into()),
        None => {
            within.set(field, vec![Value::from(item)]);
        }
    }
}

fn generate_name() -> String {
    // Upstream's alphabet: no vowels and no digits that read as letters.
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    let suffix: String = (0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect();
    format!("{VOLUME_PREFIX}{suffix}")
}

fn token_volume(name: &str) -> Struct {
    let mut token = Struct::new(t::SERVICE_ACCOUNT_TOKEN_PROJECTION);
    token.set(c::service_account_token_projection::EXPIRATION_SECONDS, TOKEN_SECONDS);
    token.set(c::service_account_token_projection::PATH, "token");

    let mut item = Struct::new(t::KEY_TO_PATH);
    item.set(c::key_to_path::KEY, "ca.crt");
    item.set(c::key_to_path::PATH, "ca.crt");
    let mut root = Struct::new(t::CONFIG_MAP_PROJECTION);
    root.set(c::config_map_projection::NAME, "kube-root-ca.crt");
    root.set(c::config_map_projection::ITEMS, vec![Value::from(item)]);

    let mut field = Struct::new(t::OBJECT_FIELD_SELECTOR);
    field.set(c::object_field_selector::API_VERSION, "v1");
    field.set(c::object_field_selector::FIELD_PATH, "metadata.namespace");
    let mut file = Struct::new(t::DOWNWARD_API_VOLUME_FILE);
    file.set(c::downward_api_volume_file::PATH, "namespace");
    file.set(c::downward_api_volume_file::FIELD_REF, field);
    let mut downward = Struct::new(t::DOWNWARD_API_PROJECTION);
    downward.set(c::downward_api_projection::ITEMS, vec![Value::from(file)]);

    let source = |field, value: Struct| {
        let mut source = Struct::new(t::VOLUME_PROJECTION);
        source.set(field, value);
        Value::from(source)
    };
    let mut projected = Struct::new(t::PROJECTED_VOLUME_SOURCE);
    projected.set(
        c::projected_volume_source::SOURCES,
        vec![
            source(c::volume_projection::SERVICE_ACCOUNT_TOKEN, token),
            source(c::volume_projection::CONFIG_MAP, root),
            source(c::volume_projection::DOWNWARD_API, downward),
        ],
    );
    projected.set(c::projected_volume_source::DEFAULT_MODE, 0o644i64);
    let mut volume = Struct::new(t::VOLUME);
    volume.set(c::volume::NAME, name);
    volume.set(c::volume::PROJECTED, projected);
    volume
}
