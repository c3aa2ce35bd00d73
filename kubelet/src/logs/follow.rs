//! Streaming a container's log to a client: from where it asks, through rotation, as lines come.
