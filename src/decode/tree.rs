//! The tree printer. What is still to be printed is a stack of tasks that expand as they are reached, so that its
//! depth is that of the graph and its size not that of an array.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use super::{MAX_STREAMS, Options, decode_embedded, escape, hex, references};
use crate::object::{Content, Graph, Node, NodeId, Value, View};

const MAX_STRING: usize = 120;
const MAX_HEX: usize = 32;
const MAX_ELEMENTS: usize = 64;
/// Levels that are indented in full: else the output of a deep graph grows with the square of its depth.
const MAX_INDENT: usize = 32;
/// Strings up to this many bytes are repeated where they are shared; longer ones are referred to.
const SHORT_STRING: usize = 64;

/// A stream, at the top level or within a byte array.
struct Level {
    graph: Graph,
    references: Vec<u8>,
    printed: RefCell<Vec<bool>>,
    /// What distinguishes its numbers from those of the stream around it.
    prefix: String,
    streams: usize,
}

enum Task {
    /// Top-level items from this index on.
    Contents(usize),
    /// Parts of an object from this index on.
    Parts(NodeId, usize),
    /// Field values of a part from this index on.
    Fields(NodeId, usize, usize),
    /// Annotation items of a part.
    Annotation(NodeId, usize, usize),
    /// Annotation items of a class, then its superclass.
    Class(NodeId, usize),
    Elements(NodeId, usize),
    /// A value alone on its line.
    Value(Option<NodeId>),
    /// A class's descriptor if it was not shown yet.
    Describe(NodeId),
}

pub(super) fn print(graph: Graph, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let mut printer = Printer { options, out, tasks: Vec::new() };
    printer.enter(graph, String::new(), 0, 1);
    while let Some((level, depth, task)) = printer.tasks.pop() {
        printer.step(&level, depth, task)?;
    }
    Ok(())
}

struct Printer<'a> {
    options: &'a Options,
    out: &'a mut dyn Write,
    tasks: Vec<(Rc<Level>, usize, Task)>,
}

