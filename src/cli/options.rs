//! The options: one table, the parser that walks it, and the merge of command line and environment.
//!
//! The spelling is that of `hudson.remoting.Launcher` and, of the deprecated ones, of
//! `hudson.remoting.jnlp.Main`; how a command line is taken apart is args4j's
//! `CmdLineParser.parseArgument`: `-option value`, `-option=value`, `@file` for the arguments in a file,
//! one a line. Beyond args4j, every option also takes two dashes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;

use super::{ReadFile, UsageError};
use crate::probe::{self, print::Format};
use crate::session::config::{
    CertSource, Config, HostPort, JnlpSource, JvmMode, JvmSettings, LogFormat, LogSettings, ProbeSettings, Secret,
    Transport, Tunnel, WorkDirSettings,
};
use crate::session::duration;

/// What an option is about; the help's chapters, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Which controller, which agent, and the way there.
    Connection,
    /// Trust, proxies, headers.
    Network,
    /// When to give up.
    Lifetime,
    /// The JVM for what is not native.
    Jvm,
    /// Directories and logs.
    Files,
    /// Being watched over.
    Health,
    /// Why it does not connect.
    Diagnosis,
    /// About the program.
    Program,
    /// Deprecated or without effect.
    Deprecated,
}

/// One option, whichever of its names was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each is documented by its row in OPTIONS
pub enum Opt {
    Url,
    Secret,
    Name,
    WebSocket,
    WebSocketHeader,
    Tunnel,
    Direct,
    InstanceIdentity,
    Protocols,
    JnlpUrl,
    ConnectTo,
    Tcp,
    Credentials,
    ProxyCredentials,
    Cert,
    NoCertificateCheck,
    NoKeepAlive,
    NoReconnect,
    NoReconnectAfter,
    FirstConnectTimeout,
    Grace,
    Jvm,
    JvmIdle,
    JvmOpts,
    Java,
    RemotingJar,
    NativeDeny,
    WorkDir,
    InternalDir,
    FailIfWorkDirIsMissing,
    AgentLog,
    LogFormat,
    Verbose,
    HealthAddress,
    Healthcheck,
    Probe,
    ProbeAuth,
    ProbeHold,
    ProbeTimeout,
    Help,
    Version,
    JarCache,
    ClassPath,
    LoggingConfig,
    Text,
    Ping,
    Headless,
    Auth,
}

/// A row of [`OPTIONS`].
#[derive(Debug)]
pub struct Row {
    /// Which one.
    pub opt: Opt,
    /// Its names without dashes, the one to use first.
    pub names: &'static [&'static str],
    /// The name of its value; `None` for a switch.
    pub value: Option<&'static str>,
    /// The value may be left out; it is only taken from behind a `=`.
    pub optional: bool,
    /// The help's chapter.
    pub group: Group,
    /// Options that must be there too.
    pub requires: &'static [Opt],
    /// Options that must not be there.
    pub forbids: &'static [Opt],
    /// Why it is accepted without effect, if it is.
    pub no_effect: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
}

const fn row(
    opt: Opt,
    names: &'static [&'static str],
    value: Option<&'static str>,
    group: Group,
    help: &'static str,
) -> Row {
    Row { opt, names, value, optional: false, group, requires: &[], forbids: &[], no_effect: None, help }
}

impl Row {
    const fn requires(mut self, requires: &'static [Opt]) -> Self {
        self.requires = requires;
        self
    }

    const fn forbids(mut self, forbids: &'static [Opt]) -> Self {
        self.forbids = forbids;
        self
    }

    const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    const fn no_effect(mut self, reason: &'static str) -> Self {
        self.no_effect = Some(reason);
        self
    }

    /// The name to use, with one dash where `agent.jar` has the option.
    pub fn spelling(&self) -> String {
        let name = self.names[0];
        let own = matches!(self.opt, Opt::FirstConnectTimeout | Opt::Grace | Opt::LogFormat)
            || matches!(self.group, Group::Jvm | Group::Health | Group::Diagnosis);
        format!("{}{name}", if own { "--" } else { "-" })
    }
}

