//! Addresses and node ports of Services.
//!
//! What always holds: a ClusterIP is claimed by creating the served IPAddress object of that name before the Service
//! is written, so two writers never hand the same one out; node ports stand in one unserved record that guards the
//! Service's own transaction. What a failed write claimed is given back; what a crash left is the repair loop's.

pub mod cidr;
pub mod repair;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use keelson_api::doc::{Doc, Struct, Value};
use keelson_api::f::core_v1::{service, service_port as sp, service_spec as ss};
use keelson_api::f::networking_v1 as nf;
use keelson_api::field_errors::{BadValue, ErrorList, FieldPath};
use keelson_api::json::{self, FieldValidation};
use keelson_api::schema::Field;
use keelson_api::status::{GroupResource, Status};
use keelson_api::table::Resource;
use keelson_api::{t, types};
use keelson_store::{Expect, Transaction, Write};
use rand::Rng as _;

use crate::core::Core;
use crate::keys;
use crate::rest::{Op, WriteError, store_status};

/// The unserved record of all node ports: a JSON object of port to `namespace/name`.
pub const NODE_PORTS_KEY: &str = "/keelson/node-ports";
/// How many addresses are tried before the range counts as full for this request.
const MAX_TRIES: usize = 4096;

type Ports = BTreeMap<u16, String>;

/// What a write of a Service has claimed and not yet stored.
#[derive(Default)]
pub struct Claim {
    /// The Service's namespace and name.
    owner: (String, String),
    /// IPAddress objects made for this write.
    addresses: Vec<IpAddr>,
    /// Addresses the Service no longer has once the write is stored.
    freed: Vec<IpAddr>,
    /// The node port record as it was read and as it shall be.
    ports: Option<(Expect, Bytes)>,
}

/// Whether a row is that of Services.
pub fn is_service(row: &Resource) -> bool {
    row.group.is_empty() && row.plural == "services"
}

impl Claim {
    /// Whether the write changes nothing beside the Service.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.freed.is_empty() && self.ports.is_none()
    }

    /// Adds the node port record to the Service's transaction.
    pub fn join(&self, transaction: &mut Transaction) {
        if let Some((expect, record)) = &self.ports {
            transaction.guards.push((NODE_PORTS_KEY.to_owned(), expect.clone()));
            transaction.writes.push(Write::Put { key: NODE_PORTS_KEY.to_owned(), value: record.clone() });
        }
    }

    /// After a write that failed: gives back what was claimed for it. Where the write's end is not known, the Service may
    /// hold it: what stands there is asked, and in doubt the repair decides later.
    pub async fn release(&self, core: &Core) {
        if self.addresses.is_empty() {
            return;
        }
        let (namespace, name) = &self.owner;
        let key = format!("{}{namespace}/{name}", keys::prefix("", "services", false));
        let held = match core.store.get(&key).await {
            Ok((None, _)) => Vec::new(),
            Ok((Some(entry), _)) => {
                match json::decode(t::core_v1::SERVICE, &entry.value, FieldValidation::Ignore) {
                    Ok((stored, _)) => addresses(&stored),
                    Err(_) => return,
                }
            }
            Err(_) => return,
        };
        for address in self.addresses.iter().filter(|address| !held.contains(address)) {
            free_own(core, *address, &self.owner).await;
        }
    }

    /// After the write is stored: gives back what the Service had before.
    pub async fn settle(&self, core: &Core) {
        for address in &self.freed {
            free_own(core, *address, &self.owner).await;
        }
    }
}

/// Claims what a Service needs and fills it in. `old` is what it replaces.
pub async fn claim(
    core: &Arc<Core>,
    doc: &mut Doc,
    old: Option<&Doc>,
    dry_run: bool,
) -> Result<Claim, Status> {
    let owner = owner_of(doc);
    let mut claim = Claim { owner, ..Claim::default() };
    let done = fill(core, doc, old, dry_run, &mut claim).await;
    if let Err(status) = done {
        claim.release(core).await;
        return Err(status);
    }
    Ok(claim)
}

async fn fill(
    core: &Arc<Core>,
    doc: &mut Doc,
    old: Option<&Doc>,
    dry_run: bool,
    claim: &mut Claim,
) -> Result<(), Status> {
    if let Some(old) = old {
        keep_allocated(doc, old);
    }
    fill_addresses(core, doc, old, dry_run, claim).await?;
    fill_ports(core, doc, old, dry_run, claim).await
}

