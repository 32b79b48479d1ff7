use std::net::SocketAddr;

use super::*;

type Headers = &'static [(&'static str, &'static str)];

fn policy(bound: &str, settings: OriginPolicyBuilder) -> OriginPolicy {
    settings.build(SocketAddr::new(bound.parse().unwrap(), 5000)).unwrap()
}

fn on_loopback(settings: OriginPolicyBuilder) -> OriginPolicy {
    policy("127.0.0.1", settings)
}

fn settings() -> OriginPolicyBuilder {
    OriginPolicy::builder()
}

/// Returns 200 for a request that is allowed, or the status of its refusal.
fn status(policy: &OriginPolicy, method: &str, headers: &[(&str, &str)]) -> u16 {
    policy.check(method, headers.iter().copied()).map_or_else(|refused| refused.status(), |()| 200)
}

#[test]
fn a_server_answers_at_its_own_address_in_every_spelling() {
    let hosts = |bound: &str| Hosts::new(Vec::new(), bound.parse::<IpAddr>().unwrap().to_canonical());
    for (bound, host, is_allowed) in [
        ("127.0.0.2", "127.0.0.2:5000", true),
        ("127.0.0.2", "localhost", true),
        ("127.0.0.2", "127.0.0.3", false),
        ("::ffff:127.0.0.1", "[::ffff:127.0.0.1]:5000", true),
        ("::ffff:127.0.0.1", "[::ffff:7f00:1]", true),
        ("::ffff:127.0.0.1", "127.0.0.1", true),
        ("::ffff:127.0.0.1", "example.org", false),
        ("::1", "[0:0:0:0:0:0:0:1]", true),
        ("192.0.2.1", "192.0.2.1:80", true),
        ("192.0.2.1", "localhost", false),
        ("0.0.0.0", "0.0.0.0", false),
        ("::", "[::]", false),
    ] {
        assert_eq!(hosts(bound).allow(host), is_allowed, "{host} at {bound}");
    }
}

#[test]
fn the_loopback_answers_to_its_names_and_other_servers_to_any_unless_some_are_named() {
    let example = || settings().allow_host("Example.org");
    for (bound, settings, host, expected) in [
        ("127.0.0.1", settings(), "localhost:5000", 200),
        ("127.0.0.1", settings(), "LOCALHOST", 200),
        ("127.0.0.1", settings(), "127.0.0.1:1", 200),
        ("127.0.0.1", settings(), "[::1]:5000", 200),
        ("127.0.0.1", settings(), "example.org", 403),
        ("127.0.0.1", settings(), "localhost.example.org", 403),
        ("::ffff:127.0.0.1", settings(), "localhost", 200),
        ("::ffff:127.0.0.1", settings(), "example.org", 403),
        ("127.0.0.1", example(), "example.ORG:5000", 200),
        ("127.0.0.1", example(), "localhost", 200),
        ("127.0.0.1", example(), "a.example.org", 403),
        ("127.0.0.1", settings().allow_any_host(), "example.org", 200),
        ("0.0.0.0", settings(), "example.org", 200),
        ("192.0.2.1", settings(), "example.com", 200),
        ("192.0.2.1", example(), "example.com", 403),
        ("192.0.2.1", example(), "example.org", 200),
        ("192.0.2.1", example(), "192.0.2.1:5000", 200),
        ("192.0.2.1", example().allow_any_host(), "example.com", 200),
        ("127.0.0.1", settings().public_host("example.org:8443"), "example.org", 200),
        ("127.0.0.1", settings().public_host("example.org"), "example.org:8443", 200),
        ("127.0.0.1", settings().public_host("example.org"), "localhost:5000", 200),
        ("127.0.0.1", settings().public_host("example.org"), "example.com", 403),
        // A proxy may send any host to a server outside the loopback.
        ("0.0.0.0", settings().public_host("example.org"), "backend:5000", 200),
        ("0.0.0.0", example().public_host("example.net"), "example.net", 200),
        ("0.0.0.0", example().public_host("example.net"), "example.com", 403),
    ] {
        let policy = policy(bound, settings);
        assert_eq!(status(&policy, "GET", &[("hOsT", host)]), expected, "{host} at {policy:?}");
    }
}

