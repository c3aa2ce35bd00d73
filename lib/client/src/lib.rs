//! How every component talks to the API server: a [`kube::Client`] over TLS or in process, shared informers that keep
//! small projections, and upstream's work queue.
//!
//! What always holds: a component sees objects only through here or the client; a wake-up carries a key, never the
//! change; nothing here knows what a component does with an object.
#![forbid(unsafe_code)]

pub mod certificates;
pub mod connect;
pub mod events;
pub mod informer;
pub mod key;
pub mod leader;
mod lean;
mod named;
pub mod projections;
pub mod rotating;
pub mod work_queue;

pub use certificates::{CertificateRequest, Issued, RequestError, request_certificate};
pub use connect::{ConnectError, from_kubeconfig, in_process};
pub use events::{EventRecorder, EventType};
pub use informer::{Change, HandlerScope, Informer, Projection, Selector};
pub use key::ObjectKey;
pub use lean::Lean;
pub use named::named;
pub use rotating::following;
pub use work_queue::WorkQueue;
