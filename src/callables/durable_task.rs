//! durable-task: the `sh` step, in both of its modes.
//!
//! Usually the controller polls: [`WriteLog`](ENTRIES) and `StatusCheck` on the files that the step's wrapper script
//! writes. In watch mode (`DurableTaskStep.USE_WATCHING`) it sends `StartWatching` once, and the agent pushes what the
//! log gains, and the exit code in the end. A watch ends with its channel; the controller sends another one after a
//! reconnect, which goes on at `last-location.txt`.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::listener::{Listener, Listeners};
use super::{Call, Entry, Reply, Run, Throw, ThrowClass, plain};
use crate::channel::{Link, RemoteProxy};
use crate::java_class;
use crate::object::{Value, View};
use crate::process::system;

/// The callables of this module.
pub const ENTRIES: &[Entry] = &[
    entry("org.jenkinsci.plugins.durabletask.AgentInfo$GetAgentInfo", Run::Blocking(agent_info)),
    // Up to 1.37.
    entry("org.jenkinsci.plugins.durabletask.BourneShellScript$GetAgentInfo", Run::Blocking(agent_info)),
    entry("org.jenkinsci.plugins.durabletask.BourneShellScript$getIBMzOsEncoding", Run::Inline(null)),
    entry("org.jenkinsci.plugins.durabletask.BourneShellScript$StatusCheckWithEncoding", Run::Blocking(status_line)),
    entry(
        "org.jenkinsci.plugins.durabletask.FileMonitoringTask$FileMonitoringController$WriteLog",
        Run::Blocking(write_log),
    ),
    // Null means UTF-8, which is what this agent's charset is.
    entry(
        "org.jenkinsci.plugins.durabletask.FileMonitoringTask$FileMonitoringController$TranscodingCharsetForSystemDefault",
        Run::Inline(null),
    ),
    entry(
        "org.jenkinsci.plugins.durabletask.FileMonitoringTask$FileMonitoringController$StatusCheck",
        Run::Blocking(status_check),
    ),
    entry(
        "org.jenkinsci.plugins.durabletask.FileMonitoringTask$FileMonitoringController$GetOutput",
        Run::Blocking(get_output),
    ),
    entry("org.jenkinsci.plugins.durabletask.FileMonitoringTask$StartWatching", Run::Blocking(start_watching)),
];

const fn entry(class: &'static str, run: Run) -> Entry {
    Entry { class, owner: "durable-task", run }
}

/// How much of a log is read at once.
const PIECE: usize = 64 << 10;

/// The largest result file that is read. One has a number.
const MAX_RESULT: u64 = 4 << 10;

/// The most output that `sh(returnStdout: true)` may return. All of it is in memory here, and again at the controller.
const MAX_OUTPUT: u64 = 256 << 20;

/// How often a watch looks (`Watcher.run`).
const WATCH_PERIOD: Duration = Duration::from_millis(100);

/// `BourneShellScript.HEARTBEAT_CHECK_INTERVAL`: how often it is checked that the wrapper script still touches the log.
const HEARTBEAT_CHECK_INTERVAL: Duration = Duration::from_secs(300);

/// `BourneShellScript.HEARTBEAT_MINIMUM_DELTA`
const HEARTBEAT_MINIMUM_DELTA: Duration = Duration::from_secs(2);

fn null(call: &Call) -> Result<Reply, Throw> {
    Ok(call.null())
}

// ---------------------------------------------------------------------------------------------------------------------
// GetAgentInfo

java_class! {
    struct GetAgentInfo {
        binary_version: Option<String> = "binaryVersion",
    }
}

/// What durable-task calls an architecture, by Java's `os.arch`: that of the binary wrapper for it.
fn binary_architecture(arch: &str) -> &str {
    match arch {
        "aarch64" | "ppc64le" => arch,
        "amd64" => "64",
        "x86" | "i386" => "32",
        _ => "NOTSUPPORTED",
    }
}

/// The constant of `OsType` for Linux: `UNIX` up to durable-task 1.36, whose binary has the plugin's version.
fn linux_constant(binary_version: &str) -> &'static str {
    let minor = binary_version.strip_prefix("1.").and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_some_and(|minor| minor <= 36) { "UNIX" } else { "LINUX" }
}

