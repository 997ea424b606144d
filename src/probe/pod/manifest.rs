//! The two pods as Kubernetes wants them described. Pure.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::probe::kubernetes::VARIABLES;

/// The container's name.
pub const CONTAINER: &str = "probe";

/// Seconds after which the cluster ends such a pod, whatever becomes of us.
const DEADLINE: u64 = 300;

/// Which network a pod has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// One of its own.
    Pod,
    /// The node's.
    Host,
}

impl Network {
    /// As in names and labels.
    pub fn name(self) -> &'static str {
        match self {
            Network::Pod => "pod",
            Network::Host => "host",
        }
    }
}

/// What the two pods have in common.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// What their names begin with.
    pub name: String,
    /// Where they belong.
    pub namespace: Option<String>,
    /// The node that they are put on; without it, the host's follows the other.
    pub node: Option<String>,
    /// The image.
    pub image: String,
    /// In place of the image's entrypoint.
    pub command: Option<String>,
    /// Behind `--probe=json`.
    pub arguments: Vec<String>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// Secrets whose entries become variables.
    pub env_from_secrets: Vec<String>,
    /// ConfigMaps whose entries become variables.
    pub env_from_config_maps: Vec<String>,
    /// The service account.
    pub service_account: Option<String>,
    /// Secrets for the image's registry.
    pub image_pull_secrets: Vec<String>,
}

impl Plan {
    /// The name of one of the pods.
    pub fn pod_name(&self, network: Network) -> String {
        format!("{}-{}", self.name, network.name())
    }

    /// One of the pods.
    pub fn pod(&self, network: Network) -> Value {
        let field = |name: &&str| {
            let path = match *name {
                "HOST_IP" => "status.hostIP",
                "NODE_NAME" => "spec.nodeName",
                "POD_NAME" => "metadata.name",
                "POD_NAMESPACE" => "metadata.namespace",
                _ => "status.podIP",
            };
            json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
        };
        let env = self.env.iter().map(|(name, value)| json!({"name": name, "value": value}));
        let env: Vec<Value> = env.chain(VARIABLES.iter().map(field)).collect();
        let arguments: Vec<&str> =
            std::iter::once("--probe=json").chain(self.arguments.iter().map(String::as_str)).collect();
        let mut container = json!({
            "name": CONTAINER,
            "image": self.image,
            "args": arguments,
            "env": env,
            "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
            },
        });
        if let Some(command) = &self.command {
            container["command"] = json!([command]);
        }
        let refs = |kind: &str, names: &[String]| {
            names.iter().map(|name| json!({kind: {"name": name}})).collect::<Vec<Value>>()
        };
        let from =
            [refs("secretRef", &self.env_from_secrets), refs("configMapRef", &self.env_from_config_maps)].concat();
        if !from.is_empty() {
            container["envFrom"] = json!(from);
        }
        let mut spec = json!({
            "activeDeadlineSeconds": DEADLINE,
            "containers": [container],
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 1,
        });
        if let Some(account) = &self.service_account {
            spec["serviceAccountName"] = json!(account);
        }
        if !self.image_pull_secrets.is_empty() {
            spec["imagePullSecrets"] = self.image_pull_secrets.iter().map(|name| json!({"name": name})).collect();
        }
        if network == Network::Host {
            spec["hostNetwork"] = json!(true);
            // The same names as in the other pod.
            spec["dnsPolicy"] = json!("ClusterFirstWithHostNet");
        }
        match &self.node {
            // Past the scheduler, and so past what keeps pods away from a node.
            Some(node) => {
                spec["nodeName"] = json!(node);
                spec["tolerations"] = json!([{"operator": "Exists"}]);
            }
            None if network == Network::Host => {
                spec["affinity"] = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                    {"labelSelector": {"matchLabels": self.labels(Network::Pod)}, "topologyKey": "kubernetes.io/hostname"}]}});
            }
            None => {}
        }
        let mut metadata = json!({"name": self.pod_name(network), "labels": self.labels(network)});
        if let Some(namespace) = &self.namespace {
            metadata["namespace"] = json!(namespace);
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    }

    fn labels(&self, network: Network) -> Value {
        json!({
            "app.kubernetes.io/name": "agent-probe",
            "app.kubernetes.io/instance": self.name,
            "agent-probe/network": network.name(),
        })
    }
}

