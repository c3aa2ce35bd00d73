//! Projections: what the shared informers of scheduler and controllers keep of each object.
//!
//! What always holds: a projection holds no managed fields and no unread annotations; it is decoded once per event and
//! shared. Who needs more fetches the object.

pub mod affinity;
pub mod meta;
pub mod node;
pub mod packed;
pub mod pod;
pub mod pod_text;
pub mod resources;
pub mod selector;
pub mod shared;

pub use meta::{HasMeta, Labels, Meta, Owner};
pub use node::{NodeCondition, NodeView};
pub use packed::{MetaOnly, Packed};
pub use pod::{ClaimUse, HostPort, PodPhase, PodView, Taint, TaintEffect, Toleration, TolerationOp};
pub use resources::Resources;
pub use selector::{Selector, SelectorError};
pub use shared::{ClaimView, LeaseView, NamespaceView, PodIndex, SharedInformers, VolumeView};
