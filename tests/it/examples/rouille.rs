//! The example rouille: the page, its streams, and its threads.

#[cfg(target_os = "linux")]
use crate::common::eventually;
use crate::common::example::Example;
use crate::common::http::{Client, Events};

#[test]
fn the_example_shows_each_visit_to_every_viewer() {
    let visits = Example::start("rouille");
    let page = || ureq::get(&visits.url).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(page().contains("<!doctype html>"));
    let mut viewers = [(); 2].map(|()| Events::get(&format!("{}/visits", visits.url)));
    for viewer in &mut viewers {
        viewer.gets(":\n");
        viewer.gets_event("data: 1 visits so far\n\n");
    }
    page();
    for viewer in &mut viewers {
        viewer.gets_event("data: visit number 2\n\n");
    }
}

/// Counted in a process of its own: rouille's threads have no names.
#[cfg(target_os = "linux")]
#[test]
fn clients_that_leave_and_streams_that_close_give_back_their_threads() {
    let visits = Example::start("rouille");
    let count = |what| std::fs::read_dir(format!("/proc/{}/{what}", visits.process.id())).unwrap().count();
    let connect = || {
        let mut client = visits.connect();
        client.send("GET /visits HTTP/1.1\r\nHost: x\r\n\r\n");
        client.reads_until(":\n");
        client
    };
    let before = (count("task"), count("fd"));
    let clients: Vec<Client> = (0..50).map(|_| connect()).collect();
    // Some of the threads that wait for connections exist already.
    assert!(count("task") >= before.0 + 90, "two for each: {}", count("task"));
    for (n, client) in clients.into_iter().enumerate() {
        if n % 2 == 0 { client.resets() } else { drop(client) }
    }
    // Each visit is an event, and a failed write of an event detects that a client has gone.
    let mut visitor = visits.connect();
    eventually("the connections are closed", || {
        visitor.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        visitor.reads_until("</html>\n");
        count("fd") <= before.1 + 2
    });
    // The server's own threads wait five seconds for connections; some of them stay forever.
    eventually("the threads have ended", || count("task") <= before.0 + 4);
}
