//! Columns of the remaining groups.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    AGE, Cell, Column, Columns, NAME, age_cell, column, human_duration, name_cell, number, or_none,
    selector_cell, text, wide_text,
};
use crate::doc::{Doc, Struct, Value};
use crate::f::autoscaling_v1 as a1;
use crate::f::autoscaling_v2 as a2;
use crate::f::certificates_v1 as cert;
use crate::f::coordination_v1 as co;
use crate::f::networking_v1 as n;
use crate::f::node_v1 as no;
use crate::f::policy_v1 as p;
use crate::f::rbac_v1 as r;
use crate::f::scheduling_v1 as sch;
use crate::f::storage_v1 as st;
use crate::schema::Field;
use crate::types::walk::{present, strs, structs};

fn child(doc: &Doc, field: Field) -> Option<&Struct> {
    doc.root()?.child(field)
}

fn binding(doc: &Doc, now: Timestamp, role: Field, subjects: Field) -> Vec<Cell> {
    let reference = child(doc, role).map_or("/".to_owned(), |role| {
        format!("{}/{}", role.str(r::role_ref::KIND), role.str(r::role_ref::NAME))
    });
    let (mut users, mut groups, mut accounts) = (Vec::new(), Vec::new(), Vec::new());
    for (_, subject) in doc.root().into_iter().flat_map(|root| structs(root, subjects)) {
        let name = subject.str(r::subject::NAME);
        match subject.str(r::subject::KIND) {
            "User" => users.push(name.to_owned()),
            "Group" => groups.push(name.to_owned()),
            "ServiceAccount" => match subject.str(r::subject::NAMESPACE) {
                "" => accounts.push(name.to_owned()),
                namespace => accounts.push(format!("{namespace}/{name}")),
            },
            _ => {}
        }
    }
    vec![
        name_cell(doc),
        reference.into(),
        age_cell(doc, now),
        users.join(", ").into(),
        groups.join(", ").into(),
        accounts.join(", ").into(),
    ]
}

pub static ROLE_BINDING: Columns = Columns {
    definitions: &[
        NAME,
        text(
            "Role",
            "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
        ),
        AGE,
        wide_text("Users", "Users in the roleBinding"),
        wide_text("Groups", "Groups in the roleBinding"),
        wide_text("ServiceAccounts", "ServiceAccounts in the roleBinding"),
    ],
    cells: |doc, now| binding(doc, now, r::role_binding::ROLE_REF, r::role_binding::SUBJECTS),
};

pub static CLUSTER_ROLE_BINDING: Columns = Columns {
    definitions: &[
        NAME,
        text(
            "Role",
            "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
        ),
        AGE,
        wide_text("Users", "Users in the clusterRoleBinding"),
        wide_text("Groups", "Groups in the clusterRoleBinding"),
        wide_text("ServiceAccounts", "ServiceAccounts in the clusterRoleBinding"),
    ],
    cells: |doc, now| binding(doc, now, r::cluster_role_binding::ROLE_REF, r::cluster_role_binding::SUBJECTS),
};

