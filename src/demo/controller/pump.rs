//! Moves commands between a connection and the controller's end of a channel.

use std::io;

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::end::End;
use crate::frame::{self, Assembler, DEFAULT_CHUNK_SIZE};

fn receive(end: &End, assembler: &mut Assembler) -> io::Result<()> {
    while let Some(command) = assembler.next().map_err(io::Error::other)? {
        end.receive(command);
    }
    Ok(())
}

/// Until the channel has ended, over a byte stream of which `received` has been read.
pub async fn stream(
    end: &End,
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    received: &[u8],
) {
    let reading = async {
        let mut assembler = Assembler::default();
        assembler.input().extend_from_slice(received);
        loop {
            receive(end, &mut assembler)?;
            if !end.may_read().await {
                break;
            }
            tokio::select! {
                biased;
                () = end.deaf() => {}
                read = input.read_buf(assembler.input()) => if read? == 0 { break },
            }
        }
        io::Result::Ok(())
    };
    let reading = async {
        let result = reading.await;
        end.lost(result.map_or_else(|error| error.to_string(), |()| "the agent closed the connection".to_owned()));
        std::future::pending::<()>().await;
    };
    let writing = async {
        let mut buffer = BytesMut::new();
        while let Some(command) = end.next().await {
            for (header, payload) in frame::encode(&command, DEFAULT_CHUNK_SIZE) {
                buffer.extend_from_slice(&header);
                buffer.extend_from_slice(payload);
            }
            output.write_all(&buffer).await?;
            output.flush().await?;
            buffer.clear();
        }
        io::Result::Ok(())
    };
    tokio::select! {
        () = reading => {}
        result = writing => if let Err(error) = result { end.lost(error.to_string()) },
        () = end.cut_asked() => return,
    }
    let _ = output.shutdown().await;
}

/// Until the channel has ended, over a WebSocket: one message per chunk.
pub async fn web_socket<S: AsyncRead + AsyncWrite + Unpin>(end: &End, socket: WebSocketStream<S>) {
    let (mut sink, mut source) = socket.split();
    let reading = async {
        let mut assembler = Assembler::default();
        while end.may_read().await {
            let message = tokio::select! {
                biased;
                () = end.deaf() => continue,
                message = source.next() => message,
            };
            match message {
                Some(Ok(Message::Binary(bytes))) => assembler.feed(bytes),
                Some(Ok(Message::Close(_))) | None => break,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
            receive(end, &mut assembler)?;
        }
        Ok(())
    };
    let reading = async {
        let result = reading.await;
        end.lost(result.map_or_else(|error| error.to_string(), |()| "the agent closed the connection".to_owned()));
        std::future::pending::<()>().await;
    };
    let writing = async {
        while let Some(command) = end.next().await {
            for (header, payload) in frame::encode(&command, DEFAULT_CHUNK_SIZE) {
                sink.send(Message::Binary([&header, payload].concat().into())).await.map_err(io::Error::other)?;
            }
        }
        io::Result::Ok(())
    };
    tokio::select! {
        () = reading => {}
        result = writing => if let Err(error) = result { end.lost(error.to_string()) },
        () = end.cut_asked() => return,
    }
    let _ = sink.close().await;
}
