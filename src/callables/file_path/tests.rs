//! Requests as a controller sends them, recorded and made, over a channel, against real files.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::callables::{Agent, dispatch};
use crate::channel::command::{
    Answered, Command, StreamKind, StreamOp, ack, cancel, chunk, eof, plain_response, user_request,
};
use crate::channel::{Channel, Link, Liveness, Throw, remote_output_stream};
use crate::files::testing::tree;
use crate::frame::Capability;
use crate::object::{Content, Data, Graph, Limits, Loader, NodeId, Value, sc};

/// What may be on its way to a stream (`Channel.PIPE_WINDOW_SIZE`).
const WINDOW: usize = 1 << 20;

fn decode(bytes: Bytes) -> Graph {
    Graph::decode(bytes, &Limits::default()).unwrap()
}

/// A controller, as far as an agent can tell.
struct Controller {
    link: Arc<Link>,
    next_id: i32,
    next_io: i32,
}

/// What came of a request.
#[derive(Debug)]
struct Answer {
    /// The object or null, or the exception's own words.
    result: Result<Graph, String>,
    /// What was written to each of the controller's streams.
    written: HashMap<i32, Vec<u8>>,
    /// How each was closed, if it was.
    closed: HashMap<i32, Option<String>>,
    /// Commands that wrote.
    writes: usize,
    /// What the controller must have done before it looks at the answer.
    last_io: i32,
    /// The pipe operation that was sent last.
    sent_io: i32,
}

impl Controller {
    fn new(version: Option<&str>) -> Controller {
        let agent = Arc::new(Agent::new(None, None, version.map(str::to_owned)));
        let channel = Channel::new(Instant::now().into(), Capability::OURS, Liveness::default());
        let link = Link::new(channel, Box::new(move |incoming| dispatch(&agent, incoming)));
        Controller { link, next_id: 0, next_io: 0 }
    }

    fn receive(&self, command: Bytes) {
        self.link.receive(Instant::now().into(), command);
    }

    fn write(&mut self, oid: i32, contents: Bytes) {
        self.next_io += 1;
        self.receive(chunk(oid, self.next_io, contents));
    }

    fn finish(&mut self, oid: i32) {
        self.next_io += 1;
        self.receive(eof(StreamKind::Bytes, oid, self.next_io, None));
    }

    /// Sends a request, plays the part of the streams in it, and waits for the answer. `input` goes through the pipe
    /// that the request has.
    async fn ask(&mut self, request: Bytes, mut input: Option<Bytes>) -> Answer {
        let mut feed: Option<(i32, Bytes)> = None;
        let mut credit = 0;
        self.next_id += 1;
        self.receive(user_request(self.next_id, self.next_io, 1, request, "a test"));
        let mut answer = Answer {
            result: Err("unanswered".to_owned()),
            written: HashMap::new(),
            closed: HashMap::new(),
            writes: 0,
            last_io: 0,
            sent_io: 0,
        };
        loop {
            let mut batch = Vec::new();
            let more = tokio::time::timeout(Duration::from_secs(20), self.link.transmit(1 << 20, &mut batch)).await;
            assert!(more.expect("the agent answers in time"));
            for command in batch {
                let graph = decode(command.clone());
                let root = graph.root().unwrap();
                if root.is("hudson.remoting.Pipe$ConnectCommand") {
                    let contents = input.take().expect("a request with input");
                    feed = Some((root.int("oidPos").unwrap(), contents));
                    credit = WINDOW;
                }
                match Command::read(decode(command)).unwrap() {
                    Command::Stream { oid, io_id, op } => {
                        if !matches!(op, StreamOp::Release) {
                            answer.sent_io = io_id;
                        }
                        match op {
                            StreamOp::Write(bytes) => {
                                answer.writes += 1;
                                answer.written.entry(oid).or_default().extend_from_slice(&bytes);
                                self.receive(ack(StreamKind::Bytes, oid, bytes.len() as i32));
                            }
                            StreamOp::Close(error) => assert_eq!(answer.closed.insert(oid, error), None),
                            _ => {}
                        }
                    }
                    Command::Response { id, last_io, answer: answered } if id == self.next_id => {
                        answer.last_io = last_io;
                        answer.result = match answered {
                            Answered::Normal(bytes) => Ok(decode(bytes)),
                            Answered::Exception(text) => Err(text),
                            Answered::Value(_) => panic!("a bare value"),
                        };
                        return answer;
                    }
                    Command::Rpc { id, .. } => {
                        self.receive(plain_response(id, 0, Err(&Throw::io("no such class"))));
                    }
                    Command::Ack { size, .. } => credit += size as usize,
                    _ => {}
                }
            }
            while let Some((oid, contents)) = &mut feed {
                let oid = *oid;
                let piece = contents.split_to(contents.len().min(8192).min(credit));
                if !piece.is_empty() {
                    credit -= piece.len();
                    self.write(oid, piece);
                } else if contents.is_empty() {
                    feed = None;
                    self.finish(oid);
                } else {
                    break;
                }
            }
        }
    }
}

