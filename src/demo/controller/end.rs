//! The controller's end of a channel: a table of what it exports, with reference counts, and of what it asks.
//!
//! Written for itself and not with the agent's own state machine, so that a mistake in one is not one in both. It
//! processes every command at once and in order, and notes each rule that the agent breaks: [`End::complaints`].

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::requests::Request;
use crate::channel::command::{self, Answered, Command, Grant, StreamKind, StreamOp};
use crate::channel::state::WINDOW;
use crate::channel::{Throw, ThrowClass};
use crate::frame::Capability;
use crate::object::{Graph, Limits, Loader, Node, View};

/// The class loader of Jenkins core: exported once and for all (`SlaveComputer.setChannel` pins it).
pub const CORE_LOADER: i32 = 2;
/// The first object behind the channel itself and the core loader.
const FIRST_OID: i32 = 3;
/// `Request.nextId` of a controller that has been up for a while.
const FIRST_REQUEST: i32 = 697;
/// Largest piece that is written at once.
const PIECE: usize = 8192;
/// How long an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// An object that the controller exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A class loader, by name.
    Loader(String),
    /// An `OutputStream` that collects what is written.
    Output,
    /// A `Writer` that collects what is written.
    Writer,
    /// An `InputStream` that is read piece by piece.
    Input(Bytes),
    /// The writing end of a pipe that waits for the agent to connect it.
    Source {
        /// What is written once it is connected.
        data: Bytes,
        /// Whether it is closed then.
        ends: bool,
    },
    /// An object with methods, all of which throw.
    Object,
}

#[derive(Debug)]
struct Export {
    references: u32,
    kind: Kind,
}

/// What was written to an output stream or writer.
#[derive(Debug, Default, Clone)]
pub struct Collected {
    /// The bytes; of a writer, as UTF-8.
    pub bytes: Vec<u8>,
    /// Whether it was closed; and if so, because of which error.
    pub closed: Option<Option<String>>,
    /// Flushes.
    pub flushes: usize,
}

/// What the controller writes to a stream of the agent's.
#[derive(Debug)]
struct Writing {
    oid: i32,
    window: usize,
    data: Bytes,
    ends: bool,
}

/// How the end behaves towards the agent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manners {
    /// Requests of the agent's are not answered.
    pub mute: bool,
    /// Nothing is read from the connection.
    pub deaf: bool,
    /// What the agent writes is not acknowledged.
    pub no_acks: bool,
    /// Answers are held back until there are so many, and then sent last first.
    pub reorder: usize,
    /// `CloseCommand` is not answered.
    pub ignore_close: bool,
}

#[derive(Debug)]
struct State {
    out: VecDeque<Bytes>,
    next_oid: i32,
    next_io: i32,
    next_request: i32,
    exports: BTreeMap<i32, Export>,
    collected: HashMap<i32, Collected>,
    writing: Vec<Writing>,
    dead: HashSet<i32>,
    answers: HashMap<i32, Option<Result<Graph, String>>>,
    /// References to the agent's objects.
    held: Vec<Grant>,
    held_back: Vec<Bytes>,
    io_seen: HashSet<i32>,
    asked: Vec<String>,
    complaints: Vec<String>,
    manners: Manners,
    class_files: HashMap<String, Bytes>,
    returns: HashMap<String, Bytes>,
    closing: bool,
    closed: Option<String>,
    cut: bool,
    received: u64,
    sent: u64,
}

/// The controller's end of one channel.
pub struct End {
    peer: Capability,
    state: Mutex<State>,
    transmit: Notify,
    changed: Notify,
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("End")
    }
}

/// Why a call of the controller's has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The agent threw this.
    #[error("{0}")]
    Thrown(String),
    /// The channel ended.
    #[error("the channel ended: {0}")]
    Closed(String),
    /// No answer came within half a minute.
    #[error("the agent did not answer")]
    TimedOut,
}

