use super::*;
use crate::probe::catalog::CauseId;
use crate::probe::check::{Category, Confidence};
use crate::probe::facts::*;
use std::collections::BTreeSet;
use std::net::IpAddr;

const NOW: i64 = 1_795_721_400;
const DATE: &str = "Thu, 26 Nov 2026 19:30:00 GMT";
const SESSION: &str = "1a2b3c4d";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn connect(address: &str) -> Connect {
    Connect {
        address: address.parse().unwrap(),
        source: Some(ip("10.1.0.2")),
        failure: None,
        ms: 2,
        path_mtu: Some(1500),
        next_hop: None,
    }
}

fn dead(address: &str, kind: FailureKind) -> Connect {
    Connect { failure: fail(kind, "failed"), ms: 5000, ..connect(address) }
}

fn fail(kind: FailureKind, message: &str) -> Option<Failure> {
    Some(Failure { kind, message: message.to_owned() })
}

fn answer(status: u16, headers: &[(&str, &str)], text: &str) -> Exchange {
    let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Exchange {
        url: "http://ci:8080/x".to_owned(),
        answer: Some(Answer { status, headers, text: text.to_owned(), ..Answer::default() }),
        ..Exchange::default()
    }
}

fn failed(kind: FailureKind, message: &str) -> Exchange {
    Exchange { url: "http://ci:8080/x".to_owned(), failure: fail(kind, message), ..Exchange::default() }
}

const JENKINS: [(&str, &str); 4] =
    [("x-jenkins", "2.293"), ("x-jenkins-session", SESSION), ("x-jenkins-jnlp-port", "50000"), ("date", DATE)];

fn query(server: &str, name: &str, reply: Reply) -> Query {
    Query { server: ip(server), name: name.to_owned(), kind: RecordKind::A, reply, ms: 1 }
}

fn addresses_of(list: &[&str]) -> Reply {
    Reply::Addresses(list.iter().map(|address| ip(address)).collect())
}

/// A controller at http://ci:8080/ as one wants it.
fn good() -> Facts {
    let site = Site {
        url: "http://ci:8080/".to_owned(),
        host: "ci".to_owned(),
        port: 8080,
        path: "/".to_owned(),
        decision: "direct".to_owned(),
        connects: vec![connect("10.2.0.2:8080")],
        listener: Some(answer(200, &JENKINS, "Jenkins")),
        login: Some(answer(200, &JENKINS, "Log in")),
        large: Some(Large { bytes: 6344, exchange: answer(200, &JENKINS, ""), ..Large::default() }),
        ..Site::default()
    };
    let hello = Hello {
        version: Some("2.293".to_owned()),
        session: Some(SESSION.to_owned()),
        protocols: vec!["JNLP4-connect".to_owned(), "Ping".to_owned()],
        ..Hello::default()
    };
    Facts {
        configuration: Configuration {
            urls: vec![site.url.clone()],
            name: Some("a1".to_owned()),
            secret: Some(SecretShape { length: 64, hexadecimal: true, sha256: "00112233".to_owned() }),
            ..Configuration::default()
        },
        environment: Environment { clock_ms: NOW * 1000, ..Environment::default() },
        names: vec![Name {
            name: "ci".to_owned(),
            system: Some(Lookup { addresses: vec![ip("10.2.0.2")], ..Lookup::default() }),
            queries: vec![query("10.2.0.53", "ci", addresses_of(&["10.2.0.2"]))],
            ..Name::default()
        }],
        sites: vec![site],
        agent_port: Some(AgentPort {
            host: "ci".to_owned(),
            port: 50000,
            origin: "the header X-Jenkins-JNLP-Port".to_owned(),
            identity: Some("aa:bb".to_owned()),
            connects: vec![connect("10.2.0.2:50000")],
            hello: Some(hello),
            ..AgentPort::default()
        }),
        ..Facts::default()
    }
}

fn web_socket() -> Facts {
    let mut facts = good();
    facts.configuration.way = Way::Websocket;
    facts.agent_port = None;
    let sent = ["upgrade", "connection", "sec-websocket-key", "node-name"].map(str::to_owned);
    facts.websocket = Some(Websocket {
        endpoint: Some(answer(302, &[("location", "http://ci:8080/wsagents/")], "")),
        echo: Some(answer(200, &JENKINS, "")),
        arrived: Some(sent.iter().map(|name| (name.clone(), "upgrade".to_owned())).collect()),
        sent: sent.to_vec(),
    });
    facts
}

