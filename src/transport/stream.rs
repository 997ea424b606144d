//! Commands over a byte stream: TLS, or the standard input and output.

use super::{CLOSE_TIMEOUT, Connection, Peer, TransportError, WRITE_TIMEOUT};
use crate::frame::{self, Assembler};
use bytes::{Bytes, BytesMut};
use std::{fmt, io};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// How much room a read offers: a TLS record's payload.
const READ_SIZE: usize = 16 << 10;

/// How much is collected before it is written although more is ready.
const WRITE_SIZE: usize = 64 << 10;

/// A connection over two directions of a byte stream, of which `received` came with the handshake's last read.
pub fn connection(
    source: impl AsyncRead + Send + Unpin + 'static,
    sink: impl AsyncWrite + Send + Unpin + 'static,
    received: &[u8],
    peer: Peer,
) -> Connection {
    let mut assembler = Assembler::default();
    assembler.input().extend_from_slice(received);
    let reader = Reader { source: Box::new(source), assembler, address: peer.address.clone() };
    let writer = Writer { sink: Box::new(sink), buffer: BytesMut::new(), address: peer.address.clone() };
    Connection { reader: reader.into(), writer: writer.into(), peer }
}

/// Reads commands from a stream.
pub struct Reader {
    source: Box<dyn AsyncRead + Send + Unpin>,
    assembler: Assembler,
    address: String,
}

impl Reader {
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, TransportError> {
        let frame = |address: &str, source| TransportError::Frame { address: address.to_owned(), source };
        loop {
            match self.assembler.next() {
                Ok(None) => {}
                Ok(command) => return Ok(command),
                Err(error) => return Err(frame(&self.address, error)),
            }
            let input = self.assembler.input();
            // Commands are slices of this buffer. Short reads share one, so that a few bytes kept don't keep a whole one.
            if input.capacity() - input.len() < READ_SIZE / 4 {
                input.reserve(READ_SIZE);
            }
            match self.source.read_buf(input).await {
                Ok(1..) => {}
                // Whether a TLS close_notify came before the end is of no interest: a channel has its CloseCommand.
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(source) => {
                    let address = self.address.clone();
                    return Err(TransportError::Io { doing: "reading from", address, source });
                }
            }
        }
        self.assembler.finish().map_err(|error| frame(&self.address, error))?;
        Ok(None)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({})", self.address)
    }
}

/// Writes commands to a stream.
pub struct Writer {
    sink: Box<dyn AsyncWrite + Send + Unpin>,
    buffer: BytesMut,
    address: String,
}

impl Writer {
    pub(super) async fn write(&mut self, commands: &[Bytes]) -> Result<(), TransportError> {
        for command in commands {
            for (header, payload) in frame::encode(command, frame::DEFAULT_CHUNK_SIZE) {
                self.buffer.extend_from_slice(&header);
                self.buffer.extend_from_slice(payload);
                if self.buffer.len() >= WRITE_SIZE {
                    self.drain().await?;
                }
            }
        }
        self.drain().await?;
        match timeout(WRITE_TIMEOUT, self.sink.flush()).await {
            Ok(flushed) => flushed.map_err(|error| self.failed(error)),
            Err(_) => Err(self.stalled()),
        }
    }