/// Documents of YAML.
pub fn yaml(documents: &[Value]) -> String {
    let mut out = String::new();
    for document in documents {
        out.push_str("---\n");
        if let Value::Object(map) = document {
            mapping(&mut out, map, 0);
        }
    }
    out
}

fn mapping(out: &mut String, map: &Map<String, Value>, indent: usize) {
    for (i, (key, value)) in map.iter().enumerate() {
        // The first key of a list's item stands behind its dash.
        let pad = if i == 0 && out.ends_with("- ") { 0 } else { indent };
        let _ = write!(out, "{:pad$}{}:", "", scalar(key));
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                mapping(out, inner, indent + 2);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                for item in items {
                    let _ = write!(out, "{:indent$}- ", "");
                    match item {
                        Value::Object(inner) if !inner.is_empty() => mapping(out, inner, indent + 2),
                        // No list of ours has lists in it; JSON is YAML.
                        other => {
                            let _ = writeln!(out, "{}", value_text(other));
                        }
                    }
                }
            }
            other => {
                let _ = writeln!(out, " {}", value_text(other));
            }
        }
    }
}

fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Without quotes where no reader can take it for something else.
fn scalar(text: &str) -> String {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/".contains(&b))
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            name: "agent-probe".into(),
            image: "registry.example.org/agent:1".into(),
            arguments: vec!["-url".into(), "http://jenkins:8080/".into()],
            env: vec![("NO_PROXY".into(), "a, \"b\"\n".into())],
            ..Plan::default()
        }
    }

    #[test]
    fn the_two_differ_in_their_network_alone() {
        let plan = Plan { node: Some("node-1".into()), ..plan() };
        let (mut pod, mut host) = (plan.pod(Network::Pod), plan.pod(Network::Host));
        assert_eq!(pod["metadata"]["name"], "agent-probe-pod");
        assert_eq!(host["metadata"]["name"], "agent-probe-host");
        let spec = host["spec"].as_object_mut().unwrap();
        assert_eq!(spec.remove("hostNetwork"), Some(json!(true)));
        assert_eq!(spec.remove("dnsPolicy"), Some(json!("ClusterFirstWithHostNet")));
        for pod in [&mut pod, &mut host] {
            pod.as_object_mut().unwrap().remove("metadata");
            assert_eq!(pod["spec"]["nodeName"], "node-1");
            assert_eq!(pod["spec"]["containers"][0]["args"], json!(["--probe=json", "-url", "http://jenkins:8080/"]));
        }
        assert_eq!(pod, host);
    }

    #[test]
    fn without_a_node_the_host_pod_follows_the_other() {
        let (pod, host) = (plan().pod(Network::Pod), plan().pod(Network::Host));
        assert_eq!(pod["spec"].get("affinity"), None);
        let term = &host["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
        assert_eq!(term["labelSelector"]["matchLabels"], pod["metadata"]["labels"]);
    }

    #[test]
    fn all_that_can_be_given() {
        let plan = Plan {
            namespace: Some("ci".into()),
            command: Some("agent".into()),
            env_from_secrets: vec!["s".into()],
            env_from_config_maps: vec!["c".into()],
            service_account: Some("jenkins-agent-probe".into()),
            image_pull_secrets: vec!["r".into()],
            ..plan()
        };
        let pod = plan.pod(Network::Pod);
        assert_eq!(pod["metadata"]["namespace"], "ci");
        assert_eq!(pod["spec"]["serviceAccountName"], "jenkins-agent-probe");
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "r"}]));
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["command"], json!(["agent"]));
        assert_eq!(container["envFrom"], json!([{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "c"}}]));
        assert_eq!(container["env"][0], json!({"name": "NO_PROXY", "value": "a, \"b\"\n"}));
    }

    #[test]
    fn as_yaml() {
        let value = json!({"a": {"b": [{"c": 1, "d": {"e": true}}, {"f": "x"}], "g": [], "h": {}}, "i": ["-url", "yes", "1", "a: b"], "k.l/m": "plain"});
        let expected = "---\na:\n  b:\n  - c: 1\n    d:\n      e: true\n  - f: x\n  g: []\n  h: {}\ni:\n- \"-url\"\n- \"yes\"\n- \"1\"\n- \"a: b\"\nk.l/m: plain\n";
        assert_eq!(yaml(&[value]), expected);
    }
}
