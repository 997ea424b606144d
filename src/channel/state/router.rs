//! The channel's second tenant: which of the two a command is for, and what is owed when the second one ends.
//!
//! A Java virtual machine (the *sidecar*) may share the channel with this agent. To the controller both are one agent; to
//! the JVM we are the controller. Commands pass in both directions as they came, byte for byte and in order; here is
//! decided who gets them, and noted what the controller must not be left without when the JVM dies. No IO, no clock.
//!
//! - What this agent allocates lies in 2^30 .. 2^31-1 ([`FIRST_ID`]), what a JVM allocates lies below, and each JVM of a
//!   channel begins behind the ids of the one before: so the owner of an object, a stream or a request of the agent's side
//!   is known by its number, and what a dead JVM owned is told apart from what the living one owns.
//! - Ids of the controller's are looked up: its requests by who executes them, its acknowledgements by who wrote what to
//!   that stream, in order.
//! - Requests that this agent itself makes to the JVM have negative ids, which no controller uses.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{CHANNEL_OID, Channel, Event, Executing, FIRST_ID, Liveness, MAX_REQUESTS, WINDOW};
use crate::channel::command::{self, Answered, Command, Grant, MethodCall, StreamKind, StreamOp};
use crate::channel::throw::{Throw, ThrowClass, printable};
use crate::frame::Capability;
use crate::object::{Graph, Limits, Node};

/// Bytes that may wait for a JVM to read them. The controller keeps to a window of a mebibyte per stream, so that a JVM
/// that reads slowly makes its writers wait; what no window bounds are requests and answers, and many streams at once.
pub const MAX_JVM_QUEUE: usize = 32 << 20;
/// Object ids that each JVM has to itself.
const OBJECTS_PER_JVM: i32 = 1 << 23;
/// A JVM that could not be started is not tried again sooner.
pub const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Pipe operations that are remembered to have gone to the JVM; older ones are taken for done.
const MAX_REMEMBERED_IO: usize = 4096;
/// Calls that are repeated to a new JVM, and the largest of them.
const MAX_SETUPS: usize = 8;
const MAX_SETUP_SIZE: usize = 256 << 10;
/// Entries of [`Router::unacknowledged`] over all streams: how often the two tenants may take turns at writing.
const MAX_UNACKNOWLEDGED: usize = 1 << 16;

/// What is known of a callable before anyone executes it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What to call it in logs: its class.
    pub label: String,
    /// What that belongs to, in words.
    pub owner: String,
    /// This agent executes it itself.
    pub native: bool,
    /// A JVM would do it better, where there is one.
    pub better_in_jvm: bool,
    /// It sets up the agent's side of the channel: to be repeated to each new JVM.
    pub setup: bool,
}

/// Tells who is to execute a callable.
pub type Judge = Box<dyn Fn(&Graph) -> Judged + Send + Sync>;

/// Where a JVM's ids begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstIds {
    /// Of its requests.
    pub request: i32,
    /// Of its pipe operations.
    pub io: i32,
    /// Of the objects that it exports.
    pub oid: i32,
}

/// What the router has for who runs the JVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JvmEvent {
    /// A JVM is to be started: then [`Channel::jvm_started`], or [`Channel::jvm_lost`].
    Wanted {
        /// The number of the JVM, to be given back with all that concerns it.
        generation: u32,
        /// Where its ids begin.
        first: FirstIds,
        /// The callable that it is wanted for, if there is one.
        label: Option<String>,
    },
    /// The JVM is given up, and all that it held has been failed: it is to be killed.
    Failed {
        /// The number of the JVM.
        generation: u32,
        /// Why.
        reason: String,
    },
    /// The JVM has answered a request of the controller's.
    Answered {
        /// The callable.
        label: String,
        /// How long it took.
        took: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Native,
    Jvm,
    /// A JVM that is no more.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Absent,
    Starting,
    /// The JVM hears what it missed before it gets its first request.
    Replaying,
    Up,
}

/// Who wrote something to a stream of the controller's: a JVM of this number, or this agent.
type Writer = Option<u32>;

/// A request of the controller's that the JVM has, or will have.
#[derive(Debug)]
struct Held {
    label: String,
    owner: String,
    since: Instant,
    bare: bool,
    loader: Option<i32>,
    /// The whole command, of a callable to be repeated.
    setup: Option<(String, Bytes)>,
    /// What it brings, until the JVM has it.
    brings: Option<(Vec<i32>, Vec<Grant>)>,
}

impl Held {
    fn bare(label: String, now: Instant) -> Held {
        let owner = "Jenkins itself".to_owned();
        Held { label, owner, since: now, bare: true, loader: None, setup: None, brings: None }
    }

    fn not_native(&self, why: &str) -> String {
        let (label, owner) = (printable(&self.label), printable(&self.owner));
        format!(
            "{label}, which belongs to {owner}, is not native in this agent, and no JVM could be started for it: {why}"
        )
    }
}

#[derive(Debug)]
struct Queued {
    bytes: Bytes,
    /// A request's id, and the pipe operation that must be done before.
    request: Option<(i32, i32)>,
}

