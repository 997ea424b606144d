//! For a terminal: the verdict, then what was checked, a line each where something is to be said, else a line a category.

use std::fmt::Write as _;

use crate::probe::check::{Category, Check, Confidence, Outcome, Report};

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const BOLD: &str = "1";
const DIM: &str = "2";

/// The whole report; with escape sequences if `colours`.
pub fn print(report: &Report, colours: bool) -> String {
    let paint = Paint(colours);
    let mut out = String::new();
    let verdict = &report.verdict;
    let (sign, colour) = if verdict.is_ok() { ("✓", GREEN) } else { ("✗", RED) };
    let sure = match verdict.confidence {
        Confidence::Certain => "",
        Confidence::Likely => " (likely)",
        Confidence::Possible => " (possible)",
    };
    let id = paint.with(&format!("{sign} {}", verdict.id), colour);
    let _ = writeln!(out, "{id}{sure}: {}", paint.with(&verdict.sentence, BOLD));
    if !verdict.next_step.is_empty() {
        let _ = writeln!(out, "  Next: {}", verdict.next_step);
    }
    if !verdict.docs.is_empty() {
        let _ = writeln!(out, "  More: {}", verdict.docs);
    }
    if verdict.is_ok() {
        out.push('\n');
    }
    for category in Category::ALL {
        let checks: Vec<&Check> = report.checks.iter().filter(|check| check.category == category).collect();
        if !checks.is_empty() {
            chapter(&mut out, paint, category, &checks, verdict.is_ok());
        }
    }
    let _ = writeln!(out, "\n{}", paint.with(&format!("{:.1} s", report.elapsed_ms as f64 / 1000.0), DIM));
    out
}

fn chapter(out: &mut String, paint: Paint, category: Category, checks: &[&Check], all_is_well: bool) {
    let all = |outcome: Outcome| checks.iter().all(|check| check.outcome == outcome);
    let title = category.title();
    // What is known of the place is for whoever looks for a cause.
    let short = all_is_well || checks.len() == 1;
    if let (true, true, Some((first, more))) = (all(Outcome::Yes), short, checks.split_first()) {
        let more =
            if more.is_empty() { String::new() } else { paint.with(&format!(" (and {} more)", more.len()), DIM) };
        let (sign, title) = (paint.with("✓", GREEN), paint.with(title, BOLD));
        let _ = writeln!(out, "{}{sign} {title}  {}{more}", if all_is_well { "" } else { "\n" }, line(first));
    } else if all(Outcome::Skipped) {
        let why = checks.first().map_or("", |check| &check.seen);
        let _ = writeln!(out, "\n{}", paint.with(&format!("- {title}  skipped: {why}"), DIM));
    } else {
        let _ = writeln!(out, "\n{}", paint.with(title, BOLD));
        for check in checks {
            each(out, paint, check);
        }
    }
}

fn each(out: &mut String, paint: Paint, check: &Check) {
    let (sign, colour) = match (check.outcome, check.warning) {
        (Outcome::Yes, _) => ("✓", GREEN),
        (Outcome::No, false) => ("✗", RED),
        (Outcome::No, true) => ("!", YELLOW),
        (Outcome::Unknown, _) => ("?", YELLOW),
        (Outcome::Skipped, _) => ("-", DIM),
    };
    let text = format!("{:<22} {}", check.id, line(check));
    match check.outcome {
        Outcome::Skipped => {
            let _ = writeln!(out, "  {}", paint.with(&format!("{sign} {text}"), DIM));
        }
        _ => {
            let _ = writeln!(out, "  {} {text}", paint.with(sign, colour));
        }
    }
    if check.outcome == Outcome::No {
        for text in [&check.means, &check.next_step] {
            if !text.is_empty() {
                let _ = writeln!(out, "      {text}");
            }
        }
    }
}

fn line(check: &Check) -> String {
    let ms = check.ms.filter(|&ms| ms > 0).map(|ms| format!(" ({ms} ms)")).unwrap_or_default();
    match (check.target.is_empty(), check.seen.is_empty()) {
        (true, _) => format!("{}{ms}", check.seen),
        (false, true) => format!("{}{ms}", check.target),
        (false, false) => format!("{}: {}{ms}", check.target, check.seen),
    }
}

#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, text: &str, colour: &str) -> String {
        if self.0 { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::catalog::CauseId;
    use crate::probe::check::Verdict;
    use crate::probe::facts::Facts;
    use crate::probe::print::{json, short};

    pub(crate) fn report(checks: Vec<Check>, verdict: Verdict) -> Report {
        Report { schema: 1, agent: "0".into(), verdict, checks, facts: Facts::default(), elapsed_ms: 5012 }
    }

    fn bad() -> Report {
        let checks = vec![
            Check::yes("dns.resolve", Category::Dns, "ci", "10.0.0.1").took(2),
            Check::yes("tcp.connect", Category::Tcp, "10.0.0.1:80", "connected"),
            Check::no("tcp.connect", Category::Tcp, "10.0.0.2:80", CauseId::TcpTimeout, "timed out after 5 s")
                .means("Nothing comes back.")
                .next("Look.")
                .took(5000),
            Check::skipped("http.discovery", Category::Http, "http://ci/", "there is no connection"),
        ];
        report(checks, Verdict::of(CauseId::TcpTimeout, Confidence::Likely, "Nothing comes back.", "Look."))
    }

    #[test]
    fn the_verdict_comes_first_and_what_is_well_takes_a_line() {
        let expected = "\
✗ tcp-timeout (likely): Nothing comes back.
  Next: Look.
  More: docs/probe/tcp-timeout.md

✓ Name resolution  ci: 10.0.0.1 (2 ms)

TCP
  ✓ tcp.connect            10.0.0.1:80: connected
  ✗ tcp.connect            10.0.0.2:80: timed out after 5 s (5000 ms)
      Nothing comes back.
      Look.

- HTTP  skipped: there is no connection

5.0 s
";
        assert_eq!(print(&bad(), false), expected);
        let coloured = print(&bad(), true);
        assert!(coloured.starts_with("\x1b[31m✗ tcp-timeout\x1b[0m (likely)"), "{coloured}");
        let plain =
            ["31", "32", "33", "1", "2", "0"].iter().fold(coloured, |text, c| text.replace(&format!("\x1b[{c}m"), ""));
        assert_eq!(plain, expected);
    }

    #[test]
    fn a_chat_message_has_what_failed_alone() {
        assert_eq!(
            short::print(&bad()),
            "tcp-timeout (likely): Nothing comes back.\nNext: Look.\nMore: docs/probe/tcp-timeout.md\n- tcp.connect 10.0.0.2:80: timed out after 5 s\n"
        );
        let ok = report(Vec::new(), Verdict::ok("The controller can be reached."));
        assert_eq!(short::print(&ok), "ok: The controller can be reached.\n");
    }

    #[test]
    fn json_can_be_read_back() {
        let text = json::print(&bad());
        let read: Report = serde_json::from_str(&text).unwrap();
        assert_eq!((read.verdict, read.facts), (bad().verdict, Facts::default()));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let check = &value["checks"][2];
        assert_eq!(check["outcome"], "no");
        assert_eq!((&check["cause"], &check["category"]), (&"tcp-timeout".into(), &"tcp".into()));
        assert_eq!((&check["warning"], &check["ms"]), (&false.into(), &5000.into()));
        assert_eq!((&value["schema"], &value["verdict"]["exit_code"]), (&1.into(), &13.into()));
    }
}
