//! A Jenkins inbound agent without a JVM.
//!
//! The modules are layers; each knows only those listed below it.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod calendar;
pub mod callables;
pub mod channel;
pub mod cli;
pub mod decode;
pub mod demo;
pub mod discovery;
pub mod files;
pub mod frame;
pub mod object;
pub mod probe;
pub mod process;
pub mod session;
pub mod sidecar;
pub mod transport;

/// The remoting version that this agent answers for: what `-version` prints, as `agent.jar -version` prints its own,
/// and what a controller compares with its minimum (`hudson.slaves.SlaveComputer$SlaveVersion`).
pub const REMOTING_VERSION: &str = "3386.v353e57a_1b_ea_0";
