//! Copying, moving and renaming on this node.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, Timespec, Timestamps, fchmod, futimens, renameat_with};
use rustix::io::Errno;

use super::links::{create_symlink, read_link};
use super::scan::{DirScanner, Visitor};
use super::{At, Cancel, Error, Result, check, mkdirs};

/// How much is copied between two looks at [`Cancel`].
const PORTION: u64 = 8 << 20;

/// Copies a file over another or to where there is none (`Files.copy` with `REPLACE_EXISTING`); with its mode and times
/// if so asked (`COPY_ATTRIBUTES`). The parent directory must exist. An existing link is replaced, not written through.
pub fn copy_file(from: &Path, to: &Path, attributes: bool, cancel: Cancel<'_>) -> Result<()> {
    let mut input =
        OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(from).at("open", from)?;
    let meta = input.metadata().at("open", from)?;
    if !meta.is_file() {
        return Err(Error::io("copy", from, io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    match fs::symlink_metadata(to) {
        Ok(there) if (there.dev(), there.ino()) == (meta.dev(), meta.ino()) => return Ok(()),
        Ok(there) if there.is_dir() => fs::remove_dir(to).at("replace directory", to)?,
        Ok(_) => fs::remove_file(to).at("replace", to)?,
        Err(_) => {}
    }
    let mut output = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(if attributes { meta.mode() & 0o777 } else { 0o666 })
        .open(to)
        .at("create", to)?;
    loop {
        check(cancel, "copy", from)?;
        // Between files the standard library lets the kernel copy.
        if io::copy(&mut Read::by_ref(&mut input).take(PORTION), &mut output).at("copy", from)? == 0 {
            break;
        }
    }
    if attributes { copy_attributes(&meta, &output, to) } else { Ok(()) }
}

fn copy_attributes(meta: &fs::Metadata, output: &File, to: &Path) -> Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: meta.atime(), tv_nsec: meta.atime_nsec() },
        last_modification: Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() },
    };
    futimens(output, &times).at("set the time of", to)?;
    fchmod(output, Mode::from_raw_mode(meta.mode() & 0o777)).at("set the mode of", to)
}

/// Copies a file and its mode and times, and creates the directory it goes to (`FilePath$CopyToWithPermission`).
pub fn copy_with_permission(from: &Path, to: &Path, cancel: Cancel<'_>) -> Result<()> {
    if let Some(parent) = to.parent() {
        mkdirs(parent)?;
    }
    copy_file(from, to, true, cancel)
}

/// Copies what a scanner finds, links as links, and answers how many files and links that were
/// (`FilePath$CopyRecursiveLocal`). A missing source is empty. Directories are created for their files only.
pub fn copy_recursive(scanner: &DirScanner, from: &Path, to: &Path, cancel: Cancel<'_>) -> Result<u64> {
    if !from.exists() {
        return Ok(0);
    }
    let mut copier = Copier { to, count: 0, attributes: true, cancel };
    scanner.scan(from, &mut copier, cancel)?;
    Ok(copier.count)
}

struct Copier<'a> {
    to: &'a Path,
    count: u64,
    /// Until attributes can't be set, which happens on some network file systems (JENKINS-52325).
    attributes: bool,
    cancel: Cancel<'a>,
}

impl Copier<'_> {
    fn target(&self, relative: &Path) -> Result<PathBuf> {
        // `new File(dest, relative)` stays below also if the second part begins with a slash.
        let relative = relative.strip_prefix("/").unwrap_or(relative);
        let target = self.to.join(relative);
        if let Some(parent) = target.parent() {
            mkdirs(parent)?;
        }
        Ok(target)
    }
}

impl Visitor for Copier<'_> {
    fn understands_symlink(&self) -> bool {
        true
    }

    fn visit(&mut self, file: &Path, relative: &Path) -> Result<()> {
        if !file.is_file() {
            return Ok(());
        }
        let target = self.target(relative)?;
        match copy_file(file, &target, self.attributes, self.cancel) {
            Err(Error::Io { operation, source, .. })
                if operation.starts_with("set the ") && source.kind() == io::ErrorKind::PermissionDenied =>
            {
                tracing::info!(directory = %self.to.display(), "attributes can't be retained when copying; going on without");
                self.attributes = false;
            }
            result => result?,
        }
        self.count += 1;
        Ok(())
    }

    fn visit_symlink(&mut self, _: &Path, target: &Path, relative: &Path) -> Result<()> {
        create_symlink(&self.target(relative)?, target)?;
        self.count += 1;
        Ok(())
    }
}

/// Renames a file or directory to a name that does not exist (`Files.move`). Across file systems, files and links are
/// copied, and directories only if they are empty, as in Java.
pub fn rename(from: &Path, to: &Path, cancel: Cancel<'_>) -> Result<()> {
    const OPERATION: &str = "rename";
    let result = match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system has the flag.
        Err(Errno::INVAL | Errno::NOSYS) => {
            if fs::symlink_metadata(to).is_ok() {
                Err(Errno::EXIST)
            } else {
                rustix::fs::rename(from, to)
            }
        }
        result => result,
    };
    match result {
        Err(Errno::XDEV) => {}
        Err(Errno::EXIST) => return Err(Error::io("rename to", to, Errno::EXIST)),
        result => return result.at(OPERATION, from),
    }
    let meta = fs::symlink_metadata(from).at(OPERATION, from)?;
    if let Some(target) = read_link(from)? {
        create_symlink(to, &target)?;
    } else if meta.is_dir() {
        if fs::read_dir(from).at(OPERATION, from)?.next().is_some() {
            let source = io::Error::new(
                io::ErrorKind::DirectoryNotEmpty,
                format!("a directory with contents can't be moved to another file system, {}", to.display()),
            );
            return Err(Error::io(OPERATION, from, source));
        }
        fs::create_dir(to).at("create directory", to)?;
        copy_attributes(&meta, &File::open(to).at("open", to)?, to)?;
        return fs::remove_dir(from).at("delete", from);
    } else if let Err(error) = copy_file(from, to, true, cancel) {
        let _ = fs::remove_file(to);
        return Err(error);
    }
    fs::remove_file(from).at("delete", from)
}

