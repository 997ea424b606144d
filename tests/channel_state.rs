//! The channel's state machine under a virtual clock, against the loopback controller's end and against raw commands.

mod steps;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use inbound_agent::channel::command::{self, Command, Grant, StreamKind, StreamOp};
use inbound_agent::channel::state::{CHANNEL_OID, CLOSE_TIMEOUT, End as StreamEnd, FIRST_ID, MAX_REQUESTS, WINDOW};
use inbound_agent::channel::{Channel, CloseReason, Event, Liveness, Throw};
use inbound_agent::demo::controller::end::{CORE_LOADER, End, Kind, grants};
use inbound_agent::demo::controller::requests;
use inbound_agent::frame::{Assembler, Capability, encode};
use inbound_agent::object::{Graph, Limits, Loader};
use proptest::collection::vec;
use proptest::prelude::*;

const NULL: Bytes = Bytes::from_static(b"\xac\xed\0\x05p");

fn channel() -> (Channel, Instant) {
    let now = Instant::now();
    (Channel::new(now, Capability::OURS, Liveness::default()), now)
}

/// A channel that knows a class loader of its peer's.
fn introduced() -> (Channel, Instant) {
    let (mut channel, now) = channel();
    channel.handle_command(now, command::user_request(0, 0, CORE_LOADER, command::ping(), "first"));
    assert!(matches!(channel.poll_event(), Some(Event::Request { id: 0, bare: false, .. })));
    channel.respond_user(0, Loader::None, Ok(NULL));
    sent(&mut channel);
    (channel, now)
}

fn sent(channel: &mut Channel) -> Vec<Command> {
    let commands = std::iter::from_fn(|| channel.poll_transmit());
    commands.map(|bytes| Command::read(Graph::decode(bytes, &Limits::default()).unwrap()).unwrap()).collect()
}

/// Classes of what was sent, for commands that [`Command`] does not tell apart.
fn classes(channel: &mut Channel) -> Vec<String> {
    let commands = std::iter::from_fn(|| channel.poll_transmit());
    let name = |bytes| Graph::decode(bytes, &Limits::default()).unwrap().root().unwrap().class_name().into_owned();
    commands.map(name).map(|name: String| name.trim_start_matches("hudson.remoting.").to_owned()).collect()
}

fn events(channel: &mut Channel) -> Vec<Event> {
    std::iter::from_fn(|| channel.poll_event()).collect()
}

fn closed(channel: &mut Channel) -> Option<CloseReason> {
    events(channel).into_iter().find_map(|event| match event {
        Event::Closed(reason) => Some(reason),
        _ => None,
    })
}

/// Moves commands until neither side has any; the channel's events on the way.
fn step(channel: &mut Channel, end: &End, now: Instant) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        let mut moved = false;
        while let Some(command) = end.poll() {
            channel.handle_command(now, command);
            moved = true;
        }
        all.extend(events(channel));
        while let Some(command) = channel.poll_transmit() {
            end.receive(command);
            moved = true;
        }
        if !moved {
            return all;
        }
    }
}

fn request_of(events: Vec<Event>) -> (i32, Graph) {
    let request = events.into_iter().find_map(|event| match event {
        Event::Request { id, graph, .. } => Some((id, graph)),
        _ => None,
    });
    request.expect("a request")
}

#[test]
fn a_request_is_answered_once_and_its_references_go_back() {
    let (mut channel, now) = channel();
    let end = End::new(Capability::OURS);
    for _ in 0..3 {
        let id = end.start(requests::list_files("/", "*"));
        let (request, _) = request_of(step(&mut channel, &end, now));
        assert_eq!(channel.executing(), 1);
        channel.respond_user(request, Loader::None, Ok(NULL));
        channel.respond_user(request, Loader::None, Err(&Throw::io("twice")));
        step(&mut channel, &end, now);
        assert!(end.try_answer(id).unwrap().unwrap().root().is_none());
        assert_eq!(channel.executing(), 0);
    }
    assert_eq!(end.complaints(), [""; 0]);
    assert_eq!(end.exports(), [(CORE_LOADER, "class loader core".to_owned(), 1)], "one is kept");
    channel.close(now);
    step(&mut channel, &end, now);
    assert_eq!(end.exports(), [], "until the channel is closed");
    assert_eq!(end.complaints(), [""; 0]);
}

