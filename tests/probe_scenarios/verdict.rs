//! What the agent made of a fault, held against what the scenario expects.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde::Deserialize;

use crate::scenario::{self, Scenario};
use crate::stage::{Run, Stage};

/// `--probe=json`, as far as a scenario asks.
#[derive(Debug, Deserialize)]
struct Report {
    schema: u32,
    verdict: Verdict,
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
struct Verdict {
    id: String,
    exit_code: i32,
    sentence: String,
    #[serde(default)]
    next_step: String,
    #[serde(default)]
    docs: String,
}

#[derive(Debug, Deserialize)]
struct Check {
    id: String,
    outcome: String,
    warning: bool,
    cause: Option<String>,
    seen: String,
}

impl Report {
    fn causes(&self, of: impl Fn(&Check) -> bool) -> BTreeSet<&str> {
        self.checks.iter().filter(|check| of(check)).filter_map(|check| check.cause.as_deref()).collect()
    }

    fn accused(&self) -> BTreeSet<&str> {
        self.causes(|check| check.outcome == "no" && !check.warning)
    }

    fn warned(&self) -> BTreeSet<&str> {
        self.causes(|check| check.warning)
    }
}

/// Collects what is wrong, so that a test tells all of it at once.
#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    fn unless(&mut self, holds: bool, complaint: impl FnOnce() -> String) {
        if !holds {
            self.0.push(complaint());
        }
    }

    fn result(self, runs: &[&Run]) -> Result<(), String> {
        let said: String = runs.iter().map(|run| format!("\n{}{}", run.stdout, run.stderr)).collect();
        if self.0.is_empty() { Ok(()) } else { Err(format!("{}\n{said}", self.0.join("\n"))) }
    }
}

/// `agent --probe`: it names the cause, nothing else, in time.
pub fn of_the_probe(scenario: &Scenario) -> Result<(), String> {
    let stage = Stage::set(scenario).map_err(|error| format!("not staged: {error}"))?;
    let flags: Vec<_> =
        std::iter::once("--probe=json").chain(scenario.agent.probe_arguments.iter().map(String::as_str)).collect();
    let run = stage.run(scenario, &flags).map_err(|error| error.to_string())?;
    if let Some(format) = std::env::var_os("SHOW") {
        let format = format!("--probe={}", format.display());
        let flags: Vec<_> = std::iter::once(format.as_str()).chain(flags[1..].iter().copied()).collect();
        let run = stage.run(scenario, &flags).map_err(|error| error.to_string())?;
        eprintln!("{}{}exit code {:?}", run.stdout, run.stderr, run.code);
    }
    let mut complaints = Complaints::default();
    let missed = stage.missed().map_err(|error| error.to_string())?;
    complaints.unless(missed.is_empty(), || format!("staged and never met: {}", missed.join("; ")));
    let offences = stage.hits.offences();
    complaints.unless(offences.is_empty() || scenario.expect.leaves_a_line, || offences.join("; "));
    if !flags.contains(&"--probe-auth") {
        let attempts = stage.front.as_ref().map(|front| front.attempts()).unwrap_or_default();
        complaints.unless(attempts.is_empty(), || format!("it showed the secret: {attempts:?}"));
    }
    keeps_the_secret(&run, &mut complaints);
    let deadline = scenario.deadline();
    complaints.unless(run.elapsed < deadline, || format!("took {:?}, may take {deadline:?}", run.elapsed));
    let report: Report = match serde_json::from_str(&run.stdout) {
        Ok(report) => report,
        Err(error) => {
            complaints.0.push(format!("exit code {:?}, and no report: {error}", run.code));
            return complaints.result(&[&run]);
        }
    };
    let (expect, verdict) = (&scenario.expect, &report.verdict);
    complaints.unless(report.schema == 1, || format!("schema {}", report.schema));
    complaints
        .unless(verdict.id == expect.verdict, || format!("the verdict is {}, not {}", verdict.id, expect.verdict));
    complaints.unless(run.code == Some(expect.exit) && verdict.exit_code == expect.exit, || {
        format!("exit code {:?}, {} in the report, not {}", run.code, verdict.exit_code, expect.exit)
    });
    let mut may_be_accused: BTreeSet<_> = expect.also_accused.iter().map(String::as_str).collect();
    let accused = report.accused();
    if expect.exit != 0 {
        may_be_accused.insert(&expect.verdict);
        complaints
            .unless(accused.contains(expect.verdict.as_str()), || "no check bears the verdict's cause".to_owned());
    }
    complaints.unless(accused.is_subset(&may_be_accused), || format!("accused: {accused:?}, not {may_be_accused:?}"));
    let warned = report.warned();
    let expected: BTreeSet<_> = expect.warned.iter().map(String::as_str).collect();
    complaints.unless(warned == expected, || format!("warned of {warned:?}, not {expected:?}"));
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(verdict.docs.split('#').next().unwrap_or_default());
    complaints.unless(verdict.id == "ok" || page.is_file(), || format!("there is no page {}", verdict.docs));
    for words in &expect.words {
        let seen = report.checks.iter().any(|check| check.seen.contains(words));
        complaints.unless(seen || verdict.sentence.contains(words), || format!("nowhere does it say {words:?}"));
    }
    for check in &report.checks {
        let known = ["yes", "no", "unknown", "skipped"].contains(&check.outcome.as_str());
        complaints.unless(known, || format!("{}: an outcome {:?}", check.id, check.outcome));
        complaints.unless(check.outcome != "no" || check.cause.is_some(), || format!("{}: no cause", check.id));
    }
    let Some(compared) = &expect.compared else { return complaints.result(&[&run]) };
    let host = stage.run_on_node(scenario, &flags).map_err(|error| error.to_string())?;
    let together = compare(&run, &host).map_err(|error| error.to_string())?;
    for (run, id) in [(&host, &compared.host), (&together, &compared.verdict)] {
        match serde_json::from_str::<Comparison>(&run.stdout) {
            Ok(report) => complaints.unless(report.verdict.id == *id, || {
                format!("compared: the verdict is {}, not {id}", report.verdict.id)
            }),
            Err(error) => complaints.0.push(format!("compared: no report: {error}")),
        }
    }
    complaints.result(&[&run, &host, &together])
}

