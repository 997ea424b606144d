//! What can be wrong with a stream, and with what is asked of one.

use thiserror::Error;

/// A stream that could not be decoded: where, and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("object stream, byte {offset}: {fault}")]
pub struct DecodeError {
    /// Offset in the input at which reading stopped.
    pub offset: usize,
    /// Why.
    pub fault: Fault,
}

/// Why a stream could not be decoded. All of them are the sender's fault, or damage on the way.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The input ends inside an item.
    #[error("the stream ends where {0} more bytes were announced or needed")]
    Truncated(u64),
    /// The input does not begin with the stream magic and version 5.
    #[error("not a Java object stream (it must begin with ac ed 00 05)")]
    Header,
    /// A type code that has no meaning at this place.
    #[error("type code 0x{code:02x} where {expected} was expected")]
    Unexpected {
        /// The byte found.
        code: u8,
        /// What the grammar allows here.
        expected: &'static str,
    },
    /// A handle that names nothing, or something of the wrong kind.
    #[error("reference to handle 0x{handle:x}, which is not {expected}")]
    Reference {
        /// The handle found.
        handle: u32,
        /// What the grammar allows here.
        expected: &'static str,
    },
    /// A class descriptor that is used inside its own description.
    #[error("class descriptor used before it is complete")]
    Incomplete,
    /// A field with a type code other than `BCDFIJSZ[L`.
    #[error("field type 0x{0:02x} is none of BCDFIJSZ[L")]
    FieldType(u8),
    /// An array whose class name is not that of an array.
    #[error("array of a class that is not an array class")]
    ArrayClass,
    /// A negative length.
    #[error("negative length {0}")]
    Negative(i32),
    /// An object whose class is neither serializable nor externalizable, or externalizable by protocol 1.
    #[error("object of a class with flags 0x{0:02x}, whose data cannot be delimited")]
    Flags(u8),
    /// A class hierarchy longer than any real one.
    #[error("class hierarchy of more than {0} classes")]
    Hierarchy(usize),
    /// A limit of [`Limits`](super::Limits) was reached.
    #[error("more than {limit} {what} (limit of this agent)")]
    Limit {
        /// What there was too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

/// A graph that does not have the shape that was asked for: the sender's class differs from the one known here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{class}: {problem}")]
pub struct AccessError {
    /// The class of the object that was looked at.
    pub class: String,
    /// What was expected of it.
    pub problem: String,
}
