//! Reading from the cluster's API server: one connection, GET requests one after the other, bounded answers.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Method;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::facts::Asked;
use crate::probe::certificate;
use crate::probe::facts::{Failure, FailureKind};
use crate::transport::proxy::host_port;
use crate::transport::trust::{TlsConfig, TrustOptions};
use crate::transport::{Cause, http};

/// An answer beyond this is not read: a page of fifty nodes has a megabyte.
const MAX_BODY: usize = 4 << 20;

/// No token is longer; they have a kilobyte or two.
const MAX_TOKEN: u64 = 64 << 10;

/// What a pod needs to ask the API server.
pub(super) struct Account {
    token: String,
    /// The pod's namespace.
    pub namespace: Option<String>,
    tls: TlsConfig,
}

impl Account {
    /// Reads a service account as it is mounted into pods.
    ///
    /// # Errors
    /// In words, where it can't be used.
    pub fn read(dir: &Path) -> Result<Self, String> {
        let file = |name: &str| {
            use std::io::Read as _;
            let path = dir.join(name);
            let mut text = String::new();
            let read = std::fs::File::open(&path).and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text));
            read.map_err(|error| format!("no service account ({}: {error})", path.display()))?;
            Ok::<_, String>(text.trim().to_owned())
        };
        // Nobody but the cluster's own authority vouches for the API server.
        let ca = dir.join("ca.crt");
        let trust = TrustOptions { ssl_cert_file: Some(ca.clone()), ..TrustOptions::default() };
        let tls = TlsConfig::new(trust).map_err(|error| error.to_string())?;
        tls.client_config().map_err(|_| format!("no service account (no certificate in {})", ca.display()))?;
        Ok(Account { token: file("token")?, namespace: file("namespace").ok().filter(|name| !name.is_empty()), tls })
    }
}

/// The API server, asked over one connection at a time; a broken one is replaced.
pub(super) struct Api<'a> {
    address: SocketAddr,
    host: &'a str,
    authority: String,
    account: &'a Account,
    limit: Duration,
    end: Instant,
    connection: Connection,
}

/// A connection that questions can be asked on.
struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
    /// The addresses that the server's certificate is for.
    addresses: Vec<IpAddr>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl<'a> Api<'a> {
    /// Does TLS to `host` over a connection to `address` that is open. Each connection has `limit` for that, and all
    /// questions must be answered at `end`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn open(
        stream: TcpStream,
        address: SocketAddr,
        host: &'a str,
        account: &'a Account,
        limit: Duration,
        end: Instant,
    ) -> Result<Self, Failure> {
        let authority = host_port(host, address.port());
        let connection = start(stream, host, &authority, account, limit).await?;
        Ok(Api { address, host, authority, account, limit, end, connection })
    }

    /// Where it was reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The addresses that the server's certificate is for. Those that are no service's are its own.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.connection.addresses
    }

    /// `GET path`.
    pub async fn get(&mut self, path: &str) -> Asked<Vec<u8>> {
        let authorization = format!("Bearer {}", self.account.token);
        let headers = [
            ("Host", self.authority.as_str()),
            ("Authorization", &authorization),
            ("Accept", "application/json"),
            ("User-Agent", concat!("jenkins-inbound-agent/", env!("CARGO_PKG_VERSION"))),
        ];
        let request = match http::request(Method::GET, path, headers) {
            Ok(request) => request,
            Err(cause) => return Asked::Failed(cause.to_string()),
        };
        let end = self.end;
        let answer = async {
            if self.connection.sender.ready().await.is_err() {
                self.reopen().await.map_err(|failure| failure.message)?;
            }
            let response = self.connection.sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            Ok::<_, String>((head.status.as_u16(), read(body).await))
        };
        match timeout_at(end, answer).await {
            Err(_) => Asked::Failed("no answer in time".to_owned()),
            Ok(Err(why) | Ok((200, Err(why)))) => Asked::Failed(why),
            Ok(Ok((200, Ok(body)))) => Asked::Is(body),
            Ok(Ok((401 | 403, _))) => Asked::Forbidden,
            Ok(Ok((404, _))) => Asked::Absent,
            Ok(Ok((status, _))) => Asked::Failed(format!("HTTP {status}")),
        }
    }

    async fn reopen(&mut self) -> Result<(), Failure> {
        let stream = connect(self.address, self.limit).await?;
        self.connection = start(stream, self.host, &self.authority, self.account, self.limit).await?;
        Ok(())
    }

    /// `GET path`, and what `parse` makes of the answer.
    pub async fn read<T>(&mut self, path: &str, parse: impl FnOnce(&[u8]) -> Result<T, serde_json::Error>) -> Asked<T> {
        self.get(path).await.and_then(|body| match parse(&body) {
            Ok(value) => Asked::Is(value),
            Err(error) => Asked::Failed(format!("an answer that can't be read: {error}")),
        })
    }
}

async fn start(
    stream: TcpStream,
    host: &str,
    authority: &str,
    account: &Account,
    limit: Duration,
) -> Result<Connection, Failure> {
    let stream = http::start_tls(&account.tls, host, authority, stream, limit).await;
    let stream = stream.map_err(|error| Failure::from(&error.cause))?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| certificate::parse(chain.first()?));
    let names = leaf.map(|leaf| leaf.names).unwrap_or_default();
    let addresses = names.iter().filter_map(|name| name.parse().ok()).collect();
    let handshake = Builder::new().handshake(TokioIo::new(stream)).await;
    let (sender, connection) =
        handshake.map_err(|error| Failure { kind: FailureKind::Other, message: error.to_string() })?;
    // What goes wrong arrives at the sender.
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Connection { sender, driver, addresses })
}

async fn read(mut incoming: Incoming) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        body.extend_from_slice(frame.data_ref().map_or(b"", |data| data));
        if body.len() > MAX_BODY {
            return Err(format!("the answer is larger than {} MiB", MAX_BODY >> 20));
        }
    }
    Ok(body)
}

/// Opens a TCP connection to one address.
///
/// # Errors
/// [`Failure`].
pub(super) async fn connect(address: SocketAddr, limit: Duration) -> Result<TcpStream, Failure> {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Failure::from(&error)),
        Err(_) => Err(Failure { kind: FailureKind::TimedOut, message: Cause::TimedOut(limit).to_string() }),
    }
}
