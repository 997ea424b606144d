//! The WebSocket transport: an HTTP request that carries the secret, upgraded to a channel.
//!
//! The controller's side is core's `jenkins.agents.WebSocketAgents`, Java's agent
//! `Engine.runWebSocket`. One binary message carries one chunk, its header included.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::{Method, Request};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::dial::Dialer;
use super::http::{self, ControllerUrl, Response, Stream};
use super::identity::Secret;
use super::proxy::Credentials;
use super::trust::TlsConfig;
use super::{CLOSE_TIMEOUT, Cause, ConnectError, Connection, Peer, Protocol, TransportError, WRITE_TIMEOUT};
use crate::discovery::{check_minimum_version, compare_versions};
use crate::frame::{self, Assembler, Capability, ChunkHeader};

/// How long the controller may take over the upgrade. It disconnects an older connection of the
/// same cookie meanwhile, for which it gives itself 15 s (`DefaultJnlpSlaveReceiver.afterProperties`).
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest message accepted. Controllers send one chunk each, of at most 32 KiB; what is
/// between may merge them.
const MAX_MESSAGE: usize = 1 << 20;

/// What is read at once. Tungstenite's 128 KiB would cost more memory than all the rest.
const READ_BUFFER: usize = 16 << 10;

/// What is collected before it is written although more is ready.
const WRITE_BUFFER: usize = 64 << 10;

const COOKIE: &str = "Connection-Cookie";
const CAPABILITY: &str = "X-Remoting-Capability";

/// Since this version the controller says "already connected" with a status of its own, 400.
const TELLS_ALREADY_CONNECTED: &str = "2.511";

/// Headers of the upgrade itself, which a `-webSocketHeader` can't replace.
const RESERVED: [&str; 5] =
    ["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Extensions"];

/// Who connects, and with what.
#[derive(Debug, Clone)]
pub struct Options {
    /// The controller's root URL.
    pub url: ControllerUrl,
    /// `-name`.
    pub agent_name: String,
    /// `-secret`.
    pub secret: Secret,
    /// [`Peer::cookie`] of the connection before: with it the controller lets go of that one.
    pub cookie: Option<String>,
    /// `-webSocketHeader`: names and values; they win over headers of ours of the same name.
    pub headers: Vec<(String, String)>,
}

/// Connects and upgrades.
///
/// # Errors
/// [`ConnectError`]; each refusal of `WebSocketAgents.doIndex` is told apart.
pub async fn connect(dialer: &Dialer, tls: &TlsConfig, options: &Options) -> Result<Connection, ConnectError> {
    let url = options.url.join("wsagents/");
    let shown = shown(&url);
    let stream = dialer.connect(url.scheme(), &url.host, url.port).await?;
    let stream: Box<dyn Stream> = if url.tls {
        Box::new(http::start_tls(tls, &url.host, &shown, stream, UPGRADE_TIMEOUT).await?)
    } else {
        Box::new(stream)
    };
    let error = |cause| ConnectError::new("opening a WebSocket to", shown.clone(), cause);
    let key = generate_key();
    let request = request(options, &url, &key).map_err(error)?;
    let (response, stream, received) = http::exchange(stream, request, UPGRADE_TIMEOUT).await.map_err(error)?;
    if response.status() != 101 {
        return Err(error(refusal(&response)));
    }
    let (capability, cookie) = accepted(&response, &key).map_err(error)?;
    // The controller may have said something together with the answer.
    let config = Some(config());
    let socket = WebSocketStream::from_partially_read(stream, received.into(), Role::Client, config).await;
    let (sink, source) = socket.split();
    Ok(Connection {
        reader: Reader { source, assembler: Assembler::default(), address: shown.clone() }.into(),
        writer: Writer { sink, address: shown.clone() }.into(),
        peer: Peer { protocol: Protocol::WebSocket, capability, cookie, address: shown },
    })
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

fn shown(url: &ControllerUrl) -> String {
    url.to_string().replacen("http", "ws", 1)
}

/// A key for an upgrade.
pub(crate) fn handshake_key() -> String {
    generate_key()
}

/// The headers of an upgrade that tell nothing of the agent but its name.
pub(crate) fn own_headers<'a>(key: &'a str, name: &'a str, capability: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", "13"),
        ("Node-Name", name),
        (CAPABILITY, capability),
    ]
}

