//! The tar dialect of Ant's `TarOutputStream` with `LONGFILE_GNU` and `BIGNUMBER_STAR`, which is what
//! `hudson.util.io.TarArchiver` writes.

use std::io::{self, Read, Write};

pub(crate) const RECORD: usize = 512;
/// `TarBuffer.DEFAULT_BLKSIZE`: the archive's length is a multiple of this.
const BLOCK: u64 = 10_240;
const NAME_LENGTH: usize = 100;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    /// `LF_GNUTYPE_LONGNAME`: the next entry's name.
    LongName,
    /// `LF_GNUTYPE_LONGLINK`: what the next entry links to.
    LongLink,
}

impl Kind {
    fn flag(self) -> u8 {
        match self {
            Kind::File => b'0',
            Kind::Symlink => b'2',
            Kind::Directory => b'5',
            Kind::LongName => b'L',
            Kind::LongLink => b'K',
        }
    }
}

/// An entry's header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header<'a> {
    pub kind: Kind,
    /// Ends with `/` for a directory.
    pub name: &'a [u8],
    /// What a link contains, else empty.
    pub link: &'a [u8],
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    pub size: u64,
}

/// Writes headers and data; it is the caller's part to write as much data as the header said.
pub(crate) struct TarWriter<W> {
    out: W,
    written: u64,
}

impl<W: Write> TarWriter<W> {
    pub fn new(out: W) -> TarWriter<W> {
        TarWriter { out, written: 0 }
    }

    pub fn header(&mut self, header: &Header<'_>) -> io::Result<()> {
        for (text, kind) in [(header.name, Kind::LongName), (header.link, Kind::LongLink)] {
            if text.len() >= NAME_LENGTH {
                self.record(&encode(&Header {
                    kind,
                    name: b"././@LongLink",
                    link: b"",
                    mode: 0o100_644,
                    mtime: header.mtime.max(0),
                    size: text.len() as u64 + 1,
                }))?;
                self.data(text)?;
                self.data(&[0])?;
                self.pad()?;
            }
        }
        self.record(&encode(header))
    }

    pub fn data(&mut self, data: &[u8]) -> io::Result<()> {
        self.out.write_all(data)?;
        self.written += data.len() as u64;
        Ok(())
    }

    /// Fills the last record of an entry.
    pub fn pad(&mut self) -> io::Result<()> {
        let odd = (self.written % RECORD as u64) as usize;
        if odd != 0 {
            self.data(&[0; RECORD][odd..])?;
        }
        Ok(())
    }

    /// Writes the end mark and answers the stream.
    pub fn finish(mut self) -> io::Result<W> {
        let end = self.written + 2 * RECORD as u64;
        let zeros = end.next_multiple_of(BLOCK) - self.written;
        io::copy(&mut io::repeat(0).take(zeros), &mut self.out)?;
        Ok(self.out)
    }

    fn record(&mut self, record: &[u8; RECORD]) -> io::Result<()> {
        self.data(record)
    }
}

/// `TarEntry.writeEntryHeader`: owner and group are 0 and nameless.
fn encode(header: &Header<'_>) -> [u8; RECORD] {
    fn text(field: &mut [u8], value: &[u8]) {
        let length = value.len().min(field.len());
        field[..length].copy_from_slice(&value[..length]);
    }
    let mut record = [0; RECORD];
    text(&mut record[..NAME_LENGTH], header.name);
    number(&mut record[100..108], i64::from(header.mode));
    number(&mut record[108..116], 0);
    number(&mut record[116..124], 0);
    number(&mut record[124..136], i64::try_from(header.size).unwrap_or(i64::MAX));
    number(&mut record[136..148], header.mtime);
    record[148..156].fill(b' ');
    record[156] = header.kind.flag();
    text(&mut record[157..257], header.link);
    let gnu = matches!(header.kind, Kind::LongName | Kind::LongLink);
    text(&mut record[257..265], if gnu { b"ustar  \0" } else { b"ustar\x0000" });
    number(&mut record[329..337], 0);
    number(&mut record[337..345], 0);
    let sum: u32 = record.iter().map(|&byte| u32::from(byte)).sum();
    text(&mut record[148..156], format!("{sum:06o}\0 ").as_bytes());
    record
}

/// `TarUtils.formatLongOctalOrBinaryBytes`: octal digits and a blank or, if that does not fit, a big-endian number
/// after a byte with the high bit set (0xff for negative ones).
fn number(field: &mut [u8], value: i64) {
    let digits = field.len() - 1;
    if (0..1i64 << (3 * digits)).contains(&value) {
        field.copy_from_slice(format!("{value:0digits$o} ").as_bytes());
        return;
    }
    let bytes = i128::from(value).to_be_bytes();
    let length = field.len();
    field.copy_from_slice(&bytes[bytes.len() - length..]);
    field[0] = if value < 0 { 0xff } else { 0x80 };
}
