//! The recorded session, for tests: what a controller asked, and what the Java agent answered.

use std::io::Read;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;

use super::{Agent, Throw, dispatch};
use crate::channel::command::{Command, class_loader, plain_response};
use crate::channel::{Channel, Link, Liveness};
use crate::frame::Capability;
use crate::object::{Graph, Limits, NodeId, Value, View};

/// The commands of the session: direction (1 = to the agent) and bytes.
static SESSION: LazyLock<Vec<(u8, Bytes)>> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/session.bin.gz");
    let mut session = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut session).unwrap();
    let mut session = Bytes::from(session);
    let mut records = Vec::new();
    while !session.is_empty() {
        let head = session.split_to(5);
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        records.push((head[0], session.split_to(length)));
    }
    records
});

fn decode(bytes: Bytes) -> Graph {
    Graph::decode(bytes, &Limits::default()).unwrap()
}

/// The commands of this class in one direction.
fn commands(direction: u8, class: &'static str) -> impl Iterator<Item = Graph> {
    // Header, type codes and the length of the name come before the name of the first class.
    let is_it = move |record: &Bytes| record.get(8..).is_some_and(|rest| rest.starts_with(class.as_bytes()));
    let records = SESSION.iter().filter(move |(way, record)| *way == direction && is_it(record));
    records.map(|(_, record)| decode(record.clone())).filter(move |graph| graph.root().unwrap().is(class))
}

/// The first request for a callable as it was sent, and the request's own graph. A `FileCallable` goes by its own name,
/// and the graph's root is its wrapper.
fn find(callable: &str) -> (Graph, Graph) {
    let mut requests = commands(1, "hudson.remoting.UserRequest").filter_map(|command| {
        let bytes = command.root().unwrap().require("request").unwrap().byte_array().unwrap();
        let request = decode(bytes);
        let root = request.root().unwrap();
        let holds = |name: &str| root.get(name).ok().flatten().is_some_and(|view| view.is(callable));
        let is_it = root.is(callable) || holds("callable") || holds("task");
        is_it.then_some((command, request))
    });
    requests.next().unwrap_or_else(|| panic!("no request for {callable} was recorded"))
}

/// The first request for a callable.
pub(crate) fn request(callable: &str) -> Graph {
    find(callable).1
}

/// What a response carries, as the Java agent wrote it or as this one does.
fn returned(response: View<'_>) -> Graph {
    let value = response.require("returnValue").unwrap();
    if value.is("hudson.remoting.UserRequest$ExceptionResponse") || value.bool("isException").unwrap() {
        panic!("an exception: {value:?}");
    }
    decode(value.require("response").unwrap().byte_array().unwrap())
}

/// What the Java agent answered to the first request for a callable.
pub(crate) fn answer(callable: &str) -> Graph {
    let id = find(callable).0.root().unwrap().int("id").unwrap();
    let mut responses = commands(0, "hudson.remoting.Response");
    let response = responses.find(|response| response.root().unwrap().int("id").unwrap() == id).unwrap();
    returned(response.root().unwrap())
}

/// What this agent answers to the first recorded request for a callable.
pub(crate) async fn replay(agent: &Arc<Agent>, callable: &str) -> Graph {
    returned(execute(agent, find(callable).0.encode().into()).await.root().unwrap())
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
                link.receive(Instant::now(), plain_response(id, 0, Err(&throw)));
            }
        }
    }
}

/// All requests for callables whose name is wanted, in order, with what the Java agent answered: an object or null, or
/// the exception that it threw. A `FileCallable` goes by its own name.
pub(crate) fn exchanges(wanted: impl Fn(&str) -> bool) -> Vec<(String, Graph, Result<Graph, Graph>)> {
    let mut answers = std::collections::HashMap::new();
    for response in commands(0, "hudson.remoting.Response") {
        let response = response.root().unwrap();
        if let Some(value) = response.get("returnValue").unwrap().filter(|value| value.field("response").is_some()) {
            let stream = decode(value.require("response").unwrap().byte_array().unwrap());
            let answer = if value.bool("isException").unwrap() { Err(stream) } else { Ok(stream) };
            answers.insert(response.int("id").unwrap(), answer);
        }
    }
    let mut exchanges = Vec::new();
    for command in commands(1, "hudson.remoting.UserRequest") {
        let command = command.root().unwrap();
        let request = decode(command.require("request").unwrap().byte_array().unwrap());
        let root = request.root().unwrap();
        let inner = ["callable", "task"].into_iter().find_map(|name| root.get(name).ok().flatten());
        let class = inner.unwrap_or(root).class_name().into_owned();
        // Some were sent when the recording ended.
        if let Some(answer) = answers.remove(&command.int("id").unwrap())
            && wanted(&class)
        {
            exchanges.push((class, request, answer));
        }
    }
    exchanges
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

/// A callable comes with a reference to the class loader of its class.
#[test]
fn class_loaders_are_those_that_requests_came_with() {
    let mut checked = 0;
    for command in commands(1, "hudson.remoting.UserRequest") {
        let command = command.root().unwrap();
        let request = decode(command.require("request").unwrap().byte_array().unwrap());
        let root = request.root().unwrap();
        let callable =
            if root.is("hudson.FilePath$FileCallableWrapper") { root.require("callable").unwrap() } else { root };
        let handler = command.require("classLoaderProxy").unwrap().require("h").unwrap();
        if callable.class_name().starts_with("hudson.remoting.") {
            continue;
        }
        assert_eq!(class_loader(callable), Some(handler.int("oid").unwrap()), "{}", callable.class_name());
        checked += 1;
    }
    assert!(checked > 100, "{checked}");
}
