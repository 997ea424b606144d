//! Connecting for as long as the agent lives.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::backoff::Backoff;
use super::config::Config;
use super::connect::Connector;
use super::last_words::{self, last_words};
use super::{milestones, serve};
use crate::callables::Agent;
use crate::channel::{CloseReason, Liveness};
use crate::process::reaper;
use crate::transport::{Cause, ConnectError, Protocol};

/// Ended in order: by a signal, by the controller with `-noReconnect`, or at the end of standard input.
const ORDERLY: u8 = 0;
/// Failed for a reason without a code of its own.
const FAILED: u8 = 1;
/// A connection that lasts this long was a good one.
const SETTLED: Duration = Duration::from_secs(60);
/// Most threads that calls may hold at a time; further calls wait for one.
const MAX_BLOCKING_THREADS: usize = 256;

/// Runs an agent to its end, and gives the process's exit code.
pub fn run(config: Config) -> u8 {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(target: milestones::TARGET, "cannot start: {error}");
            return FAILED;
        }
    };
    let code = runtime.block_on(session(config));
    // A thread that reads standard input, or waits in a system call, can't be ended; the process ends without it.
    runtime.shutdown_background();
    code
}

async fn session(config: Config) -> u8 {
    tokio::spawn(reaper::run());
    let mut stop = match stop_on_signal(config.grace) {
        Ok(stop) => stop,
        Err(error) => {
            tracing::error!(target: milestones::TARGET, "cannot wait for signals: {error}");
            return FAILED;
        }
    };
    let mut life = match Connector::new(&config) {
        Ok(connector) => {
            Life { connector, config, connected_once: false, without_since: None, backoff: Backoff::default() }
        }
        Err(error) => return give_up(config.in_pod, &error),
    };
    loop {
        let attempt = tokio::select! {
            attempt = life.connector.connect() => attempt,
            _ = stop.wait_for(|stop| *stop) => return ORDERLY,
        };
        let wait = match attempt {
            Ok(connection) => {
                life.connected_once = true;
                life.without_since = None;
                let since = Instant::now();
                let agent = Arc::new(life.agent(connection.peer.protocol));
                let reason = serve(connection, &agent, Liveness::default(), &mut stop).await;
                match life.ended(&reason, &agent, *stop.borrow()) {
                    Some(code) => return code,
                    // A controller that takes the connection and soon drops it is not to be stormed.
                    None if since.elapsed() < SETTLED => life.backoff.next(false, random()),
                    None => {
                        life.backoff = Backoff::default();
                        life.backoff.next(false, random())
                    }
                }
            }
            Err(error) => match life.failed(&error) {
                Ok(wait) => wait,
                Err(code) => return code,
            },
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => return ORDERLY,
        }
    }
}

/// What is remembered from one connection to the next.
struct Life {
    connector: Connector,
    config: Config,
    connected_once: bool,
    /// When the first attempt of this phase without a connection failed.
    without_since: Option<Instant>,
    backoff: Backoff,
}

impl Life {
    fn agent(&self, protocol: Protocol) -> Agent {
        let version = self.connector.controller_version.clone();
        Agent::new(self.config.work_dir.path.clone(), Some(protocol.to_string()), version)
    }

    /// A channel has ended: the exit code if the agent ends with it.
    fn ended(&self, reason: &CloseReason, agent: &Agent, stopping: bool) -> Option<u8> {
        tracing::info!(target: milestones::TARGET, "{reason}");
        milestones::terminated();
        let last =
            stopping || self.config.no_reconnect || agent.shall_not_reconnect() || !self.connector.can_reconnect();
        if last {
            return Some(ORDERLY);
        }
        milestones::performing_on_reconnect();
        milestones::on_reconnect_completed();
        None
    }

    /// An attempt has failed: how long to wait before the next, or the exit code if there is none.
    fn failed(&mut self, error: &ConnectError) -> Result<Duration, u8> {
        let since = *self.without_since.get_or_insert_with(Instant::now);
        let first = !self.connected_once;
        let hopeless = first && error.is_definite() || !self.connector.can_reconnect() || self.config.no_reconnect;
        if hopeless {
            return Err(give_up(self.config.in_pod, error));
        }
        let limit = if first { self.config.first_connect_timeout } else { None };
        let limit = limit.into_iter().chain(self.config.no_reconnect_after).min();
        if let Some(limit) = limit.filter(|limit| since.elapsed() >= *limit) {
            milestones::bailing_out(limit);
            return Err(give_up(self.config.in_pod, error));
        }
        let mut wait = self.backoff.next(error.is_definite(), random());
        if let Some(limit) = limit {
            // The last attempt falls on the limit and not behind it.
            wait = wait.min(limit.saturating_sub(since.elapsed()));
        }
        if let Cause::AlreadyConnected { .. } = error.cause {
            let text = "the controller still holds this agent's former connection; waiting for it to let go";
            tracing::info!(target: milestones::TARGET, "{error}: {text}");
        } else {
            milestones::failed_to_connect(error);
            tracing::info!(target: milestones::TARGET, "{}", error.next_step());
        }
        milestones::waiting_before_retry(wait);
        Ok(wait)
    }
}

fn give_up(in_pod: bool, error: &ConnectError) -> u8 {
    tracing::error!(target: milestones::TARGET, "{error}");
    tracing::error!(target: milestones::TARGET, "{}", error.next_step());
    if in_pod {
        last_words(Path::new(last_words::TERMINATION_LOG), &format!("{error}. {}", error.next_step()));
    }
    error.exit_code().code()
}

/// A number from 0 to 1, different in each process and at each call.
fn random() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(Instant::now()) as f64 / u64::MAX as f64
}

/// SIGTERM and SIGINT ask for an end in order; a second one, or `grace` passing, ends the process at once.
fn stop_on_signal(grace: Duration) -> std::io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (tell, stop) = watch::channel(false);
    tokio::spawn(async move {
        let first = tokio::select! { _ = terminate.recv() => 15, _ = interrupt.recv() => 2 };
        tracing::info!(target: milestones::TARGET, "signal {first}: closing the channel");
        let _ = tell.send(true);
        let second = tokio::select! {
            _ = terminate.recv() => 15,
            _ = interrupt.recv() => 2,
            () = tokio::time::sleep(grace) => first,
        };
        tracing::warn!(target: milestones::TARGET, "ending at once");
        std::process::exit(128 + second);
    });
    Ok(stop)
}
