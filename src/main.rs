//! The `agent` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    inbound_agent::cli::run::main()
}
