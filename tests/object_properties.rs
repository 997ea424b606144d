//! Arbitrary graphs and arbitrary damage.

use bytes::Bytes;
use inbound_agent::object::{Content, Graph, Limits, Node, NodeId, Value, sc};
use proptest::prelude::*;

/// A node to be built: references are indices, taken modulo the number of nodes built before.
#[derive(Clone, Debug)]
enum Item {
    Text(String),
    /// Longer than a short string can be.
    LongText(u16),
    Bytes(Vec<u8>),
    Longs(Vec<i64>),
    Array(Vec<Option<usize>>),
    List(Vec<Option<usize>>),
    Map(Vec<(usize, Option<usize>)>),
    Set(Vec<usize>),
    Enum(u8),
    Boxed(i32),
    Object {
        class: u8,
        number: i64,
        float: f64,
        unit: u16,
        flag: bool,
        one: Option<usize>,
        two: Option<usize>,
        itself: bool,
    },
    Custom {
        blocks: Vec<Vec<u8>>,
        inner: Vec<Option<usize>>,
    },
    Proxy(usize),
}

fn reference() -> impl Strategy<Value = Option<usize>> {
    proptest::option::weighted(0.8, any::<usize>())
}

fn item() -> impl Strategy<Value = Item> {
    let references = || proptest::collection::vec(reference(), 0..6);
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    prop_oneof![
        any::<String>().prop_map(Item::Text),
        Just(Item::Text("nul \0, pair \u{1f600}, euro \u{20ac}".to_owned())),
        any::<u16>().prop_map(Item::LongText),
        bytes(40).prop_map(Item::Bytes),
        proptest::collection::vec(any::<i64>(), 0..5).prop_map(Item::Longs),
        references().prop_map(Item::Array),
        references().prop_map(Item::List),
        proptest::collection::vec((any::<usize>(), reference()), 0..4).prop_map(Item::Map),
        proptest::collection::vec(any::<usize>(), 0..4).prop_map(Item::Set),
        any::<u8>().prop_map(Item::Enum),
        any::<i32>().prop_map(Item::Boxed),
        (any::<u8>(), any::<i64>(), any::<f64>(), any::<u16>(), any::<bool>(), reference(), reference(), any::<bool>())
            .prop_map(|(class, number, float, unit, flag, one, two, itself)| {
                Item::Object { class, number, float, unit, flag, one, two, itself }
            }),
        (proptest::collection::vec(bytes(600), 0..3), references())
            .prop_map(|(blocks, inner)| Item::Custom { blocks, inner }),
        any::<usize>().prop_map(Item::Proxy),
    ]
}

fn build(items: &[Item]) -> Graph {
    let mut graph = Graph::default();
    let mut built: Vec<NodeId> = Vec::new();
    for item in items {
        let at = |index: &usize| built.get(index % built.len().max(1)).copied();
        let all = |indices: &[Option<usize>]| -> Vec<_> { indices.iter().map(|i| i.as_ref().and_then(at)).collect() };
        let id = match item {
            Item::Text(text) => graph.string(text),
            Item::LongText(length) => graph.string(&"\u{e4}".repeat(32_768 + usize::from(*length % 512))),
            Item::Bytes(bytes) => graph.byte_array(Bytes::copy_from_slice(bytes)),
            Item::Longs(longs) => graph.long_array(longs),
            Item::Array(elements) => graph.array("[Ljava.lang.Object;", -8012369246846506644, &all(elements)),
            Item::List(elements) => graph.array_list(&all(elements)),
            Item::Map(entries) => {
                let entries: Vec<_> = entries.iter().map(|(k, v)| (at(k), v.as_ref().and_then(at))).collect();
                graph.hash_map(&entries)
            }
            Item::Set(elements) => {
                let elements: Vec<_> = elements.iter().map(at).collect();
                graph.hash_set(&elements)
            }
            Item::Enum(constant) => graph.enum_constant("a.Colour", &format!("C{}", constant % 3)),
            Item::Boxed(value) => graph.boxed_int(*value),
            Item::Object { class, number, float, unit, flag, one, two, itself } => {
                let base = graph.serializable("a.Base", 1, &[("number", "J"), ("one", "Ljava/lang/Object;")], None);
                let fields =
                    [("two", "Ljava/lang/Object;"), ("float", "D"), ("unit", "C"), ("flag", "Z"), ("me", "La/Base;")];
                let desc = match class % 3 {
                    0 => base,
                    1 => graph.serializable("a.Derived", 2, &fields, Some(base)),
                    _ => graph.serializable("a.Empty", 3, &[], Some(base)),
                };
                let object = graph
                    .object(desc)
                    .set("number", Value::Long(*number))
                    .set("float", Value::Double(*float))
                    .set("unit", Value::Char(*unit))
                    .set("flag", Value::Bool(*flag))
                    .set_ref("one", one.as_ref().and_then(at))
                    .set_ref("two", two.as_ref().and_then(at));
                if *itself { object.build_self_referring("me") } else { object.build() }
            }
            Item::Custom { blocks, inner } => {
                let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
                let desc = graph.class_desc("a.Custom", 4, flags, &[("size", "I")], None);
                let mut contents: Vec<Content> = all(inner).into_iter().map(Content::Object).collect();
                for block in blocks {
                    let data = inbound_agent::object::Data::Owned(Bytes::copy_from_slice(block));
                    contents.push(Content::Block { data, long: false });
                }
                graph.object(desc).set("size", Value::Int(1)).annotate(desc, contents).build()
            }
            Item::Proxy(handler) => {
                let desc = graph.proxy_desc(&["a.One", "b.Two"]);
                graph.object(desc).set_ref("h", at(handler)).build()
            }
        };
        built.push(id);
    }
    for id in built {
        graph.put(Some(id));
    }
    graph
}

