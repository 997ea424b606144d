//! What a scenario file says. Every field that a file leaves out is as in a network where all is well.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

/// One fault, and what the probe has to say of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What is staged, in a sentence.
    pub about: String,
    #[serde(default)]
    pub network: Network,
    #[serde(default)]
    pub dns: Dns,
    #[serde(default)]
    pub controller: Jenkins,
    /// What else listens in the controller's network.
    #[serde(default, rename = "service")]
    pub services: Vec<Service>,
    /// The API server of a cluster that the agent is a pod of.
    pub kubernetes: Option<Kubernetes>,
    /// What a plain `connect` from the agent's place meets, by address; made sure of before the probe runs.
    #[serde(default)]
    pub met: BTreeMap<String, Met>,
    pub agent: Agent,
    pub expect: Expect,
}

/// Agent (10.1.0.2, 2001:db8:1::2), router (.1 of the same networks, and 10.2.0.1), and the controller's host with these addresses:
/// 10.2.0.2, .3, .4 and 2001:db8:2::2, .43 for an API server, .53 and .54 for nameservers, .80 for a proxy.
/// Nobody has 10.2.0.9.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// The agent's address, of a network of 256.
    pub agent: Ipv4Addr,
    /// Rules of nftables for what the router forwards, either way. Each has to be hit.
    pub router: Vec<String>,
    /// Addresses that what the agent sends reaches in the router's name, as services are reached through kube-proxy
    /// from an address that is not of the cluster. Each has to be.
    pub masqueraded: Vec<Ipv4Addr>,
    /// Whether the agent's machine has a default route.
    pub default_route: bool,
    /// The largest packet that passes from the router to the controller. What is larger vanishes without a word.
    pub path_mtu: Option<u32>,
    /// The same on the way back, from the router to the agent.
    pub path_mtu_back: Option<u32>,
}

impl Network {
    /// The router's address on the agent's side.
    pub fn gateway(&self) -> Ipv4Addr {
        let [a, b, c, _] = self.agent.octets();
        Ipv4Addr::new(a, b, c, 1)
    }
}

