//! A channel shared by threads and tasks: the blocking and the waiting around [`Channel`]'s state.
//!
//! One lock guards the state and is held for microseconds. Who must wait (a writer for its window, a reader for
//! data, a caller for an answer) waits on a condition variable, or on its counterpart for tasks, both of which are
//! notified whenever a command of the peer's was taken, and whenever commands were handed to the transport.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::Notify;

use super::command::{Grant, MethodCall, StreamKind, StreamOp, read_buffer};
use super::state::{Channel, CloseReason, End, Event, Judge, JvmEvent, Liveness};
use super::throw::{Cancelled, Throw};
use crate::object::{AccessError, Graph, Loader, NodeId, View};

pub use super::command::remote_output_stream;

/// Most bytes or chars in one chunk. Java takes what its caller wrote, at most half a window.
const CHUNK: usize = 64 << 10;
/// Writes below this are copied rather than kept with the command that brought them.
const SMALL: usize = 1 << 10;
/// Streams pause while more than this waits to be sent.
const MAX_QUEUED: usize = 1 << 20;
/// Most bytes that one read of the peer's is given.
const MAX_READ: usize = 64 << 10;
/// Largest class file that is taken from the controller.
const MAX_CLASS_FILE: usize = 1 << 20;
/// How long an answer to a method call of ours may take. What reads from a stream waits as long as its writer takes.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What takes the bytes that the controller writes to an exported stream of ours: on a blocking thread, in order.
pub trait Sink: Send {
    /// Takes bytes, all of them.
    ///
    /// # Errors
    /// The writer at the controller fails with this.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Passes on what was taken.
    ///
    /// # Errors
    /// Are logged.
    fn flush(&mut self) -> io::Result<()>;

    /// The controller closed the stream, because of this error if there is one.
    ///
    /// # Errors
    /// Are logged.
    fn close(self: Box<Self>, error: Option<String>) -> io::Result<()>;
}

/// A request to be executed.
pub struct Incoming {
    /// The request's handle on the channel.
    pub caller: Arc<Caller>,
    /// The callable, or an `RPCRequest`.
    pub graph: Graph,
}

/// The strand of an exported stream: operations wait here for the thread that does them.
#[derive(Default)]
struct Strand {
    ops: VecDeque<(i32, StreamOp)>,
    running: bool,
    sink: Option<Box<dyn Sink>>,
}

/// What the controller wrote to a pipe and was not read yet.
#[derive(Default)]
struct Buffered {
    chunks: VecDeque<Bytes>,
    /// Small writes behind the chunks, joined: a chunk keeps its whole command, many times the size of a small write.
    small: BytesMut,
    end: Option<Result<(), String>>,
    abandoned: bool,
}

impl Buffered {
    fn push(&mut self, bytes: Bytes) {
        if bytes.len() < SMALL {
            self.small.extend_from_slice(&bytes);
            if self.small.len() < CHUNK {
                return;
            }
        }
        if !self.small.is_empty() {
            self.chunks.push_back(self.small.split().freeze());
        }
        if bytes.len() >= SMALL {
            self.chunks.push_back(bytes);
        }
    }

    /// Takes what there is, up to the buffer's size.
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        if self.chunks.is_empty() && !self.small.is_empty() {
            self.chunks.push_back(self.small.split().freeze());
        }
        let Some(chunk) = self.chunks.front_mut() else { return 0 };
        let size = chunk.len().min(buffer.len());
        chunk.copy_to_slice(&mut buffer[..size]);
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        size
    }

    /// Forgets everything, and gives how much that was.
    fn discard(&mut self) -> usize {
        let small = std::mem::take(&mut self.small).len();
        small + self.chunks.drain(..).map(|chunk| chunk.len()).sum::<usize>()
    }
}

type SharedRead = Arc<Mutex<Box<dyn io::Read + Send>>>;

enum Export {
    Object(Arc<dyn Any + Send + Sync>),
    Output(Arc<Mutex<Strand>>),
    Pipe(Buffered),
    Input(SharedRead),
}

struct State {
    channel: Channel,
    exports: HashMap<i32, Export>,
    callers: HashMap<i32, Arc<Caller>>,
    answers: HashMap<i32, Option<Result<Graph, String>>>,
    reason: Option<CloseReason>,
    /// Something has happened that who waits may wait for.
    progress: bool,
    /// Exported objects that are gone. They may hold streams of this channel, which lock it when they are dropped:
    /// so they are dropped only after the lock is.
    garbage: Vec<Export>,
    jvm_events: Vec<JvmEvent>,
}

/// How often and how long writers have waited for the peer's windows or for the connection.
#[derive(Debug, Default)]
pub struct Stalls {
    count: AtomicU64,
    micros: AtomicU64,
}

impl Stalls {
    /// How often.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How long, those that still wait left out.
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }
}

/// A writer that may have to wait.
struct Stall<'a> {
    stalls: &'a Stalls,
    since: Option<Instant>,
}

impl Stall<'_> {
    /// Counts the wait if there is nothing yet.
    fn waits<T>(&mut self, outcome: Option<T>) -> Option<T> {
        if outcome.is_none() && self.since.is_none() {
            self.stalls.count.fetch_add(1, Ordering::Relaxed);
            self.since = Some(Instant::now());
        }
        outcome
    }
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        if let Some(since) = self.since {
            let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.stalls.micros.fetch_add(micros, Ordering::Relaxed);
        }
    }
}

/// What executes requests. Called without locks, on any thread; must not block.
pub type Dispatcher = Box<dyn Fn(Incoming) + Send + Sync>;

