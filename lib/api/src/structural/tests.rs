//! Shared by the tests of custom resources.

use serde_json::{Value as Json, json};

use crate::doc::Doc;
use crate::json::{self, FieldValidation};

/// A definition of group `example.com` with one version, `v1`: `names`, `schema`, and what else `version` says.
pub(crate) fn definition(parts: &Json) -> Doc {
    let mut version = parts["version"].clone();
    if !version.is_object() {
        version = json!({});
    }
    version["name"] = "v1".into();
    version["served"] = true.into();
    version["storage"] = true.into();
    version["schema"] = json!({"openAPIV3Schema": parts["schema"]});
    let whole = json!({
        "metadata": {"name": "foos.example.com", "uid": "u"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": parts["names"], "versions": [version]},
        "status": {"acceptedNames": parts["names"], "storedVersions": ["v1"], "conditions": []},
    });
    let ty = crate::t::apiextensions_v1::CUSTOM_RESOURCE_DEFINITION;
    json::decode(ty, whole.to_string().as_bytes(), FieldValidation::Strict).expect("a definition").0
}
