//! Columns of the legacy group's types.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    AGE, CONTAINERS, Cell, Columns, IMAGES, NAME, age, age_cell, container_cells, labels_text, name_and_age,
    name_cell, number, or_none, text, wide, wide_text,
};
use crate::doc::{Doc, Map, Struct};
use crate::f::core_v1 as c;
use crate::types::core::pod_spec::template_labels;
use crate::types::walk::{present, strs, structs};

fn child(doc: &Doc, field: crate::schema::Field) -> Option<&Struct> {
    doc.root()?.child(field)
}

pub static POD: Columns = Columns {
    definitions: &[
        NAME,
        text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
        text("Status", "The aggregate status of the containers in this pod."),
        text(
            "Restarts",
            "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
        ),
        AGE,
        wide_text("IP", "").of(crate::f::core_v1::pod_status::POD_IP),
        wide_text("Node", "").of(crate::f::core_v1::pod_spec::NODE_NAME),
        wide_text("Nominated Node", "").of(crate::f::core_v1::pod_status::NOMINATED_NODE_NAME),
        wide_text("Readiness Gates", "").of(crate::f::core_v1::pod_spec::READINESS_GATES),
    ],
    cells: pod,
};

/// What a pod's statuses add up to.
struct PodSummary {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: String,
    reason: String,
}

fn terminated(state: Option<&Struct>) -> Option<&Struct> {
    state?.child(c::container_state::TERMINATED)
}

fn end_reason(prefix: &str, end: &Struct) -> String {
    use c::container_state_terminated as e;
    let reason = end.str(e::REASON);
    if !reason.is_empty() {
        return format!("{prefix}{reason}");
    }
    match end.int(e::SIGNAL).unwrap_or(0) {
        0 => format!("{prefix}ExitCode:{}", end.int(e::EXIT_CODE).unwrap_or(0)),
        signal => format!("{prefix}Signal:{signal}"),
    }
}

/// Counts a status' restarts and the time of the last one.
fn count_restarts(status: &Struct, restarts: &mut i64, last: &mut String) {
    *restarts += status.int(c::container_status::RESTART_COUNT).unwrap_or(0);
    if let Some(end) = terminated(status.child(c::container_status::LAST_STATE)) {
        let at = end.str(c::container_state_terminated::FINISHED_AT);
        if at > last.as_str() {
            *last = at.to_owned();
        }
    }
}

fn summarize(doc: &Doc) -> PodSummary {
    use c::container_status as cs;
    use c::pod_status as st;
    let empty_spec = Struct::new(crate::t::core_v1::POD_SPEC);
    let empty_status = Struct::new(crate::t::core_v1::POD_STATUS);
    let spec = child(doc, c::pod::SPEC).unwrap_or(&empty_spec);
    let status = child(doc, c::pod::STATUS).unwrap_or(&empty_status);
    let sidecars: Vec<&str> = structs(spec, c::pod_spec::INIT_CONTAINERS)
        .filter(|(_, one)| one.str(c::container::RESTART_POLICY) == "Always")
        .map(|(_, one)| one.str(c::container::NAME))
        .collect();
    let mut out = PodSummary {
        ready: 0,
        total: spec.list(c::pod_spec::CONTAINERS).len() + sidecars.len(),
        restarts: 0,
        last_restart: String::new(),
        reason: status.str(st::PHASE).to_owned(),
    };
    if !status.str(st::REASON).is_empty() {
        out.reason = status.str(st::REASON).to_owned();
    }
    let condition = |kind: &str| {
        structs(status, st::CONDITIONS)
            .find(|(_, one)| one.str(c::pod_condition::TYPE) == kind)
            .map(|(_, one)| one)
    };
    if condition("PodScheduled").is_some_and(|one| one.str(c::pod_condition::REASON) == "SchedulingGated") {
        out.reason = "SchedulingGated".to_owned();
    }
    let (mut sidecar_restarts, mut sidecar_last) = (0, String::new());
    let mut initializing = false;
    let inits = spec.list(c::pod_spec::INIT_CONTAINERS).len();
    for (i, one) in structs(status, st::INIT_CONTAINER_STATUSES) {
        let state = one.child(cs::STATE);
        let sidecar = sidecars.contains(&one.str(cs::NAME));
        count_restarts(one, &mut out.restarts, &mut out.last_restart);
        if sidecar {
            count_restarts(one, &mut sidecar_restarts, &mut sidecar_last);
        }
        let end = terminated(state);
        if end.is_some_and(|end| end.int(c::container_state_terminated::EXIT_CODE).unwrap_or(0) == 0) {
            continue;
        }
        if sidecar && one.bool(cs::STARTED) == Some(true) {
            out.ready += usize::from(one.bool(cs::READY) == Some(true));
            continue;
        }
        initializing = true;
        let waiting = state
            .and_then(|state| state.child(c::container_state::WAITING))
            .map_or("", |waiting| waiting.str(c::container_state_waiting::REASON));
        out.reason = match end {
            Some(end) => end_reason("Init:", end),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{i}/{inits}"),
        };
        break;
    }
    let initialized = condition("Initialized").is_some_and(|one| one.str(c::pod_condition::STATUS) == "True");
    if !initializing || initialized {
        out.restarts = sidecar_restarts;
        out.last_restart = sidecar_last;
        let ready = condition("Ready").is_some_and(|one| one.str(c::pod_condition::STATUS) == "True");
        summarize_containers(status, ready, &mut out);
    }
    if doc.meta().is_being_deleted() {
        if status.str(st::REASON) == "NodeLost" {
            out.reason = "Unknown".to_owned();
        } else if !matches!(status.str(st::PHASE), "Failed" | "Succeeded") {
            out.reason = "Terminating".to_owned();
        }
    }
    out
}

