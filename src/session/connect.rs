//! From the configuration to an open connection, over whichever transport.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::config::{CertSource, Config, Transport};
use super::milestones;
use super::run::Environment;
use crate::discovery::{Discovery, Endpoint, HostPort};
use crate::frame::Capability;
use crate::probe::{Target, facts::Way};
use crate::sidecar::jar;
use crate::transport::dial::Dialer;
use crate::transport::http::ControllerUrl;
use crate::transport::identity::{InstanceIdentity, Secret};
use crate::transport::proxy::{Credentials as BasicCredentials, Proxies, Scheme};
use crate::transport::trust::{TlsConfig, TrustOptions};
use crate::transport::{Cause, ConnectError, Connection, jnlp4, stdio, websocket};

/// How long `-tcp` waits for its one connection (`Launcher.runAsTcpServer`).
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects, as often as need be.
pub struct Connector {
    transport: Transport,
    discovery: Discovery,
    name: String,
    secret: Secret,
    direct_identity: Option<InstanceIdentity>,
    protocols: Vec<String>,
    headers: Vec<(String, String)>,
    /// Shown to the controller on reconnect, so that it drops the connection that this one replaces.
    cookie: Option<String>,
    /// The controller's version, where discovery has told it.
    pub controller_version: Option<String>,
}

fn configuration(what: &'static str, why: impl ToString) -> ConnectError {
    ConnectError::new(what, "", Cause::Configuration(why.to_string()))
}

