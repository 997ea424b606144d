//! Who is it, by the first bytes that it sends? No IO; nothing in the bytes is trusted, and no secret of theirs is kept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Serialize;

use crate::transport::http::excerpt;

/// No more of what arrives is looked at.
pub const MAX_BYTES: usize = 16 << 10;

/// No more headers are kept.
const MAX_HEADERS: usize = 64;

/// Characters of a value that are kept.
const MAX_VALUE: usize = 200;

/// What somebody sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Greeting {
    /// A request of HTTP: a browser, a probe, an agent that looks for its port.
    Http {
        /// `GET /login HTTP/1.1`, without its query.
        request: String,
        /// Names and values; those that may be secrets are replaced by how long they are.
        headers: Vec<(String, String)>,
    },
    /// An inbound agent that takes this for the controller's agent port.
    Agent {
        /// `JNLP4-connect`.
        protocol: String,
    },
    /// The beginning of TLS.
    Tls {
        /// For which host name (SNI).
        server_name: Option<String>,
        /// For which protocols (ALPN).
        protocols: Vec<String>,
        /// The newest version offered: `TLS 1.3`.
        version: String,
    },
    /// Something else.
    Other {
        /// Its first line, as far as it is text.
        text: String,
    },
    /// Nothing.
    Silence,
}

/// What somebody sends, and what a load balancer says of it before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sniffed {
    /// The peer's address according to a PROXY protocol header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxied_for: Option<String>,
    /// What follows.
    #[serde(flatten)]
    pub greeting: Greeting,
}

/// Looks at what has arrived so far. `None` where more is needed; with `last`, nothing more will come.
pub fn sniff(bytes: &[u8], last: bool) -> Option<Sniffed> {
    let last = last || bytes.len() >= MAX_BYTES;
    let (proxied_for, rest) = match proxy_header(bytes) {
        Read::Is(from, length) => (Some(from), &bytes[length..]),
        Read::More if !last => return None,
        _ => (None, bytes),
    };
    let greeting = if rest.is_empty() {
        if !last {
            return None;
        }
        Greeting::Silence
    } else {
        match http(rest).or(|| agent(rest)).or(|| tls(rest)) {
            Read::Is(greeting, _) => greeting,
            Read::More if !last => return None,
            _ => Greeting::Other { text: other(rest) },
        }
    };
    Some(Sniffed { proxied_for, greeting })
}

enum Read<T> {
    /// Read, and of how many bytes.
    Is(T, usize),
    More,
    Not,
}

impl<T> Read<T> {
    fn or(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Read::Not => other(),
            read => read,
        }
    }
}

fn http(bytes: &[u8]) -> Read<Greeting> {
    let method = bytes.iter().take_while(|b| b.is_ascii_uppercase()).count();
    match bytes.get(method) {
        _ if method > 16 => return Read::Not,
        None => return Read::More,
        Some(b' ') if method >= 3 => {}
        Some(_) => return Read::Not,
    }
    let ends = [(&b"\r\n\r\n"[..], 4), (b"\n\n", 2)];
    let end = ends
        .iter()
        .filter_map(|(end, length)| Some(bytes.windows(*length).position(|window| window == *end)? + length));
    let whole = match end.min() {
        Some(end) => end,
        // Headers without end are shown as far as they are there.
        None if bytes.len() >= MAX_BYTES => bytes.len(),
        None => return Read::More,
    };
    let text = String::from_utf8_lossy(&bytes[..whole]);
    let mut lines = text.lines();
    let request = request_line(lines.next().unwrap_or_default());
    let headers = lines.filter_map(|line| line.split_once(':')).take(MAX_HEADERS);
    let headers = headers.map(|(name, value)| (excerpt(name, 60), header(name.trim(), value.trim()))).collect();
    Read::Is(Greeting::Http { request, headers }, whole)
}

