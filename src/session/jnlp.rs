//! The deprecated `-jnlpUrl`: the connection's parameters are the `<argument>` elements of a
//! `jenkins-agent.jnlp` (`Launcher.parseJnlpArguments`; served by `EncryptedSlaveAgentJnlpFile` in core).
//!
//! With a secret, the answer to `?encrypt=true` is 16 bytes of initialization vector and then the XML,
//! AES-128 in 8-bit cipher feedback mode, under the secret's first 16 bytes. It isn't authenticated: what
//! comes of it is checked as a command line is, and may name no file.

use ring::aead::quic;

use super::config::Secret;

/// A JNLP file has some 1 KB; whoever fetches one reads no more than this.
pub const MAX_SIZE: usize = 256 * 1024;

/// Many more than there are options to set.
const MAX_ARGUMENTS: usize = 100;

/// Why an answer holds no arguments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JnlpError {
    /// More than [`MAX_SIZE`] bytes.
    #[error("the answer has {0} bytes, too many for a JNLP file")]
    TooLarge(usize),
    /// The secret is not at least 32 hexadecimal digits, so it can't be the one of this agent.
    #[error("Failed to decrypt the JNLP file. Invalid secret key?")]
    Secret,
    /// No initialization vector.
    #[error("the answer has {0} bytes, too few for an encrypted JNLP file")]
    TooShort(usize),
    /// Not XML, or not the JNLP file's: decrypted under another secret, or a login page.
    #[error("the answer doesn't look like a JNLP file: {0}")]
    NotJnlp(&'static str),
}

/// Reads the arguments from the answer's body, which is encrypted if `secret` is given.
///
/// # Errors
/// [`JnlpError`].
pub fn parse(body: &[u8], secret: Option<&Secret>) -> Result<Vec<String>, JnlpError> {
    if body.len() > MAX_SIZE {
        return Err(JnlpError::TooLarge(body.len()));
    }
    let decrypted;
    let xml = match secret {
        None => body,
        Some(secret) => {
            let key = key(secret.expose()).ok_or(JnlpError::Secret)?;
            let (iv, text) = body.split_first_chunk::<16>().ok_or(JnlpError::TooShort(body.len()))?;
            decrypted = decrypt_cfb8(&key, *iv, text)?;
            &decrypted
        }
    };
    let xml = std::str::from_utf8(xml).map_err(|_| JnlpError::NotJnlp("it is not UTF-8"))?;
    arguments(xml)
}

fn key(secret: &str) -> Option<[u8; 16]> {
    let mut key = [0; 16];
    for (byte, digits) in key.iter_mut().zip(secret.as_bytes().get(..32)?.chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(key)
}

/// `AES/CFB8/NoPadding`. The mode needs one byte of the block cipher's output for each byte of text.
/// QUIC's header protection (RFC 9001, section 5.4.3) is AES-ECB of a sample and gives the first five.
fn decrypt_cfb8(key: &[u8; 16], iv: [u8; 16], text: &[u8]) -> Result<Vec<u8>, JnlpError> {
    let cipher = quic::HeaderProtectionKey::new(&quic::AES_128, key).map_err(|_| JnlpError::Secret)?;
    let mut register = iv;
    text.iter()
        .map(|&byte| {
            let [first, ..] = cipher.new_mask(&register).map_err(|_| JnlpError::Secret)?;
            register.rotate_left(1);
            register[15] = byte;
            Ok(byte ^ first)
        })
        .collect()
}

/// The text of each `<argument>` element, in order. Comments and CDATA are understood; a document type
/// is refused, as in Java, so there are no entities but the five of XML and character references.
fn arguments(xml: &str) -> Result<Vec<String>, JnlpError> {
    let mut found: Vec<String> = Vec::new();
    let mut current: Option<String> = None;
    let mut any_element = false;
    let mut rest = xml.trim_start_matches('\u{feff}').trim_start();
    if !rest.starts_with('<') {
        return Err(JnlpError::NotJnlp("it does not start with an element"));
    }
    while !rest.is_empty() {
        let Some(after) = rest.strip_prefix('<') else {
            let end = rest.find('<').unwrap_or(rest.len());
            if let Some(text) = &mut current {
                unescape(&rest[..end], text)?;
            }
            rest = &rest[end..];
            continue;
        };
        if let Some(after) = after.strip_prefix("!--") {
            rest = skip_past(after, "-->")?.1;
        } else if let Some(after) = after.strip_prefix("![CDATA[") {
            let (data, next) = skip_past(after, "]]>")?;
            if let Some(text) = &mut current {
                text.push_str(data);
            }
            rest = next;
        } else if after.starts_with('!') {
            return Err(JnlpError::NotJnlp("it has a document type"));
        } else if let Some(after) = after.strip_prefix('?') {
            rest = skip_past(after, "?>")?.1;
        } else {
            let (tag, next) = split_tag(after)?;
            rest = next;
            any_element = true;
            let name = tag.trim_end_matches('/').split_whitespace().next().unwrap_or("");
            match name {
                "argument" if found.len() == MAX_ARGUMENTS => {
                    return Err(JnlpError::NotJnlp("it has too many arguments"));
                }
                "argument" if tag.ends_with('/') => found.push(String::new()),
                "argument" => current = Some(String::new()),
                "/argument" => found.extend(current.take()),
                _ => {}
            }
        }
    }
    if current.is_some() {
        return Err(JnlpError::NotJnlp("it ends within an argument"));
    }
    if !any_element || found.is_empty() {
        return Err(JnlpError::NotJnlp("it has no arguments"));
    }
    Ok(found)
}

fn skip_past<'a>(text: &'a str, end: &str) -> Result<(&'a str, &'a str), JnlpError> {
    text.split_once(end).ok_or(JnlpError::NotJnlp("it ends early"))
}

