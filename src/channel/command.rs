//! Commands: the objects that the two ends of a channel send each other, one object stream each.
//!
//! Names are those of `hudson.remoting`'s classes. `createdAt`, where the sender notes its stack, is skipped in what
//! comes and null in what goes.

use bytes::Bytes;

use super::throw::{Throw, proxy_exception};
use crate::frame::Capability;
use crate::object::{AccessError, Content, Graph, Loader, Node, NodeId, Value, View, sc};

/// A command of the peer's.
#[derive(Debug)]
pub enum Command {
    /// `UserRequest`: a callable, or a call of a method of an exported object, in a stream of its own.
    UserRequest {
        /// Request id, the sender's.
        id: i32,
        /// Pipe operation of the sender's that must be done before.
        last_io: i32,
        /// The object stream.
        request: Bytes,
        /// The exported class loader that comes with it: a reference that is owed back.
        loader: Option<i32>,
    },
    /// `RemoteInvocationHandler$RPCRequest` sent bare.
    Rpc {
        /// Request id, the sender's.
        id: i32,
        /// Pipe operation of the sender's that must be done before.
        last_io: i32,
        /// The command itself.
        graph: Graph,
    },
    /// `ProxyInputStream$Chunk`: the peer reads from an exported stream.
    Read {
        /// Request id, the sender's.
        id: i32,
        /// The stream.
        oid: i32,
        /// At most so many bytes.
        length: i32,
    },
    /// Another kind of bare request.
    UnknownRequest {
        /// Request id, the sender's.
        id: i32,
        /// Its class.
        class: String,
    },
    /// `Response`.
    Response {
        /// Our request's id.
        id: i32,
        /// Pipe operation of the sender's that must be done before.
        last_io: i32,
        /// What it says.
        answer: Answered,
    },
    /// `Request$Cancel`.
    Cancel {
        /// The sender's request.
        id: i32,
    },
    /// `UnexportCommand`: one reference comes back.
    Unexport {
        /// Our object.
        oid: i32,
    },
    /// `Chunk`, `Flush`, `EOF` or `Unexport` of `ProxyOutputStream` and `ProxyWriter`.
    Stream {
        /// Our stream.
        oid: i32,
        /// Number of the operation.
        io_id: i32,
        /// The operation.
        op: StreamOp,
    },
    /// `Ack`: so many bytes or chars were taken.
    Ack {
        /// The peer's stream.
        oid: i32,
        /// So many.
        size: i32,
    },
    /// `NotifyDeadWriter`: writing failed at the peer.
    DeadWriter {
        /// The peer's stream.
        oid: i32,
    },
    /// `ProxyInputStream$EOF`: the peer has read enough.
    InputClosed {
        /// Our stream.
        oid: i32,
    },
    /// `Pipe$ConnectCommand`: what is written to our end `ros` goes to the peer's stream `pos`.
    Connect {
        /// Our pipe's writing end.
        ros: i32,
        /// The peer's stream.
        pos: i32,
    },
    /// `Channel$CloseCommand`.
    Close {
        /// What the peer gives as the cause.
        cause: Option<String>,
    },
    /// A class that needs no action here (`GCCommand`), or none that is known.
    Other {
        /// Its class.
        class: String,
    },
}

/// What the peer does to a stream of ours.
#[derive(Debug, Clone)]
pub enum StreamOp {
    /// Bytes.
    Write(Bytes),
    /// Chars, as UTF-16 units.
    Chars(Vec<u16>),
    /// Flush.
    Flush,
    /// Close, because of this error if there is one. Returns a reference.
    Close(Option<String>),
    /// Give back a reference and leave the stream open.
    Release,
}

impl StreamOp {
    /// What it takes from the window: bytes, or chars.
    pub fn size(&self) -> usize {
        match self {
            StreamOp::Write(bytes) => bytes.len(),
            StreamOp::Chars(units) => units.len(),
            _ => 0,
        }
    }
}

/// An answer to a request of ours.
#[derive(Debug)]
pub enum Answered {
    /// A value that came by itself: the answer to a bare request.
    Value(Graph),
    /// The object stream of a value.
    Normal(Bytes),
    /// An exception, as it describes itself.
    Exception(String),
}

