//! The life of an agent: connect, serve the channel, connect again, end.

mod backoff;
pub mod config;
mod connect;
pub mod duration;
pub mod jnlp;
pub mod last_words;
pub mod milestones;
mod retry;
mod run;
mod serve;
#[cfg(test)]
mod testing;

pub use run::{Served, run};
pub use serve::{serve, serve_with};
