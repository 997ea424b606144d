//! Requests as a controller sends them: the classes, fields and `serialVersionUID`s of Jenkins 2.293 and the plugins
//! of its time, class loader annotations and call-site stack traces included.

use bytes::Bytes;

use super::end::{End, Kind};
use crate::channel::command::{MethodCall, invocation_handler};
use crate::object::{Graph, Limits, Loader, NodeId, Value, sc};

const OBJECT: &str = "Ljava/lang/Object;";
const STRING: &str = "Ljava/lang/String;";
const LIST: &str = "Ljava/util/List;";
const FILE_PATH: &str = "Lhudson/FilePath;";
const PIPE: &str = "Lhudson/remoting/Pipe;";
const OUTPUT: &str = "Ljava/io/OutputStream;";
const LISTENER: &str = "Lhudson/model/TaskListener;";
const COMPRESSION: &str = "Lhudson/FilePath$TarCompression;";
const DURABLE: &str = "org.jenkinsci.plugins.durabletask.";
const MONITORING: &str = "org.jenkinsci.plugins.durabletask.FileMonitoringTask$FileMonitoringController$";

/// A user request before it is sent.
#[derive(Debug, Clone)]
pub struct Request {
    /// The stream of the callable or method call, its classes not annotated yet.
    stream: Bytes,
    /// The class loader that goes with it, by name.
    pub(super) loader: String,
    /// What Java's `toString` says.
    pub(super) label: String,
}

/// The class loader of a class: that of Jenkins core, of a plugin, or none for the JDK's own.
fn loader_of(class: &str) -> Option<String> {
    let class = class.strip_prefix("$Proxy[").unwrap_or(class);
    let element = class.trim_start_matches('[');
    let element = if element.len() < class.len() { element.strip_prefix('L').unwrap_or("java.") } else { element };
    if element.starts_with("java.") || element.starts_with("javax.") {
        return None;
    }
    let plugin = ["org.jenkinsci.plugins.", "hudson.plugins."].iter().find_map(|prefix| element.strip_prefix(prefix));
    let plugin = plugin.and_then(|rest| rest.split('.').next());
    Some(plugin.map_or_else(|| "core".to_owned(), |name| format!("plugin {name}")))
}

impl Request {
    /// A request with the object that `build` makes.
    pub fn new(build: impl FnOnce(&mut Builder) -> NodeId) -> Request {
        let mut builder = Builder { graph: Graph::default() };
        let root = build(&mut builder);
        let class = builder.graph.view(root).class_name().into_owned();
        let loader = loader_of(&class).unwrap_or_else(|| "core".to_owned());
        Request { stream: builder.graph.encode_one(Some(root)), loader, label: format!("{class}@721ad08") }
    }

    /// A call of a method without parameters of an object of the agent's.
    pub fn method(oid: i32, interface: &str, method: &str) -> Request {
        let call = MethodCall { oid, interface, method, types: &[] };
        let stream = call.stream(Loader::None, |_| Vec::new());
        Request { stream, loader: "core".to_owned(), label: call.label() }
    }

    /// The stream with annotated classes; the class loaders that it introduces get a reference each.
    pub(super) fn encode(self, end: &End) -> Bytes {
        let Ok(mut graph) = Graph::decode(self.stream.clone(), &Limits::default()) else { return self.stream };
        let mut introduced: Vec<String> = Vec::new();
        graph.annotate_classes(|class| {
            let Some(loader) = loader_of(class) else { return (-3i32).to_be_bytes().into() };
            if let Some(index) = introduced.iter().position(|known| *known == loader) {
                return (index as i32).to_be_bytes().into();
            }
            let oid = end.loader(&loader);
            end.add_reference(oid);
            introduced.push(loader);
            [(-2i32).to_be_bytes(), oid.to_be_bytes()].concat()
        });
        graph.encode().into()
    }
}

