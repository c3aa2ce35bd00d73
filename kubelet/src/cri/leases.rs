//! What containerd holds on behalf of pulls and imports that are under way, its leases. One whose client ended keeps it for a day.

use super::{Cri, CriError, WRITE, ignore_missing, timed};
use keelson_proto::containerd_leases::{DeleteRequest, ListRequest, leases_client::LeasesClient};

/// Which of containerd's namespaces CRI's images are in, and how calls name it.
const NAMESPACE: (&str, &str) = ("containerd-namespace", "k8s.io");

fn within<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert(NAMESPACE.0, tonic::metadata::MetadataValue::from_static(NAMESPACE.1));
    request
}

impl Cri {
    /// Ends every lease, and waits until what nothing else refers to is gone. A pull that is under way fails then. Other runtimes
    /// have none.
    pub async fn end_leases(&self) -> Result<(), CriError> {
        let mut client = LeasesClient::new(self.channel());
        let listed = match timed("Leases.List", "", WRITE, client.list(within(ListRequest::default()))).await
        {
            Err(error) if error.code() == Some(tonic::Code::Unimplemented) => return Ok(()),
            listed => listed?.leases,
        };
        let last = listed.len().saturating_sub(1);
        for (at, lease) in listed.into_iter().enumerate() {
            let request = within(DeleteRequest { id: lease.id.clone(), sync: at == last });
            ignore_missing(timed("Leases.Delete", &lease.id, WRITE, client.delete(request)).await)?;
        }
        Ok(())
    }
}
