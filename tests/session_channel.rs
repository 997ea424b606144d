//! A whole build over a channel in memory, where both ends' tables can be seen; and a session's view of a peer that
//! does not behave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use inbound_agent::callables::{self, Agent};
use inbound_agent::channel::{Channel, CloseReason, Link, Liveness, command};
use inbound_agent::demo::Console;
use inbound_agent::demo::controller::end::{CallError, End, Kind, Manners};
use inbound_agent::demo::controller::{self, Controller, IDENTITY, Mischief, Point, Settings, requests};
use inbound_agent::demo::pipeline::Build;
use inbound_agent::frame::Capability;
use inbound_agent::session::serve;
use inbound_agent::session::status::Status;
use inbound_agent::transport::identity::{InstanceIdentity, Secret};
use inbound_agent::transport::{ExitCode, jnlp4, stdio};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// An agent's channel and a controller's end, joined.
fn joined() -> (Arc<Link>, Arc<End>) {
    let agent = Arc::new(Agent::new(None, None, None));
    let channel = Channel::new(Instant::now(), Capability::OURS, Liveness::default());
    let link = Link::new(channel, Box::new(move |incoming| callables::dispatch(&agent, incoming)));
    let end = Arc::new(End::new(Capability::OURS));
    tokio::spawn({
        let (link, end) = (link.clone(), end.clone());
        async move {
            while let Some(command) = end.next().await {
                link.receive(Instant::now(), command);
            }
        }
    });
    tokio::spawn({
        let (link, end) = (link.clone(), end.clone());
        async move {
            let mut batch = Vec::new();
            while link.transmit(1 << 16, &mut batch).await {
                batch.drain(..).for_each(|command| end.receive(command));
            }
        }
    });
    (link, end)
}

/// A session over a pipe, with a peer that is soon taken for dead.
async fn session() -> (Arc<End>, JoinHandle<CloseReason>, watch::Sender<bool>) {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (input, output) = tokio::io::split(ours);
    let (tell, mut stop) = watch::channel(false);
    let served = tokio::spawn(async move {
        let connection = stdio::connect(input, output, Capability::OURS, PATIENCE).await.unwrap();
        let agent = Arc::new(Agent::new(None, None, None));
        let liveness = Liveness { idle: Duration::from_millis(150), patience: Duration::from_millis(300) };
        serve(connection, &agent, liveness, &Arc::new(Status::new(None)), &mut stop, None).await
    });
    let (input, output) = tokio::io::split(theirs);
    let end = controller::stdio(input, output).await.unwrap();
    end.call(requests::ping()).await.unwrap();
    (end, served, tell)
}

async fn reason(served: JoinHandle<CloseReason>) -> CloseReason {
    timeout(PATIENCE, served).await.expect("the session ends").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_build_both_export_tables_are_empty() {
    let (link, end) = joined();
    let root = tempfile::tempdir().unwrap();
    let mut build = Build::new(&end, &Console { shown: false }, root.path());
    build.come_online().await.unwrap();
    build.monitor().await.unwrap();
    build.unknown_callable().await.unwrap();
    build.run().await.unwrap();
    end.collect_garbage();
    assert_eq!(end.settled().await, []);
    let deadline = Instant::now() + PATIENCE;
    while link.in_use() != (0, 0) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(link.in_use(), (0, 0), "objects exported by the agent, and requests in progress");
    link.close(Instant::now());
    timeout(PATIENCE, end.closed()).await.unwrap();
    assert_eq!(end.exports(), [], "class loaders, at the end");
    assert_eq!(end.complaints(), [""; 0]);
}

#[tokio::test]
async fn a_silent_peer_is_noticed_and_a_living_one_is_not() {
    let (end, served, _stop) = session().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!served.is_finished(), "it answers pings");
    assert!(end.asked().iter().any(|asked| asked == "hudson.remoting.PingThread$Ping"));
    end.behave(|manners| *manners = Manners { mute: true, ..Manners::default() });
    assert!(matches!(reason(served).await, CloseReason::Silent(_)));

    let (end, served, _stop) = session().await;
    end.behave(|manners| manners.deaf = true);
    assert!(matches!(reason(served).await, CloseReason::Silent(_)));
}

