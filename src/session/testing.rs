//! What the tests of this layer share.

use std::time::Duration;

use super::config::{Config, JvmSettings, LogFormat, LogSettings, Transport, WorkDirSettings};

/// What an agent has that was started without options.
pub fn config() -> Config {
    Config {
        transport: Transport::Stdio,
        urls: Vec::new(),
        secret: None,
        name: None,
        tunnel: None,
        instance_identity: None,
        protocols: Vec::new(),
        certs: Vec::new(),
        no_certificate_check: false,
        credentials: None,
        proxy_credentials: None,
        websocket_headers: Vec::new(),
        no_keep_alive: false,
        no_reconnect: false,
        no_reconnect_after: None,
        first_connect_timeout: None,
        grace: Duration::from_secs(10),
        health_address: None,
        in_pod: false,
        work_dir: WorkDirSettings { path: None, internal_dir: "remoting".to_owned(), fail_if_missing: false },
        jvm: JvmSettings::default(),
        log: LogSettings { format: LogFormat::Text, verbosity: 0, agent_log: None },
        probe: None,
        notes: Vec::new(),
    }
}
