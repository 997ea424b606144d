//! What controllers ask agents to do: one module per owner, each a table of callables by Java class name.
//!
//! A handler gets a [`Call`] and gives a [`Reply`] or throws. It reads the request's object graph, works on files
//! and processes, and reaches the controller through the handles that the call opens (streams, exported objects).
//! It never sees a socket, a frame or another call.

mod call;
pub mod connect;
pub mod diagnostics;
mod dispatch;
pub mod environment;
pub mod monitors;
pub mod plugins;
#[cfg(test)]
mod recorded;
#[cfg(test)]
#[allow(dead_code, reason = "each module's tests use a part of it")]
pub(crate) mod testing;
mod version;

pub use crate::channel::{Throw, ThrowClass, plain};
pub use call::{Agent, Call, Exported, Outcome, Reply};
pub use dispatch::{dispatch, find};

/// How a callable is run.
#[derive(Clone, Copy)]
pub enum Run {
    /// At once, on the thread that reads the channel: for what neither blocks nor touches a file.
    Inline(fn(&Call) -> Result<Reply, Throw>),
    /// On a thread of its own.
    Blocking(fn(&Call) -> Result<Reply, Throw>),
    /// As [`Run::Blocking`], and may go on as a future when it has to wait long.
    Long(fn(&Call) -> Outcome),
}

/// A callable that this agent executes natively.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Binary name of the Java class. For a `FileCallable`, that of the callable and not of its wrapper.
    pub class: &'static str,
    /// Who sends it: `core`, or the plugin's short name.
    pub owner: &'static str,
    /// What runs it.
    pub run: Run,
}

/// All that this agent executes natively.
pub const TABLES: &[&[Entry]] =
    &[connect::ENTRIES, monitors::ENTRIES, environment::ENTRIES, diagnostics::ENTRIES, plugins::ENTRIES];
