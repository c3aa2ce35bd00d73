//! News from the runtime without asking: CRI's own event stream (containerd 2), else containerd's event service
//! (containerd 1.6 has only that), else nothing, and the relist finds out.
use super::{Cri, api};
use keelson_proto::containerd_events::{SubscribeRequest, TaskExit, events_client::EventsClient};
use tokio::sync::mpsc;

/// Something happened to this container or sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeEvent {
    pub id: String,
}

/// Where events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Cri,
    Containerd,
}

/// Follows one stream until it breaks. `live` is called once, when the stream stands; the answer says which streams
/// the runtime does not have, so that they are not tried again.
pub async fn follow(
    cri: &Cri,
    source: Source,
    events: &mpsc::Sender<RuntimeEvent>,
    live: impl FnOnce(),
) -> Result<(), tonic::Status> {
    match source {
        Source::Cri => follow_cri(cri, events, live).await,
        Source::Containerd => follow_containerd(cri, events, live).await,
    }
}

async fn follow_cri(
    cri: &Cri,
    events: &mpsc::Sender<RuntimeEvent>,
    live: impl FnOnce(),
) -> Result<(), tonic::Status> {
    let mut stream = cri.runtime.clone().get_container_events(api::GetEventsRequest {}).await?.into_inner();
    live();
    while let Some(event) = stream.message().await? {
        if events.send(RuntimeEvent { id: event.container_id }).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn follow_containerd(
    cri: &Cri,
    events: &mpsc::Sender<RuntimeEvent>,
    live: impl FnOnce(),
) -> Result<(), tonic::Status> {
    let filters = vec!["namespace==k8s.io,topic==/tasks/exit".to_owned()];
    let mut client = EventsClient::new(cri.channel());
    let mut stream = client.subscribe(SubscribeRequest { filters }).await?.into_inner();
    live();
    while let Some(envelope) = stream.message().await? {
        let Some(any) = envelope.event else { continue };
        let Ok(exit) = <TaskExit as prost::Message>::decode(any.value.as_slice()) else { continue };
        // An exec's end carries another id than its container's.
        if exit.id != exit.container_id {
            continue;
        }
        if events.send(RuntimeEvent { id: exit.container_id }).await.is_err() {
            break;
        }
    }
    Ok(())
}
