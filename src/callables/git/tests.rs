//! Clients at work, on repositories in temporary directories.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::COMMAND;
use super::values::object_id;
use crate::callables::scripted::object;
use crate::callables::testing::{Harness, outline, recorded};
use crate::object::{Graph, NodeId, Value};

const CLIENT: &str = "org.jenkinsci.plugins.gitclient.Git$GitAPIMasterToSlaveFileCallable";

/// Whether there is a git to test with.
pub(super) fn has_git() -> bool {
    let found = Command::new("git").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: there is no git on this machine");
    }
    found
}

/// Runs a script in a directory and gives what it prints.
pub(super) fn sh(directory: &Path, script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(directory).env("HOME", directory);
    for name in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{name}_NAME"), "t").env(format!("GIT_{name}_EMAIL"), "t@example.org");
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A controller, an agent with a client of an empty workspace, and a repository to clone from.
pub(super) struct Fixture {
    dir: tempfile::TempDir,
    pub(super) harness: Harness,
    client: Graph,
    oid: i32,
}

impl Fixture {
    pub(super) fn new() -> Fixture {
        Fixture::with(|_| None)
    }

    /// With another program in place of git.
    fn with(exe: impl FnOnce(&Path) -> Option<String>) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("workspace/seed")).unwrap();
        std::fs::create_dir(dir.path().join("origin")).unwrap();
        let script = "git init -q -b master . && echo 1 > a && git add a && git commit -qm one && git tag light && \
                      git tag -a -m 'the tag' v1.0 && git branch side && echo 2 > a && git commit -qam 'two: ü'";
        sh(&dir.path().join("origin"), script);
        let harness = Harness::new();
        let (mut client, answer) = recorded(CLIENT, 0, dir.path());
        if let Some(exe) = exe(dir.path()) {
            client.map_strings(|text| (text == "git").then(|| exe.clone()));
        }
        let ours = harness.replay(&client, &[]).unwrap();
        let handler = ours.root().unwrap().require("proxy").unwrap().require("h").unwrap();
        let oid = handler.int("oid").unwrap();
        let theirs = answer.unwrap();
        let class = |graph: &Graph| outline(graph).lines().next().unwrap().to_owned();
        assert_eq!(class(&ours), class(&theirs));
        Fixture { dir, harness, client, oid }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn workspace(&self) -> PathBuf {
        self.path("workspace/seed")
    }

    pub(super) fn url(&self) -> String {
        format!("file://{}", self.path("origin").display())
    }

    /// The commit that a revision of the origin is.
    pub(super) fn sha(&self, revision: &str) -> String {
        sh(&self.path("origin"), &format!("git rev-parse '{revision}^{{commit}}'"))
    }

    /// Executes the nth command that was recorded, with the address and the commit of this repository.
    fn command(&self, nth: usize) -> Result<Graph, String> {
        let (mut request, _) = recorded(COMMAND, nth, self.dir.path());
        let handler =
            request.root().unwrap().require("this$0").unwrap().require("proxy").unwrap().require("h").unwrap();
        let handler = handler.id();
        assert!(request.set_field(handler, "oid", Value::Int(self.oid)));
        let head = self.sha("HEAD");
        request.map_strings(|text| match text {
            "git://127.0.0.1/demo.git" => Some(self.url()),
            _ if super::values::is_sha(text) => Some(head.clone()),
            _ => None,
        });
        self.harness.replay(&request, &[])
    }

    /// Executes a command of the client's: its interface, and the calls that were recorded, with strings.
    pub(super) fn execute(&self, command: &str, calls: &[(&str, &[&str])]) -> Result<Graph, String> {
        let mut graph = Graph::default();
        let mut recorded = Vec::new();
        for (method, args) in calls {
            let args: Vec<_> = args.iter().map(|arg| Some(graph.string(arg))).collect();
            let args = graph.array("[Ljava.lang.Object;", 0, &args);
            let method = graph.string(method);
            let class = "org.jenkinsci.plugins.gitclient.RemoteGitImpl$Invocation";
            recorded.push(Some(object(&mut graph, class, &[("args", Some(args)), ("methodName", Some(method))], &[])));
        }
        let recorded = graph.array_list(&recorded);
        let class = graph.serializable(&format!("org.jenkinsci.plugins.gitclient.{command}"), 0, &[], None);
        let class = graph.class_object(class);
        let oid = [
            ("oid", Value::Int(self.oid)),
            ("goingHome", Value::Bool(true)),
            ("autoUnexportByCaller", Value::Bool(false)),
        ];
        let handler = object(&mut graph, "hudson.remoting.RemoteInvocationHandler", &[], &oid);
        let proxy = object(&mut graph, "a.Proxy", &[("h", Some(handler))], &[]);
        let fields = [("proxy", Some(proxy)), ("command", Some(class)), ("invocations", Some(recorded))];
        let class = "org.jenkinsci.plugins.gitclient.RemoteGitImpl$CommandInvocationHandler";
        let handler = object(&mut graph, class, &fields, &[]);
        let callable = object(&mut graph, COMMAND, &[("this$0", Some(handler))], &[]);
        graph.put(Some(callable));
        self.harness.replay(&graph, &[])
    }

    /// Calls a method of the client.
    pub(super) fn call(
        &self,
        method: &str,
        build: impl FnOnce(&mut Graph) -> Vec<Option<NodeId>>,
    ) -> Result<Graph, String> {
        call(&self.harness, self.oid, method, build)
    }

    pub(super) fn strings(&self, method: &str, strings: &[&str]) -> Result<Graph, String> {
        self.call(method, |graph| strings.iter().map(|text| Some(graph.string(text))).collect())
    }

    /// What the console shows, without the times of its lines.
    pub(super) fn console(&self) -> String {
        let collected = self.harness.collected(&self.client);
        let text = String::from_utf8(collected[0].bytes.to_vec()).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| line.get(27..).unwrap_or(line)).collect();
        lines.join("\n").replace(&*self.dir.path().to_string_lossy(), "ROOT")
    }

    pub(super) fn finish(self) {
        self.harness.finish();
    }
}

