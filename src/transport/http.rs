//! What connecting takes of HTTP: a controller's URL, one request, one bounded answer.
//!
//! Discovery, the WebSocket upgrade and CONNECT all go through here, and so through the same
//! [`Dialer`], proxies and trust: what fails, fails in the same words. hyper does the talking, over
//! a stream that is ours.

use std::error::Error as _;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::ext::ReasonPhrase;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::response;
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
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

/// How long a body may take. The status is known by then; the body only has the words to it.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of a body is wanted, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// What is beyond this is left out.
    pub(crate) bytes: usize,
    /// After this, what has come is the body.
    pub(crate) time: Duration,
}

impl BodyLimits {
    /// For what people read.
    pub(crate) const TEXT: BodyLimits = BodyLimits { bytes: MAX_BODY, time: BODY_TIMEOUT };
}

/// The first value of that name; one that isn't UTF-8 counts as none.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    std::str::from_utf8(headers.get(name)?.as_bytes()).ok()
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    /// Status and headers.
    pub(crate) head: response::Parts,
    /// The beginning of the body, at most 32 KiB unless more was asked for.
    pub(crate) body: Vec<u8>,
    /// The body did not end in time.
    pub(crate) stalled: bool,
}

impl Response {
    /// The status code.
    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// The first value of that header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head.headers, name)
    }

    /// The reason phrase, often empty.
    pub(crate) fn reason(&self) -> String {
        match self.head.extensions.get::<ReasonPhrase>() {
            Some(reason) => excerpt(&String::from_utf8_lossy(reason.as_bytes()), 100),
            // hyper keeps a phrase that isn't the usual one.
            None => self.head.status.canonical_reason().unwrap_or_default().to_owned(),
        }
    }

    /// What the body says to a reader, in one line of at most 300 characters; else the reason.
    ///
    /// Jenkins refuses with Jetty's error page, in a table of which the message is one row.
    pub(crate) fn message(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        let jetty = body.split_once("<th>MESSAGE:</th><td>").and_then(|(_, rest)| rest.split_once("</td>"));
        let text = plain_text(jetty.map_or(&*body, |(message, _)| message));
        if text.is_empty() { self.reason() } else { text }
    }

    /// The cause for a status that isn't the wanted one.
    pub(crate) fn refusal(&self) -> Cause {
        Cause::Http {
            status: self.status(),
            message: match self.header("Location") {
                Some(location) if self.head.status.is_redirection() => {
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

/// A request without a body.
///
/// Values go out as ISO 8859-1, as Jetty reads them, or as UTF-8 where that can't hold one.
///
/// # Errors
/// [`Cause::Configuration`] for what would break out of the request line or a header.
pub(crate) fn request<'a>(
    method: Method,
    target: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Request<Empty<Bytes>>, Cause> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::try_from(target)
        .map_err(|error| Cause::Configuration(format!("{:?} can't be asked for: {error}", excerpt(target, 200))))?;
    for (name, value) in headers {
        let bad_name = |_| Cause::Configuration(format!("{:?} is no header name", excerpt(name, 60)));
        let bad_value = |_| Cause::Configuration(format!("the value of the header {name} contains control characters"));
        let latin1: Result<Vec<u8>, _> = value.chars().map(u8::try_from).collect();
        request.headers_mut().append(
            HeaderName::from_bytes(name.as_bytes()).map_err(bad_name)?,
            HeaderValue::from_bytes(latin1.as_deref().unwrap_or(value.as_bytes())).map_err(bad_value)?,
        );
    }
    Ok(request)
}

/// Sends a request and reads its answer, `deadline` being for status and headers.
///
/// Gives the stream back with what came on it beyond the answer: after an upgrade or a CONNECT,
/// these belong to the next protocol.
pub(crate) async fn exchange<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
    deadline: Duration,
) -> Result<(Response, S, Bytes), Cause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    exchange_within(stream, request, deadline, BodyLimits::TEXT).await
}

/// [`exchange`], with another size of body.
async fn exchange_within<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
    deadline: Duration,
    limits: BodyLimits,
) -> Result<(Response, S, Bytes), Cause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, mut connection) = http1::Builder::new()
        // Names are written as Java's agent writes them, for what compares them with case.
        .title_case_headers(true)
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| cause(&error, b"", deadline))?;
    let answer = async move {
        Ok(match timeout(deadline, sender.send_request(request)).await? {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let (body, stalled) = read_body(body, limits).await;
                Ok(Response { head, body, stalled })
            }
            Err(error) => Err(error),
        })
    };
    let mut answer = pin!(answer);
    // The connection's own end is not of interest: what goes wrong arrives in the answer.
    let answer = tokio::select! {
        answer = &mut answer => answer,
        _ = poll_fn(|cx| connection.poll_without_shutdown(cx)) => answer.await,
    };
    let parts = connection.into_parts();
    match answer {
        Ok(Ok(response)) => Ok((response, parts.io.into_inner(), parts.read_buf)),
        Ok(Err(error)) => Err(cause(&error, &parts.read_buf, deadline)),
        Err(tokio::time::error::Elapsed { .. }) => Err(Cause::TimedOut(deadline)),
    }
}

