//! Jobs on worker threads whose progress every page shows: `cargo run --release --example progress [ADDRESS
//! [PUBLIC_HOST]]`.
//!
//! | request | response |
//! |---|---|
//! | `GET /` or `/?job=7` | the page of all jobs, or of one |
//! | `GET /events` or `/events?job=7` | the event stream of all jobs, or of one |
//! | `POST /jobs` with the form field `name` | 201 and `{"job":7}`; three jobs run at once, twenty more may wait |
//!
//! Each event contains the whole state of its job. So the newest events, which the history keeps, are the current
//! state: a page that opens late or reconnects receives them, and the program stores nothing else about a finished job.
//!
//! Pages of other websites are refused. Behind a proxy, `PUBLIC_HOST` is the host in the browser's address bar.
//!
//! On SIGINT (Ctrl+C) or SIGTERM, it ends all streams, gives each page its own reconnection delay, and exits within a
//! few seconds. It does not wait for jobs. On a second signal, it exits at once.
//!
//! ```text
//! curl -N 'http://127.0.0.1:5000/events?job=1'
//! curl --data-urlencode 'name=this will fail' http://127.0.0.1:5000/jobs
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Sender, bounded};
use serde_json::json;
use server_sent_events::adapter::tiny_http as sse;
use server_sent_events::{History, OriginPolicy, Publisher, Shutdown};
use signals::EndSignals;
use tiny_http::{Header, Method, Request, Response};

#[path = "../common/output.rs"]
mod output;
#[path = "../common/signals.rs"]
mod signals;

/// How many jobs run at once.
const WORKERS: usize = 3;
/// How many more may wait.
const MAX_WAITING: usize = 20;
/// The events that the history keeps of all jobs. A job publishes 52, so the history still has the only event of a
/// waiting job after all jobs before it have run.
const KEPT: usize = 4_000;
/// The limit for the events of the single jobs too: those of about the last 300.
const MAX_KEPT_BYTES: usize = 16 * 1024 * 1024;
/// A longer name breaks the page.
const MAX_NAME: usize = 60;
/// A longer form is refused.
const MAX_FORM: usize = 64 * 1024;
/// The time that the streams have to end.
const GRACE: Duration = Duration::from_secs(5);

/// The channel of all jobs. Each job has its own channel too.
const ALL_JOBS: &str = "all jobs";

fn channel_of(job: u64) -> String {
    format!("job {job}")
}

struct Job {
    number: u64,
    name: String,
}

impl Job {
    /// Simulates the work: five steps of ten ticks each, 10 to 18 s in all.
    fn run(&self, publisher: &Publisher) {
        let steps = ["reading", "checking", "converting", "writing", "cleaning up"];
        let tick = Duration::from_millis(200 + self.number * 150 % 200); // each at its own pace
        for percent in (0..100).step_by(2) {
            let step = steps[percent / 20];
            if percent == 50 && self.name.contains("fail") {
                return self.tell(publisher, "failed", percent, &format!("{step} was not possible"));
            }
            self.tell(publisher, "running", percent, step);
            thread::sleep(tick);
        }
        self.tell(publisher, "done", 100, "all five steps");
    }

    /// Publishes one event in both channels.
    fn tell(&self, publisher: &Publisher, state: &str, percent: usize, step: &str) {
        // The page may receive it much later.
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let Self { number, name } = self;
        let data = json!({
            "job": number, "name": name, "state": state, "percent": percent, "step": step, "time": time,
        });
        publisher.publish_to([ALL_JOBS, &channel_of(*number)], data.to_string());
    }
}

struct Jobs {
    publisher: Publisher,
    waiting: Sender<Job>,
    /// The number of the newest job. Only the lock's holder sends, so the room that it finds stays free.
    newest: Mutex<u64>,
}

impl Jobs {
    fn new(publisher: Publisher) -> Self {
        let (waiting, to_do) = bounded::<Job>(MAX_WAITING);
        for _ in 0..WORKERS {
            let (publisher, to_do) = (publisher.clone(), to_do.clone());
            thread::spawn(move || {
                for job in to_do.iter() {
                    job.run(&publisher);
                }
            });
        }
        Self { publisher, waiting, newest: Mutex::new(0) }
    }