/// Every option. Rules between options are `Launcher`'s (`depends`, `forbids`), but for two that are
/// relaxed: `-instanceIdentity` and `-protocols` also stand without `-direct`, and then restrict what
/// discovery may find.
pub const OPTIONS: &[Row] = &[
    row(Opt::Url, &["url"], Some("URL"), Group::Connection,
        "Root URL of the controller, such as https://jenkins.example.org/. Several are tried in turn (TCP only)."),
    row(Opt::Secret, &["secret"], Some("HEX_SECRET"), Group::Connection,
        "The agent's secret, as its page on the controller shows it. Prefer \"-secret @FILE\": an argument is visible to every process of the machine."),
    row(Opt::Name, &["name"], Some("NAME"), Group::Connection,
        "The agent's name on the controller."),
    row(Opt::WebSocket, &["webSocket"], None, Group::Connection,
        "Connect by WebSocket through the controller's HTTP(S) port, and not to its TCP agent port.")
        .requires(&[Opt::Url])
        .forbids(&[Opt::Direct, Opt::Tunnel, Opt::Credentials, Opt::NoKeepAlive]),
    row(Opt::Tunnel, &["tunnel"], Some("HOST:PORT"), Group::Connection,
        "Connect to this host and port in place of the discovered ones. HOST: and :PORT replace one of them."),
    row(Opt::Direct, &["direct", "directConnection"], Some("HOST:PORT"), Group::Connection,
        "Connect to this TCP agent port without asking the controller over HTTP first.")
        .requires(&[Opt::InstanceIdentity])
        .forbids(&[Opt::JnlpUrl, Opt::Url, Opt::Tunnel]),
    row(Opt::InstanceIdentity, &["instanceIdentity"], Some("BASE64"), Group::Connection,
        "The controller's instance identity (the X-Instance-Identity header of its HTTP answers). Mandatory for -direct; otherwise a pin: no other controller is accepted."),
    row(Opt::Protocols, &["protocols"], Some("NAME[,NAME...]"), Group::Connection,
        "The only agent protocols to use."),

    row(Opt::Cert, &["cert"], Some("@FILE"), Group::Network,
        "Trust the PEM certificates of this file too, all of them. May be given several times. The text of a certificate is taken as well.")
        .forbids(&[Opt::NoCertificateCheck]),
    row(Opt::NoCertificateCheck, &["noCertificateCheck", "disableHttpsCertValidation"], None, Group::Network,
        "Do not verify HTTPS certificates. A last resort: whoever sits in between can read the secret."),
    row(Opt::Credentials, &["credentials", "jnlpCredentials"], Some("USER:PASSWORD"), Group::Network,
        "HTTP basic authentication towards the controller. @FILE reads it from a file."),
    row(Opt::ProxyCredentials, &["proxyCredentials"], Some("USER:PASSWORD"), Group::Network,
        "HTTP basic authentication towards the proxy. @FILE reads it from a file."),
    row(Opt::WebSocketHeader, &["webSocketHeader"], Some("NAME=VALUE"), Group::Network,
        "Send this HTTP header when opening the WebSocket, as a reverse proxy may want. May be given several times.")
        .requires(&[Opt::WebSocket]),
    row(Opt::NoKeepAlive, &["noKeepAlive"], None, Group::Network,
        "Do not enable TCP keepalive on the connection."),

    row(Opt::NoReconnect, &["noReconnect", "noreconnect"], None, Group::Lifetime,
        "When the connection fails or ends, exit."),
    row(Opt::NoReconnectAfter, &["noReconnectAfter"], Some("DURATION"), Group::Lifetime,
        "Exit after having tried to reconnect for this long: 30s, 5m, 2h, 1d.")
        .forbids(&[Opt::NoReconnect]),
    row(Opt::FirstConnectTimeout, &["first-connect-timeout"], Some("DURATION"), Group::Lifetime,
        "Exit when the first connection does not come about within this time; 0 is never. Default: 3m in a Kubernetes pod, 0 elsewhere."),
    row(Opt::Grace, &["grace"], Some("DURATION"), Group::Lifetime,
        "How long SIGTERM and SIGINT leave for closing the connection in order. Default: 10s."),

    row(Opt::Jvm, &["jvm"], Some("never|auto|always"), Group::Jvm,
        "When to run a Java virtual machine beside the agent, for what it does not do itself: auto, the default, when the first such call comes; always, from the beginning; never."),
    row(Opt::JvmIdle, &["jvm-idle"], Some("DURATION"), Group::Jvm,
        "Stop the JVM after it had nothing to do for this long; 0 is never. Default: 10m."),
    row(Opt::JvmOpts, &["jvm-opts"], Some("OPTIONS"), Group::Jvm,
        "Options for the JVM, such as \"-Xmx512m\"; after the agent's own, which keep it small."),
    row(Opt::Java, &["java"], Some("FILE"), Group::Jvm,
        "The java program. Default: that of JAVA_HOME, else the first on PATH."),
    row(Opt::RemotingJar, &["remoting-jar"], Some("FILE"), Group::Jvm,
        "What the JVM runs, in place of the agent.jar that the controller offers. Without -url it is the only way to have a JVM."),
    row(Opt::NativeDeny, &["native-deny"], Some("PATTERN[,PATTERN...]"), Group::Jvm,
        "Leave these callables (class names with * and ?) to the JVM although the agent could do them: a way out when it does one wrong. May be given several times."),

    row(Opt::WorkDir, &["workDir"], Some("DIR"), Group::Files,
        "The agent's directory. Logs go to remoting/logs within."),
    row(Opt::InternalDir, &["internalDir"], Some("NAME"), Group::Files,
        "The name of the agent's own directory within the work directory. Default: remoting.")
        .requires(&[Opt::WorkDir]),
    row(Opt::FailIfWorkDirIsMissing, &["failIfWorkDirIsMissing"], None, Group::Files,
        "Exit when the work directory or the internal one is not there yet: a mount is missing.")
        .requires(&[Opt::WorkDir]),
    row(Opt::AgentLog, &["agentLog", "slaveLog"], Some("FILE"), Group::Files,
        "Copy the log to this file, and not to the work directory's."),
    row(Opt::LogFormat, &["log-format"], Some("text|json"), Group::Files,
        "text: as the Java agent logs. json: an object a line."),
    row(Opt::Verbose, &["v", "vv", "verbose"], None, Group::Files,
        "Log more; twice or -vv: everything."),

    row(Opt::HealthAddress, &["health-address"], Some("[IP:]PORT"), Group::Health,
        "Answer over HTTP there: /healthz (200 while the process makes progress), /readyz (200 while the channel is up), /metrics (Prometheus). Without an IP: 127.0.0.1. Not for the jnlp container of a pod template: the kubernetes plugin looks at the agent only once its pod is ready."),
    row(Opt::Healthcheck, &["healthcheck"], None, Group::Health,
        "Ask the agent that listens on --health-address whether its channel is up, and exit with 0 if it is and 1 if not. For a container's health check."),
    row(Opt::Probe, &["probe"], Some("table|short|json"), Group::Diagnosis,
        "With the options of a start: find out in seconds why it can't reach the controller, and say what to do. The secret is not sent; -secret and -name may be left out.")
        .optional(),
    row(Opt::ProbeAuth, &["probe-auth"], None, Group::Diagnosis,
        "Log in too, which takes the node's place for a moment.")
        .requires(&[Opt::Probe, Opt::Secret, Opt::Name]),
    row(Opt::ProbeHold, &["probe-hold"], Some("DURATION"), Group::Diagnosis,
        "Keep an idle connection for this long, such as 90s, and see whether something cuts it. For a WebSocket this needs --probe-auth.")
        .requires(&[Opt::Probe]),
    row(Opt::ProbeTimeout, &["probe-timeout"], Some("DURATION"), Group::Diagnosis,
        "How long all but that may take. Default: 15s.")
        .requires(&[Opt::Probe]),

    row(Opt::Help, &["help", "h", "?"], None, Group::Program,
        "Show this text."),
    row(Opt::Version, &["version"], None, Group::Program,
        "One dash: the remoting version this agent stands for, as agent.jar prints it. Two: this agent's own too."),

    row(Opt::JnlpUrl, &["jnlpUrl"], Some("URL"), Group::Deprecated,
        "Take -url, -secret, -name and others from this jenkins-agent.jnlp. Use the options themselves.")
        .forbids(&[Opt::Direct, Opt::Name, Opt::Tunnel, Opt::Url, Opt::WebSocket]),
    row(Opt::ConnectTo, &["connectTo"], Some("HOST:PORT"), Group::Deprecated,
        "Speak the protocol of stdin and stdout over a TCP connection to there."),
    row(Opt::Tcp, &["tcp"], Some("FILE"), Group::Deprecated,
        "Listen on some port, write its number to the file, and speak the protocol of stdin and stdout to who connects."),
    row(Opt::JarCache, &["jar-cache"], Some("DIR"), Group::Deprecated, "No effect.")
        .no_effect("this agent downloads no jars"),
    row(Opt::ClassPath, &["cp", "classpath"], Some("PATH"), Group::Deprecated, "No effect.")
        .no_effect("this agent loads no classes"),
    row(Opt::LoggingConfig, &["loggingConfig"], Some("FILE"), Group::Deprecated, "No effect.")
        .no_effect("there is no java.util.logging here; see -agentLog, -v and --log-format"),
    row(Opt::Text, &["text"], None, Group::Deprecated, "No effect.")
        .no_effect("this agent speaks the binary mode only"),
    row(Opt::Ping, &["ping"], None, Group::Deprecated, "No effect.")
        .no_effect("deprecated; this agent always pings"),
    row(Opt::Headless, &["headless"], None, Group::Deprecated, "No effect.")
        .no_effect("deprecated; this agent is always headless"),
    row(Opt::Auth, &["auth"], Some("USER:PASSWORD"), Group::Deprecated, "No effect.")
        .no_effect("deprecated; use -credentials or -proxyCredentials"),
];

