//! `agent probe-compare POD HOST`: two probes of one node, with the pod network and with the host's, tell together what
//! neither tells alone.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Parser;
use serde::Serialize;

use super::catalog::CauseId;
use super::check::{Check, Confidence, Outcome, Report, Verdict};
use super::command;
use super::kubernetes::facts::{Asked, KubernetesFacts};
use super::kubernetes::{no_policy, reaches_directly};

/// No log with a report in it is larger.
const MAX_REPORT: u64 = 8 << 20;

/// What became of one of the two probes.
#[derive(Debug, Clone)]
pub enum Side {
    /// Its report.
    Report(Box<Report>),
    /// There is none.
    Missing {
        /// Why.
        why: String,
        /// The pod could not be started for want of a network.
        no_network: bool,
    },
}

/// What two probes come to.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The schema's version: 1.
    pub schema: u32,
    /// The most probable cause.
    pub verdict: Verdict,
    /// On the pod network.
    pub pod: Summary,
    /// On the host's network.
    pub host: Summary,
    /// What came out differently.
    pub differences: Vec<Difference>,
}

/// One of the two probes in short.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Its own verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// A check that came out differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The check's id.
    pub id: Cow<'static, str>,
    /// What it was done to.
    pub target: String,
    /// On the pod network; `None` where it was not made.
    pub pod: Option<Outcome>,
    /// On the host's network; `None` where it was not made.
    pub host: Option<Outcome>,
}

/// Finds the report in a log: the last one, whatever stands before and behind it.
pub fn find_report(log: &str) -> Option<Report> {
    let starts = log.match_indices('{').map(|(at, _)| at).filter(|at| *at == 0 || log.as_bytes()[at - 1] == b'\n');
    let mut found = None;
    let mut behind = 0;
    for start in starts {
        // A report's own braces are not at the beginning of a line, but what can't be trusted may have any.
        if start < behind {
            continue;
        }
        let mut reports = serde_json::Deserializer::from_str(&log[start..]).into_iter::<Report>();
        if let Some(Ok(report)) = reports.next() {
            behind = start + reports.byte_offset();
            found = Some(report);
        }
    }
    found
}

fn cause(verdict: &Verdict) -> Option<CauseId> {
    CauseId::ALL.iter().copied().find(|cause| cause.id() == verdict.id)
}

/// What a network can be to blame for.
fn of_network(cause: CauseId) -> bool {
    silent(cause)
        || matches!(
            cause,
            CauseId::TcpRefused
                | CauseId::TcpSlow
                | CauseId::AgentPortBlocked
                | CauseId::MtuBlackHole
                | CauseId::NetworkPolicy
                | CauseId::PodCidrMismatch
                | CauseId::CidrOverlap
        )
}

/// Nothing comes back.
fn silent(cause: CauseId) -> bool {
    matches!(
        cause,
        CauseId::TcpTimeout
            | CauseId::HostUnreachable
            | CauseId::NetworkUnreachable
            | CauseId::DnsServerDead
            | CauseId::PodNetworkDead
            | CauseId::ControllerDead
    )
}

/// Whether something beyond the own node answers.
fn alive(report: &Report) -> bool {
    let peers = report.facts.kubernetes.iter().flat_map(|cluster| &cluster.peers);
    peers.filter(|peer| peer.is_away()).any(|peer| peer.failure.is_none())
}

/// Whether a connection to the controller came about.
fn connected(report: &Report) -> bool {
    report.checks.iter().any(|check| check.id == "tcp.connect" && check.outcome == Outcome::Yes)
}