/// What an exception says of itself: its class and message.
fn describe(throwable: View<'_>) -> String {
    let message = throwable.string("detailMessage").ok().flatten();
    match message {
        // A ProxyException's message is the original exception's own description.
        Some(message) if throwable.is("hudson.remoting.ProxyException") => message.into_owned(),
        Some(message) => format!("{}: {message}", throwable.class_name()),
        None => throwable.class_name().into_owned(),
    }
}

/// The oid of a class loader that came as a proxy, or as a `RemoteIClassLoader`.
fn loader_oid(view: View<'_>) -> Result<Option<i32>, AccessError> {
    match view.get("h")? {
        // Coming home: a loader of ours, which this agent never exports.
        Some(handler) if handler.bool("goingHome")? => Ok(None),
        Some(handler) => handler.int("oid").map(Some),
        None => view.int("oid").map(Some),
    }
}

impl Command {
    /// Reads a command from its graph.
    ///
    /// # Errors
    /// If the graph is a known command with fields of other types than every version's.
    pub fn read(graph: Graph) -> Result<Command, AccessError> {
        let Some(root) = graph.root() else {
            return Ok(Command::Other { class: "null".to_owned() });
        };
        let class = root.class_name();
        let Some(name) = class.strip_prefix("hudson.remoting.") else {
            return unknown(root);
        };
        Ok(match name {
            "UserRequest" => Command::UserRequest {
                id: root.int("id")?,
                last_io: root.int("lastIoId")?,
                request: root.require("request")?.byte_array()?,
                loader: root.get("classLoaderProxy")?.map(loader_oid).transpose()?.flatten(),
            },
            "Response" => {
                // Who waits for it must hear of an answer that can't be read.
                let unreadable = |error| Answered::Exception(format!("an answer that cannot be read ({error})"));
                let answer = read_answer(root).unwrap_or_else(unreadable);
                Command::Response { id: root.int("id")?, last_io: root.int("lastIoId")?, answer }
            }
            "Request$Cancel" => Command::Cancel { id: root.int("id")? },
            "UnexportCommand" => Command::Unexport { oid: root.int("oid")? },
            "ProxyOutputStream$Chunk" => stream(root, StreamOp::Write(root.require("buf")?.byte_array()?))?,
            "ProxyWriter$Chunk" => {
                let big_endian = root.require("buf")?.primitive_array("[C")?;
                let units = big_endian.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
                stream(root, StreamOp::Chars(units.collect()))?
            }
            "ProxyOutputStream$Flush" | "ProxyWriter$Flush" => stream(root, StreamOp::Flush)?,
            "ProxyOutputStream$EOF" | "ProxyWriter$EOF" => {
                stream(root, StreamOp::Close(root.get("error")?.map(describe)))?
            }
            "ProxyOutputStream$Unexport" | "ProxyWriter$Unexport" => stream(root, StreamOp::Release)?,
            "ProxyOutputStream$Ack" | "ProxyWriter$Ack" => {
                Command::Ack { oid: root.int("oid")?, size: root.int("size")? }
            }
            "ProxyOutputStream$NotifyDeadWriter" | "ProxyWriter$NotifyDeadWriter" => {
                Command::DeadWriter { oid: root.int("oid")? }
            }
            "ProxyInputStream$EOF" => Command::InputClosed { oid: root.int("oid")? },
            "ProxyInputStream$Chunk" => {
                Command::Read { id: root.int("id")?, oid: root.int("oid")?, length: root.int("len")? }
            }
            "Pipe$ConnectCommand" => Command::Connect { ros: root.int("oidRos")?, pos: root.int("oidPos")? },
            "Channel$CloseCommand" => {
                let source = root.get("createdAt")?;
                let cause = source.map(|source| source.get("cause")).transpose()?.flatten();
                Command::Close { cause: cause.filter(|c| !c.is("hudson.remoting.Command$Source")).map(describe) }
            }
            "RemoteInvocationHandler$RPCRequest" => {
                let (id, last_io) = (root.int("id")?, root.int("lastIoId")?);
                Command::Rpc { id, last_io, graph }
            }
            _ => return unknown(root),
        })
    }
}

