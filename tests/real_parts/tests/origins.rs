//! Real browsers: a page of another origin neither reads from a server with an `OriginPolicy` nor publishes to it.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use real_parts::browser::{Browser, Tab};
use real_parts::common::PATIENCE;
use real_parts::common::http::Running;
use serde_json::Value;
use server_sent_events::adapter::tiny_http as sse;
use server_sent_events::{History, OriginPolicy, OriginPolicyBuilder, Publisher};
use tempfile::TempDir;
use tiny_http::{Header, Method, Request, Response};

/// A page that tries to read from the server in its query and to publish to it in every way that a page has, and then
/// reports the results to its own server. A way whose result the page cannot see is `sent`.
const PAGE: &str = r#"<!doctype html><body><script>
const target = 'http://' + location.search.slice(1), done = {};
const form = (name, enctype) => new Promise(resolve => {
    const frame = Object.assign(document.createElement('iframe'), { name: 'frame-' + name });
    document.body.append(frame);
    const form = Object.assign(document.createElement('form'),
        { method: 'post', action: target + '/publish', target: frame.name, enctype });
    form.append(Object.assign(document.createElement('input'), { name: 'data', value: name }));
    document.body.append(form);
    frame.onload = () => resolve('sent');
    form.submit();
});
const result = promise => promise.then(answer => `${answer.type} ${answer.status}`, () => 'failed');
const post = (name, options) => result(fetch(target + '/publish', { method: 'POST', body: name, ...options }));
const sandboxed = name => new Promise(resolve => {
    const frame = document.createElement('iframe');
    frame.sandbox = 'allow-scripts';
    frame.srcdoc = `<script>fetch('${target}/publish', { method: 'POST', body: '${name}', mode: 'no-cors' })`
        + `.then(answer => parent.postMessage(answer.type + ' ' + answer.status, '*'),`
        + `() => parent.postMessage('failed', '*'))<` + `/script>`;
    addEventListener('message', event => resolve(event.data), { once: true });
    document.body.append(frame);
});
const listens = () => new Promise(resolve => {
    const source = new EventSource(target + '/events');
    source.onopen = () => resolve('open');
    source.onmessage = event => resolve(event.data);
    source.onerror = () => { if (source.readyState === 2) resolve('closed'); };
});
(async () => {
    done.read = await result(fetch(target + '/secret'));
    done.readOpaque = await fetch(target + '/secret', { mode: 'no-cors' })
        .then(async answer => `${answer.type} ${answer.status} ${await answer.text()}`, () => 'failed');
    done.events = await listens();
    done.fetch = await post('fetch');
    done.noCors = await post('no-cors', { mode: 'no-cors' });
    done.noReferrer = await post('no-referrer', { mode: 'no-cors', referrerPolicy: 'no-referrer' });
    done.preflight = await post('preflight', { method: 'PUT' });
    done.beacon = String(navigator.sendBeacon(target + '/publish', 'beacon'));
    done.form = await form('form', 'application/x-www-form-urlencoded');
    done.plainForm = await form('plain-form', 'text/plain');
    done.sandboxed = await sandboxed('sandboxed');
    await fetch('/report', { method: 'POST', body: JSON.stringify(done) });
})();
</script>"#;

/// The names under which `PAGE` publishes, and that reach the server: the browser withholds a request whose preflight
/// is refused.
const WAYS: [&str; 7] = ["fetch", "no-cors", "no-referrer", "beacon", "form", "plain-form", "sandboxed"];

/// A request with a method that changes something, and the status of its response.
type Change = (String, Option<String>, u16);

/// A server that publishes posted bodies, if the policy allows it.
struct Site {
    address: String,
    publisher: Publisher,
    changes: Receiver<Change>,
    stop_handle: sse::StopHandle,
    thread: Option<JoinHandle<()>>,
}

impl Site {
    fn with(settings: OriginPolicyBuilder) -> Self {
        let server = sse::Server::bind("127.0.0.1:0").unwrap();
        let policy = settings.build(server.local_addr().unwrap()).unwrap();
        let publisher = Publisher::builder().history(History::new()).build().unwrap();
        let (address, stop_handle) = (server.local_addr().unwrap().to_string(), server.stop_handle());
        let (sender, changes) = channel();
        let published = publisher.clone();
        let thread = thread::spawn(move || {
            server.serve(4, move |request| answers(&published, &policy, &sender, request)).unwrap();
        });
        Self { address, publisher, changes, stop_handle, thread: Some(thread) }
    }

