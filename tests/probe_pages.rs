//! Each cause that a probe can name has a page, which says what it means, how to confirm it and how to fix it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use inbound_agent::probe::catalog::CauseId;

/// A page is read in a hurry.
const MAX_LINES: usize = 60;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/probe")
}

fn read(name: &str) -> String {
    let path = directory().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn each_cause_has_a_page_and_each_page_a_cause() {
    let causes: BTreeSet<String> = CauseId::ALL.iter().map(|cause| format!("{cause}.md")).collect();
    let pages = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pages: BTreeSet<String> =
        pages.filter(|name| !["README.md", "json.md", "kubernetes.md"].contains(&name.as_str())).collect();
    assert_eq!(pages, causes);
}

#[test]
fn a_page_says_what_is_needed_and_no_more() {
    for cause in CauseId::ALL {
        let page = read(&format!("{cause}.md"));
        let start = format!("# {cause}\n\nExit code {}: {}.\n\n", cause.exit_code(), cause.meaning());
        assert!(page.starts_with(&start), "{cause}.md has to begin with:\n{start}");
        let headings: Vec<_> = page.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(headings, ["## What it means", "## Confirm by hand", "## Fix"], "{cause}.md");
        let by_hand = page.split("## Confirm by hand").nth(1).unwrap().split("## Fix").next().unwrap();
        assert!(by_hand.contains("```\n"), "{cause}.md has no command to confirm it");
        assert!(page.lines().count() <= MAX_LINES, "{cause}.md is longer than a page");
    }
}

#[test]
fn links_lead_somewhere() {
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        for link in read(&name).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            assert!(link.starts_with("https://") || directory().join(file).is_file(), "{name}: {link}");
        }
    }
}

#[test]
fn the_index_has_them_all() {
    let index = read("README.md");
    let rows: Vec<_> = index.lines().filter(|line| line.starts_with("| [")).collect();
    let row = |cause: &CauseId| format!("| [{cause}]({cause}.md) | {} | {} |", cause.exit_code(), cause.meaning());
    assert_eq!(rows, CauseId::ALL.iter().map(row).collect::<Vec<_>>());
}
