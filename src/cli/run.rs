//! From the process's start to the session and back to an exit code.

use std::io::{IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::entrypoint::{self, Action, Environment, Invocation};
use super::logging::{self, RotatingFile};
use super::{Config, help, manual, workdir};
use crate::REMOTING_VERSION;
use crate::decode::DecodeCommandError;
use crate::probe::print::{self, Format};
use crate::session::config::Transport;
use crate::session::last_words::{self, last_words};
use crate::session::milestones;
use crate::transport::ExitCode as ConnectCode;

/// Failed, for a reason without a code of its own.
pub const FAILED: u8 = 1;
/// The command line or environment can't be used.
pub const USAGE: u8 = 2;

/// No argument file or secret is larger.
const MAX_FILE: u64 = 1024 * 1024;

/// Does what the process was started for.
pub fn main() -> ExitCode {
    let mut arguments = Vec::new();
    for argument in std::env::args_os() {
        match argument.into_string() {
            Ok(argument) => arguments.push(argument),
            Err(argument) => {
                return usage(&format!("An argument is not valid UTF-8: {}", argument.display()));
            }
        }
    }
    // What is not UTF-8 in the environment can't be one of the variables that count.
    let environment: Environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let (program, arguments) = arguments.split_first().map_or(("agent", &[][..]), |(p, a)| (p.as_str(), a));
    let action =
        entrypoint::interpret(&Invocation { program, arguments, environment: &environment, read_file: &read_file });
    match action {
        Err(error) => {
            if environment.contains_key("KUBERNETES_SERVICE_HOST") {
                last_words(Path::new(last_words::TERMINATION_LOG), &error.to_string());
            }
            usage(&error.to_string())
        }
        Ok(Action::Run(config)) => agent(*config),
        Ok(Action::Probe(config)) => probe(&config),
        Ok(Action::Exec(command)) => exec(&command),
        Ok(Action::Demo(arguments)) => ExitCode::from(crate::demo::run(&arguments)),
        Ok(Action::Decode(arguments)) => decode(&arguments),
        Ok(Action::ProbeListen(arguments)) => ExitCode::from(crate::probe::listen::run(&arguments)),
        Ok(Action::ProbePod(arguments)) => ExitCode::from(crate::probe::pod::run(&arguments)),
        Ok(Action::ProbeCompare(arguments)) => ExitCode::from(crate::probe::compare::run(&arguments)),
        Ok(Action::Help) => say(&help::text(&exit_codes())),
        Ok(Action::Manual) => say(&manual::page(&exit_codes())),
        Ok(Action::Completions(shell)) => say(&shell.script()),
        Ok(Action::Healthcheck(address)) => healthcheck(address),
        Ok(Action::Version { own: false }) => say(&format!("{REMOTING_VERSION}\n")),
        Ok(Action::Version { own: true }) => say(&version()),
    }
}

fn exit_codes() -> Vec<(u8, &'static str)> {
    let codes = ConnectCode::ALL.iter().map(|(code, what)| (code.code(), *what));
    codes.chain(crate::probe::catalog::exit_codes()).collect()
}

fn version() -> String {
    // The build script knows it, of release builds.
    let commit = option_env!("AGENT_COMMIT").map(|commit| format!("commit {commit}, ")).unwrap_or_default();
    format!("agent {} ({commit}remoting {REMOTING_VERSION})\n", env!("CARGO_PKG_VERSION"))
}

fn read_file(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(text)
}

fn usage(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{message}\nSee agent --help.");
    ExitCode::from(USAGE)
}

fn say(text: &str) -> ExitCode {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}

/// As a shell's `exec`: 127 if there is no such command, 126 if it can't be run.
fn exec(command: &str) -> ExitCode {
    let error = Command::new(command).exec();
    let _ = writeln!(std::io::stderr(), "{command}: {error}");
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}

fn agent(config: Config) -> ExitCode {
    match start(&config) {
        Ok(()) => run_session(config),
        Err(message) => {
            if config.in_pod {
                last_words(Path::new(last_words::TERMINATION_LOG), &message);
            }
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::from(FAILED)
        }
    }
}

/// Prepares directories and log, and says what the Java agent says up to here.
fn start(config: &Config) -> Result<(), String> {
    let agent_log = config.log.agent_log.as_deref();
    let dirs = workdir::prepare(&config.work_dir, agent_log.is_none()).map_err(|error| error.to_string())?;
    let logs = dirs.as_ref().and_then(|dirs| dirs.logs.as_deref());
    let file = match (agent_log, logs) {
        (Some(path), _) => Some((path, RotatingFile::agent_log(path))),
        (None, Some(dir)) => Some((dir, RotatingFile::in_log_dir(dir))),
        (None, None) => None,
    };
    let file = match file {
        Some((path, opened)) => {
            Some(opened.map_err(|error| format!("Cannot open the log in {}: {error}", path.display()))?)
        }
        None => None,
    };
    logging::install(&config.log, file).map_err(|error| error.to_string())?;

    if let Some(dirs) = &dirs {
        milestones::using_work_dir(&dirs.internal);
    }
    match (agent_log, &dirs) {
        (Some(path), _) => milestones::using_agent_log(path),
        (None, Some(dirs)) => milestones::logs_printed_to(&dirs.internal),
        (None, None) => {}
    }
    for note in &config.notes {
        tracing::info!(target: milestones::TARGET, "{note}");
    }
    if config.no_certificate_check {
        tracing::warn!(target: milestones::TARGET, "Certificate validation for HTTPs endpoints is disabled");
    }
    if config.transport == Transport::Stdio && std::io::stdin().is_terminal() {
        tracing::warn!(
            target: milestones::TARGET,
            "Are you running agent from an interactive console? If so, you are probably using it incorrectly. \
             Without -url it waits for a controller on stdin. See agent --help."
        );
    }
    if let Some(name) = &config.name {
        milestones::setting_up_agent(name);
    }
    milestones::using_remoting_version(REMOTING_VERSION);
    Ok(())
}

/// Prints the report, and nothing else to standard output.
fn probe(config: &Config) -> ExitCode {
    hide();
    let report = match crate::session::probe(config) {
        Ok(report) => report,
        Err(error) => {
            let message = format!("{error}. {}", error.next_step());
            if config.in_pod {
                last_words(Path::new(last_words::TERMINATION_LOG), &message);
            }
            let _ = writeln!(std::io::stderr(), "{message}");
            return ExitCode::from(error.exit_code().code());
        }
    };
    if config.in_pod {
        last_words(Path::new(last_words::TERMINATION_LOG), &print::short::print(&report));
    }
    let text = match config.probe.as_ref().map_or(Format::Table, |settings| settings.format) {
        Format::Table => print::table::print(&report, logging::colours(std::io::stdout().is_terminal())),
        Format::Short => print::short::print(&report),
        Format::Json => print::json::print(&report),
    };
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    ExitCode::from(report.verdict.exit_code)
}

fn run_session(config: Config) -> ExitCode {
    hide();
    ExitCode::from(crate::session::run(config, served))
}

/// Keeps other processes of the same user, builds above all, from reading this one's environment and memory, where the
/// secret is (prctl(2), `PR_SET_DUMPABLE`). What it starts is not concerned: the attribute is set anew by execve(2).
fn hide() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("builds can read this process's environment: {error}");
    }
}

/// What `-jnlpUrl` has led to, which is known only after the log was opened: so the log has no copy in a work directory
/// that comes from there.
fn served(config: Config, arguments: &[String]) -> Result<Config, String> {
    let own_work_dir = config.work_dir.path.is_some();
    let config = config.with_jnlp_arguments(arguments).map_err(|error| error.to_string())?;
    if !own_work_dir && let Some(dirs) = workdir::prepare(&config.work_dir, false).map_err(|error| error.to_string())? {
        milestones::using_work_dir(&dirs.internal);
    }
    if let Some(name) = &config.name {
        milestones::setting_up_agent(name);
    }
    Ok(config)
}

fn healthcheck(address: SocketAddr) -> ExitCode {
    match crate::session::health::check(address) {
        Ok(()) => say("ok\n"),
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "{why}");
            ExitCode::from(FAILED)
        }
    }
}

fn decode(arguments: &[String]) -> ExitCode {
    let arguments: Vec<_> = arguments.iter().map(Into::into).collect();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let result = crate::decode::run(&arguments, &mut out).and_then(|()| Ok(out.flush()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(DecodeCommandError::Write(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error @ DecodeCommandError::Usage(_)) => usage(&error.to_string()),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(FAILED)
        }
    }
}
