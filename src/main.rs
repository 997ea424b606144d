//! The `agent` binary.
#![forbid(unsafe_code)]

fn main() {}