fn request(options: &Options, url: &ControllerUrl, key: &str) -> Result<Request<Empty<Bytes>>, Cause> {
    let given = |name: &str| {
        let mut names = options.headers.iter().map(|(given, _)| given);
        names.any(|given| given.eq_ignore_ascii_case(name))
    };
    if let Some(name) = RESERVED.iter().find(|name| given(name)) {
        return Err(Cause::Configuration(format!("-webSocketHeader can't set {name}")));
    }
    let authority = url.authority();
    let capability = Capability::OURS.to_base64();
    let authorization = url.credentials.as_ref().map(Credentials::basic);
    let mut own = vec![("Host", authority.as_str())];
    own.extend(own_headers(key, &options.agent_name, &capability));
    own.push(("Secret-Key", options.secret.reveal_over_http()));
    own.extend(options.cookie.as_deref().map(|cookie| (COOKIE, cookie)));
    own.extend(authorization.as_deref().map(|basic| ("Authorization", basic)));
    let own = own.into_iter().filter(|(name, _)| !given(name));
    let headers = own.chain(options.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    http::request(Method::GET, &url.path, headers)
}

/// What the headers of status 101 say.
fn accepted(response: &Response, key: &str) -> Result<(Capability, Option<String>), Cause> {
    if response.header("Sec-WebSocket-Accept") != Some(&derive_accept_key(key.as_bytes())) {
        return Err(Cause::Protocol(
            "the upgrade to a WebSocket was answered with a wrong Sec-WebSocket-Accept".to_owned(),
        ));
    }
    check_minimum_version(&response.head.headers)?;
    let capability = match response.header(CAPABILITY) {
        Some(text) => Capability::from_base64(text).map_err(|e| Cause::Protocol(e.to_string()))?,
        None => {
            tracing::warn!("the controller sent no {CAPABILITY}, assuming a current one");
            Capability::OURS
        }
    };
    Ok((capability, response.header(COOKIE).map(str::to_owned)))
}

/// What a status other than 101 means. The words are those of `WebSocketAgents.doIndex`,
/// `WebSockets.upgrade` and `DefaultJnlpSlaveReceiver.afterProperties`; they aren't translated.
fn refusal(response: &Response) -> Cause {
    let status = response.status();
    let message = response.message();
    let html = response.header("Content-Type").is_some_and(|kind| kind.starts_with("text/html"));
    let jenkins = response.header("X-Jenkins");
    let says = |text: &str| message.contains(text);
    match status {
        200..=299 => Cause::Protocol(format!(
            "HTTP {status} in place of a WebSocket: something on the way does not pass WebSockets on"
        )),
        _ if says("already connected") || says("Failed to disconnect the current client") => {
            Cause::AlreadyConnected { message }
        }
        400 if says("no such agent") || says("is not an inbound agent") => Cause::Rejected { message },
        400 if says("only for use from agent.jar")
            || says("only WS connections accepted")
            || says("did not manage to upgrade") =>
        {
            Cause::Protocol(format!(
                "{message:?}: a reverse proxy on the way removes headers, or does not pass WebSockets on"
            ))
        }
        // Jenkins refuses a secret without a body; error pages are a reverse proxy's own, unless
        // they bear its mark.
        403 if jenkins.is_some() || !html => Cause::Rejected {
            message: match message.as_str() {
                "" | "Forbidden" => "the secret is wrong (HTTP 403)".to_owned(),
                more => format!("the secret is wrong (HTTP 403: {more})"),
            },
        },
        404 => Cause::Http {
            status,
            message: "no wsagents/ there: the URL's path is wrong, or this Jenkins has no WebSocket support".to_owned(),
        },
        500 if jenkins.is_some_and(|v| compare_versions(v, TELLS_ALREADY_CONNECTED) == Ordering::Less) => {
            Cause::AlreadyConnected {
                message: format!(
                    "an error page, which is how Jenkins before {TELLS_ALREADY_CONNECTED} says that \
                     an agent of this name is already connected"
                ),
            }
        }
        _ => response.refusal(),
    }
}

type Socket = WebSocketStream<Box<dyn Stream>>;

/// Commands from a WebSocket.
pub struct Reader {
    source: SplitStream<Socket>,
    assembler: Assembler,
    address: String,
}

impl Reader {
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, TransportError> {
        loop {
            match self.assembler.next().map_err(|e| self.broken(e))? {
                None => {}
                command => return Ok(command),
            }
            match self.source.next().await {
                Some(Ok(Message::Binary(chunk))) => self.assembler.feed(chunk),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    return Err(self.protocol("a text message, where all are binary".to_owned()));
                }
                Some(Ok(Message::Close(frame))) => {
                    return match frame {
                        Some(frame) if u16::from(frame.code) != 1000 => Err(self.protocol(close_message(&frame))),
                        _ => self.end(),
                    };
                }
                Some(Err(tungstenite::Error::ConnectionClosed)) | None => return self.end(),
                Some(Err(error)) => return Err(failure("reading from", &self.address, error)),
            }
        }
    }

    fn end(&self) -> Result<Option<Bytes>, TransportError> {
        self.assembler.finish().map_err(|e| self.broken(e))?;
        Ok(None)
    }

    fn broken(&self, source: frame::FrameError) -> TransportError {
        TransportError::Frame { address: self.address.clone(), source }
    }

    fn protocol(&self, message: String) -> TransportError {
        TransportError::Protocol { address: self.address.clone(), message }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({})", self.address)
    }
}

