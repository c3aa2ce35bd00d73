//! pods/proxy and services/proxy: plain HTTP into a pod, or to one of a Service's endpoints.

use std::net::IpAddr;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Request, Response};
use keelson_api::doc::{Doc, Value};
use keelson_api::f::{core_v1 as f, discovery_v1 as d};
use keelson_api::status::Status;
use rand::seq::IndexedRandom as _;
use tokio::net::TcpStream;

use crate::body::{Body, RequestBody};
use crate::cache::{ListQuery, ReadAt, Scope};
use crate::rest::{Op, cache_status};
use crate::streaming::{passed_on, relayed, send_over};

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A name as proxies take it: `[scheme:]name[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyName {
    pub scheme: String,
    pub name: String,
    /// A number or a port's name; empty where none is given.
    pub port: String,
}

/// Takes a proxied name apart; the second part is the port where it is a number.
pub fn split_name(text: &str) -> Result<(ProxyName, Option<u16>), Status> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme @ ("http" | "https" | ""), name, port] => (*scheme, *name, *port),
        _ => {
            return Err(Status::bad_request(format!(
                "invalid request {text:?}: must be [scheme:]name[:port]"
            )));
        }
    };
    if name.is_empty() {
        return Err(Status::bad_request(format!("invalid request {text:?}: no name")));
    }
    let number = port.parse().ok();
    Ok((ProxyName { scheme: scheme.to_owned(), name: name.to_owned(), port: port.to_owned() }, number))
}

/// Relays a request into a pod or to a Service.
pub async fn serve(
    op: &Op<'_>,
    parts: &http::request::Parts,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    let (name, _) = split_name(&op.info().name)?;
    if name.scheme == "https" {
        return Err(Status::not_implemented("proxying over https into pods is not implemented yet"));
    }
    if parts.headers.contains_key(http::header::UPGRADE) {
        return Err(Status::not_implemented("proxying upgraded connections is not implemented yet"));
    }
    let (host, port) = match op.row.plural.as_str() {
        "pods" => pod_target(op, &name).await?,
        _ => service_target(op, &name).await?,
    };
    // A node's or the machine's own address behind an endpoint would lead past the authorization of that address.
    if host.is_loopback() || host.is_unspecified() || is_link_local(host) {
        return Err(Status::forbidden(
            &op.gr(),
            &name.name,
            "addresses of the machine itself are not proxied",
        ));
    }
    let rest = op.info().rest.as_str();
    let query = if op.call.raw_query.is_empty() { String::new() } else { format!("?{}", op.call.raw_query) };
    let path = format!("{}{query}", if rest.is_empty() { "/" } else { rest });
    let uri: PathAndQuery = path.parse().map_err(|_| Status::bad_request("the proxied path is not valid"))?;
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = http::Uri::from(uri);
    *request.headers_mut() = passed_on(&parts.headers);
    let connect = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect((host, port))).await;
    let stream = match connect {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return Err(Status::service_unavailable(format!("error trying to reach service: {error}")));
        }
        Err(_) => {
            return Err(Status::service_unavailable("error trying to reach service: no connection in time"));
        }
    };
    Ok(relayed(send_over(stream, request, &format!("{host}:{port}")).await?))
}

fn is_link_local(host: IpAddr) -> bool {
    match host {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

async fn pod_target(op: &Op<'_>, name: &ProxyName) -> Result<(IpAddr, u16), Status> {
    let Some(pod) = op.load(&name.name, false).await? else {
        return Err(Status::not_found(&op.gr(), &name.name));
    };
    let address = pod.doc.str(&[f::pod::STATUS, f::pod_status::POD_IP]);
    let host = address.parse().map_err(|_| {
        Status::bad_request(format!("address not allowed: pod {} has no address yet", name.name))
    })?;
    let port = match name.port.as_str() {
        "" => first_port(&pod.doc).unwrap_or(80),
        text => text.parse().map_err(|_| Status::bad_request(format!("invalid port {text:?}")))?,
    };
    Ok((host, port))
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

/// A ready endpoint of the Service's port.
async fn service_target(op: &Op<'_>, name: &ProxyName) -> Result<(IpAddr, u16), Status> {
    let Some(service) = op.load(&name.name, false).await? else {
        return Err(Status::not_found(&op.gr(), &name.name));
    };
    let ports = service.doc.list(&[f::service::SPEC, f::service_spec::PORTS]);
    let port_name = ports
        .iter()
        .filter_map(Value::as_struct)
        .find(|port| {
            (name.port.is_empty() && ports.len() == 1)
                || port.str(f::service_port::NAME) == name.port
                || port.int(f::service_port::PORT).is_some_and(|number| number.to_string() == name.port)
        })
        .map(|port| port.str(f::service_port::NAME).to_owned())
        .ok_or_else(|| {
            Status::service_unavailable(format!(
                "no service port {:?} found for service {:?}",
                name.port, name.name
            ))
        })?;
    let row = op
        .core
        .table
        .load()
        .lookup("discovery.k8s.io", "v1", "endpointslices")
        .cloned()
        .ok_or_else(Status::resource_not_found)?;
    let slices = op.on(row);
    let query = ListQuery {
        scope: Scope::Namespace(op.namespace().into()),
        filter: None,
        limit: 0,
        after: None,
        at: ReadAt::Newest,
    };
    let all = slices.cache.list(query).await.map_err(cache_status)?;
    let mut ready = Vec::new();
    for object in all
        .objects
        .iter()
        .filter(|object| object.label("kubernetes.io/service-name").as_deref() == Some(&*name.name))
    {
        let doc = slices.decode_stored(object.json(), object.revision())?;
        let port = doc
            .list(&[d::endpoint_slice::PORTS])
            .iter()
            .filter_map(Value::as_struct)
            .find(|port| port.str(d::endpoint_port::NAME) == port_name)
            .and_then(|port| port.int(d::endpoint_port::PORT))
            .and_then(|port| u16::try_from(port).ok());
        let Some(port) = port else { continue };
        for endpoint in doc.list(&[d::endpoint_slice::ENDPOINTS]).iter().filter_map(Value::as_struct) {
            let is_ready = endpoint
                .child(d::endpoint::CONDITIONS)
                .and_then(|c| c.bool(d::endpoint_conditions::READY))
                .unwrap_or(true);
            let address = endpoint
                .list(d::endpoint::ADDRESSES)
                .first()
                .and_then(Value::as_str)
                .and_then(|text| text.parse().ok());
            if let (true, Some(address)) = (is_ready, address) {
                ready.push((address, port));
            }
        }
    }
    ready.choose(&mut rand::rng()).copied().ok_or_else(|| {
        Status::service_unavailable(format!("no endpoints available for service {:?}", name.name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxied_names() {
        let split = |text: &str| {
            split_name(text)
                .map(|(name, number)| (name.scheme, name.name, name.port, number))
                .map_err(|status| status.code)
        };
        assert_eq!(split("web"), Ok((String::new(), "web".into(), String::new(), None)));
        assert_eq!(split("web:80"), Ok((String::new(), "web".into(), "80".into(), Some(80))));
        assert_eq!(split("https:web:tls"), Ok(("https".into(), "web".into(), "tls".into(), None)));
        assert_eq!(split("ftp:web:1"), Err(400));
        assert_eq!(split(":80"), Err(400));
    }
}
