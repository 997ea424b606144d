//! The channel against a controller that is slow, late, odd or hostile.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::command::{self, Answered, Command, StreamKind, StreamOp};
use super::link::{Link, PipeReader};
use super::state::{
    Channel, CloseReason, Event, Liveness, MAX_PENDING_IO, MAX_REQUESTS, MAX_WARNINGS, WARNING_PERIOD, WINDOW,
};
use super::{Caller, Throw};
use crate::frame::Capability;
use crate::object::{Graph, Limits, Loader, Node, NodeId, Value, sc};

const LOADER: i32 = 7;

fn channel() -> Channel {
    Channel::new(Instant::now(), Capability::OURS, Liveness::default())
}

fn take(channel: &mut Channel, command: Bytes) {
    channel.handle_command(Instant::now(), command);
}

fn events(channel: &mut Channel) -> Vec<Event> {
    std::iter::from_fn(|| channel.poll_event()).collect()
}

fn graph(bytes: Bytes) -> Graph {
    Graph::decode(bytes, &Limits::default()).unwrap()
}

fn sent(channel: &mut Channel) -> Vec<Command> {
    std::iter::from_fn(|| channel.poll_transmit()).map(|bytes| Command::read(graph(bytes)).unwrap()).collect()
}

/// A callable with nothing in it.
fn callable(class: &str) -> Bytes {
    let mut graph = Graph::with_loader(Loader::Receivers(0));
    let desc = graph.serializable(class, 1, &[], None);
    let object = graph.object(desc).build();
    graph.encode_one(Some(object))
}

fn request(id: i32, last_io: i32) -> Bytes {
    command::user_request(id, last_io, LOADER, callable("a.Callable"), "")
}

/// A bare method call with these arguments.
fn rpc(id: i32, arguments: impl FnOnce(&mut Graph) -> Vec<Option<NodeId>>) -> Bytes {
    let mut graph = Graph::default();
    let fields = [("arguments", "[Ljava/lang/Object;"), ("id", "I")];
    let desc = graph.serializable("hudson.remoting.RemoteInvocationHandler$RPCRequest", 1, &fields, None);
    let arguments = arguments(&mut graph);
    let arguments = graph.array("[Ljava.lang.Object;", 1, &arguments);
    let object = graph.object(desc).set("id", Value::Int(id)).set_ref("arguments", arguments).build();
    graph.encode_one(Some(object))
}

#[test]
fn reads_count_as_requests() {
    let mut channel = channel();
    for id in 0..MAX_REQUESTS as i32 + 5 {
        take(&mut channel, command::read(id, 99, i32::MAX));
    }
    assert_eq!(events(&mut channel).len(), MAX_REQUESTS);
    let refused = sent(&mut channel);
    assert_eq!(refused.len(), 5);
    assert!(
        matches!(&refused[0], Command::Response { id: 2000, answer: Answered::Exception(text), .. } if text.contains("2000"))
    );
}

#[test]
fn an_id_is_not_used_twice_at_a_time() {
    let mut channel = channel();
    take(&mut channel, request(1, 0));
    channel.respond_user(1, Loader::None, Ok(Bytes::new()));
    take(&mut channel, request(1, 0));
    assert_eq!(events(&mut channel).len(), 2);
    take(&mut channel, command::read(1, 99, 1));
    assert!(matches!(&events(&mut channel)[..], [Event::Warning(_)]));
}

#[test]
fn what_a_bare_request_brings_goes_back_once() {
    let mut channel = channel();
    take(&mut channel, rpc(3, |graph| vec![Some(command::remote_output_stream(graph, 42))]));
    assert!(matches!(&events(&mut channel)[..], [Event::Request { id: 3, bare: true, .. }]));
    channel.respond_plain(3, Ok(&|_| None));
    channel.respond_plain(3, Ok(&|_| None));
    let sent = sent(&mut channel);
    assert!(
        matches!(&sent[..], [Command::Stream { oid: 42, op: StreamOp::Release, .. }, Command::Response { id: 3, .. }]),
        "{sent:?}"
    );
}

#[test]
fn a_refused_bare_request_is_answered_in_its_own_shape() {
    let mut channel = channel();
    for id in 0..MAX_REQUESTS as i32 {
        take(&mut channel, command::read(id, 99, 1));
    }
    take(&mut channel, rpc(5_000, |_| Vec::new()));
    let answer = channel.poll_transmit().unwrap();
    let answer = graph(answer);
    assert!(answer.root().unwrap().get("exception").unwrap().is_some());
    assert!(answer.root().unwrap().get("returnValue").unwrap().is_none());
}

