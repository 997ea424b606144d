//! The remoting channel: requests and answers, exported objects, pipes with flow control, ping, close.
//!
//! [`state`] is the channel itself, without IO and without a clock; [`command`] is what goes over it; [`link`] lets
//! the threads and tasks of an agent share one.
//!
//! # Invariants
//! - `state` and `command` never do IO and never read a clock.
//! - Every request is answered, once, whatever its handler does.
//! - Every reference that a request brings goes back, once: by the handle that a handler opened, or by the answer.

pub mod command;
pub mod link;
pub mod state;
#[cfg(test)]
mod tests;
mod throw;

pub use link::{
    Caller, Incoming, Link, PipeReader, RemoteError, RemoteInput, RemoteOutput, RemoteProxy, RemoteWriter, Sink,
    Stalls, remote_output_stream,
};
pub use state::{Channel, CloseReason, Event, Liveness};
pub use throw::{Cancelled, Throw, ThrowClass, plain, printable};
