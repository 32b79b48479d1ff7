//! The parts of an origin and of a `Host` header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns the address if the host is one.
pub(super) fn address(host: &str) -> Option<IpAddr> {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = match literal {
        Some(literal) => literal.parse::<Ipv6Addr>().ok()?.into(),
        None => host.parse::<Ipv4Addr>().ok()?.into(),
    };
    Some(IpAddr::to_canonical(&address))
}

/// Splits `host[:port]`. A port that is not a number stays part of the host.
pub(super) fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => {
            (name, Some(port).filter(|port| !port.is_empty()))
        }
        _ => (host, None),
    }
}

/// Returns whether a page of this origin comes from the server that the `Host` header names.
///
/// A server behind a TLS proxy does not know whether the scheme is `http` or `https`, so either is. Pages of apps and
/// extensions have other schemes.
pub(super) fn is_same_origin(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let Some(default) = default_port(scheme) else { return false };
    let (origin_host, origin_port) = split_port(authority);
    let (host, port) = split_port(host);
    origin_host.eq_ignore_ascii_case(host) && origin_port.unwrap_or(default) == port.unwrap_or(default)
}

/// Returns the port that browsers leave out for this scheme.
fn default_port(scheme: &str) -> Option<&'static str> {
    match scheme {
        "http" => Some("80"),
        "https" => Some("443"),
        _ => None,
    }
}

/// Checks that a browser may send this as the value of `Origin` (RFC 6454 6.2, WHATWG URL).
///
/// # Errors
///
/// Returns the reason why no browser sends it.
pub(super) fn check_origin(origin: &str) -> Result<(), &'static str> {
    if origin == "null" {
        return Err("`allow_null_origin` allows null");
    }
    let (scheme, authority) = origin.split_once("://").ok_or("`://` is missing")?;
    let is_scheme_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    if !origin.is_ascii() {
        return Err("browsers send a host that is not ASCII as Punycode (xn--...)");
    }
    if origin.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("browsers send lower case");
    }
    if !scheme.starts_with(|first: char| first.is_ascii_lowercase()) || !scheme.bytes().all(is_scheme_byte) {
        return Err("invalid scheme");
    }
    for (separator, reason) in [
        ('/', "browsers send no path"),
        ('?', "browsers send no query"),
        ('#', "browsers send no fragment"),
        ('@', "browsers send no user"),
        ('*', "each origin is allowed by its full name"),
    ] {
        if authority.contains(separator) {
            return Err(reason);
        }
    }
    check_authority(scheme, authority)
}

fn check_authority(scheme: &str, authority: &str) -> Result<(), &'static str> {
    let (host, port) = split_authority(authority);
    if !is_host(host) {
        return Err("invalid host");
    }
    if !port.is_none_or(is_port) {
        return Err("invalid port");
    }
    if port.is_some() && default_port(scheme) == port {
        return Err("browsers leave out the default port");
    }
    Ok(())
}

/// Splits `host[:port]`, whatever the port.
fn split_authority(authority: &str) -> (&str, Option<&str>) {
    match authority.rfind(':') {
        // This colon is within the brackets of an IPv6 address.
        Some(colon) if !authority[colon..].contains(']') => (&authority[..colon], Some(&authority[colon + 1..])),
        _ => (authority, None),
    }
}

/// Returns whether this is a port as browsers write it: a number without leading zeros.
fn is_port(port: &str) -> bool {
    port.parse().is_ok_and(|number: u16| number.to_string() == port)
}

/// Returns whether this is `host[:port]` as browsers write it.
pub(super) fn is_authority(authority: &str) -> bool {
    let (host, port) = split_authority(authority);
    is_host(host) && port.is_none_or(is_port)
}

/// Returns whether this can be the value of a `Host` header: the bytes of a host and a port (RFC 3986 3.2.2), except the
/// comma, with which some proxies merge two headers.
pub(crate) fn is_host_header(value: &str) -> bool {
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte);
    !value.is_empty() && value.bytes().all(is_host_byte)
}

