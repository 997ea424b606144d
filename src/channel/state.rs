//! The channel itself: commands and times in, commands and events out. No IO, no clock.

mod router;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::command::{self, Answered, BuildValue, Command, Grant, MethodCall, StreamKind, StreamOp};
use super::throw::{Throw, ThrowClass, printable};
use crate::frame::Capability;
use crate::object::{Graph, Limits, Loader, NodeId};

pub use router::{FirstIds, Judge, Judged, JvmEvent, MAX_JVM_QUEUE, RETRY_AFTER};

/// Bytes or chars that may be on their way to one stream (`Channel.PIPE_WINDOW_SIZE`).
pub const WINDOW: usize = 1 << 20;
/// Requests of the peer's that may be in progress at a time; more are refused.
pub const MAX_REQUESTS: usize = 2_000;
/// Pipe operations of the peer's that may be in progress at a time, over all streams: what a window allows of the
/// smallest writes, and operations that no window counts.
pub const MAX_PENDING_IO: usize = 2 * WINDOW;
/// Most warnings in each [`WARNING_PERIOD`]; further ones are counted.
pub const MAX_WARNINGS: u32 = 10;
/// See [`MAX_WARNINGS`].
pub const WARNING_PERIOD: Duration = Duration::from_secs(60);
/// Class loaders of the peer's to which a reference is kept: a controller has one per plugin.
const MAX_LOADERS: usize = 2_000;
/// First of the ids that this agent allocates. Lower ones are left to a JVM that may share the channel one day.
pub const FIRST_ID: i32 = 1 << 30;
/// Object id of the channel itself (`IChannel`), at both ends.
pub const CHANNEL_OID: i32 = 1;
/// How long the peer may take to answer a `CloseCommand`.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// When a silent peer is asked whether it lives, and when it is taken for dead.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    /// Silence after which a ping is sent.
    pub idle: Duration,
    /// Further silence after which the peer is dead.
    pub patience: Duration,
}

impl Default for Liveness {
    /// A minute, and the four that remoting's own `PingThread` waits.
    fn default() -> Self {
        Liveness { idle: Duration::from_secs(60), patience: Duration::from_secs(240) }
    }
}

/// Why a channel ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer closed it, in order.
    #[error("the controller closed the channel{}", .0.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default())]
    ByPeer(Option<String>),
    /// This agent closed it, in order or after the peer did not answer.
    #[error("this agent closed the channel")]
    ByUs,
    /// The peer has been silent for too long.
    #[error("nothing was heard from the controller for {} s", .0.as_secs())]
    Silent(Duration),
    /// The peer sent something that is not a command.
    #[error("the controller sent a malformed command: {0}")]
    Malformed(String),
    /// The peer broke a rule that keeps memory bounded.
    #[error("the controller broke a rule of the protocol: {0}")]
    Violation(String),
    /// The connection below ended.
    #[error("the connection ended: {0}")]
    Transport(String),
}

/// What the channel has for its user.
#[derive(Debug)]
pub enum Event {
    /// A request is to be executed and answered.
    Request {
        /// Its id.
        id: i32,
        /// The callable, or the `RPCRequest`.
        graph: Graph,
        /// Sent bare: it is answered by [`Channel::respond_plain`].
        bare: bool,
    },
    /// The peer reads from an exported stream: to be answered by [`Channel::respond_plain`].
    Read {
        /// Its id.
        id: i32,
        /// The stream.
        oid: i32,
        /// At most so many bytes.
        length: i32,
    },
    /// A request in progress is to be given up.
    Cancel {
        /// Its id.
        id: i32,
    },
    /// Something was done to an exported stream: to be followed by [`Channel::io_done`].
    Stream {
        /// The stream.
        oid: i32,
        /// Number of the operation.
        io_id: i32,
        /// The operation.
        op: StreamOp,
    },
    /// The peer has read enough of an exported stream.
    InputClosed {
        /// The stream.
        oid: i32,
    },
    /// The last reference to an exported object has come back.
    Dropped {
        /// The object.
        oid: i32,
    },
    /// A request of ours was answered.
    Answer {
        /// Its id.
        id: i32,
        /// The value, or what the exception says of itself.
        result: Result<Graph, String>,
    },
    /// Something concerns the JVM that shares the channel.
    Jvm(JvmEvent),
    /// The peer did something that has no meaning; the channel goes on.
    Warning(String),
    /// The channel has ended. The last event.
    Closed(CloseReason),
}

