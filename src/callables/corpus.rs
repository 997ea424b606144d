//! The whole recorded session, asked of this agent in its order: every request is answered by the native handlers, with
//! real files, processes and a git repository like the recorded one, and every answer, and what was written to the
//! controller's streams, is compared with what the Java agent answered. What may differ is in [`TOLERATED`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command as Process;

use super::Agent;
use super::git::testing::{GitDaemon, wait_for};
use super::testing::{Ask, Harness, RECORDED_ROOT, outline_with, session};
use crate::channel::command::Grant;
use crate::demo::controller::end::grants;
use crate::frame::Capability;
use crate::object::{Graph, Node, NodeId, Value, View};

/// Of a field of ours.
const LATER: &str = "later versions of the class have it; Java ignores a field that its class has not";

/// Of what was written to a stream.
const LARGE: &str = "the recording left out what was large, and what came with it";

/// A difference that is meant: in the answers to requests for this class or method (of a `FileCallable`, not its
/// wrapper's), or `*`; in which part (the whole value, a field, or what was written); and why.
const TOLERATED: &[(&str, Part, &str)] = &[
    ("hudson.slaves.SlaveComputer$SlaveVersion", Part::Value, "the version that this agent claims is a newer one"),
    (
        "jenkins.slaves.restarter.JnlpSlaveRestarterInstaller$FindEffectiveRestarters",
        Part::Value,
        "null says that there are no restarters: this agent reconnects without restarting",
    ),
    ("hudson.model.Slave$GetClockDifference3", Part::Field("remoteTime"), "the time"),
    ("org.jvnet.hudson.MemoryUsage", Part::Field("availablePhysicalMemory"), "the machine's"),
    ("org.jvnet.hudson.MemoryUsage", Part::Field("totalPhysicalMemory"), "the machine's"),
    ("org.jvnet.hudson.MemoryUsage", Part::Field("availableSwapSpace"), "the machine's"),
    ("org.jvnet.hudson.MemoryUsage", Part::Field("totalSwapSpace"), "the machine's"),
    ("hudson.node_monitors.DiskSpaceMonitorDescriptor$DiskSpace", Part::Field("size"), "the machine's"),
    ("hudson.node_monitors.DiskSpaceMonitorDescriptor$DiskSpace", Part::Field("totalSize"), LATER),
    ("hudson.EnvVars$GetEnvVars", Part::Value, "the agent's own environment"),
    ("hudson.remoting.RemoteInvocationHandler", Part::Field("oid"), "its owner's to choose"),
    (
        "hudson.remoting.RemoteInvocationHandler",
        Part::Field("origin"),
        "where a proxy was made, as a stack trace, for debugging",
    ),
    ("hudson.tasks.Fingerprinter$Record", Part::Field("md5sum"), "of files that hold random bytes, or the time"),
    ("hudson.tasks.junit.CaseResult", Part::Field("flakyFailures"), LATER),
    ("hudson.tasks.junit.CaseResult", Part::Field("isProperFailure"), LATER),
    ("hudson.tasks.junit.CaseResult", Part::Field("keepTestNames"), LATER),
    ("hudson.tasks.junit.CaseResult", Part::Field("properties"), LATER),
    ("hudson.tasks.junit.CaseResult", Part::Field("rerunFailures"), LATER),
    ("hudson.tasks.junit.CaseResult", Part::Field("startTime"), LATER),
    ("hudson.tasks.junit.SuiteResult", Part::Field("startTime"), LATER),
    ("hudson.tasks.junit.SuiteResult", Part::Field("properties"), LATER),
    ("hudson.tasks.junit.TestResult", Part::Field("startTime"), LATER),
    ("hudson.tasks.junit.TestResult", Part::Field("skipOldReports"), LATER),
    ("hudson.tasks.junit.TestResult", Part::Field("keepProperties"), LATER),
    ("hudson.tasks.junit.TestResult", Part::Field("keepTestNames"), LATER),
    ("log: + trap  TERM", Part::Written, "the Java agent leaves a process that ignores SIGTERM; this one kills it"),
    ("log: not recorded", Part::Unrecorded, LARGE),
    ("org.jenkinsci.plugins.gitclient.Git$GitAPIMasterToSlaveFileCallable", Part::Unrecorded, LARGE),
    ("org.jenkinsci.plugins.durabletask.BourneShellScript$AgentInfo", Part::Field("architecture"), LATER),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// The value of the answer; its class is the same.
    Value,
    /// A field of a class, in all answers.
    Field(&'static str),
    /// What was written to streams of the controller's.
    Written,
    /// What was written, of which nothing was recorded.
    Unrecorded,
    /// The answer is an exception with another text; its class is the same.
    Message,
}

/// What stands for an archive that was not recorded to its end.
const CUT_OFF: &str = "(cut off)";

/// The commits of the recorded repository, oldest first, and the trees of the second and the last.
const COMMITS: [&str; 4] = [
    "d1477f1fad27ac0dfbe081040d5d2b3826156089",
    "855fbdde77c2242cbfb7c9235f5de3028b61c620",
    "817a4fa8894a18e795ea78d6c9ce776f95895324",
    "f824ba575d84e49a43043bab5a7055d3d3a8c1d8",
];
const TREES: [&str; 2] = ["c3345bceabfc9eff338e770f8716d600dad9868c", "1ba37a22cce6dcb850c8850bff7af28211e8f26c"];

/// A repository like the recorded one: four commits, of which the second has a tag.
fn repository(directory: &Path) -> Vec<String> {
    let script = r#"
        git init -q -b master demo.git && cd demo.git && mkdir src tests
        echo 'int main(){return 0;}' > src/main.c && echo 'a demo for the recording....' | head -c 28 > README.md
        report() { echo "<testsuite name='demo' time='0.5'>$1</testsuite>" > tests/results.xml; }
        a="<testcase classname='demo.A' name='ok' time='0.1'/>"
        b="<testcase classname='demo.A' name='good2' time='0.2'/>"
        c="<testcase classname='demo.A' name='skip' time='0.0'><skipped/></testcase>"
        commit() {
            export GIT_AUTHOR_DATE="$1 +0000" GIT_COMMITTER_DATE="$1 +0000"
            git add . && git commit -q -m "$2" && git rev-parse HEAD
        }
        report "$a" && commit 1795429195 'commit 1'
        report "$a$b" && commit 1795429195 'commit 2' && git tag v1.0
        report "$c" && commit 1795431912 'commit 3'
        report "$a$b$c" && commit 1795431912 'commit 4: all tests pass'
        git rev-parse 'v1.0^{tree}' 'HEAD^{tree}'"#;
    let mut command = Process::new("sh");
    command.args(["-ec", script]).current_dir(directory).env("HOME", directory);
    for name in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{name}_NAME"), "t").env(format!("GIT_{name}_EMAIL"), "t@example.org");
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// What is called otherwise here than it was there.
struct Names {
    root: String,
    port: u16,
    url: String,
    /// Hashes: recorded and ours.
    hashes: Vec<(String, String)>,
    /// Names of temporary files: recorded and ours.
    files: Vec<(String, String)>,
}

impl Names {
    /// A text of a request, with our names.
    fn ours(&self, text: &str) -> String {
        let mut text = text.replace(RECORDED_ROOT, &self.root).replace("git://127.0.0.1/", &self.url);
        for (recorded, ours) in &self.files {
            text = text.replace(recorded, ours);
        }
        // Builds that sleep need not do so here.
        for seconds in ["1", "2", "3"] {
            for end in ["\n", ";", " "] {
                text = text.replace(&format!("sleep {seconds}{end}"), &format!("sleep 0{end}"));
            }
        }
        match text.strip_suffix("sleep 2") {
            Some(rest) => format!("{rest}sleep 0"),
            None => text,
        }
    }

    /// A text of an answer, ours or recorded, with recorded names and without what no two builds have in common.
    fn plain(&self, text: &str) -> String {
        let mut text = text.replace(&self.root, RECORDED_ROOT).replace(&self.url, "git://127.0.0.1/");
        for (recorded, ours) in &self.files {
            text = text.replace(ours, recorded);
        }
        for (recorded, ours) in &self.hashes {
            text = text.replace(ours, recorded).replace(&ours[..7], &recorded[..7]);
        }
        let lines: Vec<String> = text.split('\n').map(plain_line).collect();
        lines.join("\n")
    }
}

fn plain_line(line: &str) -> String {
    // The time that timestamper puts before each line.
    let line = match line.get(..27) {
        Some(time) if time.starts_with("[2") && time.ends_with("Z] ") => &line[27..],
        _ => line,
    };
    for (before, after) in [("git version ", "'"), ("+ sleep ", ""), ("Linux ", "")] {
        if let Some(at) = line.find(before).filter(|at| before.starts_with('g') || *at == 0) {
            return format!("{}{before}*{after}", &line[..at]);
        }
    }
    // A line of `ls -l`: mode, links, owner, group, size, date and name.
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["total", _] => "total *".to_owned(),
        [mode, _, _, _, size, _, _, _, name @ ..]
            if mode.len() == 10 && (mode.starts_with('-') || mode.starts_with('d')) =>
        {
            let size = if mode.starts_with('d') { "*" } else { size };
            format!("{mode} {size} {}", name.join(" "))
        }
        _ => line.to_owned(),
    }
}

fn bytes_of(hash: &str) -> Vec<u8> {
    (0..hash.len() / 2).map(|at| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// Replaces each occurrence of `from` by `to`, which is as long.
fn replace_bytes(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let mut at = 0;
    while at + from.len() <= bytes.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        at += 1;
    }
}

/// A default, which Java gives a field that a stream does not have.
fn is_default(value: Value) -> bool {
    matches!(value, Value::Ref(None) | Value::Bool(false) | Value::Int(0) | Value::Long(0))
        || matches!(value, Value::Float(f) if f == 0.0)
}

/// `serialVersionUID` of a class, flags, and its fields with their types.
type Shape = (i64, u8, BTreeSet<(String, u8)>);

/// The classes that have fields.
fn classes(graph: &Graph) -> BTreeMap<String, Shape> {
    let mut classes = BTreeMap::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        if let Node::ClassDesc(desc) = node
            && !desc.fields.is_empty()
        {
            let fields = desc.fields.iter().map(|field| (graph.text(&field.name).into_owned(), field.code));
            let name = graph.class_name(graph.id_at(index).unwrap()).into_owned();
            classes.insert(name, (desc.uid, desc.flags, fields.collect()));
        }
    }
    classes
}

/// The replay of the session.
struct Replay {
    harness: Harness,
    names: Names,
    /// Objects and streams of the agent's: recorded id, and ours.
    oids: HashMap<i32, i32>,
    /// What was read of each log so far: ours, and as recorded.
    logs: BTreeMap<String, (Vec<u8>, Vec<u8>)>,
    /// What was asked, with our names.
    requests: Vec<Graph>,
    differences: Vec<String>,
    used: BTreeSet<usize>,
}

impl Replay {
    fn is_tolerated(&mut self, label: &str, part: Part) -> bool {
        let found = TOLERATED.iter().position(|(of, what, _)| (*of == label || *of == "*") && *what == part);
        found.is_some_and(|at| {
            self.used.insert(at);
            true
        })
    }

    fn differ(&mut self, label: &str, mut part: Part, ours: &str, theirs: &str) {
        if part == Part::Written && theirs.is_empty() {
            part = Part::Unrecorded;
        }
        if ours != theirs && !self.is_tolerated(label, part) {
            // From the first line that differs.
            let same = ours.lines().zip(theirs.lines()).take_while(|(ours, theirs)| ours == theirs).count();
            let shorten = |text: &str| {
                let rest = text.lines().skip(same).take(3).collect::<Vec<_>>().join("\n");
                rest.chars().take(400).collect::<String>()
            };
            self.differences.push(format!("{label}, {part:?}\n  ours: {}\ntheirs: {}", shorten(ours), shorten(theirs)));
        }
    }

    fn request(&mut self, ask: &Ask) -> Graph {
        let mut bytes = ask.request.to_vec();
        self.with_our_hashes(&mut bytes);
        let mut graph = super::testing::decode(bytes.into());
        graph.map_strings(|text| Some(self.names.ours(text)).filter(|ours| ours != text));
        let mut changes: Vec<(NodeId, &str, Value)> = Vec::new();
        let objects = (0..graph.nodes().len()).filter_map(|index| graph.id_at(index)).map(|id| graph.view(id));
        for view in objects.filter(|view| matches!(view.node(), Node::Object(_))) {
            let is_ours = view.is("hudson.remoting.RemoteInvocationHandler") && view.bool("goingHome") == Ok(true)
                || view.is("hudson.remoting.RemoteInvocationHandler$UserRPCRequest");
            if view.is("org.eclipse.jgit.transport.URIish") {
                changes.push((view.id(), "port", Value::Int(self.names.port.into())));
            }
            if is_ours {
                let oid = view.int("oid").unwrap();
                let ours = self.oids.get(&oid).unwrap_or_else(|| panic!("{}: our {oid}", ask.label));
                changes.push((view.id(), "oid", Value::Int(*ours)));
            }
        }
        if ask.label.ends_with("$WriteLog") {
            let (path, callable) = (path(&graph), graph.root().unwrap().require("callable").unwrap().id());
            let read = self.logs.entry(path).or_default().0.len();
            changes.push((callable, "lastLocation", Value::Long(read as i64)));
        }
        for (object, field, value) in changes {
            assert!(graph.set_field(object, field, value));
        }
        graph
    }

    fn with_our_hashes(&self, bytes: &mut [u8]) {
        for (recorded, ours) in self.names.hashes.iter().filter(|(recorded, _)| recorded.len() == 40) {
            replace_bytes(bytes, recorded.as_bytes(), ours.as_bytes());
            replace_bytes(bytes, &bytes_of(recorded), &bytes_of(ours));
        }
    }

    fn ask(&mut self, ask: &Ask) {
        let Some(expected) = &ask.answer else { return };
        let request = self.request(ask);
        if ask.label.ends_with("$StatusCheck") && !ask.answered_null() {
            let path = path(&request);
            wait_for(&path, || std::fs::metadata(&path).is_ok_and(|file| file.len() > 0));
        }
        if ask.label.ends_with("$WriteLog") {
            // What had been written by then: what comes next may be a signal.
            let path = path(&request);
            let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
            let wanted = self.logs.get(&path).map_or(0, |log| lines(&log.1)) + lines(&ask.written[0]);
            wait_for(&path, || wanted == 0 || std::fs::read(&path).is_ok_and(|log| lines(&log) >= wanted));
        }
        let mut fed = ask.fed.clone();
        let inputs: Vec<&[u8]> = fed.iter().map(AsRef::as_ref).collect();
        let id = self.harness.replay_start(&request, &inputs);
        let ours = self.harness.answer(id);
        let theirs = expected.as_ref().map_err(String::clone).map(|bytes| {
            let mut bytes = bytes.to_vec();
            self.with_our_hashes(&mut bytes);
            super::testing::decode(bytes.into())
        });
        match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => {
                self.pair(ours, theirs);
                self.compare(ask, ours, theirs);
            }
            (Err(ours), Err(theirs)) => {
                let class = |text: &str| text.split(": ").next().unwrap_or_default().to_owned();
                let (ours, theirs) = (self.names.plain(ours), self.names.plain(theirs));
                if class(&ours) == class(&theirs) {
                    self.differ(&ask.label, Part::Message, &ours, &theirs);
                } else {
                    self.differ(&ask.label, Part::Value, &ours, &theirs);
                }
            }
            (ours, theirs) => {
                let text = |answer: &Result<Graph, String>| match answer {
                    Ok(graph) => outline_with(graph, |_, _, _| true),
                    Err(text) => text.clone(),
                };
                self.differ(&ask.label, Part::Value, &text(ours), &text(theirs));
            }
        }
        // What the controller wrote to the stream that it got.
        if ask.label == "hudson.FilePath$WritePipe" {
            let stream = grants(ours.as_ref().unwrap(), Capability::OURS).next().unwrap().1;
            let Grant::Output(oid) = stream else { panic!("{stream:?}") };
            let data = fed.pop().unwrap();
            let length = data.len() as u64;
            self.harness.end.write(oid, data, true);
            let path = path(&request);
            wait_for(&path, || std::fs::metadata(&path).is_ok_and(|file| file.len() == length));
        }
        if ask.label.ends_with("$WriteLog") {
            let log = self.logs.entry(path(&request)).or_default();
            log.0.extend_from_slice(&self.harness.collected(&request)[0].bytes);
            log.1.extend_from_slice(&ask.written[0]);
        }
        self.requests.push(request);
    }

    /// Compares what was written to the controller's streams; what listeners were told of, long after the request.
    fn compare_written(&mut self, session: &[Ask]) {
        let asked: Vec<&Ask> = session.iter().filter(|ask| ask.answer.is_some()).collect();
        let requests = std::mem::take(&mut self.requests);
        assert_eq!(requests.len(), asked.len());
        for (ask, request) in asked.into_iter().zip(&requests).filter(|(ask, _)| !ask.label.ends_with("$WriteLog")) {
            let written = self.harness.collected(request);
            for (ours, theirs) in written.iter().zip(&ask.written) {
                let (ours, theirs) = (contents(&ours.bytes), contents(theirs));
                // The recording has not all of what was large.
                if theirs != CUT_OFF {
                    let (ours, theirs) = (self.names.plain(&ours), self.names.plain(&theirs));
                    self.differ(&ask.label, Part::Written, &ours, &theirs);
                }
            }
        }
    }

    /// Remembers which objects and streams of ours are which.
    fn pair(&mut self, ours: &Graph, theirs: &Graph) {
        let oids = |graph: &Graph| -> Vec<i32> {
            grants(graph, Capability::OURS).map(|(_, grant)| super::testing::oid_of(grant)).collect()
        };
        let (ours, theirs) = (oids(ours), oids(theirs));
        assert_eq!(ours.len(), theirs.len());
        self.oids.extend(theirs.into_iter().zip(ours));
    }

    fn compare(&mut self, ask: &Ask, ours: &Graph, theirs: &Graph) {
        let root_class = |graph: &Graph| graph.root().map(|root| root.class_name().into_owned());
        if ask.label.starts_with("hudson.FilePath$Create") {
            let text = |graph: &Graph| graph.root().unwrap().as_str().unwrap().into_owned();
            self.names.files.push((text(theirs), text(ours)));
        }
        // A build may be done earlier here.
        if ask.label.ends_with("$StatusCheck") && theirs.root().is_none() {
            return;
        }
        self.differ(&ask.label, Part::Value, &format!("{:?}", root_class(ours)), &format!("{:?}", root_class(theirs)));
        let (known, mut shapes) = (classes(theirs), String::new());
        for (class, (uid, flags, fields)) in classes(ours) {
            let Some(theirs) = known.get(&class) else {
                let _ = writeln!(shapes, "{class} is not in the recorded answer");
                continue;
            };
            if (uid, flags) != (theirs.0, theirs.1) {
                let _ = writeln!(shapes, "{class}: {uid} {flags}, recorded {} {}", theirs.0, theirs.1);
            }
            for (field, code) in fields.difference(&theirs.2) {
                if !self.field_is_tolerated(&class, field) {
                    let _ = writeln!(shapes, "{class} has {field}: {}", char::from(*code));
                }
            }
        }
        self.differ(&ask.label, Part::Value, &shapes, "");
        let mut text = |graph: &Graph| {
            let mut used = BTreeSet::new();
            let text = match graph.root().map(|root| root.primitive_array("[B").map(<[u8]>::to_vec)) {
                Some(Ok(bytes)) => self.names.plain(&String::from_utf8_lossy(&bytes)),
                _ => {
                    let mut graph = graph.clone();
                    graph.map_strings(|text| Some(self.names.plain(text)).filter(|plain| plain != text));
                    outline_with(&graph, |class, field, value| {
                        let tolerated = field_tolerance(class, field);
                        used.extend(tolerated);
                        tolerated.is_none() && !is_default(value)
                    })
                }
            };
            self.used.extend(used);
            text
        };
        let (ours, theirs) = (text(ours), text(theirs));
        self.differ(&ask.label, Part::Value, &ours, &theirs);
    }

    fn field_is_tolerated(&mut self, class: &str, field: &str) -> bool {
        let found = field_tolerance(class, field);
        self.used.extend(found);
        found.is_some()
    }
}

