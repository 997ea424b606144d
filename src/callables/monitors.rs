//! Node monitors (`hudson.node_monitors`), which a controller runs soon after an agent is online and hourly from then.
//!
//! Left out, because they never travel: `ResponseTimeMonitor$Step1` and `Slave$GetClockDifference1` replace themselves
//! by what is here when they are sent, and the answer of `Jenkins$ClockDifferenceCallable` is not serializable.

use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{Call, Entry, Reply, Run, Throw};
use crate::java_class;
use crate::object::{AccessError, Graph, NodeId, Value, View};
use crate::process::system::{self, MemoryUsage};

const fn core(class: &'static str, run: Run) -> Entry {
    Entry { class, owner: "core", run }
}

/// The callables of this module.
pub const ENTRIES: &[Entry] = &[
    core("hudson.node_monitors.ArchitectureMonitor$GetArchTask", Run::Inline(architecture)),
    core("hudson.model.Slave$GetClockDifference2", Run::Blocking(clock)),
    core(
        "hudson.node_monitors.DiskSpaceMonitorDescriptor$GetUsableSpace",
        Run::Blocking(|call| disk_space(call, call.path()?)),
    ),
    core(
        "hudson.node_monitors.TemporarySpaceMonitor$GetTempSpace",
        Run::Blocking(|call| disk_space(call, Path::new(system::TMPDIR))),
    ),
    core("hudson.node_monitors.SwapSpaceMonitor$MonitorTask", Run::Blocking(memory)),
    core("hudson.node_monitors.ResponseTimeMonitor$Step2", Run::Inline(response_time)),
];

fn architecture(call: &Call) -> Result<Reply, Throw> {
    Ok(call.string(&format!("{} ({})", system::OS_NAME, system::os_arch())))
}

fn clock(call: &Call) -> Result<Reply, Throw> {
    // The controller takes the middle between this and the arrival of the answer for the time of ours: what the question
    // back takes is not to shift it.
    let (sent, asked) = (call.view().long("startTime")?, Instant::now());
    let uid = clock_difference_uid(call);
    let start = sent.saturating_add(i64::try_from(asked.elapsed().as_millis()).unwrap_or(0));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let remote = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    Ok(call.reply(|graph| clock_difference(graph, uid, start, remote)))
}

/// `serialVersionUID` of `hudson.model.Slave$GetClockDifference3`, which the JVM computes: its constructor lost a
/// modifier in 2.284. A controller that does not say its version is asked for the class, and taken for a later one if
/// it does not give that either.
fn clock_difference_uid(call: &Call) -> i64 {
    const BEFORE: i64 = 7271478736802247840;
    const SINCE: i64 = -6655128034486338777;
    match call.agent().controller_at_least("2.284") {
        Some(false) => BEFORE,
        Some(true) => SINCE,
        None => call.class_uid("hudson.model.Slave$GetClockDifference3").unwrap_or_else(|throw| {
            tracing::debug!("the controller's version is unknown: {throw}");
            SINCE
        }),
    }
}

fn clock_difference(graph: &mut Graph, uid: i64, start: i64, remote: i64) -> NodeId {
    let fields = [("remoteTime", "J"), ("startTime", "J")];
    let desc = graph.serializable("hudson.model.Slave$GetClockDifference3", uid, &fields, None);
    graph.object(desc).set("remoteTime", Value::Long(remote)).set("startTime", Value::Long(start)).build()
}

/// What a controller is told of a file system.
#[derive(Debug, PartialEq, Eq)]
struct Space {
    path: String,
    usable: i64,
    total: i64,
}

/// `File.getUsableSpace` and `File.getTotalSpace`; `None` where Java's say 0, as for a path that does not exist.
fn space(path: &Path) -> Result<Option<Space>, Throw> {
    let Ok(stat) = rustix::fs::statvfs(path) else { return Ok(None) };
    let bytes = |blocks: u64| i64::try_from(stat.f_frsize.saturating_mul(blocks)).unwrap_or(i64::MAX);
    let (usable, total) = (bytes(stat.f_bavail), bytes(stat.f_blocks));
    if usable <= 0 {
        return Ok(None);
    }
    let canonical = std::fs::canonicalize(path).map_err(|error| Throw::file(&error, path))?;
    Ok(Some(Space { path: canonical.to_string_lossy().into_owned(), usable, total }))
}

