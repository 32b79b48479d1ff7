//! The adapters: what is particular to each.

#[cfg(feature = "tiny_http")]
mod origin_policy;
#[cfg(feature = "rouille")]
pub mod rouille;
#[cfg(feature = "tiny_http")]
mod tiny_http;
