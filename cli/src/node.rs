//! Who this machine is: its node name and the address the cluster knows it by.

use anyhow::{Context, Result, bail};
use keelson_daemon::config::NodeConfig;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// Name and address of this node.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    pub name: String,
    pub address: IpAddr,
}

/// Takes both from the configuration, or finds them, or says what to write.
pub fn identify(config: &NodeConfig) -> Result<NodeIdentity> {
    let name = match &config.name {
        Some(name) => name.clone(),
        None => host_name()?,
    };
    let address = match config.address {
        Some(address) => address,
        None => default_address()?,
    };
    Ok(NodeIdentity { name, address })
}

fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host name; set node.name")?;
    let name = name.to_string_lossy().trim().to_lowercase();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name == "localhost" || !name.chars().all(plain) || name.starts_with(['-', '.']) {
        bail!("the host name {name:?} is no node name; set node.name in the configuration");
    }
    Ok(name)
}

/// The source address that the kernel chooses towards the default route. Nothing is sent: connecting a UDP socket only
/// looks up the route (the address is of a range reserved for documentation).
pub fn default_address() -> Result<IpAddr> {
    const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot open a socket")?;
    let routed = socket.connect(NOWHERE).and_then(|()| socket.local_addr());
    match routed {
        Ok(local) if !local.ip().is_unspecified() && !local.ip().is_loopback() => Ok(local.ip()),
        _ => bail!(
            "this machine has no default route, so its address is ambiguous; set node.address in the configuration"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_wins() {
        let config = NodeConfig {
            name: Some("n1".into()),
            address: Some("10.1.2.3".parse().unwrap()),
            labels: Default::default(),
            taints: Vec::new(),
            firewall: keelson_daemon::config::Firewall::Open,
        };
        let identity = identify(&config).unwrap();
        assert_eq!((identity.name.as_str(), identity.address.to_string().as_str()), ("n1", "10.1.2.3"));
    }
}