#[derive(Debug)]
struct Window {
    available: usize,
    dead: bool,
    handles: usize,
}

#[derive(Debug, Default)]
struct Executing {
    /// Sent bare, and to be answered so.
    bare: bool,
    cancelled: bool,
    /// The class loader that came with the request.
    loader: Option<i32>,
    /// References to class loaders that go back with the answer.
    loaders: Vec<i32>,
    grants: Vec<(NodeId, Grant)>,
    last_io: i32,
}

/// How much was warned of lately.
#[derive(Debug)]
struct Warnings {
    since: Instant,
    given: u32,
    withheld: u64,
}

#[derive(Debug)]
enum Phase {
    Open,
    Closing { deadline: Instant },
    Closed,
}

/// Ids of one kind.
#[derive(Debug)]
struct Ids(i32);

impl Ids {
    fn next(&mut self) -> i32 {
        let id = self.0;
        self.0 = id.checked_add(1).unwrap_or(FIRST_ID);
        id
    }
}

/// One end of a channel.
#[derive(Debug)]
pub struct Channel {
    peer: Capability,
    liveness: Liveness,
    limits: Limits,
    phase: Phase,
    heard: Instant,
    pinged: Option<i32>,
    /// A class loader of the peer's, kept referenced, with which it resolves what this agent asks of its own accord.
    home_loader: Option<i32>,
    /// Class loaders of the peer's to which one reference is kept.
    kept_loaders: BTreeSet<i32>,
    oids: Ids,
    io_ids: Ids,
    request_ids: Ids,
    /// References that the peer holds, by object.
    exports: HashMap<i32, u32>,
    /// What the peer has written to a stream of ours and was not acknowledged.
    unacknowledged: HashMap<i32, usize>,
    windows: HashMap<i32, Window>,
    executing: HashMap<i32, Executing>,
    /// Pipe operations of the peer's in progress, and how many of each number.
    pending_io: BTreeMap<i32, u32>,
    /// How many they are.
    pending: usize,
    /// What waits for pipe operations up to a number.
    waiting: Vec<(i32, Event)>,
    /// Requests of ours that wait for an answer.
    calls: HashSet<i32>,
    out: VecDeque<Bytes>,
    out_bytes: usize,
    events: VecDeque<Event>,
    warnings: Warnings,
    /// A window has grown or died.
    windows_changed: bool,
    /// The other tenant, if there may be one.
    router: Option<Box<router::Router>>,
}

impl Channel {
    /// A channel that has just been negotiated with a peer of this capability.
    pub fn new(now: Instant, peer: Capability, liveness: Liveness) -> Channel {
        Channel {
            peer,
            liveness,
            limits: Limits::default(),
            phase: Phase::Open,
            heard: now,
            pinged: None,
            home_loader: None,
            kept_loaders: BTreeSet::new(),
            oids: Ids(FIRST_ID),
            io_ids: Ids(FIRST_ID),
            request_ids: Ids(FIRST_ID),
            exports: HashMap::new(),
            unacknowledged: HashMap::new(),
            windows: HashMap::new(),
            executing: HashMap::new(),
            pending_io: BTreeMap::new(),
            pending: 0,
            waiting: Vec::new(),
            calls: HashSet::new(),
            out: VecDeque::new(),
            out_bytes: 0,
            events: VecDeque::new(),
            warnings: Warnings { since: now, given: 0, withheld: 0 },
            windows_changed: false,
            router: None,
        }
    }

    /// The peer's capability.
    pub fn peer(&self) -> Capability {
        self.peer
    }

    /// From now on the peer's silence is judged by this.
    pub fn set_liveness(&mut self, liveness: Liveness) {
        self.liveness = liveness;
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next command to be sent.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        let command = self.out.pop_front()?;
        self.out_bytes -= command.len();
        Some(command)
    }