fn row_of(opt: Opt) -> &'static Row {
    OPTIONS.iter().find(|row| row.opt == opt).expect("every option has a row, a test says")
}

/// The row and the bare name that an argument such as `-url`, `--url` or `-url=x` names.
pub(crate) fn find(argument: &str) -> Option<(&'static Row, &str)> {
    let name = argument.strip_prefix("--").or(argument.strip_prefix('-'))?;
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    let row = OPTIONS.iter().find(|row| row.names.contains(&name))?;
    Some((row, name))
}

/// One option as it was given.
#[derive(Debug, Clone)]
pub struct Given {
    /// Which one.
    pub opt: Opt,
    /// As written, up to `=`.
    pub spelling: String,
    /// Its value; empty for a switch.
    pub value: String,
    /// The environment variable it comes from, if it does.
    pub variable: Option<&'static str>,
}

impl Given {
    fn origin(&self) -> &str {
        self.variable.unwrap_or(&self.spelling)
    }
}

/// Options and positional arguments from one source.
#[derive(Debug, Default, Clone)]
pub struct Arguments {
    /// The options in their order.
    pub given: Vec<Given>,
    /// The deprecated positional arguments: secret and name.
    pub positional: Vec<String>,
}

impl Arguments {
    /// Whether the option is there.
    pub fn has(&self, opt: Opt) -> bool {
        self.given.iter().any(|given| given.opt == opt)
    }
}