impl Answer {
    fn object(&self) -> &Graph {
        self.result.as_ref().unwrap()
    }

    fn is_null(&self) -> bool {
        self.object().root().is_none()
    }

    fn value(&self) -> Value {
        self.object().root().unwrap().unboxed().unwrap()
    }

    fn text(&self) -> String {
        self.object().root().unwrap().as_str().unwrap().into_owned()
    }
}

/// Fields of an object in a request.
type Fields<'a> = &'a [(&'static str, Is<'a>)];

/// What a made request's fields hold.
enum Is<'a> {
    Null,
    Text(&'a str),
    Bool(bool),
    Int(i32),
    Long(i64),
    /// A `FilePath`.
    Path(&'a Path),
    /// A constant of an enum.
    Constant(&'a str, &'a str),
    /// An array of such constants.
    Options(&'a [(&'a str, &'a str)]),
    /// A `RemoteOutputStream`.
    Out(i32),
    /// A `Pipe` that the agent writes to.
    PipeOut(i32),
    /// A `Pipe` that the agent reads from.
    PipeIn(i32),
    /// A greedy `RemoteInputStream`.
    In(i32),
    /// Another object.
    Object(&'a str, Fields<'a>),
    /// A map of strings.
    Map(&'a [(&'a str, &'a str)]),
    /// A list.
    List(&'a [Is<'a>]),
}

fn block(bytes: Vec<u8>) -> Content {
    Content::Block { data: Data::Owned(bytes.into()), long: false }
}

fn pipe(graph: &mut Graph, out: bool, oid: i32) -> NodeId {
    let desc = graph.class_desc("hudson.remoting.Pipe", 1, sc::SERIALIZABLE | sc::WRITE_METHOD, &[], None);
    let mut bytes = vec![u8::from(out)];
    bytes.extend(oid.to_be_bytes());
    graph.object(desc).annotate_bytes(desc, bytes).build()
}

fn object(graph: &mut Graph, class: &str, fields: Fields<'_>) -> NodeId {
    let values: Vec<(&'static str, Value)> = fields.iter().map(|(name, is)| (*name, is.build(graph))).collect();
    let signature = |value: &Value| match value {
        Value::Bool(_) => "Z",
        Value::Int(_) => "I",
        Value::Long(_) => "J",
        _ => "Ljava/lang/Object;",
    };
    let declared: Vec<_> = values.iter().map(|(name, value)| (*name, signature(value))).collect();
    let desc = graph.serializable(class, 1, &declared, None);
    values.into_iter().fold(graph.object(desc), |object, (name, value)| object.set(name, value)).build()
}

impl Is<'_> {
    fn build(&self, graph: &mut Graph) -> Value {
        let node = match self {
            Is::Null => return Value::Ref(None),
            Is::Bool(value) => return Value::Bool(*value),
            Is::Int(value) => return Value::Int(*value),
            Is::Long(value) => return Value::Long(*value),
            Is::Text(text) => graph.string(text),
            Is::Path(path) => super::types::build_file_path(graph, path),
            Is::Constant(class, constant) => graph.enum_constant(class, constant),
            Is::Options(options) => {
                let options: Vec<_> =
                    options.iter().map(|(class, constant)| Some(graph.enum_constant(class, constant))).collect();
                graph.array("[Ljava.nio.file.OpenOption;", 0, &options)
            }
            Is::Out(oid) => remote_output_stream(graph, *oid),
            Is::PipeOut(oid) => pipe(graph, true, *oid),
            Is::PipeIn(oid) => pipe(graph, false, *oid),
            Is::In(oid) => {
                let pipe = pipe(graph, false, *oid);
                let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
                let desc = graph.class_desc("hudson.remoting.RemoteInputStream", 1, flags, &[], None);
                graph.object(desc).annotate(desc, vec![block(vec![1]), Content::Object(Some(pipe))]).build()
            }
            Is::Object(class, fields) => object(graph, class, fields),
            Is::Map(entries) => {
                let entries: Vec<_> =
                    entries.iter().map(|(key, value)| (Some(graph.string(key)), Some(graph.string(value)))).collect();
                graph.hash_map(&entries)
            }
            Is::List(items) => {
                let items: Vec<_> = items
                    .iter()
                    .map(|item| match item.build(graph) {
                        Value::Ref(id) => id,
                        _ => panic!("a list holds objects"),
                    })
                    .collect();
                graph.array_list(&items)
            }
        };
        Value::Ref(Some(node))
    }
}

/// A `FileCallable` in its wrapper, as controllers since 2.319 send it.
fn act(path: &Path, class: &str, fields: Fields<'_>) -> Bytes {
    let mut graph = Graph::with_loader(Loader::Receivers(1));
    let wrapper = [("callable", Is::Object(class, fields)), ("filePath", Is::Path(path))];
    let root = object(&mut graph, "hudson.FilePath$FileCallableWrapper", &wrapper);
    graph.encode_one(Some(root))
}

const GZIP: Is<'_> = Is::Constant("hudson.FilePath$TarCompression", "GZIP");
const NONE: Is<'_> = Is::Constant("hudson.FilePath$TarCompression", "NONE");
const NOFOLLOW: (&str, &str) = ("java.nio.file.LinkOption", "NOFOLLOW_LINKS");
const NO_TMP: (&str, &str) = ("hudson.FilePath$DisplayOption", "IGNORE_TMP_DIRS");

fn listing(dir: &Path) -> Vec<(String, String)> {
    let everything = crate::files::glob::Options { default_excludes: false, ..Default::default() };
    let names = crate::files::glob::Glob::new("**", None, everything).list(dir, &|| false).unwrap();
    let read = |name: &std::path::PathBuf| String::from_utf8_lossy(&fs::read(dir.join(name)).unwrap()).into_owned();
    names.iter().map(|name| (name.to_string_lossy().into_owned(), read(name))).collect()
}

/// Not compressible, so that what is sent is as much as there is.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Everything but default excludes.
const GLOB: Is<'_> = Is::Object(
    "hudson.util.DirScanner$Glob",
    &[("includes", Is::Text("**")), ("excludes", Is::Null), ("useDefaultExcludes", Is::Bool(true))],
);

#[tokio::test]
async fn trees_go_to_the_controller_and_back() {
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    tree(&from, &["a/b", "c d", "a@tmp/secret", ".git/HEAD"]);
    let large = noise(3 << 20);
    fs::write(from.join("large"), &large).unwrap();
    let mut controller = Controller::new(None);
    for (factory, back) in [
        (("hudson.util.io.ArchiverFactory$TarArchiverFactory", Some(GZIP)), "hudson.FilePath$UntarFrom"),
        (("hudson.util.io.ArchiverFactory$TarArchiverFactory", Some(NONE)), "hudson.FilePath$UntarRemote"),
        (("hudson.util.io.ArchiverFactory$TarArchiverFactory", Some(NONE)), "hudson.FilePath$ReadFromTar"),
        (("hudson.util.io.ArchiverFactory$ZipArchiverFactory", None), "hudson.FilePath$UnzipFrom"),
    ] {
        let compression = factory.1;
        let plain = matches!(&compression, Some(Is::Constant(_, "NONE")));
        let method = [("method", compression.unwrap_or(Is::Null))];
        let fields = [
            ("factory", Is::Object(factory.0, &method)),
            ("out", Is::Out(7)),
            ("scanner", GLOB),
            ("openOptions", Is::Options(&[])),
        ];
        let answer = controller.ask(act(&from, "hudson.FilePath$Archive", &fields), None).await;
        assert_eq!(answer.value(), Value::Int(4), "{back}");
        assert_eq!(answer.closed, HashMap::from([(7, None)]));
        assert_eq!(answer.last_io, answer.sent_io);
        let archive = Bytes::from(answer.written[&7].clone());
        assert!(archive.len() >= 3 << 20 && answer.writes < 3 * 32, "{} writes", answer.writes);

        let compression = if plain { NONE } else { GZIP };
        let fields = [
            ("in", Is::In(9)),
            ("compression", compression),
            ("pipe", Is::PipeIn(9)),
            ("description", Is::Text("**")),
            ("target", Is::Path(&to)),
        ];
        let fields = if back.ends_with("FromTar") { &fields[1..] } else { &fields[..2] };
        let answer = controller.ask(act(&to, back, fields), Some(archive)).await;
        assert!(answer.is_null(), "{back}: {answer:?}");
        assert_eq!(fs::read(to.join("large")).unwrap(), large);
        fs::remove_file(to.join("large")).unwrap();
        let names: Vec<_> = listing(&to).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a/b", "a@tmp/secret", "c d"]);
        fs::remove_dir_all(&to).unwrap();
    }
}

#[tokio::test]
async fn a_restricted_archive_leaves_out_links_and_temporary_directories() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("ws");
    tree(&dir, &["a", "x@tmp/secret"]);
    std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).unwrap();
    let root = dir.to_string_lossy().into_owned();
    let mut controller = Controller::new(None);
    let prefix = [("prefix", Is::Text("p"))];
    // The last two are what cores up to 2.393 send.
    for (restriction, entries) in [
        (("openOptions", Is::Options(&[NOFOLLOW, NO_TMP])), 1),
        (("openOptions", Is::Options(&[NOFOLLOW])), 2),
        (("noFollowLinks", Is::Bool(true)), 2),
        (("noFollowLinks", Is::Bool(false)), 3),
    ] {
        let fields = [
            ("factory", Is::Object("hudson.util.io.ArchiverFactory$ZipArchiverFactory", &prefix)),
            ("out", Is::Out(7)),
            ("scanner", GLOB),
            ("verificationRoot", Is::Text(&root)),
            restriction,
        ];
        let answer = controller.ask(act(&dir, "hudson.FilePath$Archive", &fields), None).await;
        assert_eq!(answer.value(), Value::Int(entries));
        let zip = zip::ZipArchive::new(std::io::Cursor::new(&answer.written[&7])).unwrap();
        assert!(zip.file_names().all(|name| name.unwrap().starts_with("p/")));
    }
}

