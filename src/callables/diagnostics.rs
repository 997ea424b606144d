//! What an administrator asks of an agent from the web interface.

use super::environment::string_tree_map;
use super::{Call, Entry, Reply, Run, Throw};
use crate::java_class;
use crate::process::system;

const fn core(class: &'static str, run: Run) -> Entry {
    Entry { class, owner: "core", run }
}

/// The callables of this module.
pub const ENTRIES: &[Entry] = &[
    core("hudson.util.RemotingDiagnostics$GetSystemProperties", Run::Blocking(system_properties)),
    core("hudson.util.RemotingDiagnostics$GetThreadDump", Run::Blocking(thread_dump)),
    core("hudson.model.Computer$DumpExportTableTask", Run::Inline(export_table)),
    // No class is ever loaded.
    core("hudson.slaves.SlaveComputer$LoadingCount", Run::Inline(|call| Ok(call.int(0)))),
    core("hudson.slaves.SlaveComputer$LoadingPrefetchCacheCount", Run::Inline(|call| Ok(call.int(0)))),
    core("hudson.slaves.SlaveComputer$LoadingTime", Run::Inline(|call| Ok(call.long(0)))),
    core("hudson.model.WorkspaceCleanupThread$CleanupOldWorkspaces", Run::Blocking(cleanup::old_workspaces)),
];

pub(super) fn system_properties(call: &Call) -> Result<Reply, Throw> {
    let properties = system::properties();
    let entries = properties.iter().map(|(name, value)| (*name, value.as_str()));
    Ok(call.reply(|graph| string_tree_map(graph, entries)))
}

fn thread_dump(call: &Call) -> Result<Reply, Throw> {
    let threads = system::thread_dump();
    let entries = threads.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    Ok(call.reply(|graph| string_tree_map(graph, entries)))
}

fn export_table(call: &Call) -> Result<Reply, Throw> {
    let (objects, requests) = call.link().in_use();
    Ok(call.string(&format!("{objects} exported objects, {requests} requests in progress\n")))
}

mod cleanup {
    //! `hudson.model.WorkspaceCleanupThread$CleanupOldWorkspaces`, of later controllers than 2.293.

    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::{Call, Reply, Throw, java_class};
    use crate::files;

    fn thrown(error: files::Error) -> Throw {
        if error.is_interrupted() { Throw::interrupted() } else { Throw::io(error.to_string()) }
    }

    java_class! {
        struct CleanupOldWorkspaces {
            retention_in_days: i32 = "retentionInDays",
        }
    }

    pub fn old_workspaces(call: &Call) -> Result<Reply, Throw> {
        let request = CleanupOldWorkspaces::read(call.view())?;
        let now = SystemTime::now();
        delete_old(call.path()?, request.retention_in_days, now, &|| call.is_cancelled())?;
        Ok(call.null())
    }

    /// Deletes a workspace, and those beside it that are named after it (`name@2`, `name@tmp`), where they have not
    /// been modified for so many days.
    pub(super) fn delete_old(
        workspace: &Path,
        days: i32,
        now: SystemTime,
        is_cancelled: files::Cancel<'_>,
    ) -> Result<(), Throw> {
        let (Some(parent), Some(name)) = (workspace.parent(), workspace.file_name()) else { return Ok(()) };
        let base = name.as_encoded_bytes();
        let suffixed = [base, b"@"].concat();
        let retention = Duration::from_secs(u64::try_from(days).unwrap_or(0) * 24 * 60 * 60);
        // As in Java, a directory that can't be listed has nothing to delete.
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            let path = entry.path();
            if name != base && !name.starts_with(&suffixed) {
                continue;
            }
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let is_kept = modified.checked_add(retention).is_none_or(|until| until > now);
            if metadata.is_dir() && !is_kept {
                files::remove::remove_recursive(&path, is_cancelled).map_err(thrown)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn names(directory: &Path) -> BTreeSet<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn old_workspaces_of_that_name_and_no_others_are_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in ["job", "job@2", "job@tmp", "job2", "jo", "other"] {
            std::fs::create_dir_all(root.join(name).join("nested")).unwrap();
        }
        std::fs::write(root.join("job@file"), "not a directory").unwrap();
        // A link to a directory goes, what it leads to stays.
        std::os::unix::fs::symlink(root.join("other"), root.join("job@link")).unwrap();
        let all = names(root);
        let days = |days: u64| SystemTime::now() + Duration::from_secs(days * 24 * 60 * 60);

        for (retention, now) in [(30, days(29)), (i32::MAX, days(30))] {
            cleanup::delete_old(&root.join("job"), retention, now, &|| false).unwrap();
            assert_eq!(names(root), all);
        }
        let cancelled = cleanup::delete_old(&root.join("job"), 30, days(31), &|| true).unwrap_err();
        assert_eq!(cancelled.class, crate::callables::ThrowClass::Interrupted);
        assert_eq!(names(root), all);

        cleanup::delete_old(&root.join("job"), 30, days(31), &|| false).unwrap();
        let left = ["job@file", "job2", "jo", "other"].map(str::to_owned);
        assert_eq!(names(root), BTreeSet::from(left));
        assert!(root.join("other/nested").is_dir());

        cleanup::delete_old(&root.join("missing/job"), 30, days(31), &|| false).unwrap();
        cleanup::delete_old(Path::new("/"), 30, days(31), &|| false).unwrap();
    }
}
