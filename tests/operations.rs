//! The built agent as a service: what it tells a service manager, health checks and Prometheus.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use inbound_agent::demo::Console;
use inbound_agent::demo::controller::{Controller, Session, Settings};
use inbound_agent::demo::pipeline::Build;
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(20);

struct Service {
    child: Child,
    root: tempfile::TempDir,
}

impl Service {
    /// As a unit starts it: all by the environment, the secret in a directory of credentials.
    fn start(controller: &Controller, environment: &[(&str, &str)]) -> Service {
        let root = tempfile::tempdir().unwrap();
        let secret = root.path().join("secret");
        std::fs::write(&secret, format!("{}\n", controller.settings().secret)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_agent"))
            .args(["-workDir", root.path().to_str().unwrap()])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("JENKINS_URL", controller.url())
            .env("JENKINS_AGENT_NAME", &controller.settings().name)
            .env("JENKINS_SECRET", format!("@{}", secret.display()))
            .envs(environment.iter().copied())
            .current_dir(root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Service { child, root }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    async fn ended(&mut self) -> Option<i32> {
        eventually(async || self.child.try_wait().unwrap()).await.code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn eventually<T>(mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < deadline, "what was waited for does not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn online(controller: &Controller, root: &Path) -> Session {
    let session = controller.accept(PATIENCE).await.unwrap();
    Build::new(&session.end, &Console { shown: false }, root).come_online().await.unwrap();
    session
}

async fn controller() -> Controller {
    Controller::start(Settings::default()).await.unwrap()
}

/// The next message that begins with this, others left out.
async fn told(manager: &UnixDatagram, beginning: &str) -> String {
    eventually(async || {
        let mut buffer = [0; 2048];
        let length = manager.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned()).filter(|text| text.starts_with(beginning))
    })
    .await
}

#[tokio::test]
async fn a_service_manager_hears_of_readiness_progress_and_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let name = format!("jenkins-agent-test-{}", std::process::id());
    let by_name = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    for (manager, address) in [
        (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
        (UnixDatagram::bind_addr(&by_name).unwrap(), format!("@{name}")),
    ] {
        manager.set_nonblocking(true).unwrap();
        let controller = controller().await;
        let variables = [("NOTIFY_SOCKET", address.as_str()), ("WATCHDOG_USEC", "2000000")];
        let mut service = Service::start(&controller, &variables);
        let session = online(&controller, service.root.path()).await;
        assert_eq!(told(&manager, "READY=1").await, "READY=1\nSTATUS=Connected by JNLP4-connect");
        told(&manager, "WATCHDOG=1").await;
        session.end.cut();
        told(&manager, "STATUS=Waiting to reconnect: ").await;
        let session = online(&controller, service.root.path()).await;
        told(&manager, "STATUS=Connected").await;
        told(&manager, "WATCHDOG=1").await;
        service.signal(Signal::TERM);
        told(&manager, "STOPPING=1\n").await;
        assert_eq!(session.end.closed().await, "the agent closed the channel");
        assert_eq!(service.ended().await, Some(0));
    }
}

#[tokio::test]
async fn a_service_manager_hears_why_an_agent_gives_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let controller = controller().await;
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("JENKINS_AGENT_NAME", "nobody")];
    let mut service = Service::start(&controller, &variables);
    assert_eq!(service.ended().await, Some(61));
    let last = told(&manager, "STATUS=presenting").await;
    assert!(last.contains("refused this agent"), "{last}");
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

async fn healthcheck(address: SocketAddr) -> (Option<i32>, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_agent"))
        .arg("--healthcheck")
        .env("JENKINS_AGENT_HEALTH_ADDRESS", address.to_string())
        .output();
    let output = output.await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// An address that nobody listens on.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn readiness_is_the_channels_and_metrics_count_what_passed() {
    let controller = controller().await;
    let address = free();
    let (code, why) = healthcheck(address).await;
    assert_eq!(code, Some(1));
    assert!(why.contains("no answer at 127.0.0.1:"), "{why}");

    let mut service = Service::start(&controller, &[("JENKINS_AGENT_HEALTH_ADDRESS", &address.to_string())]);
    let session = online(&controller, service.root.path()).await;
    assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(get(address, "/readyz").starts_with("HTTP/1.1 200 "));
    assert_eq!(healthcheck(address).await, (Some(0), String::new()));
    let metrics = get(address, "/metrics");
    let value = |metrics: &str, name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name} is missing in {metrics}")).parse().unwrap()
    };
    assert_eq!(value(&metrics, "jenkins_agent_connected"), 1.0);
    assert_eq!(value(&metrics, "jenkins_agent_reconnects_total"), 0.0);
    for name in ["jenkins_agent_received_bytes_total", "jenkins_agent_sent_bytes_total"] {
        assert!(value(&metrics, name) > 1000.0, "{metrics}");
    }
    let versions = "jenkins_agent_call_duration_seconds_count{callable=\"hudson.slaves.SlaveComputer$SlaveVersion\",tenant=\"native\"}";
    assert_eq!(value(&metrics, versions), 1.0);
    assert!(value(&metrics, "process_resident_memory_bytes") > 1e6);

    session.end.cut();
    let session = online(&controller, service.root.path()).await;
    assert_eq!(value(&get(address, "/metrics"), "jenkins_agent_reconnects_total"), 1.0);
    // While it closes its channel it is alive and not ready.
    session.end.behave(|manners| manners.ignore_close = true);
    service.signal(Signal::TERM);
    eventually(async || get(address, "/readyz").contains("503 Service Unavailable").then_some(())).await;
    assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
    assert_eq!(healthcheck(address).await, (Some(1), "Closing the channel\n".to_owned()));
    service.ended().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_so_at_once() {
    let controller = controller().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut service = Service::start(&controller, &[("JENKINS_AGENT_HEALTH_ADDRESS", &address)]);
    assert_eq!(service.ended().await, Some(10));
    let mut log = String::new();
    service.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains(&format!("listening for health checks on {address}: Address already in use")), "{log}");
}

/// As systemd reads it, alone and with the drop-in.
#[test]
fn the_unit_is_one() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: there is no systemd-analyze here");
        return;
    }
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let unit = std::fs::read_to_string(units.join("jenkins-agent.service")).unwrap();
    let installed = "/usr/local/bin/agent";
    assert_eq!(unit.matches(installed).count(), 1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jenkins-agent.service");
    std::fs::write(&path, unit.replace(installed, env!("CARGO_BIN_EXE_agent"))).unwrap();
    let verify = || {
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(verify(), (true, String::new()));
    let drop_in = directory.path().join("jenkins-agent.service.d");
    std::fs::create_dir(&drop_in).unwrap();
    std::fs::copy(units.join("hardened.conf"), drop_in.join("hardened.conf")).unwrap();
    assert_eq!(verify(), (true, String::new()));
    // It does read the drop-in, and has something to say where there is something.
    std::fs::write(drop_in.join("wrong.conf"), "[Service]\nNoSuchOption=1\n").unwrap();
    let (_, said) = verify();
    assert!(said.contains("NoSuchOption"), "{said}");
}
