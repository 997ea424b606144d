//! Completion of command lines by shells, made from the table of options.

use std::fmt::Write as _;

use super::entrypoint::COMMANDS;
use super::options::{Group, OPTIONS, Row};

/// A shell whose completion is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// bash, with or without bash-completion.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

impl Shell {
    /// By the program's name.
    pub fn named(name: &str) -> Option<Shell> {
        match name {
            "bash" => Some(Shell::Bash),
            "zsh" => Some(Shell::Zsh),
            "fish" => Some(Shell::Fish),
            _ => None,
        }
    }

    /// The script that the shell is to read.
    pub fn script(self) -> String {
        match self {
            Shell::Bash => bash(),
            Shell::Zsh => zsh(),
            Shell::Fish => fish(),
        }
    }
}

/// What an option's value can be completed to.
enum Values {
    None,
    Files,
    Directories,
    Words(String),
}

fn values(row: &Row) -> Values {
    match row.value {
        Some("DIR") => Values::Directories,
        Some("FILE" | "@FILE") => Values::Files,
        Some(value) if value.contains('|') => Values::Words(value.replace('|', " ")),
        _ => Values::None,
    }
}

/// What is worth offering.
fn offered() -> impl Iterator<Item = &'static Row> {
    OPTIONS.iter().filter(|row| row.group != Group::Deprecated)
}

/// Without its full stop, which would end every line of a list.
fn first_sentence(help: &str) -> &str {
    help.split_once(". ").map_or(help, |(first, _)| first).trim_end_matches('.')
}

fn bash() -> String {
    let mut out = String::from(
        "# Completion of agent for bash.\n_agent() {\n    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}\n    \
         COMPREPLY=()\n    case $previous in\n",
    );
    for row in offered().filter(|row| row.value.is_some()) {
        let spellings: Vec<String> =
            row.names.iter().flat_map(|name| [format!("-{name}"), format!("--{name}")]).collect();
        let action = match values(row) {
            Values::None => String::new(),
            Values::Files => "_agent_files; ".to_owned(),
            Values::Directories => "COMPREPLY=($(compgen -d -- \"$current\")); ".to_owned(),
            Values::Words(words) => format!("COMPREPLY=($(compgen -W '{words}' -- \"$current\")); "),
        };
        let _ = writeln!(out, "        {}) {action}return ;;", spellings.join("|"));
    }
    let options: Vec<String> = offered().map(Row::spelling).collect();
    let commands: Vec<&str> = COMMANDS.iter().map(|(name, _)| *name).collect();
    let _ = write!(
        out,
        "        completions) COMPREPLY=($(compgen -W 'bash zsh fish' -- \"$current\")); return ;;\n    esac\n    \
         case $current in\n        -*) COMPREPLY=($(compgen -W '{}' -- \"$current\")) ;;\n        @*) _agent_files ;;\n        \
         *)\n            if [ \"$COMP_CWORD\" = 1 ]; then\n                COMPREPLY=($(compgen -W '{}' -- \"$current\"))\n            \
         elif [ \"${{COMP_WORDS[1]}}\" = decode ]; then\n                _agent_files\n            fi\n            ;;\n    esac\n}}\n\
         _agent_files() {{\n    local at=\n    case $current in @*) at=@ ;; esac\n    \
         COMPREPLY=($(compgen -f -P \"$at\" -- \"${{current#@}}\"))\n}}\ncomplete -o filenames -F _agent agent\n",
        options.join(" "),
        commands.join(" "),
    );
    out
}

