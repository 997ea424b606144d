//! The arena that a stream decodes into and that is encoded from.

use std::borrow::Cow;
use std::num::NonZeroU32;

use bytes::Bytes;

use super::{AccessError, mutf8, sc};

/// Classes whose `writeObject` writes no field values although their descriptor lists fields: their `writeObject`
/// calls neither `defaultWriteObject` nor `writeFields`, and nothing in the stream says so.
const WITHOUT_FIELD_VALUES: [&str; 6] = [
    "hudson.remoting.Pipe",
    "hudson.remoting.RemoteInputStream",
    "hudson.remoting.RemoteOutputStream",
    "hudson.remoting.RemoteWriter",
    "hudson.util.StreamTaskListener",
    "org.eclipse.jgit.lib.ObjectId",
];

/// Index of a node in its [`Graph`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(NonZeroU32);

impl NodeId {
    pub(super) fn from_index(index: usize) -> Self {
        let id = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        NodeId(id.expect("Graph::push bounds the number of nodes"))
    }

    /// Position in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Bytes of a string, a block or a primitive array: a part of the input, or owned.
#[derive(Clone, Debug)]
pub enum Data {
    /// From..to in the graph's input.
    Input(u32, u32),
    /// Made here.
    Owned(Bytes),
}

/// A field's value or an array's element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// `byte`
    Byte(i8),
    /// `char`, a UTF-16 unit
    Char(u16),
    /// `double`
    Double(f64),
    /// `float`
    Float(f32),
    /// `int`
    Int(i32),
    /// `long`
    Long(i64),
    /// `short`
    Short(i16),
    /// `boolean`
    Bool(bool),
    /// A reference, or null.
    Ref(Option<NodeId>),
}

/// A field as its class descriptor declares it.
#[derive(Clone, Debug)]
pub struct Field {
    /// Java type code, one of `BCDFIJSZ[L`.
    pub code: u8,
    /// The field's name (modified UTF-8).
    pub name: Data,
    /// Of `[` and `L` fields: the node of the string that holds the type's signature.
    pub signature: Option<NodeId>,
}

/// Description of an ordinary class.
#[derive(Clone, Debug)]
pub struct ClassDesc {
    /// Binary name (modified UTF-8).
    pub name: Data,
    /// `serialVersionUID`.
    pub uid: i64,
    /// `SC_*` flags, see [`sc`].
    pub flags: u8,
    /// Declared fields, in the stream's order.
    pub fields: Vec<Field>,
    /// What `annotateClass` wrote.
    pub annotation: Vec<Content>,
    /// The serializable superclass.
    pub super_desc: Option<NodeId>,
    /// False while the descriptor is being read.
    pub(super) complete: bool,
}

impl ClassDesc {
    /// The fields whose values objects of this class write, as far as the class tells.
    pub(super) fn written_fields(&self, graph: &Graph) -> &[Field] {
        let name = graph.bytes(&self.name);
        let custom = self.flags & sc::WRITE_METHOD != 0 && WITHOUT_FIELD_VALUES.iter().any(|c| c.as_bytes() == name);
        if custom || self.flags & sc::EXTERNALIZABLE != 0 { &[] } else { &self.fields }
    }
}

/// Description of a dynamic proxy class.
#[derive(Clone, Debug)]
pub struct ProxyDesc {
    /// Names of the interfaces (modified UTF-8).
    pub interfaces: Vec<Data>,
    /// What `annotateProxyClass` wrote.
    pub annotation: Vec<Content>,
    /// `java.lang.reflect.Proxy`.
    pub super_desc: Option<NodeId>,
    /// False while the descriptor is being read.
    pub(super) complete: bool,
}

/// What one class of an object's hierarchy contributed.
#[derive(Clone, Debug)]
pub struct Part {
    /// The class.
    pub desc: NodeId,
    /// First of its field values in the graph's value table, and their number: zero, or one per field of the class.
    pub(super) values: (u32, u32),
    /// What its `writeObject` or `writeExternal` wrote beside the fields: first and number in the content table.
    pub(super) annotation: (u32, u32),
}

/// An object: its parts go from the topmost serializable superclass down.
#[derive(Clone, Debug)]
pub struct Object {
    /// The class.
    pub desc: NodeId,
    pub(super) parts: (u32, u32),
}

