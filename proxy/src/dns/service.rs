//! The Service kube-system/kube-dns whose address cluster DNS answers on.
//!
//! It has no selector and no endpoints: every node answers by itself. It exists so that its address is taken, and so
//! that those who look DNS up as a Service find it. The proxy's own role may not create services: the composition
//! root calls this as a user who may.
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_base::consts::{DNS_PORT, DNS_SERVICE};
use kube::Api;
use kube::api::PostParams;

const NAMESPACE: &str = "kube-system";

/// Why the Service is not there with the right address.
#[derive(Debug, thiserror::Error)]
pub enum DnsServiceError {
    #[error("read service {NAMESPACE}/{DNS_SERVICE}")]
    Read(#[source] kube::Error),
    #[error("create service {NAMESPACE}/{DNS_SERVICE} with address {address}")]
    Create { address: IpAddr, source: kube::Error },
    #[error(
        "service {NAMESPACE}/{DNS_SERVICE} has address {found}, but network.dnsAddress is {wanted}: \
         set network.dnsAddress to {found}, or delete the service"
    )]
    Address { found: String, wanted: IpAddr },
}

fn service(address: IpAddr) -> Service {
    let port = |name: &str, protocol: &str| ServicePort {
        name: Some(name.into()),
        port: i32::from(DNS_PORT),
        protocol: Some(protocol.into()),
        ..ServicePort::default()
    };
    // Upstream's labels, as tools look for them.
    let labels = [("k8s-app", DNS_SERVICE), ("kubernetes.io/cluster-service", "true")];
    Service {
        metadata: ObjectMeta {
            namespace: Some(NAMESPACE.into()),
            name: Some(DNS_SERVICE.into()),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some(address.to_string()),
            ports: Some(vec![port("dns", "UDP"), port("dns-tcp", "TCP")]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// Creates the Service where it is missing; one that exists is left as it is, but must have the address.
pub async fn ensure(client: &kube::Client, address: IpAddr) -> Result<(), DnsServiceError> {
    let api: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let held = match api.get_opt(DNS_SERVICE).await.map_err(DnsServiceError::Read)? {
        Some(held) => held,
        None => match api.create(&PostParams::default(), &service(address)).await {
            Ok(made) => made,
            // Somebody else was first.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                api.get(DNS_SERVICE).await.map_err(DnsServiceError::Read)?
            }
            Err(source) => return Err(DnsServiceError::Create { address, source }),
        },
    };
    let found = held.spec.and_then(|s| s.cluster_ip).unwrap_or_default();
    if found.parse() == Ok(address) {
        Ok(())
    } else {
        Err(DnsServiceError::Address { found, wanted: address })
    }
}
