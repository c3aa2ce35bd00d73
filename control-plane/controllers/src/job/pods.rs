//! The pods a Job makes. Pure.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use keelson_client::projections::Meta;

use super::{FINALIZER, INDEX, INDEX_FAILURES};
use crate::kit::pods::from_template;

/// One pod to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub index: Option<i32>,
    /// How often the index failed before; only with `backoffLimitPerIndex`.
    pub failures: Option<i32>,
}

fn add_index_variable(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|v| v.name == "JOB_COMPLETION_INDEX") {
        return;
    }
    env.push(EnvVar {
        name: "JOB_COMPLETION_INDEX".to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.labels['{INDEX}']"),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
}

/// The pod for `wanted`.
pub fn pod(job: &Job, meta: &Meta, wanted: Wanted) -> Pod {
    let empty = Default::default();
    let template = job.spec.as_ref().map_or(&empty, |s| &s.template);
    let mut pod = from_template(template, "batch/v1", "Job", meta);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = wanted.index else { return pod };
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if let Some(failures) = wanted.failures {
        annotations.insert(INDEX_FAILURES.to_owned(), failures.to_string());
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    pod.metadata.generate_name = Some(format!("{}-{index}-", meta.name));
    if let Some(spec) = &mut pod.spec {
        spec.init_containers.iter_mut().flatten().chain(&mut spec.containers).for_each(add_index_variable);
        if spec.hostname.is_none() {
            spec.hostname = Some(format!("{}-{index}", meta.name));
        }
    }
    pod
}
