//! `agent probe-pod`: the probe on both sides at once, in two pods on one node, of which one has the node's network.

pub mod kubectl;
pub mod manifest;
pub mod state;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use super::command;
use super::compare::{self, Side};
use crate::cli::entrypoint::{self, Invocation};
use crate::cli::run::{FAILED, USAGE};
use crate::session::duration;
use kubectl::Kubectl;
use manifest::{CONTAINER, Network, Plan};
use state::Progress;

/// How often a pod is looked at.
const POLL: Duration = Duration::from_secs(1);

/// How long a pod may take to be put on a node.
const SCHEDULING: Duration = Duration::from_secs(30);

const AFTER_HELP: &str = "\
Prints the manifest of two pods; with --apply (or --kubeconfig, --context) creates them through kubectl, waits for their reports, deletes them
and says what the two come to:

  agent probe-pod --image IMAGE -n ci --apply -- -url http://jenkins:8080/
  agent probe-pod --image IMAGE -n ci --node worker-1 -- -url http://jenkins:8080/ | kubectl apply -f -

IMAGE is one whose entrypoint is this agent, most simply the one that the agents themselves use; name its command with --command otherwise. The
secret is not needed, and no place for it is in a manifest. Put the pods into the namespace and under the service account of the agents, since
network policies go by these; with the rights in k8s/probe/rbac.yaml that account can say more. hostNetwork is forbidden to namespaces with the
pod security level baseline or restricted: then only the pod network is probed.

After having applied the manifest yourself: kubectl logs agent-probe-pod > pod.json; kubectl logs agent-probe-host > host.json;
agent probe-compare pod.json host.json

Exit code: as of agent probe-compare; 1 if the pods can't be created; 2 if an option can't be used; 130 after Control-C, when the pods have been
deleted.";

/// Probes from two pods on one node, with the pod network and with the host's.
#[derive(Debug, Parser)]
#[command(name = "agent probe-pod", after_help = AFTER_HELP, disable_version_flag = true)]
struct Options {
    /// The agent's image
    #[arg(long)]
    image: String,
    /// Run this in the image in place of its entrypoint
    #[arg(long)]
    command: Option<String>,
    /// The namespace of the pods
    #[arg(short, long)]
    namespace: Option<String>,
    /// Put both on this node, taints notwithstanding; otherwise the scheduler chooses, and a printed manifest has the second
    /// follow the first, which it can't once that has ended
    #[arg(long)]
    node: Option<String>,
    /// Their service account
    #[arg(long, value_name = "NAME")]
    service_account: Option<String>,
    /// A variable of their environment; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// A Secret whose entries become variables; may be repeated
    #[arg(long, value_name = "NAME")]
    env_from_secret: Vec<String>,
    /// A ConfigMap whose entries become variables; may be repeated
    #[arg(long, value_name = "NAME")]
    env_from_config_map: Vec<String>,
    /// A Secret for the image's registry; may be repeated
    #[arg(long, value_name = "NAME")]
    image_pull_secret: Vec<String>,
    /// Create the pods, collect their reports and compare them
    #[arg(long)]
    apply: bool,
    /// kubectl's configuration; implies --apply
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context in that configuration; implies --apply
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// What to run as kubectl
    #[arg(long, value_name = "COMMAND", default_value = "kubectl")]
    kubectl: String,
    /// How long the pods may take
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration::parse_with_unit)]
    timeout: Duration,
    /// Do not delete the pods
    #[arg(long)]
    keep: bool,
    /// The comparison as JSON
    #[arg(long)]
    json: bool,
    /// The options of the agent
    #[arg(last = true, value_name = "AGENT OPTIONS")]
    arguments: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    if name.is_empty() {
        return Err("must be NAME=VALUE".to_owned());
    }
    if name == "JENKINS_SECRET" {
        return Err(
            "everyone who may read pods could read the secret: leave it out, or use --env-from-secret".to_owned()
        );
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs `agent probe-pod` with the arguments behind it, and gives the process's exit code.
pub fn run(arguments: &[String]) -> u8 {
    let options = match command::parse::<Options>("agent probe-pod", arguments) {
        Ok(options) => options,
        Err(code) => return code,
    };
    if let Err(message) = check(&options) {
        let _ = writeln!(io::stderr(), "{message}");
        return USAGE;
    }
    let apply = options.apply || options.kubeconfig.is_some() || options.context.is_some();
    let suffix = if apply { suffix() } else { String::new() };
    let plan = plan(&options, &suffix);
    if !apply {
        let text = manifest::yaml(&[plan.pod(Network::Pod), plan.pod(Network::Host)]);
        let mut out = io::stdout();
        return match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => 0,
            Err(_) => FAILED,
        };
    }
    let kubectl = Kubectl {
        program: options.kubectl.clone(),
        kubeconfig: options.kubeconfig.clone(),
        context: options.context.clone(),
        namespace: options.namespace.clone(),
    };
    command::block_on(both_sides(&kubectl, plan, &options))
}

