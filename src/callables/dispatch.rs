//! From a request to its handler, and from what that gives to an answer.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures_util::FutureExt;

use super::call::ExportedObject;
use super::listener;
use super::statistics::Tenant;
use super::{Agent, Call, Entry, Outcome, Reply, Run, TABLES, Throw, ThrowClass};
use crate::channel::state::{CHANNEL_OID, Judged};
use crate::channel::{Caller, Incoming, printable};
use crate::object::{AccessError, Graph, NodeId, View};

/// The superclass of all method calls.
const RPC_REQUEST: &str = "hudson.remoting.RemoteInvocationHandler$RPCRequest";
/// Wrappers within wrappers that are looked into; plugins add one, core one or two.
const MAX_WRAPPERS: usize = 8;

fn registry() -> &'static HashMap<&'static str, &'static Entry> {
    static REGISTRY: OnceLock<HashMap<&'static str, &'static Entry>> = OnceLock::new();
    REGISTRY.get_or_init(|| TABLES.iter().flat_map(|table| table.iter()).map(|entry| (entry.class, entry)).collect())
}

/// The native implementation of a callable, by its Java class name.
pub fn find(class: &str) -> Option<&'static Entry> {
    registry().get(class).copied()
}

/// What a request asks for, once its wrappers are off.
struct Target {
    node: NodeId,
    class: String,
    path: Option<PathBuf>,
}

/// Takes the wrappers off a callable: `FilePath$FileCallableWrapper`, `FilePath$CallableWith`, and those that plugins
/// put around either, all of which name what they wrap `callable` or `task`.
fn unwrap(root: View<'_>) -> Result<Target, AccessError> {
    let mut view = root;
    let mut path = None;
    for _ in 0..MAX_WRAPPERS {
        let class = view.class_name();
        if find(&class).is_some() {
            break;
        }
        let inner = match class.as_ref() {
            "hudson.FilePath$FileCallableWrapper" | "hudson.FilePath$CallableWith" => {
                // The outer instance up to 2.318, a field of its own since.
                let file = match view.get("filePath")? {
                    Some(file) => file,
                    None => view.require("this$0")?,
                };
                path = Some(PathBuf::from(file.require_string("remote")?.as_ref()));
                match view.get("callable")? {
                    Some(callable) => callable,
                    None => view.require("task")?,
                }
            }
            // Takes a lock that only a controller has.
            "hudson.model.Queue$LockedHRCallable" => view.require("delegate")?,
            _ => match view.get("callable") {
                Ok(Some(callable)) => callable,
                _ => break,
            },
        };
        view = inner;
    }
    Ok(Target { node: view.id(), class: view.class_name().into_owned(), path })
}

/// Callables that set up the agent's side of a channel: a JVM that comes later must hear them too.
const SETUPS: [&str; 2] =
    ["hudson.slaves.SlaveComputer$SlaveInitializer", "jenkins.util.SystemProperties$AgentCopier$CopySystemProperties"];
/// Always native: it asks whether this agent lives, and a JVM that doesn't must not answer for it.
const PING: &str = "hudson.remoting.PingThread$Ping";

/// Tells whether this agent executes a callable itself.
pub fn judge(agent: &Agent, graph: &Graph) -> Judged {
    // What is malformed is answered here.
    let known = |label: &str| Judged {
        label: label.to_owned(),
        owner: String::new(),
        native: true,
        better_in_jvm: false,
        setup: false,
    };
    let Some(root) = graph.root() else { return known("null") };
    let Ok(target) = unwrap(root) else { return known(&root.class_name()) };
    let class = target.class;
    let native = class == PING || (find(&class).is_some() && !agent.denied.matches(&class));
    let better_in_jvm = native && agent.jvm.is_at_hand() && listener::is_withheld(graph);
    let owner = if native && !better_in_jvm { String::new() } else { likely_owner(&class) };
    Judged { native, better_in_jvm, setup: SETUPS.contains(&class.as_str()), owner, label: class }
}