/// A site that is connected to, and nothing more.
fn silent(facts: &mut Facts) -> &mut Site {
    facts.agent_port = None;
    let site = &mut facts.sites[0];
    (site.listener, site.login, site.large) = (None, None, None);
    site
}

fn both(facts: &mut Facts, exchange: Exchange) -> &mut Site {
    facts.agent_port = None;
    let site = &mut facts.sites[0];
    let large = Large { bytes: 6344, exchange: exchange.clone(), ..Large::default() };
    (site.listener, site.login, site.large) = (Some(exchange.clone()), Some(exchange), Some(large));
    site
}

fn proxied(facts: &mut Facts) -> &mut Site {
    let site = &mut facts.sites[0];
    let (address, host, variable) = ("proxy:3128".to_owned(), "proxy".to_owned(), "http_proxy".to_owned());
    site.proxy = Some(ProxyUse { address, host, variable });
    site.connects = vec![connect("10.2.0.9:3128")];
    site
}

fn shaken(facts: &mut Facts, kind: TlsFailureKind) -> &mut Site {
    let site = silent(facts);
    site.tls = true;
    let certificate = Certificate {
        subject: "CN=ci".to_owned(),
        issuer: "CN=Example CA".to_owned(),
        names: vec!["other".to_owned()],
        not_before: NOW - 100 * 86_400,
        not_after: NOW - 86_400,
    };
    site.handshake = Some(Handshake {
        server_name: "ci".to_owned(),
        failure: Some(TlsFailure { kind, message: "invalid".to_owned() }),
        chain: vec![certificate],
        ..Handshake::default()
    });
    site
}

fn attempt(cause: &str, message: &str) -> Option<Attempt> {
    let (doing, address) = ("presenting this agent to".to_owned(), "ci:50000".to_owned());
    Some(Attempt { doing, address, cause: cause.to_owned(), message: message.to_owned(), exit_code: 1 })
}

fn accused(checks: &[Check]) -> BTreeSet<CauseId> {
    checks.iter().filter_map(Check::accuses).collect()
}

fn warned(checks: &[Check]) -> BTreeSet<CauseId> {
    checks.iter().filter(|check| check.warning).filter_map(|check| check.cause).collect()
}

/// The verdict and whom the checks warn of; nothing but the verdict's cause is accused.
fn judge(facts: &Facts) -> (String, Vec<&'static str>) {
    let (checks, verdict) = evaluate(facts);
    let expected: BTreeSet<CauseId> = verdict.cause().into_iter().collect();
    assert_eq!(accused(&checks), expected, "{verdict:?} {checks:#?}");
    assert!(verdict.sentence.ends_with('.'), "{}", verdict.sentence);
    if let Some(cause) = verdict.cause() {
        assert_eq!((verdict.exit_code, verdict.docs.clone()), (cause.exit_code(), cause.docs()));
        assert!(verdict.next_step.ends_with('.'), "{}: {}", verdict.id, verdict.next_step);
    }
    assert!(checks.is_sorted_by_key(|check| check.category));
    (verdict.id.into_owned(), warned(&checks).into_iter().map(CauseId::id).collect())
}

type Change = fn(&mut Facts);

#[test]
fn a_good_way_is_ok() {
    for facts in [good(), web_socket()] {
        assert_eq!(judge(&facts), ("ok".to_owned(), vec![]));
        let (checks, _) = evaluate(&facts);
        assert!(checks.iter().all(|check| check.outcome == Outcome::Yes), "{checks:#?}");
    }
}

