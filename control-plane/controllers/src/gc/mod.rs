//! The garbage collector: objects go when their owners have gone, in the foreground, in the background, or orphaned.
//!
//! The graph says only where to look; whether an owner is there is asked of the API server each time.

mod graph;
mod monitors;
mod shell;

pub use shell::start;
