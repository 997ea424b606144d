//! The `jenkins/inbound-agent` image's entrypoint (`jenkins-agent`, once `jenkins-slave`): its
//! environment variables and its rule for running another command.
//!
//! The script builds a command line from variables; so does [`interpret`], with the script's order and
//! its word splitting, and then merges it with the real one, which wins. The variables count under every
//! name of this program; only the rule that a single argument is a command is the script's alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::completions::Shell;
use super::options::{self, Arguments, Context, Opt};
use super::{Config, ReadFile, UsageError};

/// The environment, by name.
pub type Environment = BTreeMap<String, String>;

/// A variable that sets something: name and meaning, for the help.
pub const VARIABLES: &[(&str, &str)] = &[
    ("JENKINS_URL", "-url"),
    ("JENKINS_SECRET", "-secret (@FILE reads it from a file)"),
    ("JENKINS_NAME", "-name"),
    ("JENKINS_AGENT_NAME", "-name, where JENKINS_NAME is not set"),
    ("JENKINS_AGENT_WORKDIR", "-workDir"),
    ("JENKINS_WEB_SOCKET", "\"true\" is -webSocket"),
    ("JENKINS_TUNNEL", "-tunnel"),
    ("JENKINS_DIRECT_CONNECTION", "-direct"),
    ("JENKINS_INSTANCE_IDENTITY", "-instanceIdentity"),
    ("JENKINS_PROTOCOLS", "-protocols"),
    ("JENKINS_AGENT_HEALTH_ADDRESS", "--health-address"),
    ("REMOTING_OPTS", "any options, quoted as in a shell"),
];

/// Variables that choose or configure a JVM: the script's, and the last two its predecessors'.
pub const NO_EFFECT: &[&str] = &[
    "JENKINS_JAVA_BIN",
    "JENKINS_JAVA_OPTS",
    "JAVA_OPTS",
    "JENKINS_AGENT_FILE",
    "JNLP_PROTOCOL_OPTS",
    "JENKINS_ENABLE_FUTURE_JAVA",
];

/// The sub-commands: name and meaning.
pub const COMMANDS: &[(&str, &str)] = &[
    ("demo", "Run a small build against a controller inside this process"),
    ("decode", "Show recorded remoting traffic and serialized Java objects"),
    ("man", "Print the manual page"),
    ("completions", "Print the completion script of a shell: bash, zsh or fish"),
    ("help", "Show the options"),
];

/// What the process was started with.
pub struct Invocation<'a> {
    /// `argv[0]`.
    pub program: &'a str,
    /// The arguments after it.
    pub arguments: &'a [String],
    /// The environment.
    pub environment: &'a Environment,
    /// Reads the files that arguments name.
    pub read_file: ReadFile<'a>,
}

/// What the process is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Be an agent.
    Run(Box<Config>),
    /// Look for what keeps the agent from connecting.
    Probe(Box<Config>),
    /// Replace the process by this command.
    Exec(String),
    /// `demo`, with its arguments.
    Demo(Vec<String>),
    /// `decode`, with its arguments.
    Decode(Vec<String>),
    /// Ask the agent at this address how it is.
    Healthcheck(SocketAddr),
    /// `probe-listen`, with its arguments.
    ProbeListen(Vec<String>),
    /// `probe-pod`, with its arguments.
    ProbePod(Vec<String>),
    /// `probe-compare`, with its arguments.
    ProbeCompare(Vec<String>),
    /// Print the help.
    Help,
    /// Print the manual page.
    Manual,
    /// Print this shell's completion script.
    Completions(Shell),
    /// Print the remoting version, and this agent's own if `own`.
    Version {
        /// `--version`.
        own: bool,
    },
}

