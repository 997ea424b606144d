//! What the agent is doing at the moment, and what it has done so far: for those who watch over it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::notify::Notifier;
use super::serve::KEEP_ALIVE;
use crate::callables::statistics::Statistics;
use crate::channel::Stalls;
use crate::transport::{ConnectError, ExitCode};

/// The driver of a channel comes round at least every [`KEEP_ALIVE`]. Silent for this long, it hangs.
const HANGS_AFTER: Duration = KEEP_ALIVE.saturating_mul(3);

/// Where an agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// On its way to a controller.
    Connecting,
    /// The channel is up.
    Connected,
    /// The channel is down or was never up, and the agent waits before it tries again.
    Waiting,
    /// A signal has asked for its end.
    Stopping,
    /// It has given up.
    Failed,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// One line for people.
    text: String,
    /// When the driver of the channel last came round.
    turned: Instant,
}

/// Shared by the session, which writes it, and by whoever asks. Every change of the phase is told to the service manager.
#[derive(Debug)]
pub struct Status {
    state: Mutex<State>,
    notifier: Option<Notifier>,
    /// When this was made: about the process's start.
    pub started: SystemTime,
    /// Bytes of the controller's commands, without framing and TLS.
    pub received: AtomicU64,
    /// Bytes of our commands, without framing and TLS.
    pub sent: AtomicU64,
    /// What writers had to wait for.
    pub stalls: Arc<Stalls>,
    /// What the controller called.
    pub calls: Arc<Statistics>,
    connections: AtomicU64,
    failures: Mutex<BTreeMap<u8, u64>>,
}

impl Status {
    /// Of an agent that has just started.
    pub fn new(notifier: Option<Notifier>) -> Status {
        let state = State { phase: Phase::Connecting, text: "Connecting".to_owned(), turned: Instant::now() };
        Status {
            state: Mutex::new(state),
            notifier,
            started: SystemTime::now(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            stalls: Arc::default(),
            calls: Arc::default(),
            connections: AtomicU64::new(0),
            failures: Mutex::default(),
        }
    }

    fn enter(&self, phase: Phase, text: String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // An end that has begun stays one, whatever becomes of the channel meanwhile.
        if state.phase == Phase::Stopping && phase != Phase::Failed {
            return;
        }
        if let Some(notifier) = &self.notifier {
            notifier.tell(&phase, &text);
        }
        *state = State { phase, text, turned: Instant::now() };
    }

    /// An attempt to connect begins.
    pub fn connecting(&self) {
        self.enter(Phase::Connecting, "Connecting".to_owned());
    }

    /// The channel is up, by this protocol.
    pub fn connected(&self, protocol: &str) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.enter(Phase::Connected, format!("Connected by {protocol}"));
    }

    /// The channel has ended, for this reason, and another shall follow.
    pub fn disconnected(&self, reason: &str) {
        self.enter(Phase::Waiting, format!("Waiting to reconnect: {reason}"));
    }

    /// An attempt to connect has failed, and another shall follow.
    pub fn waiting(&self, error: &ConnectError) {
        self.count_failure(error.exit_code());
        self.enter(Phase::Waiting, format!("Waiting to try again: {error}"));
    }

    /// The agent ends because of this.
    pub fn failed(&self, error: &ConnectError) {
        self.count_failure(error.exit_code());
        self.enter(Phase::Failed, error.to_string());
    }

    /// A signal asks for the end.
    pub fn stopping(&self) {
        self.enter(Phase::Stopping, "Closing the channel".to_owned());
    }

    /// The driver of the channel has come round once more.
    pub fn turned(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).turned = Instant::now();
    }

    fn count_failure(&self, code: ExitCode) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures.entry(code.code()).or_default() += 1;
    }

    /// Whether the channel is up; else, what is instead.
    ///
    /// # Errors
    /// One line for people.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.phase == Phase::Connected { Ok(()) } else { Err(state.text.clone()) }
    }

    /// Whether the agent makes progress: while it is connected, the driver of the channel comes round. Attempts to
    /// connect and the waits between them have deadlines of their own.
    ///
    /// # Errors
    /// One line for people.
    pub fn alive(&self) -> Result<(), String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = state.turned.elapsed();
        if state.phase == Phase::Connected && silent > HANGS_AFTER {
            return Err(format!("the channel has not been served for {} s", silent.as_secs()));
        }
        Ok(())
    }

    /// How often the channel has come up.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many attempts to connect have failed, by the exit code of their cause.
    pub fn failures(&self) -> BTreeMap<u8, u64> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Feeds the service manager's watchdog for as long as the agent makes progress, if it has one.
    pub async fn feed_watchdog(self: Arc<Self>) {
        let Some(interval) = self.notifier.as_ref().and_then(|notifier| notifier.watchdog) else { return };
        loop {
            match (self.alive(), &self.notifier) {
                (Ok(()), Some(notifier)) => notifier.feed(),
                (Err(why), _) => tracing::error!("the watchdog is not fed: {why}"),
                (Ok(()), None) => {}
            }
            tokio::time::sleep(interval).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Cause;

    #[tokio::test(start_paused = true)]
    async fn who_is_connected_and_does_not_come_round_hangs() {
        let status = Status::new(None);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(status.alive(), Ok(()), "nothing needs to come round before the channel is up");
        status.connected("WebSocket");
        for _ in 0..10 {
            tokio::time::advance(KEEP_ALIVE).await;
            status.turned();
        }
        tokio::time::advance(HANGS_AFTER).await;
        assert_eq!(status.alive(), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(status.alive().unwrap_err(), "the channel has not been served for 91 s");
        assert_eq!(status.ready(), Ok(()));
    }

    #[tokio::test]
    async fn only_who_is_connected_is_ready() {
        let status = Status::new(None);
        assert_eq!(status.ready().unwrap_err(), "Connecting");
        status.waiting(&ConnectError::new("connecting to", "jenkins:50000", Cause::Refused));
        assert_eq!(
            status.ready().unwrap_err(),
            "Waiting to try again: connecting to jenkins:50000: connection refused"
        );
        status.connected("WebSocket");
        assert_eq!(status.ready(), Ok(()));
        status.disconnected("the connection ended");
        assert_eq!(status.ready().unwrap_err(), "Waiting to reconnect: the connection ended");
        status.connected("WebSocket");
        status.stopping();
        status.disconnected("this agent closed the channel");
        assert_eq!(status.ready().unwrap_err(), "Closing the channel");
        assert_eq!((status.connections(), status.failures()), (2, BTreeMap::from([(12, 1)])));
    }
}
