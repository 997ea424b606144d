//! The agent's environment and the names of its machine.

use super::{Call, Entry, Reply, Run, Throw};
use crate::object::{Graph, NodeId, sc};
use crate::process::env::EnvVars;
use crate::process::system;

const fn core(class: &'static str, run: Run) -> Entry {
    Entry { class, owner: "core", run }
}

/// The callables of this module.
pub const ENTRIES: &[Entry] = &[
    core("hudson.EnvVars$GetEnvVars", Run::Inline(env_vars)),
    core("hudson.slaves.SlaveComputer$ListFullEnvironment", Run::Inline(full_environment)),
    core("hudson.model.Computer$ListPossibleNames", Run::Blocking(possible_names)),
    core("hudson.model.Computer$GetFallbackName", Run::Inline(fallback_name)),
    // Of each freestyle build, whether it injects variables or not.
    Entry {
        class: "org.jenkinsci.plugins.envinject.service.EnvInjectActionSetter$MapEnvInjectExceptionMasterToSlaveCallable",
        owner: "envinject",
        run: Run::Inline(full_environment),
    },
    Entry {
        class: "org.jenkinsci.plugins.envinject.service.EnvInjectMasterEnvVarsRetriever",
        owner: "envinject",
        run: Run::Inline(env_vars),
    },
];

fn env_vars(call: &Call) -> Result<Reply, Throw> {
    Ok(call.reply(|graph| env_vars_object(graph, &call.agent().environment)))
}

/// A `hudson.EnvVars`.
///
/// Its comparator is `String.CASE_INSENSITIVE_ORDER`, as since 2.294. Before, it was a class of core's that has been
/// deprecated since; those controllers take the JDK's as well, which their class filter lets through.
pub fn env_vars_object(graph: &mut Graph, variables: &EnvVars) -> NodeId {
    let comparator = "java.lang.String$CaseInsensitiveComparator";
    let comparator = graph.serializable(comparator, 8575799808933029326, &[], None);
    let comparator = graph.object(comparator).build();
    let tree_map = graph.tree_map_desc();
    let fields = [("platform", "Lhudson/Platform;")];
    let desc = graph.class_desc("hudson.EnvVars", 4320331661987259022, sc::SERIALIZABLE, &fields, Some(tree_map));
    let platform = graph.enum_constant("hudson.Platform", "UNIX");
    let entries: Vec<_> = variables.iter().map(|(name, value)| (graph.string(name), graph.string(value))).collect();
    let object = graph.object(desc).set_ref("comparator", comparator).set_ref("platform", platform);
    object.annotate(tree_map, crate::object::tree_map_annotation(&entries)).build()
}

/// The environment but for the agent's own secrets.
pub(super) fn full_environment(call: &Call) -> Result<Reply, Throw> {
    Ok(call.reply(|graph| string_tree_map(graph, call.agent().environment.iter())))
}

/// A `java.util.TreeMap` of strings in their natural order, in which `String.compareTo` has them: by UTF-16 units.
pub(super) fn string_tree_map<'a>(graph: &mut Graph, entries: impl Iterator<Item = (&'a str, &'a str)>) -> NodeId {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by(|(left, _), (right, _)| left.encode_utf16().cmp(right.encode_utf16()));
    entries.dedup_by(|(left, _), (right, _)| left == right);
    let entries: Vec<_> = entries.into_iter().map(|(key, value)| (graph.string(key), graph.string(value))).collect();
    graph.tree_map(None, &entries)
}

fn possible_names(call: &Call) -> Result<Reply, Throw> {
    Ok(call.reply(|graph| {
        let names: Vec<_> =
            system::ipv4_addresses().iter().map(|address| Some(graph.string(&address.to_string()))).collect();
        graph.array_list(&names)
    }))
}

/// `SystemProperties.getString("host.name")`, which on an agent looks among those that the controller copied there.
fn fallback_name(call: &Call) -> Result<Reply, Throw> {
    let properties = call.agent().properties.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let name = properties.get("host.name").cloned().flatten();
    Ok(name.map_or_else(|| call.null(), |name| call.string(&name)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::callables::Agent;
    use crate::callables::testing::{self, assert_same_shape};

    #[tokio::test]
    async fn a_recorded_request_is_told_the_environment() {
        let mut agent = Agent::new(None, None, None);
        agent.environment = [("b", "2"), ("A", "1")].into_iter().collect();
        let answer = testing::replay(&Arc::new(agent), "hudson.EnvVars$GetEnvVars").await;
        let entry = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        assert_eq!(answer.root().unwrap().string_map().unwrap(), [entry("A", "1"), entry("b", "2")]);
    }

    #[test]
    fn env_vars_have_the_recorded_shape() {
        let answer = testing::answer("hudson.EnvVars$GetEnvVars");
        let recorded = answer.root().unwrap();
        let variables: EnvVars =
            recorded.string_map().unwrap().into_iter().map(|(name, value)| (name, value.unwrap())).collect();
        assert!(variables.get("PATH").is_some());

        let mut graph = Graph::default();
        let ours = env_vars_object(&mut graph, &variables);
        let ours = graph.view(ours);
        // All but the comparator, of which the recording has the class that 2.293 had.
        assert_same_shape(recorded, ours, &[]);
        assert_eq!(ours.string_map().unwrap(), recorded.string_map().unwrap());
        assert_eq!(recorded.require("comparator").unwrap().class_name(), "hudson.util.CaseInsensitiveComparator");
        assert_eq!(ours.require("comparator").unwrap().class_name(), "java.lang.String$CaseInsensitiveComparator");
        assert_eq!(ours.require("platform").unwrap().constant().unwrap(), "UNIX");
        let platform = |view: crate::object::View<'_>| view.require("platform").unwrap().class_name().into_owned();
        assert_eq!(platform(ours), platform(recorded));
    }

    #[test]
    fn tree_maps_are_in_the_order_of_utf16_units() {
        let mut graph = Graph::default();
        // U+FF5E is one unit above the surrogates that write U+1F600.
        let map = [("b", "1"), ("\u{ff5e}", "2"), ("\u{1f600}", "3"), ("B", "4"), ("b", "5")];
        let map = string_tree_map(&mut graph, map.into_iter());
        let keys: Vec<String> = graph.view(map).string_map().unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["B", "b", "\u{1f600}", "\u{ff5e}"]);
    }
}
