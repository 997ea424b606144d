//! What goes wrong on the way to a controller, in the words of whoever has to fix it.

use crate::frame::FrameError;
use std::{borrow::Cow, fmt, io, time::Duration};

/// A connection that did not come about: what was being done, with whom, and why it failed. Displays as one plain line.
#[derive(Debug, thiserror::Error)]
pub struct ConnectError {
    /// What was being done, such that the address can follow: "connecting to", "resolving", "TLS handshake with".
    pub doing: Cow<'static, str>,
    /// The address, URL or path it was done to; empty where there is none.
    pub address: String,
    /// Why it failed.
    pub cause: Cause,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        if !self.address.is_empty() {
            write!(f, " {}", self.address)?;
        }
        write!(f, ": {}", self.cause)
    }
}

impl ConnectError {
    /// An error with all its parts.
    pub fn new(doing: impl Into<Cow<'static, str>>, address: impl Into<String>, cause: impl Into<Cause>) -> Self {
        ConnectError { doing: doing.into(), address: address.into(), cause: cause.into() }
    }

    /// Whether trying again without a change on somebody's side is pointless. See [`Cause::is_definite`].
    pub fn is_definite(&self) -> bool {
        self.cause.is_definite()
    }

    /// What to do about it, as one sentence. See [`Cause::next_step`].
    pub fn next_step(&self) -> Cow<'static, str> {
        self.cause.next_step()
    }

    /// The exit code of a process that gives up because of this error.
    pub fn exit_code(&self) -> ExitCode {
        self.cause.exit_code()
    }
}

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The host name has no address, or the name server didn't say.
    #[error("the host name can't be resolved: {0}")]
    Dns(String),
    /// The host answered that nothing listens there.
    #[error("connection refused")]
    Refused,
    /// Nothing came back within this time.
    #[error("timed out after {}", Seconds(*.0))]
    TimedOut(Duration),
    /// The network said that it can't deliver there.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// Another failure of the operating system's.
    #[error("{0}")]
    Io(io::Error),
    /// TLS could not be agreed on, or the certificate isn't trusted.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// An HTTP answer other than the one needed.
    #[error("HTTP {status}{}{message}", if .message.is_empty() { "" } else { ": " })]
    Http {
        /// The status code.
        status: u16,
        /// What the answer says in plain text: the reason phrase, or the body's first line.
        message: String,
    },
    /// Something answers, but it isn't a Jenkins controller. The text says how that was seen.
    #[error("this is no Jenkins controller: {0}")]
    NotJenkins(String),
    /// The controller has its TCP port for agents switched off (or isn't up yet).
    #[error("the controller's TCP port for inbound agents is disabled, or it is still starting")]
    AgentPortDisabled,
    /// The controller does not speak the protocol that we need.
    #[error("the controller does not offer JNLP4-connect{}{offered}", if .offered.is_empty() { "" } else { ", but " })]
    ProtocolNotOffered {
        /// The protocols offered, as the controller lists them; empty where it didn't say.
        offered: String,
    },
    /// The controller wants a newer remoting than this agent speaks.
    #[error("the controller asks for remoting {minimum} or newer")]
    RemotingTooOld {
        /// The controller's minimum.
        minimum: String,
    },
    /// The controller refuses this agent for good: wrong secret, no such agent.
    #[error("the controller refused this agent: {message}")]
    Rejected {
        /// The controller's own words.
        message: String,
    },
    /// The controller holds a connection of this agent's name already.
    #[error("the controller refused this agent for now: {message}")]
    AlreadyConnected {
        /// The controller's own words.
        message: String,
    },
    /// The controller refused in words that don't tell whether that is for good.
    #[error("the controller refused the connection: {message}")]
    TryLater {
        /// The controller's own words.
        message: String,
    },
    /// Whoever answered is not the controller whose identity was expected.
    #[error("not the expected controller: its identity is {found}, expected {expected}")]
    IdentityMismatch {
        /// Fingerprint of the expected public key.
        expected: String,
        /// Fingerprint of the key in the certificate presented, or what is wrong with it.
        found: String,
    },
    /// A proxy on the way failed or refused.
    #[error("proxy {proxy}: {message}")]
    Proxy {
        /// The proxy's address, without credentials.
        proxy: String,
        /// What went wrong there.
        message: String,
    },
    /// What we were told to do makes no sense.
    #[error("{0}")]
    Configuration(String),
    /// The other end said something that the protocol does not allow.
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// The other end closed the connection without saying why.
    #[error("the connection was closed without a reason given")]
    Closed,
}