/// Whether a pod could make something of the agent's options, and whether no secret is among them.
fn check(options: &Options) -> Result<(), String> {
    let mut previous = "";
    for argument in &options.arguments {
        let (name, value) =
            argument.split_once('=').map_or((argument.as_str(), None), |(name, value)| (name, Some(value)));
        let is = |text: &str| text.trim_start_matches('-') == "secret" && text.starts_with('-');
        let secret = if is(name) { value } else { Some(argument.as_str()).filter(|_| is(previous)) };
        // The image's entrypoint takes it without an option too.
        let bare = argument.len() >= 32 && argument.bytes().all(|b| b.is_ascii_hexdigit());
        if bare || secret.is_some_and(|secret| !secret.starts_with('@')) {
            return Err("The secret would stand in the pods' manifests: leave -secret out (a probe does not need it), or give it by --env-from-secret.".to_owned());
        }
        previous = if value.is_none() { name } else { "" };
    }
    // Variables that are only known in the cluster may make up for what is missing here.
    if options.env_from_secret.is_empty() && options.env_from_config_map.is_empty() {
        let arguments: Vec<String> =
            std::iter::once("--probe=json".to_owned()).chain(options.arguments.iter().cloned()).collect();
        let environment: BTreeMap<String, String> = options.env.iter().cloned().collect();
        // Files are those of the image.
        let read_file = |_: &std::path::Path| Ok("x".to_owned());
        let invocation =
            Invocation { program: "agent", arguments: &arguments, environment: &environment, read_file: &read_file };
        entrypoint::interpret(&invocation).map_err(|error| format!("The agent's options, behind --: {error}"))?;
    }
    Ok(())
}

fn plan(options: &Options, suffix: &str) -> Plan {
    Plan {
        name: format!("agent-probe{suffix}"),
        namespace: options.namespace.clone(),
        node: options.node.clone(),
        image: options.image.clone(),
        command: options.command.clone(),
        arguments: options.arguments.clone(),
        env: options.env.clone(),
        env_from_secrets: options.env_from_secret.clone(),
        env_from_config_maps: options.env_from_config_map.clone(),
        service_account: options.service_account.clone(),
        image_pull_secrets: options.image_pull_secret.clone(),
    }
}

/// Tells apart what several run at a time.
fn suffix() -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    format!("-{:06x}", (nanos ^ std::process::id().rotate_left(12)) & 0xff_ffff)
}

/// Creates both pods, collects and compares.
async fn both_sides(kubectl: &Kubectl, plan: Plan, options: &Options) -> u8 {
    let pods = [plan.pod_name(Network::Pod), plan.pod_name(Network::Host)];
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return command::failed("waiting for signals failed");
    };
    let sides = tokio::select! {
        sides = sides(kubectl, plan, Instant::now() + options.timeout) => Some(sides),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    if options.keep {
        note(&format!("The pods are kept: {}.", pods.join(", ")));
    } else if let Err(error) = kubectl.delete(&pods).await {
        note(&format!("Deleting {} failed: {error}", pods.join(", ")));
    }
    match sides {
        None => 130,
        Some(Err(error)) => command::failed(&error),
        Some(Ok((pod, host))) => compare::show(&compare::compare(&pod, &host), options.json),
    }
}

fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The pod network's comes first: where the scheduler puts it, the other goes.
async fn sides(kubectl: &Kubectl, mut plan: Plan, end: Instant) -> Result<(Side, Side), String> {
    let name = plan.pod_name(Network::Pod);
    kubectl.create(&plan.pod(Network::Pod)).await?;
    if plan.node.is_none() {
        let scheduled = Instant::now() + SCHEDULING;
        plan.node = loop {
            let pod = kubectl.pod(&name).await?;
            if let Some(node) = state::node(&pod) {
                break Some(node.to_owned());
            }
            match state::progress(&pod) {
                Progress::Waiting(_) if Instant::now() < scheduled.min(end) => sleep(POLL).await,
                Progress::Waiting(why) | Progress::Doomed(why) => {
                    return Err(format!("{name} was put on no node: {why}"));
                }
                Progress::Ended => break None,
            }
        };
    }
    note(&format!(
        "Probing from {}, with the pod network and with the host's ...",
        plan.node.as_deref().unwrap_or("a node")
    ));
    let host = kubectl.create(&plan.pod(Network::Host)).await;
    let mut pod_side = None;
    let mut host_side = host.err().map(|why| Side::Missing { why, no_network: false });
    loop {
        if pod_side.is_none() {
            // Once the host's has ended, a pod that doesn't even start may want a network.
            let host_ended = matches!(host_side, Some(Side::Report(_)));
            pod_side = collect(kubectl, &name, host_ended, end).await;
        }
        if host_side.is_none() {
            host_side = collect(kubectl, &plan.pod_name(Network::Host), false, end).await;
        }
        if let (Some(_), Some(_)) = (&pod_side, &host_side) {
            break;
        }
        sleep(POLL).await;
    }
    pod_side.zip(host_side).ok_or_else(|| "no pod has been looked at".to_owned())
}

/// What has become of a pod; `None` while it may still bring a report.
async fn collect(kubectl: &Kubectl, name: &str, may_lack_network: bool, end: Instant) -> Option<Side> {
    let missing = |why: String| Some(Side::Missing { why, no_network: false });
    let late = Instant::now() >= end;
    let progress = match kubectl.pod(name).await {
        Ok(pod) => state::progress(&pod),
        Err(error) if late => return missing(error),
        // The API server may have been away for a moment.
        Err(_) => return None,
    };
    match progress {
        Progress::Ended => match kubectl.log(name, CONTAINER).await {
            Ok(log) => match compare::find_report(&log) {
                Some(report) => Some(Side::Report(Box::new(report))),
                None => {
                    let last = log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it is empty");
                    missing(format!("its log has no report: {}", crate::transport::http::excerpt(last, 200)))
                }
            },
            Err(error) => missing(error),
        },
        Progress::Doomed(why) => missing(why),
        Progress::Waiting(why) => {
            if (may_lack_network || late)
                && let Ok(events) = kubectl.events(name).await
                && let Some(why) = state::no_network(&events)
            {
                return Some(Side::Missing { why, no_network: true });
            }
            if late { missing(format!("no end in time ({why})")) } else { None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::try_parse_from([&["agent probe-pod", "--image", "x"], arguments].concat())
            .map_err(|error| error.to_string())
    }

    const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn secrets_have_no_place_in_a_manifest() {
        for bad in [
            &["-secret", "abc"][..],
            &["-secret=abc"],
            &["--secret", "abc"],
            &["-name", "n", "-secret", "abc"],
            &[KEY, "n"],
        ] {
            let options = parse(&[&["--", "-url", "http://x/"], bad].concat()).unwrap();
            let error = check(&options).unwrap_err();
            assert!(error.contains("The secret would stand") && !error.contains("abc"), "{error}");
        }
        let error = parse(&["--env", "JENKINS_SECRET=abc", "--", "-url", "http://x/"]).unwrap_err();
        assert!(error.contains("--env-from-secret"), "{error}");
        for good in [&["-secret", "@/run/secret"][..], &["-secret=@/run/secret"], &["-name", "secret"]] {
            let options = parse(&[&["--", "-url", "http://x/"], good].concat()).unwrap();
            assert_eq!(check(&options), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn options_that_no_agent_takes_are_told_before_a_pod_is_made() {
        let check = |arguments: &[&str]| check(&parse(arguments).unwrap());
        assert!(check(&["--", "-url", "nonsense"]).unwrap_err().contains("-url"));
        assert!(check(&["--", "-nonsense"]).is_err());
        assert!(check(&[]).unwrap_err().contains("needs a controller"));
        assert_eq!(check(&["--env", "JENKINS_URL=http://x/"]), Ok(()));
        assert_eq!(check(&["--env-from-secret", "s"]), Ok(()));
        assert_eq!(check(&["--", "-url", "http://x/", "-webSocket", "-name", "n"]), Ok(()));
        for bad in [&["--env", "x"][..], &["--timeout", "5"], &["-url", "http://x/"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_differ_from_run_to_run() {
        let plan = plan(&parse(&[]).unwrap(), &suffix());
        assert_eq!(plan.pod_name(Network::Host).len(), "agent-probe-123456-host".len());
    }
}
