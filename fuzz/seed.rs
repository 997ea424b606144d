//! Writes fuzz corpora from the test fixtures: the first records of each command class, and the streams within them.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use inbound_agent::object::{Graph, Limits, Node, STREAM_HEADER};

const PER_CLASS: usize = 8;
const MAX_SIZE: usize = 4096;

fn main() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let mut session = Vec::new();
    let file = std::fs::File::open(fixtures.join("session.bin.gz")).expect("the fixture");
    flate2::read::GzDecoder::new(file).read_to_end(&mut session).expect("gzip");
    let mut session = Bytes::from(session);
    let mut waiting = Vec::new();
    while session.len() >= 5 {
        let head = session.split_to(5);
        let length = u32::from_be_bytes(head[1..].try_into().expect("four bytes")) as usize;
        waiting.push(session.split_to(length));
    }
    for directory in ["hostile", "java"] {
        for entry in std::fs::read_dir(fixtures.join(directory)).into_iter().flatten().flatten() {
            waiting.push(std::fs::read(entry.path()).expect("a fixture").into());
        }
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut seeds = Vec::new();
    while let Some(stream) = waiting.pop() {
        let graph = Graph::decode(stream.clone(), &Limits::default()).ok();
        let mut class = String::new();
        if let Some(graph) = &graph {
            class = graph.root().map_or_else(String::new, |root| root.class_name().into_owned());
            for node in graph.nodes() {
                if let Node::Primitives { data, .. } = node
                    && graph.bytes(data).starts_with(&STREAM_HEADER)
                {
                    waiting.push(graph.shared(data));
                }
            }
        }
        let count = seen.entry(class).or_default();
        if stream.len() <= MAX_SIZE && *count < PER_CLASS {
            *count += 1;
            seeds.push(stream);
        }
    }
    for target in ["object_reader", "decode_print"] {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&corpus).expect("a directory for the corpus");
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(corpus.join(format!("seed-{number}")), seed).expect("a seed");
        }
        println!("{target}: {} seeds", seeds.len());
    }
}
