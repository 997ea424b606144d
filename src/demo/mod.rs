//! `agent demo`: a controller in miniature, in this process, and the agent connected to it by each transport in turn.

mod console;
pub mod controller;
pub mod pipeline;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

pub use console::Console;

use crate::files::temp::create_temp_dir;
use crate::session::config::{
    Config, HostPort, JvmMode, JvmSettings, LogFormat, LogSettings, Secret, Transport as Way, WorkDirSettings,
};
use controller::end::End;
use controller::{Controller, Settings};
use pipeline::Build;

const HELP: &str = "\
Usage: agent demo [--transport tcp|ws|direct|all] [--json] [-v]

Starts a small stand-in for a Jenkins controller in this process, on loopback,
connects the agent to it by each transport in turn, runs a build on it and
prints what a build's console would show. Needs no network, no root and no
Jenkins; works in a temporary directory, which is removed.

  --transport WAY  tcp (JNLP4 by discovery), ws (WebSocket), direct (JNLP4
                   without HTTP) or all, which is the default
  --json           print the results alone, as JSON
  -v               show the agent's log on standard error; -vv shows more

Exit code: 0 if everything worked, 1 if not, 2 if the options make no sense.
";

/// How long an agent may take to connect, and to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Transport {
    Tcp,
    Ws,
    Direct,
}

impl Transport {
    const ALL: [Transport; 3] = [Transport::Tcp, Transport::Ws, Transport::Direct];

    fn title(self) -> &'static str {
        match self {
            Transport::Tcp => "TCP, JNLP4-connect by discovery",
            Transport::Ws => "WebSocket",
            Transport::Direct => "TCP, JNLP4-connect direct",
        }
    }
}

struct Options {
    transports: Vec<Transport>,
    json: bool,
    verbosity: Option<u8>,
}

fn parse(arguments: &[String]) -> Result<Option<Options>, String> {
    let mut options = Options { transports: Transport::ALL.to_vec(), json: false, verbosity: None };
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument, None),
        };
        match (name, value) {
            ("--transport", value) => {
                options.transports = match value.or_else(|| arguments.next()) {
                    Some("tcp") => vec![Transport::Tcp],
                    Some("ws") => vec![Transport::Ws],
                    Some("direct") => vec![Transport::Direct],
                    Some("all") => Transport::ALL.to_vec(),
                    other => {
                        let other = other.unwrap_or_default();
                        return Err(format!("--transport is tcp, ws, direct or all, not {other:?}"));
                    }
                }
            }
            ("--json", None) => options.json = true,
            ("-v", None) => options.verbosity = Some(options.verbosity.map_or(0, |v| v + 1)),
            ("-vv", None) => options.verbosity = Some(1),
            ("-h" | "--help" | "-help", None) => return Ok(None),
            _ => return Err(format!("agent demo has no option {argument}")),
        }
    }
    Ok(Some(options))
}

/// What came of one transport.
#[derive(Debug, Serialize)]
struct Outcome {
    transport: Transport,
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    connected_ms: u64,
    online_ms: u64,
    build_ms: u64,
    to_agent_bytes: u64,
    to_controller_bytes: u64,
}

/// Runs the demo, and gives the process's exit code.
pub fn run(arguments: &[String]) -> u8 {
    let options = match parse(arguments) {
        Ok(Some(options)) => options,
        Ok(None) => {
            Console { shown: true }.line(HELP.trim_end());
            return 0;
        }
        Err(error) => {
            eprintln!("{error}\nSee agent demo --help.");
            return crate::cli::run::USAGE;
        }
    };
    if let Some(verbosity) = options.verbosity {
        let settings = LogSettings { format: LogFormat::Text, verbosity, agent_log: None };
        if let Err(error) = crate::cli::logging::install(&settings, None) {
            eprintln!("{error}");
        }
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return crate::cli::run::FAILED;
        }
    };
    let console = Console { shown: !options.json };
    let outcomes: Vec<_> =
        options.transports.iter().map(|transport| runtime.block_on(demonstrate(*transport, &console))).collect();
    report(&outcomes, &options);
    u8::from(!outcomes.iter().all(|outcome| outcome.success))
}

