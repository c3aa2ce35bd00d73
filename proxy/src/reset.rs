//! Removes what the proxy and the CNI plugin made on this machine, and nothing else.
use std::path::Path;

use keelson_base::consts::{VETH_PREFIX, nft};
use keelson_sys::nl::NlError;
use keelson_sys::rtnl::{Batch, ROUTE_PROTOCOL, RouteSpec, Rtnl};

use crate::apply::{ApplyError, remove_table};
use crate::forwarding::{self, ForwardingError};
use crate::{cniconf, dns, tunnel};

/// The CNI plugin's table for host ports.
const HOST_PORTS_TABLE: &str = "keelson-hostports";
/// Alias of every interface that is ours.
const ALIAS: &str = "keelson ";

/// What could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    #[error(transparent)]
    Table(#[from] ApplyError),
    #[error(transparent)]
    Dns(#[from] dns::interface::InterfaceError),
    #[error(transparent)]
    Tunnel(#[from] tunnel::TunnelError),
    #[error("{step}")]
    Kernel { step: &'static str, source: NlError },
    #[error(transparent)]
    CniConf(#[from] cniconf::CniConfError),
    #[error("remove {path}")]
    State { path: std::path::PathBuf, source: std::io::Error },
    #[error(transparent)]
    Forwarding(#[from] ForwardingError),
}

/// Removes nft tables, interfaces, routes, the CNI configuration and the leases, and puts forwarding back as it was. Goes on
/// after a failure and returns all of them.
pub fn reset(cni_conf_dir: &Path, cni_state: &Path) -> Vec<ResetError> {
    let mut errors: Vec<ResetError> = Vec::new();
    for table in
        [nft::SERVICES_TABLE, nft::MASQUERADE_TABLE, nft::POLICY_TABLE, nft::TUNNEL_TABLE, HOST_PORTS_TABLE]
    {
        errors.extend(remove_table(table).err().map(ResetError::from));
    }
    errors.extend(remove_links_and_routes());
    errors.extend(dns::interface::remove().err().map(ResetError::from));
    errors.extend(tunnel::remove().err().map(ResetError::from));
    errors.extend(cniconf::remove(cni_conf_dir).err().map(ResetError::from));
    let leases = cni_state.join(cniconf::NETWORK);
    if let Err(source) = std::fs::remove_dir_all(&leases)
        && source.kind() != std::io::ErrorKind::NotFound
    {
        errors.push(ResetError::State { path: leases, source });
    }
    errors.extend(forwarding::restore(cni_state).err().map(ResetError::from));
    errors
}

fn remove_links_and_routes() -> Vec<ResetError> {
    let mut errors = Vec::new();
    let failed = |step| move |source| ResetError::Kernel { step, source };
    let mut rtnl = match Rtnl::open() {
        Ok(rtnl) => rtnl,
        Err(source) => return vec![failed("open rtnetlink")(source)],
    };
    match rtnl.links() {
        Ok(links) => {
            for link in links.iter().filter(|l| l.name.starts_with(VETH_PREFIX) && l.alias.starts_with(ALIAS))
            {
                // Its pod's end goes with it; it may be gone by now.
                if let Err(e) = Batch::new().delete_link(&link.name).send(&mut rtnl)
                    && rtnl.link(&link.name).is_ok_and(|l| l.is_some())
                {
                    errors.push(failed("remove a pod's interface")(e));
                }
            }
        }
        Err(e) => errors.push(failed("list interfaces")(e)),
    }
    match rtnl.routes() {
        Ok(routes) => {
            for route in routes.iter().filter(|r| r.protocol == ROUTE_PROTOCOL) {
                let spec = RouteSpec {
                    dst: route.dst,
                    gateway: route.gateway,
                    index: route.index,
                    ipv6: route.ipv6,
                    ..RouteSpec::default()
                };
                errors.extend(
                    Batch::new().delete_route(&spec).send(&mut rtnl).err().map(failed("remove a route")),
                );
            }
        }
        Err(e) => errors.push(failed("list routes")(e)),
    }
    errors
}