#[test]
fn what_a_request_brings_and_nobody_opens_goes_back_with_the_answer() {
    let (mut channel, now) = channel();
    let end = End::new(Capability::OURS);
    let command = requests::Launch { command: &["true"], environment: &[], directory: "/", output: None };
    let log = end.export(Kind::Output);
    let requests = [
        requests::launch(&end, log, command),
        requests::archive(&end, "/", "*").0,
        requests::read(&end, "/x").0,
        requests::untar(&end, "/", Bytes::from(vec![7; 3 * WINDOW])),
        requests::untar_pulled(&end, "/", NULL),
    ];
    for request in requests {
        let id = end.start(request);
        let (request, _) = request_of(step(&mut channel, &end, now));
        channel.respond_user(request, Loader::None, Err(&Throw::abort("no")));
        // The pipe's writer is refused and gives its end back.
        for event in step(&mut channel, &end, now) {
            if let Event::Stream { oid, io_id, op } = event {
                channel.acknowledge(StreamKind::Bytes, oid, op.size());
                channel.io_done(io_id);
            }
        }
        step(&mut channel, &end, now);
        assert!(end.try_answer(id).unwrap().is_err());
    }
    assert_eq!(end.leaks(), []);
    assert_eq!(end.complaints(), [""; 0]);
    assert_eq!((channel.exported(), channel.executing()), (0, 0));
}

#[test]
fn what_a_bare_request_brings_goes_back_too() {
    let (mut channel, now) = channel();
    let end = End::new(Capability::OURS);
    end.export_as(9, 1, Kind::Output);
    let mut graph = Graph::default();
    let base = graph.serializable("hudson.remoting.Request", 1, &[("id", "I")], None);
    let fields = [("oid", "I"), ("arguments", "[Ljava/lang/Object;"), ("methodName", "Ljava/lang/String;")];
    let class = "hudson.remoting.RemoteInvocationHandler$RPCRequest";
    let desc = graph.serializable(class, 1, &fields, Some(base));
    let stream = command::remote_output_stream(&mut graph, 9);
    let arguments = graph.array("[Ljava.lang.Object;", -8012369246846506644, &[Some(stream)]);
    let method = graph.string("write");
    let object = graph.object(desc).set_ref("arguments", arguments).set_ref("methodName", method).build();
    channel.handle_command(now, graph.encode_one(Some(object)));
    assert!(matches!(events(&mut channel)[..], [Event::Request { id: 0, bare: true, .. }]));
    channel.respond_plain(0, Err(&Throw::io("no")));
    while let Some(command) = channel.poll_transmit() {
        if !command.windows(8).any(|name| name == b"Response") {
            end.receive(command);
        }
    }
    assert_eq!(end.exports(), []);
    assert_eq!(end.complaints(), [""; 0]);
}

#[test]
fn what_was_claimed_is_its_owners_to_give_back() {
    let (mut channel, now) = channel();
    let end = End::new(Capability::OURS);
    let (request, oid) = requests::archive(&end, "/", "*");
    end.start(request);
    let (id, graph) = request_of(step(&mut channel, &end, now));
    let (stream, grant) = grants(&graph, Capability::OURS).next().unwrap();
    assert_eq!(grant, Grant::Output(oid));
    assert_eq!(channel.claim(id, stream.id()), Some(grant));
    assert_eq!(channel.claim(id, stream.id()), None, "once");
    channel.open_stream(oid);
    channel.respond_user(id, Loader::None, Ok(NULL));
    step(&mut channel, &end, now);
    assert_eq!(end.leaks().len(), 1);
    let io_id = channel.write(oid, Bytes::from_static(b"late"));
    assert_eq!(io_id, FIRST_ID);
    channel.close_stream(StreamKind::Bytes, oid, StreamEnd::Close);
    step(&mut channel, &end, now);
    assert_eq!(end.leaks(), []);
    assert_eq!(end.collected(oid).bytes, b"late");
    assert_eq!(end.collected(oid).closed, Some(None));
}