/// Reads the beginning of a body, and tells whether it came to a halt: an error or an early end is just its end.
async fn read_body(mut incoming: Incoming, limits: BodyLimits) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    let frames = async {
        while body.len() < limits.bytes
            && let Some(Ok(frame)) = incoming.frame().await
        {
            body.extend_from_slice(frame.data_ref().map_or(b"", |data| data));
        }
    };
    let stalled = timeout(limits.time, frames).await.is_err();
    body.truncate(limits.bytes);
    (body, stalled)
}

/// An alert's record (RFC 8446, section 5.1): what a TLS port says to who does not speak TLS.
const TLS_ALERT: &[u8] = &[21, 3];

/// Why there is no answer, of which `received` is what came; what isn't HTTP isn't Jenkins.
fn cause(error: &hyper::Error, received: &[u8], waited: Duration) -> Cause {
    if let Some(io) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        return match (io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()), io.raw_os_error()) {
            (Some(tls), _) => Cause::Tls(tls.clone()),
            (None, Some(code)) => Cause::from_io(io::Error::from_raw_os_error(code), waited),
            (None, None) => Cause::from_io(io::Error::new(io.kind(), io.to_string()), waited),
        };
    }
    let text = String::from_utf8_lossy(received);
    let line = excerpt(text.lines().next().unwrap_or_default(), 60);
    Cause::NotJenkins(if received.len() >= MAX_HEAD {
        "the answer's headers are too large".to_owned()
    } else if received.is_empty() {
        return Cause::Closed;
    } else if received.starts_with(TLS_ALERT) {
        "no HTTP answer but a TLS alert".to_owned()
    } else if !received.starts_with(b"HTTP/1.") {
        format!("no HTTP answer but {line:?}")
    } else if error.is_incomplete_message() {
        format!("the answer ends early: {line:?}")
    } else {
        format!("an unusable HTTP answer, {line:?}: {error}")
    })
}

/// A byte stream to a controller, TLS inside of it where the URL says so.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug> Stream for S {}

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

