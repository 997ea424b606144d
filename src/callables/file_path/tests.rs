//! Requests as a controller sends them, recorded and made, over a channel, against real files.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::callables::{Agent, TABLES, dispatch, recorded};
use crate::channel::command::{Answered, Command, StreamKind, StreamOp, ack, chunk, eof, user_request};
use crate::channel::{Channel, Link, Liveness, remote_output_stream};
use crate::files::testing::tree;
use crate::frame::Capability;
use crate::object::{Content, Data, Graph, Limits, Loader, NodeId, Value, sc};

/// Where the recorded agent lived.
const RECORDED_ROOT: &[u8] = b"/home/jenkins/agent";

fn decode(bytes: Bytes) -> Graph {
    Graph::decode(bytes, &Limits::default()).unwrap()
}

/// A controller, as far as an agent can tell.
struct Controller {
    link: Arc<Link>,
    next_id: i32,
    next_io: i32,
}

/// What came of a request.
#[derive(Debug)]
struct Answer {
    /// The object or null, or the exception's own words.
    result: Result<Graph, String>,
    /// What was written to each of the controller's streams.
    written: HashMap<i32, Vec<u8>>,
    /// How each was closed, if it was.
    closed: HashMap<i32, Option<String>>,
    /// Commands that wrote.
    writes: usize,
    /// What the controller must have done before it looks at the answer.
    last_io: i32,
    /// The pipe operation that was sent last.
    sent_io: i32,
}

impl Controller {
    fn new(version: Option<&str>) -> Controller {
        let agent = Arc::new(Agent::new(None, None, version.map(str::to_owned)));
        let channel = Channel::new(Instant::now().into(), Capability::OURS, Liveness::default());
        let link = Link::new(channel, Box::new(move |incoming| dispatch(&agent, incoming)));
        Controller { link, next_id: 0, next_io: 0 }
    }

    fn receive(&self, command: Bytes) {
        self.link.receive(Instant::now().into(), command);
    }

    /// Writes to a stream of the agent's and closes it.
    fn feed(&mut self, oid: i32, contents: &Bytes) {
        for at in (0..contents.len()).step_by(8192) {
            self.next_io += 1;
            self.receive(chunk(oid, self.next_io, contents.slice(at..contents.len().min(at + 8192))));
        }
        self.next_io += 1;
        self.receive(eof(StreamKind::Bytes, oid, self.next_io, None));
    }

    /// Sends a request, plays the part of the streams in it, and waits for the answer. `input` goes through the pipe
    /// that the request has.
    async fn ask(&mut self, request: Bytes, input: Option<Bytes>) -> Answer {
        self.next_id += 1;
        self.receive(user_request(self.next_id, self.next_io, 1, request, "a test"));
        let mut answer = Answer {
            result: Err("unanswered".to_owned()),
            written: HashMap::new(),
            closed: HashMap::new(),
            writes: 0,
            last_io: 0,
            sent_io: 0,
        };
        loop {
            let mut batch = Vec::new();
            let more = tokio::time::timeout(Duration::from_secs(20), self.link.transmit(1 << 20, &mut batch)).await;
            assert!(more.expect("the agent answers in time"));
            for command in batch {
                let graph = decode(command.clone());
                let root = graph.root().unwrap();
                if root.is("hudson.remoting.Pipe$ConnectCommand") {
                    self.feed(root.int("oidPos").unwrap(), input.as_ref().expect("a request with input"));
                }
                match Command::read(decode(command)).unwrap() {
                    Command::Stream { oid, io_id, op } => {
                        if !matches!(op, StreamOp::Release) {
                            answer.sent_io = io_id;
                        }
                        match op {
                            StreamOp::Write(bytes) => {
                                answer.writes += 1;
                                answer.written.entry(oid).or_default().extend_from_slice(&bytes);
                                self.receive(ack(StreamKind::Bytes, oid, bytes.len() as i32));
                            }
                            StreamOp::Close(error) => assert_eq!(answer.closed.insert(oid, error), None),
                            _ => {}
                        }
                    }
                    Command::Response { id, last_io, answer: answered } if id == self.next_id => {
                        answer.last_io = last_io;
                        answer.result = match answered {
                            Answered::Normal(bytes) => Ok(decode(bytes)),
                            Answered::Exception(text) => Err(text),
                            Answered::Value(_) => panic!("a bare value"),
                        };
                        return answer;
                    }
                    _ => {}
                }
            }
        }
    }
}

