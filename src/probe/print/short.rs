//! For a chat message, the log of a start, and a pod's status.

use std::fmt::Write as _;

use crate::probe::check::{Confidence, Outcome, Report};

/// The verdict, what to do, and what failed.
pub fn print(report: &Report) -> String {
    let verdict = &report.verdict;
    let sure = match verdict.confidence {
        Confidence::Certain => "",
        Confidence::Likely => " (likely)",
        Confidence::Possible => " (possible)",
    };
    let mut text = format!("{}{sure}: {}\n", verdict.id, verdict.sentence);
    if !verdict.next_step.is_empty() {
        let _ = writeln!(text, "Next: {}", verdict.next_step);
    }
    if !verdict.docs.is_empty() {
        let _ = writeln!(text, "More: {}", verdict.docs);
    }
    for check in report.checks.iter().filter(|check| check.outcome == Outcome::No) {
        let sign = if check.warning { "!" } else { "-" };
        let _ = writeln!(text, "{sign} {} {}: {}", check.id, check.target, check.seen);
    }
    text
}
