//! Chunks, capabilities, preambles and handshake texts: what lies between a byte stream and whole commands. No IO here.

mod capability;
mod chunk;
pub mod handshake;
mod preamble;

pub use capability::{Capability, CapabilityError};
pub use chunk::{
    Assembler, ChunkHeader, DEFAULT_CHUNK_SIZE, DEFAULT_COMMAND_LIMIT, FrameError, MAX_CHUNK_SIZE,
    encode,
};
pub use preamble::{
    BINARY_PREAMBLE, CAPABILITY_PREAMBLE, MAX_BANNER, PreambleError, PreambleScanner,
    TEXT_PREAMBLE, preamble,
};
