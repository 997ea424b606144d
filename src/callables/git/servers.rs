//! Clients against servers: git's own, HTTP with a password, and ssh with a key.

use std::path::Path;

use super::testing::{GitDaemon, HttpServer, SshServer};
use super::tests::{Fixture, call, has_git, sh};
use super::values::{Values, object_id};
use crate::callables::scripted::object;
use crate::callables::testing::Harness;
use crate::object::{Graph, NodeId};

fn password_credentials(graph: &mut Graph, user: &str, password: &str) -> NodeId {
    let [user, value] = [user, password].map(|text| graph.string(text));
    let secret = object(graph, "hudson.util.Secret", &[("value", Some(value))], &[]);
    let class = "com.cloudbees.plugins.credentials.impl.UsernamePasswordCredentialsImpl";
    object(graph, class, &[("username", Some(user)), ("password", Some(secret))], &[])
}

/// Clones the origin from an address, and checks its only branch out.
fn clone(fixture: &Fixture, url: &str) -> Result<Graph, String> {
    fixture.call("clone", |graph| {
        let [url, name] = [url, "origin"].map(|text| Some(graph.string(text)));
        let shallow = graph.boxed_bool(false);
        vec![url, name, Some(shallow), None]
    })?;
    fixture.strings("checkout", &["origin/master", "master"])
}

#[test]
fn submodules_from_a_server() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    let root = fixture.path("");
    let Some(daemon) = GitDaemon::start(&root) else {
        eprintln!("skipped: there is no git daemon on this machine");
        return;
    };
    let server = format!("git://127.0.0.1:{}", daemon.port);
    let script = "for name in inner outer; do git init -q -b master $name; (cd $name && echo $name > file && \
                  git add . && git commit -qm $name); done";
    sh(&root, script);
    let add = |directory: &str, url: &str, path: &str| {
        sh(&root.join(directory), &format!("git submodule --quiet add {server}/{url} {path} && git commit -qm {path}"));
    };
    add("outer", "inner/.git", "inner");
    add("origin", "outer/.git", "libs/outer");
    clone(&fixture, &format!("{server}/origin/.git")).unwrap();
    let has = fixture.call("hasGitModules", |_| Vec::new()).unwrap();
    assert_eq!(has.root().unwrap().unboxed(), Some(crate::object::Value::Bool(true)));
    fixture.call("submoduleUpdate", |graph| vec![Some(graph.boxed_bool(true))]).unwrap();
    let read = |path: &str| std::fs::read_to_string(fixture.workspace().join(path)).unwrap();
    assert_eq!((read("libs/outer/file").as_str(), read("libs/outer/inner/file").as_str()), ("outer\n", "inner\n"));
    assert!(fixture.console().contains("\n > git submodule update --init --recursive libs/outer # timeout=10"));

    // Sources that moved on are reset to what the commit names, and cleaned.
    sh(&fixture.workspace(), "echo changed > libs/outer/file && touch libs/outer/new");
    fixture.call("submoduleClean", |graph| vec![Some(graph.boxed_bool(true))]).unwrap();
    assert_eq!(read("libs/outer/file"), "outer\n");
    assert!(!fixture.workspace().join("libs/outer/new").exists());
    fixture.finish();
}

#[test]
fn a_password_for_fetch_and_push() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    sh(&fixture.path(""), "git clone -q --bare origin served.git");
    // "user:pass word", as the server wants to hear it.
    let server = HttpServer::start(&fixture.path(""), "Basic dXNlcjpwYXNzIHdvcmQ=");
    let url = format!("http://127.0.0.1:{}/served.git", server.port);

    let error = clone(&fixture, &url).unwrap_err();
    assert!(error.contains("Authentication failed"), "{error}");
    for (password, works) in [("wrong", false), ("pass word", true)] {
        fixture
            .call("addCredentials", |graph| {
                let url = graph.string(&url);
                vec![Some(url), Some(password_credentials(graph, "user", password))]
            })
            .unwrap();
        let cloned = clone(&fixture, &url);
        assert_eq!(cloned.is_ok(), works, "{cloned:?}");
        if let Err(error) = cloned {
            assert!(error.contains("Authentication failed"), "{error}");
        }
    }
    sh(&fixture.workspace(), "echo 3 > a && git commit -qam three");
    fixture.strings("push", &["origin", "master:refs/heads/pushed"]).unwrap();
    let pushed = sh(&fixture.path("served.git"), "git rev-parse pushed");
    assert_eq!(pushed, sh(&fixture.workspace(), "git rev-parse HEAD"));
    let console = fixture.console();
    assert!(console.contains("using GIT_ASKPASS to set credentials"), "{console}");
    assert!(!console.contains("pass word") && !console.contains("wrong"), "{console}");
    // Git keeps no password, and the files by which it asked are gone.
    assert!(!std::fs::read_to_string(fixture.workspace().join(".git/config")).unwrap().contains("pass"));
    assert_eq!(std::fs::read_dir(fixture.path("workspace/seed@tmp")).unwrap().count(), 0);
    fixture.finish();
}

