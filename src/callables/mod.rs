//! What controllers ask agents to do: one module per owner, each a table of callables by Java class name.
//!
//! A handler gets a [`Call`] and gives a [`Reply`] or throws. It reads the request's object graph, works on files
//! and processes, and reaches the controller through the handles that the call opens (streams, exported objects).
//! It never sees a socket, a frame or another call.

mod archiver;
mod call;
pub mod connect;
#[cfg(test)]
mod corpus;
pub mod diagnostics;
mod dispatch;
pub mod durable_task;
pub mod environment;
mod file_path;
mod git;
pub mod junit;
pub mod launcher;
pub mod listener;
pub mod monitors;
pub mod plugins;
pub mod publishers;
#[cfg(test)]
mod scripted;
pub mod statistics;
#[cfg(test)]
mod steps;
pub mod suid;
#[cfg(test)]
#[allow(dead_code, reason = "each module's tests use a part of it")]
pub(crate) mod testing;
pub mod tools;
pub mod utility_steps;
mod version;
#[cfg(test)]
mod versions;
mod virtual_file;

pub use crate::channel::{Throw, ThrowClass, plain};
pub use call::{Agent, Call, Denied, Exported, Jvm, Outcome, Reply, Unfinished, Work};
pub use dispatch::{dispatch, find, judge, likely_owner};

/// How a callable is run.
#[derive(Clone, Copy)]
pub enum Run {
    /// At once, on the thread that reads the channel: for what neither blocks nor touches a file.
    Inline(fn(&Call) -> Result<Reply, Throw>),
    /// On a thread of its own.
    Blocking(fn(&Call) -> Result<Reply, Throw>),
    /// As [`Run::Blocking`], and may go on as a future when it has to wait long.
    Long(fn(&Call) -> Outcome),
}

/// A callable that this agent executes natively.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Binary name of the Java class. For a `FileCallable`, that of the callable and not of its wrapper.
    pub class: &'static str,
    /// Who sends it: `core`, or the plugin's short name.
    pub owner: &'static str,
    /// What runs it.
    pub run: Run,
}

/// All that this agent executes natively.
pub const TABLES: &[&[Entry]] = &[
    connect::ENTRIES,
    monitors::ENTRIES,
    environment::ENTRIES,
    diagnostics::ENTRIES,
    plugins::ENTRIES,
    file_path::ENTRIES,
    archiver::ENTRIES,
    virtual_file::ENTRIES,
    launcher::ENTRIES,
    durable_task::ENTRIES,
    tools::ENTRIES,
    junit::ENTRIES,
    utility_steps::ENTRIES,
    publishers::ENTRIES,
    git::ENTRIES,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn no_class_has_two_handlers() {
        let mut classes = HashSet::new();
        assert!(TABLES.iter().flat_map(|table| table.iter()).all(|entry| classes.insert(entry.class)));
    }

    #[tokio::test]
    async fn callables_without_fields_have_answers_of_their_type() {
        let (support, envinject) = ("com.cloudbees.jenkins.support", "org.jenkinsci.plugins.envinject.service");
        for (class, expected) in [
            ("hudson.slaves.SlaveComputer$CommunicationProtocol".to_owned(), Ok("java.lang.String")),
            ("hudson.slaves.SlaveComputer$SlaveLogFetcher".to_owned(), Ok("java.util.ArrayList")),
            ("hudson.slaves.SlaveComputer$ListFullEnvironment".to_owned(), Ok("java.util.TreeMap")),
            ("hudson.slaves.SlaveComputer$LoadingCount".to_owned(), Ok("java.lang.Integer")),
            ("hudson.slaves.SlaveComputer$LoadingPrefetchCacheCount".to_owned(), Ok("java.lang.Integer")),
            ("hudson.slaves.SlaveComputer$LoadingTime".to_owned(), Ok("java.lang.Long")),
            ("hudson.model.Computer$ListPossibleNames".to_owned(), Ok("java.util.ArrayList")),
            ("hudson.model.Computer$GetFallbackName".to_owned(), Ok("null")),
            ("hudson.model.Computer$DumpExportTableTask".to_owned(), Ok("java.lang.String")),
            ("hudson.util.RemotingDiagnostics$GetSystemProperties".to_owned(), Ok("java.util.TreeMap")),
            ("hudson.util.RemotingDiagnostics$GetThreadDump".to_owned(), Ok("java.util.TreeMap")),
            ("hudson.util.RemotingDiagnostics$GetHeapDump".to_owned(), Err("hudson.AbortException")),
            ("hudson.util.RemotingDiagnostics$Script".to_owned(), Err("hudson.AbortException")),
            ("hudson.remoting.PreloadJarTask2".to_owned(), Ok("java.lang.Boolean")),
            (format!("{envinject}.EnvInjectMasterEnvVarsRetriever"), Ok("hudson.EnvVars")),
            (
                format!("{envinject}.EnvInjectActionSetter$MapEnvInjectExceptionMasterToSlaveCallable"),
                Ok("java.util.TreeMap"),
            ),
            (format!("{support}.SupportPlugin$LogFetcher"), Ok("java.util.ArrayList")),
            (format!("{support}.impl.AboutJenkins$GetJavaInfo"), Ok("java.lang.String")),
            (format!("{support}.impl.FileDescriptorLimit$GetUlimit"), Ok("java.lang.String")),
            (format!("{support}.impl.ThreadDumps$GetThreadDump"), Ok("java.lang.String")),
            (
                format!("{support}.util.SystemPlatform$GetCurrentPlatform"),
                Ok("com.cloudbees.jenkins.support.util.SystemPlatform"),
            ),
        ] {
            let agent = Arc::new(Agent::new(None, Some("WebSocket".to_owned()), None));
            let answer = testing::ask(&agent, |graph| {
                let desc = graph.serializable(&class, 1, &[], None);
                graph.object(desc).build()
            });
            let answer = answer.await;
            let answer = answer.as_ref().map(|graph| graph.root().map_or("null".into(), |view| view.class_name()));
            assert_eq!(answer.as_deref().map_err(|class| class.as_str()), expected, "{class}");
        }
    }

    #[tokio::test]
    async fn a_callable_in_a_lock_is_executed() {
        let agent = Arc::new(Agent::new(None, None, None));
        let answer = testing::ask(&agent, |graph| {
            let inner = "org.csanchez.jenkins.plugins.kubernetes.KubernetesSlave$SlaveDisconnector";
            let inner = graph.serializable(inner, 8683427258340193283, &[], None);
            let inner = graph.object(inner).build();
            let fields = [("delegate", "Lhudson/remoting/Callable;")];
            let desc = graph.serializable("hudson.model.Queue$LockedHRCallable", 1, &fields, None);
            graph.object(desc).set_ref("delegate", inner).build()
        });
        assert!(answer.await.unwrap().root().is_none());
        assert!(agent.shall_not_reconnect());
    }
}
