//! Launching processes as `hudson.Launcher$LocalLauncher.launch` and `hudson.Proc$LocalProc` do.
//!
//! A process stays in the agent's process group and session, as Java's children do.

use std::collections::HashSet;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::pipe::PipeFlags;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::env::{EnvVars, TooLarge};
use super::tree::{self, Identity, KillPolicy, KillReport};

/// What `Proc.LocalProc.join` writes (and a line feed after it) to the output of a process that has ended while its output
/// is held open by another.
pub const LEAK_MESSAGE: &str = "Process leaked file descriptors. See https://www.jenkins.io/redirect/troubleshooting/process-leaked-file-descriptors for more information";

/// How long `Proc.LocalProc.join` waits for the end of the output after the end of the process.
pub const LEAK_WAIT: Duration = Duration::from_secs(10);

/// The variable that marks a launched process and its descendants (`EnvVars.createCookie`).
pub const COOKIE_VARIABLE: &str = "HUDSON_COOKIE";

/// How often a program is tried that another process still has open for writing (ETXTBSY, JENKINS-70874), and the time
/// between.
const BUSY_TRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

const ENOENT: i32 = 2;
const ENOEXEC: i32 = 8;
const EACCES: i32 = 13;
const ETXTBSY: i32 = 26;

/// Why a process could not be launched. The texts that Java has too are Java's.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no program to run.
    #[error("the command to launch is empty")]
    NoCommand,
    /// An entry of the environment is no `NAME=value`. Its text may be a secret and isn't shown.
    #[error("entry {0} of the environment to launch with has no '='")]
    BadEnvironment(usize),
    /// A NUL byte, which no command line and no environment can have.
    #[error("invalid null character in {0}")]
    Nul(&'static str),
    /// The expanded command or environment is beyond what can be executed.
    #[error("cannot launch: {0}")]
    TooLarge(#[from] TooLarge),
    /// The working directory does not exist.
    #[error("Process working directory '{}' doesn't exist!", .0.display())]
    NoWorkingDirectory(PathBuf),
    /// The system would not run the program.
    #[error("Cannot run program \"{program}\"{}: error={errno}, {text}", in_directory(.directory))]
    CannotRun {
        /// The first word of the command.
        program: String,
        /// The working directory, if one was asked for.
        directory: Option<PathBuf>,
        /// The system's error number.
        errno: i32,
        /// The system's text for it.
        text: String,
    },
    /// The agent ends.
    #[error("cannot launch a process: the agent is shutting down")]
    ShutDown,
    /// A pipe could not be made.
    #[error("cannot make a pipe for a process: {0}")]
    Pipe(#[source] std::io::Error),
}

fn in_directory(directory: &Option<PathBuf>) -> String {
    directory.as_ref().map_or_else(String::new, |directory| format!(" (in directory \"{}\")", directory.display()))
}

/// Where the standard input of a process comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Input {
    /// Nothing: at its end from the start.
    #[default]
    Null,
    /// A pipe whose other end the caller gets.
    Piped,
}

/// Where the standard output of a process goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// Nowhere.
    #[default]
    Null,
    /// A pipe whose other end the caller gets.
    Piped,
}

/// Where the error output of a process goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorOutput {
    /// To the same as the standard output, in the order of writing.
    ///
    /// Java does this when no error stream is given, and also when the caller asked for the error stream
    /// (`ProcStarter.readStderr`): `LocalProc` then hands out an error stream that is at its end from the start.
    #[default]
    Merged,
    /// Nowhere.
    Null,
    /// A pipe of its own.
    Piped,
}

/// What to launch.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// The program and its arguments, in which references to variables are expanded.
    pub command: Vec<String>,
    /// `NAME=value` each, for [`EnvVars::override_expanding_all`].
    pub environment: Vec<String>,
    /// The working directory; the agent's own if there is none.
    pub working_directory: Option<PathBuf>,
    /// The standard input.
    pub stdin: Input,
    /// The standard output.
    pub stdout: Output,
    /// The error output.
    pub stderr: ErrorOutput,
}