/// With a passphrase, and a server that is known by the key that an administrator gave.
#[test]
fn a_key_for_ssh() {
    if !has_git() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = SshServer::start(dir.path()) else { return };
    sh(dir.path(), "git init -q -b master origin && cd origin && echo 1 > a && git add a && git commit -qm one");
    let user = sh(dir.path(), "id -un");
    let url = format!("ssh://{user}@127.0.0.1:{}{}/origin", server.port, dir.path().display());
    let harness = Harness::new();
    for (known_hosts, works) in [(server.known_hosts.as_str(), true), ("", false)] {
        let workspace = dir.path().join(format!("workspace-{works}"));
        std::fs::create_dir(&workspace).unwrap();
        let mut client = Graph::default();
        let keys = client.string(known_hosts);
        let class = "org.jenkinsci.plugins.gitclient.verifier.ManuallyProvidedKeyVerifier";
        let factory = object(&mut client, class, &[("approvedHostKeys", Some(keys))], &[]);
        let fields = [("listener", None), ("env", None), ("exe", None), ("hostKeyFactory", Some(factory))];
        let git = object(&mut client, "org.jenkinsci.plugins.gitclient.Git", &fields, &[]);
        let class = "org.jenkinsci.plugins.gitclient.Git$GitAPIMasterToSlaveFileCallable";
        let callable = object(&mut client, class, &[("this$0", Some(git))], &[]);
        act(&mut client, &workspace, callable);
        let client = harness.replay(&client, &[]).unwrap();
        let oid = client.root().unwrap().require("proxy").unwrap().require("h").unwrap().int("oid").unwrap();
        call(&harness, oid, "addDefaultCredentials", |graph| {
            let [user, value, words] = [&*user, &*server.key, "open sesame"].map(|text| graph.string(text));
            let [key, passphrase] =
                [value, words].map(|value| object(graph, "hudson.util.Secret", &[("value", Some(value))], &[]));
            let class = "com.cloudbees.jenkins.plugins.sshcredentials.impl.BasicSSHUserPrivateKey";
            let source = format!("{class}$DirectEntryPrivateKeySource");
            let source = object(graph, &source, &[("privateKey", Some(key))], &[]);
            let fields =
                [("username", Some(user)), ("passphrase", Some(passphrase)), ("privateKeySource", Some(source))];
            vec![Some(object(graph, class, &fields, &[]))]
        })
        .unwrap();
        let head = call(&harness, oid, "getHeadRev", |graph| {
            [&*url, "refs/heads/master"].map(|text| Some(graph.string(text))).to_vec()
        });
        match head {
            Ok(head) if works => {
                assert_eq!(
                    object_id(head.root().unwrap()).unwrap(),
                    sh(&dir.path().join("origin"), "git rev-parse HEAD")
                );
            }
            Err(error) if !works => assert!(error.contains("Host key verification failed"), "{error}"),
            other => panic!("{other:?}: {}", std::fs::read_to_string(dir.path().join("log")).unwrap()),
        }
    }
    harness.finish();
}

fn act(graph: &mut Graph, path: &Path, callable: NodeId) {
    let remote = graph.string(&path.to_string_lossy());
    let file = object(graph, "hudson.FilePath", &[("remote", Some(remote))], &[]);
    let fields = [("callable", Some(callable)), ("filePath", Some(file))];
    let root = object(graph, "hudson.FilePath$FileCallableWrapper", &fields, &[]);
    graph.put(Some(root));
}

#[test]
fn large_files() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    let installed = std::process::Command::new("git").args(["lfs", "version"]).output();
    if !installed.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no git-lfs on this machine");
        return;
    }
    let script = "git lfs install --local > /dev/null && git lfs track '*.big' > /dev/null && echo contents > x.big && \
                  git add . && git commit -qm large && git cat-file -p HEAD:x.big";
    assert!(sh(&fixture.path("origin"), script).starts_with("version https://git-lfs"));
    clone(&fixture, &fixture.url()).unwrap();
    let read = || std::fs::read_to_string(fixture.workspace().join("x.big")).unwrap();
    fixture.execute("CheckoutCommand", &[("ref", &["origin/master"]), ("lfsRemote", &["origin"])]).unwrap();
    assert_eq!(read(), "contents\n");
    assert!(fixture.console().contains(" > git lfs pull origin # timeout=10"));
    fixture.finish();
}

