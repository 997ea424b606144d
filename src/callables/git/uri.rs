//! Addresses of repositories, as `org.eclipse.jgit.transport.URIish` reads and writes them.

use crate::java_class;
use crate::object::{AccessError, View};

java_class! {
    /// `org.eclipse.jgit.transport.URIish`
    struct UriFields {
        scheme: Option<String> = "scheme",
        path: Option<String> = "path",
        raw_path: Option<String> = "rawPath",
        user: Option<String> = "user",
        pass: Option<String> = "pass",
        port: i32 = "port",
        host: Option<String> = "host",
    }
}

/// The address of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Uri {
    pub(super) scheme: Option<String>,
    pub(super) user: Option<String>,
    pass: Option<String>,
    pub(super) host: Option<String>,
    /// Not positive: none.
    port: i32,
    path: String,
    /// The path as it was written, with its escapes.
    raw_path: String,
}

/// `URIish.reservedChars`
const RESERVED: &[u8] = b"!*'();:@&=+$,/?#[]";

impl Uri {
    /// A `URIish` of a request.
    pub(super) fn read(view: View<'_>) -> Result<Uri, AccessError> {
        let fields = UriFields::read(view)?;
        let path = fields.path.unwrap_or_default();
        Ok(Uri {
            raw_path: fields.raw_path.unwrap_or_else(|| path.clone()),
            path,
            scheme: fields.scheme,
            user: fields.user,
            pass: fields.pass,
            host: fields.host,
            port: fields.port,
        })
    }

    /// `new URIish(String)`; `None` where that throws a `URISyntaxException`.
    pub(super) fn parse(text: &str) -> Option<Uri> {
        if text.is_empty() {
            return None;
        }
        if let Some(path) = text.strip_prefix("file:")
            && path.starts_with('/')
            && !path.starts_with("//")
        {
            let raw_path = path.to_owned();
            return Some(Uri { scheme: Some("file".into()), path: unescape(path)?, raw_path, ..Uri::default() });
        }
        if let Some((scheme, rest)) = text.split_once("://")
            && is_scheme(scheme)
        {
            return Uri::parse_full(scheme, rest);
        }
        Some(Uri::parse_scp(text).unwrap_or_else(|| Uri {
            path: text.to_owned(),
            raw_path: text.to_owned(),
            ..Uri::default()
        }))
    }

    /// `URIish.FULL_URI`
    fn parse_full(scheme: &str, rest: &str) -> Option<Uri> {
        let end = rest.find(['/', '\\']).unwrap_or(rest.len());
        let mut uri = Uri { scheme: Some(scheme.to_owned()), ..Uri::default() };
        let raw = match authority(&rest[..end]) {
            Some((user, pass, host, port)) => {
                uri.user = match user {
                    Some(user) => Some(unescape(user)?),
                    None => None,
                };
                uri.pass = match pass {
                    Some(pass) => Some(unescape(pass)?),
                    None => None,
                };
                uri.host = Some(unescape(host)?);
                uri.port = if port.is_empty() { 0 } else { port.parse().ok()? };
                &rest[end..]
            }
            None => rest,
        };
        // `/~user` is written without its slash.
        let raw = raw.strip_prefix('/').filter(|rest| rest.starts_with('~')).unwrap_or(raw);
        uri.raw_path = raw.to_owned();
        uri.path = unescape(raw)?;
        Some(uri)
    }

    /// `URIish.RELATIVE_SCP_URI` and `ABSOLUTE_SCP_URI`: `user@host:path`.
    fn parse_scp(text: &str) -> Option<Uri> {
        let (before, after) = match text.rfind('@').filter(|at| !text[..*at].contains(['/', '\\'])) {
            Some(at) => (Some(&text[..at]), &text[at + 1..]),
            None => (None, text),
        };
        let host_end = match after.strip_prefix('[') {
            Some(rest) => rest.find(']')? + 2,
            None => after.find(':')?,
        };
        let (host, path) = after.split_at(host_end);
        let path = path.strip_prefix(':')?;
        let absolute = path.starts_with(['/', '\\']);
        if host.is_empty() || host.contains(['/', '\\']) || path.is_empty() || (absolute && host.len() < 2) {
            return None;
        }
        let (user, pass) = match before.map(|info| info.split_once(':').map_or((info, None), |(u, p)| (u, Some(p)))) {
            Some((user, pass)) if !user.is_empty() => (Some(user.to_owned()), pass.map(str::to_owned)),
            Some(_) => return None,
            None => (None, None),
        };
        let path = path.to_owned();
        Some(Uri { user, pass, host: Some(host.to_owned()), raw_path: path.clone(), path, ..Uri::default() })
    }

    /// `URIish.isRemote`
    pub(super) fn is_remote(&self) -> bool {
        self.host.is_some()
    }

    /// `URIish.toString`: without a password.
    pub(super) fn public(&self) -> String {
        self.format(false, false)
    }

