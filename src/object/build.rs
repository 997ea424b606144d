//! Building a [`Graph`] to be sent.

use bytes::Bytes;

use super::graph::{ClassDesc, Content, Data, Field, Graph, Node, NodeId, Object, Part, ProxyDesc, Value};
use super::{mutf8, sc};

/// How the classes in a built graph are annotated, which tells the receiver with which class loader to resolve them
/// (`hudson.remoting.MultiClassLoaderSerializer`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loader {
    /// Not at all: commands, and everything between peers without the capability.
    #[default]
    None,
    /// JDK and remoting classes by the receiver's own means, all others and every proxy by the class loader that the
    /// receiver exported under this id.
    Receivers(i32),
}

/// `MultiClassLoaderSerializer.TAG_SYSTEMCLASSLOADER`: the receiver resolves the class by itself.
const TAG_SYSTEM: i32 = -3;
/// `MultiClassLoaderSerializer.TAG_LOCAL_CLASSLOADER`: an object id of the receiver's follows.
const TAG_LOCAL: i32 = -1;

fn block(bytes: Vec<u8>) -> Content {
    Content::Block { data: Data::Owned(bytes.into()), long: false }
}

impl Graph {
    /// An empty graph whose classes will be annotated so.
    pub fn with_loader(loader: Loader) -> Graph {
        Graph { loader, ..Graph::default() }
    }

    /// Appends an object, or null, at the top level.
    pub fn put(&mut self, object: Option<NodeId>) {
        self.contents.push(Content::Object(object));
    }

    /// Copies an object of another graph, with all that it refers to.
    pub fn import(&mut self, other: &Graph, object: NodeId) -> NodeId {
        let shift = self.nodes.len();
        let values = self.values.len() as u32;
        let parts = self.parts.len() as u32;
        let annotations = self.annotations.len() as u32;
        let id = |id: NodeId| NodeId::from_index(id.index() + shift);
        let own = |data: &Data| Data::Owned(other.shared(data));
        let content = |content: &Content| match content {
            Content::Object(object) => Content::Object(object.map(id)),
            Content::Block { data, long } => Content::Block { data: own(data), long: *long },
            Content::Reset => Content::Reset,
        };
        self.values.extend(other.values.iter().map(|value| match value {
            Value::Ref(node) => Value::Ref(node.map(id)),
            value => *value,
        }));
        self.annotations.extend(other.annotations.iter().map(content));
        self.parts.extend(other.parts.iter().map(|part| Part {
            desc: id(part.desc),
            values: (part.values.0 + values, part.values.1),
            annotation: (part.annotation.0 + annotations, part.annotation.1),
        }));
        for node in &other.nodes {
            let node = match node {
                Node::String { data, long } => Node::String { data: own(data), long: *long },
                Node::ClassDesc(desc) => {
                    let field = |field: &Field| Field {
                        code: field.code,
                        name: own(&field.name),
                        signature: field.signature.map(id),
                    };
                    Node::ClassDesc(Box::new(ClassDesc {
                        name: own(&desc.name),
                        uid: desc.uid,
                        flags: desc.flags,
                        fields: desc.fields.iter().map(field).collect(),
                        annotation: desc.annotation.iter().map(content).collect(),
                        super_desc: desc.super_desc.map(id),
                        complete: desc.complete,
                    }))
                }
                Node::ProxyDesc(desc) => Node::ProxyDesc(Box::new(ProxyDesc {
                    interfaces: desc.interfaces.iter().map(own).collect(),
                    annotation: desc.annotation.iter().map(content).collect(),
                    super_desc: desc.super_desc.map(id),
                    complete: desc.complete,
                })),
                Node::Class(desc) => Node::Class(desc.map(id)),
                Node::Object(object) => {
                    Node::Object(Object { desc: id(object.desc), parts: (object.parts.0 + parts, object.parts.1) })
                }
                Node::Array { desc, elements } => {
                    Node::Array { desc: id(*desc), elements: (elements.0 + values, elements.1) }
                }
                Node::Primitives { desc, length, data } => {
                    Node::Primitives { desc: id(*desc), length: *length, data: own(data) }
                }
                Node::Enum { desc, constant } => Node::Enum { desc: id(*desc), constant: id(*constant) },
                Node::Aborted(exception) => Node::Aborted(id(*exception)),
            };
            self.push(node);
        }
        id(object)
    }

