//! What a handler sees of the world.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

use super::Throw;
use crate::channel::{Caller, Link, PipeReader, RemoteInput, RemoteOutput, RemoteWriter};
use crate::object::{Graph, Loader, NodeId, Value, View};

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
    /// Its receivers stand for what has to be brought to an end even if the channel is gone.
    work: watch::Sender<()>,
}

/// Something that the process's end waits for. See [`Agent::work`].
#[derive(Debug)]
pub struct Work {
    _alive: watch::Receiver<()>,
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
        let fields = [
            ("autoUnexportByCaller", "Z"),
            ("goingHome", "Z"),
            ("oid", "I"),
            ("recordCreatedAt", "Z"),
            ("userProxy", "Z"),
            ("userSpace", "Z"),
            ("origin", "Ljava/lang/Throwable;"),
        ];
        let flags = crate::object::sc::SERIALIZABLE | crate::object::sc::WRITE_METHOD;
        let desc = graph.class_desc("hudson.remoting.RemoteInvocationHandler", 1, flags, &fields, None);
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
            work: watch::Sender::new(()),
        }
    }

    /// Whether the controller asked for the agent not to reconnect.
    pub fn shall_not_reconnect(&self) -> bool {
        self.no_reconnect.load(Ordering::Relaxed)
    }

    /// Has the process wait with its end for as long as what is returned lives, up to the grace period. For what is
    /// left behind if it is broken off, such as the killing of a build's processes.
    pub fn work(&self) -> Work {
        Work { _alive: self.work.subscribe() }
    }

    /// Waits until there is no [`Work`].
    pub async fn idle(&self) {
        self.work.closed().await;
    }
}
