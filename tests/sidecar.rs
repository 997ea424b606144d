//! The JVM beside the agent as a process: a stand-in that speaks the channel from the JVM's side and does what JVMs do on
//! bad days. With `REMOTING_JAR` set, and java on PATH, a real one too.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use inbound_agent::callables::statistics::Tenant;
use inbound_agent::callables::{self, Agent, Denied, Jvm};
use inbound_agent::channel::command::{self, Command};
use inbound_agent::channel::{Channel, Link, Liveness};
use inbound_agent::demo::controller::end::{CallError, End};
use inbound_agent::demo::controller::requests::{self, Request};
use inbound_agent::frame::Capability;
use inbound_agent::object::{Graph, Limits, Loader};
use inbound_agent::process::env::EnvVars;
use inbound_agent::sidecar::{Settings, Sidecar, jar, launcher};
use inbound_agent::transport::{Connection, stdio};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
/// Set where this program is the stand-in.
const STAND_IN: &str = "INBOUND_AGENT_STAND_IN";
const ANSWERS: &str = "com.example.Answers";

/// What the java of these tests runs; does nothing as a test.
#[test]
fn stand_in() {
    if std::env::var_os(STAND_IN).is_some() {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(act());
        std::process::exit(0);
    }
}

async fn act() {
    eprintln!("{}", launcher::READY);
    let first: i32 = std::env::var(STAND_IN).unwrap().parse().unwrap();
    let streams = (tokio::io::stdin(), tokio::io::stdout());
    let connection = stdio::connect(streams.0, streams.1, Capability::OURS, PATIENCE).await.unwrap();
    let Connection { mut reader, mut writer, .. } = connection;
    while let Ok(Some(command)) = reader.read().await {
        let answer = match Command::read(Graph::decode(command, &Limits::default()).unwrap()).unwrap() {
            Command::UserRequest { id, request, loader, .. } => {
                let graph = Graph::decode(request, &Limits::default()).unwrap();
                let loaders = command::introduced_loaders(&graph).into_iter().chain(loader).map(command::unexport);
                writer.write(&loaders.collect::<Vec<_>>()).await.unwrap();
                let class = graph.root().unwrap().class_name().into_owned();
                match class.as_str() {
                    "com.example.Dies" => {
                        let own = rustix::process::getpid();
                        rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
                        continue;
                    }
                    "com.example.Hangs" => continue,
                    "com.example.TurnsDeaf" => std::future::pending().await,
                    "com.example.Floods" => {
                        let flood: Vec<_> = (0..5000).map(|n| command::read(first + n, 1, 1)).collect();
                        if writer.write(&flood).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    "com.example.IsConfused" => Bytes::from_static(b"garbage"),
                    _ => {
                        let mut value = Graph::with_loader(Loader::Receivers(0));
                        let text = value.string(&format!("{class} from {first}"));
                        let value = value.encode_one(Some(text));
                        command::user_response(id, 0, Capability::OURS, Loader::Receivers(0), Ok(value))
                    }
                }
            }
            Command::Rpc { id, .. } => command::plain_response(id, 0, Ok(&|_| None)),
            Command::Close { .. } => return,
            _ => continue,
        };
        writer.write(&[answer]).await.unwrap();
    }
}

/// A java that is the stand-in, and a jar that looks like remoting's.
fn java_and_jar(dir: &Path) -> (PathBuf, PathBuf) {
    let (java, jar) = (dir.join("java"), dir.join("agent.jar"));
    let own = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = -version ] && {{ echo 'openjdk version \"17.0.1\"' >&2; exit; }}\n\
         while [ \"$1\" != {} ]; do shift; done\n\
         {STAND_IN}=$2 exec '{}' stand_in --exact --nocapture --test-threads=1\n",
        launcher::CLASS,
        own.display()
    );
    std::fs::write(&java, script).unwrap();
    std::fs::set_permissions(&java, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&jar).unwrap());
    let options: zip::write::SimpleFileOptions = Default::default();
    archive.start_file("hudson/remoting/Launcher.class", options).unwrap();
    std::io::Write::write_all(&mut archive, b"\xca\xfe\xba\xbe\0\0\0\x34").unwrap();
    archive.finish().unwrap();
    (java, jar)
}

struct Setting {
    link: Arc<Link>,
    end: Arc<End>,
    agent: Arc<Agent>,
    dir: tempfile::TempDir,
}

impl Setting {
    fn new(idle: Option<Duration>, denied: &[&str]) -> Setting {
        let dir = tempfile::tempdir().unwrap();
        let (java, jar) = java_and_jar(dir.path());
        Setting::with(dir, java, jar, idle, denied)
    }

