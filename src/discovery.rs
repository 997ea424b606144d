//! Where the controller is: by asking its web server, or as the command line says.
//!
//! The counterpart of Java's `JnlpAgentEndpointResolver` (discovery of the TCP port),
//! `JnlpAgentEndpointConfigurator` (`-direct`) and `Engine.pingSuccessful` (before a WebSocket).

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::{HeaderMap, Uri};

use crate::transport::dial::Dialer;
use crate::transport::http::{self, BodyLimits, ControllerUrl, Response, header};
use crate::transport::identity::InstanceIdentity;
use crate::transport::jnlp4::PROTOCOL_NAME;
use crate::transport::proxy::{Credentials, Scheme};
use crate::transport::trust::TlsConfig;
use crate::transport::{Cause, ConnectError};

use crate::REMOTING_VERSION;

/// How long a controller may take to answer; as Java's discovery (`setReadTimeout(60000)`).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Redirects that are followed; a login page that needs more is broken.
const MAX_REDIRECTS: usize = 5;

pub(crate) const LISTENER: &str = "tcpSlaveAgentListener/";

/// Where a JNLP4 connection goes, and who must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, an IPv6 literal without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The key that must be proved there.
    pub identity: InstanceIdentity,
    /// `X-Jenkins`: the controller's version. The listener of 2.293 does not send it.
    pub controller_version: Option<String>,
    /// `X-Remoting-Minimum-Version`.
    pub minimum_version: Option<String>,
    /// `X-Jenkins-Agent-Protocols`, where it says anything.
    pub protocols: Vec<String>,
    /// Where host and port came from, for messages.
    pub origin: String,
}

impl Endpoint {
    /// Reads the headers of the answer of `tcpSlaveAgentListener/`.
    ///
    /// `url_host` is the host asked, which also has the agent port unless a header says otherwise;
    /// `pinned` is the identity that the user gave.
    ///
    /// # Errors
    /// The [`Cause`] for which this agent can't connect to that controller.
    pub fn from_headers(headers: &HeaderMap, url_host: &str, pinned: Option<&InstanceIdentity>) -> Result<Self, Cause> {
        let ports = ["X-Jenkins-JNLP-Port", "X-Hudson-JNLP-Port"];
        let found = ports.iter().find_map(|name| header(headers, name).map(|value| (*name, value)));
        let Some((port_header, port)) = found else {
            return Err(match header(headers, "X-Jenkins") {
                Some(version) => Cause::Protocol(format!(
                    "Jenkins {} answers, but without the port for agents (X-Jenkins-JNLP-Port)",
                    http::excerpt(version, 40)
                )),
                None => Cause::NotJenkins("no header X-Jenkins-JNLP-Port".to_owned()),
            });
        };
        let minimum_version = check_minimum_version(headers)?;
        let protocols: Vec<String> = header(headers, "X-Jenkins-Agent-Protocols")
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        // An empty list counts as none (`JnlpAgentEndpoint`, JENKINS-41730).
        if !protocols.is_empty() && !protocols.iter().any(|name| name == PROTOCOL_NAME) {
            return Err(Cause::ProtocolNotOffered { offered: http::excerpt(&protocols.join(", "), 200) });
        }
        let identity = match (header(headers, "X-Instance-Identity"), pinned) {
            (Some(text), pinned) => {
                let found = InstanceIdentity::from_base64(text)
                    .map_err(|e| Cause::Protocol(format!("in the header X-Instance-Identity, {e}")))?;
                match pinned {
                    Some(expected) if *expected != found => {
                        return Err(Cause::IdentityMismatch {
                            expected: expected.fingerprint(),
                            found: found.fingerprint(),
                        });
                    }
                    _ => found,
                }
            }
            (None, Some(pinned)) => pinned.clone(),
            (None, None) => {
                return Err(Cause::Protocol(
                    "no header X-Instance-Identity: nothing tells who must be at the agent port".to_owned(),
                ));
            }
        };
        let port = parse_port(port).ok_or_else(|| {
            let shown = http::excerpt(port, 20);
            Cause::Protocol(format!("{port_header} is no port number: {shown:?}"))
        })?;
        let host_header = header(headers, "X-Jenkins-JNLP-Host").map(str::trim);
        let host = match host_header {
            Some(host) if !host.is_empty() => {
                if !host.bytes().all(|b| b.is_ascii_graphic()) {
                    let shown = http::excerpt(host, 60);
                    return Err(Cause::Protocol(format!("X-Jenkins-JNLP-Host is no host name: {shown:?}")));
                }
                host.trim_start_matches('[').trim_end_matches(']')
            }
            _ => url_host,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            identity,
            controller_version: header(headers, "X-Jenkins").map(|v| http::excerpt(v, 60)),
            minimum_version,
            protocols,
            origin: format!("the header {port_header}"),
        })
    }

    /// The endpoint of `-direct HOST:PORT -instanceIdentity X [-protocols …]`, without any HTTP.
    ///
    /// # Errors
    /// [`Cause::Configuration`] for values that make no sense.
    pub fn direct(host_port: &str, identity: InstanceIdentity, protocols: &[String]) -> Result<Self, ConnectError> {
        let wrong = |option, value: &str, message: String| {
            let value = http::excerpt(value, 100);
            ConnectError::new(option, value, Cause::Configuration(message))
        };
        let (host, port) = match HostPort::parse(host_port) {
            Ok(HostPort { host: Some(host), port: Some(port) }) => (host, port),
            Ok(_) => {
                let message = "it needs both HOST and PORT".to_owned();
                return Err(wrong("using -direct", host_port, message));
            }
            Err(message) => return Err(wrong("using -direct", host_port, message)),
        };
        if !protocols.is_empty() && !protocols.iter().any(|name| name == PROTOCOL_NAME) {
            let message = format!("this agent speaks {PROTOCOL_NAME} only");
            return Err(wrong("using -protocols", &protocols.join(","), message));
        }
        Ok(Self { protocols: protocols.to_vec(), ..Self::at(&host, port, identity, "-direct") })
    }

    /// An endpoint of which no controller has told anything.
    pub(crate) fn at(host: &str, port: u16, identity: InstanceIdentity, origin: &str) -> Self {
        Self {
            host: host.to_owned(),
            port,
            identity,
            controller_version: None,
            minimum_version: None,
            protocols: Vec::new(),
            origin: origin.to_owned(),
        }
    }

    /// Replaces host and port by what `-tunnel` says.
    pub(crate) fn through(&mut self, tunnel: &HostPort) {
        if let Some(host) = &tunnel.host {
            self.host.clone_from(host);
        }
        if let Some(port) = tunnel.port {
            self.port = port;
        }
        self.origin = match (&tunnel.host, tunnel.port) {
            (Some(_), Some(_)) => "-tunnel".to_owned(),
            _ => format!("-tunnel and {}", self.origin),
        };
    }
}

