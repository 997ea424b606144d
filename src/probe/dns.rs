//! As much of DNS (RFC 1035, RFC 3596) as it takes to ask one name server for the addresses of one name, and the names
//! that a search list makes of another (resolv.conf(5), as glibc does it).
//!
//! No IO. A message is at most what one UDP datagram holds; nothing in it is trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::facts::{RecordKind, Reply, ResolvConf};

/// The port of name servers.
pub const PORT: u16 = 53;

/// The largest answer that is read: what is asked for without EDNS fits into 512 bytes, and some servers send more.
pub const MAX_MESSAGE: usize = 4096;

/// The longest name, as text (RFC 1035, section 2.3.4: 255 octets on the wire).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// No more addresses of one answer are kept.
const MAX_ADDRESSES: usize = 32;

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;

fn type_code(kind: RecordKind) -> u16 {
    match kind {
        RecordKind::A => 1,
        RecordKind::Aaaa => 28,
    }
}

/// A question for `name`, which may end with a dot; `None` for what can't be asked.
pub fn question(id: u16, name: &str, kind: RecordKind) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > MAX_NAME {
        return None;
    }
    // Recursion is desired, one question, nothing else.
    let mut message = Vec::with_capacity(HEADER + name.len() + 6);
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(&[0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL {
            return None;
        }
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&type_code(kind).to_be_bytes());
    message.extend_from_slice(&CLASS_IN.to_be_bytes());
    Some(message)
}

/// Reads the answer to [`question`]; `None` where it is the answer to something else, for which one goes on waiting.
pub fn reply(message: &[u8], id: u16, name: &str, kind: RecordKind) -> Option<Reply> {
    let mut reader = Reader { message, at: 0 };
    if reader.u16()? != id {
        return None;
    }
    match read(&mut reader, name, kind) {
        Ok(reply) => reply,
        Err(what) => Some(Reply::Malformed(what.to_owned())),
    }
}

fn read(reader: &mut Reader<'_>, name: &str, kind: RecordKind) -> Result<Option<Reply>, &'static str> {
    const SHORT: &str = "the answer ends early";
    let flags = reader.u16().ok_or(SHORT)?;
    let questions = reader.u16().ok_or(SHORT)?;
    let answers = reader.u16().ok_or(SHORT)?;
    reader.skip(4).ok_or(SHORT)?;
    if flags & 0x8000 == 0 {
        return Ok(None);
    }
    let code = flags & 0xf;
    // A server that can't read a question may answer without it.
    match questions {
        0 if code != 0 => {}
        1 => {
            let asked = reader.name().ok_or("the answer's question can't be read")?;
            let same = asked.eq_ignore_ascii_case(name.strip_suffix('.').unwrap_or(name));
            let asked_kind = reader.u16().ok_or(SHORT)?;
            reader.skip(2).ok_or(SHORT)?;
            if !same || asked_kind != type_code(kind) {
                return Ok(None);
            }
        }
        _ => return Err("the answer has another number of questions"),
    }
    match code {
        0 => {}
        3 => return Ok(Some(Reply::NoSuchName)),
        code => return Ok(Some(Reply::Failure(code_name(code)))),
    }
    let mut addresses = Vec::new();
    for _ in 0..answers {
        reader.name().ok_or("a record's name can't be read")?;
        let record = reader.u16().ok_or(SHORT)?;
        let class = reader.u16().ok_or(SHORT)?;
        reader.skip(4).ok_or(SHORT)?;
        let length = reader.u16().ok_or(SHORT)?;
        let data = reader.take(length.into()).ok_or(SHORT)?;
        // Aliases (CNAME) on the way are of no interest: their addresses are in the same answer.
        if record != type_code(kind) || class != CLASS_IN || addresses.len() == MAX_ADDRESSES {
            continue;
        }
        addresses.push(
            match kind {
                RecordKind::A => <[u8; 4]>::try_from(data).map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
                RecordKind::Aaaa => <[u8; 16]>::try_from(data).map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
            }
            .map_err(|_| "an address is of a wrong length")?,
        );
    }
    Ok(Some(Reply::Addresses(addresses)))
}

/// RFC 1035, section 4.1.1.
fn code_name(code: u16) -> String {
    match code {
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        code => format!("code {code}"),
    }
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.message.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.take(length).map(|_| ())
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// A name, decompressed (RFC 1035, section 4.1.4). Each pointer has to lead further back than where it was
    /// met, so this ends.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut behind = None;
        let mut limit = self.at;
        loop {
            let length = *self.take(1)?.first()?;
            match length {
                0 => break,
                1..=0x3f => {
                    let label = self.take(length.into())?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    // What is not ASCII can't be what was asked for.
                    name.extend(label.iter().map(|&byte| if byte.is_ascii_graphic() { byte as char } else { '?' }));
                    if name.len() > MAX_NAME {
                        return None;
                    }
                }
                0xc0..=0xff => {
                    let low = *self.take(1)?.first()?;
                    let target = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    if target >= limit {
                        return None;
                    }
                    behind.get_or_insert(self.at);
                    limit = target;
                    self.at = target;
                }
                _ => return None,
            }
        }
        if let Some(behind) = behind {
            self.at = behind;
        }
        Some(name)
    }
}

