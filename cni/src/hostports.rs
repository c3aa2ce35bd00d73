//! Host ports: the plugin's own nft table, two maps per address family.
//!
//! The plugin programs them itself, so a host port works the moment ADD returns and whether or not the proxy runs.
//! A mapping belongs to the pod whose address it points to; releasing an address removes what points to it, so a
//! plugin killed in between leaves nothing that the address's next owner could inherit.
use std::net::{IpAddr, Ipv4Addr};

use keelson_sys::nft::dump::read_header;
use keelson_sys::nft::{
    Batch, Chain, ChainKind, Data, Element, Field, Hook, Ip, Key, NftError, Rule, SetData, SetSpec, batch,
    read_elements,
};
use keelson_sys::nl::{NlError, Socket};

use crate::spec::PortMapping;

/// The plugin's table.
pub const TABLE: &str = "keelson-hostports";
/// Changes when the table's fixed part does; a table of another layout is made anew.
const LAYOUT: &[u8] = &[65, 1, 1];
/// Before the services' translation (-100).
const PRIORITY: i32 = -101;

/// Why host ports could not be programmed.
#[derive(Debug, thiserror::Error)]
pub enum HostPortError {
    #[error(
        "host port {port}/{protocol} of {host_ip}: protocol is not tcp, udp or sctp, or the address is not valid"
    )]
    Invalid { port: u16, protocol: String, host_ip: String },
    #[error("a host port is already taken")]
    Taken(#[source] NftError),
    #[error("program host ports")]
    Program(#[from] NftError),
    #[error("read host ports")]
    Read(#[from] NlError),
}

fn any(ip: Ip) -> SetSpec {
    let data = SetData::Value(vec![ip.field(), Field::Port]);
    SetSpec::new(format!("ports{}", ip.digit()), &[Field::Proto, Field::Port], data)
}
fn by_address(ip: Ip) -> SetSpec {
    let data = SetData::Value(vec![ip.field(), Field::Port]);
    SetSpec::new(format!("address-ports{}", ip.digit()), &[ip.field(), Field::Proto, Field::Port], data)
}
fn hairpin(ip: Ip) -> SetSpec {
    SetSpec::new(format!("hairpin{}", ip.digit()), &[ip.field(), ip.field()], SetData::None)
}

fn layout(batch: &mut Batch) {
    batch.add_table(TABLE, LAYOUT);
    let veths = format!("{}*", keelson_base::consts::VETH_PREFIX);
    let localhost = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0));
    batch.add_chain(TABLE, &Chain::regular("translate"));
    for ip in [Ip::V4, Ip::V6] {
        for set in [any(ip), by_address(ip), hairpin(ip)] {
            batch.add_set(TABLE, &set);
        }
        batch.add_rule(TABLE, "translate", &Rule::new().dnat_by_daddr_proto_port(ip, &by_address(ip).name));
    }
    batch.add_rule(
        TABLE,
        "translate",
        &Rule::new().daddr_net(localhost, 8, false).verdict(keelson_sys::nft::Verdict::Return),
    );
    batch.add_rule(
        TABLE,
        "translate",
        &Rule::new()
            .daddr_net(std::net::Ipv6Addr::LOCALHOST.into(), 128, false)
            .verdict(keelson_sys::nft::Verdict::Return),
    );
    for ip in [Ip::V4, Ip::V6] {
        batch.add_rule(TABLE, "translate", &Rule::new().dnat_by_proto_port(ip, &any(ip).name));
    }
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        batch.add_chain(TABLE, &Chain::base(name, ChainKind::Nat, hook, PRIORITY));
        batch.add_rule(TABLE, name, &Rule::new().fib_local(false, false).jump("translate"));
    }
    // Pods whose interface lets loopback sources out must not reach the host's loopback themselves.
    batch.add_chain(TABLE, &Chain::base("loopback", ChainKind::Filter, Hook::Prerouting, -300));
    for source in [true, false] {
        let rule = Rule::new().iifname(&veths, false);
        let rule =
            if source { rule.saddr_net(localhost, 8, false) } else { rule.daddr_net(localhost, 8, false) };
        batch.add_rule(TABLE, "loopback", &rule.drop());
    }
    batch.add_chain(TABLE, &Chain::base("postrouting", ChainKind::Nat, Hook::Postrouting, 100));
    batch.add_rule(
        TABLE,
        "postrouting",
        &Rule::new().oifname(&veths, false).saddr_net(localhost, 8, false).masquerade(),
    );
    for ip in [Ip::V4, Ip::V6] {
        let rule = Rule::new().ct_dnat().saddr_daddr_in(ip, &hairpin(ip).name).masquerade();
        batch.add_rule(TABLE, "postrouting", &rule);
    }
}

