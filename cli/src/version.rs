//! This program's version.

/// As the packages carry it. A build that tries an upgrade calls itself newer than it is.
pub const OWN: &str = if cfg!(feature = "next-format") { "0.2.0" } else { env!("CARGO_PKG_VERSION") };
