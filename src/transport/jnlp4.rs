//! JNLP4-connect: TLS within TCP, with trust from the instance identity, and a short exchange of headers.
//!
//! What happens, in the order of the layers that `JnlpProtocol4Handler.connect` stacks up:
//! 1. we send `Protocol:JNLP4-connect` (`AgentProtocolClientFilterLayer`),
//! 2. both send `ACK` (`AckFilterLayer`),
//! 3. a TLS handshake (`SSLEngineFilterLayer`), in which the controller proves its identity,
//! 4. both send a JSON map of headers and a verdict on the other's (`ConnectionHeadersFilterLayer`),
//! 5. both send their capability (`ChannelApplicationLayer`), and then chunks.

use super::{
    Cause, ConnectError, Connection, Peer, Protocol,
    identity::{InstanceIdentity, Secret, Verified, verify},
    stream,
};
use crate::frame::{
    Capability,
    handshake::{
        ACK, BYE, FirstAnswer, HandshakeError, OK, Verdict, encode_headers, encode_item,
        parse_first_answer, parse_headers, parse_item, parse_verdict,
    },
};
use bytes::{Buf, BytesMut};
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};

/// The protocol's name on the wire (`JnlpProtocol4Handler.getName`).
pub const PROTOCOL_NAME: &str = "JNLP4-connect";

/// A good deadline for [`connect`]. Java gives each layer 10 s; the controller may need 15 s to let go of the dead
/// connection that a returned cookie replaces (`DefaultJnlpSlaveReceiver.afterProperties`).
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a refused connection may take to say goodbye, without which the controller holds it for 10 s.
const BYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Headers, as `JnlpConnectionState` names them.
const NODE_NAME: &str = "Node-Name";
const SECRET_KEY: &str = "Secret-Key";
const COOKIE: &str = "JnlpAgentProtocol.cookie";

/// Who this agent says it is.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The agent's name on the controller.
    pub node_name: String,
    /// Its secret there.
    pub secret: Secret,
    /// The cookie of the last connection ([`Peer::cookie`]): lets the controller drop that one in favour of this
    /// instead of refusing.
    pub cookie: Option<String>,
}

/// Opens a channel on a stream that has just been connected to the controller's agent port.
///
/// The secret is sent only after the other end has proved to be `identity`. `address` is for messages.
///
/// # Errors
/// [`ConnectError`], within `deadline` (plus 2 s to say goodbye where refused) at the latest.
pub async fn connect<S>(
    stream: S,
    address: &str,
    identity: &InstanceIdentity,
    credentials: &Credentials,
    capability: Capability,
    deadline: Duration,
) -> Result<Connection, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let by = Instant::now() + deadline;
    let mut doing = "greeting";
    let steps = async {
        let stream = greet(stream).await?;
        doing = "TLS handshake with";
        let mut stream = Input::new(verify(stream, identity).await?);
        doing = "presenting this agent to";
        let (theirs, verdict) = exchange_headers(&mut stream, credentials).await?;
        Ok((stream, theirs, verdict))
    };
    let outcome = timeout_at(by, steps)
        .await
        .unwrap_or(Err(Cause::TimedOut(deadline)));
    let failed = |doing: &'static str| move |cause: Cause| ConnectError::new(doing, address, cause);
    let (mut stream, cookie, verdict) = outcome.map_err(failed(doing))?;
    if let Some(cause) = refusal(verdict) {
        // The refusal counts, whether or not the goodbye arrives.
        let _ = timeout(BYE_TIMEOUT, stream.say_goodbye()).await;
        return Err(failed(doing)(cause));
    }
    let theirs = timeout_at(by, exchange_capabilities(&mut stream, capability))
        .await
        .unwrap_or(Err(Cause::TimedOut(deadline)))
        .map_err(failed("agreeing on capabilities with"))?;
    let peer = Peer {
        protocol: Protocol::Jnlp4,
        capability: theirs,
        cookie,
        address: address.to_owned(),
    };
    let (source, sink) = tokio::io::split(stream.verified.into_inner());
    Ok(stream::connection(source, sink, &stream.buffer, peer))
}