impl Cause {
    /// A name for it, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Cause::Dns(_) => "dns",
            Cause::Refused => "refused",
            Cause::TimedOut(_) => "timed-out",
            Cause::Unreachable(_) => "unreachable",
            Cause::Io(_) => "io",
            Cause::Tls(_) => "tls",
            Cause::Http { .. } => "http",
            Cause::NotJenkins(_) => "not-jenkins",
            Cause::AgentPortDisabled => "agent-port-disabled",
            Cause::ProtocolNotOffered { .. } => "protocol-not-offered",
            Cause::RemotingTooOld { .. } => "remoting-too-old",
            Cause::Rejected { .. } => "rejected",
            Cause::AlreadyConnected { .. } => "already-connected",
            Cause::TryLater { .. } => "try-later",
            Cause::IdentityMismatch { .. } => "identity-mismatch",
            Cause::Proxy { .. } => "proxy",
            Cause::Configuration(_) => "configuration",
            Cause::Protocol(_) => "protocol",
            Cause::Closed => "closed",
        }
    }

    /// Whether trying again without a change on somebody's side is pointless: the refusals that name this agent, this
    /// version or this configuration. Everything that a controller's restart, a network's recovery or patience can
    /// heal is not definite.
    pub fn is_definite(&self) -> bool {
        matches!(
            self,
            Cause::Rejected { .. }
                | Cause::RemotingTooOld { .. }
                | Cause::IdentityMismatch { .. }
                | Cause::Configuration(_)
        )
    }

    /// What to do about it: one sentence.
    pub fn next_step(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Cause::Dns(_) => "Check the spelling of the host name and the name server of this machine or pod.",
            Cause::Refused => "Check that the controller is running and that host and port are the ones it listens on.",
            Cause::TimedOut(_) => {
                "Check firewalls, network policies and security groups between here and there: packets are dropped, or the host is down."
            }
            Cause::Unreachable(_) => "Check this machine's routes and the address: the network has no way there.",
            Cause::Io(_) => "Check the network of this machine, and the controller's log of the same moment.",
            Cause::Tls(error) => return tls_next_step(error),
            Cause::Http { status, .. } => match status {
                401 | 403 => "Check what stands before the controller: it wants a login that agents don't have.",
                404 => "Check the URL, its path included: it must be the one under which users reach Jenkins.",
                407 => "Give the proxy's credentials in its URL.",
                300..=399 => "Use the URL that it redirects to.",
                500..=599 => "Wait for the controller to come up, and look into its log and its reverse proxy's.",
                _ => "Check the URL, and what stands between here and the controller.",
            },
            Cause::NotJenkins(_) => "Check the URL: it must be the one under which users reach Jenkins.",
            Cause::AgentPortDisabled => {
                "Connect with -webSocket, or enable the TCP port for inbound agents under Manage Jenkins, Security."
            }
            Cause::ProtocolNotOffered { .. } => {
                "Enable the Inbound TCP Agent Protocol/4 under Manage Jenkins, Security, or connect with -webSocket."
            }
            Cause::RemotingTooOld { .. } => "Use a newer version of this agent.",
            Cause::Rejected { .. } => {
                "Check the agent's name and secret on its page in Jenkins: both must come from this controller."
            }
            Cause::AlreadyConnected { .. } => {
                "Stop the other agent of this name, or wait until the controller has noticed that the old connection is dead."
            }
            Cause::TryLater { .. } => "Look into the controller's log of the same moment.",
            Cause::IdentityMismatch { .. } => {
                "Check that host, port and tunnel lead to the right controller; if its identity has been renewed, give the new -instanceIdentity."
            }
            Cause::Proxy { .. } => "Check the proxy's URL and credentials, and whether this host belongs in NO_PROXY.",
            Cause::Configuration(_) => "Correct the option or variable named above.",
            Cause::Protocol(_) => {
                "Check that the port is the controller's port for inbound agents, and that no proxy changes what passes."
            }
            Cause::Closed => {
                "Look into the controller's log of the same moment, and for a load balancer that cuts connections."
            }
        })
    }

    /// The exit code of a process that gives up because of this.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Cause::Configuration(_) => ExitCode::Configuration,
            Cause::Dns(_) => ExitCode::Dns,
            Cause::Refused => ExitCode::Refused,
            Cause::TimedOut(_) => ExitCode::TimedOut,
            Cause::Unreachable(_) => ExitCode::Unreachable,
            Cause::Tls(_) => ExitCode::Tls,
            Cause::Proxy { .. } => ExitCode::Proxy,
            Cause::Http { .. } => ExitCode::Http,
            Cause::NotJenkins(_) => ExitCode::NotJenkins,
            Cause::AgentPortDisabled => ExitCode::AgentPortDisabled,
            Cause::ProtocolNotOffered { .. } => ExitCode::ProtocolNotOffered,
            Cause::RemotingTooOld { .. } => ExitCode::RemotingTooOld,
            Cause::Rejected { .. } => ExitCode::Rejected,
            Cause::AlreadyConnected { .. } => ExitCode::AlreadyConnected,
            Cause::IdentityMismatch { .. } => ExitCode::IdentityMismatch,
            Cause::TryLater { .. } => ExitCode::TryLater,
            Cause::Protocol(_) => ExitCode::Protocol,
            Cause::Closed => ExitCode::Closed,
            Cause::Io(_) => ExitCode::Io,
        }
    }

    /// The cause behind an IO error of a connection attempt that took this long: the kernel's own timeout becomes
    /// [`Cause::TimedOut`]. The rest is as with `From<io::Error>`.
    pub fn from_io(error: io::Error, waited: Duration) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Cause::TimedOut(waited),
            _ => Cause::from(error),
        }
    }
}

