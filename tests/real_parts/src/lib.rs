//! What every part needs: the examples as processes, patience, and what stands between them and who uses them.

pub mod browser;
pub mod client;
#[path = "../../common/mod.rs"]
pub mod common;
pub mod curl;
pub mod installed;
pub mod proxy;
pub mod relay;
