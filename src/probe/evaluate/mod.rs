//! What the facts mean. Pure: facts in, checks and a verdict out.

use std::net::IpAddr;

use super::catalog::CauseId;
use super::check::{Category, Check, Confidence, Outcome, Verdict};
use super::facts::{Connect, Facts, FailureKind, Name, Reply, Site};
use super::kubernetes;

/// The addresses of a name that are tried: those that the system's resolver gives, or, where it is too slow for a
/// probe, those that a name server gives.
pub fn addresses(name: &Name) -> Vec<IpAddr> {
    let system = name.system.as_ref();
    let found = system.map(|lookup| lookup.addresses.clone()).unwrap_or_default();
    if !found.is_empty() || !system.is_some_and(|lookup| lookup.timed_out) {
        return found;
    }
    let mut found: Vec<IpAddr> = Vec::new();
    let mut of = None;
    for query in &name.queries {
        if let Reply::Addresses(addresses) = &query.reply
            && !addresses.is_empty()
            && of.get_or_insert(&query.name) == &&query.name
        {
            found.extend(addresses.iter().filter(|address| !found.contains(address)).collect::<Vec<_>>());
        }
    }
    found
}

/// Reads facts as checks, in causal order, and as a verdict.
pub fn evaluate(facts: &Facts) -> (Vec<Check>, Verdict) {
    let mut checks = Vec::new();
    for name in &facts.names {
        dns(name, &mut checks);
    }
    for site in &facts.sites {
        tcp(site, &mut checks);
        http(site, &mut checks);
    }
    checks.extend(kubernetes::evaluate(facts));
    checks.sort_by_key(|check| check.category);
    let verdict = verdict(&checks);
    let verdict = kubernetes::judge(facts, &mut checks, verdict);
    (checks, verdict)
}

fn verdict(checks: &[Check]) -> Verdict {
    let accused = checks.iter().find_map(|check| Some((check, check.accuses()?)));
    match accused {
        Some((check, cause)) => Verdict::of(
            cause,
            Confidence::Likely,
            format!("{}: {}", check.target, cause.meaning()),
            check.next_step.clone(),
        ),
        None => Verdict::ok("Nothing stands in the way of a connection."),
    }
}

fn dns(name: &Name, checks: &mut Vec<Check>) {
    let found = addresses(name);
    let ms = name.system.as_ref().map(|lookup| lookup.ms);
    checks.push(if found.is_empty() {
        let seen = name.system.as_ref().and_then(|lookup| lookup.error.clone()).unwrap_or_default();
        Check::no("dns.resolve", Category::Dns, &*name.name, CauseId::DnsNoSuchName, seen).took(ms)
    } else {
        let seen: Vec<String> = found.iter().map(ToString::to_string).collect();
        Check::yes("dns.resolve", Category::Dns, &*name.name, seen.join(", ")).took(ms)
    });
}

fn tcp(site: &Site, checks: &mut Vec<Check>) {
    for connect in &site.connects {
        checks.push(connected("tcp.connect", Category::Tcp, connect));
    }
}

fn connected(id: &'static str, category: Category, connect: &Connect) -> Check {
    let target = connect.address.to_string();
    let Some(failure) = &connect.failure else {
        let from = connect.source.map(|source| format!("from {source}")).unwrap_or_default();
        return Check::yes(id, category, target, format!("connected {from}")).took(connect.ms);
    };
    let cause = match failure.kind {
        FailureKind::Refused => CauseId::TcpRefused,
        FailureKind::TimedOut => CauseId::TcpTimeout,
        FailureKind::HostUnreachable => CauseId::HostUnreachable,
        FailureKind::NetworkUnreachable => CauseId::NetworkUnreachable,
        _ => return Check::unknown(id, category, target, &*failure.message).took(connect.ms),
    };
    Check::no(id, category, target, cause, &*failure.message).took(connect.ms)
}

fn http(site: &Site, checks: &mut Vec<Check>) {
    let Some(listener) = &site.listener else {
        checks.push(Check::skipped("http.discovery", Category::Http, &*site.url, "there is no connection"));
        return;
    };
    checks.push(match (&listener.answer, &listener.failure) {
        (Some(answer), _) if answer.status == 200 && answer.is_jenkins() => {
            Check::yes("http.discovery", Category::Http, &*listener.url, format!("HTTP {}", answer.status))
        }
        (Some(answer), _) => Check::no(
            "http.discovery",
            Category::Http,
            &*listener.url,
            CauseId::HttpError,
            format!("HTTP {}: {}", answer.status, answer.text),
        ),
        (None, failure) => Check {
            outcome: Outcome::Unknown,
            ..Check::unknown(
                "http.discovery",
                Category::Http,
                &*listener.url,
                failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default(),
            )
        },
    });
}
