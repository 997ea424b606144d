//! What the command line and environment come to.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::probe::print::Format;

/// A text that must not be seen: `Debug` and `Display` print `<hidden>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

/// A host and a port, as `-direct` and `-connectTo` give them. An IPv6 address is without its
/// brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

/// `-tunnel HOST:PORT`, `HOST:` or `:PORT`: what is left out stays as discovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The host to connect to in place of the discovered one.
    pub host: Option<String>,
    /// The port to connect to in place of the discovered one.
    pub port: Option<u16>,
}

/// A deprecated `-jnlpUrl`: the connection's parameters are yet to be fetched from there; see
/// [`super::jnlp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JnlpSource {
    /// What to `GET`: the URL as given, with `?encrypt=true` when there is a secret.
    pub request_url: String,
}

/// How the agent reaches its controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// Discovery over HTTP at [`Config::urls`], then JNLP4-connect over TCP.
    Tcp,
    /// WebSocket to the only one of [`Config::urls`].
    WebSocket,
    /// JNLP4-connect over TCP without discovery (`-direct`); [`Config::instance_identity`] is set.
    Direct(HostPort),
    /// A channel over stdin and stdout, which is what `agent.jar` speaks when nothing says otherwise
    /// (SSH and command launchers).
    Stdio,
    /// The deprecated `-connectTo`: the protocol of [`Transport::Stdio`] over an outgoing TCP connection.
    ConnectTo(HostPort),
    /// The deprecated `-tcp FILE`: listen on a port of loopback's choosing, write its number to the file,
    /// accept one connection within 30 s, and speak the protocol of [`Transport::Stdio`] over it.
    ListenTcp(PathBuf),
    /// The deprecated `-jnlpUrl`: fetch, [`super::jnlp::parse`], then [`Config::with_jnlp_arguments`].
    Jnlp(JnlpSource),
}

/// One `-cert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertSource {
    /// `-cert @FILE`: a PEM file with one or more certificates.
    File(PathBuf),
    /// `-cert TEXT`: the PEM text itself.
    Pem(String),
}

/// `-workDir` and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkDirSettings {
    /// `-workDir`; without it nothing is written anywhere but to `-agentLog`.
    pub path: Option<PathBuf>,
    /// `-internalDir`, a name within the work directory.
    pub internal_dir: String,
    /// `-failIfWorkDirIsMissing`.
    pub fail_if_missing: bool,
}

/// The form of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Two lines an entry, as java.util.logging's `SimpleFormatter` writes them.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// `--log-format`.
    pub format: LogFormat,
    /// How often `-v` was given: 0 is the Java agent's default (INFO).
    pub verbosity: u8,
    /// `-agentLog`: a copy of the log goes there and not below the work directory.
    pub agent_log: Option<PathBuf>,
}

/// `--probe` and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSettings {
    /// How the report is printed.
    pub format: Format,
    /// `--probe-auth`.
    pub authenticate: bool,
    /// `--probe-hold`.
    pub hold: Option<Duration>,
    /// `--probe-timeout`.
    pub timeout: Duration,
}

/// When a Java virtual machine runs beside the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JvmMode {
    /// Never.
    Never,
    /// From the first request on that is not native.
    Auto,
    /// From the beginning of each connection.
    Always,
}

/// `--jvm` and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JvmSettings {
    /// `--jvm`.
    pub mode: JvmMode,
    /// `--jvm-idle`: how long it is kept without work; `None` is as long as the connection.
    pub idle: Option<Duration>,
    /// `--jvm-opts`, one by one: after the agent's own.
    pub options: Vec<String>,
    /// `--java`.
    pub java: Option<PathBuf>,
    /// `--remoting-jar`: in place of the controller's.
    pub remoting_jar: Option<PathBuf>,
    /// `--native-deny`: patterns of class names, `*` and `?` as in a shell.
    pub native_deny: Vec<String>,
}

impl Default for JvmSettings {
    fn default() -> Self {
        JvmSettings {
            mode: JvmMode::Auto,
            idle: Some(Duration::from_secs(600)),
            options: Vec::new(),
            java: None,
            remoting_jar: None,
            native_deny: Vec::new(),
        }
    }
}

/// Everything a session needs to know, validated: what is mandatory for [`Config::transport`] is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How to reach the controller.
    pub transport: Transport,
    /// Root URLs of the controller, `http` or `https`, each ending in `/`, without duplicates, in
    /// the order in which they are tried. At least one for TCP, exactly one for WebSocket.
    pub urls: Vec<String>,
    /// The agent's secret: present for TCP, WebSocket and direct connections.
    pub secret: Option<Secret>,
    /// The node's name: present for TCP, WebSocket and direct connections.
    pub name: Option<String>,
    /// `-tunnel`.
    pub tunnel: Option<Tunnel>,
    /// `-instanceIdentity`, decoded (an X.509 `SubjectPublicKeyInfo`): the only key the controller may
    /// have. With discovery it is a pin on what is discovered.
    pub instance_identity: Option<Vec<u8>>,
    /// `-protocols`: the only agent protocols to try; empty means all.
    pub protocols: Vec<String>,
    /// `-cert`, in the order given: trusted beside the system's.
    pub certs: Vec<CertSource>,
    /// `-noCertificateCheck`.
    pub no_certificate_check: bool,
    /// `-credentials`, as `USER:PASSWORD`: HTTP basic authentication towards the controller.
    pub credentials: Option<Secret>,
    /// `-proxyCredentials`, as `USER:PASSWORD`.
    pub proxy_credentials: Option<Secret>,
    /// `-webSocketHeader`, names unique without regard to case, values free of control characters.
    pub websocket_headers: Vec<(String, String)>,
    /// `-noKeepAlive`.
    pub no_keep_alive: bool,
    /// `-noReconnect`.
    pub no_reconnect: bool,
    /// `-noReconnectAfter`: counted from the first failed attempt of each time the agent is without a connection.
    pub no_reconnect_after: Option<Duration>,
    /// `--first-connect-timeout`; `None` is for ever.
    pub first_connect_timeout: Option<Duration>,
    /// `--grace`: how long a shutdown in order may take after SIGTERM or SIGINT.
    pub grace: Duration,
    /// `--health-address`: where to answer health checks.
    pub health_address: Option<SocketAddr>,
    /// Whether this process runs in a Kubernetes pod (`KUBERNETES_SERVICE_HOST` is set).
    pub in_pod: bool,
    /// The work directory.
    pub work_dir: WorkDirSettings,
    /// The JVM for what is not native.
    pub jvm: JvmSettings,
    /// The log.
    pub log: LogSettings,
    /// `--probe`: look for what keeps the agent from connecting, and do not be one. Secret and name may be missing.
    pub probe: Option<ProbeSettings>,
    /// What was accepted without effect, overridden or deprecated: one line each, to be logged once at INFO.
    pub notes: Vec<String>,
}
