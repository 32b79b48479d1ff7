//! The settings of an `OriginPolicy`.

use std::net::SocketAddr;

use super::{Hosts, OriginPolicy, syntax};
use crate::error::OriginPolicyError;

/// The settings of an [`OriginPolicy`]; from [`OriginPolicy::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct OriginPolicyBuilder {
    origins: Vec<String>,
    allow_null_origin: bool,
    hosts: Vec<String>,
    allow_any_host: bool,
    public_hosts: Vec<String>,
}

impl OriginPolicyBuilder {
    /// Allows pages of this origin. Call it once per origin. Defaults to no origin.
    ///
    /// The origin is what the browser sends: `scheme://host[:port]`, such as `https://example.org`, `tauri://localhost`
    /// or `chrome-extension://ID`. Once an origin is allowed, every request of another foreign origin is refused.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// Allows the origin `null`: pages from files, `data:` URLs and sandboxed frames of any site.
    ///
    /// A page with `Referrer-Policy: no-referrer` sends it too when it posts a form.
    pub fn allow_null_origin(mut self) -> Self {
        self.allow_null_origin = true;
        self
    }

    /// Allows requests to this host on any port. Call it once per host.
    ///
    /// The address that the server is bound to is always allowed. On the loopback, `localhost`, `127.0.0.1` and `[::1]`
    /// are allowed too. Defaults to these on the loopback, and to any host elsewhere.
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Allows requests to any host, even on the loopback. This gives up the protection from DNS rebinding.
    pub fn allow_any_host(mut self) -> Self {
        self.allow_any_host = true;
        self
    }

    /// Names the server as browsers know it, for a server behind a proxy. Call it once per name.
    ///
    /// The name is `host[:port]`, such as `example.org`, or `example.org:8443` if the port is not the default one of
    /// `http` or `https`. Pages of this host and port are the server's own. Without it they are foreign, because their
    /// origin differs from `Host`, and none of them can post. Requests to this host are allowed on any port. It does not
    /// restrict the hosts of a server outside the loopback.
    ///
    /// ```
    /// use server_sent_events::OriginPolicy;
    ///
    /// let policy = OriginPolicy::builder().public_host("example.org").build(([127, 0, 0, 1], 5000))?;
    /// let page = ("Origin", "https://example.org");
    /// assert!(policy.check("POST", [("Host", "localhost"), page]).is_ok());
    /// assert!(policy.check("POST", [("Host", "example.org"), page]).is_ok());
    /// # Ok::<(), server_sent_events::OriginPolicyError>(())
    /// ```
    pub fn public_host(mut self, host: impl Into<String>) -> Self {
        self.public_hosts.push(host.into());
        self
    }

    /// Builds the policy of a server that is bound to this address.
    ///
    /// # Errors
    ///
    /// Returns an [`OriginPolicyError`] for an origin that no browser sends, such as `*`, and for a host with a scheme
    /// or a path. Only the public host may have a port.
    ///
    /// ```
    /// use server_sent_events::OriginPolicy;
    /// use std::net::TcpListener;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let policy = OriginPolicy::builder().build(listener.local_addr()?)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn build(self, bound: impl Into<SocketAddr>) -> Result<OriginPolicy, OriginPolicyError> {
        let Self { mut origins, allow_null_origin, mut hosts, allow_any_host, public_hosts } = self;
        for origin in &origins {
            syntax::check_origin(origin)
                .map_err(|reason| OriginPolicyError::Origin { origin: origin.clone(), reason })?;
        }
        if let Some(host) = hosts.iter().find(|host| !syntax::is_host(&host.to_ascii_lowercase())) {
            return Err(OriginPolicyError::Host { host: host.clone() });
        }
        if let Some(host) = public_hosts.iter().find(|host| !syntax::is_authority(&host.to_ascii_lowercase())) {
            return Err(OriginPolicyError::PublicHost { host: host.clone() });
        }
        if allow_null_origin {
            origins.push("null".into());
        }
        let bound = bound.into().ip().to_canonical();
        // A server outside the loopback answers to any host, unless the program names some.
        let hosts = if allow_any_host || (hosts.is_empty() && !bound.is_loopback()) {
            None
        } else {
            hosts.extend(public_hosts.iter().map(|host| syntax::split_port(host).0.to_owned()));
            Some(Hosts::new(hosts, bound))
        };
        Ok(OriginPolicy { hosts, public_hosts, origins })
    }
}
