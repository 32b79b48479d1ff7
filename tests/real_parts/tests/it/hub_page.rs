//! The page of hub in a real browser: its live figures, watching and sending.

use std::fs;
use std::path::Path;
use std::process::Command;

use real_parts::browser::{Browser, Tab};
use real_parts::common::example::{Example, built_examples};
use real_parts::common::http::Events;
use real_parts::common::{eventually, free_address};
use real_parts::proxy::{Program, Proxy, Site, Way};

fn start(arguments: &[&str]) -> Example {
    let mut command = Command::new(built_examples().join("hub"));
    command.args(arguments);
    Example::run(command)
}

fn figure(name: &str) -> String {
    format!("[data-figure={name}] .number")
}

/// Waits until the page has loaded and shows figures.
#[track_caller]
fn is_live(tab: &Tab) {
    tab.shows("#figures-state", &["figures live"]);
    tab.until("document.querySelector('[data-figure=streams] .curve').getAttribute('d') !== null");
}

#[track_caller]
fn watches(tab: &Tab) {
    tab.does("document.querySelector('#watch button').click()");
    tab.shows("#state", &["live"]);
}

#[track_caller]
fn sends(tab: &Tab, answer: &str) {
    tab.does("document.querySelector('#send button').click()");
    tab.shows("#result", &[answer]);
}

#[test]
fn the_page_shows_live_figures_and_what_it_sends_and_the_browser_has_no_complaint() {
    let hub = start(&[]);
    let browser = Browser::new();
    let tab = browser.opens(&hub.url);
    is_live(&tab);
    tab.shows(&figure("streams"), &["0"]);
    watches(&tab);
    tab.shows(&figure("streams"), &["1"]);
    sends(&tab, "sent to 1 streams");
    tab.shows("#log .data", &["all green"]);
    let most = "document.querySelector('[data-figure=delivered] svg').getAttribute('aria-label')";
    tab.until(&format!("{most}.startsWith('Deliveries per second in the last minute: now ')"));
    tab.until(&format!("{most}.endsWith('at most 1')"));
    tab.does("document.querySelector('#stop').click()");
    tab.shows(&figure("streams"), &["0"]);

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/pictures");
    fs::create_dir_all(&folder).unwrap();
    for scheme in ["light", "dark"] {
        tab.prefers(scheme);
        for (width, height) in [(1280, 900), (360, 780)] {
            tab.is_sized(width, height);
            tab.until("document.documentElement.scrollWidth <= innerWidth");
            fs::write(folder.join(format!("hub-{scheme}-{width}.png")), tab.looks_like()).unwrap();
        }
    }
    assert_eq!(tab.console(), Vec::<String>::new());
}

/// A text of another user that became a script would run.
#[test]
fn the_page_shows_the_data_of_others_as_text() {
    let hub = start(&[]);
    let browser = Browser::new();
    let tab = browser.opens(&hub.url);
    watches(&tab);
    let html = "<img src=x onerror=alert(1)><script>alert(2)</script>";
    ureq::post(format!("{}/builds", hub.url)).send(html).unwrap();
    tab.shows("#log .data", &[html]);
    assert_eq!(tab.console(), Vec::<String>::new());
}

#[test]
fn the_page_sends_with_the_publish_token_that_its_user_enters() {
    let hub = start(&["--publish-token", "s3cr3t"]);
    let browser = Browser::new();
    let tab = browser.opens(&hub.url);
    is_live(&tab);
    tab.until("document.querySelector('#curl-send').textContent.includes('Bearer $HUB_PUBLISH_TOKEN')");
    let refused = "401: publishing needs the header `Authorization: Bearer TOKEN` with the hub's publish token";
    sends(&tab, refused);
    // With the Enter key, as a person does.
    tab.enters("#token", "s3cr3t");
    tab.shows("#result", &["sent to 0 streams"]);
}

#[test]
fn the_page_gets_its_figures_again_after_a_restart() {
    let address = free_address();
    let mut hub = Example::start_at("hub", address);
    let browser = Browser::new();
    let tab = browser.opens(&hub.url);
    is_live(&tab);
    hub.process.kill().unwrap();
    hub.process.wait().unwrap();
    tab.until("document.querySelector('#figures').className === 'stale'");
    let hub = Example::start_at("hub", address);
    let _streams = [hub.events("/a"), hub.events("/b")];
    is_live(&tab);
    tab.shows(&figure("streams"), &["2"]);
}

/// A browser has six connections to a server for all its tabs. A hidden one must not occupy one for its figures.
#[test]
fn hidden_tabs_hold_no_stream_for_their_figures() {
    let hub = start(&["--max-streams", "1"]);
    let browser = Browser::new();
    let first = browser.opens(&hub.url);
    is_live(&first);
    // A headless browser shows every tab, so the test marks this one as hidden.
    first.does("Object.defineProperty(document, 'hidden', { value: true, configurable: true })");
    first.does("document.dispatchEvent(new Event('visibilitychange'))");
    eventually("the only place is free", || {
        let mut stream = Events::get(&format!("{}/c", hub.url));
        stream.next_frame().is_some_and(|frame| frame == ":\n")
    });
    first.does("Object.defineProperty(document, 'hidden', { value: false, configurable: true })");
    first.does("document.dispatchEvent(new Event('visibilitychange'))");
    is_live(&first);
}

#[test]
fn the_page_sends_through_each_proxy() {
    let browser = Browser::new();
    let tab = browser.opens("about:blank");
    for proxy in [Proxy::Nginx, Proxy::HaProxy, Proxy::Caddy] {
        let site = Site::with(proxy, Program::Hub, "");
        tab.goes_to(&site.url(Way::Http2, "/"));
        is_live(&tab);
        watches(&tab);
        sends(&tab, "sent to 1 streams");
        tab.shows("#log .data", &["all green"]);
    }
}
