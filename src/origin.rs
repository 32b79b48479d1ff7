//! Which pages may use a server: the rules about the request headers `Host` and `Origin`.

mod builder;
mod syntax;

use std::net::IpAddr;

pub use builder::OriginPolicyBuilder;
#[cfg(feature = "server")]
pub(crate) use syntax::is_host_header;

use crate::error::OriginRefused;

/// The rules that keep foreign pages from using a server.
///
/// A browser sends requests to a server for any page that it shows. So a page of any website can reach a server on the
/// same machine or in the same network. Two rules keep it out:
///
/// * **`Host`.** A request for another host is refused. This prevents DNS rebinding, by which a foreign page reaches the
///   server under a name of its own. A server on the loopback answers to `localhost`, `127.0.0.1`, `[::1]` and the
///   address it is bound to, on any port. Any other server answers to every host, unless
///   [some are named](OriginPolicyBuilder::allow_host).
/// * **`Origin`.** A request of a foreign page is refused if its method is not `GET`, `HEAD` or `OPTIONS`. So a foreign
///   page cannot publish, with or without CORS. Once an origin is [allowed](OriginPolicyBuilder::allow_origin), the
///   other methods are refused too for foreign origins that are not allowed. Until then, `GET` and `HEAD` of a foreign
///   page are answered, and the browser keeps the response from the page.
///
/// A page is the server's own if its host and port are those of `Host` or of a
/// [public host](OriginPolicyBuilder::public_host). Clients that are not browsers send no `Origin`, and pass.
///
/// The policy does not authenticate clients. It protects the users of a browser, not the server from other programs.
///
/// `EventServer` applies the policy to every request. For a server of another kind, build one from the address it is
/// bound to, and check each request before anything else:
///
/// ```
/// use server_sent_events::OriginPolicy;
///
/// let policy = OriginPolicy::builder().allow_origin("https://example.org").build(([127, 0, 0, 1], 5000))?;
/// let host = ("Host", "localhost:5000");
/// assert!(policy.check("POST", [host]).is_ok());
/// assert!(policy.check("POST", [host, ("Origin", "http://localhost:5000")]).is_ok());
/// assert!(policy.check("POST", [host, ("Origin", "https://example.org")]).is_ok());
///
/// let refused = policy.check("POST", [host, ("Origin", "https://evil.example")]).unwrap_err();
/// assert_eq!(refused.status(), 403);
/// assert_eq!(
///     refused.to_string(),
///     "foreign origin \"https://evil.example\": only pages of localhost:5000 and https://example.org are allowed",
/// );
/// # Ok::<(), server_sent_events::OriginPolicyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct OriginPolicy {
    /// `None` allows any host.
    hosts: Option<Hosts>,
    /// `host[:port]` of the server behind a proxy.
    public_hosts: Vec<String>,
    /// The foreign origins that are allowed.
    origins: Vec<String>,
}

impl OriginPolicy {
    /// Returns a builder for a policy that allows no foreign origin.
    pub fn builder() -> OriginPolicyBuilder {
        OriginPolicyBuilder::default()
    }

