//! Starts every controller as its own service account.

use std::time::Duration;

use keelson_base::cidr::Cidr;
use keelson_client::HandlerScope;
use keelson_client::projections::SharedInformers;
use keelson_daemon::Context;
use keelson_pki::ServiceAccountKeys;
use tokio::task::JoinSet;

use crate::certificates::Signing;
use crate::small::{cluster_roles, pod_gc, protection, root_ca, secret_tokens, service_accounts, ttl};
use crate::{
    bootstrap, certificates, cronjob, daemonset, deployment, disruption, endpoints, gc, job, namespace, node,
    replicaset, statefulset,
};

/// Settings, checked.
#[derive(Clone)]
pub struct ControllersConfig {
    /// The ranges pods get their addresses from (at most one per family) and the prefix length of a node's share; empty:
    /// nodes get theirs elsewhere.
    pub pod_cidrs: Vec<(Cidr, u8)>,
    /// How long a node may be silent before it counts as unreachable (upstream's `node-monitor-grace-period`).
    pub node_grace: Duration,
    /// The certificate authority of the API server, as PEM, for `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// What certificate requests are signed with; `None`: they are signed elsewhere.
    pub signing: Option<Signing>,
    /// What signs tokens that live in Secrets; `None`: nobody fills such Secrets.
    pub tokens: Option<ServiceAccountKeys>,
}

impl ControllersConfig {
    /// Upstream's defaults for everything else.
    pub fn new(pod_cidrs: Vec<(Cidr, u8)>, root_ca_pem: String) -> Self {
        let node_grace = Duration::from_secs(50);
        ControllersConfig { pod_cidrs, node_grace, root_ca_pem, signing: None, tokens: None }
    }
}

/// Why the controllers ended.
#[derive(Debug, thiserror::Error)]
pub enum ControllersError {
    #[error("controller {0} ended without being told to")]
    Ended(&'static str),
    #[error("a controller's task failed")]
    Task(#[from] tokio::task::JoinError),
}

/// Runs all controllers until the drain begins. `client_of` gives the client of a service account in kube-system
/// (upstream's name, say `deployment-controller`); `shared` are the process's informers.
pub async fn run(
    client_of: impl Fn(&str) -> kube::Client,
    config: ControllersConfig,
    shared: SharedInformers,
    ctx: Context,
) -> Result<(), ControllersError> {
    // Dropped last: what is left of a run that failed must not see changes beside the next one.
    let scope = HandlerScope::default();
    let shared = shared.within(&scope);
    let mut tasks: JoinSet<&'static str> = JoinSet::new();
    macro_rules! start {
        ($account:literal, |$client:ident| $controller:expr) => {{
            let $client = client_of($account);
            let controller = $controller;
            tasks.spawn(async move {
                controller.await;
                $account
            });
        }};
    }
    start!("deployment-controller", |c| deployment::start(c, &shared, &ctx));
    start!("replicaset-controller", |c| replicaset::start_replica_sets(c, &shared, &ctx));
    start!("replication-controller", |c| replicaset::start_replication_controllers(c, &shared, &ctx));
    start!("daemon-set-controller", |c| daemonset::start(c, &shared, &ctx));
    start!("statefulset-controller", |c| statefulset::start(c, &shared, &ctx));
    start!("disruption-controller", |c| disruption::start(c, &shared, &ctx));
    start!("cronjob-controller", |c| cronjob::start(c, &shared, &ctx));
    start!("job-controller", |c| job::start(c, &shared, &ctx));
    start!("endpoint-controller", |c| endpoints::start_endpoints(c, &shared, &ctx));
    start!("endpointslice-controller", |c| endpoints::start_slices(c, &shared, &ctx));
    start!("endpointslicemirroring-controller", |c| endpoints::start_mirroring(c, &shared, &ctx));
    start!("namespace-controller", |c| namespace::start(c, &shared, &ctx));
    start!("service-account-controller", |c| service_accounts::start(c, &shared, &ctx));
    if let Some(keys) = config.tokens {
        let ca = config.root_ca_pem.clone();
        start!("tokens-controller", |c| secret_tokens::start(c, &shared, &ctx, keys, ca));
    }
    start!("root-ca-cert-publisher", |c| root_ca::start(c, &shared, &ctx, config.root_ca_pem));
    start!("node-controller", |c| node::start_lifecycle(c, &shared, &ctx, config.node_grace));
    start!("node-controller", |c| node::start_evictor(c, &shared, &ctx));
    if !config.pod_cidrs.is_empty() {
        start!("node-controller", |c| node::start_ipam(c, &shared, &ctx, config.pod_cidrs));
    }
    start!("generic-garbage-collector", |c| gc::start(c, &shared, &ctx));
    start!("pod-garbage-collector", |c| pod_gc::start(c, &shared, &ctx));
    start!("pvc-protection-controller", |c| protection::start_claims(c, &shared, &ctx));
    start!("pv-protection-controller", |c| protection::start_volumes(c, &shared, &ctx));
    start!("volumeattributesclass-protection-controller", |c| protection::start_classes(c, &shared, &ctx));
    start!("ttl-after-finished-controller", |c| ttl::start(c, &shared, &ctx));
    start!("clusterrole-aggregation-controller", |c| cluster_roles::start(c, &shared, &ctx));
    start!("certificate-controller", |c| certificates::start_approver(c, &shared, &ctx));
    if let Some(signing) = config.signing {
        start!("certificate-controller", |c| certificates::start_signer(c, &shared, &ctx, signing));
    }
    start!("certificate-controller", |c| certificates::start_cleaner(c, &shared, &ctx));
    start!("bootstrap-signer", |c| bootstrap::start_signer(c, &shared, &ctx));
    start!("token-cleaner", |c| bootstrap::start_cleaner(c, &shared, &ctx));
    drop(shared);

    while let Some(ended) = tasks.join_next().await {
        let name = ended?;
        if !ctx.drain.is_draining() {
            return Err(ControllersError::Ended(name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No API server: every request fails, so nothing but the handlers is at work.
    fn client() -> kube::Client {
        let uri = "http://127.0.0.1:1".parse().expect("a URI");
        kube::Client::try_from(kube::Config::new(uri)).expect("a client")
    }

    async fn start_and_break(shared: &SharedInformers, ctx: &Context) -> usize {
        let config = ControllersConfig::new(Vec::new(), String::new());
        let running = run(|_| client(), config, shared.clone(), ctx.clone());
        tokio::pin!(running);
        // Once is enough: handlers are registered before the first wait.
        assert!(futures::poll!(&mut running).is_pending());
        shared.pods.handlers()
    }

    #[tokio::test]
    async fn a_restarted_run_does_not_hear_every_change_twice() {
        let (_trigger, ctx) = Context::for_tests();
        let shared = SharedInformers::detached();
        let lasting = shared.pods.handlers();
        let first = start_and_break(&shared, &ctx).await;
        assert!(first > lasting + 3, "the controllers follow pods: {first} handlers");
        assert_eq!(shared.pods.handlers(), lasting, "a run that ended hears nothing");
        for _ in 0..3 {
            assert_eq!(start_and_break(&shared, &ctx).await, first);
        }
    }
}
