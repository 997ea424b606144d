//! What a probe observes, without any judgement.
//!
//! Plain data: [`super::gather`] fills it, [`super::evaluate`] reads it, tests make it up. An empty list or a `None`
//! says that it was not looked at, never that there is nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Everything observed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// What a start would do.
    pub configuration: Configuration,
    /// Where it would do it.
    pub environment: Environment,
    /// Each host name that a start resolves.
    pub names: Vec<Name>,
    /// Each of `-url`, in the order given.
    pub sites: Vec<Site>,
    /// The controller's TCP port for agents, where a start would use it.
    pub agent_port: Option<AgentPort>,
    /// The WebSocket endpoint, where a start would use it.
    pub websocket: Option<Websocket>,
    /// With `--probe-auth`.
    pub authentication: Option<Authentication>,
    /// With `--probe-hold`.
    pub hold: Option<Hold>,
    /// In a pod.
    pub kubernetes: Option<super::kubernetes::KubernetesFacts>,
    /// What a start has met just before, where a start has sent us.
    pub attempt: Option<Attempt>,
    /// The deadline cut the probe off after this many milliseconds.
    pub cut_off_ms: Option<u64>,
}

/// How a start would connect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// To the TCP port for agents, which the controller tells over HTTP.
    #[default]
    Tcp,
    /// By WebSocket.
    Websocket,
    /// To the TCP port for agents, which `-direct` tells.
    Direct,
}

/// What a start would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Configuration {
    /// How it would connect.
    pub way: Way,
    /// `-url`.
    pub urls: Vec<String>,
    /// `-direct`.
    pub direct: Option<String>,
    /// `-tunnel`.
    pub tunnel: Option<String>,
    /// `-name`.
    pub name: Option<String>,
    /// What the secret looks like.
    pub secret: Option<SecretShape>,
    /// The fingerprint of `-instanceIdentity`.
    pub identity: Option<String>,
    /// Certificates are not checked.
    pub trusts_anyone: bool,
}

/// A secret as far as it may be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretShape {
    /// In characters. Jenkins' have 64.
    pub length: usize,
    /// Whether all of it are hexadecimal digits, as Jenkins' are.
    pub hexadecimal: bool,
    /// The first eight digits of its SHA-256.
    pub sha256: String,
}

/// The machine or pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// A Kubernetes pod.
    pub in_pod: bool,
    /// What it calls itself.
    pub host_name: Option<String>,
    /// The effective user.
    pub uid: u32,
    /// `HOME`.
    pub home: Option<String>,
    /// `-workDir`.
    pub work_dir: Option<WorkDir>,
    /// The network interfaces, without loopback.
    pub interfaces: Vec<Interface>,
    /// The routing table, as far as it was read.
    pub routes: Vec<Route>,
    /// `/etc/resolv.conf`; `None` where it can't be read.
    pub resolv_conf: Option<ResolvConf>,
    /// The time at which the probe began, in milliseconds since 1970.
    pub clock_ms: i64,
}

/// The work directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkDir {
    /// As given.
    pub path: String,
    /// Why it can't be used; `None` where it can.
    pub problem: Option<String>,
    /// Bytes that this user may still write there.
    pub free: Option<u64>,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// `eth0`.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The largest packet, in bytes.
    pub mtu: Option<u32>,
    /// `up`, `down`, `unknown` (`operstate` in `/sys/class/net`).
    pub state: Option<String>,
}

/// A line of the routing table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The network's address.
    pub network: IpAddr,
    /// The network's prefix length; 0 is the default route.
    pub prefix: u8,
    /// The next hop; `None` where the network is on the link.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub interface: String,
    /// The lower wins.
    pub metric: u32,
    /// The kernel refuses to send there (`unreachable`, `blackhole`, `prohibit`).
    #[serde(default)]
    pub reject: bool,
}

/// What `/etc/resolv.conf` says (resolv.conf(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResolvConf {
    /// At most three, as glibc has it.
    pub nameservers: Vec<IpAddr>,
    /// The search list.
    pub search: Vec<String>,
    /// A name with fewer dots goes through the search list first.
    pub ndots: u8,
    /// Seconds that glibc waits for an answer.
    pub timeout: u8,
    /// How often glibc asks.
    pub attempts: u8,
}

/// A host name and what it resolves to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Name {
    /// As written.
    pub name: String,
    /// In `/etc/hosts`, which comes before DNS.
    pub hosts_file: Vec<IpAddr>,
    /// What the system's resolver says, by which a start goes.
    pub system: Option<Lookup>,
    /// What each name server says to each name that the search list makes of it.
    pub queries: Vec<Query>,
}

/// An answer of the system's resolver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lookup {
    /// In the order in which they are tried.
    pub addresses: Vec<IpAddr>,
    /// What it says in their place.
    pub error: Option<String>,
    /// It has not said anything in time.
    pub timed_out: bool,
    /// How long it took.
    pub ms: u64,
}

/// The two kinds of address records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum RecordKind {
    A,
    #[serde(rename = "AAAA")]
    Aaaa,
}

