//! A control plane in process: the real API server on a store in memory, scheduler and controllers as their own users,
//! and a hollow node that says its pods run.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use keelson_apiserver::authn::UserInfo;
use keelson_apiserver::{ApiServer, ApiServerConfig};
use keelson_client::projections::SharedInformers;
use keelson_controllers::ControllersConfig;
use keelson_controllers::certificates::Signing;
use keelson_daemon::drain::{self, DrainTrigger};
use keelson_daemon::{Clock, Context, Readiness};
use keelson_pki::{ClusterPki, PkiParams};
use keelson_scheduler::SchedulerConfig;
use keelson_store::{MemoryStore, Store};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The longest a test waits for one thing.
const LIMIT: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub client: kube::Client,
    pub store: Arc<MemoryStore>,
    server: Arc<ApiServer>,
    server_drain: DrainTrigger,
    components_drain: DrainTrigger,
    _folder: tempfile::TempDir,
}

fn client(server: &ApiServer, user: &str, groups: &[&str]) -> kube::Client {
    keelson_client::in_process(server.service(UserInfo::authenticated(user, groups)), "default")
}

impl Cluster {
    /// Starts everything; the node `n1` is Ready and has 2 CPUs.
    pub async fn start() -> Cluster {
        Cluster::start_with(Duration::from_secs(50)).await
    }

    /// As [`Cluster::start`]; nodes may be silent for `node_grace`.
    pub async fn start_with(node_grace: Duration) -> Cluster {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "error".into()))
            .with_test_writer()
            .try_init();
        let folder = tempfile::tempdir().unwrap();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let clock = Clock::system();
        let params = PkiParams {
            node_name: "n1".into(),
            cluster_domain: "cluster.local".into(),
            service_address: "10.96.0.1".parse().unwrap(),
            node_addresses: vec![address],
            extra_names: vec![],
            life: keelson_pki::LEAF_LIFE,
            now: clock.now(),
        };
        let pki = Arc::new(ClusterPki::ensure(&folder.path().join("pki"), &params).unwrap());
        let store = Arc::new(MemoryStore::new());
        let (server_drain, watcher) = drain::channel();
        let ctx = Context { clock: clock.clone(), drain: watcher, readiness: Readiness::default() };
        let config =
            ApiServerConfig::new(pki.clone(), SocketAddr::new(address, 0), "192.0.2.10".parse().unwrap());
        let server = Arc::new(ApiServer::start(config, store.clone() as Arc<dyn Store>, ctx).await.unwrap());
        let (components_drain, watcher) = drain::channel();
        let ctx = Context { clock, drain: watcher, readiness: Readiness::default() };
        let informers =
            SharedInformers::start(&client(&server, "system:kube-controller-manager", &[]), &ctx.drain);
        let scheduler = client(&server, "system:kube-scheduler", &[]);
        tokio::spawn(keelson_scheduler::run(
            scheduler,
            SchedulerConfig::default(),
            informers.clone(),
            ctx.clone(),
        ));
        let range = ("10.244.0.0/16".parse().unwrap(), 24);
        let mut settings = ControllersConfig::new(vec![range], pki.ca.certificate_pem().to_owned());
        settings.node_grace = node_grace;
        let life = Duration::from_secs(86_400);
        settings.signing = Some(Signing { authority: pki.ca.clone(), life });
        settings.tokens = Some(pki.service_account.clone());
        let of = server.clone();
        let client_of = move |account: &str| {
            let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
            client(&of, &format!("system:serviceaccount:kube-system:{account}"), &groups)
        };
        tokio::spawn(keelson_controllers::run(client_of, settings, informers, ctx.clone()));
        let admin = client(&server, "admin", &["system:masters"]);
        let cluster =
            Cluster { client: admin, store, server, server_drain, components_drain, _folder: folder };
        cluster.add_node("n1").await;
        tokio::spawn({
            let (client, drain) = (cluster.client.clone(), ctx.drain.clone());
            async move { drain.until(hollow(client)).await }
        });
        cluster
    }

    /// A client as somebody else.
    pub fn as_user(&self, user: &str, groups: &[&str]) -> kube::Client {
        client(&self.server, user, groups)
    }

    /// Ends everything; panics when something does not end in time.
    pub async fn stop(self) {
        let ended = self.components_drain.drain(Duration::from_secs(10)).await;
        drop(self.server);
        assert_eq!(ended, drain::Drained::Cleanly, "components end when told");
        self.server_drain.drain(Duration::from_secs(10)).await;
    }

    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A Ready node without a kubelet.
    pub async fn add_node(&self, name: &str) {
        let api: Api<Node> = Api::all(self.client.clone());
        let node: Node = serde_json::from_value(
            json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}),
        )
        .unwrap();
        api.create(&PostParams::default(), &node).await.unwrap();
        let amounts = json!({"cpu": "2", "memory": "4Gi", "pods": "110", "ephemeral-storage": "10Gi"});
        let status = json!({"status": {"capacity": amounts, "allocatable": amounts, "conditions": [
            {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        let leases: Api<Lease> = self.api("kube-node-lease");
        let lease =
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}}))
                .unwrap();
        leases.create(&PostParams::default(), &lease).await.unwrap();
    }

    pub async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>(namespace).create(&PostParams::default(), &object).await.unwrap()
    }
}