fn summarize_containers(status: &Struct, pod_ready: bool, out: &mut PodSummary) {
    use c::container_status as cs;
    let mut running = false;
    let mut error = String::new();
    let all: Vec<(usize, &Struct)> = structs(status, c::pod_status::CONTAINER_STATUSES).collect();
    for (_, one) in all.into_iter().rev() {
        count_restarts(one, &mut out.restarts, &mut out.last_restart);
        let state = one.child(cs::STATE);
        let waiting = state
            .and_then(|state| state.child(c::container_state::WAITING))
            .map_or("", |waiting| waiting.str(c::container_state_waiting::REASON));
        if !waiting.is_empty() {
            out.reason = waiting.to_owned();
        } else if let Some(end) = terminated(state) {
            out.reason = end_reason("", end);
            if end.int(c::container_state_terminated::EXIT_CODE).unwrap_or(0) != 0 {
                error = out.reason.clone();
            }
        } else if one.bool(cs::READY) == Some(true)
            && state.is_some_and(|state| present(state, c::container_state::RUNNING))
        {
            running = true;
            out.ready += 1;
        }
    }
    if out.reason == "Completed" {
        if running && pod_ready {
            out.reason = "Running".to_owned();
        } else if !error.is_empty() {
            out.reason = error;
        } else if running {
            out.reason = "NotReady".to_owned();
        }
    }
}

fn pod(doc: &Doc, now: Timestamp) -> Vec<Cell> {
    let summary = summarize(doc);
    let restarts = if summary.restarts != 0 && !summary.last_restart.is_empty() {
        format!("{} ({} ago)", summary.restarts, age(Some(&summary.last_restart), now))
    } else {
        summary.restarts.to_string()
    };
    let status = child(doc, c::pod::STATUS);
    let ip = status
        .and_then(|status| structs(status, c::pod_status::POD_IPS).next())
        .map_or("", |(_, ip)| ip.str(c::pod_ip::IP));
    let nominated = status.map_or("", |status| status.str(c::pod_status::NOMINATED_NODE_NAME));
    vec![
        name_cell(doc),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age_cell(doc, now),
        or_none(ip).into(),
        or_none(doc.str(&[c::pod::SPEC, c::pod_spec::NODE_NAME])).into(),
        or_none(nominated).into(),
        readiness_gates(doc).into(),
    ]
}

