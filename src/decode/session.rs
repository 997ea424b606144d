//! What a file holds: one stream, or the records of a session.

use std::io::Read;
use std::path::Path;

use bytes::Bytes;

use super::DecodeCommandError;
use crate::object::STREAM_HEADER;

/// Most that is read of a file, after decompression.
const MAX_INPUT: u64 = 1 << 30;

/// Which way a record went.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Direction {
    ToAgent,
    ToController,
}

/// A stream of a file.
pub(super) struct Record {
    /// Position and direction, if this is of a session.
    pub place: Option<(usize, Direction)>,
    pub bytes: Bytes,
    /// Why there is no (whole) stream in `bytes`.
    pub damage: Option<String>,
}

impl Record {
    pub fn name(&self) -> String {
        self.place.map_or_else(|| "the stream".to_owned(), |(number, _)| format!("record {number}"))
    }

    pub fn title(&self, path: &str) -> String {
        let bytes = self.bytes.len();
        match self.place {
            None => format!("{path} ({bytes} bytes)"),
            Some((number, Direction::ToAgent)) => format!("{number} to the agent ({bytes} bytes)"),
            Some((number, Direction::ToController)) => format!("{number} to the controller ({bytes} bytes)"),
        }
    }
}

/// Reads a file, or standard input for `-`.
pub(super) fn read(path: &Path) -> Result<Vec<Record>, DecodeCommandError> {
    let failed = |source| DecodeCommandError::Read { path: path.display().to_string(), source };
    let mut raw: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(failed)?)
    };
    let mut head = Vec::new();
    raw.by_ref().take(2).read_to_end(&mut head).map_err(failed)?;
    let gzip = head == [0x1f, 0x8b];
    let whole = std::io::Cursor::new(head).chain(raw);
    let mut input = Vec::new();
    let reader: Box<dyn Read> = if gzip { Box::new(flate2::read::MultiGzDecoder::new(whole)) } else { Box::new(whole) };
    reader.take(MAX_INPUT + 1).read_to_end(&mut input).map_err(failed)?;
    let problem = |problem: String| DecodeCommandError::Format { path: path.display().to_string(), problem };
    if input.len() as u64 > MAX_INPUT {
        return Err(problem(format!("more than {MAX_INPUT} bytes (limit of this command)")));
    }
    split(input.into()).map_err(|message| problem(message.to_owned()))
}

/// The streams in a file's contents.
pub(super) fn split(mut input: Bytes) -> Result<Vec<Record>, &'static str> {
    if input.starts_with(&STREAM_HEADER) {
        return Ok(vec![Record { place: None, bytes: input, damage: None }]);
    }
    if input.is_empty() {
        return Err("empty");
    }
    let mut records = Vec::new();
    while !input.is_empty() {
        let number = records.len();
        let direction = match input[0] {
            1 => Direction::ToAgent,
            0 => Direction::ToController,
            _ if number == 0 => return Err("neither an object stream nor a recorded session"),
            // Where one record ends is known only from its head: there is no next one to be found.
            _ => {
                let damage = Some("its direction is neither 0 nor 1: the rest of the file is unreadable".to_owned());
                records.push(Record { place: Some((number, Direction::ToController)), bytes: input, damage });
                break;
            }
        };
        let length = input.get(1..5).and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?) as usize));
        let (bytes, damage) = match length {
            Some(length) if length <= input.len() - 5 => {
                let _ = input.split_to(5);
                (input.split_to(length), None)
            }
            _ if number == 0 => return Err("neither an object stream nor a recorded session"),
            _ => (std::mem::take(&mut input), Some("the file ends inside of this record".to_owned())),
        };
        records.push(Record { place: Some((number, direction)), bytes, damage });
    }
    Ok(records)
}
