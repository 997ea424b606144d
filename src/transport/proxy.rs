//! Which HTTP proxy, if any, a connection goes through, and which rule said so.
//!
//! A pure function of a snapshot of the environment and the target: nothing here reads the
//! environment, resolves a name or opens a socket.
//!
//! What Java's agent does (`JnlpAgentEndpointResolver.openURLConnection` and
//! `getResolvedHttpProxyAddress`, `NoProxyEvaluator`): `http_proxy` is honoured for `http://` URLs
//! and for the TCP agent port, `https://` and WebSocket ignore the environment (remoting#781).
//! Here every transport honours it; where Java honours a variable, we take the same one.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a connection carries, as far as the choice of a proxy is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `http://`, and `ws://`.
    Http,
    /// `https://`, and `wss://`.
    Https,
    /// The controller's TCP agent port. As in Java's `JnlpAgentEndpoint.open` the variable for
    /// `http://` applies, and not the one for `https://`.
    Agent,
}

impl Scheme {
    /// The variables that can name a proxy for this scheme; the first that is not empty wins.
    fn variables(self) -> [&'static str; 4] {
        match self {
            Scheme::Http | Scheme::Agent => ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
            Scheme::Https => ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Agent => "agent port",
        })
    }
}

/// A user name and a password. Neither is ever printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(String);

impl Credentials {
    /// Parses the value of `-proxyCredentials` or `-credentials`: `USER:PASSWORD`, or `@FILE` with
    /// such a line in it.
    ///
    /// # Errors
    /// A file that can't be read, or a value without a colon. The text never contains the value.
    pub fn parse(option: &str) -> Result<Self, String> {
        let value = match option.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(Path::new(path))
                .map_err(|e| format!("cannot read the credentials file {path}: {e}"))?
                .trim_end_matches(['\r', '\n'])
                .to_owned(),
            None => option.to_owned(),
        };
        if !value.contains(':') {
            return Err("credentials must have the form USER:PASSWORD".to_owned());
        }
        Self::checked(value).ok_or_else(|| "credentials must be a single line".to_owned())
    }

    /// The userinfo part of a URL (`user` or `user:password`), percent-decoded.
    pub fn from_userinfo(userinfo: &str) -> Option<Self> {
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        Self::checked(format!("{}:{}", percent_decode(user), percent_decode(password)))
    }

    fn checked(value: String) -> Option<Self> {
        (!value.chars().any(char::is_control)).then_some(Self(value))
    }

    /// The value of an `Authorization` or `Proxy-Authorization` header (RFC 7617, UTF-8).
    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(&self.0))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Host name or address; an IPv6 literal without brackets.
    pub host: String,
    /// TCP port; 80 when the URL has none, as `java.net.URL` has it for `http`.
    pub port: u16,
    /// From the URL's userinfo.
    pub credentials: Option<Credentials>,
}

impl Proxy {
    /// Parses `http://user:pass@host:port/`; the scheme may be absent, as with curl.
    ///
    /// # Errors
    /// A scheme other than `http`, no host, a bad port. The text never contains the credentials.
    pub fn parse(value: &str) -> Result<Self, String> {
        let rest = match value.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => {
                return Err(format!("proxies of kind {scheme:?} are not supported, only http://"));
            }
            None => value,
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (credentials, host_port) = match authority.rsplit_once('@') {
            Some((userinfo, host_port)) => {
                let credentials =
                    Credentials::from_userinfo(userinfo).ok_or("its credentials contain control characters")?;
                (Some(credentials), host_port)
            }
            None => (None, authority),
        };
        let (host, port) = split_host_port(host_port).ok_or("it is not HOST:PORT")?;
        if host.is_empty() || !host.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("it has no valid host name".to_owned());
        }
        Ok(Self { host: host.to_owned(), port: port.unwrap_or(80), credentials })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&host_port(&self.host, self.port))
    }
}

/// How to reach a target, and why so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// No proxy.
    Direct {
        /// What decided it.
        rule: Rule,
    },
    /// Through a proxy.
    Via {
        /// The proxy.
        proxy: Proxy,
        /// The variable that named it.
        from_variable: String,
    },
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Direct { rule } => write!(f, "direct ({rule})"),
            Decision::Via { proxy, from_variable } => write!(f, "through the proxy {proxy} ({from_variable})"),
        }
    }
}

