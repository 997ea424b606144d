//! Report files as XML: a tree of the few elements and attributes that a test result is made of.
//!
//! Read as Xerces and dom4j read them for `SuiteResult.parse`: elements and attributes go by their local names, line
//! ends and attribute values are normalized, and what is not well-formed is an error that names the line. A document
//! type declaration is skipped: nothing is fetched, and entities that it declares are unknown.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use quick_xml::XmlVersion;
use quick_xml::errors::IllFormedError;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

/// Elements within elements. A report has four or five levels; a suite within a suite adds one.
const MAX_DEPTH: usize = 256;
/// Size of a report file in bytes.
const MAX_SIZE: u64 = 512 << 20;

/// Elements that a test result is made of.
const ELEMENTS: [&str; 12] = [
    "testsuite",
    "testcase",
    "error",
    "failure",
    "skipped",
    "system-out",
    "system-err",
    "properties",
    "property",
    "flakyFailure",
    "rerunFailure",
    "stackTrace",
];

/// Attributes that a test result is made of.
const ATTRIBUTES: [&str; 9] = ["name", "package", "timestamp", "id", "time", "classname", "message", "type", "value"];

/// Why a report could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    /// Its file can't be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is not well-formed XML, or beyond this agent's limits. Reads like a `DocumentException` of dom4j.
    #[error("{0}")]
    Document(String),
}

/// An element, with those of its attributes and children that count.
#[derive(Debug, Default)]
pub(super) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Element>,
    text: String,
}

impl Element {
    /// The first child of this name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// All children of this name.
    pub fn children(&self, name: &'static str) -> impl Iterator<Item = &Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    /// Text between the tags, without that of children.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of the first child of this name.
    pub fn child_text(&self, name: &str) -> Option<&str> {
        self.child(name).map(Element::text)
    }

    /// Whether text of this element may be asked for.
    fn keeps_text(&self) -> bool {
        !matches!(self.name, "" | "testsuite" | "testcase" | "properties" | "flakyFailure" | "rerunFailure")
    }
}

/// Reads a report file: gives its root element, whatever its name.
pub(super) fn read(file: &Path) -> Result<Element, ReportError> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(ReportError::Document(format!("a report may have {} MiB at most", MAX_SIZE >> 20)));
    }
    parse(bytes).map_err(ReportError::Document)
}

/// Parses a document.
pub(super) fn parse(bytes: Vec<u8>) -> Result<Element, String> {
    let text = decode(bytes)?;
    let at = |offset: usize, problem: &str| {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        format!("Error on line {line} of document  : {problem}")
    };
    if let Some((offset, c)) = text.char_indices().find(|(_, c)| !is_xml_char(*c)) {
        return Err(at(offset, &invalid_character(c)));
    }
    let mut reader = Reader::from_str(&text);
    let mut tree = Tree::default();
    loop {
        let event = match reader.read_event() {
            Ok(Event::Eof) => break,
            Ok(event) => event,
            Err(quick_xml::Error::IllFormed(IllFormedError::MismatchedEndTag { expected, .. })) => {
                let problem = format!(
                    "The element type \"{expected}\" must be terminated by the matching end-tag \"</{expected}>\"."
                );
                return Err(at(reader.error_position() as usize, &problem));
            }
            Err(error) => return Err(at(reader.error_position() as usize, &error.to_string())),
        };
        tree.accept(event).map_err(|problem| at(reader.buffer_position() as usize, &problem))?;
    }
    match (tree.open.last(), tree.root) {
        (None, Some(root)) => Ok(root),
        (Some(_), _) => Err(at(text.len(), "XML document structures must start and end within the same entity.")),
        (None, None) => Err(at(text.len(), "Premature end of file.")),
    }
}

/// The tree as far as it is read.
#[derive(Default)]
struct Tree {
    /// The elements that are open, with their full names; those that don't count are kept to be matched with their ends.
    open: Vec<Element>,
    root: Option<Element>,
    is_1_1: bool,
}