#[tokio::test]
async fn artifacts_that_are_missing_fail_the_reader_and_the_call() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path(), &["dist/a"]);
    let mut controller = Controller::new(None);
    for (file, fails) in [("dist/a", false), ("dist/b", true)] {
        let map = [("x/y", file)];
        let files = [("files", Is::Map(&map))];
        let fields = [
            ("pipe", Is::PipeOut(5)),
            ("scanner", Is::Object("hudson.FilePath$ExplicitlySpecifiedDirScanner", &files)),
            ("compression", NONE),
            ("filenamesEncoding", Is::Text("UTF-8")),
        ];
        let request = act(temp.path(), "hudson.FilePath$CopyRecursiveRemoteToLocal", &fields);
        let answer = controller.ask(request, None).await;
        if fails {
            let why = format!("java.nio.file.NoSuchFileException: {}", temp.path().join(file).display());
            assert_eq!(answer.result.unwrap_err(), why);
            // The exception itself goes down the pipe; its message is the file.
            assert_eq!(answer.closed[&5].as_deref(), Some("java.nio.file.NoSuchFileException"));
        } else {
            assert_eq!((answer.value(), &answer.closed[&5]), (Value::Int(1), &None));
            assert!(answer.written[&5].starts_with(b"x/y\0"));
        }
    }
}

