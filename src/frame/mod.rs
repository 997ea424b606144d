//! Chunks, capabilities and preambles: what lies between a byte stream and whole commands. No IO here.

mod capability;
mod chunk;

pub use capability::{Capability, CapabilityError};
pub use chunk::{
    Assembler, ChunkHeader, DEFAULT_CHUNK_SIZE, DEFAULT_COMMAND_LIMIT, FrameError, MAX_CHUNK_SIZE,
    encode,
};
