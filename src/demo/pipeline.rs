//! What a controller does with an agent: brings it online, and runs the steps of a build on it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use flate2::read::GzDecoder;

use super::console::Console;
use super::controller::end::{CallError, End, Kind, grants};
use super::controller::requests::{self, Launch};
use crate::channel::command::Grant;
use crate::frame::Capability;
use crate::object::{Graph, Value};

/// First and longest pause between two looks at a step; a controller's are 0.25 s and 15 s.
const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));
/// How long a step may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// Size of the archived file.
const ARTIFACT: usize = 3_000_000;
const REMOTE_PROCESS: &str = "hudson.Launcher$RemoteProcess";

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {problem}")]
pub struct Failure {
    step: String,
    problem: String,
}

fn failure(step: impl Into<String>, problem: impl ToString) -> Failure {
    Failure { step: step.into(), problem: problem.to_string() }
}

/// A running `sh` step.
struct Shell {
    control: String,
    cookie: String,
    process: Graph,
    printed: i64,
    partial: Vec<u8>,
}

/// A build on one agent.
pub struct Build<'a> {
    end: &'a End,
    console: &'a Console,
    root: String,
    workspace: String,
    shells: u32,
}

impl<'a> Build<'a> {
    /// A build in `root`, the agent's root directory.
    pub fn new(end: &'a End, console: &'a Console, root: &Path) -> Build<'a> {
        let root = root.to_string_lossy().into_owned();
        let workspace = format!("{root}/workspace/demo");
        Build { end, console, root, workspace, shells: 0 }
    }

    async fn call(&self, step: &str, request: requests::Request) -> Result<Graph, Failure> {
        self.end.call(request).await.map_err(|error| failure(step, error))
    }

    /// What a controller asks of a new agent until it counts as online.
    ///
    /// # Errors
    /// If a controller would have closed the connection.
    pub async fn come_online(&self) -> Result<(), Failure> {
        for (name, request) in requests::on_connect(&self.root) {
            self.call(name, request).await?;
        }
        Ok(())
    }

    /// What a controller asks of an agent that is online, all at once: node monitors and the like.
    ///
    /// # Errors
    /// If one of them fails.
    pub async fn monitor(&self) -> Result<(), Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let asked = requests::once_online(&self.root, i64::try_from(now).unwrap_or(i64::MAX));
        let started: Vec<_> = asked.into_iter().map(|(name, request)| (name, self.end.start(request))).collect();
        for (name, id) in started {
            self.end.answer(id).await.map_err(|error| failure(name, error))?;
        }
        Ok(())
    }

    /// A class that no agent knows: the call fails by name, and the channel lives on.
    ///
    /// # Errors
    /// If not so.
    pub async fn unknown_callable(&self) -> Result<(), Failure> {
        match self.end.call(requests::unknown()).await {
            Err(CallError::Thrown(text)) if text.contains("CountUnicorns") => Ok(()),
            other => Err(failure("an unknown callable", format!("{other:?}"))),
        }
    }

    /// Launches a script as durable-task does (`BourneShellScript.launchWithCookie`).
    async fn launch(&mut self, script: &str, output: bool) -> Result<Shell, Failure> {
        const STEP: &str = "sh";
        self.call(STEP, requests::agent_info(&self.root)).await?;
        self.call(STEP, requests::mkdirs(&self.workspace)).await?;
        self.shells += 1;
        let control = format!("{}@tmp/durable-{:08x}", self.workspace, self.shells);
        self.call(STEP, requests::mkdirs(&control)).await?;
        self.call(STEP, requests::write(&format!("{control}/script.sh"), script)).await?;
        let cookie = format!("durable-demo{:08x}", self.shells);
        let (c, r) = (&control, format!("{control}/jenkins-result.txt"));
        let redirect = if output {
            format!("> '{c}/output.txt' 2> '{c}/jenkins-log.txt'")
        } else {
            format!("> '{c}/jenkins-log.txt' 2>&1")
        };
        let wrapper = format!(
            "({{ while [ -d '{c}' -a \\! -f '{r}' ]; do touch '{c}/jenkins-log.txt'; sleep 3; done }} & \
             jsc={cookie}; JENKINS_SERVER_COOKIE=$$jsc 'sh' -xe  '{c}/script.sh' {redirect}; \
             echo $$? > '{r}.tmp'; mv '{r}.tmp' '{r}'; wait) >&- 2>&- &"
        );
        let workspace = format!("WORKSPACE={}", self.workspace);
        let environment = [
            "BUILD_NUMBER=1",
            "CI=true",
            "JENKINS_SERVER_COOKIE=please-do-not-kill-me",
            "JOB_NAME=demo",
            "NODE_NAME=demo",
            workspace.as_str(),
        ];
        let request = requests::launch(
            self.end,
            self.end.export(Kind::Output),
            Launch {
                command: &["nohup", "sh", "-c", &wrapper],
                environment: &environment,
                directory: &self.workspace,
                output: None,
            },
        );
        let process = self.call(STEP, request).await?;
        let oid = exported(&process).ok_or_else(|| failure(STEP, "launching gave no process"))?;
        self.call(STEP, requests::Request::method(oid, REMOTE_PROCESS, "getIOtriplet")).await?;
        self.call(STEP, requests::transcoding_charset()).await?;
        Ok(Shell { control, cookie, process, printed: 0, partial: Vec::new() })
    }

    /// Prints what the step has written since, whole lines at a time.
    async fn write_log(&self, shell: &mut Shell) -> Result<(), Failure> {
        let sink = self.end.export(Kind::Output);
        let log = format!("{}/jenkins-log.txt", shell.control);
        self.call("sh", requests::write_log(self.end, &log, shell.printed, sink)).await?;
        let bytes = self.end.take_collected(sink).bytes;
        shell.printed += bytes.len() as i64;
        shell.partial.extend(bytes);
        while let Some(at) = shell.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = shell.partial.drain(..=at).collect();
            self.console.line(String::from_utf8_lossy(&line).trim_end());
        }
        Ok(())
    }

    async fn status(&self, shell: &Shell) -> Result<Option<i32>, Failure> {
        let graph = self.call("sh", requests::status_check(&format!("{}/jenkins-result.txt", shell.control))).await?;
        Ok(graph.root().and_then(|root| match root.unboxed() {
            Some(Value::Int(status)) => Some(status),
            _ => None,
        }))
    }

    async fn wait(&self, shell: &mut Shell) -> Result<i32, Failure> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        let mut pause = POLL.0;
        loop {
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.2).min(POLL.1);
            self.call("sh", requests::is_directory(&self.workspace)).await?;
            self.write_log(shell).await?;
            if let Some(status) = self.status(shell).await? {
                self.write_log(shell).await?;
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(failure("sh", format!("no result within {} s", STEP_TIMEOUT.as_secs())));
            }
        }
    }

    async fn clean_up(&self, shell: Shell) -> Result<(), Failure> {
        self.call("sh", requests::delete_recursive(&shell.control)).await?;
        // The process and its streams are garbage to a controller from here on.
        drop(shell.process);
        self.end.collect_garbage();
        Ok(())
    }

    /// `sh`: the exit status.
    ///
    /// # Errors
    /// If the step can't be run.
    pub async fn sh(&mut self, script: &str) -> Result<i32, Failure> {
        self.console.step("sh");
        let mut shell = self.launch(script, false).await?;
        let status = self.wait(&mut shell).await?;
        self.clean_up(shell).await?;
        Ok(status)
    }

    async fn sh_ok(&mut self, script: &str) -> Result<(), Failure> {
        match self.sh(script).await? {
            0 => Ok(()),
            status => Err(failure("sh", format!("script returned exit code {status}: {script}"))),
        }
    }

    /// `sh(returnStdout: true)`.
    ///
    /// # Errors
    /// If the step can't be run, or fails.
    pub async fn sh_output(&mut self, script: &str) -> Result<Bytes, Failure> {
        self.console.step("sh (returnStdout)");
        let mut shell = self.launch(script, true).await?;
        let status = self.wait(&mut shell).await?;
        let output = self.call("sh", requests::get_output(&format!("{}/output.txt", shell.control))).await?;
        self.clean_up(shell).await?;
        let bytes = output.root().map(|root| root.byte_array()).transpose().map_err(|e| failure("sh", e))?;
        if status == 0 { Ok(bytes.unwrap_or_default()) } else { Err(failure("sh", format!("exit code {status}"))) }
    }

    /// All steps.
    ///
    /// # Errors
    /// The first that fails.
    pub async fn run(&mut self) -> Result<(), Failure> {
        self.checkout().await?;
        self.live_output().await?;
        self.stash().await?;
        self.archive().await?;
        self.abort().await?;
        self.call("deleteDir", requests::delete_recursive(&self.workspace)).await?;
        Ok(())
    }

    /// Clones a repository that was made for this.
    async fn checkout(&mut self) -> Result<(), Failure> {
        self.console.stage("checkout");
        let repository = PathBuf::from(format!("{}/repository", self.root));
        match make_repository(&repository) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.console.line("git is not installed: the checkout is skipped");
                return self.sh_ok("mkdir -p src && echo 'hello from no repository' > src/README.md").await;
            }
            Err(error) => return Err(failure("making a git repository", error)),
        }
        self.sh_ok(&format!("git clone -q 'file://{}' src\ngit -C src log --oneline", repository.display())).await
    }

    /// Shows output while the step goes on, and takes the output of another.
    async fn live_output(&mut self) -> Result<(), Failure> {
        self.console.stage("build");
        self.sh_ok("for i in 1 2 3; do echo \"compiling $i of 3\"; sleep 0.1; done").await?;
        let output = self.sh_output("printf 'answer %s' 42").await?;
        if output.as_ref() != b"answer 42" {
            return Err(failure("sh(returnStdout)", format!("gave {output:?}")));
        }
        match self.sh("exit 3").await? {
            3 => Ok(()),
            status => Err(failure("sh", format!("exit 3 gave {status}"))),
        }
    }

    /// Packs a directory, and unpacks it elsewhere, by both kinds of streams.
    async fn stash(&mut self) -> Result<(), Failure> {
        self.console.stage("stash");
        self.console.step("stash");
        let (request, oid) = requests::archive(self.end, &self.workspace, "src/**");
        self.call("stash", request).await?;
        let stash = Bytes::from(self.end.take_collected(oid).bytes);
        let expected = std::fs::read(format!("{}/src/README.md", self.workspace));
        let expected = expected.map_err(|error| failure("stash", error))?;
        let first = format!("{}/unstashed", self.workspace);
        let second = format!("{}/unstashed-again", self.workspace);
        self.console.step("unstash");
        self.call("unstash", requests::untar(self.end, &first, stash.clone())).await?;
        self.call("unstash", requests::untar_pulled(self.end, &second, stash)).await?;
        for directory in [first, second] {
            let path = format!("{directory}/src/README.md");
            let found = std::fs::read(&path).map_err(|error| failure("unstash", format!("{path}: {error}")))?;
            if found != expected {
                return Err(failure("unstash", format!("{path} is not what was stashed")));
            }
        }
        Ok(())
    }

    /// Fetches a file that a step made, and compares it byte for byte.
    async fn archive(&mut self) -> Result<(), Failure> {
        const STEP: &str = "archiveArtifacts";
        self.console.stage("archive");
        self.sh_ok(&format!("mkdir bin\nhead -c {ARTIFACT} /dev/urandom > bin/big.bin")).await?;
        self.console.step(STEP);
        let listed = self.call(STEP, requests::list_files(&self.workspace, "bin/*")).await?;
        let listed = listed.root().ok_or_else(|| failure(STEP, "no list of files"))?;
        let files = match listed.map() {
            Ok(_) => listed.string_map().map(|entries| {
                entries.into_iter().map(|(name, path)| (name.clone(), path.unwrap_or(name))).collect::<Vec<_>>()
            }),
            Err(error) => Err(error),
        };
        let files = files.map_err(|error| failure(STEP, error))?;
        if files != [("bin/big.bin".to_owned(), "bin/big.bin".to_owned())] {
            return Err(failure(STEP, format!("bin/* gave {files:?}")));
        }
        let (request, oid) = requests::copy_to_local(self.end, &self.workspace, &files);
        self.call(STEP, request).await?;
        let archive = self.end.take_collected(oid).bytes;
        let expected = std::fs::read(format!("{}/bin/big.bin", self.workspace));
        let expected = expected.map_err(|error| failure(STEP, error))?;
        let found = unpack(&archive).map_err(|error| failure(STEP, error))?;
        match found.as_slice() {
            [(name, bytes)] if name == "bin/big.bin" && *bytes == expected && bytes.len() == ARTIFACT => {
                self.console.line(&format!("bin/big.bin: {ARTIFACT} bytes, identical"));
                Ok(())
            }
            _ => Err(failure(STEP, "what arrived is not what was archived")),
        }
    }

    /// Ends a step and all that it has started.
    async fn abort(&mut self) -> Result<(), Failure> {
        const STEP: &str = "abort";
        self.console.stage("abort");
        self.console.step("sh");
        let script = "set +x\nsh -c 'trap \"\" HUP; echo pid $$; sleep 300' &\necho pid $$\n(sleep 300)";
        let mut shell = self.launch(script, false).await?;
        let log = format!("{}/jenkins-log.txt", shell.control);
        let deadline = Instant::now() + STEP_TIMEOUT;
        let pids = loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let pids: Vec<u32> =
                text.lines().filter_map(|line| line.strip_prefix("pid ")?.trim().parse().ok()).collect();
            if pids.len() == 2 {
                break pids;
            }
            if Instant::now() > deadline {
                return Err(failure(STEP, "the step did not start its processes"));
            }
            tokio::time::sleep(POLL.0).await;
        };
        self.write_log(&mut shell).await?;
        self.console.line("Sending interrupt signal to process");
        self.call(STEP, requests::kill("JENKINS_SERVER_COOKIE", &shell.cookie)).await?;
        let status = self.wait(&mut shell).await?;
        self.console.line(&format!("script returned exit code {status}"));
        while pids.iter().any(|pid| is_alive(*pid)) {
            if Instant::now() > deadline {
                return Err(failure(STEP, format!("processes are left of {pids:?}")));
            }
            tokio::time::sleep(POLL.0).await;
        }
        self.clean_up(shell).await
    }
}

/// The object of the agent's that an answer's proxy stands for.
fn exported(answer: &Graph) -> Option<i32> {
    grants(answer, Capability::OURS).find_map(|(_, grant)| match grant {
        Grant::Proxy(oid) => Some(oid),
        _ => None,
    })
}

/// Whether a process runs: one that has ended and waits for its parent does not.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn unpack(archive: &[u8]) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in tar::Archive::new(GzDecoder::new(archive)).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.push((entry.path()?.to_string_lossy().into_owned(), bytes));
        }
    }
    Ok(files)
}

/// Makes a git repository with one commit.
fn make_repository(at: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(at)?;
    std::fs::write(at.join("README.md"), "hello from a repository\n")?;
    for arguments in [
        &["init", "-q"][..],
        &["add", "README.md"],
        &["-c", "user.name=demo", "-c", "user.email=demo@localhost", "commit", "-q", "-m", "first"],
    ] {
        let done = Command::new("git")
            .args(arguments)
            .current_dir(at)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .stdin(Stdio::null())
            .output()?;
        if !done.status.success() {
            return Err(std::io::Error::other(String::from_utf8_lossy(&done.stderr).into_owned()));
        }
    }
    Ok(())
}
