//! Endpoints and EndpointSlices of services, and slices that mirror hand-made Endpoints.

mod desired;
mod legacy;
mod mirror;
mod shell;
mod slices;
#[cfg(test)]
mod tests;

pub use shell::{start_endpoints, start_mirroring, start_slices};