#[test]
fn merges_and_rebases() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    let script = "git checkout -q side && echo b > b && git add b && git commit -qm b && git branch conflict && \
                  git checkout -q conflict && echo other > a && git commit -qam conflict && git checkout -q master";
    sh(&fixture.path("origin"), script);
    clone(&fixture, &fixture.url()).unwrap();
    let git = |script: &str| sh(&fixture.workspace(), script);
    git("git config user.name t && git config user.email t@example.org");
    let merge = |branch: &str| {
        let commit = git(&format!("git rev-parse origin/{branch}"));
        fixture.call("merge", |graph| vec![Some(Values::new(graph).object_id(&commit))])
    };
    merge("side").unwrap();
    assert_eq!(git("git log -1 --format=%p | wc -w"), "2");
    let error = merge("conflict").unwrap_err();
    assert!(error.starts_with("hudson.plugins.git.GitException: Command \"git merge "), "{error}");

    git("git reset -q --hard && git checkout -q -b work origin/side");
    fixture.execute("RebaseCommand", &[("setUpstream", &["origin/master"])]).unwrap();
    assert_eq!(git("git merge-base HEAD origin/master"), git("git rev-parse origin/master"));
    git("git checkout -q -b stuck origin/conflict");
    let error = fixture.execute("RebaseCommand", &[("setUpstream", &["origin/master"])]).unwrap_err();
    assert!(error.starts_with("hudson.plugins.git.GitException: Could not rebase origin/master"), "{error}");
    assert_eq!(git("git status --porcelain --untracked-files=no"), "", "the rebase was given up");
    fixture.finish();
}

/// What `AncestryBuildChooser` leaves of candidates, by age and by ancestor.
#[test]
fn candidates_by_ancestry() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    let script = "git checkout -q side && echo b > b && git add b && \
                  GIT_COMMITTER_DATE='2001-02-03 04:05 +0000' git commit -qm old && git checkout -q master";
    sh(&fixture.path("origin"), script);
    clone(&fixture, &fixture.url()).unwrap();
    let (two, old, one) = (fixture.sha("master"), fixture.sha("side"), fixture.sha("v1.0"));
    let choose = |days: Option<i32>, ancestor: Option<&str>| {
        let answer = fixture.call("withRepository", |graph| {
            let mut revisions = Vec::new();
            for sha in [&two, &old] {
                let id = Values::new(graph).object_id(sha);
                let branches = graph.array_list(&[]);
                let fields = [("branches", Some(branches)), ("sha1", Some(id))];
                revisions.push(Some(object(graph, "hudson.plugins.git.Revision", &fields, &[])));
            }
            let revisions = graph.array_list(&revisions);
            let days = days.map(|days| graph.boxed_int(days));
            let ancestor = ancestor.map(|sha| graph.string(sha));
            let class = "hudson.plugins.git.util.AncestryBuildChooser";
            let fields = [("maximumAgeInDays", days), ("ancestorCommitSha1", ancestor)];
            let chooser = object(graph, class, &fields, &[]);
            let captured = graph.array("[Ljava.lang.Object;", 0, &[Some(chooser), Some(revisions)]);
            let [class, method] = ["hudson/plugins/git/util/AncestryBuildChooser", "lambda$getCandidateRevisions$f9$1"]
                .map(|text| graph.string(text));
            let fields =
                [("implClass", Some(class)), ("implMethodName", Some(method)), ("capturedArgs", Some(captured))];
            vec![Some(object(graph, "java.lang.invoke.SerializedLambda", &fields, &[]))]
        });
        answer.map(|answer| {
            let chosen = answer.root().unwrap().collection().unwrap();
            let sha = |revision: crate::object::View<'_>| object_id(revision.require("sha1").unwrap()).unwrap();
            chosen.into_iter().flatten().map(sha).collect::<Vec<_>>()
        })
    };
    assert_eq!(choose(None, None).unwrap(), [two.clone(), old.clone()]);
    assert_eq!(choose(Some(10), None).unwrap(), [&*two]);
    assert_eq!(choose(Some(-1), Some(&one)).unwrap(), [two.clone(), old.clone()]);
    assert_eq!(choose(None, Some(&two)).unwrap(), [&*two]);
    assert!(choose(None, Some("x")).unwrap_err().starts_with("hudson.plugins.git.GitException: "));
    assert!(choose(None, Some(&"1".repeat(40))).unwrap_err().starts_with("java.io.IOException: Missing commit 11"));
    fixture.finish();
}
