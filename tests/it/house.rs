//! The layering of the sources: which module may use which, and which files may name another crate.

use std::fs;
use std::path::{Path, PathBuf};

/// The folders and files right below `src`, in an order in which each uses earlier ones only. So there is no cycle.
const ORDER: &[&str] = &[
    "error",
    "channels",
    "spread",
    "sync",
    "clock",
    "log",
    "follow",
    "event",
    "stats",
    "store",
    "history",
    "http",
    "origin",
    "sockets",
    "queue",
    "registry",
    "deliver",
    "subscription",
    "publish",
    "client",
    "server",
    "adapter",
    "test_util",
];

/// What only some files may name: the types of another crate, and locks.
const ONLY_IN: &[(&[&str], &[&str])] = &[
    (
        &["tiny_http::"],
        &[
            "adapter/tiny_http.rs",
            "adapter/tiny_http/builder.rs",
            "adapter/tiny_http/lazy_writer.rs",
            "adapter/tiny_http/refusal.rs",
            "adapter/tiny_http/request.rs",
            "adapter/tiny_http/server.rs",
        ],
    ),
    (&["rouille::"], &["adapter/rouille.rs", "adapter/mod.rs"]),
    (&["socket2"], &["sockets.rs", "adapter/nudge.rs", "adapter/tiny_http/builder.rs", "server/"]),
    (&["openssl::"], &["adapter/nudge.rs"]),
    (&["rusqlite", "crc32fast"], &["store/sqlite/"]),
    (&["redis::cmd", "redis::pipe", "RedisError"], &["store/redis.rs", "store/redis/"]),
    (&["rustls::"], &["store/redis/tls.rs"]),
    (&["mio::"], &["server.rs", "server/", "client/transport.rs"]),
    (&["httparse"], &["server.rs", "server/"]),
    (&["ureq::"], &["client/connection.rs", "client/redirect.rs", "client/transport.rs"]),
    // The order of events depends on one lock, the registry's; each other lock guards a queue, a stream, threads or
    // counts.
    (
        &["Mutex", "RwLock", "parking_lot"],
        &[
            "adapter/nudge.rs",
            "sync.rs",
            "sync/",
            "queue/queue.rs",
            "queue/readiness.rs",
            "registry/mod.rs",
            "registry/replay.rs",
            "deliver/pool.rs",
            "deliver/slow.rs",
            "deliver/stream.rs",
            "store/fake.rs",
            "store/pipeline.rs",
            "store/redis/window.rs",
            "store/upstream.rs",
            "store/sqlite/upkeep.rs",
            "client/patience.rs",
            "client/stop.rs",
            "client/upstream.rs",
            "server/handlers.rs",
            "test_util/stalled.rs",
            "server/quota.rs",
            "adapter/tiny_http/refusal.rs",
        ],
    ),
];

/// What the models replace. The modules that they explore take it from `crate::sync`.
const REPLACED: (&[&str], &[&str]) = (
    &["parking_lot", "crossbeam_channel", "std::sync::atomic", "use std::thread"],
    &["queue/", "registry/", "deliver/", "publish/open.rs"],
);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let ours = entries.filter(|path| !path.ends_with("target") && !path.ends_with(".git"));
    ours.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn source(file: &str) -> String {
    fs::read_to_string(root().join("src").join(file)).unwrap()
}