impl End {
    /// An end whose other end has this capability.
    pub fn new(peer: Capability) -> End {
        let core = Export { references: 0, kind: Kind::Loader("core".to_owned()) };
        End {
            peer,
            state: Mutex::new(State {
                out: VecDeque::new(),
                next_oid: FIRST_OID,
                next_io: 1,
                next_request: FIRST_REQUEST,
                exports: BTreeMap::from([(CORE_LOADER, core)]),
                collected: HashMap::new(),
                writing: Vec::new(),
                dead: HashSet::new(),
                answers: HashMap::new(),
                held: Vec::new(),
                held_back: Vec::new(),
                io_seen: HashSet::new(),
                asked: Vec::new(),
                complaints: Vec::new(),
                manners: Manners::default(),
                class_files: HashMap::new(),
                returns: HashMap::new(),
                closing: false,
                closed: None,
                cut: false,
                received: 0,
                sent: 0,
            }),
            transmit: Notify::new(),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let result = act(&mut self.lock());
        self.transmit.notify_one();
        self.changed.notify_waiters();
        result
    }

    /// Waits until `check` gives something.
    pub(super) async fn until<T>(&self, mut check: impl FnMut(&Self) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(value) = check(self) {
                return value;
            }
            changed.await;
        }
    }

    // ---- for who moves the commands -----------------------------------------------------------------------------

    /// Takes a command of the agent's.
    pub fn receive(&self, command: Bytes) {
        let peer = self.peer;
        self.with(|state| {
            state.received += command.len() as u64;
            match Graph::decode(command, &Limits::default()) {
                Ok(graph) => state.command(graph, peer),
                Err(error) => state.complaints.push(format!("a malformed command: {error}")),
            }
        });
    }

    /// The next command to be sent, if there is one now.
    pub fn poll(&self) -> Option<Bytes> {
        let mut state = self.lock();
        let command = state.out.pop_front().filter(|_| !state.cut)?;
        state.sent += command.len() as u64;
        Some(command)
    }

    /// The next command to be sent; `None` once the channel has ended and all are.
    pub async fn next(&self) -> Option<Bytes> {
        loop {
            if let Some(command) = self.poll() {
                return Some(command);
            }
            if self.lock().closed.is_some() {
                return None;
            }
            self.transmit.notified().await;
        }
    }

    /// The connection is gone.
    pub fn lost(&self, why: impl Into<String>) {
        self.with(|state| {
            state.closed.get_or_insert(why.into());
        });
    }

    /// Waits while nothing is to be read; false if the connection is to be cut.
    pub(super) async fn may_read(&self) -> bool {
        self.until(|end| {
            let state = end.lock();
            if state.cut { Some(false) } else { (!state.manners.deaf).then_some(true) }
        })
        .await
    }

    /// Waits until nothing is to be read any more.
    pub(super) async fn deaf(&self) {
        self.until(|end| end.lock().manners.deaf.then_some(())).await;
    }

    /// Waits until the connection is to be cut without a word.
    pub(super) async fn cut_asked(&self) {
        self.until(|end| end.lock().cut.then_some(())).await;
    }

    // ---- what a controller does ---------------------------------------------------------------------------------

    /// Changes how the end behaves.
    pub fn behave(&self, change: impl FnOnce(&mut Manners)) {
        self.with(|state| change(&mut state.manners));
    }

    /// Lets all class loaders know a class.
    pub fn define(&self, class: &str, class_file: impl Into<Bytes>) {
        self.lock().class_files.insert(class.to_owned(), class_file.into());
    }

    /// Lets a callable of the agent's return this stream; others fail.
    pub fn define_return(&self, class: &str, stream: impl Into<Bytes>) {
        self.lock().returns.insert(class.to_owned(), stream.into());
    }

    /// Sends bytes as a command, whatever they are.
    pub fn send(&self, command: Bytes) {
        self.with(|state| state.out.push_back(command));
    }

    /// Sends a `CloseCommand`.
    pub fn close(&self) {
        self.with(|state| {
            if !std::mem::replace(&mut state.closing, true) {
                state.out.push_back(command::close());
            }
        });
    }

    /// Drops the connection without a word.
    pub fn cut(&self) {
        self.with(|state| {
            state.cut = true;
            state.closed.get_or_insert("cut".to_owned());
        });
    }

    /// Why the channel ended, once it has.
    pub fn close_reason(&self) -> Option<String> {
        self.lock().closed.clone()
    }

    /// Waits until the channel has ended.
    pub async fn closed(&self) -> String {
        self.until(End::close_reason).await
    }

    /// Exports an object, without a reference: each copy of it in a request adds one.
    pub fn export(&self, kind: Kind) -> i32 {
        self.with(|state| {
            let oid = state.next_oid;
            state.next_oid += 1;
            state.exports.insert(oid, Export { references: 0, kind });
            oid
        })
    }