fn close_message(frame: &CloseFrame) -> String {
    let code = u16::from(frame.code);
    let meaning = match code {
        1001 => ", going away",
        1002 => ", protocol error",
        1006 => ", abnormal closure",
        1008 => ", policy violation",
        1009 => ", message too big",
        1011 => ", internal error",
        _ => "",
    };
    let reason = http::excerpt(frame.reason.as_str(), 200);
    let separator = if reason.is_empty() { "" } else { ": " };
    format!("closed by the other end (WebSocket code {code}{meaning}){separator}{reason}")
}

fn failure(doing: &'static str, address: &str, error: tungstenite::Error) -> TransportError {
    use tungstenite::error::ProtocolError;
    let address = address.to_owned();
    match error {
        tungstenite::Error::Io(source) => TransportError::Io { doing, address, source },
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            TransportError::Protocol { address, message: "it was cut without a closing message".to_owned() }
        }
        error => TransportError::Protocol { address, message: error.to_string() },
    }
}

/// Commands to a WebSocket.
pub struct Writer {
    sink: SplitSink<Socket, Message>,
    address: String,
}

impl Writer {
    pub(super) async fn write(&mut self, commands: &[Bytes]) -> Result<(), TransportError> {
        for command in commands {
            for (header, payload) in frame::encode(command, frame::DEFAULT_CHUNK_SIZE) {
                let mut chunk = BytesMut::with_capacity(ChunkHeader::SIZE + payload.len());
                chunk.extend_from_slice(&header);
                chunk.extend_from_slice(payload);
                // Writes out when the buffer is full, so that the timeout is one for 64 KiB at most.
                let fed = timeout(WRITE_TIMEOUT, self.sink.feed(Message::Binary(chunk.freeze())));
                let fed = fed.await;
                self.settle(fed)?;
            }
        }
        let flushed = timeout(WRITE_TIMEOUT, self.sink.flush()).await;
        self.settle(flushed)
    }

    pub(super) async fn keep_alive(&mut self) -> Result<(), TransportError> {
        let sent = timeout(WRITE_TIMEOUT, self.sink.send(Message::Ping(Bytes::new()))).await;
        self.settle(sent)
    }

    pub(super) async fn close(&mut self) {
        let _ = timeout(CLOSE_TIMEOUT, self.sink.close()).await;
    }

