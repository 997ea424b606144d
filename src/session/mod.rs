//! The life of an agent: connect, serve the channel, connect again, end.

mod backoff;
pub mod config;
mod connect;
pub mod duration;
pub mod health;
pub mod jnlp;
pub mod last_words;
mod metrics;
pub mod milestones;
pub mod notify;
mod probe;
mod retry;
mod run;
mod serve;
pub mod status;
#[cfg(test)]
mod testing;

pub use probe::probe;
pub use run::{Served, run};
pub use serve::serve;
