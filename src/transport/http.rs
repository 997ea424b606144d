//! As much HTTP/1.1 as connecting takes: a controller's URL, one request, one bounded answer.
//!
//! Discovery, the WebSocket upgrade and CONNECT all go through here, and so through the same
//! [`Dialer`], proxies and trust: what fails, fails in the same words.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::dial::Dialer;
use super::proxy::{Credentials, Decision, Scheme, host_port, split_host_port};
use super::trust::TlsConfig;
use super::{Cause, ConnectError};

/// Bytes of status line and headers that are accepted. Jetty's own limit for what it sends is 32 KiB.
const MAX_HEAD: usize = 64 << 10;

/// Bytes of a body that are looked at: enough to tell what an error page says.
const MAX_BODY: usize = 32 << 10;

/// Headers of an answer: names compare without case, order is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        self.0
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .flat_map(|(_, value)| value.split(','))
            .any(|value| value.trim().eq_ignore_ascii_case(token))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(headers: T) -> Self {
        let headers = headers.into_iter();
        Self(headers.map(|(n, v)| (n.into(), v.into())).collect())
    }
}

/// Status line and headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase, often empty.
    pub reason: String,
    /// The headers.
    pub headers: Headers,
}

impl Head {
    /// Parses everything before the empty line. Bytes beyond ASCII are taken as ISO 8859-1.
    ///
    /// # Errors
    /// A text that says what is not HTTP about it.
    pub fn parse(head: &[u8]) -> Result<Self, String> {
        let text: String = head.iter().copied().map(char::from).collect();
        let mut lines = text.split('\n').map(|line| line.trim_end_matches('\r'));
        let status_line = lines.next().unwrap_or_default();
        let not_http = || format!("no HTTP answer but {:?}", excerpt(status_line, 60));
        let rest = status_line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(1..)?.strip_prefix(' '))
            .ok_or_else(not_http)?;
        let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let status = match status.parse::<u16>() {
            Ok(status @ 100..=999) if status.to_string().len() == rest.len().min(3) => status,
            _ => return Err(not_http()),
        };
        let mut headers = Vec::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some((name, value)) = line.split_once(':') else {
                return Err(format!("a header without a colon: {:?}", excerpt(line, 60)));
            };
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        Ok(Self { status, reason: excerpt(reason, 100), headers: Headers(headers) })
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status and headers.
    pub head: Head,
    /// The beginning of the body, at most 32 KiB.
    pub body: Vec<u8>,
}

impl Response {
    /// What the body says to a reader, in one line of at most 300 characters; else the reason.
    ///
    /// Jenkins refuses with Jetty's error page, in a table of which the message is one row.
    pub fn message(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        let jetty = body.split_once("<th>MESSAGE:</th><td>").and_then(|(_, rest)| rest.split_once("</td>"));
        let text = plain_text(jetty.map_or(&*body, |(message, _)| message));
        if text.is_empty() { self.head.reason.clone() } else { text }
    }

    /// The cause for a status that isn't the wanted one.
    pub(crate) fn refusal(&self) -> Cause {
        Cause::Http {
            status: self.head.status,
            message: match self.head.headers.get("Location") {
                Some(location) if (300..400).contains(&self.head.status) => {
                    format!("it redirects to {}", excerpt(location, 200))
                }
                _ => self.message(),
            },
        }
    }
}

/// At most `limit` characters of a text, none of them a control character.
pub(crate) fn excerpt(text: &str, limit: usize) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.trim().chars().map(clean).take(limit).collect();
    if text.trim().chars().nth(limit).is_some() {
        short.push('…');
    }
    short
}

