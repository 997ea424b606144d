//! A channel shared by threads and tasks.
#![allow(missing_docs, unused_variables, clippy::todo, clippy::missing_errors_doc)]

use std::any::Any;
use std::future::Future;
use std::io;
use std::sync::Arc;

use crate::object::{AccessError, Graph, Loader, NodeId, View};

/// What takes the bytes that the controller writes to an exported stream of ours. Runs on a blocking thread, in order.
pub trait Sink: Send {
    /// Takes bytes, all of them.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Passes on what was taken.
    fn flush(&mut self) -> io::Result<()>;
    /// The controller closed the stream (`None`), or closed it because of this error.
    fn close(self: Box<Self>, error: Option<String>) -> io::Result<()>;
}

/// A channel, shared.
#[derive(Debug)]
pub struct Link {}

impl Link {
    /// Exports an object; it goes when its last reference is returned. Every serialization of it must add one.
    pub fn export(&self, object: Arc<dyn Any + Send + Sync>) -> i32 {
        todo!()
    }
    /// Adds a reference to an exported object, for a proxy that is about to be sent.
    pub fn add_reference(&self, oid: i32) {
        todo!()
    }
    /// Exports a stream that the controller writes to, with one reference: put it in an answer with [`remote_output_stream`].
    pub fn export_output(&self, sink: Box<dyn Sink>) -> i32 {
        todo!()
    }
    /// Exports a stream that the controller reads from (`ProxyInputStream$Chunk`), with one reference.
    pub fn export_input(&self, input: Box<dyn io::Read + Send>) -> i32 {
        todo!()
    }
    /// Whether the channel is closed.
    pub fn is_closed(&self) -> bool {
        todo!()
    }
    /// Waits until the channel is closed.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        async { todo!() }
    }
}

/// A `hudson.remoting.RemoteOutputStream` of ours, for an answer.
pub fn remote_output_stream(graph: &mut Graph, oid: i32) -> NodeId {
    todo!()
}
/// A `hudson.remoting.RemoteInputStream` (not greedy) of ours, for an answer.
pub fn remote_input_stream(graph: &mut Graph, oid: i32) -> NodeId {
    todo!()
}

/// A request's own handle on the channel.
#[derive(Debug)]
pub struct Caller {}

impl Caller {
    pub fn link(&self) -> &Arc<Link> {
        todo!()
    }
    pub fn is_cancelled(&self) -> bool {
        todo!()
    }
    /// Waits until the call is cancelled or the channel is closed.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + use<> {
        async { todo!() }
    }
    pub fn loader(&self) -> Loader {
        todo!()
    }
    pub fn output(self: &Arc<Self>, stream: View<'_>) -> Result<RemoteOutput, AccessError> {
        todo!()
    }
    pub fn writer(self: &Arc<Self>, stream: View<'_>) -> Result<RemoteWriter, AccessError> {
        todo!()
    }
    pub fn input(self: &Arc<Self>, stream: View<'_>) -> Result<RemoteInput, AccessError> {
        todo!()
    }
    pub fn pipe_reader(self: &Arc<Self>, pipe: View<'_>) -> Result<PipeReader, AccessError> {
        todo!()
    }
    /// Keeps a proxy of an object of the controller's beyond the call; its reference goes back when it is dropped.
    pub fn remote_proxy(self: &Arc<Self>, proxy: View<'_>) -> Result<RemoteProxy, AccessError> {
        todo!()
    }
    /// The controller must have done everything up to this pipe operation of ours before it sees the answer.
    pub fn answer_after(&self, io_id: i32) {
        todo!()
    }
}

/// An `OutputStream` of the controller's. Dropped unclosed, it is given back without being closed (`Unexport`).
#[derive(Debug)]
pub struct RemoteOutput {}

impl RemoteOutput {
    /// Closes the controller's stream (`EOF`).
    pub fn close(self) -> io::Result<()> {
        todo!()
    }
    /// Closes the controller's stream with an exception that its reader will throw.
    pub fn fail(self, build: impl FnOnce(&mut Graph) -> NodeId) -> io::Result<()> {
        todo!()
    }
    /// Writes without blocking a thread.
    pub async fn write_async(&mut self, bytes: &[u8]) -> io::Result<()> {
        todo!()
    }
    /// The id of the last pipe operation sent through this handle, 0 if none: see [`Caller::answer_after`].
    pub fn last_io_id(&self) -> i32 {
        todo!()
    }
    /// Passes on what was written (`Flush`).
    pub fn flush_now(&mut self) -> io::Result<()> {
        todo!()
    }
}

/// Blocks while the controller's window or the connection is full. Fails with `Interrupted` when the call that opened
/// the stream is cancelled, with `BrokenPipe` when the channel or the controller's stream is closed.
impl io::Write for RemoteOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        todo!()
    }
    /// Does nothing: a flush that crosses the network is [`RemoteOutput::flush_now`].
    fn flush(&mut self) -> io::Result<()> {
        todo!()
    }
}

/// A `Writer` of the controller's.
#[derive(Debug)]
pub struct RemoteWriter {}
impl RemoteWriter {
    pub fn write_str(&mut self, text: &str) -> io::Result<()> {
        todo!()
    }
    pub fn close(self) -> io::Result<()> {
        todo!()
    }
}

/// An `InputStream` of the controller's, of either kind. Blocks.
#[derive(Debug)]
pub struct RemoteInput {}
impl io::Read for RemoteInput {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        todo!()
    }
}

/// The reading end of a pipe that the controller writes to. Blocks.
#[derive(Debug)]
pub struct PipeReader {}
impl io::Read for PipeReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        todo!()
    }
}

/// Why a call to the controller did not return.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The controller's method threw; this is what the exception says of itself.
    #[error("{0}")]
    Thrown(String),
    /// The channel is closed, or the call took longer than its deadline.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An object of the controller's.
#[derive(Debug)]
pub struct RemoteProxy {}
impl RemoteProxy {
    /// Calls a method: the interface that declares it, its name, its parameter types by `Class.getName`, and arguments. Blocks, with a deadline of a minute.
    pub fn invoke(
        &self,
        interface: &str,
        method: &str,
        types: &[&str],
        arguments: impl FnOnce(&mut Graph) -> Vec<Option<NodeId>>,
    ) -> Result<Graph, RemoteError> {
        todo!()
    }
}
