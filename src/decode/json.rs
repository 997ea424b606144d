//! The JSON printer: a flat list of nodes per stream, so that neither it nor its readers nest with the input.

use std::io::{self, Write};

use super::session::{Direction, Record};
use super::{MAX_STREAMS, Options, decode_embedded, hex, references};
use crate::object::{Content, Graph, Node, NodeId, Value, View};

/// Strings up to this many bytes stand wherever they are referred to.
const SHORT_STRING: usize = 64;

pub(super) fn print(
    path: &str,
    record: &Record,
    graph: Result<&Graph, &String>,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<()> {
    write!(out, "{{\"file\":{}", quoted(path))?;
    match record.place {
        Some((number, direction)) => {
            let direction = if direction == Direction::ToAgent { "agent" } else { "controller" };
            write!(out, ",\"record\":{number},\"direction\":\"{direction}\"")?;
        }
        None => write!(out, ",\"record\":null,\"direction\":null")?,
    }
    write!(out, ",\"bytes\":{},", record.bytes.len())?;
    match graph {
        Ok(graph) => Printer::new(graph, options, out).stream(0)?,
        Err(problem) => write!(out, "\"error\":{}", quoted(problem))?,
    }
    writeln!(out, "}}")
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

struct Printer<'a> {
    graph: &'a Graph,
    references: Vec<u8>,
    options: &'a Options,
    out: &'a mut dyn Write,
}

impl<'a> Printer<'a> {
    fn new(graph: &'a Graph, options: &'a Options, out: &'a mut dyn Write) -> Self {
        Printer { graph, references: references(graph), options, out }
    }

    /// The contents and nodes of a stream, which is this deep within others (at most [`MAX_STREAMS`]).
    fn stream(&mut self, streams: usize) -> io::Result<()> {
        let graph = self.graph;
        write!(self.out, "\"contents\":")?;
        self.contents(graph.contents())?;
        write!(self.out, ",\"nodes\":[")?;
        let mut first = true;
        for index in 0..graph.nodes().len() {
            let Some(id) = graph.id_at(index) else { continue };
            if self.in_place(id)
                || matches!(graph.view(id).node(), Node::ClassDesc(_) | Node::ProxyDesc(_))
                    && !self.shows_descriptor(id)
            {
                continue;
            }
            write!(self.out, "{}{{\"id\":{index},", if first { "" } else { "," })?;
            first = false;
            self.node(graph.view(id), streams)?;
            write!(self.out, "}}")?;
        }
        write!(self.out, "]")
    }

    /// Whether a node stands where it is referred to, and not in the list: strings that aren't long and shared.
    fn in_place(&self, id: NodeId) -> bool {
        match self.graph.view(id).node() {
            Node::String { data, .. } => {
                self.graph.bytes(data).len() <= SHORT_STRING || self.references[id.index()] < 2
            }
            _ => false,
        }
    }

    fn shows_descriptor(&self, id: NodeId) -> bool {
        self.options.annotations || self.references[id.index()] > 0
    }

    fn node(&mut self, view: View<'_>, streams: usize) -> io::Result<()> {
        let graph = self.graph;
        let class = quoted(&view.class_name());
        match view.node() {
            Node::String { data, .. } => write!(self.out, "\"string\":{}", quoted(&graph.text(data))),
            Node::ClassDesc(desc) => {
                write!(self.out, "\"descriptor\":{}", quoted(&graph.class_name(view.id())))?;
                write!(self.out, ",\"uid\":{},\"flags\":{},\"annotation\":", desc.uid, desc.flags)?;
                self.contents(&desc.annotation)?;
                self.superclass(desc.super_desc)
            }
            Node::ProxyDesc(desc) => {
                let name = quoted(&graph.class_name(view.id()));
                write!(self.out, "\"descriptor\":{name},\"annotation\":")?;
                self.contents(&desc.annotation)?;
                self.superclass(desc.super_desc)
            }
            Node::Class(desc) => {
                let name = desc.map_or_else(|| "null".to_owned(), |desc| quoted(&graph.class_name(desc)));
                write!(self.out, "\"classObject\":{name}")
            }
            Node::Enum { constant, .. } => {
                write!(self.out, "\"enum\":{class},\"constant\":")?;
                self.value(Value::Ref(Some(*constant)))
            }
            Node::Aborted(exception) => {
                write!(self.out, "\"aborted\":")?;
                self.value(Value::Ref(Some(*exception)))
            }
            Node::Array { .. } => {
                write!(self.out, "\"array\":{class},\"elements\":")?;
                self.list(graph.array_values(view.id()).iter().copied())
            }
            Node::Primitives { data, .. } if view.is("[B") => {
                write!(self.out, "\"array\":{class},\"hex\":\"{}\"", hex(graph.bytes(data)))?;
                if streams < MAX_STREAMS
                    && let Some(Ok(inner)) = decode_embedded(graph, view.node())
                {
                    write!(self.out, ",\"stream\":{{")?;
                    Printer::new(&inner, self.options, self.out).stream(streams + 1)?;
                    write!(self.out, "}}")?;
                }
                Ok(())
            }
            Node::Primitives { .. } => {
                write!(self.out, "\"array\":{class},\"elements\":")?;
                self.list(view.primitives())
            }
            Node::Object(object) => {
                write!(self.out, "\"class\":{class},\"parts\":[")?;
                for (index, part) in graph.parts(object).iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    let name = quoted(&graph.class_name(part.desc));
                    write!(self.out, "{comma}{{\"class\":{name},\"fields\":[")?;
                    let fields = graph.class(part.desc).map_or(&[][..], |class| &class.fields);
                    for (index, (field, value)) in fields.iter().zip(graph.values(part)).enumerate() {
                        let comma = if index == 0 { "" } else { "," };
                        write!(self.out, "{comma}{{\"name\":{},\"value\":", quoted(&graph.text(&field.name)))?;
                        self.value(*value)?;
                        write!(self.out, "}}")?;
                    }
                    write!(self.out, "],\"data\":")?;
                    self.contents(graph.annotation(part))?;
                    write!(self.out, "}}")?;
                }
                write!(self.out, "]")
            }
        }
    }

    fn superclass(&mut self, desc: Option<NodeId>) -> io::Result<()> {
        write!(self.out, ",\"super\":")?;
        match desc {
            Some(id) => write!(self.out, "{{\"ref\":{}}}", id.index()),
            None => write!(self.out, "null"),
        }
    }

    fn contents(&mut self, contents: &[Content]) -> io::Result<()> {
        for (index, content) in contents.iter().enumerate() {
            write!(self.out, "{}", if index == 0 { "[" } else { "," })?;
            match content {
                Content::Block { data, .. } => write!(self.out, "{{\"block\":\"{}\"}}", hex(self.graph.bytes(data)))?,
                Content::Reset => write!(self.out, "{{\"reset\":true}}")?,
                Content::Object(id) => self.value(Value::Ref(*id))?,
            }
        }
        write!(self.out, "{}", if contents.is_empty() { "[]" } else { "]" })
    }

    fn list(&mut self, values: impl Iterator<Item = Value>) -> io::Result<()> {
        write!(self.out, "[")?;
        for (index, value) in values.enumerate() {
            if index > 0 {
                write!(self.out, ",")?;
            }
            self.value(value)?;
        }
        write!(self.out, "]")
    }

    fn value(&mut self, value: Value) -> io::Result<()> {
        let float = |v: f64, text: String| match v {
            v if v.is_nan() => "\"NaN\"".to_owned(),
            v if v.is_infinite() => format!("\"{}Infinity\"", if v < 0.0 { "-" } else { "" }),
            _ => text,
        };
        match value {
            Value::Byte(v) => write!(self.out, "{v}"),
            Value::Short(v) => write!(self.out, "{v}"),
            Value::Int(v) => write!(self.out, "{v}"),
            Value::Long(v) => write!(self.out, "{v}"),
            Value::Bool(v) => write!(self.out, "{v}"),
            Value::Char(v) => write!(self.out, "{{\"char\":{v}}}"),
            Value::Double(v) => write!(self.out, "{}", float(v, format!("{v:?}"))),
            Value::Float(v) => write!(self.out, "{}", float(f64::from(v), format!("{v:?}"))),
            Value::Ref(None) => write!(self.out, "null"),
            Value::Ref(Some(id)) => match self.graph.view(id).node() {
                Node::String { data, .. } if self.in_place(id) => {
                    write!(self.out, "{}", quoted(&self.graph.text(data)))
                }
                _ => write!(self.out, "{{\"ref\":{}}}", id.index()),
            },
        }
    }
}