#[tokio::test]
async fn reading_answers_null_and_tells_the_pipe() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path(), &["ws/a", "ws/x@tmp/secret"]);
    std::os::unix::fs::symlink("a", temp.path().join("ws/link")).unwrap();
    let ws = temp.path().join("ws");
    let root = ws.to_string_lossy().into_owned();
    let mut controller = Controller::new(None);
    type Options = &'static [(&'static str, &'static str)];
    let cases: &[(&str, Options, Result<&str, &str>)] = &[
        ("a", &[], Ok("ws/a")),
        ("link", &[], Ok("ws/a")),
        ("link", &[NOFOLLOW], Err("java.io.IOException: Symlinks are prohibited.")),
        ("x@tmp/secret", &[NOFOLLOW], Ok("ws/x@tmp/secret")),
        ("x@tmp/secret", &[NO_TMP], Err("java.io.IOException: Tmp directory is prohibited.")),
        ("none", &[], Err("java.nio.file.NoSuchFileException")),
        ("x@tmp", &[], Err("java.io.IOException: Is a directory")),
    ];
    for (file, options, expected) in cases {
        let fields =
            [("p", Is::PipeOut(5)), ("verificationRoot", Is::Text(&root)), ("openOptions", Is::Options(options))];
        let answer = controller.ask(act(&ws.join(file), "hudson.FilePath$Read", &fields), None).await;
        assert!(answer.is_null());
        assert_eq!(answer.closed[&5].as_deref(), expected.err(), "{file} {options:?}");
        assert_eq!(answer.written.get(&5).map(|bytes| &bytes[..]), expected.ok().map(str::as_bytes));
    }
}

