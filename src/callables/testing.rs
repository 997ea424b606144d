//! Runs handlers in tests: an agent's channel and a controller's end, joined in memory.
//!
//! ```ignore
//! let dir = tempfile::tempdir().unwrap();
//! let harness = Harness::new();
//! // As recorded, with the recorded agent's paths replaced:
//! let (request, recorded) = recorded("hudson.FilePath$Mkdirs", 0, &dir.path().join("agent"));
//! let answer = harness.replay(&request, &[]).unwrap();
//! assert_eq!(outline(&answer), outline(&recorded.unwrap()));
//! // Or as the loopback controller makes them:
//! let answer = harness.call(requests::exists("/")).unwrap();
//! harness.finish();
//! ```

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Agent, Throw, dispatch};
use crate::channel::command::{self, Answered, Command, Grant, StreamOp, introduced_loaders};
use crate::channel::{Channel, Link, Liveness};
use crate::demo::controller::end::{CORE_LOADER, CallError, Collected, End, Kind, grants};
use crate::demo::controller::requests::Request;
use crate::frame::Capability;
use crate::object::{Graph, Limits, Node, NodeId, Value, View};

/// The recorded agent's root directory.
pub(crate) const RECORDED_ROOT: &str = "/home/jenkins/agent";
/// How long an agent may take to return what it was lent.
const SETTLE: Duration = Duration::from_secs(10);

/// An agent and a controller.
pub(crate) struct Harness {
    runtime: tokio::runtime::Runtime,
    /// The agent's side.
    pub link: Arc<Link>,
    /// The controller's side.
    pub end: Arc<End>,
    /// What is the same for all calls.
    pub agent: Arc<Agent>,
}

impl Harness {
    /// An agent without a work directory, connected by JNLP4.
    pub fn new() -> Harness {
        Harness::with_agent(Agent::new(None, Some("JNLP4-connect".to_owned()), None))
    }

    pub fn with_agent(agent: Agent) -> Harness {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let agent = Arc::new(agent);
        let capability = Capability::OURS;
        let channel = Channel::new(Instant::now(), capability, Liveness::default());
        let link = {
            let agent = agent.clone();
            Link::new(channel, Box::new(move |incoming| dispatch(&agent, incoming)))
        };
        let end = Arc::new(End::new(capability));
        let to_agent = {
            let (link, end) = (link.clone(), end.clone());
            async move {
                while let Some(command) = end.next().await {
                    link.receive(Instant::now(), command);
                }
                link.lost("the controller is gone");
            }
        };
        let to_controller = {
            let (link, end) = (link.clone(), end.clone());
            async move {
                let mut batch = Vec::new();
                while link.transmit(1 << 16, &mut batch).await || !batch.is_empty() {
                    batch.drain(..).for_each(|command| end.receive(command));
                }
                end.lost("the agent is gone");
            }
        };
        runtime.spawn(to_agent);
        runtime.spawn(to_controller);
        let harness = Harness { runtime, link, end, agent };
        // The channel keeps the class loader of the first request; here as everywhere that is the core's.
        harness.call(crate::demo::controller::requests::exists("/")).ok();
        harness
    }

    /// Sends a request and waits for its answer: a value (null is an empty graph), or what the exception says of
    /// itself, its class first.
    pub fn call(&self, request: Request) -> Result<Graph, String> {
        self.answer(self.end.start(request))
    }

    /// Calls a method without parameters of an object that the agent exports.
    pub fn method(&self, oid: i32, interface: &str, method: &str) -> Result<Graph, String> {
        self.call(Request::method(oid, interface, method))
    }

    /// Sends a recorded request, exporting what it mentions: class loaders, output streams and writers (see
    /// [`collected`](Self::collected)), and input streams and pipes, which give `inputs` by the order of their ids.
    pub fn replay(&self, request: &Graph, inputs: &[&[u8]]) -> Result<Graph, String> {
        self.answer(self.replay_start(request, inputs))
    }

