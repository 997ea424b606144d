//! The agent port: the server's side of JNLP4-connect (`JnlpProtocol4Handler.handle`).

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{HANDSHAKE, Mischief, Point, SESSION, Shared, VERSION, pump};
use crate::frame::Capability;
use crate::frame::handshake::{ACK, OK, encode_headers, encode_item, parse_headers};
use crate::transport::Protocol;

/// A self-signed certificate with the key of the instance identity; the key protects nothing.
const CERTIFICATE: &str = include_str!("../../transport/testdata/controller.crt");
const KEY: &str = include_str!("../../transport/testdata/controller.key");
const COOKIE: &str = "JnlpAgentProtocol.cookie";

#[derive(Debug)]
struct OneKey(Arc<CertifiedKey>);

impl ResolvesServerCert for OneKey {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// TLS with the controller's key.
pub fn acceptor() -> Result<TlsAcceptor, Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(ring::default_provider());
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes())?;
    let key = provider.key_provider.load_private_key(PrivateKeyDer::from_pem_slice(KEY.as_bytes())?)?;
    let key = OneKey(Arc::new(CertifiedKey::new(vec![certificate], key)));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(key));
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn read_item(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let read = async {
        let length = stream.read_u16().await?;
        let mut text = vec![0; length.into()];
        stream.read_exact(&mut text).await?;
        String::from_utf8(text).map_err(io::Error::other)
    };
    timeout(HANDSHAKE, read).await?
}

async fn write_item(stream: &mut (impl AsyncWrite + Unpin), text: &str) -> io::Result<()> {
    stream.write_all(&encode_item(text).map_err(io::Error::other)?).await?;
    stream.flush().await
}

/// Misbehaves, if here is the point for it: false if the connection is to be dropped.
async fn goes_on(mischief: &Mischief, here: Point) -> bool {
    if *mischief == Mischief::Stall(here) {
        std::future::pending::<()>().await;
    }
    *mischief != Mischief::Drop(here)
}

/// `TcpSlaveAgentListener.ConnectionHandler.respondHello`, as far as a probe reads it.
async fn hello(mut stream: TcpStream) -> io::Result<()> {
    let text = format!(
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain;charset=UTF-8\r\n\r\nJenkins-Agent-Protocols: JNLP4-connect, Ping\r\n\
         Jenkins-Version: {VERSION}\r\nJenkins-Session: {SESSION}\r\n"
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    // As Jenkins does: what is closed with a request unread would be reset.
    let mut rest = Vec::new();
    timeout(HANDSHAKE, (&mut stream).take(1 << 10).read_to_end(&mut rest)).await?.map(drop)
}

pub async fn serve(mut stream: TcpStream, shared: &Shared, acceptor: &TlsAcceptor) -> io::Result<()> {
    let mut first = [0; 4];
    let peeked = timeout(HANDSHAKE, stream.peek(&mut first)).await??;
    if first[..peeked] == *b"GET " {
        return hello(stream).await;
    }
    let mischief = shared.next_mischief();
    if mischief != Mischief::None {
        shared.note(format!("{mischief:?}"));
    }
    if !goes_on(&mischief, Point::Accepted).await {
        return Ok(());
    }
    let protocol = read_item(&mut stream).await?;
    if protocol != "Protocol:JNLP4-connect" {
        return stream.write_all(b"Unknown protocol:\n").await;
    }
    if !goes_on(&mischief, Point::Greeted).await {
        return Ok(());
    }
    stream.write_all(&ACK).await?;
    let mut ack = [0; ACK.len()];
    stream.read_exact(&mut ack).await?;
    let mut stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    if !goes_on(&mischief, Point::Encrypted).await {
        return Ok(());
    }
    let cookie = shared.new_cookie();
    write_item(&mut stream, &encode_headers([(COOKIE, cookie.as_str())])).await?;
    let mut headers = parse_headers(&read_item(&mut stream).await?).map_err(io::Error::other)?;
    if !goes_on(&mischief, Point::Presented).await {
        return Ok(());
    }
    let mut header = |name: &str| headers.remove(name).flatten();
    let (name, secret, brought) = (header("Node-Name"), header("Secret-Key"), header(COOKIE));
    let admitted = shared.admit(&name.unwrap_or_default(), &secret.unwrap_or_default(), brought.as_deref(), &mischief);
    if let Err(refusal) = admitted {
        write_item(&mut stream, &format!("ERROR: {}", refusal.text)).await?;
        // Its verdict on our headers, and its goodbye.
        read_item(&mut stream).await?;
        read_item(&mut stream).await?;
        return Ok(());
    }
    write_item(&mut stream, OK).await?;
    read_item(&mut stream).await?;
    if !goes_on(&mischief, Point::Admitted).await {
        return Ok(());
    }
    write_item(&mut stream, &Capability::OURS.to_base64()).await?;
    let peer = Capability::from_base64(&read_item(&mut stream).await?).map_err(io::Error::other)?;
    let end = shared.open(peer, Protocol::Jnlp4, cookie, brought);
    let (input, output) = tokio::io::split(stream);
    pump::stream(&end, input, output, &[]).await;
    Ok(())
}
