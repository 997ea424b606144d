//! Temporary files and directories, named as `java.io.File.createTempFile` names them.

use std::collections::hash_map::RandomState;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use super::{At, Error, Result};

/// Creates an empty file `<prefix><number><suffix>` that did not exist (`File.createTempFile`).
///
/// The suffix is `.tmp` unless given; the prefix must have three characters. Who may read the file
/// is left to the umask, as in Java: containers of other users read the scripts that are put there.
pub fn create_temp_file(dir: &Path, prefix: &str, suffix: Option<&str>) -> Result<(PathBuf, File)> {
    if prefix.encode_utf16().count() < 3 {
        return Err(Error::Argument(format!("Prefix string \"{prefix}\" too short: length must be at least 3")));
    }
    unused(dir, prefix, suffix.unwrap_or(".tmp"), |path| {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    })
}

/// Creates a directory `<prefix><number>`; who may enter it is left to the umask (`FilePath.CreateTempDir`).
pub fn create_temp_dir(dir: &Path, prefix: &str) -> Result<PathBuf> {
    Ok(unused(dir, prefix, "", |path| DirBuilder::new().create(path))?.0)
}

/// A file without a name, in the system's temporary directory, that is gone when it is closed.
pub(crate) fn unnamed_file() -> Result<File> {
    let (path, file) = create_temp_file(&std::env::temp_dir(), "agent", None)?;
    fs::remove_file(&path).at("delete", &path)?;
    Ok(file)
}

fn unused<T>(dir: &Path, prefix: &str, suffix: &str, create: impl Fn(&Path) -> io::Result<T>) -> Result<(PathBuf, T)> {
    const OPERATION: &str = "create temporary file";
    const TRIES: u32 = 100;
    // Java takes just the last component of a prefix and refuses such a suffix.
    let prefix = prefix.rsplit('/').next().unwrap_or_default();
    if suffix.contains('/') {
        return Err(Error::Argument(format!("Invalid suffix for a temporary file: {suffix}")));
    }
    for _ in 1..TRIES {
        // A new state has new keys, so the hash of nothing is a random number.
        let number = RandomState::new().build_hasher().finish();
        let path = dir.join(format!("{prefix}{number}{suffix}"));
        match create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.at(OPERATION, &path).map(|made| (path, made)),
        }
    }
    Err(Error::io(OPERATION, dir, io::Error::from(io::ErrorKind::AlreadyExists)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_and_modes() {
        let temp = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        // What the umask leaves of all permissions.
        fs::create_dir(temp.path().join("plain")).unwrap();
        let left = mode(&temp.path().join("plain"));
        for (suffix, end) in [(None, ".tmp"), (Some(".sh"), ".sh"), (Some(""), "")] {
            let (path, _) = create_temp_file(temp.path(), "jenkins", suffix).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            let number = name.strip_prefix("jenkins").and_then(|name| name.strip_suffix(end)).unwrap();
            assert!(number.parse::<u64>().is_ok(), "{name}");
            assert_eq!(mode(&path), left & 0o666);
        }
        let dir = create_temp_dir(temp.path(), "x.tmp").unwrap();
        assert_eq!(mode(&dir), left);
        assert!(dir.file_name().unwrap().to_str().unwrap().starts_with("x.tmp"));
    }

    #[test]
    fn what_java_refuses() {
        let temp = tempfile::tempdir().unwrap();
        let message = create_temp_file(temp.path(), "ab", None).unwrap_err().to_string();
        assert_eq!(message, "Prefix string \"ab\" too short: length must be at least 3");
        assert!(create_temp_file(temp.path(), "abc", Some("/../x")).is_err());
        let error = create_temp_file(&temp.path().join("no"), "abc", None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let (path, _) = create_temp_file(temp.path(), "../../abc", None).unwrap();
        assert_eq!(path.parent().unwrap(), temp.path());
    }
}
