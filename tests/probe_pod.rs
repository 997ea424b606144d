//! `agent probe-pod` and its fellows as processes: a script stands in for `kubectl`, and the pods' logs are reports of
//! real probes.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Keeps what it creates in a directory, and answers with what lies there: `NAME.pod` (a pod as the API shows it, by
/// default one that has ended), `NAME.log`, `NAME.events`. NAME is `pod` or `host`. Calls are noted in `calls`.
const KUBECTL: &str = r#"#!/bin/sh
dir=${0%/*}
echo "$*" >> "$dir/calls"
while [ "${1#--}" != "$1" ]; do
    case "$1" in
    --request-timeout=*) shift ;;
    *) shift 2 ;;
    esac
done
verb=$1
for last; do
    case "$last" in
    *-pod) side=pod ;;
    *-host) side=host ;;
    esac
done
case "$verb" in
create)
    input=$(cat)
    case "$input" in
    *'"hostNetwork":true'*) side=host ;;
    *) side=pod ;;
    esac
    if [ -e "$dir/$side.forbidden" ]; then cat "$dir/$side.forbidden" >&2; exit 1; fi
    printf '%s' "$input" > "$dir/$side.created"
    ;;
get)
    case "$*" in
    *events*) cat "$dir/events" 2>/dev/null || echo '{"items": []}' ;;
    *) cat "$dir/$side.pod" 2>/dev/null || echo '{"spec": {"nodeName": "node-1"}, "status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 13}}}]}}' ;;
    esac
    ;;
logs) cat "$dir/$side.log" ;;
delete) : ;;
esac
"#;

const AGENT: &str = env!("CARGO_BIN_EXE_agent");

fn cluster() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let kubectl = dir.path().join("kubectl");
    fs::write(&kubectl, KUBECTL).unwrap();
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn agent(arguments: &[&str]) -> Command {
    let mut command = Command::new(AGENT);
    command.args(arguments).env_clear().stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    agent(arguments).output().unwrap()
}

fn probe_pod(dir: &Path, more: &[&str]) -> Output {
    let kubectl = dir.join("kubectl").display().to_string();
    let mut arguments = vec!["probe-pod", "--image", "agent:1", "-n", "ci", "--apply", "--kubectl", &kubectl, "--json"];
    arguments.extend(more);
    arguments.extend(["--", "-url", "http://jenkins:8080/"]);
    run(&arguments)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What a probe of a port where nothing listens prints.
fn report_of_a_dead_controller() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = run(&["-url", &format!("http://127.0.0.1:{port}/"), "--probe=json", "--probe-timeout", "5s"]);
    let report = text(&output.stdout).to_owned();
    let value: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(value["verdict"]["id"], "tcp-refused", "{report}");
    assert_eq!(output.status.code(), Some(12));
    report
}

/// The same, made out to have come out well.
fn well(report: &str) -> String {
    let mut value: Value = serde_json::from_str(report).unwrap();
    value["verdict"] =
        serde_json::json!({"id": "ok", "exit_code": 0, "confidence": "certain", "sentence": "All is well."});
    value["checks"] = serde_json::json!([]);
    value.to_string()
}

#[test]
fn both_pods_are_made_compared_and_deleted() {
    let dir = cluster();
    let report = report_of_a_dead_controller();
    fs::write(dir.path().join("pod.log"), format!("a line before\n{report}and one behind\n")).unwrap();
    fs::write(dir.path().join("host.log"), &report).unwrap();
    let output = probe_pod(dir.path(), &[]);
    let comparison: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(comparison["verdict"]["id"], "tcp-refused");
    assert!(
        comparison["verdict"]["sentence"].as_str().unwrap().starts_with("From the pod network and the host's alike")
    );
    assert_eq!(output.status.code(), Some(12));

    // The scheduler chose for the first, and the second was put there.
    let created = |side: &str| -> Value {
        serde_json::from_slice(&fs::read(dir.path().join(format!("{side}.created"))).unwrap()).unwrap()
    };
    let (pod, host) = (created("pod"), created("host"));
    assert_eq!(pod["spec"].get("nodeName"), None);
    assert_eq!(host["spec"]["nodeName"], "node-1");
    assert_eq!(
        pod["spec"]["containers"][0]["args"],
        serde_json::json!(["--probe=json", "-url", "http://jenkins:8080/"])
    );
    let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
    assert!(calls.lines().all(|call| call.starts_with("--namespace ci --request-timeout=")), "{calls}");
    let delete = calls.lines().last().unwrap();
    for pod in [&pod, &host] {
        assert!(
            delete.contains(" delete pod ") && delete.contains(pod["metadata"]["name"].as_str().unwrap()),
            "{calls}"
        );
    }

    fs::write(dir.path().join("host.log"), well(&report)).unwrap();
    let output = probe_pod(dir.path(), &["--keep"]);
    let comparison: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(comparison["host"]["verdict"]["id"], "ok");
    assert_eq!(comparison["verdict"]["id"], "tcp-refused");
    let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
    assert_eq!(calls.matches(" delete ").count(), 1, "{calls}");
}

#[test]
fn a_pod_that_gets_no_network() {
    let dir = cluster();
    fs::write(dir.path().join("host.log"), well(&report_of_a_dead_controller())).unwrap();
    fs::write(dir.path().join("pod.pod"), r#"{"spec": {"nodeName": "node-1"}, "status": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}}"#).unwrap();
    fs::write(dir.path().join("events"), r#"{"items": [{"reason": "FailedCreatePodSandBox", "message": "plugin type=\"flannel\" failed (add): open /run/flannel/subnet.env: no such file or directory"}]}"#).unwrap();
    let begun = Instant::now();
    let output = probe_pod(dir.path(), &[]);
    assert!(begun.elapsed() < Duration::from_secs(20), "it need not wait for the time to be up");
    let comparison: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((comparison["verdict"]["id"].as_str(), output.status.code()), (Some("pod-network-dead"), Some(63)));
    assert!(comparison["pod"]["missing"].as_str().unwrap().contains("subnet.env"));
}

#[test]
fn pods_that_bring_no_report() {
    let dir = cluster();
    fs::write(
        dir.path().join("host.forbidden"),
        "Error from server (Forbidden): violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)",
    )
    .unwrap();
    fs::write(dir.path().join("pod.log"), "exec format error\n").unwrap();
    let output = probe_pod(dir.path(), &[]);
    let comparison: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((comparison["verdict"]["id"].as_str(), output.status.code()), (Some("inconclusive"), Some(1)));
    assert!(comparison["host"]["missing"].as_str().unwrap().contains("violates PodSecurity"));
    assert!(comparison["pod"]["missing"].as_str().unwrap().contains("exec format error"));

    fs::write(dir.path().join("pod.forbidden"), "Error from server (Forbidden): pods is forbidden").unwrap();
    let output = probe_pod(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("pods is forbidden"), "{}", text(&output.stderr));

    let output =
        run(&["probe-pod", "--image", "x", "--apply", "--kubectl", "/nonexistent/kubectl", "--", "-url", "http://x/"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("there is no such program"), "{}", text(&output.stderr));
}

#[test]
fn an_interrupt_deletes_the_pods() {
    let dir = cluster();
    let waiting = r#"{"spec": {"nodeName": "node-1"}, "status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}}"#;
    fs::write(dir.path().join("pod.pod"), waiting).unwrap();
    fs::write(dir.path().join("host.pod"), waiting).unwrap();
    let kubectl = dir.path().join("kubectl").display().to_string();
    let mut child = agent(&["probe-pod", "--image", "x", "--apply", "--kubectl", &kubectl, "--", "-url", "http://x/"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !dir.path().join("host.created").exists() {
        assert!(Instant::now() < end, "no pod was made");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(fs::read_to_string(dir.path().join("calls")).unwrap().lines().last().unwrap().contains(" delete pod "));
}

#[test]
fn a_manifest_is_printed_without_any_cluster() {
    let output = run(&[
        "probe-pod",
        "--image",
        "agent:1",
        "--node",
        "node-1",
        "--",
        "-url",
        "http://jenkins:8080/",
        "-webSocket",
    ]);
    assert_eq!(output.status.code(), Some(0));
    let manifest = text(&output.stdout);
    assert_eq!(manifest.matches("---\n").count(), 2);
    assert_eq!(manifest.matches("hostNetwork: true\n").count(), 1);
    assert_eq!(manifest.matches("nodeName: node-1\n").count(), 2);
    for arguments in [
        &["probe-pod"][..],
        &["probe-pod", "--image", "x", "--", "-nonsense"],
        &["probe-compare", "x"],
        &["probe-listen", "x"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    for command in ["probe-pod", "probe-compare", "probe-listen"] {
        let output = run(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(text(&output.stdout).contains("Exit code: "), "{command}");
    }
}

#[test]
fn files_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let (pod, host) = (dir.path().join("pod.json"), dir.path().join("host.json"));
    let report = report_of_a_dead_controller();
    fs::write(&pod, &report).unwrap();
    fs::write(&host, well(&report)).unwrap();
    let (pod, host) = (pod.display().to_string(), host.display().to_string());
    let output = run(&["probe-compare", &pod, &host]);
    assert_eq!(output.status.code(), Some(12));
    assert!(text(&output.stdout).starts_with("tcp-refused "), "{}", text(&output.stdout));
    let output = run(&["probe-compare", &host, &pod]);
    assert_eq!(output.status.code(), Some(0));
    let output = run(&["probe-compare", "/nonexistent", &pod]);
    assert_eq!((output.status.code(), text(&output.stderr).contains("/nonexistent")), (Some(1), true));
}

/// A listener and a real probe of it: each sees the other.
#[test]
fn a_probe_meets_a_listener() {
    let mut listener = agent(&["probe-listen", "0", "--bind", "127.0.0.1", "--json", "--for", "60s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(listener.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    let port = line.trim_end().trim_end_matches('.').rsplit(':').next().unwrap();
    let url = format!("http://127.0.0.1:{port}/");
    let secret = "0123456789abcdef";
    let output = run(&["-url", &url, "-name", "n", "-secret", secret, "--probe=json", "--probe-timeout", "10s"]);
    let report = text(&output.stdout);
    assert!(report.contains("agent probe-listen: no controller is here, but 127.0.0.1:"), "{report}");
    kill_process(Pid::from_child(&listener), Signal::INT).unwrap();
    let listened = listener.wait_with_output().unwrap();
    assert_eq!(listened.status.code(), Some(0));
    let arrivals: Vec<Value> = text(&listened.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(arrivals.iter().any(|arrival| arrival["kind"] == "http"), "{arrivals:?}");
    assert!(arrivals.iter().all(|arrival| arrival["peer"].as_str().unwrap().starts_with("127.0.0.1:")), "{arrivals:?}");
    assert!(!text(&listened.stdout).contains(secret));
}
