//! One channel over one connection, from the first command to the last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use crate::callables::{self, Agent};
use crate::channel::{Channel, CloseReason, Link, Liveness};
use crate::sidecar::{self, Sidecar};
use crate::transport::{CommandReader, CommandWriter, Connection};

/// Commands are handed to the transport in batches of about this size: one write call each.
const BATCH: usize = 128 << 10;
/// A WebSocket ping goes out this often, as Java's (`Engine.runWebSocket`): proxies cut idle connections.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long the last commands may take to leave once the channel has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the controller over a connection until the channel ends; closes it in order once `stop` is set.
pub async fn serve(
    connection: Connection,
    agent: &Arc<Agent>,
    liveness: Liveness,
    stop: &mut watch::Receiver<bool>,
) -> CloseReason {
    serve_with(connection, agent, liveness, stop, None).await
}

/// As [`serve`], with a JVM for what is not native; `true` starts it at once.
pub async fn serve_with(
    connection: Connection,
    agent: &Arc<Agent>,
    liveness: Liveness,
    stop: &mut watch::Receiver<bool>,
    jvm: Option<(sidecar::Settings, bool)>,
) -> CloseReason {
    let Connection { mut reader, writer, peer } = connection;
    let channel = Channel::new(Instant::now(), peer.capability, liveness);
    let dispatcher = {
        let agent = agent.clone();
        Box::new(move |incoming| callables::dispatch(&agent, incoming))
    };
    let link = Link::new(channel, dispatcher);
    if let Some((settings, now)) = jvm {
        Sidecar::attach(&link, agent, settings, now);
    }
    let mut writing = tokio::spawn(write(writer, link.clone()));
    read(&mut reader, &link, stop).await;
    if timeout(DRAIN_TIMEOUT, &mut writing).await.is_err() {
        writing.abort();
    }
    link.close_reason().unwrap_or(CloseReason::ByUs)
}

/// Feeds the channel until it has ended.
async fn read(reader: &mut CommandReader, link: &Arc<Link>, stop: &mut watch::Receiver<bool>) {
    let closed = link.closed();
    tokio::pin!(closed);
    let mut stopping = false;
    loop {
        let wake = link.tick(Instant::now());
        let wake = wake.unwrap_or_else(|| Instant::now() + KEEP_ALIVE);
        tokio::select! {
            biased;
            () = &mut closed => return,
            stopped = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                if stopped.is_ok() {
                    link.close(Instant::now());
                }
            }
            command = reader.read() => match command {
                Ok(Some(command)) => link.receive(Instant::now(), command),
                Ok(None) => link.lost("the controller closed the connection"),
                Err(error) => link.lost(error.to_string()),
            },
            () = sleep_until(wake.into()) => {}
        }
    }
}

/// Hands the channel's commands to the transport until the channel has ended and all are out.
async fn write(mut writer: CommandWriter, link: Arc<Link>) {
    let mut batch: Vec<Bytes> = Vec::new();
    loop {
        let more = match timeout(KEEP_ALIVE, link.transmit(BATCH, &mut batch)).await {
            Ok(more) => more,
            Err(_) => {
                if let Err(error) = writer.keep_alive().await {
                    link.lost(error.to_string());
                }
                continue;
            }
        };
        if !batch.is_empty() {
            if let Err(error) = writer.write(&batch).await {
                link.lost(error.to_string());
                return;
            }
            batch.clear();
        }
        if !more {
            writer.close().await;
            return;
        }
    }
}
