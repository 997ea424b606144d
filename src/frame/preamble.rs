//! How two ends find each other on a plain byte stream, where a shell's banner may come first
//! (`ChannelBuilder.negotiate`).

use super::{Capability, CapabilityError};

/// Comes before a capability's base64 text (`Capability.PREAMBLE`).
pub const CAPABILITY_PREAMBLE: &[u8] = b"<===[JENKINS REMOTING CAPACITY]===>";

/// What says that chunks follow in binary (`Channel.Mode.BINARY`).
pub const BINARY_PREAMBLE: &[u8] = &[0; 4];

/// What says that everything follows in base64 (`Channel.Mode.TEXT`), which this agent does not do.
pub const TEXT_PREAMBLE: &[u8] = b"<===[HUDSON TRANSMISSION BEGINS]===>";

/// How much of something else may come before the preambles.
pub const MAX_BANNER: usize = 64 << 10;

/// How long a capability's text may be; Java's is 84 characters.
const MAX_CAPABILITY_TEXT: usize = 4096;

/// How much of a banner an error shows.
const SHOWN: usize = 100;

/// What this agent sends first: its capability and binary mode.
pub fn preamble(capability: Capability) -> Vec<u8> {
    [
        CAPABILITY_PREAMBLE,
        capability.to_base64().as_bytes(),
        BINARY_PREAMBLE,
    ]
    .concat()
}

/// A stream that doesn't begin as a controller's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PreambleError {
    /// Much came, but no preamble.
    #[error(
        "no controller speaks here: {MAX_BANNER} bytes without a remoting preamble, beginning {beginning:?}"
    )]
    NotFound {
        /// How it begins.
        beginning: String,
    },
    /// The controller wants base64 mode.
    #[error("the controller asks for text mode, which this agent does not support")]
    TextMode,
    /// The capability can't be read.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// The capability's text does not end.
    #[error("the controller's remoting capability is longer than {MAX_CAPABILITY_TEXT} characters")]
    CapabilityTooLong,
}

/// Looks for the other end's preambles in whatever comes first.
#[derive(Debug, Default)]
pub struct PreambleScanner {
    /// Bytes matched of the binary, text and capability preamble. All begin with a byte that they don't repeat, or
    /// repeat one byte alone, so that a mismatch never needs to look back.
    matched: [usize; 3],
    scanned: usize,
    beginning: Vec<u8>,
    text: Option<Vec<u8>>,
    capability: Option<Capability>,
}

impl PreambleScanner {
    /// A scanner at the beginning of a stream.
    pub fn new() -> Self {
        PreambleScanner::default()
    }

    /// Takes bytes until the binary preamble is complete: gives how many of them were taken and, at the end, the
    /// capability that came before it ([`Capability::NONE`] if none did). What follows those is the first chunk's.
    ///
    /// # Errors
    /// [`PreambleError`]; the stream is of no use then.
    pub fn advance(&mut self, input: &[u8]) -> Result<(usize, Option<Capability>), PreambleError> {
        for (at, &byte) in input.iter().enumerate() {
            if let Some(text) = &mut self.text {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=') {
                    if text.len() == MAX_CAPABILITY_TEXT {
                        return Err(PreambleError::CapabilityTooLong);
                    }
                    text.push(byte);
                    continue;
                }
                self.capability = Some(Capability::from_base64(&String::from_utf8_lossy(text))?);
                self.text = None;
            }
            self.scanned += 1;
            if self.scanned > MAX_BANNER {
                let beginning = String::from_utf8_lossy(&self.beginning).into_owned();
                return Err(PreambleError::NotFound { beginning });
            }
            if self.beginning.len() < SHOWN {
                self.beginning.push(byte);
            }
            let preambles = [BINARY_PREAMBLE, TEXT_PREAMBLE, CAPABILITY_PREAMBLE];
            for (preamble, matched) in preambles.iter().zip(&mut self.matched) {
                *matched = if preamble[*matched] == byte {
                    *matched + 1
                } else {
                    usize::from(preamble[0] == byte)
                };
            }
            match [0, 1, 2].map(|i| self.matched[i] == preambles[i].len()) {
                [true, ..] => {
                    return Ok((at + 1, Some(self.capability.unwrap_or(Capability::NONE))));
                }
                [_, true, _] => return Err(PreambleError::TextMode),
                [.., true] => {
                    self.matched = [0; 3];
                    self.text = Some(Vec::new());
                }
                _ => {}
            }
        }
        Ok((input.len(), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(input: &[u8], step: usize) -> Result<Option<(Capability, usize)>, PreambleError> {
        let mut scanner = PreambleScanner::new();
        let mut taken = 0;
        for piece in input.chunks(step) {
            let (n, capability) = scanner.advance(piece)?;
            taken += n;
            if let Some(capability) = capability {
                return Ok(Some((capability, taken)));
            }
        }
        Ok(None)
    }

    #[test]
    fn what_java_sends_first() {
        let sent = preamble(Capability::OURS);
        assert_eq!(
            sent,
            b"<===[JENKINS REMOTING CAPACITY]===>rO0ABXNyABpodWRzb24ucmVtb3RpbmcuQ2FwYWJpbGl0eQAAAAAAAAABAgABSgAEbWFza3hwAAAAAAAAAf4=\0\0\0\0"
        );
    }

    #[test]
    fn text_mode_is_refused() {
        assert_eq!(
            scan(b"<===[HUDSON TRANSMISSION BEGINS]===>", 7),
            Err(PreambleError::TextMode)
        );
    }

    #[test]
    fn mode_without_capability_is_none() {
        assert_eq!(
            scan(b"Welcome\n\0\0\0\0", 3),
            Ok(Some((Capability::NONE, 12)))
        );
    }

    #[test]
    fn a_false_start_is_no_obstacle() {
        let mut input = b"<===[JENKINS REMOTING CA<\0\0\0<===[".to_vec();
        input.extend(preamble(Capability::OURS));
        assert_eq!(scan(&input, 1), Ok(Some((Capability::OURS, input.len()))));
    }

    #[test]
    fn endless_noise_is_bounded() {
        let noise = b"login: ".repeat(MAX_BANNER);
        let error = scan(&noise, 1000).unwrap_err();
        assert!(
            error.to_string().contains("beginning \"login: login: "),
            "{error}"
        );
        let mut endless = CAPABILITY_PREAMBLE.to_vec();
        endless.resize(MAX_BANNER, b'A');
        assert_eq!(scan(&endless, 1000), Err(PreambleError::CapabilityTooLong));
    }

    #[test]
    fn a_bad_capability_is_an_error() {
        let input = [CAPABILITY_PREAMBLE, b"AAAA\0"].concat();
        assert!(matches!(scan(&input, 5), Err(PreambleError::Capability(_))));
    }

    proptest! {
        #[test]
        fn found_behind_any_banner_in_any_split(banner in "[a-zA-Z <=\\[\\n]{0,200}", mask: u64, step in 1usize..50) {
            let mut input = banner.into_bytes();
            input.extend(preamble(Capability { mask }));
            let end = input.len();
            prop_assert_eq!(scan(&input[..end - 1], step), Ok(None));
            input.extend(b"\0\x05chunk");
            prop_assert_eq!(scan(&input, step), Ok(Some((Capability { mask }, end))));
        }

        #[test]
        fn noise_does_not_panic(noise in proptest::collection::vec(any::<u8>(), 0..300), step in 1usize..50) {
            let _ = scan(&noise, step);
        }
    }
}
