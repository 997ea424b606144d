//! Creating files beneath a directory, and nowhere else.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, fstat, ftruncate, linkat, mkdirat, openat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::super::{At, Error, Result};

/// How often to try again when a name comes and goes while we look at it.
const TRIES: u32 = 10;

/// The components of an archive entry's name; `None` if it is absolute or contains `..`. Empty for the root itself.
pub(super) fn components(name: &[u8]) -> Option<Vec<&[u8]>> {
    if name.starts_with(b"/") || name.contains(&0) {
        return None;
    }
    let parts = name.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(|part| (part != b"..").then_some(part)).collect()
}

/// The directory that an archive is extracted to.
pub(super) struct Root {
    path: PathBuf,
    fd: OwnedFd,
    /// The directory that was opened last: most entries follow one from the same directory.
    last: Option<(PathBuf, OwnedFd)>,
}

impl Root {
    pub fn open(path: &Path) -> Result<Root> {
        if !path.exists() {
            fs::create_dir_all(path).at("create directory", path)?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).at("open directory", path)?;
        Ok(Root { path: path.to_owned(), fd, last: None })
    }

    /// Makes sure that a directory and its parents exist.
    pub fn directory(&mut self, names: &[&[u8]]) -> Result<()> {
        self.walk(names, true)?;
        Ok(())
    }

    /// Creates or empties a file.
    pub fn file(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<(PathBuf, File)> {
        let path = self.shown(parents).join(OsStr::from_bytes(name));
        let dir = self.walk(parents, true)?;
        let write = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        for _ in 0..TRIES {
            match openat(dir, name, write | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o666)) {
                Ok(fd) => return Ok((path, fd.into())),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error).at("create", &path),
            }
            match openat(dir, name, write, Mode::empty()) {
                Ok(fd) => {
                    let stat = fstat(&fd).at("open", &path)?;
                    // Another name of the same file may well be outside.
                    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1 {
                        ftruncate(&fd, 0).at("truncate", &path)?;
                        return Ok((path, fd.into()));
                    }
                }
                // A link, a pipe that nobody reads, a program that runs, a read-only file.
                Err(Errno::LOOP | Errno::NXIO | Errno::TXTBSY | Errno::ACCESS) => {}
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error).at("open", &path),
            }
            remove(dir, name, &path)?;
        }
        Err(Error::io("create", path, io::Error::from(io::ErrorKind::AlreadyExists)))
    }

    /// Creates a symbolic link, in place of what has that name if that isn't a directory with contents.
    pub fn symlink(&mut self, parents: &[&[u8]], name: &[u8], target: &[u8]) -> Result<()> {
        let path = self.shown(parents).join(OsStr::from_bytes(name));
        let dir = self.walk(parents, true)?;
        for _ in 0..TRIES {
            match symlinkat(target, dir, name) {
                Err(Errno::EXIST) => remove(dir, name, &path)?,
                result => return result.at("create link", &path),
            }
        }
        Err(Error::io("create link", path, io::Error::from(io::ErrorKind::AlreadyExists)))
    }

    /// Creates another name for a file that was extracted before.
    pub fn hard_link(&mut self, parents: &[&[u8]], name: &[u8], target: &[&[u8]]) -> Result<()> {
        const OPERATION: &str = "create hard link";
        let path = self.shown(parents).join(OsStr::from_bytes(name));
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(Error::io(OPERATION, path, io::Error::from(io::ErrorKind::InvalidInput)));
        };
        let target_path = self.shown(target);
        let from = self.walk(target_parents, false)?.try_clone().at("open directory", &target_path)?;
        let dir = self.walk(parents, true)?;
        let stat = statat(&from, *target_name, AtFlags::SYMLINK_NOFOLLOW).at("link to", &target_path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the target of a hard link must be a file");
            return Err(Error::io("link to", target_path, source));
        }
        for _ in 0..TRIES {
            match linkat(&from, *target_name, dir, name, AtFlags::empty()) {
                Err(Errno::EXIST) => {
                    let there = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).at(OPERATION, &path)?;
                    if (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino) {
                        return Ok(());
                    }
                    remove(dir, name, &path)?;
                }
                result => return result.at(OPERATION, &path),
            }
        }
        Err(Error::io(OPERATION, path, io::Error::from(io::ErrorKind::AlreadyExists)))
    }

    fn shown(&self, names: &[&[u8]]) -> PathBuf {
        let mut path = self.path.clone();
        path.extend(names.iter().map(|name| OsStr::from_bytes(name)));
        path
    }

    /// Opens a directory beneath the root, component by component, through no link.
    fn walk(&mut self, names: &[&[u8]], create: bool) -> Result<&OwnedFd> {
        if names.is_empty() {
            return Ok(&self.fd);
        }
        let wanted: PathBuf = names.iter().map(|name| OsStr::from_bytes(name)).collect();
        let (mut path, mut current) = match self.last.take() {
            Some((path, fd)) if wanted.starts_with(&path) => (path, Some(fd)),
            _ => (PathBuf::new(), None),
        };
        for name in &names[path.components().count()..] {
            let parent = current.as_ref().unwrap_or(&self.fd);
            path.push(OsStr::from_bytes(name));
            let next = open_directory(parent, name, create, &self.path.join(&path))?;
            current = Some(next);
        }
        let fd = match current {
            Some(fd) => fd,
            None => self.fd.try_clone().at("open directory", &self.path)?,
        };
        Ok(&self.last.insert((wanted, fd)).1)
    }
}

fn open_directory(parent: &OwnedFd, name: &[u8], create: bool, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..TRIES {
        match openat(parent, name, flags, Mode::empty()) {
            Err(Errno::NOENT) if create => match mkdirat(parent, name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error).at("create directory", path),
            },
            Err(Errno::NOTDIR | Errno::LOOP) if is_link(parent, name) => {
                return Err(Error::Archive(format!(
                    "The archive attempts to write to a file with a symlink in its path: {}",
                    path.display()
                )));
            }
            result => return result.at("open directory", path),
        }
    }
    Err(Error::io("create directory", path, io::Error::from(io::ErrorKind::NotFound)))
}

fn is_link(parent: &OwnedFd, name: &[u8]) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// Removes a file, a link or an empty directory.
fn remove(dir: &OwnedFd, name: &[u8], path: &Path) -> Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(dir, name, AtFlags::REMOVEDIR).at("replace directory", path),
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).at("replace", path),
    }
}