#[test]
fn each_fault_has_its_name_and_nothing_else_is_accused() {
    let faults: &[(&str, Change)] = &[
        ("dns-no-such-name", |f| {
            silent(f).connects.clear();
            f.names[0].system = Some(Lookup { error: Some("Name or service not known".into()), ..Lookup::default() });
            f.names[0].queries = vec![query("10.2.0.53", "ci", Reply::NoSuchName)];
        }),
        ("dns-server-dead", |f| {
            silent(f).connects.clear();
            f.names[0].system = Some(Lookup { error: Some("timed out".into()), timed_out: true, ..Lookup::default() });
            f.names[0].queries = vec![query("10.2.0.53", "ci", Reply::TimedOut)];
        }),
        ("dns-server-failure", |f| {
            silent(f).connects.clear();
            f.names[0].system = Some(Lookup { error: Some("Temporary failure".into()), ..Lookup::default() });
            f.names[0].queries = vec![query("10.2.0.53", "ci", Reply::Failure("SERVFAIL".into()))];
        }),
        ("dns-search-list", |f| {
            silent(f).connects.clear();
            f.names[0].system = Some(Lookup { error: Some("Name or service not known".into()), ..Lookup::default() });
        }),
        ("dns-search-list", |f| {
            f.names[0].queries.insert(0, query("10.2.0.53", "ci.corp", addresses_of(&["10.2.0.80"])));
            silent(f).connects = vec![dead("10.2.0.80:8080", FailureKind::Refused)];
        }),
        ("tcp-refused", |f| silent(f).connects = vec![dead("10.2.0.2:8080", FailureKind::Refused)]),
        ("tcp-timeout", |f| silent(f).connects = vec![dead("10.2.0.2:8080", FailureKind::TimedOut)]),
        ("host-unreachable", |f| silent(f).connects = vec![dead("10.2.0.2:8080", FailureKind::HostUnreachable)]),
        ("network-unreachable", |f| silent(f).connects = vec![dead("10.2.0.2:8080", FailureKind::NetworkUnreachable)]),
        ("wrong-port", |f| {
            let site = silent(f);
            site.connects = vec![dead("10.2.0.2:8080", FailureKind::Refused)];
            site.usual_ports = vec![connect("10.2.0.2:443"), dead("10.2.0.2:80", FailureKind::Refused)];
        }),
        ("wrong-port", |f| _ = both(f, failed(FailureKind::Protocol, "no HTTP answer but \"SSH-2.0\""))),
        ("wrong-port", |f| {
            both(f, answer(404, &[], "Not Found")).elsewhere = vec![answer(200, &[], "Jenkins-Agent-Protocols: Ping")]
        }),
        ("tls-unknown-ca", |f| _ = shaken(f, TlsFailureKind::UnknownIssuer)),
        ("tls-expired", |f| _ = shaken(f, TlsFailureKind::Expired)),
        ("clock-skew", |f| {
            shaken(f, TlsFailureKind::Expired).handshake.as_mut().unwrap().server_date = Some(NOW - 2 * 86_400);
        }),
        ("tls-wrong-name", |f| _ = shaken(f, TlsFailureKind::WrongName)),
        ("tls-on-plain-port", |f| shaken(f, TlsFailureKind::NotTls).other_scheme = Some(answer(200, &JENKINS, ""))),
        ("tls-handshake", |f| _ = shaken(f, TlsFailureKind::Other)),
        ("mtu-black-hole", |f| {
            shaken(f, TlsFailureKind::TimedOut).other_scheme = Some(failed(FailureKind::Closed, "closed"));
        }),
        ("plain-on-tls-port", |f| {
            both(f, failed(FailureKind::Protocol, "no HTTP answer")).other_scheme = Some(Exchange::default());
        }),
        ("plain-on-tls-port", |f| _ = both(f, answer(400, &[], "The plain HTTP request was sent to HTTPS port"))),
        ("http-timeout", |f| _ = both(f, failed(FailureKind::TimedOut, "timed out"))),
        ("not-jenkins", |f| _ = both(f, answer(200, &[("server", "nginx")], "Welcome to nginx!"))),
        ("captive-portal", |f| _ = both(f, answer(200, &[], "Please accept the terms of use"))),
        ("captive-portal", |f| _ = both(f, answer(302, &[("location", "http://hotspot.example/")], ""))),
        ("login-redirect", |f| _ = both(f, answer(302, &[("location", "https://sso.example/oauth2/auth?x=y")], ""))),
        ("http-redirect", |f| _ = both(f, answer(301, &[("location", "https://ci/")], ""))),
        ("wrong-context-path", |f| {
            both(f, answer(404, &[], "Not Found")).elsewhere =
                vec![Exchange { url: "http://ci:8080/jenkins/login".into(), ..answer(200, &JENKINS, "") }];
        }),
        ("http-forbidden", |f| _ = both(f, answer(403, &[], "no"))),
        ("controller-starting", |f| _ = both(f, answer(503, &JENKINS, "getting ready to work"))),
        ("http-error", |f| _ = both(f, answer(502, &[], "Bad Gateway"))),
        ("agent-port-disabled", |f| {
            f.agent_port = None;
            f.sites[0].listener = Some(answer(404, &JENKINS, "Not Found"));
        }),
        ("wrong-identity", |f| {
            f.agent_port = None;
            f.sites[0].unusable = attempt("identity-mismatch", "not the expected controller");
        }),
        ("remoting-too-old", |f| {
            f.agent_port = None;
            f.sites[0].unusable = attempt("remoting-too-old", "the controller asks for remoting 9999");
        }),
        ("proxy-unreachable", |f| {
            proxied(f).connects = vec![dead("10.2.0.9:3128", FailureKind::Refused)];
            silent(f);
        }),
        ("proxy-credentials", |f| {
            both(f, answer(407, &[], ""));
            proxied(f);
        }),
        ("proxy-swallows", |f| {
            both(f, answer(502, &[], "Bad Gateway"));
            proxied(f);
        }),
        ("proxy-swallows", |f| {
            both(f, answer(200, &[], "Company filter"));
            proxied(f).direct = vec![connect("10.2.0.2:8080")];
        }),
        ("agent-port-blocked", |f| port(f).connects = vec![dead("10.2.0.2:50000", FailureKind::TimedOut)]),
        ("agent-port-wrong-host", |f| {
            let port = port(f);
            (port.host, port.connects) = ("agents".into(), vec![dead("10.9.0.9:50000", FailureKind::TimedOut)]);
            port.url_host = vec![connect("10.2.0.2:50000")];
        }),
        ("agent-port-wrong-host", |f| {
            (port(f).host, port(f).connects) = ("agents".into(), vec![]);
            f.names.push(Name { name: "agents".into(), system: Some(Lookup::default()), ..Name::default() });
        }),
        ("agent-port-not-jenkins", |f| {
            port(f).hello = Some(Hello { strange: Some("SSH-2.0".into()), ..Hello::default() })
        }),
        ("jnlp4-disabled", |f| port(f).hello.as_mut().unwrap().protocols = vec!["Ping".into()]),
        ("wrong-identity", |f| port(f).proof = Some(Proof { found: Some("cc:dd".into()), ..Proof::default() })),
        ("work-directory", |f| {
            f.environment.work_dir =
                Some(WorkDir { path: "/w".into(), problem: Some("Permission denied".into()), free: None });
        }),
        ("secret-wrong", |f| f.authentication = refusal("rejected", "Authorization failure")),
        ("unknown-node", |f| f.authentication = refusal("rejected", "Unknown client name: a1")),
        ("already-connected", |f| f.authentication = refusal("already-connected", "a1 is already connected")),
        ("secret-wrong", |f| f.attempt = attempt("rejected", "the secret is wrong (HTTP 403)")),
        ("idle-cut", |f| {
            let ended = fail(FailureKind::Reset, "Connection reset by peer");
            f.hold = Some(Hold { wanted_ms: 90_000, held_ms: 5000, ended, ..Hold::default() });
        }),
    ];
    for (expected, change) in faults {
        let mut facts = good();
        change(&mut facts);
        assert_eq!(judge(&facts), (expected.to_string(), vec![]));
    }
}

