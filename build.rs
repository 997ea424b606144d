//! Gives release builds their commit, for `agent --version`: that in `AGENT_COMMIT`, or else git's.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=AGENT_COMMIT");
    // In other builds it would only cause compilations.
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    if let Some(commit) = std::env::var("AGENT_COMMIT").ok().or_else(commit) {
        println!("cargo::rustc-env=AGENT_COMMIT={}", commit.trim());
    }
}

fn commit() -> Option<String> {
    // A source tree without git may lie inside another one's repository.
    if !Path::new(".git").exists() {
        return None;
    }
    // `-dirty` depends on the files, the rest on where HEAD has been.
    for path in ["src", "Cargo.toml", "Cargo.lock", git(&["rev-parse", "--git-path", "logs/HEAD"])?.trim()] {
        println!("cargo::rerun-if-changed={path}");
    }
    git(&["describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok())?
}
