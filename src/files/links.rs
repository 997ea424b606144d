//! Symbolic links: reading, making and looking out for them.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::{At, Error, Result};

/// Suffix of the directory beside a workspace (`WorkspaceList.TMP_DIR_SUFFIX`).
const TMP_DIR_SUFFIX: &str = "@tmp";

/// What a link contains; `None` if the file is no link or does not exist (`Util.resolveSymlink`).
pub fn read_link(file: &Path) -> Result<Option<PathBuf>> {
    match fs::read_link(file) {
        Ok(target) => Ok(Some(target)),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error).at("read link", file),
    }
}

/// Makes `link` a symbolic link that contains `target`, in place of the file, link or empty directory that is there
/// (`Util.createSymlink`). Java only logs a failure; here it is an error.
pub fn create_symlink(link: &Path, target: &Path) -> Result<()> {
    const OPERATION: &str = "create link";
    const TRIES: u32 = 4;
    for attempt in 1.. {
        match fs::symlink_metadata(link) {
            Ok(meta) if meta.is_dir() => fs::remove_dir(link).at("replace directory", link)?,
            Ok(_) => match fs::remove_file(link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).at("replace", link);
                }
                _ => {}
            },
            Err(_) => {}
        }
        match symlink(target, link) {
            // Somebody else creates the same file: Java's answer is to wait for them to be done with it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < TRIES => {
                thread::sleep(Duration::from_millis(100));
            }
            result => return result.at(OPERATION, link),
        }
    }
    Ok(())
}

/// Whether `file`, or a directory between it and `root`, is a symbolic link (`FilePath.isSymlink` with
/// `NOFOLLOW_LINKS`). Without a root only the file itself is looked at.
pub fn has_symlink(file: &Path, root: Option<&Path>) -> bool {
    is_link(file) || ancestor_matches(file, root, is_link)
}

/// Whether `file`, or a directory between it and `root`, is a directory whose name ends with `@tmp`
/// (`FilePath.isTmpDir`).
pub fn is_in_tmp_dir(file: &Path, root: Option<&Path>) -> bool {
    is_tmp_dir(file) || ancestor_matches(file, root, is_tmp_dir)
}

fn is_link(file: &Path) -> bool {
    fs::symlink_metadata(file).is_ok_and(|meta| meta.is_symlink())
}

fn is_tmp_dir(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.len() > TMP_DIR_SUFFIX.len() && name.ends_with(TMP_DIR_SUFFIX) && file.is_dir()
}

/// `FilePath.doesFileAncestorMatch`.
fn ancestor_matches(file: &Path, root: Option<&Path>, matches: fn(&Path) -> bool) -> bool {
    let Some(root) = root.and_then(|root| fs::canonicalize(root).ok()) else {
        return false;
    };
    for path in file.ancestors() {
        match fs::canonicalize(path) {
            Ok(real) if real == root => return false,
            Ok(_) if matches(path) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

/// Whether `child`, relative to `parent`, stays below it, all links on the way resolved (`FilePath$IsDescendant`).
///
/// Of a path that does not exist, what is there is resolved and the rest taken literally. Fails if `child` is absolute.
pub fn is_descendant(parent: &Path, child: &Path) -> Result<bool> {
    if child.is_absolute() {
        return Err(Error::Argument(format!(
            "Only a relative path is supported, the given path is absolute: {}",
            child.display()
        )));
    }
    let absolute_parent = std::path::absolute(parent).at("resolve", parent)?;
    let real_parent = match fs::canonicalize(&absolute_parent) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).at("resolve", parent),
    };
    let mut current = absolute_parent.clone();
    let mut rest = child.components();
    while let Some(component) = rest.next() {
        let direct = current.join(component);
        current = match fs::read_link(&direct) {
            Ok(target) => current.join(target),
            Err(_) => direct,
        };
        match fs::canonicalize(&current) {
            Ok(real) if !real.starts_with(&real_parent) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let literal = normalize(&current.join(rest.as_path()));
                return Ok(literal.starts_with(normalize(&absolute_parent)));
            }
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// `Path.normalize`: takes out `.` and `x/..` without looking at the disk.
pub(crate) fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match normal.components().next_back() {
                Some(Component::Normal(_)) => {
                    normal.pop();
                }
                Some(Component::RootDir) => {}
                _ => normal.push(component),
            },
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::super::testing::tree;
    use super::*;

    #[test]
    fn descendants() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        tree(temp.path(), &["root/a/b", "other/x", "rootling/x"]);
        symlink("a", root.join("in")).unwrap();
        symlink("../other", root.join("out")).unwrap();
        symlink(temp.path().join("other"), root.join("abs")).unwrap();
        symlink("../rootling", root.join("sibling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("../gone", root.join("dangling")).unwrap();
        for (child, expected) in [
            ("", true),
            ("a", true),
            ("a/b", true),
            ("a/../a/b", true),
            ("in/b", true),
            ("new/file", true),
            ("..", false),
            ("../root/a", false),
            ("out", false),
            ("out/x", false),
            ("abs/x", false),
            ("sibling/x", false),
            ("loop", false),
            ("dangling", false),
            ("new/../../other", false),
        ] {
            assert_eq!(is_descendant(&root, Path::new(child)).unwrap(), expected, "{child:?}");
        }
        assert!(!is_descendant(&temp.path().join("none"), Path::new("x")).unwrap());
        assert_eq!(is_descendant(&root, Path::new("/x")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn links_are_made_read_and_replaced() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["file", "empty/", "full/x"]);
        for name in ["new", "file", "empty", "new"] {
            let link = temp.path().join(name);
            create_symlink(&link, Path::new("../some where")).unwrap();
            assert_eq!(read_link(&link).unwrap().unwrap(), Path::new("../some where"));
        }
        assert!(create_symlink(&temp.path().join("full"), Path::new("x")).is_err());
        assert_eq!(read_link(&temp.path().join("full/x")).unwrap(), None);
        assert_eq!(read_link(&temp.path().join("missing")).unwrap(), None);
    }

    #[test]
    fn links_up_to_the_root_are_seen() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("linked-root");
        tree(temp.path(), &["root/a/b"]);
        symlink("root", &root).unwrap();
        symlink("a", root.join("l")).unwrap();
        assert!(!has_symlink(&root.join("a/b"), Some(&root)));
        assert!(has_symlink(&root.join("l/b"), Some(&root)));
        assert!(!has_symlink(&root.join("l/b"), None));
        assert!(has_symlink(&root.join("l"), None));
    }
}