/// The controller's minimum, when we meet it.
///
/// # Errors
/// [`Cause::RemotingTooOld`].
pub(crate) fn check_minimum_version(headers: &HeaderMap) -> Result<Option<String>, Cause> {
    let Some(minimum) = header(headers, "X-Remoting-Minimum-Version") else {
        return Ok(None);
    };
    let minimum = http::excerpt(minimum, 60);
    if compare_versions(REMOTING_VERSION, &minimum) == Ordering::Less {
        return Err(Cause::RemotingTooOld { minimum });
    }
    Ok(Some(minimum))
}

/// `HOST:PORT`, `HOST:` or `:PORT`, as `org.jenkinsci.remoting.engine.HostPort` reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, an IPv6 literal without brackets.
    pub host: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
}

impl HostPort {
    /// Parses the value of `-tunnel` (or `-direct`, where both parts are needed).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(value: &str) -> Result<Self, String> {
        let value = value.trim();
        let (host, port) = value.rsplit_once(':').ok_or("it must be HOST:PORT, HOST: or :PORT")?;
        let (host, port) = (host.trim(), port.trim());
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let graphic = host.bytes().all(|b| b.is_ascii_graphic());
        let address = host.parse::<IpAddr>().is_ok();
        if !graphic || host.contains(['[', ']', '/']) || (host.contains(':') && !address) {
            return Err("its host is malformed".to_owned());
        }
        let port = match port {
            "" => None,
            port => Some(parse_port(port).ok_or("its port is not a number from 1 to 65535")?),
        };
        Ok(Self { host: (!host.is_empty()).then(|| host.to_owned()), port })
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port > 0)
}

/// Finds the controller by its URLs.
#[derive(Debug, Clone)]
pub struct Discovery {
    /// `-url`: the candidates, tried in this order. The one that worked moves to the front.
    pub urls: Vec<ControllerUrl>,
    /// `-name`, sent along as Java does.
    pub agent_name: String,
    /// `-credentials`, for a reverse proxy that wants them; else those in the URL are used.
    pub credentials: Option<Credentials>,
    /// `-tunnel`.
    pub tunnel: Option<HostPort>,
    /// `-instanceIdentity`: the only identity accepted.
    pub identity: Option<InstanceIdentity>,
    /// How connections are opened.
    pub dialer: Dialer,
    /// Whom to trust on HTTPS.
    pub tls: Arc<TlsConfig>,
}

