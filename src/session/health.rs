//! `--health-address`: a few words over HTTP for probes and Prometheus; and `--healthcheck`, which asks for them.
//!
//! Not for the `jnlp` container of a pod template: kubernetes-plugin looks at the agent, and at containers that have ended,
//! only once all containers of the pod are ready (`KubernetesLauncher.launch`). An agent that can't connect would keep it
//! waiting for 1000 s.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::metrics;
use super::status::Status;

/// Connections that are served at a time; more wait.
const MAX_CONNECTIONS: usize = 8;
/// How long one connection may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest head of a request.
const MAX_HEAD: usize = 4 << 10;
/// How long `--healthcheck` waits for each step.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// As much of an answer as `--healthcheck` reads.
const MAX_ANSWER: u64 = 4 << 10;

/// Answers for ever. Never fails: a connection that can't be served is closed.
pub async fn serve(listener: TcpListener, status: Arc<Status>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let status = status.clone();
                tokio::spawn(async move {
                    match timeout(CONNECTION_TIMEOUT, converse(stream, &status)).await {
                        Ok(Err(error)) => tracing::debug!("health check: {error}"),
                        Err(_) => tracing::debug!("health check: the other end was too slow"),
                        Ok(Ok(())) => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("accepting a health check: {error}");
                // No file descriptors, most likely: that passes, or it does not.
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, status: &Status) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(io::Error::other("a request head without end"));
        }
        if (&mut stream).take(MAX_HEAD as u64).read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    stream.write_all(answer(&String::from_utf8_lossy(line), status).as_bytes()).await?;
    stream.shutdown().await
}

/// The whole answer to a request that begins with this line.
fn answer(line: &str, status: &Status) -> String {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let state = |state: Result<(), String>| match state {
        Ok(()) => ("200 OK", "ok\n".to_owned()),
        Err(why) => ("503 Service Unavailable", format!("{why}\n")),
    };
    let (code, body) = match (method, path) {
        ("GET" | "HEAD", "/healthz") => state(status.alive()),
        ("GET" | "HEAD", "/readyz") => state(status.ready()),
        ("GET" | "HEAD", "/metrics") => ("200 OK", metrics::text(status)),
        ("GET" | "HEAD", _) => ("404 Not Found", "There are /healthz, /readyz and /metrics.\n".to_owned()),
        _ => ("405 Method Not Allowed", "Only GET and HEAD.\n".to_owned()),
    };
    let kind =
        if path == "/metrics" { "text/plain; version=0.0.4; charset=utf-8" } else { "text/plain; charset=utf-8" };
    let length = body.len();
    let body = if method == "HEAD" { "" } else { &body };
    format!("HTTP/1.1 {code}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

/// Asks the agent at this address whether its channel is up. Blocks, for some seconds at most.
///
/// # Errors
/// What it says that it does instead, or why it can't be asked.
pub fn check(address: SocketAddr) -> Result<(), String> {
    // An address to listen on may be every address.
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(ip, address.port());
    let ask = || {
        let mut stream = std::net::TcpStream::connect_timeout(&address, CHECK_TIMEOUT)?;
        stream.set_read_timeout(Some(CHECK_TIMEOUT))?;
        stream.set_write_timeout(Some(CHECK_TIMEOUT))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error: io::Error| format!("no answer at {address}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some("503") => Err(body.trim().to_owned()),
        _ => Err(format!("what answers at {address} is no agent")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn server() -> (SocketAddr, Arc<Status>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, status) = (listener.local_addr().unwrap(), Arc::new(Status::new(None)));
        tokio::spawn(serve(listener, status.clone()));
        (address, status)
    }

    #[tokio::test]
    async fn each_path_says_what_it_is_for() {
        let (address, status) = server().await;
        let get = async |path: &str| ask(address, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        assert!(get("/healthz").await.starts_with("HTTP/1.1 200 OK\r\n"));
        let not_ready = get("/readyz?verbose").await;
        assert!(not_ready.starts_with("HTTP/1.1 503 ") && not_ready.ends_with("\r\n\r\nConnecting\n"), "{not_ready}");
        status.connected("WebSocket");
        assert!(get("/readyz").await.ends_with("Content-Length: 3\r\nConnection: close\r\n\r\nok\n"));
        assert!(get("/metrics").await.contains("\njenkins_agent_connected 1\n"));
        assert!(get("/").await.starts_with("HTTP/1.1 404 "));
        assert!(ask(address, b"POST /readyz HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 405 "));
        let head = ask(address, b"HEAD /readyz HTTP/1.1\r\n\r\n").await;
        assert!(head.contains("Content-Length: 3\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[tokio::test]
    async fn the_check_says_what_readiness_says() {
        let (address, status) = server().await;
        let check = async |address| tokio::task::spawn_blocking(move || check(address)).await.unwrap();
        assert_eq!(check(address).await.unwrap_err(), "Connecting");
        status.connected("WebSocket");
        assert_eq!(check(address).await, Ok(()));
        assert_eq!(check(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port())).await, Ok(()));
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(check(nobody).await.unwrap_err().starts_with(&format!("no answer at {nobody}: Connection refused")));
    }

    #[tokio::test]
    async fn who_sends_nothing_or_without_end_is_let_go() {
        let (address, _status) = server().await;
        let mut endless = TcpStream::connect(address).await.unwrap();
        let sent = async { while endless.write_all(&[b'a'; 1024]).await.is_ok() {} };
        timeout(Duration::from_secs(10), sent).await.expect("an endless request head is read for ever");
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // Served once the silent ones have had their time.
        let answered = timeout(Duration::from_secs(30), ask(address, b"GET /healthz HTTP/1.1\r\n\r\n")).await.unwrap();
        assert!(answered.ends_with("ok\n"));
    }
}