/// Reads `/etc/resolv.conf` as glibc does: the last `search` or `domain` counts, and at most three name servers.
pub fn resolv_conf(text: &str) -> ResolvConf {
    let mut conf = ResolvConf { ndots: 1, timeout: 5, attempts: 2, ..ResolvConf::default() };
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                // An address of one link has its interface behind a %.
                let address = words.next().and_then(|word| word.split('%').next()).and_then(|word| word.parse().ok());
                if let Some(address) = address.filter(|_| conf.nameservers.len() < 3) {
                    conf.nameservers.push(address);
                }
            }
            Some("search" | "domain") => {
                conf.search = words.map(|word| word.trim_end_matches('.').to_owned()).collect()
            }
            Some("options") => {
                for option in words {
                    let Some((name, value)) = option.split_once(':') else { continue };
                    let Ok(value) = value.parse::<u32>() else { continue };
                    match name {
                        "ndots" => conf.ndots = value.min(15) as u8,
                        "timeout" => conf.timeout = value.clamp(1, 30) as u8,
                        "attempts" => conf.attempts = value.clamp(1, 5) as u8,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    // Without any, glibc asks this host.
    if conf.nameservers.is_empty() {
        conf.nameservers.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    conf.search.retain(|domain| !domain.is_empty());
    conf
}

/// The names that glibc's resolver asks for, in its order (`__res_context_search`): a name that ends with a dot is only
/// itself; one with fewer dots than `ndots` goes through the search list first, another last.
pub fn candidates(name: &str, conf: &ResolvConf) -> Vec<String> {
    if let Some(absolute) = name.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let dots = name.bytes().filter(|&b| b == b'.').count();
    let expanded = conf.search.iter().map(|domain| format!("{name}.{domain}"));
    let mut candidates: Vec<String> = Vec::new();
    if dots >= usize::from(conf.ndots) {
        candidates.push(name.to_owned());
        candidates.extend(expanded);
    } else {
        candidates.extend(expanded);
        candidates.push(name.to_owned());
    }
    candidates
}

/// The addresses that `/etc/hosts` gives to a name.
pub fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut addresses = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && addresses.len() < MAX_ADDRESSES {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer to `question`, with these bytes behind the question and this many answers.
    fn answer(question: &[u8], code: u8, answers: u16, records: &[u8]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2] = 0x81;
        message[3] = 0x80 | code;
        message[6..8].copy_from_slice(&answers.to_be_bytes());
        message.extend_from_slice(records);
        message
    }

    #[test]
    fn questions_and_answers() {
        let question = question(0x1234, "ci.example.com.", RecordKind::A).unwrap();
        assert_eq!(question, b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x02ci\x07example\x03com\0\0\x01\0\x01");
        let read = |message: &[u8]| reply(message, 0x1234, "CI.example.com", RecordKind::A);
        // An alias, whose name points into the question, and the alias' address.
        let records =
            b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01x\xc0\x0f\xc0\x2c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x07";
        let expected = Reply::Addresses(vec!["10.0.0.7".parse().unwrap()]);
        assert_eq!(read(&answer(&question, 0, 2, records)), Some(expected));
        assert_eq!(read(&answer(&question, 0, 0, b"")), Some(Reply::Addresses(vec![])));
        assert_eq!(read(&answer(&question, 3, 0, b"")), Some(Reply::NoSuchName));
        assert_eq!(read(&answer(&question, 2, 0, b"")), Some(Reply::Failure("SERVFAIL".into())));
        assert_eq!(read(b"\x12\x34\x81\x81\0\0\0\0\0\0\0\0"), Some(Reply::Failure("FORMERR".into())));
        // Neither a question nor the answer to another one counts.
        assert_eq!(read(&question), None);
        assert_eq!(reply(&answer(&question, 0, 0, b""), 0x1234, "other", RecordKind::A), None);
        assert_eq!(reply(&answer(&question, 0, 0, b""), 0x1234, "ci.example.com", RecordKind::Aaaa), None);
        assert_eq!(reply(&answer(&question, 0, 0, b""), 0x1235, "ci.example.com", RecordKind::A), None);
        assert_eq!(
            read(&answer(&question, 0, 1, b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x03abc")),
            Some(Reply::Malformed("an address is of a wrong length".into()))
        );
        // A pointer to itself.
        assert_eq!(
            read(&answer(&question, 0, 1, b"\xc0\x20")),
            Some(Reply::Malformed("a record's name can't be read".into()))
        );
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        for name in ["", ".", "a..b", &"a".repeat(64), &"a.".repeat(130)] {
            assert_eq!(question(0, name, RecordKind::A), None, "{name}");
        }
    }

    #[test]
    fn names_are_expanded_as_glibc_does_it() {
        let conf = resolv_conf(
            "# a pod's\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\nsearch old\n\
             search ci.svc.cluster.local svc.cluster.local. cluster.local\noptions ndots:5 timeout:1 edns0\n",
        );
        assert_eq!((conf.ndots, conf.timeout, conf.attempts), (5, 1, 2));
        assert_eq!(conf.nameservers, ["10.96.0.10".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
        assert_eq!(
            candidates("jenkins.ci", &conf),
            [
                "jenkins.ci.ci.svc.cluster.local",
                "jenkins.ci.svc.cluster.local",
                "jenkins.ci.cluster.local",
                "jenkins.ci"
            ]
        );
        assert_eq!(candidates("jenkins.ci.", &conf), ["jenkins.ci"]);
        assert_eq!(candidates("a.b.c.d.e.f", &conf)[0], "a.b.c.d.e.f");
        let none = resolv_conf("");
        assert_eq!(none.nameservers, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        assert_eq!(candidates("jenkins", &none), ["jenkins"]);
    }

    #[test]
    fn the_hosts_file_knows_names_by_any_case() {
        let text = "127.0.0.1 localhost # jenkins\n10.0.0.1\tci.example.com jenkins\n::7 Jenkins\nnonsense jenkins\n";
        assert_eq!(hosts(text, "JENKINS."), ["10.0.0.1".parse::<IpAddr>().unwrap(), "::7".parse().unwrap()]);
        assert!(hosts(text, "ci").is_empty());
    }

    proptest! {
        #[test]
        fn no_answer_panics(mut message in proptest::collection::vec(any::<u8>(), 0..200), records in 0u16..4) {
            let question = question(7, "a.b", RecordKind::Aaaa).unwrap();
            let whole = answer(&question, 0, records, &message);
            let read = reply(&whole, 7, "a.b", RecordKind::Aaaa);
            prop_assert!(read.is_some());
            message.splice(0..message.len().min(2), [0, 7]);
            let _ = reply(&message, 7, "a.b", RecordKind::Aaaa);
        }
    }
}
