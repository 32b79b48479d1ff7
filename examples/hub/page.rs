//! The hub's page, in one piece with its style and its script.

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use server_sent_events::server::{HandlerError, Response};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

pub struct Page {
    html: Arc<[u8]>,
    /// Allows the page's own style and script, requests to the hub, and nothing else.
    policy: String,
}

impl Page {
    /// Creates the page, with a field for the publish token if one is needed.
    pub fn new(needs_token: bool) -> Self {
        let publishing = if needs_token { "with-token" } else { "open" };
        let html = include_str!("page.html").replace("PUBLISHING", publishing);
        let html = html.replace("STYLE", STYLE).replace("SCRIPT", SCRIPT);
        let policy = format!(
            "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            source(STYLE),
            source(SCRIPT)
        );
        Self { html: html.into_bytes().into(), policy }
    }

    pub fn respond(&self) -> Result<Response, HandlerError> {
        Response::bytes("text/html; charset=utf-8", Arc::clone(&self.html))?
            .header("Cache-Control", "no-cache")?
            .header("Content-Security-Policy", &self.policy)?
            .header("Referrer-Policy", "no-referrer")?
            .header("X-Content-Type-Options", "nosniff")
    }
}

/// Returns how the policy names an inline text: by its hash.
fn source(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)))
}
