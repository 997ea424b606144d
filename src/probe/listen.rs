//! `agent probe-listen PORT`: stands in for the controller's port, and shows who arrives there, from which address.
//!
//! The other half of a probe: whether a connection arrives at all, and as whom, tells a firewall from a wrong route from
//! a load balancer that answers in the controller's place.

pub mod sniff;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use crate::session::duration;
use crate::transport::ExitCode;
use sniff::{Greeting, MAX_BYTES, Sniffed, sniff};

/// How long somebody may take to say something: agents, browsers and probes speak first.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long somebody may take to read the answer.
const GOODBYE: Duration = Duration::from_secs(1);

/// Connections at a time. One more is closed at once.
const MAX_CONNECTIONS: usize = 64;

/// What refuses TLS (RFC 8446, section 6): a fatal alert, access_denied.
const TLS_REFUSAL: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

const AFTER_HELP: &str = "\
Run it where the controller is or should be (another port will do, or the controller's own while that is stopped), and from where
agents can't connect run one of

  agent --probe -url http://HOST:PORT/
  curl http://HOST:PORT/

Nothing arrives: packets are lost on the way there. It arrives from another address than the pod's: something on the way
translates addresses, and this is what firewalls and network policies go by. The answer arrives: the way there is free, and it is the
controller's own port that is at fault. The answer tells the other side from where it was seen to come.

Headers that may be secrets are hidden, with their length. TLS is refused after its first message, which tells the host name asked for.

JSON: one object per line: {\"at_ms\" (since 1970), \"peer\", \"local\", \"proxied_for\" (PROXY protocol), \"kind\": \"http\" |
\"agent\" | \"tls\" | \"other\" | \"silence\"}, and with http \"request\" and \"headers\", with agent \"protocol\", with tls
\"server_name\", \"protocols\" and \"version\", with other \"text\".

Exit code: 0 if ended by --count or a signal, or if somebody came; 13 if nobody did until the time of --for was up; 1 if it can't listen; 2 if
an option can't be used.";

/// Listens, and shows who arrives, from which address, with what.
#[derive(Debug, Parser)]
#[command(name = "agent probe-listen", after_help = AFTER_HELP, disable_version_flag = true)]
struct Options {
    /// The port to listen at; 0 for any that is free
    port: u16,
    /// Listen at this address alone
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<IpAddr>,
    /// JSON in place of text
    #[arg(long)]
    json: bool,
    /// End after this time (30s, 5m)
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse_with_unit)]
    time: Option<Duration>,
    /// End after so many connections
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// Somebody arrived.
#[derive(Debug, Serialize)]
struct Arrival {
    at_ms: u64,
    peer: SocketAddr,
    local: SocketAddr,
    #[serde(flatten)]
    sniffed: Sniffed,
}

/// Runs `agent probe-listen` with the arguments behind it, and gives the process's exit code.
pub fn run(arguments: &[String]) -> u8 {
    let options = match super::command::parse::<Options>("agent probe-listen", arguments) {
        Ok(options) => options,
        Err(code) => return code,
    };
    super::command::block_on(async {
        let listener = match bind(options.bind, options.port) {
            Ok(listener) => listener,
            Err(error) => return super::command::failed(&format!("listening at port {}: {error}", options.port)),
        };
        listen(listener, &options, &mut io::stdout()).await
    })
}

/// Listens at one address, or at all: those of IPv4 as well, where there is IPv6.
fn bind(address: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    let open = |address: IpAddr| {
        let address = SocketAddr::new(address, port);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address == SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port) {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(128)?;
        TcpListener::from_std(socket.into())
    };
    match address {
        Some(address) => open(address),
        None => match open(Ipv6Addr::UNSPECIFIED.into()) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => open(Ipv4Addr::UNSPECIFIED.into()),
            opened => opened,
        },
    }
}

