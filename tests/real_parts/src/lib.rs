//! What every part needs: the examples as processes, and patience.

#[path = "../../common/mod.rs"]
pub mod common;
pub mod relay;
