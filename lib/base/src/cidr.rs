//! Address ranges in CIDR notation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses, its host bits zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is no CIDR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CidrError(String);

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CidrError {}

impl Cidr {
    /// The range of `prefix` bits that holds `address`; an error when the prefix is too long for its family.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Cidr, CidrError> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest {
            return Err(CidrError(format!("prefix length {prefix} is longer than {longest}")));
        }
        Ok(Cidr { network: from_bits(address, bits(address) & mask(address, prefix)), prefix })
    }

    /// The first address.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// The number of fixed bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.network.is_ipv4()
            && bits(address) & mask(address, self.prefix) == bits(self.network)
    }

    /// Whether the two ranges share an address.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// The `n`-th address, `None` beyond the range.
    pub fn nth(&self, n: u128) -> Option<IpAddr> {
        if n >= self.size() && self.prefix != 0 {
            return None;
        }
        Some(from_bits(self.network, bits(self.network).checked_add(n)?))
    }

    /// How many addresses the range holds (saturating for ::/0).
    pub fn size(&self) -> u128 {
        let longest: u32 = if self.network.is_ipv4() { 32 } else { 128 };
        1u128.checked_shl(longest - u32::from(self.prefix)).unwrap_or(u128::MAX)
    }

    /// The `n`-th range of `prefix` bits inside this one.
    pub fn subnet(&self, prefix: u8, n: u128) -> Option<Cidr> {
        let step = Cidr::new(self.network, prefix).ok().filter(|s| s.prefix >= self.prefix)?.size();
        Cidr::new(self.nth(n.checked_mul(step)?)?, prefix).ok()
    }

    /// Which of the ranges of `prefix` bits inside this one holds an address: the other way of [`Cidr::subnet`].
    pub fn subnet_of(&self, prefix: u8, address: IpAddr) -> Option<u128> {
        let step = Cidr::new(self.network, prefix).ok().filter(|s| s.prefix >= self.prefix)?.size();
        self.contains(address).then(|| (bits(address) - bits(self.network)) / step)
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        let all = if self.network.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX };
        from_bits(self.network, bits(self.network) | (all & !mask(self.network, self.prefix)))
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn from_bits(like: IpAddr, bits: u128) -> IpAddr {
    match like {
        // The mask keeps IPv4 values within 32 bits.
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(bits as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(bits)),
    }
}

fn mask(like: IpAddr, prefix: u8) -> u128 {
    let longest: u32 = if like.is_ipv4() { 32 } else { 128 };
    let all = if like.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX };
    all & all.checked_shl(longest - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Parses `10.244.0.0/16`; refuses set host bits, because they hide typing mistakes.
    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let bad = |why: &str| CidrError(format!("{text:?} is no address range: {why}"));
        let (address, prefix) = text.split_once('/').ok_or_else(|| bad("no /prefix"))?;
        let address: IpAddr = address.parse().map_err(|_| bad("the part before / is no IP address"))?;
        let prefix: u8 = prefix.parse().map_err(|_| bad("the part after / is no number"))?;
        let cidr = Cidr::new(address, prefix).map_err(|error| bad(&error.0))?;
        if cidr.network != address {
            return Err(bad(&format!("host bits are set; did you mean {cidr}?")));
        }
        Ok(cidr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints() {
        for text in ["10.244.0.0/16", "0.0.0.0/0", "fd00::/8", "::/0", "10.0.0.1/32"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        for text in ["10.244.0.0", "10.244.0.0/33", "10.244.0.1/16", "x/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn subnets_and_members() {
        let pods: Cidr = "10.244.0.0/16".parse().unwrap();
        assert_eq!(pods.subnet(24, 3).unwrap().to_string(), "10.244.3.0/24");
        assert_eq!(pods.subnet(24, 256), None);
        assert_eq!(pods.nth(10).unwrap().to_string(), "10.244.0.10");
        assert_eq!(pods.nth(65536), None);
        assert_eq!(pods.last().to_string(), "10.244.255.255");
        assert_eq!(
            "::/0".parse::<Cidr>().unwrap().last().to_string(),
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        );
        assert_eq!(pods.subnet_of(24, "10.244.3.200".parse().unwrap()), Some(3));
        assert_eq!(pods.subnet_of(24, "10.245.0.0".parse().unwrap()), None);
        assert_eq!(pods.subnet_of(8, "10.244.0.0".parse().unwrap()), None);
        assert!(pods.contains("10.244.255.255".parse().unwrap()));
        assert!(!pods.contains("10.245.0.0".parse().unwrap()));
        assert!(pods.overlaps(&"10.0.0.0/8".parse().unwrap()));
        assert!(!pods.overlaps(&"10.96.0.0/12".parse().unwrap()));
        assert!(!pods.overlaps(&"fd00::/8".parse().unwrap()));
    }
}
