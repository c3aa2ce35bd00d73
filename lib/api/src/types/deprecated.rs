//! Versions of built-in types on their way out, which every answer says (apiserver `endpoints/deprecation`; the facts are upstream's
//! `zz_generated.prerelease-lifecycle.go` and `core/v1/lifecycle.go`, as far as they are deprecated by v1.35).

/// The text of the warning for a served version of a kind, and the release that no longer has it (empty where none is named).
pub fn warning(group: &str, version: &str, kind: &str) -> Option<(String, String)> {
    // Minor releases of 1: deprecated in, not served from.
    let (since, until, replacement) = match (group, version, kind) {
        ("", _, "ComponentStatus") => (19, None, ""),
        ("", _, "Endpoints") => (33, None, "discovery.k8s.io/v1 EndpointSlice"),
        (_, "v1" | "v2", _) => return None,
        (
            "admissionregistration.k8s.io",
            "v1alpha1",
            "MutatingAdmissionPolicy" | "MutatingAdmissionPolicyBinding",
        ) => (35, Some(38), ""),
        ("certificates.k8s.io", "v1alpha1", "ClusterTrustBundle") => (34, Some(37), ""),
        ("coordination.k8s.io", "v1alpha2", "LeaseCandidate") => (35, Some(38), ""),
        ("networking.k8s.io", "v1beta1", "IPAddress" | "ServiceCIDR") => (34, Some(37), ""),
        ("resource.k8s.io", "v1beta1", _) => (35, Some(38), ""),
        ("storage.k8s.io", "v1beta1", "VolumeAttributesClass") => {
            (34, Some(37), "storage.k8s.io/v1 VolumeAttributesClass")
        }
        _ => return None,
    };
    let slash = if group.is_empty() { "" } else { "/" };
    let mut text = format!("{group}{slash}{version} {kind} is deprecated in v1.{since}+");
    if let Some(minor) = until {
        text.push_str(&format!(", unavailable in v1.{minor}+"));
    }
    if !replacement.is_empty() {
        text.push_str(&format!("; use {replacement}"));
    }
    Some((text, until.map_or_else(String::new, |minor| format!("1.{minor}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstreams() {
        let check = |group: &str, version: &str, kind: &str, expected: &str| {
            let text = warning(group, version, kind).map(|(text, _)| text);
            assert_eq!(text.as_deref().unwrap_or(""), expected);
        };
        check(
            "",
            "v1",
            "Endpoints",
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        );
        check("", "v1", "ComponentStatus", "v1 ComponentStatus is deprecated in v1.19+");
        check(
            "storage.k8s.io",
            "v1beta1",
            "VolumeAttributesClass",
            "storage.k8s.io/v1beta1 VolumeAttributesClass is deprecated in v1.34+, unavailable in v1.37+; \
             use storage.k8s.io/v1 VolumeAttributesClass",
        );
        check(
            "resource.k8s.io",
            "v1beta1",
            "DeviceClass",
            "resource.k8s.io/v1beta1 DeviceClass is deprecated in v1.35+, unavailable in v1.38+",
        );
        check("resource.k8s.io", "v1beta2", "DeviceClass", "");
        check("", "v1", "Pod", "");
        check("apps", "v1", "Deployment", "");
    }
}
