//! The tests, one module for each of upstream's files.

mod architecture;
mod chunking;
mod crd;
mod crd_watch;
mod custom_resource_definition;
mod discovery;
mod events;
mod field_validation;
mod garbage_collector;
mod kubectl;
mod namespace;
mod publish_openapi;
mod server;
mod watch;

use crate::suite::Group;

/// Every group of tests.
pub fn groups() -> Vec<Group> {
    [
        architecture::groups(),
        chunking::groups(),
        crd_watch::groups(),
        custom_resource_definition::groups(),
        discovery::groups(),
        events::groups(),
        field_validation::groups(),
        garbage_collector::groups(),
        kubectl::groups(),
        namespace::groups(),
        publish_openapi::groups(),
        server::groups(),
        watch::groups(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