/// Takes a command line apart.
///
/// # Errors
/// An unknown option, an option without its value, or an unreadable `@file`.
pub fn parse(
    arguments: &[String],
    variable: Option<&'static str>,
    read_file: ReadFile<'_>,
) -> Result<Arguments, UsageError> {
    let mut result = Arguments::default();
    let mut tokens = expand_at_files(arguments, read_file)?.into_iter();
    while let Some(token) = tokens.next() {
        if !token.starts_with('-') {
            result.positional.push(token);
            continue;
        }
        let Some((row, name)) = find(&token) else {
            return Err(unknown(&token));
        };
        let (spelling, attached) = match token.split_once('=') {
            Some((spelling, value)) => (spelling.to_owned(), Some(value.to_owned())),
            None => (token.clone(), None),
        };
        let value = if row.optional {
            attached.unwrap_or_default()
        } else if row.value.is_some() {
            attached
                .or_else(|| tokens.next())
                .ok_or_else(|| UsageError(format!("Option \"{spelling}\" takes an operand")))?
        } else {
            match attached.as_deref() {
                None | Some("true") => name.to_owned(),
                Some("false") => continue,
                Some(other) => {
                    return Err(UsageError(format!("\"{other}\" is not a legal boolean value")));
                }
            }
        };
        result.given.push(Given { opt: row.opt, spelling, value, variable });
    }
    Ok(result)
}

/// args4j's `@file`, before anything else and once only. The value of `-cert` stays as it is: there
/// the `@` is the option's own (args4j takes it away from `Launcher`, against `-cert`'s documentation).
fn expand_at_files(arguments: &[String], read_file: ReadFile<'_>) -> Result<Vec<String>, UsageError> {
    let mut expanded: Vec<String> = Vec::with_capacity(arguments.len());
    let mut is_cert = false;
    for argument in arguments {
        match argument.strip_prefix('@') {
            Some(path) if !is_cert => {
                let text = read_file(Path::new(path))
                    .map_err(|error| UsageError(format!("Cannot read the arguments in {path}: {error}")))?;
                expanded.extend(lines(&text).map(str::to_owned));
            }
            _ => expanded.push(argument.clone()),
        }
        is_cert = expanded
            .last()
            .is_some_and(|last| !last.contains('=') && find(last).is_some_and(|(row, _)| row.opt == Opt::Cert));
    }
    Ok(expanded)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn unknown(token: &str) -> UsageError {
    let written = token.split_once('=').map_or(token, |(name, _)| name);
    let bare = written.trim_start_matches('-');
    let near = OPTIONS
        .iter()
        .flat_map(|row| row.names.iter().map(move |name| (row, *name)))
        .map(|(row, name)| (distance(bare, name), row, name))
        .filter(|&(distance, _, name)| distance <= 2 && distance < name.len())
        .min_by_key(|&(distance, ..)| distance);
    let hint = match near {
        Some((_, row, name)) if name == row.names[0] => {
            format!("; did you mean \"{}\"?", row.spelling())
        }
        Some((_, _, name)) => format!("; did you mean \"-{name}\"?"),
        None => String::new(),
    };
    UsageError(format!("\"{written}\" is not a valid option{hint}"))
}

/// Edit distance without regard to case; more than any useful one for long texts.
fn distance(left: &str, right: &str) -> usize {
    let (left, right) = (left.to_ascii_lowercase(), right.to_ascii_lowercase());
    if left.len() > 40 {
        return usize::MAX;
    }
    let mut costs: Vec<usize> = (0..=right.chars().count()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = i;
        costs[0] = i + 1;
        for (j, r) in right.chars().enumerate() {
            let replaced = diagonal + usize::from(l != r);
            diagonal = costs[j + 1];
            costs[j + 1] = replaced.min(diagonal + 1).min(costs[j] + 1);
        }
    }
    costs.last().copied().unwrap_or(0)
}

/// What is known of the process beside its arguments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context {
    /// Runs in a Kubernetes pod.
    pub in_pod: bool,
    /// A connection that the environment describes only in part is left alone, and stdin and stdout are
    /// used: build steps and SSH sessions may well have a `JENKINS_URL`.
    pub lenient_environment: bool,
}

/// Merges what the environment and the command line say and checks it. The command line wins: what it
/// gives, or what can't stand beside what it gives, is dropped from the environment with a note.
///
/// # Errors
/// What `Launcher` refuses, and values that can't be used.
pub fn resolve(
    environment: Arguments,
    command_line: Arguments,
    context: Context,
    read_file: ReadFile<'_>,
) -> Result<Config, UsageError> {
    let mut notes = Vec::new();
    let environment = name_positional(environment, &mut notes)?;
    let command_line = name_positional(command_line, &mut notes)?;
    let environment = overridden(environment, &command_line, context, &mut notes);

    let mut given = environment;
    given.extend(command_line);
    check_rules(&given)?;
    Builder { given, read_file, notes }.build(context)
}