fn text<'d>(doc: &'d Doc, field: Field) -> &'d str {
    doc.str(&[service::SPEC, field])
}

fn takes_address(doc: &Doc) -> bool {
    text(doc, ss::TYPE) != "ExternalName"
}

fn takes_node_ports(doc: &Doc) -> bool {
    match text(doc, ss::TYPE) {
        "NodePort" => true,
        "LoadBalancer" => doc.bool(&[service::SPEC, ss::ALLOCATE_LOAD_BALANCER_NODE_PORTS]) != Some(false),
        _ => false,
    }
}

/// The addresses a Service names (not `None`, not empty).
fn addresses(doc: &Doc) -> Vec<IpAddr> {
    if !takes_address(doc) {
        return Vec::new();
    }
    let listed = doc.list(&[service::SPEC, ss::CLUSTER_IPS]).iter().filter_map(Value::as_str);
    let parse = keelson_api::names::parse_ip_sloppy;
    let mut all: Vec<IpAddr> = listed.filter_map(parse).collect();
    if let Some(first) = parse(text(doc, ss::CLUSTER_IP))
        && !all.contains(&first)
    {
        all.insert(0, first);
    }
    all
}

fn ports(doc: &Doc) -> impl Iterator<Item = &Struct> {
    doc.list(&[service::SPEC, ss::PORTS]).iter().filter_map(Value::as_struct)
}

fn node_ports(doc: &Doc) -> BTreeSet<u16> {
    let mut all: BTreeSet<u16> = ports(doc)
        .filter_map(|port| port.int(sp::NODE_PORT))
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .collect();
    if let Some(port) = health_check_port(doc) {
        all.insert(port);
    }
    all
}

fn health_check_port(doc: &Doc) -> Option<u16> {
    doc.int(&[service::SPEC, ss::HEALTH_CHECK_NODE_PORT])
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
}

/// What a client left out of an update stays as it was allocated (upstream: patchAllocatedValues).
fn keep_allocated(doc: &mut Doc, old: &Doc) {
    if takes_address(doc)
        && takes_address(old)
        && text(doc, ss::CLUSTER_IP).is_empty()
        && doc.list(&[service::SPEC, ss::CLUSTER_IPS]).is_empty()
    {
        for field in [ss::CLUSTER_IP, ss::CLUSTER_IPS] {
            if let Some(value) = old.get(&[service::SPEC, field]) {
                doc.set(&[service::SPEC, field], value.clone());
            }
        }
    }
    for field in [ss::IP_FAMILIES, ss::IP_FAMILY_POLICY] {
        if takes_address(doc) && takes_address(old) && doc.get(&[service::SPEC, field]).is_none() {
            if let Some(value) = old.get(&[service::SPEC, field]) {
                doc.set(&[service::SPEC, field], value.clone());
            }
        }
    }
    if !(takes_node_ports(doc) && takes_node_ports(old)) {
        return;
    }
    let before: Vec<(String, i64, i64)> = ports(old)
        .filter_map(|port| {
            Some((port.str(sp::PROTOCOL).to_owned(), port.int(sp::PORT)?, port.int(sp::NODE_PORT)?))
        })
        .collect();
    let mut used = node_ports(doc);
    let Some(Value::List(list)) = doc.get_mut(&[service::SPEC, ss::PORTS]) else { return };
    for port in list.iter_mut().filter_map(Value::as_struct_mut) {
        if port.int(sp::NODE_PORT).unwrap_or(0) != 0 {
            continue;
        }
        let same = before.iter().find(|(protocol, number, _)| {
            port.str(sp::PROTOCOL) == protocol && port.int(sp::PORT) == Some(*number)
        });
        if let Some((.., node_port)) = same
            && u16::try_from(*node_port).is_ok_and(|number| used.insert(number))
        {
            port.set(sp::NODE_PORT, *node_port);
        }
    }
}

