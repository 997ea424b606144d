//! Whatever two tenants and a controller do, in any order: nothing reaches the wrong one, and nothing is lost or changed.

mod tenants;

use std::time::{Duration, Instant};

use bytes::Bytes;
use inbound_agent::channel::command::{self, Command, StreamKind};
use inbound_agent::channel::state::{Judged, JvmEvent};
use inbound_agent::channel::{Channel, Event, Liveness};
use inbound_agent::frame::Capability;
use inbound_agent::object::{Graph, Limits, Loader, Value};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_reaches_the_wrong_tenant(data in vec(any::<u8>(), 0..600)) {
        tenants::run(&data);
    }
}

const LOADER: i32 = 7;

struct Shared {
    channel: Channel,
    now: Instant,
    generation: u32,
}

fn callable(class: &str) -> Bytes {
    let mut graph = Graph::with_loader(Loader::Receivers(0));
    let desc = graph.serializable(class, 1, &[], None);
    let object = graph.object(desc).build();
    graph.encode_one(Some(object))
}

fn request(id: i32, last_io: i32, class: &str) -> Bytes {
    command::user_request(id, last_io, LOADER, callable(class), class)
}

fn null(id: i32) -> Bytes {
    let null = Bytes::from_static(b"\xac\xed\0\x05p");
    command::user_response(id, 0, Capability::OURS, Loader::None, Ok(null))
}

impl Shared {
    fn new() -> Shared {
        let now = Instant::now();
        let mut channel = Channel::new(now, Capability::OURS, Liveness::default());
        let judge = |graph: &Graph| {
            let label = graph.root().unwrap().class_name().into_owned();
            let native = !label.starts_with("a.Foreign");
            let setup = label == "a.SetUp";
            Judged { label, owner: String::new(), native, better_in_jvm: false, setup }
        };
        channel.share(now, Box::new(judge));
        Shared { channel, now, generation: 0 }
    }

    fn take(&mut self, command: Bytes) -> Vec<Event> {
        self.channel.handle_command(self.now, command);
        std::iter::from_fn(|| self.channel.poll_event()).collect()
    }

    fn start(&mut self) {
        assert!(self.channel.jvm_started(self.now, self.generation));
    }

    fn sent_to_jvm(&mut self) -> Vec<Bytes> {
        std::iter::from_fn(|| self.channel.poll_jvm_transmit(self.generation)).collect()
    }

    fn jvm_sends(&mut self, command: Bytes) -> Vec<Event> {
        self.channel.handle_jvm_command(self.now, self.generation, command).unwrap();
        std::iter::from_fn(|| self.channel.poll_event()).collect()
    }

    fn sent_to_controller(&mut self) -> Vec<Command> {
        let commands = std::iter::from_fn(|| self.channel.poll_transmit());
        commands.map(|bytes| Command::read(Graph::decode(bytes, &Limits::default()).unwrap()).unwrap()).collect()
    }
}

#[test]
fn a_new_jvm_hears_what_the_controller_set_up_before_anything_else() {
    let mut shared = Shared::new();
    let set_up = request(3, 0, "a.SetUp");
    assert!(matches!(shared.take(set_up.clone())[..], [Event::Request { id: 3, .. }]));
    shared.channel.respond_user(3, Loader::None, Ok(Bytes::from_static(b"\xac\xed\0\x05p")));
    shared.sent_to_controller();
    let foreign = request(4, 0, "a.Foreign");
    assert!(matches!(&shared.take(foreign.clone())[..], [Event::Jvm(JvmEvent::Wanted { generation: 0, .. })]));
    for generation in 0..2 {
        shared.start();
        assert_eq!(shared.sent_to_jvm(), std::slice::from_ref(&set_up), "with its own id, which is no more in use");
        // What the JVM asks meanwhile is answered.
        let id = 10 + generation;
        shared.jvm_sends(command::read(id, LOADER, 1));
        let answer = command::plain_response(id, 0, Ok(&|_| None));
        shared.take(answer.clone());
        assert_eq!(shared.sent_to_jvm(), [answer]);
        assert!(matches!(shared.sent_to_controller()[..], [Command::Read { .. }]));
        // The controller neither knows of the call nor counted a reference for it.
        shared.jvm_sends(command::unexport(LOADER));
        shared.jvm_sends(null(3));
        assert!(shared.sent_to_controller().is_empty());
        shared.jvm_sends(command::unexport(LOADER));
        assert!(
            matches!(shared.sent_to_controller()[..], [Command::Unexport { oid: LOADER }]),
            "its own references go back"
        );
        if generation == 0 {
            assert_eq!(shared.sent_to_jvm(), std::slice::from_ref(&foreign));
            shared.channel.jvm_lost(shared.now, 0, "it died");
            assert!(matches!(shared.sent_to_controller()[..], [Command::Response { id: 4, .. }]));
            shared.generation = 1;
            shared.take(request(5, 0, "a.Foreign"));
        }
    }
}

