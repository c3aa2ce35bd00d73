//! The streams behind exec, attach and port-forward: SPDY/3.1 sessions, Kubernetes' WebSocket channel protocols, and
//! the relays between them.
//!
//! What always holds: nothing is buffered without bound (a slow reader slows the sender), a half-closed stdin reaches
//! the other side as such, and the error channel's Status passes through unread. The crate knows nothing of HTTP: it is
//! handed connections that were upgraded already.
#![forbid(unsafe_code)]

mod dictionary;
pub mod frame;
pub mod relay;
pub mod session;
pub mod websocket;

pub use relay::{Impatient, copy_both};
pub use session::{Role, Session, Stream, StreamError};
pub use websocket::{ExecStreams, WebSocketProtocol, relay_channels, tunnel};
