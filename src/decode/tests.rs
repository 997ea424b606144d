use std::ffi::OsString;
use std::path::Path;

use super::*;
use crate::object::{Content, Value, sc};

/// Runs the command on files with these contents.
fn decode(flags: &[&str], contents: &[u8]) -> (String, Result<(), DecodeCommandError>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input");
    std::fs::write(&path, contents).unwrap();
    let (text, result) = decode_file(flags, &path);
    (text.replace(&path.display().to_string(), "FILE"), result)
}

fn decode_file(flags: &[&str], path: &Path) -> (String, Result<(), DecodeCommandError>) {
    let args: Vec<OsString> = flags.iter().map(OsString::from).chain([path.into()]).collect();
    let mut out = Vec::new();
    let result = run(&args, &mut out);
    (String::from_utf8(out).unwrap(), result)
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// An object with a superclass, a shared string, a nested stream and a self-reference.
fn sample() -> Vec<u8> {
    let mut inner = Graph::default();
    let text = inner.string("inside\u{1b}[31m");
    let inner = inner.encode_one(Some(text));
    let mut graph = Graph::default();
    let base = graph.serializable("a.Base", 1, &[("count", "I")], None);
    let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
    let fields =
        [("bytes", "[B"), ("self", "La/Derived;"), ("text", "Ljava/lang/String;"), ("again", "Ljava/lang/String;")];
    let derived = graph.class_desc("a.Derived", 2, flags, &fields, Some(base));
    let long = graph.string(&"long ".repeat(20));
    let bytes = graph.byte_array(inner);
    let boxed = graph.boxed_int(7);
    let object = graph
        .object(derived)
        .set("count", Value::Int(3))
        .set_ref("text", long)
        .set_ref("again", long)
        .set_ref("bytes", bytes)
        .annotate(derived, vec![Content::Object(Some(boxed)), Content::Object(None)])
        .build_self_referring("self");
    graph.encode_one(Some(object)).to_vec()
}

#[test]
fn the_tree_shows_each_class_with_its_fields_and_a_shared_node_once() {
    let (text, result) = decode(&[], &sample());
    result.unwrap();
    let long = "long ".repeat(20);
    let expected = format!(
        "\
FILE (SIZE bytes)
  a.Derived #NODE
    in a.Base
      count: 3
    in a.Derived
      again: \"{long}\" #TEXT
      bytes: byte[18], an object stream
        \"inside\\u{{1b}}[31m\"
      self: \u{2192} #NODE
      text: \u{2192} #TEXT
      - java.lang.Integer 7
      - null
"
    );
    let number = |after: &str| {
        let at = text.find(after).unwrap() + after.len();
        text[at..].split_whitespace().next().unwrap().to_owned()
    };
    let (node, string) = (number("a.Derived #"), number(&format!("{long}\" #")));
    let size = sample().len().to_string();
    assert_eq!(text, expected.replace("NODE", &node).replace("TEXT", &string).replace("SIZE", &size));
}

#[test]
fn json_is_one_object_per_stream_with_a_flat_list_of_nodes() {
    let (text, result) = decode(&["--json"], &sample());
    result.unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let nodes = json["nodes"].as_array().unwrap();
    let node = |id: &serde_json::Value| nodes.iter().find(|node| node["id"] == id["ref"]).unwrap();
    let object = node(&json["contents"][0]);
    assert_eq!(object["class"], "a.Derived");
    assert_eq!(object["parts"][0]["fields"][0], serde_json::json!({"name": "count", "value": 3}));
    let fields = object["parts"][1]["fields"].as_array().unwrap();
    let field = |name: &str| &fields.iter().find(|field| field["name"] == name).unwrap()["value"];
    assert_eq!(field("again"), field("text"));
    assert_eq!(node(field("text"))["string"], "long ".repeat(20));
    assert_eq!(field("self")["ref"], object["id"]);
    assert_eq!(node(field("bytes"))["stream"]["contents"][0], "inside\u{1b}[31m");
    assert_eq!(object["parts"][1]["data"][1], serde_json::Value::Null);
}

#[test]
fn a_session_is_summed_up_by_callable_and_its_answers() {
    let (text, result) = decode_file(&["--summary"], &fixture("session.bin.gz"));
    result.unwrap();
    let row = |direction: &str, what: &str| -> Vec<String> {
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        text.lines().map(cells).find(|cells| cells[1] == direction && cells[2] == what).unwrap()[3..7].to_vec()
    };
    assert_eq!(row("to agent", "hudson.FilePath$Mkdirs"), ["64", "346689", "63", "1"]);
    assert_eq!(row("to agent", "hudson.Launcher$RemoteProcess.getIOtriplet"), ["23", "269060", "23", "0"]);
    assert_eq!(row("to agent", "hudson.node_monitors.DiskSpaceMonitorDescriptor$GetUsableSpace")[0], "1");
    let widths: std::collections::HashSet<usize> = text.lines().map(|line| line.chars().count()).collect();
    assert_eq!(widths.len(), 1, "columns are aligned");
}

#[test]
fn the_round_trip_of_a_session_counts_inner_streams_and_differs_nowhere() {
    let (text, result) = decode_file(&["--roundtrip"], &fixture("session.bin.gz"));
    result.unwrap();
    assert!(text.ends_with("streams, 0 differ\n"), "{text}");
}

#[test]
fn a_stream_that_encodes_differently_fails_the_round_trip() {
    // A boolean of 2, which no Java writes, is true and comes out as 1.
    let mut graph = Graph::default();
    let object = graph.boxed_bool(true);
    let mut bytes = graph.encode_one(Some(object)).to_vec();
    *bytes.last_mut().unwrap() = 2;
    let (text, result) = decode(&["--roundtrip"], &bytes);
    assert!(matches!(result, Err(DecodeCommandError::Roundtrip { count: 1, total: 1, .. })), "{result:?}");
    assert!(text.contains(&format!("differs from byte {} on", bytes.len() - 1)), "{text}");
}

#[test]
fn deep_and_shared_structures_print_in_proportion_to_their_size() {
    for flags in [&[][..], &["--full", "--annotations"], &["--json"]] {
        let (text, result) = decode_file(flags, &fixture("hostile/dag.ser"));
        result.unwrap();
        assert!(text.len() < 20_000, "{flags:?}: {}", text.len());
    }
    let mut graph = Graph::default();
    let mut node = None;
    for _ in 0..1_900 {
        node = Some(graph.array("[Ljava.lang.Object;", -8012369246846506644, &[node]));
    }
    let (text, result) = decode(&[], &graph.encode_one(node));
    result.unwrap();
    assert_eq!(text.lines().count(), 1_902);
    assert!(text.len() < 300_000, "{}", text.len());
}

#[test]
fn damage_is_reported_in_its_place_and_the_rest_is_shown() {
    let stream = sample();
    let record = |direction: u8, bytes: &[u8]| {
        let mut out = vec![direction];
        out.extend((bytes.len() as u32).to_be_bytes());
        out.extend(bytes);
        out
    };
    let session = [record(1, &stream), record(0, &stream[..50]), record(1, &stream)].concat();
    let (text, result) = decode(&[], &session);
    assert!(matches!(result, Err(DecodeCommandError::Streams { count: 1, total: 3, .. })), "{result:?}");
    assert_eq!(text.matches("count: 3").count(), 2);
    assert!(text.contains("1 to the controller (50 bytes)\n  error: object stream, byte"), "{text}");
    let (text, result) = decode(&[], &session[..session.len() - 1]);
    assert!(result.is_err());
    assert!(text.contains("the file ends inside of this record"), "{text}");
    for other in [&b""[..], b"PK\x03\x04", b"\x01\x7f\xff\xff\xff"] {
        assert!(matches!(decode(&[], other).1, Err(DecodeCommandError::Format { .. })), "{other:?}");
    }
}

#[test]
fn class_annotations_and_stack_traces_are_shown_on_demand() {
    let path = fixture("java/throwable.ser");
    let (short, _) = decode_file(&[], &path);
    assert!(short.contains("stackTrace: java.lang.StackTraceElement[") && !short.contains("lineNumber"), "{short}");
    let (full, _) = decode_file(&["--full"], &path);
    assert!(full.contains("lineNumber"), "{full}");
    let (annotated, _) = decode_file(&["--annotations"], &path);
    assert!(annotated.contains("class java.lang.Throwable, serialVersionUID -3042686055658047285, flags 0x03"));
    assert!(!short.contains("serialVersionUID"));
}

#[test]
fn help_is_printed_and_bad_options_are_refused() {
    let mut out = Vec::new();
    run(&["--help".into()], &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().contains("--roundtrip"));
    let result = run(&["--nonsense".into()], &mut Vec::new());
    assert!(matches!(result, Err(DecodeCommandError::Usage(_))), "{result:?}");
    let result = run(&["/does/not/exist".into()], &mut Vec::new());
    assert!(matches!(result, Err(DecodeCommandError::Read { .. })), "{result:?}");
}