/// A node.
#[derive(Clone, Debug)]
pub enum Node {
    /// A string; `long` is whether the long form is used.
    String {
        /// Modified UTF-8.
        data: Data,
        /// `TC_LONGSTRING`.
        long: bool,
    },
    /// A class descriptor.
    ClassDesc(Box<ClassDesc>),
    /// A proxy class descriptor.
    ProxyDesc(Box<ProxyDesc>),
    /// A `java.lang.Class` object.
    Class(Option<NodeId>),
    /// An object.
    Object(Object),
    /// An array of references.
    Array {
        /// Its class.
        desc: NodeId,
        /// First and number of its elements in the value table.
        elements: (u32, u32),
    },
    /// An array of primitives, as it stands in the stream.
    Primitives {
        /// Its class.
        desc: NodeId,
        /// Number of elements.
        length: u32,
        /// Big-endian elements.
        data: Data,
    },
    /// An enum constant.
    Enum {
        /// Its class.
        desc: NodeId,
        /// The node of the string that is its name.
        constant: NodeId,
    },
    /// Writing was aborted here by this exception (`TC_EXCEPTION`). Has no handle. Nothing more was written of the
    /// top-level object: the rest of what is in progress reads as null or as missing.
    Aborted(NodeId),
}

/// An item at the top level of a stream or of an annotation.
#[derive(Clone, Debug)]
pub enum Content {
    /// Block data; `long` is whether the long form is used.
    Block {
        /// The bytes.
        data: Data,
        /// `TC_BLOCKDATALONG`.
        long: bool,
    },
    /// An object, or null.
    Object(Option<NodeId>),
    /// All handles are forgotten from here on. Top level only.
    Reset,
}

/// A decoded, or built, object stream.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(super) input: Bytes,
    pub(super) nodes: Vec<Node>,
    pub(super) values: Vec<Value>,
    pub(super) parts: Vec<Part>,
    pub(super) annotations: Vec<Content>,
    pub(super) contents: Vec<Content>,
    pub(super) loader: super::Loader,
}

impl Graph {
    /// The top-level items, in order.
    pub fn contents(&self) -> &[Content] {
        &self.contents
    }