/// Turns the deprecated positional arguments into `-secret` and `-name` (`Launcher.normalizeArguments`).
fn name_positional(arguments: Arguments, notes: &mut Vec<String>) -> Result<Vec<Given>, UsageError> {
    let Arguments { mut given, positional } = arguments;
    if positional.is_empty() {
        return Ok(given);
    }
    let Ok([secret, name]) = <[String; 2]>::try_from(positional) else {
        // The first one may well be the secret, so none is shown.
        return Err(UsageError(
            "Two arguments required: the secret and the agent's name, or better none and -secret and -name".into(),
        ));
    };
    for (opt, value, what) in [(Opt::Secret, secret, "secret"), (Opt::Name, name, "name")] {
        if given.iter().any(|given| given.opt == opt) {
            return Err(UsageError(format!("Cannot provide {what} via both named and positional arguments")));
        }
        given.push(Given { opt, spelling: format!("positional {what}"), value, variable: None });
    }
    notes.push(
        "Providing the secret and agent name as positional arguments is deprecated; use \"-secret\" and \"-name\" instead."
            .into(),
    );
    Ok(given)
}

fn accumulates(opt: Opt) -> bool {
    matches!(opt, Opt::Cert | Opt::WebSocketHeader | Opt::NativeDeny | Opt::Verbose)
}

fn exclude_each_other(left: Opt, right: Opt) -> bool {
    row_of(left).forbids.contains(&right) || row_of(right).forbids.contains(&left)
}

fn overridden(
    environment: Vec<Given>,
    command_line: &[Given],
    context: Context,
    notes: &mut Vec<String>,
) -> Vec<Given> {
    let anonymous = !environment
        .iter()
        .chain(command_line)
        .any(|given| matches!(given.opt, Opt::Secret | Opt::Name | Opt::JnlpUrl));
    let elsewhere =
        command_line.iter().any(|given| matches!(given.opt, Opt::Url | Opt::Direct | Opt::WebSocket | Opt::Probe));
    let stdio = context.lenient_environment && anonymous && !elsewhere;

    let mut dropped: Vec<Opt> = Vec::new();
    let mut kept = Vec::with_capacity(environment.len());
    for given in environment {
        let same = command_line.iter().find(|other| other.opt == given.opt && !accumulates(given.opt));
        let rival = command_line.iter().find(|other| exclude_each_other(given.opt, other.opt));
        let note = if let Some(same) = same {
            (same.value != given.value)
                .then(|| format!("{} is ignored: the command line has {}", given.origin(), same.spelling))
        } else if let Some(rival) = rival {
            Some(format!(
                "{} is ignored: it cannot be used with {} on the command line",
                given.origin(),
                rival.spelling
            ))
        } else if stdio && (row_of(given.opt).group == Group::Connection || given.opt == Opt::WebSocketHeader) {
            Some(format!(
                "{} is ignored: there is neither a secret nor a name, so this agent speaks over stdin and stdout",
                given.origin()
            ))
        } else {
            kept.push(given);
            continue;
        };
        notes.extend(note);
        dropped.push(given.opt);
    }
    // What only served something dropped goes with it.
    kept.retain(|given| {
        let orphan = row_of(given.opt)
            .requires
            .iter()
            .any(|required| dropped.contains(required) && !command_line.iter().any(|other| other.opt == *required));
        if orphan {
            notes.push(format!("{} is ignored too", given.origin()));
        }
        !orphan
    });
    kept
}

fn check_rules(given: &[Given]) -> Result<(), UsageError> {
    let has = |opt: Opt| given.iter().any(|given| given.opt == opt);
    let names = |opts: &[Opt]| -> String {
        let names: Vec<String> = opts.iter().map(|&opt| row_of(opt).spelling()).collect();
        names.join(", ")
    };
    for given in given {
        let row = row_of(given.opt);
        let missing: Vec<Opt> = row.requires.iter().copied().filter(|&opt| !has(opt)).collect();
        if !missing.is_empty() {
            return Err(UsageError(format!(
                "option \"{}\" requires the option(s) [{}]",
                given.origin(),
                names(&missing)
            )));
        }
        let present: Vec<Opt> = row.forbids.iter().copied().filter(|&opt| has(opt)).collect();
        if !present.is_empty() {
            return Err(UsageError(format!(
                "option \"{}\" cannot be used with the option(s) [{}]",
                given.origin(),
                names(&present)
            )));
        }
    }
    Ok(())
}

struct Builder<'a> {
    given: Vec<Given>,
    read_file: ReadFile<'a>,
    notes: Vec<String>,
}

