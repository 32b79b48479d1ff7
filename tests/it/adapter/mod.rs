//! The adapters: what is specific to each one.

#[cfg(feature = "tiny_http")]
mod origin_policy;
#[cfg(feature = "rouille")]
pub mod rouille;
#[cfg(feature = "tiny_http")]
mod tiny_http;
