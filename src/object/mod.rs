//! Java object streams, both ways, without IO and without classes.
//!
//! A stream (the *Java Object Serialization Specification*, chapter 6, protocol version 2) decodes into a
//! [`Graph`]: an arena of nodes that refer to one another by index, so shared and cyclic structures are
//! represented as they are and nothing recurses. The same arena is built by hand for what is sent, and
//! [`Graph::encode`] writes it: decoding a stream and encoding it again yields the identical bytes.
//!
//! # Invariants
//! - Nothing read from the wire sizes an allocation: memory is at most a constant multiple of the input.
//!   Each declared field or element is *owed* by the input, and what is owed in total never exceeds what is left.
//! - Nothing recurses: nesting is a vector, bounded by [`Limits::depth`].
//! - No class is ever loaded; a class is its name and its fields' names.

mod build;
mod edit;
mod error;
mod graph;
pub mod mutf8;
mod reader;
mod typed;
mod writer;

pub use build::{Loader, ObjectBuilder, tree_map_annotation};
pub use error::{AccessError, DecodeError, Fault};
pub use graph::{ClassDesc, Content, Data, Entry, Field, Graph, Node, NodeId, Object, Part, ProxyDesc, Value, View};
pub use reader::{Limits, STREAM_HEADER};
pub use typed::FromJava;

/// Type codes of the protocol (`java.io.ObjectStreamConstants`).
pub(crate) mod tc {
    pub const NULL: u8 = 0x70;
    pub const REFERENCE: u8 = 0x71;
    pub const CLASSDESC: u8 = 0x72;
    pub const OBJECT: u8 = 0x73;
    pub const STRING: u8 = 0x74;
    pub const ARRAY: u8 = 0x75;
    pub const CLASS: u8 = 0x76;
    pub const BLOCKDATA: u8 = 0x77;
    pub const ENDBLOCKDATA: u8 = 0x78;
    pub const RESET: u8 = 0x79;
    pub const BLOCKDATALONG: u8 = 0x7a;
    pub const EXCEPTION: u8 = 0x7b;
    pub const LONGSTRING: u8 = 0x7c;
    pub const PROXYCLASSDESC: u8 = 0x7d;
    pub const ENUM: u8 = 0x7e;
    /// The first handle that a stream assigns (`baseWireHandle`).
    pub const BASE_HANDLE: u32 = 0x7e_0000;
}

/// Class descriptor flags (`java.io.ObjectStreamConstants`).
pub mod sc {
    /// The class has a `writeObject` method: its data ends with an annotation.
    pub const WRITE_METHOD: u8 = 0x01;
    /// The class implements `Serializable`.
    pub const SERIALIZABLE: u8 = 0x02;
    /// The class implements `Externalizable`.
    pub const EXTERNALIZABLE: u8 = 0x04;
    /// Externalizable data is written in block data mode (every stream since JDK 1.2).
    pub const BLOCK_DATA: u8 = 0x08;
    /// The class is an enum.
    pub const ENUM: u8 = 0x10;
}
