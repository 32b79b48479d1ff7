//! A real browser: what the examples' pages show, in several tabs, through restarts of the server.

use std::fs;
use std::path::Path;
use std::process::Command;

use real_parts::browser::{Browser, Tab};
use real_parts::common::example::{Example, built_examples};
use real_parts::common::http::Running;
use real_parts::common::{eventually, free_address};
use real_parts::proxy::{Site, Way};
use real_parts::relay::Relay;
use server_sent_events::{Event, Publisher};

const STATE: &str = "#state";

/// Kills the server. Returns the command that restarts it on the same address.
fn kill(mut example: Example, name: &str) -> impl FnOnce() -> Example {
    example.process.kill().unwrap();
    example.process.wait().unwrap();
    let mut command = Command::new(built_examples().join(name));
    command.arg(example.url.strip_prefix("http://").unwrap());
    // Dropping it would kill a dead process.
    std::mem::forget(example);
    || Example::run_as_it_is(command)
}

/// Saves a screenshot of the page for people to check, and checks that nothing is cut off at this width.
#[track_caller]
fn fits(tab: &Tab, name: &str, width: u32, height: u32) {
    tab.is_sized(width, height);
    tab.until("document.documentElement.scrollWidth <= innerWidth");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/pictures");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{name}-{width}.png")), tab.looks_like()).unwrap();
}

fn post(url: &str, fields: &[(&str, &str)]) {
    ureq::post(url).send_form(fields.iter().copied()).unwrap();
}

#[test]
fn visits_shows_each_visit_in_every_tab_and_reconnects_after_a_restart() {
    let visits = Example::start_at("visits", free_address());
    let browser = Browser::new();
    let first = browser.opens(&visits.url);
    first.shows(STATE, &["live"]);
    let log = "[...document.querySelectorAll('#log li')].map(line => line.lastChild.data).join()";
    first.until(&format!("{log} === '1 visits so far'"));
    let second = browser.opens(&visits.url);
    second.shows(STATE, &["live"]);
    first.until(&format!("{log} === 'visit number 2,1 visits so far'"));

    let restart = kill(visits, "visits");
    for tab in [&first, &second] {
        tab.until("['reconnecting', 'disconnected'].includes(document.querySelector('#state').dataset.state)");
    }
    let _visits = restart();
    for tab in [&first, &second] {
        tab.shows(STATE, &["live"]);
    }
    first.until(&format!("{log} === '0 visits so far,visit number 2,1 visits so far'"));
    fits(&first, "visits", 360, 640);
}

fn join(browser: &Browser, chat: &Example, name: &str) -> Tab {
    let tab = browser.opens(&chat.url);
    tab.enters("#username", name);
    tab.shows(STATE, &["live"]);
    tab
}

/// Returns the messages in the log, without their sender and time.
const MESSAGES: &str = "#log .message .text";

#[test]
fn chat_shows_a_message_once_in_every_tab() {
    let chat = Example::start("chat");
    let browser = Browser::new();
    let ada = join(&browser, &chat, "Ada");
    let bob = join(&browser, &chat, "Bob");
    for tab in [&ada, &bob] {
        tab.until("document.querySelectorAll('#users li').length === 2");
    }
    ada.enters("#message", "hello");
    bob.shows(MESSAGES, &["hello"]);
    bob.enters("#message", "hi there");
    ada.shows(MESSAGES, &["hello", "hi there"]);
    bob.shows(MESSAGES, &["hello", "hi there"]);
}

/// Returns the log's lines about joining, leaving, and missing events.
const NOTICES: &str = "#log .notice";

#[test]
fn chat_shows_who_joins_and_who_leaves_by_closing_the_tab() {
    let chat = Example::start("chat");
    let browser = Browser::new();
    let ada = join(&browser, &chat, "Ada");
    let bob = join(&browser, &chat, "Bob");
    ada.shows(NOTICES, &["Bob joined"]);
    let carol = browser.opens(&format!("{}/?username=Carol", chat.url));
    // In one line, since no message came in between.
    ada.shows(NOTICES, &["Bob, Carol joined"]);
    bob.shows(NOTICES, &["Carol joined"]);
    // A user that reloads the page neither leaves nor joins.
    carol.does("document.body.id = 'old'; location.reload()");
    carol.until("document.body.id === ''");
    carol.shows("#users li", &["Ada", "Bob", "Carol (you)"]);

    bob.closes();
    ada.shows("#users li", &["Ada (you)", "Carol"]);
    carol.shows(NOTICES, &["Bob left"]);
    carol.closes();
    ada.shows(NOTICES, &["Bob, Carol joined", "Bob, Carol left"]);
    ada.shows("#users li", &["Ada (you)"]);
}