/// What this agent asked of the JVM by itself.
#[derive(Debug)]
enum Private {
    /// Whether it lives.
    Ping,
    /// To have done its pipe operations up to this one.
    Sync(i32),
}

/// The state of the second tenant.
pub(super) struct Router {
    judge: Judge,
    liveness: Liveness,
    phase: Phase,
    generation: u32,
    first: FirstIds,
    /// The largest ids that the JVMs have used so far.
    highest: FirstIds,
    /// Until when no JVM is started, and why.
    backoff: Option<(Instant, String)>,
    held: HashMap<i32, Held>,
    queue: VecDeque<Queued>,
    queued: usize,
    /// What goes to the JVM before the queue.
    express: VecDeque<Bytes>,
    /// What the controller was heard to set up, by callable.
    setups: Vec<(String, i32, Bytes)>,
    /// Of those, which the JVM has not answered yet.
    replaying: HashSet<i32>,
    /// Class loaders that came with repeated calls: the controller counted no reference for these copies.
    phantoms: HashMap<i32, u32>,
    private: HashMap<i32, Private>,
    next_private: i32,
    /// Requests of the JVM's that the controller executes.
    calls: HashSet<i32>,
    /// Who wrote how much to a stream of the controller's, in order, until it is acknowledged.
    unacknowledged: HashMap<i32, VecDeque<(Writer, usize)>>,
    /// Entries of it.
    turns: usize,
    /// What the controller has written to a stream of the JVM's and the JVM did not acknowledge.
    writes: HashMap<i32, (StreamKind, usize)>,
    /// References that the JVM holds.
    refs: HashMap<Grant, u32>,
    /// References that the controller holds to objects of the JVM's.
    exports: HashMap<i32, u32>,
    /// Pipe operations that went to the JVM and may not be done.
    io: VecDeque<i32>,
    /// What this agent executes once the JVM has done a pipe operation.
    waiting: Vec<(i32, i32, Event)>,
    touched: Instant,
    heard: Instant,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Router({:?}, generation {}, {} requests)", self.phase, self.generation, self.held.len())
    }
}

impl Router {
    fn new(now: Instant, judge: Judge) -> Router {
        let first = FirstIds { request: 0, io: 1, oid: CHANNEL_OID + 1 };
        Router {
            judge,
            liveness: Liveness::default(),
            phase: Phase::Absent,
            generation: 0,
            first,
            highest: FirstIds { request: -1, io: 0, oid: CHANNEL_OID },
            backoff: None,
            held: HashMap::new(),
            queue: VecDeque::new(),
            queued: 0,
            express: VecDeque::new(),
            setups: Vec::new(),
            replaying: HashSet::new(),
            phantoms: HashMap::new(),
            private: HashMap::new(),
            next_private: i32::MIN,
            calls: HashSet::new(),
            unacknowledged: HashMap::new(),
            turns: 0,
            writes: HashMap::new(),
            refs: HashMap::new(),
            exports: HashMap::new(),
            io: VecDeque::new(),
            waiting: Vec::new(),
            touched: now,
            heard: now,
        }
    }

    fn is_present(&self) -> bool {
        self.phase != Phase::Absent
    }

    fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Replaying | Phase::Up)
    }

    /// Whose an object or stream is. The channel itself, which both have, is not asked about.
    fn owner(&self, oid: i32) -> Owner {
        if oid >= FIRST_ID {
            Owner::Native
        } else if self.is_present() && oid >= self.first.oid {
            Owner::Jvm
        } else {
            Owner::Gone
        }
    }

    /// Owners of the objects of the agent's side that a request names.
    fn pins(&self, graph: &Graph) -> [bool; 3] {
        let mut pins = [false; 3];
        let mut pin = |oid| {
            if oid != CHANNEL_OID {
                pins[self.owner(oid) as usize] = true;
            }
        };
        for (index, node) in graph.nodes().iter().enumerate() {
            match node {
                Node::Object(_) => {
                    let Some(id) = graph.id_at(index) else { continue };
                    let view = graph.view(id);
                    if view.is("hudson.remoting.RemoteInvocationHandler")
                        && view.bool("goingHome").unwrap_or(false)
                        && let Ok(oid) = view.int("oid")
                    {
                        pin(oid);
                    }
                }
                // A class of a loader of ours: only a JVM has any.
                Node::ClassDesc(_) | Node::ProxyDesc(_) => {
                    if let Some(oid) = command::receivers_loader(graph, node).filter(|oid| *oid > 0) {
                        pin(oid);
                    }
                }
                _ => {}
            }
        }
        pins
    }

    fn touch(&mut self, now: Instant) {
        self.touched = now;
    }

    fn note_write(&mut self, oid: i32, writer: Writer, size: usize) {
        if size == 0 {
            return;
        }
        let queue = self.unacknowledged.entry(oid).or_default();
        match queue.back_mut().filter(|(last, _)| *last == writer) {
            Some((_, more)) => *more += size,
            None => {
                queue.push_back((writer, size));
                self.turns += 1;
            }
        }
    }

    /// Whose writing an acknowledgement is for; `None` if nothing is noted.
    fn acknowledged(&mut self, oid: i32, size: usize) -> Option<Writer> {
        let queue = self.unacknowledged.get_mut(&oid)?;
        let (writer, left) = queue.front_mut()?;
        let writer = *writer;
        if *left > size {
            *left -= size;
        } else {
            queue.pop_front();
            self.turns -= 1;
            if queue.is_empty() {
                self.unacknowledged.remove(&oid);
            }
        }
        Some(writer)
    }

    fn return_ref(&mut self, grant: Grant) {
        if let Some(count) = self.refs.get_mut(&grant) {
            *count -= 1;
            if *count == 0 {
                self.refs.remove(&grant);
            }
        }
    }

    fn return_export(&mut self, oid: i32) {
        if let Some(count) = self.exports.get_mut(&oid) {
            *count -= 1;
            if *count == 0 {
                self.exports.remove(&oid);
                self.writes.remove(&oid);
            }
        }
    }

    /// Notes objects that the JVM hands to the controller.
    fn note_exports(&mut self, graph: &Graph, peer: Capability) {
        for grant in command::grants(graph, peer) {
            let (Grant::Output(oid)
            | Grant::Writer(oid)
            | Grant::Input(oid)
            | Grant::Proxy(oid)
            | Grant::PipeSource(oid)) = grant.1;
            self.highest.oid = self.highest.oid.max(oid);
            *self.exports.entry(oid).or_default() += 1;
        }
    }

    fn private_call(&mut self, last_io: i32, what: Private) {
        let id = self.next_private;
        self.next_private = if id >= -1 { i32::MIN } else { id + 1 };
        self.private.insert(id, what);
        // Answered by any channel at once; nobody sets a property of this name.
        let call = MethodCall {
            oid: CHANNEL_OID,
            interface: "hudson.remoting.IChannel",
            method: "getProperty",
            types: &["java.lang.Object"],
        };
        let bytes = call.request_after(id, last_io, |graph| vec![Some(graph.string("inbound-agent"))]);
        self.express.push_back(bytes);
    }
}

/// What is to become of a request.
enum Place {
    Native {
        /// The callable, if it is to be repeated to JVMs to come.
        setup: Option<String>,
    },
    Jvm {
        label: String,
        owner: String,
        setup: bool,
    },
    Refuse(Throw),
}

fn ended() -> Throw {
    Throw::new(ThrowClass::IllegalState, "the JVM of this agent that held the object has ended")
}

// ---- requests -------------------------------------------------------------------------------------------------------

impl Channel {
    /// Lets a JVM share the channel: it is asked for ([`JvmEvent::Wanted`]) when there is something for it.
    pub fn share(&mut self, now: Instant, judge: Judge) {
        self.router = Some(Box::new(Router::new(now, judge)));
    }

    /// Requests that the JVM holds.
    pub fn held_by_jvm(&self) -> usize {
        self.router.as_ref().map_or(0, |router| router.held.len())
    }

    pub(super) fn is_held(&self, id: i32) -> bool {
        self.router.as_ref().is_some_and(|router| router.held.contains_key(&id))
    }

    /// Takes a user request if it is not this agent's own to execute: gives it back else.
    pub(super) fn route_request(
        &mut self,
        now: Instant,
        raw: &Bytes,
        (id, last_io): (i32, i32),
        loader: Option<i32>,
        graph: Graph,
    ) -> Option<Graph> {
        let Some(router) = &self.router else { return Some(graph) };
        match place(router, now, &graph) {
            Place::Native { setup } => {
                if let (Some(label), Some(router)) = (setup, &mut self.router) {
                    router.remember(label, id, raw);
                }
                Some(graph)
            }
            Place::Jvm { label, owner, setup } => {
                let setup = setup.then(|| (label.clone(), raw.clone()));
                // The JVM keeps the first reference to each class loader for as long as it lives, as Java does.
                self.home_loader = self.home_loader.or(loader);
                let mut loaders: Vec<i32> = loader.into_iter().collect();
                loaders.extend(command::introduced_loaders(&graph));
                let brings = Some((loaders, self.bare_grants(&graph)));
                let held = Held { label, owner, since: now, bare: false, loader, setup, brings };
                self.hand_over(now, raw, (id, last_io), held);
                None
            }
            Place::Refuse(throw) => {
                let loaders = loader.into_iter().chain(command::introduced_loaders(&graph)).collect();
                let executing = Executing { loader, loaders, grants: self.grants(&graph), ..Executing::default() };
                if self.begin(id, executing) {
                    self.refuse(id, &throw);
                }
                None
            }
        }
    }

    fn bare_grants(&self, graph: &Graph) -> Vec<Grant> {
        self.grants(graph).into_iter().map(|(_, grant)| grant).collect()
    }

