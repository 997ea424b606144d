//! What the sub-commands beside `--probe` have in common.

use std::future::Future;
use std::io::{self, Write};

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::run::{FAILED, USAGE};

/// Reads the arguments behind the command's name.
///
/// # Errors
/// The exit code, after the help or what is wrong has been printed.
pub(super) fn parse<O: Parser>(command: &str, arguments: &[String]) -> Result<O, u8> {
    let arguments = std::iter::once(command).chain(arguments.iter().map(String::as_str));
    O::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp => {
            let _ = write!(io::stdout(), "{error}");
            0
        }
        _ => {
            let _ = writeln!(io::stderr(), "{}", error.to_string().trim_end());
            USAGE
        }
    })
}

/// Runs a command on this thread.
pub(super) fn block_on(command: impl Future<Output = u8>) -> u8 {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(command);
            // Reads of standard input can't be broken off.
            runtime.shutdown_background();
            code
        }
        Err(error) => failed(&format!("starting: {error}")),
    }
}

/// Says why the command failed.
pub(super) fn failed(message: &str) -> u8 {
    let _ = writeln!(io::stderr(), "{message}");
    FAILED
}
