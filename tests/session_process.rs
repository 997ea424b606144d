//! The built agent as a process, against a loopback controller.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use inbound_agent::demo::Console;
use inbound_agent::demo::controller::{self, Controller, IDENTITY, Mischief, Point, Session, Settings, requests};
use inbound_agent::demo::pipeline::Build;
use inbound_agent::probe::catalog::CauseId;
use inbound_agent::transport::{ExitCode, Protocol};

const PATIENCE: Duration = Duration::from_secs(20);

struct Agent {
    child: Child,
    root: tempfile::TempDir,
}

impl Agent {
    fn start(arguments: &[&str]) -> Agent {
        let root = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_agent"))
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", root.path())
            .current_dir(root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Agent { child, root }
    }

    fn tcp(controller: &Controller, more: &[&str]) -> Agent {
        let url = controller.url();
        let Settings { name, secret, .. } = controller.settings();
        Agent::start(&[&["-url", &url, "-name", name, "-secret", secret], more].concat())
    }

    fn direct(controller: &Controller, more: &[&str]) -> Agent {
        let direct = format!("127.0.0.1:{}", controller.agent_port());
        let Settings { name, secret, .. } = controller.settings();
        let fixed = ["-direct", &direct, "-instanceIdentity", IDENTITY.trim(), "-name", name, "-secret", secret];
        Agent::start(&[&fixed[..], more].concat())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The exit status and the log.
    async fn ended(&mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the agent does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (status, log)
    }

    async fn exit_code(&mut self) -> i32 {
        let (status, log) = self.ended().await;
        status.code().unwrap_or_else(|| panic!("{status}: {log}"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn online(controller: &Controller, agent: &Agent) -> Session {
    let session = controller.accept(PATIENCE).await.unwrap();
    build(&session, agent).come_online().await.unwrap_or_else(|error| panic!("{error}: {:?}", controller.attempts()));
    session
}

fn build<'a>(session: &'a Session, agent: &Agent) -> Build<'a> {
    Build::new(&session.end, &Console { shown: false }, agent.root.path())
}

async fn controller() -> Controller {
    Controller::start(Settings::default()).await.unwrap()
}

/// Everything that a controller asks of a new agent, and a callable that no agent knows.
async fn comes_online_and_ends(mut agent: Agent, controller: &Controller, protocol: Protocol) {
    let session = online(controller, &agent).await;
    assert_eq!(session.protocol, protocol);
    let build = build(&session, &agent);
    build.monitor().await.unwrap();
    build.unknown_callable().await.unwrap();
    session.end.collect_garbage();
    assert_eq!(session.end.settled().await, []);
    assert_eq!(session.end.complaints(), [""; 0]);
    session.end.close();
    assert_eq!(agent.exit_code().await, 0);
}

#[tokio::test]
async fn online_by_tcp() {
    let controller = controller().await;
    let agent = Agent::tcp(&controller, &["-noReconnect"]);
    comes_online_and_ends(agent, &controller, Protocol::Jnlp4).await;
}

#[tokio::test]
async fn online_by_web_socket_with_the_agent_port_off() {
    let settings = Settings { agent_port: false, ..Settings::default() };
    let controller = Controller::start(settings).await.unwrap();
    let agent = Agent::tcp(&controller, &["-webSocket", "-noReconnect"]);
    comes_online_and_ends(agent, &controller, Protocol::WebSocket).await;
}

#[tokio::test]
async fn online_directly() {
    let controller = controller().await;
    let agent = Agent::direct(&controller, &["-noReconnect"]);
    comes_online_and_ends(agent, &controller, Protocol::Jnlp4).await;
}

#[tokio::test]
async fn online_by_stdio() {
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_agent"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (input, output) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    let end = controller::stdio(input, output).await.unwrap();
    let root = tempfile::tempdir().unwrap();
    Build::new(&end, &Console { shown: false }, root.path()).come_online().await.unwrap();
    end.close();
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(end.complaints(), [""; 0]);
}

#[tokio::test]
async fn reconnects_after_a_drop_with_the_cookie() {
    let controller = controller().await;
    for way in [&[][..], &["-webSocket"]] {
        let agent = Agent::tcp(&controller, way);
        let first = online(&controller, &agent).await;
        assert_eq!(first.brought, None);
        first.end.cut();
        let second = online(&controller, &agent).await;
        assert_eq!(second.brought.as_deref(), Some(first.cookie.as_str()));
        assert_ne!(second.cookie, first.cookie);
        second.end.close();
    }
}

#[tokio::test]
async fn a_cookie_replaces_a_connection_that_the_controller_still_holds() {
    let controller = controller().await;
    let agent = Agent::tcp(&controller, &[]);
    let first = online(&controller, &agent).await;
    // What the agent sends is no command: it is cut off by the agent, and the controller does not notice.
    first.end.behave(|manners| manners.deaf = true);
    first.end.send(bytes::Bytes::from_static(b"garbage"));
    let second = online(&controller, &agent).await;
    assert_eq!(second.brought.as_deref(), Some(first.cookie.as_str()));
    assert_eq!(first.end.close_reason().as_deref(), Some("cut"));
}

#[tokio::test]
async fn reconnects_when_the_controller_has_restarted() {
    let old = controller().await;
    let agent = Agent::tcp(&old, &[]);
    online(&old, &agent).await;
    let (settings, http, port) = (old.settings().clone(), old.http_port(), old.agent_port());
    drop(old);
    // Long enough for the first attempt to find nobody.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let new = Controller::start_on(settings, http, port).await.unwrap();
    online(&new, &agent).await;
}

#[tokio::test]
async fn reconnects_after_what_breaks_the_protocol() {
    let controller = controller().await;
    let agent = Agent::tcp(&controller, &[]);
    // An int[2147483647] of which nothing comes; and what is no object stream at all.
    let huge = &b"\xac\xed\0\x05ur\0\x02[I\0\0\0\0\0\0\0\0\x02\0\0xp\x7f\xff\xff\xff"[..];
    for malformed in [huge, b"garbage"] {
        let session = online(&controller, &agent).await;
        session.end.send(bytes::Bytes::from_static(malformed));
        tokio::time::timeout(PATIENCE, session.end.closed()).await.unwrap();
    }
    online(&controller, &agent).await;
}

#[tokio::test]
async fn a_wrong_secret_or_name_ends_a_first_start_with_its_own_code() {
    let controller = controller().await;
    let url = controller.url();
    let secret = controller.settings().secret.as_str();
    for way in ["-webSocket", "-noKeepAlive"] {
        for [name, secret] in [["demo", "wrong"], ["nobody", secret]] {
            let mut agent = Agent::start(&["-url", &url, "-name", name, "-secret", secret, way]);
            let cause = if name == "demo" { CauseId::SecretWrong } else { CauseId::UnknownNode };
            assert_eq!(agent.exit_code().await, i32::from(cause.exit_code()), "{name} {way}");
        }
    }
    let attempts = controller.attempts();
    assert_eq!(attempts, ["refused: wrong secret", "refused: unknown agent nobody"].repeat(2));
}

#[tokio::test]
async fn already_connected_is_waited_out() {
    let controller = controller().await;
    for way in [&[][..], &["-webSocket"]] {
        controller.misbehave([Mischief::AlreadyConnected]);
        let mut agent = Agent::tcp(&controller, way);
        let session = online(&controller, &agent).await;
        session.end.close();
        agent.signal(rustix::process::Signal::TERM);
        let (_, log) = agent.ended().await;
        assert!(log.contains("already connected"), "{log}");
    }
}

#[tokio::test]
async fn a_handshake_that_is_dropped_is_tried_again_wherever_it_was() {
    let controller = controller().await;
    for point in [Point::Accepted, Point::Greeted, Point::Encrypted, Point::Presented, Point::Admitted] {
        controller.misbehave([Mischief::Drop(point)]);
        let agent = Agent::direct(&controller, &[]);
        let session = online(&controller, &agent).await;
        session.end.close();
    }
}

#[tokio::test]
async fn without_reconnect_a_drop_is_the_end() {
    let controller = controller().await;
    let mut agent = Agent::tcp(&controller, &["-noReconnect"]);
    let session = online(&controller, &agent).await;
    session.end.cut();
    assert_eq!(agent.exit_code().await, 0);
    controller.misbehave([Mischief::Drop(Point::Encrypted)]);
    let mut agent = Agent::tcp(&controller, &["-noReconnect"]);
    let code = agent.exit_code().await;
    // Dropped with the agent's headers unread, the connection may be reset.
    assert!([ExitCode::Closed, ExitCode::Io].iter().any(|expected| i32::from(expected.code()) == code), "{code}");
}

#[tokio::test]
async fn sigterm_and_sigint_close_the_channel_in_order() {
    let controller = controller().await;
    for (signal, way) in [(rustix::process::Signal::TERM, &[][..]), (rustix::process::Signal::INT, &["-webSocket"])] {
        let mut agent = Agent::tcp(&controller, way);
        let session = online(&controller, &agent).await;
        agent.signal(signal);
        let reason = tokio::time::timeout(PATIENCE, session.end.closed()).await.unwrap();
        assert_eq!(reason, "the agent closed the channel");
        assert_eq!(agent.exit_code().await, 0);
        assert_eq!(session.end.exports(), [], "nothing is left referenced");
        assert_eq!(session.end.complaints(), [""; 0]);
    }
}

#[tokio::test]
async fn a_controller_that_does_not_answer_the_close_is_not_waited_for_long() {
    let controller = controller().await;
    let mut agent = Agent::tcp(&controller, &["--grace", "1s"]);
    let session = online(&controller, &agent).await;
    session.end.behave(|manners| manners.ignore_close = true);
    let begun = Instant::now();
    agent.signal(rustix::process::Signal::TERM);
    agent.ended().await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_stream_that_never_ends_holds_up_nothing_but_its_call() {
    let controller = controller().await;
    let agent = Agent::tcp(&controller, &[]);
    let session = online(&controller, &agent).await;
    let end = &session.end;
    let target = agent.root.path().join("x");
    let endless = end.start(requests::untar_endless(end, target.to_str().unwrap(), bytes::Bytes::new()));
    for _ in 0..20 {
        end.call(requests::ping()).await.unwrap();
    }
    assert_eq!(end.try_answer(endless).map(|answer| answer.is_ok()), None);
    end.cancel(endless);
    let error = end.answer(endless).await.unwrap_err().to_string();
    assert!(error.contains("Interrupted") || error.contains("cancelled"), "{error}");
    assert_eq!(end.settled().await, []);
    assert_eq!(end.complaints(), [""; 0]);
}

#[tokio::test]
async fn the_demo_succeeds_by_all_transports_and_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_agent"))
        .args(["demo", "--json"])
        .env("TMPDIR", temp.path())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await.unwrap().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    assert_eq!(report["success"], true);
    let transports: Vec<_> = report["transports"].as_array().unwrap().iter().map(|t| t["transport"].clone()).collect();
    assert_eq!(transports, ["tcp", "ws", "direct"]);
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