    /// Checks a request by its method and all its headers, in order and unchanged.
    ///
    /// # Errors
    ///
    /// Returns the reason why the request is refused. Answer it with the reason's [status](OriginRefused::status) and
    /// text:
    ///
    /// * 403 for a host or an origin that is not allowed.
    /// * 400 for several `Host` headers, for one that is not a host, and for several `Origin` headers.
    ///
    /// ```
    /// use server_sent_events::OriginPolicy;
    ///
    /// let policy = OriginPolicy::builder().build(([127, 0, 0, 1], 5000))?;
    /// let headers = [("Host", "localhost:5000"), ("Origin", "https://evil.example")];
    /// assert!(policy.check("GET", headers).is_ok());
    /// assert_eq!(policy.check("POST", headers).unwrap_err().status(), 403);
    /// # Ok::<(), server_sent_events::OriginPolicyError>(())
    /// ```
    pub fn check<'a>(
        &self,
        method: &str,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), OriginRefused> {
        self.allowed_origin(method, headers).map(drop)
    }

    /// Checks a request, and returns the foreign origin that may read the response.
    pub(crate) fn allowed_origin<'a>(
        &self,
        method: &str,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Option<&'a str>, OriginRefused> {
        let (host, origin) = host_and_origin(headers)?;
        self.check_host(host)?;
        let Some(origin) = origin else { return Ok(None) };
        if self.origins.iter().any(|allowed| allowed == origin) {
            return Ok(Some(origin));
        }
        // Without CORS, the browser keeps these responses from the page.
        let only_reads = matches!(method, "GET" | "HEAD" | "OPTIONS");
        if self.is_own(origin, host) || (only_reads && !self.allows_foreign_origins()) {
            return Ok(None);
        }
        Err(OriginRefused::Origin { origin: origin.into(), allowed: self.pages(host) })
    }

    /// Returns whether pages of some foreign origin are allowed.
    pub(crate) fn allows_foreign_origins(&self) -> bool {
        !self.origins.is_empty()
    }

    fn check_host(&self, host: Option<&str>) -> Result<(), OriginRefused> {
        match &self.hosts {
            Some(hosts) if !host.is_some_and(|host| hosts.allow(host)) => {
                Err(OriginRefused::Host { host: host.map(str::to_owned), allowed: hosts.names() })
            }
            _ => Ok(()),
        }
    }

    /// Returns the hosts and origins whose pages are allowed.
    fn pages(&self, host: Option<&str>) -> Vec<String> {
        let host = host.filter(|host| !self.public_hosts.iter().any(|public| public == host));
        host.into_iter().map(str::to_owned).chain(self.public_hosts.iter().chain(&self.origins).cloned()).collect()
    }

    /// Returns whether a page of this origin comes from this server.
    fn is_own(&self, origin: &str, host: Option<&str>) -> bool {
        let mut hosts = host.into_iter().chain(self.public_hosts.iter().map(String::as_str));
        hosts.any(|host| syntax::is_same_origin(origin, host))
    }
}

/// Returns the values of the headers `Host` and `Origin`.
fn host_and_origin<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(Option<&'a str>, Option<&'a str>), OriginRefused> {
    let (mut host, mut origin) = (None, None);
    for (name, value) in headers {
        let value = value.trim_matches([' ', '\t']);
        if name.eq_ignore_ascii_case("Host") {
            // Servers and proxies would disagree on which of two hosts counts.
            if host.replace(value).is_some() || !syntax::is_host_header(value) {
                return Err(OriginRefused::InvalidHost);
            }
        } else if name.eq_ignore_ascii_case("Origin") && origin.replace(value).is_some() {
            return Err(OriginRefused::SeveralOrigins);
        }
    }
    Ok((host, origin))
}

/// The hosts that a server answers to.
#[derive(Clone, Debug)]
struct Hosts {
    names: Vec<String>,
    /// The server's own address.
    bound: IpAddr,
}

impl Hosts {
    fn new(mut names: Vec<String>, bound: IpAddr) -> Self {
        if bound.is_loopback() {
            names.extend(["localhost", "127.0.0.1", "[::1]"].map(String::from));
        }
        Self { names, bound }
    }

    /// Returns whether the value of a `Host` header names an allowed host, on any port.
    fn allow(&self, host: &str) -> bool {
        let (name, _) = syntax::split_port(host);
        // The server's address is allowed in every spelling. A foreign page can redirect a name to another machine, but
        // not an address.
        let is_bound = syntax::address(name).is_some_and(|address| address == self.bound && !address.is_unspecified());
        is_bound || self.names.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }

    /// Returns the names of all these hosts.
    fn names(&self) -> Vec<String> {
        let bound = match self.bound {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let is_named = self.bound.is_unspecified() || self.names.contains(&bound);
        let bound = (!is_named).then_some(bound);
        self.names.iter().cloned().chain(bound).collect()
    }
}

#[cfg(test)]
mod tests;