/// A process that was launched, and our ends of its pipes.
///
/// Its pipes are not read ahead: a process blocks while nobody reads. One whose reader is dropped gets SIGPIPE.
#[derive(Debug)]
pub struct Launched {
    /// The process.
    pub process: Process,
    /// To write to its standard input; dropping it ends that.
    pub stdin: Option<pipe::Sender>,
    /// Its standard output.
    pub stdout: Option<pipe::Receiver>,
    /// Its error output.
    pub stderr: Option<pipe::Receiver>,
}

/// A handle to a launched process. All clones are the same process; dropping them does not end it.
#[derive(Debug, Clone)]
pub struct Process {
    pid: u32,
    identity: Option<Identity>,
    cookie: String,
    exit: watch::Receiver<Option<Result<i32, String>>>,
}

/// How a process ended, with its output read to the end or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The exit code, see [`Process::wait`].
    pub code: i32,
    /// The output was still open; [`LEAK_MESSAGE`] belongs there.
    pub leaked: bool,
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The value of [`COOKIE_VARIABLE`] in its environment.
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Waits for its end; any number of callers may. The code is Java's: 128 and the number of the signal that ended it.
    /// Has no deadline: a build takes as long as it takes.
    ///
    /// # Errors
    /// When the system doesn't tell.
    pub async fn wait(&self) -> std::io::Result<i32> {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await;
        match ended.as_deref() {
            Ok(Some(Ok(code))) => Ok(*code),
            Ok(Some(Err(error))) => Err(std::io::Error::other(error.clone())),
            Ok(None) | Err(_) => {
                Err(std::io::Error::other(format!("the agent stopped waiting for process {}", self.pid)))
            }
        }
    }

    /// `Proc.LocalProc.join`: waits for the end of the process, and then up to `leak_wait` ([`LEAK_WAIT`]) for `copiers`,
    /// which is to end when what reads the output is done. `copiers` is polled all the while, and dropped in the end.
    ///
    /// # Errors
    /// As [`Process::wait`].
    pub async fn join(&self, copiers: impl Future<Output = ()>, leak_wait: Duration) -> std::io::Result<Joined> {
        tokio::pin!(copiers);
        let wait = self.wait();
        tokio::pin!(wait);
        let (code, copied) = tokio::select! {
            code = &mut wait => (code?, false),
            () = &mut copiers => (wait.await?, true),
        };
        let leaked = !copied && tokio::time::timeout(leak_wait, copiers).await.is_err();
        Ok(Joined { code, leaked })
    }

    /// `Proc.LocalProc.destroy`: kills it, its descendants, and all processes with its cookie. Returns when they have ended
    /// or can't be made to.
    pub async fn kill_tree(&self, policy: KillPolicy) -> KillReport {
        let cookie = [(COOKIE_VARIABLE, self.cookie.as_str())].into_iter().collect();
        tree::kill_process(self.identity, cookie, policy).await
    }
}

/// `Launcher.maskedPrintCommandLine`: the line, without its line feed, that announces a launch in the log.
///
/// Masked words show as `********`; a mask that is too short hides the rest.
pub fn command_line(command: &[String], masks: Option<&[bool]>, working_directory: Option<&str>) -> String {
    let mut line = String::new();
    if let Some(directory) = working_directory {
        // `replaceFirst("^.+[/\\\\]", "")`, where the dot is no line terminator.
        let first_line = directory.split(['\n', '\r']).next().unwrap_or_default();
        let name = match first_line.rfind(['/', '\\']) {
            Some(at) if at > 0 => &directory[at + 1..],
            _ => directory,
        };
        line.push('[');
        line.push_str(name);
        line.push_str("] ");
    }
    line.push('$');
    for (at, word) in command.iter().enumerate() {
        let masked = masks.is_some_and(|masks| masks.get(at).copied().unwrap_or(true));
        let word = if masked { "********" } else { word };
        let quote = match (word.contains(' '), word.contains('"')) {
            (false, _) => "",
            (true, true) => "'",
            (true, false) => "\"",
        };
        line.push(' ');
        line.push_str(quote);
        line.push_str(word);
        line.push_str(quote);
    }
    line
}