/// Executes a request and answers it.
///
/// Must be called within a tokio runtime.
pub fn dispatch(agent: &Arc<Agent>, incoming: Incoming) {
    let Incoming { caller, graph } = incoming;
    let Some(root) = graph.root() else {
        return caller.respond(Err(Throw::io("the request is null")));
    };
    if root.hierarchy().any(|class| class == RPC_REQUEST) {
        let call = call(agent, &caller, graph, None);
        return invoke(call);
    }
    let begun = Instant::now();
    let target = match unwrap(root) {
        Ok(target) => target,
        Err(error) => return caller.respond(Err(error.into())),
    };
    let denied = target.class != PING && agent.denied.matches(&target.class);
    let Some(entry) = find(&target.class).filter(|_| !denied) else {
        tracing::warn!("not implemented natively: {}", printable(&target.class));
        return caller.respond(Err(not_implemented(agent, &target.class, denied)));
    };
    let meter = Meter { agent: agent.clone(), label: target.class.clone(), begun };
    let call = call(agent, &caller, graph, Some(target));
    match entry.run {
        Run::Inline(run) => finish(&caller, meter, guarded(|| run(&call).into())),
        Run::Blocking(run) => spawn(caller, meter, move || run(&call).into()),
        Run::Long(run) => spawn(caller, meter, move || run(&call)),
    }
}

/// Counts a call when it has been answered.
struct Meter {
    agent: Arc<Agent>,
    label: String,
    begun: Instant,
}

impl Drop for Meter {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        tracing::debug!("native: {} in {:.1} ms", printable(&self.label), took.as_secs_f64() * 1e3);
        self.agent.statistics.record(Tenant::Native, &self.label, took);
    }
}

fn call(agent: &Arc<Agent>, caller: &Arc<Caller>, graph: Graph, target: Option<Target>) -> Call {
    let root = target.as_ref().map(|target| target.node).or(graph.root().map(View::id));
    Call {
        agent: agent.clone(),
        // `dispatch` has seen that there is a root.
        root: root.unwrap_or_else(|| unreachable!("a request without an object")),
        path: target.and_then(|target| target.path),
        graph: Arc::new(graph),
        caller: caller.clone(),
    }
}

fn not_implemented(agent: &Agent, class: &str, denied: bool) -> Throw {
    let owner = likely_owner(class);
    let why = if denied { "is not to be native (--native-deny)" } else { "is not native in this agent" };
    Throw::abort(format!("{class}, which belongs to {owner}, {why}, and {}", agent.jvm.reason()))
}

/// What a class belongs to, by its package.
pub fn likely_owner(class: &str) -> String {
    let package = class.rsplit_once('.').map_or("", |(package, _)| package);
    let core = [
        "hudson.model",
        "hudson.slaves",
        "hudson.util",
        "hudson.tasks",
        "hudson.remoting",
        "hudson.node_monitors",
        "hudson.logging",
    ];
    if package == "hudson"
        || package.starts_with("jenkins.") && !package.starts_with("jenkins.plugins.")
        || core.iter().any(|core| package.starts_with(core))
    {
        return "Jenkins itself".to_owned();
    }
    for prefix in ["org.jenkinsci.plugins.", "hudson.plugins.", "jenkins.plugins.", "io.jenkins.plugins."] {
        if let Some(plugin) =
            package.strip_prefix(prefix).and_then(|rest| rest.split('.').next()).filter(|name| !name.is_empty())
        {
            return format!("the plugin {plugin} (by its package {package})");
        }
    }
    if package.is_empty() { "an unknown plugin".to_owned() } else { format!("a plugin with the package {package}") }
}

/// Runs a method of an exported object.
fn invoke(call: Call) {
    let caller = call.caller.clone();
    let (oid, method) = {
        let request = call.view();
        let (oid, method) = (request.int("oid"), request.require_string("methodName"));
        match (oid, method) {
            (Ok(oid), Ok(method)) => (oid, method.into_owned()),
            (Err(error), _) | (_, Err(error)) => return caller.respond(Err(error.into())),
        }
    };
    if oid == CHANNEL_OID {
        // IChannel: this agent sets no properties. `waitForProperty` would wait for ever.
        return caller.respond(match method.as_str() {
            "getProperty" | "getRemoteProperty" => Ok((Graph::default(), None)),
            _ => Err(Throw::new(ThrowClass::UnsupportedOperation, format!("IChannel.{method}"))),
        });
    }
    let object = call.link().object(oid).and_then(|object| {
        let object: Arc<dyn Any + Send + Sync> = object;
        object.downcast::<ExportedObject>().ok()
    });
    let Some(object) = object else {
        let text = format!("the agent exports no object {oid}, of which {method} was called");
        return caller.respond(Err(Throw::new(ThrowClass::IllegalState, text)));
    };
    let interface = call.view().string("declaringClassName").ok().flatten().unwrap_or_default().into_owned();
    let meter = Meter { agent: call.agent.clone(), label: format!("{interface}.{method}"), begun: Instant::now() };
    spawn(caller, meter, move || {
        let arguments = call.view().get("arguments").and_then(|array| match array {
            Some(array) => Ok(array.elements()?.collect()),
            None => Ok(Vec::new()),
        });
        match arguments {
            Ok(arguments) => object.0.clone().invoke(&call, &method, arguments),
            Err(error) => Outcome::Done(Err(error.into())),
        }
    });
}