fn port(facts: &mut Facts) -> &mut AgentPort {
    facts.agent_port.as_mut().unwrap()
}

fn refusal(cause: &str, message: &str) -> Option<Authentication> {
    Some(Authentication { refusal: attempt(cause, message), ..Authentication::default() })
}

#[test]
fn web_sockets() {
    let faults: &[(&str, Change)] = &[
        ("websocket-stripped", |f| drop(socket(f).arrived.as_mut().unwrap().remove("upgrade"))),
        ("websocket-stripped", |f| {
            socket(f).arrived.as_mut().unwrap().insert("connection".into(), "close".into());
        }),
        ("websocket-unsupported", |f| socket(f).endpoint = Some(answer(404, &JENKINS, ""))),
        ("websocket-refused", |f| socket(f).endpoint = Some(answer(403, &[], "no"))),
        ("websocket-stripped", |f| {
            socket(f).arrived = None;
            f.attempt =
                attempt("protocol", "a reverse proxy on the way removes headers, or does not pass WebSockets on");
        }),
    ];
    for (expected, change) in faults {
        let mut facts = web_socket();
        change(&mut facts);
        assert_eq!(judge(&facts), (expected.to_string(), vec![]));
    }
    let mut untold = web_socket();
    socket(&mut untold).arrived = None;
    assert_eq!(judge(&untold).0, "ok");
}