    /// Bytes that wait to be sent. Streams are to pause while this is large; answers are not.
    pub fn queued_bytes(&self) -> usize {
        self.out_bytes
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = self.own_timeout()?;
        Some(self.jvm_poll_timeout().map_or(own, |jvm| own.min(jvm)))
    }

    fn own_timeout(&self) -> Option<Instant> {
        let ping = self.heard + self.liveness.idle;
        match self.phase {
            Phase::Open if self.pinged.is_none() && self.home_loader.is_some() => Some(ping),
            Phase::Open => Some(ping + self.liveness.patience),
            Phase::Closing { deadline } => Some(deadline),
            Phase::Closed => None,
        }
    }

    /// Tells the channel that time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.jvm_timeout(now);
        if self.own_timeout().is_none_or(|at| now < at) {
            return;
        }
        match self.phase {
            Phase::Closing { .. } => self.end(CloseReason::ByUs),
            Phase::Open if now >= self.heard + self.liveness.idle + self.liveness.patience => {
                self.end(CloseReason::Silent(now - self.heard));
            }
            Phase::Open => self.pinged = self.call_user("hudson.remoting.PingThread$Ping", command::ping()),
            Phase::Closed => {}
        }
    }

    /// Whether the channel has ended, or is about to.
    pub fn is_closed(&self) -> bool {
        !matches!(self.phase, Phase::Open)
    }

    /// Closes the channel in order.
    pub fn close(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Open) {
            for oid in std::mem::take(&mut self.kept_loaders) {
                self.send(command::unexport(oid));
            }
            self.send(command::close());
            self.phase = Phase::Closing { deadline: now + CLOSE_TIMEOUT };
        }
    }

    /// The connection below has ended.
    pub fn lost(&mut self, why: impl Into<String>) {
        let reason = match self.phase {
            Phase::Closing { .. } => CloseReason::ByUs,
            _ => CloseReason::Transport(why.into()),
        };
        self.end(reason);
    }

    fn end(&mut self, reason: CloseReason) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        self.phase = Phase::Closed;
        // Of what waits, an answer that came is good; a request can't be answered any more.
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|(_, event)| event);
        self.events.extend(waiting.filter(|event| matches!(event, Event::Answer { .. })));
        let mut calls: Vec<i32> = self.calls.drain().collect();
        calls.sort_unstable();
        for id in calls {
            self.events.push_back(Event::Answer { id, result: Err(reason.to_string()) });
        }
        self.events.push_back(Event::Closed(reason));
    }

    fn send(&mut self, command: Bytes) {
        if matches!(self.phase, Phase::Open) {
            self.out_bytes += command.len();
            self.out.push_back(command);
        }
    }

    fn warn(&mut self, warning: &str) {
        if self.heard >= self.warnings.since + WARNING_PERIOD {
            if self.warnings.withheld > 0 {
                let text = format!("{} more warnings of this channel were left out", self.warnings.withheld);
                self.events.push_back(Event::Warning(text));
            }
            self.warnings = Warnings { since: self.heard, given: 0, withheld: 0 };
        }
        if self.warnings.given < MAX_WARNINGS {
            self.warnings.given += 1;
            self.events.push_back(Event::Warning(printable(warning)));
        } else {
            self.warnings.withheld += 1;
        }
    }

    /// Whether a window has grown or died since this was last asked: writers may go on.
    pub fn take_windows_changed(&mut self) -> bool {
        std::mem::take(&mut self.windows_changed)
    }

    // ---- what the peer sends --------------------------------------------------------------------------------------

    /// Takes a command, as an object stream.
    pub fn handle_command(&mut self, now: Instant, bytes: Bytes) {
        self.heard = now;
        self.pinged = None;
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        let raw = bytes.clone();
        let command = match Graph::decode(bytes, &self.limits) {
            Ok(graph) => Command::read(graph),
            Err(error) => return self.end(CloseReason::Malformed(error.to_string())),
        };
        match command {
            Ok(command) => self.command(now, command, &raw),
            // What Java does with a command that it can't construct: it says so and goes on.
            Err(error) => self.warn(&format!("a command was ignored: {error}")),
        }
    }

    fn command(&mut self, now: Instant, command: Command, raw: &Bytes) {
        match command {
            Command::UserRequest { id, .. }
            | Command::Rpc { id, .. }
            | Command::Read { id, .. }
            | Command::UnknownRequest { id, .. }
                if self.executing.contains_key(&id) || self.is_held(id) =>
            {
                // Two answers with one id can't be told apart, nor could a cancellation.
                self.warn(&format!("a second request {id} was ignored: the first is in progress"));
            }
            // The answer could not be sent any more.
            Command::UserRequest { .. }
            | Command::Rpc { .. }
            | Command::Read { .. }
            | Command::UnknownRequest { .. }
                if self.is_closed() => {}
            Command::UserRequest { id, last_io, request, loader } => {
                self.user_request(now, raw, (id, last_io), request, loader);
            }
            command => {
                if let Some(command) = self.route(now, command, raw) {
                    self.own_command(command);
                }
            }
        }
    }

    /// A command that is this agent's own to obey.
    fn own_command(&mut self, command: Command) {
        match command {
            // Decoded and routed by itself.
            Command::UserRequest { .. } => {}
            Command::Rpc { id, last_io, graph } => {
                let executing = Executing { bare: true, grants: self.grants(&graph), ..Executing::default() };
                if self.begin(id, executing) {
                    self.when_io_done(last_io, Event::Request { id, graph, bare: true });
                }
            }
            Command::Read { id, oid, length } => {
                if self.begin(id, Executing { bare: true, ..Executing::default() }) {
                    self.events.push_back(Event::Read { id, oid, length });
                }
            }
            Command::UnknownRequest { id, class } => {
                if self.begin(id, Executing { bare: true, ..Executing::default() }) {
                    let throw = Throw::io(format!("this agent does not know requests of the class {class}"));
                    self.refuse(id, &throw);
                }
            }
            Command::Response { id, last_io, answer } => self.response(id, last_io, answer),
            Command::Cancel { id } => {
                let Some(executing) = self.executing.get_mut(&id) else { return };
                if std::mem::replace(&mut executing.cancelled, true) {
                    return;
                }
                // A request that still waits is not known yet to whom this event is for.
                let request = |(_, event): &&(i32, Event)| matches!(event, Event::Request { id: of, .. } if *of == id);
                match self.waiting.iter().find(request).map(|(io_id, _)| *io_id) {
                    Some(io_id) => self.waiting.push((io_id, Event::Cancel { id })),
                    None => self.events.push_back(Event::Cancel { id }),
                }
            }
            Command::Unexport { oid } => self.dereference(oid),
            Command::Stream { oid, io_id, op } => self.stream(oid, io_id, op),
            Command::Ack { oid, size } => {
                // Acknowledgements outlive the handle that wrote: then there is no window any more.
                if let (Some(window), Ok(size)) = (self.windows.get_mut(&oid), usize::try_from(size)) {
                    window.available = window.available.saturating_add(size).min(WINDOW);
                    self.windows_changed = true;
                }
            }
            Command::DeadWriter { oid } => {
                if let Some(window) = self.windows.get_mut(&oid) {
                    window.dead = true;
                    self.windows_changed = true;
                }
            }
            Command::InputClosed { oid } => {
                if self.exports.contains_key(&oid) {
                    self.events.push_back(Event::InputClosed { oid });
                    self.dereference(oid);
                }
            }
            Command::Connect { ros, .. } => {
                self.warn(&format!("the controller connects the pipe {ros}, which is not exported"));
            }
            Command::Close { cause } => {
                let reason = if self.is_closed() {
                    CloseReason::ByUs
                } else {
                    CloseReason::ByPeer(cause.map(|cause| printable(&cause)))
                };
                self.send(command::close());
                self.end(reason);
            }
            Command::Other { class } if class == "hudson.remoting.GCCommand" => {}
            Command::Other { class } => self.warn(&format!("a command of the unknown class {class} was ignored")),
        }
    }

    fn user_request(
        &mut self,
        now: Instant,
        raw: &Bytes,
        (id, last_io): (i32, i32),
        request: Bytes,
        loader: Option<i32>,
    ) {
        let mut loaders: Vec<i32> = loader.into_iter().collect();
        let request = match Graph::decode(request, &self.limits) {
            Ok(graph) => match self.route_request(now, raw, (id, last_io), loader, graph) {
                Some(graph) => Ok(graph),
                None => return,
            },
            Err(error) => Err(error),
        };
        if let Ok(graph) = &request {
            loaders.extend(command::introduced_loaders(graph));
        }
        loaders.retain(|oid| !self.keep_loader(*oid));
        self.home_loader = self.home_loader.or(loader.filter(|oid| self.kept_loaders.contains(oid)));
        let grants = request.as_ref().map_or_else(|_| Vec::new(), |graph| self.grants(graph));
        if self.begin(id, Executing { loader, loaders, grants, ..Executing::default() }) {
            match request {
                Ok(graph) => self.when_io_done(last_io, Event::Request { id, graph, bare: false }),
                Err(error) => self.refuse(id, &Throw::io(format!("the request is malformed: {error}"))),
            }
        }
    }

    /// Keeps the first reference to each class loader for as long as the channel lives, as Java does: the peer resolves
    /// an answer's classes on another thread than the one that takes references back, some time after the answer.
    fn keep_loader(&mut self, oid: i32) -> bool {
        self.kept_loaders.len() < MAX_LOADERS && self.kept_loaders.insert(oid)
    }

    /// What a request brings that must go back.
    fn grants(&self, graph: &Graph) -> Vec<(NodeId, Grant)> {
        command::grants(graph, self.peer)
    }

    /// Notes a request and what comes with it; false if it was refused.
    fn begin(&mut self, id: i32, executing: Executing) -> bool {
        let full = self.executing.len() + self.held_by_jvm() >= MAX_REQUESTS;
        self.executing.insert(id, executing);
        if full {
            self.refuse(id, &Throw::io(format!("this agent executes {MAX_REQUESTS} requests already")));
        }
        !full
    }

    /// Answers a request that was begun, in its own shape.
    fn refuse(&mut self, id: i32, throw: &Throw) {
        match self.executing.get(&id) {
            Some(executing) if executing.bare => self.respond_plain(id, Err(throw)),
            Some(executing) => self.respond_user(id, self.annotation(executing.loader), Err(throw)),
            None => {}
        }
    }

    /// How classes in an answer to a user request that came with this class loader must be annotated: always, if the
    /// peer has [`Capability::MULTI_CLASSLOADER`], which makes it read what is not there otherwise.
    pub fn annotation(&self, loader: Option<i32>) -> Loader {
        if self.peer.has(Capability::MULTI_CLASSLOADER) {
            // Without a class loader, classes of the JDK and of remoting can still be resolved.
            Loader::Receivers(loader.or(self.home_loader).unwrap_or(0))
        } else {
            Loader::None
        }
    }

    /// Queues the event behind the peer's pipe operations up to `io_id`.
    fn when_done(&mut self, io_id: i32, event: Event) {
        if self.done_up_to(io_id) {
            self.events.push_back(event);
        } else {
            self.waiting.push((io_id, event));
        }
    }

    fn done_up_to(&self, io_id: i32) -> bool {
        self.pending_io.first_key_value().is_none_or(|(first, _)| *first > io_id)
    }

    fn response(&mut self, id: i32, last_io: i32, answer: Answered) {
        if !self.calls.remove(&id) {
            return;
        }
        let result = match answer {
            Answered::Value(graph) => Ok(graph),
            Answered::Exception(text) => Err(text),
            Answered::Normal(bytes) => match Graph::decode(bytes, &self.limits) {
                Ok(graph) => {
                    for oid in command::introduced_loaders(&graph) {
                        if !self.keep_loader(oid) {
                            self.send(command::unexport(oid));
                        }
                    }
                    Ok(graph)
                }
                Err(error) => Err(format!("the answer is malformed: {error}")),
            },
        };
        self.when_done(last_io, Event::Answer { id, result });
    }

    fn dereference(&mut self, oid: i32) {
        match self.exports.get_mut(&oid) {
            Some(references) if *references > 1 => *references -= 1,
            Some(_) => {
                self.exports.remove(&oid);
                self.unacknowledged.remove(&oid);
                self.events.push_back(Event::Dropped { oid });
            }
            None => self.warn(&format!("a reference to the object {oid} came back, which is not exported")),
        }
    }

    pub(super) fn stream(&mut self, oid: i32, io_id: i32, op: StreamOp) {
        if !self.exports.contains_key(&oid) {
            // An EOF for a stream that is gone is no mistake: Java sends one after an Unexport.
            if op.size() > 0 {
                self.warn(&format!("the controller writes to the stream {oid}, which is not exported"));
            }
            return;
        }
        let unacknowledged = self.unacknowledged.entry(oid).or_default();
        *unacknowledged += op.size();
        if *unacknowledged > 2 * WINDOW {
            return self.end(CloseReason::Violation(format!("it overran the window of the stream {oid}")));
        }
        if self.pending >= MAX_PENDING_IO {
            return self.end(CloseReason::Violation(format!("more than {MAX_PENDING_IO} pipe operations wait")));
        }
        self.pending += 1;
        *self.pending_io.entry(io_id).or_default() += 1;
        let returns = matches!(op, StreamOp::Close(_) | StreamOp::Release);
        self.events.push_back(Event::Stream { oid, io_id, op });
        if returns {
            self.dereference(oid);
        }
    }

    // ---- what its user does ---------------------------------------------------------------------------------------

    /// An operation of the peer's on a stream of ours is done: what waits for it may go on.
    pub fn io_done(&mut self, io_id: i32) {
        let Some(count) = self.pending_io.get_mut(&io_id) else { return };
        self.pending -= 1;
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.pending_io.remove(&io_id);
        if !self.waiting.iter().any(|(io_id, _)| self.done_up_to(*io_id)) {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        for (io_id, event) in waiting {
            self.when_done(io_id, event);
        }
    }

    /// So many bytes or chars that the peer wrote to a stream of ours were taken: it may send as many again.
    pub fn acknowledge(&mut self, kind: StreamKind, oid: i32, size: usize) {
        if size > 0 {
            if let Some(unacknowledged) = self.unacknowledged.get_mut(&oid) {
                *unacknowledged = unacknowledged.saturating_sub(size);
            }
            self.send(command::ack(kind, oid, i32::try_from(size).unwrap_or(i32::MAX)));
        }
    }

    /// Writing to a stream of ours failed.
    pub fn refuse_writes(&mut self, kind: StreamKind, oid: i32, why: &Throw) {
        self.send(command::dead_writer(kind, oid, why));
    }

    /// Exports an object. It has no references yet.
    pub fn export(&mut self) -> i32 {
        let mut oid = self.oids.next();
        while self.exports.contains_key(&oid) {
            oid = self.oids.next();
        }
        self.exports.insert(oid, 0);
        oid
    }

    /// Adds a reference, for a copy of the exported object that is about to be sent.
    pub fn add_reference(&mut self, oid: i32) {
        if let Some(references) = self.exports.get_mut(&oid) {
            *references += 1;
        }
    }

    /// Number of objects exported to the peer.
    pub fn exported(&self) -> usize {
        self.exports.len()
    }

    /// Number of the peer's requests in progress.
    pub fn executing(&self) -> usize {
        self.executing.len()
    }

    /// The class loader of the peer's that came with a request in progress: it resolves the classes of the answer.
    pub fn request_loader(&self, request: i32) -> Option<i32> {
        self.executing.get(&request)?.loader
    }

    /// Takes what a node of a request's graph grants: it will not be given back by the answer.
    pub fn claim(&mut self, request: i32, node: NodeId) -> Option<Grant> {
        let grants = &mut self.executing.get_mut(&request)?.grants;
        let at = grants.iter().position(|(id, _)| *id == node)?;
        Some(grants.swap_remove(at).1)
    }

    /// The peer must have done all pipe operations of ours up to this one before it sees the answer to `request`.
    pub fn answer_after(&mut self, request: i32, io_id: i32) {
        if let Some(executing) = self.executing.get_mut(&request) {
            executing.last_io = executing.last_io.max(io_id);
        }
    }

    /// Answers a user request with the stream of a value, or an exception.
    pub fn respond_user(&mut self, id: i32, loader: Loader, result: Result<Bytes, &Throw>) {
        let peer = self.peer;
        self.answer(id, |last_io| command::user_response(id, last_io, peer, loader, result));
    }

    /// Answers a bare request with a value itself, or an exception.
    pub fn respond_plain(&mut self, id: i32, result: Result<BuildValue<'_>, &Throw>) {
        self.answer(id, |last_io| command::plain_response(id, last_io, result));
    }

    /// Answers a request once, and gives back what it brought.
    fn answer(&mut self, id: i32, response: impl FnOnce(i32) -> Bytes) {
        let Some(executing) = self.executing.remove(&id) else { return };
        for (_, grant) in &executing.grants {
            self.give_back(*grant);
        }
        self.send(response(executing.last_io));
        for oid in executing.loaders {
            self.send(command::unexport(oid));
        }
    }

    /// Gives back what was granted and not used.
    pub fn give_back(&mut self, grant: Grant) {
        match grant {
            Grant::Output(oid) => self.release_stream(StreamKind::Bytes, oid),
            Grant::Writer(oid) => self.release_stream(StreamKind::Chars, oid),
            Grant::Input(oid) => self.send(command::input_closed(oid)),
            Grant::Proxy(oid) => self.send(command::unexport(oid)),
            Grant::PipeSource(ros) => {
                // Its writer waits to be connected, for ever. Nothing reads from this stream: its first write fails.
                let pos = self.export();
                self.add_reference(pos);
                self.send(command::connect(ros, pos));
                let why = Throw::new(ThrowClass::Io, "the agent did not read the stream");
                self.refuse_writes(StreamKind::Bytes, pos, &why);
            }
        }
    }

    fn release_stream(&mut self, kind: StreamKind, oid: i32) {
        let io_id = self.io_ids.next();
        self.send(command::release(kind, oid, io_id));
    }

    /// Connects a pipe's writing end at the peer to a new stream of ours.
    pub fn connect_pipe(&mut self, ros: i32) -> i32 {
        let pos = self.export();
        self.add_reference(pos);
        self.send(command::connect(ros, pos));
        pos
    }

    /// Opens a stream of the peer's for writing.
    pub fn open_stream(&mut self, oid: i32) {
        let fresh = Window { available: WINDOW, dead: false, handles: 0 };
        self.windows.entry(oid).or_insert(fresh).handles += 1;
    }

    /// Bytes or chars that may be written to a stream of the peer's now; `None` if writing to it fails there.
    pub fn window(&self, oid: i32) -> Option<usize> {
        self.windows.get(&oid).filter(|window| !window.dead).map(|window| window.available)
    }

    fn consume(&mut self, oid: i32, size: usize) -> i32 {
        if let Some(window) = self.windows.get_mut(&oid) {
            window.available = window.available.saturating_sub(size);
        }
        self.note_native_write(oid, size);
        self.io_ids.next()
    }

    /// Writes bytes, no more than [`window`](Self::window) allows, and gives the operation's number.
    pub fn write(&mut self, oid: i32, bytes: Bytes) -> i32 {
        let io_id = self.consume(oid, bytes.len());
        self.send(command::chunk(oid, io_id, bytes));
        io_id
    }

    /// Writes chars, no more than [`window`](Self::window) allows, and gives the operation's number.
    pub fn write_chars(&mut self, oid: i32, units: &[u16]) -> i32 {
        let io_id = self.consume(oid, units.len());
        self.send(command::chars(oid, io_id, units));
        io_id
    }

    /// Flushes a stream of the peer's and gives the operation's number.
    pub fn flush_stream(&mut self, kind: StreamKind, oid: i32) -> i32 {
        let io_id = self.io_ids.next();
        self.send(command::flush(kind, oid, io_id));
        io_id
    }

    /// Ends the use of a stream of the peer's, which returns the reference to it.
    pub fn close_stream(&mut self, kind: StreamKind, oid: i32, end: End<'_>) -> i32 {
        if let Some(window) = self.windows.get_mut(&oid) {
            window.handles -= 1;
            if window.handles == 0 {
                self.windows.remove(&oid);
            }
        }
        let io_id = self.io_ids.next();
        self.send(match end {
            End::Release => command::release(kind, oid, io_id),
            End::Close => command::eof(kind, oid, io_id, None),
            End::Fail(error) => command::eof(kind, oid, io_id, Some(error)),
        });
        io_id
    }

    /// Sends a user request of ours; `None` if the channel is closed, or too young to know a class loader.
    pub fn call_user(&mut self, label: &str, request: Bytes) -> Option<i32> {
        let loader = self.home_loader?;
        self.call_user_with(loader, label, request)
    }

    /// Sends a user request of ours whose classes a class loader of the peer's resolves; `None` if the channel is
    /// closed.
    pub fn call_user_with(&mut self, loader: i32, label: &str, request: Bytes) -> Option<i32> {
        if self.is_closed() {
            return None;
        }
        let id = self.new_call();
        self.send(command::user_request(id, 0, loader, request, label));
        Some(id)
    }

    /// Calls a method of one of the peer's own objects by a bare request; `None` if the channel is closed.
    pub fn call_rpc(
        &mut self,
        call: &MethodCall<'_>,
        arguments: impl FnOnce(&mut Graph) -> Vec<Option<NodeId>>,
    ) -> Option<i32> {
        if self.is_closed() {
            return None;
        }
        let id = self.new_call();
        self.send(call.request(id, arguments));
        Some(id)
    }

    /// Asks for bytes of a stream of the peer's; `None` if the channel is closed.
    pub fn call_read(&mut self, oid: i32, length: usize) -> Option<i32> {
        if self.is_closed() {
            return None;
        }
        let id = self.new_call();
        self.send(command::read(id, oid, i32::try_from(length).unwrap_or(i32::MAX)));
        Some(id)
    }

    fn new_call(&mut self) -> i32 {
        let mut id = self.request_ids.next();
        while self.calls.contains(&id) {
            id = self.request_ids.next();
        }
        self.calls.insert(id);
        id
    }

    /// Gives up a request of ours: its answer will be ignored.
    pub fn cancel_call(&mut self, id: i32) {
        if self.calls.remove(&id) {
            self.send(command::cancel(id));
        }
    }

    /// A class loader of the peer's that stays referenced as long as the channel.
    pub fn home_loader(&self) -> Option<i32> {
        self.home_loader
    }
}