fn is_loopback(url: &ControllerUrl) -> bool {
    url.host == "localhost" || url.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Discovery {
    /// The first URL on which the identity (or, over a WebSocket, the secret) can be read and
    /// replaced on the way. The caller owes the user a warning.
    pub fn exposed(&self, web_socket: bool) -> Option<&ControllerUrl> {
        self.urls
            .iter()
            .find(|url| url.is_plain() && !is_loopback(url))
            .filter(|_| web_socket || self.identity.is_none())
    }

    /// Asks each URL in turn for the TCP endpoint (`JnlpAgentEndpointResolver.resolve`). One
    /// attempt; when to try again is the caller's to decide.
    ///
    /// # Errors
    /// That of the first URL; those of the others are logged.
    pub async fn endpoint(&mut self) -> Result<Endpoint, ConnectError> {
        let mut first_error = None;
        for i in 0..self.urls.len() {
            match self.endpoint_at(&self.urls[i]).await {
                Ok(endpoint) => {
                    self.urls[..=i].rotate_right(1);
                    return Ok(endpoint);
                }
                Err(error) => {
                    if self.urls.len() > 1 {
                        tracing::info!("{error}");
                    }
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(no_url))
    }

    async fn endpoint_at(&self, root: &ControllerUrl) -> Result<Endpoint, ConnectError> {
        let url = root.join(LISTENER);
        let response = self.get(&url, |location| location.path.ends_with(LISTENER)).await?;
        let error = |cause| ConnectError::new("GET", url.to_string(), cause);
        if response.status() != 200 {
            return Err(error(self.refusal(root, &response).await));
        }
        let pinned = self.identity.as_ref();
        let mut endpoint = Endpoint::from_headers(&response.head.headers, &root.host, pinned).map_err(error)?;
        match &self.tunnel {
            Some(tunnel) => endpoint.through(tunnel),
            // As Java does, but only where there is another URL to fall back to: the check
            // leaves a line in the controller's log.
            None if self.urls.len() > 1 => {
                let (host, port) = (&endpoint.host, endpoint.port);
                self.dialer.connect(Scheme::Agent, host, port).await?;
            }
            None => {}
        }
        Ok(endpoint)
    }

    async fn refusal(&self, root: &ControllerUrl, response: &Response) -> Cause {
        if response.status() != 404 {
            return response.refusal();
        }
        // Jenkins answers 404 when the port is off, and so does anything else for a wrong path.
        let is_jenkins = response.header("X-Jenkins").is_some()
            || match self.get(&root.join("login"), |_| true).await {
                Ok(login) => login.header("X-Jenkins").is_some(),
                Err(_) => false,
            };
        if is_jenkins {
            Cause::AgentPortDisabled
        } else {
            Cause::Http { status: 404, message: format!("no Jenkins at {root}, its path may be wrong") }
        }
    }

    /// Whether the first URL's controller is up: `GET login` must be 200
    /// (`Engine.pingSuccessful`; not the listener, which is 404 when the TCP port is off).
    /// One attempt.
    ///
    /// # Errors
    /// Why it isn't.
    pub async fn ready(&self) -> Result<(), ConnectError> {
        let url = self.urls.first().ok_or_else(no_url)?.join("login");
        let response = self.get(&url, |_| true).await?;
        if response.status() == 200 {
            return Ok(());
        }
        Err(ConnectError::new("GET", url.to_string(), response.refusal()))
    }

    /// The beginning of a page of the controller's, by its whole URL. One attempt.
    ///
    /// # Errors
    /// Why it can't be had.
    pub async fn page(&self, url: &str) -> Result<Vec<u8>, ConnectError> {
        let root = url.find("://").and_then(|scheme| url[scheme + 3..].find(['/', '?', '#']).map(|at| scheme + 3 + at));
        let root = ControllerUrl::parse(&url[..root.unwrap_or(url.len())])?;
        let not_a_url = || ConnectError::new("GET", url, Cause::Configuration("this is no URL".to_owned()));
        let url = resolve(&root, url).ok_or_else(not_a_url)?;
        let response = self.get(&url, |_| true).await?;
        if response.head.status == 200 {
            return Ok(response.body);
        }
        Err(ConnectError::new("GET", url.to_string(), response.refusal()))
    }

    /// A file of the controller's that is to be executed, by its path below the root URL; over the connection's own
    /// proxies and trust. A redirect is followed to the same server, or from HTTPS to HTTPS.
    ///
    /// # Errors
    /// Why it can't be had whole and of at most `most` bytes; plain HTTP where the connection itself has a stronger trust
    /// (`-instanceIdentity`), unless that goes to this machine.
    pub async fn download(&self, path: &str, most: usize, time: Duration) -> Result<Vec<u8>, ConnectError> {
        let refused = |what: String, why: &str| ConnectError::new("GET", what, Cause::Configuration(why.to_owned()));
        let root = self.urls.first().ok_or_else(|| refused(path.to_owned(), "no URL of the controller is known"))?;
        let url = resolve(root, &format!("{}{path}", root.path)).unwrap_or_else(|| root.clone());
        if url.is_plain() && self.identity.is_some() && !is_loopback(&url) {
            let why = "plain HTTP does not check the -instanceIdentity that this agent insists on";
            return Err(refused(url.to_string(), why));
        }
        let same_server = |next: &ControllerUrl| next.tls || (&next.host, next.port) == (&url.host, url.port);
        let limits = BodyLimits { bytes: most + 1, time };
        let response = self.get_within(&url, same_server, limits).await?;
        if response.head.status != 200 {
            return Err(ConnectError::new("GET", url.to_string(), response.refusal()));
        }
        let length = response.header("Content-Length").and_then(|length| length.parse().ok());
        if response.body.len() > most || length.is_some_and(|length: usize| length != response.body.len()) {
            let cause = Cause::Protocol(format!("the answer is not whole, or larger than {} MiB", most >> 20));
            return Err(ConnectError::new("GET", url.to_string(), cause));
        }
        Ok(response.body)
    }

    /// One GET. Follows redirects within a scheme, as `HttpURLConnection` does, to where `follow`
    /// allows.
    async fn get(
        &self,
        url: &ControllerUrl,
        follow: impl Fn(&ControllerUrl) -> bool,
    ) -> Result<Response, ConnectError> {
        self.get_within(url, follow, BodyLimits::TEXT).await
    }

    async fn get_within(
        &self,
        url: &ControllerUrl,
        follow: impl Fn(&ControllerUrl) -> bool,
        limits: BodyLimits,
    ) -> Result<Response, ConnectError> {
        let mut at = url.clone();
        let credentials = self.credentials.as_ref().or(url.credentials.as_ref());
        let basic = credentials.map(Credentials::basic);
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = vec![("Node-Name", self.agent_name.as_str())];
            let same_server = (&at.host, at.port) == (&url.host, url.port);
            if let Some(basic) = basic.as_deref().filter(|_| same_server) {
                headers.push(("Authorization", basic));
            }
            let response = http::get(&self.dialer, &self.tls, &at, &headers, ANSWER_TIMEOUT, limits).await?;
            let location = match response.status() {
                301 | 302 | 303 | 307 | 308 => response.header("Location"),
                _ => None,
            };
            match location.and_then(|location| resolve(&at, location)) {
                Some(next) if next.tls == url.tls && follow(&next) => at = next,
                _ => return Ok(response),
            }
        }
        let message = "it redirects without end".to_owned();
        let cause = Cause::Http { status: 302, message };
        Err(ConnectError::new("GET", url.to_string(), cause))
    }
}

fn no_url() -> ConnectError {
    let cause = Cause::Configuration("no URL is given".to_owned());
    ConnectError::new("locating the controller", "", cause)
}

/// Where a `Location` leads; `None` where that can't be told.
pub(crate) fn resolve(from: &ControllerUrl, location: &str) -> Option<ControllerUrl> {
    let uri = Uri::try_from(location).ok().filter(|_| !location.starts_with("//"))?;
    let mut url = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => ControllerUrl::parse(&format!("{scheme}://{authority}")).ok()?,
        (None, None) => from.clone(),
        _ => return None,
    };
    // The query and the slash at the end belong to a location, though not to a root URL.
    url.path = uri.path_and_query()?.to_string();
    Some(url)
}

/// Orders versions as `org.jenkinsci.remoting.util.VersionNumber`, as far as releases of remoting
/// and Jenkins need: numbers, qualifiers, `-SNAPSHOT`; no wildcards and no nested lists.
pub fn compare_versions(left: &str, right: &str) -> Ordering {
    let (left, right) = (version_items(left), version_items(right));
    for i in 0..left.len().max(right.len()) {
        let ordering = compare_items(left.get(i), right.get(i));
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    Ordering::Equal
}

#[derive(Debug, PartialEq, Eq)]
enum Item {
    /// Digits without leading zeros: zero is empty.
    Number(String),
    Qualifier(String),
}

fn version_items(version: &str) -> Vec<Item> {
    // The comment in "1.0 (private-…)" does not count.
    let version = version.split(" (").next().unwrap_or_default();
    let mut items = Vec::new();
    for part in version.trim().to_ascii_lowercase().split(['.', '-']) {
        let mut rest = part;
        loop {
            let digits = rest.starts_with(|c: char| c.is_ascii_digit());
            let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
            let (item, tail) = rest.split_at(end);
            items.push(if digits || part.is_empty() {
                Item::Number(item.trim_start_matches('0').to_owned())
            } else {
                Item::Qualifier(item.to_owned())
            });
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
    }
    items
}

fn compare_items(left: Option<&Item>, right: Option<&Item>) -> Ordering {
    match (left, right) {
        (None, None) => Ordering::Equal,
        (Some(Item::Number(a)), Some(Item::Number(b))) => (a.len(), a).cmp(&(b.len(), b)),
        (Some(Item::Qualifier(a)), Some(Item::Qualifier(b))) => rank(a).cmp(&rank(b)),
        (Some(Item::Number(_)), Some(Item::Qualifier(_))) => Ordering::Greater,
        (Some(Item::Number(a)), None) => a.len().cmp(&0),
        (Some(Item::Qualifier(a)), None) => rank(a).cmp(&rank("")),
        (None | Some(Item::Qualifier(_)), Some(_)) => compare_items(right, left).reverse(),
    }
}

/// `VersionNumber.StringItem.comparableQualifier`.
fn rank(qualifier: &str) -> (usize, &str) {
    let known = ["snapshot", "alpha", "beta", "milestone", "rc", "", "sp"];
    let qualifier = match qualifier {
        "ga" | "final" => "",
        "cr" | "ea" => "rc",
        other => other,
    };
    match known.iter().position(|k| *k == qualifier) {
        Some(i) => (i, ""),
        None => (known.len(), qualifier),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::dial::tests::{serve, via};
    use crate::transport::trust::tests::{CA, SERVER, server_config, trusting};
    use hyper::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    /// The controller's, without the line's end.
    fn identity_text() -> &'static str {
        include_str!("transport/testdata/controller.identity").trim()
    }

    fn identity() -> InstanceIdentity {
        InstanceIdentity::from_base64(identity_text()).unwrap()
    }

    fn other_identity() -> InstanceIdentity {
        InstanceIdentity::from_base64("MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAtGgWlUTeuMi3KSRjJbsMMofhj+HVBpQ1u3Z6zfy07Wfs2fqnTOVtQnFgxpWyuX3syosresYJw6e6mGxjjO9iWPiIXdvx/Y+k2DL95E4oT+nkJijwKII7EmfzEpHYecpW9jRzat58fBgpRQmDU7xuzI35dsw5D5qIuHBl3NPyNdnagMHmt4VkxrYtEiUsNNhmloSZzv88+ZcZQt6Uu4QxJpwJ2PPTEBgQgRrCI4rtX+zZj2yAM+/hwLW6wDChrAkPS9QBgbuKssSKHJlMMJ643WbZ7SZShQrm1uNlm7hzxdu3Csy3p5iGj4qe9QTcEoELmdaOe/TlNZGx7BDFzIhwPQIDAQAB").unwrap()
    }

    fn good() -> Vec<(&'static str, &'static str)> {
        vec![
            ("X-Jenkins", "2.293"),
            ("X-Jenkins-JNLP-Port", "50000"),
            ("X-Instance-Identity", identity_text()),
            ("X-Jenkins-Agent-Protocols", "JNLP4-connect, Ping"),
            ("X-Remoting-Minimum-Version", "3.14"),
        ]
    }

    fn map<V: AsRef<[u8]>>(headers: impl IntoIterator<Item = (&'static str, V)>) -> HeaderMap {
        let value = |value: V| HeaderValue::from_bytes(value.as_ref()).unwrap();
        headers.into_iter().map(|(name, v)| (HeaderName::from_bytes(name.as_bytes()).unwrap(), value(v))).collect()
    }

    type Expected = fn(&Cause) -> bool;

    fn answer(status: &str, headers: &[(&str, &str)]) -> String {
        let headers: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        format!("HTTP/1.1 {status}\r\n{headers}\r\n")
    }

    fn discovery(urls: &[String]) -> Discovery {
        Discovery {
            urls: urls.iter().map(|u| ControllerUrl::parse(u).unwrap()).collect(),
            agent_name: "agent 1".to_owned(),
            credentials: None,
            tunnel: None,
            identity: None,
            dialer: Dialer::default(),
            tls: Arc::new(trusting(&[CA])),
        }
    }

    fn local(port: u16) -> Discovery {
        discovery(&[format!("http://localhost:{port}/ci")])
    }

    #[test]
    fn versions() {
        use Ordering::{Equal, Greater, Less};
        let cases = [
            ("1.0", "1", Equal),
            ("1.10", "1.9", Greater),
            ("2.293", "2.293.1", Less),
            ("3.14", "3386.v353e57a_1b_ea_0", Less),
            ("3176.v207ec082a_8c0", "3386.v353e57a_1b_ea_0", Less),
            ("3386.v353e57a_1b_ea_0", "3386.v353e57a_1b_ea_0", Equal),
            ("3387.v0", "3386.v353e57a_1b_ea_0", Greater),
            ("3385", "3386.v353e57a_1b_ea_0", Less),
            ("4.7", "4.7-SNAPSHOT", Greater),
            ("4.7-SNAPSHOT", "4.6", Greater),
            ("4.7-SNAPSHOT (private-x)", "4.7-SNAPSHOT", Equal),
            ("3386", "3386.v353e57a_1b_ea_0", Less),
            ("1.0-rc1", "1.0", Less),
            ("1.0-beta-1", "1.0-rc", Less),
            ("1.0.ga", "1.0", Equal),
            ("1.0-sp", "1.0", Greater),
            ("007", "7", Equal),
            ("99999999999999999999999", "99999999999999999999998", Greater),
            ("", "0", Equal),
            ("2.511", "2.479.3", Greater),
        ];
        for (left, right, expected) in cases {
            assert_eq!(compare_versions(left, right), expected, "{left} {right}");
            assert_eq!(compare_versions(right, left), expected.reverse());
        }
    }

    #[test]
    fn tunnels() {
        let cases = [
            ("proxy:1234", "proxy", 1234),
            ("proxy:", "proxy", 50000),
            (":1234", "jenkins", 1234),
            (" proxy : 1234 ", "proxy", 1234),
            (":", "jenkins", 50000),
            ("[::1]:1234", "::1", 1234),
            ("[::1]:", "::1", 50000),
            ("::1:1234", "::1", 1234),
        ];
        for (value, host, port) in cases {
            let mut endpoint = Endpoint::from_headers(&map(good()), "jenkins", None).unwrap();
            endpoint.through(&HostPort::parse(value).unwrap());
            let got = (endpoint.host.as_str(), endpoint.port);
            assert_eq!(got, (host, port), "{value}");
        }
        for bad in ["proxy", "", "proxy:0", "proxy:65536", "proxy:x", "proxy:+1", "a:b:1", "[::1:1", "http://a:1"] {
            assert!(HostPort::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn direct_mode() {
        let protocols = ["JNLP4-connect".to_owned()];
        let endpoint = Endpoint::direct("[::1]:50000", identity(), &protocols).unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("::1", 50000));
        assert_eq!(endpoint.identity, identity());
        for (host_port, protocol) in
            [(":50000", None), ("jenkins:", None), ("jenkins", None), ("jenkins:1", Some("JNLP3-connect".to_owned()))]
        {
            let protocols: Vec<_> = protocol.into_iter().collect();
            let error = Endpoint::direct(host_port, identity(), &protocols).unwrap_err();
            assert!(matches!(error.cause, Cause::Configuration(_)), "{error}");
        }
    }

    #[test]
    fn endpoint_headers() {
        let mut headers = good();
        headers[1].0 = "X-Hudson-JNLP-Port";
        headers.push(("X-Jenkins-JNLP-Host", "agents.example.com"));
        let endpoint = Endpoint::from_headers(&map(headers), "j", None).unwrap();
        assert_eq!(endpoint.host, "agents.example.com");
        assert_eq!(endpoint.controller_version.as_deref(), Some("2.293"));
        assert_eq!(endpoint.protocols, ["JNLP4-connect", "Ping"]);

        let refused: [(&str, Option<&str>, Expected); 9] = [
            ("X-Jenkins-JNLP-Port", None, |c| matches!(c, Cause::Protocol(_))),
            ("X-Jenkins-JNLP-Port", Some("0"), |c| matches!(c, Cause::Protocol(_))),
            ("X-Jenkins-JNLP-Port", Some("65536"), |c| matches!(c, Cause::Protocol(_))),
            ("X-Jenkins-JNLP-Port", Some("x"), |c| matches!(c, Cause::Protocol(_))),
            ("X-Instance-Identity", None, |c| matches!(c, Cause::Protocol(_))),
            ("X-Instance-Identity", Some("?"), |c| matches!(c, Cause::Protocol(_))),
            ("X-Instance-Identity", Some(""), |c| matches!(c, Cause::Protocol(_))),
            (
                "X-Jenkins-Agent-Protocols",
                Some("Ping"),
                |c| matches!(c, Cause::ProtocolNotOffered { offered } if offered == "Ping"),
            ),
            (
                "X-Remoting-Minimum-Version",
                Some("9999.v0"),
                |c| matches!(c, Cause::RemotingTooOld { minimum } if minimum == "9999.v0"),
            ),
        ];
        for (name, value, expected) in refused {
            let mut headers = good();
            headers.retain(|(n, _)| *n != name);
            headers.extend(value.map(|v| (name, v)));
            let cause = Endpoint::from_headers(&map(headers), "j", None);
            let cause = cause.unwrap_err();
            assert!(expected(&cause), "{name}: {value:?}: {cause}");
        }
        // Absent or empty, a list of protocols or a minimum forbids nothing.
        for (name, value) in [("X-Jenkins-Agent-Protocols", " , "), ("X-Remoting-Minimum-Version", "")] {
            let mut headers = good();
            headers.retain(|(n, _)| *n != name);
            Endpoint::from_headers(&map(headers.iter().copied()), "j", None).unwrap();
            headers.push((name, value));
            Endpoint::from_headers(&map(headers), "j", None).unwrap();
        }
        let nothing = Endpoint::from_headers(&HeaderMap::new(), "j", None).unwrap_err();
        assert!(matches!(nothing, Cause::NotJenkins(_)));
    }

    #[test]
    fn a_pinned_identity() {
        let mut headers = good();
        let get = |headers: &[(&'static str, &'static str)], pin: &InstanceIdentity| {
            Endpoint::from_headers(&map(headers.iter().copied()), "j", Some(pin))
        };
        assert_eq!(get(&headers, &identity()).unwrap().identity, identity());
        assert!(matches!(get(&headers, &other_identity()), Err(Cause::IdentityMismatch { .. })));
        headers.retain(|(n, _)| *n != "X-Instance-Identity");
        let endpoint = get(&headers, &other_identity()).unwrap();
        assert_eq!(endpoint.identity, other_identity());
    }

    proptest! {
        #[test]
        fn any_headers_give_an_endpoint_or_a_cause(
            values in proptest::collection::vec(proptest::option::of(".{0,12}|[0-9]{1,6}|MII[A-Z]{1,9}"), 7),
            pinned: bool,
        ) {
            let names = [
                "X-Jenkins", "X-Jenkins-JNLP-Port", "X-Hudson-JNLP-Port", "X-Jenkins-JNLP-Host",
                "X-Instance-Identity", "X-Jenkins-Agent-Protocols", "X-Remoting-Minimum-Version",
            ];
            let headers = names.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?)));
            let headers = map(headers.filter(|(_, value)| HeaderValue::from_bytes(value.as_bytes()).is_ok()));
            let pinned = pinned.then(identity);
            match Endpoint::from_headers(&headers, "jenkins", pinned.as_ref()) {
                Ok(endpoint) => {
                    prop_assert!(endpoint.port > 0 && !endpoint.host.is_empty());
                    prop_assert!(pinned.is_none_or(|pin| pin == endpoint.identity));
                }
                Err(cause) => prop_assert!(!cause.to_string().contains(['\r', '\n'])),
            }
        }

        #[test]
        fn versions_are_ordered(a in "[0-9a-z.-]{0,12}", b in "[0-9a-z.-]{0,12}") {
            prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
            prop_assert_eq!(compare_versions(&a, &a), Ordering::Equal);
        }
    }

    #[tokio::test]
    async fn asks_as_java_does() {
        let (port, server) = serve(&[&answer("200 OK", &good())]).await;
        let mut discovery = discovery(&[format!("http://u:p@localhost:{port}/ci")]);
        discovery.tunnel = Some(HostPort::parse(":4711").unwrap());
        let endpoint = discovery.endpoint().await.unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("localhost", 4711));
        assert_eq!(endpoint.origin, "-tunnel and the header X-Jenkins-JNLP-Port");
        let requests = server.await.unwrap();
        let request = &requests[0];
        assert!(request.starts_with("GET /ci/tcpSlaveAgentListener/ HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nHost: localhost:{port}\r\n")), "{request}");
        assert!(request.contains("\r\nNode-Name: agent 1\r\n"), "{request}");
        assert!(request.contains("\r\nAuthorization: Basic dTpw\r\n"), "{request}");
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        let jenkins = &[("X-Jenkins", "2.293")][..];
        let nothing = &[][..];
        let to_login = &[("Location", "/ci/login?from=x")][..];
        let to_https = &[("Location", "https://localhost/ci/tcpSlaveAgentListener/")][..];
        let starting = answer("503 Service Unavailable", nothing)
            + "<html><head><title>Jenkins</title></head><body><h1>Please wait while Jenkins is getting ready to work</h1>";
        let cases: Vec<(Vec<String>, Expected, &str)> = vec![
            (vec![answer("404 Not Found", jenkins)], |c| matches!(c, Cause::AgentPortDisabled), "disabled"),
            (
                vec![answer("404 Not Found", nothing), answer("200 OK", jenkins)],
                |c| matches!(c, Cause::AgentPortDisabled),
                "disabled",
            ),
            (
                vec![answer("404 Not Found", nothing), answer("404 Not Found", nothing)],
                |c| matches!(c, Cause::Http { status: 404, .. }),
                "path may be wrong",
            ),
            (vec![answer("200 OK", nothing)], |c| matches!(c, Cause::NotJenkins(_)), "X-Jenkins-JNLP-Port"),
            (
                vec![answer("403 Forbidden", nothing) + "go away"],
                |c| matches!(c, Cause::Http { status: 403, .. }),
                "HTTP 403: go away",
            ),
            (vec![starting], |c| matches!(c, Cause::Http { status: 503, .. }), "503: Please wait while Jenkins"),
            (vec![answer("302 Found", to_login)], |c| matches!(c, Cause::Http { status: 302, .. }), "/ci/login"),
            (vec![answer("301 Moved", to_https)], |c| matches!(c, Cause::Http { status: 301, .. }), "to https://"),
            (vec!["SSH-2.0-OpenSSH_9\r\n\r\n".into()], |c| matches!(c, Cause::NotJenkins(_)), "SSH-2.0"),
            (vec![String::new()], |c| matches!(c, Cause::Closed), "closed"),
        ];
        for (answers, expected, text) in cases {
            let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
            let (port, server) = serve(&answers).await;
            let error = local(port).endpoint().await.unwrap_err();
            assert!(expected(&error.cause), "{text}: {error:?}");
            assert!(error.to_string().contains(text), "{error}");
            server.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_moved_listener_is_followed_but_not_with_credentials_to_strangers() {
        let (there, second) = serve(&[&answer("200 OK", &good())]).await;
        let location = format!("http://127.0.0.1:{there}/new/tcpSlaveAgentListener/");
        let (here, first) = serve(&[&answer("301 Moved", &[("Location", &location)])]).await;
        let mut discovery = local(here);
        discovery.credentials = Some(Credentials::parse("a:b").unwrap());
        let endpoint = discovery.endpoint().await.unwrap();
        assert_eq!(endpoint.host, "localhost", "the host of the URL given, as in Java");
        assert!(first.await.unwrap()[0].contains("Authorization"));
        assert!(!second.await.unwrap()[0].contains("Authorization"));
    }

    #[tokio::test]
    async fn the_url_that_works_comes_first_next_time() {
        let agents = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agent_port = agents.local_addr().unwrap().port().to_string();
        let mut headers = good();
        headers[1].1 = &agent_port;
        let (bad, _server) = serve(&[&answer("500 Oops", &[])]).await;
        let (worked, _server) = serve(&[&answer("200 OK", &headers)]).await;
        let urls = [bad, worked].map(|port| format!("http://127.0.0.1:{port}/"));
        let mut discovery = discovery(&urls);
        discovery.endpoint().await.unwrap();
        assert_eq!(discovery.urls[0].port, worked);
        assert_eq!(discovery.urls[1].port, bad);
    }

    #[tokio::test]
    async fn login_tells_readiness() {
        let cases = [
            (vec![answer("200 OK", &[])], true),
            (vec![answer("302 Found", &[("Location", "/sso?x=y")]), answer("200 OK", &[])], true),
            (vec![answer("503 Service Unavailable", &[])], false),
            (vec![answer("302 Found", &[("Location", "https://localhost/login")])], false),
        ];
        for (answers, ready) in cases {
            let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
            let (port, server) = serve(&answers).await;
            assert_eq!(local(port).ready().await.is_ok(), ready);
            let requests = server.await.unwrap();
            assert!(requests[0].starts_with("GET /ci/login HTTP/1.1\r\n"));
            assert!(requests.len() < 2 || requests[1].starts_with("GET /sso?x=y HTTP/1.1\r\n"));
        }
        let (port, server) = serve(&vec![answer("302 Found", &[("Location", "/")]); 6]).await;
        let error = local(port).ready().await.unwrap_err();
        assert!(error.to_string().contains("without end"), "{error}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn plain_http_asks_the_proxy_for_the_whole_url() {
        let (port, proxy) = serve(&[&answer("200 OK", &good())]).await;
        let mut discovery = discovery(&["http://jenkins.example.com/ci".to_owned()]);
        discovery.dialer = via("http_proxy", port);
        discovery.endpoint().await.unwrap();
        let request = &proxy.await.unwrap()[0];
        let line = "GET http://jenkins.example.com/ci/tcpSlaveAgentListener/ HTTP/1.1\r\n";
        assert!(request.starts_with(line), "{request}");
        assert!(request.contains("\r\nProxy-Authorization: Basic dTpw\r\n"), "{request}");
        assert!(request.contains("\r\nHost: jenkins.example.com\r\n"), "{request}");
    }

    #[tokio::test]
    async fn a_proxy_that_wants_credentials_is_told_from_the_controller() {
        let (port, proxy) = serve(&[&answer("407 Proxy Authentication Required", &[])]).await;
        let mut discovery = discovery(&["http://jenkins.example.com/".to_owned()]);
        discovery.dialer = via("http_proxy", port);
        let error = discovery.endpoint().await.unwrap_err();
        assert!(matches!(error.cause, Cause::Proxy { .. }), "{error}");
        assert!(error.to_string().contains("refuses the credentials"), "{error}");
        proxy.await.unwrap();
    }

    #[tokio::test]
    async fn https_with_a_given_authority() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = tokio_rustls::TlsAcceptor::from(server_config(SERVER));
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    crate::transport::dial::tests::read_request(&mut stream).await;
                    let answer = answer("200 OK", &good());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    stream.shutdown().await.unwrap();
                }
            }
        });
        let mut discovery = discovery(&[format!("https://localhost:{port}/")]);
        assert_eq!(discovery.endpoint().await.unwrap().host, "localhost");
        discovery.tls = Arc::new(trusting(&[]));
        let error = discovery.endpoint().await.unwrap_err();
        assert!(matches!(error.cause, Cause::Tls(_)), "{error}");
        server.abort();
    }

    #[test]
    fn plain_http_calls_for_a_warning() {
        let exposed = |url: &str, web_socket, pinned: bool| {
            let mut discovery = discovery(&[url.to_owned()]);
            discovery.identity = pinned.then(identity);
            discovery.exposed(web_socket).is_some()
        };
        assert!(exposed("http://jenkins/", false, false));
        assert!(exposed("http://jenkins/", true, true));
        assert!(!exposed("http://jenkins/", false, true));
        assert!(!exposed("https://jenkins/", true, false));
        assert!(!exposed("http://127.0.0.1/", true, false));
    }

    #[test]
    fn locations() {
        let from = ControllerUrl::parse("https://jenkins/ci").unwrap();
        for (location, expected) in [
            ("/a?b=c#d", Some("https://jenkins/a?b=c")),
            ("http://other:81", Some("http://other:81/")),
            ("http://other?x", Some("http://other/?x")),
            ("relative", None),
            ("//other/", None),
            ("ftp://other/", None),
            ("/a b", None),
        ] {
            let url = resolve(&from, location).map(|u| u.to_string());
            assert_eq!(url.as_deref(), expected, "{location}");
        }
    }
}
