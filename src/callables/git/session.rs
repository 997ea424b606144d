//! Running git: a call on a client, with its console, deadlines and credentials (`CliGitAPIImpl.launchCommandIn` and
//! `launchCommandWithCredentials`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;

use super::client::{Client, State};
use super::credentials::{Credentials, HostKeys, TempFiles, quoted};
use super::uri::Uri;
use crate::callables::{Call, Throw, ThrowClass};
use crate::process::env::EnvVars;
use crate::process::launch::{ErrorOutput, LEAK_WAIT, Launch, Launched, Output, launch_with};
use crate::process::tree::KillPolicy;

/// `CliGitAPIImpl.TIMEOUT`, in minutes.
const TIMEOUT: i32 = 10;
/// The most that a command may print, where all of it is needed at once. (Java has no bound but its heap.)
const MAX_OUTPUT: usize = 64 << 20;
/// How much of a command's error output is kept: the end of it, where the reason is.
const MAX_ERRORS: usize = 1 << 20;
/// How much is read at once.
const READ: usize = 16 << 10;

/// A `hudson.plugins.git.GitException`.
pub(super) fn git_error(message: impl Into<String>) -> Throw {
    Throw::new(ThrowClass::Git, message)
}

/// A call on a client.
pub(super) struct Session<'c> {
    pub(super) client: &'c Client,
    pub(super) call: &'c Call,
}

/// How a command ended.
struct Ended {
    code: i32,
    errors: Vec<u8>,
}

