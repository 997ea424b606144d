//! The log lines by which scripts and people know where an agent is: the Java agent's texts, word by
//! word (`hudson.remoting.Engine`, `hudson.remoting.Launcher`,
//! `org.jenkinsci.remoting.engine.WorkDirManager`), one function each, all at INFO.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use super::duration;

/// The tracing target of these lines.
pub const TARGET: &str = "agent";

fn status(text: impl Display) {
    tracing::info!(target: TARGET, "{text}");
}

/// Java's `List.toString`.
fn list(urls: &[String]) -> String {
    format!("[{}]", urls.join(", "))
}

/// `Launcher.createEngine`.
pub fn setting_up_agent(name: &str) {
    status(format_args!("Setting up agent: {name}"));
}

/// `Engine.startEngine`.
pub fn using_remoting_version(version: &str) {
    status(format_args!("Using Remoting version: {version}"));
}

/// `WorkDirManager.initializeWorkDir`; the internal directory.
pub fn using_work_dir(internal: &Path) {
    status(format_args!("Using {} as a remoting work directory", internal.display()));
}

/// `WorkDirManager.setupLogging`; the internal directory.
pub fn logs_printed_to(internal: &Path) {
    status(format_args!("Both error and output logs will be printed to {}", internal.display()));
}

/// `WorkDirManager.setupLogging`, with `-agentLog`.
pub fn using_agent_log(file: &Path) {
    status(format_args!(
        "Using {} as an agent error log destination; output log will not be generated",
        file.display()
    ));
}

/// `Engine.innerRun`.
pub fn locating_server(urls: &[String]) {
    status(format_args!("Locating server among {}", list(urls)));
}

/// `JnlpAgentEndpointResolver.resolve`, with `-tunnel`.
pub fn tunneling() {
    status("Remoting TCP connection tunneling is enabled. Skipping the TCP Agent Listener Port availability check");
}

/// `Engine.innerRun`; four lines. `identity` is the fingerprint of the controller's public key.
pub fn agent_discovery_successful(address: &str, port: u16, identity: &str) {
    status(format_args!(
        "Agent discovery successful\n  Agent address: {address}\n  Agent port:    {port}\n  Identity:      {identity}"
    ));
}

/// `Engine.innerRun`.
pub fn handshaking() {
    status("Handshaking");
}

/// `Engine.connectTcp`.
pub fn connecting_to(host: &str, port: u16) {
    status(format_args!("Connecting to {host}:{port}"));
}

/// `Engine.innerRun`.
pub fn trying_protocol(name: &str) {
    status(format_args!("Trying protocol: {name}"));
}

/// `Engine.EngineJnlpConnectionStateListener.beforeProperties`; the fingerprint.
pub fn remote_identity_confirmed(fingerprint: &str) {
    status(format_args!("Remote identity confirmed: {fingerprint}"));
}

/// `Engine.runWebSocket`.
pub fn websocket_open() {
    status("WebSocket connection open");
}

/// The channel is up.
pub fn connected() {
    status("Connected");
}

/// The channel has ended.
pub fn terminated() {
    status("Terminated");
}

/// `Engine.succeedsWithRetries`.
pub fn failed_to_connect(cause: &dyn Display) {
    status(format_args!("Failed to connect: {cause}"));
}

/// `Engine.ExponentialRetry.next`.
pub fn waiting_before_retry(wait: Duration) {
    status(format_args!("Waiting {} before retry", duration::format(wait)));
}

/// `-noReconnectAfter` has passed.
pub fn bailing_out(after: Duration) {
    status(format_args!("Bailing out after {}", duration::format(after)));
}

/// `Engine.reconnect`.
pub fn performing_on_reconnect() {
    status("Performing onReconnect operation.");
}

/// `Engine.reconnect`.
pub fn on_reconnect_completed() {
    status("onReconnect operation completed.");
}

#[cfg(test)]
mod tests {
    use super::super::config::LogFormat;
    use super::*;
    use crate::cli::logging;

    #[test]
    fn texts_are_javas() {
        let text = logging::capture(LogFormat::Text, || {
            let urls = ["http://a/".to_owned(), "http://b/".to_owned()];
            setting_up_agent("n");
            using_remoting_version("3386");
            using_work_dir(Path::new("/w/remoting"));
            logs_printed_to(Path::new("/w/remoting"));
            locating_server(&urls);
            agent_discovery_successful("h", 50000, "aa:bb");
            handshaking();
            connecting_to("h", 50000);
            trying_protocol("JNLP4-connect");
            remote_identity_confirmed("aa:bb");
            websocket_open();
            connected();
            terminated();
            waiting_before_retry(Duration::from_secs(3));
            performing_on_reconnect();
        });
        let lines: Vec<&str> = text.lines().filter(|line| !line.ends_with(" agent")).collect();
        assert_eq!(
            lines,
            [
                "INFO: Setting up agent: n",
                "INFO: Using Remoting version: 3386",
                "INFO: Using /w/remoting as a remoting work directory",
                "INFO: Both error and output logs will be printed to /w/remoting",
                "INFO: Locating server among [http://a/, http://b/]",
                "INFO: Agent discovery successful",
                "  Agent address: h",
                "  Agent port:    50000",
                "  Identity:      aa:bb",
                "INFO: Handshaking",
                "INFO: Connecting to h:50000",
                "INFO: Trying protocol: JNLP4-connect",
                "INFO: Remote identity confirmed: aa:bb",
                "INFO: WebSocket connection open",
                "INFO: Connected",
                "INFO: Terminated",
                "INFO: Waiting 3 seconds before retry",
                "INFO: Performing onReconnect operation.",
            ]
        );
    }
}