fn stream(root: View<'_>, op: StreamOp) -> Result<Command, AccessError> {
    Ok(Command::Stream { oid: root.int("oid")?, io_id: root.int("ioId")?, op })
}

fn unknown(root: View<'_>) -> Result<Command, AccessError> {
    let class = root.class_name().into_owned();
    if root.hierarchy().any(|name| name == "hudson.remoting.Request") {
        return Ok(Command::UnknownRequest { id: root.int("id")?, class });
    }
    Ok(Command::Other { class })
}

fn read_answer(root: View<'_>) -> Result<Answered, AccessError> {
    if let Some(exception) = root.get("exception")? {
        return Ok(Answered::Exception(describe(exception)));
    }
    let Some(value) = root.get("returnValue")? else {
        return Ok(Answered::Value(Graph::default()));
    };
    let class = value.class_name();
    Ok(match class.strip_prefix("hudson.remoting.").unwrap_or_default() {
        "UserRequest$NormalResponse" => Answered::Normal(value.require("response")?.byte_array()?),
        "UserRequest$ExceptionResponse" => {
            // The proxy has the whole chain in its message and resolves anywhere.
            let bytes = match value.get("proxyResponse")? {
                Some(bytes) => bytes,
                None => value.require("rawResponse")?,
            };
            Answered::Exception(describe_stream(bytes.byte_array()?))
        }
        "UserResponse" if value.bool("isException")? => {
            Answered::Exception(describe_stream(value.require("response")?.byte_array()?))
        }
        "UserResponse" => Answered::Normal(value.require("response")?.byte_array()?),
        _ => {
            let id = value.id();
            let mut graph = root.graph().clone();
            graph.set_root(id);
            Answered::Value(graph)
        }
    })
}

fn describe_stream(bytes: Bytes) -> String {
    match Graph::decode(bytes, &crate::object::Limits::default()) {
        Ok(graph) => graph.root().map_or_else(|| "null".to_owned(), describe),
        Err(error) => format!("an exception that cannot be read ({error})"),
    }
}

// ---- what this agent sends --------------------------------------------------------------------------------------

type Fields<'a> = &'a [(&'static str, &'a str)];

fn command_desc(graph: &mut Graph) -> NodeId {
    graph.serializable("hudson.remoting.Command", 1, &[("createdAt", "Ljava/lang/Exception;")], None)
}

fn command(class: &str, fields: Fields<'_>, values: &[(&'static str, Value)]) -> Bytes {
    command_with_uid(class, 1, fields, values)
}

fn command_with_uid(class: &str, uid: i64, fields: Fields<'_>, values: &[(&'static str, Value)]) -> Bytes {
    let mut graph = Graph::default();
    let base = command_desc(&mut graph);
    let desc = graph.serializable(class, uid, fields, Some(base));
    let object = values.iter().fold(graph.object(desc), |object, (name, value)| object.set(name, *value)).build();
    graph.encode_one(Some(object))
}

/// `Channel$CloseCommand`.
pub fn close() -> Bytes {
    command_with_uid("hudson.remoting.Channel$CloseCommand", 972857271608138115, &[], &[])
}

/// `Request$Cancel` of a request of ours.
pub fn cancel(id: i32) -> Bytes {
    let uid = -1709992419006993208;
    command_with_uid("hudson.remoting.Request$Cancel", uid, &[("id", "I")], &[("id", Value::Int(id))])
}

/// `UnexportCommand`: one reference to an object of the peer's goes back.
pub fn unexport(oid: i32) -> Bytes {
    command("hudson.remoting.UnexportCommand", &[("oid", "I")], &[("oid", Value::Int(oid))])
}

/// Which kind of stream a handle is for: the two have commands of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// `ProxyOutputStream`.
    Bytes,
    /// `ProxyWriter`.
    Chars,
}

impl StreamKind {
    fn class(self, what: &str) -> String {
        match self {
            StreamKind::Bytes => format!("hudson.remoting.ProxyOutputStream${what}"),
            StreamKind::Chars => format!("hudson.remoting.ProxyWriter${what}"),
        }
    }

