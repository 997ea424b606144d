//! A nameserver that knows a handful of names.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::hits::Hits;
use crate::scenario::{Name, NameTrouble};

const A: u16 = 1;
const AAAA: u16 = 28;
const NOERROR: u8 = 0;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
/// Bytes before the first question.
const HEADER: usize = 12;

/// Listens, and answers for ever in the background. A name with trouble has to be asked for, which `hits` keeps account of.
pub async fn start(at: SocketAddr, names: Arc<BTreeMap<String, Name>>, hits: Hits) -> io::Result<()> {
    let socket = UdpSocket::bind(at).await?;
    let listener = TcpListener::bind(at).await?;
    tokio::spawn(serve(socket, listener, names, hits));
    Ok(())
}

async fn serve(
    socket: UdpSocket,
    listener: TcpListener,
    names: Arc<BTreeMap<String, Name>>,
    hits: Hits,
) -> io::Result<()> {
    let mut buffer = [0; 1500];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let (length, from) = received?;
                if let Some(answer) = answer(&buffer[..length], &names, &hits) {
                    socket.send_to(&answer, from).await?;
                }
            }
            accepted = listener.accept() => {
                let (names, hits) = (names.clone(), hits.clone());
                tokio::spawn(over_tcp(accepted?.0, names, hits));
            }
        }
    }
}

/// Each message has its length before it (RFC 1035, section 4.2.2).
async fn over_tcp(mut stream: TcpStream, names: Arc<BTreeMap<String, Name>>, hits: Hits) -> io::Result<()> {
    loop {
        let mut query = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut query).await?;
        if let Some(answer) = answer(&query, &names, &hits) {
            stream.write_u16(u16::try_from(answer.len()).map_err(io::Error::other)?).await?;
            stream.write_all(&answer).await?;
        }
    }
}

fn answer(query: &[u8], names: &BTreeMap<String, Name>, hits: &Hits) -> Option<Vec<u8>> {
    let (name, rest) = name(query.get(HEADER..)?)?;
    let kind = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
    let question = &query[HEADER..query.len() - rest.len() + 4];
    let found = names.get(&name);
    if matches!(found, Some(Name::Trouble(_))) {
        hits.hit(&trouble(&name));
    }
    let (code, addresses) = match found {
        Some(Name::Trouble(NameTrouble::Silent)) => return None,
        Some(Name::Trouble(NameTrouble::Servfail)) => (SERVFAIL, &[][..]),
        Some(Name::Addresses(addresses)) => (NOERROR, addresses.as_slice()),
        Some(Name::Trouble(NameTrouble::Nxdomain)) | None => (NXDOMAIN, &[][..]),
    };
    let mut records = Vec::new();
    let mut count = 0_u16;
    for address in addresses {
        let data = match address {
            IpAddr::V4(v4) if kind == A => v4.octets().to_vec(),
            IpAddr::V6(v6) if kind == AAAA => v6.octets().to_vec(),
            _ => continue,
        };
        count += 1;
        // A pointer to the question's name, the class IN, half a minute to live.
        records.extend([0xc0, 12]);
        records.extend(kind.to_be_bytes());
        records.extend([0, 1, 0, 0, 0, 30]);
        records.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        records.extend(data);
    }
    let mut answer = query[..2].to_vec();
    // A response; recursion was desired as asked, and is available.
    answer.extend([0x80 | (query[2] & 1), 0x80 | code, 0, 1]);
    answer.extend(count.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question);
    answer.extend(records);
    Some(answer)
}

/// What it counts as when a name with trouble is asked for.
pub fn trouble(name: &str) -> String {
    format!("the nameserver's trouble with {name}")
}

/// A question's name in lower case, and what follows it.
fn name(mut bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut labels = Vec::new();
    loop {
        let (&length, rest) = bytes.split_first()?;
        if length == 0 {
            return Some((labels.join("."), rest));
        }
        let (label, rest) = rest.split_at_checked(length.into())?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        bytes = rest;
    }
}
