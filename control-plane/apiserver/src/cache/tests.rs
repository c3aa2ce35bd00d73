//! Tests of the cache over the memory store.
