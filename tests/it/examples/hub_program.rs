//! The program hub: its command line, its publish token, its limits, and its live figures.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::example::{Example, broken_pipe, built_examples};
use crate::common::http::Events;
use crate::common::pace::is_soon;
use crate::common::{PATIENCE, eventually};
use serde_json::Value;

fn hub() -> Command {
    let mut hub = Command::new(built_examples().join("hub"));
    hub.env_remove("HUB_PUBLISH_TOKEN");
    hub
}

fn start(arguments: &[&str]) -> Example {
    let mut hub = hub();
    hub.args(arguments);
    Example::run(hub)
}

fn run(arguments: &[&str]) -> Output {
    hub().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: String,
}

impl Answer {
    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }
}

#[track_caller]
fn answer(hub: &Example, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
    let agent: ureq::Agent = config.allow_non_standard_methods(true).build().into();
    let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", hub.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = match method {
        "POST" => agent.run(request.body("hello").unwrap()),
        _ => agent.run(request.body(()).unwrap()),
    };
    let mut response = response.unwrap();
    let body = response.body_mut().read_to_string().unwrap();
    Answer { status: response.status().as_u16(), headers: response.headers().clone(), body }
}

#[track_caller]
fn post(hub: &Example, authorization: Option<&str>) -> Answer {
    let headers: Vec<_> = authorization.map(|value| ("Authorization", value)).into_iter().collect();
    answer(hub, "POST", "/c", &headers)
}

// --- the command line ---

#[test]
fn help_is_printed_even_if_nobody_reads_it() {
    let output = run(&["--help"]);
    let help = text(&output.stdout);
    assert!(output.status.success() && help.contains("\nUsage: hub [OPTIONS] [ADDRESS]\n"), "{help}");
    for line in help.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    for output in [Stdio::from(broken_pipe()), Stdio::from(File::create("/dev/full").unwrap())] {
        assert_eq!(hub().arg("--help").stdout(output).status().unwrap().code(), Some(0));
    }
}

#[test]
fn help_does_not_show_the_secrets_of_the_environment() {
    let output = hub()
        .arg("--help")
        .env("HUB_PUBLISH_TOKEN", "very-secret")
        .env("HUB_REDIS", "redis://:very-secret@h")
        .env("HUB_SENTINELS", "redis://:very-secret@h")
        .output();
    let output = output.unwrap();
    let help = text(&output.stdout);
    assert!(help.contains("[env: HUB_PUBLISH_TOKEN]") && !help.contains("very-secret"), "{help}");
}

#[test]
fn a_bad_argument_is_named_with_exit_code_2() {
    for (arguments, reason) in [
        (&["--bogus"][..], "unexpected argument '--bogus' found"),
        (&["127.0.0.1:0", "127.0.0.1:0"], "cannot be used with '[ADDRESS]'"),
        (&["127.0.0.1"], "expected HOST:PORT, such as 127.0.0.1:5000 or [::1]:5000"),
        (&["127.0.0.1:65536"], "expected HOST:PORT"),
        (&["--max-streams", "0"], "expected a whole number above 0"),
        (&["--max-streams-per-ip", "many"], "expected a whole number above 0"),
        (&["--history-events", "0"], "expected a whole number above 0"),
        (&["--trusted-proxy", "localhost"], "invalid IP address syntax"),
        (&["--allow-origin", "*", "127.0.0.1:0"], "invalid origin \"*\": expected scheme://host[:port]"),
        (&["--public-host", "https://example.org", "127.0.0.1:0"], "invalid public host \"https://example.org\""),
        #[cfg(feature = "redis")]
        (&["--redis", "http://:not secret@host"], "--redis: "),
        #[cfg(feature = "redis")]
        (&["--redis", "redis://host", "--stream", ""], "a value is required for '--stream <NAME>'"),
        #[cfg(feature = "redis")]
        (&["--stream", "chat"], "--redis <URL>"),
        #[cfg(feature = "redis")]
        (&["--sentinel", "redis://host"], "--redis <URL>"),
        #[cfg(feature = "redis")]
        (&["--redis", "redis://host", "--sentinel", "http://host"], "--redis: "),
        #[cfg(all(feature = "redis", not(feature = "redis_tls")))]
        (&["--redis", "rediss://host"], "`rediss` needs the feature `redis_tls`"),
        #[cfg(feature = "redis_tls")]
        (&["--redis", "rediss://host", "--redis-ca", "/missing"], "cannot read /missing: "),
        #[cfg(feature = "redis_tls")]
        (&["--redis", "rediss://host", "--redis-ca", "/dev/null"], "no certificate among"),
        #[cfg(feature = "redis_tls")]
        (&["--redis", "redis://host", "--redis-ca", "/dev/null"], "certificates need a URL that begins with `rediss`"),
        #[cfg(feature = "redis_tls")]
        (&["--redis", "rediss://host", "--redis-cert", "/dev/null"], "--redis-key <FILE>"),
        #[cfg(feature = "redis")]
        (
            &["--redis", "redis://host", "--upstream", "http://h", "a"],
            "'--redis <URL>' cannot be used with '--upstream",
        ),
        #[cfg(all(feature = "redis", feature = "sqlite"))]
        (&["--redis", "redis://host", "--history", "file"], "'--redis <URL>' cannot be used with '--history <FILE>'"),
        (&["--publish-token", ""], "the publish token must be visible ASCII characters without spaces"),
        (&["--publish-token", "not secret"], "the publish token must be visible ASCII characters without spaces"),
    ] {
        let output = run(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.starts_with("error: ") && error.contains(reason), "{arguments:?}: {error}");
        assert!(error.contains("--help") && !error.contains("not secret"), "{arguments:?}: {error}");
    }
}