    fn fields(self) -> Vec<(&'static str, &'static str)> {
        match self {
            StreamKind::Bytes => vec![("ioId", "I"), ("oid", "I"), ("requestId", "I")],
            StreamKind::Chars => vec![("ioId", "I"), ("oid", "I")],
        }
    }
}

/// `ProxyOutputStream$Chunk`.
pub fn chunk(oid: i32, io_id: i32, bytes: Bytes) -> Bytes {
    let mut graph = Graph::default();
    let buf = graph.byte_array(bytes);
    chunk_of(graph, StreamKind::Bytes, "[B", oid, io_id, buf)
}

/// `ProxyWriter$Chunk`.
pub fn chars(oid: i32, io_id: i32, units: &[u16]) -> Bytes {
    let mut graph = Graph::default();
    let buf = graph.char_array(units);
    chunk_of(graph, StreamKind::Chars, "[C", oid, io_id, buf)
}

fn chunk_of(mut graph: Graph, kind: StreamKind, array: &'static str, oid: i32, io_id: i32, buf: NodeId) -> Bytes {
    let base = command_desc(&mut graph);
    let mut fields = kind.fields();
    fields.push(("buf", array));
    let desc = graph.serializable(&kind.class("Chunk"), 1, &fields, Some(base));
    let object =
        graph.object(desc).set("ioId", Value::Int(io_id)).set("oid", Value::Int(oid)).set_ref("buf", buf).build();
    graph.encode_one(Some(object))
}

/// `Flush`.
pub fn flush(kind: StreamKind, oid: i32, io_id: i32) -> Bytes {
    command(&kind.class("Flush"), &kind.fields(), &[("ioId", Value::Int(io_id)), ("oid", Value::Int(oid))])
}

/// `Unexport`: the stream goes back and stays open.
pub fn release(kind: StreamKind, oid: i32, io_id: i32) -> Bytes {
    let values = [("ioId", Value::Int(io_id)), ("oid", Value::Int(oid))];
    command(&kind.class("Unexport"), &[("ioId", "I"), ("oid", "I")], &values)
}

/// `EOF`: the stream goes back and is closed; bytes only: because of an error.
pub fn eof(kind: StreamKind, oid: i32, io_id: i32, error: Option<&Throw>) -> Bytes {
    let mut graph = Graph::default();
    let base = command_desc(&mut graph);
    let mut fields = kind.fields();
    if kind == StreamKind::Bytes {
        fields.push(("error", "Ljava/lang/Throwable;"));
    }
    let desc = graph.serializable(&kind.class("EOF"), 1, &fields, Some(base));
    let error = error.map(|throw| throw.build(&mut graph));
    let object =
        graph.object(desc).set("ioId", Value::Int(io_id)).set("oid", Value::Int(oid)).set_ref("error", error).build();
    graph.encode_one(Some(object))
}

/// `Ack`: so many bytes or chars were taken.
pub fn ack(kind: StreamKind, oid: i32, size: i32) -> Bytes {
    let values = [("oid", Value::Int(oid)), ("size", Value::Int(size))];
    command(&kind.class("Ack"), &[("oid", "I"), ("size", "I")], &values)
}

/// `NotifyDeadWriter`: writing to our stream failed.
pub fn dead_writer(kind: StreamKind, oid: i32, why: &Throw) -> Bytes {
    let mut graph = Graph::default();
    let base = command_desc(&mut graph);
    let desc = graph.serializable(&kind.class("NotifyDeadWriter"), 1, &[("oid", "I")], Some(base));
    // The receiver takes `createdAt.getCause()` as the reason.
    let created_at = Throw::io("the writing end is dead").caused_by(why.clone()).build(&mut graph);
    let object = graph.object(desc).set("oid", Value::Int(oid)).set_ref("createdAt", created_at).build();
    graph.encode_one(Some(object))
}

/// `ProxyInputStream$EOF`: we have read enough of a stream of the peer's.
pub fn input_closed(oid: i32) -> Bytes {
    command("hudson.remoting.ProxyInputStream$EOF", &[("oid", "I")], &[("oid", Value::Int(oid))])
}

