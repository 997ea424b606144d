//! The channel's state machine: whatever the peer sends and its user does, nothing panics.
#![no_main]

#[path = "../../tests/steps/mod.rs"]
mod steps;

libfuzzer_sys::fuzz_target!(|data: &[u8]| steps::run(data));
