//! `agent decode`: object streams and recorded sessions, readable.
//!
//! Input is untrusted: what is printed is escaped, a shared node is printed once, and nothing recurses with the input.

mod json;
mod session;
mod summary;
mod tree;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use bytes::Bytes;
use clap::Parser;
use thiserror::Error;

use crate::object::{DecodeError, Graph, Limits, Node, STREAM_HEADER};
use session::Record;

/// How deep object streams within byte arrays of object streams are decoded.
const MAX_STREAMS: usize = 4;

const AFTER_HELP: &str = "\
A FILE is an object stream (it begins with ac ed 00 05), or a recorded session: records of one byte direction
(1 = to the agent, 0 = to the controller), four bytes length (big-endian) and that many bytes, one command each.
Either may be compressed with gzip. - is standard input.

Tree: an object is its class, then its fields under the class that declares them, then what its writeObject wrote
(lines with a dash). What is referred to more than once bears a number, and is \u{2192} #number from then on. A byte[] that is an
object stream is shown as one. Below 32 levels +N stands for N more levels of indentation.

JSON: one object per line and stream: {\"file\", \"record\", \"direction\": \"agent\"|\"controller\" (null outside of sessions), \"bytes\",
\"contents\", \"nodes\"}, or \"error\" in place of the last two. contents holds {\"block\": hex}, {\"reset\": true} or values. A value is
null, a boolean, a number (\"NaN\", \"Infinity\", \"-Infinity\" as strings), {\"char\": UTF-16 unit}, a string, or {\"ref\": id} of a node. Nodes:
{\"id\", \"class\", \"parts\": [{\"class\", \"fields\": [{\"name\", \"value\"}], \"data\": contents}]}, {\"id\", \"array\", \"elements\"},
{\"id\", \"array\", \"hex\"} for byte[], with \"stream\": {\"contents\", \"nodes\"} if it is one, {\"id\", \"enum\", \"constant\"}, {\"id\", \"classObject\"},
{\"id\", \"string\"} for long strings that are shared, {\"id\", \"aborted\": value}, and with --annotations {\"id\", \"descriptor\", \"uid\",
\"flags\", \"annotation\": contents, \"super\": value}.";

/// Show serialized Java objects and recorded remoting sessions.
#[derive(Debug, Parser)]
#[command(name = "agent decode", after_help = AFTER_HELP, disable_version_flag = true)]
struct Options {
    /// Object streams or recorded sessions; - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Show class descriptors with what their class loader wrote about them
    #[arg(long)]
    annotations: bool,
    /// Shorten no string or array, and show stack traces
    #[arg(long)]
    full: bool,
    /// JSON in place of the tree
    #[arg(long, conflicts_with_all = ["summary", "roundtrip"])]
    json: bool,
    /// Encode what was decoded and compare; fails if anything differs
    #[arg(long, conflicts_with = "summary")]
    roundtrip: bool,
    /// Count by callable, method and command
    #[arg(long)]
    summary: bool,
}

/// Why `agent decode` failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DecodeCommandError {
    /// The arguments can't be used.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read.
    #[error("reading {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file is neither a stream nor a session.
    #[error("{path}: {problem}")]
    Format {
        /// The file.
        path: String,
        /// Why.
        problem: String,
    },
    /// Streams could not be decoded; each was reported where it stands in the output.
    #[error("{path}: {count} of {total} streams could not be decoded, first {first}")]
    Streams {
        /// The file.
        path: String,
        /// Number of such streams.
        count: usize,
        /// Number of streams in the file.
        total: usize,
        /// The first of them and its error.
        first: String,
    },
    /// Streams did not encode to what they were decoded from.
    #[error("{path}: {count} of {total} streams encode to other bytes, first {first}")]
    Roundtrip {
        /// The file.
        path: String,
        /// Number of such streams.
        count: usize,
        /// Number of streams in the file.
        total: usize,
        /// The first of them.
        first: String,
    },
    /// The output could not be written.
    #[error("writing the output: {0}")]
    Write(#[from] io::Error),
}

/// Runs `agent decode` with the arguments behind `decode`.
///
/// # Errors
/// If an argument can't be used, or a file not be read; and, after everything else has been printed, if a stream
/// could not be decoded or did not survive the round trip.
pub fn run(args: &[OsString], out: &mut dyn Write) -> Result<(), DecodeCommandError> {
    let name = OsString::from("agent decode");
    let options = match Options::try_parse_from(std::iter::once(&name).chain(args)) {
        Ok(options) => options,
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            write!(out, "{error}")?;
            return Ok(());
        }
        Err(error) => return Err(DecodeCommandError::Usage(error.to_string().trim_end().to_owned())),
    };
    let mut failed = None;
    let mut summary = summary::Summary::default();
    for path in &options.files {
        let name = path.display().to_string();
        let input = session::read(path)?;
        let mut report = Report { options: &options, path: &name, total: 0, bad: 0, first: String::new() };
        report.file(input, &mut summary, out)?;
        failed = failed.or(report.into_error());
    }
    if options.summary {
        summary.print(out)?;
    }
    out.flush()?;
    failed.map_or(Ok(()), Err)
}

/// What was done with one file.
struct Report<'a> {
    options: &'a Options,
    path: &'a str,
    total: usize,
    bad: usize,
    first: String,
}

impl Report<'_> {
    fn file(
        &mut self,
        input: Vec<Record>,
        summary: &mut summary::Summary,
        out: &mut dyn Write,
    ) -> Result<(), DecodeCommandError> {
        for record in &input {
            self.total += 1;
            let graph = match &record.damage {
                Some(damage) => Err(damage.clone()),
                None => Graph::decode(record.bytes.clone(), &Limits::default()).map_err(|e| e.to_string()),
            };
            if let Err(problem) = &graph {
                self.note(format!("{}: {problem}", record.name()));
            }
            if self.options.json {
                json::print(self.path, record, graph.as_ref(), self.options, out)?;
                continue;
            }
            match graph {
                Err(problem) => writeln!(out, "{}\n  error: {problem}", record.title(self.path))?,
                Ok(graph) if self.options.summary => summary.add(record, &graph),
                Ok(graph) if self.options.roundtrip => self.roundtrip(record, &graph, out)?,
                Ok(graph) => {
                    writeln!(out, "{}", record.title(self.path))?;
                    tree::print(graph, self.options, out)?;
                }
            }
        }
        if self.options.roundtrip {
            writeln!(out, "{}: {} streams, {} differ", self.path, self.total, self.bad)?;
        }
        Ok(())
    }

    fn note(&mut self, what: String) {
        self.bad += 1;
        if self.bad == 1 {
            self.first = what;
        }
    }

    /// Compares a stream, and those within it, with what they encode to.
    fn roundtrip(&mut self, record: &Record, graph: &Graph, out: &mut dyn Write) -> io::Result<()> {
        let mut waiting = vec![(record.name(), record.bytes.clone(), 0)];
        self.total -= 1;
        while let Some((name, bytes, depth)) = waiting.pop() {
            self.total += 1;
            let inner;
            let graph = if depth == 0 {
                graph
            } else {
                match Graph::decode(bytes.clone(), &Limits::default()) {
                    Ok(graph) => inner = graph,
                    Err(error) => {
                        writeln!(out, "{name}: {error}")?;
                        self.note(format!("{name}: {error}"));
                        continue;
                    }
                }
                &inner
            };
            let encoded = graph.encode();
            if encoded != bytes {
                let at = encoded.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
                writeln!(out, "{name}: differs from byte {at} on")?;
                self.note(name.clone());
            }
            if depth < MAX_STREAMS {
                for (index, node) in graph.nodes().iter().enumerate() {
                    if let Some(bytes) = embedded(graph, node) {
                        waiting.push((format!("{name}, stream in #{index}"), bytes, depth + 1));
                    }
                }
            }
        }
        Ok(())
    }

    fn into_error(self) -> Option<DecodeCommandError> {
        let (path, count, total, first) = (self.path.to_owned(), self.bad, self.total, self.first);
        match count {
            0 => None,
            _ if self.options.roundtrip => Some(DecodeCommandError::Roundtrip { path, count, total, first }),
            _ => Some(DecodeCommandError::Streams { path, count, total, first }),
        }
    }
}

/// The object stream that a node is, if it is a byte array with one.
fn embedded(graph: &Graph, node: &Node) -> Option<Bytes> {
    match node {
        Node::Primitives { desc, data, .. }
            if graph.bytes(data).starts_with(&STREAM_HEADER) && graph.class_name(*desc) == "[B" =>
        {
            Some(graph.shared(data))
        }
        _ => None,
    }
}

/// The graph of the object stream that a node is, if it is a byte array with one.
fn decode_embedded(graph: &Graph, node: &Node) -> Option<Result<Graph, DecodeError>> {
    embedded(graph, node).map(|bytes| Graph::decode(bytes, &Limits::default()))
}

/// Text that can do no harm on a terminal: control and direction-changing characters are escaped.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}' => {
                out.extend(c.escape_unicode());
            }
            c if c.is_control() => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// How often each node is referred to (0, 1, or 2 for more) from values, contents and annotations.
fn references(graph: &Graph) -> Vec<u8> {
    let mut counts = vec![0u8; graph.nodes().len()];
    graph.for_each_reference(|id| {
        let count = &mut counts[id.index()];
        *count = (*count + 1).min(2);
    });
    counts
}

#[cfg(test)]
mod tests;
