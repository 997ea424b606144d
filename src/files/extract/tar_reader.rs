//! Reading tar streams: ustar, GNU and pax.
//!
//! Headers are the library's ([`tar::Header`]), the loop over them is our own, since `tar::Archive` (0.4.46)
//! * splits pax headers at line ends rather than by the records' lengths (its issues 428 and 452): after an attribute
//!   with a line end in it, which binary ones have, it loses the path or size of the file, and part of a value can
//!   pose as a record;
//! * reads long names and pax headers of whatever length into memory, unless asked for raw entries, and then it does
//!   not know the size that a pax header gives to a file.

use std::io::{self, Read};

use tar::Header;

use super::super::{Error, Result};

const RECORD: u64 = 512;
/// How long the data of a long name or of a pax header may be. Paths end at 4 KiB on Linux.
const MAX_META: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    /// With what to call it in an error.
    Unsupported(&'static str),
}

/// One file of the archive; its data follows in the stream.
#[derive(Debug)]
pub(crate) struct Entry {
    pub kind: Kind,
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    /// Seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
}

/// What pax headers and GNU entries say about the entry that follows them.
#[derive(Default)]
struct Overrides {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<(i64, u32)>,
    sparse: bool,
}

pub(crate) struct TarReader<R> {
    input: R,
    /// Of the current entry's data, what has not been read yet.
    left: u64,
    /// Zeros between the data and the next header.
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub fn new(input: R) -> TarReader<R> {
        TarReader { input, left: 0, padding: 0 }
    }

    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next entry; `None` at the end mark or where the stream ends between two entries, as in Ant.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut overrides = Overrides::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = number(&header.as_old().size, header.entry_size())?;
            let flag = header.entry_type().as_byte();
            self.left = match flag {
                // As in GNU tar: a hard link may have the size of its file, but has no data.
                b'1' => 0,
                b'L' | b'K' | b'x' | b'X' | b'g' | b'V' => size,
                _ => overrides.size.unwrap_or(size),
            };
            self.padding = self.left.wrapping_neg() % RECORD;
            match flag {
                b'L' => overrides.name = Some(until_nul(self.meta()?)),
                b'K' => overrides.link = Some(until_nul(self.meta()?)),
                b'x' | b'X' => pax(&self.meta()?, &mut overrides)?,
                b'g' | b'V' => {}
                _ => return Ok(Some(entry(&header, overrides)?)),
            }
        }
    }

    /// Reads of the entry's data; 0 at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let got = loop {
            match self.input.read(&mut buffer[..want]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(unreadable)?,
            }
        };
        if got == 0 {
            return Err(truncated());
        }
        self.left -= got as u64;
        Ok(got)
    }

    fn skip(&mut self) -> Result<()> {
        let rest = self.left.saturating_add(self.padding);
        if io::copy(&mut self.input.by_ref().take(rest), &mut io::sink()).map_err(unreadable)? < rest {
            return Err(truncated());
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        let mut record = &mut header.as_mut_bytes()[..];
        let got = io::copy(&mut self.input.by_ref().take(RECORD), &mut record).map_err(unreadable)?;
        if got != 0 && got < RECORD {
            return Err(truncated());
        }
        if got == 0 || header.as_bytes().iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let mut summed = header.clone();
        summed.set_cksum();
        if header.cksum().map_err(damaged)? != summed.cksum().map_err(damaged)? {
            return Err(damaged("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn meta(&mut self) -> Result<Vec<u8>> {
        if self.left > MAX_META {
            return Err(Error::Archive(format!(
                "a tar header with {} bytes of names and attributes; at most {MAX_META} are accepted",
                self.left
            )));
        }
        let mut data = Vec::new();
        self.input.by_ref().take(self.left).read_to_end(&mut data).map_err(unreadable)?;
        if (data.len() as u64) < self.left {
            return Err(truncated());
        }
        self.left = 0;
        Ok(data)
    }
}

fn unreadable(error: io::Error) -> Error {
    Error::stream("read the tar stream", error)
}

fn truncated() -> Error {
    unreadable(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within an entry"))
}

fn damaged(why: impl std::fmt::Display) -> Error {
    Error::Archive(format!("not a tar, or a damaged one: {why}"))
}

fn entry(header: &Header, overrides: Overrides) -> Result<Entry> {
    let fields = header.as_old();
    let name = overrides.name.unwrap_or_else(|| header.path_bytes().into_owned());
    let kind = match header.entry_type().as_byte() {
        _ if overrides.sparse => Kind::Unsupported("a sparse file"),
        b'5' | b'D' => Kind::Directory,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' | b'4' => Kind::Unsupported("a device"),
        b'6' => Kind::Unsupported("a named pipe"),
        b'S' => Kind::Unsupported("a sparse file"),
        b'M' => Kind::Unsupported("a part of a file from another volume"),
        _ if name.ends_with(b"/") => Kind::Directory,
        _ => Kind::File,
    };
    Ok(Entry {
        kind,
        name,
        link: overrides.link.or_else(|| header.link_name_bytes().map(Into::into)).unwrap_or_default(),
        mode: number(&fields.mode, header.mode())?,
        mtime: match overrides.mtime {
            Some(mtime) => mtime,
            // Two's complement, which the library does not know.
            None => (number(&fields.mtime, header.mtime())? as i64, 0),
        },
    })
}

/// A number of the header; one that is left out is 0, as in Ant's `TarUtils.parseOctal`.
fn number<T: Default>(field: &[u8], parsed: io::Result<T>) -> Result<T> {
    if field[0] == 0 { Ok(T::default()) } else { parsed.map_err(damaged) }
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
    text
}

/// Records of the form `LENGTH KEY=VALUE\n`.
fn pax(mut data: &[u8], overrides: &mut Overrides) -> Result<()> {
    let bad = || damaged("a malformed pax header");
    while !data.is_empty() && data[0] != 0 {
        let blank = data.iter().take(20).position(|&byte| byte == b' ').ok_or_else(bad)?;
        let length = decimal(&data[..blank]).and_then(|length| usize::try_from(length).ok()).ok_or_else(bad)?;
        let record = data.get(blank + 1..length).ok_or_else(bad)?;
        data = &data[length..];
        let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
        let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => overrides.name = Some(value.to_vec()),
            b"linkpath" => overrides.link = Some(value.to_vec()),
            b"size" => overrides.size = Some(decimal(value).ok_or_else(bad)?),
            b"mtime" => overrides.mtime = Some(time(value).ok_or_else(bad)?),
            _ if key.starts_with(b"GNU.sparse.") => overrides.sparse = true,
            _ => {}
        }
    }
    Ok(())
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok()?;
    // `parse` would take a sign.
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())?
        .filter(|&size| i64::try_from(size).is_ok())
}

/// Seconds with an optional fraction, perhaps negative.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let mut nanoseconds = 0;
    for at in 0..9 {
        let digit = match fraction.as_bytes().get(at) {
            Some(digit @ b'0'..=b'9') => u32::from(digit - b'0'),
            Some(_) => return None,
            None => 0,
        };
        nanoseconds = nanoseconds * 10 + digit;
    }
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}