#[test]
fn chat_reconnects_to_the_successor_of_a_server_that_ended_in_good_order() {
    let mut chat = Example::start_at("chat", free_address());
    let browser = Browser::new();
    let ada = join(&browser, &chat, "Ada");
    let bob = join(&browser, &chat, "Bob");
    ada.shows(NOTICES, &["Bob joined"]);
    let pid = chat.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(chat.process.wait().unwrap().success());
    for tab in [&ada, &bob] {
        tab.shows(STATE, &["reconnecting"]);
    }
    let _chat = kill(chat, "chat")();
    for tab in [&ada, &bob] {
        tab.shows(STATE, &["live"]);
        tab.until("document.querySelectorAll('#users li').length === 2");
    }
    ada.enters("#message", "hello again");
    bob.shows(MESSAGES, &["hello again"]);
}

#[test]
fn html_in_a_name_or_a_text_stays_text() {
    let chat = Example::start("chat");
    let browser = Browser::new();
    let ada = join(&browser, &chat, "Ada");
    let name = "<b>Mallory</b><img src=x>";
    let text = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script> &amp; \u{2028}";
    let mallory = join(&browser, &chat, name);
    post(&format!("{}/publish", chat.url), &[("username", name), ("message", text)]);
    ada.until(&format!("document.querySelector({MESSAGES:?})?.textContent === {}", serde_json::json!(text)));
    ada.until(&format!("document.querySelector('#log .name').textContent === {}", serde_json::json!(name)));
    ada.until(&format!(
        "[...document.querySelectorAll('#users .name')].some(found => found.textContent === {})",
        serde_json::json!(name)
    ));
    for tab in [&ada, &mallory] {
        tab.until("document.querySelectorAll('main img, main b, main script').length === 0");
        tab.until("document.title === 'Chat'");
    }
}

#[test]
fn chat_shows_every_message_once_though_the_server_was_killed() {
    let chat = Example::start_at("chat", free_address());
    let browser = Browser::new();
    let ada = join(&browser, &chat, "Ada");
    let publish = format!("{}/publish", chat.url);
    post(&publish, &[("username", "Bob"), ("message", "before")]);
    ada.shows(MESSAGES, &["before"]);

    let restart = kill(chat, "chat");
    ada.until("['reconnecting', 'disconnected'].includes(document.querySelector('#state').dataset.state)");
    fits(&ada, "chat-away", 360, 640);
    let _chat = restart();
    // Usually before the tab has reconnected; the history gives it what it has missed.
    post(&publish, &[("username", "Bob"), ("message", "meanwhile")]);
    ada.shows(STATE, &["live"]);
    ada.shows(MESSAGES, &["before", "meanwhile"]);
    post(&publish, &[("username", "Bob"), ("message", "after")]);
    ada.shows(MESSAGES, &["before", "meanwhile", "after"]);
    // The old history is gone with the process, and the page reports that once.
    ada.until("document.querySelectorAll('#log .notice').length === 1");
}

#[test]
fn chat_misses_nothing_while_its_connection_was_broken() {
    let chat = Example::start("chat");
    let relay = Relay::to(chat.url.strip_prefix("http://").unwrap().parse().unwrap());
    let browser = Browser::new();
    let ada = browser.opens(&format!("http://{}", relay.address));
    ada.enters("#username", "Ada");
    ada.shows(STATE, &["live"]);
    let publish = format!("{}/publish", chat.url);
    let say = |message| post(&publish, &[("username", "Bob"), ("message", message)]);
    say("before");
    ada.shows(MESSAGES, &["before"]);

    relay.holds();
    relay.cuts_within("cut short");
    say("cut short");
    ada.shows(STATE, &["reconnecting"]);
    say("while it was away");
    relay.lets_go();
    ada.shows(STATE, &["live"]);
    say("after");
    ada.shows(MESSAGES, &["before", "cut short", "while it was away", "after"]);
    ada.until("document.querySelectorAll('#log .notice').length === 0");
}