/// Asks for the protocol, in the clear.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Result<S, Cause> {
    let mut greeting = encode_item(&format!("Protocol:{PROTOCOL_NAME}"))?;
    greeting.extend_from_slice(&ACK);
    stream.write_all(&greeting).await?;
    stream.flush().await?;

    let mut answer = Vec::new();
    let mut ended = false;
    loop {
        match parse_first_answer(&answer, ended) {
            FirstAnswer::Ack => return Ok(stream),
            // No byte beyond those is read: it would be missing in the TLS handshake.
            FirstAnswer::Incomplete(needed) => {
                let read = (&mut stream)
                    .take(needed as u64)
                    .read_buf(&mut answer)
                    .await;
                ended = match read {
                    Ok(length) => length == 0,
                    // A reset after some text is how a port closes on whom it has told off.
                    Err(_) if !answer.is_empty() => true,
                    Err(error) => return Err(error.into()),
                };
            }
            FirstAnswer::Text(text) if text.is_empty() => return Err(Cause::Closed),
            FirstAnswer::Text(text) if text.starts_with("Unknown protocol") => {
                return Err(Cause::ProtocolNotOffered {
                    offered: String::new(),
                });
            }
            FirstAnswer::Text(text) => return Err(Cause::Protocol(text)),
        }
    }
}

/// Sends name and secret, and gets the controller's cookie and verdict.
async fn exchange_headers<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut Input<S>,
    credentials: &Credentials,
) -> Result<(Option<String>, Verdict), Cause> {
    let ours = encode_headers(
        [
            Some((NODE_NAME, credentials.node_name.as_str())),
            Some((SECRET_KEY, credentials.secret.reveal_to(&stream.verified))),
            credentials.cookie.as_deref().map(|cookie| (COOKIE, cookie)),
        ]
        .into_iter()
        .flatten(),
    );
    stream.write_item(&ours).await?;
    let mut theirs = parse_headers(&stream.read_item().await?)?;
    stream.write_item(OK).await?;
    let verdict = parse_verdict(&stream.read_item().await?);
    Ok((theirs.remove(COOKIE).flatten(), verdict))
}

/// What a refusal means. The words are those of `JnlpProtocol4Handler.onReceiveHeaders` and
/// `DefaultJnlpSlaveReceiver.afterProperties`, unchanged since 2016; they aren't translated.
fn refusal(verdict: Verdict) -> Option<Cause> {
    match verdict {
        Verdict::Accepted => None,
        Verdict::RefusedForGood(message) => Some(Cause::Rejected { message }),
        Verdict::Refused(message) => Some(
            if message.contains("already connected")
                || message.starts_with("Failed to disconnect the current client")
            {
                Cause::AlreadyConnected { message }
            } else if [
                "Authorization failure",
                "Authentication failure",
                "Unknown client name",
            ]
            .iter()
            .any(|definite| message.starts_with(definite))
                || message.ends_with("is not an inbound agent")
            {
                Cause::Rejected { message }
            } else {
                Cause::TryLater { message }
            },
        ),
    }
}

/// Tells each other what remoting can do; the channel begins right after.
async fn exchange_capabilities<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut Input<S>,
    ours: Capability,
) -> Result<Capability, Cause> {
    stream.write_item(&ours.to_base64()).await?;
    let theirs = stream.read_item().await?;
    Capability::from_base64(&theirs).map_err(|error| Cause::Protocol(error.to_string()))
}

/// A verified stream and what has been read from it ahead.
struct Input<S> {
    verified: Verified<S>,
    buffer: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Input<S> {
    fn new(verified: Verified<S>) -> Self {
        Input {
            verified,
            buffer: BytesMut::new(),
        }
    }

    async fn write_item(&mut self, text: &str) -> Result<(), Cause> {
        let stream = self.verified.stream();
        stream.write_all(&encode_item(text)?).await?;
        Ok(stream.flush().await?)
    }

    async fn read_item(&mut self) -> Result<String, Cause> {
        loop {
            if let Some((text, length)) = parse_item(&self.buffer)? {
                let text = text.to_owned();
                self.buffer.advance(length);
                return Ok(text);
            }
            self.buffer.reserve(1024);
            if self.verified.stream().read_buf(&mut self.buffer).await? == 0 {
                return Err(Cause::Closed);
            }
        }
    }

    async fn say_goodbye(&mut self) -> Result<(), Cause> {
        self.write_item(BYE).await?;
        Ok(self.verified.stream().shutdown().await?)
    }
}

impl From<HandshakeError> for Cause {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::TooLong(_) => {
                Cause::Configuration(format!("the agent's name, secret or cookie: {error}"))
            }
            _ => Cause::Protocol(error.to_string()),
        }
    }
}