/// Moves all that is in a directory to another one, and deletes the directory (`FilePath$MoveAllChildrenTo`).
pub fn move_all_children(from: &Path, to: &Path, cancel: Cancel<'_>) -> Result<()> {
    // A child that has its parent's name could not be moved in place (JENKINS-16846).
    let absolute = std::path::absolute(from).at("resolve", from)?;
    let mut temporary = absolute.clone().into_os_string();
    temporary.push(".__rename");
    let temporary = PathBuf::from(temporary);
    fs::rename(&absolute, &temporary).at("rename", from)?;
    for entry in fs::read_dir(&temporary).at("scan directory", &temporary)? {
        check(cancel, "move", &temporary)?;
        let name = entry.at("scan directory", &temporary)?.file_name();
        let child = temporary.join(&name);
        fs::rename(&child, to.join(&name)).at("rename", &child)?;
    }
    fs::remove_dir(&temporary).at("delete", &temporary)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::attributes::{last_modified, mode, set_last_modified};
    use super::super::testing::{go_on, tree};
    use super::*;

    fn everything() -> DirScanner {
        DirScanner::Glob { includes: Some("**".into()), excludes: None, default_excludes: true, follow_symlinks: true }
    }

    #[test]
    fn copies_files_links_modes_and_times() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        tree(&from, &["a/script", "b", "empty/"]);
        fs::set_permissions(from.join("a/script"), fs::Permissions::from_mode(0o751)).unwrap();
        set_last_modified(&from.join("a/script"), 1_500_000_000_250).unwrap();
        symlink("../b", from.join("a/link")).unwrap();
        symlink("nowhere", from.join("dangling")).unwrap();
        // What is there already: a file, and a link that must not be written through.
        tree(&to, &["b", "victim"]);
        fs::create_dir(to.join("a")).unwrap();
        symlink("../victim", to.join("a/script")).unwrap();

        assert_eq!(copy_recursive(&everything(), &from, &to, &go_on).unwrap(), 4);
        assert_eq!(fs::read_to_string(to.join("a/script")).unwrap(), "a/script");
        assert_eq!(mode(&to.join("a/script")).unwrap(), 0o751);
        assert_eq!(last_modified(&to.join("a/script")), 1_500_000_000_250);
        assert_eq!(fs::read_link(to.join("a/link")).unwrap(), Path::new("../b"));
        assert_eq!(fs::read_link(to.join("dangling")).unwrap(), Path::new("nowhere"));
        assert_eq!(fs::read_to_string(to.join("victim")).unwrap(), "victim");
        assert!(!to.join("empty").exists());
        assert_eq!(copy_recursive(&everything(), &temp.path().join("no"), &to, &go_on).unwrap(), 0);
    }

    #[test]
    fn a_file_copied_onto_itself_stays() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["f"]);
        let file = temp.path().join("f");
        copy_with_permission(&file, &file, &go_on).unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), "f");
    }

    #[test]
    fn renames_but_never_over_something() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["d/x", "f", "g"]);
        let at = |name: &str| temp.path().join(name);
        rename(&at("d"), &at("e"), &go_on).unwrap();
        assert!(at("e/x").exists());
        assert_eq!(rename(&at("f"), &at("g"), &go_on).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(at("g")).unwrap(), "g");
        let error = rename(&at("missing"), &at("h"), &go_on).unwrap_err();
        assert_eq!((error.kind(), error.path()), (io::ErrorKind::NotFound, Some(&*at("missing"))));
    }

    #[test]
    fn renames_across_file_systems() {
        let here = tempfile::tempdir().unwrap();
        let Ok(there) = tempfile::tempdir_in("/dev/shm") else {
            return;
        };
        if fs::metadata(here.path()).unwrap().dev() == fs::metadata(there.path()).unwrap().dev() {
            return;
        }
        tree(here.path(), &["f", "full/x", "empty/"]);
        symlink("f", here.path().join("link")).unwrap();
        set_last_modified(&here.path().join("f"), 1_500_000_000_000).unwrap();
        for name in ["f", "link", "empty"] {
            rename(&here.path().join(name), &there.path().join(name), &go_on).unwrap();
            assert!(fs::symlink_metadata(here.path().join(name)).is_err(), "{name}");
        }
        assert_eq!(last_modified(&there.path().join("f")), 1_500_000_000_000);
        assert_eq!(fs::read_link(there.path().join("link")).unwrap(), Path::new("f"));
        assert!(there.path().join("empty").is_dir());
        let error = rename(&here.path().join("full"), &there.path().join("full"), &go_on).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::DirectoryNotEmpty);
        assert!(here.path().join("full/x").exists());
    }

    #[test]
    fn moves_children_up() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["jdk/jdk/release", "jdk/bin/java"]);
        move_all_children(&temp.path().join("jdk"), temp.path(), &go_on).unwrap();
        assert!(temp.path().join("jdk/release").exists());
        assert!(temp.path().join("bin/java").exists());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
    }
}