/// `Pipe$ConnectCommand`: what the peer writes to its end `ros` shall go to our stream `pos`.
pub fn connect(ros: i32, pos: i32) -> Bytes {
    let values = [("oidRos", Value::Int(ros)), ("oidPos", Value::Int(pos))];
    let uid = -9128735897846418140;
    command_with_uid("hudson.remoting.Pipe$ConnectCommand", uid, &[("oidPos", "I"), ("oidRos", "I")], &values)
}

fn request_desc(graph: &mut Graph) -> NodeId {
    let base = command_desc(graph);
    let fields = [("id", "I"), ("lastIoId", "I"), ("response", "Lhudson/remoting/Response;")];
    graph.serializable("hudson.remoting.Request", 1, &fields, Some(base))
}

/// `ProxyInputStream$Chunk`: read at most `length` bytes from a stream of the peer's.
pub fn read(id: i32, oid: i32, length: i32) -> Bytes {
    let mut graph = Graph::default();
    let base = request_desc(&mut graph);
    let fields = [("len", "I"), ("oid", "I")];
    let desc = graph.serializable("hudson.remoting.ProxyInputStream$Chunk", 1, &fields, Some(base));
    let object =
        graph.object(desc).set("id", Value::Int(id)).set("oid", Value::Int(oid)).set("len", Value::Int(length)).build();
    graph.encode_one(Some(object))
}

/// `UserRequest` with a callable's stream; `loader` is a class loader of the peer's own, to resolve it with.
pub fn user_request(id: i32, last_io: i32, loader: i32, request: Bytes, label: &str) -> Bytes {
    let mut graph = Graph::default();
    let base = request_desc(&mut graph);
    let fields = [
        ("classLoaderProxy", "Lhudson/remoting/RemoteClassLoader$IClassLoader;"),
        ("request", "[B"),
        ("toString", "Ljava/lang/String;"),
    ];
    let desc = graph.serializable("hudson.remoting.UserRequest", 1, &fields, Some(base));
    let loader_class = "hudson.remoting.RemoteClassLoader$RemoteIClassLoader";
    let loader_desc = graph.serializable(loader_class, 1, &[("oid", "I")], None);
    let proxy = graph.object(loader_desc).set("oid", Value::Int(loader)).build();
    let request = graph.byte_array(request);
    let label = graph.string(label);
    let object = graph
        .object(desc)
        .set("id", Value::Int(id))
        .set("lastIoId", Value::Int(last_io))
        .set_ref("classLoaderProxy", proxy)
        .set_ref("request", request)
        .set_ref("toString", label)
        .build();
    graph.encode_one(Some(object))
}

/// The stream of a `PingThread$Ping`.
pub fn ping() -> Bytes {
    let mut graph = Graph::with_loader(Loader::Receivers(0));
    let desc = graph.serializable("hudson.remoting.PingThread$Ping", 1, &[], None);
    let object = graph.object(desc).build();
    graph.encode_one(Some(object))
}

/// A method call of an object of the peer's.
pub struct MethodCall<'a> {
    /// The object.
    pub oid: i32,
    /// Interface that declares the method.
    pub interface: &'a str,
    /// The method.
    pub method: &'a str,
    /// Its parameter types (`Class.getName`).
    pub types: &'a [&'a str],
}

