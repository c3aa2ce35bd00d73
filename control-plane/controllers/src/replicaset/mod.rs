//! ReplicaSet and ReplicationController, one mechanism: keep as many pods of a template as asked for.

mod plan;
mod shell;

pub use shell::{start_replica_sets, start_replication_controllers};
