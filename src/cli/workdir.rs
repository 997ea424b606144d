//! The work directory (`org.jenkinsci.remoting.engine.WorkDirManager`).

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::session::config::WorkDirSettings;

/// Why a work directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkDirError {
    /// `-internalDir` is a path, or has characters that it must not have.
    #[error("Name of remoting internal directory ('{0}') is not compliant with the required format: [a-zA-Z0-9._-]*")]
    Name(String),
    /// Something else stands there.
    #[error("The specified {what} path points to a non-directory file: {}", path.display())]
    NotADirectory {
        /// Which directory.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The user that the agent runs as lacks a permission.
    #[error("The specified {what} should be fully accessible to the remoting executable (RWX): {}", path.display())]
    NotAccessible {
        /// Which directory.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// `-failIfWorkDirIsMissing`.
    #[error("The {what} is missing, but it is expected to exist: {}", path.display())]
    Missing {
        /// Which directory.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The operating system said no.
    #[error("Cannot create the {what} {}: {source}", path.display())]
    Create {
        /// Which directory.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The directories, there and writable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkDir {
    /// `-workDir` itself.
    pub root: PathBuf,
    /// The internal directory within.
    pub internal: PathBuf,
    /// The log directory within that, unless `-agentLog` takes its place.
    pub logs: Option<PathBuf>,
}

/// Checks and creates the directories; `None` where no work directory is wanted. Unlike Java's, no jar
/// cache is created.
///
/// # Errors
/// [`WorkDirError`], with Java's texts; the agent should not start.
pub fn prepare(settings: &WorkDirSettings, with_logs: bool) -> Result<Option<WorkDir>, WorkDirError> {
    prepare_with(settings, with_logs, &is_accessible)
}

fn prepare_with(
    settings: &WorkDirSettings,
    with_logs: bool,
    accessible: &dyn Fn(&Path) -> bool,
) -> Result<Option<WorkDir>, WorkDirError> {
    let name = &settings.internal_dir;
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(WorkDirError::Name(name.clone()));
    }
    let Some(root) = settings.path.clone() else {
        return Ok(None);
    };
    verify("working directory", &root, settings.fail_if_missing, accessible)?;
    let internal = root.join(name);
    let what = "remoting internal directory";
    verify(what, &internal, settings.fail_if_missing, accessible)?;
    create(what, &internal)?;
    let logs = if with_logs {
        let logs = internal.join("logs");
        verify("Log directory", &logs, false, accessible)?;
        create("Log directory", &logs)?;
        Some(logs)
    } else {
        None
    };
    Ok(Some(WorkDir { root, internal, logs }))
}

fn verify(
    what: &'static str,
    path: &Path,
    fail_if_missing: bool,
    accessible: &dyn Fn(&Path) -> bool,
) -> Result<(), WorkDirError> {
    let path_buf = || path.to_owned();
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Err(WorkDirError::NotADirectory { what, path: path_buf() }),
        Ok(_) if !accessible(path) => Err(WorkDirError::NotAccessible { what, path: path_buf() }),
        Ok(_) => Ok(()),
        Err(_) if fail_if_missing => Err(WorkDirError::Missing { what, path: path_buf() }),
        Err(_) => Ok(()),
    }
}

fn create(what: &'static str, path: &Path) -> Result<(), WorkDirError> {
    std::fs::create_dir_all(path).map_err(|source| WorkDirError::Create { what, path: path.to_owned(), source })
}

fn is_accessible(path: &Path) -> bool {
    access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(path: &Path) -> WorkDirSettings {
        WorkDirSettings { path: Some(path.to_owned()), internal_dir: "remoting".into(), fail_if_missing: false }
    }

    #[test]
    fn creates_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b");
        let made = prepare(&settings(&root), true).unwrap().unwrap();
        assert_eq!(made.logs.as_deref(), Some(root.join("remoting/logs").as_path()));
        assert!(root.join("remoting/logs").is_dir());
        assert_eq!(prepare(&settings(&root), true).unwrap().unwrap(), made);

        let without = dir.path().join("c");
        assert_eq!(prepare(&settings(&without), false).unwrap().unwrap().logs, None);
        assert!(without.join("remoting").is_dir());
        assert!(!without.join("remoting/logs").exists());
    }

    #[test]
    fn nothing_without_a_work_dir() {
        let none = WorkDirSettings { path: None, ..settings(Path::new("")) };
        assert_eq!(prepare(&none, true).unwrap(), None);
    }

    #[test]
    fn refusals() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("w");
        let strict = WorkDirSettings { fail_if_missing: true, ..settings(&root) };
        let text = |result: Result<Option<WorkDir>, WorkDirError>| result.unwrap_err().to_string();
        let shown = root.display();

        assert_eq!(
            text(prepare(&strict, true)),
            format!("The working directory is missing, but it is expected to exist: {shown}")
        );
        assert!(!root.exists());
        std::fs::create_dir(&root).unwrap();
        assert_eq!(
            text(prepare(&strict, true)),
            format!("The remoting internal directory is missing, but it is expected to exist: {shown}/remoting")
        );
        std::fs::write(root.join("remoting"), "").unwrap();
        assert_eq!(
            text(prepare(&strict, true)),
            format!("The specified remoting internal directory path points to a non-directory file: {shown}/remoting")
        );
        assert_eq!(
            text(prepare_with(&settings(&root), true, &|_| false)),
            format!(
                "The specified working directory should be fully accessible to the remoting executable (RWX): {shown}"
            )
        );
        for bad in ["../up", "a/b", "a b", "é"] {
            let bad = WorkDirSettings { internal_dir: bad.into(), ..settings(&root) };
            assert!(matches!(prepare(&bad, true), Err(WorkDirError::Name(_))));
        }
    }

    #[test]
    fn access_is_asked_of_the_system() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_accessible(dir.path()));
        assert!(!is_accessible(&dir.path().join("missing")));
    }
}
