//! Claims and volumes: DefaultStorageClass, StorageObjectInUseProtection, PersistentVolumeClaimResize.

use super::{Admission, AdmissionAttributes, ClusterReads, Operation};
use crate::authn::reads;
use jiff::Timestamp;
use keelson_api::doc::{Doc, Value};
use keelson_api::f::core_v1 as c;
use keelson_api::quantity::Quantity;
use keelson_api::status::Status;
use serde::Deserialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

const GROUP: &str = "storage.k8s.io";
const CLAIMS: &str = "persistentvolumeclaims";
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Marked {
    metadata: MarkedMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MarkedMeta {
    name: String,
    annotations: BTreeMap<String, String>,
    creation_timestamp: Option<Timestamp>,
}

/// Name of the object that an annotation marks as default: the newest, of equally old ones the first by name.
pub(super) fn default_object(
    reads: &dyn ClusterReads,
    group: &str,
    resource: &str,
    marks: &[&str],
) -> Option<String> {
    let objects = reads.list(group, resource, "");
    let parsed = objects.iter().filter_map(|bytes| serde_json::from_slice::<Marked>(bytes).ok());
    let marked = parsed.map(|o| o.metadata).filter(|meta| {
        marks.iter().any(|mark| meta.annotations.get(*mark).is_some_and(|value| value == "true"))
    });
    marked.min_by_key(|meta| (Reverse(meta.creation_timestamp), meta.name.clone())).map(|meta| meta.name)
}

/// A claim without a class gets the default one.
pub(super) struct DefaultStorageClass {
    reads: Arc<dyn ClusterReads>,
}

impl DefaultStorageClass {
    pub(super) fn new(reads: Arc<dyn ClusterReads>) -> DefaultStorageClass {
        DefaultStorageClass { reads }
    }
}

impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn mutate(&self, claim: &mut Doc, _old: Option<&Doc>, a: &AdmissionAttributes<'_>) -> Result<(), Status> {
        let path = [c::persistent_volume_claim::SPEC, c::persistent_volume_claim_spec::STORAGE_CLASS_NAME];
        // An empty name is a choice: no class.
        if !a.is_main("", CLAIMS)
            || a.operation != Operation::Create
            || claim.get(&path).is_some()
            || claim.meta().annotation(CLASS_ANNOTATION).is_some()
        {
            return Ok(());
        }
        let marks = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ];
        if let Some(name) = default_object(self.reads.as_ref(), GROUP, "storageclasses", &marks) {
            claim.set(&path, name);
        }
        Ok(())
    }
}

/// What is in use goes only after its use has ended: a finalizer that the protection controllers take off.
pub(super) struct StorageObjectInUseProtection;

impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn mutate(
        &self,
        object: &mut Doc,
        _old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        if a.operation != Operation::Create || !a.subresource.is_empty() {
            return Ok(());
        }
        let finalizer = match (a.group, a.resource) {
            ("", "persistentvolumes") => "kubernetes.io/pv-protection",
            ("", CLAIMS) => "kubernetes.io/pvc-protection",
            (GROUP, "volumeattributesclasses") => "kubernetes.io/vac-protection",
            _ => return Ok(()),
        };
        let mut finalizers: Vec<String> = object.meta().finalizers().map(str::to_owned).collect();
        if !finalizers.iter().any(|f| f == finalizer) {
            finalizers.push(finalizer.to_owned());
            object.meta_mut().set_finalizers(finalizers.iter().map(String::as_str));
        }
        Ok(())
    }
}

/// A claim grows only if it is bound and its class says that its volumes can.
pub(super) struct PersistentVolumeClaimResize {
    reads: Arc<dyn ClusterReads>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StorageClass {
    allow_volume_expansion: bool,
}

impl PersistentVolumeClaimResize {
    pub(super) fn new(reads: Arc<dyn ClusterReads>) -> PersistentVolumeClaimResize {
        PersistentVolumeClaimResize { reads }
    }

    fn may_grow(&self, class: &str, old_class: &str) -> bool {
        !class.is_empty()
            && class == old_class
            && reads::read::<StorageClass>(self.reads.as_ref(), GROUP, "storageclasses", "", class)
                .is_some_and(|class| class.allow_volume_expansion)
    }
}

fn requested(claim: &Doc) -> Option<Quantity> {
    let path = [
        c::persistent_volume_claim::SPEC,
        c::persistent_volume_claim_spec::RESOURCES,
        c::volume_resource_requirements::REQUESTS,
    ];
    claim.map(&path)?.get("storage").and_then(Value::as_str).and_then(|text| Quantity::parse(text).ok())
}

fn class_of(claim: &Doc) -> &str {
    let path = [c::persistent_volume_claim::SPEC, c::persistent_volume_claim_spec::STORAGE_CLASS_NAME];
    claim.meta().annotation(CLASS_ANNOTATION).unwrap_or_else(|| claim.str(&path))
}

impl Admission for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn validate(
        &self,
        object: Option<&Doc>,
        old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        let (Some(claim), Some(old)) = (object, old) else { return Ok(()) };
        if !a.is_main("", CLAIMS) || a.operation != Operation::Update || requested(claim) <= requested(old) {
            return Ok(());
        }
        if old.str(&[c::persistent_volume_claim::STATUS, c::persistent_volume_claim_status::PHASE]) != "Bound"
        {
            return Err(a.forbidden(Some(claim), "Only bound persistent volume claims can be expanded"));
        }
        if !self.may_grow(class_of(claim), class_of(old)) {
            let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                       support resize";
            return Err(a.forbidden(Some(claim), why));
        }
        Ok(())
    }
}
