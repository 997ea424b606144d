//! What Linux says of its network in `/proc/net`. No IO: the text of a file in, plain data out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::facts::Route;

/// No more lines of any table are read: a node may have tens of thousands of routes.
const MAX_LINES: usize = 4096;

const RTF_UP: u32 = 0x1;
const RTF_GATEWAY: u32 = 0x2;
const RTF_REJECT: u32 = 0x200;
const RTF_CACHE: u32 = 0x0100_0000;
const RTF_LOCAL: u32 = 0x8000_0000;

/// `/proc/net/route`: IPv4's main table.
pub fn routes_v4(text: &str) -> Vec<Route> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [interface, network, gateway, flags, _, _, metric, mask, ..] = words[..] else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let gateway = address_v4(gateway)?;
        Some(Route {
            network: address_v4(network)?.into(),
            prefix: address_v4(mask)?.to_bits().leading_ones() as u8,
            gateway: (flags & RTF_GATEWAY != 0).then_some(gateway.into()),
            interface: interface.to_owned(),
            metric: metric.parse().ok()?,
            reject: flags & RTF_REJECT != 0,
        })
        .filter(|_| flags & RTF_UP != 0)
    };
    text.lines().skip(1).take(MAX_LINES).filter_map(line).collect()
}

/// The kernel prints the four bytes as one number in its own byte order.
fn address_v4(hex: &str) -> Option<Ipv4Addr> {
    (hex.len() == 8).then(|| u32::from_str_radix(hex, 16).ok()).flatten().map(|n| Ipv4Addr::from(n.to_ne_bytes()))
}

/// `/proc/net/ipv6_route`, without what is local, multicast or cached.
pub fn routes_v6(text: &str) -> Vec<Route> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [network, prefix, _, _, gateway, metric, _, _, flags, interface] = words[..] else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let network = address_v6(network)?;
        let gateway = address_v6(gateway)?;
        Some(Route {
            network: network.into(),
            prefix: u8::from_str_radix(prefix, 16).ok()?,
            gateway: (flags & RTF_GATEWAY != 0).then_some(gateway.into()),
            interface: interface.to_owned(),
            metric: u32::from_str_radix(metric, 16).ok()?,
            reject: flags & RTF_REJECT != 0,
        })
        .filter(|_| flags & (RTF_LOCAL | RTF_CACHE) == 0 && !network.is_multicast())
        // Every kernel has this last resort, which says that there is no route.
        .filter(|route| !(route.reject && route.interface == "lo"))
    };
    text.lines().take(MAX_LINES).filter_map(line).collect()
}

fn address_v6(hex: &str) -> Option<Ipv6Addr> {
    (hex.len() == 32).then(|| u128::from_str_radix(hex, 16).ok()).flatten().map(Ipv6Addr::from_bits)
}

/// The route to an address: the longest prefix, and of these the lowest metric.
pub fn route_to(to: IpAddr, routes: &[Route]) -> Option<&Route> {
    let fits = |route: &&Route| contains(route.network, route.prefix, to);
    let rank = |route: &&Route| (route.prefix, std::cmp::Reverse(route.metric));
    routes.iter().filter(fits).max_by_key(rank)
}

/// Whether a network has an address.
pub fn contains(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    let prefix = u32::from(prefix);
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            prefix <= 32 && differ.leading_zeros() >= prefix
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            prefix <= 128 && differ.leading_zeros() >= prefix
        }
        _ => false,
    }
}

/// `/proc/net/fib_trie`: this host's own IPv4 addresses, without loopback's.
pub fn addresses_v4(text: &str) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    let mut last = None;
    for line in text.lines().take(MAX_LINES) {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = last.take()
            && !address.is_loopback()
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

/// `/proc/net/if_inet6`: this host's own IPv6 addresses and their interfaces, without loopback's.
pub fn addresses_v6(text: &str) -> Vec<(String, Ipv6Addr)> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, _, _, _, _, interface] = words[..] else { return None };
        Some((interface.to_owned(), address_v6(address)?)).filter(|(_, address)| !address.is_loopback())
    };
    text.lines().take(MAX_LINES).filter_map(line).collect()
}

/// `/proc/net/arp`: whether a neighbour has answered; `None` where it was not asked.
pub fn answers_arp(text: &str, hop: Ipv4Addr, interface: &str) -> Option<bool> {
    text.lines().skip(1).take(MAX_LINES).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, _, flags, hardware, _, device] = words[..] else { return None };
        let same = address.parse() == Ok(hop) && device == interface;
        // ATF_COM: the entry is complete.
        let complete = flags.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok())? & 0x2 != 0;
        same.then_some(complete && hardware != "00:00:00:00:00:00")
    })
}