impl From<io::Error> for Cause {
    /// The cause behind an IO error. A TLS error inside is found; a name that can't be resolved is not, as the standard
    /// library has no kind for it.
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as K;
        match error.kind() {
            K::ConnectionRefused => Cause::Refused,
            K::HostUnreachable | K::NetworkUnreachable | K::NetworkDown | K::AddrNotAvailable => {
                Cause::Unreachable(error.to_string())
            }
            K::UnexpectedEof => Cause::Closed,
            _ => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(tls) => Cause::Tls(tls.clone()),
                None => Cause::Io(error),
            },
        }
    }
}

impl From<rustls::Error> for Cause {
    fn from(error: rustls::Error) -> Self {
        Cause::Tls(error)
    }
}

fn tls_next_step(error: &rustls::Error) -> Cow<'static, str> {
    use rustls::{AlertDescription, CertificateError as C, Error as E};
    Cow::Borrowed(match error {
        E::InvalidCertificate(C::UnknownIssuer) => {
            "Give the certificate authority with -cert @FILE, or add it to this machine's trust store."
        }
        E::InvalidCertificate(
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
        ) => "Renew the server's certificate, or set this machine's clock.",
        E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            "Use a host name that the server's certificate is made out to."
        }
        E::InvalidMessage(_) => "Check that this port speaks TLS, and that no proxy answers in its place.",
        E::PeerIncompatible(_)
        | E::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion) => {
            "Enable TLS 1.2 or 1.3 with a current cipher suite on the other side."
        }
        _ => "Check the server's certificate and TLS settings.",
    })
}

