//! The CNI specification's documents: network configuration, results in every version, errors.
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Versions of the specification that are spoken.
pub const VERSIONS: [&str; 5] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0", "0.3.0"];
/// The newest of [`VERSIONS`].
pub const NEWEST: &str = "1.1.0";

/// The plugin type by which runtimes bring a pod's loopback interface up. containerd 1.6 does so in every pod and
/// needs a file of this name beside the plugin: a link to it.
pub const LOOPBACK: &str = "loopback";

/// Error codes; below 100 the specification's.
pub mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const UNSUPPORTED_FIELD: u32 = 2;
    pub const UNKNOWN_CONTAINER: u32 = 3;
    pub const INVALID_ENVIRONMENT: u32 = 4;
    pub const IO: u32 = 5;
    pub const DECODE: u32 = 6;
    pub const INVALID_CONFIG: u32 = 7;
    pub const TRY_AGAIN: u32 = 11;
    pub const NOT_AVAILABLE: u32 = 50;
    /// No free address in the range.
    pub const EXHAUSTED: u32 = 100;
    /// A host port is taken.
    pub const HOST_PORT_TAKEN: u32 = 101;
    /// CHECK found something else than ADD left.
    pub const CHECK_FAILED: u32 = 102;
    /// The kernel refused a network change.
    pub const NETWORK: u32 = 103;
}

/// What the plugin prints when it fails.
#[derive(Debug, thiserror::Error)]
#[error("{message}{}", .details.as_deref().map(|d| format!(": {d}")).unwrap_or_default())]
pub struct Failure {
    pub code: u32,
    pub message: String,
    pub details: Option<String>,
}

impl Failure {
    pub fn plain(code: u32, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), details: None }
    }
    /// With the error and its causes as details.
    pub fn new(code: u32, message: impl Into<String>, error: &dyn std::error::Error) -> Failure {
        let mut details = error.to_string();
        let mut cause = error.source();
        while let Some(e) = cause {
            details = format!("{details}: {e}");
            cause = e.source();
        }
        Failure { code, message: message.into(), details: Some(details) }
    }
    /// The error object, in the version that the configuration asks for.
    pub fn to_json(&self, input: &str) -> String {
        let asked = serde_json::from_str::<Value>(input)
            .ok()
            .and_then(|v| v.get("cniVersion").and_then(Value::as_str).map(str::to_owned))
            .filter(|v| VERSIONS.contains(&v.as_str()))
            .unwrap_or_else(|| NEWEST.into());
        let mut object = json!({"cniVersion": asked, "code": self.code, "msg": self.message});
        if let Some(details) = &self.details {
            object["details"] = json!(details);
        }
        object.to_string()
    }
}

/// Go writes an empty list as null where it is not left out.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// The network configuration as far as this plugin reads it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetConf {
    #[serde(default)]
    pub cni_version: String,
    #[serde(default)]
    pub name: String,
    /// The plugin that is asked for: this one, or [`LOOPBACK`].
    #[serde(default, rename = "type")]
    pub kind: String,
    /// The node's pod ranges, at most one per address family.
    #[serde(default, rename = "podCIDRs", deserialize_with = "nullable")]
    pub pod_cidrs: Vec<String>,
    pub mtu: Option<u32>,
    /// Folder of the leases; default [`crate::ipam::DEFAULT_FOLDER`].
    pub data_dir: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub runtime_config: RuntimeConfig,
    pub prev_result: Option<PrevResult>,
    /// Present where somebody wants another address management.
    pub ipam: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<Attachment>>,
    /// The name of the former key until 1.1.0 was final.
    #[serde(rename = "cni.dev/attachments")]
    pub attachments: Option<Vec<Attachment>>,
}

/// An attachment that garbage collection keeps.
#[derive(Debug, Clone, Deserialize)]
pub struct Attachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

/// What the runtime adds for the capabilities of the configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeConfig {
    #[serde(default, deserialize_with = "nullable")]
    pub port_mappings: Vec<PortMapping>,
    pub bandwidth: Option<Value>,
}

/// A host port. containerd writes the names of its Go fields; Go reads names without regard to case.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    #[serde(alias = "HostPort")]
    pub host_port: u16,
    #[serde(alias = "ContainerPort")]
    pub container_port: u16,
    #[serde(default, alias = "Protocol")]
    pub protocol: String,
    #[serde(default, rename = "hostIP", alias = "HostIP", alias = "hostIp")]
    pub host_ip: String,
}

/// The result of an earlier ADD, as CHECK gets it.
#[derive(Debug, Clone, Deserialize)]
pub struct PrevResult {
    #[serde(default, deserialize_with = "nullable")]
    pub ips: Vec<PrevIp>,
}

/// See [`PrevResult`].
#[derive(Debug, Clone, Deserialize)]
pub struct PrevIp {
    pub address: String,
}