#[test]
fn chat_is_readable_on_a_phone_and_on_a_desk() {
    let chat = Example::start("chat");
    let browser = Browser::new();
    let ada = join(&browser, &chat, "Ada");
    let bob = join(&browser, &chat, "Bob");
    for name in ["Grace", "Alan", "Barbara"] {
        // A user without a tab.
        std::mem::forget(chat.events(&format!("/subscribe?username={name}")));
    }
    let talk = [
        (&bob, "Is the build green?"),
        (&ada, "Yes, since this morning. The history keeps what you missed while your train was in the tunnel."),
        (&bob, "Then let us ship it."),
    ];
    for (tab, text) in talk {
        tab.enters("#message", text);
    }
    ada.until("document.querySelectorAll('#users li').length === 5");
    ada.until(&format!("document.querySelectorAll({MESSAGES:?}).length === 3"));
    fits(&ada, "chat", 360, 640);
    fits(&ada, "chat", 900, 560);
    fits(&bob, "chat-other", 360, 640);
}

/// Returns the cards: a job's name and its state.
fn jobs(tab: &Tab) -> Vec<(String, String)> {
    tab.texts(".job h2").into_iter().zip(tab.texts(".job .state")).collect()
}

#[test]
fn progress_shows_the_truth_in_every_tab_however_late_it_was_opened() {
    let progress = Example::start("progress");
    let browser = Browser::new();
    let first = browser.opens(&progress.url);
    first.shows(STATE, &["live"]);
    first.enters("#name", "Render the film");
    first.enters("#name", "Index a disk that will fail");
    first.enters("#name", "<i>Sort</i> the mail");
    first.shows(
        ".job h2",
        &[
            "<i>Sort</i> the mail",
            "Index a disk that will fail",
            "Render the film",
            "Build the handbook",
            "Back up the photos",
        ],
    );
    // It makes progress.
    let percent = "Number(document.querySelector('#job-1 progress').value)";
    first.until(&format!("{percent} > 10"));

    // A tab that opens late shows the same, and so does a reloaded one.
    let late = browser.opens(&progress.url);
    late.until("document.querySelectorAll('.job').length === 5");
    late.until(&format!("{percent} > 10"));
    first.does("location.reload()");
    first.until("document.querySelectorAll('.job').length === 5");
    for tab in [&first, &late] {
        tab.until("document.querySelector('#job-4').dataset.state === 'failed'");
        tab.until("document.querySelector('#job-5').dataset.state === 'running'");
    }
    fits(&first, "progress", 360, 740);
    fits(&first, "progress", 900, 660);
    // HTML in a name stays text.
    first.enters("#name", "<i>Sort</i> the rest");
    late.until("document.querySelector('#job-6 h2')?.textContent === '<i>Sort</i> the rest'");
    for tab in [&first, &late] {
        tab.until(
            "[...document.querySelectorAll('.job')].every(job => ['done', 'failed'].includes(job.dataset.state))",
        );
    }
    assert_eq!(jobs(&first), jobs(&late));
    assert_eq!(first.texts("#log p"), late.texts("#log p"));

    // A single job's page shows that job only.
    let one = browser.opens(&format!("{}/?job=4", progress.url));
    one.shows(".job h2", &["Index a disk that will fail"]);
    one.shows(".job .state", &["failed"]);
}

#[test]
fn progress_forgets_what_a_killed_server_did() {
    let progress = Example::start_at("progress", free_address());
    let browser = Browser::new();
    let tab = browser.opens(&progress.url);
    tab.enters("#name", "of the old server");
    tab.until("document.querySelectorAll('.job').length === 3");
    let restart = kill(progress, "progress");
    tab.until("['reconnecting', 'disconnected'].includes(document.querySelector('#state').dataset.state)");
    fits(&tab, "progress-away", 360, 740);
    let _progress = restart();
    tab.shows(STATE, &["live"]);
    tab.shows(".job h2", &["Build the handbook", "Back up the photos"]);
    tab.until("document.querySelectorAll('#log .missing').length === 1");
}

