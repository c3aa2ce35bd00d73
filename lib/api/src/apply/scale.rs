//! Ownership between an object and its scale subresource: who owns `spec.replicas` of a Scale owns the replicas field of
//! the object, and the other way round (apimachinery `managedfields/scalehandler.go`).

use compact_str::CompactString;

use super::element::PathElement;
use super::managers::{Managers, Owned};
use super::set::Set;

/// The version of Scale.
pub const SCALE_VERSION: &str = "autoscaling/v1";

/// Where a version of the object keeps its replicas; `None`: nowhere.
pub type Mapping<'m> = &'m dyn Fn(&str) -> Option<Option<Vec<PathElement>>>;

fn replicas() -> Vec<PathElement> {
    vec![PathElement::field("spec"), PathElement::field("replicas")]
}

/// The managers of the scale. Versions the mapping does not know are left out.
pub fn to_scale(parent: &Managers, mapping: Mapping<'_>) -> Managers {
    let mut out = Managers::new();
    for (id, owned) in parent {
        let Some(Some(path)) = mapping(&owned.api_version) else { continue };
        if owned.set.has(&path) {
            let scale = Owned {
                set: Set::of([replicas()]),
                api_version: CompactString::const_new(SCALE_VERSION),
                applied: owned.applied,
                time: owned.time.clone(),
            };
            out.insert(id.clone(), scale);
        }
    }
    out
}

/// The managers of the object after its scale was written under `version` of the object.
pub fn to_parent(parent: &Managers, scale: &Managers, version: &str, mapping: Mapping<'_>) -> Managers {
    let mut scale = scale.clone();
    let mut out = Managers::new();
    for (id, owned) in parent {
        // A version that is served no more goes.
        let Some(path) = mapping(&owned.api_version) else { continue };
        let path = path.filter(|path| owned.set.has(path));
        let mut owned = owned.clone();
        if let Some(path) = path
            && scale.remove(id).is_none()
        {
            // Another manager took the replicas.
            owned.set = owned.set.difference(&Set::of([path]));
            if owned.set.is_empty() {
                continue;
            }
        }
        out.insert(id.clone(), owned);
    }
    for (id, owned) in scale {
        if !owned.set.has(&replicas()) {
            continue;
        }
        let Some(Some(path)) = mapping(version) else { continue };
        let taken = Owned {
            set: Set::of([path]),
            api_version: version.into(),
            applied: owned.applied,
            time: parent.get(&id).and_then(|known| known.time.clone()),
        };
        out.insert(id, taken);
    }
    out
}
