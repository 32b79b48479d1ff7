//! The example `job_log`: each viewer sees the job's output from its beginning.

use std::io::Write;
use std::process::{ChildStdin, Command, Stdio};

use super::{Watcher, get};
use crate::common::example::{Example, built_examples};

/// Starts the example, and returns what the job writes to.
fn job() -> (Example, ChildStdin) {
    let mut command = Command::new(built_examples().join("job_log"));
    command.stdin(Stdio::piped());
    let mut example = Example::run(command);
    let job = example.process.stdin.take().unwrap();
    (example, job)
}

/// Returns the data of the next events, up to and including this one.
#[track_caller]
fn lines(watcher: &mut Watcher, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != last) {
        let event = watcher.next_event();
        lines.push(event.trim_end().strip_prefix("data: ").unwrap_or(event.trim_end()).to_owned());
    }
    lines
}

#[test]
fn a_late_viewer_sees_the_output_from_its_beginning_and_the_end_of_the_job() {
    let (example, mut job) = job();
    job.write_all(b"checking\r\n\xff is no UTF-8\nbuilding\n").unwrap();
    let beginning = ["checking", "\u{fffd} is no UTF-8", "building"];
    let mut early = Watcher::new(&example, "/log");
    assert_eq!(lines(&mut early, "building"), beginning);

    job.write_all(b"testing\n").unwrap();
    assert_eq!(lines(&mut early, "testing"), ["testing"]);
    let mut late = Watcher::new(&example, "/log");
    assert_eq!(lines(&mut late, "testing"), [&beginning[..], &["testing"]].concat());

    drop(job);
    let end = "event: end\ndata:";
    let mut after_the_end = Watcher::new(&example, "/log");
    for watcher in [&mut early, &mut late] {
        assert_eq!(lines(watcher, end), [end]);
    }
    assert_eq!(lines(&mut after_the_end, end), [&beginning[..], &["testing", end]].concat());
}

#[test]
fn a_viewer_that_reconnects_gets_what_it_missed() {
    let (example, mut job) = job();
    job.write_all(b"one\ntwo\n").unwrap();
    let mut viewer = Watcher::new(&example, "/log");
    assert_eq!(lines(&mut viewer, "two"), ["one", "two"]);
    let path = format!("/log?lastEventId={}", viewer.last_event_id);
    drop(viewer);
    job.write_all(b"three\n").unwrap();
    assert_eq!(lines(&mut Watcher::new(&example, &path), "three"), ["three"]);
}

#[test]
fn the_page_is_served_and_nothing_else() {
    let (example, _job) = job();
    assert!(get(&example.url).1.contains("new EventSource('/log')"));
    assert_eq!(get(&format!("{}/other", example.url)).0, 404);
}