fn socket(facts: &mut Facts) -> &mut Websocket {
    facts.websocket.as_mut().unwrap()
}

#[test]
fn what_does_not_keep_the_agent_from_connecting_is_a_warning() {
    let faults: &[(&str, Change)] = &[
        ("address-dead", |f| f.sites[0].connects.push(dead("10.2.0.3:8080", FailureKind::TimedOut))),
        ("ipv6-dead", |f| f.sites[0].connects.insert(0, dead("[2001:db8::2]:8080", FailureKind::TimedOut))),
        ("tcp-slow", |f| f.sites[0].connects[0].ms = 1040),
        ("clock-skew", |f| f.environment.clock_ms += 86_400_000),
        ("dns-server-dead", |f| f.names[0].queries.push(query("10.2.0.54", "ci", Reply::TimedOut))),
        ("dns-server-failure", |f| f.names[0].queries.push(query("10.2.0.54", "ci", Reply::Failure("REFUSED".into())))),
        ("dns-search-list", |f| f.names[0].queries.insert(0, query("10.2.0.53", "ci.x", addresses_of(&["10.2.0.8"])))),
        ("secret-wrong", |f| f.configuration.secret.as_mut().unwrap().length = 63),
        ("work-directory", |f| {
            f.environment.work_dir = Some(WorkDir { path: "/w".into(), problem: None, free: Some(1 << 20) });
        }),
        ("tcp-refused", |f| {
            let mut other = f.sites[0].clone();
            other.connects = vec![dead("10.2.0.7:8080", FailureKind::Refused)];
            (other.url, other.listener, other.login) = ("http://other/".into(), None, None);
            f.sites.insert(0, other);
        }),
    ];
    for (expected, change) in faults {
        let mut facts = good();
        change(&mut facts);
        assert_eq!(judge(&facts), ("ok".to_owned(), vec![*expected]));
    }
}

#[test]
fn of_addresses_that_are_all_dead_the_one_that_tells_most_is_the_cause() {
    let mut facts = good();
    silent(&mut facts).connects = vec![
        dead("[2001:db8::2]:8080", FailureKind::NetworkUnreachable),
        dead("10.2.0.2:8080", FailureKind::TimedOut),
        dead("10.2.0.3:8080", FailureKind::TimedOut),
    ];
    assert_eq!(judge(&facts), ("tcp-timeout".to_owned(), vec!["tcp-timeout", "network-unreachable"]));
}

#[test]
fn a_black_hole_is_known_by_what_the_kernel_can_not_deliver() {
    let mut facts = good();
    facts.sites[0].large = Some(Large {
        bytes: 6344,
        exchange: failed(FailureKind::TimedOut, "timed out after 5 s"),
        unsent: Some(6344),
        retransmits: Some(4),
        path_mtu: Some(1500),
    });
    assert_eq!(judge(&facts).0, "mtu-black-hole");
    let (checks, verdict) = evaluate(&facts);
    assert_eq!(verdict.confidence, Confidence::Certain);
    let check = checks.iter().find(|check| check.category == Category::Mtu).unwrap();
    assert!(check.seen.contains("6344 are not acknowledged, sent again 4 times"), "{}", check.seen);

    // The other direction: the login page is large.
    let site = &mut facts.sites[0];
    site.large.as_mut().unwrap().unsent = Some(0);
    assert_eq!(judge(&facts).0, "ok", "one silent answer is no proof");
    facts.sites[0].login = Some(failed(FailureKind::TimedOut, "timed out after 5 s"));
    assert_eq!(judge(&facts), ("mtu-black-hole".to_owned(), vec![]));
    // That page alone.
    facts.sites[0].large = good().sites[0].large.clone();
    assert_eq!(judge(&facts), ("ok".to_owned(), vec!["http-timeout"]));
}

