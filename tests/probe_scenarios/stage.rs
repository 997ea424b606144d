//! A scenario brought about: the network, who listens in it, and the agent in its place.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use inbound_agent::demo::controller::IDENTITY;
use tokio::sync::oneshot;

use crate::hits::Hits;
use crate::jenkins::Front;
use crate::network::{self, Network};
use crate::scenario::{Kubernetes, Name, Scenario};
use crate::{certificates, dns, scenario, services};

/// After this long an agent is killed: it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Arguments: a directory with what is to be mounted, the host's name, the agent and its arguments. Runs in namespaces of
/// its own for mounts and the host's name. `/home` may hold the agent, and is hidden last.
const ENTER: &str = r#"
set -e
stage=$1; hostname "$2"; agent=$3; shift 3
: >"$stage/agent"
mount --bind "$agent" "$stage/agent"
mkdir "$stage/dev"
mount -t tmpfs none "$stage/dev"
for device in null zero random urandom; do
    : >"$stage/dev/$device"
    mount --bind "/dev/$device" "$stage/dev/$device"
done
: >"$stage/dev/termination-log"
mount --bind "$stage/termination-log" "$stage/dev/termination-log"
mount --rbind "$stage/dev" /dev
mount -t tmpfs none /var/run
if [ -d "$stage/serviceaccount" ]; then
    mkdir -p /var/run/secrets/kubernetes.io
    cp -r "$stage/serviceaccount" /var/run/secrets/kubernetes.io/
fi
mount -t tmpfs none /home
mkdir -p /home/jenkins/agent
if [ -e "$stage/read-only" ]; then
    mount -t tmpfs -o ro none /home/jenkins/agent
fi
cd /home/jenkins/agent
exec "$stage/agent" "$@"
"#;

pub struct Stage {
    pub hits: Hits,
    pub front: Option<Arc<Front>>,
    network: Network,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

/// What became of one run of the agent.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
    /// What `/dev/termination-log` holds.
    pub last_words: String,
}

