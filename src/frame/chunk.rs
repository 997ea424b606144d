//! Commands as sequences of chunks.

use bytes::{Buf, Bytes, BytesMut};

/// The payload of a chunk that Java sends by default (`AbstractByteBufferCommandTransport.transportFrameSize`).
pub const DEFAULT_CHUNK_SIZE: usize = 8192;

/// The largest payload that a chunk header can tell.
pub const MAX_CHUNK_SIZE: usize = 0x7fff;

/// How large one command may be unless told otherwise. Java has no limit; the largest commands are file contents and
/// jar files, far below.
pub const DEFAULT_COMMAND_LIMIT: usize = 256 << 20;

/// The two bytes before each chunk (`hudson.remoting.ChunkHeader`): big endian, the high bit says that more chunks of
/// the same command follow, the rest is the payload's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Bytes of payload, at most [`MAX_CHUNK_SIZE`].
    pub length: u16,
    /// Whether the command goes on in another chunk.
    pub more: bool,
}

impl ChunkHeader {
    /// Bytes of a header on the wire.
    pub const SIZE: usize = 2;

    /// Reads a header.
    pub fn parse(bytes: [u8; Self::SIZE]) -> Self {
        let word = u16::from_be_bytes(bytes);
        ChunkHeader {
            length: word & 0x7fff,
            more: word & 0x8000 != 0,
        }
    }

    /// Writes a header; bits of the length beyond 15 are cut off.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        (self.length & 0x7fff | if self.more { 0x8000 } else { 0 }).to_be_bytes()
    }
}

/// The chunks of a command in order: header and payload. An empty command is one empty chunk.
///
/// `chunk_size` is clamped to 1 ..= [`MAX_CHUNK_SIZE`].
pub fn encode(
    command: &[u8],
    chunk_size: usize,
) -> impl Iterator<Item = ([u8; ChunkHeader::SIZE], &[u8])> {
    let size = chunk_size.clamp(1, MAX_CHUNK_SIZE);
    let mut rest = Some(command);
    std::iter::from_fn(move || {
        let (payload, tail) = rest?.split_at_checked(size).unwrap_or((rest?, &[]));
        rest = (!tail.is_empty()).then_some(tail);
        let header = ChunkHeader {
            length: payload.len() as u16,
            more: rest.is_some(),
        };
        Some((header.to_bytes(), payload))
    })
}

/// A broken sequence of chunks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A command grew beyond the limit.
    #[error("the controller sent a command of more than {limit} bytes, the limit")]
    CommandTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The stream ended within a command.
    #[error("the connection ended in the middle of a command, {received} bytes into it")]
    Truncated {
        /// Bytes of the unfinished command, headers included as far as not yet consumed.
        received: usize,
    },
}

/// Makes whole commands of the bytes that arrive, however they were split on the way.
///
/// Holds the unfinished command, bounded by the limit, and what has arrived and wasn't taken yet.
#[derive(Debug)]
pub struct Assembler {
    limit: usize,
    input: BytesMut,
    /// Payload of the chunks so far of a command of several.
    partial: Option<BytesMut>,
}

impl Default for Assembler {
    fn default() -> Self {
        Assembler::new(DEFAULT_COMMAND_LIMIT)
    }
}

