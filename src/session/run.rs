//! Connecting for as long as the agent lives.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::config::{Config, JnlpSource, JvmMode, Transport};
use super::connect::Connector;
use super::last_words::{self, last_words};
use super::notify::Notifier;
use super::probe::Diagnosis;
use super::retry::Retry;
use super::status::Status;
use super::{health, jnlp, milestones, serve};
use crate::callables::{Agent, Denied, Jvm, Unfinished};
use crate::channel::Liveness;
use crate::probe::check::Report;
use crate::probe::print;
use crate::process::reaper;
use crate::sidecar;
use crate::transport::{Cause, ConnectError};

/// Ended in order: by a signal, by the controller with `-noReconnect`, or at the end of standard input.
const ORDERLY: u8 = 0;
/// Failed for a reason without a code of its own.
const FAILED: u8 = 1;
/// An attempt that takes longer is looked into while it goes on: packets that are lost are waited for much longer.
const SLOW: Duration = Duration::from_secs(2);
/// What every attempt has, also the one that begins when the time for the first connection ends.
const LEAST: Duration = Duration::from_secs(5);
/// Most threads that calls may hold at a time; further calls wait for one.
const MAX_BLOCKING_THREADS: usize = 256;

/// How many callables that needed the JVM the log names at the end of a connection.
const SUMMARY: usize = 10;

/// Applies to a configuration the arguments that `-jnlpUrl` led to.
pub type Served = fn(Config, &[String]) -> Result<Config, String>;

/// The process's environment, as far as connecting goes by it: proxies and trust.
pub type Environment = [(OsString, OsString)];

/// Runs an agent to its end, and gives the process's exit code. `served` is called at most once, where the transport is
/// [`Transport::Jnlp`].
pub fn run(config: Config, served: Served) -> u8 {
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
    let environment: Vec<_> = std::env::vars_os().collect();
    let code = runtime.block_on(session(config, served, &environment));
    // A thread that reads standard input, or waits in a system call, can't be ended; the process ends without it.
    runtime.shutdown_background();
    code
}

async fn session(config: Config, served: Served, environment: &Environment) -> u8 {
    let (grace, unfinished) = (config.grace, Unfinished::default());
    let notifier = Notifier::from_environment(environment).unwrap_or_else(|error| {
        tracing::warn!(target: milestones::TARGET, "the service manager can't be told anything: {error}");
        None
    });
    let watch = Watch {
        words: config.in_pod.then_some(Path::new(last_words::TERMINATION_LOG)),
        status: Arc::new(Status::new(notifier)),
    };
    let code = live(config, served, environment, &unfinished, &watch).await.unwrap_or_else(|code| code);
    if timeout(grace, unfinished.idle()).await.is_err() {
        tracing::warn!(target: milestones::TARGET, "processes of builds may be left behind");
    }
    code
}

/// Those who watch over the agent.
struct Watch<'a> {
    /// Where last words go.
    words: Option<&'a Path>,
    status: Arc<Status>,
}

impl Watch<'_> {
    /// Says why for the last time, in the words of a probe where one has found a cause.
    fn give_up(&self, error: &ConnectError, report: Option<&Report>) -> u8 {
        tracing::error!(target: milestones::TARGET, "{error}");
        self.status.failed(error);
        let found = report.filter(|report| report.verdict.cause().is_some());
        let (message, code) = match found {
            Some(report) => {
                let verdict = &report.verdict;
                tracing::error!(target: milestones::TARGET, "{}: {} {}", verdict.id, verdict.sentence, verdict.next_step);
                (print::short::print(report), verdict.exit_code)
            }
            None => {
                tracing::error!(target: milestones::TARGET, "{}", error.next_step());
                (format!("{error}. {}", error.next_step()), error.exit_code().code())
            }
        };
        if let Some(path) = self.words {
            last_words(path, &message);
        }
        code
    }
}

