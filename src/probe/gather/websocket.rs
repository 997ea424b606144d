//! The WebSocket endpoint, as far as it can be asked without the secret and without a line in the controller's log.

use std::time::Duration;

use super::Target;
use super::http::Route;
use crate::frame::Capability;
use crate::probe::facts::Websocket;
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

/// The names in the table of request headers of `whoAmI/` (`hudson/security/WhoAmI/index.jelly`), in lower case; `None`
/// where there is no such table.
fn arrived(page: &str) -> Option<Vec<String>> {
    let cells = page.split("<td rowspan=").skip(1);
    let names =
        cells.filter_map(|cell| Some(cell.split_once('>')?.1.split_once("</td>")?.0.trim().to_ascii_lowercase()));
    let names: Vec<String> = names.filter(|name| !name.is_empty() && name.len() < 100).take(100).collect();
    // Every request has this one.
    names.iter().any(|name| name == "host").then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_headers() {
        let page = "<table><tr><td>Name:</td><td>anonymous</td></tr></table><h2>Request Headers</h2><table><tr>\
                    <td rowspan=\"1\">Host</td><td>\n      ci</td></tr><tr><td rowspan=\"2\">Sec-WebSocket-Key</td><td>x</td></tr></table>";
        assert_eq!(arrived(page), Some(vec!["host".to_owned(), "sec-websocket-key".to_owned()]));
        assert_eq!(arrived("<table><tr><td>Host</td></tr></table>"), None);
    }
}
