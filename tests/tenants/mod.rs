//! A channel with two tenants against a model that knows whose everything is: from arbitrary bytes, for the property test
//! and the fuzz target.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use inbound_agent::channel::command::{self, Command, MethodCall, StreamKind};
use inbound_agent::channel::state::{End, FirstIds, Judged, JvmEvent, WINDOW};
use inbound_agent::channel::{Channel, Event, Liveness, Throw};
use inbound_agent::frame::Capability;
use inbound_agent::object::{Graph, Limits, Loader, NodeId, Value};

const LOADER: i32 = 7;
/// Streams of the controller's that both tenants write to.
const STREAMS: i32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Native,
    Jvm,
    Gone,
}

/// A proxy, or what is behind one, of an object that this end exports, or that comes home.
fn handler(graph: &mut Graph, oid: i32, home: bool) -> NodeId {
    let desc = command::invocation_handler(graph);
    graph.object(desc).set("oid", Value::Int(oid)).set("goingHome", Value::Bool(home)).build()
}

fn callable(class: &str, names: Option<i32>) -> Bytes {
    let mut graph = Graph::with_loader(Loader::Receivers(0));
    let named = names.map(|oid| handler(&mut graph, oid, true));
    let desc = graph.serializable(class, 1, &[("object", "Ljava/lang/Object;")], None);
    let object = graph.object(desc).set_ref("object", named).build();
    graph.encode_one(Some(object))
}

fn judge(graph: &Graph) -> Judged {
    let label = graph.root().map_or_else(String::new, |root| root.class_name().into_owned());
    let native = label == "a.Native";
    Judged { label, owner: "a test".to_owned(), native, better_in_jvm: false, setup: false }
}

struct Model {
    channel: Channel,
    now: Instant,
    /// The living JVM, and where its ids begin.
    jvm: Option<(u32, FirstIds)>,
    next_request: i32,
    next_io: i32,
    /// Ids that the living JVM uses next.
    next: FirstIds,
    /// The controller's requests in progress.
    requests: BTreeMap<i32, Owner>,
    /// The controller's requests that must have been answered by an exception.
    failed: Vec<i32>,
    /// Objects of the agent's side: each is a stream too, as far as numbers go.
    objects: Vec<(i32, Owner)>,
    /// Requests of the agent's side in progress.
    calls: Vec<(i32, Owner)>,
    /// Per stream of the controller's: who wrote how much, in order.
    written: BTreeMap<i32, VecDeque<(Owner, usize)>>,
    /// What the JVM must get, in order, and what the controller must get of it.
    to_jvm: VecDeque<Bytes>,
    from_jvm: VecDeque<Bytes>,
}

impl Model {
    fn new() -> Model {
        let now = Instant::now();
        let mut channel = Channel::new(now, Capability::OURS, Liveness::default());
        channel.share(now, Box::new(judge));
        (1..=STREAMS).for_each(|oid| channel.open_stream(oid));
        let next = FirstIds { request: 0, io: 0, oid: 0 };
        Model {
            channel,
            now,
            jvm: None,
            next_request: 0,
            next_io: 0,
            next,
            requests: BTreeMap::new(),
            failed: Vec::new(),
            objects: Vec::new(),
            calls: Vec::new(),
            written: BTreeMap::new(),
            to_jvm: VecDeque::new(),
            from_jvm: VecDeque::new(),
        }
    }

    /// The controller sends something that is for `owner`; the events of this agent's are given.
    fn send(&mut self, command: Bytes, owner: Owner) -> Vec<Event> {
        if owner == Owner::Jvm {
            self.to_jvm.push_back(command.clone());
        }
        self.channel.handle_command(self.now, command);
        self.settle()
    }

    fn settle(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.channel.poll_event() {
            match event {
                Event::Jvm(JvmEvent::Wanted { generation, first, .. }) => {
                    assert!(self.jvm.is_none(), "one at a time");
                    assert!(
                        first.request >= self.next.request && first.io >= self.next.io && first.oid >= self.next.oid
                    );
                    assert!(self.channel.jvm_started(self.now, generation));
                    (self.jvm, self.next) = (Some((generation, first)), first);
                }
                Event::Jvm(JvmEvent::Answered { .. }) => {}
                Event::Warning(warning) => panic!("{warning}"),
                Event::Closed(reason) => panic!("{reason}"),
                event => events.push(event),
            }
        }
        if let Some((generation, _)) = self.jvm {
            while let Some(command) = self.channel.poll_jvm_transmit(generation) {
                assert_eq!(Some(command), self.to_jvm.pop_front(), "to the JVM, as it came and in order");
            }
        }
        assert!(self.to_jvm.is_empty(), "nothing is kept from the JVM");
        while let Some(command) = self.channel.poll_transmit() {
            if self.from_jvm.front() == Some(&command) {
                self.from_jvm.pop_front();
                continue;
            }
            if let Ok(Command::Response { id, .. }) = Command::read(Graph::decode(command, &Limits::default()).unwrap())
            {
                let at = self.failed.iter().position(|failed| *failed == id).expect("only who was failed is answered");
                self.failed.swap_remove(at);
            }
        }
        assert!(self.from_jvm.is_empty() && self.failed.is_empty(), "nothing is kept from the controller");
        events
    }

