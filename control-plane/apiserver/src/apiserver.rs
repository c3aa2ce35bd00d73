//! Puts the server together: caches, access, listener, and what a cluster has from its first start.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use keelson_api::table::Table;
use keelson_daemon::Context;
use keelson_store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::admission::{Chain, ChainOptions, KindMapper, MappedResource};
use crate::authn::{
    Anonymous, Authenticator, CertificateAuthenticator, OpenIdDocuments, TokenAuthenticator, TokenIssuer,
    UserInfo,
};
use crate::authz::{NodeAuthorizer, NodeGraph, PolicyStore, UnionAuthorizer};
use crate::body::{Body, BoxError, request_body};
use crate::bootstrap;
use crate::cache::{Settings, WatchCaches};
use crate::config::ApiServerConfig;
use crate::core::{Core, Peer};
use crate::flow::FlowControl;
use crate::metrics::{Measured, Metrics};
use crate::nonresource::{Documents, Health};
use crate::reads::{self, CachedReads};
use crate::rest::fields::TypeFields;
use crate::server::Server;
use crate::services::cidr::{RangeError, ServiceRange};
use crate::streaming::{Kubelets, MAX_RELAYS};
use crate::{crd, keys, masters, renewal, services};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the API server cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the API server's TLS configuration")]
    Tls { source: keelson_pki::TlsError },
    #[error("the range of service addresses")]
    Services { source: RangeError },
    #[error("the store")]
    Store { source: keelson_store::StoreError },
    #[error("{step}: {status}")]
    Bootstrap { step: &'static str, status: keelson_api::status::Status },
}

/// A running API server. It stops when the context's drain begins.
pub struct ApiServer {
    core: Arc<Core>,
    address: SocketAddr,
}

