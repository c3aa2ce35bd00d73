//! The next step of a rollout: which sets to make, scale, annotate and delete. Pure.
//!
//! Follows the order of upstream's `syncDeployment`, so that a rollout takes the same steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use keelson_client::projections::{PodPhase, PodView};

use super::numbers::*;
use super::{HASH_LABEL, annotations, status};
use crate::kit::hash::{canonical_template, template_hash};

/// One write; those that scale carry the text of their event.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create {
        set: Box<ReplicaSet>,
        event: Option<String>,
    },
    /// Replaces size and annotations of a set; refused by the server when the set changed meanwhile.
    Update {
        name: String,
        uid: String,
        resource_version: String,
        replicas: Option<i32>,
        min_ready_seconds: Option<i32>,
        annotations: BTreeMap<String, String>,
        event: Option<String>,
    },
    Delete {
        name: String,
        uid: String,
    },
    /// `deployment.kubernetes.io/revision` on the Deployment.
    SetRevision(String),
}

/// A step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// The status after the step.
    pub status: DeploymentStatus,
}

/// The Deployment, its sets (owned by it) and their pods, all as last seen.
pub struct Observed<'a> {
    pub deployment: &'a Deployment,
    pub sets: Vec<ReplicaSet>,
    /// Pods by the uid of their set; read by Recreate only.
    pub pods: &'a dyn Fn(&str) -> Vec<Arc<PodView>>,
    pub now: Timestamp,
}

struct Planner<'a> {
    d: &'a Deployment,
    now: Timestamp,
    /// Sets older than the new one, by age.
    old: Vec<ReplicaSet>,
    new: Option<ReplicaSet>,
    actions: Vec<Action>,
    status: DeploymentStatus,
}

/// Decides the next step.
pub fn plan(observed: Observed<'_>) -> Plan {
    let d = observed.deployment;
    let mut sets = observed.sets;
    sets.sort_by(|a, b| {
        (&a.metadata.creation_timestamp, &a.metadata.name)
            .cmp(&(&b.metadata.creation_timestamp, &b.metadata.name))
    });
    // The oldest set of the wanted template is the new one; others of the same template are old like the rest.
    let template = canonical(d);
    let at = sets.iter().position(|rs| set_template(rs) == template);
    let new = at.map(|at| sets.remove(at));
    let mut planner = Planner {
        d,
        now: observed.now,
        old: sets,
        new,
        actions: Vec::new(),
        status: d.status.clone().unwrap_or_default(),
    };
    planner.run(observed.pods);
    Plan { actions: planner.actions, status: planner.status }
}

fn canonical(d: &Deployment) -> String {
    d.spec.as_ref().map(|s| canonical_template(&s.template, HASH_LABEL)).unwrap_or_default()
}

fn set_template(rs: &ReplicaSet) -> String {
    let template = rs.spec.as_ref().and_then(|s| s.template.as_ref());
    template.map(|t| canonical_template(t, HASH_LABEL)).unwrap_or_default()
}

/// Whether a set has the Deployment's template (`EqualIgnoreHash`).
pub fn same_template(d: &Deployment, rs: &ReplicaSet) -> bool {
    canonical(d) == set_template(rs)
}

fn name(rs: &ReplicaSet) -> &str {
    rs.metadata.name.as_deref().unwrap_or_default()
}

