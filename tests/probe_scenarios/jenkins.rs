//! A controller as the network shows it: the loopback controller of the library for agents' connections, and before it
//! what Jenkins' web server, its listener for agents, and a reverse proxy would say and do.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use inbound_agent::demo::controller::{Controller, IDENTITY, Mischief, Settings, VERSION};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::certificates;
use crate::hits::Hits;
use crate::http::{self, Head, Stream};
use crate::scenario::{self, Answer, Jenkins, PlainOnTls};

/// Where it listens.
const ADDRESSES: [&str; 4] = ["10.2.0.2", "10.2.0.3", "10.2.0.4", "2001:db8:2::2"];
/// What is expected where answers are given in Jenkins' place.
const ANSWERED: &str = "an answer in Jenkins' place";
/// What is expected where headers are taken away.
const STRIPPED: &str = "a header that was taken away";
/// `X-Jenkins-Session`: one for each start of a controller.
const SESSION: &str = "8a4f1c22";
const CUT: &str = "a connection cut for being idle";

pub struct Front {
    settings: Jenkins,
    controller: Controller,
    tls: Option<TlsAcceptor>,
    hits: Hits,
}

impl Front {
    /// Listens, and serves for ever in the background.
    pub async fn start(settings: Jenkins, hits: Hits) -> io::Result<Arc<Front>> {
        let known = Settings { name: scenario::node(), secret: scenario::secret(), ..Settings::default() };
        let controller = Controller::start(known).await?;
        if settings.node_connected {
            controller.misbehave(std::iter::repeat_n(Mischief::AlreadyConnected, 64));
        }
        if !settings.answers.is_empty() {
            hits.expect(ANSWERED);
        }
        if !settings.strips.is_empty() || !settings.strips_answer.is_empty() {
            hits.expect(STRIPPED);
        }
        if settings.idle_cut.is_some() {
            hits.expect(CUT);
        }
        let tls = settings.tls.map(certificates::acceptor).transpose()?;
        let front = Arc::new(Front { settings, controller, tls, hits });
        for address in ADDRESSES {
            let address: IpAddr = address.parse().map_err(io::Error::other)?;
            let web = TcpListener::bind((address, front.settings.http_port)).await?;
            tokio::spawn(accept(web, front.clone(), |front, stream| async move { front.web(stream).await }));
            if front.settings.agent_port != 0 {
                let agents = TcpListener::bind((address, front.settings.agent_port)).await?;
                tokio::spawn(accept(agents, front.clone(), |front, stream| async move { front.agents(stream).await }));
            }
        }
        Ok(front)
    }

    /// Attempts of agents to connect, each of which has shown a secret.
    pub fn attempts(&self) -> Vec<String> {
        self.controller.attempts()
    }

    fn idle(&self) -> Option<Duration> {
        self.settings.idle_cut.map(Duration::from_secs_f64)
    }

    async fn relay(&self, one: impl Stream, other: impl Stream) -> io::Result<()> {
        let begun = tokio::time::Instant::now();
        let result = http::relay(one, other, self.idle()).await;
        if self.idle().is_some_and(|idle| begun.elapsed() >= idle) {
            self.hits.hit(CUT);
        }
        result
    }

