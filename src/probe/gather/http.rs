//! A controller's URL: connections, TLS, and what answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Clock, Names, Target, connect, environment, tls, websocket};
use crate::discovery::{Endpoint, LISTENER, resolve};
use crate::probe::facts::{Answer, Attempt, Exchange, Failure, FailureKind, Large, ProxyUse, Site, Websocket};
use crate::transport::ConnectError;
use crate::transport::dial::Dialer;
use crate::transport::http::{self, ControllerUrl, Response, Stream, excerpt};
use crate::transport::proxy::{Credentials, Decision, Proxy};
use crate::transport::trust::TlsConfig;

/// How long an answer may take once connected. Controllers under load take seconds; a start waits for a minute.
const ANSWER: Duration = Duration::from_secs(8);

/// The same for what takes a controller no time: a file.
const FILE: Duration = Duration::from_secs(5);

/// The same for a look elsewhere, which is a courtesy.
const GLANCE: Duration = Duration::from_secs(2);

/// Together with the other headers this stays below Jetty's limit of 8 KiB, and is more than any MTU but loopback's.
const PADDING: usize = 6 << 10;

/// As many redirects as a start follows.
const MAX_REDIRECTS: usize = 5;

/// Ports at which controllers and what stands before them listen.
const USUAL_PORTS: [u16; 4] = [8080, 443, 80, 8443];

/// The headers that tell something.
const KEPT: [&str; 18] = [
    "x-jenkins",
    "x-hudson",
    "x-jenkins-session",
    "x-jenkins-jnlp-port",
    "x-hudson-jnlp-port",
    "x-jenkins-jnlp-host",
    "x-jenkins-agent-protocols",
    "x-remoting-minimum-version",
    "x-instance-identity",
    "server",
    "via",
    "location",
    "date",
    "content-type",
    "www-authenticate",
    "proxy-authenticate",
    "upgrade",
    "retry-after",
];

/// The longest value kept: an identity of 4096 bits has 736 characters.
const MAX_VALUE: usize = 1000;

/// One way to a controller.
#[derive(Clone, Copy)]
pub(super) struct Route<'a> {
    pub(super) dialer: &'a Dialer,
    pub(super) tls: &'a Arc<TlsConfig>,
    /// Whose server this is.
    pub(super) url: &'a ControllerUrl,
    /// The controller's, or the proxy's.
    pub(super) address: SocketAddr,
    pub(super) proxy: Option<&'a Proxy>,
    /// A proxy is asked for a connection also where it could be asked for the page: so WebSockets are opened.
    pub(super) tunnel: bool,
    pub(super) clock: Clock,
}

