//! The machine or pod.

use super::count;
use crate::probe::catalog::CauseId;
use crate::probe::check::{Category, Check};
use crate::probe::facts::{Environment, Facts};
use crate::probe::time;

const HERE: Category = Category::Environment;

/// Less than this fills up with the first checkout.
const LITTLE: u64 = 100 << 20;

/// Clocks that differ by less do no harm.
const SKEW: i64 = 60;

/// A controller's secrets (`JnlpSlaveAgentProtocol.SLAVE_SECRET`: HMAC-SHA256 in hexadecimal).
const SECRET_LENGTH: usize = 64;

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let environment = &facts.environment;
    let mut checks = vec![host(environment), network(environment)];
    checks.extend(work_dir(environment));
    checks.extend(clock(facts));
    checks.extend(secret(facts));
    for site in &facts.sites {
        checks.push(Check::yes("environment.proxy", HERE, &*site.url, &*site.decision));
    }
    if let Some(port) = &facts.agent_port {
        let target = crate::transport::proxy::host_port(&port.host, port.port);
        checks.push(Check::yes("environment.proxy", HERE, target, &*port.decision));
    }
    checks
}

fn host(environment: &Environment) -> Check {
    let kind = if environment.in_pod { "a pod" } else { "no pod" };
    let home = environment.home.as_deref().unwrap_or("not set");
    let name = environment.host_name.as_deref().unwrap_or_default();
    Check::yes("environment.host", HERE, name, format!("{kind}, uid {}, HOME {home}", environment.uid))
}

fn network(environment: &Environment) -> Check {
    let interfaces: Vec<_> =
        environment.interfaces.iter().filter(|interface| !interface.addresses.is_empty()).collect();
    let mut seen: Vec<String> = interfaces
        .iter()
        .map(|interface| {
            let addresses: Vec<String> = interface
                .addresses
                .iter()
                .filter(|address| !matches!(address, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local()))
                .map(ToString::to_string)
                .collect();
            let mtu = interface.mtu.map(|mtu| format!(" (MTU {mtu})")).unwrap_or_default();
            format!("{} {}{mtu}", interface.name, addresses.join(" "))
        })
        .collect();
    let default = environment.routes.iter().filter(|route| route.prefix == 0 && !route.reject);
    let default: Vec<String> = default
        .map(|route| match route.gateway {
            Some(gateway) => format!("default via {gateway} {}", route.interface),
            None => format!("default {}", route.interface),
        })
        .collect();
    seen.push(if default.is_empty() { "no default route".to_owned() } else { default.join(", ") });
    if let Some(conf) = &environment.resolv_conf {
        let servers: Vec<String> = conf.nameservers.iter().map(ToString::to_string).collect();
        seen.push(format!("name servers {}", servers.join(" ")));
        if !conf.search.is_empty() {
            seen.push(format!("search {} (ndots {})", conf.search.join(" "), conf.ndots));
        }
    }
    let interfaces = count(interfaces.len(), "interface");
    Check::yes("environment.network", HERE, interfaces, seen.join("; "))
}

fn work_dir(environment: &Environment) -> Option<Check> {
    let dir = environment.work_dir.as_ref()?;
    let id = "environment.work-dir";
    if let Some(problem) = &dir.problem {
        // The path may be that of a directory above it.
        let means = match problem.strip_prefix(&*dir.path).and_then(|rest| rest.strip_prefix(' ')) {
            Some(rest) => format!("The work directory {} {rest}.", dir.path),
            None => format!("The work directory {} can't be used: {problem}.", dir.path),
        };
        let next = format!(
            "Mount a directory there that uid {} may write to (securityContext.fsGroup), or give another -workDir.",
            environment.uid
        );
        return Some(Check::no(id, HERE, &*dir.path, CauseId::WorkDirectory, &**problem).means(means).next(next));
    }
    let free = dir.free.map(|free| format!("writable, {} MB free", free >> 20));
    Some(match dir.free {
        Some(free) if free < LITTLE => Check::no(id, HERE, &*dir.path, CauseId::WorkDirectory, free_text(free))
            .means("The work directory is nearly full.")
            .next("Free some space there.")
            .warning(),
        _ => Check::yes(id, HERE, &*dir.path, free.unwrap_or_else(|| "writable".to_owned())),
    })
}

fn free_text(free: u64) -> String {
    format!("{} MB free", free >> 20)
}

fn clock(facts: &Facts) -> Option<Check> {
    let here = facts.environment.clock_ms / 1000;
    let dates = facts.sites.iter().flat_map(|site| [&site.listener, &site.login]).flatten();
    let date = |exchange: &crate::probe::facts::Exchange| {
        let answer = exchange.answer.as_ref()?;
        time::parse_http_date(answer.header("date")?)
    };
    let there = dates.filter_map(date).next()?;
    let (off, id) = (here - there, "environment.clock");
    let shown = time::show(here);
    if off.abs() <= SKEW {
        return Some(Check::yes(id, HERE, shown, "as the controller's"));
    }
    let direction = if off > 0 { "ahead of" } else { "behind" };
    let seen = format!("{} {direction} the controller's, {}", time::span(off), time::show(there));
    Some(
        Check::no(id, HERE, shown, CauseId::ClockSkew, seen)
            .means("One of the two clocks is wrong: certificates and file times are misjudged.")
            .next("Set the clock of this machine (or of the pod's node) by NTP.")
            .warning(),
    )
}

fn secret(facts: &Facts) -> Option<Check> {
    let secret = facts.configuration.secret.as_ref()?;
    let id = "environment.secret";
    let seen = format!("a secret of {} characters, SHA-256 {}…", secret.length, secret.sha256);
    if secret.length == SECRET_LENGTH && secret.hexadecimal {
        return Some(Check::yes(id, HERE, "", seen));
    }
    let what = if secret.hexadecimal { "" } else { ", not all of them hexadecimal digits" };
    Some(
        Check::no(id, HERE, "", CauseId::SecretWrong, format!("{seen}{what}"))
            .means(format!("A controller's secrets have {SECRET_LENGTH} hexadecimal digits: this one may have been cut or mistyped."))
            .next("Copy the secret again from the node's page on the controller.")
            .warning(),
    )
}