/// Whether two graphs hold the same, told by a walk in step that sees each pair of nodes once.
fn same(left: &Graph, right: &Graph) {
    let mut pairs: std::collections::HashMap<NodeId, NodeId> = std::collections::HashMap::new();
    let mut waiting = Vec::new();
    let same_contents = |a: &[Content], b: &[Content], waiting: &mut Vec<_>| {
        assert_eq!(a.len(), b.len());
        for pair in a.iter().zip(b) {
            match pair {
                (Content::Object(a), Content::Object(b)) => waiting.push((*a, *b)),
                (Content::Block { data: a, .. }, Content::Block { data: b, .. }) => {
                    assert_eq!(left.bytes(a), right.bytes(b));
                }
                pair => assert!(matches!(pair, (Content::Reset, Content::Reset)), "{pair:?}"),
            }
        }
    };
    let same_values = |a: &[Value], b: &[Value], waiting: &mut Vec<_>| {
        assert_eq!(a.len(), b.len());
        for pair in a.iter().zip(b) {
            match pair {
                (Value::Ref(a), Value::Ref(b)) => waiting.push((*a, *b)),
                (Value::Double(a), Value::Double(b)) => assert_eq!(a.to_bits(), b.to_bits()),
                (a, b) => assert_eq!(a, b),
            }
        }
    };
    same_contents(left.contents(), right.contents(), &mut waiting);
    while let Some((a, b)) = waiting.pop() {
        let (Some(a), Some(b)) = (a, b) else {
            assert_eq!(a, b);
            continue;
        };
        if let Some(seen) = pairs.insert(a, b) {
            assert_eq!(seen, b, "what is shared stays shared");
            continue;
        }
        let (a, b) = (left.view(a), right.view(b));
        assert_eq!(a.class_name(), b.class_name());
        match (a.node(), b.node()) {
            (Node::String { data: a, .. }, Node::String { data: b, .. }) => assert_eq!(left.bytes(a), right.bytes(b)),
            (Node::Primitives { data: a, .. }, Node::Primitives { data: b, .. }) => {
                assert_eq!(left.bytes(a), right.bytes(b));
            }
            (Node::Enum { constant: a, .. }, Node::Enum { constant: b, .. }) => waiting.push((Some(*a), Some(*b))),
            (Node::Array { .. }, Node::Array { .. }) => {
                same_values(left.array_values(a.id()), right.array_values(b.id()), &mut waiting);
            }
            (Node::Object(a), Node::Object(b)) => {
                // Of a built graph, classes without data have parts too; a stream does not tell.
                let full = |graph: &Graph, object| -> Vec<_> {
                    let parts = graph.parts(object).iter();
                    parts.filter(|p| !graph.values(p).is_empty() || !graph.annotation(p).is_empty()).cloned().collect()
                };
                let (a, b) = (full(left, a), full(right, b));
                assert_eq!(a.len(), b.len());
                for (a, b) in a.iter().zip(&b) {
                    same_values(left.values(a), right.values(b), &mut waiting);
                    same_contents(left.annotation(a), right.annotation(b), &mut waiting);
                }
            }
            (a, b) => panic!("{a:?} against {b:?}"),
        }
    }
}

