//! From report files to suites and cases: the rules of junit-plugin's `TestResult`, `SuiteResult` and `CaseResult`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::xml::{self, Element, ReportError};
use crate::calendar;
use crate::callables::{Throw, ThrowClass};
use crate::files::attributes;

/// Characters of output kept at each end of a passed case's, and of one that failed (`CaseResult.HALF_MAX_SIZE`).
const HALF_MAX_SIZE: usize = 500;
const HALF_MAX_FAILING_SIZE: usize = 50_000;
/// From this size in bytes on, an output file is trimmed whatever the settings say (`CaseResult.possiblyTrimStdio`).
const MAX_OUTPUT_FILE: u64 = 1 << 20;
/// The longest duration, in seconds (`CaseResult.clampDuration`).
const MAX_DURATION: f32 = 365.0 * 24.0 * 60.0 * 60.0;

/// Whose long output is kept (`StdioRetention`; `keepLongStdio` is `All` or `None`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retention {
    All,
    Failed,
    None,
}

/// What the controller wants of the reports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub retention: Retention,
    pub keep_properties: bool,
    pub keep_test_names: bool,
    /// Whether the plugin is of before 2022-05: durations as reported.
    pub is_old: bool,
}

/// A `TestResult`.
#[derive(Debug)]
pub(super) struct Results {
    pub suites: Vec<Suite>,
    pub duration: f32,
    /// Milliseconds since 1970 of the first suite, or -1.
    pub start_time: i64,
    /// Positions of suites by name.
    by_name: HashMap<String, Vec<usize>>,
}

/// A `SuiteResult`.
#[derive(Debug, Default)]
pub(super) struct Suite {
    pub file: Option<String>,
    pub name: String,
    pub stdout: Option<String>,
    pub stderr: Option<String>,
    pub duration: f32,
    pub start_time: i64,
    pub properties: Vec<(String, String)>,
    pub timestamp: Option<String>,
    pub id: Option<String>,
    pub time: Option<String>,
    /// Whether it has the pipeline's node and blocks. All have but those of unreadable files.
    pub has_details: bool,
    pub cases: Vec<Case>,
}

/// A `CaseResult`.
#[derive(Debug, Default)]
pub(super) struct Case {
    pub duration: f32,
    pub start_time: i64,
    pub class_name: Option<String>,
    pub test_name: Option<String>,
    pub is_proper_failure: bool,
    pub skipped: bool,
    pub keep_test_names: bool,
    pub skipped_message: Option<String>,
    pub stack_trace: Option<String>,
    pub details: Option<String>,
    pub properties: Vec<(String, String)>,
    /// `flakyFailures` and `rerunFailures`; null in a case that stands for a file.
    pub flaky: Option<Vec<Failure>>,
    pub rerun: Option<Vec<Failure>>,
    pub stdout: Option<String>,
    pub stderr: Option<String>,
}

/// A `Failure`: message, type, stack trace, standard output and error.
pub(super) type Failure = [Option<String>; 5];

impl Results {
    pub fn new() -> Results {
        Results { suites: Vec::new(), duration: 0.0, start_time: -1, by_name: HashMap::new() }
    }

    /// Adds a report file (`TestResult.parsePossiblyEmpty`). Its path must be absolute.
    pub fn add_file(&mut self, file: &Path, rules: Rules) -> Result<(), Throw> {
        let path = file.display();
        if attributes::length(file) == 0 {
            let suite = stand_in(file, true, "[empty]", format!("Test report file {path} was length 0"));
            self.add(suite);
            return Ok(());
        }
        let root = match xml::read(file) {
            Ok(root) => root,
            Err(ReportError::Io(error)) => {
                // FileInputStream
                let text = format!("{path} ({})", crate::callables::plain(&error));
                return Err(Throw::new(ThrowClass::FileNotFound, text));
            }
            Err(ReportError::Document(problem)) if file.extension().is_some_and(|extension| extension == "xml") => {
                // Java adds the stack trace of its parser.
                let text = format!("Failed to read test report file {path}\norg.dom4j.DocumentException: {problem}\n");
                self.add(stand_in(file, false, "[failed-to-read]", text));
                return Ok(());
            }
            Err(ReportError::Document(problem)) => {
                return Err(Throw::io(format!(
                    "Failed to read {path}\nIs this really a JUnit report file? Your configuration must be matching too \
                     many files"
                ))
                .caused_by(Throw::io(problem)));
            }
        };
        let mut suites = Vec::new();
        parse_suite(file, &root, rules, &mut suites)
            .map_err(|problem| Throw::io(format!("Failed to read {path}")).caused_by(problem))?;
        suites.into_iter().for_each(|suite| self.add(suite));
        Ok(())
    }