    fn jvm_sends(&mut self, command: Bytes) {
        let Some((generation, _)) = self.jvm else { return };
        self.from_jvm.push_back(command.clone());
        self.channel.handle_jvm_command(self.now, generation, command).unwrap();
        assert!(self.settle().is_empty());
    }

    /// Asks for something of the agent's; `owner` is who must execute it.
    fn request(&mut self, command: impl FnOnce(i32) -> Bytes, owner: Owner) {
        let id = self.next_request;
        self.next_request += 1;
        if owner == Owner::Gone {
            self.failed.push(id);
        } else {
            self.requests.insert(id, owner);
        }
        let events = self.send(command(id), owner);
        match owner {
            Owner::Native => assert!(matches!(events[..], [Event::Request { id: of, .. }] if of == id), "{events:?}"),
            _ => assert!(events.is_empty(), "{events:?}"),
        }
    }

    fn jvm_dies(&mut self) {
        let Some((generation, first)) = self.jvm.take() else { return };
        assert!(self.next.oid < first.oid + (1 << 22), "the model stays within the ids that a JVM has");
        let held = self.requests.iter().filter(|(_, owner)| **owner == Owner::Jvm).map(|(id, _)| *id);
        self.failed.extend(held);
        self.requests.retain(|_, owner| *owner != Owner::Jvm);
        let owners =
            self.objects.iter_mut().map(|(_, owner)| owner).chain(self.calls.iter_mut().map(|(_, owner)| owner));
        let writers = self.written.values_mut().flatten().map(|(owner, _)| owner);
        owners.chain(writers).filter(|owner| **owner == Owner::Jvm).for_each(|owner| *owner = Owner::Gone);
        self.channel.jvm_lost(self.now, generation, "it died");
        // What it sends still, nobody wants.
        assert!(self.channel.handle_jvm_command(self.now, generation, command::unexport(1)).is_err());
        assert!(self.settle().is_empty());
    }

    fn outstanding(&self, oid: i32, of: Owner) -> usize {
        self.written.get(&oid).into_iter().flatten().filter(|(owner, _)| *owner == of).map(|(_, size)| size).sum()
    }

