//! The causes that a verdict can name: one table, from which the help text, the exit codes and the pages in
//! `docs/probe` take what they say.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::transport::ExitCode;

macro_rules! causes {
    ($($name:ident = $id:literal, $code:expr, $meaning:literal;)*) => {
        /// Why an agent can't reach its controller. The id is stable: scripts and links go by it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum CauseId {
            $(#[doc = $meaning] #[serde(rename = $id)] $name,)*
        }

        impl CauseId {
            /// Every cause.
            pub const ALL: &[CauseId] = &[$(CauseId::$name,)*];

            /// The id, in kebab case; also the name of its page in `docs/probe`.
            pub fn id(self) -> &'static str {
                match self { $(CauseId::$name => $id,)* }
            }

            /// The exit code of a process that ends because of this. Causes of one kind share one.
            pub fn exit_code(self) -> u8 {
                match self { $(CauseId::$name => $code,)* }
            }

            /// What it means, in a few words.
            pub fn meaning(self) -> &'static str {
                match self { $(CauseId::$name => $meaning,)* }
            }
        }
    };
}

/// The code of a cause that the transport knows too.
macro_rules! code {
    ($name:ident) => {
        ExitCode::$name as u8
    };
}

causes! {
    WorkDirectory = "work-directory", 30, "the work directory can't be written to";
    ClockSkew = "clock-skew", 31, "this machine's clock is wrong";

    ProxySwallows = "proxy-swallows", 32, "a proxy takes what should go directly, or can't reach the controller";
    ProxyUnreachable = "proxy-unreachable", code!(Proxy), "the proxy can't be reached";
    ProxyCredentials = "proxy-credentials", 33, "the proxy wants other credentials";

    DnsNoSuchName = "dns-no-such-name", code!(Dns), "the host name does not exist";
    DnsServerDead = "dns-server-dead", 34, "no name server answers";
    DnsServerFailure = "dns-server-failure", 35, "the name server fails (SERVFAIL, REFUSED)";
    DnsSearchList = "dns-search-list", 36, "the search list of resolv.conf changes what a name means";

    TcpRefused = "tcp-refused", code!(Refused), "nothing listens at the URL's port";
    TcpTimeout = "tcp-timeout", code!(TimedOut), "packets to the URL's port are lost";
    HostUnreachable = "host-unreachable", code!(Unreachable), "the network says that the host can't be reached";
    NetworkUnreachable = "network-unreachable", 37, "there is no route to the controller's network";
    Ipv6Dead = "ipv6-dead", 38, "the IPv6 address comes first and is dead";
    AddressDead = "address-dead", 39, "one address of several is dead";
    TcpSlow = "tcp-slow", 40, "packets are lost or very late";
    MtuBlackHole = "mtu-black-hole", 41, "small packets pass, large ones are lost";

    WrongPort = "wrong-port", 42, "the URL's port is another service's";
    TlsOnPlainPort = "tls-on-plain-port", 43, "the URL says https, the port speaks plain HTTP";
    PlainOnTlsPort = "plain-on-tls-port", 44, "the URL says http, the port speaks TLS";
    TlsUnknownCa = "tls-unknown-ca", code!(Tls), "the server's certificate is of an unknown authority";
    TlsExpired = "tls-expired", 45, "the server's certificate is out of date";
    TlsWrongName = "tls-wrong-name", 46, "the server's certificate is for another name";
    TlsHandshake = "tls-handshake", 47, "TLS can't be agreed on";

    NotJenkins = "not-jenkins", code!(NotJenkins), "what answers is not Jenkins";
    WrongContextPath = "wrong-context-path", 48, "Jenkins is there, but under another path";
    LoginRedirect = "login-redirect", 49, "something before Jenkins wants a login";
    HttpRedirect = "http-redirect", 50, "the URL redirects to another one";
    CaptivePortal = "captive-portal", 51, "a portal answers in place of the controller";
    HttpForbidden = "http-forbidden", 52, "HTTP 401 or 403";
    ControllerStarting = "controller-starting", 53, "the controller is still starting";
    HttpError = "http-error", code!(Http), "an HTTP status other than the one needed";
    HttpTimeout = "http-timeout", 54, "the port takes connections, and no HTTP answer comes";

    AgentPortDisabled = "agent-port-disabled", code!(AgentPortDisabled), "the TCP port for agents is off";
    AgentPortBlocked = "agent-port-blocked", 55, "HTTP works, the TCP port for agents can't be reached";
    AgentPortWrongHost = "agent-port-wrong-host", 56, "the controller tells agents a wrong host";
    AgentPortNotJenkins = "agent-port-not-jenkins", 57, "something else answers at the TCP port for agents";
    Jnlp4Disabled = "jnlp4-disabled", code!(ProtocolNotOffered), "JNLP4-connect is off";
    WrongIdentity = "wrong-identity", code!(IdentityMismatch), "another controller than the expected one";
    RemotingTooOld = "remoting-too-old", code!(RemotingTooOld), "the controller wants a newer remoting";

    WebsocketStripped = "websocket-stripped", 58, "something on the way removes the headers of WebSockets";
    WebsocketUnsupported = "websocket-unsupported", 59, "the controller has no WebSockets for agents";
    WebsocketRefused = "websocket-refused", 60, "the WebSocket is refused";

    SecretWrong = "secret-wrong", code!(Rejected), "the secret is wrong";
    UnknownNode = "unknown-node", 61, "the controller has no such node";
    AlreadyConnected = "already-connected", code!(AlreadyConnected), "an agent of that name is connected";
    IdleCut = "idle-cut", 62, "something on the way cuts idle connections";

    PodNetworkDead = "pod-network-dead", 63, "nothing, or services alone, can be reached from this pod's network";
    PodCidrMismatch = "pod-cidr-mismatch", 64, "pods get addresses that the cluster was not set up for";
    CidrOverlap = "cidr-overlap", 65, "address ranges of pods, services and hosts overlap";
    NetworkPolicy = "network-policy", 66, "a network policy cuts this pod off from the controller";
    ControllerDead = "controller-dead", 67, "the network works, the controller does not answer";

    Inconclusive = "inconclusive", 1, "no cause was found";
}

impl CauseId {
    /// Its page in the repository.
    pub fn docs(self) -> String {
        format!("docs/probe/{}.md", self.id())
    }
}

impl fmt::Display for CauseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

/// The exit codes beyond those of [`ExitCode`], for the help text.
pub fn exit_codes() -> Vec<(u8, &'static str)> {
    CauseId::ALL
        .iter()
        .filter(|cause| cause.exit_code() >= 30)
        .map(|cause| (cause.exit_code(), cause.meaning()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique_and_so_are_codes() {
        let ids: HashSet<_> = CauseId::ALL.iter().map(|cause| cause.id()).collect();
        let codes: HashSet<_> = CauseId::ALL.iter().map(|cause| cause.exit_code()).collect();
        assert_eq!((ids.len(), codes.len()), (CauseId::ALL.len(), CauseId::ALL.len()));
        for cause in CauseId::ALL {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.id());
        }
    }
}
