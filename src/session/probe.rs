//! The probe of what a session would do.

use std::time::Duration;

use super::config::{Config, Transport};
use super::connect::Connector;
use super::run::Environment;
use crate::probe::check::Report;
use crate::probe::facts::{Attempt, Way};
use crate::probe::{self, Target};
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
    let target = target(config, &environment, None)?;
    let report = runtime.block_on(probe::probe(&target));
    // A thread that waits for the system's resolver can't be ended; the process ends without it.
    runtime.shutdown_timeout(Duration::ZERO);
    Ok(report)
}

/// What there is to probe; `attempt` is what a start has just met.
///
/// # Errors
/// As [`Connector::new`]; and where there is nothing to probe.
pub(super) fn target(
    config: &Config,
    environment: &Environment,
    attempt: Option<Attempt>,
) -> Result<Target, ConnectError> {
    let mut target = Connector::new(config, environment)?.target();
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
    target.attempt = attempt;
    if let Some(settings) = &config.probe {
        target.authenticate = settings.authenticate;
        target.hold = settings.hold;
        target.timeout = settings.timeout;
    }
    Ok(target)
}