#[tokio::test]
async fn a_cancelled_transfer_ends() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("large");
    fs::write(&file, noise(3 << 20)).unwrap();
    let controller = Controller::new(None);
    let request = act(&file, "hudson.FilePath$CopyTo", &[("out", Is::Out(7))]);
    controller.receive(user_request(1, 0, 1, request, "a test"));
    let mut written = 0;
    loop {
        let mut batch = Vec::new();
        let more = tokio::time::timeout(Duration::from_secs(20), controller.link.transmit(1 << 20, &mut batch)).await;
        assert!(more.expect("the agent gives up"));
        for command in batch {
            match Command::read(decode(command)).unwrap() {
                // Nothing is acknowledged, so the handler waits for the window.
                Command::Stream { op: StreamOp::Write(bytes), .. } => {
                    if written == 0 {
                        controller.receive(cancel(1));
                    }
                    written += bytes.len();
                }
                Command::Response { answer: Answered::Exception(text), .. } => {
                    assert_eq!(text, "java.lang.InterruptedException");
                    assert!(written <= 1 << 20);
                    return;
                }
                Command::Response { answer, .. } => panic!("{answer:?}"),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn the_controller_writes_files() {
    let temp = tempfile::tempdir().unwrap();
    let mut controller = Controller::new(None);
    let path = temp.path().join("new/dir/f");
    let answer = controller.ask(act(&path, "hudson.FilePath$WritePipe", &[]), None).await;
    let bytes = answer.object().root().unwrap().annotation_bytes("hudson.remoting.RemoteOutputStream");
    let oid = i32::from_be_bytes(bytes[..4].try_into().unwrap());
    let contents = Bytes::from(noise(100_000));
    controller.write(oid, contents.clone());
    controller.finish(oid);
    // A request that comes after sees what was written before.
    let answer = controller.ask(act(&path, "hudson.FilePath$Length", &[]), None).await;
    assert_eq!(answer.value(), Value::Long(100_000));
    assert_eq!(fs::read(&path).unwrap(), contents);

    let write = |encoding| [("encoding", encoding), ("content", Is::Text("é"))];
    for (encoding, expected) in [
        (Is::Null, Ok("é".as_bytes())),
        (Is::Text("ISO-8859-1"), Ok(&b"\xe9"[..])),
        (Is::Text("EBCDIC"), Err("java.io.IOException: EBCDIC: this agent does not know the character set")),
    ] {
        let path = temp.path().join("a/b");
        let _ = fs::remove_file(&path);
        let answer = controller.ask(act(&path, "hudson.FilePath$Write", &write(encoding)), None).await;
        match expected {
            Ok(bytes) => assert_eq!(fs::read(&path).unwrap(), bytes),
            Err(text) => {
                assert_eq!(answer.result.unwrap_err(), text);
                assert!(!path.exists());
            }
        }
    }
}

#[tokio::test]
async fn small_questions_have_small_answers() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    tree(dir, &["f", "d/x", "d/y.txt"]);
    std::os::unix::fs::symlink("f", dir.join("link")).unwrap();
    let mut controller = Controller::new(None);
    let cases: &[(&str, &str, Fields<'_>, Value)] = &[
        ("f", "Exists", &[], Value::Bool(true)),
        ("none", "Exists", &[], Value::Bool(false)),
        ("d", "IsDirectory", &[], Value::Bool(true)),
        ("f", "IsDirectory", &[], Value::Bool(false)),
        ("f", "Length", &[], Value::Long(1)),
        ("none", "Length", &[], Value::Long(0)),
        ("none", "LastModified", &[], Value::Long(0)),
        ("d/new/er", "Mkdirs", &[], Value::Bool(true)),
        ("f", "Mkdirs", &[], Value::Bool(true)),
        (".", "IsDescendant", &[("potentialChildRelativePath", Is::Text("d/x"))], Value::Bool(true)),
        ("d", "IsDescendant", &[("potentialChildRelativePath", Is::Text("../f"))], Value::Bool(false)),
        ("link", "HasSymlink", &[("noFollowLinks", Is::Bool(true))], Value::Bool(true)),
        ("link", "HasSymlink", &[("openOptions", Is::Options(&[NOFOLLOW]))], Value::Bool(true)),
        ("link", "HasSymlink", &[("openOptions", Is::Options(&[]))], Value::Bool(false)),
        ("none", "GetUsableDiskSpace", &[], Value::Long(0)),
    ];
    for (file, class, fields, expected) in cases {
        let answer = controller.ask(act(&dir.join(file), &format!("hudson.FilePath${class}"), fields), None).await;
        assert_eq!(answer.value(), *expected, "{class} {file}");
    }

    let nulls: &[(&str, &str, Fields<'_>)] = &[
        ("f", "Chmod", &[("mask", Is::Int(0o640))]),
        ("f", "Touch", &[("timestamp", Is::Long(1_000_000_000_123))]),
        ("f", "SetLastModified", &[("timestamp", Is::Long(1_000_000_000_123))]),
        ("l2", "SymlinkTo", &[("target", Is::Text("d")), ("listener", Is::Null)]),
        ("f", "ReadLink", &[]),
        ("none", "Delete", &[]),
    ];
    for (file, class, fields) in nulls {
        let answer = controller.ask(act(&dir.join(file), &format!("hudson.FilePath${class}"), fields), None).await;
        assert!(answer.is_null(), "{class} {file}");
    }
    let mode = controller.ask(act(&dir.join("f"), "hudson.FilePath$Mode", &[]), None).await;
    assert_eq!(mode.value(), Value::Int(0o640));
    let time = controller.ask(act(&dir.join("f"), "hudson.FilePath$LastModified", &[]), None).await;
    assert_eq!(time.value(), Value::Long(1_000_000_000_123));

    for (file, class, expected) in [
        ("f", "ReadToString", "f".to_owned()),
        ("f", "Digest", "8fa14cdd754f91cc6554c9e71929cce7".to_owned()),
        ("l2", "ReadLink", "d".to_owned()),
        ("f", "Absolutize", dir.join("f").to_string_lossy().into_owned()),
    ] {
        let answer = controller.ask(act(&dir.join(file), &format!("hudson.FilePath${class}"), &[]), None).await;
        assert_eq!(answer.text(), expected, "{class}");
    }
    let uri = controller.ask(act(&dir.join("d"), "hudson.FilePath$ToURI", &[]), None).await;
    let text = uri.object().root().unwrap().require_string("string").unwrap().into_owned();
    assert_eq!(text, format!("file:{}/d/", dir.display()));

    let url = Is::Object("java.net.URL", &[("protocol", Is::Text("https"))]);
    let refused = controller.ask(act(dir, "hudson.FilePath$Unpack", &[("archive", url)]), None).await;
    assert!(refused.result.unwrap_err().starts_with("java.io.IOException"));
}

/// The paths in a list or array of `FilePath`s, all of which must say that they are the agent's.
fn remotes(answer: &Answer) -> Vec<String> {
    let root = answer.object().root().unwrap();
    let items = match root.elements() {
        Ok(elements) => elements.collect(),
        Err(_) => root.collection().unwrap(),
    };
    items
        .into_iter()
        .map(|item| {
            let item = item.unwrap();
            assert_eq!(item.annotation_bytes("hudson.FilePath"), [1]);
            item.require_string("remote").unwrap().into_owned()
        })
        .collect()
}

#[tokio::test]
async fn listings_are_paths_of_the_agent() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    tree(dir, &["b.txt", "a.txt", "d/c.txt", "x@tmp/z"]);
    std::os::unix::fs::symlink("a.txt", dir.join("link")).unwrap();
    let under = |names: &[&str]| names.iter().map(|name| format!("{}/{name}", dir.display())).collect::<Vec<_>>();
    let mut controller = Controller::new(None);

    let patterns = [("includes", Is::Text("**/*.txt, none")), ("excludes", Is::Text("b*"))];
    let answer = controller.ask(act(dir, "hudson.FilePath$ListGlob", &patterns), None).await;
    assert!(answer.object().root().unwrap().is("[Lhudson.FilePath;"));
    assert_eq!(remotes(&answer), under(&["a.txt", "d/c.txt"]));

    let restrictions = [("openOptions", Is::Options(&[NOFOLLOW, NO_TMP])), ("verificationRoot", Is::Null)];
    for (filter, expected) in [
        (Is::Null, &["a.txt", "b.txt", "d", "link", "x@tmp"][..]),
        (Is::Object("hudson.FilePath$DirectoryFilter", &[]), &["d", "x@tmp"]),
        (Is::Object("hudson.FilePath$OptionalDiscardingFileFilter", &restrictions), &["a.txt", "b.txt", "d"]),
        (Is::Object("hudson.FilePath$SymlinkRetainingFileFilter", &restrictions), &["link"]),
    ] {
        let answer = controller.ask(act(dir, "hudson.FilePath$ListFilter", &[("filter", filter)]), None).await;
        assert_eq!(remotes(&answer), under(expected));
    }
    let filter = Is::Object("com.example.Filter", &[]);
    let answer = controller.ask(act(dir, "hudson.FilePath$ListFilter", &[("filter", filter)]), None).await;
    assert!(answer.result.unwrap_err().contains("no file filter com.example.Filter"));

    for (path, includes, message) in [
        (dir.join("none"), "**", format!("java.io.IOException: {}/none does not exist.", dir.display())),
        (dir.join("a.txt"), "**", format!("java.io.IOException: {}/a.txt is not a directory.", dir.display())),
    ] {
        let fields = [("includes", Is::Text(includes))];
        let answer = controller.ask(act(&path, "hudson.FilePath$ListGlob", &fields), None).await;
        assert_eq!(answer.result.unwrap_err(), message);
    }
}

#[tokio::test]
async fn build_steps_find_and_clean_up_files() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    tree(dir, &["dist/a.jar", "dist/b.jar", "src/c"]);
    let fields = [("includes", Is::Text("dist/*")), ("caseSensitive", Is::Bool(true))];
    let class = "hudson.tasks.ArtifactArchiver$ListFiles";
    let names = |answer: &Answer, class: &str| {
        let root = answer.object().root().unwrap();
        assert!(root.is(class));
        let mut names: Vec<String> = match root.map() {
            Ok(entries) => entries.iter().map(|(key, _)| key.unwrap().as_str().unwrap().into_owned()).collect(),
            Err(_) => root.collection().unwrap().iter().map(|i| i.unwrap().as_str().unwrap().into_owned()).collect(),
        };
        names.sort();
        names
    };
    let answer = Controller::new(None).ask(act(dir, class, &fields), None).await;
    assert_eq!(names(&answer, "java.util.HashMap"), ["dist/a.jar", "dist/b.jar"]);
    let mut controller = Controller::new(Some("2.579"));
    let answer = controller.ask(act(dir, class, &fields), None).await;
    assert_eq!(names(&answer, "java.util.HashSet"), ["dist/a.jar", "dist/b.jar"]);

    let fields =
        [("targets", Is::Text("dist/a*")), ("caseSensitive", Is::Bool(true)), ("buildTimestamp", Is::Long(i64::MAX))];
    let answer = controller.ask(act(dir, "hudson.tasks.Fingerprinter$FindRecords", &fields), None).await;
    let records = answer.object().root().unwrap().collection().unwrap();
    let [Some(record)] = records[..] else { panic!("{records:?}") };
    assert_eq!(record.require_string("relativePath").unwrap(), "dist/a.jar");
    assert_eq!(record.require_string("fileName").unwrap(), "a.jar");
    assert!(!record.bool("produced").unwrap());

    let kind = |constant| Is::Constant("hudson.plugins.ws_cleanup.Pattern$PatternType", constant);
    let (include, exclude) = (
        [("pattern", Is::Text("**/*.jar")), ("type", kind("INCLUDE"))],
        [("pattern", Is::Text("**/b.*")), ("type", kind("EXCLUDE"))],
    );
    let patterns = [
        Is::Object("hudson.plugins.ws_cleanup.Pattern", &include),
        Is::Object("hudson.plugins.ws_cleanup.Pattern", &exclude),
    ];
    let cleanup = [("patterns", Is::List(&patterns)), ("deleteDirs", Is::Bool(false)), ("deleteCommand", Is::Null)];
    let answer = controller.ask(act(dir, "hudson.plugins.ws_cleanup.Cleanup", &cleanup), None).await;
    assert!(answer.is_null());
    let left: Vec<_> = listing(dir).into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["dist/b.jar", "src/c"]);

    let text = [("text", Is::Text("one\ntwo\n"))];
    let file = dir.join("workspaces.txt");
    let answer = controller.ask(act(&file, "jenkins.branch.WorkspaceLocatorImpl$WriteAtomic", &text), None).await;
    assert!(answer.is_null());
    assert_eq!(fs::read_to_string(file).unwrap(), "one\ntwo\n");
}

#[tokio::test]
async fn the_workspace_browser_gets_its_page() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path(), &["a/b/f", "x@tmp/s"]);
    std::os::unix::fs::symlink("a", temp.path().join("link")).unwrap();
    let mut controller = Controller::new(None);
    let file = [("f", Is::Path(temp.path())), ("root", Is::Path(temp.path()))];
    let cur = || ("cur", Is::Object("jenkins.util.VirtualFile$FilePathVF", &file));
    let class = "hudson.model.DirectoryBrowserSupport$BuildChildPaths";
    let mut graph = Graph::with_loader(Loader::Receivers(1));
    let options = ("openOptions", Is::Options(&[NOFOLLOW, NO_TMP]));
    let root = object(&mut graph, class, &[cur(), options]);
    let answer = controller.ask(graph.encode_one(Some(root)), None).await;
    let result = answer.object().root().unwrap();
    assert!(result.bool("containsSymLink").unwrap() && result.bool("containsTmpDir").unwrap());
    let rows = result.require("glob").unwrap().collection().unwrap();
    let row = rows[0].unwrap().collection().unwrap();
    let hrefs: Vec<_> = row.iter().map(|path| path.unwrap().require_string("href").unwrap()).collect();
    assert_eq!((rows.len(), hrefs.join(" ")), (1, "a a/b".to_owned()));

    // Up to core 2.442.
    let mut graph = Graph::with_loader(Loader::Receivers(1));
    let root = object(&mut graph, class, &[cur(), ("root", Is::Null)]);
    let answer = controller.ask(graph.encode_one(Some(root)), None).await;
    assert_eq!(answer.object().root().unwrap().collection().unwrap().len(), 1);
}