impl Builder<'_> {
    fn all(&self, opt: Opt) -> impl Iterator<Item = &Given> {
        self.given.iter().filter(move |given| given.opt == opt)
    }

    fn has(&self, opt: Opt) -> bool {
        self.all(opt).next().is_some()
    }

    /// The last one wins, as in args4j.
    fn last(&self, opt: Opt) -> Option<&Given> {
        self.all(opt).last()
    }

    fn text(&self, opt: Opt) -> Option<String> {
        self.last(opt).map(|given| given.value.clone())
    }

    fn path(&self, opt: Opt) -> Option<PathBuf> {
        self.text(opt).map(PathBuf::from)
    }

    fn secret(&self, opt: Opt) -> Result<Option<Secret>, UsageError> {
        let Some(given) = self.last(opt) else {
            return Ok(None);
        };
        let origin = given.origin();
        let text = match given.value.strip_prefix('@') {
            Some(path) => {
                let text = (self.read_file)(Path::new(path))
                    .map_err(|error| UsageError(format!("Cannot read {origin} from {path}: {error}")))?;
                lines(&text).next().unwrap_or_default().to_owned()
            }
            None => given.value.trim().to_owned(),
        };
        if text.is_empty() {
            return Err(UsageError(format!("{origin} is empty")));
        }
        if opt != Opt::Secret && !text.contains(':') {
            return Err(UsageError(format!("{origin} must be USER:PASSWORD")));
        }
        Ok(Some(Secret::new(text)))
    }

    fn duration(
        &self,
        opt: Opt,
        parse: fn(&str) -> Result<Duration, duration::DurationError>,
    ) -> Result<Option<Duration>, UsageError> {
        self.last(opt).map(|given| parse(&given.value).map_err(|error| illegal(given, &error.to_string()))).transpose()
    }

    fn urls(&self) -> Result<Vec<String>, UsageError> {
        let mut urls: Vec<String> = Vec::new();
        for given in self.all(Opt::Url) {
            let url = root_url(&given.value).map_err(|reason| illegal(given, reason))?;
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        Ok(urls)
    }

    fn headers(&self) -> Result<Vec<(String, String)>, UsageError> {
        let mut headers: Vec<(String, String)> = Vec::new();
        for given in self.all(Opt::WebSocketHeader) {
            // The value may be a credential: it is never shown.
            let refused = |reason: &str| UsageError(format!("{}: {reason}", given.origin()));
            let (name, value) = given.value.split_once('=').ok_or_else(|| refused("must be NAME=VALUE"))?;
            if !is_header_name(name) {
                return Err(refused("the name before the = is not the name of an HTTP header"));
            }
            if value.chars().any(|c| c.is_control() && c != '\t') {
                return Err(refused("the value has a control character"));
            }
            headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
            headers.push((name.to_owned(), value.to_owned()));
        }
        Ok(headers)
    }

    fn instance_identity(&self) -> Result<Option<Vec<u8>>, UsageError> {
        let Some(given) = self.last(Opt::InstanceIdentity) else {
            return Ok(None);
        };
        base64::engine::general_purpose::STANDARD
            .decode(given.value.trim())
            .ok()
            .filter(|key| !key.is_empty())
            .map(Some)
            .ok_or_else(|| UsageError(format!("Invalid instanceIdentity: {} is not base64", given.origin())))
    }

    fn health_address(&self) -> Result<Option<SocketAddr>, UsageError> {
        self.last(Opt::HealthAddress).map(health_address).transpose()
    }

    fn host_port(&self, opt: Opt) -> Result<Option<HostPort>, UsageError> {
        self.last(opt)
            .map(|given| match split_host_port(&given.value) {
                Ok((Some(host), Some(port))) => Ok(HostPort { host, port }),
                Ok(_) => Err(illegal(given, "Invalid HOST:PORT value")),
                Err(reason) => Err(illegal(given, reason)),
            })
            .transpose()
    }

    fn tunnel(&self) -> Result<Option<Tunnel>, UsageError> {
        self.last(Opt::Tunnel)
            .map(|given| match split_host_port(&given.value) {
                Ok((host, port)) => Ok(Tunnel { host, port }),
                Err(reason) => Err(illegal(given, reason)),
            })
            .transpose()
    }

    /// The order of `Launcher.run`.
    fn transport(&self, urls: &[String], secret: Option<&Secret>) -> Result<Transport, UsageError> {
        if let Some(target) = self.host_port(Opt::ConnectTo)? {
            return Ok(Transport::ConnectTo(target));
        }
        if let Some(given) = self.last(Opt::JnlpUrl) {
            http_authority(&given.value).map_err(|reason| illegal(given, reason))?;
            if secret.is_some() && self.has(Opt::Credentials) {
                return Err(UsageError("-jnlpCredentials and -secret are mutually exclusive".into()));
            }
            let query = if secret.is_some() { "?encrypt=true" } else { "" };
            return Ok(Transport::Jnlp(JnlpSource { request_url: format!("{}{query}", given.value) }));
        }
        let transport = if let Some(target) = self.host_port(Opt::Direct)? {
            Transport::Direct(target)
        } else if self.has(Opt::WebSocket) {
            Transport::WebSocket
        } else if !urls.is_empty() {
            Transport::Tcp
        } else if let Some(file) = self.path(Opt::Tcp) {
            return Ok(Transport::ListenTcp(file));
        } else {
            return Ok(Transport::Stdio);
        };
        if self.has(Opt::Probe) {
            return Ok(transport);
        }
        if secret.is_none() {
            return Err(UsageError("Secret is required for inbound agents".into()));
        }
        if !self.has(Opt::Name) {
            return Err(UsageError("Name is required for inbound agents".into()));
        }
        if transport == Transport::WebSocket && urls.len() > 1 {
            return Err(UsageError("Only a single URL is supported for WebSocket agents".into()));
        }
        Ok(transport)
    }

    fn probe(&self, transport: &Transport) -> Result<Option<ProbeSettings>, UsageError> {
        let Some(given) = self.last(Opt::Probe) else { return Ok(None) };
        let format = match given.value.as_str() {
            "" | "table" => Format::Table,
            "short" => Format::Short,
            "json" => Format::Json,
            _ => return Err(illegal(given, "table, short or json")),
        };
        match transport {
            Transport::Tcp | Transport::WebSocket | Transport::Direct(_) | Transport::Jnlp(_) => {}
            _ => {
                let message =
                    format!("{} needs a controller to look for: -url, -direct or JENKINS_URL", given.origin());
                return Err(UsageError(message));
            }
        }
        let timeout = self.duration(Opt::ProbeTimeout, duration::parse_with_unit)?;
        Ok(Some(ProbeSettings {
            format,
            authenticate: self.has(Opt::ProbeAuth),
            hold: self.duration(Opt::ProbeHold, duration::parse_with_unit)?.filter(|hold| !hold.is_zero()),
            timeout: timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(probe::TIMEOUT),
        }))
    }

    fn log(&self) -> Result<LogSettings, UsageError> {
        let format = match self.last(Opt::LogFormat) {
            None => LogFormat::Text,
            Some(given) => match given.value.as_str() {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err(illegal(given, "text or json")),
            },
        };
        let verbosity =
            self.all(Opt::Verbose).fold(0u8, |sum, given| sum.saturating_add(if given.value == "vv" { 2 } else { 1 }));
        Ok(LogSettings { format, verbosity, agent_log: self.path(Opt::AgentLog) })
    }

    fn jvm(&self) -> Result<JvmSettings, UsageError> {
        let mode = match self.last(Opt::Jvm) {
            None => JvmMode::Auto,
            Some(given) => match given.value.as_str() {
                "never" => JvmMode::Never,
                "auto" => JvmMode::Auto,
                "always" => JvmMode::Always,
                _ => return Err(illegal(given, "never, auto or always")),
            },
        };
        let idle = self.duration(Opt::JvmIdle, duration::parse_with_unit)?;
        let options = self.text(Opt::JvmOpts).unwrap_or_default();
        let denied = self.all(Opt::NativeDeny).flat_map(|given| given.value.split([',', ' ', '\t']));
        Ok(JvmSettings {
            mode,
            idle: idle.map_or(JvmSettings::default().idle, |idle| Some(idle).filter(|idle| !idle.is_zero())),
            options: options.split_whitespace().map(str::to_owned).collect(),
            java: self.path(Opt::Java),
            remoting_jar: self.path(Opt::RemotingJar),
            native_deny: denied.filter(|pattern| !pattern.is_empty()).map(str::to_owned).collect(),
        })
    }

    fn build(mut self, context: Context) -> Result<Config, UsageError> {
        let mut noted: Vec<Opt> = Vec::new();
        for given in &self.given {
            if noted.contains(&given.opt) {
                continue;
            }
            if let Some(reason) = row_of(given.opt).no_effect {
                self.notes.push(format!("{} has no effect: {reason}", given.spelling));
                noted.push(given.opt);
            }
        }
        for opt in [Opt::JnlpUrl, Opt::ConnectTo, Opt::Tcp] {
            if self.has(opt) {
                let instead = if opt == Opt::JnlpUrl {
                    " Use \"-url\" and \"-name\" instead, potentially also passing in \"-webSocket\", \"-tunnel\", and/or work directory options as needed."
                } else {
                    ""
                };
                let name = row_of(opt).spelling();
                self.notes.push(format!("The \"{name}\" argument is deprecated.{instead}"));
            }
        }

        let urls = self.urls()?;
        let secret = self.secret(Opt::Secret)?;
        let transport = self.transport(&urls, secret.as_ref())?;
        let first_connect_timeout = match self.duration(Opt::FirstConnectTimeout, duration::parse_with_unit)? {
            Some(Duration::ZERO) => None,
            Some(timeout) => Some(timeout),
            None => context.in_pod.then_some(Duration::from_secs(180)),
        };
        Ok(Config {
            tunnel: self.tunnel()?,
            instance_identity: self.instance_identity()?,
            protocols: self
                .all(Opt::Protocols)
                .flat_map(|given| given.value.split([',', ' ', '\t']))
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            certs: self.all(Opt::Cert).map(|given| cert(&given.value)).collect(),
            no_certificate_check: self.has(Opt::NoCertificateCheck),
            credentials: self.secret(Opt::Credentials)?,
            proxy_credentials: self.secret(Opt::ProxyCredentials)?,
            websocket_headers: self.headers()?,
            no_keep_alive: self.has(Opt::NoKeepAlive),
            no_reconnect: self.has(Opt::NoReconnect),
            no_reconnect_after: self.duration(Opt::NoReconnectAfter, duration::parse)?,
            first_connect_timeout,
            grace: self.duration(Opt::Grace, duration::parse_with_unit)?.unwrap_or(Duration::from_secs(10)),
            health_address: self.health_address()?,
            in_pod: context.in_pod,
            work_dir: WorkDirSettings {
                path: self.path(Opt::WorkDir),
                internal_dir: self.text(Opt::InternalDir).unwrap_or_else(|| "remoting".into()),
                fail_if_missing: self.has(Opt::FailIfWorkDirIsMissing),
            },
            jvm: self.jvm()?,
            log: self.log()?,
            name: self.text(Opt::Name),
            probe: self.probe(&transport)?,
            transport,
            urls,
            secret,
            notes: self.notes,
        })
    }
}