/// Without the query, and without user and password before a proxy's whole URL.
fn request_line(line: &str) -> String {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let version = words.next().map(|version| format!(" {version}")).unwrap_or_default();
    let (path, query) = match target.split_once(['?', '#']) {
        Some((path, _)) => (path, "?(hidden)"),
        None => (target, ""),
    };
    let path = match path.split_once("://") {
        Some((scheme, rest)) => {
            let slash = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at(slash);
            format!("{scheme}://{}{path}", authority.rsplit('@').next().unwrap_or_default())
        }
        None => path.to_owned(),
    };
    excerpt(&without_keys(&format!("{method} {path}{query}{version}")), MAX_VALUE)
}

/// Parts of the names of headers whose values are nobody's business.
const SECRET: &[&str] = &[
    "auth",
    "secret",
    "cookie",
    "token",
    "password",
    "passwd",
    "credential",
    "session",
    "key",
    "crumb",
    "jwt",
    "saml",
];

/// Headers of WebSockets that only sound like it.
const PUBLIC: &[&str] = &["sec-websocket-key"];

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|part| name.contains(part)) && !PUBLIC.contains(&name.as_str())
}

fn header(name: &str, value: &str) -> String {
    if is_secret(name) {
        return format!("(hidden, {} characters)", value.chars().count());
    }
    excerpt(&without_keys(value), MAX_VALUE)
}

/// Replaces what may be a key, wherever it stands: Jenkins' secrets are 64 hexadecimal digits, tokens 32 or 34.
fn without_keys(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let length = rest[start..].bytes().take_while(u8::is_ascii_hexdigit).count();
        out.push_str(&rest[..start]);
        match length {
            32.. => out.push_str("(hidden)"),
            _ => out.push_str(&rest[start..start + length]),
        }
        rest = &rest[start + length..];
    }
    out.push_str(rest);
    out
}

/// An agent's first item: a length of two bytes, then `Protocol:` and a name. What it sends behind that is not looked
/// at: with the protocols of old the secret follows at once.
fn agent(bytes: &[u8]) -> Read<Greeting> {
    const START: &[u8] = b"Protocol:";
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else {
        return if bytes == [0] { Read::More } else { Read::Not };
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if !(START.len()..256).contains(&length) {
        return Read::Not;
    }
    let item = &rest[..rest.len().min(length)];
    let seen = item.len().min(START.len());
    if item[..seen] != START[..seen] {
        return Read::Not;
    }
    if item.len() < length {
        return Read::More;
    }
    let protocol = excerpt(&String::from_utf8_lossy(&item[START.len()..]), 60);
    Read::Is(Greeting::Agent { protocol }, 2 + length)
}

/// What is left of a message, and parts of it.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of `bytes` bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| (number << 8) | usize::from(*byte)))
    }

    /// What follows its length, which has `bytes` bytes.
    fn vector(&mut self, bytes: usize) -> Option<Parts<'a>> {
        let length = self.number(bytes)?;
        self.take(length).map(Parts)
    }
}

/// A ClientHello (RFC 8446, section 4.1.2), which may be spread over several records.
fn tls(bytes: &[u8]) -> Read<Greeting> {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    let known = |at: usize, wanted: u8| bytes.get(at).is_none_or(|byte| *byte == wanted);
    if !known(0, HANDSHAKE) || !known(1, 3) || !known(5, CLIENT_HELLO) {
        return Read::Not;
    }
    let mut message = Vec::new();
    let mut records = Parts(bytes);
    while let Some(&[kind, _, _, high, low]) = records.take(5) {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let body = &records.0[..length.min(records.0.len())];
        if kind != HANDSHAKE || length == 0 {
            return Read::Not;
        }
        message.extend_from_slice(body);
        if records.take(length).is_none() {
            break;
        }
    }
    let mut hello = Parts(&message);
    match (hello.take(1), hello.vector(3)) {
        (Some(_), Some(hello)) => match client_hello(hello) {
            Some(greeting) => Read::Is(greeting, bytes.len()),
            None => Read::Not,
        },
        _ => Read::More,
    }
}