/// The pod's verdict with what the other pod knows of the cluster: from a dead network nobody can ask the API server.
fn with_knowledge_of(pod: &Report, host: &Report) -> Verdict {
    fn better<T: Clone>(own: &Asked<T>, other: &Asked<T>) -> Asked<T> {
        if own.get().is_some() { own.clone() } else { other.clone() }
    }
    let (Some(own), Some(other)) = (&pod.facts.kubernetes, &host.facts.kubernetes) else { return pod.verdict.clone() };
    let mut cluster: KubernetesFacts = own.clone();
    cluster.nodes = better(&own.nodes, &other.nodes);
    cluster.kubeadm = better(&own.kubeadm, &other.kubeadm);
    cluster.policies = better(&own.policies, &other.policies);
    if cluster.networks.is_empty() {
        cluster.networks.clone_from(&other.networks);
        cluster.unread.clone_from(&other.unread);
    }
    cluster.service = cluster.service.or_else(|| other.service.clone());
    cluster.unasked = cluster.unasked.filter(|_| other.unasked.is_some());
    // They are on one node.
    cluster.pod.host_network = Some(false);
    cluster.pod.node = cluster.pod.node.or_else(|| other.pod.node.clone());
    if cluster.pod.node_addresses.is_empty() {
        cluster.pod.node_addresses.clone_from(&other.pod.node_addresses);
    }
    let mut facts = pod.facts.clone();
    facts.kubernetes = Some(cluster);
    let (_, verdict) = super::evaluate(&facts);
    // Only what the cluster explains can have become clearer.
    match cause(&verdict) {
        Some(
            CauseId::PodNetworkDead
            | CauseId::PodCidrMismatch
            | CauseId::CidrOverlap
            | CauseId::NetworkPolicy
            | CauseId::ControllerDead,
        ) if cause(&pod.verdict).is_some_and(of_network) => verdict,
        _ => pod.verdict.clone(),
    }
}

/// A sentence as a part of another.
fn clause(sentence: &str) -> &str {
    sentence.trim_end_matches('.')
}

/// Compares the two.
pub fn compare(pod: &Side, host: &Side) -> Comparison {
    let verdict = match (pod, host) {
        (Side::Report(pod), Side::Report(host)) => both(pod, host),
        (Side::Missing { why, no_network: true }, Side::Report(_)) => Verdict::of(
            CauseId::PodNetworkDead,
            Confidence::Likely,
            format!("A pod on the host's network starts, and one on the pod network does not: {why}."),
            "Look at the pods of the pod network (CNI) on this node, and at the kubelet's log.",
        ),
        (Side::Missing { why, .. }, Side::Report(host)) => Verdict::of(
            CauseId::Inconclusive,
            Confidence::Possible,
            format!(
                "There is no report from the pod network ({why}); on the host's: {}.",
                clause(&host.verdict.sentence)
            ),
            "Look into the pod's state: kubectl describe pod.",
        ),
        (Side::Report(pod), Side::Missing { why, .. }) => {
            let mut verdict = pod.verdict.clone();
            if !verdict.is_ok() {
                verdict.confidence = Confidence::Possible;
            }
            verdict.sentence = format!(
                "{}; there is no report from the host's network to compare with ({why}).",
                clause(&verdict.sentence)
            );
            verdict
        }
        (Side::Missing { why: pod, .. }, Side::Missing { why: host, .. }) => Verdict::of(
            CauseId::Inconclusive,
            Confidence::Possible,
            format!("There is no report, neither from the pod network ({pod}) nor from the host's ({host})."),
            "Look into the pods' state: kubectl describe pod.",
        ),
    };
    let differences = match (pod, host) {
        (Side::Report(pod), Side::Report(host)) => differences(&pod.checks, &host.checks),
        _ => Vec::new(),
    };
    Comparison { schema: 1, verdict, pod: summary(pod), host: summary(host), differences }
}

fn summary(side: &Side) -> Summary {
    match side {
        Side::Report(report) => Summary { verdict: Some(report.verdict.clone()), missing: None },
        Side::Missing { why, .. } => Summary { verdict: None, missing: Some(why.clone()) },
    }
}

