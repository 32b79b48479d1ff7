//! `hub watch` and `hub publish`, against a hub.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use super::*;
use crate::common::example::built_examples;
use crate::common::{eventually, free_address};

fn hub(arguments: &[&str]) -> Command {
    let mut hub = Command::new(built_examples().join("hub"));
    hub.env_remove("HUB_PUBLISH_TOKEN").args(arguments);
    hub
}

/// `hub watch`, killed when it is dropped.
struct Watch {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Watch {
    fn start(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    /// Starts a watcher of a channel, and waits until it is subscribed.
    #[track_caller]
    fn subscribed(server: &Example, path: &str, arguments: &[&str]) -> Self {
        let before = watchers(server);
        let url = format!("{}{path}", server.url);
        let watch = Self::start(hub(&[&["watch", &url], arguments].concat()));
        eventually("the watcher is subscribed", || watchers(server) == before + 1);
        watch
    }

    #[track_caller]
    fn prints(&mut self, line: &str) {
        let mut printed = String::new();
        self.output.read_line(&mut printed).unwrap();
        assert_eq!(printed, format!("{line}\n"));
    }

    fn errors(&mut self) -> String {
        let mut text = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns how many streams the hub has.
fn watchers(server: &Example) -> usize {
    let (_, statistics) = get(&format!("{}/stats", server.url));
    let line = statistics.lines().find(|line| line.starts_with("sse_subscribers "));
    line.unwrap_or_else(|| panic!("{statistics}")).split(' ').nth(1).unwrap().parse().unwrap()
}

#[track_caller]
fn publishes(server: &Example, path: &str, arguments: &[&str], input: Option<&str>) -> Output {
    let url = format!("{}{path}", server.url);
    let mut command = hub(&[&["publish", &url], arguments].concat());
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(input.unwrap_or_default().as_bytes()).unwrap();
    drop(stdin);
    process.wait_with_output().unwrap()
}

#[track_caller]
fn succeeds(output: Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"", "only a terminal is answered");
}

#[test]
fn what_is_published_is_printed() {
    let server = Example::start("hub");
    let mut watch = Watch::subscribed(&server, "/builds", &[]);
    succeeds(publishes(&server, "/builds", &["all green"], None));
    watch.prints("all green");
    succeeds(publishes(&server, "/builds,news", &["two\nlines", "--event", "a b&c", "--retry", "5"], None));
    watch.prints("a b&c: two");
    watch.prints("a b&c: lines");
    succeeds(publishes(&server, "/builds", &[], Some("from\ninput")));
    watch.prints("from");
    watch.prints("input");
    succeeds(publishes(&server, "/builds", &["--lines", "--event", "line"], Some("one\ntwo\n")));
    watch.prints("line: one");
    watch.prints("line: two");
    // As it is: the output is no terminal.
    succeeds(publishes(&server, "/builds", &["\u{1b}[31mred"], None));
    watch.prints("\u{1b}[31mred");
}

#[test]
fn messages_are_printed_as_json_if_that_is_wanted() {
    let server = Example::start("hub");
    let mut watch = Watch::subscribed(&server, "/builds", &["--json", "--header", "X-A: b"]);
    succeeds(publishes(&server, "/builds", &["two\nlines", "--event", "e"], None));
    let mut line = String::new();
    watch.output.read_line(&mut line).unwrap();
    let message: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&message["type"], &message["data"]), (&"e".into(), &"two\nlines".into()));
    succeeds(publishes(&server, "/builds", &["next"], None));
    let mut again = Watch::subscribed(&server, "/builds", &["--last-event-id", message["id"].as_str().unwrap()]);
    again.prints("next");
}

#[test]
fn only_a_terminal_gets_colors_and_nothing_that_it_would_obey() {
    let server = Example::start("hub");
    let program = built_examples().join("hub");
    let mut terminal = Command::new("script");
    let line = format!("{} watch {}/builds", program.display(), server.url);
    terminal.args(["--quiet", "--flush", "--command", &line, "/dev/null"]).stdin(Stdio::null());
    let mut watch = Watch::start(terminal);
    eventually("the watcher is subscribed", || watchers(&server) == 1);
    succeeds(publishes(&server, "/builds", &["\u{1b}]0;owned\u{7}\tx", "--event", "e"], None));
    let mut printed = String::new();
    watch.output.read_line(&mut printed).unwrap();
    let (beginning, id) = printed.trim_end().split_once("  \u{1b}[2m").unwrap();
    assert_eq!(beginning, "\u{1b}[36me:\u{1b}[0m \\u{1b}]0;owned\\u{7}\tx");
    assert!(id.ends_with("\u{1b}[0m"), "{id:?}");
}

#[test]
fn a_token_is_needed_where_the_hub_wants_one() {
    let mut command = Command::new(built_examples().join("hub"));
    command.env("HUB_PUBLISH_TOKEN", "secret");
    let server = Example::run(command);
    let refused = publishes(&server, "/c", &["x"], None);
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.starts_with("hub: the server answered with status 401: publishing needs the header"), "{error}");
    succeeds(publishes(&server, "/c", &["x", "--publish-token", "secret"], None));
    let url = format!("{}/c", server.url);
    succeeds(hub(&["publish", &url, "x"]).env("HUB_PUBLISH_TOKEN", "secret").output().unwrap());
}

#[test]
fn a_watcher_ends_with_a_reason() {
    let server = Example::start("hub");
    let mut watch = Watch::start(hub(&["watch", &format!("{}/healthz", server.url)]));
    assert_eq!(watch.process.wait().unwrap().code(), Some(1));
    let expected = "hub: no event stream: the server answered with the type \"text/plain; charset=utf-8\"\n";
    assert_eq!(watch.errors(), expected);
    let mut watch = Watch::start(hub(&["watch", "localhost"]));
    assert_eq!(watch.process.wait().unwrap().code(), Some(1));
    assert!(watch.errors().starts_with("hub: invalid URL \"localhost\""));
}

#[test]
fn a_watcher_ends_when_its_output_is_closed() {
    let server = Example::start("hub");
    let mut watch = Watch::subscribed(&server, "/builds", &[]);
    watch.output = BufReader::new(Command::new("true").stdout(Stdio::piped()).spawn().unwrap().stdout.take().unwrap());
    eventually("the watcher ends", || {
        succeeds(publishes(&server, "/builds", &["x"], None));
        watch.process.try_wait().unwrap().is_some()
    });
    assert!(watch.process.wait().unwrap().success());
}

#[test]
fn a_watcher_reports_that_the_hub_is_away_and_returns() {
    let address = free_address();
    let server = Example::start_at("hub", address);
    let mut watch = Watch::subscribed(&server, "/builds", &[]);
    drop(server);
    let mut errors = BufReader::new(watch.process.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    assert!(line.starts_with("hub: connection lost: ") && line.contains("; reconnecting in "), "{line}");
    let server = Example::start_at("hub", address);
    eventually("the watcher returns", || watchers(&server) == 1);
    succeeds(publishes(&server, "/builds", &["back"], None));
    // Another hub does not know the last event ID.
    let mut gap = String::new();
    watch.output.read_line(&mut gap).unwrap();
    assert!(gap.starts_with("gap: {\"from\":"), "{gap}");
    watch.prints("back");
}
