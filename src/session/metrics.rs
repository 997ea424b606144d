//! `/metrics`: the text format of Prometheus (exposition format 0.0.4).

use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use super::status::Status;
use crate::REMOTING_VERSION;
use crate::process::{launch, system};

/// A text in the making.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    /// Begins a metric.
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A metric with one value.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.metric(name, kind, help);
        self.sample(name, &[], value);
    }
}

/// All metrics. Reads some files of `/proc`.
pub fn text(status: &Status) -> String {
    let mut out = Exposition::default();
    let name = "jenkins_agent_info";
    out.metric(name, "gauge", "The agent's version, and the remoting version that it stands for.");
    out.sample(name, &[("version", env!("CARGO_PKG_VERSION")), ("remoting", REMOTING_VERSION)], 1);
    let connected = u8::from(status.ready().is_ok());
    out.single("jenkins_agent_connected", "gauge", "Whether the channel is up.", connected);
    let connections = status.connections();
    out.single("jenkins_agent_connections_total", "counter", "How often the channel has come up.", connections);
    let reconnects = connections.saturating_sub(1);
    out.single("jenkins_agent_reconnects_total", "counter", "How often it has come up again.", reconnects);
    let name = "jenkins_agent_connect_failures_total";
    out.metric(name, "counter", "Attempts to connect that failed, by the exit code of the cause.");
    for (code, count) in status.failures() {
        out.sample(name, &[("code", &code.to_string())], count);
    }

    let name = "jenkins_agent_call_duration_seconds";
    out.metric(
        name,
        "summary",
        "Calls of the controller's by callable and by who executed them, and how long they took.",
    );
    for (tenant, callable, calls) in status.calls.snapshot() {
        let tenant = tenant.to_string();
        let labels = [("callable", callable.as_str()), ("tenant", &tenant)];
        out.sample(&format!("{name}_sum"), &labels, calls.total.as_secs_f64());
        out.sample(&format!("{name}_count"), &labels, calls.count);
    }

    for (name, help, value) in [
        ("received", "Bytes of the controller's commands, before framing and TLS.", &status.received),
        ("sent", "Bytes of the agent's commands, before framing and TLS.", &status.sent),
    ] {
        let name = format!("jenkins_agent_{name}_bytes_total");
        out.single(&name, "counter", help, value.load(Ordering::Relaxed));
    }
    let help = "How often a writer waited for the controller's window or for the connection.";
    out.single("jenkins_agent_pipe_stalls_total", "counter", help, status.stalls.count());
    let help = "How long writers waited for them.";
    out.single("jenkins_agent_pipe_stall_seconds_total", "counter", help, status.stalls.time().as_secs_f64());

    let help = "Processes that the agent launched and that run.";
    out.single("jenkins_agent_children", "gauge", help, launch::running());
    if let Ok(bytes) = system::resident_bytes() {
        out.single("process_resident_memory_bytes", "gauge", "Resident memory of the agent itself.", bytes);
    }
    let help = "Processor time of the agent itself.";
    out.single("process_cpu_seconds_total", "counter", help, system::cpu_time().as_secs_f64());
    if let Ok(started) = status.started.duration_since(UNIX_EPOCH) {
        let help = "When the agent started, in seconds since 1970.";
        out.single("process_start_time_seconds", "gauge", help, started.as_secs_f64());
    }
    out.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::callables::statistics::Tenant;

    #[test]
    fn labels_are_escaped() {
        let mut out = Exposition::default();
        out.sample("a", &[("b", "x\"\\\n"), ("c", "y")], 2.5);
        assert_eq!(out.0, "a{b=\"x\\\"\\\\\\n\",c=\"y\"} 2.5\n");
    }

    #[test]
    fn every_sample_belongs_to_a_metric_and_every_metric_is_described_once() {
        let status = Status::new(None);
        status.connected("WebSocket");
        status.calls.record(Tenant::Native, "a.B", Duration::from_millis(1500));
        let text = text(&status);
        let mut current = "";
        let mut seen = std::collections::HashSet::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                current = help.split(' ').next().unwrap();
                assert!(seen.insert(current), "{current} twice");
            } else if !line.starts_with("# TYPE ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let name = name.split('{').next().unwrap();
                assert_eq!(name.trim_end_matches("_sum").trim_end_matches("_count"), current, "{line}");
                value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
            }
        }
        for name in ["jenkins_agent_connected", "process_resident_memory_bytes", "process_start_time_seconds"] {
            assert!(seen.contains(name), "{name}");
        }
        let labels = "{callable=\"a.B\",tenant=\"native\"}";
        assert!(text.contains(&format!("\njenkins_agent_call_duration_seconds_sum{labels} 1.5\n")), "{text}");
        assert!(text.contains("\njenkins_agent_reconnects_total 0\n"));
    }
}
