//! The ways from a hub to Redis: encrypted, with a password, by a Sentinel.

use std::path::Path;
use std::process::Command;

use real_parts::common::free_address;

use super::*;

/// Creates a certificate for this machine, and its private key. Returns their files.
fn certificate(folder: &Path, name: &str) -> [String; 2] {
    let files = ["pem", "key"].map(|suffix| folder.join(format!("{name}.{suffix}")).to_str().unwrap().to_owned());
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1"]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE", "-out", &files[0], "-keyout", &files[1]]);
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    files
}

#[test]
fn hubs_reach_redis_with_tls_a_password_and_a_certificate_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let ([server, server_key], [client, client_key]) =
        (certificate(folder.path(), "server"), certificate(folder.path(), "client"));
    let port = free_address().port();
    // Redis asks for a certificate of the client, and trusts only that one.
    let files = ["--tls-cert-file", &server, "--tls-key-file", &server_key, "--tls-ca-cert-file", &client];
    let redis = Redis::start(&[&["--requirepass", "secret", "--tls-port", &port.to_string()][..], &files].concat());
    let url = format!("rediss://:secret@127.0.0.1:{port}");
    let hub = |url: &str, options: &[&str]| {
        let mut hub = stopped(url);
        hub.arguments.extend(options.iter().map(Into::into));
        hub.start();
        hub
    };
    let all = ["--redis-ca", &server, "--redis-cert", &client, "--redis-key", &client_key];
    let hubs = [hub(&url, &all), hub(&url, &all)];
    hubs.iter().for_each(Hub::is_healthy);
    let mut resuming = Client::after(&store(&hubs[1], "/a", "first"));
    store(&hubs[0], "/a", "second");
    resuming.reads_until(&hubs[1].at("/a"), "second");
    let connections = redis.cli(&["CLIENT", "LIST"]);
    let by_tls = format!("laddr=127.0.0.1:{port} ");
    assert_eq!(connections.matches(&by_tls).count(), 4, "a writer and a reader each: {connections}");

    let wrong_authority = ["--redis-ca", &client, "--redis-cert", &client, "--redis-key", &client_key];
    for (url, options, reason) in [
        (&*url, &wrong_authority[..], "certificate"),
        (&url, &all[..2], "alert"),
        (&url.replace("secret", "wrong"), &all, "assword"),
    ] {
        let hub = hub(url, options);
        eventually(reason, || {
            let (status, text) = hub.get("/healthz");
            assert_eq!(status, 503);
            text.contains(reason)
        });
    }
}

#[test]
fn hubs_find_the_primary_by_a_sentinel_and_follow_a_failover() {
    let mut primary = Redis::start(&["--requirepass", "secret", "--masterauth", "secret"]);
    let replica = Redis::start(&["--requirepass", "secret", "--masterauth", "secret"]);
    replica.cli(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
    eventually("the replica follows", || replica.cli(&["INFO", "replication"]).contains("master_link_status:up"));
    let sentinel = Redis::sentinel_of(&primary);
    eventually("it knows the replica", || sentinel.cli(&["SENTINEL", "REPLICAS", "primary"]).contains("slave"));
    let hubs = [(); 2].map(|()| {
        let mut hub = stopped("redis://:secret@primary");
        // The first one does not answer.
        hub.arguments.extend(["--sentinel", "redis://127.0.0.1:1", "--sentinel", &sentinel.url()].map(Into::into));
        hub.start();
        hub
    });
    hubs.iter().for_each(Hub::is_healthy);
    let mut live = watch(&hubs[1], "/a");
    store(&hubs[0], "/a", "before");
    gets(&mut live, "before");
    let newest = |server: &Redis| server.cli(&["XREVRANGE", "events", "+", "-", "COUNT", "1"]);
    eventually("the replica has everything", || newest(&replica) == newest(&primary));
    primary.kill();
    for hub in &hubs {
        eventually("posts are stored again", || matches!(post(&agent(), &hub.at("/b"), "x"), Answer::Stored(_)));
    }
    store(&hubs[1], "/a", "after");
    gets(&mut live, "after");
}