/// Decides what to do.
///
/// # Errors
/// A command line or environment that can't be used.
pub fn interpret(invocation: &Invocation<'_>) -> Result<Action, UsageError> {
    let Invocation { program, arguments, environment, read_file } = *invocation;
    match arguments {
        [command, rest @ ..] if command == "demo" => return Ok(Action::Demo(rest.to_vec())),
        [command, rest @ ..] if command == "decode" => return Ok(Action::Decode(rest.to_vec())),
        [command, rest @ ..] if command == "probe-listen" => return Ok(Action::ProbeListen(rest.to_vec())),
        [command, rest @ ..] if command == "probe-pod" => return Ok(Action::ProbePod(rest.to_vec())),
        [command, rest @ ..] if command == "probe-compare" => return Ok(Action::ProbeCompare(rest.to_vec())),
        [command] if command == "help" => return Ok(Action::Help),
        [command] if command == "man" && !is_entrypoint(program) => return Ok(Action::Manual),
        [command, shell] if command == "completions" => {
            let known = Shell::named(shell).ok_or_else(|| UsageError("completions are for bash, zsh or fish".into()));
            return known.map(Action::Completions);
        }
        [command] if is_entrypoint(program) && !command.starts_with(['-', '@']) => {
            return Ok(Action::Exec(command.clone()));
        }
        _ => {}
    }
    let command_line = options::parse(arguments, None, read_file)?;
    let mut notes = Vec::new();
    let from_environment = parse_environment(environment, read_file, &mut notes);
    // Asking for help must not depend on an environment in order.
    for source in [Some(&command_line), from_environment.as_ref().ok()].into_iter().flatten() {
        if let Some(given) = source.given.iter().find(|given| given.opt == Opt::Version) {
            return Ok(Action::Version { own: given.spelling.starts_with("--") });
        }
        if source.has(Opt::Help) {
            return Ok(Action::Help);
        }
    }
    if command_line.has(Opt::Healthcheck) {
        // The rest of the environment is the agent's.
        let sources = [Some(&command_line), from_environment.as_ref().ok()];
        let address = sources
            .into_iter()
            .flatten()
            .find_map(|source| source.given.iter().rfind(|given| given.opt == Opt::HealthAddress));
        let missing =
            "--healthcheck asks the agent at --health-address (JENKINS_AGENT_HEALTH_ADDRESS), which is not set";
        return options::health_address(address.ok_or_else(|| UsageError(missing.into()))?).map(Action::Healthcheck);
    }
    let context = Context {
        in_pod: set(environment, "KUBERNETES_SERVICE_HOST").is_some(),
        lenient_environment: !is_entrypoint(program),
    };
    let mut config = options::resolve(from_environment?, command_line, context, read_file)?;
    config.notes.extend(notes);
    let config = Box::new(config);
    Ok(if config.probe.is_some() { Action::Probe(config) } else { Action::Run(config) })
}

fn is_entrypoint(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    ["jenkins-agent", "jenkins-slave"]
        .iter()
        .any(|script| name.strip_prefix(script).is_some_and(|rest| rest.is_empty() || rest == ".sh"))
}

/// Set and not empty, which is what the script's tests ask.
fn set<'a>(environment: &'a Environment, name: &str) -> Option<&'a str> {
    environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// The script's command line, in its order.
