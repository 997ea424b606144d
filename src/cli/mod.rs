//! The command line and the environment: what `java -jar agent.jar` and the `jenkins/inbound-agent`
//! image's entrypoint accept, turned into one plain [`Config`].
//!
//! Nothing here talks to a network. [`entrypoint::interpret`] is a pure function of the program's
//! name, its arguments, its environment and the files they name; [`run`] does what it says.

pub mod completions;
pub mod entrypoint;
pub mod help;
pub mod logging;
pub mod manual;
pub mod options;
pub mod run;
pub mod workdir;

pub use crate::session::config::{Config, Secret};

/// A command line or an environment that can't be used. The text says what is wrong with which
/// option, in args4j's words where it has some; the process ends with exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Reads a small text file that the command line names. Passed in, so that the interpretation of a
/// command line is testable without a file system.
pub type ReadFile<'a> = &'a dyn Fn(&std::path::Path) -> std::io::Result<String>;