impl Tree {
    fn accept(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Start(start) => self.start(&start),
            Event::Empty(start) => {
                self.start(&start)?;
                self.end();
                Ok(())
            }
            Event::End(_) => {
                self.end();
                Ok(())
            }
            Event::Text(text) => self.text(&text),
            Event::CData(text) if self.open.is_empty() => Err(outside(&text)),
            Event::CData(text) => self.text(&text),
            Event::GeneralRef(reference) => {
                let resolved = match reference.resolve_char_ref().map_err(|error| error.to_string())? {
                    Some(c) => Cow::Owned(self.checked(c)?.to_string()),
                    None => match resolve_xml_entity(&reference) {
                        Some(text) => Cow::Borrowed(text),
                        None => {
                            let name: &str = &reference;
                            return Err(format!("The entity \"{name}\" was referenced, but not declared."));
                        }
                    },
                };
                self.text(&resolved)
            }
            Event::Decl(declaration) => {
                self.is_1_1 = declaration.version().is_ok_and(|version| version == "1.1");
                Ok(())
            }
            Event::Comment(_) | Event::PI(_) | Event::DocType(_) | Event::Eof => Ok(()),
        }
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        if self.open.is_empty() && self.root.is_some() {
            return Err("The markup in the document following the root element must be well-formed.".to_owned());
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} elements within each other"));
        }
        let local = start.local_name();
        let known = ELEMENTS.iter().find(|name| **name == local.as_ref());
        let mut element = Element { name: known.copied().unwrap_or(""), ..Element::default() };
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            let local = attribute.key.local_name();
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
            value.chars().try_for_each(|c| self.checked(c).map(drop))?;
            let Some(name) = ATTRIBUTES.iter().find(|name| **name == local.as_ref()) else { continue };
            element.attributes.push((name, value.into_owned()));
        }
        self.open.push(element);
        Ok(())
    }

    fn end(&mut self) {
        // The reader has matched the end with a start.
        let Some(element) = self.open.pop() else { return };
        match self.open.last_mut() {
            Some(parent) if !element.name.is_empty() => parent.children.push(element),
            Some(_) => {}
            None => self.root = Some(element),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        match self.open.last_mut() {
            Some(element) if element.keeps_text() => element.text.push_str(text),
            Some(_) => {}
            None if text.trim_matches([' ', '\t', '\n', '\r']).is_empty() => {}
            None => return Err(outside(text)),
        }
        Ok(())
    }

    /// A character that a reference stands for. In XML 1.1 that may be a control character.
    fn checked(&self, c: char) -> Result<char, String> {
        if is_xml_char(c) || (self.is_1_1 && c != '\0' && c < ' ') { Ok(c) } else { Err(invalid_character(c)) }
    }
}

fn outside(text: &str) -> String {
    let shown: String = text.trim().chars().take(20).collect();
    format!("Content is not allowed outside of the root element: {shown:?}")
}

fn invalid_character(c: char) -> String {
    format!(
        "An invalid XML character (Unicode: 0x{:x}) was found in the element content of the document.",
        u32::from(c)
    )
}

/// `Char` of XML 1.0.
fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// What windows-1252 has where ISO-8859-1 has control characters.
const WINDOWS_1252: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";

/// The document's text, with line ends as `\n`: UTF-8 or UTF-16, or what its declaration says.
fn decode(bytes: Vec<u8>) -> Result<String, String> {
    let text = match bytes.as_slice() {
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0, b'<', ..] => utf16(&bytes, u16::from_be_bytes)?,
        [b'<', 0, ..] => utf16(&bytes, u16::from_le_bytes)?,
        _ => match declared_encoding(&bytes).to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" | "us-ascii" | "ascii" => utf8(bytes)?,
            "iso-8859-1" | "iso8859-1" | "iso8859_1" | "latin1" => bytes.iter().copied().map(char::from).collect(),
            "windows-1252" | "cp1252" => {
                let table: Vec<char> = WINDOWS_1252.chars().collect();
                let char = |byte: u8| match byte {
                    0x80..=0x9f => table[usize::from(byte - 0x80)],
                    _ => char::from(byte),
                };
                bytes.iter().copied().map(char).collect()
            }
            other => {
                return Err(format!(
                    "Error on line 1 of document  : this agent reads no reports in the encoding \"{other}\", but UTF-8, \
                     UTF-16, ISO-8859-1 and windows-1252"
                ));
            }
        },
    };
    Ok(if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text })
}

fn utf8(mut bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count();
        format!("Error on line {line} of document  : Invalid UTF-8 sequence.")
    })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, String> {
    let pairs = bytes.chunks_exact(2);
    let is_odd = !pairs.remainder().is_empty();
    let units = pairs.map(|pair| unit([pair[0], pair[1]]));
    let text: Result<String, _> = char::decode_utf16(units).collect();
    text.ok().filter(|_| !is_odd).ok_or_else(|| "Error in document  : Invalid UTF-16 sequence.".to_owned())
}