fn client_hello(mut hello: Parts<'_>) -> Option<Greeting> {
    const SERVER_NAME: usize = 0;
    const ALPN: usize = 16;
    const SUPPORTED_VERSIONS: usize = 43;
    let text = |bytes: &[u8]| excerpt(&String::from_utf8_lossy(bytes), 255);
    let mut version = hello.number(2)?;
    hello.take(32)?;
    hello.vector(1)?;
    hello.vector(2)?;
    hello.vector(1)?;
    let (mut server_name, mut protocols) = (None, Vec::new());
    // TLS 1.2 may be without any.
    let mut extensions = if hello.0.is_empty() { Parts(&[]) } else { hello.vector(2)? };
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut body = extensions.vector(2)?;
        match kind {
            SERVER_NAME => {
                let mut names = body.vector(2)?;
                names.take(1)?;
                server_name = Some(text(names.vector(2)?.0));
            }
            ALPN => {
                let mut names = body.vector(2)?;
                while !names.0.is_empty() && protocols.len() < 8 {
                    protocols.push(text(names.vector(1)?.0));
                }
            }
            SUPPORTED_VERSIONS => {
                // Those that only keep the list open (GREASE) are larger than any version.
                let versions =
                    body.vector(1)?.0.chunks_exact(2).map(|pair| usize::from(u16::from_be_bytes([pair[0], pair[1]])));
                version = versions.filter(|version| (0x0300..0x0400).contains(version)).max().unwrap_or(version);
            }
            _ => {}
        }
    }
    let version = match version {
        0x0300 => "SSL 3.0".to_owned(),
        0x0301..=0x03ff => format!("TLS 1.{}", version - 0x0301),
        other => format!("version {other:#06x}"),
    };
    Some(Greeting::Tls { server_name, protocols, version })
}

/// A header of the PROXY protocol, version 1 or 2, by which load balancers tell for whom they connect.
fn proxy_header(bytes: &[u8]) -> Read<String> {
    const V1: &[u8] = b"PROXY ";
    const V1_LONGEST: usize = 107;
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let begins = |signature: &[u8]| {
        let seen = bytes.len().min(signature.len());
        !bytes.is_empty() && bytes[..seen] == signature[..seen]
    };
    if begins(V1) {
        let Some(end) = bytes.iter().take(V1_LONGEST).position(|b| *b == b'\n') else {
            return if bytes.len() < V1_LONGEST { Read::More } else { Read::Not };
        };
        let line = String::from_utf8_lossy(&bytes[..end]);
        let words: Vec<&str> = line.split_whitespace().collect();
        let address = match words.as_slice() {
            [_, "TCP4" | "TCP6", source, _, port, ..] => {
                let source = source.parse::<IpAddr>().ok().zip(port.parse().ok());
                source.map(|(ip, port)| SocketAddr::new(ip, port).to_string())
            }
            _ => None,
        };
        return Read::Is(address.unwrap_or_else(|| "(not told)".to_owned()), end + 1);
    }
    if begins(V2) {
        let mut parts = Parts(bytes);
        let read = || {
            parts.take(V2.len())?;
            parts.take(1)?;
            let family = parts.number(1)? >> 4;
            Some((family, parts.vector(2)?))
        };
        let mut read = read;
        let Some((family, mut body)) = read() else { return Read::More };
        let address = || {
            let source: IpAddr = match family {
                1 => {
                    let source = Ipv4Addr::from(<[u8; 4]>::try_from(body.take(4)?).ok()?);
                    body.take(4)?;
                    source.into()
                }
                2 => {
                    let source = Ipv6Addr::from(<[u8; 16]>::try_from(body.take(16)?).ok()?);
                    body.take(16)?;
                    source.into()
                }
                _ => return None,
            };
            Some(SocketAddr::new(source, body.number(2)? as u16).to_string())
        };
        let mut address = address;
        let from = address().unwrap_or_else(|| "(not told)".to_owned());
        return Read::Is(from, bytes.len() - parts.0.len());
    }
    Read::Not
}