/// Why no proxy is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// No variable names a proxy for this scheme.
    NoProxyConfigured,
    /// `localhost` and loopback addresses never go through a proxy (`NoProxyEvaluator`).
    Loopback,
    /// An entry of `no_proxy` / `NO_PROXY` matches.
    NoProxy {
        /// The variable.
        variable: String,
        /// Its matching entry, as written.
        entry: String,
    },
    /// The variable's value is not a usable proxy. Java's agent logs a warning and connects
    /// directly too; the caller should warn.
    Unusable {
        /// The variable.
        variable: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::NoProxyConfigured => f.write_str("no proxy is configured"),
            Rule::Loopback => f.write_str("loopback never goes through a proxy"),
            Rule::NoProxy { variable, entry } => write!(f, "{variable} contains {entry:?}"),
            Rule::Unusable { variable, reason } => {
                write!(f, "{variable} is ignored: {reason}")
            }
        }
    }
}

/// The proxy variables of an environment.
#[derive(Clone, Default)]
pub struct Proxies {
    variables: BTreeMap<String, String>,
}

const VARIABLES: [&str; 8] =
    ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"];

impl Proxies {
    /// Takes the proxy variables out of an environment; an empty value is as good as none.
    pub fn from_env<K, V>(environment: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let variables = environment
            .into_iter()
            .filter(|(name, value)| VARIABLES.contains(&name.as_ref()) && !value.as_ref().trim().is_empty())
            .map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().trim().to_owned()))
            .collect();
        Self { variables }
    }

    /// Decides for one target. `host` is a name or an address, with or without brackets.
    pub fn decide(&self, scheme: Scheme, host: &str, port: u16) -> Decision {
        let host = normal_host(host);
        let direct = |rule| Decision::Direct { rule };
        let Some((variable, value)) = self.first(&scheme.variables()) else {
            return direct(Rule::NoProxyConfigured);
        };
        let address = host.parse::<IpAddr>().ok().map(canonical);
        if host == "localhost" || address.is_some_and(|a| a.is_loopback()) {
            return direct(Rule::Loopback);
        }
        if let Some((variable, list)) = self.first(&["no_proxy", "NO_PROXY"]) {
            let entry = list
                .split(|c: char| c == ',' || c == '|' || c.is_whitespace())
                .find(|entry| matches_entry(entry, &host, address, port));
            if let Some(entry) = entry {
                return direct(Rule::NoProxy { variable: variable.to_owned(), entry: entry.to_owned() });
            }
        }
        match Proxy::parse(value) {
            Ok(proxy) => Decision::Via { proxy, from_variable: variable.to_owned() },
            Err(reason) => direct(Rule::Unusable { variable: variable.to_owned(), reason }),
        }
    }

    fn first<'a>(&'a self, names: &[&'a str]) -> Option<(&'a str, &'a str)> {
        names.iter().find_map(|name| self.variables.get(*name).map(|v| (*name, v.as_str())))
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

/// Lower case, no brackets, no trailing dot.
fn normal_host(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// An IPv4 address that is written as an IPv6 one is the same address.
fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_canonical(),
        v4 => v4,
    }
}

