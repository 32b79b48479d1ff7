//! Output of the examples that never fails: `println!` and `eprintln!` panic if a reader is gone or a disk is full, and
//! with them the thread that answers requests.
#![allow(dead_code)] // each example is a crate of its own and uses some of it

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line to standard output, if that is possible.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Writes a line to standard error, if that is possible.
pub fn log(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
