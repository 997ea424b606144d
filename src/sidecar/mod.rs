//! The sidecar: a Java virtual machine beside this agent that executes what is not native.
//!
//! It runs the controller's own remoting jar and speaks over standard input and output, with this agent in the controller's
//! place. What is whose on the channel is decided in [`crate::channel::state`]; here the process is started when something
//! is for it, fed, watched and ended. Until then there is no process, no thread and no task.

pub mod jar;
pub mod java;
pub mod launcher;

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, oneshot, watch};
use tokio::time::{sleep_until, timeout};

use crate::callables::statistics::{Statistics, Tenant};
use crate::callables::{Agent, judge};
use crate::channel::state::{FirstIds, JvmEvent};
use crate::channel::{Link, command, printable};
use crate::frame::Capability;
use crate::process::env::EnvVars;
use crate::transport::{CommandReader, CommandWriter, Connection, stdio};

/// How long a JVM may take from its start to its first words, and to be ready.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a JVM may take to end in order before it is killed.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Commands are written in batches of about this size.
const BATCH: usize = 128 << 10;
/// The longest line of its error output that is logged whole.
const MAX_LINE: usize = 1000;
/// Most lines of its error output that are logged in a minute.
const MAX_LINES: u32 = 300;

/// What keeps a JVM small: one thread collects garbage, one compiler compiles, memory goes back to the system. It writes no
/// files of its own, and it ends when its heap is full rather than limp on.
pub const LEAN: [&str; 9] = [
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:MinHeapFreeRatio=10",
    "-XX:MaxHeapFreeRatio=30",
    "-Xms16m",
    "-Xss512k",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
];

/// What a JVM is started with.
#[derive(Clone)]
pub struct Settings {
    /// The java program.
    pub java: PathBuf,
    /// Its options, after [`LEAN`].
    pub options: Vec<String>,
    /// How long it is kept without work; `None` is as long as the channel.
    pub idle: Option<Duration>,
    /// Where the jar comes from.
    pub source: jar::Source,
    /// The agent's own directory; without one a temporary directory is made.
    pub dir: Option<PathBuf>,
    /// The environment that it gets: without the agent's secrets.
    pub environment: EnvVars,
}

/// What runs the JVMs of one channel, one after the other.
pub struct Sidecar {
    settings: Settings,
    agent: Arc<Agent>,
    provided: Mutex<Option<Arc<Provided>>>,
    /// JVMs of a smaller number than this are given up.
    doomed: watch::Sender<u32>,
}

/// What was found, fetched and checked once for a channel.
struct Provided {
    jar: PathBuf,
    dir: PathBuf,
    /// The directory goes with the channel.
    temporary: bool,
}

impl Drop for Provided {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

impl Sidecar {
    /// Lets JVMs share a channel on which nothing was received yet. With `now` the first is started at once.
    ///
    /// Must be called within a tokio runtime.
    pub fn attach(link: &Arc<Link>, agent: &Arc<Agent>, settings: Settings, now: bool) {
        let sidecar = Arc::new(Sidecar {
            settings,
            agent: agent.clone(),
            provided: Mutex::new(None),
            doomed: watch::Sender::new(0),
        });
        let judging = agent.clone();
        let runtime = tokio::runtime::Handle::current();
        let hook = Box::new(move |link: &Arc<Link>, event| match event {
            JvmEvent::Wanted { generation, first, label } => {
                match label {
                    Some(label) => tracing::info!("starting a JVM for {}, which is not native", printable(&label)),
                    None => tracing::info!("starting a JVM"),
                }
                let (sidecar, link) = (sidecar.clone(), link.clone());
                runtime.spawn(async move { sidecar.run(&link, generation, first).await });
            }
            JvmEvent::Failed { generation, .. } => sidecar.doomed.send_modify(|doomed| *doomed = generation + 1),
            JvmEvent::Answered { label, took } => {
                tracing::debug!("JVM: {} in {:.1} ms", printable(&label), took.as_secs_f64() * 1e3);
                sidecar.statistics().record(Tenant::Jvm, &label, took);
            }
        });
        link.share(Instant::now(), Box::new(move |graph| judge(&judging, graph)), hook);
        if now {
            link.want_jvm(Instant::now());
        }
    }

    fn statistics(&self) -> &Statistics {
        &self.agent.statistics
    }

