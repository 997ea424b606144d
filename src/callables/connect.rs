//! What a controller asks while an agent connects (`hudson.slaves.SlaveComputer.setChannel` and the computer
//! listeners of core), and remoting's own callables.
//!
//! An exception here is mostly fatal: the controller closes the connection.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Call, Entry, Reply, Run, Throw};
use crate::REMOTING_VERSION;
use crate::channel::Liveness;
use crate::java_class;

const fn core(class: &'static str, run: Run) -> Entry {
    Entry { class, owner: "core", run }
}

const fn remoting(class: &'static str, run: Run) -> Entry {
    Entry { class, owner: "remoting", run }
}

/// The callables of this module.
pub const ENTRIES: &[Entry] = &[
    core("hudson.slaves.SlaveComputer$SlaveVersion", Run::Inline(|call| Ok(call.string(REMOTING_VERSION)))),
    core("hudson.slaves.SlaveComputer$CommunicationProtocol", Run::Inline(communication_protocol)),
    core("hudson.slaves.SlaveComputer$DetectOS", Run::Inline(|call| Ok(call.bool(true)))),
    core("hudson.slaves.SlaveComputer$DetectDefaultCharset", Run::Inline(|call| Ok(call.string("UTF-8")))),
    core("hudson.slaves.SlaveComputer$AbsolutePath", Run::Inline(absolute_path)),
    // Keeps log records for SlaveLogFetcher. This agent's log is not made of java.util.logging records, so there are none.
    core("hudson.slaves.SlaveComputer$SlaveInitializer", Run::Inline(null)),
    core("hudson.slaves.SlaveComputer$SlaveLogFetcher", Run::Inline(no_log_records)),
    // Names of Java loggers mean nothing here.
    core("hudson.logging.LogRecorder$SetLevel", Run::Inline(null)),
    core("hudson.slaves.ChannelPinger$SetUpRemotePing", Run::Inline(set_up_remote_ping)),
    core("hudson.slaves.ConnectionActivityMonitor$PingCommand", Run::Inline(null)),
    // True would mean that standard output was taken from the channel and given to the process.
    core("jenkins.slaves.StandardOutputSwapper$ChannelSwapper", Run::Inline(r#false)),
    core("jenkins.util.SystemProperties$AgentCopier$CopySystemProperties", Run::Inline(copy_system_properties)),
    // Null is what an agent says that can't replace its own process.
    core("jenkins.slaves.restarter.JnlpSlaveRestarterInstaller$FindEffectiveRestarters", Run::Inline(null)),
    // Until 2.347: whether the agent could be installed as a service.
    core("org.jenkinsci.modules.launchd_slave_installer.SlaveInstallerFactoryImpl$Predicate", Run::Inline(r#false)),
    core("org.jenkinsci.modules.systemd_slave_installer.SlaveInstallerFactoryImpl$HasSystemd", Run::Inline(r#false)),
    core("org.jenkinsci.modules.upstart_slave_installer.SlaveInstallerFactoryImpl$HasUpstart", Run::Inline(r#false)),
    remoting("hudson.remoting.PingThread$Ping", Run::Inline(null)),
    // Answered when the pipe operations before it are done, as every request is (`Request.lastIoId`).
    remoting("hudson.remoting.Channel$IOSyncer", Run::Inline(null)),
    remoting("hudson.remoting.Channel$SetMaximumBytecodeLevel", Run::Inline(null)),
    // False is what an agent says that had the classes already.
    remoting("hudson.remoting.PreloadJarTask", Run::Inline(r#false)),
    remoting("hudson.remoting.PreloadJarTask2", Run::Inline(r#false)),
];

fn null(call: &Call) -> Result<Reply, Throw> {
    Ok(call.null())
}

fn r#false(call: &Call) -> Result<Reply, Throw> {
    Ok(call.bool(false))
}

/// A `List<LogRecord>`.
pub(super) fn no_log_records(call: &Call) -> Result<Reply, Throw> {
    Ok(call.reply(|graph| graph.array_list(&[])))
}

fn communication_protocol(call: &Call) -> Result<Reply, Throw> {
    Ok(call.agent().protocol.as_deref().map_or_else(|| call.null(), |name| call.string(name)))
}

java_class! {
    struct AbsolutePath {
        relative_path: String = "relativePath",
    }
}

fn absolute_path(call: &Call) -> Result<Reply, Throw> {
    let request = AbsolutePath::read(call.view())?;
    let directory = std::env::current_dir()
        .map_err(|error| Throw::io(format!("the agent's current directory is not known: {error}")))?;
    Ok(call.string(&java_absolute(&directory, &request.relative_path).to_string_lossy()))
}

/// `java.io.File.getAbsolutePath`: joined to the current directory, repeated and trailing slashes taken out, `.` and
/// `..` left as they are.
fn java_absolute(directory: &Path, path: &str) -> PathBuf {
    let mut text = directory.to_string_lossy().into_owned();
    if path.starts_with('/') {
        text.clear();
    }
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if !text.ends_with('/') {
            text.push('/');
        }
        text.push_str(part);
    }
    if text.is_empty() {
        text.push('/');
    }
    text.into()
}

java_class! {
    struct SetUpRemotePing {
        timeout_seconds: i32 = "pingTimeoutSeconds",
        interval_seconds: i32 = "pingIntervalSeconds",
    }
}

/// The longest that a controller can have this agent wait for a sign of life.
const MAX_PATIENCE: Duration = Duration::from_secs(3600);

impl SetUpRemotePing {
    /// What it comes to: pings at least as often as this agent sends them anyway, and the controller's time-out for the
    /// answer. `None` where Java's agent would send no pings: then this agent goes by its own rules.
    fn liveness(&self) -> Option<Liveness> {
        let seconds = |number: i32| u64::try_from(number).ok().filter(|n| *n > 0).map(Duration::from_secs);
        let (interval, timeout) = (seconds(self.interval_seconds)?, seconds(self.timeout_seconds)?);
        Some(Liveness { idle: interval.min(Liveness::default().idle), patience: timeout.min(MAX_PATIENCE) })
    }
}

fn set_up_remote_ping(call: &Call) -> Result<Reply, Throw> {
    if let Some(liveness) = SetUpRemotePing::read(call.view())?.liveness() {
        call.link().set_liveness(liveness);
    }
    Ok(call.null())
}

fn copy_system_properties(call: &Call) -> Result<Reply, Throw> {
    let snapshot = call.view().require("snapshot")?.string_map()?;
    let mut properties = call.agent().properties.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    *properties = snapshot.into_iter().collect();
    Ok(call.null())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::callables::{Agent, testing};
    use crate::object::{Graph, Value};

    #[test]
    fn absolute_paths_as_java_makes_them() {
        for (path, expected) in [
            ("agent", "/home/me/agent"),
            ("a//b/../c/", "/home/me/a/b/../c"),
            ("./x", "/home/me/./x"),
            ("", "/home/me"),
            ("/", "/"),
            ("//opt//agent/", "/opt/agent"),
        ] {
            assert_eq!(java_absolute(Path::new("/home/me"), path), Path::new(expected), "{path}");
        }
        assert_eq!(java_absolute(Path::new("/"), "x"), Path::new("/x"));
    }

    fn agent() -> Arc<Agent> {
        Arc::new(Agent::new(None, Some("WebSocket".to_owned()), Some("2.293".to_owned())))
    }

    #[tokio::test]
    async fn recorded_requests_get_the_recorded_answers() {
        // Two answers differ by intent: SlaveVersion's, and FindEffectiveRestarters', whose Java agent could restart.
        for (callable, expected) in [
            ("hudson.slaves.SlaveComputer$DetectOS", Some("true")),
            ("hudson.slaves.SlaveComputer$DetectDefaultCharset", Some("UTF-8")),
            ("hudson.slaves.SlaveComputer$SlaveInitializer", None),
            ("hudson.slaves.ChannelPinger$SetUpRemotePing", None),
            ("jenkins.slaves.StandardOutputSwapper$ChannelSwapper", Some("false")),
            ("jenkins.util.SystemProperties$AgentCopier$CopySystemProperties", None),
            ("org.jenkinsci.modules.launchd_slave_installer.SlaveInstallerFactoryImpl$Predicate", Some("false")),
            ("org.jenkinsci.modules.systemd_slave_installer.SlaveInstallerFactoryImpl$HasSystemd", Some("false")),
            ("org.jenkinsci.modules.upstart_slave_installer.SlaveInstallerFactoryImpl$HasUpstart", Some("false")),
            ("hudson.remoting.PingThread$Ping", None),
        ] {
            let text = |graph: &Graph| {
                graph.root().map(|view| match view.unboxed() {
                    Some(Value::Bool(value)) => value.to_string(),
                    _ => view.as_str().unwrap().into_owned(),
                })
            };
            let (ours, theirs) = (testing::replay(&agent(), callable).await, testing::answer(callable));
            assert_eq!(text(&ours).as_deref(), expected, "{callable}");
            assert_eq!(text(&theirs).as_deref(), expected, "{callable}");
        }
        let version = testing::replay(&agent(), "hudson.slaves.SlaveComputer$SlaveVersion").await;
        assert_eq!(version.root().unwrap().as_str().unwrap(), REMOTING_VERSION);
        let restarters = "jenkins.slaves.restarter.JnlpSlaveRestarterInstaller$FindEffectiveRestarters";
        assert!(testing::replay(&agent(), restarters).await.root().is_none());
    }

    #[tokio::test]
    async fn what_the_controller_sets_is_kept() {
        let agent = agent();
        testing::replay(&agent, "jenkins.util.SystemProperties$AgentCopier$CopySystemProperties").await;
        let key = "hudson.util.StreamTaskListener.AUTO_FLUSH".to_owned();
        assert_eq!(*agent.properties.lock().unwrap(), HashMap::from([(key, None)]));
    }

    #[test]
    fn pings_are_as_frequent_as_this_agents_and_as_patient_as_the_controllers() {
        for (interval_seconds, timeout_seconds, idle, patience) in
            [(300, 240, 60, 240), (10, 5, 10, 5), (i32::MAX, i32::MAX, 60, 3600), (1, 1, 1, 1)]
        {
            let liveness = SetUpRemotePing { interval_seconds, timeout_seconds }.liveness().unwrap();
            assert_eq!((liveness.idle.as_secs(), liveness.patience.as_secs()), (idle, patience));
        }
    }

    #[test]
    fn pings_without_an_interval_or_time_out_are_none() {
        for (interval_seconds, timeout_seconds) in [(0, 240), (-1, 240), (300, 0), (i32::MIN, i32::MIN)] {
            assert!(SetUpRemotePing { interval_seconds, timeout_seconds }.liveness().is_none());
        }
    }
}