async fn fill_addresses(
    core: &Arc<Core>,
    doc: &mut Doc,
    old: Option<&Doc>,
    dry_run: bool,
    claim: &mut Claim,
) -> Result<(), Status> {
    let had = old.map(addresses).unwrap_or_default();
    if !takes_address(doc) {
        for field in [
            ss::CLUSTER_IP,
            ss::CLUSTER_IPS,
            ss::IP_FAMILIES,
            ss::IP_FAMILY_POLICY,
            ss::INTERNAL_TRAFFIC_POLICY,
        ] {
            if old.is_some() {
                doc.remove(&[service::SPEC, field]);
            }
        }
        claim.freed = had;
        return Ok(());
    }
    families(core.service_range.family(), doc, old)?;
    if text(doc, ss::CLUSTER_IP) == "None" {
        doc.set(&[service::SPEC, ss::CLUSTER_IPS], vec![Value::from("None")]);
        claim.freed = had;
        return Ok(());
    }
    let wanted = addresses(doc);
    let (chosen, taken) = match wanted.first() {
        Some(address) if had.contains(address) => (*address, false),
        Some(address) => {
            take(core, doc, *address, dry_run).await?;
            (*address, true)
        }
        None => (take_any(core, doc, dry_run).await?, true),
    };
    if taken && !dry_run {
        claim.addresses.push(chosen);
    }
    claim.freed = had.into_iter().filter(|address| *address != chosen).collect();
    doc.set(&[service::SPEC, ss::CLUSTER_IP], chosen.to_string());
    doc.set(&[service::SPEC, ss::CLUSTER_IPS], vec![Value::from(chosen.to_string())]);
    Ok(())
}

