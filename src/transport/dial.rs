//! Opening TCP connections: names, addresses, proxies, deadlines, keepalive.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::Method;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::http;
use super::proxy::{Credentials, Decision, Proxies, Proxy, Rule, Scheme, host_port};
use super::{Cause, ConnectError};

/// How long a connection may take unless told otherwise; Java's discovery waits as long
/// (`JnlpAgentEndpointResolver.resolve`).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Keepalive: the first probe after this time of silence, ...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// ... then one in each such interval, ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// ... and this many unanswered ones end the connection: two minutes in all.
const KEEPALIVE_PROBES: u32 = 4;

/// Opens TCP connections, through a proxy where the environment says so.
#[derive(Debug, Clone)]
pub struct Dialer {
    /// The environment's proxies.
    pub proxies: Proxies,
    /// `-proxyCredentials`, which win over those in a proxy's URL.
    pub proxy_credentials: Option<Credentials>,
    /// TCP keepalive, and a bound on unacknowledged data: false with `-noKeepAlive`.
    pub keepalive: bool,
    /// For resolving the name and trying all its addresses; once more for a proxy's answer.
    pub connect_timeout: Duration,
}

impl Default for Dialer {
    fn default() -> Self {
        Self { proxies: Proxies::default(), proxy_credentials: None, keepalive: true, connect_timeout: CONNECT_TIMEOUT }
    }
}

impl Dialer {
    /// Connects to `host` (a name or an address, brackets allowed), by CONNECT where a proxy
    /// applies. The stream has TCP_NODELAY set.
    ///
    /// # Errors
    /// [`ConnectError`]; a host of several addresses has each with its own reason.
    pub async fn connect(&self, scheme: Scheme, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match self.proxies.decide(scheme, host, port) {
            Decision::Via { proxy, .. } => {
                let stream = self.connect_to_proxy(&proxy).await?;
                self.tunnel(stream, &proxy, host, port).await
            }
            Decision::Direct { rule } => {
                if let Rule::Unusable { .. } = rule {
                    tracing::warn!("proxy: {rule}");
                }
                self.open(host, port).await.map_err(|mut error| {
                    if let Rule::Unusable { .. } | Rule::NoProxy { .. } = rule {
                        error.address.push_str(&format!(", without a proxy: {rule}"));
                    }
                    error
                })
            }
        }
    }

    /// Connects to a proxy as such; a failure to is a [`Cause::Proxy`].
    pub(crate) async fn connect_to_proxy(&self, proxy: &Proxy) -> Result<TcpStream, ConnectError> {
        self.open(&proxy.host, proxy.port).await.map_err(|error| {
            let cause = Cause::Proxy { proxy: proxy.to_string(), message: error.cause.to_string() };
            ConnectError::new(error.doing, error.address, cause)
        })
    }

    /// What to authenticate with at a proxy.
    pub(crate) fn credentials_for<'a>(&'a self, proxy: &'a Proxy) -> Option<&'a Credentials> {
        self.proxy_credentials.as_ref().or(proxy.credentials.as_ref())
    }

    /// Has a proxy connect `stream` to `host` (CONNECT).
    pub(crate) async fn tunnel(
        &self,
        stream: TcpStream,
        proxy: &Proxy,
        host: &str,
        port: u16,
    ) -> Result<TcpStream, ConnectError> {
        let target = host_port(host, port);
        let failed = |message: String| {
            let proxy = proxy.to_string();
            let cause = Cause::Proxy { proxy, message };
            ConnectError::new("connecting through a proxy to", &*target, cause)
        };
        let credentials = self.credentials_for(proxy).map(Credentials::basic);
        let headers = [("Host", Some(target.as_str())), ("Proxy-Authorization", credentials.as_deref())];
        let headers = headers.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let request = http::request(Method::CONNECT, &target, headers).map_err(|cause| failed(cause.to_string()))?;
        let answer = http::exchange(stream, request, self.connect_timeout).await;
        let (response, stream, early) = answer.map_err(|cause| {
            failed(match cause {
                Cause::Closed => "it closed the connection".to_owned(),
                Cause::TimedOut(_) => format!("no answer to CONNECT: {cause}"),
                Cause::NotJenkins(message) => message,
                cause => cause.to_string(),
            })
        })?;
        let status = format!("HTTP {} {}", response.status(), response.reason());
        let status = status.trim_end();
        match response.status() {
            // In TLS, HTTP and JNLP4 alike it is the agent that speaks first.
            200..=299 if !early.is_empty() => Err(failed(format!("it sent data of its own after {status}"))),
            200..=299 => Ok(stream),
            407 => Err(failed(http::wants_credentials(credentials.is_some()).to_owned())),
            _ => Err(failed(format!("it refuses to connect to {target} ({status})"))),
        }
    }