impl Route<'_> {
    /// A stream over which HTTP to `url` is spoken, and the TCP connection below it for a look at it.
    async fn open(&self, url: &ControllerUrl) -> Result<(Box<dyn Stream>, Option<std::os::fd::OwnedFd>), Failure> {
        let here = (&url.host, url.port, url.tls) == (&self.url.host, self.url.port, self.url.tls);
        let plain = if here { self.tcp().await? } else { self.elsewhere(url).await? };
        let socket = std::os::fd::AsFd::as_fd(&plain).try_clone_to_owned().ok();
        if !url.tls {
            return Ok((Box::new(plain), socket));
        }
        let shaken = http::start_tls(self.tls, &url.host, "", plain, ANSWER.min(self.clock.left())).await;
        let stream = shaken.map_err(|error| Failure::from(&error.cause))?;
        Ok((Box::new(stream), socket))
    }

    /// A TCP connection to the controller, through the proxy's CONNECT where TLS needs it.
    pub(super) async fn tcp(&self) -> Result<TcpStream, Failure> {
        let (connected, stream) = connect::one(self.address, connect::CONNECT, self.clock).await;
        let Some(stream) = stream else { return Err(connected.failure.unwrap_or_else(|| super::timed_out(ANSWER))) };
        match self.proxy {
            Some(proxy) if self.url.tls || self.tunnel => {
                let tunnel = self.dialer.tunnel(stream, proxy, &self.url.host, self.url.port);
                let tunnel = self.clock.within(ANSWER, tunnel).await?;
                tunnel.map_err(|error| Failure::from(&error.cause))
            }
            _ => Ok(stream),
        }
    }

    async fn elsewhere(&self, url: &ControllerUrl) -> Result<TcpStream, Failure> {
        let connected = match (url.tls, self.dialer.proxies.decide(url.scheme(), &url.host, url.port)) {
            (false, Decision::Via { proxy, .. }) => {
                let connecting = self.dialer.connect_to_proxy(&proxy);
                self.clock.within(ANSWER, connecting).await?
            }
            _ => self.clock.within(ANSWER, self.dialer.connect(url.scheme(), &url.host, url.port)).await?,
        };
        connected.map_err(|error| Failure::from(&error.cause))
    }

    /// One request, no redirect followed. `silent` gets to see the connection on which no answer came in time.
    async fn once(
        &self,
        url: &ControllerUrl,
        headers: &[(&str, &str)],
        limit: Duration,
        silent: impl FnOnce(std::os::fd::BorrowedFd<'_>),
    ) -> Result<Response, Failure> {
        let limit = limit.min(self.clock.left());
        let (stream, socket) = self.open(url).await?;
        let via = (!url.tls && !self.tunnel)
            .then(|| self.dialer.proxies.decide(url.scheme(), &url.host, url.port))
            .and_then(|decision| match decision {
                Decision::Via { proxy, .. } => Some(proxy),
                Decision::Direct { .. } => None,
            });
        let target = if via.is_some() { url.to_string() } else { url.path.clone() };
        let authority = url.authority();
        let user_agent = concat!("jenkins-inbound-agent/", env!("CARGO_PKG_VERSION"));
        let own = [("Host", authority.as_str()), ("User-Agent", user_agent), ("Accept", "*/*")];
        // An upgrade has a Connection header of its own.
        let upgrade = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection"));
        let close = (!upgrade).then_some(("Connection", "close"));
        let basic = via.as_ref().and_then(|proxy| self.dialer.credentials_for(proxy)).map(Credentials::basic);
        let basic = basic.as_deref().map(|basic| ("Proxy-Authorization", basic));
        let all = own.into_iter().chain(close).chain(basic).chain(headers.iter().copied());
        let request = http::request(Method::GET, &target, all).map_err(|cause| Failure::from(&cause))?;
        let exchange = http::exchange(stream, request, limit + Duration::from_millis(200));
        tokio::pin!(exchange);
        let answer = match self.clock.within(limit, &mut exchange).await {
            Ok(answer) => answer,
            Err(failure) => {
                if let Some(socket) = &socket {
                    silent(std::os::fd::AsFd::as_fd(socket));
                }
                return Err(failure);
            }
        };
        let (response, ..) = answer.map_err(|cause| Failure::from(&cause))?;
        Ok(response)
    }

    /// A request, following the redirects that a start follows.
    pub(super) async fn get(
        &self,
        url: &ControllerUrl,
        headers: &[(&str, &str)],
        limit: Duration,
        follow: impl Fn(&ControllerUrl) -> bool,
    ) -> (Exchange, Option<Response>) {
        let begun = Instant::now();
        let mut exchange = Exchange { url: url.to_string(), ..Exchange::default() };
        let mut at = url.clone();
        let mut found = None;
        for _ in 0..=MAX_REDIRECTS {
            let same_server = (&at.host, at.port) == (&url.host, url.port);
            let public = |(name, _): &&(&str, &str)| same_server || !name.eq_ignore_ascii_case("authorization");
            let headers: Vec<_> = headers.iter().filter(public).copied().collect();
            match self.once(&at, &headers, limit, |_| ()).await {
                Err(failure) => {
                    (exchange.failure, exchange.answer, found) = (Some(failure), None, None);
                    break;
                }
                Ok(response) => {
                    exchange.answer = Some(answer(&response));
                    let location = match response.status() {
                        301 | 302 | 303 | 307 | 308 => response.header("Location"),
                        _ => None,
                    };
                    let next = location.and_then(|location| resolve(&at, location));
                    found = Some(response);
                    match next {
                        Some(next) if next.tls == url.tls && follow(&next) => at = next,
                        _ => break,
                    }
                    exchange.redirected_to = Some(at.to_string());
                }
            }
        }
        exchange.ms = begun.elapsed().as_millis() as u64;
        (exchange, found)
    }
}

/// What matters of an answer.
pub(super) fn answer(response: &Response) -> Answer {
    let headers = KEPT.iter().filter_map(|&name| Some((name.to_owned(), excerpt(response.header(name)?, MAX_VALUE))));
    Answer {
        status: response.status(),
        headers: headers.collect(),
        title: title(&response.body),
        text: response.message(),
        stalled: response.stalled,
    }
}

/// The text between `<title>` and `</title>`.
fn title(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let lower = body.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|at| {
        let from = at + lower[at..].find('>')? + 1;
        body.get(from..from + lower[from..].find('<')?)
    });
    excerpt(title.unwrap_or_default(), 100)
}