/// Returns the lines of code: without comments, and without the tests at the end.
fn code(file: &str) -> String {
    let source = source(file);
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Returns the folder or file right below `src` that contains a file.
fn module(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

#[test]
fn no_module_uses_a_later_one() {
    let src = root().join("src");
    let sources = files(&src);
    for path in &sources {
        let file = path.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
        if file == "lib.rs" || module(&file) == "models" || file.ends_with("/tests.rs") || file.contains("/tests/") {
            continue;
        }
        let position = |module: &str| ORDER.iter().position(|own| *own == module);
        let own = position(module(&file)).unwrap_or_else(|| panic!("{file} has no place in the order"));
        let code = code(&file);
        for used in code.split("crate::").skip(1) {
            let used = used.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap();
            let used_position =
                position(used).unwrap_or_else(|| panic!("{file} uses `crate::{used}`: name its module"));
            assert!(used_position <= own, "{file} uses {used}");
        }
        for (names, only_in) in ONLY_IN {
            let may =
                only_in.iter().any(|place| if place.ends_with('/') { file.starts_with(place) } else { file == *place });
            for name in *names {
                assert!(may || !code.contains(name), "{file} names {name}");
            }
        }
    }
    for name in ORDER {
        let exists = sources.iter().any(|path| path.strip_prefix(&src).unwrap().to_str().unwrap().starts_with(name));
        assert!(exists, "there is no {name}");
    }
}

/// A lock, an atomic or a channel that a model does not replace would hide the orders of its steps.
#[test]
fn what_the_models_explore_uses_only_what_they_replace() {
    let src = root().join("src");
    let (names, explored) = REPLACED;
    for path in files(&src) {
        let file = path.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
        if !explored.iter().any(|place| file.starts_with(place)) || file.ends_with("/tests.rs") {
            continue;
        }
        for name in names {
            assert!(!code(&file).contains(name), "{file} names {name}");
        }
    }
}

/// Documents become outdated where they name a missing file.
#[test]
fn every_file_that_is_named_is_there() {
    for document in files(root()).into_iter().filter(|path| {
        let path = path.strip_prefix(root()).unwrap();
        let known = ["src", "tests", "examples"].iter().any(|folder| path.starts_with(folder));
        known || path.extension().is_some_and(|extension| extension == "md")
    }) {
        let Ok(text) = fs::read_to_string(&document) else { continue };
        for word in text.split(|c: char| c.is_whitespace() || "`\"'()[]<>,;:#".contains(c)) {
            let named = word.trim_end_matches('.');
            let is_path =
                ["src/", "tests/", "examples/", "benches/", "docs/"].iter().any(|folder| named.starts_with(folder));
            if is_path && named.contains('.') && !named.contains('*') {
                assert!(root().join(named).exists(), "{} names {named}", document.display());
            }
        }
    }
}

/// A document's link leads to an existing file, and to a heading where it names one.
#[test]
fn every_link_of_a_document_leads_somewhere() {
    for document in files(root()).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md"))
    {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            assert!(target.exists(), "{} links to {link}", document.display());
            if heading.is_empty() {
                continue;
            }
            // As GitHub generates them.
            let anchor = |title: &str| title.trim().to_lowercase().replace(' ', "-").replace(['?', ',', '`'], "");
            let text = fs::read_to_string(target).unwrap();
            let mut titles = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
            assert!(titles.any(|title| anchor(title) == heading), "{} links to {link}", document.display());
        }
    }
}

/// People copy the tests of the cookbook, which run here.
#[test]
fn the_cookbook_shows_the_tests_that_run() {
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let (document, file) = (read("docs/cookbook.md"), read("tests/cookbook.rs"));
    assert!(document.contains(&format!("```rust,test\n{file}```\n")), "docs/cookbook.md shows other tests");
}

/// People copy the configuration that the tests run.
#[test]
fn the_documents_show_the_lines_for_proxies_that_are_tested() {
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let document = read("docs/deployment.md");
    for (language, file) in
        [("nginx", "examples/nginx.conf"), ("haproxy", "examples/haproxy.cfg"), ("caddy", "examples/Caddyfile")]
    {
        let blocks: Vec<&str> = document.split(&format!("```{language}\n")).skip(1).collect();
        let blocks = blocks.iter().map(|rest| rest.split("```").next().unwrap().trim());
        assert_eq!(blocks.collect::<Vec<_>>(), [read(file).trim()], "{file}");
    }
}