impl Printer<'_> {
    fn enter(&mut self, graph: Graph, prefix: String, streams: usize, depth: usize) {
        let references = references(&graph);
        let printed = RefCell::new(vec![false; graph.nodes().len()]);
        let level = Rc::new(Level { graph, references, printed, prefix, streams });
        self.tasks.push((level, depth, Task::Contents(0)));
    }

    fn limit(&self, short: usize) -> usize {
        if self.options.full { usize::MAX } else { short }
    }

    /// Pushes what comes next before what this line expands to.
    fn then(&mut self, level: &Rc<Level>, depth: usize, task: Task) {
        self.tasks.push((Rc::clone(level), depth, task));
    }

    fn line(&mut self, depth: usize, text: &str) -> io::Result<()> {
        let indented = depth.min(MAX_INDENT);
        write!(self.out, "{:width$}", "", width = indented * 2)?;
        if depth > indented {
            write!(self.out, "+{} ", depth - indented)?;
        }
        writeln!(self.out, "{text}")
    }

    fn step(&mut self, level: &Rc<Level>, depth: usize, task: Task) -> io::Result<()> {
        let graph = &level.graph;
        match task {
            Task::Contents(next) => {
                let Some(content) = graph.contents().get(next) else { return Ok(()) };
                self.then(level, depth, Task::Contents(next + 1));
                self.content(level, depth, "", content)
            }
            Task::Value(id) => self.reference(level, depth, "", id),
            Task::Describe(desc) => self.describe(level, depth, desc),
            Task::Parts(object, next) => self.part(level, depth, object, next),
            Task::Fields(object, part, next) => {
                let Node::Object(node) = graph.view(object).node() else { return Ok(()) };
                let Some(part_) = graph.parts(node).get(part) else { return Ok(()) };
                let (Some(class), Some(value)) = (graph.class(part_.desc), graph.values(part_).get(next)) else {
                    return Ok(());
                };
                self.then(level, depth, Task::Fields(object, part, next + 1));
                let name = class.fields.get(next).map_or_else(|| "?".into(), |field| graph.text(&field.name));
                let label = format!("{}: ", escape(&name));
                self.value(level, depth, &label, *value)
            }
            Task::Annotation(object, part, next) => {
                let Node::Object(node) = graph.view(object).node() else { return Ok(()) };
                let Some(part_) = graph.parts(node).get(part) else { return Ok(()) };
                let Some(content) = graph.annotation(part_).get(next) else { return Ok(()) };
                self.then(level, depth, Task::Annotation(object, part, next + 1));
                self.content(level, depth, "- ", content)
            }
            Task::Class(desc, next) => {
                let (annotation, super_desc) = match graph.view(desc).node() {
                    Node::ClassDesc(class) => (&class.annotation, class.super_desc),
                    Node::ProxyDesc(proxy) => (&proxy.annotation, proxy.super_desc),
                    _ => return Ok(()),
                };
                match (annotation.get(next), super_desc) {
                    (Some(content), _) => {
                        self.then(level, depth, Task::Class(desc, next + 1));
                        self.content(level, depth, "annotated ", content)
                    }
                    (None, Some(id)) => self.describe(level, depth, id),
                    (None, None) => Ok(()),
                }
            }
            Task::Elements(array, next) => {
                let elements = graph.array_values(array);
                let Some(value) = elements.get(next) else { return Ok(()) };
                if next >= self.limit(MAX_ELEMENTS) {
                    return self.line(depth, &format!("\u{2026} {} more", elements.len() - next));
                }
                self.then(level, depth, Task::Elements(array, next + 1));
                self.value(level, depth, &format!("[{next}] "), *value)
            }
        }
    }

    fn content(&mut self, level: &Rc<Level>, depth: usize, label: &str, content: &Content) -> io::Result<()> {
        match content {
            Content::Block { data, .. } => {
                let line = format!("{label}{}", self.bytes("data", level.graph.bytes(data)));
                self.line(depth, &line)
            }
            Content::Object(id) => self.reference(level, depth, label, *id),
            Content::Reset => self.line(depth, "reset"),
        }
    }

    fn bytes(&self, what: &str, bytes: &[u8]) -> String {
        let shown = &bytes[..bytes.len().min(self.limit(MAX_HEX))];
        let more = if shown.len() < bytes.len() { "\u{2026}" } else { "" };
        let text: String = shown.iter().map(|b| if (0x20..0x7f).contains(b) { char::from(*b) } else { '.' }).collect();
        let readable = !text.is_empty() && text.bytes().filter(|b| *b != b'.').count() * 4 >= text.len() * 3;
        let text = if readable { format!(" |{text}|") } else { String::new() };
        format!("{what} {} bytes {}{more}{text}", bytes.len(), hex(shown)).trim_end().to_owned()
    }

    fn value(&mut self, level: &Rc<Level>, depth: usize, label: &str, value: Value) -> io::Result<()> {
        match value {
            Value::Ref(id) => self.reference(level, depth, label, id),
            value => self.line(depth, &format!("{label}{}", primitive(value))),
        }
    }

    fn string(&self, text: &str) -> String {
        match text.char_indices().nth(self.limit(MAX_STRING)) {
            Some((at, _)) => format!("\"{}\u{2026}\" ({} characters)", escape(&text[..at]), text.chars().count()),
            None => format!("\"{}\"", escape(text)),
        }
    }

    fn reference(&mut self, level: &Rc<Level>, depth: usize, label: &str, id: Option<NodeId>) -> io::Result<()> {
        let Some(id) = id else { return self.line(depth, &format!("{label}null")) };
        let graph = &level.graph;
        let view = graph.view(id);
        if let Node::String { data, .. } = view.node()
            && graph.bytes(data).len() <= SHORT_STRING
        {
            return self.line(depth, &format!("{label}{}", self.string(&graph.text(data))));
        }
        let number = format!("#{}{}", level.prefix, id.index());
        if std::mem::replace(&mut level.printed.borrow_mut()[id.index()], true) {
            return self.line(depth, &format!("{label}\u{2192} {number}"));
        }
        let number = if level.references[id.index()] > 1 { format!(" {number}") } else { String::new() };
        let class = escape(&view.class_name());
        match view.node() {
            Node::String { data, .. } => {
                let text = self.string(&graph.text(data));
                self.line(depth, &format!("{label}{text}{number}"))
            }
            Node::ClassDesc(_) | Node::ProxyDesc(_) => {
                let class = escape(&graph.class_name(id));
                self.line(depth, &format!("{label}descriptor of {class}{number}"))
            }
            Node::Class(desc) => {
                let class = desc.map_or_else(|| "null".into(), |desc| graph.class_name(desc));
                self.line(depth, &format!("{label}class {}{number}", escape(&class)))?;
                self.describe_if_wanted(level, depth + 1, *desc);
                Ok(())
            }
            Node::Enum { desc, constant } => {
                let constant = match graph.view(*constant).node() {
                    Node::String { data, .. } => self.string(&graph.text(data)),
                    _ => "?".to_owned(),
                };
                self.line(depth, &format!("{label}{class} {}{number}", constant.trim_matches('"')))?;
                self.describe_if_wanted(level, depth + 1, Some(*desc));
                Ok(())
            }
            Node::Aborted(exception) => {
                self.line(depth, &format!("{label}writing was aborted here by{number}"))?;
                self.then(level, depth + 1, Task::Value(Some(*exception)));
                Ok(())
            }
            Node::Primitives { .. } => self.primitives(level, depth, label, view, &number),
            Node::Array { desc, .. } => {
                let elements = graph.array_values(id);
                let name = array_name(&class, elements.len());
                if class == "[Ljava.lang.StackTraceElement;" && !self.options.full {
                    let top = elements.first().map_or_else(String::new, |value| frame(graph, *value));
                    return self.line(depth, &format!("{label}{name}{number}{top}"));
                }
                self.line(depth, &format!("{label}{name}{number}"))?;
                self.then(level, depth + 1, Task::Elements(id, 0));
                self.describe_if_wanted(level, depth + 1, Some(*desc));
                Ok(())
            }
            Node::Object(object) => {
                if let Some(value) = view.unboxed() {
                    self.line(depth, &format!("{label}{class} {}{number}", primitive(value)))?;
                } else {
                    self.line(depth, &format!("{label}{class}{number}"))?;
                    self.then(level, depth + 1, Task::Parts(id, 0));
                }
                self.describe_if_wanted(level, depth + 1, Some(object.desc));
                Ok(())
            }
        }
    }

    fn primitives(
        &mut self,
        level: &Rc<Level>,
        depth: usize,
        label: &str,
        view: View<'_>,
        number: &str,
    ) -> io::Result<()> {
        let graph = &level.graph;
        let Node::Primitives { desc, length, data } = view.node() else { return Ok(()) };
        let class = view.class_name();
        let bytes = graph.bytes(data);
        let name = array_name(&escape(&class), *length as usize);
        if level.streams < MAX_STREAMS
            && let Some(stream) = decode_embedded(graph, view.node())
        {
            match stream {
                Ok(inner) => {
                    self.line(depth, &format!("{label}{name}{number}, an object stream"))?;
                    let prefix = format!("{}{}.", level.prefix, view.id().index());
                    self.enter(inner, prefix, level.streams + 1, depth + 1);
                }
                Err(error) => self.line(depth, &format!("{label}{name}{number}, a damaged stream: {error}"))?,
            }
        } else if class == "[B" {
            self.line(depth, &self.bytes(&format!("{label}byte[]{number}"), bytes))?;
        } else {
            let shown = view.primitives().take(self.limit(MAX_ELEMENTS)).map(primitive);
            let more = if *length as usize > self.limit(MAX_ELEMENTS) { ", \u{2026}" } else { "" };
            let text = shown.collect::<Vec<_>>().join(", ");
            self.line(depth, &format!("{label}{name}{number} {text}{more}"))?;
        }
        self.describe_if_wanted(level, depth + 1, Some(*desc));
        Ok(())
    }

    /// One class's part of an object. Where the class is the only one that contributes, its name isn't repeated.
    fn part(&mut self, level: &Rc<Level>, depth: usize, object: NodeId, next: usize) -> io::Result<()> {
        let graph = &level.graph;
        let Node::Object(node) = graph.view(object).node() else { return Ok(()) };
        let parts = graph.parts(node);
        let Some(part) = parts.get(next) else { return Ok(()) };
        self.then(level, depth, Task::Parts(object, next + 1));
        let mut inner = depth;
        if parts.len() > 1 || part.desc != node.desc {
            self.line(depth, &format!("in {}", escape(&graph.class_name(part.desc))))?;
            inner += 1;
        }
        let declared = graph.class(part.desc).map_or(0, |class| class.fields.len());
        if declared > graph.values(part).len() {
            self.line(inner, "(its writeObject leaves the fields out)")?;
        }
        self.then(level, inner, Task::Annotation(object, next, 0));
        self.then(level, inner, Task::Fields(object, next, 0));
        Ok(())
    }

    fn describe_if_wanted(&mut self, level: &Rc<Level>, depth: usize, desc: Option<NodeId>) {
        if let Some(desc) = desc.filter(|_| self.options.annotations) {
            self.then(level, depth, Task::Describe(desc));
        }
    }

    fn describe(&mut self, level: &Rc<Level>, depth: usize, desc: NodeId) -> io::Result<()> {
        if std::mem::replace(&mut level.printed.borrow_mut()[desc.index()], true) {
            return Ok(());
        }
        let graph = &level.graph;
        let name = escape(&graph.class_name(desc));
        let line = match graph.class(desc) {
            Some(class) => format!("class {name}, serialVersionUID {}, flags 0x{:02x}", class.uid, class.flags),
            None => format!("class {name}"),
        };
        self.line(depth, &line)?;
        self.then(level, depth + 1, Task::Class(desc, 0));
        Ok(())
    }
}