#[tokio::test]
async fn files_move_and_unpack_on_the_agent() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    tree(dir, &["f", "pull/pull/a", "pull/b", "from/x/y", "from/z"]);
    let at = |name: &str| dir.join(name);
    let mut controller = Controller::new(None);
    let (renamed, copied, tree_copy) = (at("renamed"), at("new/copied"), at("tree"));
    let target = |path| [("target", Is::Path(path))];
    for (file, class, fields) in [
        ("f", "CopyToWithPermission", target(&copied)),
        ("f", "RenameTo", target(&renamed)),
        ("pull", "MoveAllChildrenTo", target(dir)),
    ] {
        let answer = controller.ask(act(&at(file), &format!("hudson.FilePath${class}"), &fields), None).await;
        assert!(answer.is_null(), "{class}: {answer:?}");
    }
    assert_eq!(fs::read(&copied).unwrap(), fs::read(&renamed).unwrap());
    assert!(!at("f").exists() && at("pull/a").exists() && at("b").exists());

    let fields = [("target", Is::Path(&tree_copy)), ("scanner", GLOB)];
    let answer = controller.ask(act(&at("from"), "hudson.FilePath$CopyRecursiveLocal", &fields), None).await;
    assert_eq!(answer.value(), Value::Int(2));
    assert_eq!(listing(&tree_copy), listing(&at("from")));

    // An archive that is on the agent already: the outer instance up to core 2.318, a field since.
    for (factory, class, field) in [
        ("TarArchiverFactory", "UntarLocal", "this$0"),
        ("TarArchiverFactory", "UntarLocal", "filePath"),
        ("ZipArchiverFactory", "UnzipLocal", "this$0"),
        ("ZipArchiverFactory", "UnzipLocal", "filePath"),
    ] {
        let factory = format!("hudson.util.io.ArchiverFactory${factory}");
        let method = [("method", GZIP)];
        let fields = [("factory", Is::Object(&factory, &method)), ("out", Is::Out(1)), ("scanner", GLOB)];
        let answer = controller.ask(act(&at("from"), "hudson.FilePath$Archive", &fields), None).await;
        fs::write(at("archive"), &answer.written[&1]).unwrap();
        let (archive, unpacked) = (at("archive"), at("unpacked"));
        let fields = [(field, Is::Path(&archive)), ("compression", GZIP)];
        let answer = controller.ask(act(&unpacked, &format!("hudson.FilePath${class}"), &fields), None).await;
        assert!(answer.is_null(), "{class} {field}: {answer:?}");
        assert_eq!(listing(&unpacked), listing(&at("from")));
        fs::remove_dir_all(&unpacked).unwrap();
    }

    let fields = [("p", Is::PipeOut(3)), ("offset", Is::Long(2))];
    let class = "hudson.FilePath$OffsetPipeSecureFileCallable";
    let answer = controller.ask(act(&at("from/x/y"), class, &fields), None).await;
    assert!(answer.is_null());
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&answer.written[&3][..]), &mut text).unwrap();
    assert_eq!(text, "om/x/y");
}

