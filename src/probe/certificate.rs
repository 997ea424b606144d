//! As much of an X.509 certificate (RFC 5280) as it takes to say whose it is, for which names and for how long. Nothing
//! here decides about trust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::facts::Certificate;
use super::time;
use crate::transport::identity::der;

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SET: u8 = 0x31;
const OCTET_STRING: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
/// `[3] EXPLICIT`, which holds the extensions.
const EXTENSIONS: u8 = 0xa3;
/// `[2] IMPLICIT IA5String`, a `GeneralName` of kind `dNSName`.
const DNS_NAME: u8 = 0x82;
/// `[7] IMPLICIT OCTET STRING`, an `iPAddress`.
const IP_ADDRESS: u8 = 0x87;

const SUBJECT_ALT_NAME: &[u8] = b"\x55\x1d\x11";

/// No more names are kept, and no longer ones.
const MAX_NAMES: usize = 32;
const MAX_TEXT: usize = 200;

/// Reads a certificate; `None` where it isn't one.
pub fn parse(certificate: &[u8]) -> Option<Certificate> {
    let mut rest = certificate;
    let mut certificate = der::element(&mut rest)?.content(der::SEQUENCE)?;
    let mut body = der::element(&mut certificate)?.content(der::SEQUENCE)?;
    let first = der::element(&mut body)?;
    if first.tag == der::VERSION {
        der::element(&mut body)?.content(der::INTEGER)?;
    }
    der::element(&mut body)?.content(der::SEQUENCE)?;
    let issuer = name(der::element(&mut body)?.content(der::SEQUENCE)?);
    let mut validity = der::element(&mut body)?.content(der::SEQUENCE)?;
    let (not_before, not_after) = (moment(der::element(&mut validity)?)?, moment(der::element(&mut validity)?)?);
    let subject = name(der::element(&mut body)?.content(der::SEQUENCE)?);
    der::element(&mut body)?.content(der::SEQUENCE)?;
    let mut names = Vec::new();
    while let Some(element) = der::element(&mut body) {
        if let Some(mut extensions) = element.content(EXTENSIONS) {
            let extensions = der::element(&mut extensions)?.content(der::SEQUENCE)?;
            names = alternative_names(extensions).unwrap_or_default();
        }
    }
    Some(Certificate { subject, issuer, names, not_before, not_after })
}

/// `CN=..., O=...`, most specific first; other attributes are left out.
fn name(mut sets: &[u8]) -> String {
    let mut parts = Vec::new();
    while let Some(mut set) = der::element(&mut sets).and_then(|element| element.content(SET)) {
        while let Some(mut pair) = der::element(&mut set).and_then(|element| element.content(der::SEQUENCE)) {
            let Some(kind) = der::element(&mut pair).and_then(|element| element.content(der::OID)) else { break };
            let Some(value) = der::element(&mut pair) else { break };
            let kind = match kind {
                b"\x55\x04\x03" => "CN",
                b"\x55\x04\x0a" => "O",
                b"\x55\x04\x0b" => "OU",
                _ => continue,
            };
            parts.push(format!("{kind}={}", text(value.bytes())));
        }
    }
    parts.reverse();
    parts.join(", ")
}

fn text(bytes: &[u8]) -> String {
    crate::transport::http::excerpt(&String::from_utf8_lossy(bytes), MAX_TEXT)
}

/// `UTCTime` or `GeneralizedTime`, in the only forms that RFC 5280 allows (section 4.1.2.5).
fn moment(element: der::Element<'_>) -> Option<i64> {
    let digits = match element.tag {
        UTC_TIME => {
            let text = std::str::from_utf8(element.bytes()).ok()?;
            let century = if text.get(..2)?.parse::<u32>().ok()? < 50 { "20" } else { "19" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME => std::str::from_utf8(element.bytes()).ok()?.to_owned(),
        _ => return None,
    };
    let digits =
        digits.strip_suffix('Z').filter(|text| text.len() == 14 && text.bytes().all(|b| b.is_ascii_digit()))?;
    let number = |range: std::ops::Range<usize>| digits.get(range)?.parse::<u32>().ok();
    time::seconds(number(0..4)?.into(), number(4..6)?, number(6..8)?, number(8..10)?, number(10..12)?, number(12..14)?)
}

fn alternative_names(mut extensions: &[u8]) -> Option<Vec<String>> {
    while !extensions.is_empty() {
        let mut extension = der::element(&mut extensions)?.content(der::SEQUENCE)?;
        if der::element(&mut extension)?.content(der::OID)? != SUBJECT_ALT_NAME {
            continue;
        }
        let mut value = der::element(&mut extension)?;
        if value.tag == BOOLEAN {
            value = der::element(&mut extension)?;
        }
        let mut value = value.content(OCTET_STRING)?;
        let mut list = der::element(&mut value)?.content(der::SEQUENCE)?;
        let mut names = Vec::new();
        while let Some(name) = der::element(&mut list).filter(|_| names.len() < MAX_NAMES) {
            match name.tag {
                DNS_NAME => names.push(text(name.bytes())),
                IP_ADDRESS => names.extend(address(name.bytes()).map(|address| address.to_string())),
                _ => {}
            }
        }
        return Some(names);
    }
    None
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    fn server() -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(include_bytes!("../../tests/fixtures/tls/server.pem")).unwrap()
    }

    #[test]
    fn what_a_certificate_says() {
        let found = parse(&server()).unwrap();
        eprintln!("{found:?}");
        assert!(found.names.contains(&"localhost".to_owned()), "{found:?}");
        assert!(found.issuer.starts_with("CN="), "{found:?}");
        assert!(found.not_before < found.not_after, "{found:?}");
    }

    proptest! {
        #[test]
        fn a_broken_one_does_not_panic(at in 0usize..900, byte: u8, length in 0usize..900) {
            let mut der = server().to_vec();
            der.truncate(length);
            if let Some(broken) = der.get_mut(at) {
                *broken = byte;
            }
            let _ = parse(&der);
        }
    }
}
