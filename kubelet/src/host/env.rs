//! A container's environment: services, envFrom, env with every kind of source, and `$(VAR)` expansion.
//!
//! Pure: what must be read from the API was read before and is passed as [`Refs`].
use crate::plan::{pod, qos, quantity};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, ObjectFieldSelector, Pod, ResourceFieldSelector, Secret,
};
use std::collections::{BTreeMap, HashMap};

/// ConfigMaps and Secrets of the pod's namespace by name; `None`: there is none of that name.
#[derive(Clone, Debug, Default)]
pub struct Refs {
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    pub secrets: BTreeMap<String, Option<Secret>>,
}

/// A service as far as environment variables tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    pub namespace: String,
    pub name: String,
    pub cluster_ip: String,
    /// Name (may be empty), number, protocol.
    pub ports: Vec<(String, i32, String)>,
}

/// What fields of the pod and the node are worth when a container starts.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    pub node_name: &'a str,
    pub host_ips: &'a [String],
    pub pod_ips: &'a [String],
    pub services: &'a [ServiceView],
    /// What a limit that is not set amounts to: allocatable CPU (thousandths) and memory (bytes).
    pub allocatable_cpu: i64,
    pub allocatable_memory: i64,
}

/// A variable that cannot be given its value: the container waits with `CreateContainerConfigError`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    #[error("secret {0:?} not found")]
    NoSecret(String),
    #[error("couldn't find key {key} in ConfigMap {namespace}/{name}")]
    NoConfigMapKey { namespace: String, name: String, key: String },
    #[error("couldn't find key {key} in Secret {namespace}/{name}")]
    NoSecretKey { namespace: String, name: String, key: String },
    #[error("variable {name}: field {path} is not supported")]
    Field { name: String, path: String },
    #[error("variable {name}: resource {resource} is not supported")]
    Resource { name: String, resource: String },
    #[error("variable {0}: fileKeyRef is not there yet")]
    FileKey(String),
}

/// The names of ConfigMaps and Secrets a container's environment reads.
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        config_maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    (config_maps, secrets)
}

/// The environment, in order; later entries replace earlier ones of the same name.
pub fn environment(
    pod: &Pod,
    container: &Container,
    refs: &Refs,
    facts: &Facts<'_>,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = Env::default();
    let service_env = services(pod, facts.services);
    env_from(pod, container, refs, &mut env)?;
    for var in container.env.iter().flatten() {
        if let Some(value) = value(pod, container, var, refs, facts, &env, &service_env)? {
            env.set(&var.name, value);
        }
    }
    // Services come last and replace nothing that the pod names itself.
    for (name, value) in service_env {
        if !env.values.contains_key(&name) {
            env.set(&name, value);
        }
    }
    Ok(env.into_list())
}

#[derive(Default)]
struct Env {
    order: Vec<String>,
    values: HashMap<String, String>,
}

impl Env {
    fn set(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    fn into_list(mut self) -> Vec<(String, String)> {
        let values = &mut self.values;
        self.order.into_iter().filter_map(|name| values.remove(&name).map(|value| (name, value))).collect()
    }
}

fn env_from(pod: &Pod, container: &Container, refs: &Refs, env: &mut Env) -> Result<(), EnvError> {
    let _ = pod;
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        if let Some(reference) = &from.config_map_ref {
            match refs.config_maps.get(&reference.name).and_then(Option::as_ref) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        env.set(&format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(EnvError::NoConfigMap(reference.name.clone())),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match refs.secrets.get(&reference.name).and_then(Option::as_ref) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        env.set(&format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(EnvError::NoSecret(reference.name.clone())),
            }
        }
    }
    Ok(())
}

fn value(
    pod: &Pod,
    container: &Container,
    var: &EnvVar,
    refs: &Refs,
    facts: &Facts<'_>,
    env: &Env,
    service_env: &BTreeMap<String, String>,
) -> Result<Option<String>, EnvError> {
    let namespace = || pod::namespace(pod).to_owned();
    let Some(source) = &var.value_from else {
        let text = var.value.as_deref().unwrap_or("");
        return Ok(Some(expand(text, |name| {
            env.values.get(name).or_else(|| service_env.get(name)).cloned()
        })));
    };
    if let Some(field) = &source.field_ref {
        return field_value(pod, field, facts)
            .map(Some)
            .ok_or_else(|| EnvError::Field { name: var.name.clone(), path: field.field_path.clone() });
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_value(pod, container, resource, facts).map(Some).ok_or_else(|| EnvError::Resource {
            name: var.name.clone(),
            resource: resource.resource.clone(),
        });
    }
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional == Some(true);
        let Some(map) = refs.config_maps.get(&key.name).and_then(Option::as_ref) else {
            return if optional { Ok(None) } else { Err(EnvError::NoConfigMap(key.name.clone())) };
        };
        return match map.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(EnvError::NoConfigMapKey {
                namespace: namespace(),
                name: key.name.clone(),
                key: key.key.clone(),
            }),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional == Some(true);
        let Some(secret) = refs.secrets.get(&key.name).and_then(Option::as_ref) else {
            return if optional { Ok(None) } else { Err(EnvError::NoSecret(key.name.clone())) };
        };
        return match secret.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional => Ok(None),
            None => Err(EnvError::NoSecretKey {
                namespace: namespace(),
                name: key.name.clone(),
                key: key.key.clone(),
            }),
        };
    }
    if source.file_key_ref.is_some() {
        return Err(EnvError::FileKey(var.name.clone()));
    }
    Ok(Some(String::new()))
}

