//! The probe of what a session would do: on demand, and once by itself when a start fails.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::config::{Config, Transport};
use super::connect::Connector;
use super::milestones;
use crate::probe::check::Report;
use crate::probe::facts::{Attempt, Way};
use crate::probe::{self, Target, print};
use crate::transport::http::ControllerUrl;
use crate::transport::{Cause, ConnectError};

/// Does what `--probe` asks for, in a runtime of its own.
///
/// # Errors
/// What is wrong with the configuration, as a start would say it.
pub fn probe(config: &Config) -> Result<Report, ConnectError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| ConnectError::new("starting", "", error))?;
    let environment: Vec<_> = std::env::vars_os().collect();
    let target = complete(config, Connector::new(config, &environment)?.target())?;
    let report = runtime.block_on(probe::probe(&target));
    // A thread that waits for the system's resolver can't be ended; the process ends without it.
    runtime.shutdown_timeout(Duration::ZERO);
    Ok(report)
}

/// What there is to probe, of which the connector knows a part.
fn complete(config: &Config, mut target: Target) -> Result<Target, ConnectError> {
    match &config.transport {
        Transport::Tcp => {}
        Transport::WebSocket => target.way = Way::Websocket,
        Transport::Direct(at) => {
            target.way = Way::Direct;
            target.direct = Some((at.host.clone(), at.port));
        }
        // The root is what comes before computer/NAME/jenkins-agent.jnlp.
        Transport::Jnlp(source) => {
            let root = source.request_url.split("/computer/").next().unwrap_or(&source.request_url);
            target.discovery.urls = vec![ControllerUrl::parse(root)?];
        }
        _ => {
            let cause = Cause::Configuration("there is no controller to look for".to_owned());
            return Err(ConnectError::new("probing", "", cause));
        }
    }
    target.work_dir.clone_from(&config.work_dir.path);
    target.in_pod = config.in_pod;
    if let Some(settings) = &config.probe {
        target.authenticate = settings.authenticate;
        target.hold = settings.hold;
        target.timeout = settings.timeout;
    }
    Ok(target)
}

/// The probe that a session makes once, when its first attempt fails or takes long, beside the attempts that follow.
pub(super) struct Diagnosis {
    /// What to look at; taken when the probe begins.
    target: Option<Box<Target>>,
    /// A JNLP file is fetched.
    fetches: bool,
    running: Option<JoinHandle<Report>>,
    report: Option<Report>,
}

impl Diagnosis {
    /// For a session of this configuration. Where there is nothing to probe, nothing is.
    pub(super) fn new(config: &Config, connector: &Connector) -> Self {
        let mut diagnosis = Diagnosis::none();
        diagnosis.fetches = matches!(config.transport, Transport::Jnlp(_));
        diagnosis.target = complete(config, connector.target()).ok().map(Box::new);
        diagnosis
    }

    /// For what needs none.
    pub(super) fn none() -> Self {
        Diagnosis { target: None, fetches: false, running: None, report: None }
    }

    /// An attempt has failed. The first failure is looked into.
    pub(super) fn failed(&mut self, error: &ConnectError) {
        let known = match error.cause {
            // What is wrong with the configuration is known as well as can be.
            Cause::Configuration(_) => true,
            // So is what comes in place of a JNLP file; the way to its server is no matter then.
            Cause::Http { .. } | Cause::Protocol(_) => self.fetches,
            _ => false,
        };
        if !known {
            self.begin(Some(Attempt::from(error)));
        }
    }

    /// Whether there is nothing more to begin.
    pub(super) fn has_begun(&self) -> bool {
        self.target.is_none()
    }

    /// Begins the probe, unless it was begun before. Without an attempt that has failed: one takes long.
    pub(super) fn begin(&mut self, attempt: Option<Attempt>) {
        let Some(mut target) = self.target.take() else { return };
        let pending = attempt.is_none();
        target.attempt = attempt;
        self.running = Some(tokio::spawn(async move {
            let report = probe::probe(&target).await;
            let text = print::short::print(&report);
            if pending && report.verdict.cause().is_none() {
                tracing::info!(target: milestones::TARGET, "Connecting takes long. Probe: {}", text.trim_end());
            } else {
                tracing::warn!(target: milestones::TARGET, "Probe: {}", text.trim_end());
            }
            report
        }));
    }

    /// An attempt has succeeded: what is still looked into is of no interest any more.
    pub(super) fn connected(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }

    /// What was found, for who gives up.
    pub(super) async fn report(&mut self) -> Option<&Report> {
        if let Some(running) = self.running.take() {
            self.report = running.await.ok();
        }
        self.report.as_ref()
    }
}

impl Drop for Diagnosis {
    fn drop(&mut self) {
        self.connected();
    }
}
