//! What a pod's spec refers to, read from the document.

use keelson_api::doc::{Doc, Struct, Value};
use keelson_api::f::core_v1 as c;
use keelson_api::schema::Field;

/// A mirror pod stands for a static pod; the kubelet made it.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// The fields of containers and of ephemeral containers, which are different types.
pub(super) struct ContainerFields {
    pub name: Field,
    pub env: Field,
    pub env_from: Field,
    pub resources: Field,
}

static CONTAINER: ContainerFields = ContainerFields {
    name: c::container::NAME,
    env: c::container::ENV,
    env_from: c::container::ENV_FROM,
    resources: c::container::RESOURCES,
};

static EPHEMERAL: ContainerFields = ContainerFields {
    name: c::ephemeral_container::NAME,
    env: c::ephemeral_container::ENV,
    env_from: c::ephemeral_container::ENV_FROM,
    resources: c::ephemeral_container::RESOURCES,
};

/// Which of a pod's three lists a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContainerKind {
    Init,
    Main,
    Ephemeral,
}

pub(super) fn spec(pod: &Doc) -> Option<&Struct> {
    pod.get(&[c::pod::SPEC]).and_then(Value::as_struct)
}

pub(super) fn is_mirror(pod: &Doc) -> bool {
    pod.meta().annotation(MIRROR).is_some()
}

/// A list's structs.
pub(super) fn structs(list: &[Value]) -> impl Iterator<Item = &Struct> {
    list.iter().filter_map(Value::as_struct)
}

/// All containers, in the order init, main, ephemeral.
pub(super) fn containers(
    spec: &Struct,
) -> impl Iterator<Item = (ContainerKind, &'static ContainerFields, &Struct)> {
    let list =
        |kind, fields, field| structs(spec.list(field)).map(move |container| (kind, fields, container));
    list(ContainerKind::Init, &CONTAINER, c::pod_spec::INIT_CONTAINERS)
        .chain(list(ContainerKind::Main, &CONTAINER, c::pod_spec::CONTAINERS))
        .chain(list(ContainerKind::Ephemeral, &EPHEMERAL, c::pod_spec::EPHEMERAL_CONTAINERS))
}

/// A container's references to secrets in its environment: the variable's name (none for `envFrom`) and the secret.
pub(super) fn env_secrets<'a>(
    fields: &'static ContainerFields,
    container: &'a Struct,
) -> impl Iterator<Item = (Option<&'a str>, &'a str)> {
    let env = structs(container.list(fields.env)).filter_map(|var| {
        let reference = var.child(c::env_var::VALUE_FROM)?.child(c::env_var_source::SECRET_KEY_REF)?;
        Some((Some(var.str(c::env_var::NAME)), reference.str(c::secret_key_selector::NAME)))
    });
    let from = structs(container.list(fields.env_from)).filter_map(|from| {
        let reference = from.child(c::env_from_source::SECRET_REF)?;
        Some((None, reference.str(c::secret_env_source::NAME)))
    });
    env.chain(from)
}

fn env_config_maps(fields: &'static ContainerFields, container: &Struct) -> bool {
    let env = structs(container.list(fields.env)).any(|var| {
        var.child(c::env_var::VALUE_FROM).is_some_and(|from| from.has(c::env_var_source::CONFIG_MAP_KEY_REF))
    });
    env || structs(container.list(fields.env_from)).any(|from| from.has(c::env_from_source::CONFIG_MAP_REF))
}

/// Whether anything in the spec names a secret.
pub(super) fn refers_to_secrets(spec: &Struct) -> bool {
    if !spec.list(c::pod_spec::IMAGE_PULL_SECRETS).is_empty() {
        return true;
    }
    if containers(spec).any(|(_, fields, container)| env_secrets(fields, container).next().is_some()) {
        return true;
    }
    structs(spec.list(c::pod_spec::VOLUMES)).any(volume_has_secret)
}

