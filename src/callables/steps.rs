//! What steps of plugins without callables of their own send, in their order: tests against real tools and files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::scripted::{act, file_path, object, proxied, stream_id, stream_listener};
use super::testing::Harness;
use crate::channel::command::remote_output_stream;
use crate::object::{Content, Data, Graph, NodeId, Value, sc};

/// A controller, which sends what a step does.
struct Step {
    harness: Harness,
    next_oid: i32,
}

impl Step {
    fn new() -> Step {
        Step { harness: Harness::new(), next_oid: 100 }
    }

    fn ask(&mut self, input: &[u8], build: impl FnOnce(&mut Graph, i32) -> NodeId) -> (Graph, Result<Graph, String>) {
        // Two streams at most.
        self.next_oid += 2;
        let mut request = Graph::default();
        let root = build(&mut request, self.next_oid);
        request.put(Some(root));
        let answer = self.harness.replay(&request, &[input]);
        (request, answer)
    }

    /// `FilePath.act`, with nothing to read or write.
    fn act(
        &mut self,
        path: &Path,
        class: &str,
        strings: &[(&'static str, &str)],
        values: &[(&'static str, Value)],
    ) -> Result<Graph, String> {
        self.ask(b"", |graph, _| {
            let texts: Vec<_> = strings.iter().map(|(name, text)| (*name, Some(graph.string(text)))).collect();
            let callable = object(graph, class, &texts, values);
            act(graph, path, callable)
        })
        .1
    }

    /// `FilePath.write().write(bytes)`
    fn write(&mut self, path: &Path, bytes: &[u8]) {
        let answer = self.act(path, "hudson.FilePath$WritePipe", &[], &[]).unwrap();
        let oid = stream_id(answer.root().unwrap());
        self.harness.end.write(oid, bytes.to_vec(), true);
        super::git::testing::wait_for("what is written", || std::fs::read(path).is_ok_and(|read| read == bytes));
    }

    /// `Launcher.launch().cmds(...).envs(...).stdout(buffer).quiet(true).join()`: the exit code and what was printed.
    fn launch(&mut self, command: &[&str], env: &[&str], directory: &Path) -> (i32, String) {
        let (request, process) = self.ask(b"", |graph, oid| {
            let words: Vec<_> = command.iter().map(|word| Some(graph.string(word))).collect();
            let (cmd, env) = (graph.array_list(&words), graph.string_array(env));
            let (out, listener) = (remote_output_stream(graph, oid), stream_listener(graph, oid + 1));
            let directory = graph.string(&directory.to_string_lossy());
            let references = [
                ("cmd", Some(cmd)),
                ("env", Some(env)),
                ("out", Some(out)),
                ("listener", Some(listener)),
                ("workDir", Some(directory)),
            ];
            let flags = ["quiet", "reverseStdin", "reverseStdout", "reverseStderr"]
                .map(|name| (name, Value::Bool(name == "quiet")));
            object(graph, "hudson.Launcher$RemoteLaunchCallable", &references, &flags)
        });
        let process = process.unwrap();
        let code = self.harness.method(proxied(&process), "hudson.Launcher$RemoteProcess", "join").unwrap();
        let Some(Value::Int(code)) = code.root().unwrap().unboxed() else { panic!("an exit code was expected") };
        let written = self.harness.collected(&request);
        (code, String::from_utf8_lossy(&written[0].bytes).into_owned())
    }
}

/// A `Pipe`: one end of it, at this side.
fn pipe(graph: &mut Graph, output: bool, oid: i32) -> NodeId {
    let desc = graph.class_desc("hudson.remoting.Pipe", 1, sc::SERIALIZABLE | sc::WRITE_METHOD, &[], None);
    let bytes = [&[u8::from(output)][..], &oid.to_be_bytes()].concat();
    graph.object(desc).annotate_bytes(desc, bytes).build()
}

/// A `RemoteInputStream` of `Flag.GREEDY`.
fn input(graph: &mut Graph, oid: i32) -> NodeId {
    let pipe = pipe(graph, false, oid);
    let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
    let desc = graph.class_desc("hudson.remoting.RemoteInputStream", 1, flags, &[], None);
    let greedy = Content::Block { data: Data::Owned(vec![1].into()), long: false };
    graph.object(desc).annotate(desc, vec![greedy, Content::Object(Some(pipe))]).build()
}

fn text(answer: Result<Graph, String>) -> String {
    answer.unwrap().root().unwrap().as_str().unwrap().into_owned()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// `sshagent`: `ExecRemoteAgent` and its `addIdentity`, with a passphrase.
#[test]
fn ssh_agent() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "open sesame", "-C", "me@example.org", "-f"])
        .arg(&key)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no ssh-keygen on this machine");
        return;
    }
    let key = std::fs::read_to_string(key).unwrap();
    let workspace = dir.path().join("ws");
    let temp = dir.path().join("ws@tmp");
    let mut step = Step::new();
    let (code, printed) = step.launch(&["ssh-agent"], &[], dir.path());
    assert_eq!(code, 0);
    let variable = |name: &str| {
        let rest = printed.split_once(&format!("{name}=")).unwrap().1;
        format!("{name}={}", rest.split_once(';').unwrap().0)
    };
    let env = [variable("SSH_AUTH_SOCK"), variable("SSH_AGENT_PID")];

    step.act(&workspace, "hudson.FilePath$Mkdirs", &[], &[]).unwrap();
    step.act(&temp, "hudson.FilePath$Mkdirs", &[], &[]).unwrap();
    step.act(&temp, "hudson.FilePath$Chmod", &[], &[("mask", Value::Int(0o700))]).unwrap();
    let mut file = |prefix: &str, suffix: &str, contents: &str| {
        let strings = [("prefix", prefix), ("suffix", suffix), ("contents", contents)];
        let flags = [("inThisDirectory", Value::Bool(true))];
        let path = text(step.act(&temp, "hudson.FilePath$CreateTextTempFile", &strings, &flags));
        let mask = if suffix == ".key" { 0o600 } else { 0o700 };
        step.act(path.as_ref(), "hudson.FilePath$Chmod", &[], &[("mask", Value::Int(mask))]).unwrap();
        assert_eq!(mode(path.as_ref()), mask as u32);
        path
    };
    let key = file("private_key_", ".key", &key);
    let askpass = file("askpass_", ".sh", "#!/bin/sh\necho \"$SSH_PASSPHRASE\"\nrm \"$0\"\n");
    let mut more: Vec<&str> = env.iter().map(String::as_str).collect();
    let (asker, display) = (format!("SSH_ASKPASS={askpass}"), "DISPLAY=:0");
    more.extend(["SSH_PASSPHRASE=open sesame", "SSH_ASKPASS_REQUIRE=force", display, &asker]);
    let (code, printed) = step.launch(&["ssh-add", &key], &more, dir.path());
    assert_eq!(code, 0, "{printed}");
    assert!(!Path::new(&askpass).exists());
    step.act(key.as_ref(), "hudson.FilePath$Delete", &[], &[]).unwrap();
    let env: Vec<&str> = env.iter().map(String::as_str).collect();
    let (_, printed) = step.launch(&["ssh-add", "-l"], &env, dir.path());
    assert!(printed.contains("me@example.org"), "{printed}");
    let (code, printed) = step.launch(&["ssh-agent", "-k"], &env, dir.path());
    assert_eq!((code, std::fs::read_dir(&temp).unwrap().count()), (0, 0), "{printed}");
    step.harness.finish();
}

/// `configFileProvider`: `ConfigFileManager.provisionConfigFile`, and the end of the wrapper.
#[test]
fn config_files() {
    let dir = tempfile::tempdir().unwrap();
    let temp = dir.path().join("ws@tmp");
    let mut step = Step::new();
    step.act(&temp, "hudson.FilePath$Mkdirs", &[], &[]).unwrap();
    let strings = [("prefix", "config"), ("suffix", "tmp")];
    let name = text(step.act(&temp, "hudson.FilePath$CreateTempFile", &strings, &[]));
    let file = temp.join(name);
    step.write(&file, b"<settings>\xc3\xa9</settings>");
    step.act(&file, "hudson.FilePath$Chmod", &[], &[("mask", Value::Int(0o640))]).unwrap();
    assert_eq!(mode(&file), 0o640);
    step.act(&file, "hudson.FilePath$Delete", &[], &[]).unwrap();
    assert!(!file.exists());
    step.harness.finish();
}

/// `docker.image(...).inside`: which container this agent is in, and what docker says.
#[test]
fn docker() {
    let mut step = Step::new();
    let dir = tempfile::tempdir().unwrap();
    // A file of no size.
    let file = Path::new("/proc/self/limits");
    let (request, answer) = step.ask(b"", |graph, oid| {
        let pipe = pipe(graph, true, oid);
        let options = graph.array("[Ljava.nio.file.OpenOption;", 0, &[]);
        let fields = [("p", Some(pipe)), ("verificationRoot", None), ("openOptions", Some(options))];
        let callable = object(graph, "hudson.FilePath$Read", &fields, &[]);
        act(graph, file, callable)
    });
    assert!(answer.unwrap().root().is_none());
    let read = step.harness.collected(&request).remove(0);
    assert_eq!(read.closed, Some(None));
    assert!(String::from_utf8(read.bytes).unwrap().contains("Max open files"));
    // docker exec's own way of telling that a container does not run.
    let (code, printed) = step.launch(&["sh", "-c", "echo true; exit 1"], &["DOCKER_HOST=unix:///x"], dir.path());
    assert_eq!((code, printed.as_str()), (1, "true\n"));
    step.harness.finish();
}

/// `tool` and `nodejs`: `FilePath.installIfNecessaryFrom` where the agent can't download by itself, and what
/// installers do with what they have unpacked.
#[test]
fn tool_installers() {
    let dir = tempfile::tempdir().unwrap();
    let script = "mkdir -p node-v1/bin && echo program > node-v1/bin/node && tar czf node.tgz node-v1";
    let made = std::process::Command::new("sh").args(["-ec", script]).current_dir(dir.path()).status();
    assert!(made.unwrap().success());
    let archive = std::fs::read(dir.path().join("node.tgz")).unwrap();
    let home = dir.path().join("tools/node");
    let mut step = Step::new();
    let timestamp = home.join(".timestamp");
    let exists = step.act(&timestamp, "hudson.FilePath$Exists", &[], &[]).unwrap();
    assert_eq!(exists.root().unwrap().unboxed(), Some(Value::Bool(false)));
    step.act(&home, "hudson.FilePath$Mkdirs", &[], &[]).unwrap();
    let unpack = step.ask(b"", |graph, _| {
        let url = object(graph, "java.net.URL", &[], &[]);
        let callable = object(graph, "hudson.FilePath$Unpack", &[("archive", Some(url))], &[]);
        act(graph, &home, callable)
    });
    // Upon which the controller downloads and sends it.
    assert!(unpack.1.unwrap_err().starts_with("java.io.IOException"));
    let untar = step.ask(&archive, |graph, oid| {
        let compression = graph.enum_constant("hudson.FilePath$TarCompression", "GZIP");
        let input = input(graph, oid);
        let fields = [("compression", Some(compression)), ("in", Some(input))];
        let callable = object(graph, "hudson.FilePath$UntarFrom", &fields, &[]);
        act(graph, &home, callable)
    });
    untar.1.unwrap();
    step.act(&timestamp, "hudson.FilePath$Touch", &[], &[("timestamp", Value::Long(1_600_000_000_000))]).unwrap();
    // "node-v1" is not to be part of the home.
    let moved = step.ask(b"", |graph, _| {
        let target = file_path(graph, &home);
        let callable = object(graph, "hudson.FilePath$MoveAllChildrenTo", &[("target", Some(target))], &[]);
        act(graph, &home.join("node-v1"), callable)
    });
    moved.1.unwrap();
    assert!(!home.join("node-v1").exists());
    let url = [("content", "https://example.org/node.tgz"), ("encoding", "UTF-8")];
    step.act(&home.join(".installedFrom"), "hudson.FilePath$Write", &url, &[]).unwrap();
    step.act(&home.join("bin"), "jenkins.plugins.nodejs.tools.NodeJSInstaller$ChmodRecAPlusX", &[], &[]).unwrap();
    assert_eq!(mode(&home.join("bin/node")) & 0o111, 0o111);
    // Once installed, it is left alone.
    let modified = step.act(&timestamp, "hudson.FilePath$LastModified", &[], &[]).unwrap();
    assert_eq!(modified.root().unwrap().unboxed(), Some(Value::Long(1_600_000_000_000)));
    step.harness.finish();
}