    /// Queues a request for the JVM, which is started if there is none.
    fn hand_over(&mut self, now: Instant, raw: &Bytes, (id, last_io): (i32, i32), held: Held) {
        let full = self.executing.len() + self.held_by_jvm() >= MAX_REQUESTS;
        let Some(router) = &mut self.router else { return };
        if full {
            let throw = Throw::io(format!("this agent executes {MAX_REQUESTS} requests already"));
            return self.refuse_held(id, held, &throw);
        }
        if router.phase == Phase::Absent {
            if let Some((_, why)) = router.backoff.as_ref().filter(|(until, _)| now < *until) {
                let throw = Throw::abort(held.not_native(why));
                return self.refuse_held(id, held, &throw);
            }
            router.phase = Phase::Starting;
            router.heard = now;
            let label = Some(held.label.clone());
            let wanted = JvmEvent::Wanted { generation: router.generation, first: router.first, label };
            self.events.push_back(Event::Jvm(wanted));
        }
        router.held.insert(id, held);
        self.queue_for_jvm(now, raw, Some((id, last_io)));
    }

    /// Answers a request that was meant for the JVM with an exception.
    fn refuse_held(&mut self, id: i32, held: Held, throw: &Throw) {
        let (loaders, grants) = held.brings.unwrap_or_default();
        for grant in grants {
            self.give_back(grant);
        }
        let executing = Executing { bare: held.bare, loader: held.loader, loaders, ..Executing::default() };
        self.executing.insert(id, executing);
        self.refuse(id, throw);
    }

    fn queue_for_jvm(&mut self, now: Instant, raw: &Bytes, request: Option<(i32, i32)>) {
        let Some(router) = &mut self.router else { return };
        router.touch(now);
        if router.phase == Phase::Replaying && request.is_none() {
            // It belongs to what is being repeated: all that waits are requests that the JVM has not seen.
            router.express.push_back(raw.clone());
            return;
        }
        router.queued += raw.len();
        router.queue.push_back(Queued { bytes: raw.clone(), request });
        if router.queued > MAX_JVM_QUEUE && router.queue.len() > 1 {
            let reason = format!("it does not read: more than {} MiB wait for it", MAX_JVM_QUEUE >> 20);
            self.fail_jvm(now, reason);
        }
    }

    fn fail_jvm(&mut self, now: Instant, reason: String) {
        let Some(generation) = self.router.as_ref().map(|router| router.generation) else { return };
        self.jvm_lost(now, generation, &reason);
        self.events.push_back(Event::Jvm(JvmEvent::Failed { generation, reason }));
    }

    // ---- what else the controller sends ----------------------------------------------------------------------------

    /// Takes a command that is not this agent's own; gives it back else.
    pub(super) fn route(&mut self, now: Instant, command: Command, raw: &Bytes) -> Option<Command> {
        let Some(router) = &mut self.router else { return Some(command) };
        let owner = |oid| router.owner(oid);
        match &command {
            Command::Response { id, .. } if *id < FIRST_ID => {
                // Of a former JVM's calls there is nobody to hear the answer.
                if router.is_running() && *id >= router.first.request {
                    router.calls.remove(id);
                    self.queue_for_jvm(now, raw, None);
                }
                None
            }
            Command::Rpc { id, last_io, graph } => {
                let oid = graph.root().and_then(|root| root.int("oid").ok()).unwrap_or_default();
                match place(router, now, graph) {
                    Place::Native { .. } => return Some(command),
                    Place::Jvm { label, .. } => {
                        let (id, last_io) = (*id, *last_io);
                        let brings = Some((Vec::new(), self.bare_grants(graph)));
                        let held = Held { brings, ..Held::bare(label, now) };
                        self.hand_over(now, raw, (id, last_io), held);
                    }
                    Place::Refuse(throw) => {
                        tracing::debug!("a call of a method of the object {oid} was refused: {throw}");
                        let (id, grants) = (*id, self.grants(graph));
                        if self.begin(id, Executing { bare: true, grants, ..Executing::default() }) {
                            self.refuse(id, &throw);
                        }
                    }
                }
                None
            }
            Command::Read { id, oid, .. } => match owner(*oid) {
                Owner::Native => Some(command),
                Owner::Jvm => {
                    let label = "hudson.remoting.ProxyInputStream$Chunk".to_owned();
                    let held = Held::bare(label, now);
                    self.hand_over(now, raw, (*id, 0), held);
                    None
                }
                Owner::Gone => {
                    if self.begin(*id, Executing { bare: true, ..Executing::default() }) {
                        self.refuse(*id, &ended());
                    }
                    None
                }
            },
            Command::UnknownRequest { id, class } if router.is_present() => {
                let label = class.clone();
                let held = Held::bare(label, now);
                self.hand_over(now, raw, (*id, 0), held);
                None
            }
            Command::Cancel { id } if router.held.contains_key(id) => {
                // Behind the request itself.
                self.queue_for_jvm(now, raw, Some((*id, 0)));
                None
            }
            Command::Cancel { id } => {
                // Of a request of ours that waits for the JVM to have done a pipe operation.
                let waits =
                    |(_, _, event): &&(i32, i32, Event)| matches!(event, Event::Request { id: of, .. } if of == id);
                match router.waiting.iter().find(waits).map(|(io_id, last_io, _)| (*io_id, *last_io)) {
                    Some((io_id, last_io)) => {
                        router.waiting.push((io_id, last_io, Event::Cancel { id: *id }));
                        None
                    }
                    None => Some(command),
                }
            }
            Command::Unexport { oid } | Command::InputClosed { oid } => match owner(*oid) {
                Owner::Native => Some(command),
                Owner::Jvm => {
                    router.return_export(*oid);
                    self.queue_for_jvm(now, raw, None);
                    None
                }
                Owner::Gone => None,
            },
            Command::Stream { oid, io_id, op } => match owner(*oid) {
                Owner::Native => Some(command),
                Owner::Jvm => {
                    router.note_stream(*oid, *io_id, op);
                    self.queue_for_jvm(now, raw, None);
                    None
                }
                Owner::Gone => {
                    let kind = kind_of(op);
                    if op.size() > 0 {
                        self.refuse_writes(kind, *oid, &ended());
                        self.send(command::ack(kind, *oid, i32::try_from(op.size()).unwrap_or(i32::MAX)));
                    }
                    None
                }
            },
            Command::Connect { ros, .. } => match owner(*ros) {
                Owner::Native => Some(command),
                Owner::Jvm => {
                    self.queue_for_jvm(now, raw, None);
                    None
                }
                Owner::Gone => None,
            },
            Command::Ack { oid, size } => {
                let size = usize::try_from(*size).unwrap_or(0);
                match router.acknowledged(*oid, size) {
                    None | Some(None) => Some(command),
                    Some(Some(generation)) => {
                        if generation == router.generation && router.is_running() {
                            self.queue_for_jvm(now, raw, None);
                        }
                        None
                    }
                }
            }
            // Who does not write there does not mind.
            Command::DeadWriter { .. } => {
                if router.is_running() {
                    self.queue_for_jvm(now, raw, None);
                }
                Some(command)
            }
            Command::Other { class } if router.is_running() => {
                self.queue_for_jvm(now, raw, None);
                (class == "hudson.remoting.GCCommand").then_some(command)
            }
            _ => Some(command),
        }
    }