/// Returns whether this is a host as browsers write it: a name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn is_host(host: &str) -> bool {
    if let Some(literal) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        // Browsers write an IPv4-mapped address in hexadecimal, the standard library with dots.
        let is_canonical = |address: Ipv6Addr| address.to_ipv4_mapped().is_some() || address.to_string() == literal;
        return !literal.contains('.') && literal.parse().is_ok_and(is_canonical);
    }
    let is_name_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    let ends_in_number = host.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    let is_name = !host.is_empty() && host.bytes().all(is_name_byte);
    // A browser takes a name whose last label is a number as an IPv4 address.
    is_name && (host.ends_with('.') || !ends_in_number || host.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_that_a_browser_sends_is_accepted() {
        for origin in [
            "https://example.org",
            "http://example.org:8080",
            "https://example.org:80",
            "http://localhost",
            "http://127.0.0.1:5000",
            "http://[::1]:5000",
            "http://[::ffff:7f00:1]",
            "https://xn--bcher-kva.example",
            "https://a_b.example.org.",
            "tauri://localhost",
            "capacitor://localhost",
            "ionic://localhost:80",
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            "moz-extension://4a5e2c1f-11aa-4c0d-9c2b-7d7d3a1f0e11",
            "vscode-webview://1abc2def",
        ] {
            assert_eq!(check_origin(origin), Ok(()), "{origin}");
        }
    }

    #[test]
    fn an_origin_that_no_browser_sends_is_rejected_with_the_reason() {
        for (origin, reason) in [
            ("*", "`://` is missing"),
            ("", "`://` is missing"),
            ("example.org", "`://` is missing"),
            ("null", "`allow_null_origin` allows null"),
            ("https://example.org:443", "browsers leave out the default port"),
            ("http://example.org:80", "browsers leave out the default port"),
            ("http://user@x", "browsers send no user"),
            ("https://example.org/", "browsers send no path"),
            ("file:///", "browsers send no path"),
            ("https://example.org?a", "browsers send no query"),
            ("https://example.org#a", "browsers send no fragment"),
            ("https://Example.org", "browsers send lower case"),
            ("HTTPS://example.org", "browsers send lower case"),
            ("https://b\u{fc}cher.example", "browsers send a host that is not ASCII as Punycode (xn--...)"),
            ("https://*.example.org", "each origin is allowed by its full name"),
            ("://example.org", "invalid scheme"),
            ("1a://example.org", "invalid scheme"),
            ("https://", "invalid host"),
            ("https://:8080", "invalid host"),
            ("https://a b", "invalid host"),
            ("https://a\r\nx: y", "invalid host"),
            ("http://127.1", "invalid host"),
            ("http://[::1", "invalid host"),
            ("http://[0:0::1]", "invalid host"),
            ("http://::1", "invalid host"),
            ("https://example.org:", "invalid port"),
            ("https://example.org:0443", "invalid port"),
            ("https://example.org:65536", "invalid port"),
        ] {
            assert_eq!(check_origin(origin), Err(reason), "{origin:?}");
        }
    }

    #[test]
    fn the_same_origin_is_that_of_host_with_either_scheme_of_the_web() {
        for (origin, host, is_same) in [
            ("http://localhost:5000", "localhost:5000", true),
            ("https://localhost:5000", "localhost:5000", true),
            ("https://example.org", "example.org", true),
            ("https://example.org", "EXAMPLE.org:443", true),
            ("http://example.org", "example.org:80", true),
            ("http://[::1]:5000", "[::1]:5000", true),
            ("https://example.org", "example.org:80", false),
            ("http://localhost:5001", "localhost:5000", false),
            ("http://localhost", "localhost:5000", false),
            ("http://localhost:5000", "localhost", false),
            ("http://127.0.0.1:5000", "localhost:5000", false),
            ("http://a.example.org", "example.org", false),
            ("null", "null", false),
            ("localhost", "localhost", false),
            ("", "localhost", false),
            ("tauri://localhost", "localhost", false),
            ("http://localhost https://example.org", "localhost", false),
            ("https://example.org", "example.org:", true),
        ] {
            assert_eq!(is_same_origin(origin, host), is_same, "{origin} at {host}");
        }
    }

    #[test]
    fn a_public_host_may_have_a_port() {
        for (host, is_valid) in [
            ("example.org", true),
            ("example.org:8443", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("", false),
            (":8443", false),
            ("example.org:", false),
            ("example.org:08443", false),
            ("example.org:https", false),
            ("example.org/", false),
            ("https://example.org", false),
            ("b\u{fc}cher.example", false),
        ] {
            assert_eq!(is_authority(host), is_valid, "{host:?}");
        }
    }

    #[test]
    fn a_host_header_has_only_bytes_of_a_host_and_a_port() {
        for (value, is_valid) in [
            ("localhost:5000", true),
            ("[::1]:5000", true),
            ("EXAMPLE.org", true),
            ("", false),
            ("localhost, example.org", false),
            ("a b", false),
            ("user@example.org", false),
            ("example.org/path", false),
            ("b\u{fc}cher.example", false),
        ] {
            assert_eq!(is_host_header(value), is_valid, "{value:?}");
        }
    }
}
