//! What a build's console shows.

use std::io::Write;

/// A console; a quiet one shows nothing.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    /// Whether lines are printed.
    pub shown: bool,
}

impl Console {
    /// A line of the build's output.
    pub fn line(&self, line: &str) {
        if self.shown {
            // Who has closed standard output does not want to see more.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }

    /// A stage begins.
    pub fn stage(&self, name: &str) {
        self.line("[Pipeline] stage");
        self.line(&format!("[Pipeline] {{ ({name})"));
    }

    /// A step begins.
    pub fn step(&self, name: &str) {
        self.line(&format!("[Pipeline] {name}"));
    }
}