impl MethodCall<'_> {
    /// The stream of the `UserRPCRequest`; `arguments` adds the arguments to it.
    pub fn stream(&self, loader: Loader, arguments: impl FnOnce(&mut Graph) -> Vec<Option<NodeId>>) -> Bytes {
        let mut graph = Graph::with_loader(loader);
        let rpc = Self::rpc_desc(&mut graph);
        let user = "hudson.remoting.RemoteInvocationHandler$UserRPCRequest";
        let user = graph.serializable(user, -9185841650347902580, &[], Some(rpc));
        self.encode(graph, user, (0, 0), arguments)
    }

    /// The bare `RPCRequest`, a command of its own, which a method of remoting's own objects is called by: the value
    /// in its `Response` is bare too.
    pub fn request(&self, id: i32, arguments: impl FnOnce(&mut Graph) -> Vec<Option<NodeId>>) -> Bytes {
        self.request_after(id, 0, arguments)
    }

    /// As [`request`](Self::request), to be executed behind the pipe operation `last_io`.
    pub fn request_after(
        &self,
        id: i32,
        last_io: i32,
        arguments: impl FnOnce(&mut Graph) -> Vec<Option<NodeId>>,
    ) -> Bytes {
        let mut graph = Graph::default();
        let rpc = Self::rpc_desc(&mut graph);
        self.encode(graph, rpc, (id, last_io), arguments)
    }

    fn rpc_desc(graph: &mut Graph) -> NodeId {
        let base = request_desc(graph);
        let fields = [
            ("arguments", "[Ljava/lang/Object;"),
            ("declaringClassName", "Ljava/lang/String;"),
            ("methodName", "Ljava/lang/String;"),
            ("oid", "I"),
            ("types", "[Ljava/lang/String;"),
        ];
        let rpc = "hudson.remoting.RemoteInvocationHandler$RPCRequest";
        graph.serializable(rpc, 1, &fields, Some(base))
    }

    fn encode(
        &self,
        mut graph: Graph,
        desc: NodeId,
        (id, last_io): (i32, i32),
        arguments: impl FnOnce(&mut Graph) -> Vec<Option<NodeId>>,
    ) -> Bytes {
        let arguments = arguments(&mut graph);
        let arguments = graph.array("[Ljava.lang.Object;", -8012369246846506644, &arguments);
        let interface = graph.string(self.interface);
        let method = graph.string(self.method);
        let types = graph.string_array(self.types);
        let object = graph
            .object(desc)
            .set("id", Value::Int(id))
            .set("lastIoId", Value::Int(last_io))
            .set("oid", Value::Int(self.oid))
            .set_ref("arguments", arguments)
            .set_ref("declaringClassName", interface)
            .set_ref("methodName", method)
            .set_ref("types", types)
            .build();
        graph.encode_one(Some(object))
    }

    /// What Java's `toString` of the request says; controllers log it.
    pub fn label(&self) -> String {
        format!("UserRPCRequest:{}.{}[{}]({})", self.interface, self.method, self.types.join(","), self.oid)
    }
}

fn response(mut graph: Graph, id: i32, last_io: i32, value: Option<NodeId>, exception: Option<NodeId>) -> Bytes {
    let base = command_desc(&mut graph);
    let fields =
        [("exception", "Ljava/lang/Throwable;"), ("id", "I"), ("lastIoId", "I"), ("returnValue", "Ljava/lang/Object;")];
    let desc = graph.serializable("hudson.remoting.Response", 1, &fields, Some(base));
    let object = graph
        .object(desc)
        .set("id", Value::Int(id))
        .set("lastIoId", Value::Int(last_io))
        .set_ref("exception", exception)
        .set_ref("returnValue", value)
        .build();
    graph.encode_one(Some(object))
}

/// Adds an answer's value, or null, to a graph.
pub type BuildValue<'a> = &'a dyn Fn(&mut Graph) -> Option<NodeId>;

/// `Response` to a bare request: the value itself, or the exception itself.
pub fn plain_response(id: i32, last_io: i32, result: Result<BuildValue<'_>, &Throw>) -> Bytes {
    let mut graph = Graph::default();
    let (value, exception) = match result {
        Ok(build) => (build(&mut graph), None),
        Err(throw) => (None, Some(throw.build(&mut graph))),
    };
    response(graph, id, last_io, value, exception)
}

