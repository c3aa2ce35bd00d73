//! gRPC probes: `grpc.health.v1.Health/Check` without TLS.
use super::Verdict;
use keelson_proto::grpc_health::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use std::time::Duration;
use tonic::transport::Endpoint;

pub async fn check(host: &str, port: u16, service: &str, limit: Duration) -> Verdict {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let address = format!("http://{host}:{port}");
    let call = async {
        let endpoint = Endpoint::from_shared(address.clone())
            .and_then(|e| e.user_agent("kube-probe/1.35"))
            .map_err(|error| error.to_string())?;
        let channel = endpoint
            .connect()
            .await
            .map_err(|_| format!("timeout: failed to connect service {address:?} within {limit:?}"))?;
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer =
            HealthClient::new(channel).check(request).await.map_err(|status| match status.code() {
                tonic::Code::Unimplemented => {
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                        .to_owned()
                }
                _ => format!("error: health rpc probe failed: {}", status.message()),
            })?;
        match answer.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            other => Err(format!("service unhealthy (responded with {:?})", other.as_str_name())),
        }
    };
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(())) => Verdict::Success,
        Ok(Err(why)) => Verdict::Failure(why),
        Err(_) => Verdict::Failure(format!("timeout: health rpc did not complete within {limit:?}")),
    }
}