fn both(pod: &Report, host: &Report) -> Verdict {
    let (Some(pod_cause), host_cause) = (cause(&pod.verdict), cause(&host.verdict)) else {
        return if host.verdict.is_ok() {
            Verdict::ok("Both the pod network and the host's reach the controller.")
        } else {
            Verdict::ok(format!(
                "Pods reach the controller. Only the host's network does not, which agents don't need: {}.",
                clause(&host.verdict.sentence)
            ))
        };
    };
    let Some(host_cause) = host_cause else {
        return of_pod_network(pod, host, pod_cause, "");
    };
    if pod_cause == host_cause || (silent(pod_cause) && silent(host_cause)) {
        if !silent(pod_cause) {
            let mut verdict = pod.verdict.clone();
            verdict.confidence = Confidence::Certain;
            verdict.sentence = format!("From the pod network and the host's alike: {}.", clause(&verdict.sentence));
            return verdict;
        }
        return if alive(pod) || alive(host) {
            Verdict::of(
                CauseId::ControllerDead,
                Confidence::Certain,
                "The controller answers neither the pod network nor the host's, while others in the cluster do answer: it is down, or a firewall is before it.",
                "Check that the controller runs and listens, and what filters packets on the way to it.",
            )
        } else {
            let mut verdict = host.verdict.clone();
            verdict.sentence = format!(
                "Neither the pod network nor the host's reaches the controller, nor anything else that was tried: {}.",
                clause(&verdict.sentence)
            );
            verdict
        };
    }
    let besides = format!(" On the host's network something else is in the way: {}.", clause(&host.verdict.sentence));
    if of_network(pod_cause) && connected(host) && !connected(pod) {
        return of_pod_network(pod, host, pod_cause, &besides);
    }
    let mut verdict = pod.verdict.clone();
    verdict.sentence = format!("{}.{besides}", clause(&verdict.sentence));
    verdict
}

/// The host's network gets to the controller, the pod network does not.
fn of_pod_network(pod: &Report, host: &Report, pod_cause: CauseId, besides: &str) -> Verdict {
    let informed = with_knowledge_of(pod, host);
    let explained = cause(&informed).unwrap_or(pod_cause);
    let policies_excluded = [pod, host].iter().any(|report| report.facts.kubernetes.as_ref().is_some_and(no_policy));
    let but = match policies_excluded {
        true => "",
        false => "; a network policy that forbids it would look the same",
    };
    let sure = if policies_excluded { Confidence::Certain } else { Confidence::Likely };
    let next = "Look at the pods of the pod network (CNI) and of kube-proxy on this node, and compare the CNI's range with the one that the cluster was set up with.";
    let policy = |what: &str| {
        Verdict::of(
            CauseId::NetworkPolicy,
            Confidence::Likely,
            format!(
                "The host's network reaches the controller, the pod network does not, though {what}: something lets these pods not through.{besides}"
            ),
            "Look for network policies of this namespace and of the controller's (kubectl get networkpolicy -A, and those of the CNI's own kinds), and for a firewall that knows the node's address only.",
        )
    };
    match explained {
        CauseId::PodCidrMismatch | CauseId::CidrOverlap | CauseId::NetworkPolicy => Verdict {
            confidence: Confidence::Certain,
            sentence: format!("Only the pod network fails: {}.{besides}", clause(&informed.sentence)),
            ..informed
        },
        CauseId::AgentPortBlocked if !policies_excluded => {
            policy("HTTP works from both, and only the agent port does not")
        }
        CauseId::MtuBlackHole => Verdict {
            confidence: Confidence::Certain,
            sentence: format!(
                "Only the pod network loses large packets, so its MTU is larger than what the network below it carries: {}.{besides}",
                clause(&informed.sentence)
            ),
            ..informed
        },
        // Somebody else answers the pod, the cluster's DNS does not.
        _ if pod_cause == CauseId::DnsServerDead && alive(pod) => Verdict {
            sentence: format!("Only on the pod network: {}.{besides}", clause(&pod.verdict.sentence)),
            ..pod.verdict.clone()
        },
        // Service addresses prove nothing of the pod's own: the node translates them (NAT).
        cause if silent(cause) && pod.facts.kubernetes.as_ref().is_some_and(reaches_directly) => Verdict::of(
            CauseId::PodNetworkDead,
            Confidence::Likely,
            format!(
                "The host's network reaches the controller, a pod on the same node does not, though it reaches others in the cluster: what pods send out of the cluster gets no answer, as it is not masqueraded, or a firewall knows the nodes' addresses only{but}.{besides}"
            ),
            "Look at how the pod network (CNI) masquerades what leaves the cluster, and at firewalls before the controller that know the nodes' addresses only.",
        ),
        cause if silent(cause) && alive(pod) => Verdict::of(
            CauseId::PodNetworkDead,
            sure,
            format!(
                "The pod network is dead on this node but for service addresses, which the node translates (NAT): the host's network reaches the controller, a pod on the same node does not{but}.{besides}"
            ),
            next,
        ),
        cause if of_network(cause) && alive(pod) && !policies_excluded => policy("it reaches others in the cluster"),
        cause if silent(cause) => Verdict::of(
            CauseId::PodNetworkDead,
            sure,
            format!(
                "The pod network is dead on this node: the host's network reaches the controller, a pod on the same node does not{but}.{besides}"
            ),
            next,
        ),
        _ => Verdict {
            sentence: format!("Only on the pod network: {}.{besides}", clause(&informed.sentence)),
            ..informed
        },
    }
}

