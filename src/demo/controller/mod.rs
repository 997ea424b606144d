//! An in-process stand-in for a Jenkins controller, on loopback: HTTP discovery, the agent port with JNLP4-connect,
//! WebSockets, and stdio; and behind each the controller's end of a channel.

pub mod end;
mod http;
mod jnlp;
mod pump;
pub mod requests;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::frame::{Capability, PreambleScanner, preamble};
use crate::transport::Protocol;
use end::End;

/// The controller's public key as `X-Instance-Identity` and `-instanceIdentity` have it.
pub const IDENTITY: &str = include_str!("../../transport/testdata/controller.identity");
/// How long one step of a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Agents that connected and were not taken by [`Controller::accept`].
const MAX_SESSIONS: usize = 64;

/// What a controller is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The one agent's name.
    pub name: String,
    /// Its secret.
    pub secret: String,
    /// Whether the agent port is on.
    pub agent_port: bool,
    /// `X-Remoting-Minimum-Version`.
    pub minimum_remoting: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            name: "demo".to_owned(),
            secret: "5ec3e75ec3e75ec3e75ec3e75ec3e75ec3e75ec3e75ec3e75ec3e75ec3e75ec3".to_owned(),
            agent_port: true,
            minimum_remoting: "4.7".to_owned(),
        }
    }
}

/// Version of Jenkins that the controller says it is: the one whose requests it sends.
pub const VERSION: &str = "2.293";

/// What tells a probe that web server and agent port are of one process.
const SESSION: &str = "de30de30";

/// A point of a connection's life at which a controller may misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The TCP connection is there; of a WebSocket: the request has been read.
    Accepted,
    /// JNLP4: the protocol was named.
    Greeted,
    /// JNLP4: TLS is established.
    Encrypted,
    /// JNLP4: the agent's headers were read.
    Presented,
    /// JNLP4: the agent was accepted, the capabilities are missing.
    Admitted,
}

/// What goes wrong with one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mischief {
    /// Nothing.
    None,
    /// It is dropped.
    Drop(Point),
    /// Nothing more is said or read.
    Stall(Point),
    /// An agent of that name is connected, whatever its cookie.
    AlreadyConnected,
}

/// An agent that is connected.
#[derive(Debug, Clone)]
pub struct Session {
    /// The controller's end of its channel.
    pub end: Arc<End>,
    /// How it came.
    pub protocol: Protocol,
    /// The cookie that it was given.
    pub cookie: String,
    /// The cookie that it brought.
    pub brought: Option<String>,
}

/// A refusal, as the two protocols put it.
struct Refusal {
    status: &'static str,
    text: String,
}

struct Shared {
    settings: Settings,
    agent_port: u16,
    current: Mutex<Option<Session>>,
    mischief: Mutex<VecDeque<Mischief>>,
    attempts: Mutex<Vec<String>>,
    sessions: mpsc::Sender<Session>,
    cookies: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn note(&self, attempt: impl Into<String>) {
        lock(&self.attempts).push(attempt.into());
    }

    fn next_mischief(&self) -> Mischief {
        lock(&self.mischief).pop_front().unwrap_or(Mischief::None)
    }

    /// Whether an agent may connect (`DefaultJnlpSlaveReceiver.afterProperties`, `WebSocketAgents.doIndex`).
    fn admit(&self, name: &str, secret: &str, brought: Option<&str>, mischief: &Mischief) -> Result<(), Refusal> {
        if name != self.settings.name {
            self.note(format!("refused: unknown agent {name}"));
            return Err(Refusal { status: "400 Bad Request", text: format!("Unknown client name: {name}") });
        }
        if secret != self.settings.secret {
            self.note("refused: wrong secret");
            return Err(Refusal { status: "403 Forbidden", text: "Authorization failure".to_owned() });
        }
        let current = lock(&self.current).clone().filter(|session| session.end.close_reason().is_none());
        let known = current.as_ref().is_some_and(|session| brought == Some(session.cookie.as_str()));
        if *mischief == Mischief::AlreadyConnected || (current.is_some() && !known) {
            self.note("refused: already connected");
            let text = format!("{name} is already connected to this controller. Rejecting this connection.");
            return Err(Refusal { status: "400 Bad Request", text });
        }
        if let Some(session) = current {
            session.end.cut();
        }
        Ok(())
    }

    fn new_cookie(&self) -> String {
        format!("{:016x}", 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(1 + self.cookies.fetch_add(1, Ordering::Relaxed)))
    }

    /// A channel begins.
    fn open(&self, peer: Capability, protocol: Protocol, cookie: String, brought: Option<String>) -> Arc<End> {
        let end = Arc::new(End::new(peer));
        let session = Session { end: end.clone(), protocol, cookie, brought };
        self.note(format!("connected: {protocol}"));
        *lock(&self.current) = Some(session.clone());
        // A test that takes none of that many has made a mistake, which it will notice by itself.
        let _ = self.sessions.try_send(session);
        end
    }
}

