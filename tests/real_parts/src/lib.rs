//! What every part needs: the examples as processes, waiting with a limit, and the clients, proxies and relays.

pub mod browser;
pub mod client;
#[path = "../../common/mod.rs"]
pub mod common;
pub mod curl;
pub mod firefox;
pub mod installed;
pub mod proxy;
pub mod redis;
pub mod relay;
pub mod trying_page;