/// The text of an HTML page or of plain text: no tags, scripts, styles, runs of white space.
fn plain_text(body: &str) -> String {
    let mut out = String::new();
    let lower = body.to_ascii_lowercase();
    let mut rest = body;
    while let Some(start) = rest.find('<') {
        out.push_str(&rest[..start]);
        let tag = &rest[start..];
        // "a < b" is no tag.
        if !tag[1..].starts_with(|c: char| c.is_ascii_alphabetic() || "/!?".contains(c)) {
            out.push('<');
            rest = &tag[1..];
            continue;
        }
        out.push(' ');
        let end = ["script", "style", "head", "!--"]
            .iter()
            .find(|name| {
                let opening = tag.as_bytes().get(1..=name.len());
                opening.is_some_and(|t| t.eq_ignore_ascii_case(name.as_bytes()))
                    && !(**name == "head" && tag[5..].starts_with(|c: char| c.is_alphabetic()))
            })
            .map_or(">".to_owned(), |name| match *name {
                "!--" => "-->".to_owned(),
                name => format!("</{name}>"),
            });
        let lower = &lower[body.len() - tag.len()..];
        rest = lower.find(&end).map_or("", |at| &tag[at + end.len()..]);
    }
    out.push_str(rest);
    for (entity, character) in
        [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
    {
        out = out.replace(entity, character);
    }
    let words: Vec<&str> = out.split_whitespace().collect();
    excerpt(&words.join(" "), 300)
}

/// The root URL of a controller.
#[derive(Clone, PartialEq, Eq)]
pub struct ControllerUrl {
    /// Whether it is `https://`.
    pub tls: bool,
    /// Name or address; an IPv6 literal without brackets.
    pub host: String,
    /// The port, 80 or 443 where the URL has none.
    pub port: u16,
    /// Begins and ends with a slash.
    pub path: String,
    /// From the URL's userinfo.
    pub credentials: Option<Credentials>,
}

impl ControllerUrl {
    /// Parses `http(s)://[user:password@]host[:port][/path]`; a missing slash at the end is added.
    ///
    /// # Errors
    /// [`Cause::Configuration`]. No message contains the credentials.
    pub fn parse(url: &str) -> Result<Self, ConnectError> {
        Self::parse_parts(url.trim()).map_err(|reason| {
            let shown = match (url.find("://"), url.rfind('@')) {
                (Some(scheme), Some(at)) if scheme < at => {
                    format!("{}…{}", &url[..scheme + 3], &url[at..])
                }
                _ => url.to_owned(),
            };
            let cause = Cause::Configuration(reason.to_owned());
            ConnectError::new("using the URL", excerpt(&shown, 200), cause)
        })
    }

    fn parse_parts(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or("it must begin with http:// or https://")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => false,
            "https" | "wss" => true,
            _ => return Err("it must begin with http:// or https://"),
        };
        let slash = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(slash);
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("its path has a character that must be percent-encoded");
        }
        if path.contains(['?', '#']) {
            return Err("the root URL of Jenkins has no query and no fragment");
        }
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((userinfo, address)) => {
                let credentials =
                    Credentials::from_userinfo(userinfo).ok_or("its credentials contain control characters")?;
                (Some(credentials), address)
            }
            None => (None, authority),
        };
        let (host, port) = split_host_port(address).ok_or("its host and port are malformed")?;
        if host.is_empty() {
            return Err("it has no host name");
        }
        if !host.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("its host name must be ASCII (punycode for international names)");
        }
        let mut path = path.to_owned();
        if !path.ends_with('/') {
            path.push('/');
        }
        Ok(Self { tls, host: host.to_owned(), port: port.unwrap_or(if tls { 443 } else { 80 }), path, credentials })
    }

    /// Which proxy variables apply.
    pub fn scheme(&self) -> Scheme {
        if self.tls { Scheme::Https } else { Scheme::Http }
    }

    /// The value of a `Host` header: the port only where it isn't the scheme's own.
    pub fn authority(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        let full = host_port(&self.host, self.port);
        match full.strip_suffix(&format!(":{default}")) {
            Some(host) if self.port == default => host.to_owned(),
            _ => full,
        }
    }

    /// The same server, another path beneath the root.
    pub(crate) fn join(&self, relative: &str) -> Self {
        let mut url = self.clone();
        url.path.push_str(relative);
        url
    }

    /// Whether what is sent there can be read on the way: identity, secret and all.
    pub fn is_plain(&self) -> bool {
        !self.tls
    }
}

impl fmt::Display for ControllerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl fmt::Debug for ControllerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A request's head in the making.
pub(crate) struct Request(Vec<u8>);

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self(format!("{method} {target} HTTP/1.1\r\n").into_bytes())
    }

    /// Adds a header.
    ///
    /// A value goes out as ISO 8859-1, as Jetty reads it, or as UTF-8 where that can't hold it.
    ///
    /// # Errors
    /// [`Cause::Configuration`] for what would break out of the header.
    pub(crate) fn header(&mut self, name: &str, value: &str) -> Result<(), Cause> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            let name = excerpt(name, 60);
            return Err(Cause::Configuration(format!("{name:?} is no header name")));
        }
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Cause::Configuration(format!("the value of the header {name} contains control characters")));
        }
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        match value.chars().map(u8::try_from).collect::<Result<Vec<u8>, _>>() {
            Ok(latin1) => self.0.extend_from_slice(&latin1),
            Err(_) => self.0.extend_from_slice(value.as_bytes()),
        }
        self.0.extend_from_slice(b"\r\n");
        Ok(())
    }

    pub(crate) async fn send(mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        self.0.extend_from_slice(b"\r\n");
        stream.write_all(&self.0).await?;
        stream.flush().await
    }
}