/// What hears of the JVM that shares the channel. Called without locks, on any thread; must not block.
pub type JvmHook = Box<dyn Fn(&Arc<Link>, JvmEvent) + Send + Sync>;

/// A channel, shared.
pub struct Link {
    dispatcher: Dispatcher,
    jvm_hook: OnceLock<JvmHook>,
    jvm_transmit: Notify,
    state: Mutex<State>,
    changed: Condvar,
    changed_async: Notify,
    ended: Notify,
    transmit: Notify,
    stalls: Arc<Stalls>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

fn closed_error(reason: Option<&CloseReason>) -> io::Error {
    let text = reason.map_or_else(|| "the channel is closing".to_owned(), ToString::to_string);
    io::Error::new(io::ErrorKind::BrokenPipe, text)
}

/// A panic in a stream is a bug of this agent's: it fails the operation and not all that follow.
fn guarded<T>(run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(io::Error::other("a bug in this agent")))
}

impl Link {
    /// Shares a channel; its requests go to `dispatcher`.
    pub fn new(channel: Channel, dispatcher: Dispatcher) -> Arc<Link> {
        Link::counting(channel, dispatcher, Arc::default())
    }

    /// As [`new`](Self::new), and counts in `stalls` what writers wait for.
    pub fn counting(channel: Channel, dispatcher: Dispatcher, stalls: Arc<Stalls>) -> Arc<Link> {
        Arc::new(Link {
            dispatcher,
            jvm_hook: OnceLock::new(),
            jvm_transmit: Notify::new(),
            state: Mutex::new(State {
                channel,
                exports: HashMap::new(),
                callers: HashMap::new(),
                answers: HashMap::new(),
                reason: None,
                progress: false,
                garbage: Vec::new(),
                jvm_events: Vec::new(),
            }),
            changed: Condvar::new(),
            changed_async: Notify::new(),
            ended: Notify::new(),
            transmit: Notify::new(),
            stalls,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves the state consistent: every method of `Channel` is complete in itself.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Does something to the channel, and all that follows from it.
    fn with<T>(self: &Arc<Self>, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = act(&mut state);
        let requests = self.events(&mut state);
        let garbage = std::mem::take(&mut state.garbage);
        let progress = std::mem::take(&mut state.progress) | state.channel.take_windows_changed();
        let transmit = state.channel.queued_bytes() > 0 || state.reason.is_some();
        let jvm_transmit = state.channel.has_jvm_transmit();
        let jvm_events = std::mem::take(&mut state.jvm_events);
        drop(state);
        drop(garbage);
        if jvm_transmit {
            self.jvm_transmit.notify_one();
        }
        if progress {
            self.notify();
        }
        if transmit {
            self.transmit.notify_one();
        }
        for request in requests {
            (self.dispatcher)(request);
        }
        for event in jvm_events {
            if let Some(hook) = self.jvm_hook.get() {
                hook(self, event);
            }
        }
        result
    }

    fn notify(&self) {
        self.changed.notify_all();
        self.changed_async.notify_waiters();
    }

    // ---- for the driver: the task that moves commands between this and a connection ---------------------------------

    /// Takes a command of the peer's.
    ///
    /// Must be called within a tokio runtime: streams are served on its blocking threads.
    pub fn receive(self: &Arc<Self>, now: Instant, command: Bytes) {
        self.with(|state| state.channel.handle_command(now, command));
    }

    /// Time has passed. Gives when to call this again.
    pub fn tick(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        self.with(|state| {
            state.channel.handle_timeout(now);
            state.channel.poll_timeout()
        })
    }

    /// From now on the peer's silence is judged by this; takes effect at the next [`tick`](Self::tick).
    pub fn set_liveness(&self, liveness: Liveness) {
        self.lock().channel.set_liveness(liveness);
    }

    /// The connection has ended.
    pub fn lost(self: &Arc<Self>, why: impl Into<String>) {
        self.with(|state| state.channel.lost(why));
    }

    /// Takes the commands that wait to be sent, up to about `most` bytes; waits until there are any. False once the
    /// channel has ended and all were taken.
    pub async fn transmit(&self, most: usize, batch: &mut Vec<Bytes>) -> bool {
        loop {
            let notified = self.transmit.notified();
            {
                let mut state = self.lock();
                let was_full = state.channel.queued_bytes() > MAX_QUEUED;
                let mut size = 0;
                while size < most
                    && let Some(command) = state.channel.poll_transmit()
                {
                    size += command.len();
                    batch.push(command);
                }
                if was_full && state.channel.queued_bytes() <= MAX_QUEUED {
                    self.notify();
                }
                // Under the same lock: the last commands and the end come together.
                if batch.is_empty() && state.reason.is_some() {
                    return false;
                }
            }
            if !batch.is_empty() {
                return true;
            }
            notified.await;
        }
    }

    /// Why the channel ended, once it has.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.lock().reason.clone()
    }

    /// Begins to close the channel in order.
    pub fn close(self: &Arc<Self>, now: Instant) {
        self.with(|state| {
            state.channel.close(now);
            state.progress = true;
        });
    }

    fn events(self: &Arc<Self>, state: &mut State) -> Vec<Incoming> {
        let mut requests = Vec::new();
        while let Some(event) = state.channel.poll_event() {
            state.progress |= !matches!(event, Event::Request { .. } | Event::Read { .. } | Event::Warning(_));
            match event {
                Event::Request { id, graph, bare } => {
                    let loader = state.channel.request_loader(id);
                    let caller = Arc::new(Caller {
                        link: self.clone(),
                        id,
                        bare,
                        loader,
                        cancelled: AtomicBool::new(false),
                        changed: Notify::new(),
                    });
                    state.callers.insert(id, caller.clone());
                    requests.push(Incoming { caller, graph });
                }
                Event::Read { id, oid, length } => self.serve_read(state, id, oid, length),
                Event::Cancel { id } => {
                    if let Some(caller) = state.callers.get(&id) {
                        caller.cancel();
                    }
                }
                Event::Stream { oid, io_id, op } => self.serve_stream(state, oid, io_id, op),
                Event::InputClosed { oid } => state.garbage.extend(state.exports.remove(&oid)),
                Event::Dropped { oid } => {
                    // A pipe that was closed is read to its end; its reader removes it.
                    match state.exports.get_mut(&oid) {
                        Some(Export::Pipe(pipe)) if !pipe.abandoned => {
                            pipe.end.get_or_insert_with(|| Err("the controller gave up writing".to_owned()));
                        }
                        _ => state.garbage.extend(state.exports.remove(&oid)),
                    }
                }
                Event::Answer { id, result } => {
                    if let Some(slot) = state.answers.get_mut(&id) {
                        *slot = Some(result);
                    } else if let Err(error) = result {
                        tracing::debug!("the controller failed a call {id} that nobody waits for: {error}");
                    }
                }
                Event::Jvm(event) => state.jvm_events.push(event),
                Event::Warning(warning) => tracing::warn!("{warning}"),
                Event::Closed(reason) => {
                    state.reason = Some(reason);
                    self.ended.notify_waiters();
                    // A caller holds the link, and the link its callers: this is where the circle is cut.
                    for caller in std::mem::take(&mut state.callers).into_values() {
                        caller.cancel();
                    }
                    for export in state.exports.values_mut() {
                        if let Export::Pipe(pipe) = export {
                            pipe.end.get_or_insert_with(|| Err("the channel was closed".to_owned()));
                        }
                    }
                    let (pipes, others) =
                        state.exports.drain().partition(|(_, export)| matches!(export, Export::Pipe(_)));
                    state.exports = pipes;
                    let others: HashMap<i32, Export> = others;
                    state.garbage.extend(others.into_values());
                }
            }
        }
        requests
    }

    fn serve_read(self: &Arc<Self>, state: &mut State, id: i32, oid: i32, length: i32) {
        let Some(Export::Input(input)) = state.exports.get(&oid) else {
            let throw = Throw::io(format!("the stream {oid} is not exported"));
            return state.channel.respond_plain(id, Err(&throw));
        };
        let input = input.clone();
        let link = self.clone();
        let length = usize::try_from(length).unwrap_or(0).min(MAX_READ);
        tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; length];
            let result = loop {
                let mut input = input.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match guarded(|| input.read(&mut buffer)) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => break result,
                }
            };
            let mut state = link.lock();
            match result {
                Ok(read) => {
                    buffer.truncate(read);
                    let bytes = (read > 0 || length == 0).then(|| Bytes::from(buffer));
                    state.channel.respond_plain(id, Ok(&|graph| Some(read_buffer(graph, bytes.clone()))));
                }
                Err(error) => state.channel.respond_plain(id, Err(&Throw::io(super::plain(&error)))),
            }
            drop(state);
            link.transmit.notify_one();
        });
    }

    fn serve_stream(self: &Arc<Self>, state: &mut State, oid: i32, io_id: i32, op: StreamOp) {
        match state.exports.get_mut(&oid) {
            Some(Export::Pipe(pipe)) => {
                match op {
                    StreamOp::Write(bytes) if pipe.abandoned => {
                        state.channel.acknowledge(StreamKind::Bytes, oid, bytes.len())
                    }
                    StreamOp::Write(bytes) => pipe.push(bytes),
                    StreamOp::Close(error) => pipe.end = Some(error.map_or(Ok(()), Err)),
                    StreamOp::Release => pipe.end = Some(Err("the controller gave up writing".to_owned())),
                    StreamOp::Chars(_) | StreamOp::Flush => {}
                }
                // In order behind what came before: a buffer takes all that the window allows at once.
                state.channel.io_done(io_id);
            }
            Some(Export::Output(strand)) => {
                let strand = strand.clone();
                let mut inner = strand.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                inner.ops.push_back((io_id, op));
                if !inner.running {
                    inner.running = true;
                    drop(inner);
                    let link = self.clone();
                    tokio::task::spawn_blocking(move || link.run_strand(oid, &strand));
                }
            }
            Some(Export::Object(_) | Export::Input(_)) | None => {
                if op.size() > 0 {
                    let throw = Throw::io("this is not a stream that can be written to");
                    state.channel.refuse_writes(StreamKind::Bytes, oid, &throw);
                    state.channel.acknowledge(StreamKind::Bytes, oid, op.size());
                }
                state.channel.io_done(io_id);
            }
        }
    }

    /// Does the operations of a strand until there are none.
    fn run_strand(self: &Arc<Self>, oid: i32, strand: &Mutex<Strand>) {
        let lock = || strand.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut sink = lock().sink.take();
        loop {
            let (io_id, op) = {
                let mut inner = lock();
                match inner.ops.pop_front() {
                    Some(next) => next,
                    None => {
                        inner.running = false;
                        inner.sink = sink;
                        return;
                    }
                }
            };
            let size = op.size();
            let result = guarded(|| match (op, &mut sink) {
                (StreamOp::Write(bytes), Some(sink)) => sink.write(&bytes),
                (StreamOp::Chars(units), Some(sink)) => sink.write(String::from_utf16_lossy(&units).as_bytes()),
                (StreamOp::Write(_) | StreamOp::Chars(_), None) => Err(io::Error::other("the stream is closed")),
                (StreamOp::Flush, Some(sink)) => sink.flush(),
                (StreamOp::Close(error), _) => sink.take().map_or(Ok(()), |sink| sink.close(error)),
                (StreamOp::Flush | StreamOp::Release, _) => Ok(()),
            });
            if let Err(error) = &result {
                tracing::debug!("exported stream {oid}: {error}");
            }
            self.with(|state| {
                if let (Err(error), true) = (&result, size > 0) {
                    state.channel.refuse_writes(StreamKind::Bytes, oid, &Throw::io(super::plain(error)));
                }
                state.channel.acknowledge(StreamKind::Bytes, oid, size);
                state.channel.io_done(io_id);
            });
        }
    }

    // ---- for who runs the JVM that shares the channel --------------------------------------------------------------

    /// Lets a JVM share the channel: `judge` tells what is for it, `hook` hears when one is wanted. Once, and before the
    /// first command is received.
    pub fn share(self: &Arc<Self>, now: Instant, judge: Judge, hook: JvmHook) {
        let _ = self.jvm_hook.set(hook);
        self.with(|state| state.channel.share(now, judge));
    }

    /// As [`Channel::want_jvm`].
    pub fn want_jvm(self: &Arc<Self>, now: Instant) {
        self.with(|state| state.channel.want_jvm(now));
    }

    /// As [`Channel::jvm_started`].
    pub fn jvm_started(self: &Arc<Self>, now: Instant, generation: u32) -> bool {
        self.with(|state| state.channel.jvm_started(now, generation))
    }

    /// Takes a command of the JVM's, as [`Channel::handle_jvm_command`]; waits while much waits to be sent to the
    /// controller.
    ///
    /// # Errors
    /// As that.
    pub async fn jvm_receive(self: &Arc<Self>, now: Instant, generation: u32, command: Bytes) -> Result<(), String> {
        let room =
            |state: &mut State| (state.channel.queued_bytes() <= MAX_QUEUED || state.channel.is_closed()).then_some(());
        self.until(room).await;
        self.with(|state| state.channel.handle_jvm_command(now, generation, command))
    }

    /// Takes the commands that wait for the JVM of this number, up to about `most` bytes; waits until there are any.
    pub async fn jvm_transmit(&self, generation: u32, most: usize, batch: &mut Vec<Bytes>) {
        loop {
            let notified = self.jvm_transmit.notified();
            {
                let mut state = self.lock();
                let mut size = 0;
                while size < most
                    && let Some(command) = state.channel.poll_jvm_transmit(generation)
                {
                    size += command.len();
                    batch.push(command);
                }
            }
            if !batch.is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// As [`Channel::stop_idle_jvm`].
    ///
    /// # Errors
    /// As that.
    pub fn stop_idle_jvm(self: &Arc<Self>, now: Instant, generation: u32, idle: Duration) -> Result<(), Instant> {
        self.with(|state| state.channel.stop_idle_jvm(now, generation, idle))
    }

    /// As [`Channel::jvm_lost`].
    pub fn jvm_lost(self: &Arc<Self>, now: Instant, generation: u32, why: &str) {
        self.with(|state| state.channel.jvm_lost(now, generation, why));
    }

    // ---- for handlers -----------------------------------------------------------------------------------------------

    /// Exports an object. It has no references until [`add_reference`](Self::add_reference), once per copy sent; it
    /// goes when the last one has come back.
    pub fn export(&self, object: Arc<dyn Any + Send + Sync>) -> i32 {
        let mut state = self.lock();
        let oid = state.channel.export();
        // Later than the end nothing would take it out again.
        if state.reason.is_none() {
            state.exports.insert(oid, Export::Object(object));
        }
        oid
    }

    /// Adds a reference to an exported object, for a proxy that is about to be sent.
    pub fn add_reference(&self, oid: i32) {
        self.lock().channel.add_reference(oid);
    }

    /// The exported object with this id.
    pub fn object(&self, oid: i32) -> Option<Arc<dyn Any + Send + Sync>> {
        match self.lock().exports.get(&oid) {
            Some(Export::Object(object)) => Some(object.clone()),
            _ => None,
        }
    }

    fn export_stream(&self, export: Export) -> i32 {
        let mut state = self.lock();
        let oid = state.channel.export();
        state.channel.add_reference(oid);
        if state.reason.is_none() {
            state.exports.insert(oid, export);
        }
        oid
    }

    /// Exports a stream that the controller writes to, with the one reference of the [`remote_output_stream`] that
    /// must be made of it.
    pub fn export_output(&self, sink: Box<dyn Sink>) -> i32 {
        let strand = Strand { sink: Some(sink), ..Strand::default() };
        self.export_stream(Export::Output(Arc::new(Mutex::new(strand))))
    }

    /// Exports a stream that the controller reads from, with the one reference of the
    /// [`remote_input_stream`](Self::remote_input_stream) that must be made of it.
    pub fn export_input(&self, input: Box<dyn io::Read + Send>) -> i32 {
        self.export_stream(Export::Input(Arc::new(Mutex::new(input))))
    }

    /// A `hudson.remoting.RemoteInputStream` of the exported stream `oid`, for an answer.
    pub fn remote_input_stream(&self, graph: &mut Graph, oid: i32) -> NodeId {
        super::command::remote_input_stream(graph, oid, self.lock().channel.peer())
    }

    /// Whether the channel is closed or closing.
    pub fn is_closed(&self) -> bool {
        self.lock().channel.is_closed()
    }

    /// Number of our objects that the controller holds, and of its requests in progress.
    pub fn in_use(&self) -> (usize, usize) {
        let state = self.lock();
        (state.channel.exported(), state.channel.executing())
    }

    /// Waits until the channel has ended.
    pub fn closed(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let link = self.clone();
        async move {
            loop {
                let mut ended = pin!(link.ended.notified());
                ended.as_mut().enable();
                if link.close_reason().is_some() {
                    return;
                }
                ended.await;
            }
        }
    }

    /// Waits, as a task, until `check` gives something.
    async fn until<T>(&self, mut check: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let mut notified = pin!(self.changed_async.notified());
            // Registered before the check, so that no change between the two is missed.
            notified.as_mut().enable();
            if let Some(value) = check(&mut self.lock()) {
                return value;
            }
            notified.await;
        }
    }

    /// Waits, as a thread, until `check` gives something.
    fn until_blocking<T>(&self, mut check: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut state = self.lock();
        loop {
            if let Some(value) = check(&mut state) {
                return value;
            }
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// As [`until_blocking`](Self::until_blocking), up to a deadline if there is one.
    fn until_deadline<T>(
        &self,
        deadline: Option<Instant>,
        mut check: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let Some(deadline) = deadline else { return Some(self.until_blocking(check)) };
        let mut state = self.lock();
        loop {
            if let Some(value) = check(&mut state) {
                return Some(value);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Sends a callable whose answer nobody waits for: its object stream, and the class loader of the controller's that
    /// resolves its classes. Does not block. Does nothing on a channel that has ended, or that is so far behind that
    /// streams pause.
    pub fn call_and_forget(&self, loader: i32, label: &str, request: Bytes) {
        let mut state = self.lock();
        if state.channel.queued_bytes() <= MAX_QUEUED {
            state.channel.call_user_with(loader, label, request);
        }
        drop(state);
        self.transmit.notify_one();
    }

    /// Waits for the answer to a call of ours.
    fn answer(
        &self,
        call: impl FnOnce(&mut State) -> Option<i32>,
        patience: Option<Duration>,
        give_up: Option<&Caller>,
    ) -> Result<Graph, RemoteError> {
        let id = {
            let mut state = self.lock();
            let Some(id) = call(&mut state) else {
                return Err(closed_error(state.reason.as_ref()).into());
            };
            state.answers.insert(id, None);
            id
        };
        self.transmit.notify_one();
        let answer = self.until_deadline(patience.map(|patience| Instant::now() + patience), |state| {
            let answered = state.answers.get_mut(&id).and_then(Option::take);
            answered.map(Some).or_else(|| give_up.is_some_and(Caller::is_cancelled).then_some(None))
        });
        let mut state = self.lock();
        state.answers.remove(&id);
        match answer {
            Some(Some(result)) => result.map_err(RemoteError::Thrown),
            gone => {
                state.channel.cancel_call(id);
                drop(state);
                self.transmit.notify_one();
                let late = || io::Error::new(io::ErrorKind::TimedOut, "the controller did not answer in time");
                Err(if gone.is_some() { io::Error::from(Cancelled) } else { late() }.into())
            }
        }
    }
}

/// A request's own handle on the channel: through it the handler reaches the controller.
pub struct Caller {
    link: Arc<Link>,
    id: i32,
    bare: bool,
    loader: Option<i32>,
    cancelled: AtomicBool,
    changed: Notify,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}", self.id)
    }
}

impl Caller {
    /// The channel.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Id of the request.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Whether the controller has cancelled the call, or the channel has ended.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until the call is cancelled or the channel has ended.
    pub fn cancelled(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let caller = self.clone();
        async move {
            loop {
                let mut notified = pin!(caller.changed.notified());
                notified.as_mut().enable();
                if caller.is_cancelled() {
                    return;
                }
                notified.await;
            }
        }
    }

    /// How the classes in the answer must be annotated.
    pub fn loader(&self) -> Loader {
        if self.bare {
            return Loader::None;
        }
        self.link.lock().channel.annotation(self.loader)
    }

    /// The class loader of the controller's that came with the request.
    pub fn loader_oid(&self) -> Option<i32> {
        self.loader
    }

    /// The class file of a class, by its binary name, from the class loader that came with the request
    /// (`RemoteClassLoader.IClassLoader.fetch`). Blocks, for a minute at most: not for the thread that reads the
    /// channel.
    ///
    /// # Errors
    /// If there is none of at most a mebibyte, the call is cancelled, the channel ends or no answer comes.
    pub fn fetch_class(&self, loader: Option<i32>, name: &str) -> Result<Bytes, RemoteError> {
        let Some(oid) = loader else {
            return Err(io::Error::other("the request came without a class loader").into());
        };
        let interface = "hudson.remoting.RemoteClassLoader$IClassLoader";
        let call = MethodCall { oid, interface, method: "fetch", types: &["java.lang.String"] };
        let call = |state: &mut State| state.channel.call_rpc(&call, |graph| vec![Some(graph.string(name))]);
        let answer = self.link.answer(call, Some(CALL_TIMEOUT), Some(self))?;
        let class_file = answer.root().and_then(|array| array.byte_array().ok());
        class_file.filter(|bytes| bytes.len() <= MAX_CLASS_FILE).ok_or_else(|| {
            io::Error::other(format!("the controller's answer is no class file of {name} of at most 1 MiB")).into()
        })
    }

    /// Calls the controller back: sends a callable, whose classes this class loader of the controller's resolves, and
    /// waits for its value, for a minute at most. Blocks.
    ///
    /// # Errors
    /// If it throws, this call is cancelled, the channel ends or no answer comes.
    pub fn call(&self, loader: i32, label: &str, request: Bytes) -> Result<Graph, RemoteError> {
        let call = |state: &mut State| state.channel.call_user_with(loader, label, request);
        self.link.answer(call, Some(CALL_TIMEOUT), Some(self))
    }

    /// Answers the request with the stream of a value, or an exception. Only the first answer counts.
    pub fn respond(&self, result: Result<(Graph, Option<NodeId>), Throw>) {
        let loader = self.loader();
        // Encoding may take long and needs no lock.
        let result = match result {
            Ok((graph, root)) if self.bare => Ok((Some(graph), root, Bytes::new())),
            Ok((graph, root)) => Ok((None, None, graph.encode_one(root))),
            Err(throw) => Err(throw),
        };
        let mut state = self.link.lock();
        state.callers.remove(&self.id);
        match result {
            Ok((Some(value), root, _)) => {
                state.channel.respond_plain(self.id, Ok(&|graph| root.map(|root| graph.import(&value, root))));
            }
            Ok((None, _, bytes)) => state.channel.respond_user(self.id, loader, Ok(bytes)),
            Err(throw) if self.bare => state.channel.respond_plain(self.id, Err(&throw)),
            Err(throw) => state.channel.respond_user(self.id, loader, Err(&throw)),
        }
        drop(state);
        self.link.transmit.notify_one();
    }

    fn claim(&self, view: View<'_>) -> Option<Grant> {
        self.link.lock().channel.claim(self.id, view.id())
    }

    fn not_open(view: View<'_>, wanted: &str) -> AccessError {
        view.error(format!("{wanted} was expected, not opened before"))
    }

    /// Opens a `RemoteOutputStream`, or the writing end of a `Pipe`, for writing. Each may be opened once.
    ///
    /// # Errors
    /// If `stream` is neither, or was opened before.
    pub fn output(self: &Arc<Self>, stream: View<'_>) -> Result<RemoteOutput, AccessError> {
        match self.claim(stream) {
            Some(Grant::Output(oid)) => Ok(RemoteOutput(Handle::open(self, StreamKind::Bytes, oid))),
            _ => Err(Self::not_open(stream, "an output stream")),
        }
    }

    /// Opens a `RemoteWriter`. Each may be opened once.
    ///
    /// # Errors
    /// If `stream` is none, or was opened before.
    pub fn writer(self: &Arc<Self>, stream: View<'_>) -> Result<RemoteWriter, AccessError> {
        match self.claim(stream) {
            Some(Grant::Writer(oid)) => Ok(RemoteWriter(Handle::open(self, StreamKind::Chars, oid))),
            _ => Err(Self::not_open(stream, "a writer")),
        }
    }

    /// Opens a `RemoteInputStream` of either kind for reading. Each may be opened once.
    ///
    /// # Errors
    /// If `stream` is none, or was opened before.
    pub fn input(self: &Arc<Self>, stream: View<'_>) -> Result<RemoteInput, AccessError> {
        let class = "hudson.remoting.RemoteInputStream";
        if let Some(pipe) = stream.annotation_objects(class).flatten().next() {
            return Ok(RemoteInput(Input::Pipe(self.pipe_reader(pipe)?)));
        }
        match self.claim(stream) {
            Some(Grant::Input(oid)) => Ok(RemoteInput(Input::Pull { caller: self.clone(), oid, ended: false })),
            _ => Err(Self::not_open(stream, "an input stream")),
        }
    }

    /// Opens the reading end of a `Pipe` that the controller writes to. Each may be opened once.
    ///
    /// # Errors
    /// If `pipe` is none, or was opened before.
    pub fn pipe_reader(self: &Arc<Self>, pipe: View<'_>) -> Result<PipeReader, AccessError> {
        let Some(Grant::PipeSource(ros)) = self.claim(pipe) else {
            return Err(Self::not_open(pipe, "the reading end of a pipe"));
        };
        let oid = {
            let mut state = self.link.lock();
            let oid = state.channel.connect_pipe(ros);
            state.exports.insert(oid, Export::Pipe(Buffered::default()));
            oid
        };
        self.link.transmit.notify_one();
        Ok(PipeReader { caller: self.clone(), oid })
    }

    /// Keeps a proxy of an object of the controller's, beyond the call if need be.
    ///
    /// # Errors
    /// If `proxy` is none, or is released by the controller itself when the call returns.
    pub fn remote_proxy(self: &Arc<Self>, proxy: View<'_>) -> Result<RemoteProxy, AccessError> {
        let handler = proxy.get("h")?.unwrap_or(proxy);
        match self.claim(handler) {
            Some(Grant::Proxy(oid)) => Ok(RemoteProxy { link: self.link.clone(), oid }),
            _ => Err(Self::not_open(proxy, "a proxy of an object of the controller's")),
        }
    }

    /// The controller must have done all pipe operations of ours up to this one before it sees the answer.
    ///
    /// What is written through the streams that this call opened counts by itself.
    pub fn answer_after(&self, io_id: i32) {
        self.link.lock().channel.answer_after(self.id, io_id);
    }
}

/// The use of a stream of the controller's.
struct Handle {
    caller: Arc<Caller>,
    kind: StreamKind,
    oid: i32,
    last_io: AtomicI32,
    ended: bool,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} of {:?}", self.oid, self.caller)
    }
}

/// Whether a stream may be written to now.
enum Room {
    /// So much.
    For(usize),
    Failed(io::Error),
}

impl Handle {
    fn open(caller: &Arc<Caller>, kind: StreamKind, oid: i32) -> Handle {
        caller.link.lock().channel.open_stream(oid);
        Handle { caller: caller.clone(), kind, oid, last_io: AtomicI32::new(0), ended: false }
    }

    fn link(&self) -> &Arc<Link> {
        &self.caller.link
    }

    fn room(&self, state: &State, wanted: usize) -> Option<Room> {
        if state.channel.is_closed() {
            return Some(Room::Failed(closed_error(state.reason.as_ref())));
        }
        if self.caller.is_cancelled() {
            return Some(Room::Failed(Cancelled.into()));
        }
        let Some(available) = state.channel.window(self.oid) else {
            let text = "the controller can no longer write to its end of the stream";
            return Some(Room::Failed(io::Error::new(io::ErrorKind::BrokenPipe, text)));
        };
        // As Java's: a small window is left to grow, so that chunks don't become ever smaller.
        let enough = wanted.min(super::state::WINDOW / 10).min(CHUNK);
        let queue = state.channel.queued_bytes() <= MAX_QUEUED;
        (queue && available >= enough).then(|| Room::For(available.min(wanted).min(CHUNK)))
    }

    fn stall(&self) -> Stall<'_> {
        Stall { stalls: &self.link().stalls, since: None }
    }

    fn sent(&self, state: &mut State, io_id: i32) {
        self.last_io.store(io_id, Ordering::Relaxed);
        state.channel.answer_after(self.caller.id, io_id);
    }

    fn write_blocking(&self, wanted: usize, mut write: impl FnMut(&mut Channel, usize) -> i32) -> io::Result<usize> {
        let mut stall = self.stall();
        let written = self.link().until_blocking(|state| match stall.waits(self.room(state, wanted))? {
            Room::Failed(error) => Some(Err(error)),
            Room::For(size) => {
                let io_id = write(&mut state.channel, size);
                self.sent(state, io_id);
                Some(Ok(size))
            }
        });
        self.link().transmit.notify_one();
        written
    }

    fn end(&mut self, end: End<'_>) -> io::Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let mut state = self.link().lock();
        if state.channel.is_closed() {
            return Err(closed_error(state.reason.as_ref()));
        }
        let io_id = state.channel.close_stream(self.kind, self.oid, end);
        if !matches!(end, End::Release) {
            self.sent(&mut state, io_id);
        }
        drop(state);
        self.link().transmit.notify_one();
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A channel that is closed holds no references.
        let _ = self.end(End::Release);
    }
}

