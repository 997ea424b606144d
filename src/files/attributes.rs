//! Times, modes, digests and disk space of single files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use md5::{Digest, Md5};
use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, UTIME_OMIT, chmod as set_mode, statvfs, utimensat};

use super::{At, BUFFER, Cancel, Error, Result, check};

/// When a file was last changed, in milliseconds since 1970; 0 if it does not exist or can't be looked at
/// (`File.lastModified`).
pub fn last_modified(file: &Path) -> i64 {
    fs::metadata(file).map_or(0, |meta| meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000)
}

/// Sets when a file was last changed, in milliseconds since 1970 (`File.setLastModified`).
pub fn set_last_modified(file: &Path, milliseconds: i64) -> Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: milliseconds.div_euclid(1000),
            tv_nsec: milliseconds.rem_euclid(1000) * 1_000_000,
        },
    };
    utimensat(CWD, file, &times, AtFlags::empty()).at("set the time of", file)
}

/// Creates a file if it does not exist and sets when it was changed (`FilePath$Touch`).
pub fn touch(file: &Path, milliseconds: i64) -> Result<()> {
    if !file.exists() {
        OpenOptions::new().append(true).create(true).open(file).at("create", file)?;
    }
    set_last_modified(file, milliseconds)
}

/// A file's length; 0 if it does not exist (`File.length`).
pub fn length(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |meta| meta.len())
}

/// A file's permissions, without set-user-id and the like (`IOUtils.mode`).
pub fn mode(file: &Path) -> Result<u32> {
    Ok(fs::metadata(file).at("read the mode of", file)?.mode() & 0o777)
}

/// Sets a file's permissions (`FilePath._chmod`). As in Java the set-user-id, set-group-id and sticky bits are refused,
/// while what is above them, such as a file type, is ignored.
pub fn chmod(file: &Path, mask: i32) -> Result<()> {
    let mode = (mask & 0o7777) as u32;
    if mode & !0o777 != 0 {
        return Err(Error::Argument(format!("Invalid mode: {mode}")));
    }
    set_mode(file, Mode::from_raw_mode(mode)).at("set the mode of", file)
}

/// The MD5 digest of a file's contents, in hexadecimal (`Util.getDigestOf`).
pub fn md5_digest(file: &Path, cancel: Cancel<'_>) -> Result<String> {
    let mut input = File::open(file).at("open", file)?;
    let mut digest = Md5::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        check(cancel, "read", file)?;
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => digest.update(&buffer[..got]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", file, error)),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The space of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of it (`File.getTotalSpace`).
    pub total: u64,
    /// What is not in use (`File.getFreeSpace`).
    pub free: u64,
    /// What of it this user may use (`File.getUsableSpace`).
    pub usable: u64,
}

/// The space of the file system that a file is on. Java answers zeros where this is an error.
pub fn disk_space(file: &Path) -> Result<DiskSpace> {
    let stat = statvfs(file).at("read the disk space of", file)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(DiskSpace { total: bytes(stat.f_blocks), free: bytes(stat.f_bfree), usable: bytes(stat.f_bavail) })
}

#[cfg(test)]
mod tests {
    use super::super::testing::go_on;
    use super::*;

    #[test]
    fn times_are_in_milliseconds() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("f");
        assert_eq!(last_modified(&file), 0);
        for time in [1_600_000_000_123, 0, -1500] {
            touch(&file, time).unwrap();
            assert_eq!(last_modified(&file), time);
        }
        fs::write(&file, "kept").unwrap();
        touch(&file, 1000).unwrap();
        assert_eq!(length(&file), 4);
        let error = set_last_modified(&temp.path().join("no"), 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn modes() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("f");
        fs::write(&file, "").unwrap();
        for (mask, expected) in [(0o700, 0o700), (0o100_640, 0o640)] {
            chmod(&file, mask).unwrap();
            assert_eq!(mode(&file).unwrap(), expected);
        }
        assert_eq!(chmod(&file, 0o4755).unwrap_err().to_string(), "Invalid mode: 2541");
        assert!(mode(&temp.path().join("no")).is_err());
    }

    #[test]
    fn digests() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("f");
        fs::write(&file, "The quick brown fox jumps over the lazy dog").unwrap();
        assert_eq!(md5_digest(&file, &go_on).unwrap(), "9e107d9d372bb6826bd81d3542a419d6");
        assert!(md5_digest(&file, &|| true).unwrap_err().is_interrupted());
    }

    #[test]
    fn space_is_plausible() {
        let space = disk_space(Path::new("/")).unwrap();
        assert!(space.usable <= space.free && space.free <= space.total && space.total > 0);
    }
}