fn differences(pod: &[Check], host: &[Check]) -> Vec<Difference> {
    let find = |checks: &[Check], like: &Check| {
        checks.iter().find(|check| check.id == like.id && check.target == like.target).map(|check| check.outcome)
    };
    let mut all: Vec<Difference> = Vec::new();
    for check in pod.iter().chain(host) {
        let (pod, host) = (find(pod, check), find(host, check));
        let telling = pod == Some(Outcome::No) || host == Some(Outcome::No);
        let known = all.iter().any(|other| other.id == check.id && other.target == check.target);
        if pod != host && telling && !known {
            all.push(Difference { id: check.id.clone(), target: check.target.clone(), pod, host });
        }
    }
    all
}

/// The comparison as text: the verdict, the two verdicts that it comes from, and what differs.
pub fn print(comparison: &Comparison) -> String {
    let mut out = String::new();
    let verdict = &comparison.verdict;
    let confidence = match verdict.confidence {
        Confidence::Certain => "certain",
        Confidence::Likely => "likely",
        Confidence::Possible => "possible",
    };
    let sure = if verdict.is_ok() { String::new() } else { format!(" ({confidence})") };
    let _ = writeln!(out, "{}{sure}: {}", verdict.id, verdict.sentence);
    if !verdict.next_step.is_empty() {
        let _ = writeln!(out, "Next: {}", verdict.next_step);
    }
    if !verdict.docs.is_empty() {
        let _ = writeln!(out, "More: {}", verdict.docs);
    }
    out.push('\n');
    for (name, side) in [("pod network", &comparison.pod), ("host network", &comparison.host)] {
        let text = match (&side.verdict, &side.missing) {
            (Some(verdict), _) => format!("{}: {}", verdict.id, verdict.sentence),
            (None, why) => format!("no report: {}", why.as_deref().unwrap_or_default()),
        };
        let _ = writeln!(out, "{name:<13}{text}");
    }
    if !comparison.differences.is_empty() {
        let _ = writeln!(out, "\n{:<9}{:<9}", "pod", "host");
        let show = |outcome: Option<Outcome>| match outcome {
            Some(Outcome::Yes) => "yes",
            Some(Outcome::No) => "no",
            Some(Outcome::Unknown) => "unknown",
            Some(Outcome::Skipped) => "skipped",
            None => "-",
        };
        for difference in &comparison.differences {
            let _ = writeln!(
                out,
                "{:<9}{:<9}{} {}",
                show(difference.pod),
                show(difference.host),
                difference.id,
                difference.target
            );
        }
    }
    out
}