#[test]
fn exceptions_of_refused_requests_are_annotated() {
    let mut channel = channel();
    take(&mut channel, command::user_request(1, 0, LOADER, Bytes::from_static(b"\xac\xed\0\x05s"), ""));
    let response = graph(channel.poll_transmit().unwrap());
    let raw = response.root().unwrap().require("returnValue").unwrap().require("rawResponse").unwrap();
    let raw = graph(raw.byte_array().unwrap());
    for node in raw.nodes() {
        if let Node::ClassDesc(desc) = node {
            // MultiClassLoaderSerializer.Input reads an int for each class.
            assert_eq!(desc.annotation.len(), 1, "{}", raw.text(&desc.name));
        }
    }
    // The class loader that came first stays referenced, whatever came with it.
    assert_eq!(channel.home_loader(), Some(LOADER));
    assert!(sent(&mut channel).is_empty());
}

#[test]
fn a_request_that_waits_can_be_cancelled() {
    let mut channel = channel();
    let oid = channel.export();
    channel.add_reference(oid);
    take(&mut channel, command::chunk(oid, 5, Bytes::from_static(b"x")));
    take(&mut channel, request(1, 5));
    take(&mut channel, command::cancel(1));
    take(&mut channel, command::cancel(1));
    assert!(matches!(&events(&mut channel)[..], [Event::Stream { .. }]));
    channel.io_done(5);
    assert!(matches!(&events(&mut channel)[..], [Event::Request { id: 1, .. }, Event::Cancel { id: 1 }]));
}

#[test]
fn an_answer_that_waits_is_not_lost_at_the_end() {
    let mut channel = channel();
    let oid = channel.export();
    channel.add_reference(oid);
    let id = channel.call_read(9, 10).unwrap();
    take(&mut channel, command::chunk(oid, 5, Bytes::from_static(b"x")));
    take(&mut channel, command::plain_response(id, 5, Ok(&|_| None)));
    channel.lost("gone");
    let events = events(&mut channel);
    assert!(matches!(&events[1..], [Event::Answer { result: Ok(_), .. }, Event::Closed(_)]), "{events:?}");
}

#[test]
fn an_answer_that_cannot_be_read_is_an_answer() {
    let mut channel = channel();
    let id = channel.call_read(9, 10).unwrap();
    let mut odd = Graph::default();
    let inner = odd.serializable("hudson.remoting.UserRequest$NormalResponse", 1, &[("response", "I")], None);
    let desc =
        odd.serializable("hudson.remoting.Response", 1, &[("id", "I"), ("returnValue", "Ljava/lang/Object;")], None);
    let value = odd.object(inner).build();
    let object = odd.object(desc).set("id", Value::Int(id)).set_ref("returnValue", value).build();
    take(&mut channel, odd.encode_one(Some(object)));
    assert!(matches!(&events(&mut channel)[..], [Event::Answer { result: Err(_), .. }]));
}

#[test]
fn nothing_is_begun_that_cannot_be_answered() {
    let mut channel = channel();
    channel.close(Instant::now());
    take(&mut channel, request(1, 0));
    take(&mut channel, command::read(2, 1 << 30, 10));
    assert!(events(&mut channel).is_empty());
    take(&mut channel, command::close());
    assert!(matches!(&events(&mut channel)[..], [Event::Closed(CloseReason::ByUs)]));
}

#[test]
fn warnings_are_few_and_of_one_line() {
    let mut channel = channel();
    let start = Instant::now();
    let odd = callable("a.B\nINFO: all is well\u{1b}[2J");
    for _ in 0..1_000 {
        channel.handle_command(start, odd.clone());
    }
    let warned = events(&mut channel);
    assert_eq!(warned.len(), MAX_WARNINGS as usize);
    let Event::Warning(text) = &warned[0] else { panic!("{warned:?}") };
    assert!(text.contains(r"a.B\nINFO") && !text.contains(char::is_control), "{text}");
    channel.handle_command(start + 2 * WARNING_PERIOD, odd);
    let warned = events(&mut channel);
    assert!(matches!(&warned[..], [Event::Warning(text), Event::Warning(_)] if text.contains("990")), "{warned:?}");
}

#[test]
fn operations_that_no_window_counts_are_bounded() {
    let mut channel = channel();
    let oid = channel.export();
    channel.add_reference(oid);
    for _ in 0..MAX_PENDING_IO {
        channel.stream(oid, 1, StreamOp::Flush);
        assert!(matches!(channel.poll_event(), Some(Event::Stream { .. })));
    }
    channel.stream(oid, 1, StreamOp::Flush);
    let last = channel.poll_event();
    assert!(matches!(last, Some(Event::Closed(CloseReason::Violation(_)))), "{last:?}");
}

// ---- shared by threads ----------------------------------------------------------------------------------------------

/// A link, and the callers of its requests.
fn link() -> (Arc<Link>, mpsc::Receiver<(Arc<Caller>, Graph)>) {
    let (requests, incoming) = mpsc::channel();
    let link =
        Link::new(channel(), Box::new(move |incoming| requests.send((incoming.caller, incoming.graph)).unwrap()));
    (link, incoming)
}