/// The encoding that an XML declaration names.
fn declared_encoding(bytes: &[u8]) -> Cow<'_, str> {
    let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let utf8 = Cow::Borrowed("utf-8");
    if !start.starts_with(b"<?xml") {
        return utf8;
    }
    let declaration = start.split(|byte| *byte == b'>').next().unwrap_or_default();
    let declaration = String::from_utf8_lossy(&declaration[..declaration.len().min(200)]);
    let Some((_, after)) = declaration.split_once("encoding") else { return utf8 };
    let value = after.trim_start().strip_prefix('=').map(str::trim_start).unwrap_or_default();
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => match value[1..].split_once(quote) {
            Some((name, _)) => Cow::Owned(name.to_owned()),
            None => utf8,
        },
        _ => utf8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the first `failure` of the root's first test case says: message and text.
    fn failure(bytes: impl Into<Vec<u8>>) -> (String, String) {
        let root = parse(bytes.into()).unwrap();
        let failure = root.child("testcase").unwrap().child("failure").unwrap();
        (failure.attribute("message").unwrap_or_default().to_owned(), failure.text().to_owned())
    }

    fn report(message: &str, text: &str) -> String {
        format!("<testsuite><testcase><failure message=\"{message}\">{text}</failure></testcase></testsuite>")
    }

    #[test]
    fn text_and_attributes_are_normalized_and_resolved() {
        for (message, text, expected) in [
            ("a", "b", ("a", "b")),
            ("&lt;&quot;&apos;&gt;&amp;", "&lt;a&gt;&amp;&#65;&#x1F600;", ("<\"'>&", "<a>&A\u{1f600}")),
            ("a\nb\tc\r\nd", "a\r\nb\rc\n", ("a b c d", "a\nb\nc\n")),
            ("a&#10;b&#9;c&#13;", "&#13;\n", ("a\nb\tc\r", "\r\n")),
            ("é", "x<![CDATA[<y>&amp;]]>z", ("é", "x<y>&amp;z")),
            ("", "a<!-- c --> b<?pi?> c<other>d<failure>e</failure></other>", ("", "a b c")),
        ] {
            assert_eq!(failure(report(message, text)), (expected.0.into(), expected.1.into()));
        }
    }

    #[test]
    fn names_are_local_and_a_document_type_is_skipped() {
        let text = "<!DOCTYPE testsuite SYSTEM \"http://127.0.0.1:1/x.dtd\" [<!ENTITY e \"f\">]>\
                    <j:testsuite xmlns:j='u'><j:testcase><j:failure j:message='m'>t</j:failure></j:testcase></j:testsuite>";
        assert_eq!(failure(text), ("m".into(), "t".into()));
    }

    #[test]
    fn encodings() {
        let body = report("é", "ü€");
        let utf16 = |unit: fn(u16) -> [u8; 2], mark: &str| -> Vec<u8> {
            format!("{mark}{body}").encode_utf16().flat_map(unit).collect()
        };
        let latin = |text: &str| -> Vec<u8> { text.chars().map(|c| c as u8).collect() };
        let head = |name: &str| format!("<?xml version=\"1.0\" encoding = '{name}'?>");
        let cp1252 = latin(&(head("Windows-1252") + &body.replace('€', "\u{80}")));
        for bytes in [
            body.clone().into_bytes(),
            format!("\u{feff}{}{body}", head("utf-8")).into_bytes(),
            utf16(u16::to_be_bytes, "\u{feff}"),
            utf16(u16::to_le_bytes, "\u{feff}"),
            utf16(u16::to_le_bytes, ""),
            utf16(u16::to_be_bytes, ""),
            cp1252,
        ] {
            assert_eq!(failure(bytes), ("é".into(), "ü€".into()));
        }
        assert_eq!(failure(latin(&(head("ISO-8859-1") + &report("é", "ü")))), ("é".into(), "ü".into()));
    }

    #[test]
    fn what_is_not_well_formed_is_told_with_its_line() {
        let deep = "<testsuite>".repeat(100_000);
        let cases: &[(&[u8], &str)] = &[
            (b" ", "line 1 of document  : Premature end of file."),
            (b"text", "line 1 of document  : Content is not allowed outside"),
            (b"<a>\n<b>\n</a>", "line 3 of document  : The element type \"b\" must be terminated"),
            (b"<a>\n<b>\n", "line 3 of document  : XML document structures must start and end"),
            (b"<a/>\n<b/>", "line 2 of document  : The markup in the document following the root element"),
            (b"<a/>\nx", "line 2 of document  : Content is not allowed outside"),
            (b"<a>\n\x1b</a>", "line 2 of document  : An invalid XML character (Unicode: 0x1b)"),
            (b"<a>\n&#27;</a>", "line 2 of document  : An invalid XML character (Unicode: 0x1b)"),
            (b"<a b='&#0;'/>", "line 1"),
            (b"<a b='1' b='2'/>", "line 1"),
            (b"<a b=1/>", "line 1"),
            (b"<a>&e;</a>", "The entity \"e\" was referenced, but not declared."),
            (b"<a>\n\xff</a>", "line 2 of document  : Invalid UTF-8"),
            (b"\xff\xfe<", "Invalid UTF-16"),
            (b"<?xml version='1.0' encoding='EBCDIC'?><a/>", "no reports in the encoding \"ebcdic\""),
            (deep.as_bytes(), "more than 256 elements"),
        ];
        for (bytes, expected) in cases {
            let error = parse(bytes.to_vec()).unwrap_err();
            assert!(error.contains(expected), "{error} for {}", bytes[..bytes.len().min(60)].escape_ascii());
        }
        assert!(parse(b"<?xml version='1.1'?><a>&#27;</a>".to_vec()).is_ok());
    }
}