/// The value of a field path of the downward API; `None` when the path is not one of them.
pub fn field_value(pod: &Pod, field: &ObjectFieldSelector, facts: &Facts<'_>) -> Option<String> {
    let spec = pod::spec(pod);
    let path = field.field_path.as_str();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => pod.metadata.labels.as_ref(),
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            _ => return None,
        };
        return Some(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Some(match path {
        "metadata.name" => pod::name(pod).to_owned(),
        "metadata.namespace" => pod::namespace(pod).to_owned(),
        "metadata.uid" => pod::uid(pod).to_owned(),
        "metadata.labels" => map_lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => map_lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => facts.node_name.to_owned(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => facts.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return None,
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// Labels or annotations as lines `key="value"`, quoted as Go quotes.
fn map_lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", go_quote(v))).collect();
    lines.join("\n")
}

fn go_quote(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a resource field: of `container`, or of the one the selector names; unset limits are the node's.
pub fn resource_value(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
    facts: &Facts<'_>,
) -> Option<String> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let found = named.map(|name| pod::find(pod, name).and_then(|r| pod::container(pod, r)));
    let container = match &found {
        Some(found) => found.as_ref()?,
        None => container,
    };
    let (kind, resource) = selector.resource.split_once('.')?;
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|r| r.limits.as_ref());
    let requests = resources.and_then(|r| r.requests.as_ref());
    let milli = match (kind, resource) {
        ("limits", "cpu") => {
            quantity::milli_of(limits, "cpu").filter(|v| *v > 0).unwrap_or(facts.allocatable_cpu)
        }
        ("requests", "cpu") => qos::cpu_request(container),
        ("limits", "memory") => {
            let value = quantity::whole_of(limits, "memory").filter(|v| *v > 0);
            value.unwrap_or(facts.allocatable_memory).saturating_mul(1000)
        }
        ("requests", "memory") => qos::memory_request(container).saturating_mul(1000),
        ("limits", name) if name == "ephemeral-storage" || name.starts_with("hugepages-") => {
            quantity::milli_of(limits, name).unwrap_or(0)
        }
        ("requests", name) if name == "ephemeral-storage" || name.starts_with("hugepages-") => {
            quantity::milli_of(requests, name).unwrap_or(0)
        }
        _ => return None,
    };
    let divisor =
        selector.divisor.as_ref().and_then(|q| quantity::milli(&q.0)).filter(|v| *v > 0).unwrap_or(1000);
    // Rounded up, as upstream does.
    Some(((i128::from(milli) + i128::from(divisor) - 1) / i128::from(divisor)).to_string())
}

/// Variables that name the services a pod may use: its namespace's, and the API server's.
fn services(pod: &Pod, services: &[ServiceView]) -> BTreeMap<String, String> {
    let links = pod::spec(pod).enable_service_links.unwrap_or(true);
    let mut vars = BTreeMap::new();
    for service in services {
        let master = service.namespace == "default" && service.name == "kubernetes";
        let wanted = master || (links && service.namespace == pod::namespace(pod));
        // A service of the same name in the pod's own namespace comes before the API server's.
        let shadowed = master
            && pod::namespace(pod) != "default"
            && links
            && services.iter().any(|s| s.name == "kubernetes" && s.namespace == pod::namespace(pod));
        if wanted && !shadowed && !service.cluster_ip.is_empty() && service.cluster_ip != "None" {
            service_variables(service, &mut vars);
        }
    }
    vars
}

fn service_variables(service: &ServiceView, vars: &mut BTreeMap<String, String>) {
    let name = service.name.to_uppercase().replace('-', "_");
    let Some((_, first, _)) = service.ports.first() else { return };
    let ip = &service.cluster_ip;
    vars.insert(format!("{name}_SERVICE_HOST"), ip.clone());
    vars.insert(format!("{name}_SERVICE_PORT"), first.to_string());
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
    for (index, (port_name, port, protocol)) in service.ports.iter().enumerate() {
        if !port_name.is_empty() {
            let key = format!("{name}_SERVICE_PORT_{}", port_name.to_uppercase().replace('-', "_"));
            vars.insert(key, port.to_string());
        }
        let url = format!("{}://{host}:{port}", protocol.to_lowercase());
        if index == 0 {
            vars.insert(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{port}_{}", protocol.to_uppercase());
        vars.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
        vars.insert(format!("{prefix}_PORT"), port.to_string());
        vars.insert(format!("{prefix}_ADDR"), ip.clone());
        vars.insert(prefix, url);
    }
}

/// Replaces `$(NAME)`; `$$` is a dollar, and what is unknown or no reference stays as written.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        match after.chars().next() {
            Some('$') => {
                out.push('$');
                rest = &after[1..];
            }
            Some('(') => match after.find(')') {
                Some(end) => {
                    let name = &after[1..end];
                    match lookup(name) {
                        Some(value) => out.push_str(&value),
                        None => {
                            out.push_str("$(");
                            out.push_str(name);
                            out.push(')');
                        }
                    }
                    rest = &after[end + 1..];
                }
                None => {
                    out.push_str("$(");
                    rest = &after[1..];
                }
            },
            _ => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
#[path = "env_tests.rs"]
mod tests;