/// Launches a process with the agent's environment ([`EnvVars::agent`]) as the base.
///
/// It is launched even if the future is dropped meanwhile. The runtime has to have its I/O enabled.
///
/// # Errors
/// [`LaunchError`].
pub async fn launch(launch: Launch) -> Result<Launched, LaunchError> {
    launch_with(EnvVars::agent().clone(), launch).await
}

/// [`launch`] with another environment as the base.
///
/// # Errors
/// [`LaunchError`].
pub async fn launch_with(base: EnvVars, launch: Launch) -> Result<Launched, LaunchError> {
    // A working directory on a file system that hangs must not hold up the channel.
    tokio::task::spawn_blocking(move || launch_blocking(&base, launch)).await.unwrap_or(Err(LaunchError::ShutDown))
}

fn launch_blocking(base: &EnvVars, launch: Launch) -> Result<Launched, LaunchError> {
    let mut overrides = EnvVars::new();
    for (at, entry) in launch.environment.iter().enumerate() {
        let (name, value) = entry.split_once('=').ok_or(LaunchError::BadEnvironment(at))?;
        overrides.put(name, value);
    }
    let mut env = base.clone();
    env.override_expanding_all(&overrides)?;
    let mut words = Vec::with_capacity(launch.command.len());
    let mut total = 0;
    for word in &launch.command {
        let word = env.expand(word)?;
        total += word.len();
        if total > super::env::MAX_EXPANDED_BYTES {
            return Err(TooLarge.into());
        }
        words.push(word);
    }
    let cookie = new_cookie();
    // Another spelling of the name would keep it.
    env.remove(COOKIE_VARIABLE);
    env.put(COOKIE_VARIABLE, cookie.as_str());
    env.remove("");

    let (program, arguments) = words.split_first().ok_or(LaunchError::NoCommand)?;
    if words.iter().any(|word| word.contains('\0')) {
        return Err(LaunchError::Nul("command"));
    }
    if env.iter().any(|(n, v)| n.contains('\0') || v.contains('\0')) {
        return Err(LaunchError::Nul("environment"));
    }
    let directory = launch.working_directory;
    // A relative program is looked for from there, whenever the child changes to it.
    let absolute =
        directory.as_ref().map(|directory| std::path::absolute(directory).unwrap_or_else(|_| directory.clone()));
    if let Some(absolute) = &absolute
        && !absolute.exists()
    {
        return Err(LaunchError::NoWorkingDirectory(absolute.clone()));
    }
    let cannot_run = |errno: i32| LaunchError::CannotRun {
        program: program.clone(),
        directory: directory.clone(),
        errno,
        text: system_text(errno),
    };
    let executable = find_program(program, absolute.as_deref(), base, &env).map_err(cannot_run)?;

    // Each pipe in a variable of its own: the child's ends are closed on every way out.
    let (stdin, child_stdin) = match launch.stdin {
        Input::Null => (None, None),
        Input::Piped => {
            let (read, write) = new_pipe()?;
            let sender = pipe::Sender::from_owned_fd(write).map_err(LaunchError::Pipe)?;
            (Some(sender), Some(read))
        }
    };
    let (stdout, child_stdout) = match launch.stdout {
        Output::Null => (None, None),
        Output::Piped => receiving_pipe()?,
    };
    let (stderr, child_stderr) = match launch.stderr {
        ErrorOutput::Null => (None, None),
        ErrorOutput::Piped => receiving_pipe()?,
        ErrorOutput::Merged => {
            let same = child_stdout.as_ref().map(OwnedFd::try_clone);
            (None, same.transpose().map_err(LaunchError::Pipe)?)
        }
    };

    let spawn = |file: &Path, first: &str, rest: &[&str]| -> std::io::Result<_> {
        let stdio = |end: &Option<OwnedFd>| -> std::io::Result<Stdio> {
            Ok(match end {
                Some(end) => end.try_clone()?.into(),
                None => Stdio::null(),
            })
        };
        let mut command = std::process::Command::new(file);
        command
            .arg0(first)
            .args(rest)
            .env_clear()
            .envs(env.iter())
            .stdin(stdio(&child_stdin)?)
            .stdout(stdio(&child_stdout)?)
            .stderr(stdio(&child_stderr)?);
        if let Some(absolute) = &absolute {
            command.current_dir(absolute);
        }
        tokio::process::Command::from(command).spawn()
    };
    let plain: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut tries = 1;
    let spawned = loop {
        let spawned = spawn(&executable, program, &plain);
        match spawned.as_ref().err().and_then(std::io::Error::raw_os_error) {
            Some(ETXTBSY) if tries < BUSY_TRIES => {
                tries += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            // A script without `#!` is the shell's, for Java (`execve_as_traditional_shell_script`) as for `execvp`.
            Some(ENOEXEC) => {
                let script = executable.to_string_lossy();
                let mut through_shell = vec![&*script];
                through_shell.extend(&plain);
                break spawn(Path::new("/bin/sh"), "/bin/sh", &through_shell);
            }
            _ => break spawned,
        }
    };
    let child = spawned.map_err(|error| cannot_run(error.raw_os_error().unwrap_or(ENOENT)))?;
    Ok(Launched { process: watch_over(child, cookie), stdin, stdout, stderr })
}

fn new_pipe() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| LaunchError::Pipe(error.into()))
}

