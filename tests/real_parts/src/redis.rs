//! Redis, as a process with a folder of its own.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::common::{eventually, free_address};

/// A Redis server. Ends when it is dropped.
pub struct Redis {
    pub port: u16,
    arguments: Vec<String>,
    password: Option<String>,
    folder: TempDir,
    process: Option<Child>,
}

impl Redis {
    /// Starts a server with these arguments on a free port. It keeps nothing on the disk, unless they say so.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        let folder = Self::folder_of_its_own();
        let port = free_address().port();
        let password = arguments.iter().skip_while(|&&argument| argument != "--requirepass").nth(1);
        let password = password.map(|&password| password.to_owned());
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut redis = Self { port, arguments, password, folder, process: None };
        redis.run();
        redis
    }

    /// Starts a server that writes each command to the disk before it answers.
    #[track_caller]
    pub fn durable() -> Self {
        Self::start(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Starts a Sentinel that promotes a replica of this primary, named `primary`, as soon as it does not answer.
    #[track_caller]
    pub fn sentinel_of(primary: &Self) -> Self {
        let port = free_address().port();
        let folder = Self::folder_of_its_own();
        let file = folder.path().join("sentinel.conf");
        let watched = format!("sentinel monitor primary 127.0.0.1 {} 1\n", primary.port);
        let patience = "sentinel down-after-milliseconds primary 300\nsentinel failover-timeout primary 5000\n";
        let password = primary.password.as_ref().map(|password| format!("sentinel auth-pass primary {password}\n"));
        fs::write(&file, watched + patience + &password.unwrap_or_default()).unwrap();
        let arguments = vec![file.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
        let mut redis = Self { port, arguments, password: None, folder, process: None };
        redis.run();
        redis
    }

    fn folder_of_its_own() -> TempDir {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/real_parts");
        fs::create_dir_all(&target).unwrap();
        tempfile::Builder::new().prefix("redis").tempdir_in(target).unwrap()
    }

    /// Starts the server again.
    #[track_caller]
    pub fn run(&mut self) {
        let mut command = Command::new("redis-server");
        // A Sentinel's file comes first.
        command.args(self.arguments.iter().filter(|argument| argument.ends_with(".conf")));
        command.arg("--port").arg(self.port.to_string()).args(["--bind", "127.0.0.1", "--save", ""]);
        command.arg("--dir").arg(self.folder.path());
        command.args(self.arguments.iter().filter(|argument| !argument.ends_with(".conf")));
        let process = command.stdout(Stdio::null()).spawn();
        self.process = Some(process.unwrap_or_else(|error| panic!("redis-server: {error}: tests/run installs it")));
        eventually("Redis answers", || self.try_cli(&["PING"]).is_ok_and(|reply| reply == "PONG"));
    }

    /// Kills the server, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // A stopped process takes the signal too.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Sends a signal to the server, such as `STOP`.
    #[track_caller]
    pub fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("it runs");
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(process.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Runs a command, and returns its reply.
    #[track_caller]
    pub fn cli(&self, command: &[&str]) -> String {
        self.try_cli(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    fn try_cli(&self, command: &[&str]) -> Result<String, String> {
        let mut cli = Command::new("redis-cli");
        cli.envs(self.password.iter().map(|password| ("REDISCLI_AUTH", password)));
        let Output { status, stdout, stderr } =
            cli.arg("-p").arg(self.port.to_string()).args(command).output().map_err(|error| error.to_string())?;
        let reply = String::from_utf8_lossy(&stdout).trim_end().to_owned();
        if status.success() { Ok(reply) } else { Err(format!("{reply}{}", String::from_utf8_lossy(&stderr))) }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A way to a server that can be broken.
#[derive(Clone)]
pub struct Link {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    server: Option<SocketAddr>,
    is_down: bool,
    /// Each connection is cut after this many bytes in each direction.
    cut_after: Option<usize>,
    /// Nothing passes, and nothing is cut.
    is_held: bool,
    /// What passes is late by this time.
    delay: Duration,
    connections: Vec<TcpStream>,
}

impl Link {
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        link.leads_to(server);
        let accepting = link.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                // The connection usually ends with an error: this link exists for that.
                let _ = client.and_then(|client| accepting.connects(client));
            }
        });
        link
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes new connections lead to this server.
    pub fn leads_to(&self, server: SocketAddr) {
        self.state().server = Some(server);
    }

    /// Cuts all connections, and refuses new ones.
    pub fn goes_down(&self) {
        self.state().is_down = true;
        self.cuts();
    }

    pub fn comes_up(&self) {
        self.state().is_down = false;
    }

    /// Cuts all connections.
    pub fn cuts(&self) {
        for connection in self.state().connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Cuts each new connection after this many bytes in one direction.
    pub fn cuts_after(&self, bytes: Option<usize>) {
        self.state().cut_after = bytes;
    }

    /// Lets nothing pass, without cutting anything.
    pub fn holds(&self, holds: bool) {
        self.state().is_held = holds;
    }

    /// Makes each part that passes late by this time.
    pub fn delays(&self, delay: Duration) {
        self.state().delay = delay;
    }

    fn connects(&self, client: TcpStream) -> io::Result<()> {
        let mut state = self.state();
        if state.is_down {
            return Ok(());
        }
        let server = TcpStream::connect(state.server.expect("it leads somewhere"))?;
        // Otherwise the end of each reply waits for an acknowledgement.
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        state.connections.extend([client.try_clone()?, server.try_clone()?]);
        let left = state.cut_after;
        drop(state);
        for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
            let link = self.clone();
            thread::spawn(move || {
                let _ = link.passes(&from, &to, left);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }

    fn passes(&self, mut from: &TcpStream, mut to: &TcpStream, mut left: Option<usize>) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let most = left.unwrap_or(buffer.len()).min(buffer.len());
            let read = from.read(&mut buffer[..most])?;
            let delay = self.state().delay;
            thread::sleep(delay);
            while self.state().is_held {
                thread::sleep(Duration::from_millis(5));
            }
            to.write_all(&buffer[..read])?;
            left = left.map(|left| left - read);
            if read == 0 {
                return Ok(());
            }
        }
    }
}