/// Gives an exit code, as `Err` where there was no going on.
async fn live(
    config: Config,
    served: Served,
    environment: &Environment,
    unfinished: &Unfinished,
    watch: &Watch<'_>,
) -> Result<u8, u8> {
    tokio::spawn(reaper::run());
    let mut stop = stop_on_signal(config.grace, watch.status.clone()).map_err(|error| {
        tracing::error!(target: milestones::TARGET, "cannot wait for signals: {error}");
        FAILED
    })?;
    if let Some(address) = config.health_address {
        answer_health_checks(address, watch).await?;
    }
    tokio::spawn(watch.status.clone().feed_watchdog());
    let config = match config.transport.clone() {
        Transport::Jnlp(source) => {
            let arguments = obtain(&config, &source, environment, &mut stop, watch).await?;
            served(config, &arguments).map_err(|text| {
                let cause = Cause::Configuration(text);
                let error = ConnectError::new("applying the JNLP file at", source.request_url, cause);
                watch.give_up(&error, None)
            })?
        }
        _ => config,
    };
    let mut connector = Connector::new(&config, environment).map_err(|error| watch.give_up(&error, None))?;
    let mut diagnosis = Diagnosis::new(&config, &connector);
    let repeats = connector.can_reconnect();
    let mut retry = Retry::new(&config, repeats);
    loop {
        let connection =
            persist(&mut retry, &mut stop, watch, &mut diagnosis, async || connector.connect().await).await?;
        let protocol = connection.peer.protocol.to_string();
        watch.status.connected(&protocol);
        let version = connector.controller_version.clone();
        let mut agent = Agent::new(config.work_dir.path.clone(), Some(protocol), version);
        agent.unfinished = unfinished.clone();
        agent.statistics = watch.status.calls.clone();
        agent.denied = Denied(config.jvm.native_deny.clone());
        let jvm = match jvm(&config, &connector, &agent) {
            Ok(settings) => {
                agent.jvm = Jvm::AtHand;
                Some((settings, config.jvm.mode == JvmMode::Always))
            }
            Err(none) => {
                agent.jvm = none;
                None
            }
        };
        if let (Jvm::Missing(why), JvmMode::Always) = (&agent.jvm, config.jvm.mode) {
            tracing::warn!(target: milestones::TARGET, "there will be no JVM: {why}");
        }
        let agent = Arc::new(agent);
        let reason = serve(connection, &agent, Liveness::default(), &watch.status, &mut stop, jvm).await;
        tracing::info!(target: milestones::TARGET, "{reason}");
        tracing::info!(target: milestones::TARGET, "{}", agent.statistics.summary(SUMMARY));
        milestones::terminated();
        if *stop.borrow() || config.no_reconnect || agent.shall_not_reconnect() || !repeats {
            return Ok(ORDERLY);
        }
        watch.status.disconnected(&reason.to_string());
        milestones::performing_on_reconnect();
        milestones::on_reconnect_completed();
        pause(retry.ended(), &mut stop).await?;
    }
}

/// What a JVM is started with, or why there can be none.
fn jvm(config: &Config, connector: &Connector, agent: &Agent) -> Result<sidecar::Settings, Jvm> {
    let wanted = &config.jvm;
    if wanted.mode == JvmMode::Never {
        return Err(Jvm::Never);
    }
    let source = match &wanted.remoting_jar {
        Some(path) => sidecar::jar::Source::File(path.clone()),
        None => connector.remoting_jar().map_err(Jvm::Missing)?,
    };
    let environment = agent.environment.clone();
    Ok(sidecar::Settings {
        java: sidecar::java::find(wanted.java.as_deref(), &environment).map_err(Jvm::Missing)?,
        options: wanted.options.clone(),
        idle: wanted.idle,
        source,
        dir: config.work_dir.path.as_ref().map(|dir| dir.join(&config.work_dir.internal_dir)),
        environment,
    })
}

/// The arguments behind `-jnlpUrl`.
async fn obtain(
    config: &Config,
    source: &JnlpSource,
    environment: &Environment,
    stop: &mut watch::Receiver<bool>,
    watch: &Watch<'_>,
) -> Result<Vec<String>, u8> {
    let connector = Connector::new(config, environment).map_err(|error| watch.give_up(&error, None))?;
    let mut diagnosis = Diagnosis::new(config, &connector);
    let fetch = async || {
        let body = connector.page(&source.request_url).await?;
        jnlp::parse(&body, config.secret.as_ref()).map_err(|error| {
            let cause = match error {
                jnlp::JnlpError::Secret => Cause::Configuration(error.to_string()),
                _ => Cause::Protocol(error.to_string()),
            };
            ConnectError::new("reading the JNLP file at", source.request_url.as_str(), cause)
        })
    };
    persist(&mut Retry::new(config, true), stop, watch, &mut diagnosis, fetch).await
}

/// Tries until it succeeds, for as long as [`Retry`] has it. `Err` is an exit code.
async fn persist<T>(
    retry: &mut Retry,
    stop: &mut watch::Receiver<bool>,
    watch: &Watch<'_>,
    diagnosis: &mut Diagnosis,
    mut attempt: impl AsyncFnMut() -> Result<T, ConnectError>,
) -> Result<T, u8> {
    loop {
        watch.status.connecting();
        let mut attempted = pin!(attempt());
        let attempted = loop {
            let (limit, left) = retry.first_limit().unwrap_or((Duration::MAX, Duration::MAX));
            tokio::select! {
                attempted = &mut attempted => break attempted,
                _ = stop.wait_for(|stop| *stop) => return Err(ORDERLY),
                () = sleep(SLOW), if !diagnosis.has_begun() => diagnosis.begin(None),
                () = sleep(left.max(LEAST)) => break Err(ConnectError::new("connecting", "", Cause::TimedOut(limit))),
            }
        };
        match attempted {
            Ok(value) => {
                retry.connected();
                diagnosis.connected();
                return Ok(value);
            }
            Err(error) => {
                diagnosis.failed(&error);
                let Some(wait) = retry.failed(&error) else {
                    let report = tokio::select! {
                        report = diagnosis.report() => report,
                        _ = stop.wait_for(|stop| *stop) => return Err(ORDERLY),
                    };
                    return Err(watch.give_up(&error, report));
                };
                watch.status.waiting(&error);
                pause(wait, stop).await?;
            }
        }
    }
}