/// A `UserRequest` with its class loader as a proxy, and the call-site stack that Java notes.
pub(super) fn user_request(id: i32, loader: i32, stream: Bytes, label: &str) -> Bytes {
    let mut graph = Graph::default();
    let command = graph.serializable("hudson.remoting.Command", 1, &[("createdAt", "Ljava/lang/Exception;")], None);
    let fields = [("id", "I"), ("lastIoId", "I"), ("response", "Lhudson/remoting/Response;")];
    let base = graph.serializable("hudson.remoting.Request", 1, &fields, Some(command));
    let fields = [
        ("classLoaderProxy", "Lhudson/remoting/RemoteClassLoader$IClassLoader;"),
        ("request", "[B"),
        ("toString", STRING),
    ];
    let desc = graph.serializable("hudson.remoting.UserRequest", 1, &fields, Some(base));
    let source = created_at(&mut graph);
    let proxy = proxy(&mut graph, "hudson.remoting.RemoteClassLoader$IClassLoader", loader, false);
    let request = graph.byte_array(stream);
    let label = graph.string(label);
    let object = graph
        .object(desc)
        .set_ref("createdAt", source)
        .set("id", Value::Int(id))
        .set_ref("classLoaderProxy", proxy)
        .set_ref("request", request)
        .set_ref("toString", label)
        .build();
    graph.set_field(source, "this$0", Value::Ref(Some(object)));
    graph.encode_one(Some(object))
}

/// `Command$Source`: an exception that holds the stack of who sends.
fn created_at(graph: &mut Graph) -> NodeId {
    let fields = [
        ("cause", "Ljava/lang/Throwable;"),
        ("detailMessage", STRING),
        ("stackTrace", "[Ljava/lang/StackTraceElement;"),
        ("suppressedExceptions", LIST),
    ];
    let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
    let throwable = graph.class_desc("java.lang.Throwable", -3042686055658047285, flags, &fields, None);
    let exception = graph.serializable("java.lang.Exception", -3387516993124229948, &[], Some(throwable));
    let fields = [("this$0", "Lhudson/remoting/Command;")];
    let desc = graph.serializable("hudson.remoting.Command$Source", 1, &fields, Some(exception));
    let fields = [
        ("format", "B"),
        ("lineNumber", "I"),
        ("classLoaderName", STRING),
        ("declaringClass", STRING),
        ("fileName", STRING),
        ("methodName", STRING),
        ("moduleName", STRING),
        ("moduleVersion", STRING),
    ];
    let element = graph.serializable("java.lang.StackTraceElement", 6992337162326171013, &fields, None);
    let stack = [
        ("hudson.remoting.Command", "Command.java", "<init>", 70),
        ("hudson.remoting.Request", "Request.java", "<init>", 133),
        ("hudson.remoting.UserRequest", "UserRequest.java", "<init>", 91),
        ("hudson.remoting.Channel", "Channel.java", "call", 998),
        ("hudson.slaves.SlaveComputer", "SlaveComputer.java", "setChannel", 645),
        ("java.util.concurrent.FutureTask", "FutureTask.java", "run", -1),
        ("java.lang.Thread", "Thread.java", "run", -1),
    ];
    let trace: Vec<_> = stack
        .iter()
        .map(|(class, file, method, line)| {
            let [class, file, method] = [class, file, method].map(|text| graph.string(text));
            let object = graph.object(element).set("format", Value::Byte(1)).set("lineNumber", Value::Int(*line));
            let object = object.set_ref("declaringClass", class).set_ref("fileName", file);
            Some(object.set_ref("methodName", method).build())
        })
        .collect();
    let trace = graph.array("[Ljava.lang.StackTraceElement;", 163864874655228473, &trace);
    let empty = graph.serializable("java.util.Collections$EmptyList", 8842843931221139166, &[], None);
    let empty = graph.object(empty).build();
    let object = graph.object(desc).set_ref("stackTrace", trace).set_ref("suppressedExceptions", empty);
    object.build_self_referring("cause")
}

fn proxy(graph: &mut Graph, interface: &str, oid: i32, user: bool) -> NodeId {
    let desc = invocation_handler(graph);
    let handler = graph.object(desc).set("oid", Value::Int(oid));
    let handler = handler.set("userProxy", Value::Bool(user)).set("userSpace", Value::Bool(user)).build();
    let desc = graph.proxy_desc(&[interface, "hudson.remoting.IReadResolve"]);
    graph.object(desc).set_ref("h", handler).build()
}

/// Makes the objects of a request.
#[derive(Debug)]
pub struct Builder {
    graph: Graph,
}

impl Builder {
    /// A callable without fields, beneath `jenkins.security.MasterToSlaveCallable`.
    pub fn callable(&mut self, class: &str, uid: i64) -> NodeId {
        self.callable_with(class, uid, &[], &[])
    }

