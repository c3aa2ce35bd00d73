//! What requests are recognised, and what each signer takes. Messages and reasons are upstream's.

use keelson_base::consts::identity;
use keelson_pki::{CsrInfo, Usage};
use std::net::IpAddr;

pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// A request that may be approved without a human.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognized {
    /// A kubelet renews its own client certificate.
    SelfNodeClient,
    /// Somebody (a bootstrap token) asks for a kubelet's client certificate.
    NodeClient,
    /// A kubelet asks for its own serving certificate; the names must be its Node's.
    NodeServing,
    /// A kubelet asks for the certificate of its machine's proxy.
    NodeProxy,
}

impl Recognized {
    /// The subresource of certificatesigningrequests that the requester must be allowed to create.
    pub fn subresource(self) -> &'static str {
        match self {
            Recognized::SelfNodeClient => "selfnodeclient",
            Recognized::NodeClient => "nodeclient",
            Recognized::NodeServing => "selfnodeserver",
            Recognized::NodeProxy => "nodeproxy",
        }
    }

    /// The approval's message.
    pub fn message(self) -> &'static str {
        match self {
            Recognized::SelfNodeClient => {
                "Auto approving self kubelet client certificate after SubjectAccessReview."
            }
            Recognized::NodeClient => "Auto approving kubelet client certificate after SubjectAccessReview.",
            Recognized::NodeServing => {
                "Auto approving kubelet serving certificate after SubjectAccessReview: its names are the node's."
            }
            Recognized::NodeProxy => "Auto approving node proxy certificate after SubjectAccessReview.",
        }
    }
}

/// What of a request decides.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub signer: &'a str,
    pub username: &'a str,
    pub usages: &'a [String],
    pub csr: &'a CsrInfo,
}

/// The ways to approve this request, in the order they are tried.
pub fn recognize(request: Request<'_>) -> Vec<Recognized> {
    let own = request.username == request.csr.common_name;
    let by_node = request.username.starts_with(identity::NODE_USER_PREFIX);
    match request.signer {
        KUBELET_CLIENT if kubelet_client(request).is_ok() => match own {
            true => vec![Recognized::SelfNodeClient, Recognized::NodeClient],
            false => vec![Recognized::NodeClient],
        },
        KUBELET_SERVING if own && kubelet_serving(request).is_ok() => vec![Recognized::NodeServing],
        CLIENT if by_node && is_proxy(request.csr) && client_usages(request.usages).is_ok() => {
            vec![Recognized::NodeProxy]
        }
        _ => Vec::new(),
    }
}

/// Nothing but the proxy's name.
fn is_proxy(csr: &CsrInfo) -> bool {
    csr.common_name == identity::PROXY
        && csr.organizations.is_empty()
        && csr.other_subject == 0
        && csr.dns_names.is_empty()
        && csr.addresses.is_empty()
        && csr.other_names == 0
}

/// Whether the names and addresses asked for are all among the node's.
pub fn names_are_of(csr: &CsrInfo, node: &str, registered: &[String]) -> bool {
    let address = |wanted: &IpAddr| registered.iter().any(|known| known.parse() == Ok(*wanted));
    let name = |wanted: &String| wanted == node || registered.contains(wanted);
    csr.common_name.strip_prefix(identity::NODE_USER_PREFIX) == Some(node)
        && csr.dns_names.iter().all(name)
        && csr.addresses.iter().all(address)
}

/// Whether a signer of ours takes the request: `None` for signers that are not ours, `Some(Err)` says why not.
pub fn signer_takes(request: Request<'_>) -> Option<Result<Vec<Usage>, String>> {
    let checked = match request.signer {
        KUBELET_CLIENT => kubelet_client(request),
        KUBELET_SERVING => kubelet_serving(request),
        CLIENT => client_usages(request.usages),
        // kubernetes.io/legacy-unknown cannot be named through the v1 API, so there is nothing to sign for it.
        _ => return None,
    };
    Some(checked.map(|()| request.usages.iter().filter_map(|name| Usage::from_name(name)).collect()))
}

fn kubelet_client(request: Request<'_>) -> Result<(), String> {
    let csr = request.csr;
    node_organization(csr)?;
    if !csr.dns_names.is_empty() {
        return Err("DNS subjectAltNames are not allowed".into());
    }
    if !csr.addresses.is_empty() {
        return Err("IP subjectAltNames are not allowed".into());
    }
    no_other_names(csr)?;
    node_name(csr)?;
    exact_usages(request.usages, "client auth")
}

fn kubelet_serving(request: Request<'_>) -> Result<(), String> {
    let csr = request.csr;
    node_organization(csr)?;
    if csr.dns_names.is_empty() && csr.addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".into());
    }
    no_other_names(csr)?;
    exact_usages(request.usages, "server auth")?;
    node_name(csr)
}

fn node_organization(csr: &CsrInfo) -> Result<(), String> {
    if csr.organizations == [identity::NODES_GROUP] {
        return Ok(());
    }
    Err("subject organization is not system:nodes".into())
}

fn node_name(csr: &CsrInfo) -> Result<(), String> {
    if csr.common_name.starts_with(identity::NODE_USER_PREFIX) {
        return Ok(());
    }
    Err("subject common name does not begin with system:node:".into())
}

fn no_other_names(csr: &CsrInfo) -> Result<(), String> {
    match csr.other_names {
        0 => Ok(()),
        _ => Err("Email and URI subjectAltNames are not allowed".into()),
    }
}

/// Digital signature and `purpose`, with or without key encipherment (elliptic-curve keys have no use for it).
fn exact_usages(usages: &[String], purpose: &str) -> Result<(), String> {
    let mut sorted: Vec<&str> = usages.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut full = ["digital signature", "key encipherment", purpose];
    full.sort_unstable();
    let short: Vec<&str> = full.into_iter().filter(|usage| *usage != "key encipherment").collect();
    if sorted == full || sorted == short {
        return Ok(());
    }
    Err(format!("usages did not match [{}]", full.join(" ")))
}

fn client_usages(usages: &[String]) -> Result<(), String> {
    for usage in usages {
        if !["digital signature", "key encipherment", "client auth"].contains(&usage.as_str()) {
            return Err(format!("invalid usage for client certificate: {usage}"));
        }
    }
    if usages.iter().any(|usage| usage == "client auth") {
        return Ok(());
    }
    Err("missing required usage for client certificate: client auth".into())
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
