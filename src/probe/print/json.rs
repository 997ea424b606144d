//! For programs; the schema is in `docs/probe/json.md`.

use crate::probe::check::Report;

/// One JSON object, indented, with a line's end.
pub fn print(report: &Report) -> String {
    let mut text = serde_json::to_string_pretty(report).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"));
    text.push('\n');
    text
}
