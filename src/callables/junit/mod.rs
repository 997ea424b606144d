//! junit-plugin: `JUnitParser$DirectParseResultCallable`, which reads test reports.
//!
//! The answer is a `TestResult` of suites of cases; all indexes in it are transient and rebuilt on the controller. Its
//! serializable superclasses have no persistent fields and computed `serialVersionUID`s that differ between releases.
//! They are left out: what a stream does not say of a superclass gets its defaults (Java Object Serialization
//! Specification, 5.6.2, "Adding classes"), so one answer fits all releases. Likewise each release takes the fields
//! that it has.

mod report;
mod xml;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use self::report::{Case, Failure, Results, Retention, Rules, Suite};
use super::file_path::query::list;
use super::file_path::types::absolute;
use super::listener::Listeners;
use super::{Call, Entry, Reply, Run, Throw};
use crate::files::attributes;
use crate::files::glob::{Glob, Options};
use crate::object::{Graph, NodeId, Value, View};

/// Callables of junit-plugin.
pub const ENTRIES: &[Entry] = &[Entry {
    class: "hudson.tasks.junit.JUnitParser$DirectParseResultCallable",
    owner: "junit",
    run: Run::Blocking(parse_reports),
}];

/// `JUnitResultArchiver.NoTestReportFound`
const NO_REPORTS: &str = "No test report files were found. Configuration error?";
/// Precision of files' times in milliseconds (`TestResult.FILE_TIME_PRECISION_MARGIN`).
const TIME_MARGIN: i64 = 3000;

crate::java_class! {
    struct ParseResultCallable<'g> {
        test_results: String = "testResults",
        now_master: i64 = "nowMaster",
        allow_empty_results: bool = "allowEmptyResults",
        details: Option<View<'g>> = "pipelineTestDetails",
        /// Until 2024-01.
        keep_long_stdio: bool = "keepLongStdio",
        /// Until 2022-05.
        build_time: i64 = "buildTime",
        /// These since 2022-05, as the listener.
        build_start_time: i64 = "buildStartTimeInMillis",
        build_time_in_millis: i64 = "buildTimeInMillis",
        skip_old_reports: bool = "skipOldReports",
        listener: Option<View<'g>> = "listener",
        keep_properties: bool = "keepProperties",
        keep_test_names: bool = "keepTestNames",
        /// Since 2024-01.
        stdio_retention: Option<View<'g>> = "stdioRetention",
    }
}

fn parse_reports(call: &Call) -> Result<Reply, Throw> {
    let this = ParseResultCallable::read(call.view())?;
    let retention = match this.stdio_retention.map(|retention| retention.constant()).transpose()?.as_deref() {
        Some("ALL") => Retention::All,
        Some("FAILED") => Retention::Failed,
        Some(_) => Retention::None,
        None if this.keep_long_stdio => Retention::All,
        None => Retention::None,
    };
    let is_old = call.view().field("buildTime").is_some();
    let rules =
        Rules { retention, keep_properties: this.keep_properties, keep_test_names: this.keep_test_names, is_old };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let dir = absolute(call.path()?)?;
    let names = list(call, &dir, &Glob::new(&this.test_results, None, Options::default()))?;
    let mut results = Results::new();
    if names.is_empty() {
        if !this.allow_empty_results {
            return Err(Throw::abort(NO_REPORTS));
        }
        let listener = Listeners::new(call).open_any(this.listener)?;
        listener.println(NO_REPORTS);
        listener.finish();
        let empty = Rules { retention: Retention::None, keep_properties: false, keep_test_names: false, is_old };
        return reply(call, &results, &this, empty);
    }
    // By the agent's clock, as the files' times.
    let build_time = match is_old {
        true => this.build_time.saturating_add(now.saturating_sub(this.now_master)),
        false => this.build_start_time.min(this.build_time_in_millis),
    };
    let is_new = |file: &Path| attributes::last_modified(file) >= build_time.saturating_sub(TIME_MARGIN);
    let mut parsed = false;
    for name in &names {
        if call.is_cancelled() {
            return Err(Throw::interrupted());
        }
        let file = dir.join(name);
        if (!is_old && !this.skip_old_reports) || is_new(&file) {
            results.add_file(&file, rules)?;
            parsed = true;
        }
    }
    if is_old && !parsed {
        return Err(nothing_new(&dir.join(&names[0]), build_time, now));
    }
    reply(call, &results, &this, rules)
}