#[test]
fn requests_wait_for_the_pipe_operations_before_them() {
    let (mut channel, now) = introduced();
    let oid = channel.export();
    channel.add_reference(oid);
    for io_id in 1..=3 {
        channel.handle_command(now, command::chunk(oid, io_id, Bytes::from_static(b"x")));
    }
    channel.handle_command(now, command::user_request(1, 2, CORE_LOADER, command::ping(), "after 2"));
    channel.handle_command(now, command::user_request(2, 0, CORE_LOADER, command::ping(), "after none"));
    let call = channel.call_read(9, 1).unwrap();
    channel.handle_command(now, command::plain_response(call, 3, Ok(&|_| None)));
    let order = |channel: &mut Channel| -> Vec<String> {
        let events = events(channel).into_iter().filter_map(|event| match event {
            Event::Request { id, .. } => Some(format!("request {id}")),
            Event::Answer { id, result } => Some(format!("answer {} {}", id == call, result.is_ok())),
            _ => None,
        });
        events.collect()
    };
    assert_eq!(order(&mut channel), ["request 2"]);
    channel.io_done(2);
    assert_eq!(order(&mut channel), [""; 0], "1 is not done");
    channel.io_done(1);
    assert_eq!(order(&mut channel), ["request 1"]);
    channel.io_done(3);
    assert_eq!(order(&mut channel), ["answer true true"]);
}

#[test]
fn an_answer_tells_the_last_pipe_operation_of_its_request() {
    let (mut channel, now) = introduced();
    channel.handle_command(now, command::user_request(5, 0, CORE_LOADER, command::ping(), "x"));
    channel.open_stream(9);
    let last = channel.write(9, Bytes::from_static(b"a"));
    channel.answer_after(5, last);
    channel.answer_after(5, last - 1);
    channel.write(9, Bytes::from_static(b"of another call"));
    channel.respond_user(5, Loader::None, Ok(NULL));
    let answers = sent(&mut channel).into_iter().filter_map(|command| match command {
        Command::Response { id, last_io, .. } => Some((id, last_io)),
        _ => None,
    });
    assert_eq!(answers.collect::<Vec<_>>(), [(5, last)]);
}

#[test]
fn a_window_shrinks_with_writes_grows_with_acks_and_never_beyond_its_size() {
    let (mut channel, now) = introduced();
    assert_eq!(channel.window(9), None);
    channel.open_stream(9);
    assert_eq!(channel.window(9), Some(WINDOW));
    channel.write(9, Bytes::from(vec![0; 1000]));
    channel.write_chars(9, &[0; 24]);
    assert_eq!(channel.window(9), Some(WINDOW - 1024));
    for (size, window) in [(24, WINDOW - 1000), (-5, WINDOW - 1000), (i32::MAX, WINDOW), (1, WINDOW)] {
        channel.handle_command(now, command::ack(StreamKind::Bytes, 9, size));
        assert_eq!(channel.window(9), Some(window), "after {size}");
    }
    channel.open_stream(9);
    channel.write(9, Bytes::from(vec![0; 10]));
    channel.close_stream(StreamKind::Bytes, 9, StreamEnd::Release);
    assert_eq!(channel.window(9), Some(WINDOW - 10), "another handle on the same stream has the same window");
    channel.handle_command(now, command::dead_writer(StreamKind::Bytes, 9, &Throw::io("disk full")));
    assert_eq!(channel.window(9), None);
    channel.close_stream(StreamKind::Bytes, 9, StreamEnd::Release);
    channel.handle_command(now, command::ack(StreamKind::Bytes, 9, 10));
    assert_eq!(channel.window(9), None);
    assert_eq!(closed(&mut channel), None);
}

#[test]
fn a_peer_that_overruns_the_window_is_cut_off() {
    let (mut channel, now) = introduced();
    let oid = channel.export();
    channel.add_reference(oid);
    let piece = Bytes::from(vec![0; WINDOW / 4]);
    for io_id in 1..=8 {
        channel.handle_command(now, command::chunk(oid, io_id, piece.clone()));
        if io_id == 4 {
            channel.acknowledge(StreamKind::Bytes, oid, piece.len());
        }
    }
    assert!(!channel.is_closed(), "within twice the window");
    channel.handle_command(now, command::chunk(oid, 9, piece.clone()));
    channel.handle_command(now, command::chunk(oid, 10, Bytes::from_static(b"x")));
    let reason = closed(&mut channel);
    assert!(matches!(reason, Some(CloseReason::Violation(_))), "{reason:?}");
}

