//! The probe's IO: each step writes down what it has seen, and no more.

mod agent_port;
mod channel;
mod connect;
mod environment;
mod http;
mod names;
mod tls;
mod websocket;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::facts::{Configuration, Facts, Failure, FailureKind, Name, SecretShape, Way};
use super::{Target, kubernetes};
use crate::discovery::Endpoint;
use crate::transport::Cause;
use crate::transport::proxy::{Decision, Scheme};

/// Where facts are put as they come in, so that a probe that is cut off has those that it got.
pub(super) type Shared = Mutex<Facts>;

fn put(facts: &Shared) -> MutexGuard<'_, Facts> {
    facts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is left of the probe's time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    end: Instant,
    whole: Duration,
}

impl Clock {
    fn of(timeout: Duration) -> Self {
        Clock { end: Instant::now() + timeout, whole: timeout }
    }

    fn left(self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// No more than half of all the probe's time: a silence that long has been seen, and does not end with the probe.
    fn no_more_than_half(self, limit: Duration) -> Duration {
        limit.min(self.whole / 2)
    }

    /// Waits for `limit`, or for what is left if that is less.
    async fn within<T>(self, limit: Duration, what: impl Future<Output = T>) -> Result<T, Failure> {
        let left = self.left();
        match timeout(limit.min(left), what).await {
            Ok(value) => Ok(value),
            Err(_) if limit <= left => Err(timed_out(limit)),
            Err(_) => {
                Err(Failure { kind: FailureKind::OutOfTime, message: "the probe's time was up first".to_owned() })
            }
        }
    }
}

fn timed_out(limit: Duration) -> Failure {
    Failure { kind: FailureKind::TimedOut, message: Cause::TimedOut(limit).to_string() }
}

impl From<&io::Error> for Failure {
    fn from(error: &io::Error) -> Self {
        use io::ErrorKind as K;
        let kind = match error.kind() {
            K::ConnectionRefused => FailureKind::Refused,
            K::TimedOut => FailureKind::TimedOut,
            // A firewall of this host's own says EPERM.
            K::HostUnreachable | K::PermissionDenied => FailureKind::HostUnreachable,
            K::NetworkUnreachable | K::NetworkDown | K::AddrNotAvailable => FailureKind::NetworkUnreachable,
            K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe => FailureKind::Reset,
            K::UnexpectedEof => FailureKind::Closed,
            _ => FailureKind::Other,
        };
        Failure { kind, message: error.to_string() }
    }
}

impl From<&Cause> for Failure {
    fn from(cause: &Cause) -> Self {
        let kind = match cause {
            Cause::Io(error) => return error.into(),
            Cause::Refused => FailureKind::Refused,
            Cause::TimedOut(_) => FailureKind::TimedOut,
            Cause::Unreachable(_) => FailureKind::HostUnreachable,
            Cause::Closed => FailureKind::Closed,
            Cause::Tls(_) => FailureKind::Tls,
            Cause::NotJenkins(_) | Cause::Protocol(_) => FailureKind::Protocol,
            Cause::Proxy { .. } => FailureKind::Proxy,
            _ => FailureKind::Other,
        };
        Failure { kind, message: cause.to_string() }
    }
}

/// Observes everything.
pub(super) async fn gather(target: &Target, facts: &Shared) {
    let clock = Clock::of(target.timeout);
    {
        let mut facts = put(facts);
        facts.configuration = configuration(target);
        facts.attempt.clone_from(&target.attempt);
    }
    let environment = async {
        let seen = environment::gather(target, clock).await;
        put(facts).environment = seen;
    };
    let cluster = async {
        let seen = kubernetes::gather(target, clock.left()).await;
        put(facts).kubernetes = seen;
    };
    tokio::join!(environment, cluster, reach(target, clock, facts));
}

fn configuration(target: &Target) -> Configuration {
    let discovery = &target.discovery;
    Configuration {
        way: target.way,
        urls: discovery.urls.iter().map(ToString::to_string).collect(),
        direct: target.direct.as_ref().map(|(host, port)| crate::transport::proxy::host_port(host, *port)),
        tunnel: discovery.tunnel.as_ref().map(|tunnel| {
            let port = tunnel.port.map(|port| port.to_string()).unwrap_or_default();
            format!("{}:{port}", tunnel.host.as_deref().unwrap_or_default())
        }),
        name: target.name.clone(),
        secret: target.secret.as_ref().map(|secret| {
            let shape = secret.shape();
            SecretShape { length: shape.length, hexadecimal: shape.hexadecimal, sha256: shape.sha256 }
        }),
        identity: target.identity.as_ref().map(|identity| identity.fingerprint()),
        trusts_anyone: discovery.tls.is_unchecked(),
    }
}

/// The way to the controller, in causal order.
async fn reach(target: &Target, clock: Clock, facts: &Shared) {
    let names = Names::gather(target, clock).await;
    put(facts).names = names.all();
    let looked = join_all(target.discovery.urls.iter().map(|url| http::site(target, url, &names, clock))).await;
    let (sites, endpoints): (Vec<_>, Vec<_>) = looked.into_iter().unzip();
    put(facts).sites.clone_from(&sites);
    let mut endpoint = None;
    match target.way {
        Way::Tcp | Way::Direct => {
            endpoint = match (&target.direct, &target.identity) {
                (Some((host, port)), Some(identity)) => Some(Endpoint::at(host, *port, identity.clone(), "-direct")),
                // The first URL that leads anywhere, as a start does.
                _ => endpoints.into_iter().flatten().next().map(|mut endpoint| {
                    if let Some(tunnel) = &target.discovery.tunnel {
                        endpoint.through(tunnel);
                    }
                    endpoint
                }),
            };
            agent_port::gather(target, endpoint.as_ref(), &sites, &names, clock, facts).await;
        }
        Way::Websocket => {
            if let (Some(url), Some(site)) = (target.discovery.urls.first(), sites.first()) {
                let seen = http::upgrade(target, url, site, clock).await;
                put(facts).websocket = seen;
            }
        }
    }
    let mut connection = None;
    if target.authenticate
        && let Some((seen, opened)) = channel::log_in(target, endpoint.as_ref(), clock).await
    {
        put(facts).authentication = Some(seen);
        connection = opened;
    }
    match target.hold {
        Some(length) => {
            let seen = channel::hold(target, endpoint.as_ref(), connection, length).await;
            put(facts).hold = Some(seen);
        }
        None => {
            if let Some(mut connection) = connection {
                connection.writer.close().await;
            }
        }
    }
}

/// The host names that are known from the start, resolved.
struct Names(HashMap<String, Name>);

impl Names {
    async fn gather(target: &Target, clock: Clock) -> Self {
        let mut hosts: Vec<&str> = Vec::new();
        let proxies = &target.discovery.dialer.proxies;
        let mut proxy_hosts = Vec::new();
        for url in &target.discovery.urls {
            hosts.push(&url.host);
            if let Decision::Via { proxy, .. } = proxies.decide(url.scheme(), &url.host, url.port) {
                proxy_hosts.push(proxy.host);
            }
        }
        if let Some((host, port)) = &target.direct {
            hosts.push(host);
            if let Decision::Via { proxy, .. } = proxies.decide(Scheme::Agent, host, *port) {
                proxy_hosts.push(proxy.host);
            }
        }
        hosts.extend(target.discovery.tunnel.as_ref().and_then(|tunnel| tunnel.host.as_deref()));
        hosts.extend(proxy_hosts.iter().map(String::as_str));
        hosts.sort_unstable();
        hosts.dedup();
        let names = join_all(hosts.iter().map(|host| names::gather(host, clock))).await;
        Names(names.into_iter().map(|name| (name.name.clone(), name)).collect())
    }

    fn get(&self, host: &str) -> Option<&Name> {
        self.0.get(host)
    }

    fn all(&self) -> Vec<Name> {
        let mut all: Vec<Name> = self.0.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}