/// The first line of what is none of the above, as far as it is text and no secret.
fn other(bytes: &[u8]) -> String {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = &line[..line.len().min(256)];
    let text: String = String::from_utf8_lossy(line)
        .chars()
        .map(|c| if c == '\u{fffd}' || c.is_control() { '.' } else { c })
        .collect();
    let lower = text.to_ascii_lowercase();
    let secret = SECRET.iter().filter_map(|part| lower.find(part)).min();
    match secret {
        Some(at) => format!("{}(hidden)", without_keys(&text[..at])),
        None => excerpt(&without_keys(&text), 80),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn greeting(bytes: &[u8]) -> Greeting {
        sniff(bytes, true).unwrap().greeting
    }

    const REQUEST: &[u8] = b"GET /wsagents/?token=hunter2 HTTP/1.1\r\nHost: jenkins:8080\r\nauthorization: Basic dTpw\r\nSecret-Key: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\nCookie: JSESSIONID=1\r\nConnection-Cookie: 77\r\nProxy-Authorization: x\r\nX-API-Token: y\r\nNode-Name: builder\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Note: 0123456789abcdef0123456789ABCDEF\r\n\r\n";

    #[test]
    fn requests_without_their_secrets() {
        let Greeting::Http { request, headers } = greeting(REQUEST) else { panic!() };
        assert_eq!(request, "GET /wsagents/?(hidden) HTTP/1.1");
        let get = |name: &str| headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        assert_eq!(get("Host"), Some("jenkins:8080"));
        assert_eq!(get("Node-Name"), Some("builder"));
        assert_eq!(get("Sec-WebSocket-Key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(get("Secret-Key"), Some("(hidden, 64 characters)"));
        assert_eq!(get("X-Note"), Some("(hidden)"));
        for name in ["authorization", "Cookie", "Connection-Cookie", "Proxy-Authorization", "X-API-Token"] {
            assert!(get(name).unwrap().starts_with("(hidden"), "{name}");
        }
        assert_eq!(request_line("CONNECT ci:443 HTTP/1.1"), "CONNECT ci:443 HTTP/1.1");
        assert_eq!(request_line("GET http://u:p@ci/x?y HTTP/1.0"), "GET http://ci/x?(hidden) HTTP/1.0");
        assert_eq!(
            greeting(b"GET / HTTP/1.0\nA: b\n\n"),
            Greeting::Http { request: "GET / HTTP/1.0".into(), headers: vec![("A".into(), "b".into())] }
        );
    }

    #[test]
    fn agents() {
        let hello = |protocol: &str| {
            let item = format!("Protocol:{protocol}");
            [&(item.len() as u16).to_be_bytes()[..], item.as_bytes()].concat()
        };
        assert_eq!(greeting(&hello("JNLP4-connect")), Greeting::Agent { protocol: "JNLP4-connect".into() });
        // What follows at once was a secret once.
        let old = [&hello("JNLP-connect")[..], b"\0\x40deadbeef"].concat();
        assert_eq!(greeting(&old), Greeting::Agent { protocol: "JNLP-connect".into() });
    }

    /// A ClientHello with these extensions, in records of at most `size` bytes.
    fn client_hello(extensions: &[(u16, Vec<u8>)], size: usize) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend([0, 2, 0x13, 0x01, 1, 0]);
        let mut all = Vec::new();
        for (kind, extension) in extensions {
            all.extend(kind.to_be_bytes());
            all.extend((extension.len() as u16).to_be_bytes());
            all.extend(extension);
        }
        body.extend((all.len() as u16).to_be_bytes());
        body.extend(all);
        let mut message = vec![1, 0];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(body);
        let records =
            message.chunks(size).map(|part| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat());
        records.collect::<Vec<_>>().concat()
    }

    #[test]
    fn tls_hellos() {
        let name = b"\0\x0e\0\0\x0bjenkins.org".to_vec();
        let alpn = b"\0\x0c\x02h2\x08http/1.1".to_vec();
        let versions = vec![6, 0x7a, 0x7a, 3, 4, 3, 3];
        let expected = Greeting::Tls {
            server_name: Some("jenkins.org".into()),
            protocols: vec!["h2".into(), "http/1.1".into()],
            version: "TLS 1.3".into(),
        };
        let extensions = [(0, name), (23, vec![]), (16, alpn), (43, versions)];
        for size in [10_000, 20, 6] {
            assert_eq!(greeting(&client_hello(&extensions, size)), expected, "{size}");
        }
        let bare = Greeting::Tls { server_name: None, protocols: vec![], version: "TLS 1.2".into() };
        assert_eq!(greeting(&client_hello(&[], 10_000)), bare);
        // What real clients send.
        let config = crate::transport::trust::TlsConfig::new(Default::default()).unwrap().client_config().unwrap();
        let mut client = rustls::ClientConnection::new(config, "ci.example.org".try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        let Greeting::Tls { server_name, version, .. } = greeting(&bytes) else { panic!() };
        assert_eq!((server_name.as_deref(), version.as_str()), (Some("ci.example.org"), "TLS 1.3"));
        // Broken ones are something else.
        assert!(matches!(greeting(&client_hello(&[(0, vec![0, 200, 0])], 10_000)), Greeting::Other { .. }));
    }

    #[test]
    fn load_balancers_tell_for_whom() {
        let v1 = [&b"PROXY TCP4 192.0.2.7 192.0.2.8 51234 8080\r\n"[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
        let sniffed = sniff(&v1, false).unwrap();
        assert_eq!(sniffed.proxied_for.as_deref(), Some("192.0.2.7:51234"));
        assert!(matches!(sniffed.greeting, Greeting::Http { .. }));
        let v2 =
            [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x08\xc8\x22\x1f\x90"[..], b"x"].concat();
        assert_eq!(sniff(&v2, true).unwrap().proxied_for.as_deref(), Some("192.0.2.7:51234"));
        assert_eq!(
            sniff(b"PROXY UNKNOWN\r\n", true).unwrap(),
            Sniffed { proxied_for: Some("(not told)".into()), greeting: Greeting::Silence }
        );
        assert_eq!(sniff(b"PROXY ", true).unwrap().proxied_for, None);
    }

    #[test]
    fn other_things() {
        let other = |bytes: &[u8]| match greeting(bytes) {
            Greeting::Other { text } => text,
            greeting => panic!("{greeting:?}"),
        };
        assert_eq!(greeting(b""), Greeting::Silence);
        assert_eq!(other(b"SSH-2.0-OpenSSH_9.2\r\n"), "SSH-2.0-OpenSSH_9.2.");
        assert_eq!(other(b"my Password is hunter2\n"), "my (hidden)");
        assert_eq!(other(b"id 0123456789abcdef0123456789abcdef\n"), "id (hidden)");
        assert_eq!(other(b"\x1b[31m\xff\n"), ".[31m.");
        assert_eq!(other(b"GETTING THERE\n"), "GETTING THERE");
    }

    #[test]
    fn more_is_waited_for_and_no_longer_than_needed() {
        let v1 = b"PROXY TCP4 192.0.2.7 192.0.2.8 51234 8080\r\n\0\x16Protocol:JNLP4-connect";
        for whole in [REQUEST, v1, &client_hello(&[], 20)] {
            for end in 0..whole.len() {
                assert_eq!(sniff(&whole[..end], false), None, "{end}");
            }
            assert!(sniff(whole, false).is_some());
        }
        assert!(sniff(b"SSH-2.0", false).is_some());
        let endless = [&b"GET / HTTP/1.1\r\n"[..], &vec![b'x'; MAX_BYTES]].concat();
        assert!(matches!(sniff(&endless, false).unwrap().greeting, Greeting::Http { .. }));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_are_waited_for_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..300), start in prop::sample::select(vec![&b""[..], b"GET ", b"\0\x16Protocol:", b"\x16\x03\x01\0\x40\x01\0\0\x3c", b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11"])) {
            let bytes = [start, &bytes].concat();
            let _ = sniff(&bytes, false);
            prop_assert!(sniff(&bytes, true).is_some());
        }

        #[test]
        fn no_secret_is_kept(secret in "[0-9a-f]{64}", before in "[A-Za-z:/ .]{0,20}", newline: bool) {
            let bytes = format!("{before}{secret}{}", if newline { "\r\n\r\n" } else { "" });
            for bytes in [bytes.clone(), format!("GET /{bytes}"), format!("GET / HTTP/1.1\r\nX: {bytes}\r\n\r\n")] {
                let shown = format!("{:?}", sniff(bytes.as_bytes(), true));
                prop_assert!(!shown.contains(&secret));
            }
        }
    }
}