/// Parses and checks the parts that every command needs.
pub fn parse(input: &str) -> Result<NetConf, Failure> {
    let conf: NetConf = serde_json::from_str(input)
        .map_err(|e| Failure::new(code::DECODE, "the network configuration is not valid", &e))?;
    if !VERSIONS.contains(&conf.cni_version.as_str()) {
        return Err(Failure::plain(
            code::INCOMPATIBLE_VERSION,
            format!(
                "cniVersion {:?} is not supported; supported are {}",
                conf.cni_version,
                VERSIONS.join(", ")
            ),
        ));
    }
    let valid = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if conf.name.is_empty()
        || conf.name.starts_with(|c: char| !c.is_ascii_alphanumeric())
        || !conf.name.chars().all(valid)
    {
        return Err(Failure::plain(
            code::INVALID_CONFIG,
            format!("network name {:?} is not valid", conf.name),
        ));
    }
    if conf.ipam.as_ref().is_some_and(|v| v.as_object().is_none_or(|o| !o.is_empty())) {
        return Err(Failure::plain(
            code::UNSUPPORTED_FIELD,
            "ipam is not supported: this plugin manages addresses itself, from podCIDRs",
        ));
    }
    let limited = |v: &Value| v.as_object().is_some_and(|o| o.values().any(|v| v.as_u64() != Some(0)));
    if conf.runtime_config.bandwidth.as_ref().is_some_and(limited) {
        return Err(Failure::plain(
            code::UNSUPPORTED_FIELD,
            "bandwidth limits are not supported yet; remove the pod's bandwidth annotations",
        ));
    }
    Ok(conf)
}

/// Parses `address/prefix`.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, prefix) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    (prefix <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, prefix))
}

/// What ADD made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    pub host_interface: String,
    pub host_mac: String,
    pub interface: String,
    pub mac: String,
    pub netns: String,
    pub mtu: u32,
    /// Address and gateway.
    pub ips: Vec<(IpAddr, IpAddr)>,
}

#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
    mac: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
}

/// The success object in a version of the specification.
pub fn result(version: &str, added: &Added) -> String {
    let old = version.starts_with("0.");
    let mtu = (version == "1.1.0").then_some(added.mtu);
    let interfaces = [
        Interface { name: &added.host_interface, mac: &added.host_mac, mtu, sandbox: None },
        Interface { name: &added.interface, mac: &added.mac, mtu, sandbox: Some(&added.netns) },
    ];
    let width = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    let ips: Vec<Value> = added
        .ips
        .iter()
        .map(|(ip, gateway)| {
            let mut value =
                json!({"interface": 1, "address": format!("{ip}/{}", width(*ip)), "gateway": gateway});
            if old {
                value["version"] = json!(if ip.is_ipv4() { "4" } else { "6" });
            }
            value
        })
        .collect();
    let routes: Vec<Value> = added
        .ips
        .iter()
        .map(|(ip, gateway)| json!({"dst": if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, "gw": gateway}))
        .collect();
    json!({"cniVersion": version, "interfaces": interfaces, "ips": ips, "routes": routes, "dns": {}})
        .to_string()
}

/// The success object of [`LOOPBACK`].
pub fn loopback_result(version: &str, interface: &str, netns: &str) -> String {
    let ip = |address: &str, family: &str| {
        let mut value = json!({"interface": 0, "address": address});
        if version.starts_with("0.") {
            value["version"] = json!(family);
        }
        value
    };
    json!({
        "cniVersion": version,
        "interfaces": [{"name": interface, "mac": "00:00:00:00:00:00", "sandbox": netns}],
        "ips": [ip("127.0.0.1/8", "4"), ip("::1/128", "6")],
        "dns": {},
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(input: &str) -> (u32, String) {
        let failure = parse(input).expect_err("refused");
        (failure.code, failure.message)
    }

    #[test]
    fn configurations_are_checked() {
        assert_eq!(refused("{").0, code::DECODE);
        assert_eq!(refused(r#"{"cniVersion":"0.2.0","name":"n"}"#).0, code::INCOMPATIBLE_VERSION);
        assert_eq!(refused(r#"{"cniVersion":"1.0.0","name":"../x"}"#).0, code::INVALID_CONFIG);
        assert_eq!(
            refused(r#"{"cniVersion":"1.0.0","name":"n","ipam":{"type":"host-local"}}"#).0,
            code::UNSUPPORTED_FIELD
        );
        let (code, message) =
            refused(r#"{"cniVersion":"1.0.0","name":"n","runtimeConfig":{"bandwidth":{"ingressRate":5}}}"#);
        assert_eq!(code, code::UNSUPPORTED_FIELD);
        assert!(message.contains("bandwidth"));
        parse(
            r#"{"cniVersion":"1.1.0","name":"n","ipam":{},"runtimeConfig":{"bandwidth":{"ingressRate":0}}}"#,
        )
        .expect("nothing asked");
    }

    #[test]
    fn results_by_version() {
        let added = Added {
            host_interface: "kl1".into(),
            host_mac: "aa:aa:aa:aa:aa:aa".into(),
            interface: "eth0".into(),
            mac: "bb:bb:bb:bb:bb:bb".into(),
            netns: "/run/netns/x".into(),
            mtu: 1500,
            ips: vec![("10.244.0.2".parse().expect("ip"), "10.244.0.1".parse().expect("ip"))],
        };
        let of = |v| serde_json::from_str::<Value>(&result(v, &added)).expect("JSON");
        assert_eq!(of("0.4.0")["ips"][0]["version"], "4");
        assert_eq!(
            of("1.0.0")["ips"][0],
            json!({"interface":1,"address":"10.244.0.2/32","gateway":"10.244.0.1"})
        );
        assert_eq!(of("1.1.0")["interfaces"][1]["mtu"], 1500);
        assert!(of("1.0.0")["interfaces"][0].get("mtu").is_none());
    }
}
