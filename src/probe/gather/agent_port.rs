//! The controller's TCP port for agents.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Clock, Names, Shared, Target, connect, http, names, put};
use crate::discovery::Endpoint;
use crate::probe::facts::{AgentPort, Connect, Failure, FailureKind, Hello, Name, Proof, Site};
use crate::transport::http::excerpt;
use crate::transport::proxy::{Decision, Proxy, Scheme};
use crate::transport::{Cause, jnlp4};

/// How long an answer may take once connected.
const ANSWER: Duration = Duration::from_secs(4);

/// No more of an answer is read.
const MAX_HELLO: u64 = 8 << 10;

/// Whole, and never less than ten bytes, for which the listener waits.
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// Looks at the port to which a start would connect.
pub(super) async fn gather(
    target: &Target,
    endpoint: Option<&Endpoint>,
    sites: &[Site],
    names: &Names,
    clock: Clock,
    facts: &Shared,
) {
    let Some(endpoint) = endpoint else { return };
    let decision = target.discovery.dialer.proxies.decide(Scheme::Agent, &endpoint.host, endpoint.port);
    let mut port = AgentPort {
        host: endpoint.host.clone(),
        port: endpoint.port,
        origin: endpoint.origin.clone(),
        identity: Some(endpoint.identity.fingerprint()),
        decision: decision.to_string(),
        ..AgentPort::default()
    };
    let proxy = match &decision {
        Decision::Via { proxy, from_variable } => {
            port.proxy = Some(http::proxy_use(proxy, from_variable));
            Some(proxy)
        }
        Decision::Direct { .. } => None,
    };
    let (host, number) = proxy.map_or((&endpoint.host, endpoint.port), |proxy| (&proxy.host, proxy.port));
    let name = resolved(host, names, clock).await;
    let addresses = crate::probe::evaluate::addresses(&name);
    {
        let mut facts = put(facts);
        if !facts.names.iter().any(|known| known.name == name.name) {
            facts.names.push(name);
        }
    }
    let connected = connect::all(&addresses, number, clock).await;
    let mut address = None;
    for (connect, stream) in connected {
        if let Some(stream) = stream {
            let said = hello(stream, target, proxy, endpoint, clock).await;
            // The first that can be connected to is the one that a start would use.
            address.get_or_insert(connect.address);
            port.hello.get_or_insert(said);
        }
        port.connects.push(connect);
    }
    put(facts).agent_port = Some(port.clone());
    let url_host = target.discovery.urls.first().map(|url| url.host.as_str());
    match address {
        None if proxy.is_none() => {
            if let Some(url_host) = url_host.filter(|&url_host| url_host != endpoint.host) {
                port.url_host = at_url_host(url_host, endpoint, names, target, clock).await;
            }
        }
        Some(address) if doubtful(port.hello.as_ref(), sites) => {
            port.proof = Some(prove(address, target, proxy, endpoint, clock).await);
        }
        _ => {}
    }
    put(facts).agent_port = Some(port);
}

async fn resolved(host: &str, names: &Names, clock: Clock) -> Name {
    match names.get(host) {
        Some(name) => name.clone(),
        None => names::gather(host, clock).await,
    }
}

/// Where the advertised host is unreachable, the URL's may have the port.
async fn at_url_host(host: &str, endpoint: &Endpoint, names: &Names, target: &Target, clock: Clock) -> Vec<Connect> {
    let addresses = http::addresses(host, names);
    let mut tried = Vec::new();
    for (mut connect, stream) in connect::all(&addresses, endpoint.port, clock).await {
        if let Some(stream) = stream {
            let said = hello(stream, target, None, endpoint, clock).await;
            if said.version.is_none() {
                connect.failure = said.failure.or(Some(Failure {
                    kind: FailureKind::Protocol,
                    message: "what listens there is not Jenkins".to_owned(),
                }));
            }
        }
        tried.push(connect);
    }
    tried
}

/// Whether it takes a handshake to know whose port it is: the listener speaks for Jenkins, but not for a process that is
/// known from the HTTP side.
fn doubtful(hello: Option<&Hello>, sites: &[Site]) -> bool {
    let Some(hello) = hello.filter(|hello| hello.strange.is_none() && hello.failure.is_none()) else {
        // A tunnel may lead to what passes JNLP4 only; what speaks another protocol is no Jenkins.
        return hello
            .is_some_and(|hello| hello.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Closed));
    };
    let known = sites.iter().flat_map(|site| [&site.listener, &site.login]).flatten();
    let mut sessions = known.filter_map(|exchange| exchange.answer.as_ref()?.header("x-jenkins-session"));
    hello.session.is_none() || !sessions.any(|session| Some(session) == hello.session.as_deref())
}

