//! What answers at the URL, and whether large packets pass.

use crate::probe::catalog::CauseId;
use crate::probe::check::{Category, Check, Confidence, Outcome};
use crate::probe::facts::{Answer, Exchange, Facts, Failure, FailureKind, Site, Way};

const HERE: Category = Category::Http;
const ID: &str = "http.discovery";

/// In the path or host of a login page.
const LOGIN: [&str; 9] = ["login", "signin", "sign_in", "sign-in", "oauth", "sso", "saml", "/auth", "authorize"];

/// In the address or page of a captive portal.
const PORTAL: [&str; 7] =
    ["captive", "portal", "hotspot", "guest network", "terms of use", "terms and conditions", "accept the terms"];

/// Statuses by which a proxy says that it can't, or does not want to.
const PROXY_SAYS_NO: [u16; 6] = [400, 403, 404, 502, 503, 504];

const BLACK_HOLE: &str =
    "Lower the MTU of this host or pod network to the smallest on the way, or let ICMP \"fragmentation needed\" pass.";

pub(super) fn checks(facts: &Facts, site: &Site) -> Vec<Check> {
    let (Some(listener), Some(login)) = (&site.listener, &site.login) else {
        let why =
            if site.connects.iter().any(|c| c.failure.is_none()) { "TLS failed" } else { "there is no connection" };
        return vec![
            Check::skipped("mtu.large", Category::Mtu, &*site.url, why),
            Check::skipped(ID, HERE, &*site.url, why),
        ];
    };
    let mtu = large(site, listener, login);
    let black_hole = mtu.accuses().is_some();
    let discovery = match black_hole && asked(facts, listener, login).answer.is_none() {
        true => Check::skipped(ID, HERE, &*site.url, "large packets are lost"),
        false => discovery(facts, site, listener, login),
    };
    let mut checks = vec![mtu, discovery];
    checks.extend(login_page(facts, login).filter(|_| listener.answer.is_some() && !black_hole));
    checks
}

/// A start over TCP has no need of the login page; that it is silent beside another page that isn't is worth a word.
fn login_page(facts: &Facts, login: &Exchange) -> Option<Check> {
    let failure = login.failure.as_ref().filter(|failure| failure.kind == FailureKind::TimedOut)?;
    (facts.configuration.way != Way::Websocket).then(|| {
        Check::no("http.login", HERE, &*login.url, CauseId::HttpTimeout, &*failure.message)
            .means("Another page is answered, and this one is not: the controller is busy, or large answers are lost on the way.")
            .next("Look at the controller's load, and probe again.")
            .warning()
            .took(login.ms)
    })
}

/// What a start needs an answer to.
fn asked<'a>(facts: &Facts, listener: &'a Exchange, login: &'a Exchange) -> &'a Exchange {
    if facts.configuration.way == Way::Websocket { login } else { listener }
}

fn large(site: &Site, listener: &Exchange, login: &Exchange) -> Check {
    let (id, here) = ("mtu.large", Category::Mtu);
    let target = site.connects.iter().find(|c| c.failure.is_none()).map(|c| c.address.to_string()).unwrap_or_default();
    let stalled = |exchange: &Exchange| exchange.answer.as_ref().is_some_and(|answer| answer.stalled);
    let silent =
        |exchange: &Exchange| exchange.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::TimedOut);
    let small = listener.answer.as_ref().or(login.answer.as_ref()).is_some();
    let Some(large) = &site.large else { return Check::skipped(id, here, target, "nothing large was sent") };
    let mtu = large.path_mtu.map(|mtu| format!("; the kernel takes the path's MTU for {mtu}")).unwrap_or_default();
    if small && silent(&large.exchange) && large.unsent.is_some_and(|unsent| unsent > 0) {
        let again = large.retransmits.map(|times| format!(", sent again {times} times")).unwrap_or_default();
        let unsent = large.unsent.unwrap_or_default();
        let seen = format!("of a request of {} bytes {unsent} are not acknowledged{again}{mtu}", large.bytes);
        return Check::no(id, here, target, CauseId::MtuBlackHole, seen)
            .means("Small requests are answered, a large one is lost on the way there: something on the path passes only smaller packets and does not say so.")
            .next(BLACK_HOLE)
            .sure(Confidence::Certain)
            .took(large.exchange.ms);
    }
    if small && (silent(&large.exchange) || stalled(&large.exchange)) && (silent(login) || stalled(login)) {
        return Check::no(id, here, target, CauseId::MtuBlackHole, format!("small answers arrive, large ones do not{mtu}"))
            .means("Small answers arrive, a large one is lost on the way here: something on the path passes only smaller packets and does not say so.")
            .next(BLACK_HOLE)
            .took(large.exchange.ms);
    }
    match (&large.exchange.answer, &large.exchange.failure) {
        (Some(_), _) => Check::yes(id, here, target, format!("a request of {} bytes is answered", large.bytes)),
        (None, _) if !small => Check::skipped(id, here, target, "nothing is answered"),
        (None, Some(failure)) => Check::unknown(id, here, target, &*failure.message),
        (None, None) => Check::unknown(id, here, target, ""),
    }
    .took(large.exchange.ms)
}