/// Reads a head and what came with it beyond.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Head, Vec<u8>)> {
    let mut buffer = Vec::with_capacity(1024);
    loop {
        let searched = buffer.len().saturating_sub(3);
        if stream.read_buf(&mut buffer).await? == 0 {
            if buffer.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let what = excerpt(&String::from_utf8_lossy(&buffer), 60);
            return Err(invalid(format!("the answer ends early: {what:?}")));
        }
        if let Some(at) = find(&buffer[searched..], b"\r\n\r\n") {
            let body = buffer.split_off(searched + at + 4);
            return Ok((Head::parse(&buffer).map_err(invalid)?, body));
        }
        if !b"HTTP/1.".starts_with(&buffer[..buffer.len().min(7)]) {
            Head::parse(&buffer).map_err(invalid)?;
        }
        if buffer.len() > MAX_HEAD {
            return Err(invalid("the answer's headers are too large".to_owned()));
        }
    }
}

/// As [`read_head`], without taking a byte beyond the head from the stream.
pub(crate) async fn read_head_exactly(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Head> {
    let mut buffer = Vec::with_capacity(256);
    while !buffer.ends_with(b"\r\n\r\n") {
        if buffer.len() >= MAX_HEAD {
            return Err(invalid("the answer's headers are too large".to_owned()));
        }
        buffer.push(stream.read_u8().await?);
    }
    Head::parse(&buffer).map_err(invalid)
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// Reads the beginning of a body: an error or an early end is just its end.
pub(crate) async fn read_body(stream: &mut (impl AsyncRead + Unpin), head: &Head, mut body: Vec<u8>) -> Vec<u8> {
    let chunked = head.headers.has_token("Transfer-Encoding", "chunked");
    let length = match head.headers.get("Content-Length") {
        _ if matches!(head.status, 204 | 304) => 0,
        Some(length) if !chunked => length.parse().unwrap_or(MAX_BODY).min(MAX_BODY),
        _ => MAX_BODY,
    };
    while body.len() < length && !(chunked && dechunk(&body).1) {
        match stream.read_buf(&mut body).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    if chunked {
        body = dechunk(&body).0;
    }
    body.truncate(length);
    body
}

/// The payload of what has arrived of a chunked body (RFC 9112, 7.1), and whether that is all.
fn dechunk(mut raw: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = find(raw, b"\r\n") else {
            return (body, false);
        };
        let line = String::from_utf8_lossy(&raw[..end]);
        let size = line.split(';').next().unwrap_or_default().trim();
        let Ok(size) = usize::from_str_radix(size, 16) else {
            return (body, true);
        };
        raw = &raw[end + 2..];
        if size == 0 {
            return (body, true);
        }
        let available = size.min(raw.len());
        body.extend_from_slice(&raw[..available]);
        match size.checked_add(2).and_then(|n| raw.get(n..)) {
            Some(rest) => raw = rest,
            None => return (body, false),
        }
    }
}

/// A byte stream to a controller, TLS inside of it where the URL says so.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug> Stream for S {}

/// The cause of a failure while `waited` was the deadline; what isn't HTTP isn't Jenkins.
pub(crate) fn io_cause(error: io::Error, waited: Duration) -> Cause {
    match error.kind() {
        io::ErrorKind::InvalidData if !error.get_ref().is_some_and(|e| e.is::<rustls::Error>()) => {
            Cause::NotJenkins(error.to_string())
        }
        _ => Cause::from_io(error, waited),
    }
}

/// Does TLS over a stream to `host`.
pub(crate) async fn start_tls<S>(
    tls: &TlsConfig,
    host: &str,
    address: &str,
    stream: S,
    deadline: Duration,
) -> Result<tokio_rustls::client::TlsStream<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let error = |cause: Cause| ConnectError::new("TLS handshake with", address, cause);
    let config = tls.client_config().map_err(|e| error(Cause::Configuration(e.to_string())))?;
    let name = rustls_pki_types::ServerName::try_from(host.to_owned())
        .map_err(|e| error(Cause::Configuration(e.to_string())))?;
    match timeout(deadline, TlsConnector::from(config).connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) => Err(error(Cause::from_io(e, deadline))),
        Err(_) => Err(error(Cause::TimedOut(deadline))),
    }
}

/// What a proxy's 407 means.
pub(crate) fn wants_credentials(given: bool) -> &'static str {
    if given { "it refuses the credentials (HTTP 407)" } else { "it wants credentials (HTTP 407)" }
}