    /// Adds a suite; one that was begun by another file is continued (JENKINS-12457).
    fn add(&mut self, suite: Suite) {
        self.start_time = match (self.start_time, suite.start_time) {
            (-1, start) => start,
            (known, -1) => known,
            (known, start) => known.min(start),
        };
        self.duration += suite.duration;
        let places = self.by_name.entry(suite.name.clone()).or_default();
        let suites = &mut self.suites;
        let same = places.iter().copied().find(|place| {
            let known = &suites[*place];
            let same_id = known.id.is_none() || suite.id.is_none() || known.id == suite.id;
            same_id && known.has_details == suite.has_details
        });
        match same {
            Some(place) => suites[place].merge(suite),
            None => {
                places.push(suites.len());
                suites.push(suite);
            }
        }
    }
}

/// The suite that tells of a file that holds no report.
fn stand_in(file: &Path, has_details: bool, test_name: &str, problem: String) -> Suite {
    let name = file_name(file);
    let case = Case {
        start_time: -1,
        class_name: Some(name.clone()),
        test_name: Some(test_name.to_owned()),
        stack_trace: Some(problem),
        details: Some(String::new()),
        ..Case::default()
    };
    let empty = || Some(String::new());
    Suite { name, stdout: empty(), stderr: empty(), has_details, cases: vec![case], ..Suite::default() }
}

fn file_name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `SuiteResult.parseSuite`: suites within suites come first.
fn parse_suite(file: &Path, root: &Element, rules: Rules, suites: &mut Vec<Suite>) -> Result<(), Throw> {
    for suite in root.children("testsuite") {
        parse_suite(file, suite, rules, suites)?;
    }
    if root.child("testcase").is_some() || root.child("error").is_some() {
        suites.push(Suite::new(file, root, rules)?);
    }
    Ok(())
}

impl Suite {
    fn new(file: &Path, element: &Element, rules: Rules) -> Result<Suite, Throw> {
        let owned = |name: &str| element.attribute(name).map(str::to_owned);
        let name = match (element.attribute("name"), element.attribute("package")) {
            (None, _) => format!("({})", file_name(file)),
            (Some(name), None | Some("")) => name.to_owned(),
            (Some(name), Some(package)) => format!("{package}.{name}"),
        };
        let timestamp = owned("timestamp");
        let start_time = timestamp.as_deref().filter(|text| !text.is_empty()).map_or(-1, parse_timestamp);
        let time = owned("time");
        let mut suite = Suite {
            file: Some(file.display().to_string()),
            name: safe(&name),
            duration: time.as_deref().map_or(0.0, |time| duration(time, rules)),
            start_time,
            timestamp,
            id: owned("id"),
            time,
            has_details: true,
            ..Suite::default()
        };
        if element.child("error").is_some() {
            // The class could not be loaded.
            suite.add_case(Case::new(element, Some("<init>"), rules)?);
        }
        let mut offset: i64 = 0;
        for test_case in element.children("testcase") {
            let class_name = test_case.attribute("classname").or(element.attribute("name"));
            let mut case = Case::new(test_case, class_name, rules)?;
            match test_case.attribute("timestamp").filter(|text| !text.is_empty()) {
                Some(start) => case.start_time = parse_timestamp(start),
                None if start_time != -1 => {
                    case.start_time = start_time.saturating_add(offset);
                    offset = offset.saturating_add((case.duration * 1000.0) as i64);
                }
                None => {}
            }
            suite.add_case(case);
        }
        let failed = suite.cases.iter().any(|case| case.stack_trace.is_some());
        suite.stdout = output(element, "system-out", failed, rules);
        suite.stderr = output(element, "system-err", failed, rules);
        if suite.stdout.is_none() && suite.stderr.is_none() {
            suite.stdout = surefire_output(file, failed, rules)?;
        }
        suite.properties = properties(element, rules);
        Ok(suite)
    }