impl Default for Network {
    fn default() -> Self {
        Network {
            agent: Ipv4Addr::new(10, 1, 0, 2),
            router: Vec::new(),
            masqueraded: Vec::new(),
            default_route: true,
            path_mtu: None,
            path_mtu_back: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// The agent's `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// By full name, without the final dot. A name that is not there does not exist.
    pub names: BTreeMap<String, Name>,
}

impl Default for Dns {
    fn default() -> Self {
        let addresses = Name::Addresses(vec!["10.2.0.2".parse().unwrap()]);
        Dns {
            resolv_conf: "nameserver 10.2.0.53\n".to_owned(),
            names: [("jenkins.example".to_owned(), addresses)].into(),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Name {
    Addresses(Vec<IpAddr>),
    Trouble(NameTrouble),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NameTrouble {
    Nxdomain,
    Servfail,
    /// No answer.
    Silent,
}

/// A controller of the name `jenkins.example`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jenkins {
    /// Whether there is one at all.
    pub running: bool,
    pub http_port: u16,
    /// Before all paths; no slash at its end.
    pub context_path: String,
    pub tls: Option<Certificate>,
    /// What a TLS port says to who does not speak TLS.
    pub plain_on_tls: PlainOnTls,
    /// The port for agents; 0 if it is off.
    pub agent_port: u16,
    /// `X-Jenkins-JNLP-Host`.
    pub advertised_host: Option<String>,
    /// `X-Jenkins-JNLP-Port`, where it is not the port for agents.
    pub advertised_port: Option<u16>,
    /// `X-Jenkins-Agent-Protocols`.
    pub protocols: String,
    /// `X-Remoting-Minimum-Version`.
    pub minimum_remoting: String,
    /// Whether `X-Instance-Identity` is of the key that the agent port proves.
    pub true_identity: bool,
    /// Whether it has `wsagents/` and other WebSockets.
    pub web_sockets: bool,
    /// Request headers that a reverse proxy in front does not pass on.
    pub strips: Vec<String>,
    /// Response headers that a reverse proxy in front does not pass on.
    pub strips_answer: Vec<String>,
    /// How far its `Date` is from the true time, in seconds.
    pub clock: i64,
    /// After so many seconds without a byte, connections are cut.
    pub idle_cut: Option<f64>,
    /// Whether an agent of the node's name is connected.
    pub node_connected: bool,
    /// What is answered in Jenkins' place, by path; `*` stands for all that have no answer of their own.
    pub answers: BTreeMap<String, Answer>,
}

impl Default for Jenkins {
    fn default() -> Self {
        Jenkins {
            running: true,
            http_port: 8080,
            context_path: String::new(),
            tls: None,
            plain_on_tls: PlainOnTls::Alert,
            agent_port: 50000,
            advertised_host: None,
            advertised_port: None,
            protocols: "JNLP4-connect, Ping".to_owned(),
            minimum_remoting: "4.7".to_owned(),
            true_identity: true,
            web_sockets: true,
            strips: Vec::new(),
            strips_answer: Vec::new(),
            clock: 0,
            idle_cut: None,
            node_connected: false,
            answers: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certificate {
    /// For jenkins.example, by the authority `{ca}`.
    Good,
    /// The same, but out of date.
    Expired,
    /// For other.example.
    WrongName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlainOnTls {
    /// A TLS alert, as Jetty.
    Alert,
    /// A page with status 400, as nginx.
    Page,
}

/// An HTTP answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    pub status: u16,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub body: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// `ADDRESS:PORT`.
    pub at: String,
    #[serde(flatten)]
    pub kind: ServiceKind,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// It says this to everyone, at once.
    Says(String),
    /// It closes each connection after so many seconds, as a load balancer without a backend.
    ClosesAfter(f64),
    /// It answers this to every request.
    Answers(Answer),
    /// An HTTP proxy.
    Proxy(Proxy),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// The names that it can resolve. To the others it answers as Squid does.
    #[serde(default)]
    pub knows: BTreeMap<String, IpAddr>,
    /// What it answers to who has not given these credentials.
    pub credentials: Option<String>,
    /// What it answers to everyone.
    pub refuses: Option<Answer>,
}

/// The API server at 10.2.0.43; the agent is the pod `pod-1` in the namespace `ci`, and the router is its node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kubernetes {
    /// What its certificate is for beside 10.2.0.43.
    pub own_addresses: Vec<String>,
    /// JSON by path, as the API server gives it. Everything else is 404.
    pub api: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Met {
    Open,
    Refused,
    Timeout,
    HostUnreachable,
    NetworkUnreachable,
}

/// How the agent is started. In all texts, `{ca}` is a file with the authority's certificate and `{identity}` is the
/// controller's identity.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Its options, in addition to `-name`, `-workDir` and `--probe`.
    pub arguments: Vec<String>,
    /// Those that only make sense with `--probe`.
    #[serde(default)]
    pub probe_arguments: Vec<String>,
    /// In addition to PATH, HOME and JENKINS_SECRET.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    #[serde(default = "node")]
    pub name: String,
    #[serde(default = "secret")]
    pub secret: String,
    /// `/etc/hosts`.
    pub hosts: Option<String>,
    /// Whether the work directory can be written to.
    #[serde(default = "yes")]
    pub writable: bool,
}

fn yes() -> bool {
    true
}

pub fn node() -> String {
    "pod-1".to_owned()
}

/// The secret that the controller knows.
pub fn secret() -> String {
    "5ec3e7a11ce0".repeat(6)[..64].to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    pub verdict: String,
    pub exit: i32,
    /// Causes that may be named as failures beside the verdict's.
    #[serde(default)]
    pub also_accused: Vec<String>,
    /// Causes that must be named as warnings. No others may be.
    #[serde(default)]
    pub warned: Vec<String>,
    /// Words that the verdict's sentence, or what was seen, must hold.
    #[serde(default)]
    pub words: Vec<String>,
    /// Whether it can't be helped that the controller's log gets a line.
    #[serde(default)]
    pub leaves_a_line: bool,
    /// How long the probe may take, in seconds.
    #[serde(default = "deadline")]
    pub deadline: f64,
    /// What the same probe says on the node's own network, and what both together come to.
    pub compared: Option<Compared>,
    /// What a normal start with `-noReconnect` makes of it.
    #[serde(default)]
    pub start: Start,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// The verdict of the probe on the node's network.
    pub host: String,
    /// The verdict of `agent probe-compare`.
    pub verdict: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Start {
    /// Why there is no such test.
    pub not_tried: Option<String>,
    /// The verdict, where it is another than the probe's.
    pub verdict: Option<String>,
    /// The exit code, where it is another than the probe's.
    pub exit: Option<i32>,
}

fn deadline() -> f64 {
    15.0
}

impl Scenario {
    pub fn read(path: &Path) -> Result<Scenario, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// How long the probe may take; a busy machine is given some grace.
    pub fn deadline(&self) -> Duration {
        Duration::from_secs_f64(self.expect.deadline + 3.0)
    }
}
