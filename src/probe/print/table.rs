//! For a terminal.

use crate::probe::check::{Outcome, Report};

/// The verdict, then what was checked.
pub fn print(report: &Report, _colours: bool) -> String {
    let verdict = &report.verdict;
    let mut text = format!("{}: {}\n", verdict.id, verdict.sentence);
    if !verdict.next_step.is_empty() {
        text.push_str(&format!("Next: {} ({})\n", verdict.next_step, verdict.docs));
    }
    for check in report.checks.iter().filter(|check| check.outcome == Outcome::No) {
        text.push_str(&format!("- {} {}: {}\n", check.id, check.target, check.seen));
    }
    text
}
