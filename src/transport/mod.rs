//! Connections to the controller: reaching it, proving who it is, and carrying whole commands.
//!
//! A [`Connection`] is what every way of connecting ends in. Above it nobody knows sockets, TLS or WebSockets; below it
//! nobody knows what a command means. Failing to get there is a [`ConnectError`]; an open connection that breaks is a
//! [`TransportError`].

pub mod dial;
mod error;
pub mod http;
pub mod identity;
pub mod jnlp4;
pub mod proxy;
pub mod stdio;
mod stream;
pub mod trust;
pub mod websocket;

pub use error::{Cause, ConnectError, ExitCode, TransportError};

use crate::frame;
use bytes::Bytes;
use std::{fmt, time::Duration};

/// How long one write may go without the peer (or the kernel on its behalf) taking a single byte.
///
/// It bounds a stall, not a transfer: a slow link that keeps moving never meets it. Java's agent waits five minutes for
/// a WebSocket message (`Engine.runWebSocket`) and for ever on TCP.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long [`CommandWriter::close`] may take to say goodbye to a peer that may not listen any more.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// An open, negotiated connection to the controller.
#[derive(Debug)]
pub struct Connection {
    /// Whole commands from the controller.
    pub reader: CommandReader,
    /// Whole commands to the controller.
    pub writer: CommandWriter,
    /// What the handshake told about the other end.
    pub peer: Peer,
}

/// What the handshake told about the controller.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The protocol that was agreed on.
    pub protocol: Protocol,
    /// What the controller's remoting can do.
    pub capability: frame::Capability,
    /// The controller's cookie for this connection, to be sent when reconnecting (see [`jnlp4::Credentials`]).
    pub cookie: Option<String>,
    /// What was connected to, as shown in messages.
    pub address: String,
}

/// A way of carrying the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TLS inside of TCP, with trust from the instance identity.
    Jnlp4,
    /// HTTP upgraded to a WebSocket.
    WebSocket,
    /// The standard input and output of this process.
    Stdio,
}

impl Protocol {
    /// The name as Java's `Engine.getProtocolName` gives it (for stdio `Launcher.communicationProtocolName`).
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Jnlp4 => jnlp4::PROTOCOL_NAME,
            Protocol::WebSocket => "WebSocket",
            Protocol::Stdio => "Standard in/out",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The receiving half of a [`Connection`].
#[derive(Debug)]
pub struct CommandReader(Reader);

#[derive(Debug)]
enum Reader {
    Stream(stream::Reader),
    WebSocket(websocket::Reader),
}

impl CommandReader {
    /// Waits for one whole command, headers stripped; `None` where the peer ended the connection between two commands.
    ///
    /// Cancel safe: a call that is dropped before it is ready loses nothing. It waits for ever; when a silent peer is a
    /// dead one is the session's to decide.
    ///
    /// # Errors
    /// [`TransportError`] when the connection broke or the peer broke the framing. There is nothing to be read after it.
    pub async fn read(&mut self) -> Result<Option<Bytes>, TransportError> {
        match &mut self.0 {
            Reader::Stream(reader) => reader.read().await,
            Reader::WebSocket(reader) => reader.read().await,
        }
    }
}

impl From<websocket::Reader> for CommandReader {
    fn from(reader: websocket::Reader) -> Self {
        CommandReader(Reader::WebSocket(reader))
    }
}

impl From<stream::Reader> for CommandReader {
    fn from(reader: stream::Reader) -> Self {
        CommandReader(Reader::Stream(reader))
    }
}

/// The sending half of a [`Connection`].
#[derive(Debug)]
pub struct CommandWriter(Writer);

#[derive(Debug)]
enum Writer {
    Stream(stream::Writer),
    WebSocket(websocket::Writer),
}

impl CommandWriter {
    /// Sends whole commands in order and flushes them. Give all that is ready in one call: they share packets.
    ///
    /// Not cancel safe: a call dropped halfway leaves a torn command on the wire, so the connection must be dropped too.
    ///
    /// # Errors
    /// [`TransportError`] when the connection broke, or the peer took no byte for [`WRITE_TIMEOUT`].
    pub async fn write(&mut self, commands: &[Bytes]) -> Result<(), TransportError> {
        match &mut self.0 {
            Writer::Stream(writer) => writer.write(commands).await,
            Writer::WebSocket(writer) => writer.write(commands).await,
        }
    }

    /// Sends what keeps intermediaries from cutting an idle connection: a WebSocket ping. Does nothing elsewhere, where
    /// TCP keepalive is the kernel's work.
    ///
    /// # Errors
    /// As [`CommandWriter::write`].
    pub async fn keep_alive(&mut self) -> Result<(), TransportError> {
        match &mut self.0 {
            Writer::Stream(_) => Ok(()),
            Writer::WebSocket(writer) => writer.keep_alive().await,
        }
    }

    /// Flushes and ends our direction (end of stream, a WebSocket close frame), within [`CLOSE_TIMEOUT`].
    ///
    /// A failure to do so isn't told: the peer may have gone first.
    pub async fn close(&mut self) {
        match &mut self.0 {
            Writer::Stream(writer) => writer.close().await,
            Writer::WebSocket(writer) => writer.close().await,
        }
    }
}

impl From<websocket::Writer> for CommandWriter {
    fn from(writer: websocket::Writer) -> Self {
        CommandWriter(Writer::WebSocket(writer))
    }
}

impl From<stream::Writer> for CommandWriter {
    fn from(writer: stream::Writer) -> Self {
        CommandWriter(Writer::Stream(writer))
    }
}