/// A request with a pipe that the controller writes to.
fn pipe() -> (Arc<Link>, Arc<Caller>, PipeReader, i32) {
    let (link, incoming) = link();
    let mut graph = Graph::with_loader(Loader::Receivers(0));
    let desc = graph.class_desc("hudson.remoting.Pipe", 1, sc::SERIALIZABLE | sc::WRITE_METHOD, &[], None);
    let pipe = graph.object(desc).annotate_bytes(desc, vec![0, 0, 0, 0, 5]).build();
    link.receive(Instant::now(), command::user_request(1, 0, LOADER, graph.encode_one(Some(pipe)), ""));
    let (caller, graph) = incoming.recv().unwrap();
    let reader = caller.pipe_reader(graph.root().unwrap()).unwrap();
    (link, caller, reader, 1 << 30)
}

#[test]
fn an_empty_write_is_not_the_end_of_a_pipe() {
    let (link, _caller, mut reader, oid) = pipe();
    for bytes in [&b""[..], b"ab", b"", b"c"] {
        link.receive(Instant::now(), command::chunk(oid, 1, Bytes::copy_from_slice(bytes)));
    }
    link.receive(Instant::now(), command::eof(StreamKind::Bytes, oid, 2, None));
    let mut all = String::new();
    reader.read_to_string(&mut all).unwrap();
    assert_eq!(all, "abc");
}

#[test]
fn small_and_large_writes_to_a_pipe_keep_their_order() {
    let (link, _caller, mut reader, oid) = pipe();
    let mut expected = Vec::new();
    for (number, size) in [1, 1, 5_000, 1_023, 1_024, 3, 100_000, 2].into_iter().chain([700; 200]).enumerate() {
        let bytes = vec![number as u8; size];
        expected.extend_from_slice(&bytes);
        link.receive(Instant::now(), command::chunk(oid, 1, bytes.into()));
    }
    link.receive(Instant::now(), command::eof(StreamKind::Bytes, oid, 2, None));
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert_eq!(all, expected);
}

#[test]
fn a_pipe_whose_writer_is_collected_ends() {
    let (link, _caller, mut reader, oid) = pipe();
    link.receive(Instant::now(), command::unexport(oid));
    let (result, done) = mpsc::channel();
    std::thread::spawn(move || result.send(reader.read(&mut [0; 8]).is_err()));
    assert_eq!(done.recv_timeout(Duration::from_secs(10)), Ok(true));
    assert_eq!(link.in_use().0, 0);
}

#[test]
fn what_is_exported_after_the_end_is_not_kept() {
    let (link, _incoming) = link();
    link.lost("gone");
    let object = Arc::new(());
    link.export(object.clone());
    assert_eq!(Arc::strong_count(&object), 1);
}

#[test]
fn a_bug_in_a_sink_fails_one_operation() {
    struct Broken;
    impl super::Sink for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<()> {
            panic!("a bug")
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
        fn close(self: Box<Self>, _: Option<String>) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (link, incoming) = link();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _context = runtime.enter();
    let oid = link.export_output(Box::new(Broken));
    link.receive(Instant::now(), command::chunk(oid, 5, Bytes::from_static(b"x")));
    // The request waits for the write.
    link.receive(Instant::now(), request(1, 5));
    incoming.recv_timeout(Duration::from_secs(10)).unwrap().0.respond(Err(Throw::interrupted()));
}

#[test]
fn writers_that_wait_are_counted() {
    let (requests, incoming) = mpsc::channel();
    let stalls = Arc::new(super::Stalls::default());
    let dispatcher =
        Box::new(move |incoming: super::Incoming| requests.send((incoming.caller, incoming.graph)).unwrap());
    let link = Link::counting(channel(), dispatcher, stalls.clone());
    let mut graph = Graph::with_loader(Loader::Receivers(0));
    let stream = super::remote_output_stream(&mut graph, 5);
    link.receive(Instant::now(), command::user_request(1, 0, LOADER, graph.encode_one(Some(stream)), ""));
    let (caller, graph) = incoming.recv().unwrap();
    let mut output = caller.output(graph.root().unwrap()).unwrap();
    output.write_all(&vec![0; WINDOW / 2]).unwrap();
    assert_eq!(stalls.count(), 0, "half a window is nothing to wait for");
    let writer = std::thread::spawn(move || output.write_all(&vec![0; WINDOW]).unwrap());
    while stalls.count() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(stalls.time(), Duration::ZERO);
    // What is queued is taken, and what was taken is acknowledged.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    while !writer.is_finished() {
        let mut batch = Vec::new();
        let transmit =
            async { tokio::time::timeout(Duration::from_millis(10), link.transmit(WINDOW, &mut batch)).await };
        let _ = runtime.block_on(transmit);
        link.receive(Instant::now(), command::ack(StreamKind::Bytes, 5, WINDOW as i32));
    }
    writer.join().unwrap();
    assert!(stalls.time() > Duration::ZERO);
}