    /// All nodes, in the order in which the stream introduced them.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The first top-level object.
    pub fn root(&self) -> Option<View<'_>> {
        self.contents.iter().find_map(|c| match c {
            Content::Object(Some(id)) => Some(self.view(*id)),
            _ => None,
        })
    }

    /// The id of the node at this position of [`nodes`](Self::nodes).
    pub fn id_at(&self, index: usize) -> Option<NodeId> {
        (index < self.nodes.len()).then(|| NodeId::from_index(index))
    }

    /// A node, to be looked at.
    pub fn view(&self, id: NodeId) -> View<'_> {
        View { graph: self, id }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The bytes behind `data`.
    pub fn bytes<'a>(&'a self, data: &'a Data) -> &'a [u8] {
        match data {
            Data::Input(from, to) => self.input.get(*from as usize..*to as usize).unwrap_or_default(),
            Data::Owned(bytes) => bytes,
        }
    }

    /// The bytes behind `data`, shared with the graph and not copied.
    pub fn shared(&self, data: &Data) -> Bytes {
        match data {
            Data::Input(from, to) if *to as usize <= self.input.len() && from <= to => {
                self.input.slice(*from as usize..*to as usize)
            }
            Data::Input(..) => Bytes::new(),
            Data::Owned(bytes) => bytes.clone(),
        }
    }

    pub(super) fn push(&mut self, node: Node) -> NodeId {
        assert!(self.nodes.len() < u32::MAX as usize - 1, "graph full");
        self.nodes.push(node);
        NodeId::from_index(self.nodes.len() - 1)
    }

    pub(super) fn value_range(&self, (first, count): (u32, u32)) -> &[Value] {
        &self.values[first as usize..first as usize + count as usize]
    }

    /// The parts of an object, topmost class first.
    pub fn parts(&self, object: &Object) -> &[Part] {
        let (first, count) = object.parts;
        &self.parts[first as usize..first as usize + count as usize]
    }

    /// The field values of a part: none if its class's `writeObject` left them out, else one per declared field.
    pub fn values(&self, part: &Part) -> &[Value] {
        self.value_range(part.values)
    }

    /// What a part's `writeObject` or `writeExternal` wrote beside the fields.
    pub fn annotation(&self, part: &Part) -> &[Content] {
        let (first, count) = part.annotation;
        &self.annotations[first as usize..first as usize + count as usize]
    }

    /// The descriptor, if `id` is that of an ordinary class.
    pub fn class(&self, id: NodeId) -> Option<&ClassDesc> {
        match self.node(id) {
            Node::ClassDesc(desc) => Some(desc),
            _ => None,
        }
    }

    pub(super) fn super_of(&self, id: NodeId) -> Option<NodeId> {
        match self.node(id) {
            Node::ClassDesc(desc) => desc.super_desc,
            Node::ProxyDesc(desc) => desc.super_desc,
            _ => None,
        }
    }

    /// Whether objects of this class write themselves, superclasses included (`ObjectOutputStream.writeExternalData`):
    /// their superclasses contribute no parts.
    pub(super) fn is_externalizable(&self, id: NodeId) -> bool {
        self.class(id).is_some_and(|desc| desc.flags & sc::EXTERNALIZABLE != 0)
    }

    /// A class's name as text. A name that is not well-formed modified UTF-8 becomes its escaped bytes.
    pub fn class_name(&self, id: NodeId) -> Cow<'_, str> {
        match self.node(id) {
            Node::ClassDesc(desc) => self.text(&desc.name),
            Node::ProxyDesc(desc) => {
                let names: Vec<_> = desc.interfaces.iter().map(|i| self.text(i)).collect();
                Cow::Owned(format!("$Proxy[{}]", names.join(",")))
            }
            _ => Cow::Borrowed("?"),
        }
    }

    /// The elements of an array of references, each a [`Value::Ref`]; none if `id` is something else.
    pub fn array_values(&self, id: NodeId) -> &[Value] {
        match self.node(id) {
            Node::Array { elements, .. } => self.value_range(*elements),
            _ => &[],
        }
    }

    /// Calls `visit` for each reference from a field, an element or a content. Those to classes and signatures, and
    /// the names of enum constants, don't count.
    pub fn for_each_reference(&self, mut visit: impl FnMut(NodeId)) {
        for value in &self.values {
            if let Value::Ref(Some(id)) = value {
                visit(*id);
            }
        }
        let descs = self.nodes.iter().map(|node| match node {
            Node::ClassDesc(desc) => &desc.annotation[..],
            Node::ProxyDesc(desc) => &desc.annotation[..],
            _ => &[],
        });
        for contents in [&self.contents[..], &self.annotations[..]].into_iter().chain(descs) {
            for content in contents {
                if let Content::Object(Some(id)) = content {
                    visit(*id);
                }
            }
        }
        for node in &self.nodes {
            if let Node::Aborted(exception) = node {
                visit(*exception);
            }
        }
    }

    /// `data` as text; what is not well-formed modified UTF-8 becomes its escaped bytes.
    pub fn text<'a>(&'a self, data: &'a Data) -> Cow<'a, str> {
        let bytes = self.bytes(data);
        mutf8::decode(bytes).unwrap_or_else(|_| Cow::Owned(bytes.escape_ascii().to_string()))
    }
}

/// Wrappers of collections that are looked through, one inside of the other.
const MAX_WRAPPERS: usize = 64;

/// Key and value of a map.
pub type Entry<'g> = (Option<View<'g>>, Option<View<'g>>);

/// A node in its graph: what a callable's handler looks at.
///
/// Fields are found by name, the most derived class first. As in Java, a field that the sender's class does not
/// have reads as `null`, `0` or `false`; one of another type is an [`AccessError`].
#[derive(Clone, Copy)]
pub struct View<'g> {
    graph: &'g Graph,
    id: NodeId,
}