/// Whether a mapping listens on the host's loopback address.
pub fn on_loopback(mapping: &PortMapping) -> bool {
    mapping.host_ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4() && ip.is_loopback())
}

fn protocol(mapping: &PortMapping) -> Option<u8> {
    match mapping.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Some(6),
        "udp" => Some(17),
        "sctp" => Some(132),
        _ => None,
    }
}

/// Programs the mappings of a pod. The caller holds the lease lock.
pub fn add(mappings: &[PortMapping], pod: &[IpAddr]) -> Result<(), HostPortError> {
    let wanted: Vec<&PortMapping> = mappings.iter().filter(|m| m.host_port != 0).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut socket = batch::open()?;
    let mut batch = Batch::new();
    let header = read_header(&mut socket, TABLE)?;
    if header.as_ref().is_none_or(|(_, userdata)| userdata != LAYOUT) {
        if header.is_some() {
            batch.delete_table(TABLE);
        }
        layout(&mut batch);
    }
    for mapping in wanted {
        let invalid = || HostPortError::Invalid {
            port: mapping.host_port,
            protocol: mapping.protocol.clone(),
            host_ip: mapping.host_ip.clone(),
        };
        let proto = protocol(mapping).ok_or_else(invalid)?;
        let host_ip = match mapping.host_ip.as_str() {
            "" => None,
            text => Some(text.parse::<IpAddr>().map_err(|_| invalid())?).filter(|ip| !ip.is_unspecified()),
        };
        for target in pod.iter().filter(|ip| host_ip.is_none_or(|h| h.is_ipv4() == ip.is_ipv4())) {
            let value = Key::new().ip(*target).port(mapping.container_port).bytes();
            let family = Ip::of(*target);
            let (set, key) = match host_ip {
                None => (any(family), Key::new()),
                Some(host) => (by_address(family), Key::new().ip(host)),
            };
            let key = key.proto(proto).port(mapping.host_port).bytes();
            batch.add_elements(TABLE, &set, &[Element::value(key, value)]);
            let pair = Key::new().ip(*target).ip(*target).bytes();
            batch.add_elements(TABLE, &hairpin(family), &[Element::key(pair)]);
        }
    }
    const EBUSY: i32 = 16;
    const EEXIST: i32 = 17;
    batch.send(&mut socket, None).map_err(|e| match e.raw_errno() {
        Some(EBUSY | EEXIST) => HostPortError::Taken(e),
        _ => HostPortError::Program(e),
    })
}

/// Removes every mapping that points to one of the addresses. The caller holds the lease lock.
pub fn remove(pod: &[IpAddr]) -> Result<(), HostPortError> {
    let mut socket = batch::open()?;
    match read_header(&mut socket, TABLE)? {
        Some((_, userdata)) if userdata == LAYOUT && !pod.is_empty() => {}
        _ => return Ok(()),
    }
    let mut batch = Batch::new();
    for ip in pod {
        let family = Ip::of(*ip);
        let address = Key::new().ip(*ip).bytes();
        for set in [any(family), by_address(family), hairpin(family)] {
            let stale = elements_of(&mut socket, &set, &address)?;
            batch.delete_elements(TABLE, &set, &stale);
        }
    }
    Ok(batch.send(&mut socket, None)?)
}

/// Elements whose datum (or, in sets, key) starts with the address.
fn elements_of(socket: &mut Socket, set: &SetSpec, address: &[u8]) -> Result<Vec<Element>, NlError> {
    let all = read_elements(socket, TABLE, set)?;
    Ok(all
        .into_iter()
        .filter(|e| match &e.data {
            Data::Value(value) => value.starts_with(address),
            _ => e.key.starts_with(address),
        })
        .collect())
}