impl Stage {
    pub fn set(scenario: &Scenario) -> io::Result<Stage> {
        let network = Network::create(&scenario.network)?;
        network.etc("resolv.conf", &scenario.dns.resolv_conf)?;
        if let Some(hosts) = &scenario.agent.hosts {
            network.etc("hosts", hosts)?;
        }
        let hits = Hits::default();
        for (name, what) in &scenario.dns.names {
            if let Name::Trouble(_) = what {
                hits.expect(dns::trouble(name));
            }
        }
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let cast = Cast {
            names: Arc::new(scenario.dns.names.clone()),
            jenkins: scenario.controller.clone(),
            services: scenario.services.clone(),
            kubernetes: scenario.kubernetes.clone(),
        };
        let (place, shared) = (network.controller.clone(), hits.clone());
        let serving = std::thread::spawn(move || {
            let runtime = network::enter(&place)
                .and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build());
            match runtime {
                Ok(runtime) => runtime.block_on(async {
                    let _ = ready.send(cast.play(shared).await);
                    let _ = stopped.await;
                }),
                Err(error) => drop(ready.send(Err(error))),
            }
        });
        let mut stage = Stage { hits, front: None, network, stop: Some(stop), serving: Some(serving) };
        stage.front = is_ready.recv().map_err(io::Error::other)??;
        for (address, expected) in &scenario.met {
            let met = stage.network.connect(address, *expected)?;
            if met != *expected {
                let text = format!("connecting to {address} meets {met:?}, where {expected:?} was to be staged");
                return Err(io::Error::other(text));
            }
        }
        Ok(stage)
    }

    /// What was staged and nobody met.
    pub fn missed(&self) -> io::Result<Vec<String>> {
        let rules = self.network.unhit()?.into_iter().map(|rule| format!("the router's rule {rule}"));
        Ok(rules.chain(self.hits.missed()).collect())
    }

    /// Runs the agent to its end.
    pub fn run(&self, scenario: &Scenario, more: &[&str]) -> io::Result<Run> {
        self.run_in(&self.network.agent, scenario, more)
    }

    /// The same on the router, which is the node of a pod.
    pub fn run_on_node(&self, scenario: &Scenario, more: &[&str]) -> io::Result<Run> {
        self.run_in(&self.network.router, scenario, more)
    }

    fn run_in(&self, namespace: &str, scenario: &Scenario, more: &[&str]) -> io::Result<Run> {
        let root = tempfile::tempdir()?;
        let path = |name: &str| root.path().join(name);
        fs::write(path("termination-log"), "")?;
        fs::write(path("ca.pem"), certificates::ca())?;
        if !scenario.agent.writable {
            fs::write(path("read-only"), "")?;
        }
        let mut environment = BTreeMap::from([
            ("PATH".to_owned(), std::env::var("PATH").unwrap_or_default()),
            ("HOME".to_owned(), "/home/jenkins".to_owned()),
            ("JENKINS_SECRET".to_owned(), scenario.agent.secret.clone()),
        ]);
        if scenario.kubernetes.is_some() {
            service_account(&path("serviceaccount"))?;
            // Both pods of `agent probe-pod` are told their address and their node's.
            let node = scenario.network.gateway().to_string();
            let pod = scenario.network.agent.to_string();
            let address = if namespace == self.network.agent { &pod } else { &node };
            let variables = [
                ("KUBERNETES_SERVICE_HOST", services::API_SERVER),
                ("KUBERNETES_SERVICE_PORT", "443"),
                ("POD_NAMESPACE", "ci"),
                ("POD_IP", address),
                ("HOST_IP", &node),
                ("NODE_NAME", "node-1"),
            ];
            environment.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        let ca = path("ca.pem").display().to_string();
        let fill = |text: &String| text.replace("{ca}", &ca).replace("{identity}", IDENTITY.trim());
        environment.extend(scenario.agent.environment.iter().map(|(name, value)| (name.clone(), fill(value))));
        let mut command = Command::new("ip");
        let host_name = if namespace == self.network.agent { "pod-1" } else { "node-1" };
        command.args(["netns", "exec", namespace, "unshare", "--uts", "sh", "-c", ENTER, "sh"]);
        command.arg(root.path()).args([host_name, env!("CARGO_BIN_EXE_agent")]);
        command.args(scenario.agent.arguments.iter().map(fill));
        command.args(["-name", &scenario.agent.name, "-workDir", "/home/jenkins/agent"]).args(more);
        command.env_clear().envs(environment);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = Instant::now();
        let mut child = command.spawn()?;
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                child.kill()?;
                break child.wait()?;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let elapsed = begun.elapsed();
        Ok(Run {
            code: status.code(),
            stdout: stdout.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
            elapsed,
            last_words: fs::read_to_string(path("termination-log"))?,
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

/// Who listens in the controller's namespace.
struct Cast {
    names: Arc<BTreeMap<String, Name>>,
    jenkins: scenario::Jenkins,
    services: Vec<scenario::Service>,
    kubernetes: Option<Kubernetes>,
}

impl Cast {
    async fn play(self, hits: Hits) -> io::Result<Option<Arc<Front>>> {
        for nameserver in ["10.2.0.53:53", "10.2.0.54:53"] {
            let at = nameserver.parse().map_err(io::Error::other)?;
            dns::start(at, self.names.clone(), hits.clone()).await?;
        }
        for service in &self.services {
            services::start(service, &hits).await?;
        }
        if let Some(kubernetes) = &self.kubernetes {
            services::api_server(kubernetes).await?;
        }
        match self.jenkins.running {
            true => Ok(Some(Front::start(self.jenkins, hits).await?)),
            false => Ok(None),
        }
    }
}

/// What a pod finds of its service account.
fn service_account(at: &Path) -> io::Result<()> {
    fs::create_dir(at)?;
    fs::write(at.join("token"), "the-pods-token")?;
    fs::write(at.join("ca.crt"), certificates::ca())?;
    fs::write(at.join("namespace"), "ci")
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