/// Serves until the time is up, enough have come, or a signal arrives.
async fn listen(listener: TcpListener, options: &Options, out: &mut dyn Write) -> u8 {
    let note = |text: &str| {
        let _ = writeln!(io::stderr(), "{text}");
    };
    if let Ok(address) = listener.local_addr() {
        note(&format!("Listening at {address}."));
    }
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return super::command::failed("waiting for signals failed");
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (sender, mut arrivals) = mpsc::channel(MAX_CONNECTIONS);
    let mut end = std::pin::pin!(async {
        match options.time {
            Some(time) => sleep(time).await,
            None => std::future::pending().await,
        }
    });
    let mut count = 0;
    let mut peers = BTreeSet::new();
    let ended_in_time = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        let sender = sender.clone();
                        tokio::spawn(async move {
                            if let Some(arrival) = welcome(stream, peer).await {
                                let _ = sender.send(arrival).await;
                            }
                            drop(place);
                        });
                    }
                    Err(_) => note(&format!("{} was turned away: {MAX_CONNECTIONS} are being served.", canonical(peer))),
                },
                Err(error) => {
                    note(&format!("accepting a connection: {error}"));
                    // Out of file descriptors, most likely: they come back.
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(arrival) = arrivals.recv() => {
                if print(&arrival, options.json, out).is_err() {
                    // Whoever reads has seen enough.
                    break false;
                }
                count += 1;
                // For the summary alone: bounded, whoever comes.
                if peers.len() < 1000 {
                    peers.insert(arrival.peer.ip());
                }
                if options.count.is_some_and(|wanted| count >= wanted) {
                    break false;
                }
            },
            () = &mut end => break true,
            _ = interrupt.recv() => break false,
            _ = terminate.recv() => break false,
        }
    };
    let plural = |count: u64, what: &str, more: &str| format!("{count} {what}{}", if count == 1 { "" } else { more });
    note(&format!("{} from {}.", plural(count, "connection", "s"), plural(peers.len() as u64, "address", "es")));
    if ended_in_time && count == 0 { ExitCode::TimedOut.code() } else { 0 }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Waits for what somebody says, and answers.
async fn welcome(mut stream: TcpStream, peer: SocketAddr) -> Option<Arrival> {
    let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let (peer, local) = (canonical(peer), canonical(stream.local_addr().ok()?));
    let mut bytes = Vec::new();
    let reading = async {
        let mut part = [0; 2048];
        loop {
            match stream.read(&mut part).await {
                Ok(length @ 1..) => bytes.extend_from_slice(&part[..length.min(MAX_BYTES - bytes.len())]),
                _ => return sniff(&bytes, true),
            }
            if let Some(sniffed) = sniff(&bytes, false) {
                return Some(sniffed);
            }
        }
    };
    let sniffed = match timeout(PATIENCE, reading).await {
        Ok(sniffed) => sniffed?,
        Err(_) => sniff(&bytes, true)?,
    };
    let answer = answer(&sniffed.greeting, peer, local);
    let goodbye = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        // What is unread when a connection is closed resets it, and the answer with it.
        let mut rest = [0; 2048];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = timeout(GOODBYE, goodbye).await;
    Some(Arrival { at_ms, peer, local, sniffed })
}

/// What tells the other side that it has arrived, in its own protocol.
fn answer(greeting: &Greeting, peer: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let text = format!("agent probe-listen: no controller is here, but {peer} has arrived at {local}\n");
    match greeting {
        Greeting::Http { .. } => format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nX-Agent-Probe-Peer: {peer}\r\n\
             Connection: close\r\n\r\n{text}",
            text.len()
        )
        .into_bytes(),
        Greeting::Tls { .. } => TLS_REFUSAL.to_vec(),
        Greeting::Agent { .. } | Greeting::Other { .. } | Greeting::Silence => text.into_bytes(),
    }
}