    fn settle(
        &self,
        outcome: Result<Result<(), tungstenite::Error>, tokio::time::error::Elapsed>,
    ) -> Result<(), TransportError> {
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failure("writing to", &self.address, error)),
            Err(_) => Err(TransportError::WriteStalled { address: self.address.clone(), after: WRITE_TIMEOUT }),
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({})", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::ExitCode;
    use crate::transport::dial::tests::{read_request, serve, via};
    use crate::transport::trust::tests::{CA, SERVER, server_config, trusting};
    use std::future::Future;
    use std::io;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::{Context, Poll};
    use tokio::io::AsyncWriteExt;
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;
    use tungstenite::protocol::frame::coding::CloseCode;

    fn options(port: u16) -> Options {
        Options {
            url: ControllerUrl::parse(&format!("http://localhost:{port}/ci")).unwrap(),
            agent_name: "agent 1".to_owned(),
            secret: Secret::new("5ec2e7"),
            cookie: None,
            headers: Vec::new(),
        }
    }

    async fn open(options: &Options) -> Result<Connection, ConnectError> {
        connect(&Dialer::default(), &trusting(&[]), options).await
    }

    /// Answers an upgrade with these headers beside its own.
    async fn upgrade<S>(mut stream: S, headers: &str) -> (String, WebSocketStream<S>)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let request = read_request(&mut stream).await;
        let key = header(&request, "Sec-WebSocket-Key").unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{headers}\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        (request, socket)
    }

    fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
        let mut lines = request.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// A controller that takes one connection.
    async fn controller<F, R>(
        headers: &'static str,
        then: impl FnOnce(String, WebSocketStream<TcpStream>) -> F + Send + 'static,
    ) -> (u16, JoinHandle<R>)
    where
        F: Future<Output = R> + Send,
        R: Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (request, socket) = upgrade(stream, headers).await;
            then(request, socket).await
        });
        (port, task)
    }

    #[tokio::test]
    async fn says_who_it_is_and_keeps_the_cookie() {
        let headers = "Connection-Cookie: abc123\r\nX-Remoting-Minimum-Version: 3176.v207ec082a_8c0\r\n\
             X-Remoting-Capability: rO0ABXNyABpodWRzb24ucmVtb3RpbmcuQ2FwYWJpbGl0eQAAAAAAAAABAgABSgAEbWFza3hwAAAAAAAAAH4=\r\n";
        let (port, server) = controller(headers, |request, _| async { request }).await;
        let mut options = options(port);
        let url = format!("http://u:p@localhost:{port}/ci");
        options.url = ControllerUrl::parse(&url).unwrap();
        options.cookie = Some("0ddba11".to_owned());
        options.headers =
            vec![("X-Forwarded-For-Me".to_owned(), "a=b: c".to_owned()), ("node-name".to_owned(), "other".to_owned())];
        let connection = open(&options).await.unwrap();
        assert_eq!(connection.peer.cookie.as_deref(), Some("abc123"));
        assert_eq!(connection.peer.capability.mask, 0x7e);
        assert_eq!(connection.peer.protocol, Protocol::WebSocket);
        let expected = format!("ws://localhost:{port}/ci/wsagents/");
        assert_eq!(connection.peer.address, expected);

        let request = server.await.unwrap();
        assert!(request.starts_with("GET /ci/wsagents/ HTTP/1.1\r\n"));
        let ours = Capability::OURS.to_base64();
        let host = format!("localhost:{port}");
        for (name, value) in [
            ("Host", Some(host.as_str())),
            ("Node-Name", Some("other")),
            ("Secret-Key", Some("5ec2e7")),
            ("Connection-Cookie", Some("0ddba11")),
            ("X-Remoting-Capability", Some(&ours)),
            ("Authorization", Some("Basic dTpw")),
            ("X-Forwarded-For-Me", Some("a=b: c")),
            ("Sec-WebSocket-Version", Some("13")),
        ] {
            assert_eq!(header(&request, name), value, "{name}");
        }
        assert!(!request.contains("agent 1"), "{request}");
    }

    #[tokio::test]
    async fn one_message_per_chunk_both_ways() {
        let (port, server) = controller("", |_, mut socket| async move {
            // A command in one message, one in two, and a fragment of a third beside its rest.
            for message in [&b"\0\x02ab"[..], b"\x80\x01c", b"\0\x01d\0", b"\x01e"] {
                let message = Message::Binary(Bytes::copy_from_slice(message));
                socket.send(message).await.unwrap();
            }
            let mut sizes = Vec::new();
            let mut payload = 0;
            while payload < 20_000 + 3 {
                match socket.next().await.unwrap().unwrap() {
                    Message::Binary(chunk) => {
                        payload += chunk.len() - 2;
                        sizes.push(chunk.len());
                    }
                    Message::Ping(_) => sizes.push(0),
                    other => panic!("{other:?}"),
                }
            }
            socket.close(None).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
            sizes
        })
        .await;
        let mut connection = open(&options(port)).await.unwrap();
        for expected in ["ab", "cd", "e"] {
            assert_eq!(connection.reader.read().await.unwrap().unwrap(), expected);
        }
        connection.writer.keep_alive().await.unwrap();
        let commands = [Bytes::from(vec![7; 20_000]), Bytes::from_static(b"end")];
        connection.writer.write(&commands).await.unwrap();
        assert!(connection.reader.read().await.unwrap().is_none());
        connection.writer.close().await;
        assert_eq!(server.await.unwrap(), [0, 8194, 8194, 3618, 5]);
    }

    #[tokio::test]
    async fn a_ping_is_answered_by_reading_alone() {
        let (port, server) = controller("", |_, mut socket| async move {
            let ping = Message::Ping(Bytes::from_static(b"42"));
            socket.send(ping).await.unwrap();
            let pong = socket.next().await.unwrap().unwrap();
            socket.close(None).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
            pong
        })
        .await;
        let mut connection = open(&options(port)).await.unwrap();
        assert!(connection.reader.read().await.unwrap().is_none());
        drop(connection);
        let pong = Message::Pong(Bytes::from_static(b"42"));
        assert_eq!(server.await.unwrap(), pong);
    }

    #[tokio::test]
    async fn a_first_message_that_comes_with_the_upgrade_is_not_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read_request(&mut stream).await;
            let key = header(&request, "Sec-WebSocket-Key").unwrap();
            let accept = derive_accept_key(key.as_bytes());
            let answer = format!("HTTP/1.1 101 x\r\nSec-WebSocket-Accept: {accept}\r\n\r\n\u{2}\u{4}\0\u{2}hi");
            let mut answer = answer.into_bytes();
            let start = answer.len() - 6;
            answer[start] = 0x82;
            stream.write_all(&answer).await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut connection = open(&options(port)).await.unwrap();
        assert_eq!(connection.reader.read().await.unwrap().unwrap(), "hi");
    }

    /// Counts the writes that reach a socket, and can refuse them.
    #[derive(Debug, Clone, Default)]
    struct Socketlike {
        writes: Arc<AtomicUsize>,
        stuck: bool,
    }

    impl AsyncRead for Socketlike {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Socketlike {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            if self.stuck {
                return Poll::Pending;
            }
            self.writes.fetch_add(1, Relaxed);
            Poll::Ready(Ok(data.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn writer(stream: Socketlike) -> Writer {
        let stream: Box<dyn Stream> = Box::new(stream);
        let config = Some(config());
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, config).await;
        let (sink, _) = socket.split();
        let address = "the test".to_owned();
        Writer { sink, address }
    }

    #[tokio::test]
    async fn a_batch_is_one_write_and_a_large_one_is_bounded() {
        let stream = Socketlike::default();
        let mut writer = writer(stream.clone()).await;
        let small = vec![Bytes::from_static(b"command"); 100];
        writer.write(&small).await.unwrap();
        assert_eq!(stream.writes.swap(0, Relaxed), 1);
        writer.write(&[Bytes::from(vec![0; 1 << 20])]).await.unwrap();
        let writes = stream.writes.load(Relaxed);
        assert!((10..40).contains(&writes), "{writes}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let stuck = Socketlike { stuck: true, ..Socketlike::default() };
        let mut writer = writer(stuck).await;
        let start = tokio::time::Instant::now();
        let error = writer.write(&[Bytes::from_static(b"x")]).await.unwrap_err();
        assert!(matches!(error, TransportError::WriteStalled { .. }), "{error}");
        assert_eq!(start.elapsed().as_secs(), WRITE_TIMEOUT.as_secs());
        writer.close().await;
        assert!(start.elapsed() <= WRITE_TIMEOUT + CLOSE_TIMEOUT + Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_controller_that_never_answers_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = open(&options(port)).await.unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::TimedOut, "{error}");
        assert_eq!(error.doing, "opening a WebSocket to");
    }

    #[tokio::test]
    async fn ends_are_told_apart() {
        let close = |code, reason: &'static str| Some(Message::Close(Some(CloseFrame { code, reason: reason.into() })));
        let cases: [(Option<Message>, Option<&str>); 6] = [
            (close(CloseCode::Normal, ""), None),
            (Some(Message::Close(None)), None),
            (close(CloseCode::Away, ""), Some("code 1001, going away)")),
            (
                close(CloseCode::Size, "Binary message too large"),
                Some("1009, message too big): Binary message too large"),
            ),
            (Some(Message::text("hello")), Some("text message")),
            (None, Some("cut without a closing message")),
        ];
        for (message, expected) in cases {
            let (port, server) = controller("", |_, mut socket| async move {
                if let Some(message) = message {
                    socket.send(message).await.unwrap();
                    while let Some(Ok(_)) = socket.next().await {}
                }
            })
            .await;
            let mut connection = open(&options(port)).await.unwrap();
            match (connection.reader.read().await, expected) {
                (Ok(None), None) => {}
                (Err(error), Some(text)) => assert!(error.to_string().contains(text), "{error}"),
                (other, expected) => panic!("{other:?}, expected {expected:?}"),
            }
            drop(connection);
            server.await.unwrap();
        }
    }

    #[tokio::test]
    async fn each_refusal_is_told() {
        let html = "Content-Type: text/html;charset=utf-8\r\n";
        let cases: &[(&str, String, &str, ExitCode)] = &[
            ("403 Forbidden", String::new(), "secret is wrong", ExitCode::Rejected),
            (
                "403 Forbidden",
                format!("{html}\r\n<html><h1>Blocked by WAF</h1>"),
                "403: Blocked by WAF",
                ExitCode::Http,
            ),
            ("400 Bad Request", "\r\nno such agent\n".into(), "no such agent", ExitCode::Rejected),
            (
                "400 Bad Request",
                "\r\nagent 1 is already connected to this controller. Rejecting this connection.\n".into(),
                "already connected",
                ExitCode::AlreadyConnected,
            ),
            ("400 Bad Request", "\r\nagent 1 is not an inbound agent".into(), "not an inbound", ExitCode::Rejected),
            (
                "400 Bad Request",
                "\r\nThis endpoint is only for use from agent.jar in WebSocket mode".into(),
                "removes headers",
                ExitCode::Protocol,
            ),
            ("400 Bad Request", "\r\nonly WS connections accepted here".into(), "not pass", ExitCode::Protocol),
            ("400 Bad Request", "\r\nsomething new".into(), "something new", ExitCode::Http),
            ("404 Not Found", format!("{html}\r\n<html>Not Found"), "no wsagents/", ExitCode::Http),
            (
                "500 Server Error",
                format!("X-Jenkins: 2.293\r\n{html}\r\n<html><h1>Oops!</h1>"),
                "already connected",
                ExitCode::AlreadyConnected,
            ),
            ("500 Server Error", format!("X-Jenkins: 2.579\r\n{html}\r\n<h1>Oops!</h1>"), "500: Oops!", ExitCode::Http),
            ("503 Service Unavailable", "\r\n".into(), "HTTP 503: Service Unavailable", ExitCode::Http),
            ("302 Found", "Location: /login\r\n".into(), "redirects to /login", ExitCode::Http),
            ("200 OK", "\r\nhello".into(), "in place of a WebSocket", ExitCode::Protocol),
            ("101 Switching", "Sec-WebSocket-Accept: x\r\n".into(), "Sec-WebSocket-Accept", ExitCode::Protocol),
        ];
        for (status, rest, expected, code) in cases {
            let rest = if rest.contains("\r\n\r\n") || rest.starts_with("\r\n") {
                rest.clone()
            } else {
                format!("{rest}\r\n")
            };
            let (port, server) = serve(&[format!("HTTP/1.1 {status}\r\n{rest}")]).await;
            let error = open(&options(port)).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{status}: {error}");
            assert_eq!(error.exit_code(), *code, "{status}: {error}");
            server.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_refusal_that_arrives_in_pieces_is_read_to_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            read_request(&mut stream).await;
            // The connection stays open: only the length tells the end.
            for piece in ["HTTP/1.1 400 Bad Request\r\nContent-Le", "ngth: 14\r\n\r\n", "no such", " agent\n"] {
                stream.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        });
        let error = open(&options(port)).await.unwrap_err();
        assert!(error.is_definite(), "{error}");
    }

    #[tokio::test]
    async fn too_old_for_the_controller() {
        let headers = "X-Remoting-Minimum-Version: 9999.v1\r\n";
        let (port, _server) = controller(headers, |_, _| async {}).await;
        let error = open(&options(port)).await.unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::RemotingTooOld);
    }

    #[tokio::test]
    async fn headers_of_the_upgrade_are_not_to_be_set() {
        for name in ["upgrade", "Sec-WebSocket-Key", "bad name"] {
            let (port, _server) = serve(&[""]).await;
            let mut options = options(port);
            options.headers.push((name.to_owned(), "x".to_owned()));
            let error = open(&options).await.unwrap_err();
            assert_eq!(error.exit_code(), ExitCode::Configuration, "{error}");
        }
    }

    #[tokio::test]
    async fn plain_websockets_go_through_a_proxy_by_connect() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let connect = read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let (request, _socket) = upgrade(stream, "").await;
            (connect, request)
        });
        let mut options = options(1);
        options.url = ControllerUrl::parse("http://jenkins.example.com").unwrap();
        let dialer = via("http_proxy", port);
        connect(&dialer, &trusting(&[]), &options).await.unwrap();
        let (connect, request) = proxy.await.unwrap();
        assert!(connect.starts_with("CONNECT jenkins.example.com:80 HTTP/1.1\r\n"));
        assert!(!connect.contains("5ec2e7"));
        assert_eq!(header(&request, "Host"), Some("jenkins.example.com"));
        assert_eq!(header(&request, "Proxy-Authorization"), None);
    }

    #[tokio::test]
    async fn the_secret_is_kept_from_an_untrusted_server() {
        for trusted in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let acceptor = tokio_rustls::TlsAcceptor::from(server_config(SERVER));
            let server = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let stream = acceptor.accept(stream).await.ok()?;
                Some(upgrade(stream, "").await.0)
            });
            let mut options = options(port);
            let url = format!("https://localhost:{port}/");
            options.url = ControllerUrl::parse(&url).unwrap();
            let tls = if trusted { trusting(&[CA]) } else { trusting(&[]) };
            match connect(&Dialer::default(), &tls, &options).await {
                Ok(connection) => {
                    assert!(trusted);
                    let expected = format!("wss://localhost:{port}/wsagents/");
                    assert_eq!(connection.peer.address, expected);
                    assert!(server.await.unwrap().unwrap().contains("5ec2e7"));
                }
                Err(error) => {
                    assert!(!trusted, "{error}");
                    assert_eq!(error.exit_code(), ExitCode::Tls, "{error}");
                    assert_eq!(server.await.unwrap(), None);
                }
            }
        }
    }
}
