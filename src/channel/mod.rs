//! TODO channel