#[test]
fn what_depends_on_a_failure_is_skipped() {
    let mut facts = good();
    silent(&mut facts).connects = vec![dead("10.2.0.2:8080", FailureKind::TimedOut)];
    let (checks, _) = evaluate(&facts);
    for check in checks.iter().filter(|check| check.category > Category::Tcp) {
        assert_eq!(check.outcome, Outcome::Skipped, "{check:?}");
    }
}

#[test]
fn a_probe_that_is_cut_off_does_not_say_that_all_is_well() {
    let mut facts = Facts { cut_off_ms: Some(15_500), ..Facts::default() };
    assert_eq!(judge(&facts).0, "inconclusive");
    facts = good();
    facts.agent_port = None;
    assert_eq!(judge(&facts).0, "inconclusive");
    facts = good();
    facts.sites[0].connects[0].failure = fail(FailureKind::OutOfTime, "the probe's time was up first");
    (facts.sites[0].listener, facts.sites[0].login, facts.agent_port) = (None, None, None);
    assert_eq!(judge(&facts).0, "inconclusive");
}

#[test]
fn sentences_name_a_thing_once() {
    let mut facts = good();
    let dir = |path: &str, problem: &str| WorkDir { path: path.into(), problem: Some(problem.into()), free: None };
    for (path, problem, sentence) in [
        ("/data", "/data is not a directory", "The work directory /data is not a directory."),
        ("/data/a", "/data is not a directory", "The work directory /data/a can't be used: /data is not a directory."),
        ("/data", "/database is full", "The work directory /data can't be used: /database is full."),
    ] {
        facts.environment.work_dir = Some(dir(path, problem));
        assert_eq!(evaluate(&facts).1.sentence, sentence);
    }
}

#[test]
fn who_is_on_a_web_socket_is_not_sent_there() {
    for (mut facts, sent) in [(good(), true), (web_socket(), false)] {
        let ended = fail(FailureKind::Closed, "it was closed");
        facts.hold = Some(Hold { wanted_ms: 90_000, held_ms: 5000, ended, ..Hold::default() });
        let verdict = evaluate(&facts).1;
        assert_eq!((&*verdict.id, verdict.next_step.contains("-webSocket")), ("idle-cut", sent), "{verdict:?}");
    }
}

#[test]
fn a_failure_that_is_gone_is_told_as_such() {
    let mut facts = good();
    facts.attempt = attempt("refused", "connection refused");
    let (_, verdict) = evaluate(&facts);
    assert_eq!(verdict.id, "ok");
    assert!(verdict.sentence.contains("works now") && verdict.sentence.contains("connection refused"), "{verdict:?}");
}

/// Every fact may be missing: each value of the JSON in turn is taken away.
#[test]
fn no_missing_fact_panics() {
    fn paths(value: &serde_json::Value, path: &str, into: &mut Vec<String>) {
        let children: Vec<(String, &serde_json::Value)> = match value {
            serde_json::Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
            serde_json::Value::Array(list) => {
                list.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect()
            }
            _ => Vec::new(),
        };
        for (key, child) in children {
            let path = format!("{path}/{key}");
            paths(child, &path, into);
            into.push(path);
        }
    }
    let mut tried = 0;
    for facts in [good(), web_socket()] {
        let whole = serde_json::to_value(&facts).unwrap();
        let mut all = Vec::new();
        paths(&whole, "", &mut all);
        for path in all {
            let mut less = whole.clone();
            let (parent, key) = path.rsplit_once('/').unwrap();
            match less.pointer_mut(parent).unwrap() {
                serde_json::Value::Object(map) => drop(map.remove(key)),
                serde_json::Value::Array(list) => drop(list.remove(key.parse().unwrap())),
                _ => unreachable!(),
            }
            if let Ok(facts) = serde_json::from_value::<Facts>(less) {
                let _ = evaluate(&facts);
                tried += 1;
            }
        }
    }
    assert!(tried > 150, "{tried}");
}
