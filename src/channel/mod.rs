//! The remoting channel.
pub mod link;
pub use link::{Caller, Link, PipeReader, RemoteError, RemoteInput, RemoteOutput, RemoteProxy, RemoteWriter, Sink};