fn agent_info(call: &Call) -> Result<Reply, Throw> {
    let version = GetAgentInfo::read(call.view())?.binary_version;
    let architecture = binary_architecture(system::os_arch());
    // A Java null in a concatenation.
    let version = version.as_deref().unwrap_or("null");
    let linux = linux_constant(version);
    let name = format!("durable_task_monitor_{version}_{}_{architecture}", linux.to_ascii_lowercase());
    let caches = call.path()?.join("caches/durable-task");
    let (path, cached, caching) = match std::fs::create_dir_all(&caches) {
        Ok(()) => {
            let file = caches.join(&name);
            let exists = file.exists();
            (file.to_string_lossy().into_owned(), exists, true)
        }
        // The controller then puts the binary into the step's own directory.
        Err(_) => (name, false, false),
    };
    // AgentInfo and OsType were nested where GetAgentInfo was.
    let outer = "org.jenkinsci.plugins.durabletask.";
    let (info, os) = match call.view().class_name().as_ref() {
        "org.jenkinsci.plugins.durabletask.BourneShellScript$GetAgentInfo" => {
            ("BourneShellScript$AgentInfo", "BourneShellScript$OsType")
        }
        _ => ("AgentInfo", "AgentInfo$OsType"),
    };
    let (info, os) = (format!("{outer}{info}"), format!("{outer}{os}"));
    Ok(call.reply(|graph| {
        let os_type = format!("L{};", os.replace('.', "/"));
        let fields = [
            ("binaryCached", "Z"),
            ("binaryCompatible", "Z"),
            ("cachingAvailable", "Z"),
            ("architecture", "Ljava/lang/String;"),
            ("binaryPath", "Ljava/lang/String;"),
            ("os", os_type.as_str()),
        ];
        let desc = graph.serializable(&info, 7599995179651071957, &fields, None);
        let (os, architecture) = (graph.enum_constant(&os, linux), graph.string(architecture));
        let path = graph.string(&path);
        graph
            .object(desc)
            .set("binaryCached", Value::Bool(cached))
            // On Linux always, by the precedence of && and ||.
            .set("binaryCompatible", Value::Bool(true))
            .set("cachingAvailable", Value::Bool(caching))
            .set_ref("architecture", architecture)
            .set_ref("binaryPath", path)
            .set_ref("os", os)
            .build()
    }))
}

// ---------------------------------------------------------------------------------------------------------------------
// Polling

java_class! {
    struct WriteLog<'g> {
        last_location: i64 = "lastLocation",
        sink: View<'g> = "sink",
    }
}

fn write_log(call: &Call) -> Result<Reply, Throw> {
    let request = WriteLog::read(call.view())?;
    let path = call.path()?;
    let from = u64::try_from(request.last_location)
        .map_err(|_| Throw::io(format!("cannot read a log from position {}", request.last_location)))?;
    let length = std::fs::metadata(path).map_or(0, |file| file.len());
    if length > from {
        let mut file = File::open(path).map_err(|error| not_found(&error, path))?;
        file.seek(SeekFrom::Start(from))?;
        let mut sink = call.output(request.sink)?;
        // No more than there is now: a log that grows faster than it is sent must not hold the call for ever.
        let mut left = length - from;
        let mut buffer = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
        while left > 0 {
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(PIECE));
            let read = read_some(&mut file, &mut buffer[..wanted])?;
            if read == 0 {
                break;
            }
            sink.write_all(&buffer[..read])?;
            left -= read as u64;
        }
    }
    Ok(call.null())
}

/// Reads, and again if a signal came.
fn read_some(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// What `java.io` says about a file that can't be opened.
fn not_found(error: &io::Error, path: &Path) -> Throw {
    Throw::new(ThrowClass::FileNotFound, format!("{} ({})", path.display(), plain(error)))
}

fn status_check(call: &Call) -> Result<Reply, Throw> {
    Ok(exit_code(call, read_status(call.path()?)?))
}

fn exit_code(call: &Call, code: Option<i32>) -> Reply {
    code.map_or_else(|| call.null(), |code| call.int(code))
}

/// The text of a result file; `None` if there is none yet.
fn read_result(path: &Path) -> Result<Option<String>, Throw> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Throw::file(&error, path)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_RESULT).read_to_end(&mut bytes).map_err(|error| Throw::file(&error, path))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// `FileMonitoringController.StatusCheck`: the exit code in a result file, `None` if there is none yet.
fn read_status(path: &Path) -> Result<Option<i32>, Throw> {
    let Some(text) = read_result(path)? else { return Ok(None) };
    match parse_status(&text) {
        Ok(code) => Ok(code),
        Err(wrong) => Err(corrupted(&wrong, &format!("{}", path.display()))),
    }
}

fn corrupted(text: &str, file: &str) -> Throw {
    let cause = format!("java.lang.NumberFormatException: For input string: \"{text}\"");
    Throw::io(format!("corrupted content in {file}: {cause}"))
}

/// `Long.parseLong` of the trimmed text, at most `Integer.MAX_VALUE`; what is below `Integer.MIN_VALUE` loses its upper
/// bits. On failure, the text.
fn parse_status(text: &str) -> Result<Option<i32>, String> {
    let text = java_trim(text);
    if text.is_empty() {
        return Ok(None);
    }
    let value: i64 = text.parse().map_err(|_| text.to_owned())?;
    #[allow(clippy::cast_possible_truncation)]
    Ok(Some(value.min(i64::from(i32::MAX)) as i32))
}

/// `String.trim`
fn java_trim(text: &str) -> &str {
    text.trim_matches(|char| char <= ' ')
}