fn matches_entry(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if entry.is_empty() {
        return false;
    }
    if entry == "*" {
        return true;
    }
    if let Some((network, bits)) = entry.split_once('/') {
        return address.is_some_and(|a| in_network(a, network, bits));
    }
    let (name, entry_port) = match entry.parse::<Ipv6Addr>() {
        Ok(_) => (entry, None),
        Err(_) => match split_host_port(entry) {
            Some(parts) => parts,
            None => return false,
        },
    };
    if entry_port.is_some_and(|p| p != port) {
        return false;
    }
    let name = normal_host(name);
    if let Ok(entry_address) = name.parse::<IpAddr>() {
        return address == Some(canonical(entry_address));
    }
    // `NoProxyEvaluator` strips one leading dot or `*.`, so that such an entry covers the domain
    // itself too. Its bare `endsWith` would let "example.com" cover "notexample.com"; here a
    // suffix begins at a dot, as in curl.
    let domain = name.strip_prefix("*.").unwrap_or(&name);
    let domain = domain.strip_prefix('.').unwrap_or(domain);
    if domain.is_empty() || address.is_some() {
        return false;
    }
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn in_network(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (normal_host(network).parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (u128::from(a.to_bits()), u128::from(n.to_bits()), 32_u32),
        (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits(), n.to_bits(), 128),
        _ => return false,
    };
    let Some(host_bits) = width.checked_sub(bits) else {
        return false;
    };
    // A shift by the full width means that nothing is left to compare.
    address.checked_shr(host_bits).unwrap_or(0) == network.checked_shr(host_bits).unwrap_or(0)
}

/// Splits `HOST`, `HOST:PORT`, `[V6]` and `[V6]:PORT`. The host may be empty. `None` if it is none
/// of these.
pub(crate) fn split_host_port(value: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = if let Some(inner) = value.strip_prefix('[') {
        let (host, rest) = inner.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        (host, rest)
    } else {
        let end = value.find(':').unwrap_or(value.len());
        value.split_at(end)
    };
    if rest.is_empty() {
        return Some((host, None));
    }
    let port = rest.strip_prefix(':')?;
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Some((host, Some(port))),
        _ => None,
    }
}