pub static INGRESS: Columns = Columns {
    definitions: &[
        NAME,
        text(
            "Class",
            "The name of the IngressClass resource that should be used for additional configuration",
        ),
        text("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
        text("Address", "Address is a list containing ingress points for the load-balancer"),
        text("Ports", "Ports of TLS configurations that open"),
        AGE,
    ],
    cells: |doc, now| {
        use n::ingress_spec as s;
        let empty = Struct::new(crate::t::networking_v1::INGRESS_SPEC);
        let spec = child(doc, n::ingress::SPEC).unwrap_or(&empty);
        let class =
            if present(spec, s::INGRESS_CLASS_NAME) { spec.str(s::INGRESS_CLASS_NAME) } else { "<none>" };
        let ports = if spec.list(s::TLS).is_empty() { "80" } else { "80, 443" };
        vec![
            name_cell(doc),
            class.into(),
            hosts(spec).into(),
            addresses(doc).into(),
            ports.into(),
            age_cell(doc, now),
        ]
    },
};

fn hosts(spec: &Struct) -> String {
    let rules = spec.list(n::ingress_spec::RULES).len();
    let mut list: Vec<&str> = Vec::new();
    let mut more = false;
    for (_, rule) in structs(spec, n::ingress_spec::RULES) {
        more |= list.len() == 3;
        let host = rule.str(n::ingress_rule::HOST);
        if !more && !host.is_empty() {
            list.push(host);
        }
    }
    if list.is_empty() {
        return "*".to_owned();
    }
    let joined = list.join(",");
    if more { format!("{joined} + {} more...", rules - 3) } else { joined }
}

fn addresses(doc: &Doc) -> String {
    use n::ingress_load_balancer_ingress as i;
    let balancer =
        child(doc, n::ingress::STATUS).and_then(|status| status.child(n::ingress_status::LOAD_BALANCER));
    let all: BTreeSet<&str> = balancer
        .into_iter()
        .flat_map(|balancer| structs(balancer, n::ingress_load_balancer_status::INGRESS))
        .map(|(_, one)| if one.str(i::IP).is_empty() { one.str(i::HOSTNAME) } else { one.str(i::IP) })
        .filter(|one| !one.is_empty())
        .collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

pub static INGRESS_CLASS: Columns = Columns {
    definitions: &[
        NAME,
        text("Controller", "Controller that is responsible for handling this class"),
        text("Parameters", "A reference to a resource with additional parameters"),
        AGE,
    ],
    cells: |doc, now| {
        use n::ingress_class_parameters_reference as pr;
        let spec = child(doc, n::ingress_class::SPEC);
        let mut name = doc.meta().name().to_owned();
        if doc.meta().annotation("ingressclass.kubernetes.io/is-default-class") == Some("true") {
            name.push_str(" (default)");
        }
        let parameters = spec.and_then(|spec| spec.child(n::ingress_class_spec::PARAMETERS)).map(|one| {
            let group = one.str(pr::API_GROUP);
            let dot = if present(one, pr::API_GROUP) { "." } else { "" };
            format!("{}{dot}{group}/{}", one.str(pr::KIND), one.str(pr::NAME))
        });
        vec![
            name.into(),
            spec.map_or("", |spec| spec.str(n::ingress_class_spec::CONTROLLER)).into(),
            parameters.unwrap_or_else(|| "<none>".to_owned()).into(),
            age_cell(doc, now),
        ]
    },
};

pub static NETWORK_POLICY: Columns = Columns {
    definitions: &[
        NAME,
        text("Pod-Selector", "").of(crate::f::networking_v1::network_policy_spec::POD_SELECTOR),
        AGE,
    ],
    cells: |doc, now| {
        let selector =
            child(doc, n::network_policy::SPEC).and_then(|s| s.child(n::network_policy_spec::POD_SELECTOR));
        vec![name_cell(doc), selector_cell(selector), age_cell(doc, now)]
    },
};

pub static IP_ADDRESS: Columns = Columns {
    definitions: &[NAME, text("ParentRef", "").of(crate::f::networking_v1::ip_address_spec::PARENT_REF)],
    cells: |doc, now| {
        use n::parent_reference as pr;
        let parent =
            child(doc, n::ip_address::SPEC).and_then(|spec| spec.child(n::ip_address_spec::PARENT_REF));
        let text = parent.map(|parent| {
            let mut out = parent.str(pr::RESOURCE).to_lowercase();
            if !parent.str(pr::GROUP).is_empty() {
                out.push_str(&format!(".{}", parent.str(pr::GROUP).to_lowercase()));
            }
            if !parent.str(pr::NAMESPACE).is_empty() {
                out.push_str(&format!("/{}", parent.str(pr::NAMESPACE)));
            }
            out.push_str(&format!("/{}", parent.str(pr::NAME)));
            out
        });
        vec![name_cell(doc), text.unwrap_or_else(|| "<none>".to_owned()).into(), age_cell(doc, now)]
    },
};

pub static SERVICE_CIDR: Columns = Columns {
    definitions: &[NAME, text("CIDRs", "").of(crate::f::networking_v1::service_cidr_spec::CIDRS), AGE],
    cells: |doc, now| {
        let cidrs: Vec<&str> = child(doc, n::service_cidr::SPEC)
            .into_iter()
            .flat_map(|spec| strs(spec, n::service_cidr_spec::CIDRS))
            .map(|(_, cidr)| cidr)
            .collect();
        vec![name_cell(doc), cidrs.join(",").into(), age_cell(doc, now)]
    },
};

fn int_or_string(value: Option<&Value>) -> String {
    match value {
        Some(Value::Int(number)) => number.to_string(),
        Some(Value::Str(text)) => text.to_string(),
        _ => "N/A".to_owned(),
    }
}

pub static BUDGET: Columns = Columns {
    definitions: &[
        NAME,
        text("Min Available", "The minimum number of pods that must be available."),
        text("Max Unavailable", "The maximum number of pods that may be unavailable."),
        number("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
        AGE,
    ],
    cells: |doc, now| {
        use p::pod_disruption_budget as b;
        use p::pod_disruption_budget_spec as s;
        let get = |field: Field| int_or_string(doc.get(&[b::SPEC, field]));
        let allowed =
            doc.int(&[b::STATUS, p::pod_disruption_budget_status::DISRUPTIONS_ALLOWED]).unwrap_or(0);
        vec![
            name_cell(doc),
            get(s::MIN_AVAILABLE).into(),
            get(s::MAX_UNAVAILABLE).into(),
            allowed.into(),
            age_cell(doc, now),
        ]
    },
};

const AUTOSCALER_COLUMNS: [Column; 7] = [
    NAME,
    text("Reference", "Reference to the object being scaled"),
    text("Targets", "Metric targets"),
    text("MinPods", "Lower limit for the number of pods"),
    text("MaxPods", "Upper limit for the number of pods"),
    text("Replicas", "Number of replicas"),
    AGE,
];

pub static AUTOSCALER: Columns = Columns {
    definitions: &[
        NAME,
        text("Reference", "").of(crate::f::autoscaling_v2::horizontal_pod_autoscaler_spec::SCALE_TARGET_REF),
        text("Targets", "").of(crate::f::autoscaling_v2::horizontal_pod_autoscaler_spec::METRICS),
        text("MinPods", "").of(crate::f::autoscaling_v1::horizontal_pod_autoscaler_spec::MIN_REPLICAS),
        text("MaxPods", "").of(crate::f::autoscaling_v2::horizontal_pod_autoscaler_spec::MAX_REPLICAS),
        text("Replicas", "").of(crate::f::autoscaling_v2::horizontal_pod_autoscaler_status::CURRENT_REPLICAS),
        AGE,
    ],
    cells: |doc, now| {
        use a2::cross_version_object_reference as cr;
        use a2::horizontal_pod_autoscaler as h;
        use a2::horizontal_pod_autoscaler_spec as s;
        use a2::horizontal_pod_autoscaler_status as hs;
        let spec = child(doc, h::SPEC);
        let target = spec.and_then(|spec| spec.child(s::SCALE_TARGET_REF));
        let get = |field: Field| target.map_or("", |target| target.str(field));
        let min = spec.and_then(|spec| spec.int(s::MIN_REPLICAS));
        vec![
            name_cell(doc),
            format!("{}/{}", get(cr::KIND), get(cr::NAME)).into(),
            metrics(spec, child(doc, h::STATUS)).into(),
            min.map_or("<unset>".to_owned(), |min| min.to_string()).into(),
            spec.and_then(|spec| spec.int(s::MAX_REPLICAS)).unwrap_or(0).into(),
            doc.int(&[h::STATUS, hs::CURRENT_REPLICAS]).unwrap_or(0).into(),
            age_cell(doc, now),
        ]
    },
};

/// `cpu: 12%/80%, …`: at most two, and how many more.
fn metrics(spec: Option<&Struct>, status: Option<&Struct>) -> String {
    let Some(spec) = spec.filter(|s| !s.list(a2::horizontal_pod_autoscaler_spec::METRICS).is_empty()) else {
        return "<none>".to_owned();
    };
    let statuses = status.map_or(&[][..], |s| s.list(a2::horizontal_pod_autoscaler_status::CURRENT_METRICS));
    let all: Vec<String> = structs(spec, a2::horizontal_pod_autoscaler_spec::METRICS)
        .map(|(i, metric)| metric_text(metric, statuses.get(i).and_then(Value::as_struct)))
        .collect();
    let joined = all.iter().take(2).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > 2 { format!("{joined} + {} more...", all.len() - 2) } else { joined }
}

fn metric_text(metric: &Struct, status: Option<&Struct>) -> String {
    use a2::metric_spec as m;
    use a2::metric_status as ms;
    use a2::metric_target as mt;
    use a2::metric_value_status as mv;
    // Source, its target; the status' source, its current; the resource's name.
    let parts = match metric.str(m::TYPE) {
        "External" => (
            metric.child(m::EXTERNAL).and_then(|s| s.child(a2::external_metric_source::TARGET)),
            status
                .and_then(|s| s.child(ms::EXTERNAL))
                .and_then(|s| s.child(a2::external_metric_status::CURRENT)),
            "",
        ),
        "Pods" => (
            metric.child(m::PODS).and_then(|s| s.child(a2::pods_metric_source::TARGET)),
            status.and_then(|s| s.child(ms::PODS)).and_then(|s| s.child(a2::pods_metric_status::CURRENT)),
            "",
        ),
        "Object" => (
            metric.child(m::OBJECT).and_then(|s| s.child(a2::object_metric_source::TARGET)),
            status.and_then(|s| s.child(ms::OBJECT)).and_then(|s| s.child(a2::object_metric_status::CURRENT)),
            "",
        ),
        "Resource" => (
            metric.child(m::RESOURCE).and_then(|s| s.child(a2::resource_metric_source::TARGET)),
            status
                .and_then(|s| s.child(ms::RESOURCE))
                .and_then(|s| s.child(a2::resource_metric_status::CURRENT)),
            metric.child(m::RESOURCE).map_or("", |s| s.str(a2::resource_metric_source::NAME)),
        ),
        "ContainerResource" => (
            metric
                .child(m::CONTAINER_RESOURCE)
                .and_then(|s| s.child(a2::container_resource_metric_source::TARGET)),
            status
                .and_then(|s| s.child(ms::CONTAINER_RESOURCE))
                .and_then(|s| s.child(a2::container_resource_metric_status::CURRENT)),
            metric
                .child(m::CONTAINER_RESOURCE)
                .map_or("", |s| s.str(a2::container_resource_metric_source::NAME)),
        ),
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current, name) = parts;
    let show = |s: Option<&Struct>, field: Field| {
        s.map(|s| s.str(field)).filter(|text| !text.is_empty()).unwrap_or("<unknown>").to_owned()
    };
    let percent = |s: Option<&Struct>, field: Field, none: &str| {
        s.and_then(|s| s.int(field)).map_or_else(|| none.to_owned(), |value| format!("{value}%"))
    };
    let average = target.is_some_and(|t| present(t, mt::AVERAGE_VALUE));
    if !name.is_empty() {
        return if average {
            format!("{name}: {}/{}", show(current, mv::AVERAGE_VALUE), show(target, mt::AVERAGE_VALUE))
        } else {
            let now = percent(current, mv::AVERAGE_UTILIZATION, "<unknown>");
            format!("{name}: {now}/{}", percent(target, mt::AVERAGE_UTILIZATION, "<auto>"))
        };
    }
    if average {
        let suffix = if metric.str(m::TYPE) == "Pods" { "" } else { " (avg)" };
        format!("{}/{}{suffix}", show(current, mv::AVERAGE_VALUE), show(target, mt::AVERAGE_VALUE))
    } else {
        format!("{}/{}", show(current, mv::VALUE), show(target, mt::VALUE))
    }
}

pub static AUTOSCALER_V1: Columns = Columns {
    definitions: &AUTOSCALER_COLUMNS,
    cells: |doc, now| {
        use a1::cross_version_object_reference as cr;
        use a1::horizontal_pod_autoscaler as h;
        use a1::horizontal_pod_autoscaler_spec as s;
        use a1::horizontal_pod_autoscaler_status as hs;
        let spec = child(doc, h::SPEC);
        let target = spec.and_then(|spec| spec.child(s::SCALE_TARGET_REF));
        let get = |field: Field| target.map_or("", |target| target.str(field));
        let wanted = spec.and_then(|spec| spec.int(s::TARGET_CPU_UTILIZATION_PERCENTAGE));
        let current = doc.int(&[h::STATUS, hs::CURRENT_CPU_UTILIZATION_PERCENTAGE]);
        let targets = wanted.map_or("<none>".to_owned(), |wanted| {
            let current = current.map_or("<unknown>".to_owned(), |current| format!("{current}%"));
            format!("cpu: {current}/{wanted}%")
        });
        let min = spec.and_then(|spec| spec.int(s::MIN_REPLICAS));
        vec![
            name_cell(doc),
            format!("{}/{}", get(cr::KIND), get(cr::NAME)).into(),
            targets.into(),
            min.map_or("<unset>".to_owned(), |min| min.to_string()).into(),
            spec.and_then(|spec| spec.int(s::MAX_REPLICAS)).unwrap_or(0).into(),
            doc.int(&[h::STATUS, hs::CURRENT_REPLICAS]).unwrap_or(0).into(),
            age_cell(doc, now),
        ]
    },
};

pub static LEASE: Columns = Columns {
    definitions: &[NAME, text("Holder", "").of(crate::f::coordination_v1::lease_spec::HOLDER_IDENTITY), AGE],
    cells: |doc, now| {
        let holder = doc.str(&[co::lease::SPEC, co::lease_spec::HOLDER_IDENTITY]);
        vec![name_cell(doc), holder.into(), age_cell(doc, now)]
    },
};

pub static PRIORITY_CLASS: Columns = Columns {
    definitions: &[
        NAME,
        number("Value", "").of(crate::f::scheduling_v1::priority_class::VALUE),
        column("Global-Default", "boolean", "", "")
            .of(crate::f::scheduling_v1::priority_class::GLOBAL_DEFAULT),
        AGE,
        text("PreemptionPolicy", "").of(crate::f::scheduling_v1::priority_class::PREEMPTION_POLICY),
    ],
    cells: |doc, now| {
        use sch::priority_class as pc;
        vec![
            name_cell(doc),
            doc.int(&[pc::VALUE]).unwrap_or(0).into(),
            doc.bool(&[pc::GLOBAL_DEFAULT]).unwrap_or(false).into(),
            age_cell(doc, now),
            doc.str(&[pc::PREEMPTION_POLICY]).into(),
        ]
    },
};

pub static RUNTIME_CLASS: Columns = Columns {
    definitions: &[NAME, text("Handler", ""), AGE],
    cells: |doc, now| vec![name_cell(doc), doc.str(&[no::runtime_class::HANDLER]).into(), age_cell(doc, now)],
};

pub static STORAGE_CLASS: Columns = Columns {
    definitions: &[
        NAME,
        text("Provisioner", "").of(crate::f::storage_v1::storage_class::PROVISIONER),
        text("ReclaimPolicy", "").of(crate::f::storage_v1::storage_class::RECLAIM_POLICY),
        text("VolumeBindingMode", "").of(crate::f::storage_v1::storage_class::VOLUME_BINDING_MODE),
        text("AllowVolumeExpansion", "").of(crate::f::storage_v1::storage_class::ALLOW_VOLUME_EXPANSION),
        AGE,
    ],
    cells: |doc, now| {
        use st::storage_class as s;
        let mut name = doc.meta().name().to_owned();
        if doc.meta().annotation("storageclass.kubernetes.io/is-default-class") == Some("true") {
            name.push_str(" (default)");
        }
        let or = |field: Field, other: &'static str| match doc.str(&[field]) {
            "" => other.to_owned(),
            text => text.to_owned(),
        };
        vec![
            name.into(),
            doc.str(&[s::PROVISIONER]).into(),
            or(s::RECLAIM_POLICY, "Delete").into(),
            or(s::VOLUME_BINDING_MODE, "Immediate").into(),
            doc.bool(&[s::ALLOW_VOLUME_EXPANSION]).unwrap_or(false).into(),
            age_cell(doc, now),
        ]
    },
};

pub static CSR: Columns = Columns {
    definitions: &[
        NAME,
        AGE,
        text(
            "SignerName",
            "Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If empty, it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can select on this field using `spec.signerName`.",
        ),
        text("Requestor", "Base64-encoded PKCS#10 CSR data"),
        text("RequestedDuration", "")
            .of(crate::f::certificates_v1::certificate_signing_request_spec::EXPIRATION_SECONDS),
        text("Condition", "Conditions applied to the request, such as approval or denial."),
    ],
    cells: |doc, now| {
        use cert::certificate_signing_request as c;
        use cert::certificate_signing_request_spec as s;
        let spec = child(doc, c::SPEC);
        let duration =
            spec.and_then(|spec| spec.int(s::EXPIRATION_SECONDS)).map_or("<none>".to_owned(), human_duration);
        vec![
            name_cell(doc),
            age_cell(doc, now),
            or_none(spec.map_or("", |spec| spec.str(s::SIGNER_NAME))).into(),
            spec.map_or("", |spec| spec.str(s::USERNAME)).into(),
            duration.into(),
            csr_condition(child(doc, c::STATUS)).into(),
        ]
    },
};

fn csr_condition(status: Option<&Struct>) -> String {
    use cert::certificate_signing_request_status as s;
    let has = |kind: &str| {
        status.is_some_and(|status| {
            structs(status, s::CONDITIONS)
                .any(|(_, one)| one.str(cert::certificate_signing_request_condition::TYPE) == kind)
        })
    };
    let mut out = if has("Denied") {
        "Denied".to_owned()
    } else if has("Approved") {
        "Approved".to_owned()
    } else {
        "Pending".to_owned()
    };
    if has("Failed") {
        out.push_str(",Failed");
    }
    if status.is_some_and(|status| !status.str(s::CERTIFICATE).is_empty()) {
        out.push_str(",Issued");
    }
    out
}

/// Number of webhooks.
pub static WEBHOOKS: Columns = Columns {
    definitions: &[
        NAME,
        number("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"),
        AGE,
    ],
    cells: |doc, now| {
        use crate::f::admissionregistration_v1 as ar;
        let count = doc.ty().map_or(0, |ty| {
            if ty == crate::t::admissionregistration_v1::MUTATING_WEBHOOK_CONFIGURATION {
                doc.list(&[ar::mutating_webhook_configuration::WEBHOOKS]).len()
            } else {
                doc.list(&[ar::validating_webhook_configuration::WEBHOOKS]).len()
            }
        });
        vec![name_cell(doc), (count as i64).into(), age_cell(doc, now)]
    },
};