/// An empty variable is a deployment mistake. If it counted as no token, anybody could publish.
#[test]
fn an_empty_publish_token_in_the_environment_is_an_error() {
    let output = hub().env("HUB_PUBLISH_TOKEN", "").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[test]
fn what_the_system_refuses_is_reported_with_exit_code_1() {
    let first = start(&[]);
    let address = first.url.strip_prefix("http://").unwrap();
    let taken = format!("hub: cannot listen on {address}: Address already in use");
    for (arguments, reason) in
        [(&[address][..], &*taken), (&["--max-streams", "1000000000"], "needs 1000000064 open files")]
    {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains(reason), "{output:?}");
    }
}

/// A shell runs each line as it stands, except for the port.
#[test]
fn the_curl_lines_of_the_help_work() {
    if Command::new("curl").arg("--version").output().is_err() {
        return println!("skipped: there is no curl");
    }
    let (hub, output) = (start(&["--publish-token", "secret"]), run(&["--help"]));
    let open = start(&[]);
    let lines: Vec<&str> = text(&output.stdout).lines().map(str::trim).filter(|line| line.contains("curl ")).collect();
    assert!(lines.len() >= 7, "{lines:?}");
    let mut builds = Events::get(&format!("{}/builds,news", open.url));
    for line in lines {
        let hub = if line.contains("Bearer") { &hub } else { &open };
        let line = line.replace("http://127.0.0.1:5000", &hub.url).replace("curl ", "curl -sS --fail ");
        if line.contains("-N") {
            let mut curl =
                Command::new("sh").args(["-c", &format!("exec {line}")]).stdout(Stdio::piped()).spawn().unwrap();
            let mut beginning = [0; 6];
            let read = curl.stdout.take().unwrap().read_exact(&mut beginning);
            curl.kill().unwrap();
            curl.wait().unwrap();
            assert!(read.is_ok() && &beginning == b":\nid: ", "{line}: {beginning:?}, {read:?}");
        } else {
            let output = Command::new("sh").args(["-c", &line]).output().unwrap();
            assert!(output.status.success(), "{line}: {output:?}");
        }
    }
    let mut frames = String::new();
    while !frames.contains("data: two\ndata: lines\n") {
        frames += &builds.next_frame().unwrap();
    }
    assert!(frames.contains("data: all green\n"), "{frames}");
    assert!(frames.contains("event: release\nretry: 1000\ndata: version 2\n"), "{frames}");
}

// --- requests ---