    async fn web(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Ok(());
        }
        let speaks_tls = first[0] == 0x16;
        match &self.tls {
            Some(tls) if speaks_tls => self.request(tls.accept(stream).await?).await,
            Some(_) => match self.settings.plain_on_tls {
                // A fatal alert: unexpected_message.
                PlainOnTls::Alert => stream.write_all(&[0x15, 3, 3, 0, 2, 2, 10]).await,
                PlainOnTls::Page => {
                    Head::read(&mut stream).await?;
                    let page = "<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head>\
                        <body><center><h1>400 Bad Request</h1></center>\
                        <center>The plain HTTP request was sent to HTTPS port</center></body></html>";
                    http::answer(&mut stream, &http::html(400, page), &[("Server", "nginx/1.22.1".to_owned())]).await
                }
            },
            None if speaks_tls => {
                let text = "<h1>Bad Message 400</h1><pre>reason: Illegal character CNTL=0x16</pre>";
                http::answer(&mut stream, &http::html(400, text), &[]).await
            }
            None => self.request(stream).await,
        }
    }

    async fn request(&self, mut stream: impl Stream + 'static) -> io::Result<()> {
        let mut head = match Head::read(&mut stream).await {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let answer =
                    http::html(431, "<h1>Bad Message 431</h1><pre>reason: Request Header Fields Too Large</pre>");
                return self.answer(&mut stream, &answer).await;
            }
            Err(error) => return Err(error),
        };
        head.skip_body(&mut stream).await?;
        for name in &self.settings.strips {
            // Every request has this one.
            if head.header(name).is_some() && !name.eq_ignore_ascii_case("Connection") {
                self.hits.hit(STRIPPED);
            }
            head.remove(name);
        }
        let answers = &self.settings.answers;
        if let Some(answer) = answers.get(head.path()).or_else(|| answers.get("*")) {
            self.hits.hit(ANSWERED);
            return self.answer(&mut stream, answer).await;
        }
        let Some(path) = head.path().strip_prefix(self.settings.context_path.as_str()) else {
            return self.answer(&mut stream, &not_found(head.path())).await;
        };
        let answer = match path {
            "/tcpSlaveAgentListener/" if self.settings.agent_port != 0 => self.listener(),
            "/login" => jenkins(http::html(200, login())),
            // As large as the real one.
            "/favicon.ico" => jenkins(http::html(200, "x".repeat(17_542))),
            "/" | "/api/json" => {
                let page = format!(
                    "<html><head><meta http-equiv='refresh' content='1;url={0}/login?from=%2F'/></head>\
                     <body>Authentication required\n<!--\n--></body></html>",
                    self.settings.context_path
                );
                jenkins(http::html(403, page))
            }
            // Shows to everyone what of a request has arrived.
            "/whoAmI/" => jenkins(http::html(200, who_am_i(&head))),
            "/wsagents" if self.settings.web_sockets => {
                let mut answer = http::html(302, "");
                answer.headers.insert("Location".to_owned(), format!("{}/wsagents/", self.settings.context_path));
                answer
            }
            "/wsagents/" if self.settings.web_sockets => return self.web_socket(stream, head).await,
            "/cli/ws" if self.settings.web_sockets => return self.cli(stream, head).await,
            _ => not_found(head.path()),
        };
        self.answer(&mut stream, &answer).await
    }

    async fn answer(&self, stream: &mut impl Stream, answer: &Answer) -> io::Result<()> {
        let headers = [("Date", http::date(self.settings.clock)), ("Server", "Jetty(9.4.41.v20210516)".to_owned())];
        http::answer(stream, answer, &headers).await
    }

    /// `TcpSlaveAgentListener`'s page; it says no version.
    fn listener(&self) -> Answer {
        let mut answer = http::text(200, "Jenkins\n");
        let mut set = |name: &str, value: String| answer.headers.insert(name.to_owned(), value);
        let port = self.settings.advertised_port.unwrap_or(self.settings.agent_port).to_string();
        set("X-Hudson-JNLP-Port", port.clone());
        set("X-Jenkins-JNLP-Port", port);
        if let Some(host) = &self.settings.advertised_host {
            set("X-Jenkins-JNLP-Host", host.clone());
        }
        set("X-Instance-Identity", self.identity());
        set("X-Jenkins-Agent-Protocols", self.settings.protocols.clone());
        set("X-Remoting-Minimum-Version", self.settings.minimum_remoting.clone());
        answer
    }

    fn identity(&self) -> String {
        if self.settings.true_identity {
            return IDENTITY.trim().to_owned();
        }
        let mut key = BASE64_STANDARD.decode(IDENTITY.trim()).unwrap_or_default();
        let middle = key.len() / 2;
        key[middle] ^= 0xff;
        BASE64_STANDARD.encode(key)
    }

    /// `WebSocketAgents.doIndex`.
    async fn web_socket(&self, mut stream: impl Stream, head: Head) -> io::Result<()> {
        let headers = ["Node-Name", "Secret-Key", "X-Remoting-Capability"];
        if headers.iter().any(|name| head.header(name).is_none()) {
            let answer = http::text(400, "This endpoint is only for use from agent.jar in WebSocket mode\n");
            return self.answer(&mut stream, &answer).await;
        }
        let upgrades = is_upgrade(&head);
        if !upgrades && head.header("Secret-Key") == Some(&scenario::secret()) {
            return self.answer(&mut stream, &no_upgrade()).await;
        }
        let mut inner = TcpStream::connect(("127.0.0.1", self.controller.http_port())).await?;
        inner.write_all(&head.bytes()).await?;
        if !self.settings.strips_answer.is_empty()
            && let Some(mut answer) = Head::read(&mut inner).await?
        {
            for name in &self.settings.strips_answer {
                if answer.header(name).is_some() {
                    self.hits.hit(STRIPPED);
                }
                answer.remove(name);
            }
            stream.write_all(&answer.bytes()).await?;
        }
        self.relay(stream, inner).await
    }

    /// `CLIAction.doWs`, which needs no secret.
    async fn cli(&self, mut stream: impl Stream + 'static, head: Head) -> io::Result<()> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let root = format!("{scheme}://jenkins.example:{}", self.settings.http_port);
        if head.header("Origin") != Some(&root) {
            let answer = http::text(403, "Unexpected request origin (check your reverse proxy settings)");
            return self.answer(&mut stream, &jenkins(answer)).await;
        }
        if !is_upgrade(&head) {
            return self.answer(&mut stream, &no_upgrade()).await;
        }
        let accept = derive_accept_key(head.header("Sec-WebSocket-Key").unwrap_or_default().as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        // A web socket whose other end is within this process, so that it answers pings and can be cut.
        let (near, far) = tokio::io::duplex(16 << 10);
        tokio::spawn(async move {
            use futures_util::{SinkExt, StreamExt};
            let mut socket = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
            while let Some(Ok(_)) = socket.next().await {
                if socket.flush().await.is_err() {
                    break;
                }
            }
        });
        self.relay(stream, far).await
    }

    /// `TcpSlaveAgentListener.ConnectionHandler`.
    async fn agents(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut head = [0; 10];
        let read = stream.read_exact(&mut head);
        let read = match self.idle() {
            Some(idle) => match tokio::time::timeout(idle, read).await {
                Ok(read) => read,
                Err(_) => {
                    self.hits.hit(CUT);
                    return Ok(());
                }
            },
            None => read.await,
        };
        if read.is_err() {
            self.hits.offence("it left a line in the controller's log by connecting to the agent port for nothing");
            return Ok(());
        }
        if head.starts_with(b"GET ") {
            return self.hello(stream, &head).await;
        }
        let length = usize::from(u16::from_be_bytes([head[0], head[1]]));
        let mut item = head[2..].to_vec();
        item.resize(length.max(8), 0);
        stream.read_exact(&mut item[8..]).await?;
        match item.as_slice() {
            b"Protocol:Ping" if self.settings.protocols.contains("Ping") => {
                stream.write_all(b"Ping\n").await?;
                stream.shutdown().await
            }
            b"Protocol:JNLP4-connect" if self.settings.protocols.contains("JNLP4-connect") => {
                let mut inner = TcpStream::connect(("127.0.0.1", self.controller.agent_port())).await?;
                inner.write_all(&[&head[..2], &item].concat()).await?;
                self.relay(stream, inner).await
            }
            _ => {
                stream.write_all(b"Unknown protocol:\n").await?;
                stream.shutdown().await
            }
        }
    }

    async fn hello(&self, mut stream: TcpStream, head: &[u8]) -> io::Result<()> {
        // Another controller's process has another session.
        let session = if self.settings.true_identity { SESSION } else { "1b7d03e9" };
        let answer = if head.starts_with(b"GET / ") {
            format!(
                "HTTP/1.0 200 OK\r\nContent-Type: text/plain;charset=UTF-8\r\nX-Content-Type-Options: nosniff\r\n\r\n\
                 Jenkins-Agent-Protocols: {}\r\nJenkins-Version: {VERSION}\r\nJenkins-Session: {session}\r\n\
                 Client: {}\r\nServer: {}\r\nRemoting-Minimum-Version: {}\r\n",
                self.settings.protocols,
                stream.peer_addr()?.ip().to_canonical(),
                stream.local_addr()?.ip().to_canonical(),
                self.settings.minimum_remoting,
            )
        } else {
            "HTTP/1.0 404 Not Found\r\nContent-Type: text/plain;charset=UTF-8\r\n\r\nNot Found\r\n".to_owned()
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
        Ok(())
    }
}

fn is_upgrade(head: &Head) -> bool {
    let has = |name: &str, value: &str| head.header(name).is_some_and(|is| is.eq_ignore_ascii_case(value));
    has("Upgrade", "websocket") && has("Connection", "Upgrade")
}

/// `WebSockets.upgradeResponse`.
fn no_upgrade() -> Answer {
    http::html(400, "<html><body><h2>HTTP ERROR 400 only WS connections accepted here</h2></body></html>")
}

fn jenkins(mut answer: Answer) -> Answer {
    for (name, value) in [("X-Jenkins", VERSION), ("X-Hudson", "1.395"), ("X-Jenkins-Session", SESSION)] {
        answer.headers.insert(name.to_owned(), value.to_owned());
    }
    answer
}

/// As Jetty answers where there is no web application, and Stapler where it knows no such page.
fn not_found(path: &str) -> Answer {
    let page = format!(
        "<html>\n<head>\n<title>Error 404 Not Found</title>\n</head>\n<body><h2>HTTP ERROR 404 Not Found</h2>\n\
         <table>\n<tr><th>URI:</th><td>{path}</td></tr>\n<tr><th>STATUS:</th><td>404</td></tr>\n\
         <tr><th>MESSAGE:</th><td>Not Found</td></tr>\n</table>\n<hr>Powered by Jetty:// 9.4.41<hr/>\n</body></html>"
    );
    http::html(404, page)
}

/// `WhoAmI/index.jelly`.
fn who_am_i(head: &Head) -> String {
    let rows: String = head
        .headers
        .iter()
        .map(|(name, value)| format!("<tr><td rowspan=\"1\">{name}</td><td>{value}</td></tr>"))
        .collect();
    format!(
        "<html><body><h1>Who Am I?</h1><table><tr><td>Name:</td><td>anonymous</td></tr></table>\
         <h2>Request Headers</h2><table>{rows}</table></body></html>"
    )
}

/// As large as the real one: it does not fit into one packet.
fn login() -> String {
    let style = "  .field { margin: 1px 2px 3px 4px; padding: 5px 6px; border: 1px solid #eee; }\n".repeat(40);
    format!(
        "<!DOCTYPE html><html><head><title>Sign in [Jenkins]</title><style>\n{style}</style></head>\n\
         <body><form action=\"j_spring_security_check\" method=\"post\">Welcome to Jenkins!</form></body></html>\n"
    )
}

async fn accept<F: Future<Output = io::Result<()>> + Send + 'static>(
    listener: TcpListener,
    front: Arc<Front>,
    serve: fn(Arc<Front>, TcpStream) -> F,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        // An agent that breaks off is as usual here as an error is.
        tokio::spawn(serve(front.clone(), stream));
    }
}