    /// As [`replay`](Self::replay), without waiting: gives the request's id for [`answer`](Self::answer).
    pub fn replay_start(&self, request: &Graph, inputs: &[&[u8]]) -> i32 {
        for oid in introduced_loaders(request) {
            let name = if oid == CORE_LOADER { "core".to_owned() } else { format!("recorded {oid}") };
            self.end.export_as(oid, 1, Kind::Loader(name));
        }
        let mut found: Vec<Grant> = grants(request, Capability::OURS).map(|(_, grant)| grant).collect();
        found.sort_by_key(|grant| oid_of(*grant));
        let mut inputs = inputs.iter().map(|bytes| Bytes::copy_from_slice(bytes));
        for grant in found {
            let kind = match grant {
                Grant::Output(_) => Kind::Output,
                Grant::Writer(_) => Kind::Writer,
                Grant::Input(_) => Kind::Input(inputs.next().unwrap_or_default()),
                Grant::PipeSource(_) => Kind::Source { data: inputs.next().unwrap_or_default(), ends: true },
                Grant::Proxy(_) => Kind::Object,
            };
            self.end.export_as(oid_of(grant), 1, kind);
        }
        self.end.add_reference(CORE_LOADER);
        self.end.start_stream(CORE_LOADER, request.encode().into(), "a recorded request")
    }

    /// Waits for the answer to a request.
    pub fn answer(&self, id: i32) -> Result<Graph, String> {
        self.runtime.block_on(self.end.answer(id)).map_err(|error| match error {
            CallError::Thrown(text) => text,
            error => panic!("{error}"),
        })
    }

    /// What was written to the controller's streams that a request mentions, by the order of their ids.
    pub fn collected(&self, request: &Graph) -> Vec<Collected> {
        written_oids(request).into_iter().map(|oid| self.end.collected(oid)).collect()
    }

    /// Waits for a future, in the harness's runtime.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Gives the agent's objects back and checks that nothing is left on either side, and that the agent broke no
    /// rule of the protocol.
    pub fn finish(self) {
        self.end.collect_garbage();
        assert_eq!(self.runtime.block_on(self.end.settled()), [], "references that the agent did not give back");
        let deadline = Instant::now() + SETTLE;
        while self.link.in_use() != (0, 0) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(self.link.in_use(), (0, 0), "objects exported by the agent, and requests in progress");
        assert_eq!(self.end.complaints(), [""; 0]);
    }
}

pub(crate) fn oid_of(grant: Grant) -> i32 {
    match grant {
        Grant::Output(oid) | Grant::Writer(oid) | Grant::PipeSource(oid) | Grant::Input(oid) | Grant::Proxy(oid) => oid,
    }
}

/// A request of the recorded session.
pub(crate) struct Ask {
    /// The class of the callable (of a `FileCallable`, not its wrapper's), or the method's name.
    pub label: String,
    /// The stream of the callable.
    pub request: Bytes,
    /// The class loader that it came with.
    pub loader: Option<i32>,
    /// What the Java agent answered, if it did: a stream, or what its exception said.
    pub answer: Option<Result<Bytes, String>>,
    /// What it wrote to the controller's streams that the request mentions, by the order of their ids.
    pub written: Vec<Vec<u8>>,
    /// What the controller wrote: to pipes that the request mentions, or to the stream that the answer is.
    pub fed: Vec<Bytes>,
}

impl Ask {
    /// Whether the answer was null.
    pub fn answered_null(&self) -> bool {
        matches!(&self.answer, Some(Ok(bytes)) if decode(bytes.clone()).root().is_none())
    }
}

pub(crate) fn decode(bytes: Bytes) -> Graph {
    Graph::decode(bytes, &Limits::default()).unwrap()
}

/// The commands of the recorded session: whether to the agent, and its bytes.
fn records() -> Vec<(bool, Bytes)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/session.bin.gz");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    let mut bytes = Bytes::from(bytes);
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let head = bytes.split_to(5);
        let record = bytes.split_to(u32::from_be_bytes(head[1..].try_into().unwrap()) as usize);
        records.push((head[0] == 1, record));
    }
    records
}

