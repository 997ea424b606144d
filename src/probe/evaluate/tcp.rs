//! TCP to the URL's port, or to the proxy's.

use crate::probe::catalog::CauseId;
use crate::probe::check::{Category, Check, Confidence};
use crate::probe::facts::{Connect, Facts, FailureKind, Name, Site};

const HERE: Category = Category::Tcp;

/// A connection that takes so long has lost its first packet, which is sent again after 1 s.
const LATE_MS: u64 = 950;

/// What stands between here and there, in the words of whoever has to look.
const DROPPED: &str =
    "Look for what drops packets on the way: network policies, security groups, firewalls; or the host is down.";

pub(super) fn checks(facts: &Facts, site: &Site) -> Vec<Check> {
    let host = site.proxy.as_ref().map_or(&site.host, |proxy| &proxy.host);
    let id = "tcp.connect";
    if site.connects.is_empty() {
        let resolved = facts.names.iter().find(|name| name.name == *host).is_some_and(has_address);
        let why = if resolved { "the probe's time was up" } else { "the name can't be resolved" };
        let target = crate::transport::proxy::host_port(host, site.port);
        return vec![Check::skipped(id, HERE, target, why)];
    }
    let mut checks = connects(id, HERE, facts, &site.connects, host);
    if let Some(proxy) = &site.proxy {
        for check in checks.iter_mut().filter(|check| check.accuses().is_some()) {
            check.cause = Some(CauseId::ProxyUnreachable);
            check.means = format!("The proxy {}, which {} names, can't be reached.", proxy.address, proxy.variable);
            check.next_step = match site.direct.iter().any(|connect| connect.failure.is_none()) {
                true => format!("The controller can be reached without it: add {} to NO_PROXY.", site.host),
                false => format!("Correct {}, or start the proxy.", proxy.variable),
            };
        }
        return checks;
    }
    let open: Vec<String> =
        site.usual_ports.iter().filter(|c| c.failure.is_none()).map(|c| c.address.port().to_string()).collect();
    if !open.is_empty() {
        for check in checks.iter_mut().filter(|check| check.accuses() == Some(CauseId::TcpRefused)) {
            check.cause = Some(CauseId::WrongPort);
            check.means = format!(
                "Nothing listens at port {} of {}, but something does at port {}.",
                site.port,
                site.host,
                open.join(" and ")
            );
            check.next_step = "Correct the port in the URL.".to_owned();
        }
    }
    checks
}

fn has_address(name: &Name) -> bool {
    !super::addresses(name).is_empty()
}

/// One check per address. Where one works, dead ones are worth a warning; where none does, the failure that tells most is
/// the cause.
pub(super) fn connects(
    id: &'static str,
    category: Category,
    facts: &Facts,
    connects: &[Connect],
    host: &str,
) -> Vec<Check> {
    let works = connects.iter().any(|connect| connect.failure.is_none());
    let worst = connects.iter().filter_map(|c| Some(rank(c.failure.as_ref()?.kind))).min().unwrap_or(u8::MAX);
    let mut accused = false;
    let mut checks = Vec::new();
    for (i, connect) in connects.iter().enumerate() {
        let mut check = one(id, category, facts, connect, host);
        let failed = connect.failure.as_ref().map(|failure| rank(failure.kind));
        if works && check.cause.is_some() {
            let first_six = i == 0 && connect.address.is_ipv6();
            check.cause = Some(if first_six { CauseId::Ipv6Dead } else { CauseId::AddressDead });
            check.means = match first_six {
                true => {
                    format!("{host} has an IPv6 address, which comes first and is dead: every connection waits for it.")
                }
                false => format!("One of the addresses of {host} is dead."),
            };
            check = check.warning();
        } else if failed.is_some_and(|rank| rank > worst) || accused {
            check = check.warning();
        } else if check.cause.is_some() {
            // The same for each address is said once.
            accused = connects.len() > 1 && failed == Some(worst);
        }
        checks.push(check);
        if let (None, late) = (&connect.failure, connect.ms)
            && late >= LATE_MS
        {
            checks.push(
                Check::no("tcp.latency", category, connect.address.to_string(), CauseId::TcpSlow, format!("{late} ms"))
                    .means("The first packet was lost, or the way is very slow.")
                    .next("Look for loss on the way (ping, mtr), and for a connection table that is full.")
                    .warning(),
            );
        }
    }
    checks
}