    /// Connects without a proxy: every address in turn, each with a fair share of what is left of
    /// the deadline.
    async fn open(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let target = host_port(host, port);
        let deadline = Instant::now() + self.connect_timeout;
        let unresolved = |cause| ConnectError::new("resolving", host, cause);
        let lookup = tokio::net::lookup_host((host, port));
        let addresses: Vec<SocketAddr> = match timeout(self.connect_timeout, lookup).await {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => return Err(unresolved(Cause::Dns(dns_message(&error)))),
            Err(_) => {
                let cause = Cause::TimedOut(self.connect_timeout);
                return Err(unresolved(Cause::Dns(format!("the name server {cause}"))));
            }
        };
        let mut failures: Vec<(SocketAddr, Cause)> = Vec::new();
        for (i, &address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / (addresses.len() - i) as u32;
            let cause = match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => match self.prepare(&stream) {
                    Ok(()) => return Ok(stream),
                    Err(error) => Cause::from_io(error, share),
                },
                Ok(Err(error)) => Cause::from_io(error, share),
                Err(_) => Cause::TimedOut(share),
            };
            failures.push((address, cause));
        }
        Err(unreached(target, failures))
    }

    fn prepare(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        if self.keepalive {
            let socket = SockRef::from(stream);
            let keepalive = TcpKeepalive::new()
                .with_time(KEEPALIVE_IDLE)
                .with_interval(KEEPALIVE_INTERVAL)
                .with_retries(KEEPALIVE_PROBES);
            socket.set_tcp_keepalive(&keepalive)?;
            // Keepalive is silent while data is in flight; without this the kernel goes on
            // retransmitting to a dead peer for a quarter of an hour.
            #[cfg(target_os = "linux")]
            socket.set_tcp_user_timeout(Some(KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_PROBES))?;
        }
        Ok(())
    }
}

/// What a resolver said, without Rust's prefix.
pub(crate) fn dns_message(error: &io::Error) -> String {
    let message = error.to_string();
    let prefix = "failed to lookup address information: ";
    message.strip_prefix(prefix).unwrap_or(&message).to_owned()
}