impl<'g> View<'g> {
    /// The graph that this node is part of.
    pub fn graph(self) -> &'g Graph {
        self.graph
    }

    /// The node's index.
    pub fn id(self) -> NodeId {
        self.id
    }

    /// The node.
    pub fn node(self) -> &'g Node {
        self.graph.node(self.id)
    }

    /// The descriptor of this object's, array's or enum constant's class; of a `Class` object: the class it is.
    pub fn desc(self) -> Option<NodeId> {
        match self.node() {
            Node::Object(object) => Some(object.desc),
            Node::Array { desc, .. } | Node::Primitives { desc, .. } | Node::Enum { desc, .. } => Some(*desc),
            Node::Class(desc) => *desc,
            _ => None,
        }
    }

    /// Name of the class that this is an instance of. A `Class` object is `java.lang.Class`.
    pub fn class_name(self) -> Cow<'g, str> {
        match self.node() {
            Node::String { .. } => Cow::Borrowed("java.lang.String"),
            Node::Class(_) => Cow::Borrowed("java.lang.Class"),
            Node::ClassDesc(_) | Node::ProxyDesc(_) => Cow::Borrowed("java.io.ObjectStreamClass"),
            Node::Aborted(_) => Cow::Borrowed("java.io.WriteAbortedException"),
            _ => self.desc().map_or(Cow::Borrowed("?"), |desc| self.graph.class_name(desc)),
        }
    }

    /// Whether the object's own class has this name.
    pub fn is(self, class: &str) -> bool {
        self.class_name() == class
    }

    /// Names of the class and its serializable superclasses, most derived first.
    pub fn hierarchy(self) -> impl Iterator<Item = Cow<'g, str>> {
        let graph = self.graph;
        std::iter::successors(self.desc(), move |id| graph.super_of(*id)).map(move |id| graph.class_name(id))
    }

    /// Names of the interfaces, if this is a dynamic proxy.
    pub fn interfaces(self) -> Vec<Cow<'g, str>> {
        match self.desc().map(|desc| self.graph.node(desc)) {
            Some(Node::ProxyDesc(desc)) => desc.interfaces.iter().map(|i| self.graph.text(i)).collect(),
            _ => Vec::new(),
        }
    }

    fn parts(self) -> &'g [Part] {
        match self.node() {
            Node::Object(object) => self.graph.parts(object),
            _ => &[],
        }
    }

    /// The value of a field, or `None` if no class of this object declares (and wrote) it.
    pub fn field(self, name: &str) -> Option<Value> {
        self.parts().iter().rev().find_map(|part| {
            let fields = &self.graph.class(part.desc)?.fields;
            let at = fields.iter().position(|f| self.graph.bytes(&f.name) == name.as_bytes())?;
            self.graph.values(part).get(at).copied()
        })
    }

    /// All fields by name, topmost class first, with the class that declares each.
    pub fn fields(self) -> impl Iterator<Item = (NodeId, Cow<'g, str>, Value)> {
        let graph = self.graph;
        self.parts().iter().flat_map(move |part| {
            let fields = graph.class(part.desc).map_or(&[][..], |desc| &desc.fields);
            fields.iter().zip(graph.values(part)).map(move |(f, v)| (part.desc, graph.text(&f.name), *v))
        })
    }

    /// What the `writeObject` of `class` wrote beside the fields; empty if the object is of no such class.
    pub fn annotation(self, class: &str) -> &'g [Content] {
        let part = self.parts().iter().find(|part| self.graph.class_name(part.desc) == class);
        part.map_or(&[], |part| self.graph.annotation(part))
    }

    /// The block data of [`annotation`](Self::annotation), joined.
    pub fn annotation_bytes(self, class: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for content in self.annotation(class) {
            if let Content::Block { data, .. } = content {
                out.extend_from_slice(self.graph.bytes(data));
            }
        }
        out
    }

    /// The objects of [`annotation`](Self::annotation), in order.
    pub fn annotation_objects(self, class: &str) -> impl Iterator<Item = Option<View<'g>>> {
        let graph = self.graph;
        self.annotation(class).iter().filter_map(move |content| match content {
            Content::Object(id) => Some(id.map(|id| graph.view(id))),
            _ => None,
        })
    }

    /// An error about this object.
    pub fn error(self, problem: impl Into<String>) -> AccessError {
        AccessError { class: self.class_name().into_owned(), problem: problem.into() }
    }

    fn wrong_type(self, name: &str, wanted: &str) -> AccessError {
        self.error(format!("field {name} is not {wanted}"))
    }

    /// A `boolean` field, or `false`.
    ///
    /// # Errors
    /// If the field is of another type.
    pub fn bool(self, name: &str) -> Result<bool, AccessError> {
        match self.field(name) {
            Some(Value::Bool(value)) => Ok(value),
            None => Ok(false),
            Some(_) => Err(self.wrong_type(name, "a boolean")),
        }
    }

    /// An `int` field, or 0.
    ///
    /// # Errors
    /// If the field is of another type.
    pub fn int(self, name: &str) -> Result<i32, AccessError> {
        match self.field(name) {
            Some(Value::Int(value)) => Ok(value),
            None => Ok(0),
            Some(_) => Err(self.wrong_type(name, "an int")),
        }
    }

    /// A `long` field, or 0.
    ///
    /// # Errors
    /// If the field is of another type.
    pub fn long(self, name: &str) -> Result<i64, AccessError> {
        match self.field(name) {
            Some(Value::Long(value)) => Ok(value),
            None => Ok(0),
            Some(_) => Err(self.wrong_type(name, "a long")),
        }
    }

    /// A reference field; `None` for null.
    ///
    /// # Errors
    /// If the field is a primitive.
    pub fn get(self, name: &str) -> Result<Option<View<'g>>, AccessError> {
        match self.field(name) {
            Some(Value::Ref(id)) => Ok(id.map(|id| self.graph.view(id))),
            None => Ok(None),
            Some(_) => Err(self.wrong_type(name, "a reference")),
        }
    }

    /// A reference field that must not be null.
    ///
    /// # Errors
    /// If it is null, absent or a primitive.
    pub fn require(self, name: &str) -> Result<View<'g>, AccessError> {
        self.get(name)?.ok_or_else(|| self.error(format!("field {name} is null or missing")))
    }

    /// A `String` field; `None` for null.
    ///
    /// # Errors
    /// If the field is not a string.
    pub fn string(self, name: &str) -> Result<Option<Cow<'g, str>>, AccessError> {
        self.get(name)?.map(|view| view.as_str().map_err(|_| self.wrong_type(name, "a string"))).transpose()
    }

    /// A `String` field that must not be null.
    ///
    /// # Errors
    /// If it is null, absent or not a string.
    pub fn require_string(self, name: &str) -> Result<Cow<'g, str>, AccessError> {
        self.require(name)?.as_str().map_err(|_| self.wrong_type(name, "a string"))
    }

    /// This string's text.
    ///
    /// # Errors
    /// If this is not a string, or is malformed.
    pub fn as_str(self) -> Result<Cow<'g, str>, AccessError> {
        match self.node() {
            Node::String { data, .. } => mutf8::decode(self.graph.bytes(data))
                .map_err(|at| self.error(format!("byte {at} is not modified UTF-8"))),
            _ => Err(self.error("a string was expected")),
        }
    }

    /// The value of a boxed primitive: `java.lang.Integer`, `Long`, `Boolean`, ...
    pub fn unboxed(self) -> Option<Value> {
        match self.class_name().strip_prefix("java.lang.")? {
            "Integer" | "Long" | "Boolean" | "Byte" | "Character" | "Short" | "Float" | "Double" => self.field("value"),
            _ => None,
        }
    }

    /// This enum constant's name.
    ///
    /// # Errors
    /// If this is not an enum constant.
    pub fn constant(self) -> Result<Cow<'g, str>, AccessError> {
        match self.node() {
            Node::Enum { constant, .. } => self.graph.view(*constant).as_str(),
            _ => Err(self.error("an enum constant was expected")),
        }
    }

    /// The elements of an array of references.
    ///
    /// # Errors
    /// If this is not one.
    pub fn elements(self) -> Result<impl Iterator<Item = Option<View<'g>>>, AccessError> {
        let Node::Array { elements, .. } = self.node() else {
            return Err(self.error("an array of objects was expected"));
        };
        Ok(self.graph.value_range(*elements).iter().map(move |value| match value {
            Value::Ref(id) => id.map(|id| self.graph.view(id)),
            _ => None,
        }))
    }

    /// The contents of a `byte[]`, shared with the input and not copied.
    ///
    /// # Errors
    /// If this is not one.
    pub fn byte_array(self) -> Result<Bytes, AccessError> {
        match self.node() {
            Node::Primitives { desc, data, .. } if self.graph.class_name(*desc) == "[B" => Ok(self.graph.shared(data)),
            _ => Err(self.error("a byte array was expected")),
        }
    }

    /// The big-endian elements of a primitive array with this class name (`[J`, `[Z`, `[C`, ...).
    ///
    /// # Errors
    /// If this is not one.
    pub fn primitive_array(self, class: &str) -> Result<&'g [u8], AccessError> {
        match self.node() {
            Node::Primitives { desc, data, .. } if self.graph.class_name(*desc) == class => Ok(self.graph.bytes(data)),
            _ => Err(self.error(format!("an array {class} was expected"))),
        }
    }

    /// The elements of an array of primitives; none if this is something else.
    pub fn primitives(self) -> impl Iterator<Item = Value> + use<'g> {
        let (code, data) = match self.node() {
            Node::Primitives { desc, data, .. } => {
                (self.graph.class_name(*desc).as_bytes().get(1).copied(), self.graph.bytes(data))
            }
            _ => (None, &[][..]),
        };
        let size = match code {
            Some(b'C' | b'S') => 2,
            Some(b'I' | b'F') => 4,
            Some(b'J' | b'D') => 8,
            _ => 1,
        };
        data.chunks_exact(size).map(move |bytes| {
            let bits = bytes.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            match code {
                Some(b'C') => Value::Char(bits as u16),
                Some(b'S') => Value::Short(bits as i16),
                Some(b'I') => Value::Int(bits as i32),
                Some(b'F') => Value::Float(f32::from_bits(bits as u32)),
                Some(b'J') => Value::Long(bits as i64),
                Some(b'D') => Value::Double(f64::from_bits(bits)),
                Some(b'Z') => Value::Bool(bits != 0),
                _ => Value::Byte(bits as i8),
            }
        })
    }

    /// The elements of a `java.util` list or set: of any of the classes that Jenkins' class filter lets through.
    ///
    /// # Errors
    /// If this is none of the known collections.
    pub fn collection(self) -> Result<Vec<Option<View<'g>>>, AccessError> {
        let this = self.unwrapped();
        let name = this.class_name();
        Ok(match name.as_ref() {
            "java.util.ArrayList"
            | "java.util.LinkedList"
            | "java.util.HashSet"
            | "java.util.concurrent.CopyOnWriteArrayList"
            | "java.util.ArrayDeque"
            | "java.util.CollSer" => this.annotation_objects(&name).collect(),
            // The comparator comes first.
            "java.util.TreeSet" => this.annotation_objects(&name).skip(1).collect(),
            "java.util.Vector" | "java.util.Stack" => {
                let count = usize::try_from(this.int("elementCount")?).unwrap_or(0);
                this.require("elementData")?.elements()?.take(count).collect()
            }
            "java.util.LinkedHashSet" => this.annotation_objects("java.util.HashSet").collect(),
            "java.util.Collections$EmptyList" | "java.util.Collections$EmptySet" => Vec::new(),
            "java.util.Collections$SingletonList" | "java.util.Collections$SingletonSet" => vec![this.get("element")?],
            "java.util.Arrays$ArrayList" => this.require("a")?.elements()?.collect(),
            "java.util.EnumSet$SerializationProxy" => this.require("elements")?.elements()?.collect(),
            _ => return Err(self.error("a collection was expected")),
        })
    }

    /// What is inside of nested `Collections$Unmodifiable...`, `Collections$Synchronized...` and such.
    fn unwrapped(self) -> View<'g> {
        let mut view = self;
        // A bound, because a hostile wrapper could hold itself.
        for _ in 0..MAX_WRAPPERS {
            if !view.class_name().starts_with("java.util.Collections$") {
                break;
            }
            let inner = ["list", "c", "m"].iter().find_map(|name| view.get(name).ok().flatten());
            match inner {
                Some(inner) => view = inner,
                None => break,
            }
        }
        view
    }

    /// The entries of a `java.util` map, in the stream's order.
    ///
    /// # Errors
    /// If this is none of the known maps.
    pub fn map(self) -> Result<Vec<Entry<'g>>, AccessError> {
        const KNOWN: [&str; 6] = [
            "java.util.HashMap",
            "java.util.TreeMap",
            "java.util.Hashtable",
            "java.util.CollSer",
            "java.util.EnumMap",
            "java.util.concurrent.ConcurrentHashMap",
        ];
        let this = self.unwrapped();
        let declaring =
            KNOWN.into_iter().find(|class| this.parts().iter().any(|part| this.graph.class_name(part.desc) == *class));
        if let Some(class) = declaring {
            let flat: Vec<_> = this.annotation_objects(class).collect();
            let entries = flat.chunks_exact(2).map(|pair| (pair[0], pair[1]));
            // That one marks its end with a null key, and can't have one.
            let concurrent = class == "java.util.concurrent.ConcurrentHashMap";
            return Ok(entries.filter(|(key, _)| !concurrent || key.is_some()).collect());
        }
        match this.class_name().as_ref() {
            "java.util.Collections$EmptyMap" => Ok(Vec::new()),
            "java.util.Collections$SingletonMap" => Ok(vec![(this.get("k")?, this.get("v")?)]),
            _ => Err(self.error("a map was expected")),
        }
    }

    /// The entries of a `Map<String, String>`; entries with a null key are left out.
    ///
    /// # Errors
    /// If this is not a map, or holds something other than strings.
    pub fn string_map(self) -> Result<Vec<(String, Option<String>)>, AccessError> {
        let mut out = Vec::new();
        for (key, value) in self.map()? {
            if let Some(key) = key {
                let value = value.map(|v| v.as_str().map(Cow::into_owned)).transpose()?;
                out.push((key.as_str()?.into_owned(), value));
            }
        }
        Ok(out)
    }
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", self.class_name(), self.id.index())
    }
}