async fn pause(wait: Duration, stop: &mut watch::Receiver<bool>) -> Result<(), u8> {
    tokio::select! {
        () = sleep(wait) => Ok(()),
        _ = stop.wait_for(|stop| *stop) => Err(ORDERLY),
    }
}

/// Begins to listen on `--health-address`.
async fn answer_health_checks(address: SocketAddr, watch: &Watch<'_>) -> Result<(), u8> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let cause = Cause::Configuration(format!("{error}; see --health-address"));
        watch.give_up(&ConnectError::new("listening for health checks on", address.to_string(), cause), None)
    })?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(target: milestones::TARGET, "Health checks and metrics: http://{address}/");
    tokio::spawn(health::serve(listener, watch.status.clone()));
    Ok(())
}

/// SIGTERM and SIGINT ask for an end in order; a second one, or `grace` passing, ends the process at once.
fn stop_on_signal(grace: Duration, status: Arc<Status>) -> std::io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (tell, stop) = watch::channel(false);
    tokio::spawn(async move {
        let first = tokio::select! { _ = terminate.recv() => 15, _ = interrupt.recv() => 2 };
        tracing::info!(target: milestones::TARGET, "signal {first}: closing the channel");
        status.stopping();
        let _ = tell.send(true);
        let second = tokio::select! {
            _ = terminate.recv() => 15,
            _ = interrupt.recv() => 2,
            () = sleep(grace) => first,
        };
        tracing::warn!(target: milestones::TARGET, "ending at once");
        std::process::exit(128 + second);
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::config;
    use crate::transport::ExitCode;

    fn watch(words: Option<&Path>) -> Watch<'_> {
        Watch { words, status: Arc::new(Status::new(None)) }
    }

    fn refused() -> ConnectError {
        ConnectError::new("connecting to", "jenkins:50000", Cause::Refused)
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_until_it_succeeds() {
        let (_tell, mut stop) = watch::channel(false);
        let mut tries = 0;
        let attempt = async || {
            tries += 1;
            if tries < 20 { Err(refused()) } else { Ok(tries) }
        };
        let tried =
            persist(&mut Retry::new(&config(), true), &mut stop, &watch(None), &mut Diagnosis::none(), attempt).await;
        assert_eq!(tried, Ok(20));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_an_exit_code_and_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("termination-log");
        std::fs::write(&log, "").unwrap();
        let (_tell, mut stop) = watch::channel(false);
        let mut limited = config();
        limited.first_connect_timeout = Some(Duration::from_secs(180));
        let attempt = async || Err::<(), _>(refused());
        let tried =
            persist(&mut Retry::new(&limited, true), &mut stop, &watch(Some(&log)), &mut Diagnosis::none(), attempt)
                .await;
        assert_eq!(tried, Err(ExitCode::Refused.code()));
        let words = std::fs::read_to_string(&log).unwrap();
        assert_eq!(
            words,
            "connecting to jenkins:50000: connection refused. \
             Check that the controller is running and that host and port are the ones it listens on."
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_ends_with_the_time_for_the_first_connection() {
        let (_tell, mut stop) = watch::channel(false);
        let begun = tokio::time::Instant::now();
        let mut limited = config();
        limited.first_connect_timeout = Some(Duration::from_secs(20));
        let never = async || std::future::pending::<Result<(), ConnectError>>().await;
        let tried =
            persist(&mut Retry::new(&limited, true), &mut stop, &watch(None), &mut Diagnosis::none(), never).await;
        assert_eq!((tried, begun.elapsed().as_secs()), (Err(ExitCode::TimedOut.code()), 20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_ends_an_attempt_and_a_wait_at_once() {
        let (tell, mut stop) = watch::channel(false);
        tokio::spawn(async move {
            sleep(Duration::from_secs(5)).await;
            tell.send(true)
        });
        let begun = tokio::time::Instant::now();
        let never = async || std::future::pending::<Result<(), ConnectError>>().await;
        let tried =
            persist(&mut Retry::new(&config(), true), &mut stop, &watch(None), &mut Diagnosis::none(), never).await;
        assert_eq!((tried, begun.elapsed().as_secs()), (Err(ORDERLY), 5));
        assert_eq!(pause(Duration::from_secs(3600), &mut stop).await, Err(ORDERLY));
        assert_eq!(begun.elapsed().as_secs(), 5);
    }
}
