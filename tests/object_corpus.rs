//! Object streams against a recorded session and against hostile input.

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use inbound_agent::object::{Graph, Limits, Node};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn gunzip(name: &str) -> Vec<u8> {
    let file = std::fs::File::open(fixture(name)).unwrap();
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut out).unwrap();
    out
}

/// The records of the session: direction (1 = to agent) and bytes.
fn records() -> Vec<(u8, Bytes)> {
    let mut session = Bytes::from(gunzip("session.bin.gz"));
    let mut out = Vec::new();
    while !session.is_empty() {
        let head = session.split_to(5);
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        out.push((head[0], session.split_to(length)));
    }
    out
}

fn is_stream(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xac, 0xed, 0, 5])
}

/// Every byte array in a graph that is itself an object stream.
fn inner_streams(graph: &Graph) -> Vec<Bytes> {
    let arrays = graph.nodes().iter().filter_map(|node| match node {
        Node::Primitives { data, .. } => Some(graph.shared(data)),
        _ => None,
    });
    arrays.filter(|bytes| is_stream(bytes)).collect()
}

#[test]
fn every_record_and_every_stream_inside_one_encodes_back_to_identical_bytes() {
    let (mut outer, mut inner) = (0, 0);
    for (number, (_, record)) in records().into_iter().enumerate() {
        let graph = Graph::decode(record.clone(), &Limits::default()).unwrap_or_else(|e| panic!("{number}: {e}"));
        assert_eq!(graph.encode(), record, "record {number}");
        outer += 1;
        for stream in inner_streams(&graph) {
            let graph = Graph::decode(stream.clone(), &Limits::default()).unwrap_or_else(|e| panic!("{number}: {e}"));
            assert_eq!(graph.encode(), stream, "inside record {number}");
            inner += 1;
        }
    }
    assert!(outer > 8_000 && inner > 900, "{outer} records, {inner} inner streams");
}