#[test]
fn with_a_publish_token_only_its_bearer_can_publish_and_everybody_can_watch() {
    let from_argument = start(&["--publish-token", "s3cr3t"]);
    let mut command = hub();
    command.env("HUB_PUBLISH_TOKEN", "s3cr3t");
    for hub in [from_argument, Example::run(command)] {
        let mut watcher = Events::get(&format!("{}/c", hub.url));
        for wrong in
            [None, Some("Bearer"), Some("Bearer s3cr3"), Some("Bearer s3cr3t0"), Some("Bearer "), Some("Basic s3cr3t")]
        {
            let refused = post(&hub, wrong);
            assert_eq!(
                (refused.status, refused.header("www-authenticate")),
                (401, "Bearer realm=\"hub\""),
                "{wrong:?}"
            );
            assert!(!refused.body.contains("s3cr3t"), "{}", refused.body);
        }
        for right in ["Bearer s3cr3t", "bearer s3cr3t"] {
            let published = post(&hub, Some(right));
            assert_eq!((published.status, published.header("x-watchers")), (204, "1"));
        }
        let mut frames = String::new();
        while frames.matches("data: hello\n").count() < 2 {
            frames += &watcher.next_frame().unwrap();
        }
        assert!(answer(&hub, "GET", "/stats", &[]).body.contains("\nsse_published_events_total 2\n"));
        assert!(answer(&hub, "GET", "/", &[]).body.contains("data-publishing=\"with-token\""));
    }
    assert_eq!(post(&start(&[]), Some("Bearer whatever")).status, 204);
}

#[test]
fn a_page_of_an_allowed_origin_may_publish_with_a_token() {
    let hub = start(&["--allow-origin", "https://example.org", "--publish-token", "s3cr3t"]);
    let origin = ("Origin", "https://example.org");
    let preflight = [
        origin,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,content-type"),
    ];
    let allowed = answer(&hub, "OPTIONS", "/c", &preflight);
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (204, "https://example.org"));
    let headers = allowed.header("access-control-allow-headers").to_ascii_lowercase();
    assert!(headers.contains("authorization") && headers.contains("content-type"), "{headers}");
    let published = answer(&hub, "POST", "/c", &[origin, ("Authorization", "Bearer s3cr3t")]);
    assert_eq!((published.status, published.header("access-control-allow-origin")), (204, "https://example.org"));
    assert_eq!(answer(&hub, "POST", "/c", &[("Origin", "https://evil.example")]).status, 403);
}

#[test]
fn a_hub_on_the_loopback_answers_to_its_public_host() {
    let hub = start(&["--public-host", "events.example.org"]);
    for (host, status) in [("events.example.org", 204), ("localhost", 204), ("evil.example", 403)] {
        assert_eq!(answer(&hub, "POST", "/c", &[("Host", host)]).status, status, "{host}");
    }
}

#[test]
fn an_unknown_method_is_answered_with_405_and_the_allowed_ones() {
    let hub = start(&[]);
    for (method, path) in [("PUT", "/c"), ("DELETE", "/"), ("PATCH", "/stats"), ("OPTIONS", "/c"), ("BREW", "/healthz")]
    {
        let refused = answer(&hub, method, path, &[]);
        assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD, POST"), "{method} {path}");
    }
}

#[test]
fn the_hubs_own_paths_are_no_channels() {
    let hub = start(&[]);
    let health = answer(&hub, "GET", "/healthz", &[]);
    assert_eq!((health.status, &*health.body, health.header("cache-control")), (200, "ok\n", "no-store"));
    for path in ["/stats", "/stats/live", "/healthz", "/c,healthz", "/%68ealthz"] {
        let refused = answer(&hub, "POST", path, &[]);
        assert_eq!(refused.status, 400, "{path}");
        assert!(refused.body.starts_with("no channel can have the name `"), "{path}: {}", refused.body);
    }
    assert_eq!(answer(&hub, "POST", "/stats/live/too", &[]).status, 204);
}

#[test]
fn the_page_allows_itself_and_nothing_else() {
    let hub = start(&[]);
    let page = answer(&hub, "GET", "/", &[]);
    let policy = page.header("content-security-policy");
    for directive in ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "script-src 'sha256-"] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    for external in ["src=", "https://", "@import", " url("] {
        assert!(!page.body.contains(external), "{external}");
    }
    let unchanged = answer(&hub, "GET", "/", &[("If-None-Match", page.header("etag"))]);
    assert_eq!((unchanged.status, &*unchanged.body), (304, ""));
}

// --- limits ---

/// The next stream reconnects later: it ends after a reconnection time, with status 200.
fn is_busy(hub: &Example, path: &str) -> bool {
    let mut stream = Events::get(&format!("{}{path}", hub.url));
    stream.next_frame().unwrap().contains("\nretry: ") && stream.next_frame().is_none()
}

#[test]
fn streams_beyond_the_limit_are_made_to_reconnect_later() {
    let hub = start(&["--max-streams", "2"]);
    let _streams = [hub.events("/a"), hub.events("/b")];
    assert!(is_busy(&hub, "/c"));
    assert!(is_busy(&hub, "/stats/live"), "the figures are a stream too");
}

