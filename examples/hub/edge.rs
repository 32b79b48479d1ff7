//! An edge: a hub that follows channels of another one, the origin, and serves them under the same IDs.

use std::net::SocketAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use server_sent_events::client::Upstream;
use server_sent_events::server::{HandlerError, Response};
use ureq::http::Uri;

use crate::answer::check_channels;

/// All but the characters that a path has as they are (RFC 3986, section 2.3). So a comma in a name is encoded too.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The origin, and the channels that are followed.
pub struct Edge {
    origin: String,
    channels: Vec<String>,
    root_certificates: Option<Vec<u8>>,
}

impl Edge {
    /// Creates an edge from the values of the options: the origin's URL, the channels, and the certificates that may sign
    /// that of the origin.
    pub fn new(values: &[String], root_certificates: Option<Vec<u8>>) -> Result<Self, String> {
        let (origin, channels) = values.split_first().ok_or("the origin's URL is missing")?;
        check_origin(origin)?;
        check_channels(channels)?;
        let mut names = channels.iter().enumerate();
        if let Some((_, name)) = names.find(|(n, name)| channels[..*n].contains(name)) {
            return Err(format!("the channel {name:?} is named twice"));
        }
        Ok(Self { origin: origin.trim_end_matches('/').to_owned(), channels: channels.to_vec(), root_certificates })
    }

    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub fn channels(&self) -> &[String] {
        &self.channels
    }

    /// Returns a channel whose name is an address, which was probably meant as that.
    pub fn address_among_channels(&self) -> Option<&str> {
        self.channels.iter().map(|name| &**name).find(|name| name.parse::<SocketAddr>().is_ok())
    }

    /// Returns what the history follows.
    pub fn upstream(&self) -> Upstream {
        let names: Vec<String> =
            self.channels.iter().map(|name| utf8_percent_encode(name, ENCODED).to_string()).collect();
        let upstream = Upstream::at(format!("{}/{}?follow", self.origin, names.join(","))).channels(&self.channels);
        match &self.root_certificates {
            Some(pem) => upstream.root_certificates(pem.clone()),
            None => upstream,
        }
    }

    /// Checks that these channels are followed.
    pub fn check(&self, channels: &[String]) -> Result<(), HandlerError> {
        match channels.iter().find(|name| !self.channels.contains(name)) {
            Some(name) => {
                let followed = self.channels.join(", ");
                Err(HandlerError::new(404, format!("this edge does not follow the channel {name}, but {followed}")))
            }
            None => Ok(()),
        }
    }

    /// Answers a post, or another request than for watching.
    pub fn refuse_method(&self, path: &str) -> Result<Response, HandlerError> {
        let text = format!("this hub is an edge, which only serves GET: publish to {}{path}\n", self.origin);
        Response::text(text).with_status(405)?.header("Allow", "GET, HEAD")
    }
}

/// Checks that this is the URL of a hub, to which a path can be appended.
fn check_origin(url: &str) -> Result<(), String> {
    let is_origin = |uri: &Uri| {
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_host = uri.authority().is_some_and(|authority| {
            let (host, port) = (authority.host(), authority.port_u16());
            !host.is_empty() && (port.is_some() || host == authority.as_str())
        });
        is_http && has_host && uri.query().is_none()
    };
    // The parser drops a fragment. A user's name and password would be in the texts that name the origin.
    match url.parse::<Uri>() {
        Ok(uri) if is_origin(&uri) && !url.contains(['#', '@']) => Ok(()),
        _ => Err(format!("invalid URL {url:?}: expected that of a hub, such as http://origin.example.org:5000")),
    }
}
