//! The character sets that every Java platform has, for what is written.

use std::io::{self, Write};

/// A character set. What it can't represent becomes `?`, as in `OutputStreamWriter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charset {
    Utf8,
    /// US-ASCII and ISO-8859-1: code points below this.
    Single(u32),
    Utf16 {
        big_endian: bool,
        /// Whether text begins with a byte order mark.
        mark: bool,
    },
}

impl Charset {
    /// The character set that `java.nio.charset.Charset.forName` knows under this name or alias, if it is one of these.
    pub(crate) fn for_name(name: &str) -> Option<Charset> {
        match name.to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" | "utf_8" | "unicode-1-1-utf-8" => Some(Charset::Utf8),
            "us-ascii" | "ascii" | "ascii7" | "iso646-us" | "iso_646.irv:1991" | "iso_646.irv:1983" | "us"
            | "ansi_x3.4-1968" | "ansi_x3.4-1986" | "cp367" | "ibm367" | "646" | "csascii" | "default" | "iso-ir-6" => {
                Some(Charset::Single(0x80))
            }
            "iso-8859-1" | "iso8859_1" | "iso_8859-1" | "iso_8859_1" | "iso_8859-1:1987" | "iso8859-1" | "8859_1"
            | "latin1" | "l1" | "ibm819" | "ibm-819" | "cp819" | "819" | "csisolatin1" | "iso-ir-100" => {
                Some(Charset::Single(0x100))
            }
            "utf-16" | "utf_16" | "utf16" | "unicode" | "unicodebig" => {
                Some(Charset::Utf16 { big_endian: true, mark: true })
            }
            "utf-16be" | "utf_16be" | "iso-10646-ucs-2" | "x-utf-16be" | "unicodebigunmarked" => {
                Some(Charset::Utf16 { big_endian: true, mark: false })
            }
            "utf-16le" | "utf_16le" | "x-utf-16le" | "unicodelittleunmarked" => {
                Some(Charset::Utf16 { big_endian: false, mark: false })
            }
            "x-utf-16le-bom" | "unicodelittle" => Some(Charset::Utf16 { big_endian: false, mark: true }),
            _ => None,
        }
    }

    /// Reads text in this character set. What is none of it becomes U+FFFD.
    pub(crate) fn read(self, bytes: &[u8]) -> String {
        match self {
            Charset::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Charset::Single(limit) => {
                let decode = |byte: &u8| if u32::from(*byte) < limit { char::from(*byte) } else { '\u{fffd}' };
                bytes.iter().map(decode).collect()
            }
            Charset::Utf16 { big_endian, mark } => {
                let unit = |pair: &[u8]| match (pair, big_endian) {
                    (&[high, low], true) | (&[low, high], false) => u16::from_be_bytes([high, low]),
                    _ => 0xfffd,
                };
                let mut units: Vec<u16> = bytes.chunks(2).map(unit).collect();
                // A byte order mark goes before what the name says.
                if mark && units.first() == Some(&0xfffe) {
                    units.iter_mut().for_each(|unit| *unit = unit.swap_bytes());
                }
                let skip = usize::from(mark && units.first() == Some(&0xfeff));
                String::from_utf16_lossy(&units[skip..])
            }
        }
    }

    /// Writes text in this character set. `out` should be buffered.
    pub(crate) fn write(self, text: &str, out: &mut impl Write) -> io::Result<()> {
        match self {
            Charset::Utf8 => out.write_all(text.as_bytes()),
            Charset::Single(limit) => text.chars().try_for_each(|c| {
                let code = u32::from(c);
                out.write_all(&[if code < limit { code as u8 } else { b'?' }])
            }),
            Charset::Utf16 { big_endian, mark } => {
                let mark = (mark && !text.is_empty()).then_some(0xfeff);
                mark.into_iter().chain(text.encode_utf16()).try_for_each(|unit| {
                    out.write_all(&if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() })
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_java_does() {
        let cases: &[(&str, &str, &[u8])] = &[
            ("UTF-8", "aé€😀", "aé€😀".as_bytes()),
            ("latin1", "aé€😀", b"a\xe9??"),
            ("US-ASCII", "aé", b"a?"),
            ("UTF-16", "a😀", b"\xfe\xff\0a\xd8\x3d\xde\x00"),
            ("utf-16", "", b""),
            ("UTF-16BE", "a", b"\0a"),
            ("UTF-16LE", "aé", b"a\0\xe9\0"),
        ];
        for (name, text, expected) in cases {
            let mut out = Vec::new();
            Charset::for_name(name).unwrap().write(text, &mut out).unwrap();
            assert_eq!(out, *expected, "{name}");
        }
        assert_eq!(Charset::for_name("EBCDIC"), None);
    }
}
