//! Requests in the shapes that they have had, from core 2.263 to today: what is asked is the same, and so is the answer.
//!
//! Those of 2.293 and of plugins of 2021 are recorded ([`super::corpus`]); those that differ in a class or in a field or
//! two are with their handlers: `ListFiles`, `FilePath` and its options, the clock, `AgentInfo`, test results. Here are
//! those that have become records, or have moved between wrappers.

use std::path::Path;

use super::scripted::{Controller, act, file_path, object, proxied, stream_listener};
use crate::channel::command::remote_output_stream;
use crate::files::testing::tree;
use crate::object::{Graph, NodeId, Value};

/// A stream of the controller's.
const STREAM: i32 = 7;

/// When a controller is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Core {
    /// 2.263 to 2.318: `FileCallableWrapper` has an outer instance.
    Old,
    /// Since 2.485: records, and wrappers with a field.
    Today,
}

impl Core {
    /// An object of a class that has become a record.
    fn record(
        self,
        graph: &mut Graph,
        class: &str,
        references: &[(&'static str, Option<NodeId>)],
        values: &[(&'static str, Value)],
    ) -> NodeId {
        if self == Core::Old {
            return object(graph, class, references, values);
        }
        let signature = |value: &Value| if matches!(value, Value::Bool(_)) { "Z" } else { "I" };
        let references_of = references.iter().map(|(name, _)| (*name, "Ljava/lang/Object;"));
        let fields: Vec<_> =
            references_of.chain(values.iter().map(|(name, value)| (*name, signature(value)))).collect();
        let base = graph.serializable("java.lang.Record", 0, &[], None);
        let desc = graph.serializable(class, 0, &fields, Some(base));
        let all = references.iter().map(|(name, id)| (*name, Value::Ref(*id))).chain(values.iter().copied());
        all.fold(graph.object(desc), |object, (name, value)| object.set(name, value)).build()
    }

    fn act(self, graph: &mut Graph, path: &Path, callable: NodeId) -> NodeId {
        if self == Core::Today {
            return act(graph, path, callable);
        }
        let fields = [("callable", Some(callable)), ("this$0", Some(file_path(graph, path)))];
        object(graph, "hudson.FilePath$FileCallableWrapper", &fields, &[])
    }
}

#[tokio::test]
async fn launching_a_process() {
    for core in [Core::Old, Core::Today] {
        let mut controller = Controller::new();
        let id = controller.send(|graph| {
            let words = ["sh", "-c", "echo out; echo err >&2; exit 3"].map(|word| Some(graph.string(word)));
            let (cmd, env, listener) =
                (graph.array_list(&words), graph.string_array(&[]), stream_listener(graph, STREAM));
            let references = [
                ("cmd", Some(cmd)),
                ("env", Some(env)),
                ("in", None),
                ("out", None),
                ("err", None),
                ("masks", None),
                ("listener", Some(listener)),
                ("stdoutListener", Some(listener)),
                ("workDir", None),
                ("envVarsFilterRuleWrapper", None),
            ];
            let flags = ["quiet", "reverseStdin", "reverseStdout", "reverseStderr"]
                .map(|name| (name, Value::Bool(name == "quiet")));
            core.record(graph, "hudson.Launcher$RemoteLaunchCallable", &references, &flags)
        });
        let process = proxied(&controller.value(id).await);
        let id = controller.call(process, "join");
        let code = controller.value(id).await;
        assert_eq!(code.root().unwrap().unboxed(), Some(Value::Int(3)), "{core:?}");
        let text = controller.text(STREAM);
        assert!(text.contains("out\n") && text.contains("err\n"), "{core:?}: {text}");
    }
}

#[tokio::test]
async fn archiving_a_directory() {
    for core in [Core::Old, Core::Today] {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path(), &["a/1.txt", "a/2.log", "b.txt"]);
        let mut controller = Controller::new();
        let id = controller.send(|graph| {
            let method = graph.enum_constant("hudson.FilePath$TarCompression", "NONE");
            let class = "hudson.util.io.ArchiverFactory$TarArchiverFactory";
            let factory = object(graph, class, &[("method", Some(method))], &[]);
            let out = remote_output_stream(graph, STREAM);
            let (includes, options) = (graph.string("**/*.txt"), graph.array("[Ljava.nio.file.OpenOption;", 0, &[]));
            let mut of_scanner = vec![("includes", Some(includes)), ("excludes", None)];
            let mut references =
                vec![("factory", Some(factory)), ("out", Some(out)), ("verificationRoot", None), ("scanner", None)];
            let (mut flags, mut values) = (vec![("useDefaultExcludes", Value::Bool(true))], Vec::new());
            match core {
                Core::Old => {
                    flags.push(("followSymlinks", Value::Bool(true)));
                    values.push(("noFollowLinks", Value::Bool(false)));
                    references.push(("this$0", Some(file_path(graph, dir.path()))));
                }
                Core::Today => {
                    of_scanner.push(("openOptions", Some(options)));
                    references.push(("openOptions", Some(options)));
                }
            }
            references[3].1 = Some(object(graph, "hudson.util.DirScanner$Glob", &of_scanner, &flags));
            let callable = core.record(graph, "hudson.FilePath$Archive", &references, &values);
            core.act(graph, dir.path(), callable)
        });
        let count = controller.value(id).await;
        assert_eq!(count.root().unwrap().unboxed(), Some(Value::Int(2)), "{core:?}");
        let written = controller.written.remove(&STREAM).unwrap();
        let mut archive = tar::Archive::new(&written[..]);
        let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
        let mut names: Vec<String> = names.collect();
        names.sort();
        assert_eq!(names, ["a/1.txt", "b.txt"], "{core:?}");
    }
}

/// The workspace browser: a list of lists, and an object with one since 2.443.
#[tokio::test]
async fn a_page_of_the_workspace_browser() {
    for core in [Core::Old, Core::Today] {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path(), &["d/", "f"]);
        let mut controller = Controller::new();
        let id = controller.send(|graph| {
            let (file, root) = (file_path(graph, dir.path()), file_path(graph, dir.path()));
            let fields = [("f", Some(file)), ("root", Some(root))];
            let current = object(graph, "jenkins.util.VirtualFile$FilePathVF", &fields, &[]);
            let options = graph.array("[Ljava.nio.file.OpenOption;", 0, &[]);
            let mut references = vec![("cur", Some(current)), ("locale", None)];
            references.push(if core == Core::Old { ("root", Some(current)) } else { ("openOptions", Some(options)) });
            core.record(graph, "hudson.model.DirectoryBrowserSupport$BuildChildPaths", &references, &[])
        });
        let answer = controller.value(id).await;
        let root = answer.root().unwrap();
        let rows = match core {
            Core::Old => root,
            Core::Today => {
                assert!(root.is("hudson.model.DirectoryBrowserSupport$BuildChildPathsResult"));
                root.require("glob").unwrap()
            }
        };
        let rows = rows.collection().unwrap();
        let titles = rows.into_iter().flatten().map(|row| {
            let paths = row.collection().unwrap();
            paths[0].unwrap().require_string("title").unwrap().into_owned()
        });
        assert_eq!(titles.collect::<Vec<_>>(), ["d", "f"], "{core:?}");
    }
}

/// A record that no class came before.
#[tokio::test]
async fn whether_a_path_is_absolute() {
    for (path, expected) in [("/a", true), ("a/b", false)] {
        let mut controller = Controller::new();
        let id = controller.send(|graph| {
            let fragment = graph.string(path);
            let class = "hudson.model.DirectoryBrowserSupport$IsAbsolute";
            Core::Today.record(graph, class, &[("fragment", Some(fragment))], &[])
        });
        assert_eq!(controller.value(id).await.root().unwrap().unboxed(), Some(Value::Bool(expected)), "{path}");
    }
}

/// What a plugin puts around each `FileCallable` is taken off, whatever its class is.
#[tokio::test]
async fn wrappers_of_plugins() {
    let dir = tempfile::tempdir().unwrap();
    for wrapper in [
        "io.jenkins.plugins.opentelemetry.jenkins.OpenTelemetryTraceContextPropagatorFileCallableWrapperFactory$OTelDelegatingCallable",
        "com.example.Interceptor",
    ] {
        for core in [Core::Old, Core::Today] {
            let mut controller = Controller::new();
            let id = controller.send(|graph| {
                let exists = object(graph, "hudson.FilePath$Exists", &[], &[]);
                let act = core.act(graph, dir.path(), exists);
                let trace = graph.hash_map(&[]);
                object(graph, wrapper, &[("callable", Some(act)), ("w3cTraceContext", Some(trace))], &[])
            });
            let answer = controller.value(id).await;
            assert_eq!(answer.root().unwrap().unboxed(), Some(Value::Bool(true)), "{wrapper} {core:?}");
        }
    }
}