fn report(outcomes: &[Outcome], options: &Options) {
    let console = Console { shown: true };
    if options.json {
        let success = outcomes.iter().all(|outcome| outcome.success);
        let report = serde_json::json!({ "success": success, "transports": outcomes });
        return console.line(&report.to_string());
    }
    console.line("");
    console.line("transport  connected    online     build   to agent  to controller");
    for o in outcomes {
        let name = format!("{:?}", o.transport).to_lowercase();
        console.line(&format!(
            "{name:<9} {:>7} ms {:>6} ms {:>6} ms {:>7} KB {:>11} KB  {}",
            o.connected_ms,
            o.online_ms,
            o.build_ms,
            o.to_agent_bytes / 1000,
            o.to_controller_bytes / 1000,
            o.error.as_deref().unwrap_or("SUCCESS"),
        ));
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn demonstrate(transport: Transport, console: &Console) -> Outcome {
    let mut outcome = Outcome {
        transport,
        success: false,
        error: None,
        connected_ms: 0,
        online_ms: 0,
        build_ms: 0,
        to_agent_bytes: 0,
        to_controller_bytes: 0,
    };
    console.line(&format!("=== {}", transport.title()));
    match attempt(transport, console, &mut outcome).await {
        Ok(()) => {
            outcome.success = true;
            console.line("Finished: SUCCESS");
        }
        Err(error) => {
            console.line(&format!("ERROR: {error}"));
            console.line("Finished: FAILURE");
            outcome.error = Some(error.to_string());
        }
    }
    outcome
}

/// A directory that is removed with all that is in it.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

type Problem = Box<dyn std::error::Error + Send + Sync>;

async fn attempt(transport: Transport, console: &Console, outcome: &mut Outcome) -> Result<(), Problem> {
    let directory = Directory(create_temp_dir(&std::env::temp_dir(), "agent-demo")?);
    let controller = Controller::start(Settings::default()).await?;
    let config = config(&controller, transport, &directory.0)?;
    let begun = Instant::now();
    let (tell, ended) = tokio::sync::oneshot::channel();
    // As a process of its own would: with a runtime, signals and all.
    std::thread::Builder::new().name("agent".to_owned()).spawn(move || {
        let _ = tell.send(crate::session::run(config, |config, _| Ok(config)));
    })?;
    let session = controller.accept(PATIENCE).await?;
    outcome.connected_ms = ms(begun.elapsed());
    let end = &session.end;
    let result = serve(end, console, &directory.0, begun, outcome).await;
    let (received, sent) = end.traffic();
    (outcome.to_controller_bytes, outcome.to_agent_bytes) = (received, sent);
    end.close();
    let code = tokio::time::timeout(PATIENCE, ended).await.map_err(|_| "the agent did not end with the channel")??;
    result?;
    if code != 0 {
        return Err(format!("the agent ended with exit code {code}").into());
    }
    Ok(())
}

async fn serve(
    end: &End,
    console: &Console,
    root: &Path,
    begun: Instant,
    outcome: &mut Outcome,
) -> Result<(), Problem> {
    let mut build = Build::new(end, console, root);
    build.come_online().await?;
    outcome.online_ms = ms(begun.elapsed());
    console.line("Agent successfully connected and online");
    build.monitor().await?;
    build.unknown_callable().await?;
    let started = Instant::now();
    build.run().await?;
    outcome.build_ms = ms(started.elapsed());
    end.collect_garbage();
    let leaks = end.settled().await;
    if !leaks.is_empty() {
        return Err(format!("the agent did not give back {leaks:?}").into());
    }
    if let Some(complaint) = end.complaints().first() {
        return Err(format!("the agent broke the protocol: {complaint}").into());
    }
    Ok(())
}

/// An agent's configuration for a controller on loopback, with `root` as its work directory.
fn config(controller: &Controller, transport: Transport, root: &Path) -> Result<Config, base64::DecodeError> {
    let settings = controller.settings();
    let identity = BASE64_STANDARD.decode(controller::IDENTITY.trim())?;
    let direct = HostPort { host: "127.0.0.1".to_owned(), port: controller.agent_port() };
    let (way, urls) = match transport {
        Transport::Tcp => (Way::Tcp, vec![controller.url()]),
        Transport::Ws => (Way::WebSocket, vec![controller.url()]),
        Transport::Direct => (Way::Direct(direct), Vec::new()),
    };
    Ok(Config {
        transport: way,
        urls,
        secret: Some(Secret::new(settings.secret.clone())),
        name: Some(settings.name.clone()),
        tunnel: None,
        instance_identity: (transport == Transport::Direct).then_some(identity),
        protocols: Vec::new(),
        certs: Vec::new(),
        no_certificate_check: false,
        credentials: None,
        proxy_credentials: None,
        websocket_headers: Vec::new(),
        no_keep_alive: false,
        no_reconnect: true,
        no_reconnect_after: None,
        first_connect_timeout: Some(PATIENCE),
        grace: Duration::from_secs(5),
        health_address: None,
        in_pod: false,
        work_dir: WorkDirSettings {
            path: Some(root.to_owned()),
            internal_dir: "remoting".to_owned(),
            fail_if_missing: false,
        },
        // What the demonstration shows is the agent alone.
        jvm: JvmSettings { mode: JvmMode::Never, ..JvmSettings::default() },
        log: LogSettings { format: LogFormat::Text, verbosity: 0, agent_log: None },
        probe: None,
        notes: Vec::new(),
    })
}
