//! Cluster roles and their bindings.

use super::{ClusterRole, EVENTS, READ, READ_UPDATE, READ_WRITE, Rule, WRITE, Who, named, rule, url};
use Who::{Account, Group, User};

const fn role(name: &'static str, rules: &'static [Rule]) -> ClusterRole {
    ClusterRole { name, part_of: "", collects: "", rules }
}

const fn aggregated(
    name: &'static str,
    part_of: &'static str,
    collects: &'static str,
    rules: &'static [Rule],
) -> ClusterRole {
    ClusterRole { name, part_of, collects, rules }
}

#[rustfmt::skip]
pub(super) static ROLES: &[ClusterRole] = &[
    role("cluster-admin", &[
        rule("*", "*", "*"),
        url("*", "*"),
    ]),
    role("system:discovery", &[
        url("get", "/livez /readyz /healthz /version /version/ /openapi /openapi/* /api /api/* /apis /apis/*"),
    ]),
    role("system:monitoring", &[
        url("get", "/metrics /metrics/slis /livez /readyz /healthz /livez/* /readyz/* /healthz/*"),
        rule("get", "core", "nodes/metrics"),
    ]),
    role("system:basic-user", &[
        rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
        rule("create", "authentication.k8s.io", "selfsubjectreviews"),
    ]),
    role("system:public-info-viewer", &[
        url("get", "/livez /readyz /healthz /version /version/"),
    ]),
    aggregated("admin", "", "admin", &[
    ]),
    aggregated("edit", "admin", "edit", &[
    ]),
    aggregated("view", "edit", "view", &[
    ]),
    aggregated("system:aggregate-to-admin", "admin", "", &[
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
        rule(READ_WRITE, "rbac.authorization.k8s.io", "roles rolebindings"),
    ]),
    aggregated("system:aggregate-to-edit", "edit", "", &[
        rule(READ, "core", "pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy"),
        rule("impersonate", "core", "serviceaccounts"),
        rule(WRITE, "core", "pods pods/attach pods/proxy pods/exec pods/portforward"),
        rule("create", "core", "pods/eviction"),
        rule(WRITE, "core", "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/proxy persistentvolumeclaims configmaps secrets"),
        rule("create", "core", "serviceaccounts/token"),
        rule(WRITE, "core events.k8s.io", "events"),
        rule(WRITE, "apps", "statefulsets statefulsets/scale daemonsets deployments deployments/scale deployments/rollback replicasets replicasets/scale"),
        rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
        rule(WRITE, "batch", "jobs cronjobs"),
        rule(WRITE, "extensions", "daemonsets deployments deployments/scale deployments/rollback ingresses replicasets replicasets/scale replicationcontrollers/scale networkpolicies"),
        rule(WRITE, "policy", "poddisruptionbudgets"),
        rule(WRITE, "networking.k8s.io", "networkpolicies ingresses"),
        rule(READ_WRITE, "coordination.k8s.io", "leases"),
        rule(WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
    ]),
    aggregated("system:aggregate-to-view", "view", "", &[
        rule(READ, "core", "pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status endpoints persistentvolumeclaims persistentvolumeclaims/status configmaps"),
        rule(READ, "core", "limitranges resourcequotas bindings pods/status resourcequotas/status namespaces/status replicationcontrollers/status pods/log"),
        rule(READ, "core", "namespaces"),
        rule(READ, "core events.k8s.io", "events"),
        rule(READ, "discovery.k8s.io", "endpointslices"),
        rule(READ, "apps", "controllerrevisions statefulsets statefulsets/status statefulsets/scale daemonsets daemonsets/status deployments deployments/status deployments/scale replicasets replicasets/status replicasets/scale"),
        rule(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
        rule(READ, "batch", "jobs cronjobs cronjobs/status jobs/status"),
        rule(READ, "extensions", "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status replicasets replicasets/scale replicasets/status replicationcontrollers/scale networkpolicies"),
        rule(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
        rule(READ, "networking.k8s.io", "networkpolicies ingresses ingresses/status"),
        rule(READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
    ]),
    role("system:heapster", &[
        rule(READ, "core", "events pods nodes namespaces"),
        rule(READ, "extensions", "deployments"),
    ]),
    role("system:node", &[
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews localsubjectaccessreviews"),
        rule(READ, "core", "services"),
        rule("create get list watch", "core", "nodes"),
        rule("update patch", "core", "nodes/status"),
        rule("update patch", "core", "nodes"),
        rule("create update patch", "core events.k8s.io", "events"),
        rule(READ, "core", "pods"),
        rule("create delete", "core", "pods"),
        rule("update patch", "core", "pods/status"),
        rule("create", "core", "pods/eviction"),
        rule(READ, "core", "secrets configmaps"),
        rule("get", "core", "persistentvolumeclaims persistentvolumes"),
        rule("get", "core", "endpoints"),
        rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
        rule("get create update patch delete", "coordination.k8s.io", "leases"),
        rule("get", "storage.k8s.io", "volumeattachments"),
        rule("create", "core", "serviceaccounts/token"),
        rule("get update patch", "core", "persistentvolumeclaims/status"),
        rule("get watch list", "storage.k8s.io", "csidrivers"),
        rule("get create update patch delete", "storage.k8s.io", "csinodes"),
        rule(READ, "node.k8s.io", "runtimeclasses"),
        rule("get", "resource.k8s.io", "resourceclaims"),
        rule("deletecollection", "resource.k8s.io", "resourceslices"),
        rule("get", "core", "serviceaccounts"),
    ]),
    role("system:node-problem-detector", &[
        rule("get", "core", "nodes"),
        rule("patch", "core", "nodes/status"),
        EVENTS,
    ]),
    role("system:node-bootstrapper", &[
        rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
    ]),
    role("system:auth-delegator", &[
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
    ]),
    role("system:kube-aggregator", &[
        rule(READ, "core", "services endpoints"),
    ]),
    role("system:kube-controller-manager", &[
        EVENTS,
        rule("create", "coordination.k8s.io", "leases"),
        named("get update", "coordination.k8s.io", "leases", "kube-controller-manager"),
        rule("create", "core", "secrets serviceaccounts"),
        rule("delete", "core", "secrets"),
        rule("get", "core", "namespaces secrets serviceaccounts configmaps"),
        rule("update", "core", "secrets serviceaccounts"),
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        rule("list watch", "*", "*"),
        rule("create", "core", "serviceaccounts/token"),
    ]),
    role("system:kube-dns", &[
        rule("list watch", "core", "endpoints services"),
    ]),
    role("system:persistent-volume-provisioner", &[
        rule("get list watch create delete", "core", "persistentvolumes"),
        rule("get list watch update", "core", "persistentvolumeclaims"),
        rule(READ, "storage.k8s.io", "storageclasses"),
        rule("watch", "core", "events"),
        EVENTS,
    ]),
    role("system:certificates.k8s.io:certificatesigningrequests:nodeclient", &[
        rule("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient"),
    ]),
    role("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", &[
        rule("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient"),
    ]),
    role("system:volume-scheduler", &[
        rule(READ_UPDATE, "core", "persistentvolumes"),
        rule(READ, "storage.k8s.io", "storageclasses"),
        rule(READ_UPDATE, "core", "persistentvolumeclaims"),
    ]),
    role("system:certificates.k8s.io:legacy-unknown-approver", &[
        named("approve", "certificates.k8s.io", "signers", "kubernetes.io/legacy-unknown"),
    ]),
    role("system:certificates.k8s.io:kubelet-serving-approver", &[
        named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kubelet-serving"),
    ]),
    role("system:certificates.k8s.io:kube-apiserver-client-approver", &[
        named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client"),
    ]),
    role("system:certificates.k8s.io:kube-apiserver-client-kubelet-approver", &[
        named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client-kubelet"),
    ]),
    role("system:service-account-issuer-discovery", &[
        url("get", "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/"),
    ]),
    role("system:kubelet-api-admin", &[
        rule(READ, "core", "nodes"),
        rule("proxy", "core", "nodes"),
        rule("*", "core", "nodes/proxy nodes/metrics nodes/stats nodes/log"),
        rule("*", "core", "nodes/pods nodes/healthz nodes/configz"),
    ]),
    role("system:node-proxier", &[
        rule("list watch", "core", "services endpoints"),
        rule(READ, "core", "nodes"),
        EVENTS,
        rule("list watch", "networking.k8s.io", "servicecidrs"),
        rule("list watch", "discovery.k8s.io", "endpointslices"),
    ]),
    role("system:kube-scheduler", &[
        EVENTS,
        rule("create", "coordination.k8s.io", "leases"),
        named("get update list watch", "coordination.k8s.io", "leases", "kube-scheduler"),
        rule(READ_WRITE, "coordination.k8s.io", "leasecandidates"),
        rule(READ, "core", "nodes"),
        rule("get list watch delete", "core", "pods"),
        rule("create", "core", "pods/binding bindings"),
        rule("patch update", "core", "pods/status"),
        rule(READ, "core", "services replicationcontrollers"),
        rule(READ, "apps extensions", "replicasets"),
        rule(READ, "apps", "statefulsets"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule(READ, "core", "persistentvolumeclaims persistentvolumes"),
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        rule(READ, "storage.k8s.io", "csinodes"),
        rule(READ, "storage.k8s.io", "volumeattachments"),
        rule(READ, "core", "namespaces"),
        rule(READ, "storage.k8s.io", "csidrivers"),
        rule(READ, "storage.k8s.io", "csistoragecapacities"),
        rule(READ, "resource.k8s.io", "deviceclasses"),
        rule(READ_UPDATE, "resource.k8s.io", "resourceclaims"),
        rule(READ_UPDATE, "resource.k8s.io", "resourceclaims/status"),
        rule("update", "core", "pods/finalizers"),
        rule(READ, "resource.k8s.io", "resourceslices"),
    ]),
];

/// Name, role, subjects.
#[rustfmt::skip]
pub(super) static BINDINGS: &[(&str, &str, &[Who])] = &[
    ("cluster-admin", "cluster-admin", &[Group("system:masters")]),
    ("system:monitoring", "system:monitoring", &[Group("system:monitoring")]),
    ("system:discovery", "system:discovery", &[Group("system:authenticated")]),
    ("system:basic-user", "system:basic-user", &[Group("system:authenticated")]),
    ("system:public-info-viewer", "system:public-info-viewer", &[
        Group("system:authenticated"), Group("system:unauthenticated"),
    ]),
    ("system:node-proxier", "system:node-proxier", &[User("system:kube-proxy")]),
    ("system:kube-controller-manager", "system:kube-controller-manager", &[User("system:kube-controller-manager")]),
    ("system:kube-dns", "system:kube-dns", &[Account("kube-system", "kube-dns")]),
    ("system:kube-scheduler", "system:kube-scheduler", &[User("system:kube-scheduler")]),
    ("system:volume-scheduler", "system:volume-scheduler", &[User("system:kube-scheduler")]),
    // Kubelets get their rights from the node authorizer; the empty binding keeps an old one from coming back.
    ("system:node", "system:node", &[]),
    ("system:service-account-issuer-discovery", "system:service-account-issuer-discovery", &[
        Group("system:serviceaccounts"),
    ]),
];

/// Ours beside upstream's.
#[rustfmt::skip]
pub(super) static OWN_ROLES: &[(&str, &[Rule])] = &[
    // Nodes ask for their serving certificate and for their proxy's; the approver looks whether they may.
    ("keelson:certificatesigningrequests:node", &[
        rule("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeserver certificatesigningrequests/nodeproxy"),
    ]),
    ("keelson:controller:certificate-approver", &[
        named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kubelet-serving kubernetes.io/kube-apiserver-client"),
        rule("get", "core", "nodes"),
    ]),
    // Upstream's has the rights of the whole controller manager.
    ("keelson:controller:tokens-controller", &[
        rule("get patch delete", "core", "secrets"),
        rule("get patch", "core", "serviceaccounts"),
    ]),
    ("kubeadm:get-nodes", &[rule("get", "core", "nodes")]),
];

/// The group that kubeadm's tokens, and ours, bring.
const TOKENS: Who = Group("system:bootstrappers:kubeadm:default-node-token");

/// Ours, and what kubeadm makes under its own names.
#[rustfmt::skip]
pub(super) static OWN_BINDINGS: &[(&str, &str, &[Who])] = &[
    ("keelson:cluster-admins", "cluster-admin", &[Group("keelson:cluster-admins")]),
    ("keelson:apiserver-kubelet-client", "system:kubelet-api-admin", &[User("system:kube-apiserver-kubelet-client")]),
    ("keelson:certificatesigningrequests:node", "keelson:certificatesigningrequests:node", &[Group("system:nodes")]),
    ("keelson:controller:certificate-approver", "keelson:controller:certificate-approver", &[
        Account("kube-system", "certificate-controller"),
    ]),
    ("keelson:controller:tokens-controller", "keelson:controller:tokens-controller", &[
        Account("kube-system", "tokens-controller"),
    ]),
    ("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", &[TOKENS]),
    ("kubeadm:get-nodes", "kubeadm:get-nodes", &[TOKENS]),
    ("kubeadm:node-autoapprove-bootstrap", "system:certificates.k8s.io:certificatesigningrequests:nodeclient", &[TOKENS]),
    ("kubeadm:node-autoapprove-certificate-rotation", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", &[
        Group("system:nodes"),
    ]),
];
