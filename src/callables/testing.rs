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

use super::{Agent, dispatch};
use crate::channel::command::{Answered, Command, Grant, introduced_loaders};
use crate::channel::{Channel, Link, Liveness};
use crate::demo::controller::end::{CORE_LOADER, CallError, Collected, End, Kind, grants};
use crate::demo::controller::requests::Request;
use crate::frame::Capability;
use crate::object::{Graph, Limits, Node, Value, View};

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
        let mut oids: Vec<i32> = grants(request, Capability::OURS)
            .filter(|(_, grant)| matches!(grant, Grant::Output(_) | Grant::Writer(_)))
            .map(|(_, grant)| oid_of(grant))
            .collect();
        oids.sort_unstable();
        oids.into_iter().map(|oid| self.end.collected(oid)).collect()
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

fn oid_of(grant: Grant) -> i32 {
    match grant {
        Grant::Output(oid) | Grant::Writer(oid) | Grant::PipeSource(oid) | Grant::Input(oid) | Grant::Proxy(oid) => oid,
    }
}

struct Recorded {
    class: String,
    request: Bytes,
    answer: Option<Result<Bytes, String>>,
}

/// All requests of the recorded session, in order, with their answers.
fn session() -> &'static [Recorded] {
    static SESSION: OnceLock<Vec<Recorded>> = OnceLock::new();
    SESSION.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/session.bin.gz");
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
        let mut bytes = Bytes::from(bytes);
        let mut all: Vec<Recorded> = Vec::new();
        let mut open: HashMap<i32, usize> = HashMap::new();
        while !bytes.is_empty() {
            let head = bytes.split_to(5);
            let record = bytes.split_to(u32::from_be_bytes(head[1..].try_into().unwrap()) as usize);
            let to_agent = head[0] == 1;
            let graph = Graph::decode(record, &Limits::default()).unwrap();
            match Command::read(graph).unwrap() {
                Command::UserRequest { id, request, .. } if to_agent => {
                    let graph = Graph::decode(request.clone(), &Limits::default()).unwrap();
                    open.insert(id, all.len());
                    all.push(Recorded { class: asked_for(graph.root().unwrap()), request, answer: None });
                }
                Command::Response { id, answer, .. } if !to_agent => {
                    let Some(at) = open.remove(&id) else { continue };
                    all[at].answer = match answer {
                        Answered::Normal(bytes) => Some(Ok(bytes)),
                        Answered::Exception(text) => Some(Err(text)),
                        Answered::Value(_) => None,
                    };
                }
                _ => {}
            }
        }
        all
    })
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
    let found = session().iter().filter(|recorded| recorded.class == what).nth(nth);
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
    session().iter().filter(|recorded| recorded.class == what).count()
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
        for (_, field, content) in view.fields() {
            if !["loadFactor", "threshold"].contains(&field.as_ref()) {
                line += &format!(" {field}={}", value(content, &mut name));
            }
        }
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
                .contains(&request.class.as_str())
            {
                continue;
            }
            let graph = Graph::decode(request.request.clone(), &Limits::default()).unwrap();
            let _ = harness.replay(&rebase(graph, root.path()), &[]);
            harness.end.collect_garbage();
            assert_eq!(harness.block_on(harness.end.settled()), [], "after {}", request.class);
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
            let of_that_name = |recorded: &&Recorded| recorded.class.ends_with(&format!("${name}"));
            let class = session().iter().find(of_that_name).unwrap_or_else(|| panic!("{name}")).class.clone();
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
}
