//! Logging in, idle connections, and what a start has met.

use crate::probe::catalog::CauseId;
use crate::probe::check::{Category, Check, Confidence};
use crate::probe::facts::{Attempt, Facts, FailureKind, Hold, Way};

const HERE: Category = Category::Authentication;

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    let name = facts.configuration.name.as_deref().unwrap_or_default();
    if let Some(seen) = &facts.authentication {
        let id = "authentication.login";
        checks.push(match (&seen.refusal, seen.accepted) {
            (None, true) => Check::yes(id, HERE, name, "the controller lets the agent in"),
            (None, false) => Check::unknown(id, HERE, name, ""),
            (Some(refusal), _) => refused(facts, id, name, refusal),
        });
        if let Some(check) = checks.last_mut() {
            check.ms = Some(seen.ms);
        }
    }
    if let Some(attempt) = &facts.attempt {
        checks.push(refused(facts, "authentication.start", name, attempt));
    }
    checks.extend(facts.hold.as_ref().map(|hold| held(hold, facts.configuration.way)));
    checks
}

/// What the transport's refusal means where it is about this agent; else it is for the other checks to say.
fn refused(facts: &Facts, id: &'static str, name: &str, refusal: &Attempt) -> Check {
    let seen = format!("{} {}: {}", refusal.doing, refusal.address, refusal.message);
    let no = |cause| Check::no(id, HERE, name, cause, seen.clone());
    let says = |words: &[&str]| words.iter().any(|words| refusal.message.contains(words));
    match refusal.cause.as_str() {
        "rejected" if says(&["no such agent", "Unknown client name", "is not an inbound agent"]) => {
            no(CauseId::UnknownNode)
                .means(format!("The controller has no inbound agent named {name:?}."))
                .next("Correct -name, or create the node; in a pod: the controller has deleted it, so the pod is to be deleted too.")
                .sure(Confidence::Certain)
        }
        "rejected" => {
            let shape = facts.configuration.secret.as_ref();
            let shape = shape.map(|secret| format!(" ({} characters, SHA-256 {}…)", secret.length, secret.sha256));
            no(CauseId::SecretWrong)
                .means(format!("The controller does not accept the secret{} of {name:?}.", shape.unwrap_or_default()))
                .next("Copy the secret from the node's page on this controller: it depends on the name and on the controller.")
                .sure(Confidence::Certain)
        }
        "already-connected" => no(CauseId::AlreadyConnected)
            .means(format!("An agent named {name:?} is connected already."))
            .next("Stop the other agent of this name, or wait until the controller has noticed that the old connection is dead.")
            .sure(Confidence::Certain),
        "identity-mismatch" => no(CauseId::WrongIdentity)
            .means("What listens at the agent port is another controller than the expected one.")
            .next("Check that host, port and tunnel lead to the right controller; if its identity has been renewed, give the new -instanceIdentity.")
            .sure(Confidence::Certain),
        "remoting-too-old" => no(CauseId::RemotingTooOld)
            .means("The controller asks for a newer remoting than this agent stands for.")
            .next("Use a newer version of this agent.")
            .sure(Confidence::Certain),
        "protocol-not-offered" => no(CauseId::Jnlp4Disabled)
            .means("The controller does not offer JNLP4-connect.")
            .next("Enable the Inbound TCP Agent Protocol/4 under Manage Jenkins, Security, or connect with -webSocket.")
            .sure(Confidence::Certain),
        "protocol" if says(&["reverse proxy", "does not pass WebSockets on", "Sec-WebSocket-Accept"]) => {
            no(CauseId::WebsocketStripped)
                .means("Something on the way does not pass WebSockets on.")
                .next("Have the reverse proxy pass WebSockets on (headers Upgrade and Connection, HTTP/1.1), or connect without -webSocket.")
        }
        "http" if says(&["wsagents/"]) => no(CauseId::WebsocketUnsupported)
            .means("The controller has no WebSocket endpoint for agents.")
            .next("Connect without -webSocket, update the controller, or let wsagents/ pass at what stands before it."),
        _ => Check::unknown(id, HERE, name, seen),
    }
}

fn held(hold: &Hold, way: Way) -> Check {
    let (id, here) = ("hold.idle", Category::Hold);
    let target = format!("{} {}", hold.what, hold.address).trim().to_owned();
    if let Some(why) = &hold.skipped {
        return Check::skipped(id, here, target, &**why);
    }
    let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
    let Some(ended) = &hold.ended else {
        return Check::yes(id, here, target, format!("idle for {} and still connected", seconds(hold.wanted_ms)))
            .took(hold.held_ms);
    };
    let after = seconds(hold.held_ms);
    let (who, sure) = match ended.kind {
        FailureKind::Closed => ("closed by the other end or a proxy on the way", Confidence::Likely),
        FailureKind::Reset => ("reset by something on the way", Confidence::Likely),
        FailureKind::TimedOut => ("forgotten by something on the way, without a word", Confidence::Certain),
        _ => ("ended", Confidence::Possible),
    };
    let seen = match ended.kind {
        FailureKind::Closed => format!("{who} after {after}"),
        _ => format!("{who} after {after}: {}", ended.message),
    };
    let next = match way {
        Way::Websocket => {
            "Raise the idle timeout of the load balancer, proxy or NAT on the way above a minute: a WebSocket pings every 30 s."
        }
        Way::Tcp | Way::Direct => {
            "Raise the idle timeout of the load balancer, proxy or NAT on the way above 5 minutes, or connect with -webSocket, which pings every 30 s."
        }
    };
    Check::no(id, here, target, CauseId::IdleCut, seen)
        .means(format!("An idle connection does not last: it was {who} after {after}."))
        .next(next)
        .sure(sure)
        .took(hold.held_ms)
}