fn primitive(value: Value) -> String {
    match value {
        Value::Byte(v) => v.to_string(),
        Value::Char(v) => match char::from_u32(u32::from(v)) {
            Some(c) => format!("'{}'", escape(&c.to_string())),
            None => format!("'\\u{{{v:x}}}'"),
        },
        Value::Double(v) => format!("{v:?}"),
        Value::Float(v) => format!("{v:?}"),
        Value::Int(v) => v.to_string(),
        Value::Long(v) => v.to_string(),
        Value::Short(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        Value::Ref(_) => "?".to_owned(),
    }
}

/// `java.lang.String[3]` for `[Ljava.lang.String;`.
fn array_name(class: &str, length: usize) -> String {
    let element = class.trim_start_matches('[');
    let dimensions = class.len() - element.len();
    let element = match element {
        "B" => "byte",
        "C" => "char",
        "D" => "double",
        "F" => "float",
        "I" => "int",
        "J" => "long",
        "S" => "short",
        "Z" => "boolean",
        other => other.strip_prefix('L').map_or(other, |name| name.trim_end_matches(';')),
    };
    format!("{element}[{length}]{}", "[]".repeat(dimensions.saturating_sub(1).min(255)))
}

/// The innermost frame of a stack trace.
fn frame(graph: &Graph, value: Value) -> String {
    let Value::Ref(Some(id)) = value else { return String::new() };
    let view = graph.view(id);
    let text = |name| view.string(name).ok().flatten().unwrap_or_default();
    let at = format!("{}.{}", text("declaringClass"), text("methodName"));
    let line = view.int("lineNumber").unwrap_or_default();
    format!(" from {} ({}:{line})", escape(&at), escape(&text("fileName")))
}
