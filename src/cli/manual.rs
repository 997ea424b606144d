//! The manual page `agent.1`, made of what `--help` is made of.

use std::fmt::Write as _;

use super::entrypoint;
use super::help::{CHAPTERS, EXIT_CODES, INTRODUCTION};
use super::options::OPTIONS;

/// The page in man(7)'s macros, with `exit_codes` after those of [`EXIT_CODES`].
pub fn page(exit_codes: &[(u8, &str)]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let commands: Vec<&str> = entrypoint::COMMANDS.iter().map(|(name, _)| *name).collect();
    let mut page = format!(
        ".TH AGENT 1 \"\" \"agent {version}\" \"User Commands\"\n\
         .SH NAME\nagent \\- Jenkins inbound agent without a JVM\n\
         .SH SYNOPSIS\n.B agent\n.RI [ OPTION ]...\n.br\n.B agent\n.RB {}\n.RI [ ARGUMENT ]...\n\
         .SH DESCRIPTION\n",
        commands.join(" | ")
    );
    let mut examples = String::from(".SH EXAMPLES\n");
    for line in INTRODUCTION.lines() {
        match line.strip_prefix("  ") {
            Some(more) => match more.strip_prefix("      ") {
                Some(meaning) => examples.push_str(&format!("{}\n", escaped(meaning))),
                None => examples.push_str(&format!(".TP\n.B {}\n", escaped(more))),
            },
            None if line.is_empty() => page.push_str(".PP\n"),
            None => page.push_str(&format!("{}\n", escaped(line))),
        }
    }
    page.push_str(".SH COMMANDS\n");
    for (name, meaning) in entrypoint::COMMANDS {
        let _ = write!(page, ".TP\n.B {name}\n{}\n", escaped(meaning));
    }
    page.push_str(".SH OPTIONS\n");
    for &(group, title) in CHAPTERS {
        let _ = writeln!(page, ".SS {title}");
        for row in OPTIONS.iter().filter(|row| row.group == group) {
            page.push_str(".TP\n");
            let mut names = bold(&row.spelling());
            for other in &row.names[1..] {
                let _ = write!(names, ", {}", bold(&format!("-{other}")));
            }
            if let Some(value) = row.value {
                let _ = write!(names, " \\fI{}\\fR", escaped(value));
            }
            let help = row.no_effect.map_or(row.help.to_owned(), |why| format!("No effect: {why}."));
            let _ = write!(page, "{names}\n{}\n", escaped(&help));
        }
    }
    page.push_str(".SH ENVIRONMENT\nThe command line wins.\n");
    for (name, meaning) in entrypoint::VARIABLES {
        let _ = write!(page, ".TP\n.B {name}\n{}\n", escaped(meaning));
    }
    let _ = write!(page, ".PP\n{} have no effect.\n.SH EXIT STATUS\n", entrypoint::NO_EFFECT.join(", "));
    for (code, meaning) in EXIT_CODES.iter().chain(exit_codes) {
        let _ = write!(page, ".TP\n.B {code}\n{}\n", escaped(meaning));
    }
    page.push_str(&examples);
    page
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escaped(text))
}

/// Text that is not to be taken for a macro, and whose dashes can be copied to a command line.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// As a reader sees it, without the line breaks.
    #[test]
    fn everything_is_on_the_page() {
        let page = page(&[(64, "some refusal")]);
        let formatter = Command::new("groff")
            .args(["-man", "-Tascii", "-ww", "-P-c", "-P-b", "-P-u"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let text = match formatter {
            Ok(mut formatter) => {
                formatter.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
                let output = formatter.wait_with_output().unwrap();
                assert_eq!(String::from_utf8_lossy(&output.stderr), "");
                String::from_utf8(output.stdout).unwrap()
            }
            Err(_) => {
                eprintln!("groff is not installed: only the source of the page is looked at");
                page.replace("\\fB", "").replace("\\fR", "").replace("\\fI", "").replace("\\-", "-").replace(".B ", " ")
            }
        };
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for row in OPTIONS {
            assert!(words.contains(&format!(" {}", row.spelling())), "{}", row.spelling());
        }
        for (name, _) in entrypoint::VARIABLES.iter().chain(entrypoint::COMMANDS) {
            assert!(words.contains(&format!(" {name} ")), "{name}");
        }
        assert!(words.contains(" 64 some refusal"), "{words}");
        assert!(words.contains(" agent -direct HOST:PORT "), "{words}");
    }
}