fn discovery(facts: &Facts, site: &Site, listener: &Exchange, login: &Exchange) -> Check {
    let exchange = asked(facts, listener, login);
    let check = match (&exchange.answer, &exchange.failure) {
        (Some(answer), _) => answered(facts, site, exchange, answer, login),
        (None, Some(failure)) => silent(site, exchange, failure),
        (None, None) => Check::unknown(ID, HERE, &*exchange.url, ""),
    };
    check.took(exchange.ms)
}

/// There is no HTTP answer.
fn silent(site: &Site, exchange: &Exchange, failure: &Failure) -> Check {
    let no = |cause| Check::no(ID, HERE, &*exchange.url, cause, &*failure.message);
    let place = format!("Port {} of {}", site.port, site.host);
    if let Some(proxy) = &site.proxy {
        if failure.message.contains("HTTP 407") {
            return credentials(&proxy.address, &exchange.url, &failure.message);
        }
        return match failure.kind {
            FailureKind::OutOfTime => Check::unknown(ID, HERE, &*exchange.url, &*failure.message),
            _ => swallowed(site, exchange, &failure.message),
        };
    }
    let tls = site.other_scheme.as_ref().is_some_and(|other| !site.tls && other.failure.is_none());
    if tls {
        return no(CauseId::PlainOnTlsPort)
            .means(format!("{place} speaks TLS, and the URL says http."))
            .next("Write https:// in the URL.")
            .sure(Confidence::Certain);
    }
    match failure.kind {
        FailureKind::Protocol => no(CauseId::WrongPort)
            .means(format!("{place} is not a web server's: {}.", what_came(&failure.message)))
            .next(format!("Correct the port in the URL{}.", elsewhere_open(site)))
            .sure(Confidence::Certain),
        FailureKind::Closed | FailureKind::Reset => no(CauseId::WrongPort)
            .means(format!("{place} takes connections and closes them when asked by HTTP."))
            .next(format!("Correct the port in the URL{}, or look at what listens there: a load balancer without a backend does this too.", elsewhere_open(site))),
        FailureKind::TimedOut => no(CauseId::HttpTimeout)
            .means(format!("{place} takes connections, and no answer comes."))
            .next("Look at the controller and at what stands before it: one that hangs, a load balancer without a backend, or another service's port."),
        _ => Check::unknown(ID, HERE, &*exchange.url, &*failure.message),
    }
}

fn what_came(message: &str) -> &str {
    message.strip_prefix("this is no Jenkins controller: ").unwrap_or(message)
}

fn elsewhere_open(site: &Site) -> String {
    let open: Vec<String> =
        site.usual_ports.iter().filter(|c| c.failure.is_none()).map(|c| c.address.port().to_string()).collect();
    if open.is_empty() { String::new() } else { format!(" (something listens at {})", open.join(" and ")) }
}

