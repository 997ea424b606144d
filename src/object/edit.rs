//! Changing a decoded or built [`Graph`] in place.

use bytes::Bytes;

use super::graph::{Content, Data, Graph, Node, NodeId, Value};
use super::mutf8;

impl Graph {
    /// Replaces strings: those for which `change` gives a new text. Names of classes and fields are no strings; type
    /// signatures are.
    pub fn map_strings(&mut self, mut change: impl FnMut(&str) -> Option<String>) {
        for index in 0..self.nodes.len() {
            let Node::String { data, .. } = &self.nodes[index] else { continue };
            let Some(text) = mutf8::decode(self.bytes(data)).ok().and_then(|text| change(&text)) else { continue };
            let data = Bytes::from(mutf8::encode(&text).into_owned());
            let long = data.len() > usize::from(u16::MAX);
            self.nodes[index] = Node::String { data: Data::Owned(data), long };
        }
    }

    /// Sets what each class is annotated with; `annotate` gets the classes' names, those of proxies as `$Proxy[...]`,
    /// in the order of the nodes, which is the stream's if the graph was decoded.
    pub fn annotate_classes(&mut self, mut annotate: impl FnMut(&str) -> Vec<u8>) {
        for index in 0..self.nodes.len() {
            if !matches!(self.nodes[index], Node::ClassDesc(_) | Node::ProxyDesc(_)) {
                continue;
            }
            let data = annotate(&self.class_name(NodeId::from_index(index)));
            let annotation = vec![Content::Block { data: Data::Owned(data.into()), long: false }];
            match &mut self.nodes[index] {
                Node::ClassDesc(desc) => desc.annotation = annotation,
                Node::ProxyDesc(desc) => desc.annotation = annotation,
                _ => {}
            }
        }
    }

    /// Sets a field of an object: how cycles are built. False if the object has no such field.
    pub fn set_field(&mut self, object: NodeId, name: &str, value: Value) -> bool {
        let Node::Object(object) = self.node(object) else { return false };
        let at = self.parts(object).iter().rev().find_map(|part| {
            let fields = &self.class(part.desc)?.fields;
            let at = fields.iter().position(|field| self.bytes(&field.name) == name.as_bytes())?;
            (at < part.values.1 as usize).then_some(part.values.0 as usize + at)
        });
        if let Some(at) = at {
            self.values[at] = value;
        }
        at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Limits;

    #[test]
    fn strings_classes_and_fields_change_and_nothing_else_does() {
        let mut graph = Graph::default();
        let desc = graph.serializable("a.B", 1, &[("path", "Ljava/lang/String;"), ("self", "La/B;")], None);
        let text = graph.string("/home/jenkins/agent/x");
        let object = graph.object(desc).set_ref("path", text).build();
        assert!(graph.set_field(object, "self", Value::Ref(Some(object))));
        assert!(!graph.set_field(object, "other", Value::Ref(None)));
        graph.map_strings(|text| text.strip_prefix("/home/jenkins").map(|rest| format!("/tmp{rest}")));
        let mut names = Vec::new();
        graph.annotate_classes(|name| {
            names.push(name.to_owned());
            vec![255; 4]
        });
        assert_eq!(names, ["a.B"]);
        let bytes = graph.encode_one(Some(object));
        let read = Graph::decode(bytes, &Limits::default()).unwrap();
        let root = read.root().unwrap();
        assert_eq!(root.require_string("path").unwrap(), "/tmp/agent/x");
        assert_eq!(root.require("self").unwrap().id(), root.id());
    }
}