/// An `OutputStream` of the controller's. Dropped, it goes back without being closed.
#[derive(Debug)]
pub struct RemoteOutput(Handle);

impl RemoteOutput {
    /// Closes the controller's stream.
    ///
    /// # Errors
    /// If the channel is closed.
    pub fn close(mut self) -> io::Result<()> {
        self.0.end(End::Close)
    }

    /// Closes the controller's stream; who reads it there gets this exception.
    ///
    /// # Errors
    /// If the channel is closed.
    pub fn fail(mut self, error: &Throw) -> io::Result<()> {
        self.0.end(End::Fail(error))
    }

    /// Writes all of it without blocking a thread.
    ///
    /// # Errors
    /// As those of [`io::Write`] for this.
    pub async fn write_async(&mut self, bytes: Bytes) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let handle = &self.0;
            let mut stall = handle.stall();
            let written = handle.link().until(|state| match stall.waits(handle.room(state, rest.len()))? {
                Room::Failed(error) => Some(Err(error)),
                Room::For(size) => {
                    let io_id = state.channel.write(handle.oid, rest.slice(..size));
                    handle.sent(state, io_id);
                    Some(Ok(size))
                }
            });
            // A cancelled call ends by the channel's own events; it must not wait for one here.
            let written = tokio::select! {
                written = written => written,
                () = handle.caller.cancelled() => Err(Cancelled.into()),
            }?;
            rest.advance(written);
            handle.link().transmit.notify_one();
        }
        Ok(())
    }

    /// Number of the last pipe operation through this handle, 0 if none: see [`Caller::answer_after`].
    pub fn last_io_id(&self) -> i32 {
        self.0.last_io.load(Ordering::Relaxed)
    }

    /// Makes the controller flush its stream. Does not wait for that.
    ///
    /// # Errors
    /// If the channel is closed.
    pub fn flush_remote(&mut self) -> io::Result<()> {
        let mut state = self.0.link().lock();
        if state.channel.is_closed() {
            return Err(closed_error(state.reason.as_ref()));
        }
        let io_id = state.channel.flush_stream(self.0.kind, self.0.oid);
        self.0.sent(&mut state, io_id);
        drop(state);
        self.0.link().transmit.notify_one();
        Ok(())
    }
}

