//! The kubelet: runs the pods that are bound to this node, over CRI, and tells the API what becomes of them.
//!
//! [`plan`] decides (pure), [`worker`] carries out (one actor per pod), [`cri`] speaks with the runtime, [`host`]
//! prepares the machine. What always holds: the truth about a pod after a restart is what the runtime and the API
//! say, and a restart restarts no container; a field that is not honoured and would confine, route or mount refuses
//! the pod ([`plan::fields`]); a pod is deleted from the API only when its containers and volumes are gone.
//! The crate knows nothing of the other components: it is a client of the API, or runs static pods without one.
pub mod config;
pub mod cri;
pub mod events;
pub mod eviction;
pub mod gc;
pub mod hooks;
pub mod host;
pub mod images;
pub mod kubelet;
pub mod logs;
pub mod node;
pub mod objects;
pub mod plan;
pub mod pleg;
pub mod probe;
mod run;
pub mod server;
pub mod sources;
pub mod status_manager;
pub mod unflushed;
pub mod worker;

pub use config::KubeletConfig;
pub use run::{RunError, Running, run, start};