/// `Response` to a user request: the stream of its value, or an exception. Classes of exceptions are annotated for
/// the class loader `loader`.
pub fn user_response(id: i32, last_io: i32, peer: Capability, loader: Loader, result: Result<Bytes, &Throw>) -> Bytes {
    let mut graph = Graph::default();
    let stream = |build: &dyn Fn(&mut Graph) -> NodeId| {
        let mut graph = Graph::with_loader(loader);
        let root = build(&mut graph);
        graph.encode_one(Some(root))
    };
    // UserRequest.deserialize/perform: which shape the peer reads is told by its capability alone.
    let value = if peer.has(Capability::PROXY_EXCEPTION_FALLBACK) {
        match result {
            Ok(bytes) => {
                let class = "hudson.remoting.UserRequest$NormalResponse";
                let desc = graph.serializable(class, 1, &[("response", "[B")], None);
                let bytes = graph.byte_array(bytes);
                graph.object(desc).set_ref("response", bytes).build()
            }
            Err(throw) => {
                let class = "hudson.remoting.UserRequest$ExceptionResponse";
                let fields = [("proxyResponse", "[B"), ("rawResponse", "[B")];
                let desc = graph.serializable(class, 1, &fields, None);
                let raw = graph.byte_array(stream(&|graph| throw.build(graph)));
                let proxy = graph.byte_array(stream(&|graph| proxy_exception(throw, graph)));
                graph.object(desc).set_ref("rawResponse", raw).set_ref("proxyResponse", proxy).build()
            }
        }
    } else {
        let fields = [("isException", "Z"), ("response", "[B")];
        let desc = graph.serializable("hudson.remoting.UserResponse", 1, &fields, None);
        let is_exception = result.is_err();
        let bytes = result.unwrap_or_else(|throw| stream(&|graph| throw.build(graph)));
        let bytes = graph.byte_array(bytes);
        graph.object(desc).set("isException", Value::Bool(is_exception)).set_ref("response", bytes).build()
    };
    response(graph, id, last_io, Some(value), None)
}

/// `ProxyInputStream$Buffer`: what was read from a stream of ours, `None` at its end.
pub fn read_buffer(graph: &mut Graph, bytes: Option<Bytes>) -> NodeId {
    let fields = [("buf", "[B"), ("len", "I")];
    let desc = graph.serializable("hudson.remoting.ProxyInputStream$Buffer", 1, &fields, None);
    let length = bytes.as_ref().map_or(-1, |bytes| bytes.len() as i32);
    let buf = graph.byte_array(bytes.unwrap_or_default());
    graph.object(desc).set_ref("buf", buf).set("len", Value::Int(length)).build()
}

/// The class of what is behind a proxy of an exported object (`RemoteInvocationHandler`).
pub fn invocation_handler(graph: &mut Graph) -> NodeId {
    let fields = [
        ("autoUnexportByCaller", "Z"),
        ("goingHome", "Z"),
        ("oid", "I"),
        ("recordCreatedAt", "Z"),
        ("userProxy", "Z"),
        ("userSpace", "Z"),
        ("origin", "Ljava/lang/Throwable;"),
    ];
    let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
    graph.class_desc("hudson.remoting.RemoteInvocationHandler", 1, flags, &fields, None)
}

/// A `RemoteOutputStream` of ours.
pub fn remote_output_stream(graph: &mut Graph, oid: i32) -> NodeId {
    let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
    let desc = graph.class_desc("hudson.remoting.RemoteOutputStream", 1, flags, &[], None);
    graph.object(desc).annotate_bytes(desc, oid.to_be_bytes().into()).build()
}

/// A `RemoteInputStream` of ours that the peer asks for bytes.
pub fn remote_input_stream(graph: &mut Graph, oid: i32, peer: Capability) -> NodeId {
    let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
    // The class declares fields (autoUnexport, greedy), which its writeObject never writes; a descriptor without
    // them describes that stream better, and Java accepts it.
    let desc = graph.class_desc("hudson.remoting.RemoteInputStream", 1, flags, &[], None);
    let mut bytes = Vec::new();
    if peer.has(Capability::GREEDY_REMOTE_INPUTSTREAM) {
        bytes.push(0);
    }
    bytes.extend(oid.to_be_bytes());
    graph.object(desc).annotate_bytes(desc, bytes).build()
}

// ---- references that a request brings -----------------------------------------------------------------------------

/// Something of the peer's in a request's graph that must go back to it, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grant {
    /// An `OutputStream` that we may write to.
    Output(i32),
    /// A `Writer` that we may write to.
    Writer(i32),
    /// A pipe's writing end at the peer that waits to be connected.
    PipeSource(i32),
    /// An `InputStream` that we may read from.
    Input(i32),
    /// An object whose methods we may call.
    Proxy(i32),
}

fn block_int(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(i32::from_be_bytes)
}