/// Blocks while the controller's window or the connection is full. Fails with [`Cancelled`] when the call that opened
/// the stream was cancelled, with [`io::ErrorKind::BrokenPipe`] when the channel has ended or the controller can't write
/// to its end. Every write is a command: buffer small ones.
impl io::Write for RemoteOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let oid = self.0.oid;
        self.0.write_blocking(bytes.len(), |channel, size| channel.write(oid, Bytes::copy_from_slice(&bytes[..size])))
    }

    /// Does nothing: what was written is on its way. See [`RemoteOutput::flush_remote`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A `Writer` of the controller's. Dropped, it goes back without being closed.
#[derive(Debug)]
pub struct RemoteWriter(Handle);

impl RemoteWriter {
    /// Writes text. Blocks as [`RemoteOutput`] does.
    ///
    /// # Errors
    /// As those of [`RemoteOutput`].
    pub fn write_str(&mut self, text: &str) -> io::Result<()> {
        let units: Vec<u16> = text.encode_utf16().collect();
        let oid = self.0.oid;
        let mut rest = units.as_slice();
        while !rest.is_empty() {
            let written = self.0.write_blocking(rest.len(), |channel, size| channel.write_chars(oid, &rest[..size]))?;
            rest = &rest[written..];
        }
        Ok(())
    }