fn readiness_gates(doc: &Doc) -> String {
    let (Some(spec), status) = (child(doc, c::pod::SPEC), child(doc, c::pod::STATUS)) else {
        return "<none>".to_owned();
    };
    let total = spec.list(c::pod_spec::READINESS_GATES).len();
    if total == 0 {
        return "<none>".to_owned();
    }
    let met = structs(spec, c::pod_spec::READINESS_GATES)
        .filter(|(_, gate)| {
            let kind = gate.str(c::pod_readiness_gate::CONDITION_TYPE);
            status.is_some_and(|status| {
                structs(status, c::pod_status::CONDITIONS)
                    .find(|(_, one)| one.str(c::pod_condition::TYPE) == kind)
                    .is_some_and(|(_, one)| one.str(c::pod_condition::STATUS) == "True")
            })
        })
        .count();
    format!("{met}/{total}")
}

pub static POD_TEMPLATE: Columns = Columns {
    definitions: &[
        NAME,
        text("Containers", "Names of each container in the template."),
        text("Images", "Images referenced by each container in the template."),
        text("Pod Labels", "The labels for the pod template."),
    ],
    cells: |doc, _| {
        let template = child(doc, c::pod_template::TEMPLATE);
        let [names, images] = container_cells(template.and_then(|t| t.child(c::pod_template_spec::SPEC)));
        vec![name_cell(doc), names, images, labels_text(template.and_then(template_labels)).into()]
    },
};

pub static REPLICATION_CONTROLLER: Columns = Columns {
    definitions: &[
        NAME,
        number("Desired", "").of(crate::f::core_v1::replication_controller_spec::REPLICAS),
        number("Current", "").of(crate::f::core_v1::replication_controller_status::REPLICAS),
        number("Ready", "").of(crate::f::core_v1::replication_controller_status::READY_REPLICAS),
        AGE,
        CONTAINERS,
        IMAGES,
        wide_text("Selector", "").of(crate::f::core_v1::replication_controller_spec::SELECTOR),
    ],
    cells: |doc, now| {
        use c::replication_controller as rc;
        let spec = child(doc, rc::SPEC);
        let template = spec.and_then(|spec| spec.child(c::replication_controller_spec::TEMPLATE));
        let [names, images] = container_cells(template.and_then(|t| t.child(c::pod_template_spec::SPEC)));
        let int = |field| doc.int(&[rc::STATUS, field]).unwrap_or(0);
        vec![
            name_cell(doc),
            doc.int(&[rc::SPEC, c::replication_controller_spec::REPLICAS]).unwrap_or(0).into(),
            int(c::replication_controller_status::REPLICAS).into(),
            int(c::replication_controller_status::READY_REPLICAS).into(),
            age_cell(doc, now),
            names,
            images,
            labels_text(spec.and_then(|spec| spec.map(c::replication_controller_spec::SELECTOR))).into(),
        ]
    },
};

pub static SERVICE: Columns = Columns {
    definitions: &[
        NAME,
        text("Type", "").of(crate::f::core_v1::service_spec::TYPE),
        text("Cluster-IP", "").of(crate::f::core_v1::service_spec::CLUSTER_IP),
        text("External-IP", "").of(crate::f::core_v1::service_spec::EXTERNAL_IPS),
        text("Port(s)", "").of(crate::f::core_v1::service_spec::PORTS),
        AGE,
        wide_text("Selector", "").of(crate::f::core_v1::service_spec::SELECTOR),
    ],
    cells: service,
};

fn service(doc: &Doc, now: Timestamp) -> Vec<Cell> {
    use c::service_spec as s;
    let empty = Struct::new(crate::t::core_v1::SERVICE_SPEC);
    let spec = child(doc, c::service::SPEC).unwrap_or(&empty);
    let ip = strs(spec, s::CLUSTER_IPS).next().map_or("<none>", |(_, ip)| ip);
    let ports: Vec<String> = structs(spec, s::PORTS)
        .map(|(_, port)| {
            use c::service_port as p;
            let (number, protocol) = (port.int(p::PORT).unwrap_or(0), port.str(p::PROTOCOL));
            match port.int(p::NODE_PORT).unwrap_or(0) {
                0 => format!("{number}/{protocol}"),
                node => format!("{number}:{node}/{protocol}"),
            }
        })
        .collect();
    vec![
        name_cell(doc),
        spec.str(s::TYPE).into(),
        ip.into(),
        external_ip(doc, spec).into(),
        or_none(&ports.join(",")).into(),
        age_cell(doc, now),
        labels_text(spec.map(s::SELECTOR)).into(),
    ]
}