#[test]
fn streams_of_ours_end_by_eof_or_release_and_unknown_ones_are_ignored() {
    let (mut channel, now) = introduced();
    for op in [command::eof, |kind, oid, io, _: Option<&Throw>| command::release(kind, oid, io)] {
        let oid = channel.export();
        channel.add_reference(oid);
        channel.handle_command(now, op(StreamKind::Bytes, oid, 1, None));
        let seen = events(&mut channel);
        assert!(
            matches!(seen[..], [Event::Stream { .. }, Event::Dropped { oid: dropped }] if dropped == oid),
            "{seen:?}"
        );
        channel.io_done(1);
        channel.handle_command(now, op(StreamKind::Bytes, oid, 2, None));
        assert!(events(&mut channel).is_empty(), "an EOF behind an Unexport");
        channel.handle_command(now, command::chunk(oid, 3, Bytes::from_static(b"x")));
        assert!(matches!(events(&mut channel)[..], [Event::Warning(_)]));
    }
    assert_eq!(channel.exported(), 0);
}

#[test]
fn references_are_counted_and_unknown_ones_do_no_harm() {
    let (mut channel, now) = introduced();
    let oid = channel.export();
    channel.add_reference(oid);
    channel.add_reference(oid);
    channel.handle_command(now, command::unexport(oid));
    assert!(events(&mut channel).is_empty());
    channel.handle_command(now, command::unexport(oid));
    assert!(matches!(events(&mut channel)[..], [Event::Dropped { oid: dropped }] if dropped == oid));
    for unknown in [oid, CHANNEL_OID, 0, -1, i32::MIN] {
        channel.handle_command(now, command::unexport(unknown));
        assert!(matches!(events(&mut channel)[..], [Event::Warning(_)]), "{unknown}");
    }
    assert!(!channel.is_closed());
}

#[test]
fn cancelling_reaches_requests_in_progress_only() {
    let (mut channel, now) = introduced();
    channel.handle_command(now, command::user_request(5, 0, CORE_LOADER, command::ping(), "x"));
    events(&mut channel);
    channel.handle_command(now, command::cancel(6));
    assert!(events(&mut channel).is_empty());
    channel.handle_command(now, command::cancel(5));
    assert!(matches!(events(&mut channel)[..], [Event::Cancel { id: 5 }]));
    channel.respond_user(5, Loader::None, Err(&Throw::interrupted()));
    channel.handle_command(now, command::cancel(5));
    assert!(events(&mut channel).is_empty());
    let call = channel.call_read(9, 1).unwrap();
    channel.cancel_call(call);
    channel.handle_command(now, command::plain_response(call, 0, Ok(&|_| None)));
    assert!(events(&mut channel).is_empty(), "its answer comes too late");
    assert!(matches!(sent(&mut channel)[..], [.., Command::Cancel { id }] if id == call));
}

#[test]
fn requests_beyond_the_limit_are_refused_and_the_rest_goes_on() {
    let (mut channel, now) = introduced();
    let most = i32::try_from(MAX_REQUESTS).unwrap();
    for id in 0..most {
        channel.handle_command(now, command::user_request(id, 0, CORE_LOADER, command::ping(), "x"));
    }
    assert_eq!(events(&mut channel).len(), MAX_REQUESTS);
    sent(&mut channel);
    channel.handle_command(now, command::user_request(most, 0, CORE_LOADER, command::ping(), "x"));
    channel.handle_command(now, command::read(most + 1, 9, 1));
    assert!(events(&mut channel).is_empty());
    let refused = sent(&mut channel).into_iter().filter(|c| matches!(c, Command::Response { .. })).count();
    assert_eq!((refused, channel.executing()), (2, MAX_REQUESTS));
    channel.respond_user(0, Loader::None, Ok(NULL));
    channel.handle_command(now, command::user_request(most, 0, CORE_LOADER, command::ping(), "x"));
    assert!(matches!(events(&mut channel)[..], [Event::Request { .. }]));
}

#[test]
fn a_second_request_of_the_same_id_is_ignored() {
    let (mut channel, now) = introduced();
    for _ in 0..2 {
        channel.handle_command(now, command::user_request(5, 0, CORE_LOADER, command::ping(), "x"));
    }
    assert!(matches!(events(&mut channel)[..], [Event::Request { id: 5, .. }, Event::Warning(_)]));
    assert_eq!(channel.executing(), 1);
}

