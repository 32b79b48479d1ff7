//! The program can add headers to its streams.

use super::servers::{Site, Start};

promises! {
    [tiny_http rouille] {
        headers_of_the_program_are_added_or_replace_ours,
    }
}

fn headers_of_the_program_are_added_or_replace_ours(start: Start) {
    let server = start(Site::new().header("X-One", "1").header("cache-control", "no-store"));
    let head = server.get("/").reads_head();
    for (name, value) in [("X-One", "1"), ("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")] {
        assert_eq!(head.values(name), [value], "{name}");
    }
}
