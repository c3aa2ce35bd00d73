//! How the supervised components of a process are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A component's state as its supervisor knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A run is under way.
    Running,
    /// The last run ended so; the next one is waited for.
    Ended(String),
}

/// The states of a process' components, by name; shared by who supervises them and who is asked.
#[derive(Clone, Debug, Default)]
pub struct Health {
    states: Arc<Mutex<BTreeMap<&'static str, State>>>,
}

impl Health {
    /// The state of a component; `None` where no component of this process has the name.
    pub fn of(&self, component: &str) -> Option<State> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).get(component).cloned()
    }

    /// Notes a component's state.
    pub fn set(&self, component: &'static str, state: State) {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).insert(component, state);
    }
}
