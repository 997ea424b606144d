//! The container images, run by podman: as any user, on a read-only root, without capabilities and in 32 MB.
//!
//! Skips what `docker/build` has not made, and everything without podman and root. With `IMAGES=required` that is a failure.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use inbound_agent::demo::Console;
use inbound_agent::demo::controller::{Controller, IDENTITY, Session, Settings};
use inbound_agent::demo::pipeline::Build;
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);
/// A user that no image knows.
const USER: &str = "12345:12345";
const WORK_DIR: &str = "/home/jenkins/agent";
const QUIET: Console = Console { shown: false };

/// The images of these tags that are there.
fn images(tags: &[&'static str]) -> Vec<&'static str> {
    let required = std::env::var("IMAGES").is_ok_and(|value| value == "required");
    let skip = |why: String| {
        assert!(!required, "{why}");
        eprintln!("skipped: {why}");
    };
    if !rustix::process::getuid().is_root() {
        skip("running containers needs root here".to_owned());
        return Vec::new();
    }
    if Command::new("podman").arg("--version").output().is_err() {
        skip("podman is not installed".to_owned());
        return Vec::new();
    }
    let there = |tag: &str| Command::new("podman").args(["image", "exists", &name(tag)]).status().unwrap().success();
    let (there, missing): (Vec<&str>, Vec<&str>) = tags.iter().partition(|tag| there(tag));
    // docker/build leaves it out unless it is asked for it.
    if missing.iter().any(|tag| *tag != "jre") {
        skip(format!("images that docker/build has not made: {missing:?}"));
    }
    if let Some(why) = there.first().and_then(|tag| refusal(tag)) {
        skip(format!("containers can't be run here: {why}"));
        return Vec::new();
    }
    there
}

/// Why podman or its runtime won't run anything, if so. That an image lacks its program is no such reason.
fn refusal(tag: &str) -> Option<String> {
    let output = podman().args([&name(tag), "-version"]).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let broken =
        ["not found", "no such file", "exec format"].iter().any(|reason| words.to_lowercase().contains(reason));
    (matches!(output.status.code(), Some(125..=127)) && !broken).then_some(words)
}

fn name(tag: &str) -> String {
    format!("localhost/jenkins-agent:{tag}")
}

/// `podman run`, with what each container here has.
fn podman() -> Command {
    let mut command = Command::new("podman");
    if Command::new("runc").arg("--version").output().is_ok() {
        command.args(["--runtime", "runc"]);
    }
    // The limits are those of a process that may not raise its own.
    command.args(["run", "--rm", "--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]);
    command.args(["--read-only", "--cap-drop", "ALL", "--memory", "32m", "--memory-swap", "32m"]);
    command.stdin(Stdio::null());
    command
}

fn mount(directory: &Path, at: &str) -> String {
    format!("--volume={}:{at}", directory.display())
}

/// A directory that anyone can write to, as an `emptyDir` is.
fn shared_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    directory
}

fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}{err}", output.status)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// A container that runs an agent. podman hands it the signals that it gets itself.
struct Container(Option<Child>);

impl Container {
    fn start(command: &mut Command) -> Container {
        Container(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    /// Waits for the agent to come online.
    async fn online(&mut self, controller: &Controller) -> Session {
        match controller.accept(PATIENCE).await {
            Ok(session) => {
                Build::new(&session.end, &QUIET, Path::new(WORK_DIR)).come_online().await.unwrap();
                session
            }
            Err(error) => panic!("{error:?}\n{}", text(&self.stop())),
        }
    }

    /// Ends it by SIGTERM.
    fn stop(&mut self) -> Output {
        let child = self.0.take().unwrap();
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        child.wait_with_output().unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.stop();
        }
    }
}

async fn controller() -> Controller {
    Controller::start(Settings::default()).await.unwrap()
}

/// What kubernetes-plugin puts into the environment of the `jnlp` container (`PodTemplateBuilder.agentEnvVars`).
fn pod_environment(controller: &Controller, way: &str) -> Vec<String> {
    let Settings { name, secret, .. } = controller.settings();
    let mut variables = vec![
        ("JENKINS_SECRET", secret.clone()),
        ("JENKINS_NAME", name.clone()),
        ("JENKINS_AGENT_NAME", name.clone()),
        ("JENKINS_AGENT_WORKDIR", WORK_DIR.to_owned()),
        ("REMOTING_OPTS", "-noReconnectAfter 1d".to_owned()),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1".to_owned()),
    ];
    if way == "direct" {
        variables.push(("JENKINS_DIRECT_CONNECTION", format!("127.0.0.1:{}", controller.agent_port())));
        variables.push(("JENKINS_PROTOCOLS", "JNLP4-connect".to_owned()));
        variables.push(("JENKINS_INSTANCE_IDENTITY", IDENTITY.trim().to_owned()));
    } else {
        variables.push(("JENKINS_URL", controller.url()));
    }
    if way == "websocket" {
        variables.push(("JENKINS_WEB_SOCKET", "true".to_owned()));
    }
    variables.into_iter().map(|(name, value)| format!("--env={name}={value}")).collect()
}

/// The agent runs a step, and closes the channel in order when its container is stopped.
async fn work_and_stop(mut container: Container, session: Session) {
    let mut build = Build::new(&session.end, &QUIET, Path::new(WORK_DIR));
    build.monitor().await.unwrap();
    assert_eq!(build.sh_output("printf works").await.unwrap(), "works");
    let output = tokio::task::spawn_blocking(move || container.stop()).await.unwrap();
    assert_eq!(session.end.closed().await, "the agent closed the channel");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_any_user_a_read_only_root_and_32_megabytes() {
    for tag in images(&["minimal", "git"]) {
        for way in ["tcp", "websocket", "direct"] {
            let controller = controller().await;
            let directory = shared_directory();
            let mut command = podman();
            command.args(["--user", USER, "--env=HOME=/", &mount(directory.path(), WORK_DIR)]);
            command.args(pod_environment(&controller, way)).arg(name(tag));
            let mut container = Container::start(&mut command);
            let session = container.online(&controller).await;

            let mut build = Build::new(&session.end, &QUIET, Path::new(WORK_DIR));
            let limit =
                "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2> /dev/null || true";
            assert_eq!(build.sh_output(limit).await.unwrap(), "33554432\n");
            let mounted = "while read -r _ at _ options _; do test $at != / || echo $options; done < /proc/mounts";
            assert!(build.sh_output(mounted).await.unwrap().starts_with(b"ro,"), "the root is not read-only");
            if tag == "git" {
                let script = "git init -q r && cd r && git lfs install --local && : > a && git add a && \
                              git -c user.name=n -c user.email=e commit -q -m m && git log --format=%s > ../log";
                assert_eq!(build.sh(script).await.unwrap(), 0);
                assert_eq!(build.sh_output("cat log").await.unwrap(), "m\n");
            }
            work_and_stop(container, session).await;
        }
    }
}

/// The forms of `docker run` in the documents of jenkins/inbound-agent. The work directory is the image's volume.
#[tokio::test(flavor = "multi_thread")]
async fn arguments_as_for_the_java_image() {
    for tag in images(&["minimal", "git"]) {
        for (user, work_dir) in [("jenkins", &["-workDir=/home/jenkins/agent"][..]), (USER, &["-workDir", WORK_DIR])] {
            let controller = controller().await;
            let (url, Settings { name: agent, secret, .. }) = (controller.url(), controller.settings());
            let mut command = podman();
            command.args(["--user", user, &name(tag), "-url", &url]).args(work_dir).args([secret, agent]);
            let mut container = Container::start(&mut command);
            let session = container.online(&controller).await;
            work_and_stop(container, session).await;
        }
        assert_eq!(run(podman().args([&name(tag), "-version"])).trim(), inbound_agent::REMOTING_VERSION);
        // One argument that is no option is a command.
        let mut shell = podman();
        shell.args(["--interactive", &name(tag), "sh"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        shell.stdin.take().unwrap().write_all(b"echo \"$0 $USER $AGENT_WORKDIR $$\"\n").unwrap();
        let output = shell.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "sh jenkins /home/jenkins/agent 1\n", "{}", text(&output));
    }
}

/// What the agent offers to try itself with works in each image.
#[test]
fn the_agents_own_commands() {
    let commands: &[&[&str]] = &[&["demo", "--json"], &["--help"], &["--version"]];
    for tag in images(&["minimal", "git"]) {
        for arguments in commands {
            run(podman().args(["--user", USER, "--env=HOME=/", &name(tag)]).args(*arguments));
        }
    }
}

/// The probe finds nothing wrong, and writes nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn the_probe() {
    let controller = controller().await;
    for tag in images(&["minimal", "git"]) {
        let found = run(podman().args(["--user", USER, &name(tag), "--probe=short", "-url", &controller.url()]));
        assert!(found.starts_with("ok"), "{found}");
    }
}

/// The init container and the build container as `PodTemplateBuilder.build` writes them.
#[tokio::test(flavor = "multi_thread")]
async fn agent_injection() {
    const INIT: &str = r#"["/bin/sh","-c","cp $(command -v jenkins-agent) /jenkins-agent/jenkins-agent;cp -R /usr/share/jenkins/. /jenkins-agent"]"#;
    // The build container is made of `minimal` in both cases.
    if images(&["minimal"]).is_empty() {
        return;
    }
    for tag in images(&["minimal", "git"]) {
        let injected = shared_directory();
        let injection = mount(injected.path(), "/jenkins-agent");
        run(podman().args(["--user", USER, "--entrypoint", INIT, &injection, &name(tag)]));

        // A build container that has never heard of Jenkins or Java: a shell, its commands, and nothing else.
        let foreign = shared_directory();
        let bin = foreign.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        run(podman().args([
            "--user=0",
            "--entrypoint",
            "/bin/sh",
            &mount(&bin, "/copy"),
            &name("minimal"),
            "-c",
            "cp -R /bin/. /copy",
        ]));

        let controller = controller().await;
        let directory = shared_directory();
        let mut command = podman();
        command.args(["--user", USER, "--workdir", WORK_DIR, &mount(directory.path(), WORK_DIR)]);
        command.arg(format!("{injection}:ro")).args(pod_environment(&controller, "tcp"));
        command.args([
            "--env=JENKINS_AGENT_FILE=/jenkins-agent/agent.jar",
            "--rootfs",
            foreign.path().to_str().unwrap(),
        ]);
        command.arg("/jenkins-agent/jenkins-agent");
        let mut container = Container::start(&mut command);
        let session = container.online(&controller).await;
        work_and_stop(container, session).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_reaped() {
    const NAME: &str = "jenkins-agent-orphans";
    for tag in images(&["git"]) {
        let controller = controller().await;
        let directory = shared_directory();
        let mut command = podman();
        command.args(["--user", USER, "--name", NAME, "--replace", &mount(directory.path(), WORK_DIR)]);
        command.args(pod_environment(&controller, "tcp")).arg(name(tag));
        let mut container = Container::start(&mut command);
        let session = container.online(&controller).await;
        let mut build = Build::new(&session.end, &QUIET, Path::new(WORK_DIR));
        assert_eq!(build.sh("for i in 1 2 3; do (sleep 0 &); done").await.unwrap(), 0);

        let agent = run(Command::new("podman").args(["inspect", "--format", "{{.State.Pid}}", NAME]));
        assert!(!zombies(agent.trim()).is_empty(), "there were none to reap");
        let deadline = Instant::now() + PATIENCE;
        while !zombies(agent.trim()).is_empty() {
            assert!(Instant::now() < deadline, "zombies are left");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        work_and_stop(container, session).await;
    }
}

/// The zombies among a process's children.
fn zombies(parent: &str) -> Vec<String> {
    let stats = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&format!(") Z {parent} "))).collect()
}

#[test]
fn configuration_is_that_of_the_java_image() {
    for tag in images(&["minimal", "git", "jre"]) {
        let inspected =
            run(Command::new("podman").args(["image", "inspect", "--format", "{{json .Config}}", &name(tag)]));
        let config: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(config["User"], "jenkins");
        assert_eq!(config["WorkingDir"], "/home/jenkins");
        assert_eq!(config["Entrypoint"], serde_json::json!(["/usr/local/bin/jenkins-agent"]));
        let volumes: Vec<_> = config["Volumes"].as_object().unwrap().keys().collect();
        assert_eq!(volumes, ["/home/jenkins/.jenkins", WORK_DIR]);
        let environment = config["Env"].as_array().unwrap();
        for variable in ["AGENT_WORKDIR=/home/jenkins/agent", "LANG=C.UTF-8", "TZ=Etc/UTC", "USER=jenkins"] {
            assert!(environment.iter().any(|entry| entry == variable), "{variable}: {environment:?}");
        }
        assert_eq!(config["Labels"]["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
        let script = "set -e; id -u jenkins 2> /dev/null || true; command -v jenkins-agent jenkins-slave agent; \
                      ls -d /usr/share/jenkins /etc/ssl/certs/ca-certificates.crt; : > ~/.jenkins/a; : > \"$AGENT_WORKDIR/a\"";
        let output = run(podman().args(["--entrypoint", "/bin/sh", &name(tag), "-c", script]));
        assert!(output.contains("/usr/local/bin/jenkins-agent\n"), "{output}");
    }
}

/// What the tests of jenkins/inbound-agent ask of it, but for Java.
#[test]
fn tools_of_the_java_image() {
    for tag in images(&["git", "jre"]) {
        let script = "set -e; bash --version; curl --version; ssh -V; git lfs env; less --version; patch --version; zdump --version; \
                      zic --version; test \"$(locale charmap)\" = UTF-8; test -f /etc/services; useradd --help; apt-get --version; \
                      git config --system filter.lfs.clean; perl -MData::Dumper -MEncode -MJSON::PP -MTime::HiRes -e 1; dpkg --audit";
        run(podman().args(["--entrypoint", "/bin/sh", &name(tag), "-c", script]));
        if tag == "jre" {
            run(podman().args(["--entrypoint", "java", &name(tag), "-version"]));
        }
    }
}