fn volume_has_secret(volume: &Struct) -> bool {
    use c::volume as v;
    let with = |field, secret| volume.child(field).is_some_and(|source: &Struct| source.has(secret));
    volume.has(v::SECRET)
        || volume.has(v::AZURE_FILE)
        || with(v::CEPHFS, c::ceph_fs_volume_source::SECRET_REF)
        || with(v::CINDER, c::cinder_volume_source::SECRET_REF)
        || with(v::FLEX_VOLUME, c::flex_volume_source::SECRET_REF)
        || with(v::RBD, c::rbd_volume_source::SECRET_REF)
        || with(v::SCALE_IO, c::scale_io_volume_source::SECRET_REF)
        || with(v::ISCSI, c::iscsi_volume_source::SECRET_REF)
        || with(v::STORAGEOS, c::storage_os_volume_source::SECRET_REF)
        || with(v::CSI, c::csi_volume_source::NODE_PUBLISH_SECRET_REF)
        || projections(volume).any(|source| source.has(c::volume_projection::SECRET))
}

/// The sources of a projected volume.
pub(super) fn projections(volume: &Struct) -> impl Iterator<Item = &Struct> {
    let sources =
        volume.child(c::volume::PROJECTED).map_or(&[][..], |p| p.list(c::projected_volume_source::SOURCES));
    structs(sources)
}

/// The first kind of API object that the pod refers to, in upstream's order and words; what cannot be understood
/// counts as a reference.
pub(super) fn api_reference(pod: &Doc) -> Option<&'static str> {
    let spec = spec(pod)?;
    if !spec.str(c::pod_spec::SERVICE_ACCOUNT_NAME).is_empty() {
        return Some("serviceaccounts");
    }
    if refers_to_secrets(spec) {
        return Some("secrets");
    }
    let volumes = || structs(spec.list(c::pod_spec::VOLUMES));
    let config_maps = containers(spec).any(|(_, fields, container)| env_config_maps(fields, container))
        || volumes().any(|volume| {
            volume.has(c::volume::CONFIG_MAP)
                || projections(volume).any(|source| source.has(c::volume_projection::CONFIG_MAP))
        });
    if config_maps {
        return Some("configmaps");
    }
    if !spec.list(c::pod_spec::RESOURCE_CLAIMS).is_empty() {
        return Some("resourceclaims");
    }
    volumes().find_map(volume_reference)
}

fn volume_reference(volume: &Struct) -> Option<&'static str> {
    use c::volume as v;
    let reading = [
        (v::CONFIG_MAP, "configmaps (via configmap volumes)"),
        (v::SECRET, "secrets (via secret volumes)"),
        (v::CSI, "csidrivers (via CSI volumes)"),
        (v::GLUSTERFS, "endpoints (via glusterFS volumes)"),
        (v::PERSISTENT_VOLUME_CLAIM, "persistentvolumeclaims"),
        (v::EPHEMERAL, "persistentvolumeclaims (via ephemeral volumes)"),
        (v::AZURE_FILE, "secrets (via azureFile volumes)"),
    ];
    if let Some((_, text)) = reading.into_iter().find(|(field, _)| volume.has(*field)) {
        return Some(text);
    }
    if volume.has(v::PROJECTED) {
        use c::volume_projection as p;
        let reading = [
            (p::SERVICE_ACCOUNT_TOKEN, "serviceaccounts (via projected volumes)"),
            (p::CLUSTER_TRUST_BUNDLE, "clustertrustbundles"),
            (p::POD_CERTIFICATE, "podcertificates"),
        ];
        return projections(volume).find_map(|source| {
            let found = reading.into_iter().find(|(field, _)| source.has(*field)).map(|(_, text)| text);
            found.or_else(|| {
                (!source.has(p::DOWNWARD_API)).then_some("an unknown source of a projected volume")
            })
        });
    }
    let harmless = [
        v::AWS_ELASTIC_BLOCK_STORE,
        v::AZURE_DISK,
        v::CEPHFS,
        v::CINDER,
        v::DOWNWARD_API,
        v::EMPTY_DIR,
        v::FC,
        v::FLEX_VOLUME,
        v::FLOCKER,
        v::GCE_PERSISTENT_DISK,
        v::GIT_REPO,
        v::HOST_PATH,
        v::IMAGE,
        v::ISCSI,
        v::NFS,
        v::PHOTON_PERSISTENT_DISK,
        v::PORTWORX_VOLUME,
        v::QUOBYTE,
        v::RBD,
        v::SCALE_IO,
        v::STORAGEOS,
        v::VSPHERE_VOLUME,
    ];
    (!harmless.into_iter().any(|field| volume.has(field))).then_some("an unknown type of volume")
}
