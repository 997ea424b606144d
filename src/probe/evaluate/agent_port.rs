//! The controller's TCP port for agents.

use std::cmp::Ordering;

use super::tcp;
use crate::REMOTING_VERSION;
use crate::discovery::compare_versions;
use crate::probe::catalog::CauseId;
use crate::probe::check::{Category, Check, Confidence};
use crate::probe::facts::{AgentPort, Facts, FailureKind, Hello, Way};
use crate::transport::jnlp4::PROTOCOL_NAME;
use crate::transport::proxy::host_port;

const HERE: Category = Category::AgentPort;

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let direct = facts.configuration.way == Way::Direct;
    let Some(port) = &facts.agent_port else {
        return vec![Check::skipped("agent-port.connect", HERE, "", "the controller has not told where it is")];
    };
    let target = host_port(&port.host, port.port);
    let mut checks = vec![Check::yes("agent-port.advertised", HERE, &*target, format!("according to {}", port.origin))];
    let connects = reached(facts, port, &target, direct);
    let failed = connects.iter().any(|check| check.accuses().is_some());
    let connected = port.connects.iter().any(|connect| connect.failure.is_none());
    checks.extend(connects);
    if failed || !connected {
        checks.push(Check::skipped("agent-port.jenkins", HERE, &*target, "there is no connection"));
        checks.push(Check::skipped("agent-port.jnlp4", HERE, &*target, "there is no connection"));
        checks.push(Check::skipped("agent-port.identity", HERE, target, "there is no connection"));
        return checks;
    }
    checks.extend(spoken(facts, port, &target));
    checks
}

const TUNNEL: &str = "Correct -tunnel (JENKINS_TUNNEL), or leave it out if the controller's own port can be reached.";

/// `-tunnel` names the host.
fn tunnelled(facts: &Facts) -> bool {
    facts.configuration.tunnel.as_ref().is_some_and(|tunnel| !tunnel.starts_with(':'))
}

/// The host that the controller tells is not the one of the URL.
fn elsewhere(facts: &Facts, port: &AgentPort) -> bool {
    !tunnelled(facts) && !facts.sites.is_empty() && facts.sites.iter().all(|site| site.host != port.host)
}

fn reached(facts: &Facts, port: &AgentPort, target: &str, direct: bool) -> Vec<Check> {
    let id = "agent-port.connect";
    let host = port.proxy.as_ref().map_or(&port.host, |proxy| &proxy.host);
    let next = "Correct the host in the controller's property hudson.TcpSlaveAgentListener.hostName, or use -tunnel HOST:PORT.";
    if port.connects.is_empty() {
        let name = facts.names.iter().find(|name| name.name == *host);
        let unresolved = name.is_some_and(|name| name.system.is_some() && super::addresses(name).is_empty());
        if !unresolved {
            return vec![Check::unknown(id, HERE, target, "the probe's time was up")];
        }
        if direct {
            return vec![Check::skipped(id, HERE, target, "the name can't be resolved")];
        }
        let said = name.and_then(|name| name.system.as_ref()?.error.clone()).unwrap_or_default();
        if tunnelled(facts) {
            return vec![
                Check::no("agent-port.resolve", HERE, &*port.host, CauseId::AgentPortBlocked, said)
                    .means(format!("The host of -tunnel, {}, can't be resolved here.", port.host))
                    .next(TUNNEL)
                    .sure(Confidence::Certain),
            ];
        }
        return vec![
            Check::no("agent-port.resolve", HERE, &*port.host, CauseId::AgentPortWrongHost, said)
                .means(format!(
                    "The controller tells agents to connect to {}, a name that can't be resolved here.",
                    port.host
                ))
                .next(next)
                .sure(Confidence::Certain),
        ];
    }
    let mut checks = tcp::connects(id, HERE, facts, &port.connects, host);
    let at_url_host = port.url_host.iter().find(|connect| connect.failure.is_none());
    for check in checks.iter_mut().filter(|check| check.accuses().is_some()) {
        if let Some(proxy) = &port.proxy {
            check.cause = Some(CauseId::ProxyUnreachable);
            check.means = format!("The proxy {}, which {} names, can't be reached.", proxy.address, proxy.variable);
            check.next_step = format!("Correct {}, or add {} to NO_PROXY.", proxy.variable, port.host);
        } else if tunnelled(facts) {
            let how = std::mem::take(&mut check.means);
            check.cause = Some(CauseId::AgentPortBlocked);
            check.means = format!("The tunnel to the TCP port for agents is not there: {}", uncapitalized(&how));
            check.next_step = TUNNEL.to_owned();
        } else if let Some(found) = at_url_host {
            check.cause = Some(CauseId::AgentPortWrongHost);
            check.means = format!(
                "The controller tells agents to connect to {target}, which can't be reached, while its own host ({}) has the port.",
                found.address
            );
            check.next_step = next.to_owned();
            check.confidence = Confidence::Certain;
        } else if !direct {
            let how = std::mem::take(&mut check.means);
            check.cause = Some(CauseId::AgentPortBlocked);
            check.means = format!("HTTP works, but the TCP port for agents does not: {}", uncapitalized(&how));
            check.next_step = format!(
                "Open port {} from here to the controller (service, security group, network policy), or connect with -webSocket.",
                port.port
            );
        }
    }
    checks
}