    /// Notes something that this agent writes to a stream of the controller's.
    pub(super) fn note_native_write(&mut self, oid: i32, size: usize) {
        if let Some(router) = &mut self.router
            && (router.is_present() || router.unacknowledged.contains_key(&oid))
        {
            // What was written before a JVM came is acknowledged first.
            let first = !router.unacknowledged.contains_key(&oid);
            let before = self.windows.get(&oid).filter(|_| first).map_or(size, |window| WINDOW - window.available);
            router.note_write(oid, None, before.max(size));
        }
    }

    /// Queues an event for this agent behind a pipe operation of the controller's, whoever does that.
    pub(super) fn when_io_done(&mut self, last_io: i32, event: Event) {
        if let Some(router) = &mut self.router
            && router.is_running()
            && last_io != 0
            && router.io.contains(&last_io)
        {
            if !router.waiting.iter().any(|(io_id, ..)| *io_id == last_io) {
                router.private_call(last_io, Private::Sync(last_io));
            }
            router.waiting.push((last_io, last_io, event));
            return;
        }
        self.when_done(last_io, event);
    }

    fn release_waiting(&mut self, done: impl Fn(i32) -> bool) {
        let Some(router) = &mut self.router else { return };
        let (ready, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut router.waiting).into_iter().partition(|(io_id, ..)| done(*io_id));
        router.waiting = rest;
        for (_, last_io, event) in ready {
            self.when_done(last_io, event);
        }
    }

    // ---- for who runs the JVM --------------------------------------------------------------------------------------

    /// Asks for a JVM although there is nothing for it yet.
    pub fn want_jvm(&mut self, now: Instant) {
        if let Some(router) = &mut self.router
            && router.phase == Phase::Absent
        {
            router.phase = Phase::Starting;
            router.touch(now);
            let wanted = JvmEvent::Wanted { generation: router.generation, first: router.first, label: None };
            self.events.push_back(Event::Jvm(wanted));
        }
    }

    /// The JVM of this number is ready for commands. False if it is not wanted any more.
    pub fn jvm_started(&mut self, now: Instant, generation: u32) -> bool {
        let Some(router) = &mut self.router else { return false };
        if router.generation != generation || router.phase != Phase::Starting {
            return false;
        }
        router.heard = now;
        router.touch(now);
        for (_, id, bytes) in &router.setups {
            router.replaying.insert(*id);
            router.express.push_back(bytes.clone());
            if let Ok(Command::UserRequest { loader, request, .. }) = read(bytes.clone()) {
                let introduced = Graph::decode(request, &Limits::default());
                let introduced = introduced.map(|graph| command::introduced_loaders(&graph)).unwrap_or_default();
                for oid in loader.into_iter().chain(introduced) {
                    *router.phantoms.entry(oid).or_default() += 1;
                }
            }
        }
        router.phase = if router.replaying.is_empty() { Phase::Up } else { Phase::Replaying };
        true
    }