/// A duration as people say it: "10 s", "250 ms".
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_millis() == 0 {
            write!(f, "{} s", self.0.as_secs())
        } else if self.0.as_secs() == 0 {
            write!(f, "{} ms", self.0.as_millis())
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f32())
        }
    }
}

/// Exit codes of a process that could not connect, one per cause. 1 and 2 are left to bugs and to the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// An option or variable makes no sense.
    Configuration = 10,
    /// The host name can't be resolved.
    Dns = 11,
    /// Nothing listens there.
    Refused = 12,
    /// No answer in time.
    TimedOut = 13,
    /// No route.
    Unreachable = 14,
    /// TLS failed or a certificate isn't trusted.
    Tls = 15,
    /// A proxy failed or refused.
    Proxy = 16,
    /// An HTTP status other than the one needed.
    Http = 17,
    /// What answers isn't Jenkins.
    NotJenkins = 18,
    /// The TCP port for agents is off.
    AgentPortDisabled = 19,
    /// JNLP4-connect is off.
    ProtocolNotOffered = 20,
    /// The controller wants a newer remoting.
    RemotingTooOld = 21,
    /// Wrong secret, or no such agent.
    Rejected = 22,
    /// An agent of that name is connected.
    AlreadyConnected = 23,
    /// Another controller than the expected one.
    IdentityMismatch = 24,
    /// Refused in words that we don't know.
    TryLater = 25,
    /// An answer that the protocol does not allow.
    Protocol = 26,
    /// Closed without a reason.
    Closed = 27,
    /// Another failure of the operating system's.
    Io = 28,
}

impl ExitCode {
    /// All codes with what each says, for the help text.
    pub const ALL: &[(ExitCode, &str)] = &[
        (ExitCode::Configuration, "an option or variable makes no sense"),
        (ExitCode::Dns, "the host name can't be resolved"),
        (ExitCode::Refused, "nothing listens there"),
        (ExitCode::TimedOut, "no answer in time"),
        (ExitCode::Unreachable, "no route"),
        (ExitCode::Tls, "TLS failed or a certificate isn't trusted"),
        (ExitCode::Proxy, "a proxy failed or refused"),
        (ExitCode::Http, "an HTTP status other than the one needed"),
        (ExitCode::NotJenkins, "what answers isn't Jenkins"),
        (ExitCode::AgentPortDisabled, "the TCP port for agents is off"),
        (ExitCode::ProtocolNotOffered, "JNLP4-connect is off"),
        (ExitCode::RemotingTooOld, "the controller wants a newer remoting"),
        (ExitCode::Rejected, "wrong secret, or no such agent"),
        (ExitCode::AlreadyConnected, "an agent of that name is connected"),
        (ExitCode::IdentityMismatch, "another controller than the expected one"),
        (ExitCode::TryLater, "refused in words that we don't know"),
        (ExitCode::Protocol, "an answer that the protocol does not allow"),
        (ExitCode::Closed, "closed without a reason"),
        (ExitCode::Io, "another failure of the operating system's"),
    ];

    /// The number for `std::process::exit`.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        std::process::ExitCode::from(code.code())
    }
}