    /// A JVM from its start to its end.
    async fn run(&self, link: &Arc<Link>, generation: u32, first: FirstIds) {
        // The end of the process waits for it, within the grace period.
        let _work = self.agent.unfinished.work();
        let begun = Instant::now();
        let mut doomed = self.doomed.subscribe();
        let started = tokio::select! {
            started = self.start(first) => started,
            () = link.closed() => Err("the channel has ended".to_owned()),
            _ = doomed.wait_for(|doomed| *doomed > generation) => Err("it was given up".to_owned()),
        };
        let mut jvm = match started {
            Ok(jvm) => jvm,
            Err(why) => {
                tracing::warn!("no JVM: {why}");
                return link.jvm_lost(Instant::now(), generation, &format!("{why}. {ADVICE}"));
            }
        };
        if link.jvm_started(Instant::now(), generation) {
            tracing::info!(
                "the JVM runs: pid {}, ready after {:.1} s",
                jvm.child.id().unwrap_or_default(),
                begun.elapsed().as_secs_f64()
            );
        }
        let ended = tokio::select! {
            ended = serve(&mut jvm.reader, &mut jvm.writer, link, generation, self.settings.idle) => ended,
            () = link.closed() => Ended::Stopped("the channel has ended".to_owned()),
            _ = doomed.wait_for(|doomed| *doomed > generation) => Ended::Failed("it was given up".to_owned()),
        };
        let memory = memory(&jvm.child);
        let (orderly, mut why) = match ended {
            Ended::Stopped(why) => (true, why),
            Ended::Failed(why) => (false, why),
        };
        if orderly {
            let _ = jvm.writer.write(&[command::close()]).await;
            jvm.writer.close().await;
        } else if let Ok(Ok(status)) = timeout(Duration::from_secs(1), jvm.child.wait()).await {
            why = format!("{why} ({})", describe(status));
        }
        link.jvm_lost(Instant::now(), generation, &why);
        if !orderly || timeout(STOP_TIMEOUT, jvm.child.wait()).await.is_err() {
            let _ = jvm.child.kill().await;
        }
        let lived = begun.elapsed().as_secs();
        let memory = memory.map_or_else(String::new, |kib| format!(", {} MiB of memory at most", kib >> 10));
        if orderly {
            tracing::info!("the JVM was stopped after {lived} s: {why}{memory}");
        } else {
            let last = jvm.last_line.borrow().clone();
            let last = if last.is_empty() { last } else { format!("; its last words: {last}") };
            tracing::warn!("the JVM ended after {lived} s: {why}{memory}{last}");
        }
    }

    /// Finds, fetches and checks what is needed, once.
    async fn provide(&self) -> Result<Arc<Provided>, String> {
        let mut provided = self.provided.lock().await;
        if let Some(provided) = provided.as_ref().filter(|provided| provided.jar.is_file()) {
            return Ok(provided.clone());
        }
        let Settings { java, source, environment, dir, .. } = &self.settings;
        let (dir, temporary) = match dir {
            Some(dir) => (dir.join("jvm"), false),
            None => {
                let made = crate::files::temp::create_temp_dir(&std::env::temp_dir(), "agent-jvm-");
                let dir = made.map_err(|error| error.to_string())?;
                // What it holds is executed: nobody else may write there, whatever the umask.
                use std::os::unix::fs::PermissionsExt;
                let private = std::fs::Permissions::from_mode(0o700);
                std::fs::set_permissions(&dir, private).map_err(|error| error.to_string())?;
                (dir, true)
            }
        };
        let new = Provided { jar: jar::provide(source, &dir).await?, dir, temporary };
        let (has, needs) = (java::release(java, environment).await?, java::needed(&new.jar)?);
        if has < needs {
            return Err(format!("{} is Java {has}, and the controller's remoting needs Java {needs}", java.display()));
        }
        tracing::debug!("Java {has} at {}, for {}", java.display(), new.jar.display());
        Ok(provided.insert(Arc::new(new)).clone())
    }