    fn step(&mut self, op: u8, a: u8, b: u8) {
        self.now += Duration::from_millis(1);
        let pick = |length: usize| (length > 0).then(|| usize::from(a) % length);
        let object = pick(self.objects.len()).map(|at| (at, self.objects[at]));
        let stream = 1 + i32::from(a) % STREAMS;
        let size = 1 + usize::from(b);
        let user =
            |class: &'static str, names| move |id| command::user_request(id, 0, LOADER, callable(class, names), class);
        match op % 16 {
            0 => self.request(user("a.Native", None), Owner::Native),
            1 => self.request(user("a.Foreign", None), Owner::Jvm),
            // An object that is named decides, but a callable that is not native can't have one of this agent's.
            2 => {
                let Some((_, (oid, owner))) = object else { return };
                self.request(user("a.Native", Some(oid)), owner);
            }
            3 => {
                let Some((_, (oid, owner))) = object else { return };
                let owner = if owner == Owner::Native { Owner::Gone } else { owner };
                self.request(user("a.Foreign", Some(oid)), owner);
            }
            4 => {
                let Some((_, (oid, owner))) = object else { return };
                let call = MethodCall { oid, interface: "an.Interface", method: "method", types: &[] };
                self.request(|id| call.request(id, |_| Vec::new()), owner);
            }
            5 => {
                let oid = self.channel.export();
                self.channel.add_reference(oid);
                self.objects.push((oid, Owner::Native));
            }
            // The JVM answers with a proxy of a new object.
            6 => {
                let held = self.requests.iter().find(|(_, owner)| **owner == Owner::Jvm).map(|(id, _)| *id);
                let Some(id) = held else { return };
                self.requests.remove(&id);
                let oid = self.next.oid;
                self.next.oid += 1;
                self.objects.push((oid, Owner::Jvm));
                let mut graph = Graph::with_loader(Loader::Receivers(LOADER));
                let proxy = handler(&mut graph, oid, false);
                let value = graph.encode_one(Some(proxy));
                self.jvm_sends(command::user_response(id, 0, Capability::OURS, Loader::Receivers(LOADER), Ok(value)));
            }
            7 => {
                let own = self.requests.iter().find(|(_, owner)| **owner == Owner::Native).map(|(id, _)| *id);
                let Some(id) = own else { return };
                self.requests.remove(&id);
                self.failed.push(id);
                self.channel.respond_user(id, Loader::None, Err(&Throw::io("done")));
                assert!(self.settle().is_empty());
            }
            8 => {
                let Some((at, (oid, owner))) = object else { return };
                self.objects.swap_remove(at);
                let events = self.send(command::unexport(oid), owner);
                let dropped = matches!(events[..], [Event::Dropped { oid: of }] if of == oid);
                assert_eq!(dropped, owner == Owner::Native, "{events:?}");
            }
            9 => {
                let Some((at, (oid, owner))) = object else { return };
                self.next_io += 1;
                let io_id = self.next_io;
                let ends = b.is_multiple_of(3);
                let command = match b % 3 {
                    0 => command::eof(StreamKind::Bytes, oid, io_id, None),
                    1 => command::flush(StreamKind::Bytes, oid, io_id),
                    _ => command::chunk(oid, io_id, Bytes::from(vec![b; size])),
                };
                if ends {
                    self.objects.swap_remove(at);
                }
                for event in self.send(command, owner) {
                    match event {
                        Event::Stream { oid: of, io_id: number, op } if of == oid && number == io_id => {
                            assert_eq!(owner, Owner::Native);
                            self.channel.acknowledge(StreamKind::Bytes, oid, op.size());
                            self.channel.io_done(io_id);
                        }
                        Event::Dropped { oid: of } => assert!(of == oid && ends),
                        other => panic!("{other:?}"),
                    }
                }
            }
            10 => {
                let ids: Vec<_> = self.requests.iter().map(|(id, owner)| (*id, *owner)).collect();
                let Some((id, owner)) = pick(ids.len()).map(|at| ids[at]) else { return };
                for event in self.send(command::cancel(id), owner) {
                    assert!(owner == Owner::Native && matches!(event, Event::Cancel { id: of } if of == id));
                }
            }
            11 => {
                if b.is_multiple_of(2) {
                    let id = self.channel.call_read(stream, 1).unwrap();
                    self.calls.push((id, Owner::Native));
                } else if self.jvm.is_some() {
                    let id = self.next.request;
                    self.next.request += 1;
                    self.calls.push((id, Owner::Jvm));
                    self.jvm_sends(command::read(id, stream, 1));
                }
            }
            12 => {
                let Some((id, owner)) = pick(self.calls.len()).map(|at| self.calls.swap_remove(at)) else { return };
                let events = self.send(command::plain_response(id, 0, Ok(&|_| None)), owner);
                let answered = matches!(events[..], [Event::Answer { id: of, .. }] if of == id);
                assert_eq!(answered, owner == Owner::Native, "{events:?}");
            }
            13 => {
                if b.is_multiple_of(2) {
                    if self.outstanding(stream, Owner::Native) + size <= WINDOW {
                        self.channel.write(stream, Bytes::from(vec![b; size]));
                        self.written.entry(stream).or_default().push_back((Owner::Native, size));
                    }
                } else if self.jvm.is_some() {
                    let io_id = self.next.io;
                    self.next.io += 1;
                    self.written.entry(stream).or_default().push_back((Owner::Jvm, size));
                    self.jvm_sends(command::chunk(stream, io_id, Bytes::from(vec![b; size])));
                }
            }
            14 => {
                let Some((owner, size)) = self.written.get_mut(&stream).and_then(VecDeque::pop_front) else { return };
                let events = self.send(command::ack(StreamKind::Bytes, stream, size as i32), owner);
                assert!(events.is_empty(), "{events:?}");
            }
            _ if b.is_multiple_of(8) => self.jvm_dies(),
            _ => {}
        }
        for oid in 1..=STREAMS {
            let own = WINDOW - self.outstanding(oid, Owner::Native);
            assert_eq!(self.channel.window(oid), Some(own), "acknowledgements reach who wrote");
        }
        let held = self.requests.values().filter(|owner| **owner == Owner::Jvm).count();
        assert_eq!(self.channel.held_by_jvm(), held);
    }
}

/// Does one thing per three bytes.
pub fn run(data: &[u8]) {
    let mut model = Model::new();
    for step in data.chunks_exact(3) {
        model.step(step[0], step[1], step[2]);
    }
    for oid in 1..=STREAMS {
        model.channel.close_stream(StreamKind::Bytes, oid, End::Release);
    }
}