impl Planner<'_> {
    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    fn run(&mut self, pods: &dyn Fn(&str) -> Vec<Arc<PodView>>) {
        if self.d.metadata.deletion_timestamp.is_some() {
            return self.finish_plain();
        }
        status::pause_condition(self.d, &mut self.status, self.now);
        let paused = self.d.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
        if paused || self.is_scaling_event() {
            self.sync_new_set(false);
            self.scale();
            if paused {
                self.clean_up();
            }
            return self.finish_plain();
        }
        if is_rolling(self.d) { self.roll() } else { self.recreate(pods) }
    }

    /// Someone changed the Deployment's replicas since its sets were sized.
    fn is_scaling_event(&self) -> bool {
        self.all().filter(|rs| wanted(rs) > 0).any(|rs| {
            annotations::number(rs, annotations::DESIRED_REPLICAS).is_some_and(|n| n != replicas(self.d))
        })
    }

    fn roll(&mut self) {
        self.sync_new_set(true);
        if self.reconcile_new_set() || self.reconcile_old_sets() {
            return self.finish_rollout();
        }
        if status::is_complete(self.d, self.d.status.as_ref()) {
            self.clean_up();
        }
        self.finish_rollout();
    }

    fn recreate(&mut self, pods: &dyn Fn(&str) -> Vec<Arc<PodView>>) {
        self.sync_new_set(false);
        let mut scaled = false;
        for at in 0..self.old.len() {
            if wanted(&self.old[at]) != 0 {
                scaled |= self.resize_old(at, 0);
            }
        }
        if scaled || self.old_pods_run(pods) {
            return self.finish_rollout();
        }
        if self.new.is_none() {
            self.sync_new_set(true);
        }
        self.resize_new(replicas(self.d), false);
        if status::is_complete(self.d, self.d.status.as_ref()) {
            self.clean_up();
        }
        self.finish_rollout();
    }

    fn old_pods_run(&self, pods: &dyn Fn(&str) -> Vec<Arc<PodView>>) -> bool {
        if self.old.iter().any(|rs| actual(rs) > 0) {
            return true;
        }
        let uids = self.old.iter().filter_map(|rs| rs.metadata.uid.as_deref());
        uids.flat_map(pods).any(|pod| !matches!(pod.phase, PodPhase::Failed | PodPhase::Succeeded))
    }

    /// Brings the new set's annotations up to date, or makes it; carries its revision to the Deployment
    /// (`getAllReplicaSetsAndSyncRevision`).
    fn sync_new_set(&mut self, create: bool) {
        let newest_old = self.old.iter().map(annotations::revision).max().unwrap_or(0);
        let revision = newest_old + 1;
        if self.new.is_some() {
            self.update_new_set(revision);
        } else if create {
            self.create_new_set(revision);
        }
    }

    fn update_new_set(&mut self, revision: i64) {
        let Some(rs) = &mut self.new else { return };
        let current = rs.metadata.annotations.clone().unwrap_or_default();
        let annotations = annotations::for_new_set(self.d, &current, revision);
        let min_ready = self.d.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
        let had = rs.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
        let revision_text = annotations.get(annotations::REVISION).cloned();
        if annotations != current || had != min_ready {
            rs.metadata.annotations = Some(annotations.clone());
            if let Some(spec) = &mut rs.spec {
                spec.min_ready_seconds = Some(min_ready);
            }
            let set = rs.clone();
            self.push_update(&set, None, (had != min_ready).then_some(min_ready), None);
        }
        self.set_revision(revision_text);
        let rs_name = self.new.as_ref().map(|rs| name(rs).to_owned()).unwrap_or_default();
        status::found_condition(self.d, &mut self.status, &rs_name, self.now);
    }

    fn set_revision(&mut self, revision: Option<String>) {
        let current = self.d.metadata.annotations.as_ref().and_then(|a| a.get(annotations::REVISION));
        if let Some(revision) = revision.filter(|r| current != Some(r)) {
            self.actions.retain(|a| !matches!(a, Action::SetRevision(_)));
            self.actions.push(Action::SetRevision(revision));
        }
    }

    fn create_new_set(&mut self, revision: i64) {
        let Some(spec) = &self.d.spec else { return };
        let collisions = self.d.status.as_ref().and_then(|s| s.collision_count);
        let hash = template_hash(&spec.template, HASH_LABEL, collisions);
        let mut template = spec.template.clone();
        template
            .metadata
            .get_or_insert_default()
            .labels
            .get_or_insert_default()
            .insert(HASH_LABEL.to_owned(), hash.clone());
        let mut selector: LabelSelector = spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
        let total: i32 = self.old.iter().map(wanted).sum();
        let size = new_set_replicas(self.d, total, 0);
        let mut set_annotations = annotations::for_new_set(self.d, &BTreeMap::new(), revision);
        annotations::set_sizes(&mut set_annotations, replicas(self.d), replicas(self.d) + max_surge(self.d));
        let d_name = self.d.metadata.name.clone().unwrap_or_default();
        let prefix: String = d_name.chars().take(253 - 1 - hash.len()).collect();
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{prefix}-{hash}")),
                namespace: self.d.metadata.namespace.clone(),
                labels: template.metadata.as_ref().and_then(|m| m.labels.clone()),
                annotations: Some(set_annotations),
                owner_references: Some(vec![OwnerReference {
                    api_version: "apps/v1".to_owned(),
                    kind: "Deployment".to_owned(),
                    name: d_name,
                    uid: self.d.metadata.uid.clone().unwrap_or_default(),
                    controller: Some(true),
                    block_owner_deletion: Some(true),
                }]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(size),
                min_ready_seconds: Some(spec.min_ready_seconds.unwrap_or(0)),
                selector,
                template: Some(template),
            }),
            status: None,
        };
        let event = (size > 0).then(|| format!("Scaled up replica set {} from 0 to {size}", name(&set)));
        status::created_condition(self.d, &mut self.status, name(&set), self.now);
        self.actions.push(Action::Create { set: Box::new(set.clone()), event });
        self.set_revision(Some(revision.to_string()));
        self.new = Some(set);
    }

    fn push_update(
        &mut self,
        rs: &ReplicaSet,
        size: Option<i32>,
        min_ready_seconds: Option<i32>,
        event: Option<String>,
    ) {
        let uid = rs.metadata.uid.clone().unwrap_or_default();
        let annotations = rs.metadata.annotations.clone().unwrap_or_default();
        // Made in this very step: it is created as it should be.
        for action in &mut self.actions {
            match action {
                Action::Create { set, .. } if set.metadata.name == rs.metadata.name => {
                    **set = rs.clone();
                    return;
                }
                Action::Update { uid: other, replicas, annotations: a, event: e, .. } if *other == uid => {
                    *replicas = size.or(*replicas);
                    *a = annotations;
                    *e = event.or(e.take());
                    return;
                }
                _ => {}
            }
        }
        self.actions.push(Action::Update {
            name: name(rs).to_owned(),
            uid,
            resource_version: rs.metadata.resource_version.clone().unwrap_or_default(),
            replicas: size,
            min_ready_seconds,
            annotations,
            event,
        });
    }

    /// Sizes a set; `force` also brings its size annotations up to date (`scaleReplicaSet`). True when its size changes.
    fn resize(&mut self, mut rs: ReplicaSet, size: i32, force: bool) -> (ReplicaSet, bool) {
        let before = wanted(&rs);
        if !force && before == size {
            return (rs, false);
        }
        let mut sized = rs.metadata.annotations.clone().unwrap_or_default();
        annotations::set_sizes(&mut sized, replicas(self.d), replicas(self.d) + max_surge(self.d));
        if before == size && rs.metadata.annotations.as_ref() == Some(&sized) {
            return (rs, false);
        }
        rs.metadata.annotations = Some(sized);
        if let Some(spec) = &mut rs.spec {
            spec.replicas = Some(size);
        }
        let direction = if before < size { "up" } else { "down" };
        let event = (before != size)
            .then(|| format!("Scaled {direction} replica set {} from {before} to {size}", name(&rs)));
        self.push_update(&rs, (before != size).then_some(size), None, event);
        (rs, before != size)
    }

    fn resize_old(&mut self, at: usize, size: i32) -> bool {
        let (rs, scaled) = self.resize(self.old[at].clone(), size, false);
        self.old[at] = rs;
        scaled
    }

    fn resize_new(&mut self, size: i32, force: bool) -> bool {
        let Some(rs) = self.new.take() else { return false };
        let (rs, scaled) = self.resize(rs, size, force);
        self.new = Some(rs);
        scaled
    }

    fn reconcile_new_set(&mut self) -> bool {
        let Some(new) = &self.new else { return false };
        let size = wanted(new);
        if size == replicas(self.d) {
            return false;
        }
        if size > replicas(self.d) {
            return self.resize_new(replicas(self.d), false);
        }
        let total = self.all().map(wanted).sum();
        self.resize_new(new_set_replicas(self.d, total, size), false)
    }

    fn reconcile_old_sets(&mut self) -> bool {
        let old_total: i32 = self.old.iter().map(wanted).sum();
        if old_total == 0 {
            return false;
        }
        let total: i32 = self.all().map(wanted).sum();
        let least = replicas(self.d) - max_unavailable(self.d);
        let new_missing = self.new.as_ref().map_or(0, |rs| wanted(rs) - available(rs));
        let most_down = total - least - new_missing;
        if most_down <= 0 {
            return false;
        }
        // Replicas that do not work go first: they cost nothing.
        let mut cleaned = 0;
        for at in 0..self.old.len() {
            let (size, up) = (wanted(&self.old[at]), available(&self.old[at]));
            if cleaned >= most_down {
                break;
            }
            if size == 0 || size == up {
                continue;
            }
            let down = (most_down - cleaned).min(size - up);
            self.resize_old(at, size - down);
            cleaned += down;
        }
        let available_total: i32 = self.all().map(available).sum();
        let may_go = available_total - least;
        let mut gone = 0;
        for at in 0..self.old.len() {
            let size = wanted(&self.old[at]);
            if gone >= may_go {
                break;
            }
            if size == 0 {
                continue;
            }
            let down = size.min(may_go - gone);
            self.resize_old(at, size - down);
            gone += down;
        }
        cleaned + gone > 0
    }

    /// Spreads a change of replicas over the sets (`scale`).
    fn scale(&mut self) {
        let active: Vec<usize> = (0..self.old.len()).filter(|i| wanted(&self.old[*i]) > 0).collect();
        let new_active = self.new.as_ref().is_some_and(|rs| wanted(rs) > 0);
        match (active.len(), new_active) {
            // Only one has pods, or none: the new one, else the latest.
            (0, _) if self.new.is_some() => {
                self.resize_new(replicas(self.d), false);
                return;
            }
            (0, _) => {
                if let Some(last) = self.old.len().checked_sub(1) {
                    self.resize_old(last, replicas(self.d));
                }
                return;
            }
            (1, false) => {
                self.resize_old(active[0], replicas(self.d));
                return;
            }
            _ => {}
        }
        let saturated = self.new.as_ref().is_some_and(|rs| {
            wanted(rs) == replicas(self.d)
                && annotations::number(rs, annotations::DESIRED_REPLICAS) == Some(replicas(self.d))
                && available(rs) == replicas(self.d)
        });
        if saturated {
            for at in active {
                self.resize_old(at, 0);
            }
            return;
        }
        if is_rolling(self.d) {
            self.scale_proportionally();
        }
    }

    fn scale_proportionally(&mut self) {
        let mut sets: Vec<ReplicaSet> = self.all().filter(|rs| wanted(rs) > 0).cloned().collect();
        let total: i32 = sets.iter().map(wanted).sum();
        let allowed = if replicas(self.d) > 0 { replicas(self.d) + max_surge(self.d) } else { 0 };
        let to_add = allowed - total;
        // Larger first; among equals the newer first when growing, the older first when shrinking.
        sets.sort_by(|a, b| {
            let age = |rs: &ReplicaSet| (rs.metadata.creation_timestamp.clone(), rs.metadata.name.clone());
            let by_age = if to_add > 0 { age(b).cmp(&age(a)) } else { age(a).cmp(&age(b)) };
            wanted(b).cmp(&wanted(a)).then(by_age)
        });
        let mut added = 0;
        let mut sizes: Vec<i32> = Vec::with_capacity(sets.len());
        for rs in &sets {
            let share = proportion(self.d, rs, to_add, added);
            added += share;
            sizes.push(wanted(rs) + share);
        }
        if let Some(first) = sizes.first_mut().filter(|_| to_add != 0) {
            *first = (*first + to_add - added).max(0);
        }
        for (rs, size) in sets.into_iter().zip(sizes) {
            let (rs, _) = self.resize(rs, size, true);
            let slot =
                self.old.iter_mut().chain(&mut self.new).find(|other| other.metadata.uid == rs.metadata.uid);
            if let Some(slot) = slot {
                *slot = rs;
            }
        }
    }

    /// Deletes what history no longer keeps.
    fn clean_up(&mut self) {
        let Some(limit) = self.d.spec.as_ref().map(|s| s.revision_history_limit.unwrap_or(10)) else {
            return;
        };
        let mut sets: Vec<&ReplicaSet> =
            self.old.iter().filter(|rs| rs.metadata.deletion_timestamp.is_none()).collect();
        let surplus = sets.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        if limit == i32::MAX || surplus == 0 {
            return;
        }
        sets.sort_by_key(|rs| annotations::revision(rs));
        let behind = |rs: &ReplicaSet| {
            rs.metadata.generation.unwrap_or(0)
                > rs.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0)
        };
        let deletions: Vec<Action> = sets
            .into_iter()
            .take(surplus)
            .filter(|rs| actual(rs) == 0 && wanted(rs) == 0 && !behind(rs))
            .map(|rs| Action::Delete {
                name: name(rs).to_owned(),
                uid: rs.metadata.uid.clone().unwrap_or_default(),
            })
            .collect();
        self.actions.extend(deletions);
    }

    fn finish_plain(&mut self) {
        let all: Vec<&ReplicaSet> = self.old.iter().chain(&self.new).collect();
        self.status = status::calculate(self.d, &all, self.new.as_ref(), &self.status, self.now);
    }

    fn finish_rollout(&mut self) {
        let all: Vec<&ReplicaSet> = self.old.iter().chain(&self.new).collect();
        let calculated = status::calculate(self.d, &all, self.new.as_ref(), &self.status, self.now);
        self.status = status::with_progress(self.d, &all, self.new.as_ref(), calculated, self.now);
    }
}