java_class! {
    struct StatusCheckWithEncoding {
        charset: Option<String> = "charset",
    }
}

/// `BourneShellScript.StatusCheckWithEncoding`, which is for z/OS: the first line, as an `int`.
fn status_line(call: &Call) -> Result<Reply, Throw> {
    let charset = StatusCheckWithEncoding::read(call.view())?.charset.unwrap_or_default();
    let path = call.path()?;
    let Some(text) = read_result(path)? else { return Ok(call.null()) };
    let line = java_trim(text.lines().next().unwrap_or_default());
    if line.is_empty() {
        return Ok(call.null());
    }
    let code = line.parse().map_err(|_| corrupted(line, &format!("{} using {charset}", path.display())))?;
    Ok(call.int(code))
}

java_class! {
    struct GetOutput {
        charset: Option<String> = "charset",
    }
}

fn get_output(call: &Call) -> Result<Reply, Throw> {
    let transcoder = Transcoder::new(GetOutput::read(call.view())?.charset.as_deref())?;
    let output = read_output(call.path()?, transcoder)?;
    Ok(call.reply(|graph| graph.byte_array(output.into())))
}

/// What a script wrote to its standard output, in UTF-8.
fn read_output(path: &Path, mut transcoder: Transcoder) -> Result<Vec<u8>, Throw> {
    let file = File::open(path).map_err(|error| not_found(&error, path))?;
    let mut bytes = Vec::new();
    file.take(MAX_OUTPUT + 1).read_to_end(&mut bytes).map_err(|error| Throw::file(&error, path))?;
    if bytes.len() as u64 > MAX_OUTPUT {
        let mib = MAX_OUTPUT >> 20;
        return Err(Throw::io(format!("the output in {} is larger than {mib} MiB", path.display())));
    }
    let mut out = transcoder.next(&bytes).into_owned();
    out.extend_from_slice(&transcoder.end());
    Ok(out)
}

// ---------------------------------------------------------------------------------------------------------------------
// Character sets

/// `FileMonitoringController.transcodingCharset`: makes UTF-8 of what a script writes in another character set.
#[derive(Debug)]
enum Transcoder {
    /// It is UTF-8, or is passed on as it is.
    None,
    /// `US-ASCII`
    Ascii,
    /// `ISO-8859-1`
    Latin1,
    /// `UTF-16`: its byte order, once that is known, and bytes that are no whole character yet.
    Utf16 { big_endian: Option<bool>, pending: Vec<u8> },
}

impl Transcoder {
    fn new(charset: Option<&str>) -> Result<Transcoder, Throw> {
        let Some(charset) = charset else { return Ok(Transcoder::None) };
        let utf16 = |big_endian| Transcoder::Utf16 { big_endian, pending: Vec::new() };
        Ok(match charset.to_ascii_uppercase().as_str() {
            "SYSTEM_DEFAULT" | "UTF-8" | "UTF8" => Transcoder::None,
            "US-ASCII" | "ASCII" => Transcoder::Ascii,
            "ISO-8859-1" | "ISO8859-1" | "LATIN1" => Transcoder::Latin1,
            "UTF-16" => utf16(None),
            "UTF-16BE" => utf16(Some(true)),
            "UTF-16LE" => utf16(Some(false)),
            _ => {
                return Err(Throw::abort(format!(
                    "This agent does not know the encoding {charset}: it knows UTF-8, US-ASCII, ISO-8859-1 and UTF-16."
                )));
            }
        })
    }

