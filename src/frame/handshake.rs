//! What JNLP4-connect says before and beside the channel: texts of a u16 length and UTF-8, of which one is a map of
//! headers and another a verdict on them (`org.jenkinsci.remoting.protocol.impl`).

use std::{collections::BTreeMap, str};

/// The longest text that fits behind a u16 length.
pub const MAX_ITEM: usize = u16::MAX as usize;

/// How much of an answer that isn't the protocol's is read and shown.
pub const MAX_BARE_ANSWER: usize = 512;

/// Whoever accepts or refuses an `ACK` says so with these five bytes (`AckFilterLayer`).
pub const ACK: [u8; 5] = *b"\0\x03ACK";

/// What a refused side answers (`ConnectionHeadersFilterLayer.ABORT_MESSAGE`).
pub const BYE: &str = "BYE";

/// What the accepting side answers.
pub const OK: &str = "OK";

/// How a TLS server's complaint begins (RFC 8446, section 5.1): what an HTTPS port answers to `Protocol:…`.
const TLS_ALERT: [u8; 2] = [21, 3];

/// A handshake that breaks its rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// A text of ours is too long to be sent.
    #[error("{0} bytes don't fit into a handshake message of at most {MAX_ITEM}")]
    TooLong(usize),
    /// A text isn't UTF-8.
    #[error("a handshake message that isn't text")]
    NotText,
    /// The headers aren't a flat JSON map.
    #[error("malformed connection headers: {0}")]
    Headers(String),
}

/// A text with its length before it.
///
/// # Errors
/// [`HandshakeError::TooLong`].
pub fn encode_item(text: &str) -> Result<Vec<u8>, HandshakeError> {
    let length = u16::try_from(text.len()).map_err(|_| HandshakeError::TooLong(text.len()))?;
    Ok([&length.to_be_bytes(), text.as_bytes()].concat())
}

/// The text at the beginning of `input` and the bytes it takes there, or `None` until more arrives.
///
/// # Errors
/// [`HandshakeError::NotText`].
pub fn parse_item(input: &[u8]) -> Result<Option<(&str, usize)>, HandshakeError> {
    let Some((&length, rest)) = input.split_first_chunk() else {
        return Ok(None);
    };
    let Some(text) = rest.get(..u16::from_be_bytes(length).into()) else {
        return Ok(None);
    };
    let text = str::from_utf8(text).map_err(|_| HandshakeError::NotText)?;
    Ok(Some((text, 2 + text.len())))
}

/// The first thing that an agent port says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstAnswer {
    /// At least so many more bytes are needed. No more than that belong to the answer for certain.
    Incomplete(usize),
    /// The protocol is accepted.
    Ack,
    /// Something else, from its beginning: a bare line such as `Unknown protocol:` (`TcpSlaveAgentListener.error`),
    /// or what another kind of server says.
    Text(String),
}

/// Reads the answer to `Protocol:…`: an `ACK`, or a line without any framing. `ended` tells that nothing more comes.
pub fn parse_first_answer(input: &[u8], ended: bool) -> FirstAnswer {
    if input.starts_with(&ACK) {
        return FirstAnswer::Ack;
    }
    if ACK.starts_with(input) && !ended {
        return FirstAnswer::Incomplete(ACK.len() - input.len());
    }
    if input.starts_with(&TLS_ALERT) {
        return FirstAnswer::Text("a TLS alert; this port speaks TLS from the start".to_owned());
    }
    let line_end = input.iter().position(|&b| b == b'\n');
    match line_end.or((ended || input.len() >= MAX_BARE_ANSWER).then_some(input.len())) {
        Some(end) => FirstAnswer::Text(printable(&input[..end.min(MAX_BARE_ANSWER)])),
        None => FirstAnswer::Incomplete(1),
    }
}

/// Text of a stranger's in one line, fit to be shown on a terminal.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A map of headers as JSON (`ConnectionHeaders.toString`).
pub fn encode_headers<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    serde_json::Value::Object(headers.into_iter().map(|(k, v)| (k.into(), v.into())).collect()).to_string()
}

/// A map of headers from JSON (`ConnectionHeaders.fromString`); values may be `null`.
///
/// # Errors
/// [`HandshakeError::Headers`].
pub fn parse_headers(json: &str) -> Result<BTreeMap<String, Option<String>>, HandshakeError> {
    serde_json::from_str(json).map_err(|error| HandshakeError::Headers(error.to_string()))
}

