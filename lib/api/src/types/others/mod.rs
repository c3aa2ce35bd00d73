//! Rules of the remaining groups.

use crate::schema::TypeId;
use crate::t;
use crate::types::{GENERIC, Strategy};

mod autoscaling;
pub mod definition;
pub mod extensions;
mod flow;
pub mod misc;
pub mod networking;
pub mod policy;
pub mod rbac;
pub mod storage;

/// The rules of a type of these groups.
pub fn strategy(ty: TypeId) -> &'static Strategy {
    match ty {
        t::core_v1::PERSISTENT_VOLUME => &super::core::persistent_volume::STRATEGY,
        t::core_v1::PERSISTENT_VOLUME_CLAIM => &super::core::pvc::CLAIM,
        t::rbac_v1::ROLE => &rbac::ROLE,
        t::rbac_v1::CLUSTER_ROLE => &rbac::CLUSTER_ROLE,
        t::rbac_v1::ROLE_BINDING => &rbac::ROLE_BINDING,
        t::rbac_v1::CLUSTER_ROLE_BINDING => &rbac::CLUSTER_ROLE_BINDING,
        t::networking_v1::INGRESS => &networking::INGRESS,
        t::networking_v1::INGRESS_CLASS => &networking::INGRESS_CLASS,
        t::networking_v1::NETWORK_POLICY => &networking::NETWORK_POLICY,
        t::networking_v1::IP_ADDRESS => &networking::IP_ADDRESS,
        t::networking_v1::SERVICE_CIDR => &networking::SERVICE_CIDR,
        t::policy_v1::POD_DISRUPTION_BUDGET => &policy::BUDGET,
        t::autoscaling_v1::HORIZONTAL_POD_AUTOSCALER => &policy::AUTOSCALER_V1,
        t::autoscaling_v2::HORIZONTAL_POD_AUTOSCALER => &policy::AUTOSCALER,
        t::coordination_v1::LEASE => &misc::LEASE,
        t::scheduling_v1::PRIORITY_CLASS => &misc::PRIORITY_CLASS,
        t::node_v1::RUNTIME_CLASS => &misc::RUNTIME_CLASS,
        t::storage_v1::STORAGE_CLASS => &misc::STORAGE_CLASS,
        t::certificates_v1::CERTIFICATE_SIGNING_REQUEST => &misc::CSR,
        t::admissionregistration_v1::VALIDATING_WEBHOOK_CONFIGURATION
        | t::admissionregistration_v1::MUTATING_WEBHOOK_CONFIGURATION => &misc::VERSIONED,
        t::admissionregistration_v1::VALIDATING_ADMISSION_POLICY => &storage::VALIDATING_POLICY,
        t::admissionregistration_v1::VALIDATING_ADMISSION_POLICY_BINDING => &storage::VALIDATING_BINDING,
        t::flowcontrol_v1::FLOW_SCHEMA => &flow::FLOW_SCHEMA,
        t::flowcontrol_v1::PRIORITY_LEVEL_CONFIGURATION => &flow::PRIORITY_LEVEL,
        t::resource_v1::RESOURCE_SLICE => &storage::RESOURCE_SLICE,
        t::resource_v1::RESOURCE_CLAIM => &storage::RESOURCE_CLAIM,
        t::resource_v1::RESOURCE_CLAIM_TEMPLATE => &storage::RESOURCE_CLAIM_TEMPLATE,
        t::resource_v1::DEVICE_CLASS => &storage::DEVICE_CLASS,
        t::storage_v1::VOLUME_ATTRIBUTES_CLASS => &storage::VOLUME_ATTRIBUTES_CLASS,
        t::storage_v1::VOLUME_ATTACHMENT => &storage::VOLUME_ATTACHMENT,
        t::storage_v1::CSI_NODE => &storage::CSI_NODE,
        t::storage_v1::CSI_DRIVER => &storage::CSI_DRIVER,
        t::storage_v1::CSI_STORAGE_CAPACITY => &storage::CSI_STORAGE_CAPACITY,
        t::apiextensions_v1::CUSTOM_RESOURCE_DEFINITION => &extensions::CUSTOM_RESOURCE_DEFINITION,
        t::apiregistration_v1::API_SERVICE => &extensions::API_SERVICE,
        _ => &GENERIC,
    }
}