/// All requests of the recorded session, in order, with their answers.
pub(crate) fn session() -> &'static [Ask] {
    static SESSION: OnceLock<Vec<Ask>> = OnceLock::new();
    SESSION.get_or_init(|| {
        let mut all: Vec<Ask> = Vec::new();
        let mut open: HashMap<i32, usize> = HashMap::new();
        // What was written to each stream of the controller's and of the agent's, and the pipes that joined them.
        let (mut written, mut fed) = (HashMap::<i32, Vec<u8>>::new(), HashMap::<i32, Vec<u8>>::new());
        let mut pipes = HashMap::new();
        for (to_agent, record) in records() {
            let graph = decode(record);
            let root = graph.root().unwrap();
            if root.is("hudson.remoting.Pipe$ConnectCommand") {
                pipes.insert(root.int("oidRos").unwrap(), root.int("oidPos").unwrap());
            }
            match Command::read(graph).unwrap() {
                Command::UserRequest { id, request, loader, .. } if to_agent => {
                    let label = asked_for(decode(request.clone()).root().unwrap());
                    open.insert(id, all.len());
                    all.push(Ask { label, request, loader, answer: None, written: Vec::new(), fed: Vec::new() });
                }
                Command::Response { id, answer, .. } if !to_agent => {
                    let Some(at) = open.remove(&id) else { continue };
                    all[at].answer = match answer {
                        Answered::Normal(bytes) => Some(Ok(bytes)),
                        Answered::Exception(text) => Some(Err(text)),
                        Answered::Value(_) => None,
                    };
                }
                Command::Stream { oid, op, .. } => {
                    let to = if to_agent { &mut fed } else { &mut written };
                    match op {
                        StreamOp::Write(bytes) => to.entry(oid).or_default().extend_from_slice(&bytes),
                        StreamOp::Chars(units) => {
                            to.entry(oid).or_default().extend(String::from_utf16_lossy(&units).bytes());
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        for ask in &mut all {
            let request = decode(ask.request.clone());
            let take = |from: &HashMap<i32, Vec<u8>>, oid| from.get(&oid).cloned().unwrap_or_default();
            for oid in written_oids(&request) {
                ask.written.push(take(&written, oid));
            }
            for (_, grant) in grants(&request, Capability::OURS) {
                if let Grant::PipeSource(ros) = grant
                    && let Some(pos) = pipes.get(&ros)
                {
                    ask.fed.push(take(&fed, *pos).into());
                }
            }
            if let Some(Ok(answer)) = &ask.answer
                && let Some((_, Grant::Output(oid))) = grants(&decode(answer.clone()), Capability::OURS).next()
            {
                ask.fed.push(take(&fed, oid).into());
            }
        }
        all
    })
}

/// The controller's output streams and writers that a request mentions, by the order of their ids.
fn written_oids(request: &Graph) -> Vec<i32> {
    let mut oids: Vec<i32> = grants(request, Capability::OURS)
        .filter(|(_, grant)| matches!(grant, Grant::Output(_) | Grant::Writer(_)))
        .map(|(_, grant)| oid_of(grant))
        .collect();
    oids.sort_unstable();
    oids
}

/// The class of a callable without its wrappers, or the name of a method.
fn asked_for(root: View<'_>) -> String {
    let method = root.string("methodName").ok().flatten();
    let inner = ["callable", "task"].iter().find_map(|field| root.get(field).ok().flatten());
    match (method, inner) {
        (Some(method), _) => method.into_owned(),
        (_, Some(inner)) if root.class_name().starts_with("hudson.FilePath$") => inner.class_name().into_owned(),
        _ => root.class_name().into_owned(),
    }
}

/// The `nth` request of the recorded session for this class (of a `FileCallable`, not its wrapper's) or method, and
/// what the Java agent answered; in both, the recorded agent's root directory becomes `root`.
pub(crate) fn recorded(what: &str, nth: usize, root: &Path) -> (Graph, Result<Graph, String>) {
    let found = session().iter().filter(|recorded| recorded.label == what).nth(nth);
    let found = found.unwrap_or_else(|| panic!("the session has no {nth}th {what}"));
    let decode = |bytes: &Bytes| rebase(Graph::decode(bytes.clone(), &Limits::default()).unwrap(), root);
    let answer = match found.answer.as_ref().unwrap_or_else(|| panic!("{what} {nth} was not answered")) {
        Ok(bytes) => Ok(decode(bytes)),
        Err(text) => Err(text.replace(RECORDED_ROOT, &root.to_string_lossy())),
    };
    (decode(&found.request), answer)
}

/// Number of requests of the recorded session for this class or method.
pub(crate) fn recorded_count(what: &str) -> usize {
    session().iter().filter(|recorded| recorded.label == what).count()
}

/// Replaces the recorded agent's root directory in all strings.
pub(crate) fn rebase(mut graph: Graph, root: &Path) -> Graph {
    let root = root.to_string_lossy();
    graph.map_strings(|text| text.contains(RECORDED_ROOT).then(|| text.replace(RECORDED_ROOT, &root)));
    graph
}

/// A graph as text to compare: the objects reachable from the root with class, `serialVersionUID` and fields, one line
/// each; without class loader annotations, and what Java's collections tell of their capacity.
pub(crate) fn outline(graph: &Graph) -> String {
    outline_with(graph, |_, _, _| true)
}

/// As [`outline`], with those fields that `keep` wants: by the class that declares them and their name.
pub(crate) fn outline_with(graph: &Graph, mut keep: impl FnMut(&str, &str, Value) -> bool) -> String {
    let Some(root) = graph.root() else { return "null\n".to_owned() };
    let mut lines = String::new();
    let mut seen: Vec<usize> = vec![root.id().index()];
    let mut at = 0;
    while let Some(&index) = seen.get(at) {
        let view = graph.view(graph.id_at(index).unwrap());
        let mut name = |target: Option<View<'_>>| match target {
            None => "null".to_owned(),
            Some(target) if matches!(target.node(), Node::String { .. }) => format!("{:?}", target.as_str().unwrap()),
            Some(target) => {
                let index = target.id().index();
                let known = seen.iter().position(|seen| *seen == index);
                let number = known.unwrap_or_else(|| {
                    seen.push(index);
                    seen.len() - 1
                });
                format!("#{number}")
            }
        };
        let uid = view.desc().and_then(|desc| graph.class(desc)).map_or(0, |class| class.uid);
        let mut line = format!("#{at} {} {uid}", view.class_name());
        let value = |value: Value, name: &mut dyn FnMut(Option<View<'_>>) -> String| match value {
            Value::Ref(id) => name(id.map(|id| graph.view(id))),
            value => format!("{value:?}"),
        };
        for (class, field, content) in view.fields() {
            if !["loadFactor", "threshold"].contains(&field.as_ref()) && keep(&graph.class_name(class), &field, content)
            {
                line += &format!(" {field}={}", value(content, &mut name));
            }
        }
        let id = view.annotation_bytes("org.eclipse.jgit.lib.ObjectId");
        id.iter().for_each(|byte| line += &format!("{byte:02x}"));
        if let Ok(entries) = view.map() {
            let mut entries: Vec<_> = entries.into_iter().map(|(k, v)| format!("{}: {}", name(k), name(v))).collect();
            entries.sort();
            line += &format!(" {{{}}}", entries.join(", "));
        } else if let Ok(items) = view.collection() {
            line += &format!(" [{}]", items.into_iter().map(&mut name).collect::<Vec<_>>().join(", "));
        } else if let Ok(items) = view.elements() {
            line += &format!(" [{}]", items.map(&mut name).collect::<Vec<_>>().join(", "));
        } else if let Ok(constant) = view.constant() {
            line += &format!(" {constant}");
        } else if let Node::Primitives { data, .. } = view.node() {
            line += &format!(" {}", graph.bytes(data).escape_ascii());
        } else if let Ok(text) = view.as_str() {
            line += &format!(" {text:?}");
        }
        lines += &line;
        lines.push('\n');
        at += 1;
    }
    lines
}

/// The first request of the recorded session for a callable.
pub(crate) fn request(callable: &str) -> Graph {
    decode(first(callable).request.clone())
}

/// What the Java agent answered to the first request for a callable.
pub(crate) fn answer(callable: &str) -> Graph {
    decode(first(callable).answer.clone().unwrap().unwrap())
}

fn first(callable: &str) -> &'static Ask {
    let found = session().iter().find(|ask| ask.label == callable);
    found.unwrap_or_else(|| panic!("no request for {callable} was recorded"))
}

/// What this agent answers to the first recorded request for a callable.
pub(crate) async fn replay(agent: &Arc<Agent>, callable: &str) -> Graph {
    let command = command::user_request(1, 0, CORE_LOADER, first(callable).request.clone(), callable);
    returned(execute(agent, command).await.root().unwrap())
}

/// What a response carries.
fn returned(response: View<'_>) -> Graph {
    let value = response.require("returnValue").unwrap();
    assert!(!value.is("hudson.remoting.UserRequest$ExceptionResponse"), "an exception: {value:?}");
    decode(value.require("response").unwrap().byte_array().unwrap())
}

/// What this agent answers to a callable that was not recorded: a graph that `build` adds it to. `Err` is the class of
/// an exception.
pub(crate) async fn ask(agent: &Arc<Agent>, build: impl FnOnce(&mut Graph) -> NodeId) -> Result<Graph, String> {
    let mut callable = Graph::default();
    let root = build(&mut callable);
    let mut graph = Graph::default();
    let request = graph.byte_array(callable.encode_one(Some(root)));
    let desc = graph.serializable("hudson.remoting.UserRequest", 1, &[("id", "I"), ("request", "[B")], None);
    let command = graph.object(desc).set("id", Value::Int(1)).set_ref("request", request).build();
    let response = execute(agent, graph.encode_one(Some(command))).await;
    let value = response.root().unwrap().require("returnValue").unwrap();
    if value.is("hudson.remoting.UserRequest$ExceptionResponse") {
        let exception = decode(value.require("rawResponse").unwrap().byte_array().unwrap());
        return Err(exception.root().unwrap().class_name().into_owned());
    }
    Ok(returned(response.root().unwrap()))
}

/// The response to a command, of a channel of its own.
async fn execute(agent: &Arc<Agent>, command: Bytes) -> Graph {
    let channel = Channel::new(Instant::now(), Capability::OURS, Liveness::default());
    let agent = agent.clone();
    let link = Link::new(channel, Box::new(move |incoming| dispatch(&agent, incoming)));
    link.receive(Instant::now(), command);
    let mut commands = Vec::new();
    loop {
        assert!(link.transmit(1, &mut commands).await, "{:?}", link.close_reason());
        for command in commands.drain(..) {
            let command = decode(command);
            if command.root().unwrap().is("hudson.remoting.Response") {
                return command;
            }
            // A class file that nobody has recorded.
            if let Ok(Command::Rpc { id, .. }) = Command::read(command) {
                let throw = Throw::io("no such class");
                link.receive(Instant::now(), command::plain_response(id, 0, Err(&throw)));
            }
        }
    }
}

fn is_default(value: Value) -> bool {
    matches!(value, Value::Ref(None) | Value::Bool(false) | Value::Int(0) | Value::Long(0))
}

/// One class of an object's hierarchy: name, UID, flags, and fields with their type codes.
type Level = (String, i64, u8, Vec<(String, u8)>);

fn levels(view: View<'_>) -> Vec<Level> {
    let graph = view.graph();
    let supers = std::iter::successors(view.desc(), |id: &NodeId| graph.class(*id)?.super_desc);
    let level = |id| {
        let class = graph.class(id).unwrap();
        let fields = class.fields.iter().map(|field| (graph.text(&field.name).into_owned(), field.code)).collect();
        (graph.class_name(id).into_owned(), class.uid, class.flags, fields)
    };
    supers.map(level).collect()
}

/// Asserts that an answer of ours can stand for a recorded one: the same classes with the same UIDs and flags, and the
/// same fields. A field that ours leaves out must have had its default value; one that ours has besides is in `extra`.
#[track_caller]
pub(crate) fn assert_same_shape(recorded: View<'_>, ours: View<'_>, extra: &[&str]) {
    let (expected, actual) = (levels(recorded), levels(ours));
    let head = |levels: &[Level]| levels.iter().map(|l| (l.0.clone(), l.1, l.2)).collect::<Vec<_>>();
    assert_eq!(head(&actual), head(&expected));
    for (expected, actual) in expected.iter().zip(&actual) {
        for field in &expected.3 {
            let left_out = !actual.3.contains(field);
            assert!(!left_out || is_default(recorded.field(&field.0).unwrap()), "{} lacks {field:?}", actual.0);
        }
        for field in &actual.3 {
            assert!(expected.3.contains(field) || extra.contains(&field.0.as_str()), "{} has {field:?}", actual.0);
        }
    }
    for (_, name, value) in ours.fields() {
        let both = (recorded.field(&name), value);
        if let (Some(Value::Ref(Some(theirs))), Value::Ref(value)) = both
            && name != "comparator"
        {
            let value = value.unwrap_or_else(|| panic!("{name} is null"));
            let (theirs, value) = (recorded.graph().view(theirs), ours.graph().view(value));
            assert_eq!(value.class_name(), theirs.class_name(), "{name}");
            if theirs.desc().is_some() {
                assert_same_shape(theirs, value, extra);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::controller::requests;

    #[test]
    fn an_unknown_callable_is_answered_by_its_name_and_gives_everything_back() {
        let harness = Harness::new();
        let error = harness.call(requests::unknown()).unwrap_err();
        assert!(error.starts_with("hudson.AbortException: "), "{error}");
        assert!(error.contains("com.example.plugins.exotic.CountUnicorns"), "{error}");
        harness.finish();
    }

    #[test]
    fn streams_that_an_unknown_callable_was_given_go_back() {
        let harness = Harness::new();
        let (request, _) =
            recorded("org.jenkinsci.plugins.gitclient.Git$GitAPIMasterToSlaveFileCallable", 0, "/x".as_ref());
        let _ = harness.replay(&request, &[]);
        harness.finish();
    }

    #[test]
    fn the_recorded_answer_of_a_simple_callable() {
        let harness = Harness::new();
        let (request, answer) = recorded("hudson.slaves.SlaveComputer$DetectOS", 0, "/x".as_ref());
        assert_eq!(harness.replay(&request, &[]).map(|graph| outline(&graph)), answer.map(|graph| outline(&graph)));
        harness.finish();
    }

    /// Whether it works or fails where its files are missing: each is answered, and all that it brought goes back.
    #[test]
    fn every_recorded_request_gives_everything_back() {
        let harness = Harness::new();
        let root = tempfile::tempdir().unwrap();
        let mut answered = 0;
        for request in session() {
            // Processes, and files in the system's temporary directory, would outlive the test.
            if ["hudson.Launcher$RemoteLaunchCallable", "hudson.FilePath$CreateTextTempFile"]
                .contains(&request.label.as_str())
            {
                continue;
            }
            let graph = Graph::decode(request.request.clone(), &Limits::default()).unwrap();
            let _ = harness.replay(&rebase(graph, root.path()), &[]);
            harness.end.collect_garbage();
            assert_eq!(harness.block_on(harness.end.settled()), [], "after {}", request.label);
            answered += 1;
        }
        assert!(answered > 300, "{answered}");
        harness.finish();
    }

    /// The stream of a request as the loopback controller sends it.
    fn sent(end: &End, request: Request) -> Graph {
        end.start(request);
        let command = Graph::decode(end.poll().unwrap(), &Limits::default()).unwrap();
        match Command::read(command).unwrap() {
            Command::UserRequest { request, loader: Some(_), .. } => {
                Graph::decode(request, &Limits::default()).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_loopback_controller_sends_what_a_real_one_sent() {
        let root = RECORDED_ROOT;
        let end = End::new(Capability::OURS);
        let seed = format!("{root}/workspace/seed");
        let control = format!("{seed}@tmp/durable-b99cfece");
        let script = "echo hello from agent; uname -a; pwd; ls -la";
        let package = "org.jenkinsci.plugins.durabletask";
        let monitoring = format!("{package}.FileMonitoringTask$FileMonitoringController");
        let mut pairs: Vec<(String, Request)> = vec![
            ("hudson.FilePath$Mkdirs".to_owned(), requests::mkdirs(&seed)),
            ("hudson.FilePath$Write".to_owned(), requests::write(&format!("{control}/script.sh"), script)),
            ("hudson.FilePath$IsDirectory".to_owned(), requests::is_directory(&seed)),
            ("hudson.FilePath$DeleteRecursive".to_owned(), requests::delete_recursive(&control)),
            ("hudson.tasks.ArtifactArchiver$ListFiles".to_owned(), requests::list_files(&seed, "bin/*")),
            (format!("{package}.BourneShellScript$GetAgentInfo"), requests::agent_info(root)),
            (format!("{monitoring}$StatusCheck"), requests::status_check(&format!("{control}/jenkins-result.txt"))),
            (format!("{monitoring}$TranscodingCharsetForSystemDefault"), requests::transcoding_charset()),
        ];
        let mut asked = requests::on_connect(root);
        asked.extend(requests::once_online(root, 1));
        // The recorded controller had no measurements yet, which this one asks the agent to echo.
        asked.retain(|(name, _)| *name != "Step2");
        for (name, request) in asked {
            let of_that_name = |recorded: &&Ask| recorded.label.ends_with(&format!("${name}"));
            let class = session().iter().find(of_that_name).unwrap_or_else(|| panic!("{name}")).label.clone();
            pairs.push((class, request));
        }
        for (class, request) in pairs {
            let (mut recorded, _) = recorded(&class, 0, root.as_ref());
            let request = sent(&end, request);
            if let Some(start) = ["start", "startTime"]
                .into_iter()
                .find(|name| recorded.root().is_some_and(|root| root.field(name).is_some()))
            {
                let id = recorded.root().unwrap().id();
                recorded.set_field(id, start, Value::Long(1));
            }
            // The control directory has a random name.
            let named = outline(&recorded).split_once("durable-").map(|(_, rest)| rest[..8].to_owned());
            let expected = outline(&recorded).replace(&named.unwrap_or_else(|| "-".repeat(9)), "b99cfece");
            assert_eq!(outline(&request), expected);
            let annotated = |graph: &Graph| introduced_loaders(graph).len();
            assert_eq!(annotated(&request), annotated(&recorded), "{class}");
        }
    }

    #[test]
    fn what_is_recorded_is_found_and_moved() {
        let (request, _) = recorded("hudson.FilePath$Mkdirs", 0, "/elsewhere".as_ref());
        assert!(outline(&request).contains("remote=\"/elsewhere/workspace/seed\""), "{}", outline(&request));
        assert!(recorded_count("hudson.FilePath$Mkdirs") > 10);
    }

    /// A callable comes with a reference to the class loader of its class.
    #[test]
    fn class_loaders_are_those_that_requests_came_with() {
        let mut checked = 0;
        for ask in session().iter().filter(|ask| !ask.label.starts_with("hudson.remoting.")) {
            let request = decode(ask.request.clone());
            let root = request.root().unwrap();
            if root.class_name().starts_with("hudson.remoting.") {
                continue;
            }
            let wrapped = root.is("hudson.FilePath$FileCallableWrapper");
            let callable = if wrapped { root.require("callable").unwrap() } else { root };
            assert_eq!(command::class_loader(callable), ask.loader, "{}", ask.label);
            checked += 1;
        }
        assert!(checked > 100, "{checked}");
    }
}
