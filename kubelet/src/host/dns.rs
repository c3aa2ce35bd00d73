//! resolv.conf of a pod by its dnsPolicy and dnsConfig (upstream's `network/dns`).
use crate::cri::api::DnsConfig;
use crate::plan::pod;
use k8s_openapi::api::core::v1::Pod;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_LENGTH: usize = 2048;

/// What the node knows of name resolution.
#[derive(Clone, Debug, Default)]
pub struct DnsSettings {
    /// Addresses of cluster DNS; empty when there is none.
    pub cluster: Vec<String>,
    pub domain: String,
    /// The node's own resolver configuration.
    pub resolv_conf: std::path::PathBuf,
}

/// A resolv.conf as the runtime takes it. With no settings at all the runtime copies the node's file, which is what
/// policy Default without a readable file amounts to.
pub fn config(pod: &Pod, settings: &DnsSettings, node_file: &str) -> DnsConfig {
    let policy = pod::spec(pod).dns_policy.as_deref().unwrap_or("ClusterFirst");
    let host_network = pod::host_network(pod);
    let node = parse(node_file);
    let cluster = match policy {
        "None" => false,
        "Default" => false,
        "ClusterFirstWithHostNet" => true,
        _ => !host_network,
    };
    let mut config = match policy {
        "None" => DnsConfig::default(),
        _ if cluster && !settings.cluster.is_empty() => {
            let namespace = pod::namespace(pod);
            let mut searches = Vec::new();
            if !settings.domain.is_empty() {
                searches.push(format!("{namespace}.svc.{}", settings.domain));
                searches.push(format!("svc.{}", settings.domain));
                searches.push(settings.domain.clone());
            }
            searches.extend(node.searches.clone());
            DnsConfig { servers: settings.cluster.clone(), searches, options: vec!["ndots:5".into()] }
        }
        _ => node,
    };
    if let Some(extra) = &pod::spec(pod).dns_config {
        config.servers.extend(extra.nameservers.iter().flatten().cloned());
        config.searches.extend(extra.searches.iter().flatten().cloned());
        for option in extra.options.iter().flatten() {
            let Some(name) = option.name.as_deref() else { continue };
            config.options.retain(|old| old.split(':').next() != Some(name));
            config.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.to_owned(),
            });
        }
    }
    limit(&mut config);
    config
}

fn limit(config: &mut DnsConfig) {
    let mut seen = std::collections::HashSet::new();
    config.servers.retain(|server| seen.insert(server.clone()));
    config.servers.truncate(MAX_NAMESERVERS);
    let mut seen = std::collections::HashSet::new();
    config.searches.retain(|search| seen.insert(search.clone()));
    config.searches.truncate(MAX_SEARCHES);
    let mut length = 0;
    config.searches.retain(|search| {
        length += search.len() + 1;
        length <= MAX_SEARCH_LENGTH
    });
}

/// Reads a resolv.conf.
pub fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or("");
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => {
                config.searches =
                    words.map(|w| if w == "." { w } else { w.trim_end_matches('.') }.to_owned()).collect();
            }
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: serde_json::Value, servers: &[&str], searches: &[&str], options: &[&str]) {
        let mut spec = spec;
        spec["containers"] = serde_json::json!([]);
        let pod: Pod =
            serde_json::from_value(serde_json::json!({"metadata": {"namespace": "n"}, "spec": spec}))
                .unwrap();
        let settings = DnsSettings {
            cluster: vec!["10.96.0.10".into()],
            domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
        };
        let file = "# comment\nnameserver 192.0.2.53\nsearch example.org.\noptions edns0\n";
        let config = config(&pod, &settings, file);
        assert_eq!(config.servers, servers);
        assert_eq!(config.searches, searches);
        assert_eq!(config.options, options);
    }

    #[test]
    fn policies() {
        let cluster = ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"];
        check(serde_json::json!({}), &["10.96.0.10"], &cluster, &["ndots:5"]);
        check(serde_json::json!({"dnsPolicy": "Default"}), &["192.0.2.53"], &["example.org"], &["edns0"]);
        check(serde_json::json!({"hostNetwork": true}), &["192.0.2.53"], &["example.org"], &["edns0"]);
        check(
            serde_json::json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            &["10.96.0.10"],
            &cluster,
            &["ndots:5"],
        );
        check(
            serde_json::json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["s"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
            &["1.1.1.1"],
            &["s"],
            &["ndots:2", "edns0"],
        );
        check(
            serde_json::json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}),
            &["10.96.0.10"],
            &cluster,
            &["ndots:1"],
        );
    }
}