fn spawn(caller: Arc<Caller>, meter: Meter, run: impl FnOnce() -> Outcome + Send + 'static) {
    tokio::task::spawn_blocking(move || {
        // It may have waited long for a thread. Java does not begin such calls either (`FutureTask.cancel`).
        let outcome = if caller.is_cancelled() { Outcome::Done(Err(Throw::interrupted())) } else { guarded(run) };
        finish(&caller, meter, outcome);
    });
}

fn finish(caller: &Arc<Caller>, meter: Meter, outcome: Outcome) {
    match outcome {
        Outcome::Done(result) => {
            // Counted first: who has the answer finds the call counted.
            drop(meter);
            respond(caller, result);
        }
        Outcome::Later(future) => {
            let caller = caller.clone();
            tokio::spawn(async move {
                let closed = caller.link().closed();
                let future = AssertUnwindSafe(future).catch_unwind();
                tokio::select! {
                    result = future => {
                        drop(meter);
                        respond(&caller, result.unwrap_or_else(|panic| Err(bug(&*panic))));
                    }
                    () = closed => {}
                }
            });
        }
    }
}

fn respond(caller: &Caller, result: Result<Reply, Throw>) {
    caller.respond(result.map(|reply| (reply.graph, reply.root)));
}

/// A handler's panic is a bug of this agent's: it fails the call and not the channel.
fn guarded(run: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Outcome::Done(Err(bug(&*panic))))
}

fn bug(panic: &(dyn Any + Send)) -> Throw {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
    Throw::new(ThrowClass::IllegalState, format!("a bug in this agent: {text}"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::channel::command::{self, Answered, Command};
    use crate::channel::{Channel, Link, Liveness};
    use crate::frame::Capability;
    use crate::object::{Limits, Loader};

    fn request() -> (Arc<Link>, Arc<Caller>) {
        let (requests, incoming) = mpsc::channel();
        let channel = Channel::new(Instant::now(), Capability::OURS, Liveness::default());
        let link = Link::new(channel, Box::new(move |incoming| requests.send(incoming.caller).unwrap()));
        let mut callable = Graph::with_loader(Loader::Receivers(0));
        let desc = callable.serializable("a.Callable", 1, &[], None);
        let object = callable.object(desc).build();
        let callable = callable.encode_one(Some(object));
        link.receive(Instant::now(), command::user_request(1, 0, 7, callable, ""));
        (link, incoming.recv().unwrap())
    }

    fn meter() -> Meter {
        Meter { agent: Arc::new(Agent::new(None, None, None)), label: String::new(), begun: Instant::now() }
    }

    fn exception(link: &Link, runtime: &tokio::runtime::Runtime) -> String {
        let mut batch: Vec<Bytes> = Vec::new();
        let sent = async { tokio::time::timeout(Duration::from_secs(10), link.transmit(1, &mut batch)).await };
        assert_eq!(runtime.block_on(sent), Ok(true));
        match Command::read(Graph::decode(batch.remove(0), &Limits::default()).unwrap()) {
            Ok(Command::Response { id: 1, answer: Answered::Exception(text), .. }) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_call_that_was_cancelled_while_it_waited_for_a_thread_is_not_begun() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).enable_all().build().unwrap();
        let _context = runtime.enter();
        let (release, held) = mpsc::channel::<()>();
        runtime.spawn_blocking(move || held.recv());
        let (link, caller) = request();
        let begun = Arc::new(AtomicBool::new(false));
        spawn(caller, meter(), {
            let begun = begun.clone();
            move || {
                begun.store(true, Ordering::SeqCst);
                Outcome::Done(Ok(Reply::default()))
            }
        });
        link.receive(Instant::now(), command::cancel(1));
        drop(release);
        assert!(exception(&link, &runtime).starts_with("java.lang.InterruptedException"));
        assert!(!begun.load(Ordering::SeqCst));
    }

    #[test]
    fn a_bug_in_what_goes_on_later_is_answered() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _context = runtime.enter();
        let (link, caller) = request();
        finish(&caller, meter(), Outcome::Later(Box::pin(async { panic!("an odd thing") })));
        assert!(exception(&link, &runtime).contains("a bug in this agent: an odd thing"));
    }
}
