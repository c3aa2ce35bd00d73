//! Sources of storage that pods and PersistentVolumes share, the in-tree ones of old among them.

use crate::doc::{Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::t::core_v1 as t;
use crate::types::core::container::string_list;
use crate::types::core::volumes::no_backsteps;
use crate::types::walk::{pairs, present};

/// Fields that must not be empty, in the order upstream looks at them.
const NEEDED: [Field; 31] = [
    c::glusterfs_volume_source::ENDPOINTS,
    c::glusterfs_volume_source::PATH,
    c::glusterfs_persistent_volume_source::ENDPOINTS,
    c::glusterfs_persistent_volume_source::PATH,
    c::rbd_volume_source::MONITORS,
    c::rbd_volume_source::IMAGE,
    c::rbd_persistent_volume_source::MONITORS,
    c::rbd_persistent_volume_source::IMAGE,
    c::ceph_fs_volume_source::MONITORS,
    c::ceph_fs_persistent_volume_source::MONITORS,
    c::flex_volume_source::DRIVER,
    c::flex_persistent_volume_source::DRIVER,
    c::azure_file_volume_source::SECRET_NAME,
    c::azure_file_volume_source::SHARE_NAME,
    c::azure_file_persistent_volume_source::SECRET_NAME,
    c::azure_file_persistent_volume_source::SHARE_NAME,
    c::azure_disk_volume_source::DISK_NAME,
    c::azure_disk_volume_source::DISK_URI,
    c::vsphere_virtual_disk_volume_source::VOLUME_PATH,
    c::photon_persistent_disk_volume_source::PD_ID,
    c::portworx_volume_source::VOLUME_ID,
    c::scale_io_volume_source::GATEWAY,
    c::scale_io_volume_source::SYSTEM,
    c::scale_io_volume_source::VOLUME_NAME,
    c::scale_io_persistent_volume_source::GATEWAY,
    c::scale_io_persistent_volume_source::SYSTEM,
    c::scale_io_persistent_volume_source::VOLUME_NAME,
    c::gce_persistent_disk_volume_source::PD_NAME,
    c::aws_elastic_block_store_volume_source::VOLUME_ID,
    c::cinder_volume_source::VOLUME_ID,
    c::cinder_persistent_volume_source::VOLUME_ID,
];

/// Refuses an absent or empty text or list.
pub fn required(s: &Struct, field: Field, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if s.get(field).is_none_or(Value::is_go_empty) {
        errors.required(&path.child(field.def().json), "");
    }
}

/// A source at `path`; `name` is the volume's and `at` where the volume lies.
pub fn validate(
    source: &Struct,
    name: &str,
    at: &FieldPath<'_>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    for field in NEEDED.iter().filter(|field| field.ty == source.ty()) {
        required(source, *field, path, errors);
    }
    match source.ty() {
        t::ISCSI_VOLUME_SOURCE => iscsi(source, name, at, path, errors),
        t::ISCSI_PERSISTENT_VOLUME_SOURCE => iscsi_of_volume(source, name, path, errors),
        t::FC_VOLUME_SOURCE => fibre_channel(source, path, errors),
        t::GCE_PERSISTENT_DISK_VOLUME_SOURCE => {
            partition(source.int(c::gce_persistent_disk_volume_source::PARTITION), path, errors);
        }
        t::AWS_ELASTIC_BLOCK_STORE_VOLUME_SOURCE => {
            partition(source.int(c::aws_elastic_block_store_volume_source::PARTITION), path, errors);
        }
        t::QUOBYTE_VOLUME_SOURCE => quobyte(source, path, errors),
        t::FLOCKER_VOLUME_SOURCE => flocker(source, path, errors),
        t::FLEX_VOLUME_SOURCE => flex_options(source, c::flex_volume_source::OPTIONS, path, errors),
        t::FLEX_PERSISTENT_VOLUME_SOURCE => {
            flex_options(source, c::flex_persistent_volume_source::OPTIONS, path, errors);
        }
        t::AZURE_DISK_VOLUME_SOURCE => azure_disk(source, path, errors),
        t::AZURE_FILE_PERSISTENT_VOLUME_SOURCE => {
            use c::azure_file_persistent_volume_source as s;
            if present(source, s::SECRET_NAMESPACE) {
                required(source, s::SECRET_NAMESPACE, path, errors);
            }
        }
        t::STORAGE_OS_VOLUME_SOURCE => {
            use c::storage_os_volume_source as s;
            storage_os(source, s::VOLUME_NAME, s::VOLUME_NAMESPACE, path, errors);
            local_secret(source, s::SECRET_REF, path, errors);
        }
        t::STORAGE_OS_PERSISTENT_VOLUME_SOURCE => {
            use c::storage_os_persistent_volume_source as s;
            storage_os(source, s::VOLUME_NAME, s::VOLUME_NAMESPACE, path, errors);
            if let Some(secret) = source.child(s::SECRET_REF) {
                required(secret, c::object_reference::NAME, &path.child("secretRef"), errors);
                required(secret, c::object_reference::NAMESPACE, &path.child("secretRef"), errors);
            }
        }
        t::CINDER_VOLUME_SOURCE => local_secret(source, c::cinder_volume_source::SECRET_REF, path, errors),
        t::CINDER_PERSISTENT_VOLUME_SOURCE => {
            if let Some(secret) = source.child(c::cinder_persistent_volume_source::SECRET_REF) {
                required(secret, c::secret_reference::NAME, &path.child("secretRef"), errors);
                required(secret, c::secret_reference::NAMESPACE, &path.child("secretRef"), errors);
            }
        }
        t::GLUSTERFS_PERSISTENT_VOLUME_SOURCE => gluster_namespace(source, path, errors),
        t::CSI_PERSISTENT_VOLUME_SOURCE => csi_of_volume(source, path, errors),
        t::LOCAL_VOLUME_SOURCE => {
            use c::local_volume_source as s;
            match source.str(s::PATH) {
                "" => errors.required(&path.child("path"), ""),
                local => no_backsteps(local, &path.child("path"), errors),
            }
        }
        _ => {}
    }
}

