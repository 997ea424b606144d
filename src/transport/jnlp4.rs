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
        ACK, BYE, FirstAnswer, HandshakeError, OK, Verdict, encode_headers, encode_item, parse_first_answer,
        parse_headers, parse_item, parse_verdict,
    },
};
use bytes::{Buf, BytesMut};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::client::TlsStream;

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
    let outcome = timeout_at(by, steps).await.unwrap_or(Err(Cause::TimedOut(deadline)));
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
    let peer = Peer { protocol: Protocol::Jnlp4, capability: theirs, cookie, address: address.to_owned() };
    let (source, sink) = tokio::io::split(NoCloseNotify(stream.verified.into_inner()));
    Ok(stream::connection(source, sink, &stream.buffer, peer))
}

/// Goes as far as the other end's proof that it holds the identity's key, and no further: nothing of this agent is told.
///
/// # Errors
/// [`Cause`]. There is no deadline in here.
pub async fn prove<S>(stream: S, identity: &InstanceIdentity) -> Result<(), Cause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    verify(greet(stream).await?, identity).await.map(drop)
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
                let read = (&mut stream).take(needed as u64).read_buf(&mut answer).await;
                ended = match read {
                    Ok(length) => length == 0,
                    // A reset after some text is how a port closes on whom it has told off.
                    Err(_) if !answer.is_empty() => true,
                    Err(error) => return Err(error.into()),
                };
            }
            FirstAnswer::Text(text) if text.is_empty() => return Err(Cause::Closed),
            FirstAnswer::Text(text)
                if text.starts_with("Unknown protocol") || text.starts_with("Disabled protocol") =>
            {
                return Err(Cause::ProtocolNotOffered { offered: String::new() });
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
            if message.contains("already connected") || message.starts_with("Failed to disconnect the current client") {
                Cause::AlreadyConnected { message }
            } else if ["Authorization failure", "Authentication failure", "Unknown client name"]
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
        Input { verified, buffer: BytesMut::new() }
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
        self.write_item(BYE).await
    }
}

/// A TLS stream that is closed by closing what is under it, without a `close_notify`.
///
/// Java's controller, having received a `close_notify` over TLS 1.3, deems its receiving side done and then ignores the
/// end of the TCP stream, because `SSLEngineFilterLayer.isRecvOpen` is false: it would keep the channel open, and the
/// agent "already connected", until its ping gives up minutes later (seen with remoting 4.7 on Java 17). The end of the
/// stream alone it notices, over TLS 1.2 and 1.3. Nothing is lost: the channel has a `CloseCommand` of its own.
#[derive(Debug)]
struct NoCloseNotify<S>(TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for NoCloseNotify<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for NoCloseNotify<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_flush(cx))?;
        Pin::new(self.0.get_mut().0).poll_shutdown(cx)
    }
}

impl From<HandshakeError> for Cause {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::TooLong(_) => Cause::Configuration(format!("the agent's name, secret or cookie: {error}")),
            _ => Cause::Protocol(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::ExitCode;
    use rustls::{
        ServerConfig, SupportedProtocolVersion,
        crypto::ring,
        server::{ResolvesServerCert, WebPkiClientVerifier},
        sign::CertifiedKey,
        version::{TLS12, TLS13},
    };
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    use std::sync::Arc;
    use tokio::{
        io::{DuplexStream, copy, duplex, split},
        task::JoinHandle,
    };
    use tokio_rustls::{TlsAcceptor, server::TlsStream as ServerStream};

    const CERTIFICATE: &str = include_str!("testdata/controller.crt");
    const KEY: &str = include_str!("testdata/controller.key");
    const NAME: &str = "ci.example.com:50000";
    const DEADLINE: Duration = Duration::from_secs(30);
    const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

    /// Where a controller stops to say anything.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Stall {
        Never,
        BeforeAck,
        BeforeTls,
        BeforeHeaders,
        BeforeVerdict,
        BeforeCapability,
    }

    /// What a controller says; by default, what a contented one does.
    #[derive(Clone)]
    struct Script {
        version: &'static SupportedProtocolVersion,
        certificate: &'static str,
        key: &'static str,
        headers: String,
        verdict: String,
        capability: String,
        stall: Stall,
    }

    impl Default for Script {
        fn default() -> Self {
            Script {
                version: &TLS13,
                certificate: CERTIFICATE,
                key: KEY,
                headers: r#"{"JnlpAgentProtocol.cookie":"c00kie"}"#.to_owned(),
                verdict: "OK".to_owned(),
                capability: Capability { mask: 0x1ff }.to_base64(),
                stall: Stall::Never,
            }
        }
    }

