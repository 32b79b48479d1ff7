//! The hub's page, in one piece with its style and its script.

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use server_sent_events::server::{HandlerError, Response};
use sha2::{Digest, Sha256};

use crate::edge::Edge;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What the page's form for sending needs.
pub enum Publishing<'a> {
    Open,
    WithToken,
    /// Nothing can be sent here.
    Elsewhere(&'a Edge),
}

pub struct Page {
    html: Arc<[u8]>,
    /// Allows the page's own style and script, requests to the hub, and nothing else.
    policy: String,
}

impl Page {
    /// Creates the page.
    pub fn new(publishing: &Publishing) -> Self {
        let (publishing, origin, channels) = match publishing {
            Publishing::Open => ("open", String::new(), "builds".to_owned()),
            Publishing::WithToken => ("with-token", String::new(), "builds".to_owned()),
            Publishing::Elsewhere(edge) => ("elsewhere", edge.origin().to_owned(), edge.channels().join(",")),
        };
        let html = include_str!("page.html").replace("PUBLISHING", publishing);
        let html = html.replace("STYLE", STYLE).replace("SCRIPT", SCRIPT);
        let html = html.replace("ORIGIN", &escaped(&origin)).replace("CHANNELS", &escaped(&channels));
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

/// Returns the text as HTML, also for the value of an attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// Returns how the policy names an inline text: by its hash.
fn source(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)))
}
