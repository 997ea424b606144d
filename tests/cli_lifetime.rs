//! How the process begins and ends: signals, what it leaves behind, what it hides, `-jnlpUrl`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use inbound_agent::channel::command::Grant;
use inbound_agent::demo::Console;
use inbound_agent::demo::controller::end::Kind;
use inbound_agent::demo::controller::requests::{self, Launch, Request};
use inbound_agent::demo::controller::{Controller, Session, Settings};
use inbound_agent::demo::pipeline::Build;
use inbound_agent::object::Value;
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(20);
const CLOSED: &str = "the agent closed the channel";

struct Agent {
    child: Child,
    root: tempfile::TempDir,
}

impl Agent {
    fn start(program: &Path, root: tempfile::TempDir, arguments: &[&str], secret: &str, user: Option<u32>) -> Agent {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", root.path());
        if !secret.is_empty() {
            command.env("JENKINS_SECRET", secret);
        }
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        command.current_dir(root.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Agent { child: command.spawn().unwrap(), root }
    }

    fn connect(controller: &Controller, more: &[&str]) -> Agent {
        let (url, settings) = (controller.url(), controller.settings());
        let arguments = [&["-url", &url, "-name", &settings.name], more].concat();
        Agent::start(binary(), tempfile::tempdir().unwrap(), &arguments, &settings.secret, None)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The exit code and the log.
    async fn ended(&mut self) -> (Option<i32>, String) {
        let status = eventually(|| self.child.try_wait().unwrap()).await;
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (status.code(), log)
    }

    async fn exit_code(&mut self) -> i32 {
        let (code, log) = self.ended().await;
        code.unwrap_or_else(|| panic!("{log}"))
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join(name).to_str().unwrap().to_owned()
    }

    /// The number in a file that something writes there.
    async fn number(&self, name: &str) -> i32 {
        let path = self.path(name);
        eventually(|| std::fs::read_to_string(&path).ok()?.strip_suffix('\n')?.parse().ok()).await
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_agent"))
}

async fn eventually<T>(mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "what was waited for does not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn controller() -> Controller {
    Controller::start(Settings::default()).await.unwrap()
}

async fn online(controller: &Controller, agent: &Agent) -> Session {
    let session = controller.accept(PATIENCE).await.unwrap();
    Build::new(&session.end, &Console { shown: false }, agent.root.path()).come_online().await.unwrap();
    session
}

/// Launches a script as a freestyle build does, and gives the exported process and the stream with its output.
async fn launch(session: &Session, agent: &Agent, command: &[&str]) -> (i32, i32) {
    let end = &session.end;
    let (log, output) = (end.export(Kind::Output), end.export(Kind::Output));
    let directory = agent.path("");
    let launch = Launch { command, environment: &[], directory: &directory, output: Some(output) };
    let held = end.held();
    end.call(requests::launch(end, log, launch)).await.unwrap();
    let new = end.held().into_iter().find_map(|grant| match grant {
        Grant::Proxy(oid) if !held.contains(&grant) => Some(oid),
        _ => None,
    });
    (new.unwrap(), output)
}

fn join(process: i32) -> Request {
    Request::method(process, "hudson.Launcher$RemoteProcess", "join")
}

/// Whether it runs: a zombie does not.
fn runs(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

#[tokio::test]
async fn signals_close_the_channel_in_order() {
    for (signal, more) in [(Signal::TERM, &[][..]), (Signal::INT, &["-webSocket"])] {
        let controller = controller().await;
        let mut agent = Agent::connect(&controller, more);
        let session = online(&controller, &agent).await;
        agent.signal(signal);
        assert_eq!(session.end.closed().await, CLOSED);
        assert_eq!(agent.exit_code().await, 0, "{signal:?}");
    }
}

#[tokio::test]
async fn a_signal_ends_waiting_for_a_controller_too() {
    let settings = Settings { agent_port: false, ..Settings::default() };
    let controller = Controller::start(settings).await.unwrap();
    let mut agent = Agent::connect(&controller, &[]);
    let mut log = BufReader::new(agent.child.stderr.take().unwrap());
    let waits = tokio::task::spawn_blocking(move || log.by_ref().lines().any(|line| line.unwrap().contains("Waiting")));
    assert!(waits.await.unwrap());
    agent.signal(Signal::TERM);
    let status = eventually(|| agent.child.try_wait().unwrap()).await;
    // No one reads its last line.
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_and_the_end_of_the_grace_period_end_it_at_once() {
    for (second, grace, code) in [(Some(Signal::INT), "1h", 130), (None, "200ms", 143)] {
        let controller = controller().await;
        let mut agent = Agent::connect(&controller, &["--grace", grace]);
        let session = online(&controller, &agent).await;
        session.end.behave(|manners| manners.ignore_close = true);
        let (received, _) = session.end.traffic();
        agent.signal(Signal::TERM);
        eventually(|| (session.end.traffic().0 > received).then_some(())).await;
        if let Some(second) = second {
            agent.signal(second);
        }
        assert_eq!(agent.exit_code().await, code);
    }
}

#[tokio::test]
async fn processes_that_a_build_waits_for_are_killed_before_the_end_and_others_are_not() {
    let controller = controller().await;
    let mut agent = Agent::connect(&controller, &[]);
    let session = online(&controller, &agent).await;
    let script = "trap '' TERM; echo $$$$ > stubborn; while :; do sleep 0.1; done";
    let (stubborn, _) = launch(&session, &agent, &["sh", "-c", script]).await;
    session.end.start(join(stubborn));
    let script = "(sleep 300) > /dev/null 2>&1 & echo $$! > durable";
    let (durable, _) = launch(&session, &agent, &["nohup", "sh", "-c", script]).await;
    session.end.call(join(durable)).await.unwrap();
    let (stubborn, durable) = (agent.number("stubborn").await, agent.number("durable").await);

    agent.signal(Signal::TERM);
    let closed = Instant::now();
    assert_eq!(session.end.closed().await, CLOSED);
    assert_eq!(agent.exit_code().await, 0);
    assert!(closed.elapsed() >= Duration::from_secs(4), "it did not wait for the one that ignores SIGTERM");
    assert!(!runs(stubborn));
    assert!(runs(durable));
    kill_process(Pid::from_raw(durable).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_silent_controller_is_noticed_by_its_own_ping_settings() {
    let controller = controller().await;
    let mut agent = Agent::connect(&controller, &["-noReconnect"]);
    let session = online(&controller, &agent).await;
    let ping = Request::new(|b| {
        let fields = [("pingIntervalSeconds", "I"), ("pingTimeoutSeconds", "I")];
        let values = [("pingIntervalSeconds", Value::Int(1)), ("pingTimeoutSeconds", Value::Int(1))];
        b.callable_with("hudson.slaves.ChannelPinger$SetUpRemotePing", -2702219700841759872, &fields, &values)
    });
    session.end.call(ping).await.unwrap();
    session.end.behave(|manners| manners.mute = true);
    let (code, log) = agent.ended().await;
    assert_eq!(code, Some(0));
    assert!(log.contains("nothing was heard from the controller for 2 s"), "{log}");
    assert!(session.end.asked().iter().any(|class| class == "hudson.remoting.PingThread$Ping"));
}

#[tokio::test]
async fn a_pod_that_is_to_be_deleted_does_not_come_back() {
    let controller = controller().await;
    let mut agent = Agent::connect(&controller, &[]);
    let session = online(&controller, &agent).await;
    let class = "org.csanchez.jenkins.plugins.kubernetes.KubernetesSlave$SlaveDisconnector";
    session.end.call(requests::simple(class, 8683427258340193283)).await.unwrap();
    session.end.close();
    assert_eq!(agent.exit_code().await, 0);
}

#[tokio::test]
async fn builds_see_the_secret_neither_in_their_environment_nor_in_the_agents() {
    const NOBODY: u32 = 65534;
    let controller = controller().await;
    let (url, settings) = (controller.url(), controller.settings());
    let arguments = ["-url", &url, "-name", &settings.name];
    let root = tempfile::tempdir().unwrap();
    // What is root's belongs to root either way, so that nothing is to be seen of it.
    let user = rustix::process::getuid().is_root().then_some(NOBODY);
    let program: PathBuf = match user {
        Some(_) => {
            std::os::unix::fs::chown(root.path(), user, user).unwrap();
            let copy = root.path().join("agent");
            std::fs::copy(binary(), &copy).unwrap();
            copy
        }
        None => binary().to_owned(),
    };
    let mut agent = Agent::start(&program, root, &arguments, &settings.secret, user);
    let session = online(&controller, &agent).await;

    let (process, output) = launch(&session, &agent, &["sh", "-c", "env; echo $$$$ > child; exec sleep 300"]).await;
    let child = agent.number("child").await;
    let environment = eventually(|| {
        let collected = String::from_utf8(session.end.collected(output).bytes).unwrap();
        collected.contains("HUDSON_COOKIE=").then_some(collected)
    });
    let environment = environment.await;
    assert!(environment.contains("PATH=") && !environment.contains("JENKINS_SECRET"), "{environment}");

    // The kernel gives the files of a process that is not dumpable to root (proc(5)).
    let owner = |pid: &dyn std::fmt::Display| std::fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid();
    assert_eq!(owner(&agent.child.id()), 0);
    assert_eq!(owner(&child), user.unwrap_or(rustix::process::getuid().as_raw()));

    session.end.start(join(process));
    agent.signal(Signal::TERM);
    assert_eq!(agent.exit_code().await, 0);
}

/// Answers one request after the other.
fn serve(answers: Vec<(&'static str, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/computer/demo/jenkins-agent.jnlp", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            stream.write_all(head.as_bytes()).unwrap();
        }
    });
    url
}

#[tokio::test]
async fn parameters_from_a_jnlp_file() {
    let controller = controller().await;
    let Settings { name, secret, .. } = controller.settings();
    let root = tempfile::tempdir().unwrap();
    let work_dir = root.path().join("work");
    let arguments = [secret, name, "-workDir", work_dir.to_str().unwrap(), "-url", &controller.url()];
    let arguments: String = arguments.iter().map(|argument| format!("<argument>{argument}</argument>")).collect();
    let jnlp = format!("<jnlp><application-desc>{arguments}</application-desc></jnlp>");
    let url = serve(vec![("503 Service Unavailable", String::new()), ("200 OK", jnlp)]);
    let mut agent = Agent::start(binary(), root, &["-jnlpUrl", &url], "", None);
    let session = online(&controller, &agent).await;
    assert!(work_dir.join("remoting").is_dir());
    agent.signal(Signal::TERM);
    assert_eq!(session.end.closed().await, CLOSED);
    let (code, log) = agent.ended().await;
    assert_eq!(code, Some(0));
    assert!(log.contains("HTTP 503") && log.contains("Setting up agent: demo"), "{log}");
}

#[tokio::test]
async fn a_jnlp_file_that_is_none_and_one_that_cannot_be_applied() {
    for (body, more, code) in [
        ("<html><body>Log in</body></html>", &["-noReconnect"][..], 26),
        ("<jnlp><argument>s</argument><argument>n</argument></jnlp>", &[], 10),
    ] {
        let url = serve(vec![("200 OK", body.to_owned())]);
        let arguments = [&["-jnlpUrl", &url], more].concat();
        let mut agent = Agent::start(binary(), tempfile::tempdir().unwrap(), &arguments, "", None);
        let (ended, log) = agent.ended().await;
        assert_eq!(ended, Some(code), "{log}");
        assert!(log.contains(&url), "{log}");
    }
}