async fn through(
    stream: TcpStream,
    target: &Target,
    proxy: Option<&Proxy>,
    endpoint: &Endpoint,
    clock: Clock,
) -> Result<TcpStream, Failure> {
    let Some(proxy) = proxy else { return Ok(stream) };
    let tunnel = target.discovery.dialer.tunnel(stream, proxy, &endpoint.host, endpoint.port);
    clock.within(ANSWER, tunnel).await?.map_err(|error| Failure::from(&error.cause))
}

/// `GET /`, which leaves no line in the controller's log.
async fn hello(stream: TcpStream, target: &Target, proxy: Option<&Proxy>, endpoint: &Endpoint, clock: Clock) -> Hello {
    let begun = Instant::now();
    let mut said = match through(stream, target, proxy, endpoint, clock).await {
        Err(failure) => Hello { failure: Some(failure), ..Hello::default() },
        Ok(mut stream) => {
            let mut answer = Vec::new();
            let asked = clock.within(ANSWER, ask(&mut stream, &mut answer)).await;
            match asked.and_then(|asked| asked.map_err(|error| Failure::from(&error))) {
                // Some say who they are, and then wait for what is not coming.
                Err(failure) if answer.is_empty() => Hello { failure: Some(failure), ..Hello::default() },
                _ => read(&answer),
            }
        }
    };
    said.ms = begun.elapsed().as_millis() as u64;
    said
}

/// Asks, and adds to `answer` what comes until the end.
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    answer: &mut Vec<u8>,
) -> std::io::Result<()> {
    stream.write_all(REQUEST).await?;
    stream.take(MAX_HELLO).read_to_end(answer).await.map(drop)
}

/// What the listener says (`TcpSlaveAgentListener.ConnectionHandler.respondHello`).
pub(super) fn read(answer: &[u8]) -> Hello {
    let text = String::from_utf8_lossy(answer);
    let mut said = Hello::default();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
        Some(excerpt(line, 100)).filter(|value| !value.is_empty())
    };
    said.version = value("Jenkins-Version");
    said.session = value("Jenkins-Session");
    said.client = value("Client");
    said.minimum_version = value("Remoting-Minimum-Version");
    said.protocols = value("Jenkins-Agent-Protocols")
        .iter()
        .flat_map(|list| list.split(',').map(|name| name.trim().to_owned()))
        .filter(|name| !name.is_empty())
        .collect();
    if answer.is_empty() {
        let message = Cause::Closed.to_string();
        said.failure = Some(Failure { kind: FailureKind::Closed, message });
    } else if said.version.is_none() {
        said.strange = Some(excerpt(text.lines().next().unwrap_or_default(), 100));
    }
    said
}

/// JNLP4 up to the proof of identity.
async fn prove(
    address: SocketAddr,
    target: &Target,
    proxy: Option<&Proxy>,
    endpoint: &Endpoint,
    clock: Clock,
) -> Proof {
    let begun = Instant::now();
    let mut proof = Proof::default();
    let handshake = async {
        let (connect, stream) = connect::one(address, connect::CONNECT, clock).await;
        let Some(stream) = stream else { return Err(connect.failure) };
        let stream = through(stream, target, proxy, endpoint, clock).await.map_err(Some)?;
        let proving = clock.within(ANSWER, jnlp4::prove(stream, &endpoint.identity));
        proving.await.map_err(Some)
    };
    match handshake.await {
        Ok(Ok(())) => proof.matches = true,
        Ok(Err(Cause::IdentityMismatch { found, .. })) => proof.found = Some(found),
        Ok(Err(Cause::ProtocolNotOffered { .. })) => proof.not_offered = true,
        Ok(Err(cause)) => proof.failure = Some(Failure::from(&cause)),
        Err(failure) => proof.failure = failure,
    }
    proof.ms = begun.elapsed().as_millis() as u64;
    proof
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_listener_says() {
        let answer = "HTTP/1.0 200 OK\r\nContent-Type: text/plain;charset=UTF-8\r\n\r\nJenkins-Agent-Protocols: JNLP4-connect, Ping\r\n\
             Jenkins-Version: 2.293\r\nJenkins-Session: 1a2b\r\nClient: 10.0.0.7\r\nServer: 10.0.0.1\r\nRemoting-Minimum-Version: 3.14\r\n";
        let said = read(answer.as_bytes());
        assert_eq!(said.protocols, ["JNLP4-connect", "Ping"]);
        assert_eq!((said.version.as_deref(), said.session.as_deref()), (Some("2.293"), Some("1a2b")));
        assert_eq!((said.client.as_deref(), said.minimum_version.as_deref()), (Some("10.0.0.7"), Some("3.14")));
        assert_eq!((said.strange, said.failure), (None, None));
        assert_eq!(read(b"SSH-2.0-OpenSSH\r\n").strange.as_deref(), Some("SSH-2.0-OpenSSH"));
        assert_eq!(read(b"").failure.map(|failure| failure.kind), Some(FailureKind::Closed));
    }
}
