//! A server in a process of its own, and what that process costs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Something that serves streams and takes posts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    EventServer,
    TinyHttp,
    Hub,
    Go,
    Nchan,
    Axum,
    BetterSse,
    SseStarlette,
    /// The limit: it is no server that one would use.
    WriteLoop,
}

impl Peer {
    pub const ALL: [Self; 9] = [
        Self::EventServer,
        Self::Hub,
        Self::TinyHttp,
        Self::Go,
        Self::Nchan,
        Self::Axum,
        Self::BetterSse,
        Self::SseStarlette,
        Self::WriteLoop,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::EventServer => "this crate, EventServer",
            Self::Hub => "this crate, hub (with a history)",
            Self::TinyHttp => "this crate, tiny_http",
            Self::Go => "Go net/http",
            Self::Nchan => "nginx with Nchan",
            Self::Axum => "axum",
            Self::BetterSse => "Node better-sse",
            Self::SseStarlette => "Python sse-starlette",
            Self::WriteLoop => "a plain write loop",
        }
    }

    pub fn is_own(self) -> bool {
        matches!(self, Self::EventServer | Self::Hub | Self::TinyHttp)
    }

    /// Returns the argument by which this program serves as this peer.
    pub fn argument(self) -> Option<&'static str> {
        match self {
            Self::EventServer => Some("event-server"),
            Self::TinyHttp => Some("tiny-http"),
            Self::Axum => Some("axum"),
            Self::WriteLoop => Some("write-loop"),
            _ => None,
        }
    }

    fn command(self, port: u16) -> io::Result<Command> {
        let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers");
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/real_parts").canonicalize();
        let mut command = match self {
            Self::Hub => {
                let mut command =
                    Command::new(std::env::var_os("HUB").ok_or_else(|| io::Error::other("HUB is not set"))?);
                command.arg(format!("127.0.0.1:{port}")).args(["--max-streams", "19000"]);
                return Ok(command);
            }
            Self::Go => Command::new(folder()?.join("go_server")),
            Self::Nchan => {
                let folder = folder()?;
                let text = fs::read_to_string(servers.join("nchan.conf"))?;
                let text = text.replace("FOLDER", &folder.to_string_lossy()).replace("PORT", &port.to_string());
                fs::write(folder.join("nchan.conf"), text)?;
                let mut command = Command::new("nginx");
                command.arg("-c").arg(folder.join("nchan.conf"));
                return Ok(command);
            }
            Self::BetterSse => {
                // A program finds its packages beside itself.
                let program = installed?.join("better_sse.mjs");
                fs::copy(servers.join("better_sse.mjs"), &program)?;
                let mut command = Command::new("node");
                command.arg(program);
                command
            }
            Self::SseStarlette => {
                let mut command = Command::new(installed?.join("venv/bin/python"));
                command.arg(servers.join("sse_starlette_server.py"));
                command
            }
            Self::EventServer | Self::TinyHttp | Self::Axum | Self::WriteLoop => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(self.argument());
                command
            }
        };
        command.arg(port.to_string());
        Ok(command)
    }
}

/// The folder for what a run builds and writes, which the script `run` makes.
fn folder() -> io::Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers").canonicalize()
}

/// The process of a server. Dropping it ends the process and its children.
pub struct Running {
    process: Child,
    pub address: SocketAddr,
}

impl Running {
    /// Starts the server, and waits until it accepts connections.
    pub fn start(peer: Peer) -> io::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let process = peer.command(port)?.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut running = Self { process, address };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = running.process.try_wait()? {
                return Err(io::Error::other(format!("it ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("it accepts no connection"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }

    /// Returns the processor time of the process and its children, in seconds. The kernel gives it to 10 ms.
    pub fn cpu(&self) -> io::Result<f64> {
        const TICKS_PER_SECOND: f64 = 100.0;
        let mut ticks = 0.0;
        for id in self.processes()? {
            let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
            // The second field is the name in parentheses. The user's and the kernel's time are fields 14 and 15.
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
            ticks += fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>();
        }
        Ok(ticks / TICKS_PER_SECOND)
    }

    /// Returns the resident memory of the process and its children in KiB. Shared pages count once.
    pub fn memory(&self) -> io::Result<f64> {
        let mut memory = 0.0;
        for id in self.processes()? {
            let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
            let share = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or("");
            memory += share.trim().trim_end_matches(" kB").parse::<f64>().map_err(io::Error::other)?;
        }
        Ok(memory)
    }

    fn processes(&self) -> io::Result<BTreeSet<u32>> {
        let mut processes = BTreeSet::from([self.process.id()]);
        let mut found = vec![self.process.id()];
        while let Some(id) = found.pop() {
            for task in fs::read_dir(format!("/proc/{id}/task"))? {
                // A thread may end meanwhile.
                let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
                for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
                    if processes.insert(child) {
                        found.push(child);
                    }
                }
            }
        }
        Ok(processes)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let processes = self.processes().unwrap_or_default();
        for id in processes {
            let _ = rustix::process::Pid::from_raw(id.cast_signed())
                .map(|id| rustix::process::kill_process(id, rustix::process::Signal::KILL));
        }
        let _ = self.process.wait();
    }
}