fn disk_space(call: &Call, path: &Path) -> Result<Reply, Throw> {
    Ok(match space(path)? {
        Some(space) => call.reply(|graph| disk_space_object(graph, &space)),
        None => call.null(),
    })
}

/// A `DiskSpaceMonitorDescriptor$DiskSpace`. Its other fields are the controller's to set; those that a version does
/// not have, it skips.
fn disk_space_object(graph: &mut Graph, space: &Space) -> NodeId {
    let name = "hudson.node_monitors.DiskSpaceMonitorDescriptor$DiskSpace";
    let fields = [("path", "Ljava/lang/String;"), ("size", "J"), ("totalSize", "J")];
    let desc = graph.serializable(name, 2, &fields, None);
    let path = graph.string(&space.path);
    let object = graph.object(desc).set_ref("path", path);
    object.set("size", Value::Long(space.usable)).set("totalSize", Value::Long(space.total)).build()
}

fn memory(call: &Call) -> Result<Reply, Throw> {
    let usage = system::memory().map_err(|error| Throw::io(error.to_string()))?;
    Ok(call.reply(|graph| memory_usage(graph, &usage)))
}

fn memory_usage(graph: &mut Graph, usage: &MemoryUsage) -> NodeId {
    let fields = [
        ("availablePhysicalMemory", "J"),
        ("availableSwapSpace", "J"),
        ("totalPhysicalMemory", "J"),
        ("totalSwapSpace", "J"),
    ];
    let base = graph.serializable("org.jvnet.hudson.MemoryUsage", 1, &fields, None);
    let name = "hudson.node_monitors.SwapSpaceMonitor$MemoryUsage2";
    let desc = graph.serializable(name, 2216994637932270352, &[], Some(base));
    graph
        .object(desc)
        .set("availablePhysicalMemory", Value::Long(usage.available_physical))
        .set("availableSwapSpace", Value::Long(usage.available_swap))
        .set("totalPhysicalMemory", Value::Long(usage.total_physical))
        .set("totalSwapSpace", Value::Long(usage.total_swap))
        .build()
}

java_class! {
    struct Step2<'g> {
        /// The results so far, a `ResponseTimeMonitor$Data`.
        cur: Option<View<'g>> = "cur",
        start: i64 = "start",
    }
}

impl Step2<'_> {
    fn past(&self) -> Result<Option<Vec<i64>>, AccessError> {
        let Some(times) = self.cur.map(|data| data.require("past5")).transpose()? else { return Ok(None) };
        let (longs, _) = times.primitive_array("[J")?.as_chunks::<8>();
        Ok(Some(longs.iter().map(|long| i64::from_be_bytes(*long)).collect()))
    }
}

fn response_time(call: &Call) -> Result<Reply, Throw> {
    let request = Step2::read(call.view())?;
    let past = request.past()?;
    Ok(call.reply(|graph| step3(graph, past.as_deref(), request.start)))
}

