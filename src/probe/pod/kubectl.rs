//! The cluster through `kubectl`, which knows every way of logging in to one.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// No more of a pod's log is asked for.
const LOG_BYTES: u32 = 4 << 20;

/// How to call it.
#[derive(Debug, Clone)]
pub struct Kubectl {
    /// `kubectl`, or what stands in for it.
    pub program: String,
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`.
    pub context: Option<String>,
    /// `-n`.
    pub namespace: Option<String>,
}

impl Kubectl {
    /// Calls it, and gives what it prints.
    ///
    /// # Errors
    /// In its own words.
    async fn call(&self, arguments: &[&str], input: Option<&str>) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        if let Some(file) = &self.kubeconfig {
            command.arg("--kubeconfig").arg(file);
        }
        for (option, value) in [("--context", &self.context), ("--namespace", &self.namespace)] {
            if let Some(value) = value {
                command.args([option, value]);
            }
        }
        command.args(["--request-timeout=20s"]).args(arguments);
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let what = format!("{} {}", self.program, arguments.first().copied().unwrap_or_default());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!(
                "{}: there is no such program; without --apply the manifest is printed, for which it isn't needed",
                self.program
            ),
            _ => format!("{what}: {error}"),
        })?;
        let stdin = child.stdin.take();
        let run = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // One that does not read says why on its standard error.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output =
            timeout(TIMEOUT, run).await.map_err(|_| format!("{what}: no answer for {} s", TIMEOUT.as_secs()))?;
        let output = output.map_err(|error| format!("{what}: {error}"))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{what}: {}", crate::transport::http::excerpt(&words, 400)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn json(&self, arguments: &[&str]) -> Result<Value, String> {
        let text = self.call(arguments, None).await?;
        serde_json::from_str(&text).map_err(|error| format!("{}: its answer is no JSON: {error}", self.program))
    }

    /// Creates an object.
    ///
    /// # Errors
    /// In `kubectl`'s words; this goes for all of these.
    pub async fn create(&self, object: &Value) -> Result<(), String> {
        self.call(&["create", "-f", "-"], Some(&object.to_string())).await.map(drop)
    }

    /// A pod.
    pub async fn pod(&self, name: &str) -> Result<Value, String> {
        self.json(&["get", "pod", name, "-o", "json"]).await
    }

    /// What has happened to a pod.
    pub async fn events(&self, pod: &str) -> Result<Value, String> {
        let selector = format!("involvedObject.name={pod}");
        self.json(&["get", "events", "--field-selector", &selector, "-o", "json"]).await
    }

    /// What a pod has printed.
    pub async fn log(&self, pod: &str, container: &str) -> Result<String, String> {
        let limit = format!("--limit-bytes={LOG_BYTES}");
        self.call(&["logs", pod, "-c", container, &limit], None).await
    }

    /// Deletes pods, without waiting for their end.
    pub async fn delete(&self, pods: &[String]) -> Result<(), String> {
        let mut arguments = vec!["delete", "pod", "--ignore-not-found", "--wait=false", "--grace-period=1"];
        arguments.extend(pods.iter().map(String::as_str));
        self.call(&arguments, None).await.map(drop)
    }
}