fn receiving_pipe() -> Result<(Option<pipe::Receiver>, Option<OwnedFd>), LaunchError> {
    let (read, write) = new_pipe()?;
    let receiver = pipe::Receiver::from_owned_fd(read).map_err(LaunchError::Pipe)?;
    Ok((Some(receiver), Some(write)))
}

/// The text of a system error without Rust's addition.
fn system_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// The file of a program.
///
/// A name without a slash is looked for as Java does, in the `PATH` that the agent has and not in that of the new process
/// (`JDK_execvpe`); unlike Java, then also in the latter.
fn find_program(program: &str, directory: Option<&Path>, base: &EnvVars, env: &EnvVars) -> Result<PathBuf, i32> {
    let directory = directory.unwrap_or(Path::new(""));
    if program.contains('/') {
        return Ok(directory.join(program));
    }
    let mut errno = ENOENT;
    if program.is_empty() {
        return Err(errno);
    }
    let default = ":/bin:/usr/bin";
    let paths = [base.get("PATH").unwrap_or(default), env.get("PATH").unwrap_or(default)];
    for element in paths.into_iter().flat_map(|path| path.split(':')) {
        // An empty element is the working directory.
        let file = directory.join(if element.is_empty() { "." } else { element }).join(program);
        if file.is_file() {
            match rustix::fs::access(&file, rustix::fs::Access::EXEC_OK) {
                Ok(()) => return Ok(file),
                Err(_) => errno = EACCES,
            }
        }
    }
    Err(errno)
}

/// The ids of launched processes that have not been waited for.
static LAUNCHED: Mutex<Option<HashSet<u32>>> = Mutex::new(None);

fn with_launched<T>(act: impl FnOnce(&mut HashSet<u32>) -> T) -> T {
    let mut launched = LAUNCHED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    act(launched.get_or_insert_default())
}

/// How many launched processes there are that have not ended.
pub fn running() -> usize {
    with_launched(|launched| launched.len())
}

/// Whether a process is one of ours that somebody waits for.
pub(super) fn is_launched(pid: i32) -> bool {
    u32::try_from(pid).is_ok_and(|pid| with_launched(|launched| launched.contains(&pid)))
}

