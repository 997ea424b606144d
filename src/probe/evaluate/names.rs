//! Name resolution.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::probe::catalog::CauseId;
use crate::probe::check::{Category, Check, Confidence};
use crate::probe::facts::{Facts, Name, Query, Reply};

const HERE: Category = Category::Dns;

/// Milliseconds after which a resolution is slow: no resolver waits less for an answer.
const SLOW: u64 = 1000;

/// The addresses of a name that are tried: those that the system's resolver gives, or, where it is too slow for a
/// probe, those that a name server gives.
pub fn addresses(name: &Name) -> Vec<IpAddr> {
    let system = name.system.as_ref();
    let found = system.map(|lookup| lookup.addresses.clone()).unwrap_or_default();
    if !found.is_empty() || !system.is_some_and(|lookup| lookup.timed_out) {
        return found;
    }
    first_found(name).map(|(_, found)| found).unwrap_or_default()
}

/// The first name of the search that a name server knows, and its addresses.
fn first_found(name: &Name) -> Option<(&str, Vec<IpAddr>)> {
    let asked = name.queries.iter().find(|query| has_addresses(query))?.name.as_str();
    Some((asked, known_as(name, asked)))
}

fn has_addresses(query: &Query) -> bool {
    matches!(&query.reply, Reply::Addresses(addresses) if !addresses.is_empty())
}

fn known_as(name: &Name, asked: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for query in name.queries.iter().filter(|query| query.name == asked) {
        if let Reply::Addresses(addresses) = &query.reply {
            for address in addresses {
                if !found.contains(address) {
                    found.push(*address);
                }
            }
        }
    }
    found
}

/// The names that a start has to resolve itself: behind a proxy the controller's is not among them.
fn needed(facts: &Facts) -> Vec<&str> {
    let mut needed: Vec<&str> = Vec::new();
    for site in &facts.sites {
        needed.push(site.proxy.as_ref().map_or(&site.host, |proxy| &proxy.host));
    }
    if facts.configuration.direct.is_some()
        && let Some(port) = &facts.agent_port
    {
        needed.push(port.proxy.as_ref().map_or(&port.host, |proxy| &proxy.host));
    }
    let mut seen = BTreeSet::new();
    needed.retain(|host| seen.insert(*host));
    needed
}

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    for host in needed(facts) {
        if let Some(name) = facts.names.iter().find(|name| name.name == host) {
            checks.extend(of_name(name));
        }
    }
    checks
}

/// What is known of a name server.
#[derive(Clone, Copy, PartialEq)]
enum Server {
    Answers,
    Fails,
    Dead,
}

fn servers(name: &Name) -> Vec<(IpAddr, Server)> {
    let mut servers: Vec<(IpAddr, Server)> = Vec::new();
    for query in &name.queries {
        let state = match query.reply {
            Reply::Addresses(_) | Reply::NoSuchName | Reply::Malformed(_) => Server::Answers,
            Reply::Failure(_) => Server::Fails,
            Reply::TimedOut | Reply::Unreachable(_) => Server::Dead,
        };
        match servers.iter_mut().find(|(server, _)| *server == query.server) {
            // One answer is enough to know that it lives.
            Some((_, known)) if state == Server::Answers || *known == Server::Dead => *known = state,
            Some(_) => {}
            None => servers.push((query.server, state)),
        }
    }
    servers
}

/// The checks of one name; more than one where name servers are not of one mind.
pub(super) fn of_name(name: &Name) -> Vec<Check> {
    let id = "dns.resolve";
    let target = name.name.as_str();
    if target.parse::<IpAddr>().is_ok() {
        return vec![Check::yes(id, HERE, target, "an address")];
    }
    let Some(system) = &name.system else {
        return vec![Check::unknown(id, HERE, target, "not asked")];
    };
    let found = addresses(name);
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    let shown = shown.join(", ");
    if !name.hosts_file.is_empty() && !found.is_empty() {
        return vec![Check::yes(id, HERE, target, format!("{shown} (/etc/hosts)")).took(system.ms)];
    }
    let servers = servers(name);
    let mut checks = Vec::new();
    if found.is_empty() {
        checks.push(unresolved(name, &servers).took(system.ms));
    } else {
        checks.push(Check::yes(id, HERE, target, shown).took(system.ms));
        checks.extend(surprise(name).or_else(|| detour(name)));
    }
    let accused = checks.iter().any(|check| check.cause == Some(CauseId::DnsServerDead));
    for (server, state) in servers {
        let check = |cause, seen: String, means: &str| {
            Check::no("dns.server", HERE, server.to_string(), cause, seen)
                .means(means)
                .next("Take it out of /etc/resolv.conf (in a pod: dnsPolicy and dnsConfig), or repair it.")
                .warning()
        };
        match state {
            Server::Answers => {}
            Server::Dead if accused => {}
            Server::Dead => checks.push(check(
                CauseId::DnsServerDead,
                format!("it does not answer for {target}"),
                "Each resolution waits for it for seconds before the next name server is asked.",
            )),
            Server::Fails if checks.iter().any(|check| check.accuses() == Some(CauseId::DnsServerFailure)) => {}
            Server::Fails => checks.push(check(
                CauseId::DnsServerFailure,
                format!("it fails for {target}"),
                "One of the name servers can't do its work.",
            )),
        }
    }
    checks
}

