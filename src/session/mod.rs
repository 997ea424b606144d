//! The life of an agent: connect, serve the channel, connect again, end.

mod backoff;
pub mod config;
mod connect;
pub mod duration;
pub mod last_words;
pub mod milestones;
mod run;
mod serve;

pub use run::run;
pub use serve::serve;