/// `GET url`, one answer, no redirect followed. `deadline` is for the answer, once connected; `limits` are for its body.
///
/// # Errors
/// [`ConnectError`] where there is no HTTP answer; any status is an answer.
pub(crate) async fn get(
    dialer: &Dialer,
    tls: &TlsConfig,
    url: &ControllerUrl,
    headers: &[(&str, &str)],
    deadline: Duration,
    limits: BodyLimits,
) -> Result<Response, ConnectError> {
    let (stream, target, via): (Box<dyn Stream>, _, _) = if url.tls {
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
    let authority = url.authority();
    let user_agent = concat!("jenkins-inbound-agent/", env!("CARGO_PKG_VERSION"));
    let credentials = via.as_ref().and_then(|proxy| dialer.credentials_for(proxy)).map(Credentials::basic);
    let own = [("Host", authority.as_str()), ("User-Agent", user_agent), ("Accept", "*/*"), ("Connection", "close")];
    let for_proxy = credentials.as_deref().map(|basic| ("Proxy-Authorization", basic));
    let headers = own.into_iter().chain(headers.iter().copied()).chain(for_proxy);
    let request = request(Method::GET, &target, headers).map_err(error)?;
    let (response, ..) = exchange_within(stream, request, deadline, limits).await.map_err(error)?;
    match &via {
        Some(proxy) if response.status() == 407 => Err(error(Cause::Proxy {
            proxy: proxy.to_string(),
            message: wants_credentials(credentials.is_some()).to_owned(),
        })),
        _ => Ok(response),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::dial::tests::read_request;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

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

    /// What becomes of this answer, the connection being closed after it if `close`.
    async fn answer(answer: &[u8], close: bool) -> Result<(Response, Bytes), Cause> {
        let (ours, mut theirs) = tokio::io::duplex(answer.len().max(1000));
        let request = request(Method::GET, "/", [("Host", "jenkins")]).unwrap();
        let serve = async {
            read_request(&mut theirs).await;
            theirs.write_all(answer).await.unwrap();
            if close {
                theirs.shutdown().await.unwrap();
            }
        };
        let (answer, ()) = tokio::join!(exchange(ours, request, Duration::from_secs(60)), serve);
        answer.map(|(response, _, beyond)| (response, beyond))
    }

    async fn answered(bytes: &[u8]) -> Result<(Response, Bytes), Cause> {
        answer(bytes, true).await
    }

    #[tokio::test]
    async fn heads() {
        let (response, _) = answered(b"HTTP/1.1 200 Fine\r\nX-Jenkins: 2.293\r\nA:b:c \r\n\r\n").await.unwrap();
        assert_eq!((response.status(), response.reason().as_str()), (200, "Fine"));
        assert_eq!(response.header("x-jenkins"), Some("2.293"));
        assert_eq!(response.header("a"), Some("b:c"));
        for (line, reason) in
            [("407", ""), ("407 ", ""), ("407 Proxy Authentication Required", "Proxy Authentication Required")]
        {
            let (response, _) = answered(format!("HTTP/1.0 {line}\r\n\r\n").as_bytes()).await.unwrap();
            assert_eq!((response.status(), response.reason().as_str()), (407, reason));
        }
        for (bad, expected) in [
            ("SSH-2.0-OpenSSH\r\n\r\n", "no HTTP answer but \"SSH-2.0-OpenSSH\""),
            ("SSH-2.0-OpenSSH", "no HTTP answer"),
            ("\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{50}", "a TLS alert"),
            ("HTTP/2 200\r\n\r\n", "no HTTP answer"),
            ("HTTP/1.1 20\r\n\r\n", "unusable"),
            ("HTTP/1.1 2000 x\r\n\r\n", "unusable"),
            ("HTTP/1.1 +20 x\r\n\r\n", "unusable"),
            ("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "unusable"),
            ("HTTP/1.1 200 OK\r\nA: b", "ends early"),
        ] {
            match answered(bad.as_bytes()).await.unwrap_err() {
                Cause::NotJenkins(message) => assert!(message.contains(expected), "{bad:?}: {message}"),
                other => panic!("{bad:?}: {other:?}"),
            }
        }
        assert!(matches!(answered(b"").await, Err(Cause::Closed)));
    }

    #[tokio::test]
    async fn who_speaks_before_being_asked_is_told() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        theirs.write_all(b"SSH-2.0-OpenSSH_9\r\n").await.unwrap();
        let request = request(Method::GET, "/", []).unwrap();
        let cause = exchange(ours, request, Duration::from_secs(60)).await.unwrap_err();
        assert!(cause.to_string().ends_with("no HTTP answer but \"SSH-2.0-OpenSSH_9\""), "{cause}");
    }

    #[tokio::test]
    async fn what_follows_an_upgrade_is_kept() {
        let (response, beyond) = answered(b"HTTP/1.1 101 x\r\n\r\nfirst frame").await.unwrap();
        assert_eq!((response.status(), &*beyond), (101, &b"first frame"[..]));
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
        let (head, ()) = hyper::Response::new(()).into_parts();
        let response = Response { head, body: page.into(), stalled: false };
        assert_eq!(response.message(), "no such <agent>");
    }

    #[test]
    fn requests_cannot_be_smuggled() {
        let header = |name, value| {
            let request = request(Method::GET, "/", [(name, value)])?;
            Ok::<_, Cause>(request.headers()[name].as_bytes().to_vec())
        };
        assert!(header("Node-Name", "a\r\nSecret-Key: b").is_err());
        assert!(header("Node Name", "a").is_err());
        assert!(header("", "a").is_err());
        assert_eq!(header("Node-Name", "käse").unwrap(), b"k\xe4se");
        assert_eq!(header("Node-Name", "节").unwrap(), "节".as_bytes());
        assert!(matches!(request(Method::GET, "/ HTTP/1.1\r\nA: b", []), Err(Cause::Configuration(_))));
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
            let answer = format!("HTTP/1.1 400 x\r\n{header}\r\n\r\n{sent}");
            let (response, _) = answered(answer.as_bytes()).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&response.body), *expected, "{header}");
        }
        let mut endless = b"HTTP/1.1 400 x\r\n\r\n".to_vec();
        endless.resize(MAX_BODY * 2, b'x');
        assert_eq!(answered(&endless).await.unwrap().0.body.len(), MAX_BODY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_leaves_the_status() {
        let started = tokio::time::Instant::now();
        let (response, _) = answer(b"HTTP/1.1 403 x\r\nContent-Length: 99\r\n\r\nno", false).await.unwrap();
        assert_eq!((response.status(), response.message().as_str()), (403, "no"));
        assert_eq!(started.elapsed().as_secs(), BODY_TIMEOUT.as_secs());
    }

    #[tokio::test]
    async fn endless_heads_are_cut() {
        for (start, expected) in [("", "no HTTP answer"), ("HTTP/1.1 200 OK\r\n", "too large")] {
            let mut answer = start.as_bytes().to_vec();
            answer.resize(MAX_HEAD * 2, b'x');
            let cause = answered(&answer).await.unwrap_err();
            assert!(cause.to_string().contains(expected), "{cause}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, text in "(<|/|script|head|é|>|a|&lt;| |!--){0,30}") {
            let _ = plain_text(&String::from_utf8_lossy(&bytes));
            prop_assert!(plain_text(&text).chars().count() <= 301);
        }
    }
}