fn credentials(proxy: &str, url: &str, seen: &str) -> Check {
    Check::no(ID, HERE, url, CauseId::ProxyCredentials, seen)
        .means(format!("The proxy {proxy} wants a user and a password, or others than these."))
        .next("Give them with -proxyCredentials @FILE or in the proxy's URL; or exempt the controller by NO_PROXY.")
        .sure(Confidence::Certain)
}

/// The proxy is in the way.
fn swallowed(site: &Site, exchange: &Exchange, seen: &str) -> Check {
    let Some(proxy) = &site.proxy else { return Check::unknown(ID, HERE, &*exchange.url, seen) };
    let direct = site.direct.iter().any(|connect| connect.failure.is_none());
    let means = match direct {
        true => format!(
            "The proxy {}, which {} names, takes requests for {} and can't serve them, while the host can be reached directly.",
            proxy.address, proxy.variable, site.host
        ),
        false => format!(
            "The proxy {}, which {} names, takes requests for {} and can't serve them.",
            proxy.address, proxy.variable, site.host
        ),
    };
    Check::no(ID, HERE, &*exchange.url, CauseId::ProxySwallows, seen)
        .means(means)
        .next(format!("Add {} (or its domain) to NO_PROXY, or have the proxy let it pass.", site.host))
        .sure(if direct { Confidence::Certain } else { Confidence::Likely })
}

/// There is an HTTP answer.
fn answered(facts: &Facts, site: &Site, exchange: &Exchange, answer: &Answer, login: &Exchange) -> Check {
    let url = exchange.redirected_to.as_ref().unwrap_or(&exchange.url);
    let status = answer.status;
    let seen = seen(answer);
    let no = |cause: CauseId| Check::no(ID, HERE, url.as_str(), cause, seen.clone());
    let jenkins = answer.is_jenkins();
    let login_answer = login.answer.as_ref();
    let login_jenkins = login_answer.is_some_and(|login| login.is_jenkins() && login.status != 404);

    if let Some(proxy) = &site.proxy
        && !jenkins
        && !login_jenkins
    {
        if status == 407 {
            return credentials(&proxy.address, url, &seen);
        }
        let direct = site.direct.iter().any(|connect| connect.failure.is_none());
        if PROXY_SAYS_NO.contains(&status) || direct {
            return swallowed(site, exchange, &seen);
        }
    }
    if status == 400 && !jenkins && (answer.text.contains("HTTPS") || answer.text.contains("SSL-enabled")) {
        return no(CauseId::PlainOnTlsPort)
            .means(format!("Port {} of {} speaks TLS, and the URL says http.", site.port, site.host))
            .next("Write https:// in the URL.")
            .sure(Confidence::Certain);
    }
    match status {
        200 if jenkins || (facts.configuration.way == Way::Websocket && login_jenkins) => usable(site, exchange, answer),
        200..=299 => stranger(site, answer, no),
        300..=399 => redirect(site, answer, login_answer, no),
        511 => portal(site, no),
        401 | 403 => no(CauseId::HttpForbidden)
            .means(format!("{} refuses: agents may not see {url}.", whose(site, answer)))
            .next("Let agents through at what stands before the controller (tcpSlaveAgentListener/, wsagents/ and login need no login there), or give it -credentials @FILE.")
            .sure(Confidence::Certain),
        404 => not_found(facts, site, answer, login_jenkins, no),
        503 => {
            let ready = answer.text.contains("getting ready") || answer.text.contains("is starting") || jenkins;
            no(CauseId::ControllerStarting)
                .means(match ready {
                    true => "The controller is still starting.",
                    false => "Something before the controller says that it is not there: it may be starting or down.",
                })
                .next("Wait for the controller to come up; if it does not, look into its log.")
                .sure(if ready { Confidence::Certain } else { Confidence::Likely })
        }
        _ => no(CauseId::HttpError)
            .means(format!("{} answers HTTP {status}.", whose(site, answer)))
            .next("Look into the log of the controller and of what stands before it."),
    }
}

