//! What takes a connection of one's own: logging in, and being idle.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{Clock, Target, agent_port, timed_out};
use crate::discovery::Endpoint;
use crate::frame::Capability;
use crate::probe::facts::{Attempt, Authentication, Failure, FailureKind, Hold, Way};
use crate::transport::identity::Secret;
use crate::transport::proxy::Scheme;
use crate::transport::{Cause, ConnectError, Connection, jnlp4, websocket};

/// How long the answer may take that shows that an idle connection is still one.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// How long a connection for that may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Logs in as a start does. The connection is for [`hold`].
pub(super) async fn log_in(
    target: &Target,
    endpoint: Option<&Endpoint>,
    clock: Clock,
) -> Option<(Authentication, Option<Connection>)> {
    let (name, secret) = (target.name.clone()?, target.secret.clone()?);
    let begun = Instant::now();
    let mut seen = Authentication { way: target.way, ..Authentication::default() };
    let limit = clock.left();
    let outcome = match (target.way, endpoint) {
        (Way::Websocket, _) => clock.within(limit, web_socket(target, name, secret)).await,
        (_, Some(endpoint)) => clock.within(limit, tcp(target, endpoint, name, secret, limit)).await,
        (_, None) => return None,
    };
    let outcome = outcome.unwrap_or_else(|_| Err(ConnectError::new("logging in", "", Cause::TimedOut(limit))));
    seen.ms = begun.elapsed().as_millis() as u64;
    let connection = match outcome {
        Ok(connection) => {
            seen.accepted = true;
            Some(connection)
        }
        Err(error) => {
            seen.refusal = Some(Attempt::from(&error));
            None
        }
    };
    Some((seen, connection))
}

async fn web_socket(target: &Target, agent_name: String, secret: Secret) -> Result<Connection, ConnectError> {
    let no_url = || ConnectError::new("logging in", "", Cause::Configuration("no URL is given".to_owned()));
    let options = websocket::Options {
        url: target.discovery.urls.first().cloned().ok_or_else(no_url)?,
        agent_name,
        secret,
        cookie: None,
        headers: target.headers.clone(),
    };
    websocket::connect(&target.discovery.dialer, &target.discovery.tls, &options).await
}

async fn tcp(
    target: &Target,
    endpoint: &Endpoint,
    node_name: String,
    secret: Secret,
    limit: Duration,
) -> Result<Connection, ConnectError> {
    let stream = target.discovery.dialer.connect(Scheme::Agent, &endpoint.host, endpoint.port).await?;
    let address = crate::transport::proxy::host_port(&endpoint.host, endpoint.port);
    let credentials = jnlp4::Credentials { node_name, secret, cookie: None };
    jnlp4::connect(stream, &address, &endpoint.identity, &credentials, Capability::OURS, limit).await
}

/// Keeps a connection idle: the channel where there is one, else one to the agent port, which waits for ever for the first
/// byte (`TcpSlaveAgentListener.ConnectionHandler.run` sets no timeout). Jetty closes idle HTTP connections itself, so that
/// these would tell nothing.
pub(super) async fn hold(
    target: &Target,
    endpoint: Option<&Endpoint>,
    connection: Option<Connection>,
    length: Duration,
) -> Hold {
    let mut seen = Hold { wanted_ms: length.as_millis() as u64, ..Hold::default() };
    let begun = Instant::now();
    let ended = if let Some(mut connection) = connection {
        "channel".clone_into(&mut seen.what);
        seen.address.clone_from(&connection.peer.address);
        let ended = idle_channel(&mut connection, begun + length).await;
        seen.held_ms = begun.elapsed().as_millis() as u64;
        connection.writer.close().await;
        ended
    } else if let Some(endpoint) = endpoint {
        "agent port".clone_into(&mut seen.what);
        seen.address = crate::transport::proxy::host_port(&endpoint.host, endpoint.port);
        match timeout(CONNECT, target.discovery.dialer.connect(Scheme::Agent, &endpoint.host, endpoint.port)).await {
            Ok(Ok(stream)) => {
                let begun = Instant::now();
                let (ended, held) = idle_socket(stream, begun + length).await;
                seen.held_ms = held.saturating_duration_since(begun).as_millis() as u64;
                ended
            }
            Ok(Err(error)) => {
                seen.skipped = Some(error.to_string());
                None
            }
            Err(_) => {
                seen.skipped = Some(Cause::TimedOut(CONNECT).to_string());
                None
            }
        }
    } else {
        seen.skipped = Some(match target.way {
            Way::Websocket => "without --probe-auth there is no WebSocket to hold".to_owned(),
            _ => "there is no connection to hold".to_owned(),
        });
        None
    };
    seen.ended = ended;
    seen
}

/// The controller's commands are not answered; it waits for the answer to its first one.
async fn idle_channel(connection: &mut Connection, until: Instant) -> Option<Failure> {
    loop {
        match timeout_at(until, connection.reader.read()).await {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => return Some(closed()),
            Ok(Err(error)) => return Some(Failure { kind: FailureKind::Reset, message: error.to_string() }),
            Err(_) => return None,
        }
    }
}

/// How it ended, and when it was known.
async fn idle_socket(mut stream: TcpStream, until: Instant) -> (Option<Failure>, Instant) {
    let mut byte = [0; 1];
    let early = tokio::select! {
        read = stream.read(&mut byte) => Some(match read {
            Ok(0) => closed(),
            Ok(_) => Failure { kind: FailureKind::Protocol, message: "something was sent to us unasked".to_owned() },
            Err(error) => Failure::from(&error),
        }),
        () = sleep_until(until) => None,
    };
    let known = Instant::now();
    if early.is_some() {
        return (early, known);
    }
    // What forgets a connection does not always say so.
    let mut answer = Vec::new();
    let asked = timeout(SIGN_OF_LIFE, agent_port::ask(&mut stream, &mut answer)).await;
    let ended = match asked {
        _ if !answer.is_empty() => None,
        Ok(Ok(())) => Some(closed()),
        Ok(Err(error)) => Some(Failure::from(&error)),
        Err(_) => Some(timed_out(SIGN_OF_LIFE)),
    };
    (ended, known)
}

fn closed() -> Failure {
    Failure { kind: FailureKind::Closed, message: "it was closed".to_owned() }
}
