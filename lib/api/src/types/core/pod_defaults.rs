//! Defaults of pods and of everything that holds a pod spec.

use crate::doc::{Doc, Map, Struct, Value};
use crate::f::core_v1 as c;
use crate::f::meta_v1::object_meta as om;
use crate::quantity::{Format, Quantity};
use crate::schema::Field;
use crate::t::core_v1 as t;
use crate::types::core::resources;
use crate::types::walk::{default_int, default_str, default_value, present, structs_mut};

const CONTAINER_LISTS: [Field; 2] = [c::pod_spec::INIT_CONTAINERS, c::pod_spec::CONTAINERS];

/// A Pod: the spec's defaults and those only pods themselves get.
pub fn pod(doc: &mut Doc) {
    let Some(root) = doc.root_mut() else { return };
    if let Some(meta) = root.child_mut(c::pod::METADATA) {
        drop_init_annotations(meta);
    }
    if let Some(status) = root.child_mut(c::pod::STATUS) {
        pair_addresses(status);
    }
    let Some(spec) = root.entry_index(c::pod::SPEC.index).as_struct_mut() else { return };
    // Of pods alone: a template keeps what it says, and its pods are put right.
    if spec.int(c::pod_spec::TERMINATION_GRACE_PERIOD_SECONDS).is_some_and(|seconds| seconds < 0) {
        spec.set(c::pod_spec::TERMINATION_GRACE_PERIOD_SECONDS, 1i64);
    }
    for list in CONTAINER_LISTS {
        for container in structs_mut(spec, list) {
            if let Some(resources) = container.child_mut(c::container::RESOURCES) {
                requests_from_limits(resources);
            }
        }
    }
    pod_spec(spec);
    resources::default_pod_level(spec);
    default_value(spec, c::pod_spec::ENABLE_SERVICE_LINKS, true);
    if spec.bool(c::pod_spec::HOST_NETWORK) == Some(true) {
        for list in CONTAINER_LISTS {
            for container in structs_mut(spec, list) {
                for port in structs_mut(container, c::container::PORTS) {
                    let container_port = port.int(c::container_port::CONTAINER_PORT).unwrap_or(0);
                    if container_port != 0 {
                        default_int(port, c::container_port::HOST_PORT, container_port);
                    }
                }
            }
        }
    }
}

/// What described init containers before they were fields.
const INIT_ANNOTATIONS: [&str; 4] = [
    "pod.beta.kubernetes.io/init-containers",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-container-statuses",
];

fn drop_init_annotations(meta: &mut Struct) {
    let at = om::ANNOTATIONS;
    let Some(annotations) = meta.get_mut(at).and_then(Value::as_map_mut) else { return };
    for key in INIT_ANNOTATIONS {
        annotations.remove(key);
    }
    if annotations.is_empty() {
        meta.remove(at);
    }
}

/// The one address of old clients is the first of the list; where they differ, the one stands.
fn pair_addresses(status: &mut Struct) {
    use c::pod_status::{POD_IP, POD_IPS};
    let first = status.list(POD_IPS).first().and_then(Value::as_struct).map(|first| first.str(c::pod_ip::IP));
    let one = status.str(POD_IP);
    if one.is_empty() {
        if let Some(first) = first.map(str::to_owned) {
            status.set(POD_IP, first);
        }
    } else if first != Some(one) {
        let mut address = Struct::new(t::POD_IP);
        address.set(c::pod_ip::IP, one);
        status.set(POD_IPS, vec![Value::Struct(address)]);
    }
}

fn requests_from_limits(resources: &mut Struct) {
    let Some(limits) = resources.map(c::resource_requirements::LIMITS).cloned() else { return };
    let requests = resources.entry_index(c::resource_requirements::REQUESTS.index);
    if !matches!(requests, Value::Map(_)) {
        *requests = Value::Map(Map::new());
    }
    if let Some(requests) = requests.as_map_mut() {
        for (name, limit) in limits.iter() {
            if !requests.contains_key(name) {
                requests.insert(name, limit.clone());
            }
        }
    }
}

/// A pod template inside a controller's spec.
pub fn pod_template_spec(template: &mut Struct) {
    if let Some(meta) = template.child_mut(c::pod_template_spec::METADATA) {
        drop_init_annotations(meta);
    }
    if let Some(spec) = template.entry_index(c::pod_template_spec::SPEC.index).as_struct_mut() {
        pod_spec(spec);
    }
}

