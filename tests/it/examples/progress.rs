//! The example progress: a viewer that comes late sees the state of all jobs too.

use std::collections::BTreeSet;

use super::*;

fn start_job(progress: &Example, name: &str) -> (u16, String) {
    answer(agent().post(format!("{}/jobs", progress.url)).send_form([("name", name)]))
}

/// Returns the fields of a job's event: number, name, state, percent, step.
type Update = (u64, String, String, u64, String);

fn next_update(watcher: &mut Watcher) -> Update {
    let event = watcher.next_event();
    let fields: serde_json::Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
    assert!(fields["time"].is_u64(), "{event}");
    let [name, state, step] = ["name", "state", "step"].map(|field| fields[field].as_str().unwrap().to_owned());
    (fields["job"].as_u64().unwrap(), name, state, fields["percent"].as_u64().unwrap(), step)
}

#[test]
fn progress_shows_a_late_viewer_the_state_of_all_jobs() {
    let progress = Example::start("progress");
    let name = "<b>fail</b> & ü";
    assert_eq!(start_job(&progress, &format!(" {name} ")), (201, "{\"job\":3}".into()));

    // Live until the third has failed, with all events of the other jobs meanwhile.
    let mut live = Watcher::new(&progress, "/events");
    let mut all: Vec<Update> = Vec::new();
    while !all.last().is_some_and(|(job, _, state, ..)| *job == 3 && state == "failed") {
        all.push(next_update(&mut live));
    }
    let jobs: BTreeSet<u64> = all.iter().map(|(job, ..)| *job).collect();
    assert_eq!(jobs, BTreeSet::from([1, 2, 3]));
    let third: Vec<Update> = all.iter().filter(|(job, ..)| *job == 3).cloned().collect();
    let of_third = |state: &str, percent, step: &str| (3, name.into(), state.into(), percent, step.into());
    assert_eq!(third[0], of_third("queued", 0, "waiting for a free worker"));
    for (n, step) in ["reading"; 10].into_iter().chain(["checking"; 10]).chain(["converting"; 5]).enumerate() {
        assert_eq!(third[1 + n], of_third("running", 2 * n as u64, step));
    }
    assert_eq!(third[26..], [of_third("failed", 50, "converting was not possible")]);

    // A late client receives all of them again; the stream of one job has that job's events only.
    let mut late = Watcher::new(&progress, "/events");
    for update in &all {
        assert_eq!(next_update(&mut late), *update);
    }
    assert_eq!(late.last_event_id, live.last_event_id);
    let mut alone = Watcher::new(&progress, "/events?job=3");
    for update in &third {
        assert_eq!(next_update(&mut alone), *update);
    }
    assert_eq!(alone.last_event_id, live.last_event_id);

    // A client that reconnects resumes there.
    let mut back = Watcher::new(&progress, &format!("/events?lastEventId={}", live.last_event_id));
    for _ in 0..3 {
        assert_eq!(next_update(&mut back), next_update(&mut live));
    }
}

#[test]
fn progress_queues_at_most_20_jobs() {
    let progress = Example::start("progress");
    let mut started = 0;
    let refusal = loop {
        let (status, text) = start_job(&progress, &format!("number {started}"));
        if status != 201 {
            break (status, text);
        }
        started += 1;
        assert!(started < 1_000, "no job is refused");
    };
    assert_eq!(refusal, (503, "20 jobs are waiting already: try again later\n".into()));
    // More run if starting them takes very long.
    assert!(started >= 20, "{started}");
    let newest = started + 2;
    let mut waiting = Watcher::new(&progress, &format!("/events?job={newest}"));
    let name = format!("number {}", started - 1);
    assert_eq!(next_update(&mut waiting), (newest, name, "queued".into(), 0, "waiting for a free worker".into()));
}

#[test]
fn progress_rejects_a_bad_request_with_the_reason() {
    let progress = Example::start("progress");
    let url = |path: &str| format!("{}{path}", progress.url);
    assert_eq!(post(&url("/jobs"), ""), (400, "the field `name` is missing\n".into()));
    assert_eq!(start_job(&progress, " \n"), (400, "the field `name` is missing\n".into()));
    let long = "the name has 61 characters: at most 60 are allowed\n";
    assert_eq!(start_job(&progress, &"ü".repeat(61)), (400, long.into()));
    let large = (413, "body too large: at most 65536 bytes are allowed\n".into());
    assert_eq!(start_job(&progress, &"x".repeat(64 * 1024)), large);
    for path in ["/events?job=x", "/?job=x"] {
        assert_eq!(get(&url(path)), (400, "job=x is not a job's number\n".into()));
    }
    for (path, allowed) in [("/", "GET, HEAD"), ("/events", "GET, HEAD"), ("/jobs", "POST")] {
        let response = agent().put(url(path)).send("x").unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &allowed.parse().unwrap()));
    }
    assert_eq!(get(&url("/nothing")), (404, "there are /, /events and /jobs\n".into()));
    assert_eq!(start_job(&progress, "the first that was right"), (201, "{\"job\":3}".into()));
}