    /// A callable with fields.
    pub fn callable_with(
        &mut self,
        class: &str,
        uid: i64,
        fields: &[(&'static str, &str)],
        values: &[(&'static str, Value)],
    ) -> NodeId {
        let base = self.graph.serializable("jenkins.security.MasterToSlaveCallable", 1, &[], None);
        self.object(class, uid, fields, values, Some(base))
    }

    fn object(
        &mut self,
        class: &str,
        uid: i64,
        fields: &[(&'static str, &str)],
        values: &[(&'static str, Value)],
        base: Option<NodeId>,
    ) -> NodeId {
        let desc = self.graph.serializable(class, uid, fields, base);
        values.iter().fold(self.graph.object(desc), |object, (name, value)| object.set(name, *value)).build()
    }

    /// A text, for a field.
    pub fn string(&mut self, text: &str) -> Value {
        self.graph.string_value(text)
    }

    fn file_path(&mut self, path: &str) -> NodeId {
        let fields = [("remote", STRING), ("urlFactory", "Lhudson/FilePath$UrlFactory;")];
        let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
        let desc = self.graph.class_desc("hudson.FilePath", 1, flags, &fields, None);
        let remote = self.graph.string(path);
        // FilePath.writeObject: whether the channel's other end has the file.
        self.graph.object(desc).set_ref("remote", remote).annotate_bytes(desc, vec![0]).build()
    }

    /// `FilePath.act`: what `build` makes, around which goes a `FileCallableWrapper` for this path. `build` gets the
    /// `FilePath`, the outer instance of all callables that are inner classes of it.
    pub fn on_file(&mut self, path: &str, build: impl FnOnce(&mut Builder, NodeId) -> NodeId) -> NodeId {
        let file = self.file_path(path);
        let callable = build(self, file);
        let fields = [("callable", "Lhudson/FilePath$FileCallable;"), ("this$0", FILE_PATH)];
        let values = [("callable", Value::Ref(Some(callable))), ("this$0", Value::Ref(Some(file)))];
        self.object("hudson.FilePath$FileCallableWrapper", 1, &fields, &values, None)
    }

    /// `FilePath.asCallableWith`.
    pub fn with_file(&mut self, path: &str, class: &str) -> NodeId {
        let file = self.file_path(path);
        let task = self.file_callable(class, 1, &[], &[]);
        let fields = [("task", "Lhudson/FilePath$FileCallable;"), ("this$0", FILE_PATH)];
        let values = [("task", Value::Ref(Some(task))), ("this$0", Value::Ref(Some(file)))];
        self.object("hudson.FilePath$CallableWith", 1, &fields, &values, None)
    }

    fn file_callable(
        &mut self,
        class: &str,
        uid: i64,
        fields: &[(&'static str, &str)],
        values: &[(&'static str, Value)],
    ) -> NodeId {
        let base = self.graph.serializable("jenkins.MasterToSlaveFileCallable", 1, &[], None);
        self.object(class, uid, fields, values, Some(base))
    }

    /// An inner class of `FilePath` (`SecureFileCallable`), with its outer instance.
    fn inner(
        &mut self,
        name: &str,
        file: NodeId,
        fields: &[(&'static str, &str)],
        values: &[(&'static str, Value)],
    ) -> NodeId {
        let base = self.graph.serializable("jenkins.SlaveToMasterFileCallable", 1, &[], None);
        let secure = "hudson.FilePath$SecureFileCallable";
        let base = self.graph.serializable(secure, 359472401482773495, &[], Some(base));
        let fields = [fields, &[("this$0", FILE_PATH)]].concat();
        let values = [values, &[("this$0", Value::Ref(Some(file)))]].concat();
        self.object(&format!("hudson.FilePath${name}"), 1, &fields, &values, Some(base))
    }

    fn annotated(&mut self, class: &str, fields: &[(&'static str, &str)], bytes: Vec<u8>) -> NodeId {
        let desc = self.graph.class_desc(class, 1, sc::SERIALIZABLE | sc::WRITE_METHOD, fields, None);
        self.graph.object(desc).annotate_bytes(desc, bytes).build()
    }

    /// A `RemoteOutputStream` of a stream that the controller exports; one reference.
    pub fn output(&mut self, end: &End, oid: i32) -> NodeId {
        end.add_reference(oid);
        self.annotated("hudson.remoting.RemoteOutputStream", &[], oid.to_be_bytes().into())
    }

    /// The writing end of a `Pipe` whose reader is the controller; one reference.
    fn pipe_to(&mut self, end: &End, oid: i32) -> NodeId {
        end.add_reference(oid);
        self.pipe(true, oid)
    }

    fn pipe(&mut self, write: bool, oid: i32) -> NodeId {
        // Pipe.writeObject never writes the fields that its class declares: the descriptor of a class that lists none
        // describes the same stream.
        self.annotated("hudson.remoting.Pipe", &[], [&[u8::from(write)], &oid.to_be_bytes()[..]].concat())
    }

    /// A greedy `RemoteInputStream`, which is a `Pipe` that the agent connects to; one reference.
    fn greedy_input(&mut self, end: &End, oid: i32) -> NodeId {
        end.add_reference(oid);
        let pipe = self.pipe(false, oid);
        let class = "hudson.remoting.RemoteInputStream";
        let desc = self.graph.class_desc(class, 1, sc::SERIALIZABLE | sc::WRITE_METHOD, &[], None);
        let flag =
            crate::object::Content::Block { data: crate::object::Data::Owned(Bytes::from_static(&[1])), long: false };
        let contents = vec![flag, crate::object::Content::Object(Some(pipe))];
        self.graph.object(desc).annotate(desc, contents).build()
    }

    /// A `RemoteInputStream` that the agent reads piece by piece; one reference.
    fn input(&mut self, end: &End, oid: i32) -> NodeId {
        end.add_reference(oid);
        let bytes = [&[0], &oid.to_be_bytes()[..]].concat();
        self.annotated("hudson.remoting.RemoteInputStream", &[], bytes)
    }

    fn compression(&mut self) -> Value {
        Value::Ref(Some(self.graph.enum_constant("hudson.FilePath$TarCompression", "GZIP")))
    }

    fn list(&mut self, texts: &[&str]) -> Value {
        let texts: Vec<_> = texts.iter().map(|text| Some(self.graph.string(text))).collect();
        Value::Ref(Some(self.graph.array_list(&texts)))
    }

    /// The listener of a pipeline's step: the build's log behind a `RemoteOutputStream`, with the timestamper's
    /// decorator, which does nothing on an agent.
    fn listener(&mut self, end: &End, log: i32) -> NodeId {
        let ros = self.output(end, log);
        let fields = [
            ("bufferSize", "I"),
            ("maxRecurrencePeriod", "J"),
            ("minRecurrencePeriod", "J"),
            ("recurrencePeriodBackoff", "F"),
        ];
        let values = [
            ("bufferSize", Value::Int(65536)),
            ("maxRecurrencePeriod", Value::Long(10_000)),
            ("minRecurrencePeriod", Value::Long(1_000)),
            ("recurrencePeriodBackoff", Value::Float(1.05)),
        ];
        let package = "org.jenkinsci.plugins.workflow.log.";
        let tuning = format!("{package}DelayBufferedOutputStream$Tuning");
        let tuning = self.object(&tuning, -722764062640914069, &fields, &values, None);
        let fields = [
            ("ros", "Lhudson/remoting/RemoteOutputStream;"),
            ("tuning", "Lorg/jenkinsci/plugins/workflow/log/DelayBufferedOutputStream$Tuning;"),
        ];
        let values = [("ros", Value::Ref(Some(ros))), ("tuning", Value::Ref(Some(tuning)))];
        let replacement =
            self.object(&format!("{package}BufferedBuildListener$Replacement"), 1, &fields, &values, None);
        let decorator = self.graph.serializable(&format!("{package}TaskListenerDecorator"), 1, &[], None);
        let global = "hudson.plugins.timestamper.pipeline.GlobalDecorator";
        let global = self.object(global, 1, &[], &[], Some(decorator));
        let decorators = Value::Ref(Some(self.graph.array_list(&[Some(global)])));
        let fields = [("decorators", LIST), ("delegate", LISTENER)];
        let values = [("decorators", decorators), ("delegate", Value::Ref(Some(replacement)))];
        let decorated = format!("{package}TaskListenerDecorator$DecoratedTaskListener");
        let decorated = self.object(&decorated, 1, &fields, &values, None);
        let fields = [("closeDelegate", LISTENER), ("mainDelegate", LISTENER)];
        let values = [("closeDelegate", Value::Ref(Some(replacement))), ("mainDelegate", Value::Ref(Some(decorated)))];
        self.object(&format!("{package}TaskListenerDecorator$CloseableTaskListener"), 1, &fields, &values, None)
    }
}

/// A callable of no fields.
pub fn simple(class: &str, uid: i64) -> Request {
    Request::new(|b| b.callable(class, uid))
}

/// A class that no agent knows.
pub fn unknown() -> Request {
    simple("com.example.plugins.exotic.CountUnicorns", 42)
}

/// `PingThread$Ping`.
pub fn ping() -> Request {
    simple("hudson.remoting.PingThread$Ping", 1)
}

/// `FilePath.exists`.
pub fn exists(path: &str) -> Request {
    Request::new(|b| b.on_file(path, |b, file| b.inner("Exists", file, &[], &[])))
}

/// `FilePath.isDirectory`.
pub fn is_directory(path: &str) -> Request {
    Request::new(|b| b.on_file(path, |b, file| b.inner("IsDirectory", file, &[], &[])))
}

/// `FilePath.mkdirs`.
pub fn mkdirs(path: &str) -> Request {
    Request::new(|b| b.on_file(path, |b, file| b.inner("Mkdirs", file, &[], &[])))
}

/// `FilePath.deleteRecursive`.
pub fn delete_recursive(path: &str) -> Request {
    Request::new(|b| b.on_file(path, |b, file| b.inner("DeleteRecursive", file, &[], &[])))
}

/// `FilePath.write(content, "UTF-8")`.
pub fn write(path: &str, content: &str) -> Request {
    Request::new(|b| {
        b.on_file(path, |b, file| {
            let values = [("content", b.string(content)), ("encoding", b.string("UTF-8"))];
            b.inner("Write", file, &[("content", STRING), ("encoding", STRING)], &values)
        })
    })
}

/// `FilePath.read`: the contents go to a new output stream of the controller's, whose id is given.
pub fn read(end: &End, path: &str) -> (Request, i32) {
    let oid = end.export(Kind::Output);
    let request = Request::new(|b| {
        b.on_file(path, |b, file| {
            let pipe = b.pipe_to(end, oid);
            let fields = [("noFollowLinks", "Z"), ("p", PIPE), ("verificationRoot", STRING)];
            b.inner("Read", file, &fields, &[("p", Value::Ref(Some(pipe)))])
        })
    });
    (request, oid)
}

/// `FilePath.archive` with a glob, as `stash` calls it: a tar.gz goes to a new output stream, whose id is given.
pub fn archive(end: &End, path: &str, includes: &str) -> (Request, i32) {
    let oid = end.export(Kind::Output);
    let request = Request::new(|b| {
        b.on_file(path, |b, file| {
            let method = b.compression();
            let factory = "hudson.util.io.ArchiverFactory";
            let base = b.graph.serializable(factory, 1, &[], None);
            let factory = format!("{factory}$TarArchiverFactory");
            let factory = b.object(&factory, 1, &[("method", COMPRESSION)], &[("method", method)], Some(base));
            let out = b.output(end, oid);
            let base = b.graph.serializable("hudson.util.DirScanner", 1, &[], None);
            let fields =
                [("followSymlinks", "Z"), ("useDefaultExcludes", "Z"), ("excludes", STRING), ("includes", STRING)];
            let includes = b.string(includes);
            let values = [
                ("followSymlinks", Value::Bool(true)),
                ("useDefaultExcludes", Value::Bool(true)),
                ("includes", includes),
            ];
            let scanner = b.object("hudson.util.DirScanner$Glob", 1, &fields, &values, Some(base));
            let fields = [
                ("noFollowLinks", "Z"),
                ("factory", "Lhudson/util/io/ArchiverFactory;"),
                ("out", OUTPUT),
                ("scanner", "Lhudson/util/DirScanner;"),
                ("verificationRoot", STRING),
            ];
            let values = [
                ("factory", Value::Ref(Some(factory))),
                ("out", Value::Ref(Some(out))),
                ("scanner", Value::Ref(Some(scanner))),
            ];
            b.inner("Archive", file, &fields, &values)
        })
    });
    (request, oid)
}

/// `FilePath.untar` of an archive on the controller, as `unstash` calls it: a greedy stream.
pub fn untar(end: &End, path: &str, archive: Bytes) -> Request {
    let oid = end.export(Kind::Source { data: archive, ends: true });
    untar_from(path, |b| b.greedy_input(end, oid))
}

/// As [`untar`], with a stream that the agent asks for each piece.
pub fn untar_pulled(end: &End, path: &str, archive: Bytes) -> Request {
    let oid = end.export(Kind::Input(archive));
    untar_from(path, |b| b.input(end, oid))
}

/// As [`untar`], with a stream that never ends.
pub fn untar_endless(end: &End, path: &str, beginning: Bytes) -> Request {
    let oid = end.export(Kind::Source { data: beginning, ends: false });
    untar_from(path, |b| b.greedy_input(end, oid))
}

fn untar_from(path: &str, input: impl FnOnce(&mut Builder) -> NodeId) -> Request {
    Request::new(|b| {
        b.on_file(path, |b, file| {
            let compression = b.compression();
            let input = input(b);
            let fields = [("compression", COMPRESSION), ("in", "Ljava/io/InputStream;")];
            let values = [("compression", compression), ("in", Value::Ref(Some(input)))];
            b.inner("UntarRemote", file, &fields, &values)
        })
    })
}

/// `ArtifactArchiver$ListFiles`.
pub fn list_files(path: &str, includes: &str) -> Request {
    Request::new(|b| {
        b.on_file(path, |b, _| {
            let fields = [
                ("caseSensitive", "Z"),
                ("defaultExcludes", "Z"),
                ("followSymlinks", "Z"),
                ("excludes", STRING),
                ("includes", STRING),
            ];
            let includes = b.string(includes);
            let yes = Value::Bool(true);
            let values =
                [("caseSensitive", yes), ("defaultExcludes", yes), ("followSymlinks", yes), ("includes", includes)];
            b.file_callable("hudson.tasks.ArtifactArchiver$ListFiles", 1, &fields, &values)
        })
    })
}

/// `FilePath.copyRecursiveTo` of listed files, as `archiveArtifacts` calls it: a tar.gz goes to a new output stream,
/// whose id is given.
pub fn copy_to_local(end: &End, path: &str, files: &[(String, String)]) -> (Request, i32) {
    let oid = end.export(Kind::Output);
    let request = Request::new(|b| {
        b.on_file(path, |b, file| {
            let compression = b.compression();
            let pipe = b.pipe_to(end, oid);
            let entries: Vec<_> =
                files.iter().map(|(k, v)| (Some(b.graph.string(k)), Some(b.graph.string(v)))).collect();
            let map = Value::Ref(Some(b.graph.hash_map(&entries)));
            let base = b.graph.serializable("hudson.util.DirScanner", 1, &[], None);
            let scanner = "hudson.FilePath$ExplicitlySpecifiedDirScanner";
            let scanner = b.object(scanner, 1, &[("files", "Ljava/util/Map;")], &[("files", map)], Some(base));
            let fields = [("compression", COMPRESSION), ("pipe", PIPE), ("scanner", "Lhudson/util/DirScanner;")];
            let values = [
                ("compression", compression),
                ("pipe", Value::Ref(Some(pipe))),
                ("scanner", Value::Ref(Some(scanner))),
            ];
            b.inner("CopyRecursiveRemoteToLocal", file, &fields, &values)
        })
    });
    (request, oid)
}

/// What a process is launched with.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The words of the command.
    pub command: &'a [&'a str],
    /// `NAME=value`.
    pub environment: &'a [&'a str],
    /// The working directory.
    pub directory: &'a str,
    /// An output stream of the controller's for what the process prints; without it the agent keeps both streams.
    pub output: Option<i32>,
}

/// `Launcher$RemoteLaunchCallable`; `log` is the output stream behind the listener.
pub fn launch(end: &End, log: i32, launch: Launch<'_>) -> Request {
    Request::new(|b| {
        let cmd = b.list(launch.command);
        let env = Value::Ref(Some(b.graph.string_array(launch.environment)));
        let rules = b.list(&[]);
        let filter = "jenkins.tasks.filters.EnvVarsFilterRuleWrapper";
        let filter = b.object(filter, -8647970104978388598, &[("rules", LIST)], &[("rules", rules)], None);
        let listener = b.listener(end, log);
        let directory = b.string(launch.directory);
        let out = launch.output.map(|oid| b.output(end, oid));
        let reverse = Value::Bool(launch.output.is_none());
        let fields = [
            ("quiet", "Z"),
            ("reverseStderr", "Z"),
            ("reverseStdin", "Z"),
            ("reverseStdout", "Z"),
            ("cmd", LIST),
            ("env", "[Ljava/lang/String;"),
            ("envVarsFilterRuleWrapper", "Ljenkins/tasks/filters/EnvVarsFilterRuleWrapper;"),
            ("err", OUTPUT),
            ("in", "Ljava/io/InputStream;"),
            ("listener", LISTENER),
            ("masks", "[Z"),
            ("out", OUTPUT),
            ("stdoutListener", LISTENER),
            ("workDir", STRING),
        ];
        let values = [
            ("quiet", Value::Bool(true)),
            ("reverseStderr", reverse),
            ("reverseStdout", reverse),
            ("cmd", cmd),
            ("env", env),
            ("envVarsFilterRuleWrapper", Value::Ref(Some(filter))),
            ("listener", Value::Ref(Some(listener))),
            ("out", Value::Ref(out)),
            ("workDir", directory),
        ];
        b.callable_with("hudson.Launcher$RemoteLaunchCallable", 1, &fields, &values)
    })
}

/// `Launcher$RemoteLauncher$KillTask`: all processes with this variable.
pub fn kill(name: &str, value: &str) -> Request {
    Request::new(|b| {
        let values = [("k", b.string(name)), ("v", b.string(value))];
        let map = "java.util.Collections$SingletonMap";
        let map = b.object(map, -6979724477215052911, &[("k", OBJECT), ("v", OBJECT)], &values, None);
        let fields = [("modelEnvVars", "Ljava/util/Map;")];
        let values = [("modelEnvVars", Value::Ref(Some(map)))];
        b.callable_with("hudson.Launcher$RemoteLauncher$KillTask", 1, &fields, &values)
    })
}

/// durable-task's `BourneShellScript$GetAgentInfo`.
pub fn agent_info(root: &str) -> Request {
    Request::new(|b| {
        b.on_file(root, |b, _| {
            let version = b.string("1.36");
            let class = format!("{DURABLE}BourneShellScript$GetAgentInfo");
            b.file_callable(&class, 1, &[("binaryVersion", STRING)], &[("binaryVersion", version)])
        })
    })
}

/// durable-task's `TranscodingCharsetForSystemDefault`.
pub fn transcoding_charset() -> Request {
    simple(&format!("{MONITORING}TranscodingCharsetForSystemDefault"), -5554817030522190511)
}

/// durable-task's `WriteLog`: the log from `from` on goes to an output stream of the controller's.
pub fn write_log(end: &End, log_file: &str, from: i64, sink: i32) -> Request {
    Request::new(|b| {
        b.on_file(log_file, |b, _| {
            let sink = b.output(end, sink);
            let fields = [("lastLocation", "J"), ("sink", OUTPUT)];
            let values = [("lastLocation", Value::Long(from)), ("sink", Value::Ref(Some(sink)))];
            b.file_callable(&format!("{MONITORING}WriteLog"), 9158495538758751160, &fields, &values)
        })
    })
}

/// durable-task's `StatusCheck`.
pub fn status_check(result_file: &str) -> Request {
    Request::new(|b| {
        b.on_file(result_file, |b, _| {
            b.file_callable(&format!("{MONITORING}StatusCheck"), 5735394101254645562, &[], &[])
        })
    })
}

/// durable-task's `GetOutput`.
pub fn get_output(output_file: &str) -> Request {
    Request::new(|b| {
        b.on_file(output_file, |b, _| {
            let charset = b.string("SYSTEM_DEFAULT");
            let class = format!("{MONITORING}GetOutput");
            b.file_callable(&class, 2278910510741686376, &[("charset", STRING)], &[("charset", charset)])
        })
    })
}

/// What a controller asks when an agent has connected, one after the other, with a name for each.
pub fn on_connect(root: &str) -> Vec<(&'static str, Request)> {
    let computer = |name: &str, uid| simple(&format!("hudson.slaves.SlaveComputer${name}"), uid);
    let int = |class: &'static str, uid: i64, fields: &'static [(&'static str, i32)]| {
        Request::new(|b| {
            let types: Vec<_> = fields.iter().map(|(name, _)| (*name, "I")).collect();
            let values: Vec<_> = fields.iter().map(|(name, value)| (*name, Value::Int(*value))).collect();
            b.callable_with(class, uid, &types, &values)
        })
    };
    let copy_properties = Request::new(|b| {
        let key = b.graph.string("hudson.util.StreamTaskListener.AUTO_FLUSH");
        let map = Value::Ref(Some(b.graph.hash_map(&[(Some(key), None)])));
        let class = "jenkins.util.SystemProperties$AgentCopier$CopySystemProperties";
        b.callable_with(class, 1, &[("snapshot", "Ljava/util/Map;")], &[("snapshot", map)])
    });
    const PING: &[(&str, i32)] = &[("pingIntervalSeconds", 300), ("pingTimeoutSeconds", 240)];
    const RING: &[(&str, i32)] = &[("ringBufferSize", 256)];
    vec![
        ("SlaveVersion", computer("SlaveVersion", -208752148819435747)),
        ("DetectOS", computer("DetectOS", 734607487332727375)),
        ("DetectDefaultCharset", computer("DetectDefaultCharset", -8241733842004670071)),
        ("SlaveInitializer", int("hudson.slaves.SlaveComputer$SlaveInitializer", 1, RING)),
        ("SetUpRemotePing", int("hudson.slaves.ChannelPinger$SetUpRemotePing", -2702219700841759872, PING)),
        ("ChannelSwapper", simple("jenkins.slaves.StandardOutputSwapper$ChannelSwapper", 139896985626822108)),
        ("CopySystemProperties", copy_properties),
        ("Exists", exists(&format!("{root}/workspace/workspaces.txt"))),
    ]
}

/// What a controller asks once the agent is online, node monitors included; these come all at once.
pub fn once_online(root: &str, now: i64) -> Vec<(&'static str, Request)> {
    let installer = |name: &'static str, kind: &str| {
        let class = format!("org.jenkinsci.modules.{kind}.SlaveInstallerFactoryImpl${name}");
        (name, simple(&class, 1))
    };
    let restarters = Request::new(|b| {
        let base = b.graph.serializable("jenkins.slaves.restarter.SlaveRestarter", 1, &[], None);
        let unix = b.object("jenkins.slaves.restarter.UnixSlaveRestarter", 1, &[], &[], Some(base));
        let winsw = b.object("jenkins.slaves.restarter.WinswSlaveRestarter", 1, &[], &[], Some(base));
        let list = Value::Ref(Some(b.graph.array_list(&[Some(unix), Some(winsw)])));
        let class = "jenkins.slaves.restarter.JnlpSlaveRestarterInstaller$FindEffectiveRestarters";
        b.callable_with(class, 5923933058643355521, &[("restarters", LIST)], &[("restarters", list)])
    });
    let clock = Request::new(|b| {
        let values = [("startTime", Value::Long(now))];
        b.callable_with("hudson.model.Slave$GetClockDifference2", 1, &[("startTime", "J")], &values)
    });
    let step2 = Request::new(|b| {
        let past = Value::Ref(Some(b.graph.long_array(&[230])));
        let data = "hudson.node_monitors.ResponseTimeMonitor$Data";
        let data = b.object(data, 1, &[("past5", "[J")], &[("past5", past)], None);
        let fields = [("start", "J"), ("cur", "Lhudson/node_monitors/ResponseTimeMonitor$Data;")];
        let values = [("start", Value::Long(now)), ("cur", Value::Ref(Some(data)))];
        b.callable_with("hudson.node_monitors.ResponseTimeMonitor$Step2", 1, &fields, &values)
    });
    let usable = "hudson.node_monitors.DiskSpaceMonitorDescriptor$GetUsableSpace";
    let temp = "hudson.node_monitors.TemporarySpaceMonitor$GetTempSpace";
    vec![
        installer("Predicate", "launchd_slave_installer"),
        ("FindEffectiveRestarters", restarters),
        installer("HasSystemd", "systemd_slave_installer"),
        installer("HasUpstart", "upstart_slave_installer"),
        ("IsUnix", simple("hudson.FilePath$IsUnix", 1)),
        ("GetArchTask", simple("hudson.node_monitors.ArchitectureMonitor$GetArchTask", 1)),
        ("GetClockDifference2", clock),
        ("MonitorTask", simple("hudson.node_monitors.SwapSpaceMonitor$MonitorTask", 1)),
        ("GetUsableSpace", Request::new(|b| b.with_file(root, usable))),
        ("GetTempSpace", Request::new(|b| b.with_file(root, temp))),
        ("Step2", step2),
        ("Ping", self::ping()),
        ("GetEnvVars", simple("hudson.EnvVars$GetEnvVars", 1)),
    ]
}