    /// Closes the controller's writer.
    ///
    /// # Errors
    /// If the channel is closed.
    pub fn close(mut self) -> io::Result<()> {
        self.0.end(End::Close)
    }
}

/// The reading end of a pipe that the controller writes to. Blocks; ends when the call is cancelled.
pub struct PipeReader {
    caller: Arc<Caller>,
    oid: i32,
}

impl fmt::Debug for PipeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pipe {} of {:?}", self.oid, self.caller)
    }
}

impl io::Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let link = self.caller.link.clone();
        let read = link.until_blocking(|state| {
            let Some(Export::Pipe(pipe)) = state.exports.get_mut(&self.oid) else {
                return Some(Err(closed_error(state.reason.as_ref())));
            };
            let size = pipe.read(buffer);
            if size > 0 {
                state.channel.acknowledge(StreamKind::Bytes, self.oid, size);
                return Some(Ok(size));
            }
            match &pipe.end {
                Some(Ok(())) => Some(Ok(0)),
                Some(Err(error)) => Some(Err(io::Error::other(error.clone()))),
                None if self.caller.is_cancelled() => Some(Err(Cancelled.into())),
                None => None,
            }
        });
        link.transmit.notify_one();
        read
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut state = self.caller.link.lock();
        let Some(Export::Pipe(pipe)) = state.exports.get_mut(&self.oid) else { return };
        if pipe.end.is_some() {
            state.exports.remove(&self.oid);
            return;
        }
        // The controller still writes: what comes is acknowledged and forgotten until it notices.
        pipe.abandoned = true;
        let unread = pipe.discard();
        let why = Throw::io("the agent does not read the stream to its end");
        state.channel.refuse_writes(StreamKind::Bytes, self.oid, &why);
        state.channel.acknowledge(StreamKind::Bytes, self.oid, unread);
        drop(state);
        self.caller.link.transmit.notify_one();
    }
}

