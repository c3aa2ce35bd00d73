//! What every process of Keelson needs to run: configuration, clock, drain, readiness, logs and metrics.
//!
//! What always holds: time, shutdown and readiness are handed down from the composition root in a [`Context`]; nothing
//! here is a global except the tracing subscriber. The crate knows nothing of Kubernetes.
#![forbid(unsafe_code)]

pub mod clock;
pub mod config;
mod config_keys;
pub mod drain;
pub mod health;
pub mod metrics;
pub mod readiness;
pub mod supervise;
pub mod telemetry;

pub use clock::Clock;
pub use drain::{DrainTrigger, DrainWatcher};
pub use health::Health;
pub use readiness::Readiness;

/// What a component is given by the composition root.
#[derive(Clone, Debug)]
pub struct Context {
    pub clock: Clock,
    pub drain: DrainWatcher,
    pub readiness: Readiness,
}

impl Context {
    /// A context for tests: the system's clock, and a drain that the returned trigger starts.
    pub fn for_tests() -> (DrainTrigger, Context) {
        let (trigger, drain) = drain::channel();
        (trigger, Context { clock: Clock::system(), drain, readiness: Readiness::default() })
    }
}