fn local_secret(source: &Struct, field: Field, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if let Some(secret) = source.child(field) {
        required(secret, c::local_object_reference::NAME, &path.child(field.def().json), errors);
    }
}

fn partition(number: Option<i64>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let number = number.unwrap_or(0);
    if !(0..=255).contains(&number) {
        errors.invalid(&path.child("partition"), number, names::inclusive_range_error(0, 255));
    }
}

/// `iqn.`, `eui.` and `naa.` names.
fn iscsi_name(name: &str) -> bool {
    let alnum = |text: &str, len: usize| {
        let tail = text.get(4..).unwrap_or_default();
        tail.len() == len && tail.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    match name.get(..3) {
        Some("iqn") => iqn(name),
        Some("eui") => alnum(name, 16),
        Some("naa") => alnum(name, 32),
        _ => false,
    }
}

/// `iqn.YYYY-MM.domain:rest`
fn iqn(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("iqn.") else { return false };
    let bytes = rest.as_bytes();
    let date = bytes.len() > 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && bytes[5..7].iter().all(u8::is_ascii_digit)
        && bytes[7] == b'.';
    let Some((domain, tail)) = rest.get(8..).and_then(|rest| rest.split_once(':')) else { return false };
    date && !domain.is_empty()
        && domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        && !tail.is_empty()
        && !tail.contains([',', ';', '*', '&', '$', '|'])
        && !tail.contains(|c: char| c.is_ascii_whitespace())
}

const START: &str = "must be valid format starting with iqn, eui, or naa";
const FORMAT: &str = "must be valid format";
const TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

fn has_start(name: &str) -> bool {
    ["iqn", "eui", "naa"].iter().any(|start| name.starts_with(start))
}

fn lun(source: &Struct, field: Field, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let lun = source.int(field).unwrap_or(0);
    if !(0..=255).contains(&lun) {
        errors.invalid(&path.child("lun"), lun, names::inclusive_range_error(0, 255));
    }
}

fn iscsi(source: &Struct, name: &str, at: &FieldPath<'_>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::iscsi_volume_source as s;
    required(source, s::TARGET_PORTAL, path, errors);
    let iqn = source.str(s::IQN);
    if iqn.is_empty() {
        errors.required(&path.child("iqn"), "");
    } else if !has_start(iqn) {
        errors.invalid(&path.child("iqn"), iqn, START);
    } else if !iscsi_name(iqn) {
        errors.invalid(&path.child("iqn"), iqn, FORMAT);
    }
    lun(source, s::LUN, path, errors);
    let chap =
        source.bool(s::CHAP_AUTH_DISCOVERY) == Some(true) || source.bool(s::CHAP_AUTH_SESSION) == Some(true);
    if chap && !present(source, s::SECRET_REF) {
        errors.required(&path.child("secretRef"), "");
    }
    if present(source, s::INITIATOR_NAME) {
        let initiator = source.str(s::INITIATOR_NAME);
        let below = path.child("initiatorname");
        if !has_start(initiator) {
            errors.invalid(&below, initiator, START);
        } else if !iscsi_name(initiator) {
            errors.invalid(&below, initiator, FORMAT);
        }
        if name.len() + 1 + source.str(s::TARGET_PORTAL).len() > 64 {
            errors.invalid(&at.child("name"), name, TOO_LONG);
        }
    }
}

fn iscsi_of_volume(source: &Struct, name: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::iscsi_persistent_volume_source as s;
    required(source, s::TARGET_PORTAL, path, errors);
    let portal = source.str(s::TARGET_PORTAL);
    if present(source, s::INITIATOR_NAME) && name.len() + 1 + portal.len() > 64 {
        errors.invalid(&path.child("targetportal"), portal, TOO_LONG);
    }
    let iqn = source.str(s::IQN);
    if iqn.is_empty() {
        errors.required(&path.child("iqn"), "");
    } else if !iscsi_name(iqn) {
        errors.invalid(&path.child("iqn"), iqn, FORMAT);
    }
    lun(source, s::LUN, path, errors);
    let chap =
        source.bool(s::CHAP_AUTH_DISCOVERY) == Some(true) || source.bool(s::CHAP_AUTH_SESSION) == Some(true);
    match source.child(s::SECRET_REF) {
        Some(secret) => required(secret, c::secret_reference::NAME, &path.child("secretRef"), errors),
        None if chap => errors.required(&path.child("secretRef"), ""),
        None => {}
    }
    let initiator = source.str(s::INITIATOR_NAME);
    if present(source, s::INITIATOR_NAME) && !iscsi_name(initiator) {
        errors.invalid(&path.child("initiatorname"), initiator, FORMAT);
    }
}

fn fibre_channel(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::fc_volume_source as s;
    let (targets, wwids) = (source.list(s::TARGET_WWNS), source.list(s::WWIDS));
    let at = path.child("targetWWNs");
    match (targets.is_empty(), wwids.is_empty()) {
        (true, true) => errors.required(&at, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => {
            let text = "targetWWNs and wwids can not be specified simultaneously";
            errors.invalid(&at, string_list(source, s::TARGET_WWNS), text);
        }
        _ => {}
    }
    if !targets.is_empty() {
        if present(source, s::LUN) {
            lun(source, s::LUN, path, errors);
        } else {
            errors.required(&path.child("lun"), "lun is required if targetWWNs is specified");
        }
    }
}

/// `host:port`, as Go's `net.SplitHostPort` takes it.
fn host_and_port(text: &str) -> bool {
    match text.strip_prefix('[') {
        Some(rest) => rest
            .split_once("]:")
            .is_some_and(|(host, port)| !host.contains(['[', ']']) && !port.contains(':')),
        None => text.matches(':').count() == 1 && !text.contains(['[', ']']),
    }
}

fn quobyte(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::quobyte_volume_source as s;
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = source.str(s::REGISTRY);
    if registry.is_empty() {
        errors.required(&path.child("registry"), PAIRS);
    } else if source.str(s::TENANT).len() >= 65 {
        let text = "must be a UUID and may not exceed a length of 64 characters";
        errors.required(&path.child("tenant"), text);
    } else {
        for _ in registry.split(',').filter(|pair| !host_and_port(pair)) {
            errors.invalid(&path.child("registry"), registry, PAIRS);
        }
    }
    required(source, s::VOLUME, path, errors);
}

fn flocker(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::flocker_volume_source as s;
    let name = source.str(s::DATASET_NAME);
    match (name.is_empty(), source.str(s::DATASET_UUID).is_empty()) {
        (true, true) => errors.required(path, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            let text = "datasetName and datasetUUID can not be specified simultaneously";
            errors.invalid(path, "resource", text);
        }
        _ => {}
    }
    if name.contains('/') {
        errors.invalid(&path.child("datasetName"), name, "must not contain '/'");
    }
}

fn flex_options(source: &Struct, field: Field, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let at = path.child("options");
    for (key, _) in pairs(source, field) {
        let namespace = format!(".{}", key.split('/').next().unwrap_or_default().to_ascii_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            errors.invalid(&at.key(key), key, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

fn azure_disk(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::azure_disk_volume_source as s;
    let uri = source.str(s::DISK_URI);
    for (field, supported) in
        [(s::CACHING_MODE, ["None", "ReadOnly", "ReadWrite"]), (s::KIND, ["Dedicated", "Managed", "Shared"])]
    {
        if present(source, field) && !supported.contains(&source.str(field)) {
            errors.not_supported(&path.child(field.def().json), source.str(field), &supported);
        }
    }
    if !present(source, s::KIND) {
        return;
    }
    let managed = source.str(s::KIND) == "Managed";
    let (start, example) = if managed {
        (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        )
    } else {
        ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
    };
    if !uri.starts_with(start) {
        errors.not_supported(&path.child("diskURI"), uri, &[example]);
    }
}

fn storage_os(source: &Struct, name: Field, namespace: Field, path: &FieldPath<'_>, errors: &mut ErrorList) {
    required(source, name, path, errors);
    for field in [name, namespace] {
        let value = source.str(field);
        if !value.is_empty() {
            errors.invalid_each(&path.child(field.def().json), value, names::dns1123_label(value));
        }
    }
}

fn gluster_namespace(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::glusterfs_persistent_volume_source as s;
    if !present(source, s::ENDPOINTS_NAMESPACE) {
        return;
    }
    let namespace = source.str(s::ENDPOINTS_NAMESPACE);
    let at = path.child("endpointsNamespace");
    if namespace.is_empty() {
        errors.invalid(&at, "", "if the endpointnamespace is set, it must be a valid namespace name");
    } else {
        errors.invalid_each(&at, namespace, names::dns1123_label(namespace));
    }
}

fn csi_of_volume(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::csi_persistent_volume_source as s;
    super::volumes::validate_csi_driver(source.str(s::DRIVER), &path.child("driver"), errors);
    required(source, s::VOLUME_HANDLE, path, errors);
    for field in [
        s::CONTROLLER_PUBLISH_SECRET_REF,
        s::CONTROLLER_EXPAND_SECRET_REF,
        s::NODE_PUBLISH_SECRET_REF,
        s::NODE_EXPAND_SECRET_REF,
    ] {
        let Some(secret) = source.child(field) else { continue };
        let at = path.child(field.def().json);
        let (name, namespace) =
            (secret.str(c::secret_reference::NAME), secret.str(c::secret_reference::NAMESPACE));
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            errors.invalid_each(&at.child("name"), name, names::dns1123_subdomain(name));
        }
        if namespace.is_empty() {
            errors.required(&at.child("namespace"), "");
        } else {
            errors.invalid_each(&at.child("namespace"), namespace, names::dns1123_label(namespace));
        }
    }
}

/// A volume attributes class' name: not empty where it is set.
pub fn attributes_class(s: &Struct, field: Field, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if present(s, field) {
        let class = s.str(field);
        let at = path.child(field.def().json);
        if class.is_empty() {
            errors.required(&at, "an empty string is disallowed");
        } else {
            errors.invalid_each(&at, class, names::dns1123_subdomain(class));
        }
    }
}