#[test]
fn streams_beyond_the_limit_of_an_address_are_made_to_reconnect_later() {
    let hub = start(&["--max-streams-per-ip", "1", "--trusted-proxy", "127.0.0.1"]);
    let _stream = hub.events("/a");
    assert!(is_busy(&hub, "/a"));
    let other = ureq::get(format!("{}/a", hub.url)).header("X-Forwarded-For", "192.0.2.7").call().unwrap();
    let mut beginning = [0; 2];
    other.into_body().into_reader().read_exact(&mut beginning).unwrap();
    assert_eq!(&beginning, b":\n");
}

#[test]
fn each_channel_keeps_as_many_events_as_wanted() {
    let hub = start(&["--history-events", "2"]);
    let mut first = hub.events("/c");
    let start = loop {
        let frame = first.next_frame().unwrap();
        if let Some(id) = frame.strip_prefix("id: ") {
            break id.trim().to_owned();
        }
    };
    for _ in 0..3 {
        post(&hub, None);
    }
    let mut resumed = Events::get(&format!("{}/c?lastEventId={start}", hub.url));
    let mut frames = String::new();
    while frames.matches("data: hello\n").count() < 2 {
        frames += &resumed.next_frame().unwrap();
    }
    assert_eq!(frames.matches("event: gap\n").count(), 1, "{frames}");
}

// --- live figures ---

/// Returns the figures of a frame, unless it is a heartbeat or an ID alone.
fn figures(frame: &str) -> Option<Value> {
    frame.lines().find_map(|line| line.strip_prefix("data: ")).map(|data| serde_json::from_str(data).unwrap())
}

#[test]
fn the_live_figures_count_streams_events_and_deliveries() {
    let hub = start(&[]);
    let _watchers = [hub.events("/c"), hub.events("/c"), hub.events("/other")];
    let mut live = hub.events("/stats/live");
    let mut next = || {
        loop {
            if let Some(sample) = figures(&live.next_frame().unwrap()) {
                return sample;
            }
        }
    };
    // The first samples may be older than the streams.
    while next()["streams"] != 3 {}
    // They are rates: on a busy machine, a period is not always about a second.
    let are_all_in_the_figures = |_| {
        for _ in 0..20 {
            post(&hub, None);
        }
        let (mut published, mut delivered, mut idle) = (0, 0, 0);
        while idle < 3 {
            let sample = next();
            assert!(sample["streams"] == 3 && sample["slow"] == 0, "{sample}");
            let [new, sent] = ["published", "delivered"].map(|name| sample[name].as_u64().unwrap());
            published += new;
            delivered += sent;
            idle = if new == 0 && sent == 0 { idle + 1 } else { 0 };
            if (18..=22).contains(&published) && (36..=44).contains(&delivered) {
                return true;
            }
        }
        println!("20 posts to two streams are {published} events and {delivered} deliveries in the figures");
        false
    };
    assert!((0..5).any(are_all_in_the_figures), "the figures miss posts or deliveries");
}

#[test]
fn a_new_page_gets_the_last_minute_at_once() {
    let hub = start(&[]);
    let mut first = hub.events("/stats/live");
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(figures(&first.next_frame().unwrap()));
    }
    // Live, three samples take more than two seconds.
    is_soon("the samples of a new page", Duration::from_secs(2), || {
        let before = Instant::now();
        let mut second = hub.events("/stats/live");
        let mut replayed = Vec::new();
        while replayed.len() < 3 {
            replayed.extend(figures(&second.next_frame().unwrap()));
        }
        assert_eq!(replayed, seen);
        before.elapsed()
    });
}

// --- the end ---

#[test]
fn streams_of_the_live_figures_end_in_good_order_too() {
    let mut hub = start(&[]);
    let mut pages: Vec<_> = (0..20).map(|_| hub.events("/stats/live")).collect();
    assert!(Command::new("kill").args(["-TERM", &hub.process.id().to_string()]).status().unwrap().success());
    let ends = thread::spawn(move || {
        pages.iter_mut().all(|page| {
            let mut retries = false;
            while let Some(frame) = page.next_frame() {
                retries |= frame.starts_with("retry: ");
            }
            retries
        })
    });
    assert!(ends.join().unwrap(), "each stream ends with a time to reconnect");
    eventually("the hub ends", || hub.process.try_wait().unwrap().is_some());
    assert!(hub.process.wait().unwrap().success());
}
