//! The server as a whole, in process on a memory store, and over TLS with a raw client.

mod applies;
mod bad_input;
mod custom;
mod definitions;
mod deletes;
mod fine_print;
mod harness;
mod lists;
mod metrics;
mod mistakes;
mod proxies;
mod renewal;
mod selectable;
mod services;
mod sockets;
mod streams;
mod tls;
mod upkeep;
mod versions;
mod watches;
mod writes;