impl Config {
    /// Applies the arguments that [`crate::session::jnlp::parse`] found behind `-jnlpUrl`
    /// (`Launcher.bootstrapInboundAgent`): they decide on the URLs, secret, name, transport and tunnel;
    /// what the command line says of the work directory stays.
    ///
    /// # Errors
    /// As [`resolve`]; the controller's answer is at fault.
    pub fn with_jnlp_arguments(mut self, arguments: &[String]) -> Result<Config, UsageError> {
        let no_files: ReadFile<'_> = &|_| Err(std::io::ErrorKind::PermissionDenied.into());
        // A file name from the network must not be opened.
        if arguments.iter().any(|argument| argument.starts_with('@')) {
            return Err(UsageError("The JNLP file has an argument that names a file".into()));
        }
        let parsed = parse(arguments, None, no_files)?;
        let served = resolve(Arguments::default(), parsed, Context::default(), no_files)?;
        match served.transport {
            Transport::Tcp | Transport::WebSocket | Transport::Direct(_) => {}
            _ => {
                return Err(UsageError("At least one URL is required for inbound agents".into()));
            }
        }
        self.transport = served.transport;
        self.urls = served.urls;
        self.secret = served.secret.or(self.secret);
        self.name = served.name.or(self.name);
        self.tunnel = served.tunnel.or(self.tunnel);
        self.instance_identity = served.instance_identity.or(self.instance_identity);
        if self.work_dir.path.is_none() {
            self.work_dir = served.work_dir;
        }
        Ok(self)
    }
}

