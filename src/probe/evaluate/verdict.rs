//! The one cause that explains most.

use super::http;
use crate::probe::catalog::CauseId;
use crate::probe::check::{Category, Check, Confidence, Outcome, Verdict};
use crate::probe::facts::{Facts, Way};

/// Names the first accused in causal order, after what looks like a fault and is another's consequence has been put
/// right.
pub(super) fn verdict(facts: &Facts, checks: &mut [Check]) -> Verdict {
    search_list(checks);
    said_before(checks);
    let accused = checks.iter().find_map(|check| Some((check, check.accuses()?)));
    if let Some((check, cause)) = accused {
        let sentence = match check.means.is_empty() {
            true => format!("{}: {}.", check.target, cause.meaning()),
            false => check.means.clone(),
        };
        return Verdict::of(cause, check.confidence, sentence, check.next_step.clone());
    }
    let unknown = |check: &&Check| check.outcome == Outcome::Unknown && check.id != "agent-port.jnlp4";
    if !arrived(facts, checks) {
        let sentence = match (facts.cut_off_ms, checks.iter().find(unknown)) {
            (_, Some(check)) => format!("No cause was found; {} could not be told: {}.", check.target, check.seen),
            (Some(ms), None) => format!("No cause was found in {} s.", ms.div_ceil(1000)),
            (None, None) => "No cause was found.".to_owned(),
        };
        let next = "Probe again with a longer --probe-timeout.";
        return Verdict::of(CauseId::Inconclusive, Confidence::Possible, sentence, next);
    }
    Verdict::ok(match (&facts.attempt, warnings(checks)) {
        (Some(attempt), _) => {
            format!("All that the probe tries works now; a moment ago this did not: {}.", attempt.message)
        }
        (None, 0) => "The controller can be reached.".to_owned(),
        (None, 1) => "The controller can be reached; there is one warning.".to_owned(),
        (None, more) => format!("The controller can be reached; there are {more} warnings."),
    })
}

fn warnings(checks: &[Check]) -> usize {
    checks.iter().filter(|check| check.warning && check.outcome == Outcome::No).count()
}

/// Whether the probe got as far as a start has to.
fn arrived(facts: &Facts, checks: &[Check]) -> bool {
    let yes = |id: &str| checks.iter().any(|check| check.id == id && check.outcome == Outcome::Yes);
    match facts.configuration.way {
        Way::Websocket => http::told(checks),
        Way::Tcp | Way::Direct => yes("agent-port.jenkins"),
    }
}

/// A name that is taken for another's is to blame for what goes wrong there.
fn search_list(checks: &mut [Check]) {
    let blamed = [Category::Tcp, Category::Tls, Category::Mtu, Category::Http, Category::AgentPort];
    let wrong = checks.iter().any(|check| check.accuses().is_some() && blamed.contains(&check.category));
    let Some(at) = checks.iter().position(|check| check.id == "dns.search-list").filter(|_| wrong) else { return };
    for check in checks.iter_mut().filter(|check| blamed.contains(&check.category) && check.outcome != Outcome::Skipped)
    {
        (check.outcome, check.warning, check.cause) = (Outcome::Skipped, false, None);
        check.seen = format!("at the wrong host: {}", check.seen);
        check.means.clear();
        check.next_step.clear();
    }
    if let Some(check) = checks.get_mut(at) {
        check.warning = false;
    }
}

/// What a start has met is accused only where nothing else is, since it was not seen here; unless the controller itself
/// has said what it has against this agent, for then the way to it is good.
fn said_before(checks: &mut [Check]) {
    let said = |check: &Check| check.id == "authentication.start";
    let own_words = [CauseId::SecretWrong, CauseId::UnknownNode, CauseId::AlreadyConnected];
    let refused =
        checks.iter().any(|check| said(check) && check.accuses().is_some_and(|cause| own_words.contains(&cause)));
    let other = checks.iter().any(|check| !said(check) && check.accuses().is_some());
    for check in checks.iter_mut().filter(|check| said(check) != refused && other) {
        check.warning |= check.accuses().is_some();
    }
}