impl Answer {
    fn object(&self) -> &Graph {
        self.result.as_ref().unwrap()
    }

    fn is_null(&self) -> bool {
        self.object().root().is_none()
    }

    fn value(&self) -> Value {
        self.object().root().unwrap().unboxed().unwrap()
    }

    fn text(&self) -> String {
        self.object().root().unwrap().as_str().unwrap().into_owned()
    }
}

/// What a made request's fields hold.
enum Is<'a> {
    Null,
    Text(&'a str),
    Bool(bool),
    Int(i32),
    Long(i64),
    /// A `FilePath`.
    Path(&'a Path),
    /// A constant of an enum.
    Constant(&'a str, &'a str),
    /// An array of such constants.
    Options(&'a [(&'a str, &'a str)]),
    /// A `RemoteOutputStream`.
    Out(i32),
    /// A `Pipe` that the agent writes to.
    PipeOut(i32),
    /// A `Pipe` that the agent reads from.
    PipeIn(i32),
    /// A greedy `RemoteInputStream`.
    In(i32),
    /// Another object.
    Object(&'a str, &'a [(&'static str, Is<'a>)]),
    /// A map of strings.
    Map(&'a [(&'a str, &'a str)]),
    /// A list.
    List(&'a [Is<'a>]),
}

fn block(bytes: Vec<u8>) -> Content {
    Content::Block { data: Data::Owned(bytes.into()), long: false }
}

fn pipe(graph: &mut Graph, out: bool, oid: i32) -> NodeId {
    let desc = graph.class_desc("hudson.remoting.Pipe", 1, sc::SERIALIZABLE | sc::WRITE_METHOD, &[], None);
    let mut bytes = vec![u8::from(out)];
    bytes.extend(oid.to_be_bytes());
    graph.object(desc).annotate_bytes(desc, bytes).build()
}

fn object(graph: &mut Graph, class: &str, fields: &[(&'static str, Is<'_>)]) -> NodeId {
    let values: Vec<(&'static str, Value)> = fields.iter().map(|(name, is)| (*name, is.build(graph))).collect();
    let signature = |value: &Value| match value {
        Value::Bool(_) => "Z",
        Value::Int(_) => "I",
        Value::Long(_) => "J",
        _ => "Ljava/lang/Object;",
    };
    let declared: Vec<_> = values.iter().map(|(name, value)| (*name, signature(value))).collect();
    let desc = graph.serializable(class, 1, &declared, None);
    values.into_iter().fold(graph.object(desc), |object, (name, value)| object.set(name, value)).build()
}

impl Is<'_> {
    fn build(&self, graph: &mut Graph) -> Value {
        let node = match self {
            Is::Null => return Value::Ref(None),
            Is::Bool(value) => return Value::Bool(*value),
            Is::Int(value) => return Value::Int(*value),
            Is::Long(value) => return Value::Long(*value),
            Is::Text(text) => graph.string(text),
            Is::Path(path) => super::types::build_file_path(graph, path),
            Is::Constant(class, constant) => graph.enum_constant(class, constant),
            Is::Options(options) => {
                let options: Vec<_> =
                    options.iter().map(|(class, constant)| Some(graph.enum_constant(class, constant))).collect();
                graph.array("[Ljava.nio.file.OpenOption;", 0, &options)
            }
            Is::Out(oid) => remote_output_stream(graph, *oid),
            Is::PipeOut(oid) => pipe(graph, true, *oid),
            Is::PipeIn(oid) => pipe(graph, false, *oid),
            Is::In(oid) => {
                let pipe = pipe(graph, false, *oid);
                let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
                let desc = graph.class_desc("hudson.remoting.RemoteInputStream", 1, flags, &[], None);
                graph.object(desc).annotate(desc, vec![block(vec![1]), Content::Object(Some(pipe))]).build()
            }
            Is::Object(class, fields) => object(graph, class, fields),
            Is::Map(entries) => {
                let entries: Vec<_> =
                    entries.iter().map(|(key, value)| (Some(graph.string(key)), Some(graph.string(value)))).collect();
                graph.hash_map(&entries)
            }
            Is::List(items) => {
                let items: Vec<_> = items
                    .iter()
                    .map(|item| match item.build(graph) {
                        Value::Ref(id) => id,
                        _ => panic!("a list holds objects"),
                    })
                    .collect();
                graph.array_list(&items)
            }
        };
        Value::Ref(Some(node))
    }
}

/// A `FileCallable` in its wrapper, as controllers since 2.319 send it.
fn act(path: &Path, class: &str, fields: &[(&'static str, Is<'_>)]) -> Bytes {
    let mut graph = Graph::with_loader(Loader::Receivers(1));
    let wrapper = [("callable", Is::Object(class, fields)), ("filePath", Is::Path(path))];
    let root = object(&mut graph, "hudson.FilePath$FileCallableWrapper", &wrapper);
    graph.encode_one(Some(root))
}

const GZIP: Is<'_> = Is::Constant("hudson.FilePath$TarCompression", "GZIP");
const NONE: Is<'_> = Is::Constant("hudson.FilePath$TarCompression", "NONE");
const NOFOLLOW: (&str, &str) = ("java.nio.file.LinkOption", "NOFOLLOW_LINKS");
const NO_TMP: (&str, &str) = ("hudson.FilePath$DisplayOption", "IGNORE_TMP_DIRS");

fn listing(dir: &Path) -> Vec<(String, String)> {
    let everything = crate::files::glob::Options { default_excludes: false, ..Default::default() };
    let names = crate::files::glob::Glob::new("**", None, everything).list(dir, &|| false).unwrap();
    let read = |name: &std::path::PathBuf| String::from_utf8_lossy(&fs::read(dir.join(name)).unwrap()).into_owned();
    names.iter().map(|name| (name.to_string_lossy().into_owned(), read(name))).collect()
}

/// A directory whose path is as long as [`RECORDED_ROOT`], so that it can take its place in a recorded stream.
fn recorded_root() -> TempDir {
    let dir = tempfile::Builder::new().prefix("").rand_bytes(RECORDED_ROOT.len() - 5).tempdir_in("/tmp").unwrap();
    assert_eq!(dir.path().as_os_str().len(), RECORDED_ROOT.len());
    dir
}

fn rebase(bytes: &[u8], from: &[u8], to: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    let hits: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, window)| *window == from).map(|(at, _)| at).collect();
    for at in hits {
        bytes[at..at + from.len()].copy_from_slice(to);
    }
    bytes.into()
}