/// The value of `--health-address`: loopback's unless an IP is given.
///
/// # Errors
/// If it is no address and no port.
pub fn health_address(given: &Given) -> Result<SocketAddr, UsageError> {
    let text = given.value.trim();
    let port = text.parse().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    port.or_else(|_| text.parse()).map_err(|_| illegal(given, "PORT or IP:PORT is wanted, such as 0.0.0.0:8787"))
}

fn illegal(given: &Given, reason: &str) -> UsageError {
    UsageError(format!("\"{}\" is not a valid value for \"{}\": {reason}", given.value, given.origin()))
}

fn cert(value: &str) -> CertSource {
    let value = value.trim();
    match value.strip_prefix('@') {
        Some(path) => CertSource::File(path.into()),
        None => CertSource::Pem(value.to_owned()),
    }
}

fn http_authority(url: &str) -> Result<(), &'static str> {
    let rest = ["http://", "https://"]
        .iter()
        .find(|scheme| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .map(|scheme| &url[scheme.len()..])
        .ok_or("not a URL that starts with http:// or https://")?;
    if rest.is_empty() || rest.starts_with(['/', ':', '?', '#']) {
        return Err("it has no host");
    }
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("a URL has no blanks");
    }
    Ok(())
}

fn root_url(text: &str) -> Result<String, &'static str> {
    let url = text.trim();
    http_authority(url)?;
    if url.contains(['?', '#']) {
        return Err("a root URL ends with its path");
    }
    Ok(format!("{}/", url.trim_end_matches('/')))
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// `org.jenkinsci.remoting.engine.HostPort`: either side may be missing, not both.
fn split_host_port(text: &str) -> Result<(Option<String>, Option<u16>), &'static str> {
    let text = text.trim();
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("Invalid IPv6 value.")?;
        if host.is_empty() {
            return Err("Invalid IPv6 value.");
        }
        (host, after.strip_prefix(':').ok_or("Missing port.")?)
    } else {
        text.rsplit_once(':').ok_or("Invalid HOST:PORT value")?
    };
    let host = host.trim();
    if host.contains('/') || host.contains(char::is_whitespace) {
        return Err("a host name or address, not a URL, is wanted");
    }
    let port = match port.trim() {
        "" => None,
        digits => match digits.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err("the port is not a number from 1 to 65535"),
        },
    };
    if host.is_empty() && port.is_none() {
        return Err("Invalid HOST:PORT value");
    }
    Ok(((!host.is_empty()).then(|| host.to_owned()), port))
}
