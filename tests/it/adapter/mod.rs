//! The adapters: what is particular to each.

#[cfg(all(feature = "rouille", feature = "tiny_http"))] // its example's page and body tests share what tiny_http needs
mod rouille;
#[cfg(feature = "tiny_http")]
mod tiny_http;