#[tokio::test]
async fn temporary_files_are_named_after_the_request() {
    let temp = tempfile::tempdir().unwrap();
    let mut controller = Controller::new(None);
    let fields = [("prefix", Is::Text("jenkins")), ("suffix", Is::Text(".sh")), ("contents", Is::Text("echo é"))];
    let dir = temp.path().join("new");
    let class = "hudson.FilePath$CreateTempFile";
    let answer = controller.ask(act(&dir, class, &fields), None).await;
    assert_eq!(answer.result.unwrap_err(), "java.io.IOException: No such file or directory");

    let here: Vec<_> = [("inThisDirectory", Is::Bool(true))].into_iter().chain(fields).collect();
    let answer = controller.ask(act(&dir, "hudson.FilePath$CreateTextTempFile", &here), None).await;
    let path = answer.text();
    assert!(path.starts_with(&format!("{}/jenkins", dir.display())) && path.ends_with(".sh"));
    assert_eq!(fs::read_to_string(path).unwrap(), "echo é");

    let answer = controller.ask(act(&dir, class, &[("prefix", Is::Text("abc")), ("suffix", Is::Null)]), None).await;
    assert!(dir.join(answer.text()).is_file());
    let answer = controller.ask(act(&dir, "hudson.FilePath$CreateTempDir", &[("name", Is::Text("a.tmp"))]), None).await;
    assert!(answer.text().starts_with("a.tmp") && dir.join(answer.text()).is_dir());
}

