//! Roles and bindings in kube-system and kube-public.

use super::{EVENTS, READ, Rule, Who, named, rule};
use Who::{Account, Group, User};

const LEADER: &[Rule] = &[
    rule("get watch list create update", "coordination.k8s.io", "leases"),
    rule("get watch list create update", "coordination.k8s.io", "leasecandidates"),
];

/// Namespace, name, rules.
#[rustfmt::skip]
pub(super) static ROLES: &[(&str, &str, &[Rule])] = &[
    ("kube-system", "extension-apiserver-authentication-reader", &[
        named(READ, "core", "configmaps", "extension-apiserver-authentication"),
    ]),
    ("kube-system", "system:controller:bootstrap-signer", &[rule(READ, "core", "secrets")]),
    ("kube-system", "system:controller:cloud-provider", &[rule("create get list watch", "core", "configmaps")]),
    ("kube-system", "system:controller:token-cleaner", &[rule("get list watch delete", "core", "secrets"), EVENTS]),
    ("kube-system", "system::leader-locking-kube-controller-manager", LEADER),
    ("kube-system", "system::leader-locking-kube-scheduler", LEADER),
    ("kube-public", "system:controller:bootstrap-signer", &[
        rule(READ, "core", "configmaps"),
        named("update", "core", "configmaps", "cluster-info"),
        EVENTS,
    ]),
    // Our signer patches what upstream's replaces.
    ("kube-public", "keelson:controller:bootstrap-signer", &[named("patch", "core", "configmaps", "cluster-info")]),
    // The discovery document is signed, and is read before a machine has an identity.
    ("kube-public", "kubeadm:bootstrap-signer-clusterinfo", &[named("get", "core", "configmaps", "cluster-info")]),
    // Sealed, as kubeadm's: of use to whoever has the key too.
    ("kube-system", "keelson:control-plane-keys", &[named("get", "core", "secrets", "keelson-control-plane-keys")]),
    // The cluster's ranges and domain, for machines that join.
    ("kube-system", "keelson:nodes-config", &[named("get", "core", "configmaps", "keelson-config")]),
];

/// Namespace, name, role, subjects.
#[rustfmt::skip]
pub(super) static BINDINGS: &[(&str, &str, &str, &[Who])] = &[
    ("kube-system", "system::extension-apiserver-authentication-reader", "extension-apiserver-authentication-reader", &[
        User("system:kube-controller-manager"), User("system:kube-scheduler"),
    ]),
    ("kube-system", "system::leader-locking-kube-controller-manager", "system::leader-locking-kube-controller-manager", &[
        User("system:kube-controller-manager"), Account("kube-system", "kube-controller-manager"),
    ]),
    ("kube-system", "system::leader-locking-kube-scheduler", "system::leader-locking-kube-scheduler", &[
        User("system:kube-scheduler"), Account("kube-system", "kube-scheduler"),
    ]),
    ("kube-system", "system:controller:bootstrap-signer", "system:controller:bootstrap-signer", &[
        Account("kube-system", "bootstrap-signer"),
    ]),
    ("kube-system", "system:controller:cloud-provider", "system:controller:cloud-provider", &[
        Account("kube-system", "cloud-provider"),
    ]),
    ("kube-system", "system:controller:token-cleaner", "system:controller:token-cleaner", &[
        Account("kube-system", "token-cleaner"),
    ]),
    ("kube-public", "system:controller:bootstrap-signer", "system:controller:bootstrap-signer", &[
        Account("kube-system", "bootstrap-signer"),
    ]),
    ("kube-public", "keelson:controller:bootstrap-signer", "keelson:controller:bootstrap-signer", &[
        Account("kube-system", "bootstrap-signer"),
    ]),
    ("kube-public", "kubeadm:bootstrap-signer-clusterinfo", "kubeadm:bootstrap-signer-clusterinfo", &[
        User("system:anonymous"),
    ]),
    ("kube-system", "keelson:control-plane-keys", "keelson:control-plane-keys", &[
        Group("system:bootstrappers:kubeadm:default-node-token"),
    ]),
    ("kube-system", "keelson:nodes-config", "keelson:nodes-config", &[
        Group("system:bootstrappers:kubeadm:default-node-token"), Group("system:nodes"),
    ]),
];
