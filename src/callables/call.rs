//! What a handler sees of the world.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::Throw;
use super::statistics::Statistics;
use super::suid::{self, ClassFileError};
use crate::channel::command::invocation_handler;
use crate::channel::{Caller, Link, PipeReader, RemoteInput, RemoteOutput, RemoteWriter, Sink};
use crate::object::{Graph, Loader, NodeId, Value, View};

/// Most questions to class files of a channel's whose answers are remembered: handlers ask a handful.
const MAX_CLASS_ANSWERS: usize = 256;

/// What was asked: of which class loader's class, and what.
type ClassQuestion = (Option<i32>, String, &'static str);

/// An answer: a graph with one object, or null.
#[derive(Debug, Default)]
pub struct Reply {
    /// The graph that holds it.
    pub graph: Graph,
    /// The object.
    pub root: Option<NodeId>,
}

/// How a handler that may wait long ends.
pub enum Outcome {
    /// It is done.
    Done(Result<Reply, Throw>),
    /// It goes on without holding a thread. Dropped when the channel is gone.
    Later(Pin<Box<dyn Future<Output = Result<Reply, Throw>> + Send>>),
}

impl From<Result<Reply, Throw>> for Outcome {
    fn from(result: Result<Reply, Throw>) -> Outcome {
        Outcome::Done(result)
    }
}

/// An object of ours whose methods the controller calls through a proxy (`hudson.remoting.RemoteInvocationHandler`).
pub trait Exported: Send + Sync {
    /// Runs a method. `call.view()` is the `RPCRequest`; its arguments are `args`.
    fn invoke(self: Arc<Self>, call: &Call, method: &str, args: Vec<Option<View<'_>>>) -> Outcome;
}

/// A file, or a process's standard input, that the controller writes to; closed when it is dropped.
impl Sink for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>, _: Option<String>) -> io::Result<()> {
        Ok(())
    }
}

/// An exported object as the channel keeps it.
pub(super) struct ExportedObject(pub(super) Arc<dyn Exported>);

/// What is the same for all calls on a channel.
#[derive(Debug)]
pub struct Agent {
    /// `-workDir`, if given.
    pub work_dir: Option<PathBuf>,
    /// Name of the protocol that connects the channel (`Engine.getProtocolName`), if it has one.
    pub protocol: Option<String>,
    /// The environment that children inherit and that the controller is told: without the agent's own secrets.
    pub environment: crate::process::env::EnvVars,
    /// System properties that the controller copied here (`CopySystemProperties`).
    pub properties: Mutex<HashMap<String, Option<String>>>,
    /// The controller's version (`X-Jenkins`), if it said. See [`Agent::controller_at_least`].
    pub controller_version: Option<String>,
    /// Set when the controller says that the agent shall not come back (`KubernetesSlave$SlaveDisconnector`).
    pub no_reconnect: AtomicBool,
    /// What is to be brought to an end even if the channel is gone.
    pub unfinished: Unfinished,
    /// What was called so far, on this channel and those before it.
    pub statistics: Arc<Statistics>,
    /// Callables that are not to be executed natively.
    pub denied: Denied,
    /// Whether what is not native can be executed by a JVM.
    pub jvm: Jvm,
    /// What class files of the controller's said: [`Call::class_uid`].
    class_answers: Mutex<HashMap<ClassQuestion, Result<i64, Throw>>>,
}

/// Patterns of the names of callables that are not to be executed natively: `*` stands for any text, `?` for a character.
#[derive(Debug, Clone, Default)]
pub struct Denied(pub Vec<String>);

impl Denied {
    /// Whether a class is among them.
    pub fn matches(&self, class: &str) -> bool {
        self.0.iter().any(|pattern| wildcard(pattern.as_bytes(), class.as_bytes()))
    }
}

fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when a text turns out to be longer than the last `*` was taken for.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match retry {
                Some((star, from)) => {
                    (p, t) = (star + 1, from + 1);
                    retry = Some((star, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// What there is for callables that are not native.
#[derive(Debug, Clone)]
pub enum Jvm {
    /// Nothing, as the user wishes (`--jvm never`).
    Never,
    /// A JVM that is started, or can be.
    AtHand,
    /// Nothing, for this reason; what to do about it follows.
    Missing(String),
}

impl Jvm {
    /// Whether there is a JVM, or can be.
    pub fn is_at_hand(&self) -> bool {
        matches!(self, Jvm::AtHand)
    }

    /// The end of a sentence about a callable that can't be executed: why there is no JVM, and what to do.
    pub fn reason(&self) -> String {
        const ADVICE: &str =
            "; run it on an agent with a Java runtime (an image with a JRE), or report the class as missing";
        match self {
            Jvm::Never => format!("this agent runs without a JVM (--jvm never){ADVICE}"),
            Jvm::AtHand => format!("the JVM was not asked{ADVICE}"),
            Jvm::Missing(why) => format!("no JVM could be started for it: {why}{ADVICE}"),
        }
    }
}

/// Counts what must not be broken off by the process's end, such as the killing of a build's processes.
#[derive(Debug, Clone, Default)]
pub struct Unfinished(Arc<watch::Sender<()>>);

/// Something that the process's end waits for, up to the grace period, for as long as this lives.
#[derive(Debug)]
pub struct Work {
    _alive: watch::Receiver<()>,
}

impl Unfinished {
    /// Something begins.
    pub fn work(&self) -> Work {
        Work { _alive: self.0.subscribe() }
    }

    /// Waits until nothing is unfinished.
    pub async fn idle(&self) {
        self.0.closed().await;
    }
}

/// A request of the controller's, being executed.
pub struct Call {
    pub(crate) agent: Arc<Agent>,
    pub(crate) graph: Arc<Graph>,
    /// The callable: of a `FileCallable`, the callable inside its wrappers.
    pub(crate) root: NodeId,
    /// Of a `FileCallable`: the path that it acts upon.
    pub(crate) path: Option<PathBuf>,
    pub(crate) caller: Arc<Caller>,
}

impl Call {
    /// What is the same for all calls.
    pub fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// The callable.
    pub fn view(&self) -> View<'_> {
        self.graph.view(self.root)
    }

    /// The whole graph of the request, for what must outlive the call.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The path that a `FileCallable` acts upon.
    ///
    /// # Errors
    /// If the request is not one.
    pub fn path(&self) -> Result<&Path, Throw> {
        let missing = || Throw::io(format!("{} came without a path to act upon", self.view().class_name()));
        self.path.as_deref().ok_or_else(missing)
    }

    /// Whether the controller has cancelled the call, or the channel is gone: stop soon, and throw
    /// [`Throw::interrupted`].
    pub fn is_cancelled(&self) -> bool {
        self.caller.is_cancelled()
    }

    /// The call's own handle on the channel.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// The channel.
    pub fn link(&self) -> &Arc<Link> {
        self.caller.link()
    }

    /// Opens an `OutputStream` of the controller's: a `RemoteOutputStream`, or the writing end of a `Pipe`.
    ///
    /// Each may be opened once. What a call does not open is given back when it is answered.
    ///
    /// # Errors
    /// If `stream` is neither.
    pub fn output(&self, stream: View<'_>) -> Result<RemoteOutput, Throw> {
        Ok(self.caller.output(stream)?)
    }

    /// Opens a `Writer` of the controller's (`RemoteWriter`).
    ///
    /// # Errors
    /// If `stream` is none.
    pub fn writer(&self, stream: View<'_>) -> Result<RemoteWriter, Throw> {
        Ok(self.caller.writer(stream)?)
    }

    /// Opens an `InputStream` of the controller's: a `RemoteInputStream` of either kind.
    ///
    /// # Errors
    /// If `stream` is none.
    pub fn input(&self, stream: View<'_>) -> Result<RemoteInput, Throw> {
        Ok(self.caller.input(stream)?)
    }

    /// Opens the reading end of a `Pipe` that the controller writes to.
    ///
    /// # Errors
    /// If `pipe` is none.
    pub fn pipe_reader(&self, pipe: View<'_>) -> Result<PipeReader, Throw> {
        Ok(self.caller.pipe_reader(pipe)?)
    }

    /// Exports an object whose methods the controller may call, for [`proxy`](Self::proxy).
    pub fn export(&self, object: Arc<dyn Exported>) -> i32 {
        self.link().export(Arc::new(ExportedObject(object)))
    }

    /// The `serialVersionUID` of a class of the controller's, by its binary name, for what it has to read: from its
    /// class file, which is fetched once. Blocks: not for [`Run::Inline`](super::Run::Inline).
    ///
    /// # Errors
    /// If the class file can't be had or says none.
    pub fn class_uid(&self, class: &str) -> Result<i64, Throw> {
        self.class_uid_by(self.caller.loader_oid(), class)
    }

    /// As [`class_uid`](Self::class_uid), of a class that another class loader than the request's knows.
    ///
    /// # Errors
    /// As there.
    pub fn class_uid_by(&self, loader: Option<i32>, class: &str) -> Result<i64, Throw> {
        self.ask_class(loader, class, "serialVersionUID", |class_file| Ok(suid::class_uid(class_file)?.uid))
    }

    /// Which of these types a method of a class of the controller's returns, by its index: see [`suid::returned`].
    /// Blocks as [`class_uid`](Self::class_uid) does.
    ///
    /// # Errors
    /// If the class file can't be had, or the method returns none of them.
    pub fn returned(&self, class: &str, method: &'static str, types: &[&str]) -> Result<usize, Throw> {
        self.ask_class(self.caller.loader_oid(), class, method, |class_file| {
            Ok(suid::returned(class_file, method, types)? as i64)
        })
        .map(|index| index as usize)
    }

    /// Asks a class file of the controller's a question. The answer is remembered, a failure too, so that a controller
    /// that gives none is not asked again and again.
    fn ask_class(
        &self,
        loader: Option<i32>,
        class: &str,
        question: &'static str,
        ask: impl FnOnce(&[u8]) -> Result<i64, ClassFileError>,
    ) -> Result<i64, Throw> {
        let lock = || self.agent.class_answers.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (loader, class.to_owned(), question);
        if let Some(known) = lock().get(&key) {
            return known.clone();
        }
        let class_file = self.caller.fetch_class(loader, class).map_err(|error| Throw::from(io::Error::from(error)));
        let answer =
            class_file.and_then(|class_file| ask(&class_file).map_err(|error| Throw::io(format!("{class}: {error}"))));
        let mut answers = lock();
        if !self.is_cancelled() && answers.len() < MAX_CLASS_ANSWERS {
            answers.insert(key, answer.clone());
        }
        answer
    }

    /// An answer built by `build`.
    pub fn reply(&self, build: impl FnOnce(&mut Graph) -> NodeId) -> Reply {
        let mut graph = Graph::with_loader(self.loader());
        let root = Some(build(&mut graph));
        Reply { graph, root }
    }

    /// The annotation that an answer's classes need.
    pub fn loader(&self) -> Loader {
        self.caller.loader()
    }

    /// A `java.lang.String`.
    pub fn string(&self, text: &str) -> Reply {
        self.reply(|graph| graph.string(text))
    }

    /// A `java.lang.Boolean`.
    pub fn bool(&self, value: bool) -> Reply {
        self.reply(|graph| graph.boxed_bool(value))
    }

    /// A `java.lang.Integer`.
    pub fn int(&self, value: i32) -> Reply {
        self.reply(|graph| graph.boxed_int(value))
    }

    /// A `java.lang.Long`.
    pub fn long(&self, value: i64) -> Reply {
        self.reply(|graph| graph.boxed_long(value))
    }

    /// Null.
    pub fn null(&self) -> Reply {
        Reply::default()
    }

    /// A proxy, for an answer, of the exported object `oid` under a Java interface.
    ///
    /// The controller's copy of the proxy holds one reference, which its garbage collection returns.
    pub fn proxy(&self, graph: &mut Graph, interface: &str, oid: i32) -> NodeId {
        self.link().add_reference(oid);
        let desc = invocation_handler(graph);
        let handler = graph
            .object(desc)
            .set("oid", Value::Int(oid))
            .set("userProxy", Value::Bool(true))
            .set("userSpace", Value::Bool(true))
            .set("recordCreatedAt", Value::Bool(true))
            .build();
        let proxy = graph.proxy_desc(&[interface, "hudson.remoting.IReadResolve"]);
        graph.object(proxy).set_ref("h", handler).build()
    }
}

impl Agent {
    /// An agent without properties, with this process's environment.
    pub fn new(work_dir: Option<PathBuf>, protocol: Option<String>, controller_version: Option<String>) -> Agent {
        Agent {
            work_dir,
            protocol,
            controller_version,
            environment: crate::process::env::EnvVars::agent().clone(),
            properties: Mutex::default(),
            no_reconnect: AtomicBool::new(false),
            unfinished: Unfinished::default(),
            statistics: Arc::default(),
            denied: Denied::default(),
            jvm: Jvm::Never,
            class_answers: Mutex::default(),
        }
    }

    /// Whether the controller asked for the agent not to reconnect.
    pub fn shall_not_reconnect(&self) -> bool {
        self.no_reconnect.load(Ordering::Relaxed)
    }
}