    /// The next command for the JVM of this number.
    pub fn poll_jvm_transmit(&mut self, generation: u32) -> Option<Bytes> {
        let router = self.router.as_mut()?;
        if router.generation != generation || !router.is_running() {
            return None;
        }
        if let Some(bytes) = router.express.pop_front() {
            return Some(bytes);
        }
        if router.phase != Phase::Up {
            return None;
        }
        // What this agent has yet to do for a request keeps back all that follows it: nothing may be overtaken.
        if let Some((_, last_io)) = router.queue.front()?.request
            && !self.done_up_to(last_io)
        {
            return None;
        }
        let router = self.router.as_mut()?;
        let Queued { bytes, request } = router.queue.pop_front()?;
        router.queued -= bytes.len();
        let brings = request.and_then(|(id, _)| router.held.get_mut(&id)).and_then(|held| held.brings.take());
        for grant in brings.into_iter().flat_map(|(_, grants)| grants) {
            *router.refs.entry(grant).or_default() += 1;
        }
        Some(bytes)
    }

    /// Takes a command of the JVM's.
    ///
    /// # Errors
    /// What is wrong with it. The JVM of this number has been given up then, and is to be killed.
    pub fn handle_jvm_command(&mut self, now: Instant, generation: u32, bytes: Bytes) -> Result<(), String> {
        if self.router.as_ref().is_none_or(|router| router.generation != generation || !router.is_running()) {
            return Err("it is not wanted any more".to_owned());
        }
        let result = self.jvm_command(now, bytes);
        if let Err(reason) = &result {
            self.jvm_lost(now, generation, reason);
        }
        result
    }

    fn jvm_command(&mut self, now: Instant, bytes: Bytes) -> Result<(), String> {
        let command = read(bytes.clone()).map_err(|error| format!("it sent a malformed command: {error}"))?;
        let peer = self.peer;
        let Some(router) = &mut self.router else { return Ok(()) };
        router.heard = now;
        match &command {
            Command::Response { id, .. } if router.private.contains_key(id) => {
                let done = match router.private.remove(id) {
                    Some(Private::Sync(done)) => done,
                    _ => return Ok(()),
                };
                while router.io.front().is_some_and(|io_id| *io_id <= done) {
                    router.io.pop_front();
                }
                self.release_waiting(|io_id| io_id <= done);
                return Ok(());
            }
            Command::Response { id, .. } if router.replaying.remove(id) => {
                if router.replaying.is_empty() && router.phase == Phase::Replaying {
                    router.phase = Phase::Up;
                }
                return Ok(());
            }
            Command::Response { id, answer, .. } => {
                let Some(held) = router.held.remove(id) else {
                    tracing::debug!("the JVM answers a request {id} that it does not have");
                    return Ok(());
                };
                match answer {
                    Answered::Normal(inner) => {
                        if let Ok(graph) = Graph::decode(inner.clone(), &Limits::default()) {
                            router.note_exports(&graph, peer);
                        }
                    }
                    Answered::Value(graph) => router.note_exports(graph, peer),
                    Answered::Exception(_) => {}
                }
                if let (Some((label, raw)), Answered::Normal(_)) = (&held.setup, answer) {
                    router.remember(label.clone(), *id, raw);
                }
                let took = now.saturating_duration_since(held.since);
                self.events.push_back(Event::Jvm(JvmEvent::Answered { label: held.label, took }));
            }
            Command::UserRequest { id, .. }
            | Command::Rpc { id, .. }
            | Command::Read { id, .. }
            | Command::UnknownRequest { id, .. } => {
                if *id < router.first.request || *id >= FIRST_ID {
                    return Err(format!("its request has the id {id}, which is not its own"));
                }
                if router.calls.len() >= MAX_REQUESTS {
                    return Err(format!("it floods the controller: {MAX_REQUESTS} requests wait"));
                }
                router.calls.insert(*id);
                router.highest.request = router.highest.request.max(*id);
                match &command {
                    Command::UserRequest { request, .. } => {
                        if let Ok(graph) = Graph::decode(request.clone(), &Limits::default()) {
                            router.note_exports(&graph, peer);
                        }
                    }
                    Command::Rpc { graph, .. } => router.note_exports(graph, peer),
                    _ => {}
                }
            }
            Command::Cancel { id } => {
                router.calls.remove(id);
            }
            Command::Stream { oid, io_id, op } => {
                if *io_id < router.first.io || *io_id >= FIRST_ID {
                    return Err(format!("its pipe operation has the id {io_id}, which is not its own"));
                }
                router.highest.io = router.highest.io.max(*io_id);
                match op {
                    StreamOp::Close(_) | StreamOp::Release => {
                        router.return_ref(match kind_of(op) {
                            StreamKind::Bytes if router.refs.contains_key(&Grant::Output(*oid)) => Grant::Output(*oid),
                            _ => Grant::Writer(*oid),
                        });
                    }
                    _ if op.size() > 0 => {
                        if router.turns >= MAX_UNACKNOWLEDGED {
                            return Err("it floods the controller: what it wrote to too many streams waits".to_owned());
                        }
                        // What this agent wrote there before the JVM came is acknowledged first.
                        if !router.unacknowledged.contains_key(oid)
                            && let Some(before) = self.windows.get(oid).map(|window| WINDOW - window.available)
                        {
                            router.note_write(*oid, None, before);
                        }
                        router.note_write(*oid, Some(router.generation), op.size());
                    }
                    _ => {}
                }
            }
            Command::InputClosed { oid } => router.return_ref(Grant::Input(*oid)),
            Command::Unexport { oid } => {
                if let Some(count) = router.phantoms.get_mut(oid) {
                    *count -= 1;
                    if *count == 0 {
                        router.phantoms.remove(oid);
                    }
                    return Ok(());
                }
                router.return_ref(Grant::Proxy(*oid));
            }
            Command::Connect { ros, pos } => {
                router.return_ref(Grant::PipeSource(*ros));
                router.highest.oid = router.highest.oid.max(*pos);
                *router.exports.entry(*pos).or_default() += 1;
            }
            Command::Ack { oid, size } => {
                if let Some((_, left)) = router.writes.get_mut(oid) {
                    *left = left.saturating_sub(usize::try_from(*size).unwrap_or(0));
                    if *left == 0 {
                        router.writes.remove(oid);
                    }
                }
            }
            Command::DeadWriter { .. } | Command::Other { .. } => {}
            // Its end is no end of the channel.
            Command::Close { .. } => return Err("it closed its channel".to_owned()),
        }
        router.touch(now);
        self.send(bytes);
        Ok(())
    }

