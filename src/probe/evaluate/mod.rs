//! What the facts mean. Pure: facts in, checks and a verdict out.

mod agent_port;
mod channel;
mod environment;
mod http;
mod names;
mod tcp;
mod tls;
mod verdict;
mod websocket;

use super::check::{Check, Outcome, Verdict};
use super::facts::{Facts, Site, Way};
use super::kubernetes;

pub use names::addresses;

/// Reads facts as checks, in causal order, and as a verdict.
pub fn evaluate(facts: &Facts) -> (Vec<Check>, Verdict) {
    let mut checks = environment::checks(facts);
    checks.extend(names::checks(facts));
    let sites: Vec<(&Site, Vec<Check>)> = facts.sites.iter().map(|site| (site, site_checks(facts, site))).collect();
    // A start goes on to the next URL; one that works is enough.
    let works =
        |checks: &[Check]| checks.iter().any(|check| check.id == "http.discovery" && check.outcome == Outcome::Yes);
    let any = sites.iter().any(|(_, checks)| works(checks));
    for (_, mut of_site) in sites {
        if any && !works(&of_site) {
            of_site.iter_mut().for_each(|check| check.warning = true);
        }
        checks.extend(of_site);
    }
    match facts.configuration.way {
        Way::Tcp | Way::Direct => checks.extend(agent_port::checks(facts)),
        Way::Websocket => checks.extend(websocket::checks(facts)),
    }
    checks.extend(channel::checks(facts));
    checks.extend(kubernetes::evaluate(facts));
    checks.sort_by_key(|check| check.category);
    let verdict = verdict::verdict(facts, &mut checks);
    let verdict = kubernetes::judge(facts, &mut checks, verdict);
    (checks, verdict)
}

fn site_checks(facts: &Facts, site: &Site) -> Vec<Check> {
    let mut checks = tcp::checks(facts, site);
    checks.extend(tls::checks(facts, site));
    checks.extend(http::checks(facts, site));
    checks
}

/// `1 interface`, `2 interfaces`.
fn count(amount: usize, what: &str) -> String {
    format!("{amount} {what}{}", if amount == 1 { "" } else { "s" })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