impl ApiServer {
    /// Fills the caches, listens, makes what a new cluster lacks, and returns when requests are answered.
    pub async fn start(
        config: ApiServerConfig,
        store: Arc<dyn Store>,
        ctx: Context,
    ) -> Result<ApiServer, StartError> {
        let ready = ctx.readiness.register("api-server");
        let core = build(&config, store, &ctx).await?;
        let listener = TcpListener::bind(config.bind)
            .await
            .map_err(|source| StartError::Listen { address: config.bind, source })?;
        let tls = renewal::serving(&config.pki).map_err(|source| StartError::Tls { source })?;
        let tls = Arc::new(ArcSwap::from_pointee(tls));
        let server = Server::start(listener, tls.clone(), core.clone(), config.limits.clone())
            .map_err(|source| StartError::Listen { address: config.bind, source })?;
        let api = ApiServer { core: core.clone(), address: server.address };
        bootstrap::run(&api, &config).await?;
        tokio::spawn(crd::run(core.clone(), api.own_service()));
        tokio::spawn(services::repair::run(core.clone()));
        tokio::spawn(mark_used(core.clone(), bootstrap::Client::new(api.own_service())));
        if config.several {
            masters::Masters::new(&api, &config).start().await;
        }
        tokio::spawn(renewal::run(core.clone(), config.pki.clone(), tls));
        tokio::spawn(async move {
            ctx.drain.drained().await;
            core.health.drain();
            core.stop.cancel();
            server.drain().await;
            core.caches.stop();
            // The process waits for this watcher's drop.
            drop(ctx);
        });
        drop(ready);
        Ok(api)
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Where it listens (the port is known even when 0 was asked for).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests of components in this process, as `user`: authentication's result is given, all later stages run.
    pub fn service(&self, user: UserInfo) -> LocalService {
        LocalService { core: self.core.clone(), user: Arc::new(user) }
    }

    /// The server's own user, for what it must do itself at start.
    pub(crate) fn own_service(&self) -> LocalService {
        self.service(UserInfo::authenticated("system:apiserver", &[keelson_base::consts::identity::MASTERS]))
    }
}

/// Writes into Secrets that their tokens are used, once a day each.
async fn mark_used(core: Arc<Core>, mut client: bootstrap::Client) {
    let mut uses = core.access.authenticator.tokens.secret_uses();
    while let Some(Some(used)) = core.stop.run_until_cancelled(uses.recv()).await {
        let (path, patch) = used.patch();
        if let Err(status) = client.send(http::Method::PATCH, &path, Some(&patch)).await
            && !status.is_not_found()
        {
            tracing::warn!(secret = path, error = %status, "that its token is used could not be written");
        }
    }
}

/// Makes the shared state; nothing listens yet.
async fn build(
    config: &ApiServerConfig,
    store: Arc<dyn Store>,
    ctx: &Context,
) -> Result<Arc<Core>, StartError> {
    let service_range =
        ServiceRange::parse(&config.service_cidr).map_err(|source| StartError::Services { source })?;
    let metrics = Metrics::default();
    let store: Arc<dyn Store> = Arc::new(Measured::new(store, metrics.storage.clone()));
    let caches = Arc::new(WatchCaches::new(store.clone()));
    let table = Arc::new(ArcSwap::from_pointee(Table::builtin(&config.gates)));
    let stop = CancellationToken::new();
    let (policy, graph) = (Arc::new(PolicyStore::new()), Arc::new(NodeGraph::default()));
    let (all_rows, all_caches) = (table.clone(), caches.clone());
    let cache_of = move |group: &str, resource: &str| {
        // Of built-in resources only, which are always there.
        let rows = all_rows.load();
        let row = rows.rows().iter().find(|row| row.group == group && row.plural == resource)?;
        let hub = rows.lookup(&row.storage_group, &row.storage_version, &row.plural).unwrap_or(row).clone();
        let prefix = keys::row_prefix(row);
        Some(all_caches.resource(&prefix, || Settings {
            prefix: prefix.clone(),
            namespaced: row.namespaced,
            fields: Arc::new(TypeFields::of(&hub)),
        }))
    };
    store.revision().await.map_err(|source| StartError::Store { source })?;
    reads::follow(&cache_of, &policy, &graph).await;
    let reads = Arc::new(CachedReads { caches: caches.clone() });
    let access = access(config, reads.clone(), policy, graph)?;
    let kinds_table = table.clone();
    let kinds: KindMapper = Arc::new(move |group, version, kind| {
        let rows = kinds_table.load();
        let row = rows.by_kind(group, version, kind);
        row.map(|row| MappedResource {
            group: row.group.to_string(),
            version: row.version.to_string(),
            resource: row.plural.to_string(),
            namespaced: row.namespaced,
        })
        .into_iter()
        .collect()
    });
    let admission = Chain::new(reads, access.authorizer.clone(), kinds, ChainOptions::default());
    let kubelet_tls = renewal::towards_kubelets(&config.pki).map_err(|source| StartError::Tls { source })?;
    let health = Health::default();
    for step in bootstrap::STEPS {
        health.expect(step);
    }
    health.expect(crd::SYNCED);
    let core = Arc::new(Core {
        store,
        caches,
        table,
        gates: config.gates.clone(),
        clock: ctx.clock.clone(),
        access,
        service_range,
        node_ports: config.node_ports,
        kubelets: Kubelets {
            tls: ArcSwap::from_pointee(kubelet_tls),
            relays: Arc::new(tokio::sync::Semaphore::new(MAX_RELAYS)),
        },
        admission,
        metrics,
        flow: FlowControl::new(config.max_reads, config.max_writes),
        turns: Default::default(),
        stop,
        documents: Documents::new(SocketAddr::new(config.advertise, config.bind.port()).to_string()),
        health,
        components: config.components.clone(),
    });
    crd::load(&core).await.map_err(|status| StartError::Bootstrap { step: crd::SYNCED, status })?;
    core.health.done(crd::SYNCED);
    Ok(core)
}

fn access(
    config: &ApiServerConfig,
    reads: Arc<CachedReads>,
    policy: Arc<PolicyStore>,
    graph: Arc<NodeGraph>,
) -> Result<Access, StartError> {
    let pki = &config.pki;
    let verifier = keelson_pki::ClientVerifier::new(&[pki.ca.certificate().clone()])
        .map_err(|source| StartError::Tls { source })?;
    let keys = &pki.service_account;
    let audiences = vec![config.issuer.clone()];
    let external = SocketAddr::new(config.advertise, config.bind.port()).to_string();
    Ok(Access {
        authenticator: Authenticator {
            certificates: CertificateAuthenticator::new(verifier),
            tokens: TokenAuthenticator::new(
                vec![config.issuer.clone()],
                audiences.clone(),
                keys.verification.clone(),
                reads,
            ),
            anonymous: Anonymous::HealthAndVersion,
        },
        authorizer: Arc::new(UnionAuthorizer { node: NodeAuthorizer::new(graph), rbac: policy.clone() }),
        policy,
        issuer: TokenIssuer::new(keys.clone(), config.issuer.clone(), audiences),
        openid: OpenIdDocuments::new(&config.issuer, &external, &keys.verification),
    })
}

/// A tower service that answers in process; `kube::Client` can be built on it.
#[derive(Clone)]
pub struct LocalService {
    core: Arc<Core>,
    user: Arc<UserInfo>,
}

impl<B> tower::Service<Request<B>> for LocalService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (core, user) = (self.core.clone(), self.user.clone());
        let request = request.map(request_body);
        Box::pin(async move { Ok(core.serve(Peer::Trusted(user), request).await) })
    }
}
