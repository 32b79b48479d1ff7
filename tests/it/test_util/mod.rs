//! The tools for tests: each fails where it promises to.

mod clock;
mod messages;
mod stalled;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Returns the text with which this panics.
#[track_caller]
fn panics<T>(call: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(|| drop(call()))).expect_err("no panic");
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).into()))
        .unwrap()
}
