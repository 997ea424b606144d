//! Bytes to [`Graph`].

use bytes::Bytes;

use super::error::{DecodeError, Fault};
use super::graph::{ClassDesc, Content, Data, Field, Graph, Node, NodeId, Object, Part, ProxyDesc, Value};
use super::{sc, tc};

/// Magic and version with which every object stream begins.
pub const STREAM_HEADER: [u8; 4] = [0xac, 0xed, 0x00, 0x05];

/// What a stream may be. The defaults are far above what a controller sends and far below what hurts.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Nesting of objects within objects.
    pub depth: usize,
    /// Number of nodes (objects, strings, arrays, class descriptors).
    pub nodes: usize,
    /// Size of the stream in bytes.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { depth: 2_000, nodes: 8_000_000, bytes: 1 << 30 }
    }
}

/// Longest chain of superclasses.
const MAX_HIERARCHY: usize = 64;

impl Graph {
    /// Decodes a whole stream, to its end.
    ///
    /// # Errors
    /// Where and why the stream is not one, or exceeds `limits`.
    pub fn decode(input: Bytes, limits: &Limits) -> Result<Graph, DecodeError> {
        if input.len() > limits.bytes.min(u32::MAX as usize) {
            return Err(DecodeError { offset: 0, fault: Fault::Limit { what: "bytes", limit: limits.bytes } });
        }
        let mut reader = Reader {
            graph: Graph { input, ..Graph::default() },
            at: 0,
            handles: Vec::new(),
            stack: Vec::new(),
            owed: 0,
            limits,
        };
        match reader.run() {
            Ok(()) => Ok(reader.graph),
            Err(fault) => Err(DecodeError { offset: reader.at, fault }),
        }
    }
}

/// What is being read, innermost last. A frame is resumed with the node that the frame above it produced.
enum Frame {
    /// The rest of a class descriptor: annotation, then superclass.
    Desc { desc: NodeId, step: DescStep, annotation: Vec<Content> },
    /// A new object, array, enum constant or class object: waiting for its class, unless that is known.
    Header { code: u8, desc: Option<Option<NodeId>> },
    /// Elements of an array of references.
    Elements { array: NodeId, next: u32, end: u32 },
    /// The parts of an object.
    Parts { object: NodeId, part: u32, end: u32, step: PartStep, annotation: Vec<Content> },
    /// The exception of a `TC_EXCEPTION`.
    Exception,
}

#[derive(Clone, Copy, PartialEq)]
enum DescStep {
    Annotation,
    Super,
}

#[derive(Clone, Copy)]
enum PartStep {
    /// Nothing of this part has been read.
    Begin,
    /// The class's declared fields from this index on.
    Fields(u32),
    /// Annotation items up to the end mark.
    Annotation,
}

/// What begins at a type code.
enum Begun {
    /// It is complete.
    Done(Option<NodeId>),
    /// A frame was pushed that will produce it.
    Pushed,
}

struct Reader<'l> {
    graph: Graph,
    at: usize,
    handles: Vec<NodeId>,
    stack: Vec<Frame>,
    /// Bytes that the items in progress need at least: never more than what is left of the input.
    owed: usize,
    limits: &'l Limits,
}

type Step<T> = Result<T, Fault>;