/// An `InputStream` of the controller's, of either kind. Blocks.
#[derive(Debug)]
pub struct RemoteInput(Input);

#[derive(Debug)]
enum Input {
    /// The controller sends without being asked.
    Pipe(PipeReader),
    /// The controller is asked for each piece.
    Pull { caller: Arc<Caller>, oid: i32, ended: bool },
}

impl io::Read for RemoteInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Input::Pipe(pipe) => pipe.read(buffer),
            Input::Pull { ended: true, .. } => Ok(0),
            Input::Pull { caller, oid, ended } => {
                let wanted = buffer.len().min(CHUNK);
                if wanted == 0 {
                    return Ok(0);
                }
                let malformed = || io::Error::other("the controller's answer to a read is malformed");
                loop {
                    let answer =
                        caller.link.answer(|state| state.channel.call_read(*oid, wanted), None, Some(caller))?;
                    let root = answer.root().ok_or_else(malformed)?;
                    let length = root.int("len").map_err(io::Error::other)?;
                    let Ok(length) = usize::try_from(length) else {
                        *ended = true;
                        return Ok(0);
                    };
                    let bytes = root.require("buf").and_then(View::byte_array).map_err(io::Error::other)?;
                    let bytes = bytes.get(..length).filter(|_| length <= wanted).ok_or_else(malformed)?;
                    buffer[..length].copy_from_slice(bytes);
                    // Java's streams may give nothing and not be at their end.
                    if length > 0 {
                        return Ok(length);
                    }
                }
            }
        }
    }
}

