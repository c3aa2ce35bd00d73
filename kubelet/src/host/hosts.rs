//! /etc/hosts of a pod, and its host name.
use crate::plan::pod;
use k8s_openapi::api::core::v1::{HostAlias, Pod};
use std::fmt::Write as _;

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HOST_HEADER: &str = "# Kubernetes-managed hosts file (host network).\n";
/// Longest host name the kernel takes, less one.
const MAX_HOSTNAME: usize = 63;

/// The file's content for a pod with its own network.
pub fn managed(ips: &[String], hostname: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut out = String::from(HEADER);
    out.push_str("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    out.push_str(
        "fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        let _ = match domain {
            "" => writeln!(out, "{ip}\t{hostname}"),
            domain => writeln!(out, "{ip}\t{hostname}.{domain}\t{hostname}"),
        };
    }
    append_aliases(&mut out, aliases);
    out
}

/// The file's content for a pod on the host's network: the host's own file and the pod's aliases.
pub fn host_network(host_file: &str, aliases: &[HostAlias]) -> String {
    let mut out = format!("{HOST_HEADER}{host_file}");
    append_aliases(&mut out, aliases);
    out
}

fn append_aliases(out: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    out.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or(&[]).join("\t");
        let _ = writeln!(out, "{}\t{names}", alias.ip);
    }
}

/// A pod's host name and, with a subdomain, its domain; what the kernel's host name becomes is third.
pub fn names(pod: &Pod, cluster_domain: &str, node_hostname: &str) -> (String, String, String) {
    let spec = pod::spec(pod);
    if let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return (name.to_owned(), String::new(), name.to_owned());
    }
    let own = spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(pod::name(pod));
    let mut hostname: String = own.chars().take(MAX_HOSTNAME).collect();
    while hostname.ends_with(['-', '.']) {
        hostname.pop();
    }
    let domain = spec
        .subdomain
        .as_deref()
        .filter(|sub| !sub.is_empty())
        .map_or(String::new(), |sub| format!("{sub}.{}.svc.{cluster_domain}", pod::namespace(pod)));
    let kernel = if pod::host_network(pod) {
        node_hostname.to_owned()
    } else if spec.set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
        format!("{hostname}.{domain}")
    } else {
        hostname.clone()
    };
    (hostname, domain, kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_is_upstreams() {
        let aliases = [HostAlias { ip: "1.2.3.4".into(), hostnames: Some(vec!["a".into(), "b".into()]) }];
        let text = managed(&["10.0.0.5".into()], "p", "sub.n.svc.cluster.local", &aliases);
        assert!(text.starts_with(HEADER));
        assert!(text.contains("10.0.0.5\tp.sub.n.svc.cluster.local\tp\n"));
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
        assert_eq!(host_network("x\n", &[]), format!("{HOST_HEADER}x\n"));
    }

    #[test]
    fn host_names_are_cut_and_take_the_subdomain() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a".repeat(62) + "-bcd", "namespace": "n"},
            "spec": {"subdomain": "s", "setHostnameAsFQDN": true, "containers": []}}))
        .unwrap();
        let (hostname, domain, kernel) = names(&pod, "cluster.local", "node");
        assert_eq!((hostname.len(), domain.as_str()), (62, "s.n.svc.cluster.local"));
        assert_eq!(kernel, format!("{hostname}.{domain}"));
    }
}