#[test]
fn of_seven_tabs_the_seventh_waits_for_one_of_six_connections() {
    let visits = Example::start("visits");
    let browser = Browser::new();
    let mut tabs: Vec<Tab> = (0..6).map(|_| browser.opens(&visits.url)).collect();
    for tab in &tabs {
        tab.shows(STATE, &["live"]);
    }
    let seventh = browser.opens(&visits.url);
    // All six receive a further visit, so time has passed; the seventh is still without its page.
    ureq::get(&visits.url).call().unwrap();
    for tab in &tabs {
        tab.until("document.querySelector('#log').innerText.includes('visit number 7')");
    }
    assert_eq!(seventh.texts(STATE), [""; 0]);
    tabs.pop().unwrap().closes();
    seventh.shows(STATE, &["live"]);
}

/// Returns a block of JavaScript from a document, unchanged.
fn shown(document: &str, block_with: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(document)).unwrap();
    let mut blocks = text.split("```js\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.find(|block| block.contains(block_with)).expect(block_with).to_owned()
}

/// The page's line receives what is published, and listeners get the events of their type.
#[test]
fn the_lines_of_the_documents_receive_events() {
    let publisher = Publisher::new();
    let streams = publisher.clone();
    let page = format!(
        "<script>console.log = (...texts) => document.body.append(texts.join(' '), ';');\n{}{}</script>",
        shown("README.md", "new EventSource").replace("\"/\"", "\"/events\""),
        shown("docs/browsers.md", "addEventListener(\"build\""),
    );
    let server = Running::new(move |request| {
        let html = tiny_http::Header::from_bytes("Content-Type", "text/html").unwrap();
        let answered = match request.url() {
            "/" => request.respond(tiny_http::Response::from_string(format!("<body>{page}")).with_header(html)),
            "/events" => streams.respond(request),
            _ => request.respond(tiny_http::Response::empty(404)),
        };
        answered.unwrap();
    });
    let browser = Browser::new();
    let tab = browser.opens(&format!("http://{}/", server.address));
    eventually("both streams are open", || publisher.stats().subscribers == 2);
    publisher.publish("hello");
    publisher.publish(Event::new("all green").event("build").unwrap());
    tab.until("document.body.innerText.split('hello;').length === 3");
    tab.until("document.body.innerText.split('build: all green;').length === 2");
}

#[test]
fn with_the_documented_shared_worker_all_tabs_share_one_connection() {
    let publisher = Publisher::new();
    let streams = publisher.clone();
    let page = format!(
        "<script>console.log = text => document.body.append(text, ' ');\n{}</script>",
        shown("docs/browsers.md", "new SharedWorker")
    );
    let server = Running::new(move |request| {
        let text = |content_type: &str, text: String| {
            let content_type = tiny_http::Header::from_bytes("Content-Type", content_type).unwrap();
            tiny_http::Response::from_string(text).with_header(content_type)
        };
        let answered = match request.url() {
            "/" => request.respond(text("text/html", format!("<body>{page}"))),
            "/stream.js" => request.respond(text("text/javascript", shown("docs/browsers.md", "onconnect"))),
            "/events" => streams.respond(request),
            _ => request.respond(tiny_http::Response::empty(404)),
        };
        answered.unwrap();
    });
    let browser = Browser::new();
    let url = format!("http://{}/", server.address);
    let tabs: Vec<Tab> = (0..7).map(|_| browser.opens(&url)).collect();
    // Until the last one has opened its stream.
    let all_received = |data: &str| {
        publisher.publish(data);
        tabs.iter().all(|tab| tab.texts("body").concat().contains(data))
    };
    eventually("all seven receive the event", || all_received("first"));
    assert_eq!(publisher.stats().subscribers, 1);
    assert!(all_received("last") || all_received("the very last"));
}

#[test]
fn over_http_2_seven_tabs_have_seven_streams() {
    let site = Site::start();
    let browser = Browser::new();
    let tabs: Vec<Tab> = (0..7).map(|_| browser.opens(&site.url(Way::Http2, "/"))).collect();
    for tab in &tabs {
        tab.until("document.querySelector('#data') !== null");
        tab.does("document.title = ''; new EventSource('/c').onmessage = event => { document.title += event.data; };");
    }
    eventually("all seven watch", || site.post(Way::Http2, "/c", "?") == 7);
    site.post(Way::Http2, "/c", "!");
    for tab in &tabs {
        tab.until("document.title.endsWith('!')");
    }
}
