//! What a command costs: the recorded session through a channel, and bulk data between two ends of one.

use std::hint::black_box;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use inbound_agent::channel::command::{StreamOp, chunk};
use inbound_agent::channel::{Channel, Event, Liveness};
use inbound_agent::frame::Capability;
use inbound_agent::object::{Graph, Limits, Loader};

/// The commands of the recorded session that went to the agent.
fn to_agent() -> Vec<Bytes> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/session.bin.gz");
    let mut session = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut session).unwrap();
    let mut session = Bytes::from(session);
    let mut out = Vec::new();
    while !session.is_empty() {
        let head = session.split_to(5);
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        let record = session.split_to(length);
        if head[0] == 1 && record.starts_with(&[0xac, 0xed, 0, 5]) {
            out.push(record);
        }
    }
    out
}

fn channel() -> Channel {
    Channel::new(Instant::now(), Capability::OURS, Liveness::default())
}

/// Does at once what the events ask for: requests are answered with null.
fn serve(channel: &mut Channel) -> usize {
    let mut requests = 0;
    while let Some(event) = channel.poll_event() {
        match event {
            Event::Request { id, bare: true, .. } | Event::Read { id, .. } => {
                channel.respond_plain(id, Ok(&|_| None));
                requests += 1;
            }
            Event::Request { id, .. } => {
                channel.respond_user(id, Loader::None, Ok(Graph::default().encode_one(None)));
                requests += 1;
            }
            Event::Stream { oid, io_id, op } => {
                channel.acknowledge(inbound_agent::channel::command::StreamKind::Bytes, oid, op.size());
                channel.io_done(io_id);
                black_box(matches!(op, StreamOp::Write(_)));
            }
            Event::Closed(reason) => panic!("{reason}"),
            _ => {}
        }
    }
    requests
}

fn drain(channel: &mut Channel) -> usize {
    std::iter::from_fn(|| channel.poll_transmit()).map(|command| command.len()).sum()
}

fn session(c: &mut Criterion) {
    let mut commands = to_agent();
    // Its last command closes the channel.
    commands.retain(|command| !command.windows(12).any(|part| part == b"CloseCommand"));
    let bytes: usize = commands.iter().map(Bytes::len).sum();
    let run = |(mut channel, commands): (Channel, Vec<Bytes>)| {
        let now = Instant::now();
        let (mut requests, mut sent) = (0, 0);
        for command in commands {
            channel.handle_command(now, command);
            requests += serve(&mut channel);
            sent += drain(&mut channel);
        }
        (requests, sent)
    };
    let (requests, _) = run((channel(), commands.clone()));
    assert!(requests > 500, "{requests} requests");
    let mut group = c.benchmark_group("the recorded session");
    for (name, throughput) in
        [("bytes", Throughput::Bytes(bytes as u64)), ("commands", Throughput::Elements(commands.len() as u64))]
    {
        group.throughput(throughput);
        group.bench_function(name, |b| {
            b.iter_batched(|| (channel(), commands.clone()), run, BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn bulk(c: &mut Criterion) {
    const SIZE: usize = 64 << 10;
    const COUNT: usize = 256;
    let data = Bytes::from(vec![7; SIZE]);
    let mut group = c.benchmark_group("bulk");
    group.throughput(Throughput::Bytes(SIZE as u64));
    group.bench_function("a chunk encoded", |b| b.iter(|| chunk(1 << 30, 1, black_box(data.clone()))));
    let encoded = chunk(1 << 30, 1, data.clone());
    group.bench_function("a chunk decoded", |b| {
        b.iter(|| Graph::decode(black_box(encoded.clone()), &Limits::default()).unwrap());
    });
    group.throughput(Throughput::Bytes((SIZE * COUNT) as u64));
    group.bench_function("from one end to the other and acknowledged", |b| {
        let now = Instant::now();
        let (mut from, mut to) = (channel(), channel());
        let oid = to.export();
        to.add_reference(oid);
        from.open_stream(oid);
        b.iter(|| {
            for _ in 0..COUNT {
                assert!(from.window(oid).is_some_and(|window| window >= SIZE));
                from.write(oid, data.clone());
                while let Some(command) = from.poll_transmit() {
                    to.handle_command(now, command);
                }
                serve(&mut to);
                while let Some(command) = to.poll_transmit() {
                    from.handle_command(now, command);
                }
            }
        });
    });
    group.throughput(Throughput::Elements(COUNT as u64));
    group.bench_function("lines of a log", |b| {
        let line = Bytes::from_static(b"[INFO] Compiling 12 source files to /home/jenkins/agent/workspace/x\n");
        let now = Instant::now();
        let (mut from, mut to) = (channel(), channel());
        let oid = to.export();
        to.add_reference(oid);
        from.open_stream(oid);
        b.iter(|| {
            for _ in 0..COUNT {
                from.write(oid, line.clone());
                while let Some(command) = from.poll_transmit() {
                    to.handle_command(now, command);
                }
                serve(&mut to);
                while let Some(command) = to.poll_transmit() {
                    from.handle_command(now, command);
                }
            }
        });
    });
    group.finish();
}

criterion_group!(benches, session, bulk);
criterion_main!(benches);
