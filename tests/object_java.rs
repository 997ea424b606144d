//! Streams that Java itself wrote: each decodes, encodes back to the same bytes, and reads as what it was.

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use inbound_agent::object::{Content, Graph, Limits, Node, Value, View};

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/java");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension != "java"));
    files.sort();
    files
}

fn contents(path: &Path) -> Bytes {
    let raw = std::fs::read(path).unwrap();
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(&raw[..]).read_to_end(&mut out).unwrap();
        return out.into();
    }
    raw.into()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().split('.').next().unwrap().to_owned()
}

fn load(wanted: &str) -> Graph {
    let path = files().into_iter().find(|path| name(path) == wanted).unwrap();
    Graph::decode(contents(&path), &Limits::default()).unwrap()
}

fn objects(graph: &Graph) -> Vec<Option<View<'_>>> {
    let objects = graph.contents().iter().filter_map(|content| match content {
        Content::Object(id) => Some(id.map(|id| graph.view(id))),
        _ => None,
    });
    objects.collect()
}

/// A string, number, enum constant or null as text.
fn text(view: Option<View<'_>>) -> String {
    let Some(view) = view else { return "null".to_owned() };
    match view.unboxed() {
        Some(value) => format!("{value:?}"),
        None => view.as_str().or_else(|_| view.constant()).unwrap().into_owned(),
    }
}

#[test]
fn all_decode_and_encode_to_the_same_bytes() {
    for path in files() {
        let bytes = contents(&path);
        let graph = Graph::decode(bytes.clone(), &Limits::default()).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        assert_eq!(graph.encode(), bytes, "{path:?}");
    }
}

#[test]
fn collections_and_maps_hold_what_was_put_into_them() {
    let mut seen = 0;
    for path in files() {
        let name = name(&path);
        let graph = load(&name);
        let root = || graph.root().unwrap();
        if name.starts_with("col_") {
            let mut elements: Vec<_> = root().collection().unwrap().into_iter().map(text).collect();
            elements.sort();
            assert_eq!(elements, ["one", "two"], "{name}");
        } else if name.starts_with("map_") {
            let entries = root().map().unwrap().into_iter();
            let mut entries: Vec<_> = entries.map(|(k, v)| format!("{}={}", text(k), text(v))).collect();
            entries.sort();
            let properties = ["one=1", "two=2"];
            let others = ["one=Int(1)", "two=Long(2)"];
            assert_eq!(entries, if name == "map_properties" { properties } else { others }, "{name}");
        } else {
            continue;
        }
        seen += 1;
    }
    assert!(seen >= 23, "{seen}");
    let graph = load("map2_enum");
    let entries = graph.root().unwrap().map().unwrap();
    assert_eq!(entries.into_iter().map(|(k, v)| text(k) + &text(v)).collect::<Vec<_>>(), ["ROUNDr", "SQUAREs"]);
    let graph = load("map1_singleton");
    assert_eq!(text(graph.root().unwrap().map().unwrap()[0].1), "Int(1)");
    assert!(load("map0_empty").root().unwrap().map().unwrap().is_empty());
    assert!(load("col0_empty").root().unwrap().collection().unwrap().is_empty());
    let graph = load("enumset");
    assert_eq!(text(graph.root().unwrap().collection().unwrap()[0]), "SQUARE");
}

#[test]
fn a_wrapper_of_a_list_that_came_before_it_reads_as_that_list() {
    let graph = load("shared_wrapper");
    let lists = objects(&graph).into_iter();
    let lists: Vec<Vec<String>> =
        lists.map(|list| list.unwrap().collection().unwrap().into_iter().map(text).collect()).collect();
    assert_eq!(lists, [["one", "two"], ["one", "two"]]);
}

#[test]
fn an_externalizable_class_writes_for_its_superclasses_too() {
    let graph = load("externalizable");
    let objects = objects(&graph);
    assert_eq!(objects.len(), 3);
    assert!(objects[1].unwrap().is("Make$Ext2"));
    assert_eq!(objects[1].unwrap().annotation_bytes("Make$Ext2"), b"\0\0\0\x2a\0\x03utf");
    assert_eq!(text(objects[2]), "after");
}