/// `ipFamilyPolicy` and `ipFamilies` of a Service in a cluster of one `family` (upstream: initIPFamilyFields).
fn families(family: &str, doc: &mut Doc, old: Option<&Doc>) -> Result<(), Status> {
    const POLICY: [Field; 2] = [service::SPEC, ss::IP_FAMILY_POLICY];
    const FAMILIES: [Field; 2] = [service::SPEC, ss::IP_FAMILIES];
    let listed = |doc: &Doc| -> Vec<String> {
        doc.list(&FAMILIES).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let free = text(doc, ss::CLUSTER_IP) == "None"
        && doc.map(&[service::SPEC, ss::SELECTOR]).is_none_or(|selector| selector.is_empty());
    if doc.get(&POLICY).is_none() {
        // Nothing says that one without addresses and selector is of the cluster's family alone.
        doc.set(&POLICY, if free { "RequireDualStack" } else { "SingleStack" });
    }
    let refuse = |doc: &Doc, errors: ErrorList| match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(&GroupResource::new("", "Service"), doc.meta().name(), &errors)),
    };
    let mut errors = ErrorList::new();
    types::core::service::validate_cluster_ips(doc, &mut errors);
    refuse(doc, errors)?;
    let mut errors = ErrorList::new();
    let spec = FieldPath::new("spec");
    let policy = text(doc, ss::IP_FAMILY_POLICY).to_owned();
    let mut all = listed(doc);
    if policy == "SingleStack" {
        if all.len() > 1 && old.is_some_and(|old| listed(old) == all) {
            all.truncate(1);
        }
        let both =
            [(doc.list(&[service::SPEC, ss::CLUSTER_IPS]).len(), "cluster IPs"), (all.len(), "IP families")];
        for (_, what) in both.iter().filter(|(count, _)| *count == 2) {
            let text =
                format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.invalid(&spec.child("ipFamilyPolicy"), policy.as_str(), text);
        }
    } else if old.map(listed).is_some_and(|before| before.len() == 2 && all.len() == 1 && before[0] == all[0])
    {
        let text = "must be 'SingleStack' to release the secondary IP family";
        errors.invalid(&spec.child("ipFamilyPolicy"), policy.as_str(), text);
    }
    let addresses: Vec<String> = doc
        .list(&[service::SPEC, ss::CLUSTER_IPS])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    for (i, address) in addresses.iter().enumerate().skip(all.len()) {
        let Some(ip) = keelson_api::names::parse_ip_sloppy(address) else { continue };
        let of = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        if of == family {
            all.push(of.to_owned());
        } else {
            let text = format!("{of} is not configured on this cluster");
            errors.invalid(&spec.child("clusterIPs").index(i), BadValue::json(&addresses), text);
        }
    }
    refuse(doc, errors)?;
    if all.is_empty() {
        all.push(family.to_owned());
    }
    if free {
        if all.len() == 1 && policy != "SingleStack" {
            all.push(if all[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
        }
    } else {
        let mut errors = ErrorList::new();
        if policy == "RequireDualStack" {
            let text = "this cluster is not configured for dual-stack services";
            errors.invalid(&spec.child("ipFamilyPolicy"), policy.as_str(), text);
        }
        for (i, one) in all.iter().enumerate().filter(|(_, one)| *one != family) {
            errors.invalid(
                &spec.child("ipFamilies").index(i),
                one.as_str(),
                "not configured on this cluster",
            );
        }
        refuse(doc, errors)?;
    }
    let all: Vec<Value> = all.iter().map(|one| Value::from(one.as_str())).collect();
    doc.set(&FAMILIES, all);
    Ok(())
}

fn invalid(doc: &Doc, field: &str, value: BadValue, detail: &str) -> Status {
    let mut errors = ErrorList::new();
    let spec = FieldPath::new("spec");
    errors.invalid(&spec.child(field), value, detail);
    Status::invalid(&GroupResource::new("", "Service"), doc.meta().name(), &errors)
}

fn address_key(address: IpAddr) -> String {
    format!("{}{address}", keys::prefix("networking.k8s.io", "ipaddresses", false))
}

/// Claims one address that the client named.
async fn take(core: &Arc<Core>, doc: &Doc, address: IpAddr, dry_run: bool) -> Result<(), Status> {
    let refuse = |why: String| {
        let text = format!("failed to allocate IP {address}: {why}");
        let shown = BadValue::json(&[address.to_string()]);
        Err(invalid(doc, "clusterIPs", shown, &text))
    };
    if !core.service_range.contains(address) {
        return refuse(format!(
            "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
            core.service_range
        ));
    }
    if dry_run {
        let (entry, _) = core.store.get(&address_key(address)).await.map_err(store_status)?;
        return if entry.is_some() { refuse("provided IP is already allocated".to_owned()) } else { Ok(()) };
    }
    match core.commit(address_transaction(core, doc, address)).await {
        Ok(_) => Ok(()),
        Err(WriteError::Conflict { .. }) => refuse("provided IP is already allocated".to_owned()),
        Err(WriteError::Failed(status)) => Err(status),
    }
}

/// Claims any free address.
async fn take_any(core: &Arc<Core>, doc: &Doc, dry_run: bool) -> Result<IpAddr, Status> {
    let seed = rand::rng().random();
    for address in core.service_range.candidates(seed).take(MAX_TRIES) {
        if dry_run {
            let (entry, _) = core.store.get(&address_key(address)).await.map_err(store_status)?;
            if entry.is_none() {
                return Ok(address);
            }
            continue;
        }
        match core.commit(address_transaction(core, doc, address)).await {
            Ok(_) => return Ok(address),
            Err(WriteError::Conflict { .. }) => {}
            Err(WriteError::Failed(status)) => return Err(status),
        }
    }
    Err(Status::internal("failed to allocate a serviceIP: range is full"))
}

fn address_transaction(core: &Core, doc: &Doc, address: IpAddr) -> Transaction {
    let mut object = Doc::new(t::networking_v1::IP_ADDRESS);
    let mut meta = object.meta_mut();
    meta.set_name(&address.to_string());
    meta.set_uid(&uuid::Uuid::new_v4().to_string());
    meta.set_creation_timestamp(Some(&types::time_text(core.clock.now())));
    meta.set_label("ipaddress.kubernetes.io/ip-family", if address.is_ipv4() { "IPv4" } else { "IPv6" });
    meta.set_label("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
    let mut parent = Struct::new(t::networking_v1::PARENT_REFERENCE);
    parent.set(nf::parent_reference::RESOURCE, "services");
    parent.set(nf::parent_reference::NAMESPACE, doc.meta().namespace());
    parent.set(nf::parent_reference::NAME, doc.meta().name());
    object.set(&[nf::ip_address::SPEC, nf::ip_address_spec::PARENT_REF], parent);
    let key = address_key(address);
    Transaction {
        guards: vec![(key.clone(), Expect::Absent)],
        writes: vec![Write::Put { key, value: Op::encode_stored(&object) }],
    }
}

fn owner_of(doc: &Doc) -> (String, String) {
    (doc.meta().namespace().to_owned(), doc.meta().name().to_owned())
}

/// Deletes the IPAddress object of an address if it is that of this Service: another server may have given the address
/// to another Service by now.
async fn free_own(core: &Core, address: IpAddr, owner: &(String, String)) {
    let Ok((Some(entry), _)) = core.store.get(&address_key(address)).await else { return };
    let Ok((claimed, _)) = json::decode(t::networking_v1::IP_ADDRESS, &entry.value, FieldValidation::Ignore)
    else {
        return;
    };
    let parent = |field| claimed.str(&[nf::ip_address::SPEC, nf::ip_address_spec::PARENT_REF, field]);
    let names = (parent(nf::parent_reference::NAMESPACE), parent(nf::parent_reference::NAME));
    if names == (owner.0.as_str(), owner.1.as_str()) {
        free_address(core, address, entry.mod_revision).await;
    }
}

/// Deletes the IPAddress object of an address in just this state. Failures leave it to the repair.
pub async fn free_address(core: &Core, address: IpAddr, revision: u64) {
    let key = address_key(address);
    let transaction = Transaction {
        guards: vec![(key.clone(), Expect::Revision(revision))],
        writes: vec![Write::Delete { key }],
    };
    if let Err(WriteError::Failed(status)) = core.commit(transaction).await {
        tracing::warn!(%address, error = %status, "a service address could not be given back; the repair will do it");
    }
}

/// The record of node ports and what it must still be when it is written.
pub async fn read_ports(core: &Core) -> Result<(Ports, Expect), Status> {
    let (entry, _) = core.store.get(NODE_PORTS_KEY).await.map_err(store_status)?;
    match entry {
        None => Ok((Ports::new(), Expect::Absent)),
        Some(entry) => {
            let ports = serde_json::from_slice(&entry.value)
                .map_err(|error| Status::internal(format!("the record of node ports: {error}")))?;
            Ok((ports, Expect::Revision(entry.mod_revision)))
        }
    }
}

fn encode_ports(ports: &Ports) -> Bytes {
    serde_json::to_vec(ports).unwrap_or_default().into()
}

async fn fill_ports(
    core: &Arc<Core>,
    doc: &mut Doc,
    old: Option<&Doc>,
    dry_run: bool,
    claim: &mut Claim,
) -> Result<(), Status> {
    let had = old.map(node_ports).unwrap_or_default();
    if !takes_node_ports(doc) {
        if had.is_empty() {
            return Ok(());
        }
        clear_unwanted(doc, old);
        let kept = node_ports(doc);
        let (mut record, expect) = read_ports(core).await?;
        had.difference(&kept).for_each(|port| drop(record.remove(port)));
        claim.ports = Some((expect, encode_ports(&record)));
        return Ok(());
    }
    let asked = node_ports(doc);
    let complete =
        ports(doc).all(|port| port.int(sp::NODE_PORT).unwrap_or(0) != 0) && !wants_health_check(doc);
    if complete && asked == had {
        return Ok(());
    }
    let (mut record, expect) = read_ports(core).await?;
    let owner = format!("{}/{}", doc.meta().namespace(), doc.meta().name());
    choose_ports(core.node_ports, doc, &had, &mut record, &owner)?;
    if !dry_run {
        claim.ports = Some((expect, encode_ports(&record)));
    }
    Ok(())
}

fn wants_health_check(doc: &Doc) -> bool {
    text(doc, ss::TYPE) == "LoadBalancer"
        && text(doc, ss::EXTERNAL_TRAFFIC_POLICY) == "Local"
        && doc.int(&[service::SPEC, ss::HEALTH_CHECK_NODE_PORT]).unwrap_or(0) == 0
}

/// Node ports that a Service had as another type and the client did not set anew go.
fn clear_unwanted(doc: &mut Doc, old: Option<&Doc>) {
    let had = old.map(node_ports).unwrap_or_default();
    if text(doc, ss::TYPE) == "LoadBalancer" {
        return;
    }
    let Some(Value::List(list)) = doc.get_mut(&[service::SPEC, ss::PORTS]) else { return };
    for port in list.iter_mut().filter_map(Value::as_struct_mut) {
        if port
            .int(sp::NODE_PORT)
            .and_then(|number| u16::try_from(number).ok())
            .is_some_and(|number| had.contains(&number))
        {
            port.remove(sp::NODE_PORT);
        }
    }
    doc.remove(&[service::SPEC, ss::HEALTH_CHECK_NODE_PORT]);
}

/// Checks the ports that are named, picks the others, and brings the record up to date.
fn choose_ports(
    range: (u16, u16),
    doc: &mut Doc,
    had: &BTreeSet<u16>,
    record: &mut Ports,
    owner: &str,
) -> Result<(), Status> {
    let mut mine = BTreeSet::new();
    for (index, port) in ports(doc).enumerate() {
        let number = port.int(sp::NODE_PORT).unwrap_or(0);
        if number == 0 {
            continue;
        }
        let field = format!("ports[{index}].nodePort");
        let known = u16::try_from(number)
            .ok()
            .filter(|number| (range.0..=range.1).contains(number) || had.contains(number));
        let Some(number) = known else {
            let text = format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.0, range.1
            );
            return Err(invalid(doc, &field, number.into(), &text));
        };
        if !had.contains(&number) && !mine.contains(&number) && record.contains_key(&number) {
            return Err(invalid(doc, &field, i64::from(number).into(), "provided port is already allocated"));
        }
        mine.insert(number);
    }
    if let Some(number) = health_check_port(doc) {
        if !had.contains(&number) && record.contains_key(&number) {
            return Err(invalid(
                doc,
                "healthCheckNodePort",
                i64::from(number).into(),
                "provided port is already allocated",
            ));
        }
        mine.insert(number);
    }
    let health_check = wants_health_check(doc);
    let pick = |mine: &mut BTreeSet<u16>| {
        pick_port(range, record, mine)
            .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))
    };
    // TCP and UDP of one port number share a node port, as upstream gives it.
    let mut by_number: BTreeMap<i64, (String, i64)> = BTreeMap::new();
    if let Some(Value::List(list)) = doc.get_mut(&[service::SPEC, ss::PORTS]) {
        for port in list.iter_mut().filter_map(Value::as_struct_mut) {
            let (number, protocol) = (port.int(sp::PORT).unwrap_or(0), port.str(sp::PROTOCOL).to_owned());
            if port.int(sp::NODE_PORT).unwrap_or(0) == 0 {
                let shared =
                    by_number.get(&number).filter(|(other, _)| *other != protocol).map(|(_, chosen)| *chosen);
                let chosen = match shared {
                    Some(chosen) => chosen,
                    None => i64::from(pick(&mut mine)?),
                };
                port.set(sp::NODE_PORT, chosen);
            }
            by_number.insert(number, (protocol, port.int(sp::NODE_PORT).unwrap_or(0)));
        }
    }
    if health_check {
        let chosen = pick(&mut mine)?;
        doc.set(&[service::SPEC, ss::HEALTH_CHECK_NODE_PORT], i64::from(chosen));
    }
    had.difference(&mine).for_each(|port| drop(record.remove(port)));
    for port in mine {
        record.insert(port, owner.to_owned());
    }
    Ok(())
}