    /// What a controller heard.
    #[derive(Default)]
    struct Heard {
        tls_error: Option<String>,
        headers: Option<String>,
        verdict: Option<String>,
        last: Option<String>,
        stream: Option<ServerStream<DuplexStream>>,
    }

    #[derive(Debug)]
    struct OneKey(Arc<CertifiedKey>);

    impl ResolvesServerCert for OneKey {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }

    impl Script {
        fn acceptor(&self) -> TlsAcceptor {
            let provider = Arc::new(ring::default_provider());
            let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
            let key = provider.key_provider.load_private_key(key).unwrap();
            // Java's controller asks for a client certificate and does without.
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap()).unwrap();
            let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
            let config = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[self.version])
                .unwrap()
                .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
                .with_cert_resolver(Arc::new(OneKey(Arc::new(CertifiedKey::new(vec![certificate], key)))));
            TlsAcceptor::from(Arc::new(config))
        }

        async fn stall(&self, here: Stall) {
            if self.stall == here {
                std::future::pending::<()>().await;
            }
        }

        async fn serve(self, mut stream: DuplexStream) -> Heard {
            let mut heard = Heard::default();
            if let Err(error) = self.talk(&mut stream).await {
                heard.tls_error = Some(error.to_string());
                return heard;
            }
            let mut stream = match self.acceptor().accept(stream).await {
                Ok(stream) => stream,
                Err(error) => {
                    heard.tls_error = Some(error.to_string());
                    return heard;
                }
            };
            // A failure is the agent's going away: whoever asks sees what was heard until then.
            let _ = self.talk_securely(&mut stream, &mut heard).await;
            heard.stream = Some(stream);
            heard
        }

        async fn talk(&self, stream: &mut DuplexStream) -> io::Result<()> {
            assert_eq!(read_item(stream).await?, "Protocol:JNLP4-connect");
            assert_eq!(read_item(stream).await?, "ACK");
            self.stall(Stall::BeforeAck).await;
            stream.write_all(&ACK).await?;
            self.stall(Stall::BeforeTls).await;
            Ok(())
        }

        async fn talk_securely(&self, stream: &mut ServerStream<DuplexStream>, heard: &mut Heard) -> io::Result<()> {
            heard.headers = Some(read_item(stream).await?);
            self.stall(Stall::BeforeHeaders).await;
            stream.write_all(&encode_item(&self.headers).unwrap()).await?;
            self.stall(Stall::BeforeVerdict).await;
            stream.write_all(&encode_item(&self.verdict).unwrap()).await?;
            stream.flush().await?;
            heard.verdict = Some(read_item(stream).await?);
            heard.last = Some(read_item(stream).await?);
            if self.verdict == "OK" {
                self.stall(Stall::BeforeCapability).await;
                stream.write_all(&encode_item(&self.capability).unwrap()).await?;
                stream.write_all(b"\0\x05hello").await?;
                stream.flush().await?;
            }
            Ok(())
        }
    }

    async fn read_item(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
        let length = stream.read_u16().await?;
        let mut text = vec![0; length.into()];
        stream.read_exact(&mut text).await?;
        Ok(String::from_utf8(text).unwrap())
    }

    fn identity() -> InstanceIdentity {
        InstanceIdentity::from_base64(include_str!("testdata/controller.identity")).unwrap()
    }

    fn credentials() -> Credentials {
        Credentials { node_name: "pod-1".to_owned(), secret: Secret::new("5ec3e7"), cookie: None }
    }

    async fn agent(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Connection, ConnectError> {
        connect(stream, NAME, &identity(), &credentials(), Capability::OURS, DEADLINE).await
    }

    fn start(script: Script) -> (JoinHandle<Heard>, DuplexStream) {
        let (ours, theirs) = duplex(1 << 14);
        (tokio::spawn(script.serve(theirs)), ours)
    }

    #[tokio::test]
    async fn a_channel_opens_with_either_version_of_tls_and_any_certificate_of_the_key() {
        for version in VERSIONS {
            for certificate in
                [CERTIFICATE, include_str!("testdata/controller-v1.crt"), include_str!("testdata/controller-odd.crt")]
            {
                let (controller, ours) = start(Script { version, certificate, ..Script::default() });
                let mut connection = agent(ours).await.unwrap();
                assert_eq!(connection.peer.protocol.to_string(), "JNLP4-connect");
                assert_eq!(connection.peer.cookie.as_deref(), Some("c00kie"));
                assert_eq!(connection.peer.capability, Capability { mask: 0x1ff });
                assert_eq!(connection.peer.address, NAME);
                let heard = controller.await.unwrap();
                assert_eq!(heard.headers.as_deref(), Some(r#"{"Node-Name":"pod-1","Secret-Key":"5ec3e7"}"#));
                assert_eq!(heard.verdict.as_deref(), Some("OK"));
                assert_eq!(heard.last, Some(Capability::OURS.to_base64()));

                let mut theirs = heard.stream.unwrap();
                assert_eq!(connection.reader.read().await.unwrap().unwrap(), "hello");
                connection.writer.write(&["hi".into()]).await.unwrap();
                assert_eq!(read_item(&mut theirs).await.unwrap(), "hi");
                connection.writer.close().await;
                // The end of the stream itself: no close_notify came before it.
                assert_eq!(theirs.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
                drop(theirs);
                assert_eq!(connection.reader.read().await.unwrap(), None);
            }
        }
    }

    #[tokio::test]
    async fn the_cookie_is_returned() {
        let (controller, ours) = start(Script { headers: "{}".to_owned(), ..Script::default() });
        let credentials = Credentials { cookie: Some("c00kie".to_owned()), ..credentials() };
        let connection = connect(ours, NAME, &identity(), &credentials, Capability::OURS, DEADLINE).await.unwrap();
        assert_eq!(connection.peer.cookie, None);
        let heard = controller.await.unwrap().headers.unwrap();
        assert!(heard.contains(r#""JnlpAgentProtocol.cookie":"c00kie""#), "{heard}");
    }

    #[tokio::test]
    async fn whoever_cannot_prove_the_identity_never_sees_the_secret() {
        let impostor_key = include_str!("testdata/impostor.key");
        let cases = [
            (include_str!("testdata/impostor.crt"), impostor_key, ExitCode::IdentityMismatch),
            // The controller's certificate is public; its private key is not.
            (CERTIFICATE, impostor_key, ExitCode::Tls),
            // No signature scheme in common with an agent that wants RSA.
            (include_str!("testdata/ec.crt"), include_str!("testdata/ec.key"), ExitCode::Tls),
        ];
        for version in VERSIONS {
            for (certificate, key, exit_code) in cases {
                let (controller, ours) = start(Script { version, certificate, key, ..Script::default() });
                let error = agent(ours).await.unwrap_err();
                assert_eq!(error.doing, "TLS handshake with");
                assert_eq!(error.exit_code(), exit_code, "{error}");
                if let Cause::IdentityMismatch { expected, found } = error.cause {
                    assert_eq!(expected, identity().fingerprint());
                    // openssl pkey -in impostor.key -pubout -outform DER | md5sum
                    assert_eq!(found, "54:5c:f0:c6:06:ff:48:6e:a3:1d:a3:11:a0:76:7d:77");
                }
                let heard = controller.await.unwrap();
                assert!(heard.tls_error.is_some());
                assert_eq!(heard.headers, None);
            }
        }
    }

    #[tokio::test]
    async fn refusals_are_shown_told_apart_and_confirmed() {
        let cases = [
            ("ERROR: Authorization failure", ExitCode::Rejected),
            ("ERROR: Authentication failure", ExitCode::Rejected),
            ("ERROR: Unknown client name: pod-1", ExitCode::Rejected),
            ("ERROR: pod-1 is not an inbound agent", ExitCode::Rejected),
            ("FATAL: never", ExitCode::Rejected),
            (
                "ERROR: pod-1 is already connected to this controller. Rejecting this connection.",
                ExitCode::AlreadyConnected,
            ),
            ("ERROR: Failed to disconnect the current client", ExitCode::AlreadyConnected),
            ("ERROR: a plugin's reasons", ExitCode::TryLater),
        ];
        for (verdict, exit_code) in cases {
            let (controller, ours) = start(Script { verdict: verdict.to_owned(), ..Script::default() });
            let error = agent(ours).await.unwrap_err();
            let message = verdict.split_once(": ").unwrap().1;
            assert!(error.to_string().ends_with(message), "{error}");
            assert!(error.to_string().starts_with("presenting this agent to ci.example.com:50000: "), "{error}");
            assert_eq!(error.exit_code(), exit_code, "{verdict}");
            assert_eq!(error.is_definite(), exit_code == ExitCode::Rejected, "{verdict}");
            assert_eq!(controller.await.unwrap().last.as_deref(), Some("BYE"));
        }
    }

    #[tokio::test]
    async fn a_bare_answer_is_shown() {
        let cases = [
            ("Unknown protocol:\n", "the controller does not offer JNLP4-connect"),
            ("Disabled protocol:JNLP4-connect\n", "the controller does not offer JNLP4-connect"),
            ("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n", "unexpected answer: HTTP/1.1 400 Bad Request"),
            ("SSH-2.0-OpenSSH_9.2", "unexpected answer: SSH-2.0-OpenSSH_9.2"),
            ("\0\u{3}NO!", "unexpected answer: \u{fffd}\u{fffd}NO!"),
            ("", "the connection was closed without a reason given"),
        ];
        for (answer, expected) in cases {
            let (ours, mut theirs) = duplex(1024);
            theirs.write_all(answer.as_bytes()).await.unwrap();
            theirs.shutdown().await.unwrap();
            let error = agent(ours).await.unwrap_err();
            assert_eq!(error.to_string(), format!("greeting {NAME}: {expected}"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_controller_is_given_up_at_the_deadline() {
        let cases = [
            (Stall::BeforeAck, "greeting"),
            (Stall::BeforeTls, "TLS handshake with"),
            (Stall::BeforeHeaders, "presenting this agent to"),
            (Stall::BeforeVerdict, "presenting this agent to"),
            (Stall::BeforeCapability, "agreeing on capabilities with"),
        ];
        for (stall, doing) in cases {
            let (controller, ours) = start(Script { stall, ..Script::default() });
            let started = Instant::now();
            let error = agent(ours).await.unwrap_err();
            assert_eq!(error.to_string(), format!("{doing} {NAME}: timed out after 30 s"));
            assert_eq!(started.elapsed(), DEADLINE, "{stall:?}");
            controller.abort();
        }
    }

    #[tokio::test]
    async fn nonsense_within_tls_is_the_controllers_fault() {
        let cases = [
            Script { headers: "<html>".to_owned(), ..Script::default() },
            Script { headers: r#"{"a":[]}"#.to_owned(), ..Script::default() },
            Script { capability: "rO0ABQ==".to_owned(), ..Script::default() },
        ];
        for script in cases {
            let (_controller, ours) = start(script);
            let error = agent(ours).await.unwrap_err();
            assert_eq!(error.exit_code(), ExitCode::Protocol, "{error}");
        }
    }

    #[tokio::test]
    async fn a_name_too_long_is_the_users_fault() {
        let (_controller, ours) = start(Script::default());
        let credentials = Credentials { node_name: "x".repeat(70_000), ..credentials() };
        let error = connect(ours, NAME, &identity(), &credentials, Capability::OURS, DEADLINE).await.unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Configuration, "{error}");
    }

    /// Connects to a controller of whose words only the first `limit` bytes arrive.
    async fn agent_of_a_cut_connection(script: Script, limit: u64) -> Result<Connection, ConnectError> {
        let (controller, theirs) = start(script);
        let (ours, relay) = duplex(1 << 14);
        let (mut from_agent, mut to_agent) = split(relay);
        let (from_controller, mut to_controller) = split(theirs);
        let relays = [
            tokio::spawn(async move { copy(&mut from_agent, &mut to_controller).await.map(drop) }),
            tokio::spawn(async move {
                copy(&mut from_controller.take(limit), &mut to_agent).await?;
                to_agent.shutdown().await
            }),
        ];
        let outcome = agent(ours).await;
        controller.abort();
        relays.iter().for_each(JoinHandle::abort);
        outcome
    }

    #[tokio::test]
    async fn every_cut_is_an_error_until_the_channel_is_there() {
        for version in VERSIONS {
            let mut limit = 0;
            loop {
                match agent_of_a_cut_connection(Script { version, ..Script::default() }, limit).await {
                    Ok(_) => break,
                    Err(error) => {
                        let expected = [ExitCode::Closed, ExitCode::Protocol, ExitCode::Io];
                        assert!(expected.contains(&error.exit_code()), "{limit}: {error}");
                    }
                }
                limit += 13;
                assert!(limit < 10_000, "never connected");
            }
            assert!(limit > 1000, "connected after {limit} bytes");
        }
    }
}
