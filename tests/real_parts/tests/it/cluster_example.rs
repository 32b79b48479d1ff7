//! The example cluster: a page behind nginx misses nothing while hubs are killed, and the script leaves nothing running.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{fs, iter};

use real_parts::browser::Browser;
use real_parts::common::example::built_examples;
use real_parts::common::{Watchdog, eventually};

/// The ports that the script uses.
const PORTS: u16 = 5;

struct Cluster(Child);

impl Drop for Cluster {
    fn drop(&mut self) {
        // Not `kill -9`, so that the script stops what it has started.
        if let Ok(None) = self.0.try_wait() {
            let _ = Command::new("kill").arg(self.0.id().to_string()).status();
            let _ = self.0.wait();
        }
    }
}

#[test]
fn a_page_of_the_cluster_misses_nothing_while_hubs_are_killed_and_the_script_leaves_nothing_running() {
    let hub = built_examples().join("hub");
    let _watchdog = Watchdog::new("the cluster");
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut ports = iter::repeat_with(|| fastrand::u16(10_000..32_000));
    let port = ports.find(|port| (*port..port + PORTS).all(is_free)).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut script = Command::new(root.join("examples/cluster/run"));
    script.env("CLUSTER_HUB", hub).env("CLUSTER_PORT", port.to_string());
    let mut cluster = Cluster(script.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(cluster.0.stdout.take().unwrap()).lines();
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(lines.next().unwrap().unwrap(), format!("open {url}, which must show no missing number"));

    let (_browser, tab) = Browser::with(&url);
    tab.until("document.readyState === 'complete' && counts.newest > 0");
    let log =
        |text: &str| format!("[...document.querySelectorAll('#log li')].some(row => row.innerText.endsWith({text:?}))");
    for hub in 1..=3 {
        tab.until(&log(&format!("hub {hub} is killed")));
        if hub == 1 {
            let folder = root.join("target/pictures");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("cluster.png"), tab.looks_like()).unwrap();
        }
        tab.until(&log(&format!("hub {hub} starts again")));
    }
    tab.until("counts.reconnected > 0 && document.getElementById('state').textContent === 'connected'");
    tab.does("window.before = counts.newest");
    tab.until("counts.newest > before + 20");
    let counts = tab.is("counts");
    for name in ["missing", "twice", "gaps"] {
        assert_eq!(counts[name], 0, "{counts}");
    }
    println!("{counts}");

    let kill = Command::new("kill").arg(cluster.0.id().to_string()).status().unwrap();
    assert!(kill.success() && cluster.0.wait().unwrap().success());
    eventually("nothing listens", || (port..port + PORTS).all(|port| TcpStream::connect(("127.0.0.1", port)).is_err()));
}
