//! The addresses of a Service range: which may be handed out, and in which order they are tried.
//!
//! As upstream does, the lower band of a range is kept for addresses that people choose themselves: automatic
//! allocation starts above it and falls back to it when the rest is full.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One range of Service addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRange {
    base: u128,
    prefix: u8,
    v6: bool,
}

/// Why a text is no usable range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("{0:?} is not a CIDR such as 10.96.0.0/12")]
    Syntax(String),
    #[error(
        "{0:?} holds too few or too many addresses: between /8 and /30 for IPv4, between /64 and /126 for IPv6"
    )]
    Size(String),
}

impl ServiceRange {
    /// Reads `10.96.0.0/12`; host bits are ignored.
    pub fn parse(text: &str) -> Result<ServiceRange, RangeError> {
        let syntax = || RangeError::Syntax(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(syntax)?;
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        let prefix: u8 = prefix.parse().map_err(|_| syntax())?;
        let (bits, width, allowed) = match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32, 8..=30),
            IpAddr::V6(v6) => (u128::from(v6), 128, 64..=126),
        };
        if prefix > width {
            return Err(syntax());
        }
        if !allowed.contains(&prefix) {
            return Err(RangeError::Size(text.to_owned()));
        }
        let host = u32::from(width - prefix);
        Ok(ServiceRange { base: bits >> host << host, prefix, v6: address.is_ipv6() })
    }

    /// How many addresses may be handed out: without the first, and without IPv4's last.
    pub fn usable(&self) -> u128 {
        let width = if self.v6 { 128 } else { 32 };
        let all = 1u128 << (width - self.prefix);
        all - if self.v6 { 1 } else { 2 }
    }

    /// The address at an offset, 1 being the first usable one.
    pub fn at(&self, offset: u128) -> IpAddr {
        let bits = self.base + offset;
        if self.v6 { IpAddr::V6(Ipv6Addr::from(bits)) } else { IpAddr::V4(Ipv4Addr::from(bits as u32)) }
    }

    /// Whether an address lies in the range and may be handed out.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = match address {
            IpAddr::V4(v4) if !self.v6 => u128::from(u32::from(v4)),
            IpAddr::V6(v6) if self.v6 => u128::from(v6),
            _ => return false,
        };
        bits > self.base && bits - self.base <= self.usable()
    }

    /// Addresses in the order to try, from a random `seed`: the upper band from a random point, then the lower band.
    pub fn candidates(&self, seed: u64) -> impl Iterator<Item = IpAddr> + '_ {
        let usable = self.usable();
        // Upstream: min(max(16, size/16), 256).
        let reserved = (usable / 16).clamp(16, 256).min(usable);
        let upper = usable - reserved;
        let start = if upper == 0 { 0 } else { u128::from(seed) % upper };
        let high = (0..upper).map(move |step| reserved + 1 + (start + step) % upper);
        let low = 1..=reserved;
        high.chain(low).map(|offset| self.at(offset))
    }

    /// `IPv4` or `IPv6`.
    pub fn family(&self) -> &'static str {
        if self.v6 { "IPv6" } else { "IPv4" }
    }
}

impl std::fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.at(0), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_range() {
        let range = ServiceRange::parse("10.96.0.10/12").unwrap();
        assert_eq!(range.to_string(), "10.96.0.0/12");
        assert_eq!(range.at(1), "10.96.0.1".parse::<IpAddr>().unwrap());
        for (address, inside) in [
            ("10.96.0.0", false),
            ("10.96.0.1", true),
            ("10.111.255.254", true),
            ("10.111.255.255", false),
            ("10.112.0.0", false),
            ("::1", false),
            ("9.0.0.1", false),
        ] {
            assert_eq!(range.contains(address.parse().unwrap()), inside, "{address}");
        }
        assert_eq!(ServiceRange::parse("fd00::/108").unwrap().family(), "IPv6");
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/31", "x/8", "fd00::/48"] {
            assert!(ServiceRange::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_address_is_tried_once_the_lower_band_last() {
        let range = ServiceRange::parse("192.168.0.0/24").unwrap();
        let all: Vec<_> = range.candidates(977).collect();
        assert_eq!(all.len(), 254);
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), 254);
        assert!(all.iter().all(|address| range.contains(*address)));
        assert!(all[..238].iter().all(|address| *address > "192.168.0.16".parse::<IpAddr>().unwrap()));
    }
}