#[test]
fn a_request_without_a_host_passes_only_where_any_host_does() {
    assert_eq!(status(&on_loopback(settings()), "GET", &[]), 403);
    assert_eq!(status(&on_loopback(settings().allow_any_host()), "GET", &[]), 200);
    assert_eq!(status(&policy("0.0.0.0", settings()), "POST", &[]), 200);
    assert_eq!(status(&policy("0.0.0.0", settings()), "POST", &[("Origin", "https://example.org")]), 403);
}

#[test]
fn headers_that_no_browser_sends_are_malformed() {
    const HOST: (&str, &str) = ("Host", "localhost");
    const PAGE: (&str, &str) = ("Origin", "http://localhost");
    let all: [(Headers, u16); 7] = [
        (&[HOST, HOST], 400),
        (&[HOST, ("host", "example.org")], 400),
        (&[("Host", "")], 400),
        (&[("Host", "localhost, localhost")], 400),
        (&[("Host", "b\u{fc}cher.example")], 400),
        (&[HOST, PAGE, PAGE], 400),
        (&[("Host", " localhost\t"), ("Origin", " http://localhost ")], 200),
    ];
    for policy in [on_loopback(settings()), policy("0.0.0.0", settings().allow_any_host())] {
        for (headers, expected) in all {
            assert_eq!(status(&policy, "POST", headers), expected, "{headers:?}");
        }
    }
}

#[test]
fn a_foreign_page_cannot_change_anything_and_reads_nothing_once_some_origin_is_allowed() {
    const HOST: &str = "localhost:5000";
    let example = || settings().allow_origin("https://example.org");
    // The origin, and the statuses of a request that reads and of one that changes something.
    for (settings, origin, reads, changes) in [
        (settings(), "http://localhost:5000", 200, 200),
        (settings(), "https://localhost:5000", 200, 200),
        (settings(), "http://127.0.0.1:5000", 200, 403),
        (settings(), "http://localhost:5001", 200, 403),
        (settings(), "http://localhost", 200, 403),
        (settings(), "https://example.org", 200, 403),
        (settings(), "tauri://localhost", 200, 403),
        (settings(), "tauri://localhost:5000", 200, 403),
        (settings(), "null", 200, 403),
        (settings(), "", 200, 403),
        (settings(), "*", 200, 403),
        (example(), "https://example.org", 200, 200),
        (example(), "http://localhost:5000", 200, 200),
        (example(), "http://example.org", 403, 403),
        (example(), "https://example.org:8443", 403, 403),
        (example(), "https://a.example.org", 403, 403),
        (example(), "https://example.org.example.com", 403, 403),
        (example(), "https://EXAMPLE.org", 403, 403),
        (example(), "https://example.org https://example.org", 403, 403),
        (example(), "tauri://localhost", 403, 403),
        (example(), "null", 403, 403),
        (example().allow_origin("tauri://localhost"), "tauri://localhost", 200, 200),
        (example().allow_null_origin(), "null", 200, 200),
        (settings().allow_null_origin(), "null", 200, 200),
        (settings().allow_null_origin(), "https://example.org", 403, 403),
        (settings().public_host("example.org"), "https://example.org", 200, 200),
        (settings().public_host("example.org"), "http://example.org", 200, 200),
        (settings().public_host("Example.org"), "https://example.org", 200, 200),
        (settings().public_host("example.org"), "https://example.org:8443", 200, 403),
        (settings().public_host("example.org:8443"), "https://example.org:8443", 200, 200),
        (settings().public_host("example.org:8443"), "https://example.org", 200, 403),
        (settings().public_host("example.org:443"), "https://example.org", 200, 200),
        (settings().public_host("example.org:443"), "http://example.org", 200, 403),
        (settings().public_host("example.org"), "http://localhost:5000", 200, 200),
        (settings().public_host("example.org"), "tauri://example.org", 200, 403),
        (settings().public_host("example.org").public_host("example.net"), "https://example.net", 200, 200),
        (example().public_host("example.net"), "https://example.net", 200, 200),
        (example().public_host("example.net"), "https://example.com", 403, 403),
    ] {
        let policy = on_loopback(settings);
        let headers = [("Host", HOST), ("oRiGiN", origin)];
        for (methods, expected) in [
            (&["GET", "HEAD", "OPTIONS"][..], reads),
            (&["POST", "PUT", "PATCH", "DELETE", "TRACE", "get", ""], changes),
        ] {
            for method in methods {
                assert_eq!(status(&policy, method, &headers), expected, "{method} of {origin} at {policy:?}");
            }
        }
    }
}