/// A watch on the store's revision: how long it has stood still.
pub struct Stillness {
    revision: u64,
    since: std::time::Instant,
}

impl Cluster {
    /// Waits until nothing was written for a second and a half.
    pub async fn quiet(&self) {
        let seen = std::sync::Mutex::new(Stillness { revision: 0, since: std::time::Instant::now() });
        until("nothing to be written any more", || async {
            let revision = self.store.revision().await.unwrap();
            let mut seen = seen.lock().unwrap();
            if revision != seen.revision {
                *seen = Stillness { revision, since: std::time::Instant::now() };
            }
            (seen.since.elapsed() >= Duration::from_millis(1500)).then_some(())
        })
        .await;
    }
}

/// Waits until `check` gives something; a bounded wait that says what it waited for.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let begun = std::time::Instant::now();
    let mut interval = tokio::time::interval(Duration::from_millis(25));
    loop {
        interval.tick().await;
        if let Some(value) = check().await {
            return value;
        }
        assert!(begun.elapsed() < LIMIT, "waited in vain for: {what}");
    }
}

/// A node without containers: bound pods run and are ready at once; pods of Jobs succeed; deleted ones go.
async fn hollow(client: kube::Client) {
    let all: Api<Pod> = Api::all(client.clone());
    let mut events = watcher(all, watcher::Config::default()).boxed();
    let mut address = 1u32;
    while let Some(event) = events.next().await {
        let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event else { continue };
        let (Some(namespace), Some(name)) = (pod.metadata.namespace.clone(), pod.metadata.name.clone())
        else {
            continue;
        };
        if pod.spec.as_ref().and_then(|s| s.node_name.as_ref()).is_none() {
            continue;
        }
        let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        if pod.metadata.deletion_timestamp.is_some() {
            let _ = api
                .delete(&name, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() })
                .await;
            continue;
        }
        if pod.status.as_ref().is_some_and(|s| s.phase.as_deref() != Some("Pending")) {
            continue;
        }
        let stuck = pod.metadata.labels.as_ref().is_some_and(|l| l.contains_key("test/never-ready"));
        let of_job = pod.metadata.owner_references.iter().flatten().any(|o| o.kind == "Job");
        let exit = pod
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get("test/exit-code"))
            .and_then(|c| c.parse::<i32>().ok())
            .unwrap_or(0);
        address += 1;
        let ip = format!("10.244.0.{address}");
        let status = if of_job {
            json!({"phase": if exit == 0 { "Succeeded" } else { "Failed" }, "podIP": ip, "podIPs": [{"ip": ip}], "containerStatuses": [
                {"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                 "state": {"terminated": {"exitCode": exit, "finishedAt": "2026-01-01T00:00:00Z"}}}]})
        } else {
            json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [
                {"type": "Ready", "status": if stuck { "False" } else { "True" }, "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
        };
        let patched = api
            .patch_status(&name, &PatchParams::default(), &Patch::Strategic(json!({"status": status})))
            .await;
        if let Err(error) = patched {
            tracing::error!(error = %error, "the hollow node cannot write a pod's status");
        }
    }
}