/// `GET url`, one answer, no redirect followed. `deadline` is for the answer, once connected.
///
/// # Errors
/// [`ConnectError`] where there is no HTTP answer; any status is an answer.
pub(crate) async fn get(
    dialer: &Dialer,
    tls: &TlsConfig,
    url: &ControllerUrl,
    headers: &[(&str, &str)],
    deadline: Duration,
) -> Result<Response, ConnectError> {
    let (mut stream, target, via): (Box<dyn Stream>, _, _) = if url.tls {
        let stream = dialer.connect(url.scheme(), &url.host, url.port).await?;
        let stream = start_tls(tls, &url.host, &url.to_string(), stream, deadline).await?;
        (Box::new(stream), url.path.clone(), None)
    } else {
        // Plain HTTP asks the proxy for the whole URL, as Java does: many allow CONNECT to 443 only.
        match dialer.proxies.decide(url.scheme(), &url.host, url.port) {
            Decision::Via { proxy, .. } => {
                let stream = dialer.connect_to_proxy(&proxy).await?;
                (Box::new(stream), url.to_string(), Some(proxy))
            }
            Decision::Direct { .. } => {
                let stream = dialer.connect(url.scheme(), &url.host, url.port).await?;
                (Box::new(stream), url.path.clone(), None)
            }
        }
    };
    let error = |cause: Cause| ConnectError::new("GET", url.to_string(), cause);
    let mut request = Request::new("GET", &target);
    let authority = url.authority();
    let user_agent = concat!("jenkins-inbound-agent/", env!("CARGO_PKG_VERSION"));
    let own = [("Host", authority.as_str()), ("User-Agent", user_agent), ("Accept", "*/*"), ("Connection", "close")];
    for (name, value) in own.iter().chain(headers) {
        request.header(name, value).map_err(error)?;
    }
    let credentials = via.as_ref().and_then(|proxy| dialer.credentials_for(proxy));
    if let Some(credentials) = credentials {
        request.header("Proxy-Authorization", &credentials.basic()).map_err(error)?;
    }
    let exchange = async {
        request.send(&mut stream).await?;
        let (head, rest) = read_head(&mut stream).await?;
        let body = read_body(&mut stream, &head, rest).await;
        Ok(Response { head, body })
    };
    match timeout(deadline, exchange).await {
        Ok(Ok(response)) => match &via {
            Some(proxy) if response.head.status == 407 => Err(error(Cause::Proxy {
                proxy: proxy.to_string(),
                message: wants_credentials(credentials.is_some()).to_owned(),
            })),
            _ => Ok(response),
        },
        Ok(Err(e)) => Err(error(io_cause(e, deadline))),
        Err(_) => Err(error(Cause::TimedOut(deadline))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls() {
        let cases = [
            ("http://jenkins", "http://jenkins/", 80),
            ("HTTPS://jenkins/", "https://jenkins/", 443),
            ("https://jenkins:8443/ci", "https://jenkins:8443/ci/", 8443),
            ("http://u:p%40ss@jenkins:80/", "http://jenkins/", 80),
            ("http://[::1]:8080", "http://[::1]:8080/", 8080),
            ("http://[::1]/", "http://[::1]/", 80),
            ("http://a.example:443/", "http://a.example:443/", 443),
        ];
        for (given, shown, port) in cases {
            let url = ControllerUrl::parse(given).unwrap();
            assert_eq!((url.to_string().as_str(), url.port), (shown, port));
        }
        let url = ControllerUrl::parse("http://u:p%40ss@jenkins/").unwrap();
        assert_eq!(url.credentials.unwrap().basic(), Credentials::parse("u:p@ss").unwrap().basic());
        for bad in [
            "jenkins:8080",
            "ftp://u:sesame@jenkins/",
            "http://",
            "http://u:sesame@/",
            "http://jenkins:0/",
            "http://jenkins:x/",
            "http://jenkins/?a=b",
            "http://jenkins/a b",
            "http://jenk ins/",
            "http://jenkins/\r\nX: y",
        ] {
            let error = ControllerUrl::parse(bad).unwrap_err();
            assert!(matches!(error.cause, Cause::Configuration(_)), "{bad}");
            assert!(!error.to_string().contains("sesame"), "{error}");
        }
    }

    #[test]
    fn heads() {
        let head = Head::parse(b"HTTP/1.1 200 OK\r\nX-Jenkins: 2.293\r\nA:b:c \r\n\r\n").unwrap();
        assert_eq!((head.status, head.reason.as_str()), (200, "OK"));
        assert_eq!(head.headers.get("x-jenkins"), Some("2.293"));
        assert_eq!(head.headers.get("a"), Some("b:c"));
        assert_eq!(Head::parse(b"HTTP/1.0 407\r\n\r\n").unwrap().status, 407);
        for bad in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20\r\n\r\n",
            "HTTP/1.1 2000 x\r\n\r\n",
            "HTTP/1.1 +20 x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
        ] {
            assert!(Head::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn pages_become_a_line() {
        let cases = [
            ("no such agent\n", "no such agent"),
            ("<html><head><title>x</title></head><body><h1>Oops!</h1>\n<p>a &lt; b &amp; c", "Oops! a < b & c"),
            ("<script>if (a<b) x</script>text<style>p {}</style>", "text"),
            ("<!-- a > b -->x<header>y</header>", "x y"),
            ("1 < 2 and\t3", "1 < 2 and 3"),
            ("<script>never closed", ""),
        ];
        for (body, expected) in cases {
            assert_eq!(plain_text(body), expected);
        }
        assert_eq!(plain_text(&"é".repeat(1000)).chars().count(), 301);
    }

    #[test]
    fn the_message_of_a_jetty_error_page() {
        // As Jenkins 2.293 answers on wsagents/.
        let page = "<html>\n<head>\n<title>Error 400 no such agent</title>\n</head>\n<body>\
            <h2>HTTP ERROR 400 no such agent</h2>\n<table>\n<tr><th>URI:</th><td>/wsagents/</td></tr>\n\
            <tr><th>STATUS:</th><td>400</td></tr>\n<tr><th>MESSAGE:</th><td>no such &lt;agent&gt;</td></tr>\n\
            <tr><th>SERVLET:</th><td>Stapler</td></tr>\n</table>\n<hr>Powered by Jetty<hr/>\n</body></html>";
        let response = Response { head: Head::parse(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap(), body: page.into() };
        assert_eq!(response.message(), "no such <agent>");
    }

    #[test]
    fn headers_cannot_be_smuggled() {
        let mut request = Request::new("GET", "/");
        assert!(request.header("Node-Name", "a\r\nSecret-Key: b").is_err());
        assert!(request.header("Node Name", "a").is_err());
        assert!(request.header("", "a").is_err());
        request.header("Node-Name", "käse").unwrap();
        request.header("Node-Name", "节").unwrap();
        assert_eq!(request.0, b"GET / HTTP/1.1\r\nNode-Name: k\xe4se\r\nNode-Name: \xe8\x8a\x82\r\n");
    }

    #[tokio::test]
    async fn bodies_end_where_they_end() {
        let cases: &[(&str, &str, &str)] = &[
            ("Content-Length: 4", "abcdef", "abcd"),
            ("Content-Length: 40", "abcdef", "abcdef"),
            ("X: y", "abcdef", "abcdef"),
            ("Transfer-Encoding: chunked", "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", "abcde"),
            ("Transfer-Encoding: chunked", "ffffffffffffffff\r\nabc", "abc"),
            ("Transfer-Encoding: chunked", "zz\r\nabc", ""),
        ];
        for (header, sent, expected) in cases {
            let head = Head::parse(format!("HTTP/1.1 400 x\r\n{header}\r\n\r\n").as_bytes());
            let mut rest = &sent.as_bytes()[1..];
            let body = read_body(&mut rest, &head.unwrap(), sent.as_bytes()[..1].to_vec()).await;
            assert_eq!(String::from_utf8_lossy(&body), *expected, "{header}");
        }
        let head = Head::parse(b"HTTP/1.1 400 x\r\n\r\n").unwrap();
        let body = read_body(&mut tokio::io::repeat(b'x'), &head, Vec::new()).await;
        assert_eq!(body.len(), MAX_BODY);
    }

    #[tokio::test]
    async fn endless_heads_are_cut() {
        let error = read_head(&mut tokio::io::repeat(b'x')).await.unwrap_err();
        assert!(error.to_string().contains("no HTTP answer"), "{error}");
        let mut stream = b"HTTP/1.1 200 OK\r\n".chain(tokio::io::repeat(b'x'));
        let error = read_head(&mut stream).await.unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
        let mut stream = b"HTTP/1.1 200 OK\r\n".chain(tokio::io::repeat(b'x'));
        let error = read_head_exactly(&mut stream).await.unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, text in "(<|/|script|head|é|>|a|&lt;| |!--){0,30}") {
            let _ = Head::parse(&bytes);
            let _ = dechunk(&bytes);
            let _ = plain_text(&String::from_utf8_lossy(&bytes));
            prop_assert!(plain_text(&text).chars().count() <= 301);
        }
    }
}