fn zsh() -> String {
    let quoted = |text: &str| {
        let text = text.replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
        text.replace('\'', "'\\''")
    };
    let mut out = String::from("#compdef agent\n_arguments \\\n");
    for row in offered() {
        let repeated = if row.help.contains("several times") || row.help.contains("Several") { "*" } else { "" };
        let _ = write!(out, "    '{repeated}{}[{}]", row.spelling(), quoted(first_sentence(row.help)));
        if let Some(value) = row.value {
            let action = match values(row) {
                Values::None => " ".to_owned(),
                Values::Files if value.starts_with('@') => "_files -P @".to_owned(),
                Values::Files => "_files".to_owned(),
                Values::Directories => "_files -/".to_owned(),
                Values::Words(words) => format!("({words})"),
            };
            let _ = write!(out, ":{}:{action}", quoted(value));
        }
        out.push_str("' \\\n");
    }
    let commands: Vec<String> = COMMANDS.iter().map(|(name, help)| format!("{name}\\:\"{}\"", quoted(help))).collect();
    let _ = writeln!(out, "    '1:command:(({}))' \\\n    '*:argument:_files'", commands.join(" "));
    out
}

fn fish() -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let mut out = String::from("# Completion of agent for fish.\ncomplete -c agent -f\n");
    for (name, help) in COMMANDS {
        let _ = writeln!(out, "complete -c agent -n __fish_is_first_token -a {name} -d '{}'", quoted(help));
    }
    out.push_str("complete -c agent -n '__fish_seen_subcommand_from decode' -F\n");
    out.push_str("complete -c agent -n '__fish_seen_subcommand_from completions' -a 'bash zsh fish'\n");
    for row in offered() {
        let spelling = row.spelling();
        let name = row.names[0];
        let kind = match (spelling.starts_with("--"), name.len()) {
            (true, _) => "-l",
            (false, 1) => "-s",
            (false, _) => "-o",
        };
        let value = match (row.value, values(row)) {
            (None, _) => String::new(),
            (_, Values::None) => " -x".to_owned(),
            (_, Values::Files) => " -r -F".to_owned(),
            (_, Values::Directories) => " -x -a '(__fish_complete_directories)'".to_owned(),
            (_, Values::Words(words)) => format!(" -x -a '{words}'"),
        };
        let _ = writeln!(out, "complete -c agent {kind} {name}{value} -d '{}'", quoted(first_sentence(row.help)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What bash offers for the last of the words.
    fn complete(words: &[&str]) -> Option<Vec<String>> {
        let test = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _agent; printf '%s\\n' \"${COMPREPLY[@]}\"";
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        std::fs::write(&script, Shell::Bash.script()).unwrap();
        std::fs::write(directory.path().join("bundle.pem"), "").unwrap();
        std::fs::create_dir(directory.path().join("work")).unwrap();
        let mut command = Command::new("bash");
        command.args(["--norc", "-c", test, "bash"]).arg(&script).args(words).current_dir(directory.path());
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => {
                eprintln!("skipped: bash: {error}");
                return None;
            }
        };
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn bash_completes() {
        for (words, expected) in [
            (&["agent", "de"][..], &["demo", "decode"][..]),
            (&["agent", "-webSocketH"], &["-webSocketHeader"]),
            (&["agent", "-url", ""], &[]),
            (&["agent", "-v", "-workDir", ""], &["work"]),
            (&["agent", "--log-format", ""], &["text", "json"]),
            (&["agent", "-cert", "@bun"], &["@bundle.pem"]),
            (&["agent", "@bun"], &["@bundle.pem"]),
            (&["agent", "decode", "bun"], &["bundle.pem"]),
            (&["agent", "completions", "b"], &["bash"]),
            (&["agent", "-jnlp"], &[]),
        ] {
            let Some(offered) = complete(words) else { return };
            assert_eq!(offered, expected, "{words:?}");
        }
    }

    #[test]
    fn each_script_has_every_option_and_is_one() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = shell.script();
            for row in offered() {
                let name = if shell == Shell::Fish { format!(" {} ", row.names[0]) } else { row.spelling() };
                assert!(script.contains(&name), "{shell:?}: {name}");
            }
            let program = format!("{shell:?}").to_lowercase();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), script).unwrap();
            match Command::new(&program).arg("-n").arg(file.path()).output() {
                Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
                Err(error) => eprintln!("not checked: {program}: {error}"),
            }
        }
    }
}