fn uncapitalized(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}

/// What is said there.
fn spoken(facts: &Facts, port: &AgentPort, target: &str) -> Vec<Check> {
    let (is_jenkins, offered, identity) = ("agent-port.jenkins", "agent-port.jnlp4", "agent-port.identity");
    let skipped =
        |why: &str| vec![Check::skipped(offered, HERE, target, why), Check::skipped(identity, HERE, target, why)];
    let Some(hello) = &port.hello else {
        return vec![Check::unknown(is_jenkins, HERE, target, "not asked")];
    };
    if let Some(failure) = &hello.failure {
        let proved = port.proof.as_ref().is_some_and(|proof| proof.matches);
        if !proved {
            let mut checks = vec![mute(port, target, failure).took(hello.ms)];
            checks.extend(skipped("it does not answer"));
            return checks;
        }
    }
    if let Some(strange) = &hello.strange {
        let what = if strange.is_empty() { "nothing that can be read".to_owned() } else { format!("{strange:?}") };
        let (cause, next) = match elsewhere(facts, port) {
            true => (
                CauseId::AgentPortWrongHost,
                "Correct the host in the controller's property hudson.TcpSlaveAgentListener.hostName, or use -tunnel HOST:PORT.",
            ),
            false => (
                CauseId::AgentPortNotJenkins,
                "Correct the port: of -tunnel or -direct, of the property hudson.TcpSlaveAgentListener.port, or of the service or load balancer that maps it.",
            ),
        };
        let mut checks = vec![
            Check::no(is_jenkins, HERE, target, cause, what.clone())
                .means(format!("What listens at {target} is not Jenkins: it says {what}."))
                .next(next)
                .took(hello.ms),
        ];
        checks.extend(skipped("what answers is not Jenkins"));
        return checks;
    }
    let version = hello.version.as_deref().map(|version| format!("Jenkins {version}")).unwrap_or_default();
    let client = hello.client.as_deref().map(|client| format!(", sees us as {client}")).unwrap_or_default();
    let mut checks = vec![Check::yes(is_jenkins, HERE, target, format!("{version}{client}")).took(hello.ms)];
    checks.extend(too_old(hello, target));
    let not_offered = port.proof.as_ref().is_some_and(|proof| proof.not_offered);
    let listed = hello.protocols.is_empty() || hello.protocols.iter().any(|name| name == PROTOCOL_NAME);
    if not_offered || !listed {
        checks.push(
            Check::no(
                offered,
                HERE,
                target,
                CauseId::Jnlp4Disabled,
                format!("offered: {}", hello.protocols.join(", ")),
            )
            .means(format!("The controller does not offer {PROTOCOL_NAME}."))
            .next("Enable the Inbound TCP Agent Protocol/4 under Manage Jenkins, Security, or connect with -webSocket.")
            .sure(Confidence::Certain),
        );
        checks.push(Check::skipped(identity, HERE, target, "the protocol is not offered"));
        return checks;
    }
    checks.push(match hello.protocols.is_empty() {
        true => Check::unknown(offered, HERE, target, "it does not list its protocols"),
        false => Check::yes(offered, HERE, target, format!("offered: {}", hello.protocols.join(", "))),
    });
    checks.push(whose(port, target, identity));
    checks
}