#[test]
fn a_client_without_an_origin_passes() {
    for settings in [settings(), settings().allow_origin("https://example.org")] {
        assert_eq!(status(&on_loopback(settings), "POST", &[("Host", "localhost")]), 200);
    }
}

/// With such a proxy, a page of an app would be the server's own by its host alone.
#[test]
fn a_page_of_an_app_is_foreign_to_a_proxy_that_sends_localhost() {
    let headers = [("Host", "localhost"), ("Origin", "tauri://localhost")];
    assert_eq!(status(&on_loopback(settings()), "POST", &headers), 403);
}

#[test]
fn only_an_allowed_foreign_origin_may_read_the_response() {
    let policy = on_loopback(settings().allow_origin("https://example.org").public_host("example.net"));
    let allowed = |origin| policy.allowed_origin("GET", [("Host", "localhost:5000"), ("Origin", origin)]);
    assert_eq!(allowed("https://example.org"), Ok(Some("https://example.org")));
    assert_eq!(allowed("https://example.net"), Ok(None));
    assert_eq!(allowed("http://localhost:5000"), Ok(None));
    let policy = on_loopback(settings());
    let headers = [("Host", "localhost:5000"), ("Origin", "https://example.org")];
    assert_eq!(policy.allowed_origin("GET", headers), Ok(None));
}

#[test]
fn a_refusal_says_what_was_refused_and_what_is_allowed() {
    let local = on_loopback(settings());
    let named = policy("192.0.2.1", settings().allow_host("example.org"));
    let bound = policy("127.0.0.2", settings());
    let any = policy("0.0.0.0", settings());
    let foreign =
        on_loopback(settings().public_host("a.example").allow_origin("https://b.example").allow_null_origin());
    let all: [(&OriginPolicy, Headers, &str); 9] = [
        (&local, &[("Host", "evil.example")], "host \"evil.example\" not allowed: use localhost, 127.0.0.1 or [::1]"),
        (&bound, &[], "host header missing: use localhost, 127.0.0.1, [::1] or 127.0.0.2"),
        (&named, &[("Host", "x")], "host \"x\" not allowed: use example.org or 192.0.2.1"),
        (&local, &[("Host", "")], "invalid host header: send exactly one, with a valid host"),
        (&local, &[("Origin", "null"), ("Origin", "null")], "several origin headers: send at most one"),
        (
            &local,
            &[("Host", "localhost:5000"), ("Origin", "http://evil\"")],
            "foreign origin \"http://evil\\\"\": only pages of localhost:5000 are allowed",
        ),
        (&any, &[("Origin", "null")], "foreign origin \"null\": no page is allowed"),
        (
            &foreign,
            &[("Host", "localhost"), ("Origin", "https://x")],
            "foreign origin \"https://x\": only pages of localhost, a.example, https://b.example and null are allowed",
        ),
        (
            &foreign,
            &[("Host", "a.example"), ("Origin", "https://x")],
            "foreign origin \"https://x\": only pages of a.example, https://b.example and null are allowed",
        ),
    ];
    for (policy, headers, text) in all {
        assert_eq!(policy.check("POST", headers.iter().copied()).unwrap_err().to_string(), text);
    }
}

#[test]
fn invalid_settings_are_errors_with_the_reason() {
    for (settings, text) in [
        (settings().allow_origin("*"), "invalid origin \"*\": expected scheme://host[:port]; `://` is missing"),
        (
            settings().allow_origin("null"),
            "invalid origin \"null\": expected scheme://host[:port]; `allow_null_origin` allows null",
        ),
        (
            settings().allow_host("example.org:80"),
            "invalid host \"example.org:80\": expected a name, an IPv4 address or an IPv6 address in brackets, without a port",
        ),
        (
            settings().public_host("https://example.org"),
            "invalid public host \"https://example.org\": expected a name, an IPv4 address or an IPv6 address in brackets, and optionally a port",
        ),
    ] {
        let error = settings.build(([127, 0, 0, 1], 5000)).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::InvalidInput);
    }
}