/// Waits for a child in the background, so that it never stays a zombie and everybody can ask for its exit code.
fn watch_over(mut child: tokio::process::Child, cookie: String) -> Process {
    let pid = child.id().unwrap_or_default();
    with_launched(|launched| launched.insert(pid));
    // Not waited for yet, so the id is still its own even if it has ended.
    let identity = i32::try_from(pid).ok().and_then(Identity::of);
    let (sender, exit) = watch::channel(None);
    tokio::spawn(async move {
        let status = child.wait().await;
        with_launched(|launched| launched.remove(&pid));
        let outcome = match status {
            Ok(status) => Ok(java_exit_code(status)),
            Err(error) => Err(format!("cannot wait for process {pid}: {error}")),
        };
        sender.send_replace(Some(outcome));
    });
    Process { pid, identity, cookie, exit }
}

/// What `Process.waitFor` returns on Unix (`waitForProcessExit0`).
fn java_exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 0x80 + signal)).unwrap_or(-1)
}

/// A random UUID (version 4). It has to be unique, not secret, so the standard library's randomness will do.
fn new_cookie() -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = |salt: u64| u128::from(RandomState::new().hash_one((salt, std::process::id())));
    let bits = (random(0) << 64) | random(1);
    let bits = bits & !(0xf << 76) | (4 << 76);
    let bits = bits & !(0b11 << 62) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn words(command: &[&str]) -> Vec<String> {
        command.iter().map(|&word| word.to_owned()).collect()
    }

    fn piped(command: &[&str]) -> Launch {
        Launch { command: words(command), stdout: Output::Piped, ..Launch::default() }
    }

    /// A shell script; its dollars are doubled as durable-task does it.
    fn shell(script: &str) -> Launch {
        piped(&["sh", "-c", &script.replace('$', "$$")])
    }

    async fn output(launched: &mut Launched) -> String {
        let mut text = String::new();
        let stdout = launched.stdout.as_mut().unwrap();
        stdout.read_to_string(&mut text).await.unwrap();
        text
    }

    async fn run(request: Launch) -> (i32, String) {
        let mut launched = launch(request).await.unwrap();
        let text = output(&mut launched).await;
        (launched.process.wait().await.unwrap(), text)
    }

    #[test]
    fn announces_commands_as_java_does() {
        let line =
            |command: &[&str], masks: Option<&[bool]>, directory| command_line(&words(command), masks, directory);
        for (directory, expected) in [
            (None, "$ ls"),
            (Some("/a/b/workspace"), "[workspace] $ ls"),
            (Some("C:\\a\\b"), "[b] $ ls"),
            (Some("/a/b/"), "[] $ ls"),
            // The pattern wants a character before the slash.
            (Some("/a"), "[/a] $ ls"),
            (Some("a"), "[a] $ ls"),
            (Some("/a/b\n/c"), "[b\n/c] $ ls"),
        ] {
            assert_eq!(line(&["ls"], None, directory), expected);
        }
        assert_eq!(
            line(&["sh", "-c", "echo \"a b\"", "a b", "a\"b", ""], None, None),
            "$ sh -c 'echo \"a b\"' \"a b\" a\"b "
        );
        assert_eq!(line(&["login", "se cret", "x"], Some(&[false, true]), None), "$ login ******** ********");
    }

    #[tokio::test]
    async fn exit_codes() {
        for (script, code) in [("exit 0", 0), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
            let (actual, _) = run(shell(script)).await;
            assert_eq!(actual, code, "{script}");
        }
    }

    #[tokio::test]
    async fn expands_command_and_environment() {
        let base = EnvVars::agent().clone();
        let mut request = piped(&["sh", "-c", "echo $A $$A $NONE_SUCH_; echo $$PATH", "${A}"]);
        request.environment = words(&["A=1", "B=$A", "PATH+X=/x/$B"]);
        let mut launched = launch_with(base.clone(), request).await.unwrap();
        let text = output(&mut launched).await;
        let path = base.get("PATH").unwrap();
        assert_eq!(text, format!("1 1\n/x/1:{path}\n"));
    }

    #[tokio::test]
    async fn gives_each_process_a_cookie() {
        let mut request = shell("echo $HUDSON_COOKIE");
        request.environment = words(&["hudson_cookie=theirs"]);
        let mut launched = launch(request).await.unwrap();
        let text = output(&mut launched).await;
        assert_eq!(text.trim(), launched.process.cookie());
        assert_ne!(new_cookie(), new_cookie());
        let cookie = new_cookie();
        assert_eq!(cookie.len(), 36);
        assert_eq!(cookie.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&cookie.as_bytes()[19]), "{cookie}");
    }

    #[tokio::test]
    async fn keeps_the_order_of_merged_output() {
        let script = "i=0; while [ $i -lt 200 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
        let (_, text) = run(shell(script)).await;
        let expected: String = (0..200).map(|i| format!("o{i}\ne{i}\n")).collect();
        assert_eq!(text, expected);
    }

    #[tokio::test]
    async fn separate_error_output_and_input() {
        let mut request = shell("cat; echo e >&2");
        request.stdin = Input::Piped;
        request.stderr = ErrorOutput::Piped;
        let mut launched = launch(request).await.unwrap();
        let mut stdin = launched.stdin.take().unwrap();
        stdin.write_all(b"in").await.unwrap();
        drop(stdin);
        assert_eq!(output(&mut launched).await, "in");
        let mut errors = String::new();
        let mut stderr = launched.stderr.take().unwrap();
        stderr.read_to_string(&mut errors).await.unwrap();
        assert_eq!(errors, "e\n");
        // Without a pipe the input is at its end from the start.
        assert_eq!(run(shell("cat")).await, (0, String::new()));
    }

    #[tokio::test]
    async fn what_cannot_be_launched_is_told_as_java_tells_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        std::fs::write(path.join("file"), "").unwrap();
        let here = path.display();
        let cases: [(&[&str], Option<PathBuf>, String); 7] = [
            (&["true"], Some(path.join("gone")), format!("Process working directory '{here}/gone' doesn't exist!")),
            (
                &["no-such-program", "x"],
                Some(path.into()),
                format!(
                    "Cannot run program \"no-such-program\" (in directory \"{here}\"): error=2, No such file or directory"
                ),
            ),
            (&["/no/such"], None, "Cannot run program \"/no/such\": error=2, No such file or directory".into()),
            (
                &["./file"],
                Some(path.into()),
                format!("Cannot run program \"./file\" (in directory \"{here}\"): error=13, Permission denied"),
            ),
            (
                &["true"],
                Some(path.join("file")),
                format!("Cannot run program \"true\" (in directory \"{here}/file\"): error=20, Not a directory"),
            ),
            (&[], None, "the command to launch is empty".into()),
            (&["a\0b"], None, "invalid null character in command".into()),
        ];
        for (command, working_directory, expected) in cases {
            let mut request = piped(command);
            request.working_directory = working_directory;
            assert_eq!(launch(request).await.unwrap_err().to_string(), expected);
        }
        let mut request = piped(&["true"]);
        request.environment = words(&["A=1", "secret"]);
        let error = launch(request).await.unwrap_err().to_string();
        assert_eq!(error, "entry 1 of the environment to launch with has no '='");
    }

    #[tokio::test]
    async fn programs_are_found_in_either_path_and_scripts_need_no_interpreter_line() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        for (place, text) in [("agent", "agent"), ("child", "child")] {
            let place = dir.path().join(place);
            std::fs::create_dir(&place).unwrap();
            for name in [text, "both"] {
                let file = place.join(format!("{name}-tool"));
                std::fs::write(&file, format!("echo {text} $1\n")).unwrap();
                std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
            }
        }
        let place = |name: &str| dir.path().join(name).display().to_string();
        let base: EnvVars = [("PATH", place("agent"))].into_iter().collect();
        for (program, expected) in
            [("agent-tool", "agent x\n"), ("child-tool", "child x\n"), ("both-tool", "agent x\n")]
        {
            let mut request = piped(&[program, "x"]);
            request.environment = vec![format!("PATH+T={}", place("child"))];
            let mut launched = launch_with(base.clone(), request).await.unwrap();
            assert_eq!(output(&mut launched).await, expected);
        }
    }

    #[tokio::test]
    async fn a_leaked_descriptor_does_not_hold_up_the_join() {
        let mut launched = launch(shell("sleep 305 & echo done; exit 4")).await.unwrap();
        let mut stdout = launched.stdout.take().unwrap();
        let mut text = Vec::new();
        let started = Instant::now();
        let copier = async {
            stdout.read_to_end(&mut text).await.unwrap();
        };
        let wait = Duration::from_millis(200);
        let joined = launched.process.join(copier, wait).await.unwrap();
        assert_eq!(joined, Joined { code: 4, leaked: true });
        assert_eq!(text, b"done\n");
        assert!(started.elapsed() >= wait);
        // The parent is gone, the cookie finds the child.
        let report = launched.process.kill_tree(KillPolicy::default()).await;
        assert_eq!((report.terminated, report.survivors), (1, vec![]));

        let mut launched = launch(shell("sleep 0.1; echo done")).await.unwrap();
        let mut text = String::new();
        let mut stdout = launched.stdout.take().unwrap();
        let copier = async {
            stdout.read_to_string(&mut text).await.unwrap();
        };
        let joined = launched.process.join(copier, LEAK_WAIT).await.unwrap();
        assert!(!joined.leaked);
        assert_eq!(text, "done\n");
    }

    #[tokio::test]
    async fn a_killed_process_ends_for_all_who_wait_and_a_daemon_of_another_cookie_lives() {
        let mut launched =
            launch(shell("HUDSON_COOKIE=dontKillMe sh -c 'sleep 306 >&- 2>&- & echo $!' & wait; sleep 307"))
                .await
                .unwrap();
        let mut line = [0; 16];
        let length = launched.stdout.as_mut().unwrap().read(&mut line).await;
        let daemon: i32 = std::str::from_utf8(&line[..length.unwrap()]).unwrap().trim().parse().unwrap();
        let daemon = Identity::of(daemon).unwrap();
        let other = launched.process.clone();
        let waiting = tokio::spawn(async move { other.wait().await.unwrap() });
        // Until the daemon's parent has ended it would be a descendant.
        while waits_for_children(launched.process.pid()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(launched.process.is_alive());
        launched.process.kill_tree(KillPolicy::default()).await;
        assert_eq!(waiting.await.unwrap(), 143);
        assert!(!launched.process.is_alive());
        assert!(daemon.is_alive());
        let pid = rustix::process::Pid::from_raw(daemon.pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    /// Whether a shell has a child other than the last `sleep`.
    fn waits_for_children(pid: u32) -> bool {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        !children
            .split_whitespace()
            .any(|child| std::fs::read(format!("/proc/{child}/cmdline")).is_ok_and(|line| line.ends_with(b"307\0")))
    }

    #[tokio::test]
    async fn nothing_is_read_ahead() {
        let mut request = shell("head -c 4000000 /dev/zero; echo done >&2");
        request.stderr = ErrorOutput::Piped;
        let mut launched = launch(request).await.unwrap();
        let mut errors = [0; 8];
        let mut stderr = launched.stderr.take().unwrap();
        // The pipe holds 64 KiB; the rest waits in the process.
        let early = tokio::time::timeout(Duration::from_millis(200), stderr.read(&mut errors)).await;
        assert!(early.is_err());
        let mut sink = tokio::io::sink();
        let copied = tokio::io::copy(launched.stdout.as_mut().unwrap(), &mut sink).await;
        assert_eq!(copied.unwrap(), 4_000_000);
        assert_eq!(stderr.read(&mut errors).await.unwrap(), 5);
    }

    #[tokio::test]
    async fn a_dropped_handle_kills_nothing_and_leaves_no_zombie() {
        let launched = launch(Launch { stdout: Output::Null, ..shell("sleep 0.2") }).await.unwrap();
        let id = launched.process.identity.unwrap();
        drop(launched);
        assert!(id.is_alive());
        assert!(is_launched(id.pid));
        while Identity::of(id.pid) == Some(id) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
