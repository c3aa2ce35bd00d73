//! The watch cache: what the API server answers reads from.
//!
//! One [`WatchCache`] per resource holds each object once, as the canonical bytes of the store ([`Object`]), in key
//! order, and the recent events. It starts when first asked for, follows the store by one watch, and costs nothing
//! while nothing changes.
//!
//! What always holds:
//! - A read of [`ReadAt::Newest`] sees every write that was acknowledged before it began: it waits until the cache has
//!   seen what the store has published, which in one process is known without asking.
//! - A list is a snapshot at the revision it names. Snapshots share the objects; no lock is held while one is read.
//! - A watcher gets every event that concerns it, in order, once. Its queue is bounded: a slow one is taken off the live
//!   feed and reads on from the window of recent events, then from the store's history; once that is compacted
//!   it is cut with [`CacheError::Expired`]. Nothing is dropped in silence.
//! - An event is encoded once per encoding in use, however many watchers there are ([`Delivery::encoded`]).
//!
//! It knows nothing of HTTP, API versions or schemas: callers hand in how selectable fields are found and how objects
//! are written.

mod chunks;
mod core;
mod json;
mod list;
mod object;
mod watch;

pub use self::core::{CacheError, Observer, Settings, WatchCache, WatchCaches};
pub use self::list::{List, ListBody, ListQuery};
pub use self::object::{Fields, Form, JsonPaths, Object, ObjectError, Part};
pub use self::watch::{Delivery, EventKind, Start, WatchItem, WatchQuery, WatchStream};

use keelson_store::Revision;
use std::sync::Arc;

/// How fresh a read must be; upstream's resourceVersion semantics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAt {
    /// No resourceVersion: the newest state, consistently.
    Newest,
    /// `resourceVersion=0`: whatever the cache has.
    Any,
    /// `resourceVersionMatch=NotOlderThan`: the cache's state once it has reached the revision. A future one is waited
    /// for up to three seconds.
    NotOlderThan(Revision),
    /// `resourceVersionMatch=Exact` and continue tokens: the state at just that revision.
    Exact(Revision),
}

/// Which keys a list or watch is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    Namespace(Box<str>),
    /// One object by its key (`namespace/name` or `name`): what `fieldSelector=metadata.name=…` asks for.
    Key(Box<str>),
}

impl Scope {
    fn holds(&self, object: &Object) -> bool {
        match self {
            Scope::All => true,
            Scope::Namespace(namespace) => object.namespace() == &**namespace,
            Scope::Key(key) => object.key() == &**key,
        }
    }
}

/// Label and field selectors, put together by the caller.
pub type Filter = Arc<dyn Fn(&Object) -> bool + Send + Sync>;

#[cfg(test)]
mod tests;
