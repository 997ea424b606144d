//! Processes that the controller launches: `hudson.Launcher.RemoteLauncher`'s callables, and the process as the object
//! that the controller then holds.
//!
//! What ends a process is written in [`crate::process`]. In short: `kill()`, a `join()` that is cancelled or loses its
//! channel, and `KillTask`. That the controller lets go of the object ends nothing, and neither does the loss of the
//! channel where nobody joins.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::listener::{Listener, Listeners};
use super::{Agent, Call, Entry, Exported, Outcome, Reply, Run, Throw, ThrowClass, Work, plain};
use crate::channel::{Caller, RemoteInput, RemoteOutput, remote_output_stream};
use crate::java_class;
use crate::object::View;
use crate::process::env::EnvVars;
use crate::process::launch::{
    ErrorOutput, Input, LEAK_MESSAGE, LEAK_WAIT, Launch, LaunchError, Launched, Output, Process, command_line,
    launch_with,
};
use crate::process::tree::{KillPolicy, kill_by_environment};

/// The callables of this module.
pub const ENTRIES: &[Entry] = &[
    Entry { class: "hudson.Launcher$RemoteLaunchCallable", owner: "core", run: Run::Long(launch) },
    Entry { class: "hudson.Launcher$RemoteLauncher$KillTask", owner: "core", run: Run::Long(kill_task) },
    Entry { class: "hudson.Launcher$RemoteChannelLaunchCallable", owner: "core", run: Run::Inline(launch_channel) },
];

/// The most that is read of a process's output at once: what a pipe of Linux holds.
const READ: usize = 64 << 10;

java_class! {
    /// A class up to 2.484, a record since.
    struct RemoteLaunchCallable<'g> {
        cmd: Vec<String> = "cmd",
        masks: Option<View<'g>> = "masks",
        env: Option<Vec<String>> = "env",
        input: Option<View<'g>> = "in",
        out: Option<View<'g>> = "out",
        err: Option<View<'g>> = "err",
        reverse_stdin: bool = "reverseStdin",
        reverse_stdout: bool = "reverseStdout",
        reverse_stderr: bool = "reverseStderr",
        quiet: bool = "quiet",
        work_dir: Option<String> = "workDir",
        listener: Option<View<'g>> = "listener",
        stdout_listener: Option<View<'g>> = "stdoutListener",
        filter: Option<View<'g>> = "envVarsFilterRuleWrapper",
    }
}

/// A call for a future, which outlives the handler's borrow.
fn kept(call: &Call) -> Call {
    Call {
        agent: call.agent.clone(),
        graph: call.graph.clone(),
        root: call.root,
        path: call.path.clone(),
        caller: call.caller.clone(),
    }
}

fn later(future: impl Future<Output = Result<Reply, Throw>> + Send + 'static) -> Outcome {
    Outcome::Later(Box::pin(future))
}

// ---------------------------------------------------------------------------------------------------------------------
// Environment filters

/// `RetainVariablesLocalRule`.
#[derive(Debug, PartialEq, Eq)]
struct Retain {
    /// In lower case.
    names: Vec<String>,
    /// Whether the agent's own variables go too (`ProcessVariablesHandling.REMOVE`).
    remove: bool,
}

/// `RetainVariablesLocalRule.CHARACTERISTIC_ENV_VARS`
const CHARACTERISTIC: [&str; 7] = [
    "jenkins_server_cookie",
    "hudson_server_cookie",
    "job_name",
    "job_base_name",
    "build_number",
    "build_id",
    "build_tag",
];

/// The rules of an `EnvVarsFilterRuleWrapper`.
fn filter_rules(wrapper: Option<View<'_>>) -> Result<Vec<Retain>, Throw> {
    let Some(rules) = wrapper.map(|wrapper| wrapper.get("rules")).transpose()?.flatten() else { return Ok(Vec::new()) };
    rules.collection()?.into_iter().flatten().map(filter_rule).collect()
}

