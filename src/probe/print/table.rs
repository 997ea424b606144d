//! For a terminal: the verdict, then what was checked, a line each where something is to be said, else a line a category.

use std::fmt::Write as _;

use crate::probe::check::{Category, Check, Confidence, Outcome, Report, Verdict};

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const BOLD: &str = "1";
const DIM: &str = "2";

/// Where lines are broken, in characters.
const WIDTH: usize = 100;

/// Room for the longest title, and what stands before and behind it.
const TITLE: usize = 19;

/// Room for most ids, and what stands before and behind them.
const ID: usize = 27;

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
    let id = format!("{sign} {}", verdict.id);
    let start = format!("{id}{sure}:");
    let sentence = paint.with(&wrap(&verdict.sentence, start.chars().count() + 1, 2), BOLD);
    let _ = writeln!(out, "{}{sure}: {sentence}", paint.with(&id, colour));
    for (what, text) in [("Next", &verdict.next_step), ("More", &verdict.docs)] {
        if !text.is_empty() {
            let _ = writeln!(out, "  {what}: {}", wrap(text, 8, 8));
        }
    }
    let mut apart = true;
    for category in Category::ALL {
        let checks: Vec<&Check> = report.checks.iter().filter(|check| check.category == category).collect();
        if !checks.is_empty() {
            apart = chapter(&mut out, paint, category, &checks, apart, verdict);
        }
    }
    let _ = writeln!(out, "\n{}", paint.with(&format!("{:.1} s", report.elapsed_ms as f64 / 1000.0), DIM));
    out
}

/// A line if all is well or nothing was done, else a line for each check. Whether it wants an empty line behind it.
fn chapter(
    out: &mut String,
    paint: Paint,
    category: Category,
    checks: &[&Check],
    apart: bool,
    verdict: &Verdict,
) -> bool {
    let all = |outcome: Outcome| checks.iter().all(|check| check.outcome == outcome);
    let title = format!("{:<1$}", category.title(), TITLE - 2);
    // What is known of the place is for whoever looks for a cause.
    let short = verdict.is_ok() || checks.len() == 1;
    let (well, skipped) = (all(Outcome::Yes) && short, all(Outcome::Skipped));
    if apart || !(well || skipped) {
        out.push('\n');
    }
    if well {
        let more = checks.len() - 1;
        let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
        let details =
            wrap(&format!("{}{more}", checks.first().map(|check| line(check)).unwrap_or_default()), TITLE, TITLE);
        let _ = writeln!(out, "{} {}{details}", paint.with("✓", GREEN), paint.with(&title, BOLD));
    } else if skipped {
        let why = checks.first().map_or("", |check| &check.seen);
        let why = wrap(&format!("skipped: {why}"), TITLE, TITLE);
        let _ = writeln!(out, "{}", paint.with(&format!("- {title}{why}"), DIM));
    } else {
        let _ = writeln!(out, "{}", paint.with(category.title(), BOLD));
        for check in checks {
            each(out, paint, check, &verdict.sentence);
        }
    }
    !(well || skipped)
}

fn each(out: &mut String, paint: Paint, check: &Check, said: &str) {
    let (sign, colour) = match (check.outcome, check.warning) {
        (Outcome::Yes, _) => ("✓", GREEN),
        (Outcome::No, false) => ("✗", RED),
        (Outcome::No, true) => ("!", YELLOW),
        (Outcome::Unknown, _) => ("?", YELLOW),
        (Outcome::Skipped, _) => ("-", DIM),
    };
    let start = ID.max(check.id.chars().count() + 5);
    let text = format!("{:<1$}{2}", check.id, start - 4, wrap(&line(check), start, ID));
    match check.outcome {
        Outcome::Skipped => {
            let _ = writeln!(out, "  {}", paint.with(&format!("{sign} {text}"), DIM));
        }
        _ => {
            let _ = writeln!(out, "  {} {text}", paint.with(sign, colour));
        }
    }
    // The verdict has the words of the check that it is of.
    if check.outcome == Outcome::No && check.means != said {
        for text in [&check.means, &check.next_step] {
            if !text.is_empty() {
                let _ = writeln!(out, "      {}", wrap(text, 6, 6));
            }
        }
    }
}

/// Breaks a text into lines, of which the first begins at column `first` and the others at `indent`.
fn wrap(text: &str, first: usize, indent: usize) -> String {
    let mut out = String::new();
    let mut column = first;
    for (number, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if number > 0 && column + 1 + length > WIDTH {
            let _ = write!(out, "\n{:indent$}", "");
            column = indent;
        } else if number > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
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
            Check::no(
                "tcp.connect",
                Category::Tcp,
                "10.0.0.3:80",
                CauseId::TcpRefused,
                "Connection refused (os error 111) from 10.0.0.9, by way of 10.0.0.1 (eth0), which answers",
            )
            .means("Nothing listens there.")
            .next("Start it.")
            .warning(),
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
  ! tcp.connect            10.0.0.3:80: Connection refused (os error 111) from 10.0.0.9, by way of
                           10.0.0.1 (eth0), which answers
      Nothing listens there.
      Start it.

- HTTP             skipped: there is no connection

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
            "tcp-timeout (likely): Nothing comes back.\nNext: Look.\nMore: docs/probe/tcp-timeout.md\n- tcp.connect 10.0.0.2:80: timed out after 5 s\n! tcp.connect 10.0.0.3:80: Connection refused (os error 111) from 10.0.0.9, by way of 10.0.0.1 (eth0), which answers\n"
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
