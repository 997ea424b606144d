//! The WebSocket endpoint.

use crate::probe::catalog::CauseId;
use crate::probe::check::{Category, Check, Confidence};
use crate::probe::facts::{Answer, Exchange, Facts, Websocket};

const HERE: Category = Category::Websocket;

/// What an upgrade does not work without.
const ESSENTIAL: [&str; 6] =
    ["upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "node-name", "x-remoting-capability"];

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let (endpoint, headers) = ("websocket.endpoint", "websocket.headers");
    let Some(seen) = &facts.websocket else {
        let why = "the controller does not answer by HTTP";
        return vec![Check::skipped(endpoint, HERE, "", why), Check::skipped(headers, HERE, "", why)];
    };
    let mut checks = Vec::new();
    let version = facts.sites.iter().find_map(|site| {
        let login = site.login.as_ref()?.answer.as_ref()?;
        login.header("x-jenkins").map(str::to_owned)
    });
    if let Some(exchange) = &seen.endpoint {
        checks.push(exists(exchange, version.as_deref()).took(exchange.ms));
    }
    if checks.iter().any(|check| check.accuses().is_some()) {
        checks.push(Check::skipped(headers, HERE, "", "there is no endpoint"));
    } else {
        checks.push(passes(seen));
    }
    checks
}

fn exists(exchange: &Exchange, version: Option<&str>) -> Check {
    let id = "websocket.endpoint";
    let Some(answer) = &exchange.answer else {
        let message = exchange.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
        return Check::unknown(id, HERE, &*exchange.url, message);
    };
    let seen = format!("HTTP {}", answer.status);
    let no = |cause| Check::no(id, HERE, &*exchange.url, cause, text(answer));
    let there = answer.header("location").is_some_and(|location| location.contains("wsagents/"));
    let known = ["only for use from agent.jar", "only WS connections", "no such agent"];
    match answer.status {
        300..=399 if there => Check::yes(id, HERE, &*exchange.url, "the controller has it"),
        200 | 101 | 426 => Check::yes(id, HERE, &*exchange.url, seen),
        400 if known.iter().any(|words| answer.text.contains(words)) => {
            Check::yes(id, HERE, &*exchange.url, "the controller has it")
        }
        404 => {
            let version = version.map(|version| format!(" (Jenkins {version})")).unwrap_or_default();
            no(CauseId::WebsocketUnsupported)
                .means(format!("The controller has no WebSocket endpoint for agents{version}: they came with Jenkins 2.217, and need its own Jetty."))
                .next("Connect without -webSocket, update the controller, or let wsagents/ pass at what stands before it.")
        }
        401 | 403 if answer.is_jenkins() => Check::unknown(id, HERE, &*exchange.url, seen),
        300..=599 => no(CauseId::WebsocketRefused)
            .means(format!(
                "Something before the controller refuses its WebSocket endpoint with HTTP {}.",
                answer.status
            ))
            .next("Let wsagents/ pass at what stands before the controller."),
        _ => Check::unknown(id, HERE, &*exchange.url, seen),
    }
}

fn text(answer: &Answer) -> String {
    let text: String = answer.text.chars().take(100).collect();
    format!("HTTP {} {text}", answer.status).trim_end().to_owned()
}

fn passes(seen: &Websocket) -> Check {
    let id = "websocket.headers";
    let url = seen.echo.as_ref().map(|exchange| exchange.url.clone()).unwrap_or_default();
    let Some(arrived) = &seen.arrived else {
        let status = seen.echo.as_ref().and_then(|exchange| exchange.answer.as_ref()).map(|answer| answer.status);
        let why = status.map(|status| format!(" (HTTP {status})")).unwrap_or_default();
        return Check::unknown(id, HERE, url, format!("the controller does not show the headers that arrive{why}"));
    };
    let is_missing = |name: &&String| match name.as_str() {
        "connection" => !arrived.get("connection").is_some_and(|value| value.is_empty() || value.contains("upgrade")),
        name => !arrived.contains_key(name),
    };
    let missing: Vec<&str> = seen.sent.iter().filter(is_missing).map(String::as_str).collect();
    let essential: Vec<&str> = missing.iter().copied().filter(|name| ESSENTIAL.contains(name)).collect();
    if essential.is_empty() {
        return Check::yes(id, HERE, url, "the headers of an upgrade arrive");
    }
    let list: Vec<String> = essential.iter().map(|name| canonical(name)).collect();
    let list = list.join(", ");
    Check::no(id, HERE, url, CauseId::WebsocketStripped, format!("missing at the controller: {list}"))
        .means(format!("Something on the way removes headers that WebSockets need: {list}."))
        .next("Have the reverse proxy pass WebSockets on (nginx: proxy_http_version 1.1, proxy_set_header Upgrade $http_upgrade, proxy_set_header Connection \"upgrade\"), or connect without -webSocket.")
        .sure(Confidence::Certain)
}

/// `sec-websocket-key` as people write it.
fn canonical(name: &str) -> String {
    let word = |word: &str| match word {
        "websocket" => "WebSocket".to_owned(),
        word => word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect(),
    };
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}
