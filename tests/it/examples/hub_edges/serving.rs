//! What an edge serves, and what it refuses.

use super::*;

#[test]
fn an_edge_serves_the_events_of_its_origin_with_their_ids() {
    let _watchdog = watchdog("an edge serves");
    let folder = Folder::new("edge_serves");
    for origin in [Hub::in_memory(), Hub::with_file(&folder)] {
        let before = origin.post("/builds", "before the edge");
        let edge = Hub::edge(&origin, &["builds", "a, b", "news"]);
        let mut watcher = edge.watch("/news,a%2C%20b");
        let mut ids = vec![before];
        for (path, data) in [("/builds", "one"), ("/builds,news", "both"), ("/other", "x"), ("/a%2C%20b,other", "odd")]
        {
            let id = origin.post(path, data);
            ids.extend((path != "/other").then_some(id));
        }
        assert_eq!(post(&origin.at("/news?event=done&retry=1500"), "two\nlines").0, 204);
        watcher.gets("data: both\n\n");
        watcher.gets("data: odd\n\n");
        watcher.gets("event: done\nretry: 1500\ndata: two\ndata: lines\n\n");
        origin.post("/builds,a%2C%20b,news", "last");
        watcher.gets("data: last\n\n");
        for path in ["/builds", "/news", "/a%2C%20b", "/news,builds", "/a%2C%20b,builds,news"] {
            assert_eq!(edge.events(path, "last"), origin.events(path, "last"), "{path}");
        }
        let events = edge.events("/a%2C%20b,builds,news", "last");
        assert!(events.iter().map(|(id, _)| id).take(4).eq(&ids), "{events:?} {ids:?}");
        let data: Vec<&str> = events.iter().map(|(_, data)| &**data).collect();
        assert_eq!(data, ["before the edge", "one", "both", "odd", "lines", "last"]);
    }
}

#[test]
fn an_edge_refuses_other_channels_and_posts_and_names_the_place_for_them() {
    let _watchdog = watchdog("an edge refuses");
    let origin = Hub::in_memory();
    let edge = Hub::edge(&origin, &["builds", "a b"]);
    let refused = "this edge does not follow the channel other, but builds, a b\n";
    for path in ["/other", "/builds,other", "/other?follow"] {
        assert_eq!(edge.get(path), (404, refused.into()), "{path}");
    }
    assert_eq!(edge.get("/stats,").0, 400);
    let text = format!("this hub is an edge, which only serves GET: publish to {}/a%20b\n", origin.url);
    for response in [agent().post(edge.at("/a%20b")).send("x"), agent().put(edge.at("/a%20b")).send("x")] {
        let response = response.unwrap();
        assert_eq!(response.headers()["allow"], "GET, HEAD");
        assert_eq!(answer(Ok(response)), (405, text.clone()));
    }
    let (status, page) = edge.get("/");
    assert!(status == 200 && page.contains("data-publishing=\"elsewhere\"") && page.contains(&origin.url), "{page}");
    assert!(page.contains("<input id=\"channels\" value=\"builds,a b\""), "{page}");
    edge.has_figure("sse_store_connected 1");
    edge.has_figure("sse_store_connections_lost_total 0");
    assert!(!origin.get("/stats").1.contains("sse_store_"));
}

#[test]
fn names_of_channels_and_the_origins_url_are_text_on_the_page_of_an_edge() {
    let origin = Hub::in_memory();
    let edge = Hub::edge(&origin, &["\"><script>alert(1)</script>"]);
    let page = edge.get("/").1;
    assert!(page.contains("value=\"&quot;>&lt;script>alert(1)&lt;/script>\"") && !page.contains("<script>alert"));
}

#[test]
fn a_follower_needs_no_publish_token() {
    let _watchdog = watchdog("an origin with a token");
    let origin = Hub::new(["--publish-token", "secret"]);
    let edge = Hub::edge(&origin, &["builds"]);
    let mut watcher = edge.watch("/builds");
    assert_eq!(post(&origin.at("/builds"), "x").0, 401);
    let authorized = agent().post(origin.at("/builds")).header("Authorization", "Bearer secret").send("published");
    assert_eq!(answer(authorized).0, 204);
    watcher.gets("data: published\n\n");
}

#[test]
fn the_stream_for_an_edge_is_an_event_stream_for_every_other_client() {
    let origin = Hub::in_memory();
    let id = origin.post("/builds", "one");
    let mut client = Client::new();
    client.reads_until(&origin.at("/builds?follow"), "one");
    assert_eq!(client.events(), [(id, "one".to_owned())]);
}

#[test]
fn invalid_values_of_upstream_are_named_with_exit_code_2() {
    let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
    let many: Vec<&str> = ["http://h"].into_iter().chain(many.iter().map(|name| &**name)).collect();
    let long = "x".repeat(257);
    for (values, reason) in [
        (&["http://h"][..], "2 values required"),
        (&["http://h", "stats"], "no channel can have the name `stats`"),
        (&["http://h", "healthz", "a"], "no channel can have the name `healthz`"),
        (&["http://h", "a", "b", "a"], "the channel \"a\" is named twice"),
        (&["http://h", ""], "a channel's name is empty"),
        (&["http://h", &long], "a channel's name is 257 bytes long: at most 256 are allowed"),
        (&many, "65 channels are named: at most 64 are allowed"),
        (&["localhost:5000", "a"], "invalid URL \"localhost:5000\": expected that of a hub, such as http://"),
        (&["ftp://h", "a"], "invalid URL"),
        (&["http://", "a"], "invalid URL"),
        (&["http://h:port", "a"], "invalid URL"),
        (&["http://h/?x", "a"], "invalid URL"),
        (&["http://h#x", "a"], "invalid URL"),
        (&["http://user:secret@h", "a"], "invalid URL"),
        (&["builds", "http://h"], "invalid URL"),
        (&["http://h", "a", "0.0.0.0:80"], "0.0.0.0:80 counts as a channel: the address to listen on comes before"),
        (&["http://h", "a", "--history", "file"], "cannot be used with"),
        (&["https://h", "a", "--upstream-ca", "/missing"], "--upstream-ca: cannot read /missing: No such file"),
    ] {
        let mut hub = Command::new("timeout");
        let output = hub.arg("20").arg(built_examples().join("hub")).arg("--upstream").args(values).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{values:?}: {error}");
        assert!(error.contains(reason) && error.contains("--help"), "{values:?}: {error}");
    }
}
