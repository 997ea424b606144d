//! Whether what was staged was met: a fault that nobody ran into proves nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts of what was staged, shared by all who stage it.
#[derive(Debug, Clone, Default)]
pub struct Hits(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    expected: BTreeMap<String, u32>,
    offences: Vec<String>,
}

impl Hits {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This has to be met.
    pub fn expect(&self, what: impl Into<String>) {
        self.lock().expected.insert(what.into(), 0);
    }

    /// This was met.
    pub fn hit(&self, what: &str) {
        if let Some(count) = self.lock().expected.get_mut(what) {
            *count += 1;
        }
    }

    /// The agent did something that it must not do.
    pub fn offence(&self, what: impl Into<String>) {
        self.lock().offences.push(what.into());
    }

    /// What was not met.
    pub fn missed(&self) -> Vec<String> {
        self.lock().expected.iter().filter(|(_, count)| **count == 0).map(|(what, _)| what.clone()).collect()
    }

    pub fn offences(&self) -> Vec<String> {
        self.lock().offences.clone()
    }
}