#[tokio::test]
async fn each_end_is_told_apart() {
    let (end, served, _stop) = session().await;
    end.close();
    assert_eq!(reason(served).await, CloseReason::ByPeer(None));

    let (end, served, _stop) = session().await;
    end.cut();
    assert!(matches!(reason(served).await, CloseReason::Transport(_)));

    let (end, served, _stop) = session().await;
    end.send(Bytes::from_static(b"garbage"));
    assert!(matches!(reason(served).await, CloseReason::Malformed(_)));

    let (end, served, stop) = session().await;
    stop.send(true).unwrap();
    assert_eq!(reason(served).await, CloseReason::ByUs);
    assert_eq!(end.closed().await, "the agent closed the channel");
    assert_eq!(end.exports(), []);

    let (end, served, stop) = session().await;
    end.behave(|manners| manners.ignore_close = true);
    stop.send(true).unwrap();
    assert_eq!(reason(served).await, CloseReason::ByUs, "although the peer does not answer");
}

#[tokio::test]
async fn a_session_outlives_small_mistakes_of_its_peer() {
    let (end, served, _stop) = session().await;
    end.send(command::unexport(4711));
    end.send(command::cancel(4711));
    end.send(command::ack(command::StreamKind::Bytes, 4711, 5));
    end.send(command::chunk(4711, 1, Bytes::from_static(b"to nobody")));
    end.send(command::plain_response(4711, 0, Ok(&|_| None)));
    end.behave(|manners| manners.reorder = 2);
    assert!(matches!(end.call(requests::unknown()).await, Err(CallError::Thrown(_))));
    end.call(requests::ping()).await.unwrap();
    assert!(!served.is_finished());
    assert_eq!(end.complaints(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_without_acknowledgements_stops_the_writer_and_not_the_channel() {
    let (link, end) = joined();
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("big");
    std::fs::write(&path, vec![7; 3 << 20]).unwrap();
    end.behave(|manners| manners.no_acks = true);
    let (request, oid) = requests::read(&end, path.to_str().unwrap());
    let reading = end.start(request);
    let deadline = Instant::now() + PATIENCE;
    let mut seen = 0;
    // It has stopped when nothing came during ten further answers.
    loop {
        for _ in 0..10 {
            end.call(requests::ping()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let now = end.collected(oid).bytes.len();
        if now == seen && seen > 0 {
            break;
        }
        seen = now;
        assert!(Instant::now() < deadline);
    }
    assert!(seen <= 1 << 20, "{seen} bytes are beyond the window");
    assert!(end.try_answer(reading).is_none());
    end.cancel(reading);
    // FilePath.read tells its reader of errors, and not its caller.
    end.answer(reading).await.unwrap();
    let told = end.collected(oid).closed;
    assert!(matches!(told, Some(Some(_))), "{told:?}");
    assert_eq!(end.settled().await, []);
    assert_eq!(link.in_use(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_are_each_answered() {
    let (link, end) = joined();
    let root = tempfile::tempdir().unwrap();
    let paths: Vec<String> = (0..200).map(|n| root.path().join(n.to_string()).to_string_lossy().into_owned()).collect();
    let writes: Vec<i32> = paths.iter().map(|path| end.start(requests::write(path, path))).collect();
    for id in writes.into_iter().rev() {
        end.answer(id).await.unwrap();
    }
    let reads: Vec<_> = paths.iter().map(|path| requests::read(&end, path)).collect();
    for (path, (request, oid)) in paths.iter().zip(reads) {
        end.call(request).await.unwrap();
        assert_eq!(end.collected(oid).bytes, path.as_bytes());
    }
    assert_eq!(end.settled().await, []);
    assert_eq!(end.complaints(), [""; 0]);
    assert_eq!(link.in_use(), (0, 0));
    let unused = end.export(Kind::Output);
    assert!(end.exports().iter().all(|(oid, _, _)| *oid != unused), "what was never sent holds nothing up");
}

#[tokio::test]
async fn a_controller_that_stalls_in_the_handshake_is_given_up_wherever_it_was() {
    let controller = Controller::start(Settings::default()).await.unwrap();
    let identity = InstanceIdentity::from_base64(IDENTITY).unwrap();
    let Settings { name, secret, .. } = controller.settings().clone();
    let credentials = jnlp4::Credentials { node_name: name, secret: Secret::new(secret), cookie: None };
    for point in [Point::Accepted, Point::Greeted, Point::Encrypted, Point::Presented, Point::Admitted] {
        controller.misbehave([Mischief::Stall(point)]);
        let stream = TcpStream::connect(("127.0.0.1", controller.agent_port())).await.unwrap();
        let deadline = Duration::from_millis(500);
        let outcome = jnlp4::connect(stream, "loopback", &identity, &credentials, Capability::OURS, deadline).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::TimedOut, "{point:?}: {error}");
    }
}