/// Calls a method of a client.
pub(super) fn call(
    harness: &Harness,
    oid: i32,
    method: &str,
    build: impl FnOnce(&mut Graph) -> Vec<Option<NodeId>>,
) -> Result<Graph, String> {
    let mut graph = Graph::default();
    let arguments = build(&mut graph);
    let arguments = graph.array("[Ljava.lang.Object;", -8012369246846506644, &arguments);
    let name = graph.string(method);
    let base = "hudson.remoting.RemoteInvocationHandler$RPCRequest";
    let fields = [("oid", "I"), ("arguments", "[Ljava/lang/Object;"), ("methodName", "Ljava/lang/String;")];
    let base = graph.serializable(base, 1, &fields, None);
    let class = "hudson.remoting.RemoteInvocationHandler$UserRPCRequest";
    let class = graph.serializable(class, -9185841650347902580, &[], Some(base));
    let request = graph.object(class).set("oid", Value::Int(oid));
    let request = request.set_ref("arguments", arguments).set_ref("methodName", name).build();
    graph.put(Some(request));
    harness.replay(&graph, &[])
}

#[test]
fn the_recorded_checkout() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    assert!(fixture.call("setProxy", |_| vec![None]).unwrap().root().is_none());
    let has_repository = |fixture: &Fixture| {
        let answer = fixture.call("hasGitRepo", |graph| vec![Some(graph.boxed_bool(false))]).unwrap();
        answer.root().unwrap().unboxed()
    };
    assert!(matches!(has_repository(&fixture), Some(Value::Bool(false))));
    assert!(fixture.command(0).unwrap().root().is_none());
    assert!(matches!(has_repository(&fixture), Some(Value::Bool(true))));
    let head = fixture.sha("HEAD");
    let found = fixture.strings("revParse", &["refs/remotes/origin/master"]).unwrap();
    assert_eq!(object_id(found.root().unwrap()).unwrap(), head);
    fixture.command(1).unwrap();
    assert_eq!(std::fs::read_to_string(fixture.workspace().join("a")).unwrap(), "2\n");
    assert_eq!(sh(&fixture.workspace(), "git rev-parse --abbrev-ref HEAD"), "master");
    let console = fixture.console();
    let version = sh(fixture.dir.path(), "git --version");
    let expected = format!(
        "Cloning repository file://ROOT/origin
 > git init ROOT/workspace/seed # timeout=10
Fetching upstream changes from file://ROOT/origin
 > git --version # timeout=10
 > git --version # '{version}'
 > git fetch --tags --force --progress -- file://ROOT/origin +refs/heads/*:refs/remotes/origin/* # timeout=10
 > git config remote.origin.url file://ROOT/origin # timeout=10
 > git config --add remote.origin.fetch +refs/heads/*:refs/remotes/origin/* # timeout=10
 > git rev-parse --resolve-git-dir ROOT/workspace/seed/.git # timeout=10
 > git rev-parse refs/remotes/origin/master^{{commit}} # timeout=10
 > git config core.sparsecheckout # timeout=10
 > git checkout -f {head} # timeout=10
 > git branch -a -v --no-abbrev # timeout=10
 > git checkout -b master {head} # timeout=10"
    );
    assert_eq!(console, expected);
    fixture.finish();
}

#[test]
fn what_a_cloned_repository_holds() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    fixture.command(0).unwrap();
    let named = |answer: Graph| {
        let items = answer.root().unwrap().collection().unwrap();
        let pair = |item: crate::object::View<'_>| {
            let sha = object_id(item.require("sha1").unwrap()).unwrap();
            (item.require_string("name").unwrap().into_owned(), sha)
        };
        let mut pairs: Vec<_> = items.into_iter().flatten().map(pair).collect();
        pairs.sort();
        pairs
    };
    let (one, two) = (fixture.sha("HEAD^"), fixture.sha("HEAD"));
    let pair = |name: &str, sha: &str| (name.to_owned(), sha.to_owned());
    let branches = named(fixture.call("getRemoteBranches", |_| Vec::new()).unwrap());
    assert_eq!(branches, [pair("origin/master", &two), pair("origin/side", &one)]);
    // An annotated tag is its commit.
    let tags = named(fixture.call("getTags", |_| Vec::new()).unwrap());
    assert_eq!(tags, [pair("light", &one), pair("v1.0", &one)]);
    assert!(fixture.console().contains("Seen branch in repository origin/side\nSeen 2 remote branches\n"));
    let url = fixture.url();
    let heads = fixture.strings("getHeadRev", &[&url]).unwrap();
    assert_eq!(heads.root().unwrap().map().unwrap().len(), 2);
    let head = fixture.strings("getHeadRev", &[&url, "refs/heads/side"]).unwrap();
    assert_eq!(object_id(head.root().unwrap()).unwrap(), one);
    assert!(fixture.strings("getHeadRev", &[&url, "nothing"]).unwrap().root().is_none());
    let message = fixture.strings("getTagMessage", &["v1.0"]).unwrap();
    assert_eq!(message.root().unwrap().as_str().unwrap(), "the tag");
    fixture.finish();
}

#[test]
fn failures_are_those_of_the_plugin() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    fixture.strings("init", &[]).unwrap();
    let error = fixture.strings("revParse", &["nothing"]).unwrap_err();
    let expected = "hudson.plugins.git.GitException: Command \"git rev-parse nothing^{commit}\" returned status code 128:\n\
                    stdout: nothing^{commit}\n\nstderr: fatal: ";
    assert!(error.starts_with(expected), "{error}");
    let error = fixture.strings("getHeadRev", &["--upload-pack=touch x"]).unwrap_err();
    assert_eq!(error, "hudson.plugins.git.GitException: Invalid remote URL: --upload-pack=touch x");
    let error = fixture.strings("explode", &[]).unwrap_err();
    assert!(error.starts_with("java.lang.UnsupportedOperationException: "), "{error}");
    fixture.finish();
}

/// Credentials reach git, and nothing of them stays: neither in a file nor on the console.
#[test]
fn passwords_are_asked_for_by_a_script_that_goes() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::with(|root| {
        // It asks as git does, and notes what it is told.
        let fake = format!(
            "#!/bin/sh\nif [ \"$1\" = --version ]; then echo git version 2.39.5; exit; fi\ncd '{}'\n\
             \"$GIT_ASKPASS\" 'Username for x' > user; \"$GIT_ASKPASS\" 'Password for x' > password\n\
             ls \"$(dirname \"$GIT_ASKPASS\")\" > files; env > env; echo \"$@\" > arguments; exit 1\n",
            root.display()
        );
        std::fs::write(root.join("fake.sh"), fake).unwrap();
        sh(root, "cp fake.sh fake && chmod 755 fake");
        Some(root.join("fake").to_string_lossy().into_owned())
    });
    fixture
        .call("addCredentials", |graph| {
            let url = graph.string("https://example.org/x.git");
            let secret = graph.serializable("hudson.util.Secret", 1, &[("value", "Ljava/lang/String;")], None);
            let value = graph.string("s3cr3t'$x");
            let secret = graph.object(secret).set_ref("value", value).build();
            let fields = [
                ("description", "Ljava/lang/String;"),
                ("password", "Lhudson/util/Secret;"),
                ("username", "Ljava/lang/String;"),
            ];
            let class = "com.cloudbees.plugins.credentials.impl.UsernamePasswordCredentialsImpl";
            let class = graph.serializable(class, 1, &fields, None);
            let (user, description) = (graph.string("me"), graph.string("mine"));
            let object = graph.object(class).set_ref("username", user).set_ref("password", secret);
            vec![Some(url), Some(object.set_ref("description", description).build())]
        })
        .unwrap();
    let error = fixture.strings("getHeadRev", &["https://example.org/x.git"]).unwrap_err();
    let read = |name: &str| std::fs::read_to_string(fixture.path(name)).unwrap();
    assert_eq!((read("user").as_str(), read("password").as_str()), ("me\n", "s3cr3t'$x\n"), "{error}");
    assert_eq!(read("arguments"), "ls-remote -h -- https://example.org/x.git\n");
    assert!(read("files").contains("jenkins-gitclient-password"));
    assert!(!read("env").contains("s3cr3t") && !error.contains("s3cr3t"));
    let console = fixture.console();
    assert!(console.contains("using GIT_ASKPASS to set credentials mine\n") && !console.contains("s3cr3t"));
    assert_eq!(std::fs::read_dir(fixture.path("workspace/seed@tmp")).unwrap().count(), 0);
    fixture.finish();
}

/// The token of a GitHub App's credentials is the password while it is fresh; then the controller makes a new one.
#[test]
fn github_apps() {
    if !has_git() {
        return;
    }
    const PLUGIN: &str = "org.jenkinsci.plugins.github_branch_source.GitHubAppCredentials";
    fn token(graph: &mut Graph, text: &str, stale: i64, expires: i64) -> NodeId {
        let value = graph.string(text);
        let secret = graph.serializable("hudson.util.Secret", 1, &[("value", "Ljava/lang/String;")], None);
        let secret = graph.object(secret).set_ref("value", value).build();
        let fields = [("expirationEpochSeconds", "J"), ("staleEpochSeconds", "J"), ("token", "Lhudson/util/Secret;")];
        let desc = graph.serializable(&format!("{PLUGIN}$AppInstallationToken"), 1, &fields, None);
        let token = graph.object(desc).set_ref("token", secret).set("staleEpochSeconds", Value::Long(stale));
        token.set("expirationEpochSeconds", Value::Long(expires)).build()
    }
    let fixture = || {
        Fixture::with(|root| {
            let fake = format!(
                "#!/bin/sh\nif [ \"$1\" = --version ]; then echo git version 2.39.5; exit; fi\ncd '{}'\n\
             \"$GIT_ASKPASS\" 'Username for x' > told; \"$GIT_ASKPASS\" 'Password for x' >> told; exit 1\n",
                root.display()
            );
            std::fs::write(root.join("fake.sh"), fake).unwrap();
            sh(root, "cp fake.sh fake && chmod 755 fake");
            Some(root.join("fake").to_string_lossy().into_owned())
        })
    };
    let ask = |fixture: &Fixture, stale: i64, expires: i64| {
        let set = fixture.call("addDefaultCredentials", |graph| {
            let cached = token(graph, "old", stale, expires);
            let [app, data] = ["12345", "{encrypted}"].map(|text| graph.string(text));
            let base = "com.cloudbees.plugins.credentials.impl.BaseStandardCredentials";
            let base = graph.serializable(base, 1, &[("description", "Ljava/lang/String;")], None);
            let fields =
                [("appID", "Ljava/lang/String;"), ("cachedToken", "Lx;"), ("tokenRefreshData", "Ljava/lang/String;")];
            let desc = graph.serializable(&format!("{PLUGIN}$DelegatingGitHubAppCredentials"), 1, &fields, Some(base));
            let object = graph.object(desc).set_ref("appID", app).set_ref("tokenRefreshData", data);
            vec![Some(object.set_ref("cachedToken", cached).build())]
        });
        set.unwrap();
        let _ = std::fs::remove_file(fixture.path("told"));
        let error = fixture.strings("getHeadRev", &["https://example.org/x.git"]).unwrap_err();
        std::fs::read_to_string(fixture.path("told")).map_err(|_| error)
    };
    let later = i64::MAX;
    let class = format!("{PLUGIN}$DelegatingGitHubAppCredentials$GetToken");

    let without = fixture();
    assert_eq!(ask(&without, later, later).unwrap(), "12345\nold\n");
    assert_eq!(ask(&without, 1, later).unwrap(), "12345\nold\n", "stale, and no other can be had");
    assert!(ask(&without, 1, 1).unwrap_err().starts_with("java.io.IOException: "));
    without.finish();

    let with = fixture();
    let class_file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/classes/java8/Fixtures$DeclaredLong.class");
    with.harness.end.define(&class, std::fs::read(class_file).unwrap());
    let mut new = Graph::default();
    let root = token(&mut new, "new", later, later);
    with.harness.end.define_return(&class, new.encode_one(Some(root)));
    assert_eq!(ask(&with, later, later).unwrap(), "12345\nold\n");
    assert_eq!(ask(&with, 1, 1).unwrap(), "12345\nnew\n");
    assert!(with.harness.end.asked().contains(&class));
    with.finish();
}

/// A commit as the controller's `RevCommitRepositoryCallback` asks for it, and changes between two.
#[test]
fn commits_and_changes() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    fixture.command(0).unwrap();
    let (one, two) = (fixture.sha("HEAD^"), fixture.sha("HEAD"));
    let id = |graph: &mut Graph, sha: &str| super::values::Values::new(graph).object_id(sha);
    let ask = |sha: &str| {
        fixture.call("withRepository", |graph| {
            let sha = id(graph, sha);
            let field = [("sha1", "Lorg/eclipse/jgit/lib/ObjectId;")];
            let revision = graph.serializable("hudson.plugins.git.Revision", -7203898556389073882, &field, None);
            let revision = graph.object(revision).set_ref("sha1", sha).build();
            let field = [("revision", "Lhudson/plugins/git/Revision;")];
            let build = graph.serializable("hudson.plugins.git.util.Build", 1, &field, None);
            let build = graph.object(build).set_ref("revision", revision).build();
            let field = [("revToBuild", "Lhudson/plugins/git/util/Build;")];
            let class = "hudson.plugins.git.util.RevCommitRepositoryCallback";
            let callback = graph.serializable(class, 1, &field, None);
            vec![Some(graph.object(callback).set_ref("revToBuild", build).build())]
        })
    };
    let commit = ask(&two).unwrap();
    let commit = commit.root().unwrap();
    let body = commit.require("buffer").unwrap().primitive_array("[B").unwrap();
    assert!(String::from_utf8_lossy(body).ends_with("\n\ntwo: ü\n"));
    let parents: Vec<_> = commit.require("parents").unwrap().elements().unwrap().flatten().collect();
    let parents: Vec<_> = parents.into_iter().map(|parent| object_id(parent).unwrap()).collect();
    assert_eq!(parents.join(" "), one);
    let (_, theirs) = recorded("withRepository", 0, fixture.dir.path());
    crate::callables::testing::assert_same_shape(theirs.unwrap().root().unwrap(), commit, &[]);
    let missing = "0123456789012345678901234567890123456789";
    assert_eq!(ask(missing).unwrap_err(), format!("java.io.IOException: Missing unknown {missing}"));

    let answer = fixture.call("isCommitInRepo", |graph| vec![Some(id(graph, &one))]).unwrap();
    assert!(matches!(answer.root().unwrap().unboxed(), Some(Value::Bool(true))));
    let answer = fixture.call("isCommitInRepo", |graph| vec![Some(id(graph, missing))]).unwrap();
    assert!(matches!(answer.root().unwrap().unboxed(), Some(Value::Bool(false))));
    let lines = fixture.call("showRevision", |graph| vec![Some(id(graph, &one)), Some(id(graph, &two))]).unwrap();
    let lines = lines.root().unwrap().collection().unwrap();
    let lines: Vec<_> = lines.into_iter().flatten().map(|line| line.as_str().unwrap().into_owned()).collect();
    assert_eq!(lines.first(), Some(&format!("commit {two}")));
    assert!(lines.iter().any(|line| line.starts_with(":100644 100644 ") && line.ends_with("M\ta")), "{lines:?}");
    fixture.finish();
}

/// Where git is missing, what fails and how is what a Java agent says.
#[test]
fn without_git() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::with(|_| Some("no-such-git".to_owned()));
    let error = fixture.strings("init", &[]).unwrap_err();
    let workspace = fixture.workspace();
    assert_eq!(error, format!("hudson.plugins.git.GitException: Could not init {}", workspace.display()));
    let error = fixture.strings("revParse", &["HEAD"]).unwrap_err();
    assert_eq!(
        error,
        "hudson.plugins.git.GitException: Error performing git command: no-such-git rev-parse HEAD^{commit}"
    );
    fixture.finish();
}

/// A key reaches ssh by a script, with the user of the address before that of the credentials.
#[test]
fn keys_are_in_files_that_go() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::with(|root| {
        // It notes the script by which it would call ssh, and what that names.
        let fake = format!(
            "#!/bin/sh\nif [ \"$1\" = --version ]; then echo git version 2.39.5; exit; fi\ncd '{}'\n\
             cat \"$GIT_SSH\" > script; ls -l \"$(dirname \"$GIT_SSH\")\" > files; \"$SSH_ASKPASS\" > passphrase\n\
             cat \"$(dirname \"$GIT_SSH\")\"/*.key > key; test -x \"$GIT_SSH\" || echo no > script; exit 1\n",
            root.display()
        );
        std::fs::write(root.join("fake.sh"), fake).unwrap();
        sh(root, "cp fake.sh fake && chmod 755 fake");
        Some(root.join("fake").to_string_lossy().into_owned())
    });
    fixture
        .call("addDefaultCredentials", |graph| {
            const STRING: &str = "Ljava/lang/String;";
            let secret = graph.serializable("hudson.util.Secret", 1, &[("value", STRING)], None);
            let mut wrap = |text: &str| {
                let value = graph.string(text);
                graph.object(secret).set_ref("value", value).build()
            };
            let (key, passphrase) = (wrap("-----BEGIN KEY-----\nAAAA\n-----END KEY-----\n"), wrap("open sesame"));
            let class = "com.cloudbees.jenkins.plugins.sshcredentials.impl.BasicSSHUserPrivateKey";
            let source = format!("{class}$DirectEntryPrivateKeySource");
            let source = graph.serializable(&source, 1, &[("privateKey", "Lhudson/util/Secret;")], None);
            let source = graph.object(source).set_ref("privateKey", key).build();
            let fields = [("passphrase", "Lhudson/util/Secret;"), ("privateKeySource", "Lx;"), ("username", STRING)];
            let class = graph.serializable(class, 1, &fields, None);
            let user = graph.string("me");
            let object = graph.object(class).set_ref("username", user).set_ref("passphrase", passphrase);
            vec![Some(object.set_ref("privateKeySource", source).build())]
        })
        .unwrap();
    let read = |name: &str| std::fs::read_to_string(fixture.path(name)).unwrap();
    for (url, user) in [("ssh://example.org/x.git", "me"), ("ssh://it's@example.org/x.git", "it'\\''s")] {
        let error = fixture.strings("getHeadRev", &[url]).unwrap_err();
        let script = read("script");
        let expected = format!(".key' -l '{user}' -o StrictHostKeyChecking=no \"$@\"\n");
        assert!(script.contains("ssh -i '") && script.ends_with(&expected), "{script} {error}");
        assert!(read("key").starts_with("-----BEGIN KEY-----\nAAAA\n-----END KEY-----\n"));
        assert_eq!(read("passphrase"), "open sesame\n");
        for line in read("files").lines().filter(|line| line.starts_with('-')) {
            assert_eq!(&line[4..10], "------", "{line}");
        }
        assert_eq!(std::fs::read_dir(fixture.path("workspace/seed@tmp")).unwrap().count(), 0);
    }
    assert!(!fixture.console().contains("sesame") && !fixture.console().contains("AAAA"));
    fixture.finish();
}