fn parse_environment(
    environment: &Environment,
    read_file: ReadFile<'_>,
    notes: &mut Vec<String>,
) -> Result<Arguments, UsageError> {
    let mut result = Arguments::default();
    let mut add = |variable: &'static str, words: Vec<String>| -> Result<(), UsageError> {
        let parsed = options::parse(&words, Some(variable), read_file)
            .map_err(|UsageError(text)| UsageError(format!("{variable}: {text}")))?;
        result.given.extend(parsed.given);
        result.positional.extend(parsed.positional);
        Ok(())
    };
    let name = if set(environment, "JENKINS_NAME").is_some() { "JENKINS_NAME" } else { "JENKINS_AGENT_NAME" };
    for (variable, option) in [
        ("JENKINS_SECRET", "-secret"),
        (name, "-name"),
        ("JENKINS_TUNNEL", "-tunnel"),
        ("JENKINS_URL", "-url"),
        ("JENKINS_AGENT_WORKDIR", "-workDir"),
    ] {
        if let Some(value) = set(environment, variable) {
            add(variable, option_words(option, value))?;
        }
    }
    if set(environment, "JENKINS_WEB_SOCKET") == Some("true") {
        add("JENKINS_WEB_SOCKET", vec!["-webSocket".into()])?;
    }
    for (variable, option) in [
        ("JENKINS_DIRECT_CONNECTION", "-direct"),
        ("JENKINS_PROTOCOLS", "-protocols"),
        ("JENKINS_INSTANCE_IDENTITY", "-instanceIdentity"),
        ("JENKINS_AGENT_HEALTH_ADDRESS", "--health-address"),
    ] {
        if let Some(value) = set(environment, variable) {
            add(variable, option_words(option, value))?;
        }
    }
    if let Some(value) = set(environment, "REMOTING_OPTS") {
        let words = shell_words(value, environment).map_err(|reason| UsageError(format!("REMOTING_OPTS: {reason}")))?;
        add("REMOTING_OPTS", words)?;
    }

    let idle: Vec<&str> = NO_EFFECT.iter().copied().filter(|name| set(environment, name).is_some()).collect();
    if !idle.is_empty() {
        notes.push(format!("No effect without a JVM: {}", idle.join(", ")));
    }
    let java = set(environment, "JENKINS_JAVA_OPTS").or(set(environment, "JAVA_OPTS")).unwrap_or("");
    for (property, instead) in [
        ("proxyHost", "HTTPS_PROXY, HTTP_PROXY and NO_PROXY"),
        ("proxyCredentials", "-proxyCredentials"),
        ("trustStore", "-cert @FILE or SSL_CERT_FILE"),
    ] {
        if java.contains(property) {
            notes.push(format!("The Java options set {property}; use {instead} instead"));
        }
    }
    Ok(result)
}

/// The script does not quote its variables, so a value may go on with more options
/// (`JENKINS_URL="http://jenkins -webSocket"`). Blanks that no option follows are part of the value, where the
/// script would fail.
fn option_words(option: &str, value: &str) -> Vec<String> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let more = words.iter().position(|word| options::find(word).is_some()).filter(|&at| at > 0).unwrap_or(words.len());
    let head = if more == words.len() { value.trim().to_owned() } else { words[..more].join(" ") };
    let mut result = vec![option.to_owned(), head];
    result.extend(words[more..].iter().map(|&word| word.to_owned()));
    result
}

/// The words of a shell's array literal, which is what the script makes of `REMOTING_OPTS`: quotes,
/// backslashes and `$NAME`, `${NAME}`. Nothing is executed.
fn shell_words(text: &str, environment: &Environment) -> Result<Vec<String>, String> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, '\\') => match chars.next() {
                Some('\n') => {}
                Some(next) => {
                    let word = word.get_or_insert_default();
                    if quote.is_some() && !matches!(next, '"' | '\\' | '$' | '`') {
                        word.push('\\');
                    }
                    word.push(next);
                }
                None => return Err("it ends with a backslash".into()),
            },
            (_, '`') => return Err("commands (`...`) are not run".into()),
            (_, '$') => {
                let value = match chars.peek() {
                    Some('(') => return Err("commands ($(...)) are not run".into()),
                    Some('{') => {
                        chars.next();
                        let mut name = String::new();
                        loop {
                            match chars.next() {
                                Some('}') => break,
                                Some(c) if c.is_ascii_alphanumeric() || c == '_' => name.push(c),
                                _ => return Err("only ${NAME} is understood of ${...}".into()),
                            }
                        }
                        environment.get(&name).cloned().unwrap_or_default()
                    }
                    Some(c) if c.is_ascii_alphabetic() || *c == '_' => {
                        let mut name = String::new();
                        while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                            name.push(c);
                        }
                        environment.get(&name).cloned().unwrap_or_default()
                    }
                    _ => "$".to_owned(),
                };
                if quote.is_some() {
                    word.get_or_insert_default().push_str(&value);
                } else {
                    for c in value.chars() {
                        if c.is_whitespace() {
                            words.extend(word.take());
                        } else {
                            word.get_or_insert_default().push(c);
                        }
                    }
                }
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