fn field_tolerance(class: &str, field: &str) -> Option<usize> {
    TOLERATED.iter().position(|(of, part, _)| *of == class && matches!(part, Part::Field(name) if *name == field))
}

/// The path that a `FileCallable` acts upon.
fn path(request: &Graph) -> String {
    let root: View<'_> = request.root().unwrap();
    let file = root.get("filePath").unwrap().unwrap_or_else(|| root.require("this$0").unwrap());
    file.require_string("remote").unwrap().into_owned()
}

/// What was written, as text; of a tar archive, the names of its entries with their modes and sizes.
fn contents(bytes: &[u8]) -> String {
    use std::io::Read;
    let mut unpacked = Vec::new();
    let whole = flate2::read::GzDecoder::new(bytes).read_to_end(&mut unpacked);
    let tar: &[u8] = if bytes.starts_with(&[0x1f, 0x8b]) { &unpacked } else { bytes };
    if !tar.is_empty() && tar.iter().all(|byte| *byte == 0) {
        return "(nothing)".to_owned();
    }
    if tar.get(257..262) != Some(b"ustar") {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    if whole.is_err() && tar.len() != bytes.len() {
        return CUT_OFF.to_owned();
    }
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let header = entry.header();
        format!("{:o} {} {}", header.mode().unwrap(), header.size().unwrap(), entry.path().unwrap().display())
    });
    let mut entries: Vec<String> = entries.collect();
    entries.sort();
    entries.join("\n")
}