    /// Exports an object under a given id, with references, unless it is exported already: then it gets those.
    pub fn export_as(&self, oid: i32, references: u32, kind: Kind) {
        self.with(|state| {
            state.next_oid = state.next_oid.max(oid.saturating_add(1));
            state.exports.entry(oid).or_insert(Export { references: 0, kind }).references += references;
        });
    }

    /// The id of the class loader of this name, exported on first use.
    pub fn loader(&self, name: &str) -> i32 {
        let known = self.lock().exports.iter().find_map(|(oid, export)| match &export.kind {
            Kind::Loader(loader) if loader == name => Some(*oid),
            _ => None,
        });
        known.unwrap_or_else(|| self.export(Kind::Loader(name.to_owned())))
    }

    /// Adds a reference to an exported object.
    pub fn add_reference(&self, oid: i32) {
        let mut state = self.lock();
        match state.exports.get_mut(&oid) {
            Some(export) => export.references += 1,
            None => state.complain(format!("(the controller sends {oid}, which it does not export)")),
        }
    }

    /// Sends a request, and gives its id.
    pub fn start(&self, request: Request) -> i32 {
        let loader = self.loader(&request.loader);
        self.add_reference(loader);
        let label = request.label.clone();
        let bytes = request.encode(self);
        self.start_stream(loader, bytes, &label)
    }

    /// Sends a request whose stream is given as it is, and gives its id. The caller exports what the stream mentions,
    /// and adds the reference to `loader`.
    pub fn start_stream(&self, loader: i32, stream: Bytes, label: &str) -> i32 {
        self.with(|state| {
            let id = state.next_request;
            state.next_request += 1;
            state.answers.insert(id, None);
            state.out.push_back(super::requests::user_request(id, loader, stream, label));
            id
        })
    }

    /// Gives up a request.
    pub fn cancel(&self, id: i32) {
        self.send(command::cancel(id));
    }

    /// The answer to a request, if it has come.
    pub fn try_answer(&self, id: i32) -> Option<Result<Graph, String>> {
        let mut state = self.lock();
        match state.answers.get(&id) {
            Some(Some(_)) => state.answers.remove(&id).flatten(),
            _ => None,
        }
    }