    async fn start(&self, first: FirstIds) -> Result<Jvm, String> {
        let provided = self.provide().await?;
        let mut class_path = provided.jar.clone().into_os_string();
        class_path.push(":");
        class_path.push(&provided.dir);
        let mut command = Command::new(&self.settings.java);
        command
            .args(LEAN)
            .args(&self.settings.options)
            .arg("-cp")
            .arg(class_path)
            .arg(launcher::CLASS)
            // The first pipe operation is one more than the counter.
            .args([first.request, first.io - 1, first.oid].map(|id| id.to_string()))
            .arg(provided.dir.join("jars"))
            .env_clear()
            .envs(self.settings.environment.iter())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A terminal's Ctrl-C is for the agent, which ends it in order.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", self.settings.java.display()))?;
        let (Some(input), Some(output), Some(errors)) = (child.stdout.take(), child.stdin.take(), child.stderr.take())
        else {
            return Err("the JVM has no pipes".to_owned());
        };
        let (tell, last_line) = watch::channel(String::new());
        let (ready, is_ready) = oneshot::channel();
        tokio::spawn(log(errors, tell, ready));
        let negotiated = async {
            let connection = stdio::connect(input, output, Capability::OURS, START_TIMEOUT).await;
            let connection = connection.map_err(|error| error.cause.to_string())?;
            timeout(START_TIMEOUT, is_ready)
                .await
                .map_err(|_| "it does not get ready".to_owned())?
                .map_err(|_| "it ended".to_owned())?;
            Ok(connection)
        };
        let Connection { reader, writer, peer } = match negotiated.await {
            Ok(connection) => connection,
            Err(why) => {
                let why: String = why;
                let status = timeout(Duration::from_secs(1), child.wait()).await;
                let status = status
                    .ok()
                    .and_then(Result::ok)
                    .map_or_else(String::new, |status| format!(" ({})", describe(status)));
                let words = last_line.borrow().clone();
                return Err(format!(
                    "the JVM did not come up: {why}{status}{}{words}",
                    if words.is_empty() { "" } else { ": " }
                ));
            }
        };
        // The controller decodes what the JVM sends by what this agent has said that it can do.
        if peer.capability != Capability::OURS {
            return Err(format!(
                "the jar's remoting has other capabilities ({:#x}) than this agent has told the controller",
                peer.capability.mask
            ));
        }
        Ok(Jvm { child, reader, writer, last_line })
    }
}

/// What users can do about it.
const ADVICE: &str = "Run it on an agent with a Java runtime (an image with a JRE), or report the class as missing";

struct Jvm {
    child: Child,
    reader: CommandReader,
    writer: CommandWriter,
    last_line: watch::Receiver<String>,
}

enum Ended {
    Stopped(String),
    Failed(String),
}

/// Moves commands until the JVM ends or is idle for too long.
async fn serve(
    reader: &mut CommandReader,
    writer: &mut CommandWriter,
    link: &Arc<Link>,
    generation: u32,
    idle: Option<Duration>,
) -> Ended {
    let reading = async {
        loop {
            match reader.read().await {
                Ok(Some(command)) => {
                    if let Err(why) = link.jvm_receive(Instant::now(), generation, command).await {
                        return why;
                    }
                }
                Ok(None) => return "it closed its output".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    };
    let writing = async {
        let mut batch = Vec::new();
        loop {
            link.jvm_transmit(generation, BATCH, &mut batch).await;
            if let Err(error) = writer.write(&batch).await {
                return error.to_string();
            }
            batch.clear();
        }
    };
    let idling = async {
        let Some(idle) = idle else { return std::future::pending().await };
        while let Err(since) = link.stop_idle_jvm(Instant::now(), generation, idle) {
            let next = (since + idle).max(Instant::now() + Duration::from_millis(100));
            sleep_until(next.into()).await;
        }
        idle
    };
    tokio::select! {
        why = reading => Ended::Failed(why),
        why = writing => Ended::Failed(why),
        idle = idling => Ended::Stopped(format!("nothing to do for {} s", idle.as_secs())),
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The most memory that a process had resident, in KiB.
fn memory(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(child.id()?.to_string()).join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Logs a JVM's error output, at most so much of it, and tells when it says that it is ready.
async fn log(mut errors: impl AsyncRead + Unpin, last_line: watch::Sender<String>, ready: oneshot::Sender<()>) {
    let mut ready = Some(ready);
    let (mut line, mut cut) = (Vec::new(), false);
    let (mut since, mut lines) = (Instant::now(), 0);
    let mut buffer = vec![0; 4096];
    loop {
        let length = match errors.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => length,
        };
        for &byte in &buffer[..length] {
            if byte != b'\n' {
                if line.len() < MAX_LINE {
                    line.push(byte);
                } else {
                    cut = true;
                }
                continue;
            }
            if line == launcher::READY.as_bytes() {
                if let Some(ready) = ready.take() {
                    let _ = ready.send(());
                }
            } else if !line.is_empty() {
                if since.elapsed() >= Duration::from_secs(60) {
                    (since, lines) = (Instant::now(), 0);
                }
                lines += 1;
                let text = printable(&String::from_utf8_lossy(&line));
                if lines <= MAX_LINES {
                    tracing::debug!("JVM: {text}{}", if cut { "..." } else { "" });
                }
                last_line.send_replace(text);
            }
            line.clear();
            cut = false;
        }
    }
}