/// One question to one name server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Whom.
    pub server: IpAddr,
    /// The whole name, without the final dot.
    pub name: String,
    /// For what.
    pub kind: RecordKind,
    /// What it said.
    pub reply: Reply,
    /// How long it took.
    pub ms: u64,
}

/// What a name server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// These addresses; none where the name exists without any of this kind.
    Addresses(Vec<IpAddr>),
    /// NXDOMAIN.
    NoSuchName,
    /// SERVFAIL, REFUSED and the like.
    Failure(String),
    /// Nothing.
    TimedOut,
    /// It can't be asked.
    Unreachable(String),
    /// Something that is no answer.
    Malformed(String),
}

/// The kinds of failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum FailureKind {
    Refused,
    TimedOut,
    HostUnreachable,
    NetworkUnreachable,
    /// The other end, or something in between, broke the connection.
    Reset,
    /// The other end closed the connection.
    Closed,
    Tls,
    /// What came is not of the protocol.
    Protocol,
    /// A proxy refused or failed.
    Proxy,
    /// The probe's deadline came first.
    OutOfTime,
    Other,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Of which kind.
    pub kind: FailureKind,
    /// In words.
    pub message: String,
}

/// An attempt at a TCP connection to one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Where to.
    pub address: SocketAddr,
    /// Where from: the address that the kernel chose.
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// Why it failed; `None` where it did not.
    #[serde(default)]
    pub failure: Option<Failure>,
    /// How long it took.
    pub ms: u64,
    /// The path's MTU, as far as the kernel knows.
    #[serde(default)]
    pub path_mtu: Option<u32>,
    /// The next hop, and its state in the kernel's neighbour table.
    #[serde(default)]
    pub next_hop: Option<NextHop>,
}

/// The first hop on the way to an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// The gateway; `None` where the address is on the link.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub interface: String,
    /// Whether it has answered to ARP; `None` where that can't be told.
    pub answers_arp: Option<bool>,
}

/// A proxy that the environment prescribes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyUse {
    /// HOST:PORT.
    pub address: String,
    /// Its host alone.
    pub host: String,
    /// The variable that names it.
    pub variable: String,
}

/// A controller's URL and what answers there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Site {
    /// The root URL, without credentials.
    pub url: String,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether it is https.
    pub tls: bool,
    /// Its path.
    pub path: String,
    /// Whether a proxy is used, and which rule says so.
    pub decision: String,
    /// The proxy.
    pub proxy: Option<ProxyUse>,
    /// To the controller, or to the proxy where there is one.
    pub connects: Vec<Connect>,
    /// With a proxy: to the controller without it, for contrast.
    pub direct: Vec<Connect>,
    /// The TLS handshake.
    pub handshake: Option<Handshake>,
    /// `GET tcpSlaveAgentListener/`, where agents are told where to connect.
    pub listener: Option<Exchange>,
    /// What a start makes of the listener's headers, where it can't use them.
    pub unusable: Option<Attempt>,
    /// `GET login`.
    pub login: Option<Exchange>,
    /// Where the URL's path led nowhere: other paths at which Jenkins was looked for.
    pub elsewhere: Vec<Exchange>,
    /// A request larger than one packet.
    pub large: Option<Large>,
    /// What the port says to the other of HTTP and TLS.
    pub other_scheme: Option<Exchange>,
    /// Ports at which controllers usually listen.
    pub usual_ports: Vec<Connect>,
}

/// A TLS handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Handshake {
    /// The name asked for.
    pub server_name: String,
    /// Why it failed; `None` where it did not.
    pub failure: Option<TlsFailure>,
    /// `TLSv1.3`.
    pub version: Option<String>,
    /// What the server presents, its own certificate first.
    pub chain: Vec<Certificate>,
    /// Where trust comes from.
    pub roots: String,
    /// The `Date` that the server sends, in seconds since 1970, for a certificate that is out of date by our clock.
    pub server_date: Option<i64>,
    /// How long it took.
    pub ms: u64,
}

/// Why TLS failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFailure {
    /// Of which kind.
    pub kind: TlsFailureKind,
    /// In words.
    pub message: String,
}

/// The kinds of failing of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum TlsFailureKind {
    UnknownIssuer,
    Expired,
    NotYetValid,
    WrongName,
    /// The other end doesn't speak TLS.
    NotTls,
    TimedOut,
    /// It was closed or reset.
    Closed,
    /// A proxy refused or failed.
    Proxy,
    Other,
}

/// As much of a certificate as it takes to name it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificate {
    /// `CN=jenkins.example.org, O=Example`.
    pub subject: String,
    /// Who has signed it.
    pub issuer: String,
    /// Host names and addresses (subjectAltName).
    pub names: Vec<String>,
    /// In seconds since 1970.
    pub not_before: i64,
    /// In seconds since 1970.
    pub not_after: i64,
}

