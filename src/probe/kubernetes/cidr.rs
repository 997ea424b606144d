//! Address ranges: `10.244.0.0/16`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A range of addresses, all with the same first bits. Host bits that are set are dropped, as kubeadm and the CNIs do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// A text is no address range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address range such as 10.244.0.0/16")]
pub struct CidrError(String);

impl Cidr {
    /// The range around an address. A prefix longer than the address is the address alone.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        let (bits, width) = bits(address);
        let prefix = prefix.min(width);
        let masked = bits & mask(prefix, width);
        let address = match address {
            IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::from_bits(masked as u32)),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::from_bits(masked)),
        };
        Cidr { address, prefix }
    }

    /// Whether it is a range of IPv4 addresses.
    pub fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether the address is in the range. Never so for addresses of the other family.
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && Cidr::new(address, self.prefix).address == self.address
    }

    /// Whether all of the other range is in this one.
    pub fn covers(self, other: Cidr) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }

    /// Whether the two have an address in common: then one covers the other.
    pub fn overlaps(self, other: Cidr) -> bool {
        self.covers(other) || other.covers(self)
    }
}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn mask(prefix: u8, width: u8) -> u128 {
    let ones = u128::MAX.checked_shr(128 - u32::from(width)).unwrap_or(0);
    ones & u128::MAX.checked_shl(u32::from(width - prefix)).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let parse = || {
            let (address, prefix) = text.trim().split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let prefix: u8 = prefix.parse().ok()?;
            (prefix <= bits(address).1).then(|| Cidr::new(address, prefix))
        };
        parse().ok_or_else(|| CidrError(text.chars().take(60).collect()))
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// All ranges of a list with commas (dual stack has two); what is none is left out.
pub(crate) fn list(text: &str) -> Vec<Cidr> {
    text.split([',', ' ']).filter_map(|part| part.parse().ok()).collect()
}

/// "10.244.0.0/16, fd00::/48".
pub(crate) fn join(ranges: &[Cidr]) -> String {
    ranges.iter().map(Cidr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_contain_and_cover() {
        let pods = cidr("10.244.0.0/16");
        assert!(pods.contains("10.244.7.9".parse().unwrap()));
        assert!(!pods.contains("10.245.0.1".parse().unwrap()));
        assert!(!pods.contains("::ffff:10.244.7.9".parse().unwrap()));
        assert!(pods.covers(cidr("10.244.3.0/24")) && !cidr("10.244.3.0/24").covers(pods));
        assert!(pods.overlaps(cidr("10.0.0.0/8")) && cidr("10.0.0.0/8").overlaps(pods));
        assert!(!pods.overlaps(cidr("192.168.0.0/16")));
        assert!(cidr("0.0.0.0/0").contains("255.255.255.255".parse().unwrap()));
        assert!(cidr("::/0").covers(cidr("fd00::/48")) && !cidr("::/0").covers(pods));
        assert!(cidr("fd00::7/128").contains("fd00::7".parse().unwrap()));
        assert!(!cidr("fd00::7/128").contains("fd00::8".parse().unwrap()));
    }

    #[test]
    fn texts() {
        assert_eq!(cidr(" 10.244.3.7/16 ").to_string(), "10.244.0.0/16");
        for bad in ["", "/", "10.244.0.0", "10.244.0.0/33", "fd00::/129", "10.244.0.0/-1", "x/8", "10.244.0.0/16/8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        assert_eq!(list("10.244.0.0/16,fd00::/48"), [cidr("10.244.0.0/16"), cidr("fd00::/48")]);
        assert_eq!(serde_json::to_string(&cidr("10.0.0.0/8")).unwrap(), "\"10.0.0.0/8\"");
        assert_eq!(serde_json::from_str::<Cidr>("\"10.0.0.0/8\"").unwrap(), cidr("10.0.0.0/8"));
        assert!(serde_json::from_str::<Cidr>("\"10.0.0.0\"").is_err());
    }

    proptest! {
        #[test]
        fn a_range_contains_what_it_was_made_of(address: std::net::IpAddr, prefix: u8, narrower: u8) {
            let range = Cidr::new(address, prefix);
            prop_assert!(range.contains(address));
            prop_assert_eq!(range.to_string().parse::<Cidr>().unwrap(), range);
            prop_assert!(range.covers(Cidr::new(address, prefix.saturating_add(narrower))));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<Cidr>();
        }
    }
}
