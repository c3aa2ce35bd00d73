//! Whom a proxied request goes to: a pod's own address, or that of a pod behind a Service.
//!
//! What always holds: the address is one that a pod of the request's namespace has, and a routable one: no loopback,
//! link-local, multicast or unspecified address is ever asked, whoever wrote it into a status or an endpoint slice.

use std::net::IpAddr;

use keelson_api::doc::{Doc, Value};
use keelson_api::f::{core_v1 as f, discovery_v1 as d};
use keelson_api::status::Status;
use rand::seq::SliceRandom as _;

use super::ProxyName;
use crate::cache::{ListQuery, ReadAt, Scope};
use crate::rest::{Op, cache_status};

/// Whether an address may be asked on behalf of a user: Go's `IsGlobalUnicast`, private ranges included.
pub fn allowed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_loopback()
                || v4.is_unspecified()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast())
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => allowed(v4.into()),
            None => {
                !(v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast())
            }
        },
    }
}

fn addresses(pod: &Doc) -> Vec<IpAddr> {
    let first = pod.str(&[f::pod::STATUS, f::pod_status::POD_IP]);
    let more = pod.list(&[f::pod::STATUS, f::pod_status::POD_IPS]);
    let more = more.iter().filter_map(Value::as_struct).map(|entry| entry.str(f::pod_ip::IP));
    std::iter::once(first).chain(more).filter_map(|text| text.parse().ok()).collect()
}

/// The pod's address, and the port that is named or the first one its containers have.
pub async fn pod(op: &Op<'_>, name: &ProxyName) -> Result<(IpAddr, u16), Status> {
    let Some(pod) = op.load(&name.name, false).await? else {
        return Err(Status::not_found(&op.gr(), &name.name));
    };
    let address = addresses(&pod.doc).first().copied().filter(|address| allowed(*address));
    let address = address.ok_or_else(|| Status::bad_request("address not allowed"))?;
    let port =
        match name.port.as_str() {
            "" => first_port(&pod.doc).unwrap_or(if name.scheme == "https" { 443 } else { 80 }),
            text => text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
                Status::bad_request(format!("invalid port {text:?} for pod {:?}", name.name))
            })?,
        };
    Ok((address, port))
}

fn first_port(doc: &Doc) -> Option<u16> {
    doc.list(&[f::pod::SPEC, f::pod_spec::CONTAINERS])
        .iter()
        .filter_map(Value::as_struct)
        .flat_map(|container| container.list(f::container::PORTS))
        .filter_map(Value::as_struct)
        .find_map(|port| port.int(f::container_port::CONTAINER_PORT))
        .and_then(|port| u16::try_from(port).ok())
}

/// What an endpoint slice says of one endpoint.
struct Candidate {
    address: IpAddr,
    port: u16,
    pod: String,
}

/// A ready pod behind the Service's port.
pub async fn service(op: &Op<'_>, name: &ProxyName) -> Result<(IpAddr, u16), Status> {
    let Some(service) = op.load(&name.name, false).await? else {
        return Err(Status::not_found(&op.gr(), &name.name));
    };
    let port_name = match name.port.parse::<i64>() {
        Ok(number) => port_name(&service.doc, number).ok_or_else(|| {
            Status::service_unavailable(format!("no service port {number} found for service {:?}", name.name))
        })?,
        Err(_) => name.port.clone(),
    };
    let mut candidates = candidates(op, &name.name, &port_name).await?;
    candidates.shuffle(&mut rand::rng());
    let row = op.core.table.load().lookup("", "v1", "pods").cloned();
    let pods = op.on(row.ok_or_else(Status::resource_not_found)?);
    for Candidate { address, port, pod } in candidates {
        // Whoever may write an endpoint slice must not choose what the API server asks.
        let own = pods.load(&pod, false).await?.is_some_and(|pod| addresses(&pod.doc).contains(&address));
        if own && allowed(address) {
            return Ok((address, port));
        }
    }
    Err(Status::service_unavailable(format!("no endpoints available for service {:?}", op.info().name)))
}

fn port_name(service: &Doc, number: i64) -> Option<String> {
    let ports = service.list(&[f::service::SPEC, f::service_spec::PORTS]);
    let mut ports = ports.iter().filter_map(Value::as_struct);
    let port = ports.find(|port| port.int(f::service_port::PORT) == Some(number))?;
    Some(port.str(f::service_port::NAME).to_owned())
}

async fn candidates(op: &Op<'_>, service: &str, port_name: &str) -> Result<Vec<Candidate>, Status> {
    let row = op.core.table.load().lookup("discovery.k8s.io", "v1", "endpointslices").cloned();
    let slices = op.on(row.ok_or_else(Status::resource_not_found)?);
    let query = ListQuery {
        scope: Scope::Namespace(op.namespace().into()),
        filter: None,
        limit: 0,
        after: None,
        at: ReadAt::Newest,
    };
    let all = slices.cache.list(query).await.map_err(cache_status)?;
    let ours =
        all.objects.iter().filter(|o| o.label("kubernetes.io/service-name").as_deref() == Some(service));
    let mut found = Vec::new();
    for object in ours {
        let doc = slices.decode_stored(object.json(), object.revision())?;
        let ports = doc.list(&[d::endpoint_slice::PORTS]);
        let port = ports
            .iter()
            .filter_map(Value::as_struct)
            .find(|port| port.str(d::endpoint_port::NAME) == port_name)
            .and_then(|port| port.int(d::endpoint_port::PORT))
            .and_then(|port| u16::try_from(port).ok());
        let Some(port) = port else { continue };
        for endpoint in doc.list(&[d::endpoint_slice::ENDPOINTS]).iter().filter_map(Value::as_struct) {
            let ready = endpoint
                .child(d::endpoint::CONDITIONS)
                .and_then(|c| c.bool(d::endpoint_conditions::READY))
                .unwrap_or(true);
            let pod = endpoint
                .child(d::endpoint::TARGET_REF)
                .filter(|target| target.str(f::object_reference::KIND) == "Pod")
                .map(|target| target.str(f::object_reference::NAME).to_owned());
            let address = endpoint.list(d::endpoint::ADDRESSES).first().and_then(Value::as_str);
            let address = address.and_then(|text| text.parse().ok());
            if let (true, Some(address), Some(pod)) = (ready, address, pod) {
                found.push(Candidate { address, port, pod });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_routable_addresses_are_asked() {
        for (address, expected) in [
            ("10.1.2.3", true),
            ("192.168.0.1", true),
            ("8.8.8.8", true),
            ("fd00::1", true),
            ("::ffff:10.0.0.1", true),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
        ] {
            assert_eq!(allowed(address.parse().unwrap()), expected, "{address}");
        }
    }
}
