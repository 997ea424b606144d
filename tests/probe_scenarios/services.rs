//! What else may listen: something that is no controller, an HTTP proxy, an API server.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::certificates;
use crate::hits::Hits;
use crate::http::{self, Head};
use crate::scenario::{Kubernetes, Proxy, Service, ServiceKind};

/// Where the API server of a cluster is.
pub const API_SERVER: &str = "10.2.0.43";

/// Listens, and serves for ever in the background.
pub async fn start(service: &Service, hits: &Hits) -> io::Result<()> {
    let at: SocketAddr = service.at.parse().map_err(|error| io::Error::other(format!("{}: {error}", service.at)))?;
    let listener = TcpListener::bind(at).await?;
    let met = format!("what listens at {at}");
    hits.expect(met.as_str());
    let (kind, hits) = (Arc::new(service.kind.clone()), hits.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            hits.hit(&met);
            let kind = kind.clone();
            tokio::spawn(async move { serve(stream, &kind).await });
        }
    });
    Ok(())
}

async fn serve(mut stream: TcpStream, kind: &ServiceKind) -> io::Result<()> {
    match kind {
        ServiceKind::Says(text) => {
            stream.write_all(text.as_bytes()).await?;
            // Until the other end has had enough.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(|_| ())
        }
        ServiceKind::ClosesAfter(seconds) => {
            tokio::time::sleep(Duration::from_secs_f64(*seconds)).await;
            Ok(())
        }
        ServiceKind::Answers(answer) => {
            let Some(head) = Head::read(&mut stream).await? else { return Ok(()) };
            head.skip_body(&mut stream).await?;
            http::answer(&mut stream, answer, &[("Date", http::date(0))]).await
        }
        ServiceKind::Proxy(proxy) => self::proxy(stream, proxy).await,
    }
}

async fn proxy(mut stream: TcpStream, proxy: &Proxy) -> io::Result<()> {
    let Some(mut head) = Head::read(&mut stream).await? else { return Ok(()) };
    let server = [("Server", "squid/5.7".to_owned()), ("Date", http::date(0))];
    if let Some(answer) = &proxy.refuses {
        return http::answer(&mut stream, answer, &server).await;
    }
    if let Some(credentials) = &proxy.credentials {
        let expected = format!("Basic {}", BASE64_STANDARD.encode(credentials));
        if head.header("Proxy-Authorization") != Some(&expected) {
            let mut answer = http::html(407, "<h2>Cache Access Denied.</h2>");
            answer.headers.insert("Proxy-Authenticate".to_owned(), "Basic realm=\"squid\"".to_owned());
            answer.headers.insert("X-Squid-Error".to_owned(), "ERR_CACHE_ACCESS_DENIED 0".to_owned());
            return http::answer(&mut stream, &answer, &server).await;
        }
    }
    let tunnel = head.method() == "CONNECT";
    let target = head.target().trim_start_matches("http://").to_owned();
    let (authority, path) = target.split_once('/').unwrap_or((&target, ""));
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    let address = host.parse().ok().or_else(|| proxy.knows.get(host).copied());
    let (Some(address), Ok(port)) = (address, port.parse::<u16>()) else {
        let page = format!(
            "<h2>The requested URL could not be retrieved</h2> Unable to determine IP address from host name <q>{host}</q>"
        );
        let mut answer = http::html(503, page);
        answer.headers.insert("X-Squid-Error".to_owned(), "ERR_DNS_FAIL 0".to_owned());
        return http::answer(&mut stream, &answer, &server).await;
    };
    let mut beyond = match TcpStream::connect((address, port)).await {
        Ok(beyond) => beyond,
        Err(_) => {
            let mut answer = http::html(503, "<h2>The requested URL could not be retrieved</h2> Connection failed");
            answer.headers.insert("X-Squid-Error".to_owned(), "ERR_CONNECT_FAIL 111".to_owned());
            return http::answer(&mut stream, &answer, &server).await;
        }
    };
    if tunnel {
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    } else {
        head.first = format!("{} /{path} HTTP/1.1", head.method());
        beyond.write_all(&head.bytes()).await?;
    }
    http::relay(stream, beyond, None).await
}

/// An API server that knows a few objects, given as JSON by path.
pub async fn api_server(settings: &Kubernetes) -> io::Result<()> {
    let listener = TcpListener::bind((API_SERVER, 443)).await?;
    let tls = certificates::api_server(API_SERVER, &settings.own_addresses)?;
    let objects = Arc::new(settings.api.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, objects) = (tls.clone(), objects.clone());
            tokio::spawn(async move {
                let mut stream = tls.accept(stream).await?;
                while let Some(head) = Head::read(&mut stream).await? {
                    let (status, body) = api(&head, &objects);
                    let length = body.len();
                    let answer = format!(
                        "HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                    );
                    stream.write_all(answer.as_bytes()).await?;
                    stream.flush().await?;
                }
                io::Result::Ok(())
            });
        }
    });
    Ok(())
}

fn api<'a>(head: &Head, objects: &'a BTreeMap<String, String>) -> (u16, &'a str) {
    if head.path() == "/version" {
        return (200, r#"{"major": "1", "minor": "32", "gitVersion": "v1.32.0"}"#);
    }
    if head.header("Authorization") != Some("Bearer the-pods-token") {
        return (401, r#"{"kind": "Status", "reason": "Unauthorized"}"#);
    }
    match objects.get(head.path()) {
        Some(body) => (200, body),
        None => (404, r#"{"kind": "Status", "reason": "NotFound"}"#),
    }
}
