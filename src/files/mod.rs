//! Files of the node: finding, archiving, extracting, deleting and copying them as Jenkins core does.
//!
//! A plain synchronous library over [`std::fs`]: nothing here knows of Java object streams. What `hudson.FilePath`,
//! `hudson.util.DirScanner`, `hudson.util.io.*Archiver`, `jenkins.util.io.PathRemover` and Ant's `DirectoryScanner`
//! do is kept, and where it is not, the item's documentation says so.
//!
//! Everything that can take long asks a [`Cancel`] and ends in [`Error::Interrupted`] when told to stop. Every error
//! names the operation and the path, and keeps the [`io::ErrorKind`].

pub mod archive;
pub mod attributes;
pub mod copy;
pub mod extract;
pub mod glob;
pub mod links;
pub mod mask;
pub mod remove;
pub mod scan;
pub mod temp;

use std::io;
use std::path::{Path, PathBuf};

/// Asked now and then by everything that loops: `true` means stop.
///
/// It is called once per file and once per buffer of data, so it must be cheap.
pub type Cancel<'a> = &'a dyn Fn() -> bool;

/// What went wrong with a file, a stream or an archive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation on a path.
    #[error("failed to {operation} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb: "open", "read", "delete".
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The stream that an archive is written to or read from failed; no file is to blame.
    #[error("failed to {operation}: {source}")]
    Stream {
        /// What was being done: "write the tar stream".
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The caller's [`Cancel`] said stop.
    #[error("interrupted while trying to {operation} {}", path.display())]
    Interrupted {
        /// What was being done.
        operation: &'static str,
        /// To which file or directory.
        path: PathBuf,
    },
    /// An archive is damaged, uses what is not supported, or reaches out of the directory it is extracted to.
    #[error("{0}")]
    Archive(String),
    /// A file changed in a way that leaves no honest archive entry.
    #[error("{0}")]
    Changed(String),
    /// An argument that the caller was given makes no sense.
    #[error("{0}")]
    Argument(String),
    /// A bounded search ended without finding a match (`FilePath.FileMaskNoMatchesFoundException`, which Java throws
    /// as an `InterruptedException`).
    #[error("no matches found within {bound}")]
    BoundReached {
        /// The number of operations that the search was allowed.
        bound: u32,
    },
    /// Several things failed (`jenkins.util.io.CompositeIOException`).
    #[error("{message}")]
    Composite {
        /// The summary, in Java's words.
        message: String,
        /// The first failures, at most [`remove::ERROR_LIMIT`].
        errors: Vec<Error>,
    },
    /// Another error, and during which larger work it happened.
    #[error("{context}: {source}")]
    Context {
        /// "Failed to extract x.tgz".
        context: String,
        /// The error itself.
        source: Box<Error>,
    },
}

/// The result of everything in this module.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of the underlying I/O error. What isn't one is `InvalidData` (archives), `InvalidInput` (arguments),
    /// `Interrupted` or `Other`.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Error::Io { source, .. } | Error::Stream { source, .. } => source.kind(),
            Error::Interrupted { .. } | Error::BoundReached { .. } => io::ErrorKind::Interrupted,
            Error::Archive(_) => io::ErrorKind::InvalidData,
            Error::Argument(_) => io::ErrorKind::InvalidInput,
            Error::Changed(_) => io::ErrorKind::Other,
            Error::Composite { errors, .. } => errors.first().map_or(io::ErrorKind::Other, Error::kind),
            Error::Context { source, .. } => source.kind(),
        }
    }

    /// The file that the error is about, if it is about one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Error::Io { path, .. } | Error::Interrupted { path, .. } => Some(path),
            Error::Composite { errors, .. } => errors.first().and_then(Error::path),
            Error::Context { source, .. } => source.path(),
            _ => None,
        }
    }

    /// Whether the work ended because [`Cancel`] said so (and not because of a failure).
    pub fn is_interrupted(&self) -> bool {
        match self {
            Error::Interrupted { .. } => true,
            Error::Context { source, .. } => source.is_interrupted(),
            _ => false,
        }
    }

    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Error {
        Error::Io { operation, path: path.into(), source: source.into() }
    }

    pub(crate) fn stream(operation: &'static str, source: impl Into<io::Error>) -> Error {
        Error::Stream { operation, source: source.into() }
    }
}

/// Fails with [`Error::Interrupted`] if the caller wants the work to end.
pub(crate) fn check(cancel: Cancel<'_>, operation: &'static str, path: &Path) -> Result<()> {
    if cancel() {
        return Err(Error::Interrupted { operation, path: path.to_owned() });
    }
    Ok(())
}

/// Adds operation and path to an I/O error.
pub(crate) trait At<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::io(operation, path, source))
    }
}

/// Size of the buffers that file contents are copied through.
pub(crate) const BUFFER: usize = 64 * 1024;

/// Creates a directory and its parents, if it does not exist (`FilePath.mkdirs`).
///
/// Answers whether it had to be created.
pub fn mkdirs(dir: &Path) -> Result<bool> {
    if dir.exists() {
        return Ok(false);
    }
    std::fs::create_dir_all(dir).at("create directory", dir)?;
    Ok(true)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Never cancels.
    pub fn go_on() -> bool {
        false
    }

    /// Makes files (with their own path as content) and, for names that end with `/`, directories.
    pub fn tree(root: &Path, names: &[&str]) {
        for name in names {
            let path = root.join(name);
            if name.ends_with('/') {
                std::fs::create_dir_all(&path).unwrap();
            } else {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, name).unwrap();
            }
        }
    }
}
