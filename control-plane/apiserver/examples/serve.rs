//! Runs an API server alone, on a folder: `serve <folder> [port]`. Makes the PKI and an administrator's kubeconfig there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keelson_apiserver::{ApiServer, ApiServerConfig};
use keelson_daemon::{Clock, Context, Readiness};
use keelson_pki::{ClusterPki, PkiParams};
use keelson_store::{SqliteOptions, SqliteStore, Store};

/// The address this machine uses towards others; a datagram socket that is only connected sends nothing.
fn own_address() -> std::io::Result<IpAddr> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect(("192.0.2.1", 9))?;
    Ok(socket.local_addr()?.ip())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().ok_or("usage: serve <folder> [port]")?);
    let port: u16 = args.next().map_or(Ok(6443), |text| text.parse())?;
    tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into()))
        .init();
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (trigger, drain) = keelson_daemon::drain::channel();
    let ctx = Context { clock: Clock::system(), drain, readiness: Readiness::default() };
    let params = PkiParams {
        node_name: "localhost".into(),
        cluster_domain: "cluster.local".into(),
        service_address: "10.96.0.1".parse()?,
        node_addresses: vec![address],
        extra_names: vec!["localhost".into()],
        life: keelson_pki::LEAF_LIFE,
        now: ctx.clock.now(),
    };
    let pki = Arc::new(ClusterPki::ensure(&folder.join("pki"), &params)?);
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(SqliteOptions::new(folder.join("db")))?);
    let config = ApiServerConfig::new(pki.clone(), SocketAddr::new(address, port), own_address()?);
    let api = ApiServer::start(config, store.clone(), ctx).await?;
    let kubeconfig = folder.join("admin.conf");
    pki.write_kubeconfig(&kubeconfig, &format!("https://{}", api.address()), "admin", &pki.admin)?;
    println!("serving on {}; export KUBECONFIG={}", api.address(), kubeconfig.display());
    tokio::signal::ctrl_c().await?;
    trigger.drain(Duration::from_secs(35)).await;
    store.close().await?;
    Ok(())
}