fn decode(bytes: &Bytes) -> Graph {
    Graph::decode(bytes.clone(), &Limits::default()).unwrap_or_else(|e| panic!("{e}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_built_reads_back_and_encodes_to_the_same_bytes(items in proptest::collection::vec(item(), 0..12)) {
        let built = build(&items);
        let bytes = Bytes::from(built.encode());
        let decoded = decode(&bytes);
        same(&built, &decoded);
        prop_assert_eq!(Bytes::from(decoded.encode()), bytes);
    }

    #[test]
    fn a_copy_in_another_graph_is_the_same(items in proptest::collection::vec(item(), 1..8)) {
        let decoded = decode(&build(&items).encode().into());
        let mut copy = build(&items[..1]);
        let root = decoded.root().unwrap().id();
        let imported = copy.import(&decoded, root);
        let alone = decode(&copy.encode_one(Some(imported)));
        let mut original = decoded.clone();
        original.set_root(root);
        same(&original, &alone);
    }

    #[test]
    fn damage_never_panics(
        items in proptest::collection::vec(item(), 1..8),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
    ) {
        let mut bytes = build(&items).encode();
        for (index, byte, kind) in damage {
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
            if bytes.is_empty() {
                break;
            }
        }
        if let Ok(graph) = Graph::decode(bytes.into(), &Limits::default()) {
            let again = decode(&graph.encode().into());
            prop_assert_eq!(again.encode(), graph.encode());
            for index in 0..graph.nodes().len() {
                let view = graph.view(graph.id_at(index).unwrap());
                let _ = (view.collection(), view.map(), view.as_str(), view.unboxed());
            }
        }
    }
}

/// A stream written by hand.
fn stream(parts: &[&[u8]]) -> Bytes {
    [&[0xac, 0xed, 0, 5][..], &parts.concat()].concat().into()
}

#[test]
fn after_a_reset_handles_start_anew() {
    let text: &[u8] = b"t\0\x01a";
    let first: &[u8] = b"q\0\x7e\0\0";
    let bytes = stream(&[text, first, b"y", text, first]);
    let graph = decode(&bytes);
    let contents: Vec<_> = graph.contents().iter().map(|content| format!("{content:?}")).collect();
    assert_eq!(contents[0], contents[1]);
    assert_eq!(contents[2], "Reset");
    assert_eq!(contents[3], contents[4]);
    assert_ne!(contents[0], contents[3]);
    assert_eq!(graph.encode(), bytes);
    assert!(Graph::decode(stream(&[text, b"y", first]), &Limits::default()).is_err(), "a handle of before the reset");
}

#[test]
fn a_reset_inside_of_an_object_is_an_error() {
    let array: &[u8] = b"ur\0\x02[L\0\0\0\0\0\0\0\0\x02\0\0xp\0\0\0\x01";
    assert!(Graph::decode(stream(&[array, b"p"]), &Limits::default()).is_ok());
    assert!(Graph::decode(stream(&[array, b"yp"]), &Limits::default()).is_err());
}

#[test]
fn an_exception_ends_the_object_in_progress_wherever_it_stands() {
    const EXCEPTION: &[u8] = b"{sr\0\x01E\0\0\0\0\0\0\0\0\x02\0\0xp";
    let cases: [(&str, &[u8]); 6] = [
        ("at the top", b""),
        ("an element", b"ur\0\x02[L\0\0\0\0\0\0\0\0\x02\0\0xp\0\0\0\x09p"),
        ("a field", b"sr\0\x01F\0\0\0\0\0\0\0\0\x02\0\x02L\0\x01at\0\x03LA;L\0\x01bq\0\x7e\0\x01xp"),
        ("an object's own data", b"sr\0\x01W\0\0\0\0\0\0\0\0\x03\0\0xpw\x01\0"),
        ("a class's annotation", b"sr\0\x01C\0\0\0\0\0\0\0\0\x02\0\0w\x01\0"),
        ("within an exception", b"{sr\0\x01W\0\0\0\0\0\0\0\0\x03\0\0xp"),
    ];
    for (place, unfinished) in cases {
        // What follows has the first handle.
        let bytes = stream(&[unfinished, EXCEPTION, b"t\0\x01aq\0\x7e\0\0"]);
        let graph = Graph::decode(bytes.clone(), &Limits::default()).unwrap_or_else(|e| panic!("{place}: {e}"));
        assert_eq!(graph.contents().len(), 3, "{place}");
        assert!(graph.nodes().iter().any(|node| matches!(node, Node::Aborted(_))), "{place}");
        assert_eq!(graph.encode(), bytes, "{place}");
    }
}