/// Why there is no report of this build (`TestResult.parse` until 2022).
fn nothing_new(file: &Path, build_time: i64, now: i64) -> Throw {
    if now < build_time.saturating_sub(1000) {
        return Throw::abort(
            "Clock on this slave is out of sync with the master, and therefore \n\
             I can't figure out what test results are new and what are old.\n\
             Please keep the slave clock in sync with the master.",
        );
    }
    let age = time_span(build_time.saturating_sub(attributes::last_modified(file)));
    Throw::abort(format!(
        "Test reports were found but none of them are new. Did leafNodes run? \nFor example, {} is {age} old\n",
        file.display()
    ))
}

/// `Util.getTimeSpanString`
fn time_span(millis: i64) -> String {
    const SECOND: i64 = 1000;
    const DAY: i64 = 24 * 60 * 60 * SECOND;
    let units = [
        (365 * DAY, "yr"),
        (30 * DAY, "mo"),
        (DAY, "day"),
        (60 * 60 * SECOND, "hr"),
        (60 * SECOND, "min"),
        (SECOND, "sec"),
    ];
    let label = |count: i64, unit: &str| match unit {
        "day" if count != 1 => format!("{count} days"),
        _ => format!("{count} {unit}"),
    };
    for pair in units.windows(2) {
        let ((length, unit), (next_length, next)) = (pair[0], pair[1]);
        let count = millis / length;
        if count >= 10 {
            return label(count, unit);
        }
        if count > 0 {
            return format!("{} {}", label(count, unit), label(millis % length / next_length, next));
        }
    }
    match millis {
        10_000.. => label(millis / SECOND, "sec"),
        1000.. => trimmed(format!("{}.{}", millis / SECOND, millis % SECOND / 100)),
        100.. => trimmed(format!("0.{:02}", millis / 10)),
        _ => label(millis, "ms"),
    }
}

/// Seconds as `MessageFormat` prints them: without zeros at the end.
fn trimmed(seconds: String) -> String {
    format!("{} sec", seconds.trim_end_matches('0').trim_end_matches('.'))
}

fn reply(call: &Call, results: &Results, this: &ParseResultCallable<'_>, rules: Rules) -> Result<Reply, Throw> {
    let mut graph = Graph::with_loader(call.loader());
    let root = Writer::new(&mut graph, this.details, rules.is_old)?.test_result(results, rules, this);
    graph.set_root(root);
    Ok(Reply { graph, root: Some(root) })
}

/// Adds results to a graph.
struct Writer<'w> {
    graph: &'w mut Graph,
    case: NodeId,
    suite: NodeId,
    is_old: bool,
    node_id: Option<String>,
    blocks: Vec<String>,
    block_names: Vec<String>,
}

const STRING: &str = "Ljava/lang/String;";
const LIST: &str = "Ljava/util/List;";
const MAP: &str = "Ljava/util/Map;";