impl Session<'_> {
    /// Writes a line to the console.
    pub(super) fn println(&self, line: &str) {
        self.client.listener.println(line);
    }

    /// `TaskListener.error`
    pub(super) fn error(&self, line: &str) {
        self.println(&format!("ERROR: {line}"));
    }

    /// `ex.printStackTrace(listener.error(line))`
    pub(super) fn error_with(&self, line: &str, throw: &Throw) {
        self.error(line);
        self.println(&throw.java_string());
        let mut cause = throw.cause.as_deref();
        while let Some(throw) = cause {
            self.println(&format!("Caused by: {}", throw.java_string()));
            cause = throw.cause.as_deref();
        }
    }

    pub(super) fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        self.client.state(look)
    }

    /// The workspace.
    pub(super) fn workspace(&self) -> &Path {
        &self.client.workspace
    }

    /// Runs git in the workspace and gives what it printed.
    pub(super) fn git(&self, args: &[&str]) -> Result<String, Throw> {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let env = self.state(|state| state.env.clone());
        self.git_in(&args, Some(self.workspace()), env, None)
    }

    /// `launchCommandIn`: the timeout is in minutes.
    pub(super) fn git_in(
        &self,
        args: &[String],
        directory: Option<&Path>,
        mut env: EnvVars,
        timeout: Option<i32>,
    ) -> Result<String, Throw> {
        let minutes = timeout.unwrap_or(TIMEOUT);
        let command = format!("{} {}", self.client.exe, args.join(" "));
        self.println(&format!(" > {command} # timeout={minutes}"));
        // Without it, git would ask on a terminal that nobody sits at.
        if env.get("GIT_ASKPASS").is_none() {
            env.put("GIT_ASKPASS", "echo");
        }
        let launch = self.launch(args, directory, &env);
        let mut output = Vec::new();
        let capture = |bytes: &[u8]| {
            if output.len() + bytes.len() > MAX_OUTPUT {
                return Err(io::Error::other(format!("it printed more than {MAX_OUTPUT} bytes")));
            }
            output.extend_from_slice(bytes);
            Ok(())
        };
        let ended = self.run(launch, Some(minutes), capture).map_err(|throw| match throw.class {
            ThrowClass::Interrupted => throw,
            _ => git_error(format!("Error performing git command: {command}")).caused_by(throw),
        })?;
        let output = lossy(output);
        if ended.code != 0 {
            return Err(git_error(format!(
                "Command \"{command}\" returned status code {}:\nstdout: {output}\nstderr: {}",
                ended.code,
                lossy(ended.errors),
            )));
        }
        Ok(output)
    }

    /// Runs git in the workspace without a word on the console, for what a Java agent does by JGit. `None` if it fails.
    pub(super) fn quietly(&self, args: &[&str]) -> Result<Option<Vec<u8>>, Throw> {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let launch = self.launch(&args, Some(self.workspace()), &self.state(|state| state.env.clone()));
        let mut output = Vec::new();
        let capture = |bytes: &[u8]| {
            if output.len() + bytes.len() > MAX_OUTPUT {
                return Err(io::Error::other(format!("git printed more than {MAX_OUTPUT} bytes")));
            }
            output.extend_from_slice(bytes);
            Ok(())
        };
        let ended = self.run(launch, Some(TIMEOUT), capture)?;
        Ok((ended.code == 0).then_some(output))
    }

    /// Runs git in the workspace without a word on the console or a deadline; what it prints goes to `sink`, and its
    /// errors to the console. Gives the exit code.
    pub(super) fn stream(&self, args: &[String], sink: impl FnMut(&[u8]) -> io::Result<()>) -> Result<i32, Throw> {
        let launch = self.launch(args, Some(self.workspace()), &self.state(|state| state.env.clone()));
        let ended = self.run(launch, None, sink)?;
        self.client.listener.write_bytes(&ended.errors);
        Ok(ended.code)
    }

    fn launch(&self, args: &[String], directory: Option<&Path>, env: &EnvVars) -> Launch {
        Launch {
            command: std::iter::once(&self.client.exe).chain(args).cloned().collect(),
            environment: env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            working_directory: directory.map(Path::to_owned),
            stdout: Output::Piped,
            stderr: ErrorOutput::Piped,
            ..Launch::default()
        }
    }

    /// Runs a command to its end, to the end of its time (in minutes), or until the call is cancelled.
    fn run(
        &self,
        launch: Launch,
        minutes: Option<i32>,
        sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Ended, Throw> {
        let caller = self.call.caller().clone();
        let base = self.call.agent().environment.clone();
        let listener = self.client.listener.clone();
        // Handlers have a thread of their own, which is none of the runtime's.
        Handle::current().block_on(async move {
            let launched = launch_with(base, launch).await.map_err(Throw::from)?;
            let Launched { process, stdout, stderr, .. } = launched;
            let mut errors = Vec::new();
            let mut sunk = Ok(());
            let copies = async {
                let output = async {
                    if let Some(stdout) = stdout {
                        sunk = drain(stdout, sink).await;
                    }
                };
                let keep = |bytes: &[u8]| {
                    errors.extend_from_slice(bytes);
                    if errors.len() > 2 * MAX_ERRORS {
                        errors.drain(..errors.len() - MAX_ERRORS);
                    }
                    Ok(())
                };
                let error = async {
                    if let Some(stderr) = stderr {
                        let _ = drain(stderr, keep).await;
                    }
                };
                tokio::join!(output, error);
            };
            let joined = {
                let join = process.join(copies, LEAK_WAIT);
                tokio::pin!(join);
                let deadline = async {
                    match minutes {
                        Some(minutes) => {
                            let minutes = u64::try_from(minutes).unwrap_or(0);
                            tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
                        }
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    joined = &mut join => joined,
                    () = caller.cancelled() => {
                        process.kill_tree(KillPolicy::default()).await;
                        return Err(Throw::interrupted());
                    }
                    () = deadline => {
                        let text = format!("ERROR: Timeout after {} minutes\n", minutes.unwrap_or(0));
                        listener.write_async(text.as_bytes()).await;
                        process.kill_tree(KillPolicy::default()).await;
                        join.await
                    }
                }
            };
            let code = joined?.code;
            sunk?;
            Ok(Ended { code, errors })
        })
    }

    /// `getGitVersion`, as major·10⁶ + minor·10⁴ + revision·10² + fix.
    fn version(&self) -> Result<u64, Throw> {
        let known = self.state(|state| state.version);
        if known != 0 {
            return Ok(known);
        }
        let printed = match self.git(&["--version"]) {
            Ok(printed) => {
                let printed = printed.trim().to_owned();
                self.println(&format!(" > git --version # '{printed}'"));
                printed
            }
            Err(throw) if throw.class == ThrowClass::Interrupted => return Err(throw),
            Err(_) => String::new(),
        };
        let version = parse_version(&printed);
        self.state(|state| state.version = version);
        Ok(version)
    }

    /// Whether git is of this version or a later one.
    pub(super) fn at_least(&self, major: u64, minor: u64, revision: u64) -> Result<bool, Throw> {
        Ok(self.version()? >= major * 1_000_000 + minor * 10_000 + revision * 100)
    }

    /// `addCheckedRemoteUrl`
    pub(super) fn add_url(&self, args: &mut Vec<String>, url: &str) -> Result<(), Throw> {
        let trimmed = url.trim();
        let mut chars = trimmed.chars();
        let drive = chars.next().is_some_and(|char| char.is_ascii_alphabetic()) && chars.next() == Some(':');
        let good = ["/", "\\\\", "file:", "git:", "git@", "http:", "https:", "ssh:"];
        if !drive && !good.iter().any(|good| trimmed.starts_with(good)) {
            let bad = trimmed.starts_with('-') || trimmed.contains('`') || trimmed.contains("--upload-pack=");
            if bad || trimmed.contains(char::is_whitespace) {
                return Err(git_error(format!("Invalid remote URL: {url}")));
            }
        }
        if self.at_least(2, 8, 0)? {
            args.push("--".to_owned());
        }
        args.push(trimmed.to_owned());
        Ok(())
    }

    /// The credentials for an address: its own, or those for all.
    pub(super) fn credentials(&self, url: &str) -> Option<Arc<Credentials>> {
        self.state(|state| state.credentials.get(url).or(state.default_credentials.as_ref()).cloned())
    }

    /// `launchCommandWithCredentials`
    pub(super) fn git_with(
        &self,
        args: &[String],
        directory: Option<&Path>,
        credentials: Option<Arc<Credentials>>,
        url: &Uri,
        timeout: Option<i32>,
    ) -> Result<String, Throw> {
        let mut env = self.state(|state| state.env.clone());
        if self.at_least(2, 3, 0)? {
            env.put("GIT_TERMINAL_PROMPT", "false");
        }
        // To be dropped when the command has ended, whichever way.
        let mut files = TempFiles::beside(self.workspace(), &self.client.listener);
        match credentials.as_deref() {
            Some(Credentials::Key { description, username, keys, passphrase }) => {
                self.println(&format!("using GIT_SSH to set credentials {description}"));
                let user = url.user.as_deref().unwrap_or(username);
                self.ssh(&mut files, &mut env, user, keys, passphrase).map_err(setup_failed)?;
            }
            Some(Credentials::Password { description, username, password }) => {
                self.println(&format!("using GIT_ASKPASS to set credentials {description}"));
                self.askpass(&mut files, &mut env, username, password).map_err(setup_failed)?;
            }
            Some(Credentials::App(app)) => {
                let token = app.password(self.call)?;
                self.println(&format!("using GIT_ASKPASS to set credentials {}", app.description));
                self.askpass(&mut files, &mut env, &app.id, &token).map_err(setup_failed)?;
            }
            None => {}
        }
        self.proxy(&mut env, url);
        self.git_in(args, directory, env, timeout)
    }

    fn askpass(&self, files: &mut TempFiles, env: &mut EnvVars, user: &str, password: &str) -> Result<(), Throw> {
        let user = files.create("username", ".txt", 0o600, &format!("{user}\n"))?;
        let password = files.create("password", ".txt", 0o600, &format!("{password}\n"))?;
        let script = format!(
            "#!/bin/sh\ncase \"$1\" in\nUsername*) cat {} ;;\nPassword*) cat {} ;;\nesac\n",
            quoted(&user.to_string_lossy()),
            quoted(&password.to_string_lossy()),
        );
        let script = self.script(files, "pass", &script)?;
        env.put("GIT_ASKPASS", literal(&script));
        env.put("SSH_ASKPASS", literal(&script));
        Ok(())
    }

    fn ssh(
        &self,
        files: &mut TempFiles,
        env: &mut EnvVars,
        user: &str,
        keys: &[String],
        passphrase: &str,
    ) -> Result<(), Throw> {
        let mut text = String::new();
        for key in keys {
            text.push_str(key.trim_end_matches('\n'));
            text.push_str("\n\n");
        }
        let key = files.create("ssh", ".key", 0o400, &text)?;
        let passphrase = files.create("phrase", ".txt", 0o600, &format!("{passphrase}\n"))?;
        let known_hosts = match &self.client.host_keys {
            HostKeys::Given(lines) => Some(files.create("known_hosts", "", 0o600, &format!("{lines}\n"))?),
            _ => None,
        };
        let option = self.client.host_keys.option(known_hosts.as_deref());
        // Quoted in place of the plugin's own variables: a user name comes from an address.
        let ssh = format!(
            "#!/bin/sh\nif [ -z \"${{DISPLAY}}\" ]; then\n  DISPLAY=:123.456\n  export DISPLAY\nfi\n\
             ssh -i {} -l {} {option} \"$@\"\n",
            quoted(&key.to_string_lossy()),
            quoted(user),
        );
        let ssh = self.script(files, "ssh", &ssh)?;
        let askpass = format!("#!/bin/sh\ncat {}\n", quoted(&passphrase.to_string_lossy()));
        let askpass = self.script(files, "pass", &askpass)?;
        env.put("GIT_SSH", literal(&ssh));
        env.put("GIT_SSH_VARIANT", "ssh");
        env.put("SSH_ASKPASS", literal(&askpass));
        // Without a display ssh does not ask a program.
        if env.get("DISPLAY").is_none() {
            env.put("DISPLAY", ":");
        }
        Ok(())
    }

    /// A script to be executed. Another process makes it, as one that this process had open for writing could still be
    /// open in a child that it forked meanwhile, and would not be executed then ("Text file busy", JENKINS-48258).
    fn script(&self, files: &mut TempFiles, prefix: &str, text: &str) -> Result<PathBuf, Throw> {
        let original = files.create(prefix, ".sh", 0o700, text)?;
        let mut copy = original.clone().into_os_string();
        copy.push("-copy");
        let copy = PathBuf::from(copy);
        files.adopt(copy.clone());
        let word = |path: &Path| literal(path);
        let launch = Launch {
            command: vec!["cp".to_owned(), word(&original), word(&copy)],
            stderr: ErrorOutput::Piped,
            ..Launch::default()
        };
        let ended = self.run(launch, Some(TIMEOUT), |_| Ok(()))?;
        if ended.code != 0 {
            return Err(Throw::io(format!("cannot copy {}: {}", original.display(), lossy(ended.errors).trim())));
        }
        Ok(copy)
    }

    /// The controller's proxy, for addresses that go through it.
    fn proxy(&self, env: &mut EnvVars, url: &Uri) {
        let scheme = url.scheme.as_deref().unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return;
        }
        let Some(proxy) = self.state(|state| state.proxy.clone()) else { return };
        if url.host.as_deref().is_some_and(|host| proxy.is_exempt(host)) {
            return;
        }
        self.println(&format!("Setting http proxy: {}:{}", proxy.name, proxy.port));
        let address = proxy.address().replace('$', "$$");
        env.put("http_proxy", address.as_str());
        env.put("https_proxy", address);
    }
}

