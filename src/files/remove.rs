//! Deleting: `jenkins.util.io.PathRemover` with `hudson.Util`'s defaults.
//!
//! Three attempts, a tenth of a second apart. What can't be deleted because its directory is not writable is tried again
//! after the directory has been made so. Links are deleted, not followed. An attempt goes on after a failure, and the
//! failures are reported together.
//!
//! Unlike Java, the root directory is refused, whatever the user may do.
//!
//! Directories are walked by descriptor, one at a time: no depth of nesting and no length of path is too much, and a
//! directory that is replaced by a link meanwhile is not entered.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fchmod, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

use super::links::normalize;
use super::{At, Cancel, Error, Result, check};

/// How many failures are reported (`CompositeIOException.EXCEPTION_LIMIT`).
pub const ERROR_LIMIT: usize = 10;

/// `Util.DELETION_RETRIES` is 2.
const ATTEMPTS: u32 = 3;
/// `Util.WAIT_BETWEEN_DELETION_RETRIES`
const WAIT: Duration = Duration::from_millis(100);
/// What separates a workspace's name from that of the directories that go with it (`WorkspaceList.COMBINATOR`).
const COMBINATOR: &str = "@";

const DELETE: &str = "delete";

/// Deletes a file, a link, or a directory with all that is in it (`Util.deleteRecursive`). It is no error if there is
/// none.
pub fn remove_recursive(path: &Path, cancel: Cancel<'_>) -> Result<()> {
    let path = normalize(path);
    attempts(&path, cancel, |failures| {
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Ok(meta) if meta.is_dir() => match open(CWD, path.as_os_str(), OFlags::NOFOLLOW) {
                Ok(dir) => empty(dir, &path, cancel, failures)?,
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => failures.add("open directory", &path, error),
            },
            _ => {}
        }
        remove_entry(&path, failures);
        Ok(())
    })
}

/// Deletes all that is in a directory, but not the directory (`Util.deleteContentsRecursive`). It is no error if there
/// is none. Unlike everything below it, the directory itself may be a link.
pub fn remove_contents(path: &Path, cancel: Cancel<'_>) -> Result<()> {
    let path = normalize(path);
    attempts(&path, cancel, |failures| {
        match open(CWD, path.as_os_str(), OFlags::empty()) {
            Ok(dir) => empty(dir, &path, cancel, failures)?,
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => failures.add("open directory", &path, error),
        }
        Ok(())
    })
}

/// Deletes a file, a link or an empty directory (`Util.deleteFile`). It is no error if there is none.
pub fn remove_file(path: &Path, cancel: Cancel<'_>) -> Result<()> {
    let path = normalize(path);
    attempts(&path, cancel, |failures| {
        remove_entry(&path, failures);
        Ok(())
    })
}

/// Deletes the directories beside `path` that go with it: `ws@tmp`, `ws@libs`, `ws@2` for `ws`
/// (`FilePath$DeleteSuffixesRecursive`).
pub fn remove_suffixes(path: &Path, cancel: Cancel<'_>) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let mut prefix = name.as_bytes().to_vec();
    prefix.extend(COMBINATOR.bytes());
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let Ok(entries) = fs::read_dir(parent) else {
        return Ok(());
    };
    for entry in entries {
        let name = entry.at("scan directory", parent)?.file_name();
        if name.as_bytes().starts_with(&prefix) {
            remove_recursive(&parent.join(name), cancel)?;
        }
    }
    Ok(())
}

/// What could not be deleted in one attempt.
#[derive(Default)]
struct Failures {
    first: Vec<Error>,
    count: usize,
}

impl Failures {
    fn add(&mut self, operation: &'static str, path: &Path, error: Errno) {
        self.count += 1;
        if self.first.len() < ERROR_LIMIT {
            self.first.push(Error::io(operation, path, error));
        }
    }
}

fn attempts(path: &Path, cancel: Cancel<'_>, mut attempt: impl FnMut(&mut Failures) -> Result<()>) -> Result<()> {
    if path == Path::new("/") {
        return Err(Error::Argument("refusing to delete the root directory".to_owned()));
    }
    let mut tried = 0;
    loop {
        check(cancel, DELETE, path)?;
        let mut failures = Failures::default();
        attempt(&mut failures)?;
        tried += 1;
        if failures.count == 0 {
            return Ok(());
        }
        if tried < ATTEMPTS {
            thread::sleep(WAIT);
            continue;
        }
        let mut message = format!(
            "Unable to delete '{}'. Tried {tried} times (of a maximum of {ATTEMPTS}) waiting 0.1 sec between attempts.",
            path.display()
        );
        if failures.count > ERROR_LIMIT {
            message.push_str(&format!(" (Discarded {} additional exceptions)", failures.count - ERROR_LIMIT));
        }
        return Err(Error::Composite { message, errors: failures.first });
    }
}