/// The words of two logs, sorted, if the recorded one has a shell's trace of a pipeline: its commands trace themselves at the
/// same time, in pieces.
fn comparable(ours: String, theirs: String) -> (String, String) {
    let lines: Vec<&str> = theirs.lines().collect();
    if !lines.windows(2).any(|two| two.iter().all(|line| line.starts_with("+ "))) {
        return (ours, theirs);
    }
    let words = |log: &str| {
        let mut words: Vec<&str> = log.split_whitespace().collect();
        words.sort_unstable();
        words.join("\n")
    };
    (words(&ours), words(&theirs))
}

#[test]
fn every_recorded_request_is_answered_as_the_java_agent_did() {
    let dir = tempfile::tempdir().unwrap();
    let Some(daemon) = GitDaemon::start(dir.path()) else {
        eprintln!("skipped: there is no git daemon on this machine");
        return;
    };
    let root = dir.path().join("agent");
    std::fs::create_dir(&root).unwrap();
    let hashes = repository(dir.path());
    let recorded = COMMITS.iter().chain(&TREES).map(|hash| (*hash).to_owned());
    let names = Names {
        root: root.to_string_lossy().into_owned(),
        port: daemon.port,
        url: format!("git://127.0.0.1:{}/", daemon.port),
        hashes: recorded.zip(hashes).collect(),
        files: Vec::new(),
    };
    let mut agent = Agent::new(None, Some("WebSocket".to_owned()), Some("2.293".to_owned()));
    let home = dir.path().to_string_lossy().into_owned();
    let variables = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", &home), ("LANG", "C.UTF-8")];
    agent.environment = variables.into_iter().collect();
    let mut replay = Replay {
        harness: Harness::with_agent(agent),
        names,
        oids: HashMap::new(),
        logs: BTreeMap::new(),
        requests: Vec::new(),
        differences: Vec::new(),
        used: BTreeSet::new(),
    };
    let session = session();
    assert_eq!(session.len(), 623);
    for ask in session {
        replay.ask(ask);
    }
    replay.compare_written(session);
    for (ours, theirs) in std::mem::take(&mut replay.logs).into_values() {
        let text = |bytes: &[u8]| replay.names.plain(&String::from_utf8_lossy(bytes));
        let (ours, theirs) = (text(&ours), text(&theirs));
        let label = format!("log: {}", theirs.lines().next().unwrap_or("not recorded"));
        let (ours, theirs) = comparable(ours, theirs);
        replay.differ(&label, Part::Written, &ours, &theirs);
    }
    let unused: Vec<_> =
        (0..TOLERATED.len()).filter(|at| !replay.used.contains(at)).map(|at| TOLERATED[at].0).collect();
    assert!(replay.differences.is_empty(), "{}", replay.differences.join("\n\n"));
    assert_eq!(unused, [""; 0], "differences that are listed and are none");
    replay.harness.finish();
}
