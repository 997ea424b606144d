//! COMPATIBILITY.md lists what the code's own tables hold. `UPDATE=1 cargo test --test compatibility` rewrites it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use inbound_agent::callables::{Run, TABLES, find};

const BEGIN: &str = "<!-- generated from the code's tables: UPDATE=1 cargo test --test compatibility -->\n";
const SURVEY: &str = "<!-- generated from tests/survey.tsv and the code's tables -->\n";
const END: &str = "<!-- end of the generated part -->\n";
/// How many plugins are the most installed ones.
const MOST_INSTALLED: usize = 40;

fn tables() -> String {
    let mut owners: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for entry in TABLES.iter().flat_map(|table| table.iter()) {
        let how = match entry.run {
            Run::Inline(_) => "at once",
            Run::Blocking(_) => "on a thread",
            Run::Long(_) => "may wait long",
        };
        owners.entry(entry.owner).or_default().push((entry.class, how));
    }
    let mut out = String::new();
    for (owner, mut entries) in owners {
        entries.sort_unstable();
        let _ = writeln!(out, "\n### {owner}\n\n| callable | run |\n|---|---|");
        for (class, how) in entries {
            let _ = writeln!(out, "| `{class}` | {how} |");
        }
    }
    out.push('\n');
    out
}

/// A line of the survey: what a plugin sends to agents.
struct Sent {
    plugin: String,
    installs: String,
    /// Of a callable; `-` if it has none of its own.
    class: String,
    what: String,
    /// Why a sidecar can't do it either.
    never: Option<String>,
}

fn survey() -> Vec<Sent> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/survey.tsv");
    let text = std::fs::read_to_string(path).unwrap();
    let sent = text.lines().skip(1).map(|line| {
        let [plugin, installs, class, what, why] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let never = why.strip_prefix('!').map(str::to_owned);
        let [plugin, installs, class, what] = [plugin, installs, class, what].map(str::to_owned);
        Sent { plugin, installs, class, what, never }
    });
    sent.collect()
}

fn survey_table() -> String {
    let survey = survey();
    let mut out = String::new();
    let mut plugins: Vec<&str> = Vec::new();
    let head = "\n| plugin | installations | callable | what for | here |\n|---|---|---|---|---|";
    let _ = writeln!(out, "{head}");
    for sent in &survey {
        let is_new = plugins.last() != Some(&sent.plugin.as_str());
        if is_new {
            if plugins.len() == MOST_INSTALLED {
                let _ = writeln!(out, "\nLess common ones, and some that are not about builds:\n{head}");
            }
            plugins.push(&sent.plugin);
        }
        let (plugin, installs) = if is_new { (&*sent.plugin, &*sent.installs) } else { ("", "") };
        let (class, here) = match (sent.class.as_str(), &sent.never) {
            ("-", _) => ("none of its own".to_owned(), "native"),
            (class, Some(why)) if find(class).is_none() => (format!("`{class}`"), why.as_str()),
            (class, _) => (format!("`{class}`"), if find(class).is_some() { "native" } else { "sidecar" }),
        };
        let _ = writeln!(out, "| {plugin} | {installs} | {class} | {} | {here} |", sent.what);
    }
    out.push('\n');
    out
}

/// Replaces what is between a mark and the end of what is generated.
fn replace(document: &str, begin: &str, generated: &str) -> String {
    let (head, rest) = document.split_once(begin).expect("the mark where a generated part begins");
    let (_, tail) = rest.split_once(END).expect("the mark where a generated part ends");
    format!("{head}{begin}{generated}{END}{tail}")
}

#[test]
fn the_document_lists_what_the_tables_hold() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("COMPATIBILITY.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let current = replace(&replace(&document, BEGIN, &tables()), SURVEY, &survey_table());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    assert!(
        document == current || std::env::var_os("UPDATE").is_some(),
        "run UPDATE=1 cargo test --test compatibility"
    );
}

/// What is done natively for a plugin of the survey is in the survey, under that plugin's name, and once.
#[test]
fn the_survey_knows_what_is_native() {
    let survey = survey();
    let mut seen = std::collections::HashSet::new();
    for sent in survey.iter().filter(|sent| sent.class != "-") {
        assert!(seen.insert(&sent.class), "{} is there twice", sent.class);
        let owner = find(&sent.class).map_or(&*sent.plugin, |entry| entry.owner);
        assert_eq!(owner, sent.plugin, "{}", sent.class);
    }
    for entry in TABLES.iter().flat_map(|table| table.iter()) {
        let is_surveyed = survey.iter().any(|sent| sent.plugin == entry.owner);
        assert!(!is_surveyed || seen.contains(&entry.class.to_owned()), "the survey lacks {}", entry.class);
    }
    let installs: Vec<u32> = survey.iter().map(|sent| sent.installs.parse().unwrap()).collect();
    assert!(installs.is_sorted_by(|more, less| more >= less), "the most installed come first");
}

#[test]
fn no_class_is_in_two_tables() {
    let mut seen = std::collections::HashSet::new();
    for entry in TABLES.iter().flat_map(|table| table.iter()) {
        assert!(seen.insert(entry.class), "{} is there twice", entry.class);
    }
}