impl Grant {
    /// What `view` grants, if anything.
    pub fn of(view: View<'_>, peer: Capability) -> Option<Grant> {
        let class = view.class_name();
        let name = class.strip_prefix("hudson.remoting.")?;
        let bytes = || view.annotation_bytes(&class);
        match name {
            "RemoteOutputStream" => block_int(&bytes(), 0).map(Grant::Output),
            "RemoteWriter" => block_int(&bytes(), 0).map(Grant::Writer),
            "Pipe" => {
                let bytes = bytes();
                let oid = block_int(&bytes, 1)?;
                Some(if bytes[0] != 0 { Grant::Output(oid) } else { Grant::PipeSource(oid) })
            }
            "RemoteInputStream" => {
                let bytes = bytes();
                if !peer.has(Capability::GREEDY_REMOTE_INPUTSTREAM) {
                    return block_int(&bytes, 0).map(Grant::Input);
                }
                // A greedy one holds a Pipe, which is a grant of its own.
                if bytes.first() == Some(&0) { block_int(&bytes, 1).map(Grant::Input) } else { None }
            }
            "RemoteInvocationHandler" => {
                let home = view.bool("goingHome").ok()?;
                let automatic = view.bool("autoUnexportByCaller").ok()?;
                (!home && !automatic).then(|| view.int("oid").ok().map(Grant::Proxy)).flatten()
            }
            _ => None,
        }
    }
}

/// All that a graph grants, and which of its nodes do.
pub fn grants(graph: &Graph, peer: Capability) -> Vec<(NodeId, Grant)> {
    let objects = graph.nodes().iter().enumerate().filter(|(_, node)| matches!(node, Node::Object(_)));
    objects
        .filter_map(|(index, _)| {
            let view = graph.view(graph.id_at(index)?);
            Grant::of(view, peer).map(|grant| (view.id(), grant))
        })
        .collect()
}

/// Oids of the class loaders that a user request's or answer's stream introduces in its class annotations
/// (`MultiClassLoaderSerializer`: -2 and the oid of a loader that the sender exports for this).
pub fn introduced_loaders(graph: &Graph) -> Vec<i32> {
    graph.nodes().iter().filter_map(|node| introduced(graph, node)).collect()
}

/// `MultiClassLoaderSerializer.TAG_EXPORTED_CLASSLOADER`
const TAG_EXPORTED: i32 = -2;

/// `MultiClassLoaderSerializer.TAG_LOCAL_CLASSLOADER`
const TAG_LOCAL: i32 = -1;

/// The oid of the receiver's own class loader that a class descriptor is annotated with.
pub fn receivers_loader(graph: &Graph, desc: &Node) -> Option<i32> {
    let bytes = annotation(graph, desc).filter(|bytes| block_int(bytes, 0) == Some(TAG_LOCAL))?;
    block_int(bytes, 4)
}

/// What a class descriptor is annotated with.
fn annotation<'g>(graph: &'g Graph, node: &'g Node) -> Option<&'g [u8]> {
    let content = match node {
        Node::ClassDesc(desc) => desc.annotation.first(),
        Node::ProxyDesc(desc) => desc.annotation.first(),
        _ => None,
    };
    match content? {
        Content::Block { data, .. } => Some(graph.bytes(data)),
        _ => None,
    }
}

fn introduced(graph: &Graph, node: &Node) -> Option<i32> {
    let bytes = annotation(graph, node).filter(|bytes| block_int(bytes, 0) == Some(TAG_EXPORTED))?;
    block_int(bytes, 4)
}

/// The sender's class loader that an object's class comes from (`MultiClassLoaderSerializer.Input.readClassLoader`);
/// `None` if it is the receiver's own matter.
pub fn class_loader(object: View<'_>) -> Option<i32> {
    let graph = object.graph();
    let node = graph.node(object.desc()?);
    match introduced(graph, node) {
        Some(oid) => Some(oid),
        // An index into those that were introduced before.
        None => {
            let index = usize::try_from(block_int(annotation(graph, node)?, 0)?).ok()?;
            graph.nodes().iter().filter_map(|node| introduced(graph, node)).nth(index)
        }
    }
}
