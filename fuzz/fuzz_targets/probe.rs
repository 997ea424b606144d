//! What the probe reads of strangers and of the system: answers of name servers, certificates, `/proc`, `/etc`, dates.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use inbound_agent::probe::facts::{RecordKind, Reply};
use inbound_agent::probe::{certificate, dns, system, time};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let id = data.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    for kind in [RecordKind::A, RecordKind::Aaaa] {
        if let Some(Reply::Addresses(addresses)) = dns::reply(data, id, "ci.example", kind) {
            // An address takes more than its own bytes.
            assert!(addresses.len() * 4 <= data.len());
        }
    }
    let _ = certificate::parse(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let conf = dns::resolv_conf(text);
    assert!(conf.nameservers.len() <= 3);
    let (name, rest) = text.split_once('\n').unwrap_or((text, ""));
    assert!(dns::candidates(name, &conf).len() <= conf.search.len() + 1);
    if let Some(question) = dns::question(id, name, RecordKind::A) {
        assert!(question.len() <= 512);
        assert_eq!(dns::reply(&question, id, name, RecordKind::A), None, "a question is no answer");
    }
    let _ = dns::hosts(rest, name);
    let mut routes = system::routes_v4(text);
    routes.extend(system::routes_v6(text));
    let _ = system::route_to(IpAddr::V4(Ipv4Addr::LOCALHOST), &routes);
    let _ = (system::addresses_v4(text), system::addresses_v6(text));
    let _ = system::answers_arp(text, Ipv4Addr::LOCALHOST, "eth0");
    let ends = SocketAddr::from(([127, 0, 0, 1], 80));
    let _ = system::unacknowledged(text, ends, ends);
    if let Some(seconds) = time::parse_http_date(text) {
        let _ = time::show(seconds);
    }
});
