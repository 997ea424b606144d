//! The web server: discovery, readiness, and WebSockets for agents (`TcpSlaveAgentListener`, `WebSocketAgents`).

use std::collections::HashMap;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{HANDSHAKE, IDENTITY, Mischief, Point, SESSION, Shared, VERSION, pump};
use crate::frame::Capability;
use crate::transport::Protocol;

const MAX_HEAD: usize = 16 << 10;

struct Head {
    path: String,
    headers: HashMap<String, String>,
}

async fn read_head(stream: &mut TcpStream) -> io::Result<Head> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        if bytes.len() == MAX_HEAD {
            return Err(io::Error::other("a request head without end"));
        }
        bytes.push(stream.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.split("\r\n");
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Ok(Head { path, headers })
}

async fn answer(stream: &mut TcpStream, status: &str, headers: &[(&str, &str)], body: &str) -> io::Result<()> {
    let mut text = format!(
        "HTTP/1.1 {status}\r\nX-Jenkins: {VERSION}\r\nX-Jenkins-Session: {SESSION}\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("Connection: close\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

pub async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let head = timeout(HANDSHAKE, read_head(&mut stream)).await??;
    match head.path.as_str() {
        "/tcpSlaveAgentListener/" if shared.settings.agent_port => {
            let port = shared.agent_port.to_string();
            let headers = [
                ("X-Hudson-JNLP-Port", port.as_str()),
                ("X-Jenkins-JNLP-Port", port.as_str()),
                ("X-Instance-Identity", IDENTITY.trim()),
                ("X-Jenkins-Agent-Protocols", "JNLP4-connect, Ping"),
                ("X-Remoting-Minimum-Version", shared.settings.minimum_remoting.as_str()),
            ];
            answer(&mut stream, "200 OK", &headers, "Jenkins").await
        }
        "/login" => answer(&mut stream, "200 OK", &[], "Jenkins").await,
        "/wsagents" => answer(&mut stream, "302 Found", &[("Location", "/wsagents/")], "").await,
        "/wsagents/" => agent(stream, &head.headers, shared).await,
        _ => answer(&mut stream, "404 Not Found", &[], "").await,
    }
}

/// `WebSocketAgents.doIndex`.
async fn agent(mut stream: TcpStream, headers: &HashMap<String, String>, shared: &Shared) -> io::Result<()> {
    let mischief = shared.next_mischief();
    match mischief {
        Mischief::None | Mischief::AlreadyConnected => {}
        Mischief::Drop(Point::Accepted) => {
            shared.note(format!("{mischief:?}"));
            return Ok(());
        }
        _ => {
            shared.note(format!("{mischief:?}"));
            std::future::pending::<()>().await;
        }
    }
    let header = |name: &str| headers.get(name).map_or("", String::as_str);
    let capability = header("x-remoting-capability");
    if capability.is_empty() {
        let text = "This endpoint is only for use from agent.jar in WebSocket mode";
        return answer(&mut stream, "400 Bad Request", &[], text).await;
    }
    let brought = headers.get("connection-cookie").cloned();
    if let Err(refusal) = shared.admit(header("node-name"), header("secret-key"), brought.as_deref(), &mischief) {
        let text = match refusal.status {
            // A wrong secret has no body; the words for an unknown agent differ from JNLP4's.
            "403 Forbidden" => String::new(),
            _ if refusal.text.starts_with("Unknown client") => "no such agent".to_owned(),
            _ => refusal.text,
        };
        return answer(&mut stream, refusal.status, &[], &text).await;
    }
    let peer = Capability::from_base64(capability).map_err(io::Error::other)?;
    let cookie = shared.new_cookie();
    let accept = derive_accept_key(header("sec-websocket-key").as_bytes());
    let text = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nX-Jenkins: {VERSION}\r\nConnection-Cookie: {cookie}\r\n\
         X-Remoting-Capability: {}\r\nX-Remoting-Minimum-Version: {}\r\n\r\n",
        Capability::OURS.to_base64(),
        shared.settings.minimum_remoting,
    );
    stream.write_all(text.as_bytes()).await?;
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let end = shared.open(peer, Protocol::WebSocket, cookie, brought);
    pump::web_socket(&end, socket).await;
    Ok(())
}
