//! What was called on a channel: by callable and by who executed it, how often and for how long.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Callables that are told apart; the names come from the wire. What exceeds this counts as [`OTHERS`].
pub const MAX_CALLABLES: usize = 500;
/// The name under which the rest is counted.
pub const OTHERS: &str = "(others)";

/// Who executes requests on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tenant {
    /// This agent itself.
    Native,
    /// The Java virtual machine beside it.
    Jvm,
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Tenant::Native => "native",
            Tenant::Jvm => "jvm",
        })
    }
}

/// The calls of one callable that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// How many.
    pub count: u64,
    /// From the request to its answer, all of them together.
    pub total: Duration,
    /// The longest of them.
    pub longest: Duration,
}

/// Counts calls. Shared; each call costs a lock and a look-up.
#[derive(Debug, Default)]
pub struct Statistics(Mutex<BTreeMap<(Tenant, String), Calls>>);

impl Statistics {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Tenant, String), Calls>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call that has ended.
    pub fn record(&self, tenant: Tenant, callable: &str, took: Duration) {
        let mut calls = self.lock();
        let full = calls.len() >= MAX_CALLABLES;
        let mut key = (tenant, callable.to_owned());
        if full && !calls.contains_key(&key) {
            OTHERS.clone_into(&mut key.1);
        }
        let entry = calls.entry(key).or_default();
        entry.count += 1;
        entry.total += took;
        entry.longest = entry.longest.max(took);
    }

    /// All that was counted, sorted by tenant and name.
    pub fn snapshot(&self) -> Vec<(Tenant, String, Calls)> {
        self.lock().iter().map(|((tenant, callable), calls)| (*tenant, callable.clone(), *calls)).collect()
    }

    /// A line for people: how many calls were whose, and which ones needed the JVM (the most expensive first, at most
    /// `most` of them).
    pub fn summary(&self, most: usize) -> String {
        let calls = self.snapshot();
        let of = |wanted| calls.iter().filter(move |(tenant, ..)| *tenant == wanted);
        let count = |wanted| of(wanted).map(|(.., calls)| calls.count).sum::<u64>();
        let mut text = format!("calls: {} native, {} in the JVM", count(Tenant::Native), count(Tenant::Jvm));
        let mut in_jvm: Vec<_> = of(Tenant::Jvm).collect();
        in_jvm.sort_by_key(|(.., calls)| std::cmp::Reverse(calls.total));
        let shown = in_jvm.iter().take(most).map(|(_, name, calls)| {
            let times = if calls.count == 1 { "once".to_owned() } else { format!("{} times", calls.count) };
            format!("{} ({times}, {:.1} s)", crate::channel::printable(name), calls.total.as_secs_f64())
        });
        let mut shown: Vec<_> = shown.collect();
        if in_jvm.len() > most {
            shown.push(format!("{} more", in_jvm.len() - most));
        }
        if !shown.is_empty() {
            text.push_str(": ");
            text.push_str(&shown.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_callable_and_tenant() {
        let statistics = Statistics::default();
        let seconds = Duration::from_secs;
        statistics.record(Tenant::Native, "a.A", seconds(1));
        statistics.record(Tenant::Jvm, "a.A", seconds(2));
        statistics.record(Tenant::Jvm, "a.A", seconds(4));
        statistics.record(Tenant::Jvm, "a.B", seconds(9));
        let twice = Calls { count: 2, total: seconds(6), longest: seconds(4) };
        assert_eq!(statistics.snapshot()[1], (Tenant::Jvm, "a.A".to_owned(), twice));
        assert_eq!(statistics.summary(1), "calls: 1 native, 3 in the JVM: a.B (once, 9.0 s), 1 more");
        assert_eq!(Statistics::default().summary(9), "calls: 0 native, 0 in the JVM");
    }

    #[test]
    fn invented_names_are_bounded() {
        let statistics = Statistics::default();
        for n in 0..2 * MAX_CALLABLES {
            statistics.record(Tenant::Native, &n.to_string(), Duration::ZERO);
        }
        let calls = statistics.snapshot();
        assert_eq!(calls.len(), MAX_CALLABLES + 1);
        let (_, name, others) = &calls[0];
        assert_eq!((name.as_str(), others.count), (OTHERS, MAX_CALLABLES as u64));
    }
}
