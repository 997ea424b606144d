//! Names: what the system's resolver makes of them, and what each name server says.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::Clock;
use crate::probe::dns;
use crate::probe::facts::{Lookup, Name, Query, RecordKind, Reply, ResolvConf};

/// How long the system's resolver may take: longer than glibc waits for one dead name server (5 s) before it asks the
/// next.
const LOOKUP: Duration = Duration::from_secs(7);

/// How long a name server may take; it is asked twice in that time.
const ANSWER: Duration = Duration::from_secs(3);

/// No more names of a search list are asked for.
const MAX_CANDIDATES: usize = 8;

/// No larger file is read.
const MAX_FILE: usize = 1 << 20;

/// The text of a small system file.
pub(super) fn read(path: &str) -> Option<String> {
    let mut text = std::fs::read(Path::new(path)).ok()?;
    text.truncate(MAX_FILE);
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// What the system knows about name servers.
pub(super) fn resolv_conf() -> Option<ResolvConf> {
    read("/etc/resolv.conf").map(|text| dns::resolv_conf(&text))
}

/// Resolves a name in every way. An address is a name that resolves to itself.
pub(super) async fn gather(host: &str, clock: Clock) -> Name {
    let mut name = Name { name: host.to_owned(), ..Name::default() };
    if let Ok(address) = host.parse::<IpAddr>() {
        name.system = Some(Lookup { addresses: vec![address], ..Lookup::default() });
        return name;
    }
    name.hosts_file = read("/etc/hosts").map(|text| dns::hosts(&text, host)).unwrap_or_default();
    let conf = if name.hosts_file.is_empty() { resolv_conf() } else { None };
    let (system, queries) = tokio::join!(lookup(host, clock), queries(host, conf.as_ref(), clock));
    name.system = Some(system);
    name.queries = queries;
    name
}

async fn lookup(host: &str, clock: Clock) -> Lookup {
    let begun = Instant::now();
    let mut found = Lookup::default();
    match clock.within(LOOKUP, tokio::net::lookup_host((host, 0))).await {
        Ok(Ok(addresses)) => {
            for address in addresses.take(32) {
                if !found.addresses.contains(&address.ip()) {
                    found.addresses.push(address.ip());
                }
            }
        }
        Ok(Err(error)) => found.error = Some(crate::transport::dial::dns_message(&error)),
        Err(failure) => {
            found.timed_out = true;
            found.error = Some(failure.message);
        }
    }
    found.ms = begun.elapsed().as_millis() as u64;
    found
}

async fn queries(host: &str, conf: Option<&ResolvConf>, clock: Clock) -> Vec<Query> {
    let Some(conf) = conf else { return Vec::new() };
    let mut names = dns::candidates(host, conf);
    names.truncate(MAX_CANDIDATES);
    let asked = conf.nameservers.iter().flat_map(|&server| {
        names.iter().flat_map(move |name| {
            [RecordKind::A, RecordKind::Aaaa].into_iter().map(move |kind| query(server, name, kind, clock))
        })
    });
    join_all(asked).await
}

async fn query(server: IpAddr, name: &str, kind: RecordKind, clock: Clock) -> Query {
    let begun = Instant::now();
    let reply = match dns::question(id(), name, kind) {
        None => Reply::Malformed("this can't be a name".to_owned()),
        Some(question) => match clock.within(ANSWER, ask(server, &question, name, kind)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => Reply::Unreachable(error.to_string()),
            Err(_) => Reply::TimedOut,
        },
    };
    Query { server, name: name.to_owned(), kind, reply, ms: begun.elapsed().as_millis() as u64 }
}

async fn ask(server: IpAddr, question: &[u8], name: &str, kind: RecordKind) -> std::io::Result<Reply> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // A connected socket gets the ICMP errors of its server, and no one else's answers.
    socket.connect((server, dns::PORT)).await?;
    let id = u16::from_be_bytes([question[0], question[1]]);
    let mut buffer = [0; dns::MAX_MESSAGE];
    loop {
        socket.send(question).await?;
        let received = tokio::time::timeout(ANSWER / 2, async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                if let Some(reply) = dns::reply(&buffer[..length], id, name, kind) {
                    return Ok(reply);
                }
            }
        });
        if let Ok(reply) = received.await {
            return reply;
        }
    }
}

/// Not to be guessed, so that no one else can answer.
fn id() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::time::Instant::now()) as u16
}