impl Assembler {
    /// An assembler that refuses commands of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Assembler {
            limit,
            input: BytesMut::new(),
            partial: None,
        }
    }

    /// Where to append bytes read from a stream; call [`Assembler::next`] until it has no more before reading again.
    pub fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Adds bytes that came as a message of their own; without a copy where nobody else holds them.
    pub fn feed(&mut self, bytes: Bytes) {
        if self.input.is_empty() {
            match bytes.try_into_mut() {
                Ok(bytes) => self.input = bytes,
                Err(bytes) => self.input.extend_from_slice(&bytes),
            }
        } else {
            self.input.extend_from_slice(&bytes);
        }
    }

    /// The next whole command, or `None` until more arrives.
    ///
    /// A command of one chunk is a slice of the input, not a copy. An empty command, which `ChunkedOutputStream.close`
    /// sends as it goes, is skipped: no object stream is empty.
    ///
    /// # Errors
    /// [`FrameError::CommandTooLarge`], again at each further call.
    #[allow(
        clippy::should_implement_trait,
        reason = "it can be `None` now and `Some` later"
    )]
    pub fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            let Some(&header) = self.input.first_chunk() else {
                return Ok(None);
            };
            let header = ChunkHeader::parse(header);
            let length = usize::from(header.length);
            let so_far = self.partial.as_ref().map_or(0, BytesMut::len);
            if length > self.limit.saturating_sub(so_far) {
                return Err(FrameError::CommandTooLarge { limit: self.limit });
            }
            if self.input.len() < ChunkHeader::SIZE + length {
                return Ok(None);
            }
            self.input.advance(ChunkHeader::SIZE);
            let payload = self.input.split_to(length);
            let command = match (self.partial.take(), header.more) {
                (None, false) => payload,
                (None, true) => {
                    self.partial = Some(BytesMut::from(&payload[..]));
                    continue;
                }
                (Some(mut partial), more) => {
                    partial.extend_from_slice(&payload);
                    if more {
                        self.partial = Some(partial);
                        continue;
                    }
                    partial
                }
            };
            if !command.is_empty() {
                return Ok(Some(command.freeze()));
            }
        }
    }

    /// To be asked at the end of the stream: was it between two commands?
    ///
    /// # Errors
    /// [`FrameError::Truncated`] where it was not.
    pub fn finish(&self) -> Result<(), FrameError> {
        match &self.partial {
            None if self.input.is_empty() => Ok(()),
            partial => Err(FrameError::Truncated {
                received: self.input.len() + partial.as_ref().map_or(0, BytesMut::len),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn wire(command: &[u8], chunk_size: usize) -> Vec<u8> {
        encode(command, chunk_size)
            .flat_map(|(header, payload)| [&header, payload].concat())
            .collect()
    }

    fn drain(assembler: &mut Assembler) -> Result<Vec<Bytes>, FrameError> {
        std::iter::from_fn(|| assembler.next().transpose()).collect()
    }

    #[test]
    fn chunks_as_java_cuts_them() {
        assert_eq!(wire(b"", 8192), b"\0\0");
        assert_eq!(wire(b"abc", 8192), b"\0\x03abc");
        assert_eq!(wire(b"abcde", 2), b"\x80\x02ab\x80\x02cd\0\x01e");
        assert_eq!(wire(b"abcd", 2), b"\x80\x02ab\0\x02cd");
        assert_eq!(wire(&[7; 0x7fff], usize::MAX)[..2], [0x7f, 0xff]);
        assert_eq!(wire(b"ab", 0), b"\x80\x01a\0\x01b");
    }

    #[test]
    fn empty_chunks_end_or_continue_a_command() {
        let mut assembler = Assembler::default();
        // As ChunkedOutputStream cuts a command that fills its buffer exactly, and what it sends when closed.
        assembler.feed(Bytes::from_static(
            b"\x80\0\x80\x02ab\x80\0\0\0\0\0\0\x01c\0\0",
        ));
        assert_eq!(drain(&mut assembler).unwrap(), ["ab", "c"]);
        assert_eq!(assembler.finish(), Ok(()));
    }

    #[test]
    fn a_command_of_one_chunk_is_not_copied() {
        let mut assembler = Assembler::default();
        let message = Bytes::from(wire(&[1; 100], 8192));
        let payload = message[2..].as_ptr();
        assembler.feed(message);
        assert_eq!(assembler.next().unwrap().unwrap().as_ptr(), payload);
    }

    #[test]
    fn the_limit_holds_across_chunks_and_before_the_payload_is_there() {
        let too_large = Err(FrameError::CommandTooLarge { limit: 10 });
        let mut assembler = Assembler::new(10);
        assembler.feed(wire(&[0; 10], 4).into());
        assert_eq!(assembler.next().unwrap().unwrap().len(), 10);
        assembler.feed(Bytes::from_static(b"\x80\x06abcdef\x00\x05"));
        assert_eq!(assembler.next(), too_large);
        assert_eq!(assembler.next(), too_large);
        let mut assembler = Assembler::new(10);
        assembler.feed(Bytes::from_static(b"\x00\x0b"));
        assert_eq!(assembler.next(), too_large);
    }

    #[test]
    fn every_truncation_is_noticed() {
        let bytes = wire(b"abcdefghij", 4);
        for end in 1..bytes.len() {
            let mut assembler = Assembler::default();
            assembler.feed(Bytes::copy_from_slice(&bytes[..end]));
            assert_eq!(assembler.next(), Ok(None), "{end}");
            assert!(
                matches!(assembler.finish(), Err(FrameError::Truncated { .. })),
                "{end}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_split_yields_the_same_commands(
            commands in vec((vec(any::<u8>(), 1..300), 1usize..100), 0..6),
            cuts in vec(1usize..70, 1..40),
            shared: bool,
        ) {
            let bytes: Vec<u8> = commands.iter().flat_map(|(command, size)| wire(command, *size)).collect();
            let mut assembler = Assembler::default();
            let mut got = Vec::new();
            let mut rest = Bytes::from(bytes);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let piece = rest.split_to((*cut).min(rest.len()));
                if shared {
                    assembler.feed(piece);
                } else {
                    assembler.input().extend_from_slice(&piece);
                }
                got.extend(drain(&mut assembler).unwrap());
            }
            prop_assert_eq!(assembler.finish(), Ok(()));
            let sent: Vec<Bytes> = commands.into_iter().map(|(command, _)| command.into()).collect();
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn garbage_never_exceeds_the_limit(bytes in vec(any::<u8>(), 0..2000), limit in 0usize..500) {
            let mut assembler = Assembler::new(limit);
            assembler.feed(bytes.into());
            while let Ok(Some(command)) = assembler.next() {
                prop_assert!(command.len() <= limit);
            }
        }

        #[test]
        fn headers_survive(length in 0u16..0x8000, more: bool) {
            let header = ChunkHeader { length, more };
            prop_assert_eq!(ChunkHeader::parse(header.to_bytes()), header);
        }
    }
}
