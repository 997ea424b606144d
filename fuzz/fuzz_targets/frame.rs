//! Chunks, capability and preamble: no input panics, and how the bytes arrive makes no difference.
#![no_main]

use bytes::Bytes;
use inbound_agent::frame::{Assembler, Capability, PreambleScanner};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 64 << 10;

/// The commands that come out of pieces of this size, and how the last of them ended.
fn assemble(data: &[u8], piece: usize) -> (Vec<Bytes>, bool) {
    let mut assembler = Assembler::new(LIMIT);
    let mut commands = Vec::new();
    for part in data.chunks(piece) {
        assembler.feed(Bytes::copy_from_slice(part));
        loop {
            match assembler.next() {
                Ok(Some(command)) => commands.push(command),
                Ok(None) => break,
                Err(_) => return (commands, false),
            }
        }
    }
    (commands, assembler.finish().is_ok())
}

fuzz_target!(|data: &[u8]| {
    let whole = assemble(data, data.len().max(1));
    assert_eq!(whole, assemble(data, 1));
    assert!(whole.0.iter().all(|command| command.len() <= LIMIT));

    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(capability) = Capability::from_base64(text)
    {
        assert_eq!(Capability::from_base64(&capability.to_base64()), Ok(capability));
    }

    let mut scanner = PreambleScanner::new();
    if let Ok((used, _)) = scanner.advance(data) {
        assert!(used <= data.len());
    }
});