/// The addresses that a start would try, or those that the name servers tell where the system's resolver is too slow.
pub(super) fn addresses(host: &str, names: &Names) -> Vec<IpAddr> {
    let Some(name) = names.get(host) else { return Vec::new() };
    crate::probe::evaluate::addresses(name)
}

pub(super) fn proxy_use(proxy: &Proxy, variable: &str) -> ProxyUse {
    ProxyUse { address: proxy.to_string(), host: proxy.host.clone(), variable: variable.to_owned() }
}

/// Looks at one URL.
pub(super) async fn site(
    target: &Target,
    url: &ControllerUrl,
    names: &Names,
    clock: Clock,
) -> (Site, Option<Endpoint>) {
    let dialer = &target.discovery.dialer;
    let decision = dialer.proxies.decide(url.scheme(), &url.host, url.port);
    let mut site = Site {
        url: url.to_string(),
        host: url.host.clone(),
        port: url.port,
        tls: url.tls,
        path: url.path.clone(),
        decision: decision.to_string(),
        ..Site::default()
    };
    let proxy = match decision {
        Decision::Via { proxy, from_variable } => {
            site.proxy = Some(proxy_use(&proxy, &from_variable));
            Some(proxy)
        }
        Decision::Direct { .. } => None,
    };
    let itself = addresses(&url.host, names);
    let connected = match &proxy {
        Some(proxy) => {
            let by_proxy = addresses(&proxy.host, names);
            let by_proxy = connect::all(&by_proxy, proxy.port, clock);
            let (by_proxy, direct) = tokio::join!(by_proxy, connect::all(&itself, url.port, clock));
            site.direct = direct.into_iter().map(|(connect, _)| connect).collect();
            by_proxy
        }
        None => connect::all(&itself, url.port, clock).await,
    };
    site.connects = connected.into_iter().map(|(connect, _)| connect).collect();
    let Some(address) = site.connects.iter().find(|c| c.failure.is_none()).map(|c| c.address) else {
        let refused = |c: &&crate::probe::facts::Connect| {
            c.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Refused)
        };
        if let Some(refused) = site.connects.iter().find(refused).map(|c| c.address.ip())
            && proxy.is_none()
        {
            site.usual_ports = usual_ports(refused, url.port, clock).await;
        }
        return (site, None);
    };
    let route = Route { dialer, tls: &target.discovery.tls, url, address, proxy: proxy.as_ref(), tunnel: false, clock };
    if url.tls {
        let handshake = tls::handshake(&route).await;
        let failed = handshake.failure.is_some();
        site.handshake = Some(handshake);
        if failed {
            site.other_scheme = Some(other_scheme(&route).await);
            return (site, None);
        }
    }
    let endpoint = ask(&route, target, &mut site).await;
    (site, endpoint)
}

async fn usual_ports(ip: IpAddr, port: u16, clock: Clock) -> Vec<crate::probe::facts::Connect> {
    let others = USUAL_PORTS.iter().filter(|&&other| other != port);
    let tried = others.map(|&other| connect::one(SocketAddr::new(ip, other), GLANCE, clock));
    join_all(tried).await.into_iter().map(|(connect, _)| connect).collect()
}

/// The other of HTTP and TLS at the same port.
async fn other_scheme(route: &Route<'_>) -> Exchange {
    let url = ControllerUrl { tls: !route.url.tls, ..route.url.clone() };
    let route = Route { url: &url, ..*route };
    if url.tls {
        let handshake = tls::handshake(&route).await;
        let failure = handshake.failure.filter(|failure| {
            // Whatever is wrong with its certificate, it speaks TLS.
            use crate::probe::facts::TlsFailureKind as K;
            matches!(failure.kind, K::NotTls | K::TimedOut | K::Closed | K::Other)
        });
        return Exchange {
            url: url.to_string(),
            failure: failure.map(|failure| Failure { kind: FailureKind::Tls, message: failure.message }),
            answer: None,
            redirected_to: None,
            ms: handshake.ms,
        };
    }
    route.get(&url.join("login"), &[], GLANCE, |_| false).await.0
}