/// How the use of a stream of the peer's ends.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    /// It stays open for others.
    Release,
    /// It is closed.
    Close,
    /// It is closed, and its reader sees this exception.
    Fail(&'a Throw),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_restart_behind_the_largest_and_pass_over_those_in_use() {
        let mut channel = Channel::new(Instant::now(), Capability::OURS, Liveness::default());
        let first = channel.export();
        assert_eq!(first, FIRST_ID);
        channel.oids = Ids(i32::MAX);
        channel.request_ids = Ids(i32::MAX);
        assert_eq!(channel.export(), i32::MAX);
        assert_eq!(channel.export(), FIRST_ID + 1, "the first is still exported");
        let calls: Vec<_> = (0..3).map(|_| channel.call_read(7, 1).unwrap()).collect();
        assert_eq!(calls, [i32::MAX, FIRST_ID, FIRST_ID + 1]);
        channel.request_ids = Ids(i32::MAX);
        assert_eq!(channel.call_read(7, 1), Some(FIRST_ID + 2));
        channel.io_ids = Ids(i32::MAX);
        let io_ids: Vec<_> = (0..2).map(|_| channel.write(7, Bytes::new())).collect();
        assert_eq!(io_ids, [i32::MAX, FIRST_ID]);
    }

    #[test]
    fn operations_that_are_never_done_are_bounded() {
        let mut channel = Channel::new(Instant::now(), Capability::OURS, Liveness::default());
        let oid = channel.export();
        channel.add_reference(oid);
        for _ in 0..MAX_PENDING_IO {
            channel.stream(oid, 1, StreamOp::Flush);
            channel.events.clear();
        }
        assert!(!channel.is_closed());
        channel.stream(oid, 1, StreamOp::Flush);
        assert!(matches!(channel.poll_event(), Some(Event::Closed(CloseReason::Violation(_)))));
    }
}