fn external_ip(doc: &Doc, spec: &Struct) -> String {
    use c::service_spec as s;
    let external: Vec<&str> = strs(spec, s::EXTERNAL_IPS).map(|(_, ip)| ip).collect();
    match spec.str(s::TYPE) {
        "ClusterIP" | "NodePort" => or_none(&external.join(",")).to_owned(),
        "LoadBalancer" => {
            let balancer = child(doc, c::service::STATUS)
                .and_then(|status| status.child(c::service_status::LOAD_BALANCER));
            let mut all: Vec<&str> = balancer
                .map(|balancer| {
                    structs(balancer, c::load_balancer_status::INGRESS)
                        .map(|(_, one)| {
                            let ip = one.str(c::load_balancer_ingress::IP);
                            if ip.is_empty() { one.str(c::load_balancer_ingress::HOSTNAME) } else { ip }
                        })
                        .filter(|one| !one.is_empty())
                        .collect::<BTreeSet<_>>()
                        .into_iter()
                        .collect()
                })
                .unwrap_or_default();
            all.extend(external);
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => spec.str(s::EXTERNAL_NAME).to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

pub static ENDPOINTS: Columns = Columns {
    definitions: &[NAME, text("Endpoints", "").of(crate::f::core_v1::endpoints::SUBSETS), AGE],
    cells: |doc, now| vec![name_cell(doc), endpoints_text(doc).into(), age_cell(doc, now)],
};

/// The first three addresses with ports, as `1.2.3.4:80,… + 5 more...`.
fn endpoints_text(doc: &Doc) -> String {
    use c::endpoint_subset as es;
    let Some(root) = doc.root() else { return "<none>".to_owned() };
    if root.list(c::endpoints::SUBSETS).is_empty() {
        return "<none>".to_owned();
    }
    let mut list: Vec<String> = Vec::new();
    let mut count = 0;
    for (_, subset) in structs(root, c::endpoints::SUBSETS) {
        let addresses = || structs(subset, es::ADDRESSES).map(|(_, one)| one.str(c::endpoint_address::IP));
        if subset.list(es::PORTS).is_empty() {
            for ip in addresses() {
                count += 1;
                if list.len() < 3 {
                    list.push(ip.to_owned());
                }
            }
        }
        for (_, port) in structs(subset, es::PORTS) {
            for ip in addresses() {
                count += 1;
                if list.len() < 3 {
                    let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
                    list.push(format!("{ip}:{}", port.int(c::endpoint_port::PORT).unwrap_or(0)));
                }
            }
        }
    }
    let text = list.join(",");
    if count > 3 { format!("{text} + {} more...", count - 3) } else { text }
}

pub static CONFIG_MAP: Columns = Columns {
    definitions: &[NAME, text("Data", "").of(crate::f::core_v1::config_map::DATA), AGE],
    cells: |doc, now| {
        let count = |field| doc.map(&[field]).map_or(0, Map::len) as i64;
        let entries = count(c::config_map::DATA) + count(c::config_map::BINARY_DATA);
        vec![name_cell(doc), entries.into(), age_cell(doc, now)]
    },
};

pub static SECRET: Columns = Columns {
    definitions: &[
        NAME,
        text("Type", "").of(crate::f::core_v1::secret::TYPE),
        text("Data", "").of(crate::f::core_v1::secret::DATA),
        AGE,
    ],
    cells: |doc, now| {
        let entries = doc.map(&[c::secret::DATA]).map_or(0, Map::len) as i64;
        vec![name_cell(doc), doc.str(&[c::secret::TYPE]).into(), entries.into(), age_cell(doc, now)]
    },
};

pub static COMPONENT_STATUS: Columns = Columns {
    definitions: &[
        NAME,
        text("Status", "Status of the component conditions"),
        text("Message", "Message of the component conditions"),
        text("Error", "Error of the component conditions"),
    ],
    cells: |doc, _| {
        use c::component_condition as k;
        let conditions =
            doc.root().into_iter().flat_map(|root| structs(root, c::component_status::CONDITIONS));
        let healthy = conditions.map(|(_, one)| one).find(|one| one.str(k::TYPE) == "Healthy");
        let status = match healthy {
            None => "Unknown",
            Some(condition) if condition.str(k::STATUS) == "True" => "Healthy",
            Some(_) => "Unhealthy",
        };
        let text = |field| Cell::from(healthy.map_or("", |condition| condition.str(field)));
        vec![name_cell(doc), status.into(), text(k::MESSAGE), text(k::ERROR)]
    },
};

pub static SERVICE_ACCOUNT: Columns = Columns { definitions: &[NAME, AGE], cells: name_and_age };

pub static NAMESPACE: Columns = Columns {
    definitions: &[NAME, text("Status", "The status of the namespace"), AGE],
    cells: |doc, now| {
        let phase = doc.str(&[c::namespace::STATUS, c::namespace_status::PHASE]);
        vec![name_cell(doc), phase.into(), age_cell(doc, now)]
    },
};

pub static NODE: Columns = Columns {
    definitions: &[
        NAME,
        text("Status", "The status of the node"),
        text("Roles", "The roles of the node"),
        AGE,
        text("Version", "").of(crate::f::core_v1::node_system_info::KUBELET_VERSION),
        wide_text("Internal-IP", "").of(crate::f::core_v1::node_status::ADDRESSES),
        wide_text("External-IP", "").of(crate::f::core_v1::node_status::ADDRESSES),
        wide_text("OS-Image", "").of(crate::f::core_v1::node_system_info::OS_IMAGE),
        wide_text("Kernel-Version", "").of(crate::f::core_v1::node_system_info::KERNEL_VERSION),
        wide_text("Container-Runtime", "").of(crate::f::core_v1::node_system_info::CONTAINER_RUNTIME_VERSION),
    ],
    cells: node,
};

fn node(doc: &Doc, now: Timestamp) -> Vec<Cell> {
    use c::node_system_info as info;
    let empty = Struct::new(crate::t::core_v1::NODE_STATUS);
    let empty_info = Struct::new(crate::t::core_v1::NODE_SYSTEM_INFO);
    let status = child(doc, c::node::STATUS).unwrap_or(&empty);
    let system = status.child(c::node_status::NODE_INFO).unwrap_or(&empty_info);
    let ready = structs(status, c::node_status::CONDITIONS)
        .filter(|(_, one)| one.str(c::node_condition::TYPE) == "Ready")
        .last()
        .map(|(_, one)| one.str(c::node_condition::STATUS));
    let mut state = match ready {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if doc.bool(&[c::node::SPEC, c::node_spec::UNSCHEDULABLE]) == Some(true) {
        state.push_str(",SchedulingDisabled");
    }
    let roles: BTreeSet<&str> = doc
        .meta()
        .labels()
        .into_iter()
        .flat_map(Map::str_pairs)
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => (key == "kubernetes.io/role").then_some(value),
        })
        .filter(|role| !role.is_empty())
        .collect();
    let roles = roles.into_iter().collect::<Vec<_>>().join(",");
    let address = |kind: &str| {
        structs(status, c::node_status::ADDRESSES)
            .find(|(_, one)| one.str(c::node_address::TYPE) == kind)
            .map_or("<none>", |(_, one)| one.str(c::node_address::ADDRESS))
    };
    let known = |text: &str| if text.is_empty() { "<unknown>".to_owned() } else { text.to_owned() };
    let mut kernel = known(system.str(info::KERNEL_VERSION));
    let arch = system.str(info::ARCHITECTURE);
    if !arch.is_empty() {
        kernel.push_str(&format!(" ({arch})"));
    }
    vec![
        name_cell(doc),
        state.into(),
        or_none(&roles).into(),
        age_cell(doc, now),
        system.str(info::KUBELET_VERSION).into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        known(system.str(info::OS_IMAGE)).into(),
        kernel.into(),
        known(system.str(info::CONTAINER_RUNTIME_VERSION)).into(),
    ]
}

pub static EVENT: Columns = Columns {
    definitions: &[
        text("Last Seen", "").of(crate::f::core_v1::event::LAST_TIMESTAMP),
        text("Type", "").of(crate::f::core_v1::event::TYPE),
        text("Reason", "").of(crate::f::core_v1::event::REASON),
        text("Object", "").of(crate::f::core_v1::event::INVOLVED_OBJECT),
        wide_text("Subobject", "").of(crate::f::core_v1::object_reference::FIELD_PATH),
        wide_text("Source", "").of(crate::f::core_v1::event::SOURCE),
        text("Message", "").of(crate::f::core_v1::event::MESSAGE),
        wide_text("First Seen", "").of(crate::f::core_v1::event::FIRST_TIMESTAMP),
        wide_text("Count", "").of(crate::f::core_v1::event::COUNT),
        wide("Name", "string", "name", "").of(crate::f::meta_v1::object_meta::NAME),
    ],
    cells: event,
};

fn event(doc: &Doc, now: Timestamp) -> Vec<Cell> {
    use c::event as e;
    let empty = Struct::new(crate::t::core_v1::EVENT);
    let root = doc.root().unwrap_or(&empty);
    let since = |text: &str| age(Some(text), now);
    let first = match root.str(e::FIRST_TIMESTAMP) {
        "" => since(root.str(e::EVENT_TIME)),
        at => since(at),
    };
    let mut last = match root.str(e::LAST_TIMESTAMP) {
        "" => first.clone(),
        at => since(at),
    };
    let mut count = root.int(e::COUNT).unwrap_or(0);
    if let Some(series) = root.child(e::SERIES) {
        last = since(series.str(c::event_series::LAST_OBSERVED_TIME));
        count = series.int(c::event_series::COUNT).unwrap_or(0);
    } else if count == 0 {
        count = 1;
    }
    let empty_object = Struct::new(crate::t::core_v1::OBJECT_REFERENCE);
    let object = root.child(e::INVOLVED_OBJECT).unwrap_or(&empty_object);
    let kind = object.str(c::object_reference::KIND).to_lowercase();
    let target = match object.str(c::object_reference::NAME) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = root.child(e::SOURCE);
    let pick = |field, other: &str| {
        let own = source.map_or("", |source| source.str(field));
        if own.is_empty() { other.to_owned() } else { own.to_owned() }
    };
    let component = pick(c::event_source::COMPONENT, root.str(e::REPORTING_COMPONENT));
    let host = pick(c::event_source::HOST, root.str(e::REPORTING_INSTANCE));
    let source = if host.is_empty() { component } else { format!("{component}, {host}") };
    vec![
        last.into(),
        root.str(e::TYPE).into(),
        root.str(e::REASON).into(),
        target.into(),
        object.str(c::object_reference::FIELD_PATH).into(),
        source.into(),
        root.str(e::MESSAGE).trim().into(),
        first.into(),
        count.into(),
        name_cell(doc),
    ]
}

pub static RESOURCE_QUOTA: Columns = Columns {
    definitions: &[
        NAME,
        text("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
        text(
            "Limit",
            "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
        ),
        AGE,
    ],
    cells: |doc, now| {
        use c::resource_quota_status as s;
        let status = child(doc, c::resource_quota::STATUS);
        let (mut requests, mut limits): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        for (name, hard) in status.and_then(|status| status.map(s::HARD)).into_iter().flat_map(Map::str_pairs)
        {
            let used = status
                .and_then(|status| status.map(s::USED))
                .and_then(|used| used.get_str(name))
                .unwrap_or("0");
            let line = format!("{name}: {used}/{hard}");
            if name.starts_with("limits.") { limits.push(line) } else { requests.push(line) }
        }
        vec![name_cell(doc), requests.join(", ").into(), limits.join(", ").into(), age_cell(doc, now)]
    },
};

fn access_modes(s: Option<&Struct>, field: crate::schema::Field) -> String {
    let has = |mode: &str| s.is_some_and(|s| strs(s, field).any(|(_, one)| one == mode));
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    short.into_iter().filter(|(mode, _)| has(mode)).map(|(_, text)| text).collect::<Vec<_>>().join(",")
}

fn or_unset(text: &str) -> &str {
    if text.is_empty() { "<unset>" } else { text }
}

pub static PERSISTENT_VOLUME: Columns = Columns {
    definitions: &[
        NAME,
        text("Capacity", "").of(crate::f::core_v1::persistent_volume_spec::CAPACITY),
        text("Access Modes", "").of(crate::f::core_v1::persistent_volume_spec::ACCESS_MODES),
        text("Reclaim Policy", "")
            .of(crate::f::core_v1::persistent_volume_spec::PERSISTENT_VOLUME_RECLAIM_POLICY),
        text("Status", "").of(crate::f::core_v1::persistent_volume_status::PHASE),
        text("Claim", "").of(crate::f::core_v1::persistent_volume_spec::CLAIM_REF),
        text("StorageClass", "StorageClass of the pv"),
        text("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
        text("Reason", "").of(crate::f::core_v1::persistent_volume_status::REASON),
        AGE,
        wide_text("VolumeMode", "").of(crate::f::core_v1::persistent_volume_spec::VOLUME_MODE),
    ],
    cells: |doc, now| {
        use c::persistent_volume_spec as s;
        let empty = Struct::new(crate::t::core_v1::PERSISTENT_VOLUME_SPEC);
        let spec = child(doc, c::persistent_volume::SPEC).unwrap_or(&empty);
        let claim = spec.child(s::CLAIM_REF).map_or(String::new(), |claim| {
            format!("{}/{}", claim.str(c::object_reference::NAMESPACE), claim.str(c::object_reference::NAME))
        });
        let phase = doc.str(&[c::persistent_volume::STATUS, c::persistent_volume_status::PHASE]);
        let phase = if doc.meta().is_being_deleted() { "Terminating" } else { phase };
        vec![
            name_cell(doc),
            spec.map(s::CAPACITY).and_then(|map| map.get_str("storage")).unwrap_or("0").into(),
            access_modes(Some(spec), s::ACCESS_MODES).into(),
            spec.str(s::PERSISTENT_VOLUME_RECLAIM_POLICY).into(),
            phase.into(),
            claim.into(),
            spec.str(s::STORAGE_CLASS_NAME).into(),
            or_unset(spec.str(s::VOLUME_ATTRIBUTES_CLASS_NAME)).into(),
            doc.str(&[c::persistent_volume::STATUS, c::persistent_volume_status::REASON]).into(),
            age_cell(doc, now),
            or_unset(spec.str(s::VOLUME_MODE)).into(),
        ]
    },
};

pub static PERSISTENT_VOLUME_CLAIM: Columns = Columns {
    definitions: &[
        NAME,
        text("Status", "").of(crate::f::core_v1::persistent_volume_claim_status::PHASE),
        text("Volume", "").of(crate::f::core_v1::persistent_volume_claim_spec::VOLUME_NAME),
        text("Capacity", "").of(crate::f::core_v1::persistent_volume_claim_status::CAPACITY),
        text("Access Modes", "").of(crate::f::core_v1::persistent_volume_claim_status::ACCESS_MODES),
        text("StorageClass", "StorageClass of the pvc"),
        text("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
        AGE,
        wide_text("VolumeMode", "").of(crate::f::core_v1::persistent_volume_claim_spec::VOLUME_MODE),
    ],
    cells: |doc, now| {
        use c::persistent_volume_claim as p;
        use c::persistent_volume_claim_spec as s;
        use c::persistent_volume_claim_status as st;
        let empty = Struct::new(crate::t::core_v1::PERSISTENT_VOLUME_CLAIM_SPEC);
        let spec = child(doc, p::SPEC).unwrap_or(&empty);
        let status = child(doc, p::STATUS);
        let phase = status.map_or("", |status| status.str(st::PHASE));
        let bound = !spec.str(s::VOLUME_NAME).is_empty();
        let capacity =
            status.and_then(|status| status.map(st::CAPACITY)).and_then(|map| map.get_str("storage"));
        let modes = if bound { access_modes(status, st::ACCESS_MODES) } else { String::new() };
        vec![
            name_cell(doc),
            if doc.meta().is_being_deleted() { "Terminating" } else { phase }.into(),
            spec.str(s::VOLUME_NAME).into(),
            if bound { capacity.unwrap_or("0") } else { "" }.into(),
            modes.into(),
            spec.str(s::STORAGE_CLASS_NAME).into(),
            or_unset(spec.str(s::VOLUME_ATTRIBUTES_CLASS_NAME)).into(),
            age_cell(doc, now),
            or_unset(spec.str(s::VOLUME_MODE)).into(),
        ]
    },
};