const AFTER_HELP: &str = "\
POD and HOST are what agent --probe=json has printed in two pods on one node, of which HOST has hostNetwork: true; anything else in these
files, such as a pod's log, is passed over. agent probe-pod makes such pods.

JSON: {\"schema\": 1, \"verdict\", \"pod\", \"host\", \"differences\": [{\"id\", \"target\", \"pod\", \"host\"}]}. verdict is as in a
report; pod and host hold \"verdict\" or, where there is no report, \"missing\".

Exit code: that of the cause; 0 if the pod network reaches the controller; 1 if a file can't be read; 2 if an option can't be used.";

/// Compares two probes of one node, with the pod network and with the host's.
#[derive(Debug, Parser)]
#[command(name = "agent probe-compare", after_help = AFTER_HELP, disable_version_flag = true)]
struct Options {
    /// The report from the pod network
    pod: PathBuf,
    /// The report from the host's network
    host: PathBuf,
    /// JSON in place of text
    #[arg(long)]
    json: bool,
}

/// Runs `agent probe-compare` with the arguments behind it, and gives the process's exit code.
pub fn run(arguments: &[String]) -> u8 {
    let options = match command::parse::<Options>("agent probe-compare", arguments) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let (pod, host) = match (read(&options.pod), read(&options.host)) {
        (Ok(pod), Ok(host)) => (pod, host),
        (Err(error), _) | (_, Err(error)) => return command::failed(&error),
    };
    show(&compare(&Side::Report(Box::new(pod)), &Side::Report(Box::new(host))), options.json)
}

fn read(path: &Path) -> Result<Report, String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_REPORT).read_to_end(&mut bytes));
    read.map_err(|error| format!("reading {}: {error}", path.display()))?;
    find_report(&String::from_utf8_lossy(&bytes))
        .ok_or_else(|| format!("{}: it holds no report of agent --probe=json", path.display()))
}

