//! Whether, when and with which words to try again.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::config::Config;
use super::{duration, milestones};
use crate::transport::{Cause, ConnectError};

/// A connection that lasts this long was a good one.
const SETTLED: Duration = Duration::from_secs(60);

/// What is remembered from one attempt to the next.
#[derive(Debug)]
pub struct Retry {
    repeats: bool,
    first_connect_timeout: Option<Duration>,
    no_reconnect_after: Option<Duration>,
    started: Instant,
    connected_at: Option<Instant>,
    /// When the first attempt of this phase without a connection failed.
    without_since: Option<Instant>,
    backoff: Backoff,
    /// How often the latest attempts have failed for one reason, and which.
    failures: Option<(u32, String)>,
    /// From 0 to 1.
    random: fn() -> f64,
}

impl Retry {
    /// Nothing was tried yet. `repeats`: whether there is a way to connect more than once.
    pub fn new(config: &Config, repeats: bool) -> Retry {
        Retry {
            repeats: repeats && !config.no_reconnect,
            first_connect_timeout: config.first_connect_timeout,
            no_reconnect_after: config.no_reconnect_after,
            started: Instant::now(),
            connected_at: None,
            without_since: None,
            backoff: Backoff::default(),
            failures: None,
            random,
        }
    }

    /// An attempt has succeeded.
    pub fn connected(&mut self) {
        self.connected_at = Some(Instant::now());
        self.without_since = None;
        self.failures = None;
    }

    /// A connection has ended that another shall follow: how long to wait before. A controller that takes connections and
    /// soon drops them is not to be stormed.
    pub fn ended(&mut self) -> Duration {
        if self.connected_at.is_none_or(|at| at.elapsed() >= SETTLED) {
            self.backoff = Backoff::default();
        }
        self.backoff.next(false, (self.random)())
    }

    /// The time for the first connection, and what is left of it; `None` once there was one, or without a limit.
    pub fn first_limit(&self) -> Option<(Duration, Duration)> {
        let limit = self.first_connect_timeout.filter(|_| self.connected_at.is_none())?;
        Some((limit, limit.saturating_sub(self.started.elapsed())))
    }

    /// An attempt has failed, which is logged: how long to wait before the next; `None` if there is to be none.
    pub fn failed(&mut self, error: &ConnectError) -> Option<Duration> {
        let since = *self.without_since.get_or_insert_with(Instant::now);
        let first = self.connected_at.is_none();
        if !self.repeats || (first && error.is_definite()) {
            return None;
        }
        let limits =
            [self.first_limit(), self.no_reconnect_after.map(|limit| (limit, limit.saturating_sub(since.elapsed())))];
        let left = limits.into_iter().flatten().map(|(limit, left)| (left, limit)).min();
        if let Some((Duration::ZERO, limit)) = left {
            milestones::bailing_out(limit);
            return None;
        }
        let mut wait = self.backoff.next(error.is_definite(), (self.random)());
        if let Some((left, _)) = left {
            // The last attempt falls on the limit and not behind it.
            wait = wait.min(left);
        }
        self.tell(error, wait);
        Some(wait)
    }

    /// In full where the reason is new, and shortly where it is the same again.
    fn tell(&mut self, error: &ConnectError, wait: Duration) {
        let text = error.to_string();
        let in_time = duration::format(wait);
        match &mut self.failures {
            Some((times, former)) if *former == text => {
                *times += 1;
                let cause = &error.cause;
                tracing::info!(
                    target: milestones::TARGET,
                    "Still failing, {times} times now: {cause}; waiting {in_time} before retry"
                );
                return;
            }
            failures => *failures = Some((1, text)),
        }
        if let Cause::AlreadyConnected { .. } = error.cause {
            let text = "waiting for the controller to let go of the connection that it holds under this name";
            tracing::info!(target: milestones::TARGET, "{error}; {text}; next attempt in {in_time}");
        } else {
            milestones::failed_to_connect(error);
            tracing::info!(target: milestones::TARGET, "{}", error.next_step());
            milestones::waiting_before_retry(wait);
        }
    }
}

