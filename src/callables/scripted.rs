//! A controller for tests, that says what it is told to: requests go through the dispatcher and a channel as real ones
//! do, to real processes and files.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Agent, dispatch};
use crate::channel::command::{
    Answered, Command, MethodCall, StreamOp, plain_response, remote_output_stream, user_request,
};
use crate::channel::{Channel, Link, Liveness};
use crate::frame::Capability;
use crate::object::{Graph, Limits, Loader, NodeId, Value, View, sc};

/// A class loader of the controller's.
const LOADER: i32 = 2;

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// The controller.
pub(crate) struct Controller {
    pub(crate) link: Arc<Link>,
    next_id: i32,
    /// What the agent wrote to each stream.
    pub(crate) written: HashMap<i32, Vec<u8>>,
    /// The last pipe operation of the agent's.
    pub(crate) last_io: i32,
    /// The streams that the agent gave back or closed.
    pub(crate) released: Vec<i32>,
    /// Answers that nobody has waited for yet.
    answers: HashMap<i32, (i32, Answered)>,
    /// Calls of the agent's: id, and the stream of the `UserRPCRequest`.
    pub(crate) calls: Vec<(i32, Graph)>,
}

impl Controller {
    pub(crate) fn new() -> Controller {
        let channel = Channel::new(Instant::now(), Capability::OURS, Liveness::default());
        let agent = Arc::new(Agent::new(None, None, None));
        let link = Link::new(channel, Box::new(move |incoming| dispatch(&agent, incoming)));
        Controller {
            link,
            next_id: 0,
            written: HashMap::new(),
            last_io: 0,
            released: Vec::new(),
            answers: HashMap::new(),
            calls: Vec::new(),
        }
    }

    fn user(&mut self, request: Bytes) -> i32 {
        self.next_id += 1;
        let command = user_request(self.next_id, 0, LOADER, request, "test");
        self.link.receive(Instant::now(), command);
        self.next_id
    }

    /// Sends a callable, and gives the request's id.
    pub(crate) fn send(&mut self, build: impl FnOnce(&mut Graph) -> NodeId) -> i32 {
        let mut graph = Graph::with_loader(Loader::Receivers(LOADER));
        let root = build(&mut graph);
        self.user(graph.encode_one(Some(root)))
    }

    /// Sends a `FileCallable` for a path.
    pub(crate) fn send_file(&mut self, path: &Path, build: impl FnOnce(&mut Graph) -> NodeId) -> i32 {
        self.send(|graph| {
            let callable = build(graph);
            act(graph, path, callable)
        })
    }

    /// Calls a method without arguments of an object of the agent's.
    pub(crate) fn call(&mut self, oid: i32, method: &str) -> i32 {
        let call = MethodCall { oid, interface: "hudson.Launcher$RemoteProcess", method, types: &[] };
        let request = call.stream(Loader::Receivers(LOADER), |_| Vec::new());
        self.user(request)
    }

    /// Sends a command with these `int` fields, and for a chunk its bytes.
    pub(crate) fn command(&mut self, class: &str, ints: &[(&'static str, i32)], buf: Option<&[u8]>) {
        let mut graph = Graph::default();
        let buf = buf.map(|bytes| graph.byte_array(Bytes::copy_from_slice(bytes)));
        let fields = [("buf", buf)];
        let values: Vec<_> = ints.iter().map(|(name, value)| (*name, Value::Int(*value))).collect();
        let root = object(&mut graph, class, &fields[..usize::from(buf.is_some())], &values);
        self.link.receive(Instant::now(), graph.encode_one(Some(root)));
    }

    /// Answers a call of the agent's with null.
    pub(crate) fn return_null(&mut self, id: i32) {
        let answer = plain_response(id, 0, Ok(&|_: &mut Graph| None));
        self.link.receive(Instant::now(), answer);
    }

    /// Reads from a stream of the agent's until it ends.
    pub(crate) async fn read(&mut self, oid: i32) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            self.next_id += 1;
            let id = self.next_id;
            self.command("hudson.remoting.ProxyInputStream$Chunk", &[("id", id), ("oid", oid), ("len", 4096)], None);
            let Answered::Value(buffer) = self.answered(id).await.1 else { panic!("a buffer was expected") };
            let buffer = buffer.root().unwrap();
            let Ok(length) = usize::try_from(buffer.int("len").unwrap()) else { return all };
            all.extend_from_slice(&buffer.require("buf").unwrap().byte_array().unwrap()[..length]);
        }
    }

