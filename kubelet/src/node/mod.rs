//! The node object: registration, status, lease. All of it runs apart from pod work, so that slow pods never make a
//! node NotReady; and a kubelet's user may do no more than this (NodeRestriction).
pub mod info;
mod lease;
pub mod pressure;
mod status;

pub use lease::keep as keep_lease;
pub use status::keep as keep_status;

use crate::config::KubeletConfig;
use std::collections::BTreeMap;

/// The labels a kubelet may give its node (NodeRestriction).
pub fn labels(config: &KubeletConfig) -> BTreeMap<String, String> {
    let mut labels = config.labels.clone();
    let arch = info::go_arch();
    for (key, value) in [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ] {
        labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    labels
}
