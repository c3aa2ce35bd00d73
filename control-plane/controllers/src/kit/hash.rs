//! Stable hashes of templates: FNV-1 as upstream uses it, over a dump that does not change with the order of maps nor
//! with defaults the API server fills in.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value};

/// 32-bit FNV-1a (Go's `fnv.New32a`).
#[derive(Clone, Copy)]
pub struct Fnv32a(u32);

impl Default for Fnv32a {
    fn default() -> Self {
        Fnv32a(2_166_136_261)
    }
}

impl Fnv32a {
    /// Takes bytes in.
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(16_777_619);
        }
    }

    /// The hash.
    pub fn sum(self) -> u32 {
        self.0
    }
}

/// Turns a text into one without vowels and look-alikes, safe in names (`rand.SafeEncodeString`).
pub fn safe_encode(text: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    text.bytes().map(|b| ALPHABET[usize::from(b) % ALPHABET.len()] as char).collect()
}

fn dump(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push('{');
            for key in keys {
                out.push_str(key);
                out.push(':');
                dump(&map[key], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                dump(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// The text that is hashed and compared: a template without its hash label, without empty values and defaults.
pub fn canonical_template(template: &PodTemplateSpec, without_label: &str) -> String {
    let mut value = serde_json::to_value(template).unwrap_or(Value::Null);
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(without_label);
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
    }
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        normalise_spec(spec);
    }
    prune(&mut value);
    let mut out = String::new();
    dump(&value, &mut out);
    out
}

/// `pod-template-hash` of a template (`ComputeHash`).
pub fn template_hash(template: &PodTemplateSpec, without_label: &str, collisions: Option<i32>) -> String {
    let mut hasher = Fnv32a::default();
    hasher.write(canonical_template(template, without_label).as_bytes());
    if let Some(collisions) = collisions {
        let mut bytes = [0u8; 8];
        bytes[..4].copy_from_slice(&collisions.to_le_bytes());
        hasher.write(&bytes);
    }
    safe_encode(&hasher.sum().to_string())
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            let empty = |v: &Value| match v {
                Value::Null => true,
                Value::Array(items) => items.is_empty(),
                Value::String(text) => text.is_empty(),
                _ => false,
            };
            map.retain(|_, v| !empty(v));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

fn drop_if(map: &mut Map<String, Value>, key: &str, default: impl Into<Value>) {
    if map.get(key) == Some(&default.into()) {
        map.remove(key);
    }
}

fn objects<'a>(
    map: &'a mut Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn normalise_spec(spec: &mut Map<String, Value>) {
    drop_if(spec, "restartPolicy", "Always");
    drop_if(spec, "terminationGracePeriodSeconds", 30);
    drop_if(spec, "dnsPolicy", "ClusterFirst");
    drop_if(spec, "schedulerName", "default-scheduler");
    drop_if(spec, "enableServiceLinks", true);
    drop_if(spec, "securityContext", Value::Object(Map::new()));
    for flag in ["hostNetwork", "hostPID", "hostIPC"] {
        drop_if(spec, flag, false);
    }
    if spec.get("serviceAccount") == spec.get("serviceAccountName") {
        spec.remove("serviceAccount");
    }
    for key in ["containers", "initContainers"] {
        objects(spec, key).for_each(normalise_container);
    }
    for volume in objects(spec, "volumes") {
        for source in ["configMap", "secret", "projected", "downwardAPI"] {
            if let Some(source) = volume.get_mut(source).and_then(Value::as_object_mut) {
                drop_if(source, "defaultMode", 420);
            }
        }
        if let Some(host_path) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
            drop_if(host_path, "type", "");
        }
    }
    for constraint in objects(spec, "topologySpreadConstraints") {
        drop_if(constraint, "nodeAffinityPolicy", "Honor");
        drop_if(constraint, "nodeTaintsPolicy", "Ignore");
    }
}

fn normalise_container(container: &mut Map<String, Value>) {
    drop_if(container, "terminationMessagePath", "/dev/termination-log");
    drop_if(container, "terminationMessagePolicy", "File");
    drop_if(container, "resources", Value::Object(Map::new()));
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let tag = image.rsplit('/').next().unwrap_or_default();
    let latest = !image.contains('@') && (!tag.contains(':') || tag.ends_with(":latest"));
    drop_if(container, "imagePullPolicy", if latest { "Always" } else { "IfNotPresent" });
    objects(container, "ports").for_each(|port| drop_if(port, "protocol", "TCP"));
    for variable in objects(container, "env") {
        if let Some(field) =
            variable.get_mut("valueFrom").and_then(|v| v.get_mut("fieldRef")).and_then(Value::as_object_mut)
        {
            drop_if(field, "apiVersion", "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) else { continue };
        drop_if(probe, "timeoutSeconds", 1);
        drop_if(probe, "periodSeconds", 10);
        drop_if(probe, "successThreshold", 1);
        drop_if(probe, "failureThreshold", 3);
        normalise_http(probe);
    }
    let Some(lifecycle) = container.get_mut("lifecycle").and_then(Value::as_object_mut) else { return };
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = lifecycle.get_mut(hook).and_then(Value::as_object_mut) {
            normalise_http(hook);
        }
    }
}

fn normalise_http(handler: &mut Map<String, Value>) {
    if let Some(http) = handler.get_mut("httpGet").and_then(Value::as_object_mut) {
        drop_if(http, "scheme", "HTTP");
        drop_if(http, "path", "/");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(json: Value) -> PodTemplateSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn fnv_and_encoding_are_gos() {
        let mut hasher = Fnv32a::default();
        hasher.write(b"hello");
        assert_eq!(hasher.sum(), 0x4f9f_2cab);
        assert_eq!(safe_encode("0123456789"), "456789bcdf");
    }

    #[test]
    fn defaults_and_the_hash_label_do_not_count() {
        let plain = template(json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [
            {"name": "c", "image": "nginx", "ports": [{"containerPort": 80}], "readinessProbe": {"httpGet": {"port": 80}}}],
            "serviceAccountName": "x"}}));
        let defaulted = template(
            json!({"metadata": {"labels": {"app": "a", "pod-template-hash": "h"}, "creationTimestamp": null}, "spec": {
            "containers": [{"name": "c", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "readinessProbe": {"httpGet": {"port": 80, "scheme": "HTTP", "path": "/"}, "timeoutSeconds": 1,
                    "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}}],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "securityContext": {}, "schedulerName": "default-scheduler", "serviceAccountName": "x", "serviceAccount": "x"}}),
        );
        let changed = template(
            json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}),
        );
        let hash = |t: &PodTemplateSpec, n| template_hash(t, "pod-template-hash", n);
        assert_eq!(hash(&plain, None), hash(&defaulted, None));
        assert_ne!(hash(&plain, None), hash(&changed, None));
        assert_ne!(hash(&plain, None), hash(&plain, Some(1)));
    }
}
