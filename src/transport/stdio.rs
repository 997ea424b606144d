//! The channel on standard input and output: what `agent.jar` speaks when started without `-url`, by SSH and command
//! launchers (`Launcher.runWithStdinStdout`).

use super::{Cause, ConnectError, Connection, Peer, Protocol, stream};
use crate::frame::{Capability, PreambleScanner, preamble};
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// How long the controller may take to begin, unless told otherwise. It has started us, so it is there.
pub const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(60);

/// What a message calls the other end.
const ADDRESS: &str = "the controller on standard input";

/// Sends our preambles, finds the controller's behind whatever comes before them, and gives the connection.
///
/// From here on nothing else may be written to what `output` is. The mode is binary; a controller that leaves the
/// mode to us (`Channel.Mode.NEGOTIATE`) follows.
///
/// # Errors
/// [`ConnectError`], within `deadline` at the latest.
pub async fn connect<I, O>(
    mut input: I,
    mut output: O,
    capability: Capability,
    deadline: Duration,
) -> Result<Connection, ConnectError>
where
    I: AsyncRead + Send + Unpin + 'static,
    O: AsyncWrite + Send + Unpin + 'static,
{
    let mut doing = "greeting";
    let steps = async {
        output.write_all(&preamble(capability)).await?;
        output.flush().await?;
        doing = "waiting for the preamble of";
        find_preamble(&mut input).await
    };
    let (theirs, received) = timeout(deadline, steps)
        .await
        .unwrap_or(Err(Cause::TimedOut(deadline)))
        .map_err(|cause| ConnectError::new(doing, ADDRESS, cause))?;
    let peer = Peer { protocol: Protocol::Stdio, capability: theirs, cookie: None, address: ADDRESS.to_owned() };
    Ok(stream::connection(input, output, &received, peer))
}

/// The controller's capability, and what was read behind its preambles.
async fn find_preamble(input: &mut (impl AsyncRead + Unpin)) -> Result<(Capability, Vec<u8>), Cause> {
    let mut scanner = PreambleScanner::new();
    let mut buffer = vec![0; 4096];
    loop {
        let length = input.read(&mut buffer).await?;
        if length == 0 {
            return Err(Cause::Closed);
        }
        let (taken, found) = scanner.advance(&buffer[..length]).map_err(|error| Cause::Protocol(error.to_string()))?;
        match found {
            None => {}
            Some(theirs) if theirs.has(Capability::CHUNKED_ENCODING) => {
                return Ok((theirs, buffer[taken..length].to_vec()));
            }
            Some(_) => {
                let old = "its remoting does not frame commands in chunks, so it is older than 2.38 (2014)";
                return Err(Cause::Protocol(old.to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tokio::io::{DuplexStream, duplex, split};

    type Outcome = Result<Connection, ConnectError>;

    /// The agent's side started, and the controller's end of its input and output.
    fn start() -> (tokio::task::JoinHandle<Outcome>, DuplexStream) {
        let (ours, theirs) = duplex(1 << 16);
        let (input, output) = split(ours);
        (tokio::spawn(connect(input, output, Capability::OURS, NEGOTIATION_TIMEOUT)), theirs)
    }

    #[tokio::test]
    async fn a_banner_before_and_chunks_behind_the_preamble() {
        let (agent, mut controller) = start();
        let theirs = Capability { mask: 0x1ff };
        let mut sent = b"Last login: Monday\r\n<===[JENKINS\n".to_vec();
        sent.extend(preamble(theirs));
        sent.extend(b"\0\x05hello\0\x05wo");
        controller.write_all(&sent).await.unwrap();
        let mut connection = agent.await.unwrap().unwrap();
        assert_eq!(connection.peer.capability, theirs);
        assert_eq!(connection.peer.protocol.to_string(), "Standard in/out");
        assert_eq!(connection.reader.read().await.unwrap().unwrap(), "hello");
        controller.write_all(b"rld").await.unwrap();
        assert_eq!(connection.reader.read().await.unwrap().unwrap(), "world");
        connection.writer.write(&[Bytes::from_static(b"yes")]).await.unwrap();
        connection.writer.close().await;
        let mut received = Vec::new();
        controller.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, [preamble(Capability::OURS).as_slice(), b"\0\x03yes"].concat());
        drop(controller);
        assert_eq!(connection.reader.read().await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_controller_is_told_so() {
        let classic = preamble(Capability { mask: 0x7e });
        let cases: [(&[u8], bool, &str); 5] = [
            (b"", true, "the connection was closed without a reason given"),
            (b"hello", true, "the connection was closed without a reason given"),
            (b"hello", false, "timed out after 60 s"),
            (
                b"<===[HUDSON TRANSMISSION BEGINS]===>",
                false,
                "unexpected answer: the controller asks for text mode, which this agent does not support",
            ),
            (
                &classic,
                false,
                "unexpected answer: its remoting does not frame commands in chunks, so it is older than 2.38 (2014)",
            ),
        ];
        for (sent, close, expected) in cases {
            let (agent, mut controller) = start();
            controller.write_all(sent).await.unwrap();
            if close {
                controller.shutdown().await.unwrap();
            }
            let error = agent.await.unwrap().unwrap_err();
            let expected = format!("waiting for the preamble of the controller on standard input: {expected}");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_truncation_ends() {
        let whole = preamble(Capability::OURS);
        for length in 0..whole.len() {
            let (agent, mut controller) = start();
            controller.write_all(&whole[..length]).await.unwrap();
            controller.shutdown().await.unwrap();
            assert!(matches!(agent.await.unwrap().unwrap_err().cause, Cause::Closed), "{length}");
        }
    }
}