impl Connector {
    /// Takes what the configuration and the environment say about connecting.
    ///
    /// # Errors
    /// If a URL, a certificate, an identity or credentials can't be used.
    pub fn new(config: &Config, environment: &Environment) -> Result<Connector, ConnectError> {
        let variable = |name: &str| {
            let found = environment.iter().find(|(variable, _)| variable == name);
            found.map(|(_, value)| value.into())
        };
        let certs = config.certs.iter().map(|cert| match cert {
            CertSource::File(path) => format!("@{}", path.display()),
            CertSource::Pem(text) => text.clone(),
        });
        let tls = TlsConfig::new(TrustOptions {
            certs: certs.collect(),
            no_certificate_check: config.no_certificate_check,
            ssl_cert_file: variable("SSL_CERT_FILE"),
            ssl_cert_dir: variable("SSL_CERT_DIR"),
        })
        .map_err(|error| configuration("reading -cert", error))?;
        let basic = |option: &Option<super::config::Secret>, name: &'static str| {
            let parse = |secret: &super::config::Secret| BasicCredentials::parse(secret.expose());
            option.as_ref().map(parse).transpose().map_err(|error| configuration(name, error))
        };
        let identity = config.instance_identity.as_deref().map(InstanceIdentity::from_der).transpose();
        let identity = identity.map_err(|cause| ConnectError::new("reading -instanceIdentity", "", cause))?;
        let urls = config.urls.iter().map(|url| ControllerUrl::parse(url)).collect::<Result<Vec<_>, _>>()?;
        let name = config.name.clone().unwrap_or_default();
        let environment = environment.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
        let dialer = Dialer {
            proxies: Proxies::from_env(environment),
            proxy_credentials: basic(&config.proxy_credentials, "reading -proxyCredentials")?,
            keepalive: !config.no_keep_alive,
            ..Dialer::default()
        };
        let discovery = Discovery {
            urls,
            agent_name: name.clone(),
            credentials: basic(&config.credentials, "reading -credentials")?,
            tunnel: config.tunnel.as_ref().map(|t| HostPort { host: t.host.clone(), port: t.port }),
            identity: identity.clone(),
            dialer,
            tls: Arc::new(tls),
        };
        let connector = Connector {
            transport: config.transport.clone(),
            discovery,
            name,
            secret: Secret::new(config.secret.as_ref().map_or("", |secret| secret.expose())),
            direct_identity: identity,
            protocols: config.protocols.clone(),
            headers: config.websocket_headers.clone(),
            cookie: None,
            controller_version: None,
        };
        connector.warn_of_plain_http();
        Ok(connector)
    }

    fn warn_of_plain_http(&self) {
        let web_socket = match self.transport {
            Transport::WebSocket => true,
            Transport::Tcp => false,
            _ => return,
        };
        if let Some(url) = self.discovery.exposed(web_socket) {
            let what = if web_socket { "the agent's secret" } else { "the controller's identity" };
            tracing::warn!(
                target: milestones::TARGET,
                "{url} is plain HTTP: who is on the way can read and replace {what}; use https, or -instanceIdentity"
            );
        }
    }

    /// What a probe has to look at, as far as a connector knows it.
    pub fn target(&self) -> Target {
        let secret = (!self.secret.is_empty()).then(|| self.secret.clone());
        Target {
            way: Way::Tcp,
            discovery: self.discovery.clone(),
            direct: None,
            identity: self.direct_identity.clone(),
            name: Some(self.name.clone()).filter(|name| !name.is_empty()),
            secret,
            headers: self.headers.clone(),
            work_dir: None,
            in_pod: false,
            authenticate: false,
            hold: None,
            timeout: crate::probe::TIMEOUT,
            attempt: None,
        }
    }

    /// Whether a connection that ends is followed by another.
    pub fn can_reconnect(&self) -> bool {
        matches!(self.transport, Transport::Tcp | Transport::WebSocket | Transport::Direct(_))
    }

    /// The beginning of a page of the controller's, by its whole URL.
    ///
    /// # Errors
    /// Why it can't be had.
    pub async fn page(&self, url: &str) -> Result<Vec<u8>, ConnectError> {
        self.discovery.page(url).await
    }

    /// Where the jar for a JVM comes from, unless it was given.
    ///
    /// # Errors
    /// If this connection has no URL.
    pub fn remoting_jar(&self) -> Result<jar::Source, String> {
        match self.transport {
            Transport::Tcp | Transport::WebSocket => {}
            _ => return Err("the controller's agent.jar can't be had without -url; give --remoting-jar".to_owned()),
        }
        let discovery = self.discovery.clone();
        Ok(jar::Source::Controller(Arc::new(move || {
            let discovery = discovery.clone();
            Box::pin(async move {
                let downloaded = discovery.download(jar::PATH, jar::MAX_SIZE, jar::DOWNLOAD_TIME).await;
                downloaded.map_err(|error| error.to_string())
            })
        })))
    }

    /// One attempt.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let connection = match self.transport.clone() {
            Transport::Tcp => {
                let urls: Vec<_> = self.discovery.urls.iter().map(ToString::to_string).collect();
                milestones::locating_server(&urls);
                let endpoint = self.discovery.endpoint().await?;
                self.tcp(endpoint).await
            }
            Transport::Direct(at) => {
                let identity = self.direct_identity.clone();
                let identity =
                    identity.ok_or_else(|| configuration("connecting", "-direct needs -instanceIdentity"))?;
                let bracket = if at.host.contains(':') { ["[", "]"] } else { ["", ""] };
                let at = format!("{}{}{}:{}", bracket[0], at.host, bracket[1], at.port);
                let endpoint = Endpoint::direct(&at, identity, &self.protocols)?;
                self.tcp(endpoint).await
            }
            Transport::WebSocket => self.web_socket().await,
            Transport::Stdio => {
                let (input, output) = (tokio::io::stdin(), tokio::io::stdout());
                stdio::connect(input, output, Capability::OURS, stdio::NEGOTIATION_TIMEOUT).await
            }
            Transport::ConnectTo(at) => {
                let stream = self.discovery.dialer.connect(Scheme::Agent, &at.host, at.port).await?;
                over_socket(stream).await
            }
            Transport::ListenTcp(file) => {
                let accepted = accept_one(&file).await;
                let stream = accepted.map_err(|error| {
                    ConnectError::new("waiting for a connection announced in", file.display().to_string(), error)
                })?;
                over_socket(stream).await
            }
            Transport::Jnlp(_) => Err(configuration("connecting", "-jnlpUrl was not resolved")),
        }?;
        if connection.peer.cookie.is_some() {
            self.cookie.clone_from(&connection.peer.cookie);
        }
        milestones::connected();
        Ok(connection)
    }

    async fn tcp(&mut self, endpoint: Endpoint) -> Result<Connection, ConnectError> {
        milestones::agent_discovery_successful(&endpoint.host, endpoint.port, &endpoint.identity.fingerprint());
        self.controller_version.clone_from(&endpoint.controller_version);
        if self.discovery.tunnel.is_some() {
            milestones::tunneling();
        }
        milestones::handshaking();
        milestones::connecting_to(&endpoint.host, endpoint.port);
        let stream = self.discovery.dialer.connect(Scheme::Agent, &endpoint.host, endpoint.port).await;
        let stream = stream.map_err(|error| told_by(error, &endpoint.origin))?;
        milestones::trying_protocol("JNLP4-connect");
        let credentials = jnlp4::Credentials {
            node_name: self.name.clone(),
            secret: self.secret.clone(),
            cookie: self.cookie.clone(),
        };
        let address = format!("{}:{}", endpoint.host, endpoint.port);
        let handshake = jnlp4::HANDSHAKE_TIMEOUT;
        let identity = &endpoint.identity;
        let connection = jnlp4::connect(stream, &address, identity, &credentials, Capability::OURS, handshake).await?;
        milestones::remote_identity_confirmed(&identity.fingerprint());
        Ok(connection)
    }

    async fn web_socket(&mut self) -> Result<Connection, ConnectError> {
        // Java waits for the controller to be up before it shows the secret; so a start never counts as a refusal.
        self.discovery.ready().await?;
        let url = self.discovery.urls.first().cloned().ok_or_else(|| configuration("connecting", "no -url"))?;
        let options = websocket::Options {
            url,
            agent_name: self.name.clone(),
            secret: self.secret.clone(),
            cookie: self.cookie.clone(),
            headers: self.headers.clone(),
        };
        let connection = websocket::connect(&self.discovery.dialer, &self.discovery.tls, &options).await?;
        milestones::websocket_open();
        Ok(connection)
    }
}