/// `/proc/net/tcp` or `/proc/net/tcp6`: of the socket with these two ends, the bytes not yet acknowledged, and how often
/// the kernel has sent the same ones again.
pub fn unacknowledged(text: &str, local: SocketAddr, remote: SocketAddr) -> Option<(u64, u32)> {
    text.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, from, to, _, queues, _, retransmits, ..] = words[..] else { return None };
        if socket(from)? != local || socket(to)? != remote {
            return None;
        }
        let (unsent, _) = queues.split_once(':')?;
        Some((u64::from_str_radix(unsent, 16).ok()?, u32::from_str_radix(retransmits, 16).ok()?))
    })
}

fn socket(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip: IpAddr = if address.len() == 8 {
        address_v4(address)?.into()
    } else {
        // Four numbers of four bytes each, in the kernel's byte order.
        let mut octets = [0; 16];
        for (part, word) in octets.chunks_exact_mut(4).zip(0..4) {
            let hex = address.get(word * 8..word * 8 + 8)?;
            part.copy_from_slice(&u32::from_str_radix(hex, 16).ok()?.to_ne_bytes());
        }
        Ipv6Addr::from(octets).to_canonical()
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROUTE: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
*\t0000010A\t00000000\t0201\t0\t0\t0\t00FFFFFF\t0\t0\t0
";
    const ROUTE6: &str = "\
fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
fd000000000000000000000000000002 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001     eth0
ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000002 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    #[test]
    fn routes() {
        let mut routes = routes_v4(ROUTE);
        routes.extend(routes_v6(ROUTE6));
        let to = |address: &str| route_to(address.parse().unwrap(), &routes).map(|r| (r.gateway, r.prefix, r.reject));
        assert_eq!(to("8.8.8.8"), Some((Some("10.0.0.1".parse().unwrap()), 0, false)));
        assert_eq!(to("10.0.0.9"), Some((None, 24, false)));
        assert_eq!(to("10.1.0.9"), Some((None, 24, true)));
        assert_eq!(to("fd00::9"), Some((None, 64, false)));
        assert_eq!(to("2001:db8::1"), Some((Some("fd00::1".parse().unwrap()), 0, false)));
        assert_eq!(routes.len(), 5);
        assert_eq!(route_to("10.0.0.9".parse().unwrap(), &[]), None);
    }

    #[test]
    fn own_addresses() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.2\n        /32 host LOCAL\n     \
                    |-- 127.0.0.1\n        /32 host LOCAL\nLocal:\n     |-- 10.0.0.2\n        /32 host LOCAL\n";
        assert_eq!(addresses_v4(trie), ["10.0.0.2".parse::<Ipv4Addr>().unwrap()]);
        let six = "00000000000000000000000000000001 01 80 10 80       lo\nfe800000000000000000000000000001 02 40 20 80     eth0\n";
        assert_eq!(addresses_v6(six), [("eth0".to_owned(), "fe80::1".parse().unwrap())]);
    }

    #[test]
    fn neighbours() {
        let arp = "IP address       HW type     Flags       HW address            Mask     Device\n\
                   10.0.0.1         0x1         0x2         02:42:ac:11:00:02     *        eth0\n\
                   10.0.0.9         0x1         0x0         00:00:00:00:00:00     *        eth0\n";
        let answers = |hop: &str, interface| answers_arp(arp, hop.parse().unwrap(), interface);
        assert_eq!(answers("10.0.0.1", "eth0"), Some(true));
        assert_eq!(answers("10.0.0.9", "eth0"), Some(false));
        assert_eq!(answers("10.0.0.1", "eth1"), None);
    }

    #[test]
    fn what_a_socket_still_has_to_send() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                   0: 0200000A:9C40 0300000A:1F90 01 00001770:00000000 01:00000014 00000003     0        0 1 2 0 20 4 0 10 -1\n";
        let of = |local: &str, remote: &str| unacknowledged(tcp, local.parse().unwrap(), remote.parse().unwrap());
        assert_eq!(of("10.0.0.2:40000", "10.0.0.3:8080"), Some((6000, 3)));
        assert_eq!(of("10.0.0.2:40001", "10.0.0.3:8080"), None);
        let mapped = "sl\n0: 0000000000000000FFFF00000200000A:9C40 0000000000000000FFFF00000300000A:1F90 01 00000001:0 01:0 00000001 0 0\n";
        let both = ("10.0.0.2:40000".parse().unwrap(), "10.0.0.3:8080".parse().unwrap());
        assert_eq!(unacknowledged(mapped, both.0, both.1), Some((1, 1)));
    }

    proptest! {
        #[test]
        fn no_table_panics(text in "([0-9A-F: \n\t|/-]|eth0|host LOCAL|0x2){0,60}") {
            let _ = (routes_v4(&text), routes_v6(&text), addresses_v4(&text), addresses_v6(&text));
            let _ = answers_arp(&text, Ipv4Addr::LOCALHOST, "eth0");
            let _ = unacknowledged(&text, "1.1.1.1:1".parse().unwrap(), "1.1.1.1:1".parse().unwrap());
        }
    }
}