    fn add_case(&mut self, case: Case) {
        if self.time.is_none() {
            self.duration += case.duration;
        }
        self.cases.push(case);
    }

    fn merge(&mut self, other: Suite) {
        if self.time.is_some() {
            self.duration += other.duration;
        }
        other.cases.into_iter().for_each(|case| self.add_case(case));
    }
}

impl Case {
    fn new(element: &Element, class_name: Option<&str>, rules: Rules) -> Result<Case, Throw> {
        let mut class_name = class_name;
        let mut test_name = element.attribute("name");
        if class_name.is_none() {
            // Where Java runs into a NullPointerException.
            let missing = || Throw::new(ThrowClass::IllegalState, "a testcase has no class name");
            let (class, name) = test_name.and_then(|name| name.rsplit_once('.')).ok_or_else(missing)?;
            (class_name, test_name) = (Some(class), Some(name));
        }
        let problem = element.child("error").or(element.child("failure"));
        let stack_trace = problem.map(|problem| problem.text().to_owned());
        let failed = stack_trace.is_some();
        let skipped = element.child("skipped");
        Ok(Case {
            duration: element.attribute("time").map_or(0.0, |time| duration(time, rules)),
            start_time: -1,
            class_name: class_name.map(str::to_owned),
            test_name: test_name.map(str::to_owned),
            is_proper_failure: element.child("failure").is_some(),
            skipped: skipped.is_some(),
            keep_test_names: rules.keep_test_names,
            skipped_message: skipped.map(|skipped| skipped.attribute("message").unwrap_or(skipped.text()).to_owned()),
            stack_trace,
            details: problem.and_then(|problem| problem.attribute("message")).map(str::to_owned),
            properties: properties(element, rules),
            flaky: Some(element.children("flakyFailure").map(failure).collect()),
            rerun: Some(element.children("rerunFailure").map(failure).collect()),
            stdout: output(element, "system-out", failed, rules),
            stderr: output(element, "system-err", failed, rules),
        })
    }
}

fn failure(element: &Element) -> Failure {
    let attribute = |name| element.attribute(name).map(str::to_owned);
    let text = |name| element.child_text(name).map(str::to_owned);
    [attribute("message"), attribute("type"), text("stackTrace"), text("system-out"), text("system-err")]
}

/// Properties by name, each once: the last one counts.
fn properties(element: &Element, rules: Rules) -> Vec<(String, String)> {
    let Some(parent) = element.child("properties").filter(|_| rules.keep_properties) else { return Vec::new() };
    let pairs = parent.children("property").filter_map(|property| {
        let name = property.attribute("name")?;
        Some((name.to_owned(), property.attribute("value").unwrap_or(property.text()).to_owned()))
    });
    let unique: HashMap<String, String> = pairs.collect();
    let mut sorted: Vec<_> = unique.into_iter().collect();
    sorted.sort();
    sorted
}

/// `TestObject.safe`: the name as part of a URL.
fn safe(name: &str) -> String {
    if name.is_empty() { "(empty)".to_owned() } else { name.replace(['/', '\\', ':', '?', '#', '%', '<', '>'], "_") }
}

fn half_max_size(failed: bool) -> usize {
    if failed { HALF_MAX_FAILING_SIZE } else { HALF_MAX_SIZE }
}

fn keeps_all(failed: bool, rules: Rules) -> bool {
    rules.retention == Retention::All || (rules.retention == Retention::Failed && failed)
}