impl Reader<'_> {
    fn run(&mut self) -> Step<()> {
        if self.take(4).map_err(|_| Fault::Header)? != STREAM_HEADER {
            return Err(Fault::Header);
        }
        while self.at < self.graph.input.len() {
            if self.peek()? == tc::RESET {
                self.at += 1;
                self.handles.clear();
                self.graph.contents.push(Content::Reset);
                continue;
            }
            let content = match self.block()? {
                Some(block) => block,
                None => match self.begin("an object or block data")? {
                    Begun::Done(node) => Content::Object(node),
                    Begun::Pushed => Content::Object(Some(self.drain()?)),
                },
            };
            self.graph.contents.push(content);
        }
        Ok(())
    }

    /// Runs the frames until the bottom one has produced its node.
    fn drain(&mut self) -> Step<NodeId> {
        let mut produced: Option<Option<NodeId>> = None;
        loop {
            let Some(frame) = self.stack.pop() else {
                // Only frames that produce a node are pushed at the bottom.
                return produced.flatten().ok_or(Fault::Incomplete);
            };
            produced = match frame {
                Frame::Desc { desc, step, annotation } => self.desc(desc, step, annotation, produced)?,
                Frame::Header { code, desc } => self.header(code, desc.or(produced).flatten())?,
                Frame::Elements { array, next, end } => self.elements(array, next, end, produced)?,
                Frame::Parts { object, part, end, step, annotation } => {
                    self.parts(object, part, end, step, annotation, produced)?
                }
                Frame::Exception => return self.abort(produced.flatten().ok_or(Fault::Incomplete)?),
            };
        }
    }

    /// Ends all that is in progress, innermost first, with this exception: as `ObjectOutputStream.writeFatalException`
    /// does, which leaves the object at the top level unfinished. Returns that one.
    fn abort(&mut self, exception: NodeId) -> Step<NodeId> {
        self.handles.clear();
        self.owed = 0;
        let mut produced = self.graph.push(Node::Aborted(exception));
        while let Some(frame) = self.stack.pop() {
            produced = match frame {
                Frame::Desc { desc, step: DescStep::Super, annotation } => {
                    self.finish_desc(desc, annotation, Some(produced))?;
                    desc
                }
                Frame::Desc { desc, step: DescStep::Annotation, mut annotation } => {
                    annotation.push(Content::Object(Some(produced)));
                    self.finish_desc(desc, annotation, None)?;
                    desc
                }
                // What was aborted is its class's descriptor.
                Frame::Header { code, .. } => self.graph.push(match code {
                    tc::CLASS => Node::Class(Some(produced)),
                    tc::ENUM => Node::Enum { desc: produced, constant: produced },
                    tc::ARRAY => Node::Array { desc: produced, elements: (0, 0) },
                    _ => Node::Object(Object { desc: produced, parts: (0, 0) }),
                }),
                Frame::Elements { array, next, .. } => {
                    self.graph.values[next as usize] = Value::Ref(Some(produced));
                    array
                }
                Frame::Parts { object, part, step: PartStep::Fields(field), .. } => {
                    let (first, _) = self.graph.parts[part as usize].values;
                    self.graph.values[(first + field) as usize] = Value::Ref(Some(produced));
                    object
                }
                Frame::Parts { object, part, mut annotation, .. } => {
                    annotation.push(Content::Object(Some(produced)));
                    let from = self.graph.annotations.len() as u32;
                    self.graph.parts[part as usize].annotation = (from, annotation.len() as u32);
                    self.graph.annotations.append(&mut annotation);
                    object
                }
                Frame::Exception => self.graph.push(Node::Aborted(produced)),
            };
        }
        Ok(produced)
    }

    // ---- primitives -------------------------------------------------------------------------------------------

    fn left(&self) -> usize {
        self.graph.input.len() - self.at
    }

    fn need(&self, bytes: u64) -> Step<()> {
        let left = (self.left() - self.owed.min(self.left())) as u64;
        if bytes > left { Err(Fault::Truncated(bytes - left)) } else { Ok(()) }
    }

    /// Marks `count` items of at least one byte each as announced.
    fn owe(&mut self, count: usize) -> Step<()> {
        self.need(count as u64)?;
        self.owed += count;
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Step<&[u8]> {
        let missing = bytes.saturating_sub(self.left());
        if missing > 0 {
            return Err(Fault::Truncated(missing as u64));
        }
        let from = self.at;
        self.at += bytes;
        Ok(&self.graph.input[from..self.at])
    }

    fn peek(&self) -> Step<u8> {
        self.graph.input.get(self.at).copied().ok_or(Fault::Truncated(1))
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u8(&mut self) -> Step<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Step<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Step<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn length(&mut self) -> Step<usize> {
        let length = self.i32()?;
        usize::try_from(length).map_err(|_| Fault::Negative(length))
    }

    fn data(&mut self, length: u64) -> Step<Data> {
        self.need(length)?;
        let from = self.at;
        self.at += length as usize;
        Ok(Data::Input(from as u32, self.at as u32))
    }

    fn utf(&mut self) -> Step<Data> {
        let length = self.u16()?;
        self.data(u64::from(length))
    }

    fn value(&mut self, code: u8) -> Step<Value> {
        Ok(match code {
            b'B' => Value::Byte(i8::from_be_bytes(self.array()?)),
            b'C' => Value::Char(self.u16()?),
            b'D' => Value::Double(f64::from_be_bytes(self.array()?)),
            b'F' => Value::Float(f32::from_be_bytes(self.array()?)),
            b'I' => Value::Int(self.i32()?),
            b'J' => Value::Long(i64::from_be_bytes(self.array()?)),
            b'S' => Value::Short(i16::from_be_bytes(self.array()?)),
            b'Z' => Value::Bool(self.u8()? != 0),
            other => return Err(Fault::FieldType(other)),
        })
    }

    // ---- items ------------------------------------------------------------------------------------------------

    fn node(&mut self, node: Node) -> Step<NodeId> {
        if self.graph.nodes.len() >= self.limits.nodes {
            return Err(Fault::Limit { what: "objects", limit: self.limits.nodes });
        }
        let id = self.graph.push(node);
        self.handles.push(id);
        Ok(id)
    }

    fn push(&mut self, frame: Frame) -> Step<()> {
        if self.stack.len() >= self.limits.depth {
            return Err(Fault::Limit { what: "levels of nesting", limit: self.limits.depth });
        }
        self.stack.push(frame);
        Ok(())
    }

    /// Block data, if that is what comes next.
    fn block(&mut self) -> Step<Option<Content>> {
        let (length, long) = match self.peek()? {
            tc::BLOCKDATA => {
                self.at += 1;
                (usize::from(self.u8()?), false)
            }
            tc::BLOCKDATALONG => {
                self.at += 1;
                (self.length()?, true)
            }
            _ => return Ok(None),
        };
        let data = self.data(length as u64)?;
        Ok(Some(Content::Block { data, long }))
    }

    fn reference(&mut self, expected: &'static str) -> Step<NodeId> {
        let handle = self.i32()? as u32;
        let index = handle.wrapping_sub(tc::BASE_HANDLE) as usize;
        self.handles.get(index).copied().ok_or(Fault::Reference { handle, expected })
    }

    /// Begins whatever object comes next.
    fn begin(&mut self, expected: &'static str) -> Step<Begun> {
        let code = self.u8()?;
        match code {
            tc::NULL => Ok(Begun::Done(None)),
            tc::REFERENCE => Ok(Begun::Done(Some(self.reference("an object")?))),
            tc::STRING | tc::LONGSTRING => Ok(Begun::Done(Some(self.string(code)?))),
            tc::CLASSDESC | tc::PROXYCLASSDESC => {
                self.new_desc(code)?;
                Ok(Begun::Pushed)
            }
            tc::OBJECT | tc::ARRAY | tc::ENUM | tc::CLASS => {
                self.push(Frame::Header { code, desc: None })?;
                if let Begun::Done(desc) = self.class("a class")? {
                    self.stack.pop();
                    // Resumed by `drain` and not from here, so that nesting never becomes recursion.
                    self.push(Frame::Header { code, desc: Some(desc) })?;
                }
                Ok(Begun::Pushed)
            }
            tc::EXCEPTION if self.peek()? == tc::OBJECT => {
                self.handles.clear();
                self.push(Frame::Exception)?;
                self.begin("the exception that ended the stream")
            }
            code => Err(Fault::Unexpected { code, expected }),
        }
    }

    /// Begins a class descriptor: a new one, a reference to one, or null.
    fn class(&mut self, expected: &'static str) -> Step<Begun> {
        let code = self.u8()?;
        match code {
            tc::NULL => Ok(Begun::Done(None)),
            tc::REFERENCE => {
                let id = self.reference(expected)?;
                match self.graph.node(id) {
                    Node::ClassDesc(desc) if desc.complete => Ok(Begun::Done(Some(id))),
                    Node::ProxyDesc(desc) if desc.complete => Ok(Begun::Done(Some(id))),
                    Node::ClassDesc(_) | Node::ProxyDesc(_) => Err(Fault::Incomplete),
                    _ => Err(Fault::Unexpected { code, expected }),
                }
            }
            tc::CLASSDESC | tc::PROXYCLASSDESC => {
                self.new_desc(code)?;
                Ok(Begun::Pushed)
            }
            code => Err(Fault::Unexpected { code, expected }),
        }
    }

    fn string(&mut self, code: u8) -> Step<NodeId> {
        let long = code == tc::LONGSTRING;
        let length = if long { u64::from_be_bytes(self.array()?) } else { u64::from(self.u16()?) };
        let data = self.data(length)?;
        self.node(Node::String { data, long })
    }

    fn new_desc(&mut self, code: u8) -> Step<()> {
        let desc = if code == tc::CLASSDESC {
            let name = self.utf()?;
            let uid = i64::from_be_bytes(self.array()?);
            let desc = ClassDesc {
                name,
                uid,
                flags: 0,
                fields: Vec::new(),
                annotation: Vec::new(),
                super_desc: None,
                complete: false,
            };
            let id = self.node(Node::ClassDesc(Box::new(desc)))?;
            let flags = self.u8()?;
            let fields = self.fields()?;
            if let Node::ClassDesc(desc) = &mut self.graph.nodes[id.index()] {
                desc.flags = flags;
                desc.fields = fields;
            }
            id
        } else {
            let id = self.node(Node::ProxyDesc(Box::new(ProxyDesc {
                interfaces: Vec::new(),
                annotation: Vec::new(),
                super_desc: None,
                complete: false,
            })))?;
            let count = self.length()?;
            self.need(count as u64 * 2)?;
            let mut names = Vec::new();
            for _ in 0..count {
                names.push(self.utf()?);
            }
            if let Node::ProxyDesc(desc) = &mut self.graph.nodes[id.index()] {
                desc.interfaces = names;
            }
            id
        };
        self.push(Frame::Desc { desc, step: DescStep::Annotation, annotation: Vec::new() })
    }

    fn fields(&mut self) -> Step<Vec<Field>> {
        let count = self.u16()?;
        let mut fields = Vec::new();
        for _ in 0..count {
            let code = self.u8()?;
            if !b"BCDFIJSZ[L".contains(&code) {
                return Err(Fault::FieldType(code));
            }
            let name = self.utf()?;
            let signature = match code {
                b'[' | b'L' => Some(self.signature()?),
                _ => None,
            };
            fields.push(Field { code, name, signature });
        }
        Ok(fields)
    }

    fn signature(&mut self) -> Step<NodeId> {
        const EXPECTED: &str = "the string with a field's type";
        match self.u8()? {
            code @ (tc::STRING | tc::LONGSTRING) => self.string(code),
            tc::REFERENCE => {
                let id = self.reference(EXPECTED)?;
                match self.graph.node(id) {
                    Node::String { .. } => Ok(id),
                    _ => Err(Fault::Unexpected { code: tc::REFERENCE, expected: EXPECTED }),
                }
            }
            code => Err(Fault::Unexpected { code, expected: EXPECTED }),
        }
    }

    /// Reads annotation items until the end mark (true), or until an item needs frames of its own (false).
    fn annotation(&mut self, items: &mut Vec<Content>) -> Step<bool> {
        loop {
            if self.peek()? == tc::ENDBLOCKDATA {
                self.at += 1;
                return Ok(true);
            }
            if let Some(block) = self.block()? {
                items.push(block);
                continue;
            }
            // The frame of the item must lie above that of its owner, which is why the owner is pushed by the caller.
            return Ok(false);
        }
    }

    // ---- frames: each returns what it produced, or `None` if it pushed itself and another frame ------------------

    fn desc(
        &mut self,
        id: NodeId,
        step: DescStep,
        mut annotation: Vec<Content>,
        produced: Option<Option<NodeId>>,
    ) -> Step<Option<Option<NodeId>>> {
        if step == DescStep::Super {
            let super_desc = produced.flatten();
            return self.finish_desc(id, annotation, super_desc).map(|()| Some(Some(id)));
        }
        if let Some(node) = produced {
            annotation.push(Content::Object(node));
        }
        while !self.annotation(&mut annotation)? {
            self.push(Frame::Desc { desc: id, step, annotation: std::mem::take(&mut annotation) })?;
            match self.begin("an object, block data or the end of a class annotation")? {
                Begun::Pushed => return Ok(None),
                Begun::Done(node) => {
                    if let Some(Frame::Desc { annotation: items, .. }) = self.stack.pop() {
                        annotation = items;
                    }
                    annotation.push(Content::Object(node));
                }
            }
        }
        self.push(Frame::Desc { desc: id, step: DescStep::Super, annotation })?;
        match self.class("a superclass")? {
            Begun::Pushed => Ok(None),
            Begun::Done(super_desc) => {
                let Some(Frame::Desc { annotation, .. }) = self.stack.pop() else { return Err(Fault::Incomplete) };
                self.finish_desc(id, annotation, super_desc)?;
                Ok(Some(Some(id)))
            }
        }
    }

    fn finish_desc(&mut self, id: NodeId, items: Vec<Content>, superclass: Option<NodeId>) -> Step<()> {
        // A superclass is complete before its subclass is: no chain is cyclic, and its length can be bounded here.
        let length = std::iter::successors(superclass, |id| self.graph.super_of(*id)).take(MAX_HIERARCHY).count();
        if length >= MAX_HIERARCHY {
            return Err(Fault::Hierarchy(MAX_HIERARCHY));
        }
        match &mut self.graph.nodes[id.index()] {
            Node::ClassDesc(desc) => {
                desc.annotation = items;
                desc.super_desc = superclass;
                desc.complete = true;
            }
            Node::ProxyDesc(desc) => {
                desc.annotation = items;
                desc.super_desc = superclass;
                desc.complete = true;
            }
            _ => return Err(Fault::Incomplete),
        }
        Ok(())
    }

    fn header(&mut self, code: u8, desc: Option<NodeId>) -> Step<Option<Option<NodeId>>> {
        if code == tc::CLASS {
            return self.node(Node::Class(desc)).map(|id| Some(Some(id)));
        }
        let desc = desc.ok_or(Fault::Unexpected { code: tc::NULL, expected: "the class of an object" })?;
        match code {
            tc::ENUM => {
                // The constant's name comes after the handle of the constant is taken.
                let id = self.node(Node::Enum { desc, constant: desc })?;
                let name = self.signature()?;
                self.graph.nodes[id.index()] = Node::Enum { desc, constant: name };
                Ok(Some(Some(id)))
            }
            tc::ARRAY => self.new_array(desc),
            _ => {
                let first = self.graph.parts.len();
                let mut class = Some(desc);
                while let Some(desc) = class {
                    class = self.graph.super_of(desc).filter(|_| !self.graph.is_externalizable(desc));
                    if self.has_data(desc)? {
                        self.graph.parts.push(Part { desc, values: (0, 0), annotation: (0, 0) });
                    }
                }
                self.graph.parts[first..].reverse();
                let end = self.graph.parts.len();
                let parts = (first as u32, (end - first) as u32);
                let object = self.node(Node::Object(Object { desc, parts }))?;
                self.parts(object, first as u32, end as u32, PartStep::Begin, Vec::new(), None)
            }
        }
    }

    /// Whether objects of a class hold data of that class itself: every part costs the input at least a byte.
    fn has_data(&self, desc: NodeId) -> Step<bool> {
        let Some(desc) = self.graph.class(desc) else { return Ok(false) };
        let externalizable = desc.flags & sc::EXTERNALIZABLE != 0;
        if externalizable && desc.flags & sc::BLOCK_DATA == 0
            || desc.flags & (sc::EXTERNALIZABLE | sc::SERIALIZABLE) == 0
        {
            return Err(Fault::Flags(desc.flags));
        }
        Ok(externalizable || desc.flags & sc::WRITE_METHOD != 0 || !desc.fields.is_empty())
    }

    fn new_array(&mut self, desc: NodeId) -> Step<Option<Option<NodeId>>> {
        let element = self.graph.class(desc).and_then(|desc| match self.graph.bytes(&desc.name) {
            [b'[', code, ..] => Some(*code),
            _ => None,
        });
        let size = match element.ok_or(Fault::ArrayClass)? {
            b'B' | b'Z' => 1,
            b'C' | b'S' => 2,
            b'I' | b'F' => 4,
            b'J' | b'D' => 8,
            _ => 0,
        };
        if size > 0 {
            let id = self.node(Node::Primitives { desc, length: 0, data: Data::Input(0, 0) })?;
            let length = self.length()?;
            let data = self.data(length as u64 * size)?;
            self.graph.nodes[id.index()] = Node::Primitives { desc, length: length as u32, data };
            return Ok(Some(Some(id)));
        }
        let id = self.node(Node::Array { desc, elements: (0, 0) })?;
        let length = self.length()?;
        self.owe(length)?;
        let first = self.graph.values.len();
        self.graph.values.resize(first + length, Value::Ref(None));
        self.graph.nodes[id.index()] = Node::Array { desc, elements: (first as u32, length as u32) };
        self.elements(id, first as u32, (first + length) as u32, None)
    }

    fn elements(
        &mut self,
        array: NodeId,
        mut next: u32,
        end: u32,
        produced: Option<Option<NodeId>>,
    ) -> Step<Option<Option<NodeId>>> {
        if let Some(node) = produced {
            self.graph.values[next as usize] = Value::Ref(node);
            next += 1;
        }
        while next < end {
            self.owed -= 1;
            self.push(Frame::Elements { array, next, end })?;
            match self.begin("an array element")? {
                Begun::Pushed => return Ok(None),
                Begun::Done(node) => {
                    self.stack.pop();
                    self.graph.values[next as usize] = Value::Ref(node);
                    next += 1;
                }
            }
        }
        Ok(Some(Some(array)))
    }

    /// How the part at `index` of the part table begins.
    fn begin_part(&mut self, index: u32) -> Step<PartStep> {
        let Some(desc) = self.graph.class(self.graph.parts[index as usize].desc) else {
            return Err(Fault::Incomplete);
        };
        if desc.written_fields(&self.graph).is_empty() || self.omits_values(desc) {
            return Ok(PartStep::Annotation);
        }
        let fields = desc.fields.len();
        self.owe(fields)?;
        let first = self.graph.values.len();
        self.graph.values.resize(first + fields, Value::Ref(None));
        self.graph.parts[index as usize].values = (first as u32, fields as u32);
        Ok(PartStep::Fields(0))
    }

    /// Whether the values of the class's fields are missing from the stream though the class isn't known for it: what
    /// comes next can't be the first value (a `boolean` of 0x77 or 0x78, a reference that is block data).
    fn omits_values(&self, desc: &ClassDesc) -> bool {
        if desc.flags & sc::WRITE_METHOD == 0 {
            return false;
        }
        let marks = [tc::BLOCKDATA, tc::BLOCKDATALONG, tc::ENDBLOCKDATA];
        let first = desc.fields.first().map(|field| field.code);
        matches!(first, Some(b'Z' | b'L' | b'[')) && self.peek().is_ok_and(|next| marks.contains(&next))
    }

    fn parts(
        &mut self,
        object: NodeId,
        mut index: u32,
        end: u32,
        mut step: PartStep,
        mut annotation: Vec<Content>,
        mut produced: Option<Option<NodeId>>,
    ) -> Step<Option<Option<NodeId>>> {
        while index < end {
            if let PartStep::Begin = step {
                step = self.begin_part(index)?;
            }
            let desc_id = self.graph.parts[index as usize].desc;
            let (first, count) = self.graph.parts[index as usize].values;
            let flags = self.graph.class(desc_id).map_or(0, |desc| desc.flags);
            if let PartStep::Fields(mut field) = step {
                if let Some(node) = produced.take() {
                    self.graph.values[(first + field) as usize] = Value::Ref(node);
                    field += 1;
                }
                while field < count {
                    let code = self.graph.class(desc_id).map_or(0, |desc| desc.fields[field as usize].code);
                    self.owed -= 1;
                    let value = if matches!(code, b'L' | b'[') {
                        let step = PartStep::Fields(field);
                        self.push(Frame::Parts { object, part: index, end, step, annotation: Vec::new() })?;
                        match self.begin("a field's value")? {
                            Begun::Pushed => return Ok(None),
                            Begun::Done(node) => {
                                self.stack.pop();
                                Value::Ref(node)
                            }
                        }
                    } else {
                        self.value(code)?
                    };
                    self.graph.values[(first + field) as usize] = value;
                    field += 1;
                }
                step = PartStep::Annotation;
            }
            if flags & (sc::WRITE_METHOD | sc::EXTERNALIZABLE) != 0 {
                if let Some(node) = produced.take() {
                    annotation.push(Content::Object(node));
                }
                while !self.annotation(&mut annotation)? {
                    let items = std::mem::take(&mut annotation);
                    self.push(Frame::Parts { object, part: index, end, step, annotation: items })?;
                    match self.begin("an object, block data or the end of an object's own data")? {
                        Begun::Pushed => return Ok(None),
                        Begun::Done(node) => {
                            if let Some(Frame::Parts { annotation: items, .. }) = self.stack.pop() {
                                annotation = items;
                            }
                            annotation.push(Content::Object(node));
                        }
                    }
                }
                let from = self.graph.annotations.len() as u32;
                self.graph.parts[index as usize].annotation = (from, annotation.len() as u32);
                self.graph.annotations.append(&mut annotation);
            }
            index += 1;
            step = PartStep::Begin;
        }
        Ok(Some(Some(object)))
    }
}
