//! News from the runtime without asking: CRI's own event stream (containerd 2), else containerd's event service
//! (containerd 1.6 has only that), else nothing, and the relist finds out.
use super::{Cri, api};
use keelson_proto::containerd_events::{SubscribeRequest, TaskExit, events_client::EventsClient};
use std::time::Duration;
use tokio::sync::mpsc;

const AGREES: Duration = Duration::from_millis(300);

/// Something happened to this container or sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeEvent {
    pub id: String,
    /// It has ended, whatever the runtime's books say yet.
    pub ended: bool,
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

/// Waits until the runtime has agreed. Servers written in Go send their headers with the first message only: a refusal
/// comes at once, and silence for this long is agreement.
async fn open<T>(
    call: impl Future<Output = Result<tonic::Response<tonic::Streaming<T>>, tonic::Status>>,
    live: impl FnOnce(),
) -> Result<tonic::Streaming<T>, tonic::Status> {
    tokio::pin!(call);
    match tokio::time::timeout(AGREES, &mut call).await {
        Ok(answer) => {
            let stream = answer?.into_inner();
            live();
            Ok(stream)
        }
        Err(_) => {
            live();
            Ok(call.await?.into_inner())
        }
    }
}

async fn follow_cri(
    cri: &Cri,
    events: &mpsc::Sender<RuntimeEvent>,
    live: impl FnOnce(),
) -> Result<(), tonic::Status> {
    let mut runtime = cri.runtime.clone();
    let mut stream = open(runtime.get_container_events(api::GetEventsRequest {}), live).await?;
    while let Some(event) = stream.message().await? {
        let ended = event.container_event_type == api::ContainerEventType::ContainerStoppedEvent as i32;
        if events.send(RuntimeEvent { id: event.container_id, ended }).await.is_err() {
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
    // A value with a slash stands in quotes, else the filter is refused.
    let filters = vec![r#"namespace==k8s.io,topic=="/tasks/exit""#.to_owned()];
    let mut client = EventsClient::new(cri.channel());
    let mut stream = open(client.subscribe(SubscribeRequest { filters }), live).await?;
    while let Some(envelope) = stream.message().await? {
        let Some(any) = envelope.event else { continue };
        let Ok(exit) = <TaskExit as prost::Message>::decode(any.value.as_slice()) else { continue };
        // An exec's end carries another id than its container's.
        if exit.id != exit.container_id {
            continue;
        }
        if events.send(RuntimeEvent { id: exit.container_id, ended: true }).await.is_err() {
            break;
        }
    }
    Ok(())
}
