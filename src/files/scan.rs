//! Which files an operation is about: `hudson.util.DirScanner` and `hudson.util.FileVisitor`.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::glob::{Glob, Options};
use super::links::{has_symlink, is_in_tmp_dir, read_link};
use super::{At, Cancel, Result, check};

/// Is given each file of a scan (`FileVisitor`).
pub trait Visitor {
    /// Whether links are to be reported as such; if not, they are reported as what they point to.
    fn understands_symlink(&self) -> bool {
        false
    }

    /// A file or directory. `relative` is its name in the archive.
    fn visit(&mut self, file: &Path, relative: &Path) -> Result<()>;

    /// A symbolic link and what it contains.
    fn visit_symlink(&mut self, link: &Path, target: &Path, relative: &Path) -> Result<()> {
        let _ = target;
        self.visit(link, relative)
    }
}

/// A way to enumerate files below a directory (`DirScanner`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirScanner {
    /// Everything, directories included, with the base directory's own name in front (`DirScanner$Full`).
    ///
    /// Unlike Java, a link that is reported as a link is not entered as well: what lies behind it would be extracted
    /// through it. And a directory is not entered within itself.
    Full,
    /// Files that match Ant patterns (`DirScanner$Glob`). With no patterns whatsoever it is [`DirScanner::Full`].
    Glob {
        /// Patterns, separated by commas.
        includes: Option<String>,
        /// Patterns to leave out.
        excludes: Option<String>,
        /// Whether to use [`super::glob::DEFAULT_EXCLUDES`].
        default_excludes: bool,
        /// Whether to enter links to directories and to report links at all.
        follow_symlinks: bool,
    },
    /// Named files: name in the archive, and path in the directory (`FilePath$ExplicitlySpecifiedDirScanner`).
    Explicit(Vec<(String, String)>),
}

impl DirScanner {
    /// Reports each file to the visitor. A base directory that does not exist is empty, except to
    /// [`DirScanner::Explicit`], which does not look and lets the visitor fail.
    pub fn scan(&self, dir: &Path, visitor: &mut dyn Visitor, cancel: Cancel<'_>) -> Result<()> {
        match self {
            DirScanner::Full => full(dir, visitor, cancel),
            DirScanner::Glob { includes, excludes: None, .. } if includes.as_deref().unwrap_or("").is_empty() => {
                full(dir, visitor, cancel)
            }
            DirScanner::Glob { includes, excludes, default_excludes, follow_symlinks } => {
                if !dir.exists() {
                    return Ok(());
                }
                let options = Options {
                    default_excludes: *default_excludes,
                    case_sensitive: true,
                    follow_symlinks: *follow_symlinks,
                };
                Glob::new(includes.as_deref().unwrap_or(""), excludes.as_deref(), options).scan(
                    dir,
                    cancel,
                    &mut |relative| single(&dir.join(relative), relative, visitor),
                )
            }
            DirScanner::Explicit(files) => {
                for (archived, path) in files {
                    let file = dir.join(path.trim_start_matches('/'));
                    check(cancel, "archive", &file)?;
                    single(&file, Path::new(archived), visitor)?;
                }
                Ok(())
            }
        }
    }
}

/// `DirScanner.scanSingle`.
fn single(file: &Path, relative: &Path, visitor: &mut dyn Visitor) -> Result<()> {
    if visitor.understands_symlink()
        && let Some(target) = read_link(file)?
    {
        return visitor.visit_symlink(file, &target, relative);
    }
    visitor.visit(file, relative)
}

fn full(dir: &Path, visitor: &mut dyn Visitor, cancel: Cancel<'_>) -> Result<()> {
    use std::os::unix::fs::MetadataExt;

    const OPERATION: &str = "scan directory";
    struct Level {
        id: (u64, u64),
        children: std::vec::IntoIter<std::ffi::OsString>,
    }
    fn open(dir: &Path, meta: &fs::Metadata) -> Result<Level> {
        let mut children = Vec::new();
        for entry in fs::read_dir(dir).at(OPERATION, dir)? {
            children.push(entry.at(OPERATION, dir)?.file_name());
        }
        children.sort_unstable();
        Ok(Level { id: (meta.dev(), meta.ino()), children: children.into_iter() })
    }

    if !readable(dir) {
        return Ok(());
    }
    let mut file = dir.to_owned();
    let mut relative = PathBuf::from(dir.file_name().unwrap_or_default());
    let meta = fs::metadata(dir).at(OPERATION, dir)?;
    if !meta.is_dir() {
        return single(&file, &relative, visitor);
    }
    visitor.visit(&file, &relative)?;
    let mut stack = vec![open(dir, &meta)?];
    while let Some(level) = stack.last_mut() {
        let Some(name) = level.children.next() else {
            stack.pop();
            file.pop();
            relative.pop();
            continue;
        };
        check(cancel, OPERATION, &file)?;
        file.push(&name);
        relative.push(&name);
        if readable(&file) {
            let is_link = fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_symlink());
            single(&file, &relative, visitor)?;
            if !(is_link && visitor.understands_symlink())
                && let Ok(meta) = fs::metadata(&file)
                && meta.is_dir()
                && !stack.iter().any(|level| level.id == (meta.dev(), meta.ino()))
            {
                stack.push(open(&file, &meta)?);
                continue;
            }
        }
        file.pop();
        relative.pop();
    }
    Ok(())
}

/// `File.canRead`.
fn readable(file: &Path) -> bool {
    accessat(CWD, file, Access::READ_OK, AtFlags::empty()).is_ok()
}

