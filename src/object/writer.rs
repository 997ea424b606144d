//! [`Graph`] to bytes.

use super::graph::{Content, Graph, Node, NodeId, Part, Value};
use super::{STREAM_HEADER, sc, tc};

/// What is still to be written, last first: the writer's stack, so that nothing recurses.
enum Task {
    Node(Option<NodeId>),
    Content(Content),
    /// The node gets the next handle.
    Handle(NodeId),
    /// The rest of a descriptor behind its handle.
    DescBody(NodeId),
    /// The rest of an object behind its class: index into the part table and end.
    Parts(u32, u32),
    /// Field values from the first index on, up to the end, of the class of this part.
    Values(u32, u32),
    /// Elements of an array of references.
    Elements(u32, u32),
    /// Length and data of an array.
    ArrayBody(NodeId),
    Byte(u8),
    /// The handles are forgotten.
    Forget,
    /// So is what remains to be written of the top-level object.
    Abandon,
}

struct Writer<'g> {
    graph: &'g Graph,
    out: Vec<u8>,
    handles: Vec<u32>,
    /// The nodes that have a handle.
    assigned: Vec<NodeId>,
    next: u32,
    tasks: Vec<Task>,
}

const UNASSIGNED: u32 = u32::MAX;

impl Graph {
    /// Writes the top-level items as a stream. Of a decoded graph, that is the stream it was decoded from.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer {
            graph: self,
            out: Vec::with_capacity(self.input.len() + 256),
            handles: vec![UNASSIGNED; self.nodes.len()],
            assigned: Vec::new(),
            next: tc::BASE_HANDLE,
            tasks: Vec::new(),
        };
        writer.out.extend(STREAM_HEADER);
        for content in &self.contents {
            writer.content(content.clone());
            while let Some(task) = writer.tasks.pop() {
                writer.step(task);
            }
        }
        writer.out
    }
}