/// The text of an output element, trimmed (`CaseResult.possiblyTrimStdio`). A surrogate pair that the cut would split
/// is left out; before 2023 the plugin left half of it.
fn output(element: &Element, name: &str, failed: bool, rules: Rules) -> Option<String> {
    let text = element.child_text(name)?;
    let half = half_max_size(failed);
    // A character has at least as many bytes as UTF-16 units.
    if keeps_all(failed, rules) || text.len() <= half * 2 {
        return Some(text.to_owned());
    }
    let units: usize = text.chars().map(char::len_utf16).sum();
    if units <= half * 2 {
        return Some(text.to_owned());
    }
    let (head, tail) = (head(text, half), tail(text, half));
    Some(format!("{head}\n...[truncated {} chars]...\n{tail}", units - half * 2))
}

/// As many whole characters from the start as fit into `units` UTF-16 units.
fn head(text: &str, units: usize) -> &str {
    let mut left = units;
    let end = text.char_indices().find(|(_, c)| match left.checked_sub(c.len_utf16()) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    });
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

/// As many whole characters from the end as fit into `units` UTF-16 units.
fn tail(text: &str, units: usize) -> &str {
    let mut left = units;
    let before = text.char_indices().rev().find(|(_, c)| match left.checked_sub(c.len_utf16()) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    });
    &text[before.map_or(0, |(at, c)| at + c.len_utf8())..]
}

/// The output that Surefire writes beside its report: `X-output.txt` for `TEST-X.xml`.
fn surefire_output(report: &Path, failed: bool, rules: Rules) -> Result<Option<String>, Throw> {
    let report_name = file_name(report);
    let name = report_name.strip_prefix("TEST-").and_then(|name| name.strip_suffix(".xml"));
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    let file = report.with_file_name(format!("{name}-output.txt"));
    if !file.exists() {
        return Ok(None);
    }
    let text = trimmed_file(&file, failed, rules)
        .map_err(|error| Throw::io(format!("Failed to read {}", file.display())).caused_by(Throw::from(error)))?;
    // XML has no such character, and neither may what the controller saves (JENKINS-71139).
    Ok(Some(if rules.is_old { text } else { text.replace('\0', "^@") }))
}

fn trimmed_file(file: &Path, failed: bool, rules: Rules) -> io::Result<String> {
    let length = fs::metadata(file)?.len();
    let half = half_max_size(failed);
    let whole = || Ok(lossy(&fs::read(file)?).into_owned());
    if (keeps_all(failed, rules) && length < MAX_OUTPUT_FILE) || length <= 2 * half as u64 {
        return whole();
    }
    // A character has four bytes at most.
    let window = 4 * half as u64;
    let mut input = File::open(file)?;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    input.by_ref().take(window).read_to_end(&mut first)?;
    input.seek(SeekFrom::Start(length.saturating_sub(window)))?;
    input.take(window).read_to_end(&mut last)?;
    let (first, last) = (lossy(&first), lossy(&last));
    let (head, tail) = (head(&first, half), tail(&last, half));
    match length.saturating_sub((head.len() + tail.len()) as u64) {
        0 => whole(),
        middle => Ok(format!("{head}\n...[truncated {middle} bytes]...\n{tail}")),
    }
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn duration(time: &str, rules: Rules) -> f32 {
    let seconds = time_to_float(time);
    // Not a number stays one.
    if rules.is_old || seconds.is_nan() { seconds } else { seconds.clamp(0.0, MAX_DURATION) }
}

/// `TimeToFloat.parse`: seconds, in which commas don't count; of what is no number, the number that it begins with.
fn time_to_float(time: &str) -> f32 {
    let time = time.replace(',', "");
    java_float(&time).or_else(|| leading_number(&time)).unwrap_or(0.0)
}

/// `Float.parseFloat`, without hexadecimal numbers.
fn java_float(text: &str) -> Option<f32> {
    let text = text.trim_matches(|c| c <= ' ');
    match text.trim_start_matches(['+', '-']) {
        "NaN" => return Some(f32::NAN),
        "Infinity" => return Some(if text.starts_with('-') { f32::NEG_INFINITY } else { f32::INFINITY }),
        _ => {}
    }
    let number = text.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(text);
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    number.parse().ok().filter(|_| plain)
}

/// What `DecimalFormat.parse` reads of a text: a number at its start.
fn leading_number(text: &str) -> Option<f32> {
    let (sign, digits) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    let whole = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let end = match digits[whole..].strip_prefix('.') {
        Some(fraction) => whole + 1 + fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len()),
        None => whole,
    };
    let number: f64 = digits[..end].trim_end_matches('.').parse().ok()?;
    Some((sign * number) as f32)
}

