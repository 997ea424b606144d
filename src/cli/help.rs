//! The text of `--help`.

use std::fmt::Write as _;

use super::entrypoint;
use super::options::{Group, OPTIONS};

/// The exit codes that the command line itself gives; the session's are added by who calls [`text`].
pub const EXIT_CODES: &[(u8, &str)] = &[
    (0, "ended in order"),
    (1, "failed, for a reason without a code of its own"),
    (2, "the command line or environment can't be used"),
];

const WIDTH: usize = 100;
const INDENT: usize = 8;

/// What the agent is, and how it is used.
pub(super) const INTRODUCTION: &str = "\
A Jenkins inbound agent without a JVM; takes what java -jar agent.jar and the jenkins/inbound-agent image take.

  agent -url https://jenkins.example.org/ -name NAME -secret @FILE -webSocket -workDir DIR
        Connect by WebSocket. The page of the node NAME on the controller shows the secret.
  agent -url https://jenkins.example.org/ -name NAME -secret @FILE -workDir DIR
        Connect to the controller's TCP agent port, which its HTTP(S) side tells.
  agent -direct HOST:PORT -instanceIdentity BASE64 -name NAME -secret @FILE -workDir DIR
        The same without HTTP.
  agent
        Speak over stdin and stdout, for launchers that start the agent themselves (SSH, command).
  agent --probe -url https://jenkins.example.org/
        Say why the controller can't be reached, with the options and environment of a start.
  agent probe-listen PORT
        Show who arrives at a port, from which address: the other side of a probe.
  agent probe-pod --image IMAGE [--apply] -- AGENT OPTIONS
        Probe from two pods on one node, with the pod network and with the host's.
  agent probe-compare POD.json HOST.json
        Compare two probes of one node, with the pod network and with the host's.
  agent demo
        Run a small build against a controller inside this process.
  agent decode FILE...
        Show recorded remoting traffic and serialized Java objects.
  agent man, agent completions bash|zsh|fish
        Print the manual page, or the completion script of a shell.

An option takes one dash or two, and its value as the next argument or after a =. An argument @FILE
stands for the arguments in that file, one a line.
";

/// The chapters in their order, with their titles.
pub(super) const CHAPTERS: &[(Group, &str)] = &[
    (Group::Connection, "Connection"),
    (Group::Network, "Trust and network"),
    (Group::Lifetime, "Lifetime"),
    (Group::Jvm, "The JVM for what is not native"),
    (Group::Files, "Directories and log"),
    (Group::Health, "Health"),
    (Group::Diagnosis, "When it does not connect"),
    (Group::Program, "Program"),
    (Group::Deprecated, "Deprecated, or without effect here"),
];

/// The whole text, with `exit_codes` after those of [`EXIT_CODES`].
pub fn text(exit_codes: &[(u8, &str)]) -> String {
    let mut out = String::from(INTRODUCTION);
    for &(group, title) in CHAPTERS {
        let _ = write!(out, "\n{title}:\n");
        for row in OPTIONS.iter().filter(|row| row.group == group) {
            let mut names = row.spelling();
            for other in &row.names[1..] {
                let _ = write!(names, ", -{other}");
            }
            if let Some(value) = row.value {
                let _ = if row.optional { write!(names, "[={value}]") } else { write!(names, " {value}") };
            }
            let _ = writeln!(out, "  {names}");
            wrap(&mut out, row.no_effect.map_or(row.help.to_owned(), |why| format!("No effect: {why}.")).as_str());
        }
    }
    out.push_str("\nEnvironment (the command line wins):\n");
    for (name, meaning) in entrypoint::VARIABLES {
        let _ = writeln!(out, "  {name:<26} {meaning}");
    }
    wrap(&mut out, &format!("Without effect: {}.", entrypoint::NO_EFFECT.join(", ")));
    out.push_str(
        "  Started under the name jenkins-agent with one argument that is no option, the agent runs it as a command.\n",
    );
    out.push_str("\nExit codes:\n");
    for (code, meaning) in EXIT_CODES.iter().chain(exit_codes) {
        let _ = writeln!(out, "  {code:<3} {meaning}");
    }
    out
}

fn wrap(out: &mut String, text: &str) {
    let mut column = 0;
    for word in text.split(' ') {
        if column > 0 && column + 1 + word.chars().count() > WIDTH {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            let _ = write!(out, "{:INDENT$}{word}", "");
            column = INDENT + word.chars().count();
        } else {
            let _ = write!(out, " {word}");
            column += 1 + word.chars().count();
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_variable_and_code_is_listed_once() {
        let text = text(&[(64, "some refusal")]);
        for row in OPTIONS {
            let start = format!("  {}", row.spelling());
            let lines = text.lines().filter(|line| {
                line.strip_prefix(&start).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ',', '[']))
            });
            assert_eq!(lines.count(), 1, "{}", row.spelling());
            for name in row.names {
                assert!(text.contains(&format!("-{name}")), "{name}");
            }
        }
        for (name, _) in entrypoint::VARIABLES {
            assert_eq!(text.matches(&format!("\n  {name} ")).count(), 1, "{name}");
        }
        assert!(text.contains("\n  64  some refusal\n"));
        for line in text.lines() {
            assert!(line.chars().count() <= 112, "too long: {line}");
        }
    }
}