fn seen(answer: &Answer) -> String {
    let mut seen = format!("HTTP {}", answer.status);
    if let Some(location) = answer.header("location") {
        seen.push_str(&format!(" to {location}"));
    } else if answer.status != 200 && !answer.text.is_empty() {
        let short: String = answer.text.chars().take(120).collect();
        seen.push_str(&format!(": {short}"));
    }
    if let Some(server) = answer.header("server") {
        seen.push_str(&format!(" (Server: {server})"));
    }
    if let Some(via) = answer.header("via") {
        seen.push_str(&format!(" (Via: {via})"));
    }
    seen
}

fn whose(site: &Site, answer: &Answer) -> String {
    match (answer.is_jenkins(), answer.header("server")) {
        (true, _) => "Jenkins".to_owned(),
        (false, Some(server)) => format!("{} ({server})", site.host),
        (false, None) => site.host.clone(),
    }
}

/// Jenkins answers; whether agents can use what it says.
fn usable(site: &Site, exchange: &Exchange, answer: &Answer) -> Check {
    if let Some(unusable) = &site.unusable {
        let (cause, next) = match unusable.cause.as_str() {
            "identity-mismatch" => (
                CauseId::WrongIdentity,
                "Check that the URL leads to the right controller; if its identity has been renewed, give the new -instanceIdentity.",
            ),
            "remoting-too-old" => (CauseId::RemotingTooOld, "Use a newer version of this agent."),
            "protocol-not-offered" => (
                CauseId::Jnlp4Disabled,
                "Enable the Inbound TCP Agent Protocol/4 under Manage Jenkins, Security, or connect with -webSocket.",
            ),
            "not-jenkins" => {
                (CauseId::NotJenkins, "Correct the URL: it must be the one under which users reach Jenkins.")
            }
            _ => (CauseId::HttpError, "Look for what changes the controller's headers on the way."),
        };
        let mut message = unusable.message.clone();
        if let Some(first) = message.get(..1) {
            message = format!("{}{}.", first.to_uppercase(), &message[1..]);
        }
        return Check::no(ID, HERE, &*exchange.url, cause, &*unusable.message)
            .means(message)
            .next(next)
            .sure(Confidence::Certain);
    }
    let version = answer.header("x-jenkins").or_else(|| {
        let login = site.login.as_ref()?.answer.as_ref()?;
        login.header("x-jenkins")
    });
    let version = version.map(|version| format!("Jenkins {version}")).unwrap_or_else(|| "Jenkins".to_owned());
    let moved = exchange.redirected_to.as_ref().map(|to| format!(", redirected to {to}")).unwrap_or_default();
    Check::yes(ID, HERE, &*exchange.url, format!("{version}{moved}"))
}

/// The path at which Jenkins was found instead, with a slash at its end.
fn found_elsewhere(site: &Site) -> Option<&str> {
    let found = site.elsewhere.iter().find(|exchange| {
        exchange
            .answer
            .as_ref()
            .is_some_and(|answer| answer.is_jenkins() && matches!(answer.status, 200 | 401 | 403 | 503))
    })?;
    found.url.strip_suffix("login").or(Some(&found.url))
}

fn elsewhere(found: &str, no: impl Fn(CauseId) -> Check) -> Check {
    no(CauseId::WrongContextPath)
        .means(format!("Jenkins is at {found}, and not at the URL's path."))
        .next(format!("Use {found} as the URL."))
        .sure(Confidence::Certain)
}

/// HTTP 200, and not from Jenkins.
fn stranger(site: &Site, answer: &Answer, no: impl Fn(CauseId) -> Check) -> Check {
    let text = format!("{} {}", answer.title, answer.text).to_ascii_lowercase();
    if agent_port(site, answer) {
        return is_agent_port(site, no);
    }
    if let Some(found) = found_elsewhere(site) {
        return elsewhere(found, no);
    }
    if PORTAL.iter().any(|word| text.contains(word)) {
        return portal(site, no);
    }
    let title = if answer.title.is_empty() { &answer.text } else { &answer.title };
    let title: String = title.chars().take(60).collect();
    let what = if title.is_empty() { String::new() } else { format!(": its page says \"{title}\"") };
    no(CauseId::NotJenkins)
        .means(format!("What answers at {} is not Jenkins{what}.", site.url))
        .next("Correct the URL: it must be the one under which users reach Jenkins.")
}