/// Up to the `>` that is not in an attribute's quotes.
fn split_tag(text: &str) -> Result<(&str, &str), JnlpError> {
    let mut quote: Option<char> = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '>') => return Ok((&text[..at], &text[at + 1..])),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    Err(JnlpError::NotJnlp("it ends within a tag"))
}

fn unescape(text: &str, into: &mut String) -> Result<(), JnlpError> {
    const BAD: JnlpError = JnlpError::NotJnlp("it has an unknown entity");
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        into.push_str(before);
        let (entity, next) = after.split_once(';').ok_or(BAD)?;
        into.push(match entity {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let code = entity.strip_prefix('#').ok_or(BAD)?;
                let code = match code.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => code.parse(),
                };
                code.ok().and_then(char::from_u32).ok_or(BAD)?
            }
        });
        rest = next;
    }
    into.push_str(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As today's core writes it.
    const JNLP: &str = concat!(
        "<jnlp><application-desc main-class=\"hudson.remoting.jnlp.Main\">",
        "<argument>0123456789abcdef</argument><argument>a &amp; b&#x41;</argument>",
        "<argument>-workDir</argument><argument>/home/jenkins/agent</argument>",
        "<argument>-internalDir</argument><argument>remoting</argument>",
        "<argument>-url</argument><argument>http://jenkins:8080/</argument></application-desc></jnlp>"
    );

    #[test]
    fn arguments_in_order() {
        let expected = [
            "0123456789abcdef",
            "a & bA",
            "-workDir",
            "/home/jenkins/agent",
            "-internalDir",
            "remoting",
            "-url",
            "http://jenkins:8080/",
        ];
        assert_eq!(parse(JNLP.as_bytes(), None).unwrap(), expected);
    }

    #[test]
    fn forms_of_xml() {
        for (xml, expected) in [
            (
                "<?xml version='1.0'?>\n<!-- <argument>no</argument> -->\n<j><argument a='>'>x</argument ></j>",
                Some(vec!["x"]),
            ),
            ("<j><argument><![CDATA[<&>]]></argument><argument/></j>", Some(vec!["<&>", ""])),
            ("<!DOCTYPE j [<!ENTITY a \"b\">]><j><argument>&a;</argument></j>", None),
            ("<j><argument>&a;</argument></j>", None),
            ("<j><argument>&#xD800;</argument></j>", None),
            ("<j><argument>x", None),
            ("<html><body>Log in</body></html>", None),
            ("Not found", None),
            ("", None),
            ("<j", None),
        ] {
            assert_eq!(arguments(xml).ok(), expected.map(|e| e.iter().map(|s| s.to_string()).collect()), "{xml}");
        }
        let many = format!("<j>{}</j>", "<argument/>".repeat(MAX_ARGUMENTS + 1));
        assert!(arguments(&many).is_err());
    }

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect()
    }

    /// NIST SP 800-38A, F.3.8 (CFB8-AES128.Decrypt).
    #[test]
    fn cfb8_is_nists() {
        let key: [u8; 16] = hex("2b7e151628aed2a6abf7158809cf4f3c").try_into().unwrap();
        let iv: [u8; 16] = hex("000102030405060708090a0b0c0d0e0f").try_into().unwrap();
        let text = hex("3b79424c9c0dd436bace9e0ed4586a4f32b9");
        assert_eq!(decrypt_cfb8(&key, iv, &text).unwrap(), hex("6bc1bee22e409f96e93d7e117393172aae2d"));
    }

    fn encrypt(secret: &str, iv: [u8; 16], text: &[u8]) -> Vec<u8> {
        let cipher = quic::HeaderProtectionKey::new(&quic::AES_128, &key(secret).unwrap()).unwrap();
        let mut out = iv.to_vec();
        for &byte in text {
            let register: [u8; 16] = out[out.len() - 16..].try_into().unwrap();
            out.push(byte ^ cipher.new_mask(&register).unwrap()[0]);
        }
        out
    }

    #[test]
    fn encrypted() {
        let secret = "2b7e151628aed2a6abf7158809cf4f3c00112233445566778899aabbccddeeff";
        let body = encrypt(secret, [7; 16], JNLP.as_bytes());
        assert_eq!(parse(&body, Some(&Secret::new(secret))), parse(JNLP.as_bytes(), None));

        let other = secret.replace('2', "3");
        assert!(matches!(parse(&body, Some(&Secret::new(other))), Err(JnlpError::NotJnlp(_))));
        assert_eq!(parse(&body, Some(&Secret::new("zz"))), Err(JnlpError::Secret));
        assert_eq!(parse(&body, Some(&Secret::new("+1".repeat(16)))), Err(JnlpError::Secret));
        assert_eq!(parse(&body[..15], Some(&Secret::new(secret))), Err(JnlpError::TooShort(15)));
        assert_eq!(parse(&vec![0; MAX_SIZE + 1], None), Err(JnlpError::TooLarge(MAX_SIZE + 1)));
    }

    proptest! {
        #[test]
        fn never_panics(text in "([<>/!&;#x?'\" ]|argument|<argument>|<!--|\\PC){0,40}") {
            let _ = arguments(&text);
        }
    }
}