/// The lower tells more, as for the transport's own choice.
fn rank(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::Refused | FailureKind::Reset => 0,
        FailureKind::TimedOut => 1,
        FailureKind::HostUnreachable => 2,
        FailureKind::NetworkUnreachable => 3,
        _ => 4,
    }
}

fn one(id: &'static str, category: Category, facts: &Facts, connect: &Connect, host: &str) -> Check {
    let address = connect.address;
    let target = address.to_string();
    let from = connect.source.map(|source| format!(" from {source}")).unwrap_or_default();
    let Some(failure) = &connect.failure else {
        let mtu = connect.path_mtu.map(|mtu| format!(", MTU {mtu}")).unwrap_or_default();
        return Check::yes(id, category, target, format!("connected{from}{mtu}")).took(connect.ms);
    };
    let named = if host == address.ip().to_string() { String::new() } else { format!(" ({host})") };
    let hop = match &connect.next_hop {
        None => String::new(),
        Some(hop) => {
            let next = hop.gateway.map_or("on the link".to_owned(), |gateway| format!("by way of {gateway}"));
            let arp = match hop.answers_arp {
                Some(true) => ", which answers",
                Some(false) => ", which does not answer to ARP",
                None => "",
            };
            format!(", {next} ({}){arp}", hop.interface)
        }
    };
    let dead_hop = connect.next_hop.as_ref().filter(|hop| hop.answers_arp == Some(false));
    let seen = format!("{}{from}{hop}", failure.message);
    let (cause, means, next, sure) = match failure.kind {
        FailureKind::Refused | FailureKind::Reset => (
            CauseId::TcpRefused,
            format!("Nothing listens at {target}{named}: the connection is refused."),
            "Start the controller, or correct host and port in the URL; in a cluster see whether the service has endpoints."
                .to_owned(),
            Confidence::Certain,
        ),
        FailureKind::TimedOut => (
            CauseId::TcpTimeout,
            match dead_hop.and_then(|hop| hop.gateway) {
                Some(gateway) => format!("Nothing comes back from {target}{named}: the gateway {gateway} does not answer."),
                None => format!("Nothing comes back from {target}{named}: packets are dropped on the way, or the host is down."),
            },
            DROPPED.to_owned(),
            Confidence::Likely,
        ),
        FailureKind::HostUnreachable => (
            CauseId::HostUnreachable,
            match dead_hop {
                Some(hop) => match hop.gateway {
                    Some(gateway) => format!("{target}{named} can't be reached: the gateway {gateway} does not answer."),
                    None => format!("{target}{named} can't be reached: no host on the link has this address."),
                },
                None => format!("{target}{named} can't be reached: a router or firewall on the way says so."),
            },
            "Check that the host is up and that its address is right, then the routes and firewalls on the way (ip route get, traceroute)."
                .to_owned(),
            Confidence::Certain,
        ),
        FailureKind::NetworkUnreachable => {
            let no_route = !facts.environment.routes.is_empty()
                && crate::probe::system::route_to(address.ip(), &facts.environment.routes).is_none();
            (
                CauseId::NetworkUnreachable,
                match no_route {
                    true => format!("This host has no route to {target}{named}."),
                    false => format!("The network of {target}{named} can't be reached: a router on the way, or this host, has no route."),
                },
                "Check the routes (ip route), the default route first, and in a cluster the network plugin (CNI).".to_owned(),
                Confidence::Certain,
            )
        }
        _ => return Check::unknown(id, category, target, seen).took(connect.ms),
    };
    Check::no(id, category, target, cause, seen).means(means).next(next).sure(sure).took(connect.ms)
}