impl Writer<'_> {
    fn step(&mut self, task: Task) {
        match task {
            Task::Node(None) => self.out.push(tc::NULL),
            Task::Node(Some(id)) => self.node(id),
            Task::Content(content) => self.content(content),
            Task::Handle(id) => {
                self.handles[id.index()] = self.next;
                self.assigned.push(id);
                self.next += 1;
            }
            Task::DescBody(id) => self.desc_body(id),
            Task::Parts(part, end) => self.parts(part, end),
            Task::Values(part, next) => self.values(part, next),
            Task::Elements(next, end) => {
                if next < end {
                    self.tasks.push(Task::Elements(next + 1, end));
                    if let Value::Ref(id) = self.graph.values[next as usize] {
                        self.tasks.push(Task::Node(id));
                    }
                }
            }
            Task::ArrayBody(id) => match self.graph.node(id) {
                Node::Primitives { length, data, .. } => {
                    self.out.extend(length.to_be_bytes());
                    self.out.extend_from_slice(self.graph.bytes(data));
                }
                Node::Array { elements: (first, count), .. } => {
                    self.out.extend(count.to_be_bytes());
                    self.tasks.push(Task::Elements(*first, first + count));
                }
                _ => {}
            },
            Task::Byte(byte) => self.out.push(byte),
            Task::Abandon => self.tasks.clear(),
            Task::Forget => {
                for id in self.assigned.drain(..) {
                    self.handles[id.index()] = UNASSIGNED;
                }
                self.next = tc::BASE_HANDLE;
            }
        }
    }

    /// Appends tasks so that they run in the given order.
    fn then<const N: usize>(&mut self, tasks: [Task; N]) {
        self.tasks.extend(tasks.into_iter().rev());
    }

    fn content(&mut self, content: Content) {
        match content {
            Content::Object(id) => self.tasks.push(Task::Node(id)),
            Content::Reset => {
                self.out.push(tc::RESET);
                self.tasks.push(Task::Forget);
            }
            Content::Block { data, long } => {
                let bytes = self.graph.bytes(&data);
                match u8::try_from(bytes.len()) {
                    Ok(length) if !long => self.out.extend([tc::BLOCKDATA, length]),
                    _ => {
                        self.out.push(tc::BLOCKDATALONG);
                        self.out.extend((bytes.len() as u32).to_be_bytes());
                    }
                }
                self.out.extend_from_slice(bytes);
            }
        }
    }

    fn utf(&mut self, data: &super::Data) {
        let bytes = self.graph.bytes(data);
        // Names come from a stream or from this crate's source: both bound them to 16 bits.
        let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
        self.out.extend((bytes.len() as u16).to_be_bytes());
        self.out.extend_from_slice(bytes);
    }

    fn node(&mut self, id: NodeId) {
        let handle = self.handles[id.index()];
        if handle != UNASSIGNED {
            self.out.push(tc::REFERENCE);
            self.out.extend(handle.to_be_bytes());
            return;
        }
        match self.graph.node(id) {
            Node::String { data, long } => {
                self.step(Task::Handle(id));
                let bytes = self.graph.bytes(data);
                match u16::try_from(bytes.len()) {
                    Ok(length) if !long => {
                        self.out.push(tc::STRING);
                        self.out.extend(length.to_be_bytes());
                    }
                    _ => {
                        self.out.push(tc::LONGSTRING);
                        self.out.extend((bytes.len() as u64).to_be_bytes());
                    }
                }
                self.out.extend_from_slice(bytes);
            }
            Node::ClassDesc(desc) => {
                self.out.push(tc::CLASSDESC);
                self.utf(&desc.name);
                self.out.extend(desc.uid.to_be_bytes());
                self.then([Task::Handle(id), Task::DescBody(id)]);
            }
            Node::ProxyDesc(_) => {
                self.out.push(tc::PROXYCLASSDESC);
                self.then([Task::Handle(id), Task::DescBody(id)]);
            }
            Node::Class(desc) => {
                self.out.push(tc::CLASS);
                self.then([Task::Node(*desc), Task::Handle(id)]);
            }
            Node::Object(object) => {
                let (first, count) = object.parts;
                self.out.push(tc::OBJECT);
                self.then([Task::Node(Some(object.desc)), Task::Handle(id), Task::Parts(first, first + count)]);
            }
            Node::Array { desc, .. } | Node::Primitives { desc, .. } => {
                self.out.push(tc::ARRAY);
                self.then([Task::Node(Some(*desc)), Task::Handle(id), Task::ArrayBody(id)]);
            }
            Node::Enum { desc, constant } => {
                self.out.push(tc::ENUM);
                self.then([Task::Node(Some(*desc)), Task::Handle(id), Task::Node(Some(*constant))]);
            }
            Node::Aborted(exception) => {
                self.out.push(tc::EXCEPTION);
                self.then([Task::Forget, Task::Node(Some(*exception)), Task::Forget, Task::Abandon]);
            }
        }
    }

    fn desc_body(&mut self, id: NodeId) {
        let graph = self.graph;
        let (annotation, super_desc) = match graph.node(id) {
            Node::ClassDesc(desc) => {
                self.out.push(desc.flags);
                self.out.extend((desc.fields.len() as u16).to_be_bytes());
                for field in &desc.fields {
                    self.out.push(field.code);
                    self.utf(&field.name);
                    if let Some(signature) = field.signature {
                        // A string: complete at once, so this needs no task.
                        self.node(signature);
                    }
                }
                (&desc.annotation, desc.super_desc)
            }
            Node::ProxyDesc(desc) => {
                self.out.extend((desc.interfaces.len() as u32).to_be_bytes());
                for interface in &desc.interfaces {
                    self.utf(interface);
                }
                (&desc.annotation, desc.super_desc)
            }
            _ => return,
        };
        self.then([Task::Byte(tc::ENDBLOCKDATA), Task::Node(super_desc)]);
        self.tasks.extend(annotation.iter().rev().cloned().map(Task::Content));
    }

    fn part(&self, index: u32) -> &Part {
        &self.graph.parts[index as usize]
    }

    fn parts(&mut self, index: u32, end: u32) {
        if index == end {
            return;
        }
        let graph = self.graph;
        let part = &graph.parts[index as usize];
        self.tasks.push(Task::Parts(index + 1, end));
        let flags = graph.class(part.desc).map_or(0, |desc| desc.flags);
        if flags & (sc::WRITE_METHOD | sc::EXTERNALIZABLE) != 0 {
            self.tasks.push(Task::Byte(tc::ENDBLOCKDATA));
            self.tasks.extend(graph.annotation(part).iter().rev().cloned().map(Task::Content));
        }
        self.tasks.push(Task::Values(index, 0));
    }

    /// Writes values up to and including the next reference, which may need tasks of its own.
    fn values(&mut self, part: u32, mut next: u32) {
        let (first, count) = self.part(part).values;
        while next < count {
            let value = self.graph.values[(first + next) as usize];
            next += 1;
            match value {
                Value::Byte(v) => self.out.extend(v.to_be_bytes()),
                Value::Char(v) => self.out.extend(v.to_be_bytes()),
                Value::Double(v) => self.out.extend(v.to_be_bytes()),
                Value::Float(v) => self.out.extend(v.to_be_bytes()),
                Value::Int(v) => self.out.extend(v.to_be_bytes()),
                Value::Long(v) => self.out.extend(v.to_be_bytes()),
                Value::Short(v) => self.out.extend(v.to_be_bytes()),
                Value::Bool(v) => self.out.push(u8::from(v)),
                Value::Ref(id) => {
                    self.then([Task::Node(id), Task::Values(part, next)]);
                    return;
                }
            }
        }
    }
}