/// `SuiteResult.parseTime`: an ISO 8601 date and time, taken as UTC if it names no offset, as milliseconds since 1970;
/// -1 if it is none.
fn parse_timestamp(text: &str) -> i64 {
    timestamp(&text.replace(' ', "")).unwrap_or(-1)
}

fn timestamp(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't'])?;
    let mut parts = date.splitn(3, '-').map(|part| number(part, if part.len() == 4 { 4 } else { 2 }));
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let month_days = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = month_days.get(usize::try_from(month - 1).ok()?)? + i64::from(month == 2 && is_leap);
    if !(1..=last).contains(&day) {
        return None;
    }
    let at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (clock, offset) = time.split_at(at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':').map(|part| number(part, 2));
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 || fraction.len() > 9 {
        return None;
    }
    let millis = match fraction {
        "" => 0,
        _ => number(fraction, fraction.len())? * 1000 / 10_i64.pow(u32::try_from(fraction.len()).ok()?),
    };
    let offset = match offset.chars().next() {
        None | Some('Z' | 'z') if offset.len() <= 1 => 0,
        Some(sign @ ('+' | '-')) => {
            let digits = offset[1..].replace(':', "");
            let (hours, rest) = digits.split_at_checked(2)?;
            let (minutes, seconds) = rest.split_at_checked(2).unwrap_or((rest, ""));
            let part = |text: &str| if text.is_empty() { Some(0) } else { number(text, 2) };
            let total = part(hours)? * 3600 + part(minutes)? * 60 + part(seconds)?;
            if sign == '-' { -total } else { total }
        }
        _ => return None,
    };
    let days = calendar::days(year, month, day);
    Some((days * 86_400 + hour * 3600 + minute * 60 + second - offset) * 1000 + millis)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Rules =
        Rules { retention: Retention::None, keep_properties: true, keep_test_names: false, is_old: false };

    /// The results of report files of these names and contents.
    fn results(files: &[(&str, &str)], rules: Rules) -> Result<Results, Throw> {
        let dir = tempfile::tempdir().unwrap();
        let mut results = Results::new();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        for (name, _) in files.iter().filter(|(name, _)| !name.ends_with("-output.txt")) {
            results.add_file(&dir.path().join(name), rules)?;
        }
        Ok(results)
    }

    fn only_suite(content: &str, rules: Rules) -> Suite {
        results(&[("r.xml", content)], rules).unwrap().suites.remove(0)
    }

    #[test]
    fn times() {
        for (text, seconds) in [
            ("1.5", 1.5),
            (" 2 ", 2.0),
            ("1,234.5", 1234.5),
            ("1e2", 100.0),
            ("3f", 3.0),
            ("4D", 4.0),
            ("1.5s", 1.5),
            ("7.", 7.0),
            ("5.x", 5.0),
            ("-0.25 s", -0.25),
            ("Infinity", f32::INFINITY),
            ("infinity", 0.0),
            ("nan", 0.0),
            (".5", 0.5),
            ("s", 0.0),
            ("", 0.0),
        ] {
            assert_eq!(time_to_float(text), seconds, "{text:?}");
        }
        assert!(time_to_float("NaN").is_nan());
        let old = Rules { is_old: true, ..NEW };
        assert_eq!((duration("-1", NEW), duration("1e30", NEW), duration("-1", old)), (0.0, MAX_DURATION, -1.0));
    }

    #[test]
    fn timestamps() {
        for (text, millis) in [
            ("1970-01-01T00:00:00", 0),
            ("2021-03-04T10:20:30", 1_614_853_230_000),
            ("2021-03-04T10:20:30.5Z", 1_614_853_230_500),
            ("2021-03-04T10:20:30.123456+01:00", 1_614_849_630_123),
            ("2021-03-04 T 10:20:30-0130", 1_614_858_630_000),
            ("2020-02-29T00:00", 1_582_934_400_000),
            ("1969-12-31T23:59:59", -1000),
            ("2021-02-29T00:00:00", -1),
            ("2021-13-01T00:00:00", -1),
            ("2021-03-04T24:20:30", -1),
            ("2021-03-04 10:20:30", -1),
            ("2021-03-04T10:20:30+é", -1),
            ("Thu Mar 4", -1),
            ("T", -1),
        ] {
            assert_eq!(parse_timestamp(text), millis, "{text:?}");
        }
    }

    #[test]
    fn suites_within_suites_come_first_and_those_without_cases_not_at_all() {
        let results = results(
            &[(
                "r.xml",
                "<testsuites name='no'><testsuite name='a/b' package='p.q' id='1'>\
                 <testsuite name='c'><testcase name='x' time='1'/><testcase name='y' time='2'/></testsuite>\
                 <testsuite name='none'/><testcase name='z' time='8'/></testsuite>\
                 <testsuite><error message='m'>text</error></testsuite><testsuite name=''><testcase name='n'/></testsuite>\
                 </testsuites>",
            )],
            NEW,
        )
        .unwrap();
        let names: Vec<_> = results.suites.iter().map(|s| (s.name.as_str(), s.cases.len(), s.duration)).collect();
        assert_eq!(names, [("c", 2, 3.0), ("p.q.a_b", 1, 8.0), ("(r.xml)", 1, 0.0), ("(empty)", 1, 0.0)]);
        let case = |suite: usize| &results.suites[suite].cases[0];
        assert_eq!(case(0).class_name.as_deref(), Some("c"));
        assert_eq!(case(1).class_name.as_deref(), Some("a/b"));
        assert_eq!((case(2).class_name.as_deref(), case(2).test_name.as_deref()), (Some("<init>"), None));
        assert_eq!((case(2).stack_trace.as_deref(), case(2).details.as_deref()), (Some("text"), Some("m")));
        assert_eq!(results.duration, 11.0);
    }

    #[test]
    fn cases_pass_fail_or_are_skipped() {
        type Outcome<'a> = (bool, Option<&'a str>, Option<&'a str>, bool, Option<&'a str>);
        let cases: &[(&str, Outcome<'_>)] = &[
            ("", (false, None, None, false, None)),
            ("<failure/>", (true, Some(""), None, false, None)),
            ("<failure message='m' type='T'>s</failure>", (true, Some("s"), Some("m"), false, None)),
            ("<error message='e'>t</error>", (false, Some("t"), Some("e"), false, None)),
            ("<failure message='m'>s</failure><error/>", (true, Some(""), None, false, None)),
            ("<skipped/>", (false, None, None, true, Some(""))),
            ("<skipped>why</skipped>", (false, None, None, true, Some("why"))),
            ("<skipped message='because'>why</skipped>", (false, None, None, true, Some("because"))),
            ("<other><failure/></other>", (false, None, None, false, None)),
        ];
        for (content, expected) in cases {
            let suite =
                only_suite(&format!("<testsuite><testcase name='a.b.C.d'>{content}</testcase></testsuite>"), NEW);
            let case = &suite.cases[0];
            let (stack, details) = (case.stack_trace.as_deref(), case.details.as_deref());
            let actual = (case.is_proper_failure, stack, details, case.skipped, case.skipped_message.as_deref());
            assert_eq!(actual, *expected, "{content}");
            assert_eq!((case.class_name.as_deref(), case.test_name.as_deref()), (Some("a.b.C"), Some("d")));
        }
    }

    #[test]
    fn properties_and_reruns() {
        let content = "<testsuite name='s'><properties><property name='k' value='v'/><property name='t'>text</property>\
                       <property value='nameless'/><property name='k' value='last'/></properties><testcase name='c'>\
                       <flakyFailure message='m' type='T'><stackTrace>st</stackTrace><system-out>o</system-out></flakyFailure>\
                       <rerunFailure><system-err>e</system-err></rerunFailure></testcase></testsuite>";
        let suite = only_suite(content, NEW);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(suite.properties, [pair("k", "last"), pair("t", "text")]);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(suite.cases[0].flaky, Some(vec![[text("m"), text("T"), text("st"), text("o"), None]]));
        assert_eq!(suite.cases[0].rerun, Some(vec![[None, None, None, None, text("e")]]));
        assert!(only_suite(content, Rules { keep_properties: false, ..NEW }).properties.is_empty());
    }

    #[test]
    fn start_times_add_up() {
        let suite = only_suite(
            "<testsuite name='s' timestamp='1970-01-01T00:00:01'><testcase name='a' time='1.5'/><testcase name='b'/>\
             <testcase name='c' timestamp='1970-01-01T00:00:09Z'/><testcase name='d' timestamp='?'/></testsuite>",
            NEW,
        );
        let times: Vec<_> = suite.cases.iter().map(|case| case.start_time).collect();
        assert_eq!((suite.start_time, times), (1000, vec![1000, 2500, 9000, -1]));
        let of = |files: &[(&str, &str)]| results(files, NEW).unwrap().start_time;
        let (none, some) = (
            "<testsuite><testcase name='a.b'/></testsuite>",
            "<testsuite timestamp='1970-01-01T00:00:01'>\
             <testcase name='a.b'/></testsuite>",
        );
        assert_eq!(of(&[("a.xml", none)]), -1);
        assert_eq!(of(&[("a.xml", none), ("b.xml", some)]), 1000);
        assert_eq!(of(&[("a.xml", some), ("b.xml", "")]), 0);
    }

    #[test]
    fn a_suite_goes_on_in_another_file() {
        let suite =
            |id: &str, time: &str| format!("<testsuite name='s' {id} {time}><testcase name='c' time='2'/></testsuite>");
        for (first, second, expected) in [
            (suite("", ""), suite("", ""), vec![(2, 4.0)]),
            (suite("id='1'", ""), suite("", ""), vec![(2, 4.0)]),
            (suite("id='1'", ""), suite("id='2'", ""), vec![(1, 2.0), (1, 2.0)]),
            (suite("", "time='10'"), suite("", "time='20'"), vec![(2, 30.0)]),
            (suite("", "time='10'"), suite("", ""), vec![(2, 12.0)]),
        ] {
            let results = results(&[("a.xml", &first), ("b.xml", &second)], NEW).unwrap();
            let suites: Vec<_> = results.suites.iter().map(|suite| (suite.cases.len(), suite.duration)).collect();
            assert_eq!(suites, expected, "{first} {second}");
        }
    }

    #[test]
    fn output_is_trimmed_by_utf16_units() {
        let all = Rules { retention: Retention::All, ..NEW };
        let failed = Rules { retention: Retention::Failed, ..NEW };
        let trimmed =
            |half: usize, middle: usize| format!("{0}\n...[truncated {middle} chars]...\n{0}", "x".repeat(half));
        let cases: &[(&str, usize, &str, Rules, Option<String>)] = &[
            ("x", 1000, "", NEW, None),
            ("x", 1001, "", NEW, Some(trimmed(500, 1))),
            ("x", 1001, "", all, None),
            ("x", 1001, "", failed, Some(trimmed(500, 1))),
            ("x", 100_000, "<failure/>", NEW, None),
            ("x", 100_007, "<failure/>", NEW, Some(trimmed(50_000, 7))),
            ("x", 100_007, "<failure/>", failed, None),
            ("é", 1000, "", NEW, None),
            ("\u{1f600}", 500, "", NEW, None),
            ("\u{1f600}", 501, "", NEW, Some(format!("{0}\n...[truncated 2 chars]...\n{0}", "\u{1f600}".repeat(250)))),
        ];
        for (unit, count, outcome, rules, expected) in cases {
            let text = unit.repeat(*count);
            let suite = only_suite(
                &format!(
                    "<testsuite><testcase name='a.b'>{outcome}<system-out>{text}</system-out></testcase>\
                     <system-err>{text}</system-err></testsuite>"
                ),
                *rules,
            );
            let expected = expected.as_ref().unwrap_or(&text);
            assert!(suite.cases[0].stdout.as_ref() == Some(expected), "{unit} {count} {outcome} {rules:?}");
            assert!(suite.stderr.as_ref() == Some(expected), "{unit} {count} {outcome} {rules:?}");
            assert_eq!((suite.stdout, &suite.cases[0].stderr), (None, &None));
        }
        // A pair that would be split is left out.
        assert_eq!((head("a\u{1f600}b", 2), tail("a\u{1f600}b", 2)), ("a", "b"));
        assert_eq!((head("ab", 5), tail("ab", 5), head("ab", 0), tail("ab", 0)), ("ab", "ab", "", ""));
    }

    #[test]
    fn surefires_output_file() {
        let report = "<testsuite><testcase name='a.b'/></testsuite>";
        let stdout = |name: &str, report: &str, output: &str, rules: Rules| {
            results(&[(name, report), ("x-output.txt", output)], rules).unwrap().suites[0].stdout.clone()
        };
        let all = Rules { retention: Retention::All, ..NEW };
        let long = "0123456789".repeat(200);
        let trimmed = format!("{0}\n...[truncated 1000 bytes]...\n{0}", &long[..500]);
        assert_eq!(stdout("TEST-x.xml", report, "a\0b", NEW).as_deref(), Some("a^@b"));
        assert_eq!(stdout("TEST-x.xml", report, "a\0b", Rules { is_old: true, ..NEW }).as_deref(), Some("a\0b"));
        assert_eq!(stdout("TEST-x.xml", report, &long, NEW), Some(trimmed));
        assert_eq!(stdout("TEST-x.xml", report, &long, all), Some(long.clone()));
        assert_eq!(stdout("x.xml", report, "out", NEW), None);
        assert_eq!(stdout("TEST-.xml", report, "out", NEW), None);
        let own = "<testsuite><testcase name='a.b'/><system-err/></testsuite>";
        assert_eq!(stdout("TEST-x.xml", own, "out", NEW), None);
        let big = "0123456789".repeat(110_000);
        assert_eq!(stdout("TEST-x.xml", report, &big, all).map(|text| text.len() < 2000), Some(true));
    }

    #[test]
    fn files_that_are_no_reports() {
        let results = results(&[("e.xml", ""), ("b.xml", "<testsuite>"), ("r.xml", "<html/>")], NEW).unwrap();
        assert_eq!(results.suites.len(), 2);
        for (suite, name, test, start) in [
            (&results.suites[0], "e.xml", "[empty]", "Test report file /"),
            (&results.suites[1], "b.xml", "[failed-to-read]", "Failed to read test report file /"),
        ] {
            let case = &suite.cases[0];
            assert_eq!((suite.name.as_str(), suite.file.as_ref(), suite.stdout.as_deref()), (name, None, Some("")));
            assert_eq!((case.test_name.as_deref(), case.class_name.as_deref()), (Some(test), Some(name)));
            assert!(case.stack_trace.as_ref().unwrap().starts_with(start), "{case:?}");
            assert_eq!(case.details.as_deref(), Some(""));
        }
        assert_eq!((results.suites[0].has_details, results.suites[1].has_details), (true, false));
        for (name, content) in [("notes.txt", "text"), ("r.xml", "<testsuite><testcase name='c'/></testsuite>")] {
            let error = super::tests::results(&[(name, content)], NEW).unwrap_err();
            assert!(error.message.as_ref().unwrap().starts_with("Failed to read /"), "{error}");
            assert!(error.cause.is_some());
        }
    }
}
