//! Reading tar streams: ustar, GNU and pax.

use std::io::{self, Read};

use super::super::tar_writer::RECORD;
use super::super::{Error, Result};

/// How long the data of a long name or of a pax header may be. Paths end at 4 KiB on Linux.
const MAX_META: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    /// With what to call it in an error.
    Unsupported(&'static str),
}

/// One file of the archive; its data follows in the stream.
#[derive(Debug)]
pub(super) struct Entry {
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

pub(super) struct TarReader<R> {
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
            let size = overrides.size.unwrap_or(number(&header[124..136])?.max(0) as u64);
            let flag = header[156];
            // As in GNU tar: a hard link may have the size of its file, but has no data.
            let size = if flag == b'1' { 0 } else { size };
            self.left = size;
            self.padding = size.wrapping_neg() % RECORD as u64;
            match flag {
                b'L' => overrides.name = Some(until_nul(&self.meta()?).to_vec()),
                b'K' => overrides.link = Some(until_nul(&self.meta()?).to_vec()),
                b'x' | b'X' => pax(&self.meta()?, &mut overrides)?,
                b'g' | b'V' => {}
                _ => return Ok(Some(entry(&header, flag, overrides)?)),
            }
        }
    }

    /// Reads of the entry's data; 0 at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let got = read(&mut self.input, &mut buffer[..want])?;
        if got == 0 {
            return Err(truncated());
        }
        self.left -= got as u64;
        Ok(got)
    }

    fn skip(&mut self) -> Result<()> {
        let mut rest = self.left + self.padding;
        let mut buffer = [0; 4096];
        while rest > 0 {
            let want = rest.min(buffer.len() as u64) as usize;
            match read(&mut self.input, &mut buffer[..want])? {
                0 => return Err(truncated()),
                got => rest -= got as u64,
            }
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    fn header(&mut self) -> Result<Option<[u8; RECORD]>> {
        let mut record = [0; RECORD];
        let mut filled = 0;
        while filled < RECORD {
            match read(&mut self.input, &mut record[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(truncated()),
                got => filled += got,
            }
        }
        if record.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let recorded = number(&record[148..156])?;
        let bytes = record.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { b' ' } else { byte });
        let (unsigned, signed) = bytes.fold((0i64, 0i64), |(unsigned, signed), byte| {
            (unsigned + i64::from(byte), signed + i64::from(byte as i8))
        });
        if recorded != unsigned && recorded != signed {
            return Err(Error::Archive("not a tar, or a damaged one: a header's checksum is wrong".to_owned()));
        }
        Ok(Some(record))
    }

    fn meta(&mut self) -> Result<Vec<u8>> {
        if self.left > MAX_META {
            return Err(Error::Archive(format!(
                "a tar header with {} bytes of names and attributes; at most {MAX_META} are accepted",
                self.left
            )));
        }
        let mut data = vec![0; self.left as usize];
        let mut filled = 0;
        while filled < data.len() {
            filled += self.read_data(&mut data[filled..])?;
        }
        Ok(data)
    }
}

fn read(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(|error| Error::stream("read the tar stream", error)),
        }
    }
}

fn truncated() -> Error {
    Error::stream("read the tar stream", io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within an entry"))
}

fn entry(header: &[u8; RECORD], flag: u8, overrides: Overrides) -> Result<Entry> {
    let name = match overrides.name {
        Some(name) => name,
        None => {
            let name = until_nul(&header[..100]);
            let prefix = until_nul(&header[345..500]);
            if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
                [prefix, b"/", name].concat()
            } else {
                name.to_vec()
            }
        }
    };
    let kind = match flag {
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
        link: overrides.link.unwrap_or_else(|| until_nul(&header[157..257]).to_vec()),
        mode: (number(&header[100..108])? & 0o7777) as u32,
        mtime: match overrides.mtime {
            Some(mtime) => mtime,
            None => (number(&header[136..148])?, 0),
        },
    })
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// An octal number, or a big-endian one after a first byte with the high bit.
fn number(field: &[u8]) -> Result<i64> {
    let bad = || Error::Archive("not a tar, or a damaged one: a header contains a number that is none".to_owned());
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            let start = if first & 0x40 == 0 { i128::from(first & 0x3f) } else { i128::from(*first as i8) };
            let mut value = start;
            for &byte in rest {
                value = value.checked_mul(256).ok_or_else(bad)? | i128::from(byte);
            }
            i64::try_from(value).map_err(|_| bad())
        }
        _ => {
            let text = until_nul(field).trim_ascii();
            text.iter().try_fold(0i64, |value, &digit| match digit {
                b'0'..=b'7' => value.checked_mul(8).map(|value| value + i64::from(digit - b'0')).ok_or_else(bad),
                _ => Err(bad()),
            })
        }
    }
}

/// Records of the form `LENGTH KEY=VALUE\n`.
fn pax(mut data: &[u8], overrides: &mut Overrides) -> Result<()> {
    let bad = || Error::Archive("not a tar, or a damaged one: a malformed pax header".to_owned());
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
