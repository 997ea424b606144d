//! The WebSocket endpoint, as far as it can be asked without the secret and without a line in the controller's log.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Target;
use super::http::Route;
use crate::frame::Capability;
use crate::probe::facts::Websocket;
use crate::transport::http::excerpt;
use crate::transport::proxy::Credentials;
use crate::transport::websocket::{handshake_key, own_headers};

const ANSWER: Duration = Duration::from_secs(5);

/// Asks for the endpoint, and which headers arrive.
pub(super) async fn gather(route: &Route<'_>, target: &Target) -> Websocket {
    let url = route.url;
    let key = handshake_key();
    let capability = Capability::OURS.to_base64();
    let name = target.name.as_deref().unwrap_or("probe");
    let authorization = url.credentials.as_ref().map(Credentials::basic);
    let mut headers = own_headers(&key, name, &capability);
    headers.extend(authorization.as_deref().map(|basic| ("Authorization", basic)));
    headers.retain(|(name, _)| !target.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name)));
    headers.extend(target.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let (endpoint, echo) = (url.join("wsagents"), url.join("whoAmI/"));
    let ((endpoint, _), (echo, page)) = tokio::join!(
        route.get(&endpoint, &[], ANSWER, |_| false),
        route.get(&echo, &headers, ANSWER, |location| location.path.ends_with("whoAmI/")),
    );
    let page = page.filter(|page| page.status() == 200);
    Websocket {
        endpoint: Some(endpoint),
        arrived: page.and_then(|page| arrived(&String::from_utf8_lossy(&page.body))),
        echo: Some(echo),
        sent: headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect(),
    }
}

/// The table of request headers of `whoAmI/` (`hudson/security/WhoAmI/index.jelly`), names in lower case; `None` where
/// there is no such table. Of the values that of `Connection` alone is kept: others may be secrets of a reverse proxy's.
fn arrived(page: &str) -> Option<BTreeMap<String, String>> {
    let mut arrived = BTreeMap::new();
    for cell in page.split("<td rowspan=").skip(1).take(100) {
        let Some((name, rest)) = cell.split_once('>').and_then(|(_, rest)| rest.split_once("</td>")) else { continue };
        let name = excerpt(name, 100).to_ascii_lowercase();
        let value = rest.split_once("<td>").and_then(|(_, rest)| rest.split_once("</td>")).map(|(value, _)| value);
        let value = value.filter(|_| name == "connection").map(|value| excerpt(value, 100).to_ascii_lowercase());
        arrived.insert(name, value.unwrap_or_default());
    }
    // Every request has this one.
    arrived.contains_key("host").then_some(arrived)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_headers() {
        let page = "<table><tr><td>Name:</td><td>anonymous</td></tr></table><h2>Request Headers</h2><table><tr>\
                    <td rowspan=\"1\">Host</td><td>\n      ci</td></tr><tr><td rowspan=\"1\">Connection</td><td>\n Upgrade \n</td>\
                    </tr><tr><td rowspan=\"2\">Sec-WebSocket-Key</td><td>x</td></tr></table>";
        let expected = [("connection", "upgrade"), ("host", ""), ("sec-websocket-key", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(arrived(page), Some(BTreeMap::from(expected)));
        assert_eq!(arrived("<table><tr><td>Host</td></tr></table>"), None);
    }
}
