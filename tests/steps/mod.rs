//! What a peer may do to a channel, and its user, from arbitrary bytes: for the property test and the fuzz target.

use std::time::{Duration, Instant};

use bytes::Bytes;
use inbound_agent::channel::command::{self, StreamKind};
use inbound_agent::channel::state::{End, WINDOW};
use inbound_agent::channel::{Channel, Event, Liveness, Throw};
use inbound_agent::frame::Capability;
use inbound_agent::object::{Graph, Loader, NodeId};

/// Object ids that mean something, and some that don't.
fn oid(byte: u8) -> i32 {
    match byte % 4 {
        0 => (1 << 30) + i32::from(byte / 4 % 8),
        1 => i32::from(byte / 4),
        2 => -i32::from(byte / 4),
        _ => i32::MAX - i32::from(byte / 4),
    }
}

/// Does one thing per three bytes; the first of them with bit 7 set announces a raw command of that many bytes.
pub fn run(mut data: &[u8]) {
    let mut now = Instant::now();
    let mut channel = Channel::new(now, Capability::OURS, Liveness::default());
    let mut open: Vec<(i32, bool)> = Vec::new();
    let mut handles: Vec<i32> = Vec::new();
    while let [op, a, b, rest @ ..] = data {
        data = rest;
        let (id, number) = (oid(*a), i32::from(*b));
        let kind = if b % 2 == 0 { StreamKind::Bytes } else { StreamKind::Chars };
        let command = match op {
            128.. => {
                let (raw, rest) = data.split_at(data.len().min(usize::from(op - 128)));
                data = rest;
                Some(Bytes::copy_from_slice(raw))
            }
            0 => Some(command::user_request(number, id, id, command::ping(), "ping")),
            1 => Some(command::read(number, id, i32::from(*b) - 3)),
            2 => Some(command::cancel(number)),
            3 => Some(command::unexport(id)),
            4 => Some(command::chunk(id, number, Bytes::from(vec![0; 1 << (b % 22)]))),
            5 => Some(command::chars(id, number, &vec![65; usize::from(*b)])),
            6 => Some(command::eof(kind, id, number, None)),
            7 => Some(command::release(kind, id, number)),
            8 => Some(command::ack(kind, id, number - 100)),
            9 => Some(command::dead_writer(kind, id, &Throw::io("no"))),
            10 => Some(command::input_closed(id)),
            11 => Some(command::plain_response(id, number, Err(&Throw::io("no")))),
            12 => {
                let stream = Ok(Bytes::from_static(b"\xac\xed\0\x05p"));
                Some(command::user_response(id, number, Capability::OURS, Loader::None, stream))
            }
            13 => Some(command::flush(kind, id, number)),
            14 if *b == 7 => Some(command::close()),
            _ => None,
        };
        if let Some(command) = command {
            channel.handle_command(now, command);
        }
        match op {
            32 => drop(channel.export()),
            33 => channel.add_reference(id),
            34 => {
                channel.open_stream(id);
                handles.push(id);
            }
            35 => {
                if let Some(size) = channel.window(id) {
                    channel.write(id, Bytes::from(vec![1; size.min(1 << (b % 21))]));
                    assert!(channel.window(id).is_some_and(|window| window <= WINDOW));
                }
            }
            36 => {
                if let Some(id) = handles.pop() {
                    channel.close_stream(kind, id, if *b < 128 { End::Close } else { End::Release });
                }
            }
            37 => drop(channel.call_user("ping", command::ping())),
            38 => drop(channel.call_read(id, usize::from(*b))),
            39 => channel.cancel_call(id),
            40 => {
                now += Duration::from_secs(u64::from(*b));
                channel.handle_timeout(now);
            }
            41 => channel.io_done(number),
            42 => channel.acknowledge(kind, id, usize::from(*b)),
            43 if *b == 7 => channel.close(now),
            44 if *b == 7 => channel.lost("gone"),
            45 => {
                if let Some((id, bare)) = open.pop() {
                    let null: &dyn Fn(&mut Graph) -> Option<NodeId> = &|_| None;
                    match bare {
                        true => channel.respond_plain(id, Ok(null)),
                        false => channel.respond_user(id, Loader::None, Err(&Throw::io("no"))),
                    }
                }
            }
            46 => drop(channel.connect_pipe(id)),
            _ => {}
        }
        let mut ended = false;
        while let Some(event) = channel.poll_event() {
            assert!(!ended, "an event behind the last");
            match event {
                Event::Request { id, bare, .. } => open.push((id, bare)),
                Event::Read { id, .. } => open.push((id, true)),
                Event::Closed(_) => ended = true,
                _ => {}
            }
        }
        let mut bytes = 0;
        let queued = channel.queued_bytes();
        while let Some(command) = channel.poll_transmit() {
            bytes += command.len();
        }
        assert_eq!(bytes, queued);
        if ended {
            assert!(channel.is_closed() && channel.poll_timeout().is_none());
        }
    }
}
