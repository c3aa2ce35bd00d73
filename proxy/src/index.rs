//! What the informers hold, indexed for the plan and for DNS: slices by service, services by address.
//!
//! Handlers of the informers keep it; readers take short read locks. A change marks its service in a set of names and
//! wakes the loop: a wake-up carries a key, never the change.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::plan::ServiceName;
use crate::views::{Endpoint, ServiceView, SliceView};

#[derive(Default)]
struct Maps {
    services: BTreeMap<ServiceName, Arc<ServiceView>>,
    slices: HashMap<ServiceName, BTreeMap<Box<str>, Arc<SliceView>>>,
    /// Services that have the address as cluster address.
    by_cluster_ip: HashMap<IpAddr, BTreeSet<ServiceName>>,
    /// Services with an endpoint that has the address and a host name.
    by_endpoint: HashMap<IpAddr, BTreeMap<ServiceName, usize>>,
}

/// See the module.
#[derive(Default)]
pub struct Index {
    maps: RwLock<Maps>,
    dirty: Mutex<BTreeSet<ServiceName>>,
    wake: Notify,
}

impl Index {
    /// Takes in a change of a service.
    pub fn service(&self, name: ServiceName, new: Option<Arc<ServiceView>>) {
        {
            let mut maps = self.maps.write();
            let old = match new.clone() {
                Some(view) => maps.services.insert(name.clone(), view),
                None => maps.services.remove(&name),
            };
            for ip in old.iter().flat_map(|s| &s.cluster_ips) {
                if let Some(names) = maps.by_cluster_ip.get_mut(ip) {
                    names.remove(&name);
                    if names.is_empty() {
                        maps.by_cluster_ip.remove(ip);
                    }
                }
            }
            for ip in new.iter().flat_map(|s| &s.cluster_ips) {
                maps.by_cluster_ip.entry(*ip).or_default().insert(name.clone());
            }
        }
        self.mark(name);
    }

    /// Takes in a change of a slice. One that moves to another service marks both.
    pub fn slice(&self, slice: &str, old: Option<&Arc<SliceView>>, new: Option<&Arc<SliceView>>) {
        let owner = |s: &Arc<SliceView>| ServiceName::new(&s.namespace, &s.service);
        {
            let mut maps = self.maps.write();
            if let Some(old) = old {
                let name = owner(old);
                if let Some(slices) = maps.slices.get_mut(&name) {
                    slices.remove(slice);
                    if slices.is_empty() {
                        maps.slices.remove(&name);
                    }
                }
                for endpoint in named(old) {
                    let Some(names) = maps.by_endpoint.get_mut(&endpoint.ip) else { continue };
                    if let Some(count) = names.get_mut(&name) {
                        *count -= 1;
                        if *count == 0 {
                            names.remove(&name);
                        }
                    }
                    if names.is_empty() {
                        maps.by_endpoint.remove(&endpoint.ip);
                    }
                }
            }
            if let Some(new) = new.filter(|s| !s.service.is_empty()) {
                let name = owner(new);
                for endpoint in named(new) {
                    *maps.by_endpoint.entry(endpoint.ip).or_default().entry(name.clone()).or_insert(0) += 1;
                }
                maps.slices.entry(name).or_default().insert(slice.into(), new.clone());
            }
        }
        for view in old.into_iter().chain(new) {
            self.mark(owner(view));
        }
    }

    fn mark(&self, name: ServiceName) {
        self.dirty.lock().insert(name);
        self.wake.notify_one();
    }

    /// Resolves when something was marked since the last call.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }
    /// The marked services.
    pub fn take_dirty(&self) -> BTreeSet<ServiceName> {
        std::mem::take(&mut *self.dirty.lock())
    }
    /// Marks all services.
    pub fn mark_all(&self) {
        let maps = self.maps.read();
        self.dirty.lock().extend(maps.services.keys().cloned());
        self.wake.notify_one();
    }

    pub fn get(&self, name: &ServiceName) -> Option<Arc<ServiceView>> {
        self.maps.read().services.get(name).cloned()
    }
    pub fn slices_of(&self, name: &ServiceName) -> Vec<Arc<SliceView>> {
        self.maps.read().slices.get(name).map_or_else(Vec::new, |s| s.values().cloned().collect())
    }
    /// Whether a service exists in the namespace.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        let maps = self.maps.read();
        let first = ServiceName::new(namespace, "");
        maps.services.range(first..).next().is_some_and(|(name, _)| name.namespace == namespace)
    }
    pub fn by_cluster_ip(&self, ip: IpAddr) -> Vec<ServiceName> {
        self.maps.read().by_cluster_ip.get(&ip).map_or_else(Vec::new, |n| n.iter().cloned().collect())
    }
    /// Services with a named endpoint of this address.
    pub fn by_endpoint(&self, ip: IpAddr) -> Vec<ServiceName> {
        self.maps.read().by_endpoint.get(&ip).map_or_else(Vec::new, |n| n.keys().cloned().collect())
    }
}

fn named(slice: &SliceView) -> impl Iterator<Item = &Endpoint> {
    slice.endpoints.iter().filter(|e| e.hostname.is_some())
}
