//! The target of a redirect.
//!
//! ureq keeps `Authorization` if only the port changes, so the client follows redirects itself.

use ureq::http::Uri;
use ureq::http::uri::Scheme;

/// Returns the URL that a `Location` names, relative to the URL of the request. `None` if it is no URL of the web.
pub(super) fn target(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let has_scheme = location.split(['/', '?']).next().unwrap_or_default().contains(':');
    let absolute = if has_scheme {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else {
        format!("{scheme}://{authority}{}", path_and_query(base, location))
    };
    parsed(&absolute)
}

/// Returns the URL of a text that names a server of the web.
pub(super) fn parsed(url: &str) -> Option<Uri> {
    let parsed: Uri = url.parse().ok()?;
    let is_web = parsed.scheme() == Some(&Scheme::HTTP) || parsed.scheme() == Some(&Scheme::HTTPS);
    (is_web && parsed.host().is_some_and(|host| !host.is_empty())).then_some(parsed)
}

/// Returns `true` if the scheme, the host and the port are equal.
pub(super) fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    let port = |url: &Uri| url.port_u16().unwrap_or(if url.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 });
    let hosts = one.host().zip(other.host());
    one.scheme() == other.scheme()
        && hosts.is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
        && port(one) == port(other)
}

/// Returns the path and the query of a relative reference (RFC 3986, 5.2).
fn path_and_query(base: &Uri, location: &str) -> String {
    let (path, query) = location.find('?').map_or((location, ""), |at| location.split_at(at));
    let path = match path {
        "" if query.is_empty() => return base.path_and_query().map_or("/", |whole| whole.as_str()).to_owned(),
        "" => base.path().to_owned(),
        absolute if absolute.starts_with('/') => without_dots(absolute),
        relative => {
            let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            without_dots(&format!("{folder}/{relative}"))
        }
    };
    path + query
}

/// Removes the segments `.` and `..` of an absolute path.
fn without_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        match part {
            "." => {}
            ".." => drop(segments.pop()),
            part => {
                segments.push(part);
                continue;
            }
        }
        // The path of a folder ends with a slash.
        if parts.peek().is_none() {
            segments.push("");
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(location: &str) -> Option<String> {
        target(&"http://h:81/a/b?q".parse().unwrap(), location).map(|target| target.to_string())
    }

    #[test]
    fn a_location_is_relative_to_the_request() {
        for (location, expected) in [
            ("https://x/y?z#f", "https://x/y?z"),
            ("//x/y", "http://x/y"),
            ("/y?z", "http://h:81/y?z"),
            ("y", "http://h:81/a/y"),
            ("y?u=http://v", "http://h:81/a/y?u=http://v"),
            ("./", "http://h:81/a/"),
            ("../y", "http://h:81/y"),
            ("../../../y", "http://h:81/y"),
            ("..", "http://h:81/"),
            ("?z", "http://h:81/a/b?z"),
            ("", "http://h:81/a/b?q"),
            ("#f", "http://h:81/a/b?q"),
        ] {
            assert_eq!(resolved(location).as_deref(), Some(expected), "{location}");
        }
        for location in ["ftp://x/", "mailto:x", "http:///", "http://", "/a b", "//"] {
            assert_eq!(resolved(location), None, "{location}");
        }
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        let is_same = |one: &str, other: &str| is_same_origin(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(is_same("http://h/a", "http://H:80/b"));
        assert!(is_same("https://h/", "https://h:443/"));
        assert!(!is_same("http://h/", "https://h/"));
        assert!(!is_same("http://h/", "http://h:81/"));
        assert!(!is_same("http://h/", "http://i/"));
    }
}