    /// Gives the JVM up if nothing has happened to it for so long, it executes nothing, and the controller holds nothing of
    /// it: says so then, or since when it has been idle.
    ///
    /// # Errors
    /// Since when it has been idle; now, if it isn't.
    pub fn stop_idle_jvm(&mut self, now: Instant, generation: u32, idle: Duration) -> Result<(), Instant> {
        let Some(router) = &self.router else { return Err(now) };
        let busy = router.generation != generation
            || router.phase != Phase::Up
            || !(router.held.is_empty()
                && router.queue.is_empty()
                && router.calls.is_empty()
                && router.exports.is_empty()
                && router.waiting.is_empty());
        if busy {
            return Err(now);
        }
        if now < router.touched + idle {
            return Err(router.touched);
        }
        self.jvm_lost(now, generation, "it was idle");
        Ok(())
    }

    /// The JVM of this number has ended, or could not be started: all that it held is failed, and its references go back.
    pub fn jvm_lost(&mut self, now: Instant, generation: u32, why: &str) {
        let Some(router) = &mut self.router else { return };
        if router.generation != generation || !router.is_present() {
            return;
        }
        let was_up = router.phase == Phase::Up;
        router.backoff = (!was_up).then(|| (now + RETRY_AFTER, why.to_owned()));
        router.phase = Phase::Absent;
        router.generation += 1;
        // All ids of its requests and pipe operations were seen; of its objects perhaps not all.
        let next = router.highest.oid.max(router.first.oid);
        router.first = FirstIds {
            request: router.highest.request.max(router.first.request - 1) + 1,
            io: router.highest.io.max(router.first.io - 1) + 1,
            oid: next.saturating_add(OBJECTS_PER_JVM),
        };
        if router.first.oid >= FIRST_ID - OBJECTS_PER_JVM {
            let far = now + Duration::from_secs(365 * 86_400);
            router.backoff = Some((far, "too many JVMs have ended on this connection".to_owned()));
        }
        router.queue = VecDeque::new();
        router.queued = 0;
        router.express = VecDeque::new();
        router.replaying.clear();
        router.phantoms.clear();
        router.private.clear();
        router.calls = HashSet::new();
        router.exports = HashMap::new();
        router.io = VecDeque::new();
        let mut held: Vec<_> = std::mem::take(&mut router.held).into_iter().collect();
        let writes = std::mem::take(&mut router.writes);
        let refs = std::mem::take(&mut router.refs);
        held.sort_unstable_by_key(|(id, _)| *id);
        for (id, held) in held {
            let label = printable(&held.label);
            let throw = if was_up {
                Throw::io(format!("the JVM of this agent ended while it executed {label}: {why}"))
            } else {
                Throw::abort(held.not_native(why))
            };
            self.refuse_held(id, held, &throw);
        }
        for (oid, (kind, size)) in writes {
            self.refuse_writes(kind, oid, &ended());
            self.send(command::ack(kind, oid, i32::try_from(size).unwrap_or(i32::MAX)));
        }
        for (grant, count) in refs {
            (0..count).for_each(|_| self.give_back(grant));
        }
        self.release_waiting(|_| true);
    }