#[test]
fn requests_wait_for_pipe_operations_whoever_does_those() {
    let mut shared = Shared::new();
    let own = shared.channel.export();
    shared.channel.add_reference(own);
    shared.take(request(1, 0, "a.Foreign"));
    shared.start();
    shared.sent_to_jvm();
    // Ours first: nothing overtakes the request that waits for it.
    shared.take(command::chunk(own, 20, Bytes::from_static(b"x")));
    let (waits, behind) = (request(2, 20, "a.Foreign"), command::cancel(1));
    shared.take(waits.clone());
    shared.take(behind.clone());
    assert!(shared.sent_to_jvm().is_empty());
    shared.channel.io_done(20);
    assert_eq!(shared.sent_to_jvm(), [waits, behind]);

    // The JVM's first: it is asked whether it has done it.
    let pipe = 1000;
    shared.jvm_sends(command::connect(50, pipe));
    shared.take(command::chunk(pipe, 21, Bytes::from_static(b"y")));
    shared.sent_to_jvm();
    assert!(matches!(shared.take(request(3, 20, "a.Native"))[..], [Event::Request { id: 3, .. }]), "not of this one");
    assert!(shared.take(request(4, 21, "a.Native")).is_empty());
    assert!(shared.take(command::cancel(4)).is_empty());
    let asked = shared.sent_to_jvm();
    let Ok(Command::Rpc { id, last_io: 21, .. }) =
        Command::read(Graph::decode(asked[0].clone(), &Limits::default()).unwrap())
    else {
        panic!("{asked:?}")
    };
    let done = shared.jvm_sends(command::plain_response(id, 0, Ok(&|_| None)));
    assert!(matches!(done[..], [Event::Request { id: 4, .. }, Event::Cancel { id: 4 }]), "{done:?}");
    // And if it dies, nobody waits any more.
    shared.take(command::chunk(pipe, 22, Bytes::from_static(b"z")));
    assert!(shared.take(request(5, 22, "a.Native")).is_empty());
    shared.sent_to_controller();
    shared.channel.jvm_lost(shared.now, 0, "it died");
    let released: Vec<_> = std::iter::from_fn(|| shared.channel.poll_event()).collect();
    assert!(matches!(released[..], [Event::Request { id: 5, .. }]), "{released:?}");
    // Who wrote to it must not wait for a window for ever.
    let told = shared.sent_to_controller();
    assert!(told.iter().any(|command| matches!(command, Command::DeadWriter { oid } if *oid == pipe)), "{told:?}");
    assert!(told.iter().any(|command| matches!(command, Command::Ack { oid, size: 2 } if *oid == pipe)), "{told:?}");
}

#[test]
fn a_jvm_that_executes_something_and_is_silent_is_given_up() {
    let mut shared = Shared::new();
    shared.take(request(1, 0, "a.Foreign"));
    shared.start();
    shared.sent_to_jvm();
    let Liveness { idle, patience } = Liveness::default();
    shared.now += idle;
    // The controller is alive.
    shared.take(command::ack(StreamKind::Bytes, 99, 1));
    shared.channel.handle_timeout(shared.now);
    assert_eq!(shared.sent_to_jvm().len(), 1, "a ping");
    shared.now += patience;
    shared.take(command::ack(StreamKind::Bytes, 99, 1));
    shared.channel.handle_timeout(shared.now);
    let events: Vec<_> = std::iter::from_fn(|| shared.channel.poll_event()).collect();
    assert!(matches!(&events[..], [Event::Jvm(JvmEvent::Failed { generation: 0, .. })]), "{events:?}");
    assert!(matches!(shared.sent_to_controller()[..], [Command::Response { id: 1, .. }]));
}

#[test]
fn only_a_jvm_that_nobody_needs_is_idle() {
    let mut shared = Shared::new();
    let second = Duration::from_secs(1);
    shared.take(request(1, 0, "a.Foreign"));
    shared.start();
    shared.sent_to_jvm();
    shared.now += 10 * second;
    assert!(shared.channel.stop_idle_jvm(shared.now, 0, second).is_err(), "it executes a request");
    let mut graph = Graph::with_loader(Loader::Receivers(LOADER));
    let desc = command::invocation_handler(&mut graph);
    let handler = graph.object(desc).set("oid", Value::Int(44)).build();
    let proxy = graph.encode_one(Some(handler));
    let answer = command::user_response(1, 0, Capability::OURS, Loader::Receivers(LOADER), Ok(proxy));
    shared.jvm_sends(answer);
    shared.now += 10 * second;
    assert!(shared.channel.stop_idle_jvm(shared.now, 0, second).is_err(), "the controller holds an object of its");
    shared.take(command::unexport(44));
    shared.sent_to_jvm();
    assert_eq!(shared.channel.stop_idle_jvm(shared.now, 0, second), Err(shared.now));
    shared.now += second;
    assert_eq!(shared.channel.stop_idle_jvm(shared.now, 0, second), Ok(()));
}