    /// Waits for the answer to a request.
    ///
    /// # Errors
    /// If it is an exception, or none comes.
    pub async fn answer(&self, id: i32) -> Result<Graph, CallError> {
        let answer = self.until(|end| {
            let mut state = end.lock();
            match state.answers.get_mut(&id) {
                Some(Some(_)) => state.answers.remove(&id).flatten().map(|answer| answer.map_err(CallError::Thrown)),
                _ => state.closed.clone().map(|why| Err(CallError::Closed(why))),
            }
        });
        timeout(PATIENCE, answer).await.unwrap_or(Err(CallError::TimedOut))
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// If it is an exception, or none comes.
    pub async fn call(&self, request: Request) -> Result<Graph, CallError> {
        let id = self.start(request);
        self.answer(id).await
    }

    /// Writes to a stream of the agent's (an `OutputStream` that came in an answer), and closes it if `ends`.
    pub fn write(&self, oid: i32, data: impl Into<Bytes>, ends: bool) {
        let data = data.into();
        self.with(|state| {
            match state.writing.iter_mut().find(|writing| writing.oid == oid) {
                Some(writing) => {
                    writing.data = [writing.data.as_ref(), data.as_ref()].concat().into();
                    writing.ends |= ends;
                }
                None => state.writing.push(Writing { oid, window: WINDOW, data, ends }),
            }
            if ends {
                state.held.retain(|grant| *grant != Grant::Output(oid));
            }
            state.write_on();
        });
    }

    /// What was written to a stream of the controller's.
    pub fn collected(&self, oid: i32) -> Collected {
        self.lock().collected.get(&oid).cloned().unwrap_or_default()
    }

    /// What was written to a stream of the controller's, which is forgotten.
    pub fn take_collected(&self, oid: i32) -> Collected {
        self.lock().collected.remove(&oid).unwrap_or_default()
    }

    /// Whether the agent said that writing to this stream of its own has failed.
    pub fn is_dead(&self, oid: i32) -> bool {
        self.lock().dead.contains(&oid)
    }

    /// References to the agent's objects that came in answers and were not given back.
    pub fn held(&self) -> Vec<Grant> {
        self.lock().held.clone()
    }

    /// Gives a reference to an object of the agent's back.
    pub fn release(&self, grant: Grant) {
        self.with(|state| state.release(grant));
    }

    /// Gives back all references to the agent's objects, as garbage collection would.
    pub fn collect_garbage(&self) {
        self.with(|state| {
            for grant in std::mem::take(&mut state.held) {
                state.give_back(grant);
            }
        });
    }

    /// The objects to which the agent holds references, and how many; a class loader by its name.
    pub fn exports(&self) -> Vec<(i32, String, u32)> {
        let state = self.lock();
        let held = state.exports.iter().filter(|(_, export)| export.references > 0);
        held.map(|(oid, export)| {
            let name = match &export.kind {
                Kind::Loader(name) => format!("class loader {name}"),
                Kind::Input(_) => "input stream".to_owned(),
                Kind::Source { .. } => "pipe".to_owned(),
                kind => format!("{kind:?}").to_lowercase(),
            };
            (*oid, name, export.references)
        })
        .collect()
    }

    /// As [`exports`](Self::exports), without one reference to each class loader, which an agent keeps to the end.
    pub fn leaks(&self) -> Vec<(i32, String, u32)> {
        let kept = |name: &str| u32::from(name.starts_with("class loader"));
        self.exports().into_iter().filter(|(_, name, references)| *references > kept(name)).collect()
    }

    /// Waits until nothing is exported that should not be, for ten seconds at most; gives what is left.
    pub async fn settled(&self) -> Vec<(i32, String, u32)> {
        let none = self.until(|end| end.leaks().is_empty().then_some(()));
        let _ = timeout(Duration::from_secs(10), none).await;
        self.leaks()
    }

    /// Classes and methods that the agent asked for of its own accord.
    pub fn asked(&self) -> Vec<String> {
        self.lock().asked.clone()
    }

    /// Rules that the agent broke.
    pub fn complaints(&self) -> Vec<String> {
        self.lock().complaints.clone()
    }

    /// Bytes of commands received from and sent to the agent.
    pub fn traffic(&self) -> (u64, u64) {
        let state = self.lock();
        (state.received, state.sent)
    }
}

impl State {
    fn complain(&mut self, text: String) {
        self.complaints.push(text);
    }

    fn io(&mut self) -> i32 {
        let io_id = self.next_io;
        self.next_io += 1;
        io_id
    }

    fn command(&mut self, graph: Graph, peer: Capability) {
        let command = match Command::read(graph) {
            Ok(command) => command,
            Err(error) => return self.complain(format!("an unreadable command: {error}")),
        };
        match command {
            Command::UserRequest { id, request, loader, .. } => self.user_request(id, request, loader, peer),
            Command::Rpc { id, graph, .. } => {
                let (method, class_file) = self.rpc(graph.root());
                self.asked.push(method);
                self.answer(match class_file {
                    Some(bytes) => command::plain_response(id, 0, Ok(&|graph| Some(graph.byte_array(bytes.clone())))),
                    None => command::plain_response(id, 0, Err(&unsupported())),
                });
            }
            Command::Read { id, oid, length } => self.read(id, oid, length),
            Command::UnknownRequest { id, class } => {
                self.complain(format!("a request of the class {class}"));
                self.answer(command::plain_response(id, 0, Err(&unsupported())));
            }
            Command::Response { id, last_io, answer } => self.response(id, last_io, answer, peer),
            Command::Cancel { .. } => {}
            Command::Unexport { oid } => self.dereference(oid),
            Command::Stream { oid, io_id, op } => self.stream(oid, io_id, op),
            Command::Ack { oid, size } => {
                if let Some(writing) = self.writing.iter_mut().find(|writing| writing.oid == oid) {
                    writing.window += usize::try_from(size).unwrap_or(0);
                    if writing.window > WINDOW {
                        self.complain(format!("it acknowledged more than was written to its stream {oid}"));
                    }
                }
                self.write_on();
            }
            Command::DeadWriter { oid } => {
                self.dead.insert(oid);
                if let Some(writing) = self.writing.iter_mut().find(|writing| writing.oid == oid) {
                    writing.data = Bytes::new();
                }
                self.write_on();
            }
            Command::InputClosed { oid } => self.dereference(oid),
            Command::Close { cause } => {
                if self.manners.ignore_close {
                    return;
                }
                if !self.closing {
                    self.out.push_back(command::close());
                }
                self.closed.get_or_insert(cause.unwrap_or_else(|| "the agent closed the channel".to_owned()));
            }
            Command::Connect { ros, pos } => self.connect(ros, pos),
            Command::Other { class } => self.complain(format!("a command of the class {class}")),
        }
    }

