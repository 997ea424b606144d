//! What two ends tell each other about what they can do.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use std::fmt;

/// The bits of `hudson.remoting.Capability`, named as there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Capability {
    /// The bits. Those without a name here are kept.
    pub mask: u64,
}

/// A text that isn't the base64 of a serialized `hudson.remoting.Capability`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the controller's remoting capability is malformed: {0}")]
pub struct CapabilityError(&'static str);

const CLASS_NAME: &str = "hudson.remoting.Capability";

/// Everything of the serialized object before the mask: `STREAM_MAGIC`, version 5, `TC_OBJECT`, `TC_CLASSDESC`, the
/// name, serialVersionUID 1, `SC_SERIALIZABLE`, the one field `long mask`, no annotation, no superclass.
const PREFIX: &[u8] =
    b"\xac\xed\0\x05sr\0\x1ahudson.remoting.Capability\0\0\0\0\0\0\0\x01\x02\0\x01J\0\x04maskxp";

impl Capability {
    /// Answers and requests carry class loaders (`MultiClassLoaderSerializer`).
    pub const MULTI_CLASSLOADER: u64 = 1 << 1;
    /// Pipes have windows (`ProxyOutputStream`).
    pub const PIPE_THROTTLING: u64 = 1 << 2;
    /// `MimicException`, no longer used.
    pub const MIMIC_EXCEPTION: u64 = 1 << 3;
    /// Classes are prefetched and jars cached.
    pub const PREFETCH: u64 = 1 << 4;
    /// `RemoteInputStream` knows the greedy flag.
    pub const GREEDY_REMOTE_INPUTSTREAM: u64 = 1 << 5;
    /// `ProxyWriter` has windows, as of remoting 2.35.
    pub const PROXY_WRITER_2_35: u64 = 1 << 6;
    /// Commands are framed in chunks, each an object stream of its own.
    pub const CHUNKED_ENCODING: u64 = 1 << 7;
    /// Exceptions are answered with a `ProxyException` beside them (`UserRequest$ExceptionResponse`).
    pub const PROXY_EXCEPTION_FALLBACK: u64 = 1 << 8;

    /// What this agent tells of itself, the same as remoting from 3.19 (2018) to today: `0x1fe`.
    pub const OURS: Capability = Capability { mask: 0x1fe };

    /// A peer that told nothing (`Capability.NONE`).
    pub const NONE: Capability = Capability { mask: 0 };

    /// Whether all of these bits are set.
    pub fn has(self, bits: u64) -> bool {
        self.mask & bits == bits
    }

    /// The text sent on all transports (`Capability.toASCII`).
    pub fn to_base64(self) -> String {
        let mut object = Vec::with_capacity(PREFIX.len() + 8);
        object.extend_from_slice(PREFIX);
        object.extend_from_slice(&self.mask.to_be_bytes());
        BASE64_STANDARD.encode(object)
    }

    /// Reads the text that a peer sent (`Capability.fromASCII`). White space around it is ignored, and so are further
    /// fields, which its documentation reserves the right to add.
    ///
    /// # Errors
    /// [`CapabilityError`] for anything else.
    pub fn from_base64(text: &str) -> Result<Self, CapabilityError> {
        let object = BASE64_STANDARD
            .decode(text.trim_ascii())
            .map_err(|_| CapabilityError("not base64"))?;
        let mask = parse(&object)?;
        Ok(Capability { mask })
    }
}

impl Default for Capability {
    fn default() -> Self {
        Capability::OURS
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capability({:#x})", self.mask)
    }
}

/// The mask in an object stream that holds one `Capability`, by the grammar of the Java Object Serialization
/// Specification, section 6.4.2, as far as this object can use it.
fn parse(object: &[u8]) -> Result<u64, CapabilityError> {
    let mut rest = object;
    expect(&mut rest, b"\xac\xed\0\x05", "not a Java object stream")?;
    expect(&mut rest, b"sr", "not an object")?;
    if utf(&mut rest)? != CLASS_NAME.as_bytes() {
        return Err(CapabilityError("an object of another class"));
    }
    take(&mut rest, 8)?;
    let flags = take(&mut rest, 1)?[0];
    if flags & 0x02 == 0 {
        return Err(CapabilityError("not serializable"));
    }
    let fields = u16::from_be_bytes(array(&mut rest)?);
    let mut values_before = 0;
    let mut offset = None;
    for _ in 0..fields {
        let kind = take(&mut rest, 1)?[0];
        let name = utf(&mut rest)?;
        let size = match kind {
            b'B' | b'Z' => 1,
            b'C' | b'S' => 2,
            b'I' | b'F' => 4,
            b'J' | b'D' => 8,
            b'L' | b'[' => {
                match take(&mut rest, 1)?[0] {
                    b't' => drop(utf(&mut rest)?),
                    b'q' => drop(take(&mut rest, 4)?),
                    _ => return Err(CapabilityError("a field without a type")),
                }
                0
            }
            _ => return Err(CapabilityError("a field of an unknown type")),
        };
        if kind == b'J' && name == b"mask" {
            offset = Some(values_before);
        }
        values_before += size;
    }
    expect(
        &mut rest,
        b"xp",
        "an unexpected class annotation or superclass",
    )?;
    take(&mut rest, offset.ok_or(CapabilityError("no mask"))?)?;
    array(&mut rest).map(u64::from_be_bytes)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], CapabilityError> {
    rest.split_off(..length)
        .ok_or(CapabilityError("it ends early"))
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], CapabilityError> {
    let (array, tail) = rest
        .split_first_chunk()
        .ok_or(CapabilityError("it ends early"))?;
    *rest = tail;
    Ok(*array)
}

fn utf<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], CapabilityError> {
    let length = u16::from_be_bytes(array(rest)?);
    take(rest, length.into())
}

fn expect(rest: &mut &[u8], bytes: &[u8], otherwise: &'static str) -> Result<(), CapabilityError> {
    *rest = rest.strip_prefix(bytes).ok_or(CapabilityError(otherwise))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What remoting 4.7 and 3386 put on the wire.
    const RECORDED: &str =
        "rO0ABXNyABpodWRzb24ucmVtb3RpbmcuQ2FwYWJpbGl0eQAAAAAAAAABAgABSgAEbWFza3hwAAAAAAAAAf4=";

    #[test]
    fn ours_is_what_java_sends() {
        assert_eq!(Capability::OURS.to_base64(), RECORDED);
        assert_eq!(
            Capability::from_base64(&format!("{RECORDED}\r\n")),
            Ok(Capability::OURS)
        );
    }

    #[test]
    fn fields_of_a_future_version_are_skipped() {
        // class Capability { int extra; long mask; String text; String other; }
        let mut object =
            b"\xac\xed\0\x05sr\0\x1ahudson.remoting.Capability\0\0\0\0\0\0\0\x01\x02\0\x04"
                .to_vec();
        object.extend_from_slice(b"I\0\x05extraJ\0\x04mask");
        object
            .extend_from_slice(b"L\0\x04textt\0\x12Ljava/lang/String;L\0\x05otherq\0\x7e\0\x01xp");
        object.extend_from_slice(b"\0\0\0\x07\0\0\0\0\0\0\x01\x02t\0\x01at\0\x01b");
        assert_eq!(
            Capability::from_base64(&BASE64_STANDARD.encode(&object)),
            Ok(Capability { mask: 0x102 })
        );
    }

    #[test]
    fn nothing_else_is_accepted() {
        let object = BASE64_STANDARD.decode(RECORDED).unwrap();
        for length in 0..object.len() {
            assert!(
                Capability::from_base64(&BASE64_STANDARD.encode(&object[..length])).is_err(),
                "{length}"
            );
        }
        let mut other_class = object.clone();
        other_class[10] ^= 1;
        assert_eq!(
            Capability::from_base64(&BASE64_STANDARD.encode(other_class))
                .unwrap_err()
                .to_string(),
            "the controller's remoting capability is malformed: an object of another class"
        );
        assert!(Capability::from_base64("<html>").is_err());
    }

    proptest! {
        #[test]
        fn any_mask_survives(mask: u64) {
            let capability = Capability { mask };
            prop_assert_eq!(Capability::from_base64(&capability.to_base64()), Ok(capability));
        }

        #[test]
        fn a_broken_byte_does_not_panic(at in 0usize..62, byte: u8) {
            let mut object = BASE64_STANDARD.decode(RECORDED).unwrap();
            object[at] = byte;
            let _ = Capability::from_base64(&BASE64_STANDARD.encode(object));
        }
    }
}