    /// Makes this object the only one at the top level.
    pub fn set_root(&mut self, object: NodeId) {
        self.contents = vec![Content::Object(Some(object))];
    }

    /// A stream with this object alone.
    pub fn encode_one(mut self, object: Option<NodeId>) -> Bytes {
        self.contents = vec![Content::Object(object)];
        self.encode().into()
    }

    /// A string.
    pub fn string(&mut self, text: &str) -> NodeId {
        let data = match mutf8::encode(text) {
            std::borrow::Cow::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            std::borrow::Cow::Owned(bytes) => bytes.into(),
        };
        let long = data.len() > usize::from(u16::MAX);
        self.push(Node::String { data: Data::Owned(data), long })
    }

    /// A value that refers to a new string.
    pub fn string_value(&mut self, text: &str) -> Value {
        Value::Ref(Some(self.string(text)))
    }

    /// The string of a type's signature; as in Java, one for all fields of that type.
    fn signature(&mut self, signature: &str) -> NodeId {
        let known = self
            .nodes
            .iter()
            .position(|node| matches!(node, Node::String { data, .. } if self.bytes(data) == signature.as_bytes()));
        known.map_or_else(|| self.string(signature), NodeId::from_index)
    }

    fn loader_annotation(&self, name: &str) -> Vec<Content> {
        let element = name.trim_start_matches('[');
        let element = if element.len() < name.len() { element.trim_start_matches('L') } else { element };
        match self.loader {
            Loader::None => Vec::new(),
            Loader::Receivers(_)
                if element.len() <= 1 || element.starts_with("java.") || element.starts_with("hudson.remoting.") =>
            {
                vec![block(TAG_SYSTEM.to_be_bytes().into())]
            }
            Loader::Receivers(oid) => vec![block([TAG_LOCAL.to_be_bytes(), oid.to_be_bytes()].concat())],
        }
    }

