//! The probe against faults that are staged in network namespaces: one test for each file in `tests/scenarios`, and one
//! for a normal start that meets the same fault.
//!
//! Needs root, `ip` and `nft`; is skipped where there is no making of namespaces. With `SHOW=table`
//! (or `short`, or `json`) in the environment it also prints what the probe says in that form.

mod certificates;
mod dns;
mod hits;
mod http;
mod jenkins;
mod network;
mod scenario;
mod services;
mod stage;
mod verdict;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use scenario::Scenario;

/// Scenarios wait most of the time.
const AT_A_TIME: usize = 24;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_A_TIME);
    network::remove_stale();
    let hindrance = network::hindrance();
    if let Some(hindrance) = &hindrance {
        eprintln!("fault scenarios are skipped: no network namespaces can be made here: {hindrance}");
    }
    let trials = files().into_iter().flat_map(|file| trials(&file, hindrance.as_deref())).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn trials(file: &Path, hindrance: Option<&str>) -> Vec<Trial> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let scenario = match Scenario::read(file) {
        Ok(scenario) => Arc::new(scenario),
        Err(error) => return vec![Trial::test(name, || Err(Failed::from(error)))],
    };
    let trial = |kind: &str, check: fn(&Scenario) -> Result<(), String>| {
        let (scenario, hindrance) = (scenario.clone(), hindrance.map(str::to_owned));
        Trial::ignorable_test(name.clone(), move || match hindrance {
            Some(hindrance) => Ok(Completion::ignored_with(hindrance)),
            None => match check(&scenario) {
                Ok(()) => Ok(Completion::Completed),
                Err(complaints) => Err(Failed::from(format!("{}\n{complaints}", scenario.about))),
            },
        })
        .with_kind(kind)
    };
    let mut trials = vec![trial("probe", verdict::of_the_probe)];
    if scenario.expect.start.not_tried.is_none() {
        trials.push(trial("start", verdict::of_a_start));
    }
    trials
}