/// `host:port`, with brackets around an IPv6 literal.
pub(crate) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Percent-decodes; what is not a valid escape stays, what is not UTF-8 is replaced.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escape = (bytes[i] == b'%').then(|| bytes.get(i + 1..i + 3)).flatten().and_then(|hex| {
            let digit = |b: u8| char::from(b).to_digit(16);
            Some((digit(hex[0])? * 16 + digit(hex[1])?) as u8)
        });
        match escape {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(env: &[(&str, &str)], scheme: Scheme, host: &str, port: u16) -> Decision {
        Proxies::from_env(env.iter().copied()).decide(scheme, host, port)
    }

    /// (NO_PROXY, host, port, matching entry or "" for proxied)
    const NO_PROXY: &[(&str, &str, u16, &str)] = &[
        ("*", "jenkins", 80, "*"),
        ("", "jenkins", 80, ""),
        ("jenkins", "jenkins", 80, "jenkins"),
        ("JENKINS", "jenkins.", 80, "JENKINS"),
        ("jenkins", "myjenkins", 80, ""),
        ("example.com", "ci.example.com", 80, "example.com"),
        ("example.com", "example.com", 80, "example.com"),
        ("example.com", "notexample.com", 80, ""),
        ("example.com", "example.com.evil", 80, ""),
        (".example.com", "ci.example.com", 80, ".example.com"),
        (".example.com", "example.com", 80, ".example.com"),
        (".example.com", "xexample.com", 80, ""),
        ("*.example.com", "a.b.Example.com", 80, "*.example.com"),
        ("*.example.com", "example.com", 80, "*.example.com"),
        (".", "jenkins", 80, ""),
        ("ci:8080", "ci", 8080, "ci:8080"),
        ("ci:8080", "ci", 8443, ""),
        (".svc:8080", "ci.svc", 8080, ".svc:8080"),
        ("10.1.2.3", "10.1.2.3", 80, "10.1.2.3"),
        ("10.1.2.3", "10.1.2.30", 80, ""),
        ("10.1.2.3:50000", "10.1.2.3", 50000, "10.1.2.3:50000"),
        ("10.1.2.3:50000", "10.1.2.3", 80, ""),
        ("2.3", "10.1.2.3", 80, ""),
        ("10.0.0.0/8", "10.255.255.255", 80, "10.0.0.0/8"),
        ("10.0.0.0/8", "11.0.0.0", 80, ""),
        ("10.1.2.3/32", "10.1.2.3", 80, "10.1.2.3/32"),
        ("10.1.2.3/32", "10.1.2.2", 80, ""),
        ("0.0.0.0/0", "203.0.113.1", 80, "0.0.0.0/0"),
        ("0.0.0.0/0", "jenkins", 80, ""),
        ("0.0.0.0/0", "2001:db8::1", 80, ""),
        ("10.0.0.0/33", "10.0.0.1", 80, ""),
        ("10.0.0.0/x", "10.0.0.1", 80, ""),
        ("172.20.3.0/22", "172.20.0.255", 80, "172.20.3.0/22"),
        ("10.0.0.0/8", "::ffff:10.1.1.1", 80, "10.0.0.0/8"),
        ("2001:db8::/32", "2001:db8:1::1", 80, "2001:db8::/32"),
        ("2001:db8::/32", "[2001:db8:1::1]", 80, "2001:db8::/32"),
        ("2001:db8::/32", "2001:db9::1", 80, ""),
        ("2001:db8::1", "2001:db8:0::1", 80, "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1", 80, "[2001:db8::1]"),
        ("[2001:db8::1]:443", "2001:db8::1", 443, "[2001:db8::1]:443"),
        ("[2001:db8::1]:443", "2001:db8::1", 80, ""),
        ("::/0", "2001:db8::1", 80, "::/0"),
        ("a, b ,jenkins", "jenkins", 80, "jenkins"),
        ("a b jenkins", "jenkins", 80, "jenkins"),
        ("a|jenkins", "jenkins", 80, "jenkins"),
        (",,a,", "jenkins", 80, ""),
        ("jenkins:port", "jenkins", 80, ""),
    ];

    #[test]
    fn no_proxy_entries() {
        for (list, host, port, expected) in NO_PROXY {
            let env = [("http_proxy", "http://proxy:3128"), ("NO_PROXY", list)];
            let decision = decide(&env, Scheme::Http, host, *port);
            let got = match &decision {
                Decision::Direct { rule: Rule::NoProxy { entry, variable } } => {
                    assert_eq!(variable, "NO_PROXY");
                    entry.as_str()
                }
                Decision::Via { .. } => "",
                other => panic!("{list:?} {host}: {other:?}"),
            };
            assert_eq!(got, *expected, "NO_PROXY={list:?} for {host}:{port}");
        }
    }

    #[test]
    fn the_variable_by_scheme() {
        let cases: &[(&[&str], Scheme, &str)] = &[
            (&["http_proxy", "HTTP_PROXY"], Scheme::Http, "http_proxy"),
            (&["HTTP_PROXY", "ALL_PROXY"], Scheme::Http, "HTTP_PROXY"),
            (&["http_proxy"], Scheme::Https, ""),
            (&["HTTPS_PROXY", "https_proxy"], Scheme::Https, "https_proxy"),
            (&["HTTPS_PROXY"], Scheme::Http, ""),
            (&["HTTPS_PROXY"], Scheme::Agent, ""),
            (&["http_proxy", "https_proxy"], Scheme::Agent, "http_proxy"),
            (&["HTTP_PROXY"], Scheme::Agent, "HTTP_PROXY"),
            (&["all_proxy"], Scheme::Https, "all_proxy"),
            (&["ALL_PROXY"], Scheme::Agent, "ALL_PROXY"),
            (&["ftp_proxy"], Scheme::Http, ""),
        ];
        for (variables, scheme, expected) in cases {
            let env: Vec<_> =
                variables.iter().map(|name| (*name, format!("http://{}:1", name.replace('_', "-")))).collect();
            let decision = Proxies::from_env(env.iter().map(|(k, v)| (k, v))).decide(*scheme, "jenkins", 80);
            match decision {
                Decision::Via { proxy, from_variable } => {
                    assert_eq!(from_variable, *expected);
                    assert_eq!(proxy.host, expected.replace('_', "-"));
                }
                Decision::Direct { rule } => {
                    assert_eq!(*expected, "", "{variables:?} {scheme}");
                    assert_eq!(rule, Rule::NoProxyConfigured);
                }
            }
        }
    }

    #[test]
    fn an_empty_variable_is_none() {
        let env = [("http_proxy", " "), ("HTTP_PROXY", "p:1"), ("no_proxy", "")];
        assert!(matches!(
            decide(&env, Scheme::Http, "jenkins", 80),
            Decision::Via { from_variable, .. } if from_variable == "HTTP_PROXY"
        ));
    }

    #[test]
    fn loopback_is_direct() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]"] {
            let decision = decide(&[("http_proxy", "http://p:1")], Scheme::Agent, host, 50000);
            let expected = Decision::Direct { rule: Rule::Loopback };
            assert_eq!(decision, expected, "{host}");
        }
    }

    #[test]
    fn proxy_values() {
        let ok: &[(&str, &str, u16, Option<&str>)] = &[
            ("http://proxy:3128", "proxy", 3128, None),
            ("HTTP://proxy:3128/", "proxy", 3128, None),
            ("proxy:3128", "proxy", 3128, None),
            ("http://proxy", "proxy", 80, None),
            ("http://[::1]:3128", "::1", 3128, None),
            ("http://u:p@proxy:1", "proxy", 1, Some("u:p")),
            ("http://u:p%40%3a%2F@proxy:1", "proxy", 1, Some("u:p@:/")),
            ("http://u:a@b@proxy:1", "proxy", 1, Some("u:a@b")),
            ("http://dom%5Cu@proxy:1", "proxy", 1, Some("dom\\u:")),
            ("http://u:100%@proxy:1", "proxy", 1, Some("u:100%")),
        ];
        for (value, host, port, credentials) in ok {
            let proxy = Proxy::parse(value).unwrap_or_else(|e| panic!("{value}: {e}"));
            assert_eq!((proxy.host.as_str(), proxy.port), (*host, *port), "{value}");
            assert_eq!(proxy.credentials.map(|c| c.0).as_deref(), *credentials);
        }
        for value in [
            "socks5://u:sesame@proxy:1080",
            "https://u:sesame@proxy:443",
            "http://u:sesame@",
            "http://u:sesame@proxy:0",
            "http://u:sesame@proxy:99999",
            "http://u:sesame@proxy:+1",
            "http://u:sesame@[proxy]:1",
            "http://u:sesame%0a@proxy:1",
            "http://u:sesame@a b:1",
        ] {
            let error = Proxy::parse(value).expect_err(value);
            assert!(!error.contains("sesame"), "{error}");
            assert!(matches!(
                decide(&[("http_proxy", value)], Scheme::Http, "jenkins", 80),
                Decision::Direct { rule: Rule::Unusable { .. } }
            ));
        }
    }

    #[test]
    fn credentials_option() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        std::fs::write(&file, "user:pass word\n").unwrap();
        let from_file = Credentials::parse(&format!("@{}", file.display())).unwrap();
        assert_eq!(from_file, Credentials::parse("user:pass word").unwrap());
        assert_eq!(from_file.basic(), "Basic dXNlcjpwYXNzIHdvcmQ=");
        assert!(Credentials::parse("sesame").is_err_and(|e| !e.contains("sesame")));
        assert!(Credentials::parse("a:b\r\nX: y").is_err());
        assert!(Credentials::parse("@/nonexistent/file").is_err_and(|e| e.contains("/nonexistent")));
    }

    #[test]
    fn nothing_prints_a_password() {
        let env = [("http_proxy", "http://user:sesame@proxy:1")];
        let proxies = Proxies::from_env(env);
        let decision = proxies.decide(Scheme::Http, "jenkins", 80);
        assert!(!format!("{proxies:?} {decision:?} {decision}").contains("sesame"));
    }

    proptest::proptest! {
        #[test]
        fn any_environment_gives_a_decision(
            proxy in ".{0,40}", list in "[-a-z0-9.:/*,\\[\\] ]{0,60}", host in ".{0,30}", port: u16,
        ) {
            let env = [("http_proxy", proxy.as_str()), ("no_proxy", list.as_str())];
            let decision = decide(&env, Scheme::Agent, &host, port);
            // Whatever the list says, the same list plus `*` is direct, or there is no proxy at all.
            let all = format!("{list},*");
            let env = [("http_proxy", proxy.as_str()), ("no_proxy", all.as_str())];
            let with_all = decide(&env, Scheme::Agent, &host, port);
            let direct = matches!(with_all, Decision::Direct { .. });
            proptest::prop_assert!(direct, "{decision:?}");
        }
    }
}
