//! Modified UTF-8 (`java.io.DataInput`): NUL as `c0 80`, supplementary characters as surrogate pairs.

use std::borrow::Cow;

/// Decodes modified UTF-8.
///
/// A surrogate without its partner becomes `?`, which is what Java itself makes of it when it encodes the string
/// for a file name or a console.
///
/// # Errors
/// The offset of the first byte that no Java writer could have produced.
pub fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, usize> {
    // NUL and surrogates are the only differences from UTF-8, and neither form is valid UTF-8; but a plain NUL and
    // a four-byte sequence are valid UTF-8 and not modified UTF-8. Java reads a NUL byte as NUL; so do we.
    if let Ok(text) = std::str::from_utf8(bytes)
        && !bytes.iter().any(|b| *b >= 0xf0)
    {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(bytes.len());
    let mut at = 0;
    while let Some((unit, length)) = unit(bytes, at)? {
        at += length;
        match unit {
            0xd800..=0xdbff => match self::unit(bytes, at) {
                Ok(Some((low @ 0xdc00..=0xdfff, length))) => {
                    at += length;
                    let c = 0x10000 + ((u32::from(unit) - 0xd800) << 10) + (u32::from(low) - 0xdc00);
                    out.push(char::from_u32(c).unwrap_or('?'));
                }
                _ => out.push('?'),
            },
            _ => out.push(char::from_u32(u32::from(unit)).unwrap_or('?')),
        }
    }
    Ok(Cow::Owned(out))
}

/// The UTF-16 unit at `at` and its length in bytes, or `None` at the end.
fn unit(bytes: &[u8], at: usize) -> Result<Option<(u16, usize)>, usize> {
    let Some(&first) = bytes.get(at) else { return Ok(None) };
    let follow = |n: usize| match bytes.get(at + n) {
        Some(b) if b & 0xc0 == 0x80 => Ok(u16::from(b & 0x3f)),
        _ => Err(at),
    };
    let first16 = u16::from(first);
    match first {
        0x00..=0x7f => Ok(Some((first16, 1))),
        0xc0..=0xdf => Ok(Some(((first16 & 0x1f) << 6 | follow(1)?, 2))),
        0xe0..=0xef => Ok(Some(((first16 & 0x0f) << 12 | follow(1)? << 6 | follow(2)?, 3))),
        _ => Err(at),
    }
}

/// Encodes text as modified UTF-8.
pub fn encode(text: &str) -> Cow<'_, [u8]> {
    if !text.bytes().any(|b| b == 0 || b >= 0xf0) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(text.len() + 16);
    let mut units = [0u16; 2];
    for c in text.chars() {
        for unit in c.encode_utf16(&mut units) {
            match *unit {
                0x01..=0x7f => out.push(*unit as u8),
                0 | 0x80..=0x7ff => out.extend([0xc0 | (*unit >> 6) as u8, 0x80 | (*unit & 0x3f) as u8]),
                _ => out.extend([
                    0xe0 | (*unit >> 12) as u8,
                    0x80 | (*unit >> 6 & 0x3f) as u8,
                    0x80 | (*unit & 0x3f) as u8,
                ]),
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nul_and_supplementary_characters_take_their_own_forms() {
        assert_eq!(encode("a\0b").as_ref(), b"a\xc0\x80b");
        assert_eq!(encode("\u{1f600}").as_ref(), b"\xed\xa0\xbd\xed\xb8\x80");
        assert_eq!(decode(b"\xed\xa0\xbd\xed\xb8\x80").unwrap(), "\u{1f600}");
        assert_eq!(decode(b"a\xc0\x80b").unwrap(), "a\0b");
    }

    #[test]
    fn a_lone_surrogate_is_a_question_mark_and_bad_bytes_are_located() {
        assert_eq!(decode(b"x\xed\xa0\xbdy").unwrap(), "x?y");
        assert_eq!(decode(b"x\xed\xb8\x80").unwrap(), "x?");
        assert_eq!(decode(b"ab\xf0\x9f\x98\x80"), Err(2));
        assert_eq!(decode(b"a\xc3"), Err(1));
        assert_eq!(decode(b"\x80"), Err(0));
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(text in any::<String>()) {
            let bytes = encode(&text);
            prop_assert_eq!(decode(&bytes).unwrap(), text.as_str());
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }
    }
}
