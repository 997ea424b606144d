//! TLS to an https URL.

use crate::probe::catalog::CauseId;
use crate::probe::check::{Category, Check, Confidence};
use crate::probe::facts::{Facts, FailureKind, Handshake, Site, TlsFailureKind};
use crate::probe::time;

const HERE: Category = Category::Tls;

/// A certificate that ends sooner is worth a word.
const SOON: i64 = 14 * 86_400;

/// A clock that is off by less does not explain a certificate that is out of date.
const SKEW: i64 = 3600;

pub(super) fn checks(facts: &Facts, site: &Site) -> Vec<Check> {
    if !site.tls {
        return Vec::new();
    }
    let (id, target) = ("tls.handshake", crate::transport::proxy::host_port(&site.host, site.port));
    let Some(handshake) = &site.handshake else {
        return vec![Check::skipped(id, HERE, target, "there is no connection")];
    };
    let presented = handshake.chain.first().map(|leaf| format!("{}, issued by {}", leaf.subject, leaf.issuer));
    if handshake.failure.is_some() {
        return vec![failed(facts, site, handshake, target).took(handshake.ms)];
    }
    let version = handshake.version.as_deref().unwrap_or("TLS");
    let seen = format!("{version}, {}", presented.unwrap_or_default());
    let mut checks = vec![Check::yes(id, HERE, &*target, seen).took(handshake.ms)];
    let now = facts.environment.clock_ms / 1000;
    if let Some(leaf) = handshake.chain.first()
        && leaf.not_after - now < SOON
    {
        checks.push(
            Check::no(
                "tls.dates",
                HERE,
                target,
                CauseId::TlsExpired,
                format!("valid until {}", time::show(leaf.not_after)),
            )
            .means("The server's certificate ends soon.")
            .next("Renew it.")
            .warning(),
        );
    }
    checks
}

fn failed(facts: &Facts, site: &Site, handshake: &Handshake, target: String) -> Check {
    let Some(failure) = &handshake.failure else { return Check::unknown("tls.handshake", HERE, target, "") };
    let no = |cause, seen: String| Check::no("tls.handshake", HERE, target.clone(), cause, seen);
    let leaf = handshake.chain.first();
    let whose = leaf.map_or_else(String::new, |leaf| leaf.subject.clone());
    let plain = site.other_scheme.as_ref();
    let speaks_http = plain.is_some_and(|plain| plain.answer.is_some());
    match failure.kind {
        TlsFailureKind::Proxy => by_proxy(site, &failure.message, no),
        TlsFailureKind::UnknownIssuer => {
            let issuer = handshake.chain.last().map_or_else(String::new, |last| last.issuer.clone());
            no(CauseId::TlsUnknownCa, format!("{whose}: signed by {issuer}, which is not in {}", handshake.roots))
                .means(format!(
                    "The certificate of {} is signed by an authority that is not trusted here: {issuer}.",
                    site.host
                ))
                .next(format!(
                    "Give the certificate of {issuer} with -cert @FILE, or add it to this machine's trust store."
                ))
                .sure(Confidence::Certain)
        }
        TlsFailureKind::Expired | TlsFailureKind::NotYetValid => out_of_date(facts, site, handshake, no),
        TlsFailureKind::WrongName => {
            let names = leaf.map(|leaf| leaf.names.join(", ")).unwrap_or_default();
            no(CauseId::TlsWrongName, format!("made out to {names}"))
                .means(format!("The certificate is for {names} and not for {}.", site.host))
                .next("Use a host name in the URL that the certificate is made out to, or get a certificate for this one.")
                .sure(Confidence::Certain)
        }
        TlsFailureKind::NotTls | TlsFailureKind::Closed | TlsFailureKind::Other if speaks_http => {
            no(CauseId::TlsOnPlainPort, format!("{}; plain HTTP is answered", failure.message))
                .means(format!("Port {} of {} speaks plain HTTP, not TLS.", site.port, site.host))
                .next("Write http:// in the URL, or use the port that speaks TLS.")
                .sure(Confidence::Certain)
        }
        TlsFailureKind::NotTls => {
            let what = plain.and_then(|plain| plain.failure.as_ref()).map(|failure| failure.message.clone());
            no(CauseId::WrongPort, what.unwrap_or_else(|| failure.message.clone()))
                .means(format!("What listens at port {} of {} speaks neither TLS nor HTTP.", site.port, site.host))
                .next("Correct the port in the URL.")
        }
        TlsFailureKind::TimedOut => {
            let silent =
                plain.and_then(|plain| plain.failure.as_ref()).is_some_and(|f| f.kind == FailureKind::TimedOut);
            if plain.is_some() && !silent {
                return no(CauseId::MtuBlackHole, format!("{}; something short was answered", failure.message))
                    .means("TCP and short answers pass, a TLS handshake does not: packets as large as a certificate chain are lost on the way.")
                    .next("Lower the MTU of this host or pod network to the smallest on the way, or let ICMP \"fragmentation needed\" pass.");
            }
            no(CauseId::TlsHandshake, failure.message.clone())
                .means(format!("{target} takes connections and then says nothing."))
                .next("Look at what listens there: a load balancer without a backend, a server that hangs.")
        }
        _ => no(CauseId::TlsHandshake, failure.message.clone())
            .means(format!("TLS with {target} can't be agreed on: {}.", failure.message))
            .next("Enable TLS 1.2 or 1.3 with a current cipher suite on the server, and look for a proxy in between."),
    }
}