/// A pod spec, wherever it stands.
pub fn pod_spec(spec: &mut Struct) {
    default_str(spec, c::pod_spec::RESTART_POLICY, "Always");
    default_value(spec, c::pod_spec::TERMINATION_GRACE_PERIOD_SECONDS, 30i64);
    default_str(spec, c::pod_spec::DNS_POLICY, "ClusterFirst");
    default_str(spec, c::pod_spec::SCHEDULER_NAME, "default-scheduler");
    if !present(spec, c::pod_spec::SECURITY_CONTEXT) {
        spec.set(c::pod_spec::SECURITY_CONTEXT, Struct::new(t::POD_SECURITY_CONTEXT));
    }
    // The deprecated name mirrors the account.
    let account = spec.str(c::pod_spec::SERVICE_ACCOUNT_NAME).to_owned();
    let old_name = spec.str(c::pod_spec::SERVICE_ACCOUNT).to_owned();
    if account.is_empty() && !old_name.is_empty() {
        spec.set(c::pod_spec::SERVICE_ACCOUNT_NAME, old_name);
    } else if !account.is_empty() && old_name != account {
        spec.set(c::pod_spec::SERVICE_ACCOUNT, account);
    }
    for value in structs_mut(spec, c::pod_spec::VOLUMES) {
        volume(value);
    }
    for list in CONTAINER_LISTS {
        for value in structs_mut(spec, list) {
            container(value);
        }
    }
    for ephemeral in structs_mut(spec, c::pod_spec::EPHEMERAL_CONTAINERS) {
        let mut common = as_container(ephemeral);
        container(&mut common);
        for (index, value) in common.iter() {
            if let Some(at) = ephemeral.ty().def().field_index(common.ty().def().fields[index as usize].json)
            {
                ephemeral.set_index(at, value.clone());
            }
        }
    }
    round_up(spec, c::pod_spec::OVERHEAD);
    if let Some(resources) = spec.child_mut(c::pod_spec::RESOURCES) {
        round_up(resources, c::resource_requirements::LIMITS);
        round_up(resources, c::resource_requirements::REQUESTS);
    }
}

/// The fields that an ephemeral container shares with a container, as a container.
pub fn as_container(ephemeral: &Struct) -> Struct {
    let def = ephemeral.ty().def();
    let mut out = Struct::new(t::CONTAINER);
    for (index, value) in ephemeral.iter() {
        if let Some(at) = t::CONTAINER.def().field_index(def.fields[index as usize].json) {
            out.set_index(at, value.clone());
        }
    }
    out
}

/// Resource amounts finer than thousandths are rounded up to them (`SetDefaults_ResourceList`).
pub fn round_up(s: &mut Struct, field: Field) {
    let Some(map) = s.get_mut(field).and_then(Value::as_map_mut) else { return };
    for (_, value) in map.iter_mut() {
        let Some(text) = value.as_str().filter(|text| text.ends_with(['u', 'n']) || text.contains("e-"))
        else {
            continue;
        };
        if let Ok(quantity) = Quantity::parse(text) {
            let rounded = Quantity::from_millis(quantity.milli_value());
            if quantity.format() == Format::DecimalSi && rounded != quantity {
                *value = Value::from(rounded.to_string());
            }
        }
    }
}

/// `imagePullPolicy` as the image's tag suggests it.
pub fn pull_policy(image: &str) -> &'static str {
    if image_tag(image) == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// The tag of an image reference, `latest` where it has neither tag nor digest; `None` for no valid reference.
fn image_tag(image: &str) -> Option<&str> {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rfind('/').map_or(0, |at| at + 1);
    let (repository, tag) = match name[last..].split_once(':') {
        Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag)),
        None => (name, None),
    };
    let host = repository.split('/').next().unwrap_or_default();
    let has_host = repository.contains('/')
        && (host.contains(['.', ':']) || host == "localhost" || host.bytes().any(|b| b.is_ascii_uppercase()));
    let path = if has_host { &repository[host.len() + 1..] } else { repository };
    let component = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
            && part.as_bytes()[0].is_ascii_alphanumeric()
            && part.as_bytes()[part.len() - 1].is_ascii_alphanumeric()
    };
    let tag_ok = |tag: &str| {
        (1..=128).contains(&tag.len())
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !tag.starts_with(['.', '-'])
    };
    if !path.split('/').all(component) || !tag.is_none_or(tag_ok) {
        return None;
    }
    match (tag, digest) {
        (Some(tag), _) => Some(tag),
        (None, Some(_)) => Some(""),
        (None, None) => Some("latest"),
    }
}