fn portal(site: &Site, no: impl Fn(CauseId) -> Check) -> Check {
    no(CauseId::CaptivePortal)
        .means(format!("A portal of the network answers in place of {}.", site.host))
        .next("Register this machine with the network, or use one without a portal.")
}

fn redirect(site: &Site, answer: &Answer, login: Option<&Answer>, no: impl Fn(CauseId) -> Check) -> Check {
    let location = answer.header("location").unwrap_or_default();
    let lower = location.to_ascii_lowercase();
    let login_jenkins = login.is_some_and(|login| login.is_jenkins() && login.status == 200);
    if let Some(found) = found_elsewhere(site).filter(|_| !login_jenkins) {
        return elsewhere(found, no);
    }
    let target = lower.split("://").nth(1).map(|rest| rest.split(['/', '?', ':']).next().unwrap_or_default());
    let elsewhere = target.is_some_and(|host| !host.eq_ignore_ascii_case(&site.host));
    if PORTAL.iter().any(|word| lower.contains(word)) {
        return portal(site, no);
    }
    if LOGIN.iter().any(|word| lower.contains(word)) {
        return no(CauseId::LoginRedirect)
            .means(format!("Something before the controller sends agents to a login page: {location}."))
            .next("Exempt tcpSlaveAgentListener/, wsagents/ and login from its login, or give it -credentials @FILE.");
    }
    let scheme = !site.tls && lower.starts_with("https://");
    no(CauseId::HttpRedirect)
        .means(match (scheme, elsewhere) {
            (true, false) => format!("The controller wants https: it redirects to {location}."),
            _ => format!("The URL leads elsewhere: it redirects to {location}."),
        })
        .next("Use the URL that it redirects to, without what agents append to it.")
        .sure(Confidence::Certain)
}

/// The agent port answers to HTTP, as far as that goes.
fn agent_port(site: &Site, answer: &Answer) -> bool {
    let greets = |answer: &Answer| answer.text.contains("Jenkins-Agent-Protocols");
    greets(answer) || site.elsewhere.iter().filter_map(|exchange| exchange.answer.as_ref()).any(greets)
}

fn is_agent_port(site: &Site, no: impl Fn(CauseId) -> Check) -> Check {
    no(CauseId::WrongPort)
        .means(format!(
            "Port {} of {} is the controller's TCP port for agents, not its web server's.",
            site.port, site.host
        ))
        .next("Give the port of the web interface in the URL (8080 by default); agents learn the other from there.")
        .sure(Confidence::Certain)
}

fn not_found(facts: &Facts, site: &Site, answer: &Answer, login_jenkins: bool, no: impl Fn(CauseId) -> Check) -> Check {
    if facts.configuration.way == Way::Tcp && login_jenkins {
        return Check { category: Category::AgentPort, ..no(CauseId::AgentPortDisabled) }
            .means("The controller's TCP port for inbound agents is disabled.")
            .next("Connect with -webSocket, or enable the TCP port for inbound agents under Manage Jenkins, Security.")
            .sure(Confidence::Certain);
    }
    if agent_port(site, answer) {
        return is_agent_port(site, no);
    }
    if let Some(found) = found_elsewhere(site) {
        return elsewhere(found, no);
    }
    if answer.is_jenkins() {
        return no(CauseId::WrongContextPath)
            .means(format!("Jenkins knows nothing at the path {}.", site.path))
            .next("Use the URL under which users reach Jenkins, its path included.");
    }
    no(CauseId::NotJenkins)
        .means(format!("{} answers, and there is no Jenkins at {}.", whose(site, answer), site.path))
        .next("Correct the URL, its path included: it must be the one under which users reach Jenkins.")
}

/// Whether the controller has told agents what they need.
pub(super) fn told(checks: &[Check]) -> bool {
    checks.iter().any(|check| check.id == ID && check.outcome == Outcome::Yes)
}