/// The proxy does not make the connection.
fn by_proxy(site: &Site, message: &str, no: impl Fn(CauseId, String) -> Check) -> Check {
    let Some(proxy) = &site.proxy else { return no(CauseId::ProxySwallows, message.to_owned()) };
    if message.contains("HTTP 407") {
        return no(CauseId::ProxyCredentials, message.to_owned())
            .means(format!("The proxy {} wants a user and a password, or others than these.", proxy.address))
            .next("Give them with -proxyCredentials @FILE or in the proxy's URL; or exempt the controller by NO_PROXY.")
            .sure(Confidence::Certain);
    }
    let direct = site.direct.iter().any(|connect| connect.failure.is_none());
    let but = if direct { ", while the host can be reached directly" } else { "" };
    no(CauseId::ProxySwallows, message.to_owned())
        .means(format!(
            "The proxy {}, which {} names, takes connections to {} and does not make them{but}.",
            proxy.address, proxy.variable, site.host
        ))
        .next(format!("Add {} (or its domain) to NO_PROXY, or have the proxy let it pass.", site.host))
        .sure(if direct { Confidence::Certain } else { Confidence::Likely })
}

fn out_of_date(facts: &Facts, site: &Site, handshake: &Handshake, no: impl Fn(CauseId, String) -> Check) -> Check {
    let now = facts.environment.clock_ms / 1000;
    let (from, to) = handshake.chain.first().map_or((0, 0), |leaf| (leaf.not_before, leaf.not_after));
    let seen = format!("valid from {} to {}, and here it is {}", time::show(from), time::show(to), time::show(now));
    if let Some(there) = handshake.server_date
        && (now - there).abs() > SKEW
        && (from..=to).contains(&there)
    {
        return no(CauseId::ClockSkew, format!("{seen}; the server's clock says {}", time::show(there)))
            .means(format!(
                "The clock here is wrong by {}, so that the certificate of {} seems out of date.",
                time::span(now - there),
                site.host
            ))
            .next("Set the clock of this machine (or of the pod's node) by NTP.")
            .sure(Confidence::Certain);
    }
    let what = if now > to { "has expired" } else { "is not valid yet" };
    no(CauseId::TlsExpired, seen)
        .means(format!(
            "The certificate of {} {what}: it is valid from {} to {}.",
            site.host,
            time::show(from),
            time::show(to)
        ))
        .next("Renew the certificate on the controller or on what stands before it.")
        .sure(Confidence::Certain)
}