fn step3(graph: &mut Graph, past: Option<&[i64]>, start: i64) -> NodeId {
    let data = past.map(|past| {
        let name = "hudson.node_monitors.ResponseTimeMonitor$Data";
        let desc = graph.serializable(name, 1, &[("past5", "[J")], None);
        let times = graph.long_array(past);
        graph.object(desc).set_ref("past5", times).build()
    });
    let fields = [("start", "J"), ("cur", "Lhudson/node_monitors/ResponseTimeMonitor$Data;")];
    let desc = graph.serializable("hudson.node_monitors.ResponseTimeMonitor$Step3", 1, &fields, None);
    graph.object(desc).set_ref("cur", data).set("start", Value::Long(start)).build()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::callables::Agent;
    use crate::callables::suid::{class_file_of, class_uid};
    use crate::callables::testing::{self, Harness, assert_same_shape};

    #[tokio::test]
    async fn recorded_requests_get_answers_of_the_recorded_shapes() {
        let agent = Arc::new(Agent::new(None, None, Some("2.293".to_owned())));
        for (callable, extra) in [
            ("hudson.model.Slave$GetClockDifference2", None),
            ("hudson.node_monitors.TemporarySpaceMonitor$GetTempSpace", Some("totalSize")),
            ("hudson.node_monitors.SwapSpaceMonitor$MonitorTask", None),
            ("hudson.node_monitors.ResponseTimeMonitor$Step2", None),
        ] {
            let (ours, theirs) = (testing::replay(&agent, callable).await, testing::answer(callable));
            assert_same_shape(theirs.root().unwrap(), ours.root().unwrap(), extra.as_slice());
        }
        let architecture = testing::replay(&agent, "hudson.node_monitors.ArchitectureMonitor$GetArchTask").await;
        let architecture = architecture.root().unwrap().as_str().unwrap().into_owned();
        assert_eq!(architecture, format!("Linux ({})", system::os_arch()));
        // The path of the recorded request is not here.
        let callable = "hudson.node_monitors.DiskSpaceMonitorDescriptor$GetUsableSpace";
        let mut ours = Graph::default();
        let root = disk_space_object(&mut ours, &Space { path: "/".to_owned(), usable: 1, total: 2 });
        assert_same_shape(testing::answer(callable).root().unwrap(), ours.view(root), &["totalSize"]);
    }

    #[tokio::test]
    async fn the_clock_difference_is_of_the_controllers_class() {
        for (version, uid) in [
            (None, -6655128034486338777),
            (Some("2.579"), -6655128034486338777),
            (Some("2.284"), -6655128034486338777),
            (Some("2.283"), 7271478736802247840),
            (Some("2.277.4"), 7271478736802247840),
        ] {
            let agent = Arc::new(Agent::new(None, None, version.map(str::to_owned)));
            let answer = testing::replay(&agent, "hudson.model.Slave$GetClockDifference2").await;
            let answer = answer.root().unwrap();
            assert_eq!(answer.graph().class(answer.desc().unwrap()).unwrap().uid, uid, "{version:?}");
        }
    }

    #[test]
    fn a_controller_of_an_unknown_version_is_asked_for_its_class() {
        let class = "hudson.model.Slave$GetClockDifference3";
        let class_file = class_file_of(class, &[("readResolve", "()Ljava/lang/Object;")]);
        let uid = class_uid(&class_file).unwrap().uid;
        for (version, expected, asked) in [(None, uid, 1), (Some("2.293"), -6655128034486338777, 0)] {
            let harness = Harness::with_agent(Agent::new(None, None, version.map(str::to_owned)));
            harness.end.define(class, class_file.clone());
            let (request, _) = testing::recorded("hudson.model.Slave$GetClockDifference2", 0, "/x".as_ref());
            let answer = harness.replay(&request, &[]).unwrap();
            let answer = answer.root().unwrap();
            assert_eq!(answer.graph().class(answer.desc().unwrap()).unwrap().uid, expected);
            assert_eq!(harness.end.asked().len(), asked);
            harness.finish();
        }
    }

    #[test]
    fn the_response_time_comes_back_with_what_came() {
        let request = testing::request("hudson.node_monitors.ResponseTimeMonitor$Step2");
        let first = Step2::read(request.root().unwrap()).unwrap();
        // Soon after 2026-11-23, in milliseconds.
        assert!(first.past().unwrap().is_none() && first.start > 1_795_392_000_000);

        // A later request has the results so far, in the fields that the answer has.
        for past in [None, Some(vec![230]), Some(vec![i64::MAX, -1, 0, 230, 12])] {
            let mut graph = Graph::default();
            let root = step3(&mut graph, past.as_deref(), 7);
            let echoed = Step2::read(graph.view(root)).unwrap();
            assert_eq!((echoed.past().unwrap(), echoed.start), (past, 7));
        }
    }

    #[test]
    fn space_of_what_is_there_and_of_what_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        let found = space(&link).unwrap().unwrap();
        assert_eq!(Path::new(&found.path), directory.path().canonicalize().unwrap());
        assert!(0 < found.usable && found.usable <= found.total, "{found:?}");
        assert_eq!(space(&directory.path().join("missing")).unwrap(), None);
    }
}