#[test]
fn an_object_whose_writing_failed_ends_there_and_the_next_one_is_read() {
    let graph = load("aborted");
    let objects = objects(&graph);
    assert_eq!(objects.len(), 3);
    assert_eq!((text(objects[0]), text(objects[2])), ("first".to_owned(), "next".to_owned()));
    let elements: Vec<_> = objects[1].unwrap().elements().unwrap().collect();
    assert_eq!(text(elements[0]), "partial");
    assert!(elements[2].is_none());
    let bad = elements[1].unwrap();
    assert_eq!(bad.field("i"), Some(Value::Int(3)));
    let Node::Aborted(exception) = bad.get("z").unwrap().unwrap().node() else { panic!("{bad:?}") };
    let exception = graph.view(*exception);
    assert!(exception.is("java.io.NotSerializableException"));
    assert_eq!(exception.require_string("detailMessage").unwrap(), "java.lang.Object");

    let graph = load("aborted_top");
    assert!(matches!(graph.root().unwrap().node(), Node::Aborted(_)));
    assert_eq!(graph.contents().len(), 3);
}

#[test]
fn primitives_strings_and_the_rest_have_their_values() {
    let graph = load("primitives");
    let root = graph.root().unwrap();
    assert_eq!(root.field("b"), Some(Value::Byte(-1)));
    assert_eq!(root.field("c"), Some(Value::Char(0xd800)));
    assert!(matches!(root.field("d"), Some(Value::Double(v)) if v == 0.0 && v.is_sign_negative()));
    assert!(matches!(root.field("f"), Some(Value::Float(v)) if v.is_nan()));
    assert_eq!(root.field("i"), Some(Value::Int(i32::MIN)));
    assert_eq!(root.field("j"), Some(Value::Long(i64::MIN)));
    assert_eq!(root.field("s"), Some(Value::Short(-2)));
    assert_eq!(root.field("z"), Some(Value::Bool(true)));
    assert_eq!(root.field("self"), Some(Value::Ref(Some(root.id()))));
    assert_eq!(root.field("n"), Some(Value::Ref(None)));

    let graph = load("strings");
    let strings: Vec<String> = objects(&graph).into_iter().map(text).collect();
    assert_eq!(strings[0], "x".repeat(70_000));
    assert_eq!(strings[1..], ["nul\0", "\u{1f600}", "?lone", "", "\u{e4}\u{20ac}"]);

    let graph = load("arrays");
    let arrays = objects(&graph);
    let values: Vec<Vec<Value>> = arrays[..8].iter().map(|array| array.unwrap().primitives().collect()).collect();
    assert_eq!(values[0], [Value::Byte(1), Value::Byte(-1)]);
    assert_eq!(values[1], [Value::Char(0x61), Value::Char(0xd83d)]);
    assert_eq!(values[2], [Value::Double(1.5), Value::Double(-0.0)]);
    assert_eq!(values[3], [Value::Float(2.5)]);
    assert_eq!(values[4], [Value::Int(1), Value::Int(-2)]);
    assert_eq!(values[5], [Value::Long(3)]);
    assert_eq!(values[6], [Value::Short(-4)]);
    assert_eq!(values[7], [Value::Bool(true), Value::Bool(false)]);

    let graph = load("reset");
    assert!(matches!(graph.contents()[2], Content::Reset));
    let graph = load("proxy");
    assert_eq!(graph.root().unwrap().interfaces(), ["java.lang.Runnable", "java.lang.Comparable"]);
    let graph = load("throwable");
    let root = graph.root().unwrap();
    assert_eq!(root.require("cause").unwrap().require_string("detailMessage").unwrap(), "cause");
    assert_eq!(root.require("suppressedExceptions").unwrap().collection().unwrap().len(), 1);
}