/// What one side thinks of the other's headers (`ConnectionHeadersFilterLayer.onRecv`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted. As in Java, that is everything which isn't a refusal.
    Accepted,
    /// `ERROR: `, refused this time.
    Refused(String),
    /// `FATAL: `, refused for good.
    RefusedForGood(String),
}

/// Reads the answer to our headers.
pub fn parse_verdict(text: &str) -> Verdict {
    if let Some(message) = text.strip_prefix("ERROR: ") {
        Verdict::Refused(printable(message.as_bytes()))
    } else if let Some(message) = text.strip_prefix("FATAL: ") {
        Verdict::RefusedForGood(printable(message.as_bytes()))
    } else {
        Verdict::Accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_answers() {
        use FirstAnswer::*;
        let cases: &[(&[u8], bool, FirstAnswer)] = &[
            (b"", false, Incomplete(5)),
            (b"\0\x03", false, Incomplete(3)),
            (b"\0\x03ACK", false, Ack),
            (b"\0\x03AC", true, Text("\u{fffd}\u{fffd}AC".into())),
            (b"", true, Text(String::new())),
            (b"Unknown proto", false, Incomplete(1)),
            (b"Unknown protocol:\n", false, Text("Unknown protocol:".into())),
            (b"HTTP/1.1 400 Bad Request\r\nServer: x", false, Text("HTTP/1.1 400 Bad Request".into())),
            (b"\x15\x03\x01\0\x02\x02\x46", false, Text("a TLS alert; this port speaks TLS from the start".into())),
            (b"no newline", true, Text("no newline".into())),
            (b"\x1b[31mred\n", false, Text("\u{fffd}[31mred".into())),
            (&[b'x'; 600], false, Text("x".repeat(MAX_BARE_ANSWER))),
        ];
        for (input, ended, expected) in cases {
            assert_eq!(parse_first_answer(input, *ended), *expected, "{input:?}");
        }
    }

    #[test]
    fn headers_as_java_writes_them() {
        let json = "{\"JnlpAgentProtocol.cookie\":\"07b5\",\"none\":null,\"odd\":\"\\\"\\\\\\b\\u0001é\"}";
        let headers = parse_headers(json).unwrap();
        assert_eq!(headers["JnlpAgentProtocol.cookie"].as_deref(), Some("07b5"));
        assert_eq!(headers["none"], None);
        assert_eq!(headers["odd"].as_deref(), Some("\"\\\u{8}\u{1}é"));
        assert_eq!(encode_headers([("Node-Name", "a\"\n\u{1}")]), r#"{"Node-Name":"a\"\n\u0001"}"#);
    }

    #[test]
    fn headers_of_another_shape_are_refused() {
        for json in ["", "{", "[]", r#"{"a":1}"#, r#"{"a":{}}"#, "{} x", &"[".repeat(60_000), &"{\"a\":".repeat(10_000)]
        {
            assert!(matches!(parse_headers(json), Err(HandshakeError::Headers(_))), "{json:.20}");
        }
    }

    #[test]
    fn verdicts() {
        assert_eq!(parse_verdict("OK"), Verdict::Accepted);
        assert_eq!(parse_verdict("ERROR: Authorization failure"), Verdict::Refused("Authorization failure".into()));
        assert_eq!(parse_verdict("FATAL: gone"), Verdict::RefusedForGood("gone".into()));
    }

    #[test]
    fn items_have_a_limit() {
        assert_eq!(encode_item(&"x".repeat(65_536)), Err(HandshakeError::TooLong(65_536)));
        assert_eq!(parse_item(b"\0\x01\xff"), Err(HandshakeError::NotText));
    }

    proptest! {
        #[test]
        fn items_survive(text in ".{0,100}", tail in proptest::collection::vec(any::<u8>(), 0..5)) {
            let mut bytes = encode_item(&text).unwrap();
            let length = bytes.len();
            for cut in 0..length {
                prop_assert_eq!(parse_item(&bytes[..cut]), Ok(None));
            }
            bytes.extend(tail);
            prop_assert_eq!(parse_item(&bytes), Ok(Some((text.as_str(), length))));
        }

        #[test]
        fn headers_survive(headers in proptest::collection::btree_map(".{0,10}", ".{0,10}", 0..5)) {
            let json = encode_headers(headers.iter().map(|(k, v)| (k.as_str(), v.as_str())));
            let parsed = parse_headers(&json).unwrap();
            prop_assert_eq!(parsed, headers.into_iter().map(|(k, v)| (k, Some(v))).collect());
        }
    }
}
