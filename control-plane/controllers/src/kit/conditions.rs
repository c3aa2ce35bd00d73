//! Conditions as JSON-free triples, shared by the kinds whose condition types differ only in name.

/// Sets a condition in a list of k8s-openapi conditions: nothing when status and reason are the same (upstream's
/// `SetDeploymentCondition` and its siblings), the transition time kept when only the reason changed.
#[macro_export]
macro_rules! set_condition {
    ($conditions:expr, $new:expr) => {{
        let new = $new;
        let conditions = $conditions;
        match conditions.iter().position(|c| c.type_ == new.type_) {
            Some(at) if conditions[at].status == new.status && conditions[at].reason == new.reason => {}
            Some(at) => {
                let mut new = new;
                if conditions[at].status == new.status {
                    new.last_transition_time = conditions[at].last_transition_time.clone();
                }
                conditions.remove(at);
                conditions.push(new);
            }
            None => conditions.push(new),
        }
    }};
}
