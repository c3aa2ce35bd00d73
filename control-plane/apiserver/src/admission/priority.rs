//! Priority: a pod's priority is its class's, never its own choice; one class at most is the default.

use super::{Admission, AdmissionAttributes, ClusterReads, Operation};
use crate::authn::reads::{self, HeadMeta, Parsed};
use keelson_api::doc::{Doc, Value};
use keelson_api::f::{core_v1 as c, scheduling_v1 as s};
use keelson_api::schema::Field;
use keelson_api::status::Status;
use serde::Deserialize;
use std::sync::Arc;

const GROUP: &str = "scheduling.k8s.io";
const CLASSES: &str = "priorityclasses";
const PREEMPT: &str = "PreemptLowerPriority";

const CLASS_NAME: [Field; 2] = [c::pod::SPEC, c::pod_spec::PRIORITY_CLASS_NAME];
const VALUE: [Field; 2] = [c::pod::SPEC, c::pod_spec::PRIORITY];
const POLICY: [Field; 2] = [c::pod::SPEC, c::pod_spec::PREEMPTION_POLICY];

pub(super) struct Priority {
    reads: Arc<dyn ClusterReads>,
    /// The default among all classes.
    default: Parsed<Option<PriorityClass>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PriorityClass {
    metadata: HeadMeta,
    value: i64,
    global_default: bool,
    preemption_policy: Option<String>,
}

impl Priority {
    pub(super) fn new(reads: Arc<dyn ClusterReads>) -> Priority {
        Priority { reads, default: Parsed::default() }
    }

    /// Of several defaults the one with the lowest value.
    fn default_class(&self) -> Option<PriorityClass> {
        let classes = self.reads.list(GROUP, CLASSES, "");
        let told = self.default.of(("", ""), &classes, |classes| {
            let parsed =
                classes.iter().filter_map(|bytes| serde_json::from_slice::<PriorityClass>(bytes).ok());
            Some(parsed.filter(|class| class.global_default).min_by_key(|class| class.value))
        });
        told.and_then(|class| class.as_ref().clone())
    }

    fn create(&self, pod: &mut Doc, a: &AdmissionAttributes<'_>) -> Result<(), Status> {
        let named = pod.str(&CLASS_NAME).to_owned();
        let class = if named.is_empty() {
            self.default_class()
        } else {
            match reads::read::<PriorityClass>(self.reads.as_ref(), GROUP, CLASSES, "", &named) {
                Some(class) => {
                    Some(PriorityClass { metadata: HeadMeta { name: named, ..HeadMeta::default() }, ..class })
                }
                None => {
                    let why = format!("no PriorityClass with name {named} was found");
                    return Err(a.forbidden(Some(pod), why));
                }
            }
        };
        let (name, value, policy) = match class {
            Some(class) => (class.metadata.name, class.value, class.preemption_policy),
            None => (String::new(), 0, Some(PREEMPT.to_owned())),
        };
        if let Some(given) = pod.int(&VALUE).filter(|given| *given != value) {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
                 computed {value} from the given PriorityClass name"
            );
            return Err(a.forbidden(Some(pod), why));
        }
        if !name.is_empty() {
            pod.set(&CLASS_NAME, name);
        }
        pod.set(&VALUE, value);
        let Some(policy) = policy else { return Ok(()) };
        let given = pod.str(&POLICY);
        if !given.is_empty() && given != policy {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            );
            return Err(a.forbidden(Some(pod), why));
        }
        pod.set(&POLICY, policy);
        Ok(())
    }
}

impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn mutate(&self, pod: &mut Doc, old: Option<&Doc>, a: &AdmissionAttributes<'_>) -> Result<(), Status> {
        if !a.is_main("", "pods") {
            return Ok(());
        }
        match (a.operation, old) {
            (Operation::Create, _) => self.create(pod, a),
            (Operation::Update, Some(old)) => {
                // An older client's update may have lost them.
                for path in [VALUE, POLICY] {
                    if let (None, Some(value)) = (pod.get(&path), old.get(&path)) {
                        pod.set(&path, value.clone());
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn validate(
        &self,
        object: Option<&Doc>,
        _old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        let Some(class) = object.filter(|_| a.is_main(GROUP, CLASSES)) else { return Ok(()) };
        if !class.get(&[s::priority_class::GLOBAL_DEFAULT]).and_then(Value::as_bool).unwrap_or(false) {
            return Ok(());
        }
        match self.default_class() {
            Some(other) if a.operation == Operation::Create || other.metadata.name != class.meta().name() => {
                let why = format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    other.metadata.name
                );
                Err(a.forbidden(Some(class), why))
            }
            _ => Ok(()),
        }
    }
}