fn unresolved(name: &Name, servers: &[(IpAddr, Server)]) -> Check {
    let id = "dns.resolve";
    let target = name.name.as_str();
    let said = name.system.as_ref().and_then(|lookup| lookup.error.clone()).unwrap_or_else(|| "no address".to_owned());
    let list: Vec<String> = servers.iter().map(|(server, _)| server.to_string()).collect();
    let list = list.join(", ");
    let all = |state: Server| !servers.is_empty() && servers.iter().all(|(_, known)| *known == state);
    if let Some((known, found)) = first_found(name) {
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        return Check::no(id, HERE, target, CauseId::DnsSearchList, format!("{said}, though {known} is {}", shown.join(", ")))
            .means(format!("The name server knows {known}, but the system's resolver does not get there from {target}: the search list or ndots of /etc/resolv.conf is in the way."))
            .next(format!("Write the host name in the URL with a dot at its end ({known}.), or correct search and ndots in /etc/resolv.conf (in a pod: dnsConfig)."));
    }
    if all(Server::Dead) {
        let refused = name.queries.iter().find_map(|query| match &query.reply {
            Reply::Unreachable(message) => Some(format!("{}: {message}", query.server)),
            _ => None,
        });
        let seen = refused.unwrap_or_else(|| format!("no answer from {list}"));
        return Check::no(id, HERE, target, CauseId::DnsServerDead, seen)
            .means(format!("No name server answers ({list}), so {target} can't be resolved."))
            .next("Check that the name server runs and that UDP port 53 to it passes (in a cluster: the pods of kube-dns, and network policies); /etc/resolv.conf says which it is.")
            .sure(Confidence::Certain);
    }
    let failure = name.queries.iter().find_map(|query| match &query.reply {
        Reply::Failure(code) => Some((query.server, code.as_str())),
        _ => None,
    });
    let denied = name.queries.iter().any(|query| matches!(query.reply, Reply::NoSuchName | Reply::Addresses(_)));
    if let (Some((server, code)), false) = (failure, denied) {
        return Check::no(id, HERE, target, CauseId::DnsServerFailure, format!("{server} answers {code}"))
            .means(format!("The name server {server} can't resolve {target}: it answers {code}."))
            .next("Look into the name server's log: one that it forwards to may be dead, or it may not serve this client or zone.")
            .sure(Confidence::Certain);
    }
    let by = servers.iter().find(|(_, state)| *state == Server::Answers).map(|(server, _)| format!(" ({server})"));
    let searched: BTreeSet<&str> = name.queries.iter().map(|query| query.name.as_str()).collect();
    let searched = match searched.len() {
        0 | 1 => String::new(),
        more => format!(", nor any of the {} other names that the search list makes of it", more - 1),
    };
    let sure = if denied { Confidence::Certain } else { Confidence::Likely };
    Check::no(id, HERE, target, CauseId::DnsNoSuchName, format!("{said}{}", by.unwrap_or_default()))
        .means(format!("The host name {target} does not exist{searched}."))
        .next("Correct the host in the URL; in a cluster it is SERVICE.NAMESPACE.svc.")
        .sure(sure)
}

/// A name that is one itself, and that the search list makes another of first.
fn surprise(name: &Name) -> Option<Check> {
    let absolute = name.name.trim_end_matches('.');
    let (first, found) = first_found(name)?;
    let meant = known_as(name, absolute);
    if first.eq_ignore_ascii_case(absolute) || meant.is_empty() || meant.iter().all(|address| found.contains(address)) {
        return None;
    }
    let list = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Some(
        Check::no(
            "dns.search-list",
            HERE,
            &*name.name,
            CauseId::DnsSearchList,
            format!("taken for {first} ({}), while {absolute}. is {}", list(&found), list(&meant)),
        )
        .means(format!(
            "The search list of /etc/resolv.conf makes {first} of {absolute}, which is another host ({} in place of {}).",
            list(&found),
            list(&meant)
        ))
        .next(format!(
            "Write the host name in the URL with a dot at its end ({absolute}.), or lower ndots in /etc/resolv.conf (in a pod: dnsConfig.options)."
        ))
        .warning(),
    )
}

/// A name that is found after others that the search list makes of it, of which one is waited for in vain.
fn detour(name: &Name) -> Option<Check> {
    let absolute = name.name.trim_end_matches('.');
    let ms = name.system.as_ref().map(|lookup| lookup.ms).filter(|ms| *ms >= SLOW)?;
    let silent = name.queries.iter().find(|query| {
        let answers = |other: &Query| other.server == query.server && !matches!(other.reply, Reply::TimedOut);
        query.reply == Reply::TimedOut && query.name != absolute && name.queries.iter().any(answers)
    })?;
    Some(
        Check::no(
            "dns.search-list",
            HERE,
            &*name.name,
            CauseId::DnsSearchList,
            format!("resolved after {}.{} s; {} does not answer for {}", ms / 1000, ms % 1000 / 100, silent.server, silent.name),
        )
        .means(format!("The search list of /etc/resolv.conf makes {} of {absolute}, for which the name server waits in vain.", silent.name))
        .next(format!(
            "Write the host name in the URL with a dot at its end ({absolute}.), lower ndots (in a pod: dnsConfig.options), or take the domain out of the search list."
        ))
        .warning(),
    )
}