/// A path as a word in which no variable is expanded.
fn literal(path: &Path) -> String {
    path.to_string_lossy().replace('$', "$$")
}

fn setup_failed(throw: Throw) -> Throw {
    match throw.class {
        ThrowClass::Interrupted => throw,
        _ => git_error("Failed to setup credentials").caused_by(throw),
    }
}

/// `CliGitAPIImpl.computeGitVersion`
fn parse_version(printed: &str) -> u64 {
    let version = printed.split(' ').nth(2).unwrap_or_default().replace("msysgit.", "").replace("windows.", "");
    let weights = [1_000_000, 10_000, 100, 1];
    let numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    numbers.zip(weights).map(|(number, weight)| u64::from(number) * weight).sum()
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

async fn drain(mut from: pipe::Receiver, mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; READ];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            read => sink(&buffer[..read])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (printed, version) in [
            ("git version 2.39.5", 2_390_500),
            ("git version 2.53.0", 2_530_000),
            ("git version 1.8.3.1", 1_080_301),
            ("git version 2.50.1 (Apple Git-155)", 2_500_100),
            ("git version 2.45.2.windows.1", 2_450_201),
            ("", 0),
            ("nonsense", 0),
        ] {
            assert_eq!(parse_version(printed), version, "{printed}");
        }
    }
}