/// A request and what came back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exchange {
    /// What was asked for.
    pub url: String,
    /// The answer.
    pub answer: Option<Answer>,
    /// What came in its place.
    pub failure: Option<Failure>,
    /// Where it was asked for in place of `url`, after redirects that a start follows.
    pub redirected_to: Option<String>,
    /// How long it took.
    pub ms: u64,
}

/// An HTTP answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers, by their names in lower case; no more than matter.
    pub headers: BTreeMap<String, String>,
    /// The title of an HTML page.
    pub title: String,
    /// What the body says to a reader, shortened to one line.
    pub text: String,
    /// The body came to a halt before its end.
    pub stalled: bool,
}

impl Answer {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Whether it comes from Jenkins.
    pub fn is_jenkins(&self) -> bool {
        ["x-jenkins", "x-hudson", "x-jenkins-jnlp-port", "x-hudson-jnlp-port", "x-instance-identity"]
            .iter()
            .any(|name| self.headers.contains_key(*name))
    }
}

/// A request of several packets, on a connection over which a small one passed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Large {
    /// How large the request was, in bytes.
    pub bytes: usize,
    /// What came back; that a server finds it too large is as good as any other answer.
    pub exchange: Exchange,
    /// Of an unanswered one: bytes that the kernel still has to send.
    pub unsent: Option<u64>,
    /// Of an unanswered one: how often the kernel has sent the same bytes again.
    pub retransmits: Option<u32>,
    /// The path's MTU afterwards, as far as the kernel knows.
    pub path_mtu: Option<u32>,
}

/// The controller's TCP port for agents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentPort {
    /// Its host: advertised, of the URL, or given.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who says so.
    pub origin: String,
    /// The host that the controller advertises in place of the URL's.
    pub advertised_host: Option<String>,
    /// The fingerprint of the key that must be proved there.
    pub identity: Option<String>,
    /// Whether a proxy is used, and which rule says so.
    pub decision: String,
    /// The proxy.
    pub proxy: Option<ProxyUse>,
    /// One per address.
    pub connects: Vec<Connect>,
    /// Where an advertised host can't be reached: the same port at the URL's host.
    pub url_host: Vec<Connect>,
    /// What it answers to `GET /`.
    pub hello: Option<Hello>,
    /// JNLP4's handshake up to the proof of identity.
    pub proof: Option<Proof>,
}

/// The agent port's answer to `GET /` (`TcpSlaveAgentListener.ConnectionHandler.respondHello`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// Why there is none.
    pub failure: Option<Failure>,
    /// The beginning of what came, in one line, where it isn't Jenkins'.
    pub strange: Option<String>,
    /// `Jenkins-Version`.
    pub version: Option<String>,
    /// `Jenkins-Session`, which is that of `X-Jenkins-Session` if both are the same process.
    pub session: Option<String>,
    /// `Jenkins-Agent-Protocols`.
    pub protocols: Vec<String>,
    /// `Client`: our address as the controller sees it.
    pub client: Option<String>,
    /// `Remoting-Minimum-Version`.
    pub minimum_version: Option<String>,
    /// How long it took.
    pub ms: u64,
}

/// What the other end of JNLP4 proved to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proof {
    /// It holds the expected key.
    pub matches: bool,
    /// It presents another one.
    pub found: Option<String>,
    /// It does not offer the protocol.
    pub not_offered: bool,
    /// It did not come to that.
    pub failure: Option<Failure>,
    /// How long it took.
    pub ms: u64,
}

/// The WebSocket endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Websocket {
    /// `GET wsagents`: a controller that has it redirects to `wsagents/`.
    pub endpoint: Option<Exchange>,
    /// `GET whoAmI/` with the headers of an upgrade.
    pub echo: Option<Exchange>,
    /// The headers that arrived, in lower case, as `whoAmI/` shows them; `None` where it doesn't. Only `connection` has
    /// its value too: what removes WebSockets often replaces that.
    pub arrived: Option<BTreeMap<String, String>>,
    /// Those that were sent, in lower case.
    pub sent: Vec<String>,
}

/// How the controller takes the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Authentication {
    /// Over which transport.
    pub way: Way,
    /// The agent was let in.
    pub accepted: bool,
    /// Why not.
    pub refusal: Option<Attempt>,
    /// How long it took.
    pub ms: u64,
}

/// An idle connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hold {
    /// Which connection: `agent port`, `channel`.
    pub what: String,
    /// Where to.
    pub address: String,
    /// How long it was to be held.
    pub wanted_ms: u64,
    /// How long it was.
    pub held_ms: u64,
    /// How it ended before; `None` where it lasted.
    pub ended: Option<Failure>,
    /// Why it was not held at all.
    pub skipped: Option<String>,
}

/// A failed attempt of a start, in the transport's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// "connecting to".
    pub doing: String,
    /// What it was done to.
    pub address: String,
    /// The transport's cause: `refused`, `timed-out`, `rejected` ...
    pub cause: String,
    /// In words.
    pub message: String,
    /// The exit code of a process that gives up because of it.
    pub exit_code: u8,
}