fn open(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | flags, Mode::empty())
}

/// Deletes one file, link or empty directory, by path.
fn remove_entry(path: &Path, failures: &mut Failures) {
    let Some(name) = path.file_name() else {
        return failures.add(DELETE, path, Errno::INVAL);
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match open(CWD, parent.as_os_str(), OFlags::empty()) {
        Ok(dir) => unlink_or_rmdir(dir.as_fd(), name, path, failures),
        // The parent can be entered but not listed.
        Err(Errno::ACCESS) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match openat(CWD, parent, flags, Mode::empty()) {
                Ok(dir) => unlink_or_rmdir(dir.as_fd(), name, path, failures),
                Err(error) => failures.add(DELETE, path, error),
            }
        }
        Err(Errno::NOENT) => {}
        Err(error) => failures.add(DELETE, path, error),
    }
}

fn unlink_or_rmdir(dir: BorrowedFd<'_>, name: &OsStr, path: &Path, failures: &mut Failures) {
    let is_dir = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    if let Err(error) = unlink(dir, name, is_dir) {
        failures.add(DELETE, path, error);
    }
}

/// Deletes an entry of a directory, and makes the directory writable if that's what it takes.
fn unlink(dir: BorrowedFd<'_>, name: &OsStr, is_dir: bool) -> rustix::io::Result<()> {
    let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    let mut result = unlinkat(dir, name, flags);
    if let Err(Errno::ACCESS | Errno::PERM) = result
        && let Ok(stat) = fstat(dir)
        && fchmod(dir, Mode::from_raw_mode(stat.st_mode) | Mode::WUSR).is_ok()
    {
        result = unlinkat(dir, name, flags);
    }
    match result {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// A directory on the way from the top to the one that is being emptied.
struct Level {
    name: OsString,
    id: (u64, u64),
    /// Directories in it that are still there.
    pending: Vec<OsString>,
}

/// Empties a directory. Fails only if cancelled.
fn empty(top: OwnedFd, top_path: &Path, cancel: Cancel<'_>, failures: &mut Failures) -> Result<()> {
    let mut path = top_path.to_owned();
    let mut current = top;
    let mut levels = vec![remove_files(&current, OsString::new(), &path, cancel, failures)?];
    while let Some(level) = levels.last_mut() {
        check(cancel, DELETE, &path)?;
        if let Some(name) = level.pending.pop() {
            path.push(&name);
            match open(current.as_fd(), &name, OFlags::NOFOLLOW) {
                Ok(child) => {
                    let below = remove_files(&child, name, &path, cancel, failures)?;
                    if !below.pending.is_empty() {
                        levels.push(below);
                        current = child;
                        continue;
                    }
                    remove_dir(&current, &below.name, &path, failures);
                }
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => unlink_or_rmdir(current.as_fd(), &name, &path, failures),
                Err(error) => {
                    failures.add("open directory", &path, error);
                    remove_dir(&current, &name, &path, failures);
                }
            }
            path.pop();
        } else {
            let Some(done) = levels.pop() else { break };
            let Some(parent) = levels.last() else { break };
            // The way up is not remembered as a descriptor, since there may be thousands of levels.
            let up = open(current.as_fd(), OsStr::new(".."), OFlags::empty());
            current = match up.and_then(|up| fstat(&up).map(|stat| (up, (stat.st_dev, stat.st_ino)))) {
                Ok((up, id)) if id == parent.id => up,
                Ok(_) => {
                    failures.add("find the parent, which was moved, of directory", &path, Errno::STALE);
                    return Ok(());
                }
                Err(error) => {
                    failures.add("open the parent of directory", &path, error);
                    return Ok(());
                }
            };
            remove_dir(&current, &done.name, &path, failures);
            path.pop();
        }
    }
    Ok(())
}

fn remove_dir(parent: &OwnedFd, name: &OsStr, path: &Path, failures: &mut Failures) {
    if let Err(error) = unlink(parent.as_fd(), name, true) {
        failures.add(DELETE, path, error);
    }
}

/// Deletes all but the directories in a directory.
fn remove_files(
    dir: &OwnedFd,
    name: OsString,
    path: &Path,
    cancel: Cancel<'_>,
    failures: &mut Failures,
) -> Result<Level> {
    let mut level = Level { name, id: (0, 0), pending: Vec::new() };
    let entries = fstat(dir).and_then(|stat| {
        level.id = (stat.st_dev, stat.st_ino);
        Dir::read_from(dir)
    });
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            failures.add("list directory", path, error);
            return Ok(level);
        }
    };
    for entry in entries {
        check(cancel, DELETE, path)?;
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                failures.add("list directory", path, error);
                break;
            }
        };
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let mut kind = entry.file_type();
        if kind == FileType::Unknown
            && let Ok(stat) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        {
            kind = FileType::from_raw_mode(stat.st_mode);
        }
        if kind == FileType::Directory {
            level.pending.push(name.to_owned());
        } else if let Err(error) = unlink(dir.as_fd(), name, false) {
            failures.add(DELETE, &path.join(name), error);
        }
    }
    Ok(level)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::testing::{go_on, tree};
    use super::*;

    #[test]
    fn removes_trees_but_nothing_behind_links() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("d");
        tree(temp.path(), &["d/a/b/c/d", "d/a/x", "d/a/b/y", "d/e/", "d/f/g/", "kept/x"]);
        symlink("../kept", dir.join("link")).unwrap();
        symlink("../../kept", dir.join("a/link")).unwrap();
        symlink("nowhere", dir.join("a/dangling")).unwrap();
        remove_recursive(&dir, &go_on).unwrap();
        assert!(!dir.exists());
        assert!(temp.path().join("kept/x").exists());
        remove_recursive(&dir, &go_on).unwrap();

        symlink("kept", &dir).unwrap();
        remove_recursive(&dir, &go_on).unwrap();
        assert!(fs::symlink_metadata(&dir).is_err());
        remove_recursive(&temp.path().join("kept/x/../../kept"), &go_on).unwrap();
        assert!(!temp.path().join("kept").exists());
    }

    #[test]
    fn removes_contents_only() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["d/a/b", "d/c", "f"]);
        symlink("d", temp.path().join("link")).unwrap();
        remove_contents(&temp.path().join("link"), &go_on).unwrap();
        assert_eq!(fs::read_dir(temp.path().join("d")).unwrap().count(), 0);
        remove_contents(&temp.path().join("f"), &go_on).unwrap();
        remove_contents(&temp.path().join("missing"), &go_on).unwrap();
        assert!(temp.path().join("f").exists());
    }

    #[test]
    fn removes_what_is_read_only() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["d/a/b/c"]);
        for name in ["d/a/b/c", "d/a/b", "d/a", "d"] {
            fs::set_permissions(temp.path().join(name), fs::Permissions::from_mode(0o555)).unwrap();
        }
        remove_recursive(&temp.path().join("d"), &go_on).unwrap();
        assert!(!temp.path().join("d").exists());
    }

    #[test]
    fn removes_a_deep_tree() {
        let temp = tempfile::tempdir().unwrap();
        let mut dir = open(CWD, temp.path().as_os_str(), OFlags::empty()).unwrap();
        for _ in 0..2_500 {
            rustix::fs::mkdirat(&dir, "deep", Mode::RWXU).unwrap();
            openat(&dir, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
            dir = open(dir.as_fd(), OsStr::new("deep"), OFlags::empty()).unwrap();
        }
        drop(dir);
        let path = temp.path().join("deep");
        std::thread::Builder::new()
            .stack_size(128 * 1024)
            .spawn(move || remove_recursive(&path, &go_on).unwrap())
            .unwrap()
            .join()
            .unwrap();
        assert!(!temp.path().join("deep").exists());
    }

    #[test]
    fn says_what_could_not_be_removed() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["d/x"]);
        let path = temp.path().join("d");
        let error = remove_file(&path, &go_on).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "Unable to delete '{}'. Tried 3 times (of a maximum of 3) waiting 0.1 sec between attempts.",
                path.display()
            )
        );
        assert_eq!(error.kind(), io::ErrorKind::DirectoryNotEmpty);
        assert_eq!(error.path(), Some(&*path));
    }

    #[test]
    fn failures_are_counted_beyond_the_limit() {
        let temp = tempfile::tempdir().unwrap();
        let error = attempts(temp.path(), &go_on, |failures| {
            (0..25).for_each(|_| failures.add(DELETE, temp.path(), Errno::BUSY));
            Ok(())
        })
        .unwrap_err();
        assert!(error.to_string().ends_with("attempts. (Discarded 15 additional exceptions)"));
        assert!(matches!(error, Error::Composite { errors, .. } if errors.len() == ERROR_LIMIT));
    }

    #[test]
    fn removes_what_goes_with_a_workspace() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["ws/x", "ws@tmp/x", "ws@2/x", "ws2/x", "other@tmp/x"]);
        remove_suffixes(&temp.path().join("ws"), &go_on).unwrap();
        let mut left: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["other@tmp", "ws", "ws2"]);
    }

    #[test]
    fn cancels_between_files() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["d/a", "d/b", "d/c", "d/e"]);
        let asked = std::cell::Cell::new(0);
        let cancel = || {
            asked.set(asked.get() + 1);
            asked.get() > 4
        };
        assert!(remove_recursive(&temp.path().join("d"), &cancel).unwrap_err().is_interrupted());
        assert!(temp.path().join("d").exists());
    }
}
