//! Errors of the rules about `Host` and `Origin`.

use std::error::Error;
use std::fmt;
use std::io;

/// The reason why the settings of an [`OriginPolicy`](crate::OriginPolicy) were rejected.
///
/// ```
/// use server_sent_events::OriginPolicy;
///
/// let error = OriginPolicy::builder().allow_origin("https://example.org/").build(([127, 0, 0, 1], 5000)).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "invalid origin \"https://example.org/\": expected scheme://host[:port]; browsers send no path",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OriginPolicyError {
    /// No browser sends this origin.
    Origin {
        /// The origin that was given.
        origin: String,
        /// The reason why no browser sends it.
        reason: &'static str,
    },
    /// The allowed host is not one, or has a port.
    Host {
        /// The host that was given.
        host: String,
    },
    /// The public host is not one, or its port is not a number.
    PublicHost {
        /// The host that was given.
        host: String,
    },
}

impl fmt::Display for OriginPolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HOST: &str = "a name, an IPv4 address or an IPv6 address in brackets";
        match self {
            Self::Origin { origin, reason } => {
                write!(f, "invalid origin {origin:?}: expected scheme://host[:port]; {reason}")
            }
            Self::Host { host } => write!(f, "invalid host {host:?}: expected {HOST}, without a port"),
            Self::PublicHost { host } => {
                write!(f, "invalid public host {host:?}: expected {HOST}, and optionally a port")
            }
        }
    }
}

impl Error for OriginPolicyError {}

/// Converts into an error of the kind [`InvalidInput`](io::ErrorKind::InvalidInput).
impl From<OriginPolicyError> for io::Error {
    fn from(error: OriginPolicyError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// The reason why an [`OriginPolicy`](crate::OriginPolicy) refused a request.
///
/// Answer the request with [`status`](Self::status) and the error's text. The text names the allowed hosts or origins.
///
/// ```
/// use server_sent_events::OriginPolicy;
///
/// let policy = OriginPolicy::builder().build(([127, 0, 0, 1], 5000))?;
/// let refused = policy.check("GET", [("Host", "evil.example:5000")]).unwrap_err();
/// assert_eq!(refused.status(), 403);
/// assert_eq!(refused.to_string(), "host \"evil.example:5000\" not allowed: use localhost, 127.0.0.1 or [::1]");
/// # Ok::<(), server_sent_events::OriginPolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OriginRefused {
    /// The request has several `Host` headers, or one that names no host.
    InvalidHost,
    /// The request has several `Origin` headers.
    SeveralOrigins,
    /// The request is for a host that is not allowed.
    Host {
        /// The value of the header `Host`, if the request has one.
        host: Option<String>,
        /// The allowed hosts.
        allowed: Vec<String>,
    },
    /// The request comes from a page of a foreign origin.
    Origin {
        /// The value of the header `Origin`.
        origin: String,
        /// The hosts whose pages are the server's own, and the allowed origins.
        allowed: Vec<String>,
    },
}

impl OriginRefused {
    /// Returns the status of the response: 403 for a host or an origin that is not allowed, and 400 for headers that
    /// no browser sends.
    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidHost | Self::SeveralOrigins => 400,
            Self::Host { .. } | Self::Origin { .. } => 403,
        }
    }
}

impl fmt::Display for OriginRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidHost => f.write_str("invalid host header: send exactly one, with a valid host"),
            Self::SeveralOrigins => f.write_str("several origin headers: send at most one"),
            Self::Host { host: Some(host), allowed } => {
                write!(f, "host {host:?} not allowed: use {}", list(allowed, "or"))
            }
            Self::Host { host: None, allowed } => write!(f, "host header missing: use {}", list(allowed, "or")),
            Self::Origin { origin, allowed } if allowed.is_empty() => {
                write!(f, "foreign origin {origin:?}: no page is allowed")
            }
            Self::Origin { origin, allowed } => {
                write!(f, "foreign origin {origin:?}: only pages of {} are allowed", list(allowed, "and"))
            }
        }
    }
}

impl Error for OriginRefused {}

/// Returns the names as an English list: `a, b or c`.
fn list(names: &[String], conjunction: &str) -> String {
    match names {
        [] => String::new(),
        [name] => name.clone(),
        [names @ .., last] => format!("{} {conjunction} {last}", names.join(", ")),
    }
}
