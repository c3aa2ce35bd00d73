//! Addresses and node ports of Services, and the `kubernetes` Service.

pub mod cidr;