    /// The next part.
    fn next<'b>(&mut self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        match self {
            Transcoder::None => Cow::Borrowed(bytes),
            Transcoder::Ascii => {
                let char = |byte: &u8| if byte.is_ascii() { char::from(*byte) } else { char::REPLACEMENT_CHARACTER };
                Cow::Owned(bytes.iter().map(char).collect::<String>().into_bytes())
            }
            Transcoder::Latin1 => {
                Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes())
            }
            Transcoder::Utf16 { big_endian, pending } => {
                pending.extend_from_slice(bytes);
                let mut from = 0;
                if big_endian.is_none() && pending.len() >= 2 {
                    *big_endian = Some(pending[..2] != [0xff, 0xfe]);
                    from = if matches!(pending[..2], [0xff, 0xfe] | [0xfe, 0xff]) { 2 } else { 0 };
                }
                let Some(big_endian) = *big_endian else { return Cow::Owned(Vec::new()) };
                let unit = |pair: &[u8]| {
                    let pair = [pair[0], pair[1]];
                    if big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
                };
                let mut units: Vec<u16> = pending[from..].chunks_exact(2).map(unit).collect();
                // The first half of a pair waits for the second.
                if units.last().is_some_and(|unit| (0xd800..0xdc00).contains(unit)) {
                    units.pop();
                }
                pending.drain(..from + 2 * units.len());
                Cow::Owned(String::from_utf16_lossy(&units).into_bytes())
            }
        }
    }

    /// What the end makes of bytes that are no whole character.
    fn end(&mut self) -> Vec<u8> {
        match self {
            Transcoder::Utf16 { pending, .. } if !pending.is_empty() => {
                pending.clear();
                char::REPLACEMENT_CHARACTER.to_string().into_bytes()
            }
            _ => Vec::new(),
        }
    }

    fn held(&self) -> usize {
        match self {
            Transcoder::Utf16 { pending, .. } => pending.len(),
            _ => 0,
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Watching

java_class! {
    struct StartWatching<'g> {
        controller: View<'g> = "controller",
        handler: View<'g> = "handler",
        listener: Option<View<'g>> = "listener",
    }
}

java_class! {
    /// A `FileMonitoringController`, and what `ShellController` adds.
    struct Controller {
        control_dir: Option<String> = "controlDir",
        charset: Option<String> = "charset",
        is_zos: bool = "isZos",
    }
}

/// The only `Handler` there is, of workflow-durable-task-step.
const HANDLER: &str = "org.jenkinsci.plugins.workflow.steps.durable_task.DurableTaskStep$HandlerImpl";

/// The interface behind its field `execution`.
const EXECUTION: &str = "org.jenkinsci.plugins.workflow.steps.durable_task.DurableTaskStep$ExecutionRemotable";

const SHELL_CONTROLLER: &str = "org.jenkinsci.plugins.durabletask.BourneShellScript$ShellController";

fn start_watching(call: &Call) -> Result<Reply, Throw> {
    let request = StartWatching::read(call.view())?;
    let class = request.controller.class_name();
    let heartbeat = match class.as_ref() {
        SHELL_CONTROLLER => Some(Heartbeat::default()),
        "org.jenkinsci.plugins.durabletask.PowershellScript$PowershellController"
        | "org.jenkinsci.plugins.durabletask.WindowsBatchScript$BatchController" => None,
        _ => return Err(Throw::abort(format!("This agent cannot watch the durable task of a {class}."))),
    };
    if !request.handler.is(HANDLER) {
        let class = request.handler.class_name();
        return Err(Throw::abort(format!("This agent cannot watch a durable task for a {class}.")));
    }
    let controller = Controller::read(request.controller)?;
    if controller.is_zos {
        return Err(Throw::abort("This agent does not run on z/OS."));
    }
    // Tasks of durable-task before 1.8 had none.
    let directory = controller.control_dir.ok_or_else(|| Throw::io("a durable task has no control directory"))?;
    let mut listeners = Listeners::new(call);
    let watch = Watch {
        directory: PathBuf::from(directory),
        transcoder: Transcoder::new(controller.charset.as_deref())?,
        location: None,
        heartbeat,
        output: listeners.open_any(request.handler.get("listener")?)?,
        messages: listeners.open_any(request.listener)?,
        execution: Remote(call.caller().remote_proxy(request.handler.require("execution")?)?),
    };
    let link = call.link().clone();
    let name = format!("watch {}", watch.directory.display());
    // Waits on files, the controller's window and its answers: a thread of its own is simplest.
    std::thread::Builder::new().name(name).stack_size(256 << 10).spawn(move || watch.run(&link))?;
    Ok(call.null())
}

/// `ExecutionRemotable`
trait Execution {
    /// The process has ended.
    fn exited(&self, code: i32, output: Option<Vec<u8>>) -> io::Result<()>;
    /// Something is wrong that may mend.
    fn problem(&self, problem: &Throw) -> io::Result<()>;
}

struct Remote(RemoteProxy);

impl Execution for Remote {
    fn exited(&self, code: i32, output: Option<Vec<u8>>) -> io::Result<()> {
        self.0.invoke(EXECUTION, "exited", &["int", "[B"], |graph| {
            let code = graph.boxed_int(code);
            vec![Some(code), output.map(|output| graph.byte_array(output.into()))]
        })?;
        Ok(())
    }

    fn problem(&self, problem: &Throw) -> io::Result<()> {
        self.0.invoke(EXECUTION, "problem", &["java.lang.Exception"], |graph| vec![Some(problem.build(graph))])?;
        Ok(())
    }
}

/// `FileMonitoringTask.Watcher`
struct Watch<E> {
    directory: PathBuf,
    transcoder: Transcoder,
    /// How far the log was read; `None` before it is known.
    location: Option<u64>,
    heartbeat: Option<Heartbeat>,
    output: Listener,
    messages: Listener,
    execution: E,
}

/// `ShellController`'s check that the wrapper script is alive.
#[derive(Debug, Default)]
struct Heartbeat {
    checked: Option<Instant>,
    modified: Option<SystemTime>,
}

impl<E: Execution> Watch<E> {
    fn run(mut self, link: &Arc<Link>) {
        while !link.is_closed() {
            match self.look(Instant::now()) {
                Ok(true) => return,
                Ok(false) => std::thread::sleep(WATCH_PERIOD),
                Err(_) if link.is_closed() => break,
                Err(throw) => {
                    let error = throw.java_string();
                    tracing::warn!(directory = %self.directory.display(), %error, "giving up on watching a durable task");
                    return;
                }
            }
        }
        tracing::debug!(directory = %self.directory.display(), "the channel has ended, and with it a watch");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Looks once, and says whether there is nothing more to watch.
    fn look(&mut self, now: Instant) -> Result<bool, Throw> {
        // Before the output is collected: the process may be just ending.
        let code = self.exit_status(now)?;
        let location = match self.location {
            Some(location) => location,
            None => self.last_location()?,
        };
        self.location = Some(location);
        let log = self.file("jenkins-log.txt");
        let length = std::fs::metadata(&log).map_or(0, |file| file.len());
        if length > location {
            self.copy(&log, location, length)?;
        }
        if let Some(code) = code {
            let file = self.file("output.txt");
            let charset = std::mem::replace(&mut self.transcoder, Transcoder::None);
            let output = file.exists().then(|| read_output(&file, charset)).transpose()?;
            self.output.close();
            self.execution.exited(code, output)?;
            self.clean_up();
            return Ok(true);
        }
        if !self.directory.is_dir() {
            tracing::warn!(directory = %self.directory.display(), "giving up on watching a durable task that is gone");
            return Ok(true);
        }
        Ok(false)
    }

    fn last_location(&self) -> Result<u64, Throw> {
        let file = self.file("last-location.txt");
        match read_result(&file)? {
            Some(text) => text.parse().map_err(|_| corrupted(&text, &file.display().to_string())),
            None => Ok(0),
        }
    }

    /// Passes on what the log has gained. Fails if the controller can't be told even of a problem.
    fn copy(&mut self, log: &Path, from: u64, to: u64) -> Result<(), Throw> {
        let mut file = File::open(log).map_err(|error| not_found(&error, log))?;
        file.seek(SeekFrom::Start(from))?;
        let mut buffer = vec![0; PIECE];
        let mut location = from;
        // No further than there is now, as a log may grow faster than it is sent.
        while location < to {
            let wanted = buffer.len().min(usize::try_from(to - location).unwrap_or(PIECE));
            let read = read_some(&mut file, &mut buffer[..wanted])?;
            if read == 0 {
                break;
            }
            location += read as u64;
            self.output.write_bytes(&self.transcoder.next(&buffer[..read]));
        }
        if let Err(error) = self.output.flush() {
            // Where the channel is gone this fails too, and the next watch will send the same again.
            self.execution.problem(&error.into())?;
        }
        // What a decorator holds back was not sent: the next watch would have to begin there. (In another character set
        // it can't be said where that is.)
        let held = match self.transcoder {
            Transcoder::None => self.output.held(),
            _ => self.transcoder.held(),
        };
        let sent = location.saturating_sub(held as u64);
        std::fs::write(self.file("last-location.txt"), sent.to_string())?;
        self.location = Some(location);
        Ok(())
    }

    fn exit_status(&mut self, now: Instant) -> Result<Option<i32>, Throw> {
        let code = read_status(&self.file("jenkins-result.txt"))?;
        let Some(heartbeat) = self.heartbeat.as_mut().filter(|_| code.is_none()) else { return Ok(code) };
        match heartbeat.checked {
            None => heartbeat.checked = Some(now),
            Some(checked) if now > checked + HEARTBEAT_CHECK_INTERVAL => {
                heartbeat.checked = Some(now);
                let before = heartbeat.modified;
                let modified =
                    std::fs::metadata(self.directory.join("jenkins-log.txt")).and_then(|file| file.modified());
                heartbeat.modified = modified.as_ref().ok().copied();
                return self.heartbeat(before, modified.ok());
            }
            Some(_) => {}
        }
        Ok(None)
    }

    fn heartbeat(&self, before: Option<SystemTime>, now: Option<SystemTime>) -> Result<Option<i32>, Throw> {
        let directory = self.directory.display();
        let Some(now) = now else {
            self.messages.println(&format!("process apparently never started in {directory}"));
            let property = "org.jenkinsci.plugins.durabletask.BourneShellScript.LAUNCH_DIAGNOSTICS";
            let hint = format!("(running Jenkins temporarily with -D{property}=true might make the problem clearer)");
            self.messages.println(&hint);
            return self.record(-2).map(Some);
        };
        let Some(before) = before else { return Ok(None) };
        match now.duration_since(before) {
            Err(_) => self.messages.println(&format!("apparent clock skew in {directory}")),
            Ok(passed) if passed < HEARTBEAT_MINIMUM_DELTA => {
                let pid = self.file("pid");
                if pid.exists() {
                    self.messages.println(&format!(
                        "still have {} so heartbeat checks unreliable; process may or may not be alive",
                        pid.display()
                    ));
                } else {
                    self.messages
                        .println(&format!("wrapper script does not seem to be touching the log file in {directory}"));
                    self.messages.println(
                        "This may occur if the durable task process was terminated externally, for example by \
                         interrupting an interactive terminal session running the agent since the interrupt can \
                         terminate forked durable task processes.",
                    );
                    self.messages.println(
                        "(JENKINS-48300: if on an extremely laggy filesystem, consider \
                         -Dorg.jenkinsci.plugins.durabletask.BourneShellScript.HEARTBEAT_CHECK_INTERVAL=86400)",
                    );
                    return self.record(-1).map(Some);
                }
            }
            Ok(_) => {}
        }
        Ok(None)
    }

    /// `ShellController.recordExitStatus`
    fn record(&self, code: i32) -> Result<i32, Throw> {
        let _ = self.messages.flush();
        std::fs::write(self.file("jenkins-result.txt"), code.to_string())?;
        Ok(code)
    }

    /// `FileMonitoringController.cleanup`
    fn clean_up(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), %error, "cannot delete a durable task's files");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn exit_codes_are_read_as_java_reads_them() {
        for (text, code) in [
            ("", Ok(None)),
            (" \r\n", Ok(None)),
            ("0\n", Ok(Some(0))),
            ("+7", Ok(Some(7))),
            ("-1", Ok(Some(-1))),
            ("143\r\n", Ok(Some(143))),
            ("3221225786", Ok(Some(i32::MAX))),
            ("-4294967297", Ok(Some(-1))),
            ("1 2", Err("1 2")),
            ("x", Err("x")),
            ("99999999999999999999", Err("99999999999999999999")),
        ] {
            assert_eq!(parse_status(text), code.map_err(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn a_result_may_be_missing_or_corrupted() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("jenkins-result.txt");
        assert_eq!(read_status(&file).unwrap(), None);
        std::fs::write(&file, "").unwrap();
        assert_eq!(read_status(&file).unwrap(), None);
        std::fs::write(&file, "3\n").unwrap();
        assert_eq!(read_status(&file).unwrap(), Some(3));
        std::fs::write(&file, "oops\n").unwrap();
        let throw = read_status(&file).unwrap_err();
        let text = format!(
            "java.io.IOException: corrupted content in {}: java.lang.NumberFormatException: For input string: \"oops\"",
            file.display()
        );
        assert_eq!(throw.java_string(), text);
    }

    #[test]
    fn architectures_have_the_binary_wrappers_names() {
        for (arch, name) in
            [("amd64", "64"), ("aarch64", "aarch64"), ("ppc64le", "ppc64le"), ("x86", "32"), ("s390x", "NOTSUPPORTED")]
        {
            assert_eq!(binary_architecture(arch), name);
        }
    }

    /// Cut anywhere, a text is transcoded the same.
    #[test]
    fn transcodes_to_utf8() {
        let text = "aé€😀\n";
        let units: Vec<u16> = text.encode_utf16().collect();
        let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let marked = [&[0xff, 0xfe], &little[..]].concat();
        for (charset, bytes, expected) in [
            ("UTF-8", text.as_bytes(), text),
            ("SYSTEM_DEFAULT", text.as_bytes(), text),
            ("us-ascii", b"a\xe9", "a\u{fffd}"),
            ("ISO-8859-1", b"a\xe9", "aé"),
            ("UTF-16BE", &big, text),
            ("UTF-16", &big, text),
            ("UTF-16LE", &little, text),
            ("UTF-16", &marked, text),
            ("UTF-16BE", &big[..big.len() - 1], "aé€😀\u{fffd}"),
        ] {
            for cut in 0..bytes.len() {
                let mut transcoder = Transcoder::new(Some(charset)).unwrap();
                let mut out = transcoder.next(&bytes[..cut]).into_owned();
                out.extend_from_slice(&transcoder.next(&bytes[cut..]));
                out.extend(transcoder.end());
                assert_eq!(String::from_utf8(out).unwrap(), expected, "{charset} cut at {cut}");
            }
        }
        assert!(Transcoder::new(None).is_ok());
        assert_eq!(Transcoder::new(Some("IBM1047")).unwrap_err().class, ThrowClass::Abort);
    }

    #[derive(Default)]
    struct Recorder {
        exited: Mutex<Vec<(i32, Option<Vec<u8>>)>>,
        fails: bool,
    }

    impl Execution for &Recorder {
        fn exited(&self, code: i32, output: Option<Vec<u8>>) -> io::Result<()> {
            self.exited.lock().unwrap().push((code, output));
            if self.fails { Err(io::Error::other("not now")) } else { Ok(()) }
        }

        fn problem(&self, _: &Throw) -> io::Result<()> {
            Ok(())
        }
    }

    fn watch<'r>(directory: &Path, recorder: &'r Recorder, output: &Listener, beat: bool) -> Watch<&'r Recorder> {
        Watch {
            directory: directory.to_owned(),
            transcoder: Transcoder::None,
            location: None,
            heartbeat: beat.then(Heartbeat::default),
            output: output.clone(),
            messages: output.clone(),
            execution: recorder,
        }
    }

    #[test]
    fn watches_a_task_to_its_end() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("durable-1");
        std::fs::create_dir(&directory).unwrap();
        let file = |name: &str| directory.join(name);
        let recorder = Recorder::default();
        let (listener, seen) = Listener::in_memory();
        let now = Instant::now();
        let mut first = watch(&directory, &recorder, &listener, true);
        assert!(!first.look(now).unwrap());
        std::fs::write(file("jenkins-log.txt"), "one\n").unwrap();
        assert!(!first.look(now).unwrap());
        assert!(!first.look(now).unwrap());
        assert_eq!(seen(), "one\n");
        assert_eq!(std::fs::read_to_string(file("last-location.txt")).unwrap(), "4");
        // Another channel, another watch.
        drop(first);
        let mut second = watch(&directory, &recorder, &listener, true);
        std::fs::write(file("jenkins-log.txt"), "one\ntwo\n").unwrap();
        std::fs::write(file("output.txt"), "result").unwrap();
        std::fs::write(file("jenkins-result.txt"), "5\n").unwrap();
        assert!(second.look(now).unwrap());
        assert_eq!(seen(), "one\ntwo\n");
        assert_eq!(*recorder.exited.lock().unwrap(), [(5, Some(b"result".to_vec()))]);
        assert!(!directory.exists());
        assert!(watch(&directory, &recorder, &listener, true).look(now).unwrap(), "there is nothing left to watch");
    }

    /// "Will not handle process exits during shutdown; build should recheck when resumed"
    #[test]
    fn what_the_controller_did_not_take_stays() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("jenkins-result.txt"), "0").unwrap();
        let recorder = Recorder { fails: true, ..Recorder::default() };
        let mut watch = watch(directory.path(), &recorder, &Listener::none(), false);
        assert!(watch.look(Instant::now()).is_err());
        assert_eq!(*recorder.exited.lock().unwrap(), [(0, None)]);
        assert!(directory.path().exists());
    }

    #[test]
    fn a_wrapper_without_heartbeat_is_dead() {
        for (log, code, said) in [(true, -1, "does not seem to be touching the log"), (false, -2, "never started")] {
            let root = tempfile::tempdir().unwrap();
            let directory = root.path().join("durable-1");
            std::fs::create_dir(&directory).unwrap();
            if log {
                std::fs::write(directory.join("jenkins-log.txt"), "").unwrap();
            }
            let recorder = Recorder::default();
            let (listener, seen) = Listener::in_memory();
            let mut watch = watch(&directory, &recorder, &listener, true);
            let start = Instant::now();
            let step = HEARTBEAT_CHECK_INTERVAL + Duration::from_secs(1);
            let ended: Vec<bool> = (0..3).map_while(|at| watch.look(start + step * at).ok()).collect();
            assert!(ended.contains(&true));
            assert_eq!(*recorder.exited.lock().unwrap(), [(code, None)]);
            assert!(seen().contains(said), "{}", seen());
        }
    }

    use crate::callables::scripted::{Controller, object, stream_listener};
    use crate::channel::command::remote_output_stream;
    use crate::object::{Graph, NodeId};

    const CONSOLE: i32 = 7;
    const EXECUTION_OID: i32 = 8;
    const MONITOR: &str = "org.jenkinsci.plugins.durabletask.FileMonitoringTask$FileMonitoringController";

    #[tokio::test]
    async fn polling_sees_the_log_from_where_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("jenkins-log.txt");
        let text = "line\n".repeat(100_000);
        std::fs::write(&log, &text).unwrap();
        let mut controller = Controller::new();
        for (stream, from) in [(11, 0), (12, 499_995), (13, 500_000), (14, 600_000)] {
            let id = controller.send_file(&log, |graph| {
                let sink = remote_output_stream(graph, stream);
                let at = [("lastLocation", Value::Long(from))];
                object(graph, &format!("{MONITOR}$WriteLog"), &[("sink", Some(sink))], &at)
            });
            let (last_io, answer) = controller.answered(id).await;
            assert!(matches!(answer, crate::channel::command::Answered::Normal(_)), "{answer:?}");
            let from = usize::try_from(from).unwrap();
            assert_eq!(controller.text(stream), text.get(from..).unwrap_or_default());
            assert_eq!(last_io != 0, from < text.len());
            controller.until(|controller| controller.released.contains(&stream)).await;
        }
        let result = directory.path().join("jenkins-result.txt");
        let check = |graph: &mut Graph| object(graph, &format!("{MONITOR}$StatusCheck"), &[], &[]);
        let id = controller.send_file(&result, check);
        assert!(controller.value(id).await.root().is_none());
        std::fs::write(&result, "4\n").unwrap();
        let id = controller.send_file(&result, check);
        assert_eq!(controller.value(id).await.root().unwrap().unboxed(), Some(Value::Int(4)));
        let id = controller
            .send_file(&log, |graph| object(graph, &format!("{MONITOR}$GetOutput"), &[("charset", None)], &[]));
        assert_eq!(controller.value(id).await.root().unwrap().byte_array().unwrap(), text);
    }

    /// AgentInfo and its enum are nested where the callable is.
    #[tokio::test]
    async fn agents_describe_themselves_in_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let mut controller = Controller::new();
        let versions = [
            ("BourneShellScript", "1.36", "UNIX"),
            ("BourneShellScript", "1.37", "LINUX"),
            ("AgentInfo", "686.v80ff80875b_82", "LINUX"),
        ];
        for (outer, version, constant) in versions {
            let outer = format!("org.jenkinsci.plugins.durabletask.{outer}");
            let id = controller.send_file(root.path(), |graph| {
                let version = graph.string(version);
                object(graph, &format!("{outer}$GetAgentInfo"), &[("binaryVersion", Some(version))], &[])
            });
            let info = controller.value(id).await;
            let info = info.root().unwrap();
            assert!(info.class_name().ends_with("AgentInfo"));
            let os = info.require("os").unwrap();
            assert_eq!(os.class_name(), format!("{outer}$OsType"));
            assert_eq!(os.constant().unwrap(), constant);
            let binary = info.require_string("binaryPath").unwrap().into_owned();
            let caches = root.path().join("caches/durable-task");
            assert!(caches.is_dir() && Path::new(&binary).starts_with(&caches), "{binary}");
            let name = format!("durable_task_monitor_{version}_{}_", constant.to_ascii_lowercase());
            assert!(binary.contains(&name), "{binary}");
            assert!(info.bool("cachingAvailable").unwrap());
            assert!(!info.bool("binaryCached").unwrap());
        }
    }

    fn start(graph: &mut Graph, directory: &Path, handler: &str) -> NodeId {
        let control = graph.string(directory.to_str().unwrap());
        let charset = graph.string("SYSTEM_DEFAULT");
        let fields = [("controlDir", Some(control)), ("charset", Some(charset))];
        let controller = object(graph, SHELL_CONTROLLER, &fields, &[("isZos", Value::Bool(false))]);
        let flags = [
            ("oid", Value::Int(EXECUTION_OID)),
            ("goingHome", Value::Bool(false)),
            ("autoUnexportByCaller", Value::Bool(false)),
        ];
        let invocation = object(graph, "hudson.remoting.RemoteInvocationHandler", &[], &flags);
        let proxy = graph.proxy_desc(&[EXECUTION, "hudson.remoting.IReadResolve"]);
        let execution = graph.object(proxy).set_ref("h", invocation).build();
        let listener = stream_listener(graph, CONSOLE);
        let class =
            "org.jenkinsci.plugins.workflow.steps.durable_task.DurableTaskStep$Execution$NewlineSafeTaskListener";
        let listener = object(graph, class, &[("delegate", Some(listener))], &[]);
        let handler = object(graph, handler, &[("execution", Some(execution)), ("listener", Some(listener))], &[]);
        let fields = [("controller", Some(controller)), ("handler", Some(handler)), ("listener", Some(listener))];
        object(graph, "org.jenkinsci.plugins.durabletask.FileMonitoringTask$StartWatching", &fields, &[])
    }

    #[tokio::test]
    async fn a_watch_pushes_output_and_the_end() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("durable-1");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("jenkins-log.txt"), "one\n").unwrap();
        let mut controller = Controller::new();
        let id = controller.send_file(root.path(), |graph| start(graph, &directory, "com.example.OtherHandler"));
        assert!(controller.exception(id).await.contains("com.example.OtherHandler"));
        controller.until(|controller| controller.released.contains(&CONSOLE)).await;
        controller.released.clear();
        let id = controller.send_file(root.path(), |graph| start(graph, &directory, HANDLER));
        assert!(controller.value(id).await.root().is_none());
        controller.until(|controller| controller.text(CONSOLE) == "one\n").await;
        std::fs::write(directory.join("jenkins-log.txt"), "one\ntwo").unwrap();
        std::fs::write(directory.join("jenkins-result.txt"), "9\n").unwrap();
        controller.until(|controller| !controller.calls.is_empty()).await;
        assert_eq!(controller.text(CONSOLE), "one\ntwo\n");
        let (id, call) = controller.calls.remove(0);
        let call = call.root().unwrap();
        assert_eq!(call.int("oid").unwrap(), EXECUTION_OID);
        assert_eq!(call.require_string("methodName").unwrap(), "exited");
        let arguments: Vec<_> = call.require("arguments").unwrap().elements().unwrap().collect();
        assert_eq!(arguments[0].unwrap().unboxed(), Some(Value::Int(9)));
        assert!(arguments[1].is_none() && directory.exists());
        controller.return_null(id);
        controller.until(|controller| controller.released.contains(&CONSOLE)).await;
        assert!(!directory.exists());
    }
}