/// Asks what answers.
async fn ask(route: &Route<'_>, target: &Target, site: &mut Site) -> Option<Endpoint> {
    let url = route.url;
    let name = target.name.as_deref().unwrap_or_default();
    let credentials = target.discovery.credentials.as_ref().or(url.credentials.as_ref()).map(Credentials::basic);
    let mut headers = vec![("Node-Name", name)];
    headers.extend(credentials.as_deref().map(|basic| ("Authorization", basic)));
    let padding = "x".repeat(PADDING);
    let (listener_url, login_url, file_url) = (url.join(LISTENER), url.join("login"), url.join("favicon.ico"));
    let listener = route.get(&listener_url, &headers, ANSWER, |location| location.path.ends_with(LISTENER));
    let login = route.get(&login_url, &headers, ANSWER, |_| true);
    // A file of some 17 KB that Jenkins has at hand: both ways are tried at once.
    let large = large(route, &file_url, &padding);
    let ((listener, response), (login, _), large) = tokio::join!(listener, login, large);
    let mut endpoint = None;
    if let Some(response) = response.filter(|response| response.status() == 200) {
        let read = Endpoint::from_headers(&response.head.headers, &url.host, target.discovery.identity.as_ref());
        let error = |cause| ConnectError::new("GET", listener_url.to_string(), cause);
        match read {
            Ok(read) => endpoint = Some(read),
            Err(cause) => site.unusable = Some(Attempt::from(&error(cause))),
        }
    }
    let strange = |exchange: &Exchange| {
        exchange.failure.as_ref().is_some_and(|failure| {
            matches!(
                failure.kind,
                FailureKind::Protocol | FailureKind::Closed | FailureKind::Reset | FailureKind::TimedOut
            )
        })
    };
    let lost = |exchange: &Exchange| exchange.answer.as_ref().is_some_and(|answer| !answer.is_jenkins());
    if !url.tls && strange(&listener) && strange(&login) {
        site.other_scheme = Some(other_scheme(route).await);
        site.usual_ports = match route.proxy {
            None => usual_ports(route.address.ip(), url.port, route.clock).await,
            Some(_) => Vec::new(),
        };
    } else if lost(&login) {
        site.elsewhere = elsewhere(route).await;
    }
    (site.listener, site.login, site.large) = (Some(listener), Some(login), Some(large));
    endpoint
}

/// The WebSocket endpoint of a site whose HTTP answers.
pub(super) async fn upgrade(target: &Target, url: &ControllerUrl, site: &Site, clock: Clock) -> Option<Websocket> {
    site.login.as_ref()?.answer.as_ref()?;
    let address = site.connects.iter().find(|c| c.failure.is_none())?.address;
    let proxy = match target.discovery.dialer.proxies.decide(url.scheme(), &url.host, url.port) {
        Decision::Via { proxy, .. } => Some(proxy),
        Decision::Direct { .. } => None,
    };
    let (dialer, tls) = (&target.discovery.dialer, &target.discovery.tls);
    let route = Route { dialer, tls, url, address, proxy: proxy.as_ref(), tunnel: true, clock };
    Some(websocket::gather(&route, target).await)
}

/// The beginnings of the URL's path, and where Jenkins is usually found.
async fn elsewhere(route: &Route<'_>) -> Vec<Exchange> {
    let own = &route.url.path;
    let mut paths: Vec<&str> = own.match_indices('/').map(|(at, _)| &own[..=at]).collect();
    paths.extend(["/jenkins/", "/ci/"]);
    paths.retain(|path| path != own);
    paths.truncate(6);
    let urls: Vec<ControllerUrl> =
        paths.iter().map(|path| ControllerUrl { path: format!("{path}login"), ..route.url.clone() }).collect();
    let root = ControllerUrl { path: "/".to_owned(), ..route.url.clone() };
    let asked = std::iter::once(&root).chain(&urls).map(|url| async { route.get(url, &[], GLANCE, |_| false).await.0 });
    join_all(asked).await
}

/// A request of several packets.
async fn large(route: &Route<'_>, url: &ControllerUrl, padding: &str) -> Large {
    let begun = Instant::now();
    let headers = [("X-Probe-Padding", padding)];
    let mut large = Large { bytes: padding.len() + 200, ..Large::default() };
    large.exchange.url = url.to_string();
    let (mut stuck, mut path_mtu) = (None, None);
    let silent = |socket: std::os::fd::BorrowedFd<'_>| {
        stuck = environment::unacknowledged(socket);
        path_mtu = connect::path_mtu(socket, route.address);
    };
    match route.once(url, &headers, FILE, silent).await {
        Ok(response) => large.exchange.answer = Some(answer(&response)),
        Err(failure) => large.exchange.failure = Some(failure),
    }
    (large.unsent, large.retransmits) = (stuck.map(|(bytes, _)| bytes), stuck.map(|(_, times)| times));
    large.path_mtu = path_mtu;
    large.exchange.ms = begun.elapsed().as_millis() as u64;
    large
}