#[tokio::test]
async fn the_recorded_session_is_answered_as_the_java_agent_did() {
    let ours = |class: &str| {
        let tables = [super::ENTRIES, crate::callables::archiver::ENTRIES];
        tables.iter().any(|table| table.iter().any(|entry| entry.class == class))
    };
    let root = recorded_root();
    let root_bytes = root.path().as_os_str().as_encoded_bytes();
    let mut controller = Controller::new(Some("2.293"));
    let mut compared = HashMap::<String, usize>::new();
    for (class, request, expected) in recorded::exchanges(ours) {
        let request = rebase(&request.encode(), RECORDED_ROOT, root_bytes);
        let answer = controller.ask(request, Some(Bytes::new())).await;
        match (&answer.result, &expected) {
            (Ok(ours), Ok(expected)) => match (ours.root(), expected.root()) {
                (Some(ours), Some(expected)) => recorded::assert_same_shape(expected, ours, &["urlFactory"]),
                (ours, expected) => assert_eq!(ours.is_some(), expected.is_some(), "{class}"),
            },
            (ours, expected) => eprintln!("{class}: {:?} {:?}", ours.as_ref().err(), expected.as_ref().err().map(|e| e.root().unwrap().string("detailMessage").unwrap().map(|t| t.into_owned()))),
        }
        *compared.entry(class).or_default() += 1;
    }
    eprintln!("{compared:?}");
}
