//! Brings existing slices to what is desired with few writes: what stands stays where it is. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Endpoints that share family and ports; ports are ordered by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub family: &'static str,
    pub ports: Vec<EndpointPort>,
}

impl Group {
    /// A group; the order of `ports` does not matter.
    pub fn new(family: &'static str, mut ports: Vec<EndpointPort>) -> Self {
        ports.sort_by(|a, b| (&a.name, a.port, &a.protocol).cmp(&(&b.name, b.port, &b.protocol)));
        Group { family, ports }
    }
}

/// All endpoints there should be.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Families the service has; each has at least one slice, if need be without endpoints.
    pub families: Vec<&'static str>,
    groups: Vec<(Group, BTreeMap<String, Endpoint>)>,
}

/// What makes two endpoints the same one: the pod, else the addresses.
fn identity(endpoint: &Endpoint) -> String {
    match &endpoint.target_ref {
        Some(target) => {
            format!(
                "{}/{}",
                target.name.as_deref().unwrap_or_default(),
                target.uid.as_deref().unwrap_or_default()
            )
        }
        None => endpoint.addresses.join(","),
    }
}

impl Desired {
    /// Adds an endpoint.
    pub fn add(&mut self, group: Group, endpoint: Endpoint) {
        let id = identity(&endpoint);
        match self.groups.iter_mut().find(|(g, _)| *g == group) {
            Some((_, endpoints)) => drop(endpoints.insert(id, endpoint)),
            None => self.groups.push((group, [(id, endpoint)].into())),
        }
    }
}

/// Whose slices these are.
#[derive(Clone, Debug)]
pub struct Ownership {
    pub namespace: String,
    /// The service's name; slices are named after it.
    pub name: String,
    pub owner: OwnerReference,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Most endpoints in a slice.
    pub most: usize,
}

/// Writes to make.
#[derive(Clone, Debug, Default)]
pub struct SlicePlan {
    pub create: Vec<EndpointSlice>,
    /// Whole new states of existing slices.
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<EndpointSlice>,
}

struct Standing {
    slice: EndpointSlice,
    changed: bool,
}

fn new_slice(ownership: &Ownership, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", ownership.name)),
            namespace: Some(ownership.namespace.clone()),
            labels: Some(ownership.labels.clone()),
            annotations: Some(ownership.annotations.clone()).filter(|a| !a.is_empty()),
            owner_references: Some(vec![ownership.owner.clone()]),
            ..ObjectMeta::default()
        },
        address_type: group.family.to_owned(),
        endpoints,
        ports: Some(group.ports.clone()),
    }
}

/// What differs only in how emptiness is written is the same.
fn same_endpoint(a: &Endpoint, b: &Endpoint) -> bool {
    let plain = |e: &Endpoint| {
        let mut e = e.clone();
        e.deprecated_topology = None;
        e.hints = e.hints.filter(|h| {
            h.for_zones.as_ref().is_some_and(|z| !z.is_empty())
                || h.for_nodes.as_ref().is_some_and(|n| !n.is_empty())
        });
        e
    };
    plain(a) == plain(b)
}

/// Brings one existing slice up to date with its group; takes what it holds out of `missing`.
fn keep(
    mut slice: EndpointSlice,
    ownership: &Ownership,
    missing: &mut BTreeMap<String, Endpoint>,
) -> Standing {
    let mut changed = slice.metadata.labels.as_ref() != Some(&ownership.labels);
    if changed {
        slice.metadata.labels = Some(ownership.labels.clone());
    }
    let kept: Vec<Endpoint> = std::mem::take(&mut slice.endpoints)
        .into_iter()
        .filter_map(|endpoint| match missing.remove(&identity(&endpoint)) {
            Some(wanted) if same_endpoint(&wanted, &endpoint) => Some(endpoint),
            Some(wanted) => {
                changed = true;
                Some(wanted)
            }
            None => {
                changed = true;
                None
            }
        })
        .collect();
    slice.endpoints = kept;
    Standing { slice, changed }
}

fn len(standing: &Standing) -> usize {
    standing.slice.endpoints.len()
}

/// Compares what stands with what should.
pub fn plan(ownership: &Ownership, desired: Desired, existing: Vec<EndpointSlice>) -> SlicePlan {
    let mut plan = SlicePlan::default();
    let mut left = existing;
    for family in &desired.families {
        let groups = desired.groups.iter().filter(|(g, _)| g.family == *family);
        let mut any = false;
        for (group, endpoints) in groups {
            any = true;
            let (mine, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|s| is_of(s, group));
            left = others;
            one_group(ownership, group, endpoints.clone(), mine, &mut plan);
        }
        if !any {
            // A service without endpoints keeps one empty slice: its consumers see that it has none.
            let empty = Group::new(family, Vec::new());
            match left.iter().position(|s| is_of(s, &empty)) {
                Some(at) => {
                    let standing = keep(left.remove(at), ownership, &mut BTreeMap::new());
                    if standing.changed {
                        plan.update.push(standing.slice);
                    }
                }
                None => plan.create.push(new_slice(ownership, &empty, Vec::new())),
            }
        }
    }
    plan.delete.extend(left);
    plan
}

fn is_of(slice: &EndpointSlice, group: &Group) -> bool {
    slice.address_type == group.family
        && Group::new(group.family, slice.ports.clone().unwrap_or_default()).ports == group.ports
}

fn one_group(
    ownership: &Ownership,
    group: &Group,
    mut missing: BTreeMap<String, Endpoint>,
    mine: Vec<EndpointSlice>,
    plan: &mut SlicePlan,
) {
    let mut standing: Vec<Standing> = mine.into_iter().map(|s| keep(s, ownership, &mut missing)).collect();
    // Slices that are written anyway take more first, the fullest before the others.
    standing.sort_by_key(|s| (!s.changed, std::cmp::Reverse(len(s))));
    let mut rest: Vec<Endpoint> = missing.into_values().collect();
    if standing.iter().any(|s| s.changed) || rest.len() < ownership.most {
        for slot in &mut standing {
            let room = ownership.most.saturating_sub(len(slot));
            let take = room.min(rest.len());
            if take > 0 {
                slot.changed = true;
                slot.slice.endpoints.extend(rest.drain(..take));
            }
        }
    }
    while !rest.is_empty() {
        let take = ownership.most.min(rest.len());
        plan.create.push(new_slice(ownership, group, rest.drain(..take).collect()));
    }
    for slot in standing {
        if len(&slot) == 0 {
            plan.delete.push(slot.slice);
        } else if slot.changed {
            plan.update.push(slot.slice);
        }
    }
}