#[derive(Debug, Deserialize)]
struct Comparison {
    verdict: Verdict,
}

/// `agent probe-compare` of two reports.
fn compare(pod: &Run, host: &Run) -> std::io::Result<Run> {
    let directory = tempfile::tempdir()?;
    let files = [("pod", pod), ("host", host)].map(|(name, run)| (directory.path().join(name), run));
    for (file, run) in &files {
        std::fs::write(file, &run.stdout)?;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent"));
    let begun = Instant::now();
    let output = command.args(["probe-compare", "--json"]).args(files.map(|(file, _)| file)).output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Run {
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
        elapsed: begun.elapsed(),
        last_words: String::new(),
    })
}

/// A normal start that fails: its log tells what the probe tells, and so do the pod's last words.
pub fn of_a_start(scenario: &Scenario) -> Result<(), String> {
    let stage = Stage::set(scenario).map_err(|error| format!("not staged: {error}"))?;
    let (probed, started) = std::thread::scope(|scope| {
        let probed = scope.spawn(|| stage.run(scenario, &["--probe=json"]));
        let started = stage.run(scenario, &["-noReconnect"]);
        (probed.join(), started)
    });
    let run = started.map_err(|error| error.to_string())?;
    let probed = probed.map_err(|_| "the probe's thread panicked")?.map_err(|error| error.to_string())?;
    let mut complaints = Complaints::default();
    let missed = stage.missed().map_err(|error| error.to_string())?;
    complaints.unless(missed.is_empty(), || format!("staged and never met: {}", missed.join("; ")));
    keeps_the_secret(&run, &mut complaints);
    let expect = &scenario.expect;
    let exit = expect.start.exit.unwrap_or(expect.exit);
    complaints.unless(run.code == Some(exit), || format!("exit code {:?}, not {exit}", run.code));
    let id = expect.start.verdict.as_deref().unwrap_or(&expect.verdict);
    let mut must_say = vec![format!("docs/probe/{id}.md")];
    match serde_json::from_str::<Report>(&probed.stdout) {
        // What the start met is another thing than what the probe by itself can see.
        Ok(report) if report.verdict.id != id => {}
        Ok(report) => must_say.extend([report.verdict.sentence, report.verdict.next_step]),
        Err(error) => complaints.0.push(format!("no report of the probe: {error}")),
    }
    for words in &must_say {
        complaints.unless(says(&run.stderr, words), || format!("the log does not say: {words}"));
        if scenario.kubernetes.is_some() {
            complaints.unless(says(&run.last_words, words), || format!("the last words do not say: {words}"));
        }
    }
    for trace in ["\tat ", "    at ", "Caused by", "panicked", "stack backtrace"] {
        complaints.unless(!run.stderr.contains(trace), || format!("the log holds {trace:?}"));
    }
    complaints.result(&[&run, &probed])
}

/// Whether a log says this, but for numbers: two runs take different times.
fn says(log: &str, words: &str) -> bool {
    let without_numbers = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    without_numbers(log).contains(&without_numbers(words))
}

fn keeps_the_secret(run: &Run, complaints: &mut Complaints) {
    // Half of it would be too much as well.
    let secret = scenario::secret();
    for (stream, text) in [("stdout", &run.stdout), ("stderr", &run.stderr), ("last words", &run.last_words)] {
        complaints.unless(!text.contains(&secret[..20]), || format!("the secret is in {stream}"));
    }
}
