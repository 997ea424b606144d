//! Decoding and encoding every record of the recorded session.

use std::hint::black_box;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use inbound_agent::object::{Graph, Limits};

fn records() -> Vec<Bytes> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/session.bin.gz");
    let mut session = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut session).unwrap();
    let mut session = Bytes::from(session);
    let mut out = Vec::new();
    while !session.is_empty() {
        let head = session.split_to(5);
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        out.push(session.split_to(length));
    }
    out
}

fn session(c: &mut Criterion) {
    let records = records();
    let limits = Limits::default();
    let graphs: Vec<Graph> = records.iter().map(|r| Graph::decode(r.clone(), &limits).unwrap()).collect();
    let mut group = c.benchmark_group("session");
    group.throughput(Throughput::Bytes(records.iter().map(|r| r.len() as u64).sum()));
    group.sample_size(20);
    group.bench_function("decode", |b| {
        b.iter(|| {
            for record in &records {
                black_box(Graph::decode(record.clone(), &limits).unwrap());
            }
        });
    });
    group.bench_function("encode", |b| {
        b.iter(|| {
            for graph in &graphs {
                black_box(graph.encode());
            }
        });
    });
    group.finish();
}

criterion_group!(benches, session);
criterion_main!(benches);