    /// The name of a method that is called by a bare request; and if it asks a class loader for a class, its file.
    fn rpc(&self, request: Option<View<'_>>) -> (String, Option<Bytes>) {
        let method = request.and_then(|root| root.string("methodName").ok().flatten()).unwrap_or_default();
        let class_file = request.filter(|_| method == "fetch").and_then(|root| {
            let loader = self.exports.get(&root.int("oid").ok()?)?;
            let name = root.require("arguments").ok()?.elements().ok()?.next()??;
            let is_loader = matches!(loader.kind, Kind::Loader(_));
            self.class_files.get(name.as_str().ok()?.as_ref()).filter(|_| is_loader).cloned()
        });
        (method.into_owned(), class_file)
    }

    fn answer(&mut self, command: Bytes) {
        if self.manners.mute {
            return;
        }
        if self.manners.reorder > 0 {
            self.held_back.push(command);
            if self.held_back.len() < self.manners.reorder {
                return;
            }
            self.out.extend(self.held_back.drain(..).rev());
        } else {
            self.out.push_back(command);
        }
    }

    fn user_request(&mut self, id: i32, request: Bytes, loader: Option<i32>, peer: Capability) {
        if loader.is_none_or(|oid| !self.exports.contains_key(&oid)) {
            self.complain(format!("a request with the class loader {loader:?}, which is not exported"));
        }
        let class = match Graph::decode(request, &Limits::default()) {
            Ok(graph) => graph.root().map_or_else(|| "null".to_owned(), |root| method_or_class(root)),
            Err(error) => return self.complain(format!("a malformed request: {error}")),
        };
        let ping = class == "hudson.remoting.PingThread$Ping";
        let returned = if ping { Some(Graph::default().encode_one(None)) } else { self.returns.get(&class).cloned() };
        self.asked.push(class);
        let unsupported = unsupported();
        let result = returned.ok_or(&unsupported);
        self.answer(command::user_response(id, 0, peer, Loader::None, result));
    }

    fn read(&mut self, id: i32, oid: i32, length: i32) {
        let Some(Export { kind: Kind::Input(data), .. }) = self.exports.get_mut(&oid) else {
            self.complain(format!("it reads from {oid}, which is no input stream"));
            return self.answer(command::plain_response(id, 0, Err(&unsupported())));
        };
        let piece = data.split_to(data.len().min(usize::try_from(length).unwrap_or(0)));
        let piece = (!piece.is_empty()).then_some(piece);
        self.answer(command::plain_response(id, 0, Ok(&|graph| Some(command::read_buffer(graph, piece.clone())))));
    }

    fn response(&mut self, id: i32, last_io: i32, answer: Answered, peer: Capability) {
        if last_io != 0 && !self.io_seen.contains(&last_io) {
            self.complain(format!("the answer to {id} comes after the pipe operation {last_io}, which never came"));
        }
        let result = match answer {
            Answered::Value(graph) => Ok(graph),
            Answered::Exception(text) => Err(text),
            Answered::Normal(bytes) => match Graph::decode(bytes, &Limits::default()) {
                Ok(graph) => Ok(graph),
                Err(error) => return self.complain(format!("a malformed answer: {error}")),
            },
        };
        if let Ok(graph) = &result {
            let introduced = command::introduced_loaders(graph);
            if !introduced.is_empty() {
                self.complain(format!("the answer to {id} exports class loaders: {introduced:?}"));
            }
            self.held.extend(grants(graph, peer).map(|(_, grant)| grant));
        }
        match self.answers.get_mut(&id) {
            Some(answer @ None) => *answer = Some(result),
            _ => self.complain(format!("an answer to {id}, which is no open request")),
        }
    }