    async fn drain(&mut self) -> Result<(), TransportError> {
        while !self.buffer.is_empty() {
            match timeout(WRITE_TIMEOUT, self.sink.write_buf(&mut self.buffer)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) => return Err(self.failed(io::ErrorKind::WriteZero.into())),
                Ok(Err(error)) => return Err(self.failed(error)),
                Err(_) => return Err(self.stalled()),
            }
        }
        Ok(())
    }

    pub(super) async fn close(&mut self) {
        let _ = timeout(CLOSE_TIMEOUT, self.sink.shutdown()).await;
    }

    fn failed(&self, source: io::Error) -> TransportError {
        TransportError::Io { doing: "writing to", address: self.address.clone(), source }
    }

    fn stalled(&self) -> TransportError {
        TransportError::WriteStalled { address: self.address.clone(), after: WRITE_TIMEOUT }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({})", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{frame::Capability, transport::Protocol};
    use futures_util::FutureExt;
    use std::{
        pin::Pin,
        sync::{Arc, Mutex},
        task::{Context, Poll},
        time::Duration,
    };
    use tokio::{io::duplex, time::Instant};

    fn peer() -> Peer {
        Peer { protocol: Protocol::Stdio, capability: Capability::OURS, cookie: None, address: "the test".to_owned() }
    }

    /// Counts what each write call brought.
    #[derive(Clone, Default)]
    struct Counting(Arc<Mutex<Vec<usize>>>);

    impl AsyncWrite for Counting {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            self.0.lock().unwrap().push(data.len());
            Poll::Ready(Ok(data.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn small_commands_share_a_write_and_large_ones_a_bounded_buffer() {
        let sink = Counting::default();
        let mut connection = connection(tokio::io::empty(), sink.clone(), b"", peer());
        connection.writer.write(&[Bytes::from_static(b"one"), Bytes::from_static(b"three")]).await.unwrap();
        assert_eq!(*sink.0.lock().unwrap(), [2 + 3 + 2 + 5]);
        connection.writer.write(&[Bytes::from(vec![0; 1 << 20])]).await.unwrap();
        let writes = sink.0.lock().unwrap();
        assert_eq!(writes[1..].iter().sum::<usize>(), (1 << 20) + 128 * 2);
        assert!(writes.iter().all(|&n| n < WRITE_SIZE + 2 + frame::DEFAULT_CHUNK_SIZE), "{writes:?}");
    }

    #[tokio::test]
    async fn both_halves_work_at_once_in_tasks_of_their_own() {
        let (left, right) = duplex(1000);
        let open = |stream| {
            let (source, sink) = tokio::io::split(stream);
            connection(source, sink, b"", peer())
        };
        let commands: Vec<Bytes> = (1..50usize).map(|n| Bytes::from(vec![n as u8; n * n * 20])).collect();
        let tasks: Vec<_> = [open(left), open(right)]
            .into_iter()
            .map(|Connection { mut reader, mut writer, .. }| {
                let commands = commands.clone();
                let reading = tokio::spawn(async move {
                    let mut got = Vec::new();
                    while let Some(command) = reader.read().await.unwrap() {
                        got.push(command);
                    }
                    got
                });
                tokio::spawn(async move {
                    writer.write(&commands).await.unwrap();
                    writer.close().await;
                });
                reading
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), commands);
        }
    }

    #[tokio::test]
    async fn a_dropped_read_loses_nothing() {
        let (mut theirs, ours) = duplex(100);
        let mut reader = connection(ours, tokio::io::sink(), b"\0\x05he", peer()).reader;
        assert!(reader.read().now_or_never().is_none());
        theirs.write_all(b"ll").await.unwrap();
        assert!(reader.read().now_or_never().is_none());
        theirs.write_all(b"o\0").await.unwrap();
        assert_eq!(reader.read().await.unwrap().unwrap(), "hello");
        drop(theirs);
        let error = reader.read().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "reading from the test: the connection ended in the middle of a command, 1 bytes into it"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
        let (mut theirs, ours) = duplex(10);
        let mut writer = connection(tokio::io::empty(), ours, b"", peer()).writer;
        let slow = tokio::spawn(async move {
            let mut byte = [0; 10];
            for _ in 0..3 {
                tokio::time::sleep(WRITE_TIMEOUT - Duration::from_secs(1)).await;
                theirs.read_exact(&mut byte).await.unwrap();
            }
            theirs
        });
        writer.write(&[Bytes::from_static(&[0; 38])]).await.unwrap();
        let _theirs = slow.await.unwrap();
        let started = Instant::now();
        let error = writer.write(&[Bytes::from_static(b"x")]).await.unwrap_err();
        assert!(matches!(error, TransportError::WriteStalled { .. }), "{error}");
        assert_eq!(started.elapsed(), WRITE_TIMEOUT);
    }
}