/// Prints a comparison, and gives the exit code for it.
pub(super) fn show(comparison: &Comparison, json: bool) -> u8 {
    let text = if json {
        serde_json::to_string_pretty(comparison).map(|text| text + "\n").unwrap_or_default()
    } else {
        print(comparison)
    };
    let mut out = io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    comparison.verdict.exit_code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::check::Category;
    use crate::probe::facts::{Connect, Facts, Failure, FailureKind, Site};
    use crate::probe::kubernetes::facts::{Cni, Kubeadm, Node, Peer, PodNetwork, Policy, Role};
    use serde_json::json;

    /// A report of that verdict, in a cluster of which some peers answer.
    fn report(cause: Option<CauseId>, peers_alive: Option<bool>) -> Report {
        let verdict = match cause {
            Some(cause) => Verdict::of(cause, Confidence::Likely, "It is so.", "Do that."),
            None => Verdict::ok("Nothing stands in the way."),
        };
        let tcp = match cause.filter(|cause| of_network(*cause)) {
            Some(cause) => Check::no("tcp.connect", Category::Tcp, "198.51.100.7:8080", cause, "timed out"),
            None => Check::yes("tcp.connect", Category::Tcp, "198.51.100.7:8080", "connected"),
        };
        let failure =
            |alive: bool| (!alive).then(|| Failure { kind: FailureKind::TimedOut, message: "timed out".into() });
        let peer = |role, address: &str, alive| Peer {
            role,
            address: address.parse().unwrap(),
            same_node: false,
            failure: failure(alive),
            said: String::new(),
            ms: 1,
        };
        let cluster = peers_alive.map(|alive| KubernetesFacts {
            peers: vec![
                peer(Role::ApiServer, "10.96.0.1:443", alive),
                peer(Role::ClusterDns, "10.96.0.10:53", alive),
                peer(Role::Node, "192.0.2.11:10250", true),
            ],
            ..KubernetesFacts::default()
        });
        let connect = Connect {
            address: "198.51.100.7:8080".parse().unwrap(),
            source: None,
            failure: failure(cause.is_none_or(|cause| !of_network(cause))),
            ms: 1,
            path_mtu: None,
            next_hop: None,
        };
        let site = Site { host: "ci.example.org".into(), port: 8080, connects: vec![connect], ..Site::default() };
        Report {
            schema: 1,
            agent: "0.1.0".into(),
            verdict,
            checks: vec![tcp],
            facts: Facts { kubernetes: cluster, sites: vec![site], ..Facts::default() },
            elapsed_ms: 1,
        }
    }

    fn side(report: &Report) -> Side {
        Side::Report(Box::new(report.clone()))
    }

    #[track_caller]
    fn verdict(pod: &Report, host: &Report) -> (String, Confidence) {
        let verdict = compare(&side(pod), &side(host)).verdict;
        assert!(verdict.sentence.ends_with('.') && !verdict.sentence.contains(".."), "{}", verdict.sentence);
        (verdict.id.into_owned(), verdict.confidence)
    }

    #[test]
    fn each_pair() {
        use CauseId as C;
        use Confidence::{Certain, Likely};
        // The pod's cause, whether others answer it; the host's, and whether they answer that; what it comes to.
        let cases = [
            (None, Some(true), None, Some(true), "ok", Certain),
            (None, Some(true), Some(C::TcpTimeout), Some(false), "ok", Certain),
            // Only the pod network.
            (Some(C::TcpTimeout), Some(false), None, Some(true), "pod-network-dead", Likely),
            (Some(C::TcpTimeout), None, None, None, "pod-network-dead", Likely),
            (Some(C::PodNetworkDead), Some(false), None, Some(true), "pod-network-dead", Likely),
            (Some(C::DnsServerDead), Some(false), None, Some(true), "pod-network-dead", Likely),
            (Some(C::TcpTimeout), Some(true), None, Some(true), "pod-network-dead", Likely),
            (Some(C::ControllerDead), Some(true), None, Some(true), "pod-network-dead", Likely),
            (Some(C::TcpRefused), Some(true), None, Some(true), "network-policy", Likely),
            (Some(C::AgentPortBlocked), Some(true), None, Some(true), "network-policy", Likely),
            (Some(C::DnsServerDead), Some(true), None, Some(true), "dns-server-dead", Likely),
            (Some(C::MtuBlackHole), None, None, None, "mtu-black-hole", Certain),
            (Some(C::ProxySwallows), Some(true), None, Some(true), "proxy-swallows", Likely),
            // Both, alike.
            (Some(C::TcpTimeout), Some(true), Some(C::TcpTimeout), Some(true), "controller-dead", Certain),
            (Some(C::ControllerDead), Some(true), Some(C::TcpTimeout), None, "controller-dead", Certain),
            (Some(C::PodNetworkDead), Some(false), Some(C::TcpTimeout), Some(false), "tcp-timeout", Likely),
            (Some(C::TlsExpired), Some(true), Some(C::TlsExpired), Some(true), "tls-expired", Certain),
            (Some(C::TcpRefused), Some(true), Some(C::TcpRefused), Some(true), "tcp-refused", Certain),
            // Both, and each its own.
            (Some(C::TcpTimeout), Some(false), Some(C::NotJenkins), Some(true), "pod-network-dead", Likely),
            (Some(C::NotJenkins), Some(true), Some(C::TlsExpired), Some(true), "not-jenkins", Likely),
        ];
        for (pod, pod_alive, host, host_alive, id, confidence) in cases {
            let (mut pod, mut host) = (report(pod, pod_alive), report(host, host_alive));
            // The host side knows nothing more of the cluster here.
            for side in [&mut pod, &mut host] {
                if let Some(cluster) = &mut side.facts.kubernetes {
                    cluster.unasked = Some("no service account".into());
                }
            }
            assert_eq!(verdict(&pod, &host), (id.to_owned(), confidence), "{:?} {:?}", pod.verdict, host.verdict);
        }
    }

    /// The pod can't ask the API server, the host can: the cluster was set up with one range, and flannel has another.
    #[test]
    fn the_host_knows_why_the_pod_network_is_dead() {
        let cidr = |text: &str| text.parse().unwrap();
        let mut pod = report(Some(CauseId::PodNetworkDead), Some(false));
        pod.facts.kubernetes.as_mut().unwrap().unasked = Some("the API server can't be reached".into());
        let mut host = report(None, Some(true));
        let cluster = host.facts.kubernetes.as_mut().unwrap();
        cluster.pod.node = Some("node-1".into());
        cluster.pod.host_network = Some(true);
        cluster.kubeadm = Asked::Is(Kubeadm {
            pod_subnets: vec![cidr("172.20.0.0/16")],
            service_subnets: vec![cidr("10.96.0.0/12")],
        });
        cluster.nodes = Asked::Is(vec![Node {
            name: "node-1".into(),
            pod_cidrs: vec![cidr("172.20.1.0/24")],
            addresses: vec!["192.0.2.11".parse().unwrap()],
        }]);
        cluster.networks = vec![PodNetwork {
            cni: Cni::Flannel,
            source: "ConfigMap kube-flannel/kube-flannel-cfg".into(),
            ranges: vec![cidr("10.244.0.0/16")],
            by_node: true,
        }];
        assert_eq!(verdict(&pod, &host), ("pod-cidr-mismatch".to_owned(), Confidence::Certain));
        let comparison = compare(&side(&pod), &side(&host));
        assert!(
            comparison.verdict.sentence.contains("10.244.0.0/16")
                && comparison.verdict.sentence.contains("172.20.1.0/24"),
            "{}",
            comparison.verdict.sentence
        );
        // In order, the network is dead all the same.
        host.facts.kubernetes.as_mut().unwrap().networks[0].ranges = vec![cidr("172.20.0.0/16")];
        assert_eq!(verdict(&pod, &host), ("pod-network-dead".to_owned(), Confidence::Likely));
        // And nothing else can be meant where no network policy is for the pod.
        host.facts.kubernetes.as_mut().unwrap().policies = Asked::Is(Vec::new());
        assert_eq!(verdict(&pod, &host), ("pod-network-dead".to_owned(), Confidence::Certain));
    }

    /// The bridge plugin hands out 10.88.0.0/24, the cluster was given 10.244.0.0/16, services are reached by NAT.
    #[test]
    fn services_that_answer_the_pod_by_nat() {
        let cidr = |text: &str| text.parse().unwrap();
        let mut pod = report(Some(CauseId::TcpTimeout), Some(true));
        let cluster = pod.facts.kubernetes.as_mut().unwrap();
        cluster.pod.addresses = vec!["10.88.0.3".parse().unwrap()];
        cluster.unasked = Some("no service account".into());
        let host = report(None, Some(true));
        assert_eq!(verdict(&pod, &host), ("pod-network-dead".to_owned(), Confidence::Likely));
        // The host's side has read the ranges.
        let mut knows = host.clone();
        let cluster = knows.facts.kubernetes.as_mut().unwrap();
        (cluster.pod.node, cluster.pod.host_network) = (Some("n1".into()), Some(true));
        cluster.nodes = Asked::Is(vec![Node {
            name: "n1".into(),
            pod_cidrs: vec![cidr("10.244.0.0/24")],
            addresses: vec!["10.77.0.11".parse().unwrap()],
        }]);
        assert_eq!(verdict(&pod, &knows), ("pod-cidr-mismatch".to_owned(), Confidence::Certain));
        // The policies: none, one that is for this pod, one that may be.
        let policy = |selects| Asked::Is(vec![Policy { name: "deny".into(), selects, egress: Vec::new() }]);
        let mut host = host;
        for (policies, id, confidence) in [
            (Asked::Is(Vec::new()), "pod-network-dead", Confidence::Certain),
            (policy(Some(false)), "pod-network-dead", Confidence::Certain),
            (policy(Some(true)), "network-policy", Confidence::Certain),
            (policy(None), "pod-network-dead", Confidence::Likely),
        ] {
            host.facts.kubernetes.as_mut().unwrap().policies = policies;
            assert_eq!(verdict(&pod, &host), (id.to_owned(), confidence));
        }
        // A pod that others answer at their own addresses: it is the way out of the cluster.
        host.facts.kubernetes.as_mut().unwrap().policies = Asked::Is(Vec::new());
        let other = Peer {
            role: Role::OtherPod,
            address: "10.244.3.2:53".parse().unwrap(),
            same_node: false,
            failure: None,
            said: String::new(),
            ms: 1,
        };
        pod.facts.kubernetes.as_mut().unwrap().peers.push(other);
        assert_eq!(verdict(&pod, &host), ("pod-network-dead".to_owned(), Confidence::Likely));
        assert!(compare(&side(&pod), &side(&host)).verdict.sentence.contains("masqueraded"));
    }

    #[test]
    fn a_missing_report() {
        let missing = |no_network| Side::Missing { why: "ContainerCreating".into(), no_network };
        let good = side(&report(None, None));
        let bad = side(&report(Some(CauseId::TcpTimeout), None));
        let verdict = |pod: &Side, host: &Side| {
            let verdict = compare(pod, host).verdict;
            (verdict.id.into_owned(), verdict.exit_code, verdict.confidence)
        };
        assert_eq!(verdict(&missing(true), &good), ("pod-network-dead".into(), 63, Confidence::Likely));
        assert_eq!(verdict(&missing(false), &good), ("inconclusive".into(), 1, Confidence::Possible));
        assert_eq!(verdict(&bad, &missing(false)), ("tcp-timeout".into(), 13, Confidence::Possible));
        assert_eq!(verdict(&good, &missing(false)), ("ok".into(), 0, Confidence::Certain));
        assert_eq!(verdict(&missing(true), &missing(false)), ("inconclusive".into(), 1, Confidence::Possible));
    }

    #[test]
    fn what_differs_and_how_it_is_printed() {
        let comparison =
            compare(&side(&report(Some(CauseId::TcpTimeout), Some(false))), &side(&report(None, Some(true))));
        let expected = Difference {
            id: "tcp.connect".into(),
            target: "198.51.100.7:8080".into(),
            pod: Some(Outcome::No),
            host: Some(Outcome::Yes),
        };
        assert_eq!(comparison.differences, [expected]);
        let text = print(&comparison);
        assert!(text.starts_with("pod-network-dead (likely): "), "{text}");
        assert!(
            text.contains("\npod network  tcp-timeout: It is so.\nhost network ok: Nothing stands in the way.\n"),
            "{text}"
        );
        assert!(text.ends_with("\npod      host     \nno       yes      tcp.connect 198.51.100.7:8080\n"), "{text}");
        assert_eq!(
            serde_json::to_value(&comparison).unwrap()["differences"][0],
            json!({"id": "tcp.connect", "target": "198.51.100.7:8080", "pod": "no", "host": "yes"})
        );
    }

    #[test]
    fn reports_are_found_in_logs() {
        let report = report(Some(CauseId::TcpTimeout), Some(true));
        let pretty = super::super::print::json::print(&report);
        let line = serde_json::to_string(&report).unwrap();
        for log in [
            pretty.clone(),
            line.clone(),
            format!("{{\"level\":\"INFO\"}}\nsomething {{\n{pretty}{{ and\n"),
            format!("{{\n{line}\n"),
        ] {
            let found = find_report(&log).unwrap();
            assert_eq!(found.verdict, report.verdict);
            assert_eq!(found.facts, report.facts);
        }
        for log in ["", "{", "{}", "{}\n{}\n", "x"] {
            assert!(find_report(log).is_none(), "{log}");
        }
    }
}