#[tokio::test]
async fn failures_are_the_exceptions_of_java() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    tree(dir, &["f", "d/x"]);
    let at = |name: &str| dir.join(name).display().to_string();
    let mut controller = Controller::new(None);
    let no_such = format!("java.nio.file.NoSuchFileException: {}", at("none"));
    let cases: &[(&str, &str, Fields<'_>, String)] = &[
        ("f/a/b", "Mkdirs", &[], format!("java.nio.file.FileSystemException: {}: Not a directory", at("f/a"))),
        ("none", "ReadToString", &[], no_such.clone()),
        ("none", "Digest", &[], no_such.clone()),
        ("none", "Mode", &[], no_such.clone()),
        ("none", "Chmod", &[("mask", Is::Int(0o644))], no_such.clone()),
        ("none", "CopyTo", &[("out", Is::Out(1))], no_such),
        ("f", "Chmod", &[("mask", Is::Int(0o4755))], "java.io.IOException: Invalid mode: 2541".to_owned()),
        (
            "none",
            "SetLastModified",
            &[("timestamp", Is::Long(5))],
            format!("java.io.IOException: Failed to set the timestamp of {} to 5", at("none")),
        ),
        (
            "d",
            "Delete",
            &[],
            format!(
                "java.io.IOException: Unable to delete '{}'. Tried 3 times (of a maximum of 3) waiting 0.1 sec between \
                 attempts.",
                at("d")
            ),
        ),
        (
            "d",
            "IsDescendant",
            &[("potentialChildRelativePath", Is::Text("/etc"))],
            "java.lang.IllegalArgumentException: Only a relative path is supported, the given path is absolute: /etc"
                .to_owned(),
        ),
        (
            "d",
            "ListGlob",
            &[("includes", Is::Text("/etc/*"))],
            "java.io.IOException: Expecting Ant GLOB pattern, but saw '/etc/*'. See \
             https://ant.apache.org/manual/Types/fileset.html for syntax"
                .to_owned(),
        ),
    ];
    for (file, class, fields, expected) in cases {
        let answer = controller.ask(act(&dir.join(file), &format!("hudson.FilePath${class}"), fields), None).await;
        assert_eq!(answer.result.unwrap_err(), *expected, "{class}");
    }
}