    pub(super) fn jvm_poll_timeout(&self) -> Option<Instant> {
        let router = self.router.as_ref().filter(|router| router.phase == Phase::Up && !router.held.is_empty())?;
        let ping = router.heard + router.liveness.idle;
        Some(if router.private.is_empty() { ping } else { ping + router.liveness.patience })
    }

    /// Whether a JVM that executes something still lives.
    pub(super) fn jvm_timeout(&mut self, now: Instant) {
        if self.jvm_poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        let Some(router) = &mut self.router else { return };
        if now >= router.heard + router.liveness.idle + router.liveness.patience {
            let silent = (now - router.heard).as_secs();
            return self.fail_jvm(now, format!("it has not answered for {silent} s"));
        }
        if router.private.is_empty() {
            router.private_call(0, Private::Ping);
        }
    }

    /// Whether there is something for the JVM.
    pub(in crate::channel) fn has_jvm_transmit(&self) -> bool {
        self.router.as_ref().is_some_and(|router| !router.queue.is_empty() || !router.express.is_empty())
    }
}

impl Router {
    fn remember(&mut self, label: String, id: i32, raw: &Bytes) {
        self.setups.retain(|(known, ..)| *known != label);
        if self.setups.len() < MAX_SETUPS && raw.len() <= MAX_SETUP_SIZE {
            // A copy: the command is a part of a larger buffer.
            self.setups.push((label, id, Bytes::copy_from_slice(raw)));
        }
    }

    /// Notes what the controller does to a stream of the JVM's.
    fn note_stream(&mut self, oid: i32, io_id: i32, op: &StreamOp) {
        if self.io.len() >= MAX_REMEMBERED_IO {
            self.io.pop_front();
        }
        self.io.push_back(io_id);
        if op.size() > 0 {
            self.writes.entry(oid).or_insert((kind_of(op), 0)).1 += op.size();
        }
        if matches!(op, StreamOp::Close(_) | StreamOp::Release) {
            self.return_export(oid);
        }
    }
}

fn kind_of(op: &StreamOp) -> StreamKind {
    if matches!(op, StreamOp::Chars(_)) { StreamKind::Chars } else { StreamKind::Bytes }
}

fn read(bytes: Bytes) -> Result<Command, String> {
    let graph = Graph::decode(bytes, &Limits::default()).map_err(|error| error.to_string())?;
    Command::read(graph).map_err(|error| error.to_string())
}

/// Who a request is for: by the object whose method it calls, else by its callable; and by all objects that it names.
fn place(router: &Router, now: Instant, graph: &Graph) -> Place {
    const NATIVE: Place = Place::Native { setup: None };
    let Some(root) = graph.root() else { return NATIVE };
    // Without a JVM, now or ever, nothing of one can be named.
    let alone = !router.is_present() && router.generation == 0;
    if root.hierarchy().any(|class| class == "hudson.remoting.RemoteInvocationHandler$RPCRequest") {
        let text = |name| root.string(name).ok().flatten().unwrap_or_default();
        let (interface, method) = (text("declaringClassName"), text("methodName"));
        let oid = root.int("oid").unwrap_or_default();
        if oid == CHANNEL_OID {
            // Properties are set by what runs in a JVM; who waits for one waits for what is yet to run there.
            let waits = method == "waitForProperty" || method == "waitForRemoteProperty";
            let for_jvm = router.is_present() || waits;
            return if for_jvm {
                Place::Jvm { label: format!("{interface}.{method}"), owner: "Jenkins itself".to_owned(), setup: false }
            } else {
                NATIVE
            };
        }
        if alone {
            return NATIVE;
        }
        let mut pins = router.pins(graph);
        pins[router.owner(oid) as usize] = true;
        return pinned(pins, format!("{interface}.{method}"), interface.into_owned(), false);
    }
    let Judged { label, owner, native, better_in_jvm, setup } = (router.judge)(graph);
    let native = native
        && !(better_in_jvm && (router.is_present() || router.backoff.as_ref().is_none_or(|(until, _)| now >= *until)));
    let native_place = |label| Place::Native { setup: setup.then_some(label) };
    if native && alone {
        return native_place(label);
    }
    match router.pins(graph) {
        [_, false, false] if native => native_place(label),
        [false, false, false] => Place::Jvm { label, owner, setup },
        [true, false, false] => Place::Refuse(Throw::abort(format!(
            "{} is not native in this agent, so it would need a JVM, but its arguments name an object that exists in \
             this agent itself; the two can't be brought together",
            printable(&label)
        ))),
        pins => pinned(pins, label, owner, setup),
    }
}

/// Who a request is for that names objects of these owners.
fn pinned([native, jvm, gone]: [bool; 3], label: String, owner: String, setup: bool) -> Place {
    match (native, jvm, gone) {
        (.., true) => Place::Refuse(ended()),
        (true, true, _) => Place::Refuse(Throw::abort(format!(
            "{} names objects of this agent itself and of its JVM; the two can't be brought together",
            printable(&label)
        ))),
        (false, true, _) => Place::Jvm { label, owner, setup },
        _ => Place::Native { setup: None },
    }
}
