//! Gives the crate's parsers and histories random input. Each target is a function that panics if something is wrong.
//!
//! The same functions run in two ways. On stable, `tests/fuzz/run SECONDS` changes the inputs of the corpora at random
//! (the [`driver`]). With a nightly toolchain and cargo-fuzz, libFuzzer looks for inputs that reach more of the code:
//!
//! ```sh
//! cd tests/fuzz && mkdir -p ../../target/corpus
//! RUSTFLAGS="--cfg sse_fuzz" cargo +nightly fuzz run --fuzz-dir . parser ../../target/corpus corpus/parser
//! ```
//!
//! libFuzzer keeps new inputs in the first folder.

pub mod connection;
#[cfg(not(fuzzing))]
pub mod driver;
pub mod encoder;
pub mod memory;
pub mod parser;
pub mod resume;
pub mod store;

/// Makes a program of a target: for libFuzzer, or with the driver.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::$name::check(input));

        #[cfg(not(fuzzing))]
        fn main() -> std::process::ExitCode {
            $crate::driver::run(stringify!($name), $crate::$name::check)
        }
    };
}