/// A controller that listens on loopback. Dropped, it is gone, and so are its connections.
pub struct Controller {
    shared: Arc<Shared>,
    sessions: AsyncMutex<mpsc::Receiver<Session>>,
    http: SocketAddr,
    agent: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Controller {
    /// A controller on ports of the system's choosing.
    ///
    /// # Errors
    /// If nothing can listen on 127.0.0.1.
    pub async fn start(settings: Settings) -> io::Result<Controller> {
        Controller::start_on(settings, 0, 0).await
    }

    /// A controller on these ports: what one is after a restart.
    ///
    /// # Errors
    /// If they are taken.
    pub async fn start_on(settings: Settings, http_port: u16, agent_port: u16) -> io::Result<Controller> {
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, http_port)).await?;
        let agent = TcpListener::bind((Ipv4Addr::LOCALHOST, agent_port)).await?;
        let (http_at, agent_at) = (http.local_addr()?, agent.local_addr()?);
        let (tell, sessions) = mpsc::channel(MAX_SESSIONS);
        let acceptor = jnlp::acceptor().map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            settings,
            agent_port: agent_at.port(),
            current: Mutex::default(),
            mischief: Mutex::default(),
            attempts: Mutex::default(),
            sessions: tell,
            cookies: AtomicU64::new(u64::from(std::process::id())),
        });
        let serve_http = {
            let shared = shared.clone();
            listen(http, move |stream| {
                let shared = shared.clone();
                async move { http::serve(stream, &shared).await }
            })
        };
        let serve_agents = {
            let shared = shared.clone();
            listen(agent, move |stream| {
                let (shared, acceptor) = (shared.clone(), acceptor.clone());
                async move { jnlp::serve(stream, &shared, &acceptor).await }
            })
        };
        let tasks = vec![tokio::spawn(serve_http), tokio::spawn(serve_agents)];
        Ok(Controller { shared, sessions: AsyncMutex::new(sessions), http: http_at, agent: agent_at, tasks })
    }

    /// `-url`.
    pub fn url(&self) -> String {
        format!("http://{}/", self.http)
    }

    /// Port of the web server.
    pub fn http_port(&self) -> u16 {
        self.http.port()
    }

    /// Port for agents.
    pub fn agent_port(&self) -> u16 {
        self.agent.port()
    }

    /// What this controller is.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The next attempts to connect go wrong like this, one after the other.
    pub fn misbehave(&self, mischief: impl IntoIterator<Item = Mischief>) {
        lock(&self.shared.mischief).extend(mischief);
    }

    /// What came of all attempts to connect.
    pub fn attempts(&self) -> Vec<String> {
        lock(&self.shared.attempts).clone()
    }

    /// Waits for an agent to connect.
    ///
    /// # Errors
    /// If none does within `patience`.
    pub async fn accept(&self, patience: Duration) -> io::Result<Session> {
        let next = async { self.sessions.lock().await.recv().await };
        let late = || {
            let text = format!("no agent connected within {} s: {:?}", patience.as_secs(), self.attempts());
            io::Error::new(io::ErrorKind::TimedOut, text)
        };
        timeout(patience, next).await.ok().flatten().ok_or_else(late)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Some(session) = lock(&self.shared.current).take() {
            session.end.cut();
        }
    }
}

async fn listen<F, S>(listener: TcpListener, serve: S)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
    S: Fn(TcpStream) -> F,
{
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let _ = stream.set_nodelay(true);
        let connection = serve(stream);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("loopback controller: {error}");
            }
        });
    }
}

/// The controller's end over the standard streams of an agent that it has started; the channel goes on in the
/// background.
///
/// # Errors
/// If the agent doesn't begin as one within ten seconds.
pub async fn stdio<I, O>(mut input: I, mut output: O) -> io::Result<Arc<End>>
where
    I: AsyncRead + Send + Unpin + 'static,
    O: AsyncWrite + Send + Unpin + 'static,
{
    use tokio::io::AsyncReadExt;
    output.write_all(&preamble(Capability::OURS)).await?;
    output.flush().await?;
    let mut scanner = PreambleScanner::new();
    let (peer, received) = timeout(HANDSHAKE, async {
        let mut buffer = vec![0; 4096];
        loop {
            let length = input.read(&mut buffer).await?;
            if length == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let (taken, found) = scanner.advance(&buffer[..length]).map_err(io::Error::other)?;
            if let Some(peer) = found {
                return Ok((peer, buffer[taken..length].to_vec()));
            }
        }
    })
    .await??;
    let end = Arc::new(End::new(peer));
    let pumped = end.clone();
    tokio::spawn(async move { pump::stream(&pumped, input, output, &received).await });
    Ok(end)
}