/// Leaves out what a user who browses a workspace may not see (`FilePath.ignoringSymlinks`, `ignoringTmpDirs`).
///
/// Without a verification root nothing is left out, but links are no longer reported as such.
pub struct Restricted<'a> {
    /// Is given the rest.
    pub inner: &'a mut dyn Visitor,
    /// Links and temporary directories are looked for from the file up to this directory.
    pub verification_root: Option<PathBuf>,
    /// Leave out links and what is reached through one (`LinkOption.NOFOLLOW_LINKS`).
    pub no_follow: bool,
    /// Leave out directories whose name ends with `@tmp`, and what is in them (`DisplayOption.IGNORE_TMP_DIRS`).
    pub ignore_tmp_dirs: bool,
}

impl Visitor for Restricted<'_> {
    fn understands_symlink(&self) -> bool {
        !self.no_follow && !self.ignore_tmp_dirs && self.inner.understands_symlink()
    }

    fn visit(&mut self, file: &Path, relative: &Path) -> Result<()> {
        if let Some(root) = &self.verification_root
            && ((self.no_follow && has_symlink(file, Some(root)))
                || (self.ignore_tmp_dirs && is_in_tmp_dir(file, Some(root))))
        {
            return Ok(());
        }
        self.inner.visit(file, relative)
    }

    fn visit_symlink(&mut self, link: &Path, target: &Path, relative: &Path) -> Result<()> {
        self.inner.visit_symlink(link, target, relative)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::testing::{go_on, tree};
    use super::*;

    #[derive(Default)]
    struct Record {
        links: bool,
        seen: Vec<String>,
    }

    impl Visitor for Record {
        fn understands_symlink(&self) -> bool {
            self.links
        }
        fn visit(&mut self, file: &Path, relative: &Path) -> Result<()> {
            let slash = if file.is_dir() { "/" } else { "" };
            self.seen.push(format!("{}{slash}", relative.display()));
            Ok(())
        }
        fn visit_symlink(&mut self, _: &Path, target: &Path, relative: &Path) -> Result<()> {
            self.seen.push(format!("{} -> {}", relative.display(), target.display()));
            Ok(())
        }
    }

    fn scan(scanner: &DirScanner, dir: &Path, links: bool) -> Vec<String> {
        let mut record = Record { links, ..Record::default() };
        scanner.scan(dir, &mut record, &go_on).unwrap();
        record.seen
    }

    fn glob(includes: Option<&str>, excludes: Option<&str>, follow_symlinks: bool) -> DirScanner {
        DirScanner::Glob {
            includes: includes.map(str::to_owned),
            excludes: excludes.map(str::to_owned),
            default_excludes: true,
            follow_symlinks,
        }
    }

    #[test]
    fn each_scanner_names_files_as_java_does() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("ws");
        tree(&dir, &["a/b", "a/.git/x", "c", "e/"]);
        symlink("a", dir.join("l")).unwrap();
        symlink("nowhere", dir.join("z")).unwrap();
        symlink("..", dir.join("a/up")).unwrap();

        let everything =
            ["ws/", "ws/a/", "ws/a/.git/", "ws/a/.git/x", "ws/a/b", "ws/a/up -> ..", "ws/c", "ws/e/", "ws/l -> a"];
        assert_eq!(scan(&DirScanner::Full, &dir, true), everything);
        assert_eq!(scan(&glob(None, None, true), &dir, true), everything);
        // "up" is reported but not entered, since it leads to where the walk came from.
        assert_eq!(
            scan(&DirScanner::Full, &dir, false),
            [
                "ws/",
                "ws/a/",
                "ws/a/.git/",
                "ws/a/.git/x",
                "ws/a/b",
                "ws/a/up/",
                "ws/c",
                "ws/e/",
                "ws/l/",
                "ws/l/.git/",
                "ws/l/.git/x",
                "ws/l/b",
                "ws/l/up/"
            ]
        );
        assert_eq!(scan(&glob(Some("**"), None, false), &dir, true), ["a/b", "c"]);
        assert_eq!(scan(&glob(Some("*"), None, true), &dir, true), ["c", "z -> nowhere"]);
        assert_eq!(scan(&glob(None, Some("a/**,l/**,z"), true), &dir, true), ["c"]);
        assert_eq!(scan(&glob(Some("**"), None, true), &dir.join("missing"), true), [""; 0]);

        let named = DirScanner::Explicit(vec![("x/y".into(), "a/b".into()), ("l".into(), "l".into())]);
        assert_eq!(scan(&named, &dir, true), ["x/y", "l -> a"]);
    }

    #[test]
    fn a_workspace_that_is_a_link_is_scanned() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["real/f"]);
        symlink("real", temp.path().join("ws")).unwrap();
        assert_eq!(scan(&DirScanner::Full, &temp.path().join("ws"), true), ["ws/", "ws/f"]);
    }

    #[test]
    fn restricted_leaves_out_links_and_temporary_directories() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("ws");
        tree(&dir, &["a/b", "a@tmp/secret", "c"]);
        symlink("a", dir.join("l")).unwrap();
        let mut record = Record { links: true, ..Record::default() };
        let mut visitor = Restricted {
            inner: &mut record,
            verification_root: Some(dir.clone()),
            no_follow: true,
            ignore_tmp_dirs: true,
        };
        glob(Some("**"), None, true).scan(&dir, &mut visitor, &go_on).unwrap();
        assert_eq!(record.seen, ["a/b", "c"]);
    }

    #[test]
    fn cancels() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["a/b"]);
        for scanner in [DirScanner::Full, glob(Some("**"), None, true)] {
            let error = scanner.scan(temp.path(), &mut Record::default(), &|| true).unwrap_err();
            assert!(error.is_interrupted());
        }
    }
}