#[test]
fn a_malformed_request_is_answered_and_a_malformed_command_is_the_end() {
    let (mut channel, now) = introduced();
    channel.handle_command(now, command::user_request(5, 0, CORE_LOADER, Bytes::from_static(b"nonsense"), "x"));
    assert!(events(&mut channel).is_empty());
    assert_eq!(classes(&mut channel), ["Response", "UnexportCommand"]);
    channel
        .handle_command(now, Bytes::from_static(b"\xac\xed\0\x05ur\0\x02[I\0\0\0\0\0\0\0\0\x02\0\0xp\x7f\xff\xff\xff"));
    assert!(matches!(closed(&mut channel), Some(CloseReason::Malformed(_))));
}

#[test]
fn unknown_commands_are_ignored_and_unknown_requests_answered() {
    let (mut channel, now) = introduced();
    let mut graph = Graph::default();
    let desc = graph.serializable("hudson.remoting.Novelty", 1, &[], None);
    let object = graph.object(desc).build();
    channel.handle_command(now, graph.encode_one(Some(object)));
    assert!(matches!(events(&mut channel)[..], [Event::Warning(_)]));
    let mut graph = Graph::default();
    let base = graph.serializable("hudson.remoting.Request", 1, &[("id", "I")], None);
    let desc = graph.serializable("hudson.remoting.NewRequest", 1, &[], Some(base));
    let object = graph.object(desc).set("id", inbound_agent::object::Value::Int(77)).build();
    channel.handle_command(now, graph.encode_one(Some(object)));
    assert!(matches!(sent(&mut channel)[..], [Command::Response { id: 77, .. }]));
}

#[test]
fn closing_is_answered_or_timed_out() {
    let (mut channel, now) = introduced();
    channel.close(now);
    assert_eq!(classes(&mut channel), ["UnexportCommand", "Channel$CloseCommand"]);
    assert!(channel.is_closed() && closed(&mut channel).is_none());
    channel.respond_user(0, Loader::None, Ok(NULL));
    assert!(channel.poll_transmit().is_none(), "nothing behind a CloseCommand");
    assert_eq!(channel.call_read(9, 1), None);
    channel.handle_command(now, command::close());
    assert_eq!(closed(&mut channel), Some(CloseReason::ByUs));

    let (mut channel, now) = introduced();
    channel.close(now);
    assert_eq!(channel.poll_timeout(), Some(now + CLOSE_TIMEOUT));
    channel.handle_timeout(now + CLOSE_TIMEOUT - Duration::from_millis(1));
    assert_eq!(closed(&mut channel), None);
    channel.handle_timeout(now + CLOSE_TIMEOUT);
    assert_eq!(closed(&mut channel), Some(CloseReason::ByUs));
    assert_eq!(channel.poll_timeout(), None);

    let (mut channel, now) = introduced();
    let call = channel.call_read(9, 1).unwrap();
    channel.handle_command(now, command::close());
    let seen = events(&mut channel);
    let [Event::Answer { id, result: Err(_) }, Event::Closed(CloseReason::ByPeer(None))] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert_eq!(*id, call);
    assert_eq!(classes(&mut channel).last().unwrap(), "Channel$CloseCommand");
    channel.handle_command(now, command::user_request(9, 0, CORE_LOADER, command::ping(), "late"));
    channel.lost("late");
    assert!(events(&mut channel).is_empty());
}

#[test]
fn a_silent_peer_is_pinged_and_then_dead() {
    let Liveness { idle, patience } = Liveness::default();
    let (mut channel, now) = introduced();
    assert_eq!(channel.poll_timeout(), Some(now + idle));
    channel.handle_timeout(now + idle);
    assert!(matches!(sent(&mut channel)[..], [Command::UserRequest { id: FIRST_ID, .. }]));
    channel.handle_timeout(now + idle + Duration::from_secs(1));
    assert!(sent(&mut channel).is_empty(), "one ping at a time");

    // Whatever is heard is a sign of life.
    let heard = now + idle + patience / 2;
    channel.handle_command(heard, command::cancel(99));
    assert_eq!(channel.poll_timeout(), Some(heard + idle));
    channel.handle_timeout(heard + idle);
    assert!(matches!(sent(&mut channel)[..], [Command::UserRequest { .. }]));
    channel.handle_timeout(heard + idle + patience - Duration::from_millis(1));
    assert_eq!(closed(&mut channel), None);
    channel.handle_timeout(heard + idle + patience);
    assert_eq!(closed(&mut channel), Some(CloseReason::Silent(idle + patience)));
}