impl Writer<'_> {
    fn new<'w>(graph: &'w mut Graph, details: Option<View<'_>>, is_old: bool) -> Result<Writer<'w>, Throw> {
        crate::java_class! {
            struct PipelineTestDetails {
                node_id: Option<String> = "nodeId",
                blocks: Option<Vec<String>> = "enclosingBlocks",
                block_names: Option<Vec<String>> = "enclosingBlockNames",
            }
        }
        // Without a node there are no blocks either.
        let details = details.map(PipelineTestDetails::read).transpose()?.filter(|details| details.node_id.is_some());
        let (node_id, blocks, block_names) =
            details.map_or((None, None, None), |details| (details.node_id, details.blocks, details.block_names));
        let case = [
            ("duration", "F"),
            ("failedSince", "I"),
            ("isProperFailure", "Z"),
            ("keepTestNames", "Z"),
            ("skipped", "Z"),
            ("startTime", "J"),
            ("className", STRING),
            ("errorDetails", STRING),
            ("errorStackTrace", STRING),
            ("flakyFailures", LIST),
            ("properties", MAP),
            ("rerunFailures", LIST),
            ("skippedMessage", STRING),
            ("stderr", STRING),
            ("stdout", STRING),
            ("testName", STRING),
        ];
        let suite = [
            ("duration", "F"),
            ("startTime", "J"),
            ("cases", LIST),
            ("enclosingBlockNames", LIST),
            ("enclosingBlocks", LIST),
            ("file", STRING),
            ("id", STRING),
            ("name", STRING),
            ("nodeId", STRING),
            ("properties", MAP),
            ("stderr", STRING),
            ("stdout", STRING),
            ("time", STRING),
            ("timestamp", STRING),
        ];
        let case = graph.serializable("hudson.tasks.junit.CaseResult", 1, &case, None);
        let suite = graph.serializable("hudson.tasks.junit.SuiteResult", 1, &suite, None);
        let (blocks, block_names) = (blocks.unwrap_or_default(), block_names.unwrap_or_default());
        Ok(Writer { graph, case, suite, is_old, node_id, blocks, block_names })
    }

    fn test_result(&mut self, results: &Results, rules: Rules, this: &ParseResultCallable<'_>) -> NodeId {
        let mut fields = vec![
            ("duration", "F"),
            ("keepLongStdio", "Z"),
            ("keepProperties", "Z"),
            ("keepTestNames", "Z"),
            ("skipOldReports", "Z"),
            ("startTime", "J"),
            ("impl", "Lio/jenkins/plugins/junit/storage/TestResultImpl;"),
        ];
        let retention = this.stdio_retention.map(|_| {
            fields.push(("stdioRetention", "Lhudson/tasks/junit/StdioRetention;"));
            let constant = match rules.retention {
                Retention::All => "ALL",
                Retention::Failed => "FAILED",
                Retention::None => "NONE",
            };
            self.graph.enum_constant("hudson.tasks.junit.StdioRetention", constant)
        });
        fields.push(("suites", LIST));
        let suites: Vec<_> = results.suites.iter().map(|suite| Some(self.suite(suite))).collect();
        let suites = self.graph.array_list(&suites);
        let desc = self.graph.serializable("hudson.tasks.junit.TestResult", 1, &fields, None);
        let mut object = self.graph.object(desc);
        if retention.is_some() {
            object = object.set_ref("stdioRetention", retention);
        }
        object
            .set("duration", Value::Float(results.duration))
            .set("keepLongStdio", Value::Bool(rules.retention == Retention::All))
            .set("keepProperties", Value::Bool(rules.keep_properties))
            .set("keepTestNames", Value::Bool(rules.keep_test_names))
            .set("skipOldReports", Value::Bool(this.skip_old_reports && !results.suites.is_empty()))
            .set("startTime", Value::Long(results.start_time))
            .set_ref("suites", suites)
            .build()
    }

    fn suite(&mut self, suite: &Suite) -> NodeId {
        let cases: Vec<_> = suite.cases.iter().map(|case| Some(self.case(case))).collect();
        let cases = self.graph.array_list(&cases);
        let (node_id, blocks, block_names) = match suite.has_details {
            true => (self.node_id.clone(), self.blocks.clone(), self.block_names.clone()),
            false => (None, Vec::new(), Vec::new()),
        };
        let node_id = self.string(node_id.as_deref());
        let (blocks, block_names) = (self.strings(&blocks), self.strings(&block_names));
        let [file, id, stderr, stdout] =
            [&suite.file, &suite.id, &suite.stderr, &suite.stdout].map(|text| self.string(text.as_deref()));
        let [time, timestamp] = [&suite.time, &suite.timestamp].map(|text| self.string(text.as_deref()));
        let name = self.string(Some(&suite.name));
        let properties = self.properties(&suite.properties);
        self.graph
            .object(self.suite)
            .set("duration", Value::Float(suite.duration))
            .set("startTime", Value::Long(suite.start_time))
            .set_ref("cases", cases)
            .set_ref("enclosingBlockNames", block_names)
            .set_ref("enclosingBlocks", blocks)
            .set_ref("file", file)
            .set_ref("id", id)
            .set_ref("name", name)
            .set_ref("nodeId", node_id)
            .set_ref("properties", properties)
            .set_ref("stderr", stderr)
            .set_ref("stdout", stdout)
            .set_ref("time", time)
            .set_ref("timestamp", timestamp)
            .build()
    }

    fn case(&mut self, case: &Case) -> NodeId {
        let [class_name, details, stack_trace, skipped_message] =
            [&case.class_name, &case.details, &case.stack_trace, &case.skipped_message]
                .map(|text| self.string(text.as_deref()));
        let [stderr, stdout, test_name] =
            [&case.stderr, &case.stdout, &case.test_name].map(|text| self.string(text.as_deref()));
        let properties = self.properties(&case.properties);
        let [flaky, rerun] =
            [&case.flaky, &case.rerun].map(|list| list.as_ref().and_then(|failures| self.failures(failures)));
        self.graph
            .object(self.case)
            .set("duration", Value::Float(case.duration))
            .set("isProperFailure", Value::Bool(case.is_proper_failure))
            .set("keepTestNames", Value::Bool(case.keep_test_names))
            .set("skipped", Value::Bool(case.skipped))
            .set("startTime", Value::Long(case.start_time))
            .set_ref("className", class_name)
            .set_ref("errorDetails", details)
            .set_ref("errorStackTrace", stack_trace)
            .set_ref("flakyFailures", flaky)
            .set_ref("properties", properties)
            .set_ref("rerunFailures", rerun)
            .set_ref("skippedMessage", skipped_message)
            .set_ref("stderr", stderr)
            .set_ref("stdout", stdout)
            .set_ref("testName", test_name)
            .build()
    }

    /// `Failure` is a record, whose `serialVersionUID` nobody compares. Null for a release without the field.
    fn failures(&mut self, failures: &[Failure]) -> Option<NodeId> {
        if self.is_old {
            return None;
        }
        let objects = failures.iter().map(|failure| {
            let [message, kind, stack_trace, stdout, stderr] =
                failure.each_ref().map(|text| self.string(text.as_deref()));
            let fields =
                [("message", STRING), ("stackTrace", STRING), ("stderr", STRING), ("stdout", STRING), ("type", STRING)];
            let desc = self.graph.serializable("hudson.tasks.junit.Failure", 0, &fields, None);
            Some(
                self.graph
                    .object(desc)
                    .set_ref("message", message)
                    .set_ref("stackTrace", stack_trace)
                    .set_ref("stderr", stderr)
                    .set_ref("stdout", stdout)
                    .set_ref("type", kind)
                    .build(),
            )
        });
        let objects: Vec<_> = objects.collect();
        Some(self.graph.array_list(&objects))
    }

    /// Null for a release without the field.
    fn properties(&mut self, properties: &[(String, String)]) -> Option<NodeId> {
        if self.is_old {
            return None;
        }
        let entries: Vec<_> =
            properties.iter().map(|(name, value)| (self.string(Some(name)), self.string(Some(value)))).collect();
        Some(self.graph.hash_map(&entries))
    }

    fn strings(&mut self, strings: &[String]) -> NodeId {
        let strings: Vec<_> = strings.iter().map(|text| self.string(Some(text))).collect();
        self.graph.array_list(&strings)
    }

    fn string(&mut self, text: Option<&str>) -> Option<NodeId> {
        text.map(|text| self.graph.string(text))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::callables::Agent;
    use crate::callables::testing::{Harness, outline, recorded};

    const CALLABLE: &str = "hudson.tasks.junit.JUnitParser$DirectParseResultCallable";
    /// A report that gives the recorded answer.
    const REPORT: &str = "<testsuite name='demo' time='0.5'><testcase classname='demo.A' name='ok' time='0.1'/>\
                          <testcase classname='demo.A' name='good2' time='0.2'/>\
                          <testcase classname='demo.A' name='skip' time='0.0'><skipped/></testcase></testsuite>";

    /// What a request is answered, about files in a directory. `Err` is the class of an exception.
    async fn ask(dir: &Path, pattern: &str, fields: &[(&'static str, &'static str, Value)]) -> Result<Graph, String> {
        let agent = Arc::new(Agent::new(None, None, None));
        let answer = crate::callables::testing::ask(&agent, |graph| {
            let (retention, pattern) =
                (graph.enum_constant("hudson.tasks.junit.StdioRetention", "FAILED"), graph.string(pattern));
            let is_new = fields.iter().any(|(name, ..)| *name == "skipOldReports");
            let mut declared: Vec<_> = fields.iter().map(|(name, kind, _)| (*name, *kind)).collect();
            declared.extend([("stdioRetention", "Lhudson/tasks/junit/StdioRetention;"), ("testResults", STRING)]);
            let desc = graph.serializable(CALLABLE, 1, &declared, None);
            let callable = graph.object(desc).set_ref("stdioRetention", is_new.then_some(retention));
            let callable = callable.set_ref("testResults", pattern);
            let callable = fields.iter().fold(callable, |object, (name, _, value)| object.set(name, *value)).build();
            let desc = graph.serializable("hudson.FilePath", 1, &[("remote", STRING)], None);
            let remote = graph.string(&dir.to_string_lossy());
            let path = graph.object(desc).set_ref("remote", remote).build();
            let fields = [("callable", "Lhudson/FilePath$FileCallable;"), ("filePath", "Lhudson/FilePath;")];
            let desc = graph.serializable("hudson.FilePath$FileCallableWrapper", 1, &fields, None);
            graph.object(desc).set_ref("callable", callable).set_ref("filePath", path).build()
        });
        answer.await
    }

    const YES: Value = Value::Bool(true);
    const NO: Value = Value::Bool(false);
    /// The time in milliseconds of the files of these tests.
    const THEN: i64 = 1_600_000_000_000;

    /// A directory with a report of [`THEN`].
    fn reports() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.xml");
        fs::write(&file, REPORT).unwrap();
        attributes::set_last_modified(&file, THEN).unwrap();
        dir
    }

    fn suites(answer: &Graph) -> usize {
        answer.root().unwrap().require("suites").unwrap().collection().unwrap().len()
    }

    #[tokio::test]
    async fn todays_shape() {
        let dir = reports();
        fs::write(
            dir.path().join("s.xml"),
            "<testsuite name='s'><testcase name='c.d'><rerunFailure message='m'/></testcase></testsuite>",
        )
        .unwrap();
        let fields = [("skipOldReports", "Z", NO), ("keepProperties", "Z", YES), ("keepTestNames", "Z", YES)];
        let answer = ask(dir.path(), "*.xml", &fields).await.unwrap();
        let root = answer.root().unwrap();
        assert_eq!(root.require("stdioRetention").unwrap().constant().unwrap(), "FAILED");
        assert_eq!((root.bool("keepProperties"), root.bool("keepTestNames")), (Ok(true), Ok(true)));
        let text = outline(&answer);
        let record = " hudson.tasks.junit.Failure 0 message=\"m\" stackTrace=null stderr=null stdout=null type=null\n";
        assert!(text.contains(record), "{text}");
        let case = root.require("suites").unwrap().collection().unwrap()[0].unwrap().require("cases").unwrap();
        let case = case.collection().unwrap()[0].unwrap();
        assert!(case.require("properties").unwrap().is("java.util.HashMap"));
        assert_eq!(case.require("flakyFailures").unwrap().collection().unwrap().len(), 0);
    }

    #[tokio::test]
    async fn old_reports() {
        let dir = reports();
        let skip = |skip: Value, time: i64| {
            [
                ("skipOldReports", "Z", skip),
                ("buildStartTimeInMillis", "J", Value::Long(time)),
                ("buildTimeInMillis", "J", Value::Long(time + 1)),
            ]
        };
        for (fields, expected) in [
            (skip(YES, THEN + TIME_MARGIN), 1),
            (skip(YES, THEN + TIME_MARGIN + 1), 0),
            (skip(NO, THEN + TIME_MARGIN + 1), 1),
        ] {
            assert_eq!(suites(&ask(dir.path(), "*.xml", &fields).await.unwrap()), expected);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        let old = |time: i64| [("buildTime", "J", Value::Long(time)), ("nowMaster", "J", Value::Long(now))];
        assert_eq!(suites(&ask(dir.path(), "*.xml", &old(THEN)).await.unwrap()), 1);
        for time in [THEN + 100_000_000, now + 100_000_000] {
            assert_eq!(ask(dir.path(), "*.xml", &old(time)).await.unwrap_err(), "hudson.AbortException");
        }
    }

    #[tokio::test]
    async fn no_reports() {
        let dir = reports();
        assert_eq!(ask(dir.path(), "none", &[]).await.unwrap_err(), "hudson.AbortException");
        let allowed = [("allowEmptyResults", "Z", YES), ("keepLongStdio", "Z", YES)];
        let answer = ask(dir.path(), "none", &allowed).await.unwrap();
        assert_eq!((suites(&answer), answer.root().unwrap().bool("keepLongStdio")), (0, Ok(false)));
        let missing = dir.path().join("missing");
        assert_eq!(ask(&missing, "*.xml", &allowed).await.unwrap_err(), "java.io.IOException");
    }

    #[test]
    fn why_nothing_is_new() {
        let dir = reports();
        let file = dir.path().join("r.xml");
        let message = |build_time, now| nothing_new(&file, build_time, now).message.unwrap();
        let age = format!("\nFor example, {} is 1 day 3 hr old\n", file.display());
        let text = message(THEN + 27 * 3_600_000, THEN + 27 * 3_600_000);
        assert_eq!(text, format!("Test reports were found but none of them are new. Did leafNodes run? {age}"));
        assert!(message(THEN + 5000, THEN).starts_with("Clock on this slave is out of sync"));
    }

    #[test]
    fn time_spans() {
        for (millis, expected) in [
            (0, "0 ms"),
            (99, "99 ms"),
            (120, "0.12 sec"),
            (500, "0.5 sec"),
            (1000, "1 sec"),
            (1299, "1.2 sec"),
            (10_999, "10 sec"),
            (61_000, "1 min 1 sec"),
            (600_000, "10 min"),
            (7_140_000, "1 hr 59 min"),
            (2 * 86_400_000, "2 days 0 hr"),
            (30 * 86_400_000, "1 mo 0 days"),
            (366 * 86_400_000, "1 yr 0 mo"),
            (-5, "-5 ms"),
        ] {
            assert_eq!(time_span(millis), expected);
        }
    }

    #[test]
    fn the_recorded_report() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        let dir = root.join("workspace/seed/tests");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("results.xml"), REPORT).unwrap();
        let harness = Harness::new();
        let (request, recorded) = recorded(CALLABLE, 0, &root);
        let (expected, ours) = (outline(&recorded.unwrap()), outline(&harness.replay(&request, &[]).unwrap()));
        // Fields that only later releases have, and superclasses without fields, are all the difference.
        let extra = [
            " keepProperties=Bool(false)",
            " keepTestNames=Bool(false)",
            " skipOldReports=Bool(false)",
            " isProperFailure=Bool(false)",
            " startTime=Long(-1)",
            " flakyFailures=null",
            " rerunFailures=null",
            " properties=null",
        ];
        let ours = extra.iter().fold(ours, |text, extra| text.replace(extra, ""));
        assert_eq!(ours, expected);
        harness.finish();
    }
}