fn container(s: &mut Struct) {
    if s.str(c::container::IMAGE_PULL_POLICY).is_empty() {
        let policy = pull_policy(s.str(c::container::IMAGE));
        s.set(c::container::IMAGE_PULL_POLICY, policy);
    }
    default_str(s, c::container::TERMINATION_MESSAGE_PATH, "/dev/termination-log");
    default_str(s, c::container::TERMINATION_MESSAGE_POLICY, "File");
    for port in structs_mut(s, c::container::PORTS) {
        default_str(port, c::container_port::PROTOCOL, "TCP");
    }
    for variable in structs_mut(s, c::container::ENV) {
        if let Some(from) = variable.child_mut(c::env_var::VALUE_FROM) {
            if let Some(field) = from.child_mut(c::env_var_source::FIELD_REF) {
                default_str(field, c::object_field_selector::API_VERSION, "v1");
            }
            if let Some(file) = from.child_mut(c::env_var_source::FILE_KEY_REF) {
                default_value(file, c::file_key_selector::OPTIONAL, false);
            }
        }
    }
    if let Some(resources) = s.child_mut(c::container::RESOURCES) {
        round_up(resources, c::resource_requirements::LIMITS);
        round_up(resources, c::resource_requirements::REQUESTS);
    }
    for field in [c::container::LIVENESS_PROBE, c::container::READINESS_PROBE, c::container::STARTUP_PROBE] {
        if let Some(value) = s.child_mut(field) {
            probe(value);
        }
    }
    if let Some(lifecycle) = s.child_mut(c::container::LIFECYCLE) {
        for field in [c::lifecycle::POST_START, c::lifecycle::PRE_STOP] {
            let get = lifecycle
                .child_mut(field)
                .and_then(|handler| handler.child_mut(c::lifecycle_handler::HTTP_GET));
            if let Some(get) = get {
                http_get(get);
            }
        }
    }
}

fn probe(s: &mut Struct) {
    default_int(s, c::probe::TIMEOUT_SECONDS, 1);
    default_int(s, c::probe::PERIOD_SECONDS, 10);
    default_int(s, c::probe::SUCCESS_THRESHOLD, 1);
    default_int(s, c::probe::FAILURE_THRESHOLD, 3);
    if let Some(get) = s.child_mut(c::probe::HTTP_GET) {
        http_get(get);
    }
    if let Some(grpc) = s.child_mut(c::probe::GRPC) {
        default_value(grpc, c::grpc_action::SERVICE, "");
    }
}

fn http_get(s: &mut Struct) {
    default_str(s, c::http_get_action::PATH, "/");
    default_str(s, c::http_get_action::SCHEME, "HTTP");
}

fn downward_items(s: &mut Struct, field: Field) {
    for file in structs_mut(s, field) {
        if let Some(selector) = file.child_mut(c::downward_api_volume_file::FIELD_REF) {
            default_str(selector, c::object_field_selector::API_VERSION, "v1");
        }
    }
}

/// Whether the volume names any source (fields after `name`).
fn has_source(volume: &Struct) -> bool {
    volume.iter().any(|(index, value)| index != c::volume::NAME.index && *value != Value::Null)
}

fn volume(s: &mut Struct) {
    if !has_source(s) {
        s.set(c::volume::EMPTY_DIR, Struct::new(t::EMPTY_DIR_VOLUME_SOURCE));
        return;
    }
    if let Some(source) = s.child_mut(c::volume::SECRET) {
        default_value(source, c::secret_volume_source::DEFAULT_MODE, 0o644);
    }
    if let Some(source) = s.child_mut(c::volume::CONFIG_MAP) {
        default_value(source, c::config_map_volume_source::DEFAULT_MODE, 0o644);
    }
    if let Some(source) = s.child_mut(c::volume::DOWNWARD_API) {
        default_value(source, c::downward_api_volume_source::DEFAULT_MODE, 0o644);
        downward_items(source, c::downward_api_volume_source::ITEMS);
    }
    if let Some(source) = s.child_mut(c::volume::HOST_PATH) {
        default_value(source, c::host_path_volume_source::TYPE, "");
    }
    if let Some(source) = s.child_mut(c::volume::PROJECTED) {
        default_value(source, c::projected_volume_source::DEFAULT_MODE, 0o644);
        for one in structs_mut(source, c::projected_volume_source::SOURCES) {
            if let Some(token) = one.child_mut(c::volume_projection::SERVICE_ACCOUNT_TOKEN) {
                default_value(token, c::service_account_token_projection::EXPIRATION_SECONDS, 3600i64);
            }
            if let Some(downward) = one.child_mut(c::volume_projection::DOWNWARD_API) {
                downward_items(downward, c::downward_api_projection::ITEMS);
            }
        }
    }
    if let Some(source) = s.child_mut(c::volume::IMAGE)
        && source.str(c::image_volume_source::PULL_POLICY).is_empty()
    {
        let policy = pull_policy(source.str(c::image_volume_source::REFERENCE));
        source.set(c::image_volume_source::PULL_POLICY, policy);
    }
    let claim = s
        .child_mut(c::volume::EPHEMERAL)
        .and_then(|e| e.child_mut(c::ephemeral_volume_source::VOLUME_CLAIM_TEMPLATE))
        .and_then(|claim| claim.child_mut(c::persistent_volume_claim_template::SPEC));
    if let Some(claim) = claim {
        default_value(claim, c::persistent_volume_claim_spec::VOLUME_MODE, "Filesystem");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.25", "IfNotPresent"),
            ("localhost:5000/a/b", "Always"),
            ("localhost:5000/a/b:v1", "IfNotPresent"),
            ("a@sha256:0123456789012345678901234567890123456789012345678901234567890123", "IfNotPresent"),
            ("", "IfNotPresent"),
            ("Nginx", "IfNotPresent"),
            ("reg.io/Nginx", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