/// Says where a host and port came from that could not be reached.
fn told_by(mut error: ConnectError, origin: &str) -> ConnectError {
    error.address = format!("{} ({origin})", error.address);
    error
}

async fn over_socket(stream: TcpStream) -> Result<Connection, ConnectError> {
    let (input, output) = stream.into_split();
    stdio::connect(input, output, Capability::OURS, stdio::NEGOTIATION_TIMEOUT).await
}

async fn accept_one(file: &std::path::Path) -> io::Result<TcpStream> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    std::fs::write(file, listener.local_addr()?.port().to_string())?;
    let accepted = tokio::time::timeout(ACCEPT_TIMEOUT, listener.accept()).await;
    let (stream, _) = accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::logging;
    use crate::session::config::LogFormat;
    use crate::session::testing;
    use crate::transport::proxy::Decision;

    fn config(transport: Transport, url: &str) -> Config {
        Config { transport, urls: vec![url.to_owned()], ..testing::config() }
    }

    #[test]
    fn proxies_and_trust_are_those_of_the_environment_given() {
        let environment = [("https_proxy", "http://proxy:3128"), ("no_proxy", "b"), ("SSL_CERT_FILE", "/nonexistent")];
        let environment = environment.map(|(name, value)| (name.into(), value.into()));
        let connector = Connector::new(&config(Transport::WebSocket, "https://a/"), &environment).unwrap();
        let proxies = &connector.discovery.dialer.proxies;
        assert!(matches!(proxies.decide(Scheme::Https, "a", 443), Decision::Via { .. }));
        assert!(matches!(proxies.decide(Scheme::Https, "b", 443), Decision::Direct { .. }));
        let error = connector.discovery.tls.roots().unwrap_err().to_string();
        assert!(error.contains("/nonexistent"), "{error}");
    }

    #[test]
    fn a_secret_or_identity_that_others_can_read_is_warned_of_once() {
        let pinned = || {
            let identity = crate::demo::controller::IDENTITY.trim();
            let identity = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, identity).unwrap();
            Config { instance_identity: Some(identity), ..config(Transport::Tcp, "http://a/") }
        };
        for (config, warned) in [
            (config(Transport::WebSocket, "http://a/"), Some("the agent's secret")),
            (config(Transport::Tcp, "http://a/"), Some("the controller's identity")),
            (config(Transport::WebSocket, "https://a/"), None),
            (config(Transport::WebSocket, "http://127.0.0.1/"), None),
            (pinned(), None),
        ] {
            let log = logging::capture(LogFormat::Text, || drop(Connector::new(&config, &[]).unwrap()));
            let warnings: Vec<_> = log.lines().filter(|line| line.starts_with("WARN")).collect();
            assert_eq!(warnings.len(), usize::from(warned.is_some()), "{log}");
            assert!(warned.is_none_or(|what| warnings[0].contains(what)), "{log}");
        }
    }
}
