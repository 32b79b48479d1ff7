//! Output of the examples that never panics: `println!` and `eprintln!` panic if the reader is gone or the disk is
//! full, and that ends the thread that answers requests.
#![allow(dead_code)] // each example is a crate of its own and uses only some of it

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