    /// The descriptor of a class: name, `serialVersionUID`, flags (see [`sc`]), fields as name and type signature, and
    /// superclass. Asked for again under the same name, the first one is given.
    pub fn class_desc(
        &mut self,
        name: &str,
        uid: i64,
        flags: u8,
        fields: &[(&'static str, &str)],
        super_desc: Option<NodeId>,
    ) -> NodeId {
        let known = self
            .nodes
            .iter()
            .position(|node| matches!(node, Node::ClassDesc(desc) if self.bytes(&desc.name) == name.as_bytes()));
        if let Some(index) = known {
            return NodeId::from_index(index);
        }
        let mut fields: Vec<(&'static str, &str)> = fields.to_vec();
        // ObjectStreamField.compareTo: primitives first, then by name.
        fields.sort_by_key(|(name, signature)| (signature.len() > 1, *name));
        let fields = fields
            .into_iter()
            .map(|(name, signature)| Field {
                code: signature.as_bytes().first().copied().unwrap_or(b'L'),
                name: Data::Owned(Bytes::from_static(name.as_bytes())),
                signature: (signature.len() > 1).then(|| self.signature(signature)),
            })
            .collect();
        let annotation = self.loader_annotation(name);
        let name = Data::Owned(Bytes::copy_from_slice(name.as_bytes()));
        self.push(Node::ClassDesc(Box::new(ClassDesc {
            name,
            uid,
            flags,
            fields,
            annotation,
            super_desc,
            complete: true,
        })))
    }

    /// The descriptor of a serializable class without `writeObject`.
    pub fn serializable(
        &mut self,
        name: &str,
        uid: i64,
        fields: &[(&'static str, &str)],
        super_desc: Option<NodeId>,
    ) -> NodeId {
        self.class_desc(name, uid, sc::SERIALIZABLE, fields, super_desc)
    }

    /// The descriptor of a dynamic proxy class with these interfaces.
    pub fn proxy_desc(&mut self, interfaces: &[&str]) -> NodeId {
        const H: (&str, &str) = ("h", "Ljava/lang/reflect/InvocationHandler;");
        let super_desc = self.serializable("java.lang.reflect.Proxy", -2222568056686623797, &[H], None);
        let annotation = self.loader_annotation("$Proxy");
        let interfaces = interfaces.iter().map(|name| Data::Owned(Bytes::copy_from_slice(name.as_bytes()))).collect();
        self.push(Node::ProxyDesc(Box::new(ProxyDesc {
            interfaces,
            annotation,
            super_desc: Some(super_desc),
            complete: true,
        })))
    }

    /// Begins an object of a class.
    pub fn object(&mut self, desc: NodeId) -> ObjectBuilder<'_> {
        ObjectBuilder { graph: self, desc, values: Vec::new(), annotations: Vec::new() }
    }

    /// An enum constant.
    pub fn enum_constant(&mut self, class: &str, constant: &str) -> NodeId {
        let base = self.class_desc("java.lang.Enum", 0, sc::SERIALIZABLE | sc::ENUM, &[], None);
        let desc = self.class_desc(class, 0, sc::SERIALIZABLE | sc::ENUM, &[], Some(base));
        let constant = self.string(constant);
        self.push(Node::Enum { desc, constant })
    }

    /// A `java.lang.Class`, of this descriptor.
    #[cfg(test)]
    pub(crate) fn class_object(&mut self, desc: NodeId) -> NodeId {
        self.push(Node::Class(Some(desc)))
    }

    /// A `byte[]`.
    pub fn byte_array(&mut self, bytes: Bytes) -> NodeId {
        let desc = self.serializable("[B", -5984413125824719648, &[], None);
        self.push(Node::Primitives { desc, length: bytes.len() as u32, data: Data::Owned(bytes) })
    }

    /// A `char[]` from UTF-16 units.
    pub fn char_array(&mut self, units: &[u16]) -> NodeId {
        let desc = self.serializable("[C", -5753798564021173076, &[], None);
        let data: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        self.push(Node::Primitives { desc, length: units.len() as u32, data: Data::Owned(data.into()) })
    }

    /// A `long[]`.
    pub fn long_array(&mut self, longs: &[i64]) -> NodeId {
        let desc = self.serializable("[J", 8655923659555304851, &[], None);
        let data: Vec<u8> = longs.iter().flat_map(|long| long.to_be_bytes()).collect();
        self.push(Node::Primitives { desc, length: longs.len() as u32, data: Data::Owned(data.into()) })
    }

    /// An array of references whose class has this name (`[Ljava.lang.String;`) and `serialVersionUID`.
    pub fn array(&mut self, class: &str, uid: i64, elements: &[Option<NodeId>]) -> NodeId {
        let desc = self.serializable(class, uid, &[], None);
        let first = self.values.len() as u32;
        self.values.extend(elements.iter().map(|id| Value::Ref(*id)));
        self.push(Node::Array { desc, elements: (first, elements.len() as u32) })
    }

    /// A `String[]`.
    pub fn string_array(&mut self, strings: &[&str]) -> NodeId {
        let elements: Vec<_> = strings.iter().map(|text| Some(self.string(text))).collect();
        self.array("[Ljava.lang.String;", -5921575005990323385, &elements)
    }

    fn number(&mut self) -> NodeId {
        self.serializable("java.lang.Number", -8742448824652078965, &[], None)
    }

    /// A `java.lang.Boolean`.
    pub fn boxed_bool(&mut self, value: bool) -> NodeId {
        let desc = self.serializable("java.lang.Boolean", -3665804199014368530, &[("value", "Z")], None);
        self.object(desc).set("value", Value::Bool(value)).build()
    }

    /// A `java.lang.Integer`.
    pub fn boxed_int(&mut self, value: i32) -> NodeId {
        let number = self.number();
        let desc = self.serializable("java.lang.Integer", 1360826667806852920, &[("value", "I")], Some(number));
        self.object(desc).set("value", Value::Int(value)).build()
    }

    /// A `java.lang.Long`.
    pub fn boxed_long(&mut self, value: i64) -> NodeId {
        let number = self.number();
        let desc = self.serializable("java.lang.Long", 4290774380558885855, &[("value", "J")], Some(number));
        self.object(desc).set("value", Value::Long(value)).build()
    }

    /// A `java.util.ArrayList`.
    pub fn array_list(&mut self, elements: &[Option<NodeId>]) -> NodeId {
        let size = elements.len() as i32;
        let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
        let desc = self.class_desc("java.util.ArrayList", 8683452581122892189, flags, &[("size", "I")], None);
        let mut annotation = vec![block(size.to_be_bytes().into())];
        annotation.extend(elements.iter().map(|id| Content::Object(*id)));
        self.object(desc).set("size", Value::Int(size)).annotate(desc, annotation).build()
    }

    /// A `java.util.HashMap`.
    pub fn hash_map(&mut self, entries: &[(Option<NodeId>, Option<NodeId>)]) -> NodeId {
        let (capacity, threshold) = hash_capacity(entries.len());
        let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
        let fields = [("loadFactor", "F"), ("threshold", "I")];
        let desc = self.class_desc("java.util.HashMap", 362498820763181265, flags, &fields, None);
        let mut annotation = vec![block([capacity.to_be_bytes(), (entries.len() as i32).to_be_bytes()].concat())];
        for (key, value) in entries {
            annotation.extend([Content::Object(*key), Content::Object(*value)]);
        }
        self.object(desc)
            .set("loadFactor", Value::Float(0.75))
            .set("threshold", Value::Int(threshold))
            .annotate(desc, annotation)
            .build()
    }

    /// A `java.util.HashSet`.
    pub fn hash_set(&mut self, elements: &[Option<NodeId>]) -> NodeId {
        let (capacity, _) = hash_capacity(elements.len());
        let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
        let desc = self.class_desc("java.util.HashSet", -5024744406713321676, flags, &[], None);
        let mut head = capacity.to_be_bytes().to_vec();
        head.extend(0.75f32.to_be_bytes());
        head.extend((elements.len() as i32).to_be_bytes());
        let mut annotation = vec![block(head)];
        annotation.extend(elements.iter().map(|id| Content::Object(*id)));
        self.object(desc).annotate(desc, annotation).build()
    }

    /// A `java.util.TreeMap`: `comparator` must order the keys as they come.
    pub fn tree_map(&mut self, comparator: Option<NodeId>, entries: &[(NodeId, NodeId)]) -> NodeId {
        let desc = self.tree_map_desc();
        let annotation = tree_map_annotation(entries);
        self.object(desc).set("comparator", Value::Ref(comparator)).annotate(desc, annotation).build()
    }

    /// The descriptor of `java.util.TreeMap`, for its subclasses.
    pub fn tree_map_desc(&mut self) -> NodeId {
        let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
        let fields = [("comparator", "Ljava/util/Comparator;")];
        self.class_desc("java.util.TreeMap", 919286545866124006, flags, &fields, None)
    }
}

/// What `java.util.TreeMap.writeObject` writes: the size, then keys and values in order.
pub fn tree_map_annotation(entries: &[(NodeId, NodeId)]) -> Vec<Content> {
    let mut annotation = vec![block((entries.len() as i32).to_be_bytes().into())];
    for (key, value) in entries {
        annotation.extend([Content::Object(Some(*key)), Content::Object(Some(*value))]);
    }
    annotation
}

/// Capacity and threshold that a `HashMap` with this many entries has.
fn hash_capacity(entries: usize) -> (i32, i32) {
    let capacity = (entries * 4 / 3 + 1).next_power_of_two().max(16);
    (capacity as i32, (capacity * 3 / 4) as i32)
}

/// An object in the making: fields that are not set have Java's default values.
pub struct ObjectBuilder<'g> {
    graph: &'g mut Graph,
    desc: NodeId,
    values: Vec<(&'static str, Value)>,
    annotations: Vec<(NodeId, Vec<Content>)>,
}

impl ObjectBuilder<'_> {
    /// Sets a field, wherever in the hierarchy it is declared.
    #[must_use]
    pub fn set(mut self, name: &'static str, value: Value) -> Self {
        self.values.push((name, value));
        self
    }

    /// Sets a reference field.
    #[must_use]
    pub fn set_ref(self, name: &'static str, node: impl Into<Option<NodeId>>) -> Self {
        let node = node.into();
        self.set(name, Value::Ref(node))
    }

    /// Sets what the `writeObject` of a class of the hierarchy writes beside the fields.
    #[must_use]
    pub fn annotate(mut self, desc: NodeId, contents: Vec<Content>) -> Self {
        self.annotations.push((desc, contents));
        self
    }

    /// Sets block data that the `writeObject` of a class of the hierarchy writes; at most 255 bytes.
    #[must_use]
    pub fn annotate_bytes(self, desc: NodeId, bytes: Vec<u8>) -> Self {
        self.annotate(desc, vec![block(bytes)])
    }

    /// The object.
    pub fn build(self) -> NodeId {
        let id = self.graph.push(Node::Object(Object { desc: self.desc, parts: (0, 0) }));
        self.build_as(id)
    }

    fn build_as(mut self, id: NodeId) -> NodeId {
        let mut chain: Vec<NodeId> = std::iter::successors(Some(self.desc), |desc| {
            self.graph.super_of(*desc).filter(|_| !self.graph.is_externalizable(*desc))
        })
        .collect();
        chain.reverse();
        let first = self.graph.parts.len() as u32;
        for desc in chain {
            let Some(class) = self.graph.class(desc) else { continue };
            let values: Vec<Value> = class
                .written_fields(self.graph)
                .iter()
                .map(|field| {
                    let name = self.graph.bytes(&field.name);
                    let set = self.values.iter().rev().find(|(set, _)| set.as_bytes() == name);
                    set.map_or_else(|| default(field.code), |(_, value)| *value)
                })
                .collect();
            let at = self.annotations.iter().position(|(annotated, _)| *annotated == desc);
            let annotation = at.map_or_else(Vec::new, |at| self.annotations.swap_remove(at).1);
            let value_range = (self.graph.values.len() as u32, values.len() as u32);
            let annotation_range = (self.graph.annotations.len() as u32, annotation.len() as u32);
            self.graph.values.extend(values);
            self.graph.annotations.extend(annotation);
            self.graph.parts.push(Part { desc, values: value_range, annotation: annotation_range });
        }
        let parts = (first, self.graph.parts.len() as u32 - first);
        self.graph.nodes[id.index()] = Node::Object(Object { desc: self.desc, parts });
        id
    }

    /// The object, with a field that refers to the object itself (`Throwable.cause`).
    pub fn build_self_referring(mut self, name: &'static str) -> NodeId {
        let id = self.graph.push(Node::Object(Object { desc: self.desc, parts: (0, 0) }));
        self.values.push((name, Value::Ref(Some(id))));
        self.build_as(id)
    }
}

fn default(code: u8) -> Value {
    match code {
        b'B' => Value::Byte(0),
        b'C' => Value::Char(0),
        b'D' => Value::Double(0.0),
        b'F' => Value::Float(0.0),
        b'I' => Value::Int(0),
        b'J' => Value::Long(0),
        b'S' => Value::Short(0),
        b'Z' => Value::Bool(false),
        _ => Value::Ref(None),
    }
}