/// Why an open connection can't be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The operating system or TLS reports a failure.
    #[error("{doing} {address}: {source}")]
    Io {
        /// "reading from" or "writing to".
        doing: &'static str,
        /// The peer.
        address: String,
        /// What was reported.
        source: io::Error,
    },
    /// The peer took no byte for too long.
    #[error("writing to {address}: nothing accepted for {} s", .after.as_secs())]
    WriteStalled {
        /// The peer.
        address: String,
        /// How long.
        after: Duration,
    },
    /// The peer broke the framing of commands.
    #[error("reading from {address}: {source}")]
    Frame {
        /// The peer.
        address: String,
        /// How.
        source: FrameError,
    },
    /// The peer broke, or ended, the protocol below commands, such as a WebSocket's.
    #[error("connection to {address}: {message}")]
    Protocol {
        /// The peer.
        address: String,
        /// What happened.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn causes() -> Vec<Cause> {
        let text = || "text".to_owned();
        vec![
            Cause::Configuration(text()),
            Cause::Dns(text()),
            Cause::Refused,
            Cause::TimedOut(Duration::from_secs(10)),
            Cause::Unreachable(text()),
            Cause::Tls(rustls::Error::DecryptError),
            Cause::Proxy { proxy: text(), message: text() },
            Cause::Http { status: 503, message: text() },
            Cause::NotJenkins(text()),
            Cause::AgentPortDisabled,
            Cause::ProtocolNotOffered { offered: text() },
            Cause::RemotingTooOld { minimum: text() },
            Cause::Rejected { message: text() },
            Cause::AlreadyConnected { message: text() },
            Cause::IdentityMismatch { expected: text(), found: text() },
            Cause::TryLater { message: text() },
            Cause::Protocol(text()),
            Cause::Closed,
            Cause::Io(io::Error::other("text")),
        ]
    }

    #[test]
    fn each_cause_has_an_exit_code_of_its_own_and_one_plain_sentence() {
        let codes: Vec<u8> = causes().iter().map(|cause| cause.exit_code().code()).collect();
        assert_eq!(codes, (10..=28).collect::<Vec<u8>>());
        for cause in causes() {
            let line = ConnectError::new("connecting to", "host:1", cause).to_string();
            assert!(line.starts_with("connecting to host:1: ") && !line.contains('\n'), "{line}");
        }
        for cause in causes() {
            let step = cause.next_step();
            assert!(step.ends_with('.') && !step.contains(". "), "{step}");
        }
    }

    #[test]
    fn lines_as_users_see_them() {
        let cases = [
            (
                ConnectError::new(
                    "connecting to",
                    "ci.example.com:50000 (10.0.0.5)",
                    Cause::TimedOut(Duration::from_secs(10)),
                ),
                "connecting to ci.example.com:50000 (10.0.0.5): timed out after 10 s",
            ),
            (
                ConnectError::new("reading options", "", Cause::Configuration("-secret is missing".into())),
                "reading options: -secret is missing",
            ),
            (
                ConnectError::new("asking", "http://h/", Cause::Http { status: 502, message: String::new() }),
                "asking http://h/: HTTP 502",
            ),
            (
                ConnectError::new("asking", "http://h/", Cause::ProtocolNotOffered { offered: String::new() }),
                "asking http://h/: the controller does not offer JNLP4-connect",
            ),
            (
                ConnectError::new("asking", "http://h/", Cause::ProtocolNotOffered { offered: "Ping".into() }),
                "asking http://h/: the controller does not offer JNLP4-connect, but Ping",
            ),
        ];
        for (error, line) in cases {
            assert_eq!(error.to_string(), line);
        }
        assert_eq!(Seconds(Duration::from_millis(250)).to_string(), "250 ms");
        assert_eq!(Seconds(Duration::from_millis(2500)).to_string(), "2.5 s");
    }

    #[test]
    fn io_errors_are_told_apart() {
        use io::ErrorKind as K;
        let exit = |kind: K| Cause::from_io(kind.into(), Duration::from_secs(3)).exit_code();
        assert_eq!(exit(K::ConnectionRefused), ExitCode::Refused);
        assert_eq!(exit(K::TimedOut), ExitCode::TimedOut);
        assert_eq!(exit(K::HostUnreachable), ExitCode::Unreachable);
        assert_eq!(exit(K::UnexpectedEof), ExitCode::Closed);
        assert_eq!(exit(K::ConnectionReset), ExitCode::Io);
        let tls = io::Error::new(K::InvalidData, rustls::Error::DecryptError);
        assert!(matches!(Cause::from(tls), Cause::Tls(rustls::Error::DecryptError)));
    }
}
