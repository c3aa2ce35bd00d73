//! Readiness as named guards: the process is ready when the last guard is dropped.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// The set of what is still being waited for.
#[derive(Clone, Debug)]
pub struct Readiness {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pending: Mutex<BTreeSet<String>>,
    ready: watch::Sender<bool>,
}

/// Holds readiness back until it is dropped.
#[derive(Debug)]
pub struct ReadinessGuard {
    name: String,
    inner: Arc<Inner>,
}

impl Default for Readiness {
    fn default() -> Self {
        let inner = Inner { pending: Mutex::default(), ready: watch::Sender::new(true) };
        Readiness { inner: Arc::new(inner) }
    }
}

impl Readiness {
    /// Registers something that must happen before the process is ready. Names are unique; registering one twice is
    /// one guard, released by the first drop.
    pub fn register(&self, name: impl Into<String>) -> ReadinessGuard {
        let name = name.into();
        let mut pending = self.inner.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        pending.insert(name.clone());
        self.inner.ready.send_replace(false);
        ReadinessGuard { name, inner: self.inner.clone() }
    }

    /// What is still being waited for; empty when ready.
    pub fn pending(&self) -> Vec<String> {
        let pending = self.inner.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        pending.iter().cloned().collect()
    }

    /// Resolves when nothing is pending.
    pub async fn ready(&self) {
        let mut ready = self.inner.ready.subscribe();
        // The sender lives as long as `self`.
        let _ = ready.wait_for(|ready| *ready).await;
    }
}

impl Drop for ReadinessGuard {
    fn drop(&mut self) {
        let mut pending = self.inner.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        pending.remove(&self.name);
        if pending.is_empty() {
            self.inner.ready.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_the_last_guard_drops() {
        let readiness = Readiness::default();
        let store = readiness.register("store");
        let api = readiness.register("api");
        assert_eq!(readiness.pending(), ["api", "store"]);
        drop(store);
        assert_eq!(readiness.pending(), ["api"]);
        drop(api);
        readiness.ready().await;
        assert!(readiness.pending().is_empty());
    }
}