fn print(arrival: &Arrival, json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, arrival)?;
        writeln!(out)?;
        return out.flush();
    }
    let second = arrival.at_ms / 1000;
    write!(
        out,
        "{:02}:{:02}:{:02}Z {} -> {}",
        second / 3600 % 24,
        second / 60 % 60,
        second % 60,
        arrival.peer,
        arrival.local
    )?;
    if let Some(from) = &arrival.sniffed.proxied_for {
        write!(out, " for {from} (PROXY protocol)")?;
    }
    match &arrival.sniffed.greeting {
        Greeting::Http { request, headers } => {
            writeln!(out, "  {request}")?;
            for (name, value) in headers {
                writeln!(out, "    {name}: {value}")?;
            }
        }
        Greeting::Agent { protocol } => writeln!(out, "  an inbound agent, {protocol}")?,
        Greeting::Tls { server_name, protocols, version } => {
            write!(out, "  {version} for {}", server_name.as_deref().unwrap_or("no host name"))?;
            match protocols.as_slice() {
                [] => writeln!(out)?,
                protocols => writeln!(out, ", {}", protocols.join(" or "))?,
            }
        }
        Greeting::Other { text } => writeln!(out, "  {text:?}")?,
        Greeting::Silence => writeln!(out, "  says nothing")?,
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        Options::try_parse_from([&["agent probe-listen"], arguments].concat()).unwrap()
    }

    async fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    }

    /// What a TLS client is told.
    async fn tls(address: SocketAddr) -> String {
        let config = crate::transport::trust::TlsConfig::new(Default::default()).unwrap().client_config().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = "ci.example.org".try_into().unwrap();
        tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap_err().to_string()
    }

    /// All kinds of visitors, one after the other.
    async fn visit(address: SocketAddr) {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let http = text(say(address, b"GET /login HTTP/1.1\r\nHost: h\r\nSecret-Key: hunter2\r\n\r\n").await);
        assert!(http.starts_with("HTTP/1.1 200 OK\r\n") && http.contains("X-Agent-Probe-Peer: 127.0.0.1:"), "{http}");
        let agent = text(say(address, b"\0\x16Protocol:JNLP4-connect").await);
        assert!(agent.starts_with("agent probe-listen: no controller is here, but 127.0.0.1:"), "{agent}");
        let error = tls(address).await;
        assert!(error.contains("AccessDenied"), "{error}");
        let other = text(say(address, b"SSH-2.0-x\r\n").await);
        assert_eq!(other.lines().count(), 1);
    }

    async fn listened(arguments: &[&str]) -> (u8, String) {
        let listener = bind(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut out = Vec::new();
        let options = options(arguments);
        let (code, ()) = tokio::join!(listen(listener, &options, &mut out), visit(address));
        (code, String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn everybody_is_shown_and_answered_in_its_own_protocol() {
        let (code, out) = listened(&["0", "--count", "4"]).await;
        assert_eq!(code, 0);
        for expected in [
            "  GET /login HTTP/1.1\n    Host: h\n    Secret-Key: (hidden, 7 characters)\n",
            "  an inbound agent, JNLP4-connect\n",
            "  TLS 1.3 for ci.example.org",
            "  \"SSH-2.0-x.\"\n",
        ] {
            assert!(out.contains(expected), "{out}");
        }
        assert!(!out.contains("hunter2"));
    }

    #[tokio::test]
    async fn json_has_a_line_for_each() {
        let (_, out) = listened(&["0", "--count", "4", "--json"]).await;
        let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["http", "agent", "tls", "other"]);
        assert_eq!(lines[0]["headers"][1], serde_json::json!(["Secret-Key", "(hidden, 7 characters)"]));
        assert!(lines[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
        assert_eq!(lines[2]["server_name"], "ci.example.org");
    }

    #[tokio::test]
    async fn nobody_comes() {
        let listener = bind(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap();
        assert_eq!(listen(listener, &options(&["0", "--for", "50ms"]), &mut Vec::new()).await, 13);
    }

    #[tokio::test]
    async fn silence_and_early_ends_are_arrivals_too() {
        let listener = bind(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut out = Vec::new();
        let options = options(&["0", "--count", "1", "--json"]);
        let (code, _) = tokio::join!(listen(listener, &options, &mut out), async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await
        });
        assert_eq!(code, 0);
        assert!(String::from_utf8(out).unwrap().contains("\"silence\""));
    }

    #[tokio::test]
    async fn all_addresses_of_both_families() {
        let listener = bind(None, 0).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut out = Vec::new();
        let options = options(&["0", "--count", "1"]);
        tokio::join!(listen(listener, &options, &mut out), say((Ipv4Addr::LOCALHOST, port).into(), b"x\n"));
        assert!(String::from_utf8(out).unwrap().contains(&format!(" -> 127.0.0.1:{port}")));
    }

    #[test]
    fn options_that_make_no_sense() {
        for bad in [&[][..], &["x"], &["65536"], &["1", "--for", "5"], &["1", "--count", "0"], &["1", "--bind", "name"]]
        {
            assert!(Options::try_parse_from([&["agent probe-listen"], bad].concat()).is_err(), "{bad:?}");
        }
    }
}