    fn with(dir: tempfile::TempDir, java: PathBuf, jar: PathBuf, idle: Option<Duration>, denied: &[&str]) -> Setting {
        let mut agent = Agent::new(Some(dir.path().to_owned()), None, None);
        agent.denied = Denied(denied.iter().map(|&pattern| pattern.to_owned()).collect());
        agent.jvm = Jvm::AtHand;
        let agent = Arc::new(agent);
        let channel = Channel::new(Instant::now(), Capability::OURS, Liveness::default());
        let dispatching = agent.clone();
        let link = Link::new(channel, Box::new(move |incoming| callables::dispatch(&dispatching, incoming)));
        let mut environment = EnvVars::new();
        environment.put("PATH", std::env::var("PATH").unwrap());
        let settings = Settings {
            java,
            options: Vec::new(),
            idle,
            source: jar::Source::File(jar),
            dir: Some(dir.path().join("remoting")),
            environment,
        };
        Sidecar::attach(&link, &agent, settings, false);
        let end = Arc::new(End::new(Capability::OURS));
        tokio::spawn({
            let (link, end) = (link.clone(), end.clone());
            async move {
                while let Some(command) = end.next().await {
                    link.receive(Instant::now(), command);
                }
            }
        });
        tokio::spawn({
            let (link, end) = (link.clone(), end.clone());
            async move {
                let mut batch = Vec::new();
                while link.transmit(1 << 16, &mut batch).await {
                    batch.drain(..).for_each(|command| end.receive(command));
                }
            }
        });
        Setting { link, end, agent, dir }
    }

    async fn call(&self, request: Request) -> Result<String, String> {
        match timeout(PATIENCE, self.end.call(request)).await.expect("an answer") {
            Ok(graph) => Ok(graph.root().map_or_else(String::new, |root| root.as_str().unwrap().into_owned())),
            Err(CallError::Thrown(text)) => Err(text),
            Err(error) => panic!("{error}"),
        }
    }

    /// What this agent does itself goes on, whatever the JVM does.
    async fn native_calls_work(&self) {
        let exists = timeout(PATIENCE, self.end.call(requests::exists("/"))).await.expect("an answer");
        assert!(exists.is_ok());
    }

    /// How many calls each of the two has answered.
    fn calls(&self) -> [u64; 2] {
        [Tenant::Native, Tenant::Jvm].map(|wanted| {
            let calls = self.agent.statistics.snapshot();
            calls.iter().filter(|(tenant, ..)| *tenant == wanted).map(|(.., calls)| calls.count).sum()
        })
    }

    async fn close(self) {
        self.link.close(Instant::now());
        timeout(PATIENCE, self.agent.unfinished.idle()).await.expect("the JVM ends with the channel");
        // Who floods reads from what is none.
        let complaints = self.end.complaints();
        assert!(
            complaints.iter().all(|complaint| complaint.starts_with("it reads from 1,")),
            "{:?}",
            complaints.first()
        );
    }
}