    fn dereference(&mut self, oid: i32) {
        match self.exports.get_mut(&oid) {
            Some(export) if export.references > 0 => {
                export.references -= 1;
                if export.references == 0 && oid != CORE_LOADER {
                    self.exports.remove(&oid);
                }
            }
            _ => self.complain(format!("it gave back a reference to {oid}, of which it holds none")),
        }
    }

    fn stream(&mut self, oid: i32, io_id: i32, op: StreamOp) {
        if !self.io_seen.insert(io_id) {
            self.complain(format!("a second pipe operation {io_id}"));
        }
        let kind = match self.exports.get(&oid) {
            Some(Export { kind: Kind::Output, .. }) => StreamKind::Bytes,
            Some(Export { kind: Kind::Writer, .. }) => StreamKind::Chars,
            _ => return self.complain(format!("{op:?} on {oid}, which is no stream that is exported")),
        };
        let collected = self.collected.entry(oid).or_default();
        let size = op.size();
        match op {
            StreamOp::Write(bytes) => collected.bytes.extend_from_slice(&bytes),
            StreamOp::Chars(units) => collected.bytes.extend(String::from_utf16_lossy(&units).bytes()),
            StreamOp::Flush => collected.flushes += 1,
            StreamOp::Close(error) => {
                collected.closed = Some(error);
                self.dereference(oid);
            }
            StreamOp::Release => self.dereference(oid),
        }
        if size > 0 && !self.manners.no_acks {
            self.out.push_back(command::ack(kind, oid, i32::try_from(size).unwrap_or(i32::MAX)));
        }
    }

    fn connect(&mut self, ros: i32, pos: i32) {
        match self.exports.get(&ros) {
            Some(Export { kind: Kind::Source { data, ends }, .. }) => {
                self.writing.push(Writing { oid: pos, window: WINDOW, data: data.clone(), ends: *ends });
                self.dereference(ros);
                self.write_on();
            }
            _ => self.complain(format!("it connects {ros}, which is no pipe that is exported")),
        }
    }

    /// Writes what the windows allow.
    fn write_on(&mut self) {
        for mut writing in std::mem::take(&mut self.writing) {
            while writing.window > 0 && !writing.data.is_empty() {
                let piece = writing.data.split_to(writing.data.len().min(writing.window).min(PIECE));
                writing.window -= piece.len();
                let io_id = self.io();
                self.out.push_back(command::chunk(writing.oid, io_id, piece));
            }
            if writing.data.is_empty() && writing.ends {
                let io_id = self.io();
                self.out.push_back(command::eof(StreamKind::Bytes, writing.oid, io_id, None));
            } else {
                self.writing.push(writing);
            }
        }
    }

    fn release(&mut self, grant: Grant) {
        match self.held.iter().position(|held| *held == grant) {
            Some(at) => {
                self.held.swap_remove(at);
                self.give_back(grant);
            }
            None => self.complain(format!("(the controller gave back {grant:?} without having it)")),
        }
    }

    fn give_back(&mut self, grant: Grant) {
        let command = match grant {
            Grant::Proxy(oid) => command::unexport(oid),
            Grant::Input(oid) => command::input_closed(oid),
            Grant::Output(oid) => {
                let io_id = self.io();
                command::release(StreamKind::Bytes, oid, io_id)
            }
            Grant::Writer(oid) => {
                let io_id = self.io();
                command::release(StreamKind::Chars, oid, io_id)
            }
            Grant::PipeSource(_) => return self.complain("an answer with a pipe to be read".to_owned()),
        };
        self.out.push_back(command);
    }
}

fn unsupported() -> Throw {
    Throw::new(ThrowClass::UnsupportedOperation, "a loopback controller does not do this")
}

/// Method of a method call, class of a callable.
fn method_or_class(root: View<'_>) -> String {
    match root.string("methodName") {
        Ok(Some(method)) => method.into_owned(),
        _ => root.class_name().into_owned(),
    }
}

/// What the objects of a graph grant to who reads it.
pub fn grants(graph: &Graph, peer: Capability) -> impl Iterator<Item = (View<'_>, Grant)> {
    let objects = graph.nodes().iter().enumerate().filter(|(_, node)| matches!(node, Node::Object(_)));
    objects.filter_map(move |(index, _)| {
        let view = graph.view(graph.id_at(index)?);
        Grant::of(view, peer).map(|grant| (view, grant))
    })
}
