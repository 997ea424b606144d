//! Commands over a byte stream.

use super::TransportError;
use bytes::Bytes;

#[derive(Debug)]
pub struct Reader(());

impl Reader {
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, TransportError> {
        Ok(None)
    }
}

#[derive(Debug)]
pub struct Writer(());

impl Writer {
    pub(super) async fn write(&mut self, _commands: &[Bytes]) -> Result<(), TransportError> {
        Ok(())
    }

    pub(super) async fn close(&mut self) {}
}