/// One error of many: the address shows what was tried, the cause is the one that tells most.
fn unreached(target: String, mut failures: Vec<(SocketAddr, Cause)>) -> ConnectError {
    let address = match failures.as_slice() {
        [(address, _)] if address.to_string() == target => target,
        [(address, _)] => format!("{target} ({})", address.ip()),
        _ => {
            let tried: Vec<String> =
                failures.iter().map(|(address, cause)| format!("{}: {cause}", address.ip())).collect();
            format!("{target} ({})", tried.join("; "))
        }
    };
    // An answer tells more than silence, silence more than a missing route (typically IPv6).
    failures.sort_by_key(|(_, cause)| match cause {
        Cause::Refused => 0,
        Cause::TimedOut(_) => 1,
        Cause::Unreachable(_) => 3,
        _ => 2,
    });
    let cause = match failures.into_iter().next() {
        Some((_, cause)) => cause,
        None => Cause::Dns("it has no address".to_owned()),
    };
    ConnectError::new("connecting to", address, cause)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    /// Serves one connection after the other: reads a request's head, answers, closes. The heads are the result.
    pub(crate) async fn serve(answers: &[impl AsRef<str>]) -> (u16, JoinHandle<Vec<String>>) {
        let answers: Vec<String> = answers.iter().map(|a| a.as_ref().to_owned()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut heads = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                heads.push(read_request(&mut stream).await);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            heads
        });
        (port, task)
    }

    /// A request's head, its empty line included.
    pub(crate) async fn read_request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    pub(crate) fn via(variable: &str, proxy: u16) -> Dialer {
        Dialer {
            proxies: Proxies::from_env([(variable, format!("http://u:p@127.0.0.1:{proxy}"))]),
            connect_timeout: Duration::from_secs(5),
            ..Dialer::default()
        }
    }

    #[tokio::test]
    async fn plain_connections_are_prepared() {
        for (bind, host) in [("127.0.0.1:0", "localhost"), ("[::1]:0", "[::1]")] {
            let Ok(listener) = TcpListener::bind(bind).await else {
                continue; // a machine without IPv6
            };
            let port = listener.local_addr().unwrap().port();
            let dialer = Dialer::default();
            let stream = dialer.connect(Scheme::Agent, host, port).await.unwrap();
            assert!(stream.nodelay().unwrap());
            assert!(SockRef::from(&stream).keepalive().unwrap());
            let dialer = Dialer { keepalive: false, ..dialer };
            let stream = dialer.connect(Scheme::Agent, host, port).await.unwrap();
            assert!(!SockRef::from(&stream).keepalive().unwrap());
        }
    }

    #[tokio::test]
    async fn refused_says_where() {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        let dialer = Dialer::default();
        let error = dialer.connect(Scheme::Agent, "127.0.0.1", port).await.unwrap_err();
        let expected = format!("connecting to 127.0.0.1:{port}: connection refused");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn every_address_is_told_with_its_reason() {
        let failures = vec![
            ("[2001:db8::1]:80".parse().unwrap(), Cause::Unreachable("no route".into())),
            ("10.0.0.1:80".parse().unwrap(), Cause::TimedOut(Duration::from_secs(5))),
        ];
        let error = unreached("jenkins:80".into(), failures);
        assert_eq!(
            error.to_string(),
            "connecting to jenkins:80 (2001:db8::1: unreachable: no route; 10.0.0.1: timed out \
             after 5 s): timed out after 5 s"
        );
    }

    #[tokio::test]
    async fn names_without_address() {
        let error = Dialer::default().connect(Scheme::Http, "no-such-host.invalid", 80).await.unwrap_err();
        assert!(matches!(error.cause, Cause::Dns(_)), "{error}");
    }

    #[tokio::test]
    async fn connect_through_a_proxy_with_credentials() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialer = via("http_proxy", listener.local_addr().unwrap().port());
        let proxy = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\n").await.unwrap();
            let mut said = [0; 4];
            stream.read_exact(&mut said).await.unwrap();
            stream.write_all(&said).await.unwrap();
            request
        });
        let mut stream = dialer.connect(Scheme::Agent, "2001:db8::7", 50000).await.unwrap();
        stream.write_all(b"echo").await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "echo");
        assert_eq!(
            proxy.await.unwrap(),
            "CONNECT [2001:db8::7]:50000 HTTP/1.1\r\nHost: [2001:db8::7]:50000\r\n\
             Proxy-Authorization: Basic dTpw\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn the_option_wins_over_the_url() {
        let (port, proxy) = serve(&["HTTP/1.1 200 OK\r\n\r\n"]).await;
        let dialer = Dialer { proxy_credentials: Some(Credentials::parse("a:b").unwrap()), ..via("https_proxy", port) };
        dialer.connect(Scheme::Https, "ci", 443).await.unwrap();
        assert!(proxy.await.unwrap()[0].contains("Basic YTpi\r\n"));
    }

    #[tokio::test]
    async fn refusals_of_a_proxy() {
        let cases = [
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "refuses the credentials"),
            ("HTTP/1.1 403 Forbidden\r\n\r\n", "refuses to connect to ci:443 (HTTP 403 Forbidden)"),
            ("SSH-2.0-x\r\n\r\n", "no HTTP answer"),
            ("HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x\r\n", "data of its own after HTTP 200 OK"),
            ("", "closed the connection"),
        ];
        for (answer, expected) in cases {
            let (port, _proxy) = serve(&[answer]).await;
            let error = via("https_proxy", port).connect(Scheme::Https, "ci", 443).await.unwrap_err();
            assert!(matches!(error.cause, Cause::Proxy { .. }));
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
        }
    }

    #[tokio::test]
    async fn a_silent_proxy_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialer = Dialer {
            connect_timeout: Duration::from_millis(100),
            ..via("https_proxy", listener.local_addr().unwrap().port())
        };
        let error = dialer.connect(Scheme::Https, "ci", 443).await.unwrap_err();
        assert!(error.to_string().contains("no answer to CONNECT"), "{error}");
    }

    #[tokio::test]
    async fn a_dead_proxy_is_to_blame() {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        let error = via("https_proxy", port).connect(Scheme::Https, "ci", 443).await.unwrap_err();
        assert!(matches!(error.cause, Cause::Proxy { .. }), "{error}");
    }
}