    /// Starts a job and returns its number, if there is room for it.
    fn start(&self, name: &str) -> Option<u64> {
        let mut newest = self.newest.lock().expect("nobody panics with this lock");
        if self.waiting.is_full() {
            return None;
        }
        *newest += 1;
        let job = Job { number: *newest, name: name.to_owned() };
        // Published first: a worker may run the job as soon as it is sent.
        job.tell(&self.publisher, "queued", 0, "waiting for a free worker");
        self.waiting.send(job).expect("the workers never stop");
        Some(*newest)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let signals = EndSignals::catch()?;
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:5000".into());
    let server = sse::Server::bind(address)?;
    let public_host = std::env::args().nth(2);
    let policy = public_host.into_iter().fold(OriginPolicy::builder(), |policy, host| policy.public_host(host));
    let policy = policy.build(server.local_addr()?)?;
    output::say(format_args!("listening on http://{}", server.local_addr()?));

    // The server needs two descriptors per subscriber, and the usual limit is 1,024.
    let history = History::new().max_events_per_channel(KEPT).max_bytes(MAX_KEPT_BYTES);
    let jobs = Jobs::new(Publisher::builder().history(history).max_subscribers(400).build()?);
    for name in ["Back up the photos", "Build the handbook"] {
        jobs.start(name);
    }

    let (streams, stop_handle) = (jobs.publisher.clone(), server.stop_handle());
    signals.at_the_first(move || {
        streams.shutdown_with(Shutdown::new(GRACE).retry_between(Duration::from_secs(1), Duration::from_secs(5)));
        stop_handle.stop();
    });
    server.serve(4, |request| {
        answer(&jobs, &policy, request)
            .inspect_err(|error| output::log(format_args!("a request got no answer: {error}")))
    })?;
    Ok(())
}

fn answer(jobs: &Jobs, policy: &OriginPolicy, mut request: Request) -> io::Result<()> {
    if let Err(refused) = sse::check_origin(&request, policy) {
        return refuse(request, refused.status(), &refused.to_string());
    }
    let url = request.url().to_owned();
    let (path, query) = url.split_once('?').unwrap_or((&url, ""));
    match (request.method(), path) {
        (Method::Get | Method::Head, "/" | "/events") => match asked_job(&fields(query.as_bytes())) {
            Ok(job) if path == "/events" => subscribe(&jobs.publisher, job, request),
            Ok(_) => request.respond(text(200, "text/html; charset=utf-8", include_str!("page.html"))),
            Err(reason) => refuse(request, 400, &reason),
        },
        (Method::Post, "/jobs") => {
            let form = match sse::read_body(&mut request, MAX_FORM) {
                Ok(form) => form,
                Err(error) => return refuse(request, error.status(), &error.to_string()),
            };
            let name = match name(&fields(&form)) {
                Ok(name) => name,
                Err(reason) => return refuse(request, 400, &reason),
            };
            match jobs.start(&name) {
                Some(job) => request.respond(text(201, "application/json", &json!({ "job": job }).to_string())),
                None => refuse(request, 503, &format!("{MAX_WAITING} jobs are waiting already: try again later")),
            }
        }
        (_, "/" | "/events" | "/jobs") => {
            let allow = Header::from_bytes("Allow", if path == "/jobs" { "POST" } else { "GET, HEAD" });
            let response = text(405, "text/plain; charset=utf-8", "GET / and /events, POST /jobs\n");
            request.respond(response.with_header(allow.expect("two plain texts")))
        }
        _ => refuse(request, 404, "there are /, /events and /jobs"),
    }
}

/// Responds with a stream. A page that reconnects sends its last event ID and gets what it missed; a new page gets all
/// retained events.
fn subscribe(publisher: &Publisher, job: Option<u64>, request: Request) -> io::Result<()> {
    let channel = job.map_or(ALL_JOBS.into(), channel_of);
    match publisher.subscription(()).channels(&channel).last_event_id_from(&request).replay_last(KEPT).open() {
        Ok(subscription) => subscription.respond(request),
        Err(_full) => publisher.respond_busy(request, Duration::from_secs(5)),
    }
}

fn fields(form: &[u8]) -> HashMap<String, String> {
    form_urlencoded::parse(form).into_owned().collect()
}

fn asked_job(fields: &HashMap<String, String>) -> Result<Option<u64>, String> {
    let job = fields.get("job").map(|job| job.parse().map_err(|_| format!("job={job} is not a job's number")));
    job.transpose()
}

fn name(fields: &HashMap<String, String>) -> Result<String, String> {
    let name = fields.get("name").map(|name| name.trim()).unwrap_or("");
    match name.chars().count() {
        1..=MAX_NAME => Ok(name.to_owned()),
        0 => Err("the field `name` is missing".into()),
        length => Err(format!("the name has {length} characters: at most {MAX_NAME} are allowed")),
    }
}

fn text(status: u16, content_type: &str, text: &str) -> Response<io::Cursor<Vec<u8>>> {
    let content_type = Header::from_bytes("Content-Type", content_type).expect("two plain texts");
    Response::from_string(text).with_status_code(status).with_header(content_type)
}

fn refuse(request: Request, status: u16, reason: &str) -> io::Result<()> {
    request.respond(text(status, "text/plain; charset=utf-8", &format!("{reason}\n")))
}