fn filter_rule(rule: View<'_>) -> Result<Retain, Throw> {
    if !rule.is("jenkins.tasks.filters.impl.RetainVariablesLocalRule") {
        // To launch without the rule would show the process what the rule is there to hide.
        return Err(Throw::abort(format!(
            "This agent does not know the environment filter {} and launches nothing without it.",
            rule.class_name()
        )));
    }
    let variables = rule.string("variables")?.unwrap_or_default();
    let mut names: Vec<String> = variables.split_whitespace().map(str::to_ascii_lowercase).collect();
    if rule.bool("retainCharacteristicEnvVars")? {
        names.extend(CHARACTERISTIC.map(str::to_owned));
    }
    let handling = rule.get("processVariablesHandling")?;
    let remove = handling.map(View::constant).transpose()?.is_some_and(|constant| constant == "REMOVE");
    Ok(Retain { names, remove })
}

impl Retain {
    /// Applies the rule, and says what is to be told.
    fn apply(&self, env: &mut EnvVars, agent: &EnvVars) -> Vec<String> {
        let (mut removed, mut reset) = (Vec::new(), Vec::new());
        for (name, value) in env.iter().filter(|(name, _)| !self.names.contains(&name.to_ascii_lowercase())) {
            match agent.get(name) {
                Some(own) if !self.remove => {
                    if own != value {
                        reset.push((name.to_owned(), own.to_owned()));
                    }
                }
                _ => removed.push(name.to_owned()),
            }
        }
        let mut told = Vec::new();
        if !removed.is_empty() {
            told.push(format!("Keep only specified environment variables - removed: {}", removed.join(", ")));
        }
        if !reset.is_empty() {
            let names: Vec<&str> = reset.iter().map(|(name, _)| name.as_str()).collect();
            told.push(format!("Keep only specified environment variables - reset: {}", names.join(", ")));
        }
        removed.iter().for_each(|name| drop(env.remove(name)));
        reset.into_iter().for_each(|(name, value)| env.put(name, value));
        told
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Launching

/// Where output goes.
#[derive(Clone)]
enum Console {
    Listener(Listener),
    Output(Arc<tokio::sync::Mutex<RemoteOutput>>),
}

impl Console {
    fn output(output: RemoteOutput) -> Console {
        Console::Output(Arc::new(tokio::sync::Mutex::new(output)))
    }

    /// Writes, and says whether there's a point in going on: a listener takes output even if nobody hears it.
    async fn write(&self, bytes: BytesMut) -> bool {
        match self {
            Console::Listener(listener) => {
                listener.write_async(&bytes).await;
                true
            }
            Console::Output(output) => output.lock().await.write_async(bytes.freeze()).await.is_ok(),
        }
    }

    /// Passes on what waits, and gives the id of the pipe operation after which all of it is there.
    async fn settle(&self) -> i32 {
        match self {
            Console::Listener(listener) => {
                listener.finish_async().await;
                listener.last_io_id()
            }
            Console::Output(output) => output.lock().await.last_io_id(),
        }
    }

    /// Copies all that a process writes. A process whose output is not taken gets SIGPIPE, as Java's `StreamCopyThread`
    /// does it.
    async fn copy(self, from: pipe::Receiver) {
        let mut buffer = BytesMut::new();
        loop {
            // No buffer while there is nothing: most processes are silent most of the time.
            if from.readable().await.is_err() {
                break;
            }
            buffer.reserve(READ);
            match from.try_read_buf(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {
                    if !self.write(buffer.split()).await {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => buffer = BytesMut::new(),
                Err(_) => break,
            }
        }
        self.settle().await;
    }
}

/// What a request to launch comes to.
struct Prepared {
    launch: Launch,
    rules: Vec<Retain>,
    listener: Listener,
    stdout: Option<Console>,
    stderr: Option<Console>,
    stdin: Option<RemoteInput>,
    reverse_stdin: bool,
    reverse_stdout: bool,
    reverse_stderr: bool,
}

fn launch(call: &Call) -> Outcome {
    match prepare(call) {
        Ok(prepared) => {
            let call = kept(call);
            later(async move { start(&call, prepared).await })
        }
        Err(throw) => Outcome::Done(Err(throw)),
    }
}

fn prepare(call: &Call) -> Result<Prepared, Throw> {
    let request = RemoteLaunchCallable::read(call.view())?;
    let rules = filter_rules(request.filter)?;
    let mut listeners = Listeners::new(call);
    let listener = listeners.open_any(request.listener)?;
    let stdout = match (request.stdout_listener, request.out) {
        _ if request.reverse_stdout => None,
        (Some(view), _) => Some(Console::Listener(listeners.open(view)?)),
        (None, Some(view)) => Some(Console::output(call.output(view)?)),
        (None, None) => None,
    };
    let stderr = match request.err {
        Some(view) if !request.reverse_stderr => Some(Console::output(call.output(view)?)),
        _ => None,
    };
    let stdin = match request.input {
        Some(view) if !request.reverse_stdin => Some(call.input(view)?),
        _ => None,
    };
    if !request.quiet {
        let masks = request.masks.map(|masks| masks.primitive_array("[Z")).transpose()?;
        let masks: Option<Vec<bool>> = masks.map(|masks| masks.iter().map(|mask| *mask != 0).collect());
        listener.println(&command_line(&request.cmd, masks.as_deref(), request.work_dir.as_deref()));
        let _ = listener.flush();
    }
    let launch = Launch {
        command: request.cmd,
        environment: request.env.unwrap_or_default(),
        working_directory: request.work_dir.map(Into::into),
        stdin: if stdin.is_some() || request.reverse_stdin { Input::Piped } else { Input::Null },
        stdout: if stdout.is_some() || request.reverse_stdout { Output::Piped } else { Output::Null },
        // Asking for the error stream merges it too: LocalProc compares with a marker that is not an own stream.
        stderr: if stderr.is_some() { ErrorOutput::Piped } else { ErrorOutput::Merged },
    };
    let (reverse_stdin, reverse_stdout, reverse_stderr) =
        (request.reverse_stdin, request.reverse_stdout, request.reverse_stderr);
    Ok(Prepared { launch, rules, listener, stdout, stderr, stdin, reverse_stdin, reverse_stdout, reverse_stderr })
}

/// The environment that a launch has, filtered. The launch's own part is then in it.
async fn filtered(base: EnvVars, prepared: &mut Prepared) -> Result<EnvVars, Throw> {
    if prepared.rules.is_empty() {
        return Ok(base);
    }
    let mut overrides = EnvVars::new();
    for (at, entry) in prepared.launch.environment.drain(..).enumerate() {
        let (name, value) = entry.split_once('=').ok_or(LaunchError::BadEnvironment(at))?;
        overrides.put(name, value);
    }
    let mut env = base.clone();
    env.override_expanding_all(&overrides).map_err(LaunchError::from)?;
    for rule in &prepared.rules {
        for line in rule.apply(&mut env, &base) {
            prepared.listener.write_async(format!("{line}\n").as_bytes()).await;
        }
    }
    prepared.listener.flush_async().await;
    Ok(env)
}

async fn start(call: &Call, mut prepared: Prepared) -> Result<Reply, Throw> {
    let base = filtered(call.agent().environment.clone(), &mut prepared).await?;
    let launched = launch_with(base, prepared.launch).await?;
    let Launched { process, mut stdin, mut stdout, stderr } = launched;
    if let (Some(from), Some(to)) = (prepared.stdin, stdin.take_if(|_| !prepared.reverse_stdin)) {
        feed(from, to)?;
    }
    let mut copies = Vec::new();
    if let (Some(from), Some(to)) = (stdout.take_if(|_| prepared.stdout.is_some()), prepared.stdout.clone()) {
        copies.push(to.copy(from));
    }
    if let (Some(from), Some(to)) = (stderr, prepared.stderr.clone()) {
        copies.push(to.copy(from));
    }
    let (done, copied) = watch::channel(copies.is_empty());
    if !copies.is_empty() {
        tokio::spawn(async move {
            futures_util::future::join_all(copies).await;
            done.send_replace(true);
        });
    }
    let triplet = Triplet {
        stdin: stdin.filter(|_| prepared.reverse_stdin),
        stdout: stdout.filter(|_| prepared.reverse_stdout),
        stderr: prepared.reverse_stderr,
    };
    let process = RemoteProcess {
        process,
        stdout: prepared.stdout,
        stderr: prepared.stderr,
        copied,
        triplet: Mutex::new(triplet),
    };
    let oid = call.export(Arc::new(process));
    Ok(call.reply(|graph| call.proxy(graph, "hudson.Launcher$RemoteProcess", oid)))
}

/// `LocalProc.StdinCopyThread`. Reading blocks, for as long as the process and the controller like.
fn feed(mut from: RemoteInput, to: pipe::Sender) -> Result<(), Throw> {
    let mut to = File::from(to.into_blocking_fd()?);
    let copy = move || {
        let mut buffer = [0; 8 << 10];
        // That the process doesn't read, or the controller doesn't send, is no reason to fail.
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("stdin copier".to_owned()).stack_size(256 << 10).spawn(copy)?;
    Ok(())
}

/// What `java.lang.ProcessBuilder` throws.
impl From<LaunchError> for Throw {
    fn from(error: LaunchError) -> Throw {
        let throw = Throw::io(error.to_string());
        match error {
            LaunchError::CannotRun { errno, text, .. } => throw.caused_by(Throw::io(format!("error={errno}, {text}"))),
            LaunchError::Pipe(error) => throw.caused_by(Throw::io(plain(&error))),
            _ => throw,
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The process

/// Our ends of the pipes that the controller uses itself.
struct Triplet {
    stdin: Option<pipe::Sender>,
    stdout: Option<pipe::Receiver>,
    /// Wanted; it is empty, as the output has it.
    stderr: bool,
}

/// What the controller holds: `hudson.Launcher$RemoteProcess`.
struct RemoteProcess {
    process: Process,
    stdout: Option<Console>,
    stderr: Option<Console>,
    /// Whether all output was copied.
    copied: watch::Receiver<bool>,
    triplet: Mutex<Triplet>,
}

/// Kills a process if it is dropped before its time: that is how a `join` notices that its channel is gone. It has to be
/// there before the future is first polled, as it may never be.
struct KillGuard(Option<(Process, Work)>);

impl KillGuard {
    fn new(process: &Process, agent: &Agent) -> KillGuard {
        KillGuard(Some((process.clone(), agent.unfinished.work())))
    }
}

impl Drop for KillGuard {
    fn drop(&mut self) {
        if let (Some((process, work)), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            tracing::info!(pid = process.pid(), "the channel ended while a build waited for a process: killing it");
            runtime.spawn(async move {
                process.kill_tree(KillPolicy::default()).await;
                drop(work);
            });
        }
    }
}

impl RemoteProcess {
    /// `Proc.LocalProc.join`
    async fn join(&self, caller: &Arc<Caller>, mut guard: KillGuard, leak_wait: Duration) -> Result<i32, Throw> {
        let mut copied = self.copied.clone();
        let copied = async move {
            // The sender goes away only after it has sent.
            let _ = copied.wait_for(|done| *done).await;
        };
        let joined = tokio::select! {
            biased;
            joined = self.process.join(copied, leak_wait) => joined,
            () = caller.cancelled() => {
                self.process.kill_tree(KillPolicy::default()).await;
                guard.0 = None;
                return Err(Throw::interrupted());
            }
        };
        guard.0 = None;
        let joined = joined?;
        if let (true, Some(console)) = (joined.leaked, &self.stdout) {
            console.write(format!("{LEAK_MESSAGE}\n").as_bytes().into()).await;
        }
        for console in [&self.stdout, &self.stderr].into_iter().flatten() {
            // The streams were opened by another request than the one that is answered here.
            caller.answer_after(console.settle().await);
        }
        Ok(joined.code)
    }

    fn triplet(&self, call: &Call) -> Result<Reply, Throw> {
        let (stdin, stdout, stderr) = {
            let mut triplet = self.triplet.lock().unwrap_or_else(PoisonError::into_inner);
            (triplet.stdin.take(), triplet.stdout.take(), std::mem::take(&mut triplet.stderr))
        };
        let link = call.link();
        let stdin = stdin.map(pipe::Sender::into_blocking_fd).transpose()?;
        let stdout = stdout.map(pipe::Receiver::into_blocking_fd).transpose()?;
        Ok(call.reply(|graph| {
            let input = |input: Box<dyn Read + Send>| link.export_input(input);
            let stdout = stdout.map(|fd| link.remote_input_stream(graph, input(Box::new(File::from(fd)))));
            let stderr = stderr.then(|| link.remote_input_stream(graph, input(Box::new(io::empty()))));
            let stdin = stdin.map(|fd| {
                let oid = link.export_output(Box::new(File::from(fd)));
                remote_output_stream(graph, oid)
            });
            let fields = [
                ("stderr", "Ljava/io/InputStream;"),
                ("stdin", "Ljava/io/OutputStream;"),
                ("stdout", "Ljava/io/InputStream;"),
            ];
            let desc = graph.serializable("hudson.Launcher$IOTriplet", 1, &fields, None);
            graph.object(desc).set_ref("stdout", stdout).set_ref("stderr", stderr).set_ref("stdin", stdin).build()
        }))
    }
}

impl Exported for RemoteProcess {
    fn invoke(self: Arc<Self>, call: &Call, method: &str, _: Vec<Option<View<'_>>>) -> Outcome {
        match method {
            "join" => {
                let (call, guard) = (kept(call), KillGuard::new(&self.process, call.agent()));
                later(async move { Ok(call.int(self.join(call.caller(), guard, LEAK_WAIT).await?)) })
            }
            "kill" => {
                let (call, guard) = (kept(call), KillGuard::new(&self.process, call.agent()));
                later(async move {
                    self.process.kill_tree(KillPolicy::default()).await;
                    self.join(call.caller(), guard, LEAK_WAIT).await?;
                    Ok(call.null())
                })
            }
            "isAlive" => Ok(call.bool(self.process.is_alive())).into(),
            "getIOtriplet" => self.triplet(call).into(),
            _ => {
                let text = format!("hudson.Launcher$RemoteProcess has no method {method} that this agent knows");
                Err(Throw::new(ThrowClass::UnsupportedOperation, text)).into()
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The other callables

/// The variables of a `KillTask`; `None` if no process can have them all.
fn model(map: Option<View<'_>>) -> Result<Option<EnvVars>, Throw> {
    let pairs = map.map_or_else(|| Ok(Vec::new()), View::string_map)?;
    let mut model = EnvVars::new();
    for (name, value) in pairs {
        let Some(value) = value else { return Ok(None) };
        model.put(name, value);
    }
    Ok(Some(model).filter(|model| !model.is_empty()))
}

fn kill_task(call: &Call) -> Outcome {
    let model = call.view().get("modelEnvVars").map_err(Throw::from).and_then(model);
    match model {
        Ok(Some(model)) => {
            let call = kept(call);
            let work = call.agent().unfinished.work();
            let killing = tokio::spawn(async move {
                kill_by_environment(model, KillPolicy::default()).await;
                drop(work);
            });
            later(async move {
                // Interrupted or not, Java answers null.
                tokio::select! {
                    _ = killing => {}
                    () = call.caller().cancelled() => {}
                }
                Ok(call.null())
            })
        }
        Ok(None) => Ok(call.null()).into(),
        Err(throw) => Err(throw).into(),
    }
}

fn launch_channel(_: &Call) -> Result<Reply, Throw> {
    Err(Throw::new(
        ThrowClass::UnsupportedOperation,
        "This agent cannot launch a JVM with a channel of its own, which is what jobs of the type \"Maven project\" do. \
         Build with a pipeline or a freestyle job, or on an agent that runs Java.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Graph, Value};

    fn rule(graph: &mut Graph, variables: &str, characteristic: bool, handling: &str) -> crate::object::NodeId {
        let fields = [
            ("variables", "Ljava/lang/String;"),
            ("retainCharacteristicEnvVars", "Z"),
            ("processVariablesHandling", "LH;"),
        ];
        let desc = graph.serializable("jenkins.tasks.filters.impl.RetainVariablesLocalRule", 1, &fields, None);
        let variables = graph.string(variables);
        let class = "jenkins.tasks.filters.impl.RetainVariablesLocalRule$ProcessVariablesHandling";
        let handling = graph.enum_constant(class, handling);
        let object = graph.object(desc).set_ref("variables", variables).set_ref("processVariablesHandling", handling);
        object.set("retainCharacteristicEnvVars", Value::Bool(characteristic)).build()
    }

    fn wrapper(graph: &mut Graph, rules: &[crate::object::NodeId]) -> crate::object::NodeId {
        let rules: Vec<_> = rules.iter().map(|id| Some(*id)).collect();
        let rules = graph.array_list(&rules);
        let name = "jenkins.tasks.filters.EnvVarsFilterRuleWrapper";
        let desc = graph.serializable(name, -8647970104978388598, &[("rules", "Ljava/util/List;")], None);
        graph.object(desc).set_ref("rules", rules).build()
    }

    fn environment(pairs: &[(&str, &str)]) -> EnvVars {
        pairs.iter().copied().collect()
    }

    /// jenkins.tasks.filters.impl.RetainVariablesLocalRule.filter
    #[test]
    fn only_retained_variables_stay() {
        let agent = environment(&[("PATH", "/bin"), ("HOME", "/h")]);
        let all = [("PATH", "/x:/bin"), ("HOME", "/h"), ("SECRET", "s"), ("Keep", "k"), ("BUILD_ID", "7")];
        for (characteristic, handling, left, told) in [
            (true, "RESET", &[("PATH", "/bin"), ("HOME", "/h"), ("Keep", "k"), ("BUILD_ID", "7")][..], 2),
            (false, "RESET", &[("PATH", "/bin"), ("HOME", "/h"), ("Keep", "k")], 2),
            (true, "REMOVE", &[("Keep", "k"), ("BUILD_ID", "7")], 1),
        ] {
            let mut graph = Graph::default();
            let rule = rule(&mut graph, " KEEP \n other", characteristic, handling);
            let wrapper = wrapper(&mut graph, &[rule]);
            let rules = filter_rules(Some(graph.view(wrapper))).unwrap();
            let mut env = environment(&all);
            assert_eq!(rules[0].apply(&mut env, &agent).len(), told);
            assert_eq!(env, environment(left), "{characteristic} {handling}");
        }
    }

    #[test]
    fn unknown_filters_launch_nothing() {
        let mut graph = Graph::default();
        let desc = graph.serializable("com.example.HideEverything", 1, &[], None);
        let unknown = graph.object(desc).build();
        let with_unknown = wrapper(&mut graph, &[unknown]);
        let throw = filter_rules(Some(graph.view(with_unknown))).unwrap_err();
        assert_eq!(throw.class, ThrowClass::Abort);
        assert!(throw.message.unwrap().contains("com.example.HideEverything"));
        let empty = wrapper(&mut graph, &[]);
        assert_eq!(filter_rules(Some(graph.view(empty))).unwrap(), []);
        assert_eq!(filter_rules(None).unwrap(), []);
    }

    /// A variable without a value matches no process, rather than all.
    #[test]
    fn kill_models_are_never_weakened() {
        let mut graph = Graph::default();
        let (a, b, one) = (graph.string("A"), graph.string("B"), graph.string("1"));
        let full = graph.hash_map(&[(Some(a), Some(one)), (Some(b), Some(one))]);
        let half = graph.hash_map(&[(Some(a), Some(one)), (Some(b), None)]);
        let none = graph.hash_map(&[]);
        assert_eq!(model(Some(graph.view(full))).unwrap(), Some(environment(&[("A", "1"), ("B", "1")])));
        assert_eq!(model(Some(graph.view(half))).unwrap(), None);
        assert_eq!(model(Some(graph.view(none))).unwrap(), None);
        assert_eq!(model(None).unwrap(), None);
    }

    use crate::callables::scripted::{Controller, proxied, stream_id, stream_listener};
    use std::path::Path;

    const CONSOLE: i32 = 7;

    /// What a request to launch has besides its command.
    #[derive(Clone, Copy, Default)]
    struct Options<'a> {
        loud: bool,
        reverse: bool,
        directory: Option<&'a Path>,
    }

    fn launch_request(graph: &mut Graph, command: &[&str], options: Options<'_>) -> crate::object::NodeId {
        let words: Vec<_> = command.iter().map(|word| Some(graph.string(word))).collect();
        let cmd = graph.array_list(&words);
        let listener = stream_listener(graph, CONSOLE);
        let directory = options.directory.map(|path| graph.string(path.to_str().unwrap()));
        let env = graph.string_array(&["GREETING=hello $LAUNCHER_TEST_NONE", "PATH+X=/nowhere"]);
        let references = [
            ("cmd", Some(cmd)),
            ("env", Some(env)),
            ("listener", Some(listener)),
            ("stdoutListener", (!options.reverse).then_some(listener)),
            ("workDir", directory),
        ];
        let flag = Value::Bool(options.reverse);
        let values = [
            ("quiet", Value::Bool(!options.loud)),
            ("reverseStdin", flag),
            ("reverseStdout", flag),
            ("reverseStderr", flag),
        ];
        crate::callables::scripted::object(graph, "hudson.Launcher$RemoteLaunchCallable", &references, &values)
    }

    async fn launched(controller: &mut Controller, command: &[&str], options: Options<'_>) -> i32 {
        let id = controller.send(|graph| launch_request(graph, command, options));
        proxied(&controller.value(id).await)
    }

    fn script(text: &str) -> [String; 3] {
        ["sh".to_owned(), "-c".to_owned(), text.replace('$', "$$")]
    }

    fn int(graph: &Graph) -> Value {
        graph.root().unwrap().unboxed().unwrap()
    }

    #[tokio::test]
    async fn a_build_sees_all_output_before_the_exit_code() {
        let directory = tempfile::tempdir().unwrap();
        let mut controller = Controller::new();
        let lines = "for i in 1 2 3; do echo $i; done; echo $GREETING >&2; seq 1 30000; ";
        let command = script(&format!("({lines}); pwd; exit 3"));
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let options = Options { loud: true, directory: Some(directory.path()), ..Options::default() };
        let process = launched(&mut controller, &words, options).await;
        let id = controller.call(process, "join");
        let (last_io, answer) = controller.answered(id).await;
        let crate::channel::command::Answered::Normal(bytes) = answer else { panic!("{answer:?}") };
        assert_eq!(int(&Graph::decode(bytes, &crate::object::Limits::default()).unwrap()), Value::Int(3));
        assert_eq!(last_io, controller.last_io);
        let text = controller.text(CONSOLE);
        let name = directory.path().file_name().unwrap().to_str().unwrap();
        assert!(text.starts_with(&format!("[{name}] $ sh -c \"({}", lines.replace('$', "$$"))), "{text:.200}");
        assert!(text.contains("\n1\n2\n3\nhello $LAUNCHER_TEST_NONE\n1\n2\n"), "{text:.300}");
        assert!(text.ends_with(&format!("\n29999\n30000\n{}\n", directory.path().display())));
        let id = controller.call(process, "isAlive");
        assert_eq!(int(&controller.value(id).await), Value::Bool(false));
        // The console's stream goes back when the controller lets go of the process.
        assert!(controller.released.is_empty());
        controller.command("hudson.remoting.UnexportCommand", &[("oid", process)], None);
        controller.until(|controller| controller.released == [CONSOLE]).await;
    }

    #[tokio::test]
    async fn failures_to_launch_say_why() {
        let mut controller = Controller::new();
        let id = controller.send(|graph| launch_request(graph, &["/no/such/program"], Options::default()));
        let text = controller.exception(id).await;
        let expected =
            "java.io.IOException: Cannot run program \"/no/such/program\": error=2, No such file or directory";
        assert!(text.contains(expected), "{text}");
        let options = Options { directory: Some(Path::new("/no/such/place")), ..Options::default() };
        let id = controller.send(|graph| launch_request(graph, &["true"], options));
        let text = controller.exception(id).await;
        assert!(text.contains("Process working directory '/no/such/place' doesn't exist!"), "{text}");
        let id = controller.send(|graph| {
            crate::callables::scripted::object(graph, "hudson.Launcher$RemoteChannelLaunchCallable", &[], &[])
        });
        assert!(controller.exception(id).await.contains("Maven project"));
    }

    /// A process that tells that it runs, and for how long it does.
    struct Sleeper {
        directory: tempfile::TempDir,
    }

    impl Sleeper {
        fn new() -> Sleeper {
            Sleeper { directory: tempfile::tempdir().unwrap() }
        }

        async fn launch(&self, controller: &mut Controller) -> i32 {
            let pid = self.directory.path().join("pid");
            let command =
                script(&format!("echo $$ > {0}.tmp; mv {0}.tmp {0}; while :; do sleep 60; done", pid.display()));
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let process = launched(controller, &words, Options::default()).await;
            self.wait(|| pid.exists()).await;
            process
        }

        async fn wait(&self, done: impl Fn() -> bool) {
            for _ in 0..2000 {
                if done() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!("in vain");
        }

        fn runs(&self) -> bool {
            let pid = std::fs::read_to_string(self.directory.path().join("pid")).unwrap();
            // A zombie has no command line.
            std::fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|line| !line.is_empty())
        }
    }

    #[tokio::test]
    async fn a_cancelled_join_kills() {
        let (mut controller, sleeper) = (Controller::new(), Sleeper::new());
        let process = sleeper.launch(&mut controller).await;
        let id = controller.call(process, "join");
        let alive = controller.call(process, "isAlive");
        assert_eq!(int(&controller.value(alive).await), Value::Bool(true));
        controller.command("hudson.remoting.Request$Cancel", &[("id", id)], None);
        assert_eq!(controller.exception(id).await, "java.lang.InterruptedException");
        assert!(!sleeper.runs());
    }

    #[tokio::test]
    async fn killing_waits_for_the_end() {
        let (mut controller, sleeper) = (Controller::new(), Sleeper::new());
        let process = sleeper.launch(&mut controller).await;
        let id = controller.call(process, "kill");
        assert!(controller.value(id).await.root().is_none());
        assert!(!sleeper.runs());
        let id = controller.call(process, "join");
        assert_eq!(int(&controller.value(id).await), Value::Int(143));
    }

    #[tokio::test]
    async fn the_loss_of_the_channel_kills_only_what_is_joined() {
        let (mut controller, joined, other) = (Controller::new(), Sleeper::new(), Sleeper::new());
        let process = joined.launch(&mut controller).await;
        let forgotten = other.launch(&mut controller).await;
        controller.command("hudson.remoting.UnexportCommand", &[("oid", forgotten)], None);
        controller.call(process, "join");
        let alive = controller.call(process, "isAlive");
        controller.value(alive).await;
        controller.link.lost("the cable was cut");
        joined.wait(|| !joined.runs()).await;
        assert!(other.runs());
        let pid = std::fs::read_to_string(other.directory.path().join("pid")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn the_controller_may_use_the_streams_itself() {
        let mut controller = Controller::new();
        let command = script("tr a-z A-Z; echo error >&2");
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let process = launched(&mut controller, &words, Options { reverse: true, ..Options::default() }).await;
        let id = controller.call(process, "getIOtriplet");
        let triplet = controller.value(id).await;
        let triplet = triplet.root().unwrap();
        assert!(triplet.is("hudson.Launcher$IOTriplet"));
        let id = |name| stream_id(triplet.require(name).unwrap());
        let (stdin, stdout, stderr) = (id("stdin"), id("stdout"), id("stderr"));
        let chunk = [("oid", stdin), ("ioId", 1), ("requestId", 0)];
        controller.command("hudson.remoting.ProxyOutputStream$Chunk", &chunk, Some(b"shout\n"));
        controller.command("hudson.remoting.ProxyOutputStream$EOF", &[("oid", stdin), ("ioId", 2)], None);
        assert_eq!(controller.read(stdout).await, b"SHOUT\nerror\n");
        assert_eq!(controller.read(stderr).await, b"");
        let id = controller.call(process, "join");
        assert_eq!(int(&controller.value(id).await), Value::Int(0));
    }
}