/// A free port, from a random place in the upper part of the range first (the lower is for ports that people choose).
fn pick_port(range: (u16, u16), record: &Ports, mine: &mut BTreeSet<u16>) -> Option<u16> {
    let size = u32::from(range.1 - range.0) + 1;
    // Upstream: min(max(16, size/32), 128).
    let reserved = (size / 32).clamp(16, 128).min(size);
    let upper = size - reserved;
    let start = if upper == 0 { 0 } else { rand::rng().random_range(0..upper) };
    let high = (0..upper).map(|step| reserved + (start + step) % upper.max(1));
    let found = high
        .chain(0..reserved)
        .filter_map(|offset| u16::try_from(u32::from(range.0) + offset).ok())
        .find(|port| !record.contains_key(port) && !mine.contains(port))?;
    mine.insert(found);
    Some(found)
}

/// After a Service is gone: gives back all it had.
pub async fn free(core: &Core, doc: &Doc) {
    for address in addresses(doc) {
        free_own(core, address, &owner_of(doc)).await;
    }
    let gone = node_ports(doc);
    if gone.is_empty() {
        return;
    }
    let owner = format!("{}/{}", doc.meta().namespace(), doc.meta().name());
    for _ in 0..crate::rest::MAX_ATTEMPTS {
        let Ok((mut record, expect)) = read_ports(core).await else { return };
        // A port that another Service has by now is its own.
        record.retain(|port, holder| !(gone.contains(port) && *holder == owner));
        let transaction = Transaction {
            guards: vec![(NODE_PORTS_KEY.to_owned(), expect)],
            writes: vec![Write::Put { key: NODE_PORTS_KEY.to_owned(), value: encode_ports(&record) }],
        };
        match core.commit(transaction).await {
            Ok(_) => return,
            Err(WriteError::Conflict { .. }) => {}
            Err(WriteError::Failed(status)) => {
                tracing::warn!(error = %status, "node ports could not be given back; the repair will do it");
                return;
            }
        }
    }
}

/// The addresses and node ports of a stored Service, for the repair.
pub fn held(doc: &Doc) -> (Vec<IpAddr>, BTreeSet<u16>) {
    (addresses(doc), node_ports(doc))
}