    /// Takes what the agent sends until `done`.
    pub(crate) async fn until(&mut self, mut done: impl FnMut(&Controller) -> bool) {
        let link = self.link.clone();
        let all = async {
            let mut batch = Vec::new();
            while !done(self) {
                assert!(link.transmit(1, &mut batch).await, "{:?}", link.close_reason());
                for command in batch.drain(..) {
                    self.take(command);
                }
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("the agent does not answer");
    }

    fn take(&mut self, command: Bytes) {
        match Command::read(Graph::decode(command, &Limits::default()).unwrap()).unwrap() {
            Command::Stream { oid, io_id, op } => {
                self.last_io = io_id;
                match op {
                    StreamOp::Write(bytes) => {
                        let size = i32::try_from(bytes.len()).unwrap();
                        self.written.entry(oid).or_default().extend_from_slice(&bytes);
                        self.command("hudson.remoting.ProxyOutputStream$Ack", &[("oid", oid), ("size", size)], None);
                    }
                    StreamOp::Close(_) | StreamOp::Release => self.released.push(oid),
                    StreamOp::Chars(_) | StreamOp::Flush => {}
                }
            }
            Command::Response { id, last_io, answer } => drop(self.answers.insert(id, (last_io, answer))),
            Command::UserRequest { id, request, .. } => {
                self.calls.push((id, Graph::decode(request, &Limits::default()).unwrap()));
            }
            _ => {}
        }
    }

    /// Waits for an answer: the pipe operation that it comes after, and what it says.
    pub(crate) async fn answered(&mut self, id: i32) -> (i32, Answered) {
        self.until(|controller| controller.answers.contains_key(&id)).await;
        self.answers.remove(&id).unwrap()
    }

    /// Waits for the value of an answer.
    pub(crate) async fn value(&mut self, id: i32) -> Graph {
        match self.answered(id).await.1 {
            Answered::Normal(bytes) => Graph::decode(bytes, &Limits::default()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for an answer that is an exception.
    pub(crate) async fn exception(&mut self, id: i32) -> String {
        match self.answered(id).await.1 {
            Answered::Exception(text) => text,
            other => panic!("{other:?}"),
        }
    }

    /// What was written to a stream.
    pub(crate) fn text(&self, oid: i32) -> String {
        self.written.get(&oid).map_or_else(String::new, |bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// An object with these references and other values.
pub(crate) fn object(
    graph: &mut Graph,
    class: &str,
    references: &[(&'static str, Option<NodeId>)],
    values: &[(&'static str, Value)],
) -> NodeId {
    let code = |value: &Value| match value {
        Value::Bool(_) => "Z",
        Value::Int(_) => "I",
        Value::Long(_) => "J",
        _ => unreachable!("not needed in tests"),
    };
    let fields: Vec<(&'static str, &str)> = references
        .iter()
        .map(|(name, _)| (*name, "Ljava/lang/Object;"))
        .chain(values.iter().map(|(name, value)| (*name, code(value))))
        .collect();
    let desc = graph.serializable(class, 1, &fields, None);
    let all = references.iter().map(|(name, id)| (*name, Value::Ref(*id))).chain(values.iter().copied());
    all.fold(graph.object(desc), |object, (name, value)| object.set(name, value)).build()
}

/// A `hudson.FilePath` on the agent.
pub(crate) fn file_path(graph: &mut Graph, path: &Path) -> NodeId {
    let remote = graph.string(path.to_str().unwrap());
    object(graph, "hudson.FilePath", &[("remote", Some(remote))], &[])
}

/// A `FileCallable` in its wrapper, as controllers since 2.319 send it.
pub(crate) fn act(graph: &mut Graph, path: &Path, callable: NodeId) -> NodeId {
    let file = file_path(graph, path);
    let fields = [("callable", Some(callable)), ("filePath", Some(file))];
    object(graph, "hudson.FilePath$FileCallableWrapper", &fields, &[])
}

/// A `StreamBuildListener` that writes to the controller's stream `oid`.
pub(crate) fn stream_listener(graph: &mut Graph, oid: i32) -> NodeId {
    let stream = remote_output_stream(graph, oid);
    let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
    let desc = graph.class_desc("hudson.util.StreamTaskListener", 1, flags, &[], None);
    let build = graph.serializable("hudson.model.StreamBuildListener", 1, &[], Some(desc));
    let charset = graph.string("UTF-8");
    let contents = vec![crate::object::Content::Object(Some(stream)), crate::object::Content::Object(Some(charset))];
    graph.object(build).annotate(desc, contents).build()
}

/// The id of the exported object behind a proxy.
pub(crate) fn proxied(graph: &Graph) -> i32 {
    graph.root().unwrap().require("h").unwrap().int("oid").unwrap()
}

/// The id of a stream of the agent's.
pub(crate) fn stream_id(stream: View<'_>) -> i32 {
    let bytes = stream.annotation_bytes(&stream.class_name());
    i32::from_be_bytes(bytes[bytes.len() - 4..].try_into().unwrap())
}
