//! How long to wait between attempts.

use std::time::Duration;

/// What the Java agent waits over WebSocket (`Engine.RetryDelay`), the last for ever.
const DELAYS: [u64; 4] = [1, 3, 7, 10];
/// After a refusal that only somebody's intervention can change.
const AFTER_REFUSAL: u64 = 120;
/// Each delay is varied by up to this part of it, so that a thousand agents do not come back at once.
const JITTER: f64 = 0.25;

/// Delays of one phase without a connection.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: usize,
}

impl Backoff {
    /// The next delay. `definite`: the controller has refused for a reason that waiting does not mend. `random` is
    /// from 0 to 1.
    pub fn next(&mut self, definite: bool, random: f64) -> Duration {
        let base = if definite { AFTER_REFUSAL } else { DELAYS[self.attempts.min(DELAYS.len() - 1)] };
        self.attempts += 1;
        Duration::from_secs(base).mul_f64(1.0 + JITTER * (2.0 * random - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound_and_a_refusal_is_retried_slowly() {
        let mut backoff = Backoff::default();
        let seconds: Vec<_> = (0..6).map(|_| backoff.next(false, 0.5).as_secs_f64()).collect();
        assert_eq!(seconds, [1.0, 3.0, 7.0, 10.0, 10.0, 10.0]);
        assert_eq!(backoff.next(true, 0.5).as_secs(), 120);
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        assert_eq!(Backoff::default().next(false, 0.0), Duration::from_millis(750));
        assert_eq!(Backoff::default().next(false, 1.0), Duration::from_millis(1250));
    }
}