#[test]
fn a_peer_that_never_said_anything_dies_without_a_ping() {
    let Liveness { idle, patience } = Liveness::default();
    let (mut channel, now) = channel();
    channel.handle_timeout(now + idle);
    assert!(sent(&mut channel).is_empty(), "there is no class loader to send a ping with");
    channel.handle_timeout(now + idle + patience);
    assert!(matches!(closed(&mut channel), Some(CloseReason::Silent(_))));
}

#[test]
fn a_refused_write_tells_the_writer() {
    let (mut channel, now) = introduced();
    let oid = channel.export();
    channel.add_reference(oid);
    channel.handle_command(now, command::chunk(oid, 1, Bytes::from_static(b"x")));
    channel.refuse_writes(StreamKind::Bytes, oid, &Throw::io("disk full"));
    channel.acknowledge(StreamKind::Bytes, oid, 1);
    let said = sent(&mut channel);
    assert!(
        matches!(said[..], [Command::DeadWriter { oid: dead }, Command::Ack { oid: acked, size: 1 }]
            if dead == oid && acked == oid),
        "{said:?}"
    );
}

/// What an event says, without what differs between two channels.
fn told(event: &Event) -> String {
    match event {
        Event::Request { id, graph, bare } => format!("request {id} {bare} {}", graph.nodes().len()),
        Event::Stream { oid, io_id, op } => match op {
            StreamOp::Write(bytes) => format!("write {oid} {io_id} {bytes:?}"),
            op => format!("{oid} {io_id} {op:?}"),
        },
        Event::Answer { id, result } => format!("answer {id} {}", result.is_ok()),
        event => format!("{event:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn no_sequence_of_commands_panics(data in vec(any::<u8>(), 0..600)) {
        steps::run(&data);
    }

    #[test]
    fn no_sequence_of_known_commands_panics(data in vec((0u8..48, any::<u8>(), any::<u8>()), 0..300)) {
        let data: Vec<u8> = data.into_iter().flat_map(|(op, a, b)| [op, a, b]).collect();
        steps::run(&data);
    }

    #[test]
    fn any_cut_of_the_byte_stream_gives_the_same_events(
        chunk_size in 1usize..200,
        cuts in vec(1usize..300, 1..20),
    ) {
        let end = End::new(Capability::OURS);
        end.start(requests::exists("/tmp"));
        end.start(requests::write("/tmp/x", "text"));
        let (request, _) = requests::archive(&end, "/", "*");
        end.start(request);
        end.send(command::chunk(FIRST_ID, 1, Bytes::from_static(b"hello")));
        end.send(command::eof(StreamKind::Bytes, FIRST_ID, 2, None));
        end.send(command::cancel(697));
        end.send(command::unexport(99));
        end.send(command::close());
        let commands: Vec<Bytes> = std::iter::from_fn(|| end.poll()).collect();
        let exporting = || {
            let (mut channel, now) = channel();
            let oid = channel.export();
            channel.add_reference(oid);
            (channel, now)
        };
        let (mut whole, now) = exporting();
        for command in &commands {
            whole.handle_command(now, command.clone());
        }
        let expected: Vec<_> = events(&mut whole).iter().map(told).collect();
        prop_assert!(expected.len() > 7);

        let mut wire = BytesMut::new();
        for (header, payload) in commands.iter().flat_map(|command| encode(command, chunk_size)) {
            wire.extend_from_slice(&header);
            wire.extend_from_slice(payload);
        }
        let (mut cut, now) = exporting();
        let mut assembler = Assembler::default();
        let mut got = Vec::new();
        for size in cuts.iter().cycle() {
            if wire.is_empty() {
                break;
            }
            let piece = wire.split_to((*size).min(wire.len()));
            assembler.input().extend_from_slice(&piece);
            while let Some(command) = assembler.next().unwrap() {
                cut.handle_command(now, command);
                got.extend(events(&mut cut).iter().map(told));
            }
        }
        prop_assert_eq!(got, expected);
    }
}
