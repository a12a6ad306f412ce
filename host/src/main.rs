//! The program `host`: the command line and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    host::cli::main()
}
