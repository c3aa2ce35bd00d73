//! What pods may ask for and no plugin decides yet: refused with a text that says so, never ignored.

use keelson_client::projections::PodView;

use crate::framework::*;

/// The plugin's name.
pub(crate) const UNSUPPORTED: &str = "UnsupportedRequirements";

/// Refuses pods whose placement depends on persistent volumes or dynamic resources.
pub struct UnsupportedRequirements;

impl Plugin for UnsupportedRequirements {
    fn name(&self) -> &'static str {
        UNSUPPORTED
    }

    fn may_help(&self, _: &PodView, _: &ClusterEvent) -> bool {
        false
    }
}

impl PreFilter for UnsupportedRequirements {
    fn pre_filter(
        &self,
        _: &mut CycleState,
        pod: &PodView,
        _: &Snapshot,
    ) -> Result<PreFilterResult, Rejection> {
        let Some(pending) = &pod.pending else { return Ok(PreFilterResult::Skip) };
        if let Some(error) = &pending.invalid {
            return Err(Rejection::unresolvable(
                self.name(),
                format!("invalid selector in the pod's affinity: {error}"),
            ));
        }
        let mut missing: Vec<String> = pending.unsupported.iter().map(|t| t.to_string()).collect();
        missing.extend(pending.claims.iter().map(|c| format!("persistentvolumeclaim {c:?}")));
        if missing.is_empty() {
            return Ok(PreFilterResult::Skip);
        }
        Err(Rejection::unresolvable(
            self.name(),
            format!("scheduling is not implemented yet for: {}", missing.join(", ")),
        ))
    }
}