fn foreign(class: &str) -> Request {
    requests::simple(class, 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jvm_starts_with_the_first_call_that_needs_it() {
    let setting = Setting::new(None, &["hudson.FilePath$IsDir*"]);
    setting.native_calls_work().await;
    assert!(!setting.dir.path().join("remoting/jvm").exists(), "nothing was prepared");
    assert_eq!(setting.call(foreign(ANSWERS)).await, Ok(format!("{ANSWERS} from 0")));
    assert!(setting.dir.path().join("remoting/jvm/InboundAgentSidecar.class").is_file());
    let denied = setting.call(requests::is_directory("/")).await;
    assert!(denied.unwrap().ends_with(" from 0"), "what is native too goes there if it was denied");
    setting.native_calls_work().await;
    assert_eq!(setting.calls(), [2, 2]);
    assert_eq!(setting.end.settled().await, []);
    setting.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_jvm_dies_its_calls_fail_and_the_next_starts_another() {
    let setting = Setting::new(None, &[]);
    let hanging = setting.end.start(foreign("com.example.Hangs"));
    let error = setting.call(foreign("com.example.Dies")).await.unwrap_err();
    assert!(error.contains("the JVM of this agent ended while it executed com.example.Dies"), "{error}");
    assert!(error.contains("killed by signal 9"), "{error}");
    let Err(CallError::Thrown(error)) = timeout(PATIENCE, setting.end.answer(hanging)).await.unwrap() else { panic!() };
    assert!(error.contains("while it executed com.example.Hangs"), "{error}");
    setting.native_calls_work().await;
    assert!(setting.call(foreign(ANSWERS)).await.is_ok());
    let error = setting.call(foreign("com.example.IsConfused")).await.unwrap_err();
    assert!(error.contains("it sent a malformed command"), "{error}");
    assert!(setting.call(foreign(ANSWERS)).await.is_ok());
    setting.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jvm_that_hangs_or_does_not_read_holds_up_nobody_else() {
    let setting = Setting::new(None, &[]);
    let hanging = setting.end.start(foreign("com.example.Hangs"));
    assert!(setting.call(foreign(ANSWERS)).await.is_ok());
    setting.native_calls_work().await;
    let deaf = setting.end.start(foreign("com.example.TurnsDeaf"));
    // More than may wait for it, in requests, which no window bounds.
    let large = "x".repeat(6 << 20);
    for _ in 0..8 {
        setting.end.start(Request::new(|b| {
            let text = b.string(&large);
            b.callable_with("com.example.Large", 1, &[("text", "Ljava/lang/String;")], &[("text", text)])
        }));
    }
    for id in [hanging, deaf] {
        let Err(CallError::Thrown(error)) = timeout(PATIENCE, setting.end.answer(id)).await.unwrap() else { panic!() };
        assert!(error.contains("it does not read: more than 32 MiB wait for it"), "{error}");
    }
    setting.native_calls_work().await;
    setting.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jvm_that_floods_is_ended() {
    let setting = Setting::new(None, &[]);
    assert!(setting.call(foreign(ANSWERS)).await.is_ok());
    // A controller that is slow to answer.
    setting.end.behave(|manners| manners.mute = true);
    let error = setting.call(foreign("com.example.Floods")).await.unwrap_err();
    assert!(error.contains("it floods the controller"), "{error}");
    setting.end.behave(|manners| manners.mute = false);
    setting.native_calls_work().await;
    let again = setting.call(foreign(ANSWERS)).await.unwrap();
    assert!(again.ends_with(" from 2000"), "its ids begin behind those of the first: {again}");
    setting.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_jvm_is_stopped() {
    let setting = Setting::new(Some(Duration::from_millis(300)), &[]);
    assert!(setting.call(foreign(ANSWERS)).await.is_ok());
    timeout(PATIENCE, setting.agent.unfinished.idle()).await.expect("it is stopped");
    assert!(setting.call(foreign(ANSWERS)).await.is_ok());
    setting.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_jvm_lacks_is_said_in_the_exception() {
    let dir = tempfile::tempdir().unwrap();
    let (java, jar) = java_and_jar(dir.path());
    std::fs::write(&java, "#!/bin/sh\necho 'java version \"1.7.0_80\"' >&2\n").unwrap();
    let setting = Setting::with(dir, java, jar, None, &[]);
    let error = setting.call(requests::unknown()).await.unwrap_err();
    for part in [
        "com.example.plugins.exotic.CountUnicorns, which belongs to a plugin with the package com.example.plugins.exotic",
        "is Java 7, and the controller's remoting needs Java 8",
        "an image with a JRE",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let at_once = setting.call(requests::unknown()).await.unwrap_err();
    assert!(at_once.contains("is Java 7"), "{at_once}");
    assert_eq!(setting.end.settled().await, [], "what came for the JVM goes back");
    setting.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_jvm_answers() {
    let Some(jar) = std::env::var_os("REMOTING_JAR").map(PathBuf::from) else {
        return eprintln!("skipped: REMOTING_JAR is not set");
    };
    let mut environment = EnvVars::new();
    environment.put("PATH", std::env::var("PATH").unwrap());
    let Ok(java) = inbound_agent::sidecar::java::find(None, &environment) else {
        return eprintln!("skipped: there is no java on PATH");
    };
    let setting = Setting::with(tempfile::tempdir().unwrap(), java, jar, None, &["*GetAgentInfo"]);
    for _ in 0..2 {
        // This controller gives out no classes, which the JVM asks for before it says so.
        let error = setting.call(requests::unknown()).await.unwrap_err();
        assert!(error.contains("Failed to deserialize the Callable object"), "{error}");
        let asked = setting.end.asked();
        assert!(asked.iter().any(|asked| asked.starts_with("fetch")), "{asked:?}");
    }
    setting.native_calls_work().await;
    setting.link.close(Instant::now());
    timeout(PATIENCE, setting.agent.unfinished.idle()).await.expect("the JVM ends with the channel");
}
