//! COMPATIBILITY.md lists what the code's own tables hold. `UPDATE=1 cargo test --test compatibility` rewrites it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use inbound_agent::callables::{Run, TABLES};

const BEGIN: &str = "<!-- generated from the code's tables: UPDATE=1 cargo test --test compatibility -->\n";
const END: &str = "<!-- end of the generated part -->\n";

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

#[test]
fn the_document_lists_what_the_tables_hold() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("COMPATIBILITY.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = document.split_once(BEGIN).expect("the mark where the generated part begins");
    let (_, tail) = rest.split_once(END).expect("the mark where the generated part ends");
    let current = format!("{head}{BEGIN}{}{END}{tail}", tables());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    assert!(
        document == current || std::env::var_os("UPDATE").is_some(),
        "run UPDATE=1 cargo test --test compatibility"
    );
}

#[test]
fn no_class_is_in_two_tables() {
    let mut seen = std::collections::HashSet::new();
    for entry in TABLES.iter().flat_map(|table| table.iter()) {
        assert!(seen.insert(entry.class), "{} is there twice", entry.class);
    }
}
