//! What reading costs: hostile streams and cut-off ones end in an error within 1 MB of memory beyond their own size.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use inbound_agent::object::{Graph, Limits, Node, STREAM_HEADER};

/// Counts what the current thread holds, and the most that it held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // Fails only while the thread ends.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: all calls are passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those that `System` needs.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While it is moved, both are held.
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ALLOWED: isize = 1 << 20;
/// Two orders of magnitude above what an optimised build takes: this tells linear from quadratic, and no more.
const PATIENCE: Duration = Duration::from_secs(5);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn gunzip(raw: &[u8]) -> Bytes {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(raw).read_to_end(&mut out).unwrap();
    out.into()
}

/// Decodes, and returns the memory that this took at most.
fn measure(input: Bytes) -> (Option<Graph>, isize) {
    let before = HELD.get();
    PEAK.set(before);
    let start = Instant::now();
    let graph = Graph::decode(input, &Limits::default()).ok();
    let peak = PEAK.get() - before;
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    (graph, peak)
}

#[test]
fn the_allocator_counts() {
    let before = HELD.get();
    PEAK.set(before);
    drop(std::hint::black_box(vec![0u8; 100_000]));
    assert!(PEAK.get() - before >= 100_000);
    assert_eq!(HELD.get(), before);
}

#[test]
fn hostile_streams_end_in_an_error_and_cost_little() {
    let mut seen = 0;
    for entry in std::fs::read_dir(fixture("hostile")).unwrap() {
        let path = entry.unwrap().path();
        let raw = std::fs::read(&path).unwrap();
        let input = if path.extension().is_some_and(|e| e == "gz") { gunzip(&raw) } else { raw.into() };
        let (graph, peak) = measure(input);
        assert!(peak <= ALLOWED, "{path:?}: {peak} bytes");
        assert_eq!(graph.is_some(), path.ends_with("dag.ser"), "{path:?}");
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn every_truncation_of_recorded_and_java_streams_is_an_error_or_a_shorter_stream() {
    const EVERY: usize = 80;
    const MAX_SIZE: usize = 4096;
    let mut session = gunzip(&std::fs::read(fixture("session.bin.gz")).unwrap());
    let mut streams = Vec::new();
    let mut number = 0;
    while !session.is_empty() {
        let head = session.split_to(5);
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        let record = session.split_to(length);
        number += 1;
        if number % EVERY == 1 && length < MAX_SIZE {
            let graph = Graph::decode(record.clone(), &Limits::default()).unwrap();
            let arrays = graph.nodes().iter().filter_map(|node| match node {
                Node::Primitives { data, .. } => Some(graph.shared(data)),
                _ => None,
            });
            streams.extend(arrays.filter(|bytes| bytes.starts_with(&STREAM_HEADER)));
            streams.push(record);
        }
    }
    for entry in std::fs::read_dir(fixture("java")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "ser") {
            streams.push(std::fs::read(path).unwrap().into());
        }
    }
    assert!(streams.len() > 120, "{}", streams.len());
    let (mut errors, mut shorter) = (0, 0);
    for stream in streams {
        for end in 0..stream.len() {
            let (graph, peak) = measure(stream.slice(..end));
            assert!(peak <= ALLOWED, "{peak} bytes for the first {end} of {:?}", &stream[..64.min(stream.len())]);
            let Some(graph) = graph else {
                errors += 1;
                continue;
            };
            // A cut between top-level items, or inside of what an abort left unfinished.
            assert_eq!(graph.encode(), stream[..end]);
            shorter += 1;
        }
    }
    assert!(errors > 80_000 && shorter > 100, "{errors} errors, {shorter} shorter streams");
}
