//! An example that cannot write its output goes on.

use std::path::{Path, PathBuf};
#[cfg(target_os = "linux")]
use std::{fs::File, net::TcpStream, process::Command};

#[cfg(target_os = "linux")]
use super::get;
#[cfg(target_os = "linux")]
use crate::common::{
    eventually,
    example::{broken_pipe, built_examples},
    free_address,
    http::Client,
};

/// `println!` and similar macros panic if the output has no reader or the disk is full, and that ends the handler's
/// thread.
#[test]
fn examples_use_no_macro_that_panics_when_output_fails() {
    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
        let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
        let rust = files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
        rust.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
    }
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"));
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        for (number, line) in code {
            for name in ["print!", "println!", "eprint!", "eprintln!", "dbg!"] {
                assert!(!line.contains(name), "{}:{}: {name}", file.display(), number + 1);
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn examples_serve_whatever_becomes_of_their_output() {
    let hub = cfg!(all(feature = "server", feature = "client")).then_some("hub");
    let on_event_server = cfg!(feature = "server").then_some("visits_event_server").into_iter().chain(hub);
    let on_rouille = cfg!(feature = "rouille").then_some("rouille");
    let names = ["visits", "chat", "progress"].into_iter().chain(on_event_server).chain(on_rouille);
    for name in names {
        // Nothing can read the address on which it listens.
        let address = free_address();
        let mut command = Command::new(built_examples().join(name));
        command.arg(address.to_string()).stderr(broken_pipe()).stdout(File::create("/dev/full").unwrap());
        let mut process = command.spawn().unwrap();
        eventually("it listens", || {
            assert!(process.try_wait().unwrap().is_none(), "{name} has ended");
            TcpStream::connect(address).is_ok()
        });
        // More of each than there are handler threads.
        for path in ["/publish", "/jobs"].repeat(5) {
            for text in ["Transfer-Encoding: chunked\r\n\r\nzz", "Content-Length: 5000\r\n\r\nnot all of it"] {
                let mut client = Client::connect(address);
                client.send(&format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{text}"));
                client.shuts_down_writing();
                client.reads_all_there_is();
            }
        }
        assert_eq!(get(&format!("http://{address}/")).0, 200, "{name}");
        process.kill().unwrap();
        process.wait().unwrap();
    }
}