fn mute(port: &AgentPort, target: &str, failure: &crate::probe::facts::Failure) -> Check {
    let id = "agent-port.jenkins";
    let no = |cause| Check::no(id, HERE, target, cause, &*failure.message);
    match (failure.kind, &port.proxy) {
        (FailureKind::OutOfTime, _) => Check::unknown(id, HERE, target, &*failure.message),
        (_, Some(proxy)) if failure.message.contains("HTTP 407") => no(CauseId::ProxyCredentials)
            .means(format!("The proxy {} wants a user and a password, or others than these.", proxy.address))
            .next("Give them with -proxyCredentials @FILE or in the proxy's URL; or exempt the controller by NO_PROXY.")
            .sure(Confidence::Certain),
        (_, Some(proxy)) => no(CauseId::ProxySwallows)
            .means(format!(
                "The proxy {}, which {} names, takes connections to {target} and can't make them.",
                proxy.address, proxy.variable
            ))
            .next(format!("Add {} to NO_PROXY, have the proxy allow CONNECT to port {}, or connect with -webSocket.", port.host, port.port)),
        (FailureKind::TimedOut, None) => no(CauseId::AgentPortBlocked)
            .means(format!("{target} takes connections, and then nothing comes back: a firewall or load balancer in between holds them."))
            .next("Look at what stands before the port: a load balancer without a backend, a filter that wants HTTP."),
        (_, None) => no(CauseId::AgentPortNotJenkins)
            .means(format!("{target} takes connections and closes them: it is not Jenkins' port, or a load balancer there has no backend."))
            .next("Correct the port, or look at the load balancer or service that maps it."),
    }
}

fn too_old(hello: &Hello, target: &str) -> Option<Check> {
    let minimum = hello.minimum_version.as_ref()?;
    (compare_versions(REMOTING_VERSION, minimum) == Ordering::Less).then(|| {
        Check::no("agent-port.version", HERE, target, CauseId::RemotingTooOld, format!("wants remoting {minimum}"))
            .means(format!(
                "The controller asks for remoting {minimum} or newer, and this agent stands for {REMOTING_VERSION}."
            ))
            .next("Use a newer version of this agent.")
            .sure(Confidence::Certain)
    })
}

fn whose(port: &AgentPort, target: &str, id: &'static str) -> Check {
    let expected = port.identity.as_deref().unwrap_or_default();
    let Some(proof) = &port.proof else {
        return Check::yes(id, HERE, target, "the same process as answers by HTTP (Jenkins-Session)");
    };
    if proof.matches {
        return Check::yes(id, HERE, target, format!("proved: {expected}")).took(proof.ms);
    }
    if let Some(found) = &proof.found {
        return Check::no(id, HERE, target, CauseId::WrongIdentity, format!("{found} in place of {expected}"))
            .means(format!("What listens at {target} is another controller than the expected one."))
            .next("Check that host, port and tunnel lead to the right controller; if its identity has been renewed, give the new -instanceIdentity.")
            .sure(Confidence::Certain)
            .took(proof.ms);
    }
    let message = proof.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
    Check::unknown(id, HERE, target, message).took(proof.ms)
}