    /// Waits for this many changes.
    #[track_caller]
    fn changes(&self, count: usize) -> Vec<Change> {
        (0..count).map(|_| self.changes.recv_timeout(PATIENCE).expect("a request")).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.publisher.close();
        self.stop_handle.stop();
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn answers(
    publisher: &Publisher,
    policy: &OriginPolicy,
    changes: &Sender<Change>,
    mut request: Request,
) -> io::Result<()> {
    let origin = request.headers().iter().find(|header| header.field.equiv("Origin"));
    let origin = origin.map(|header| header.value.to_string());
    let method = request.method().clone();
    let response = match sse::check_origin(&request, policy) {
        Err(refused) => Response::from_string(refused.to_string()).with_status_code(refused.status()),
        Ok(()) => match (&method, request.url()) {
            (Method::Get, "/events") => {
                return publisher.respond(request);
            }
            (Method::Get, "/") => page(include_str!("../../../examples/visits/page.html")),
            (Method::Get, _) => Response::from_string("secret"),
            (Method::Post | Method::Put, "/publish") => {
                let body = sse::read_body(&mut request, 1_000).unwrap();
                publisher.publish(String::from_utf8(body).unwrap());
                Response::from_string("published")
            }
            _ => Response::from_string("not here").with_status_code(404),
        },
    };
    if !matches!(method, Method::Get | Method::Head | Method::Options) {
        changes.send((method.to_string(), origin, response.status_code().0)).unwrap();
    }
    request.respond(response)
}

fn page(html: &str) -> Response<io::Cursor<Vec<u8>>> {
    Response::from_string(html).with_header(Header::from_bytes("Content-Type", "text/html").unwrap())
}

/// A server of another origin, with the page that tries everything, and the page's report.
fn pages() -> (Running, Receiver<Value>) {
    let (sender, reports) = channel();
    let pages = Running::new(move |mut request| {
        if request.url() == "/report" {
            let body = sse::read_body(&mut request, 10_000).unwrap();
            sender.send(serde_json::from_slice(&body).unwrap()).unwrap();
        }
        drop(request.respond(page(PAGE)));
    });
    (pages, reports)
}

/// Only requests of the tests.
const PREFERENCES: &str = r#"
user_pref("app.normandy.enabled", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("extensions.getAddons.cache.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("toolkit.telemetry.enabled", false);
"#;

/// A headless Firefox with its own profile; all its processes are killed when it is dropped.
struct Firefox {
    process: Child,
    _profile: TempDir,
}

impl Firefox {
    #[track_caller]
    fn opens(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        fs::write(profile.path().join("user.js"), PREFERENCES).unwrap();
        let mut command = Command::new("firefox-esr");
        command.args(["--headless", "--no-remote", "--profile"]).arg(profile.path()).arg(url);
        command.env("HOME", profile.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.process_group(0).spawn().expect("firefox-esr is missing: tests/run installs it");
        Self { process, _profile: profile }
    }
}

impl Drop for Firefox {
    fn drop(&mut self) {
        let group = format!("-{}", self.process.id());
        drop(Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status());
        drop(self.process.wait());
    }
}

/// Opens the page in a browser. Returns the statuses of its posts, and the data of all events that it published.
#[track_caller]
fn tries<B>(
    settings: fn(OriginPolicyBuilder, String) -> OriginPolicyBuilder,
    open: fn(&str) -> B,
) -> (Vec<u16>, String) {
    let (pages, reports) = pages();
    let origin = format!("http://{}", pages.address);
    let site = Site::with(settings(OriginPolicy::builder(), origin.clone()));
    let seen = site.publisher.subscribe().unwrap();
    let _browser = open(&format!("{origin}/?{}", site.address));
    let report = reports.recv_timeout(4 * PATIENCE).expect("a report of the page");
    // Without CORS headers a page sees none of this, wherever it comes from.
    for (way, expected) in [
        ("read", "failed"),
        ("readOpaque", "opaque 0 "),
        ("events", "closed"),
        ("fetch", "failed"),
        ("noCors", "opaque 0"),
        ("noReferrer", "opaque 0"),
        ("preflight", "failed"),
        ("beacon", "true"),
        ("form", "sent"),
        ("plainForm", "sent"),
        ("sandboxed", "opaque 0"),
    ] {
        assert_eq!(report[way], expected, "{way}: {report}");
    }
    // All of them arrived here; otherwise the browser would have refused them, not the server.
    let changes = site.changes(WAYS.len());
    assert!(site.changes.try_recv().is_err());
    for (method, page, _) in &changes {
        assert_eq!(method, "POST");
        assert!(page.as_deref().is_some_and(|page| page == origin || page == "null"), "{changes:?}");
    }
    assert!(changes.iter().any(|(_, page, _)| page.as_deref() == Some("null")), "{changes:?}");
    site.publisher.close();
    let events: String = seen.collect();
    (changes.into_iter().map(|(.., status)| status).collect(), events)
}

fn chromium(url: &str) -> (Browser, Tab) {
    let browser = Browser::new();
    let tab = browser.opens(url);
    (browser, tab)
}

#[track_caller]
fn a_foreign_page_can_do_nothing<B>(open: fn(&str) -> B) {
    let (statuses, events) = tries(|settings, _| settings, open);
    assert_eq!(statuses, [403; WAYS.len()]);
    assert!(!events.contains("data:"), "{events}");
}

/// The other test would pass with requests that publish nothing anyway.
#[track_caller]
fn a_page_that_is_allowed_publishes_in_all_these_ways<B>(open: fn(&str) -> B) {
    let (statuses, events) = tries(|settings, origin| settings.allow_origin(origin).allow_null_origin(), open);
    assert_eq!(statuses, [200; WAYS.len()]);
    for way in WAYS {
        let is_published = |data: &str| data == way || data.trim_end() == format!("data={way}");
        let mut published = events.lines().filter_map(|line| line.strip_prefix("data: "));
        assert!(published.any(is_published), "{way}: {events}");
    }
}

#[test]
fn in_chromium_a_foreign_page_neither_reads_nor_publishes() {
    a_foreign_page_can_do_nothing(chromium);
}

#[test]
fn in_firefox_a_foreign_page_neither_reads_nor_publishes() {
    a_foreign_page_can_do_nothing(Firefox::opens);
}

#[test]
fn in_chromium_an_allowed_page_publishes() {
    a_page_that_is_allowed_publishes_in_all_these_ways(chromium);
}

#[test]
fn in_firefox_an_allowed_page_publishes() {
    a_page_that_is_allowed_publishes_in_all_these_ways(Firefox::opens);
}

#[test]
fn a_page_of_the_server_itself_publishes_by_fetch_and_by_form() {
    let site = Site::with(OriginPolicy::builder());
    let mut seen = site.publisher.subscribe().unwrap();
    let (_browser, tab) = chromium(&format!("http://{}/", site.address));
    tab.until("document.body !== null && location.protocol === 'http:'");
    let origin = Some(format!("http://{}", site.address));
    tab.does("fetch('/publish', { method: 'POST', body: 'by fetch' });");
    assert_eq!(site.changes(1), [("POST".into(), origin.clone(), 200)]);
    assert!(seen.by_ref().any(|event| event.starts_with("data: by fetch\n")));
    tab.does("document.body.innerHTML = '<form method=post action=/publish><input name=data value=form></form>';");
    tab.does("document.forms[0].submit();");
    assert_eq!(site.changes(1), [("POST".into(), origin, 200)]);
    assert!(seen.any(|event| event.starts_with("data: data=form\n")));
}

/// By DNS rebinding, a page has the server's address under a name of its own: the browser treats them as one origin.
#[test]
fn a_page_whose_name_leads_to_the_server_neither_reads_nor_publishes() {
    let site = Site::with(OriginPolicy::builder());
    let (_, port) = site.address.rsplit_once(':').unwrap();
    // Chromium takes every name below `localhost` for this machine.
    let (_browser, tab) = chromium(&format!("http://rebound.localhost:{port}/"));
    tab.until("document.body !== null && location.hostname === 'rebound.localhost'");
    tab.shows(
        "body",
        &["host \"rebound.localhost:PORT\" not allowed: use localhost, 127.0.0.1 or [::1]"
            .replace("PORT", port)
            .as_str()],
    );
    tab.does("fetch('/secret').then(answer => answer.text()).then(text => { window.read = text; });");
    tab.until("String(window.read).startsWith('host \"rebound.localhost:')");
    tab.does("fetch('/publish', { method: 'POST', body: 'evil' });");
    assert_eq!(site.changes(1), [("POST".into(), Some(format!("http://rebound.localhost:{port}")), 403)]);
    site.publisher.close();
    assert_eq!(site.publisher.stats().events_published, 0);
}
