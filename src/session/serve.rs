//! One channel over one connection, from the first command to the last.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use super::status::Status;
use crate::callables::{self, Agent};
use crate::channel::{Channel, CloseReason, Link, Liveness};
use crate::sidecar::{self, Sidecar};
use crate::transport::{CommandReader, CommandWriter, Connection};

/// Commands are handed to the transport in batches of about this size: one write call each.
const BATCH: usize = 128 << 10;
/// A WebSocket ping goes out this often, as Java's (`Engine.runWebSocket`): proxies cut idle connections.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long the last commands may take to leave once the channel has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the controller over a connection until the channel ends; closes it in order once `stop` is set. `status` sees
/// what passes. With `jvm` there is one for what is not native; `true` starts it at once.
pub async fn serve(
    connection: Connection,
    agent: &Arc<Agent>,
    liveness: Liveness,
    status: &Arc<Status>,
    stop: &mut watch::Receiver<bool>,
    jvm: Option<(sidecar::Settings, bool)>,
) -> CloseReason {
    let Connection { mut reader, writer, peer } = connection;
    let channel = Channel::new(Instant::now(), peer.capability, liveness);
    let dispatcher = {
        let agent = agent.clone();
        Box::new(move |incoming| callables::dispatch(&agent, incoming))
    };
    let link = Link::counting(channel, dispatcher, status.stalls.clone());
    if let Some((settings, now)) = jvm {
        Sidecar::attach(&link, agent, settings, now);
    }
    let mut writing = tokio::spawn(write(writer, link.clone(), status.clone()));
    read(&mut reader, &link, status, stop).await;
    if timeout(DRAIN_TIMEOUT, &mut writing).await.is_err() {
        writing.abort();
    }
    link.close_reason().unwrap_or(CloseReason::ByUs)
}

/// Feeds the channel until it has ended.
async fn read(reader: &mut CommandReader, link: &Arc<Link>, status: &Status, stop: &mut watch::Receiver<bool>) {
    let closed = link.closed();
    tokio::pin!(closed);
    let mut stopping = false;
    loop {
        let now = Instant::now();
        let wake = link.tick(now);
        let latest = now + KEEP_ALIVE;
        let wake = wake.map_or(latest, |wake| wake.min(latest));
        status.turned();
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
                Ok(Some(command)) => {
                    status.received.fetch_add(command.len() as u64, Ordering::Relaxed);
                    link.receive(Instant::now(), command);
                }
                Ok(None) => link.lost("the controller closed the connection"),
                Err(error) => link.lost(error.to_string()),
            },
            () = sleep_until(wake.into()) => {}
        }
    }
}

/// Hands the channel's commands to the transport until the channel has ended and all are out.
async fn write(mut writer: CommandWriter, link: Arc<Link>, status: Arc<Status>) {
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
            status.sent.fetch_add(batch.iter().map(Bytes::len).sum::<usize>() as u64, Ordering::Relaxed);
            batch.clear();
        }
        if !more {
            writer.close().await;
            return;
        }
    }
}
