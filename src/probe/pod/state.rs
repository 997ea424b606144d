//! What the API says of a pod that was started. Pure.

use serde_json::Value;

/// How far a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is not done; what it waits for.
    Waiting(String),
    /// Its container has ended.
    Ended,
    /// It will never run.
    Doomed(String),
}

/// Reasons to wait that waiting does not end.
const DOOMED: &[&str] = &[
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
];

/// Reads a `v1/Pod`.
pub fn progress(pod: &Value) -> Progress {
    let status = &pod["status"];
    let text = |value: &Value| value.as_str().map(one_line).filter(|text| !text.is_empty());
    let explained = |value: &Value| match (text(&value["reason"]), text(&value["message"])) {
        (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
        (reason, message) => reason.or(message),
    };
    let container = &status["containerStatuses"][0]["state"];
    match status["phase"].as_str() {
        Some("Succeeded" | "Failed") if container.get("terminated").is_some() => {
            // What could not be started is told as ended too.
            return match container["terminated"]["reason"].as_str() {
                Some("StartError" | "ContainerCannotRun") => {
                    Progress::Doomed(explained(&container["terminated"]).unwrap_or_default())
                }
                _ => Progress::Ended,
            };
        }
        Some("Succeeded" | "Failed") => {
            return Progress::Doomed(explained(status).unwrap_or_else(|| "the pod has failed".to_owned()));
        }
        _ => {}
    }
    if let Some(waiting) = container.get("waiting") {
        let why = explained(waiting).unwrap_or_else(|| "waiting".to_owned());
        let doomed = waiting["reason"].as_str().is_some_and(|reason| DOOMED.contains(&reason));
        return if doomed { Progress::Doomed(why) } else { Progress::Waiting(why) };
    }
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let unscheduled = conditions.iter().find(|c| c["type"] == "PodScheduled" && c["status"] == "False");
    Progress::Waiting(match unscheduled {
        Some(condition) => explained(condition).unwrap_or_else(|| "not scheduled".to_owned()),
        None => status["phase"].as_str().unwrap_or("Pending").to_owned(),
    })
}

/// The node that a pod was put on.
pub fn node(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str()
}

/// Of the events of a pod (`v1/EventList`), the last that says that it got no network.
pub fn no_network(events: &Value) -> Option<String> {
    let events = events["items"].as_array()?;
    let about = |event: &&Value| match event["reason"].as_str() {
        Some("NetworkNotReady") => true,
        Some("FailedCreatePodSandBox") => event["message"]
            .as_str()
            .is_some_and(|message| ["network", "cni", "CNI", "plugin type"].iter().any(|word| message.contains(word))),
        _ => false,
    };
    let event = events.iter().rfind(about)?;
    Some(one_line(event["message"].as_str().or(event["reason"].as_str())?))
}

fn one_line(text: &str) -> String {
    crate::transport::http::excerpt(text, 300).trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_on_their_way() {
        let waiting = |why: &str| Progress::Waiting(why.into());
        let doomed = |why: &str| Progress::Doomed(why.into());
        let container = |phase: &str, state: Value| json!({"status": {"phase": phase, "containerStatuses": [{"name": "probe", "state": state}]}});
        let cases = [
            (json!({}), waiting("Pending")),
            (
                json!({"status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available."}]}}),
                waiting("Unschedulable: 0/3 nodes are available"),
            ),
            (container("Pending", json!({"waiting": {"reason": "ContainerCreating"}})), waiting("ContainerCreating")),
            (
                container("Pending", json!({"waiting": {"reason": "ErrImagePull", "message": "x"}})),
                waiting("ErrImagePull: x"),
            ),
            (
                container(
                    "Pending",
                    json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off\npulling"}}),
                ),
                doomed("ImagePullBackOff: Back-off pulling"),
            ),
            (container("Running", json!({"running": {"startedAt": "x"}})), waiting("Running")),
            (container("Failed", json!({"terminated": {"exitCode": 13, "reason": "Error"}})), Progress::Ended),
            (container("Succeeded", json!({"terminated": {"exitCode": 0, "reason": "Completed"}})), Progress::Ended),
            (
                container(
                    "Failed",
                    json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": "exec: no such file"}}),
                ),
                doomed("StartError: exec: no such file"),
            ),
            (
                json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}}),
                doomed("Evicted: low on memory"),
            ),
        ];
        for (pod, expected) in cases {
            assert_eq!(progress(&pod), expected, "{pod}");
        }
        assert_eq!(node(&json!({"spec": {"nodeName": "n"}})), Some("n"));
        assert_eq!(node(&json!({})), None);
    }

    #[test]
    fn events_of_pods_without_a_network() {
        let failed = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \"74\": plugin type=\"flannel\" failed (add): open /run/flannel/subnet.env: no such file or directory";
        let event = |reason: &str, message: &str| json!({"reason": reason, "message": message});
        let list = |events: &[Value]| json!({"kind": "EventList", "items": events});
        let found = no_network(&list(&[
            event("Scheduled", "x"),
            event("FailedCreatePodSandBox", failed),
            event("Pulling", "y"),
        ]));
        assert!(found.unwrap().contains("subnet.env"));
        assert!(
            no_network(&list(&[event("NetworkNotReady", "network is not ready: cni plugin not initialized")]))
                .is_some()
        );
        assert_eq!(no_network(&list(&[event("FailedCreatePodSandBox", "no space left on device")])), None);
        assert_eq!(no_network(&json!({})), None);
    }
}