impl Drop for RemoteInput {
    fn drop(&mut self) {
        if let Input::Pull { caller, oid, .. } = &self.0 {
            caller.link.lock().channel.give_back(Grant::Input(*oid));
            caller.link.transmit.notify_one();
        }
    }
}

/// Why a call to the controller did not return.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The controller's method threw; this is what the exception says of itself.
    #[error("{0}")]
    Thrown(String),
    /// The channel has ended, or the answer took longer than a minute.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<RemoteError> for io::Error {
    fn from(error: RemoteError) -> io::Error {
        match error {
            RemoteError::Io(error) => error,
            RemoteError::Thrown(text) => io::Error::other(text),
        }
    }
}

/// An object of the controller's. Dropped, its reference goes back.
#[derive(Debug)]
pub struct RemoteProxy {
    link: Arc<Link>,
    oid: i32,
}

impl RemoteProxy {
    /// Calls a method: the interface that declares it, its name, its parameter types by `Class.getName`, and its
    /// arguments, of JDK classes. Blocks, for a minute at most.
    ///
    /// # Errors
    /// If the method throws, the channel ends or no answer comes.
    pub fn invoke(
        &self,
        interface: &str,
        method: &str,
        types: &[&str],
        arguments: impl FnOnce(&mut Graph) -> Vec<Option<NodeId>>,
    ) -> Result<Graph, RemoteError> {
        let call = MethodCall { oid: self.oid, interface, method, types };
        let (home, peer) = {
            let state = self.link.lock();
            (state.channel.home_loader(), state.channel.peer())
        };
        let annotated = peer.has(crate::frame::Capability::MULTI_CLASSLOADER);
        let loader = home.filter(|_| annotated).map_or(Loader::None, Loader::Receivers);
        let request = call.stream(loader, arguments);
        let label = call.label();
        self.link.answer(|state| state.channel.call_user(&label, request), Some(CALL_TIMEOUT), None)
    }
}

impl Drop for RemoteProxy {
    fn drop(&mut self) {
        self.link.lock().channel.give_back(Grant::Proxy(self.oid));
        self.link.transmit.notify_one();
    }
}
