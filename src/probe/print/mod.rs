//! A report as text. Pure: a printer takes a report and gives a string.

pub mod json;
pub mod short;
pub mod table;

/// The forms of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For a terminal.
    Table,
    /// For a chat message.
    Short,
    /// For programs; see docs/probe/json.md.
    Json,
}