/// A number from 0 to 1, different in each process and at each call.
fn random() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::time::Instant::now()) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::logging;
    use crate::session::config::LogFormat;
    use crate::session::testing::config;

    fn error(cause: Cause) -> ConnectError {
        ConnectError::new("connecting to", "jenkins:50000", cause)
    }

    fn rejected() -> ConnectError {
        error(Cause::Rejected { message: "Unknown client name: n".to_owned() })
    }

    /// When attempts were made that failed at once, and whether they went on to the end of `most`.
    async fn attempts(retry: &mut Retry, cause: fn() -> ConnectError, most: usize) -> (Vec<Duration>, bool) {
        let begun = Instant::now();
        let mut at = Vec::new();
        while at.len() < most {
            at.push(begun.elapsed());
            match retry.failed(&cause()) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return (at, false),
            }
        }
        (at, true)
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_for_ever() {
        let mut retry = Retry::new(&config(), true);
        let (at, goes_on) = attempts(&mut retry, || error(Cause::Refused), 1000).await;
        assert!(goes_on);
        let gaps: Vec<_> = at.windows(2).map(|two| (two[1] - two[0]).as_secs_f64()).collect();
        for (gap, base) in gaps.iter().zip([1.0, 3.0, 7.0].into_iter().chain(std::iter::repeat(10.0))) {
            assert!((0.75 * base - 0.01..=1.25 * base + 0.01).contains(gap), "{gap} for {base}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_definite_refusal_ends_the_first_start_and_is_retried_slowly_later() {
        let mut retry = Retry::new(&config(), true);
        assert_eq!(attempts(&mut retry, rejected, 9).await, (vec![Duration::ZERO], false));

        let mut retry = Retry::new(&config(), true);
        retry.connected();
        let (at, goes_on) = attempts(&mut retry, rejected, 100).await;
        assert!(goes_on);
        assert!(at.windows(2).all(|two| (90..=150).contains(&(two[1] - two[0]).as_secs())), "{at:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn only_one_attempt_without_reconnecting() {
        let mut without = config();
        without.no_reconnect = true;
        for mut retry in [Retry::new(&without, true), Retry::new(&config(), false)] {
            assert_eq!(attempts(&mut retry, || error(Cause::Refused), 9).await, (vec![Duration::ZERO], false));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_counts_from_the_first_failure_of_each_phase() {
        let limit = Duration::from_secs(60);
        let mut limited = config();
        limited.no_reconnect_after = Some(limit);
        let mut retry = Retry::new(&limited, true);
        // Time before the first failure doesn't count, nor that of a connection between two phases.
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(86_400)).await;
            let (at, goes_on) = attempts(&mut retry, || error(Cause::Refused), 5).await;
            assert!(goes_on, "{at:?}");
            retry.connected();
        }
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        let (at, goes_on) = attempts(&mut retry, || error(Cause::Refused), 1000).await;
        assert!(!goes_on);
        let last = at.last().unwrap().as_secs_f64();
        assert!((60.0..60.1).contains(&last), "the last attempt falls on the limit, not on {last}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_a_first_connection_counts_from_the_start_and_only_for_it() {
        let mut limited = config();
        limited.first_connect_timeout = Some(Duration::from_secs(180));
        let mut retry = Retry::new(&limited, true);
        // The first attempt took long to fail.
        tokio::time::sleep(Duration::from_secs(100)).await;
        let (at, goes_on) = attempts(&mut retry, || error(Cause::Refused), 1000).await;
        assert!(!goes_on);
        assert!((80.0..80.1).contains(&at.last().unwrap().as_secs_f64()), "{at:?}");

        let mut retry = Retry::new(&limited, true);
        retry.connected();
        assert!(attempts(&mut retry, || error(Cause::Refused), 1000).await.1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_drops_connections_soon_is_asked_ever_more_slowly() {
        let mut retry = Retry::new(&config(), true);
        let mut waits = Vec::new();
        for lasted in [1, 1, 1, 1, 3600, 1] {
            retry.connected();
            tokio::time::sleep(Duration::from_secs(lasted)).await;
            waits.push(retry.ended().as_secs_f64());
        }
        for (wait, base) in waits.iter().zip([1.0, 3.0, 7.0, 10.0, 1.0, 3.0]) {
            assert!((0.75 * base..=1.25 * base).contains(wait), "{waits:?}");
        }
    }

    /// The log of failures, without the entries' first lines.
    fn log(failures: impl FnOnce(&mut Retry)) -> Vec<String> {
        let text = logging::capture(LogFormat::Text, || {
            let mut retry = Retry::new(&config(), true);
            retry.random = || 0.5;
            retry.connected();
            failures(&mut retry);
        });
        text.lines().filter(|line| !line.ends_with(" agent")).map(str::to_owned).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_cause_is_told_in_full_once() {
        let lines = log(|retry| {
            for cause in [Cause::Closed, Cause::Closed, Cause::Closed, Cause::Refused] {
                retry.failed(&error(cause));
            }
            retry.connected();
            retry.failed(&error(Cause::Refused));
        });
        let refused = "INFO: Failed to connect: connecting to jenkins:50000: connection refused".to_owned();
        let next = |cause: Cause| format!("INFO: {}", cause.next_step());
        let short = |times, wait| {
            format!(
                "INFO: Still failing, {times} times now: the connection was closed without a reason given; \
                 waiting {wait} before retry"
            )
        };
        assert_eq!(
            lines,
            [
                "INFO: Failed to connect: connecting to jenkins:50000: the connection was closed without a reason given"
                    .to_owned(),
                next(Cause::Closed),
                "INFO: Waiting 1 second before retry".to_owned(),
                short(2, "3 seconds"),
                short(3, "7 seconds"),
                refused.clone(),
                next(Cause::Refused),
                "INFO: Waiting 10 seconds before retry".to_owned(),
                // After a connection, everything is new.
                refused,
                next(Cause::Refused),
                "INFO: Waiting 10 seconds before retry".to_owned(),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_is_connected_already_is_waited_for_in_one_plain_line() {
        let lines = log(|retry| {
            retry.failed(&error(Cause::AlreadyConnected { message: "n is already connected".to_owned() }));
        });
        let line = "INFO: connecting to jenkins:50000: the controller refused this agent for now: n is already connected; \
                    waiting for the controller to let go of the connection that it holds under this name; \
                    next attempt in 1 second";
        assert_eq!(lines, [line]);
    }
}