    /// `URIish.toPrivateString`
    pub(super) fn private(&self) -> String {
        self.format(true, false)
    }

    /// `URIish.toPrivateASCIIString`
    pub(super) fn private_ascii(&self) -> String {
        self.format(true, true)
    }

    fn format(&self, with_password: bool, ascii: bool) -> String {
        let mut out = String::new();
        if let Some(scheme) = &self.scheme {
            out.push_str(scheme);
            out.push_str("://");
        }
        if let Some(user) = &self.user {
            out.push_str(&escape(user, true, ascii));
            if let (true, Some(pass)) = (with_password, &self.pass) {
                out.push(':');
                out.push_str(&escape(pass, true, ascii));
            }
        }
        if let Some(host) = &self.host {
            if self.user.as_ref().is_some_and(|user| !user.is_empty()) {
                out.push('@');
            }
            out.push_str(&escape(host, false, ascii));
            if self.scheme.is_some() && self.port > 0 {
                out.push_str(&format!(":{}", self.port));
            }
        }
        if self.scheme.is_some() {
            if !self.path.starts_with('/') && !self.path.is_empty() {
                out.push('/');
            }
            out.push_str(&if ascii { escape(&self.path, false, ascii) } else { self.raw_path.clone() });
        } else {
            if self.host.is_some() {
                out.push(':');
            }
            out.push_str(&self.path);
        }
        out
    }
}

fn is_scheme(text: &str) -> bool {
    let rest = text.strip_prefix(|first: char| first.is_ascii_lowercase());
    let allowed = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || matches!(char, '+' | '-');
    rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(allowed))
}

/// User, password, host and port of `user:password@host:port`.
fn authority(text: &str) -> Option<(Option<&str>, Option<&str>, &str, &str)> {
    let (info, rest) = match text.rfind('@') {
        Some(at) => (Some(&text[..at]), &text[at + 1..]),
        None => (None, text),
    };
    let (host, port) = match rest.starts_with('[').then(|| rest.find(']')).flatten() {
        Some(end) => rest.split_at(end + 1),
        None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    if host.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (user, pass) = info.map_or((None, None), |info| match info.split_once(':') {
        Some((user, pass)) => (Some(user), Some(pass)),
        None => (Some(info), None),
    });
    Some((user, pass, host, port))
}

/// `URIish.unescape`; `None` if an escape is none.
fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
        out.push(u8::try_from(value).ok()?);
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// `URIish.escape`
fn escape(text: &str, reserved: bool, non_ascii: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if byte <= 32 || (non_ascii && byte > 127) || byte == b'%' || (reserved && RESERVED.contains(&byte)) {
            out.extend_from_slice(format!("%{byte:02x}").as_bytes());
        } else {
            out.push(byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_jgit_writes_them() {
        // Address, toString, toPrivateString, toPrivateASCIIString.
        for (text, public, private, ascii) in [
            ("git://127.0.0.1/demo.git", None, None, None),
            ("https://github.com/pingcap/tidb.git", None, None, None),
            ("https://example.org:8443/a b.git", None, None, Some("https://example.org:8443/a%20b.git")),
            ("https://u:p%40s@example.org/x", Some("https://u@example.org/x"), None, None),
            ("https://example.org/%7Eme/x", None, None, Some("https://example.org/~me/x")),
            ("ssh://git@[::1]:22/~me/x.git", None, None, None),
            ("file:///srv/git/demo.git", None, None, None),
            ("file:/srv/git", Some("file:///srv/git"), Some("file:///srv/git"), Some("file:///srv/git")),
            ("git@github.com:org/repo.git", None, None, None),
            ("host.example.org:/srv/git", None, None, None),
            ("/srv/git/demo.git", None, None, None),
            ("../demo", None, None, None),
            ("origin", None, None, None),
            ("https://example.org/ü", None, None, Some("https://example.org/%c3%bc")),
        ] {
            let uri = Uri::parse(text).unwrap();
            assert_eq!(uri.public(), public.unwrap_or(text));
            assert_eq!(uri.private(), private.unwrap_or(text));
            assert_eq!(uri.private_ascii(), ascii.unwrap_or(text));
        }
        assert_eq!(Uri::parse("").as_ref(), None);
        assert_eq!(Uri::parse("https://example.org/%zz").as_ref(), None);
    }

    #[test]
    fn an_address_is_remote_if_it_has_a_host() {
        for (text, host, user) in [
            ("git@github.com:org/repo.git", Some("github.com"), Some("git")),
            ("ssh://me@host/x", Some("host"), Some("me")),
            ("https://host:8080/x", Some("host"), None),
            ("file:///x", None, None),
            ("/x", None, None),
            ("origin", None, None),
        ] {
            let uri = Uri::parse(text).unwrap();
            assert_eq!((uri.host.as_deref(), uri.user.as_deref()), (host, user), "{text}");
            assert_eq!(uri.is_remote(), host.is_some());
        }
    }
}
