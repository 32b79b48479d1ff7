//! A process of the soak: it reads commands and prints answers, a line each.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Child {
    name: &'static str,
    process: std::process::Child,
    commands: ChildStdin,
    lines: Receiver<String>,
}

impl Child {
    pub fn start(name: &'static str, arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = command.arg(name).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let commands = process.stdin.take().expect("BUG: it is piped");
        let output = BufReader::new(process.stdout.take().expect("BUG: it is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { name, process, commands, lines })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    pub fn send(&mut self, command: &str) -> io::Result<()> {
        writeln!(self.commands, "{command}")
    }

    /// Waits for a line that begins with this word. Returns the rest of it.
    pub fn wait_for(&self, word: &str) -> Result<String, Box<dyn Error>> {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.map_err(|error| format!("the {} printed no {word:?}: {error}", self.name))?;
            match line.strip_prefix(word) {
                Some(rest) => return Ok(rest.trim().to_owned()),
                None => println!("{}: {line}", self.name),
            }
        }
    }

    /// Returns the lines that have been printed meanwhile. Fails if the process has ended.
    pub fn lines(&mut self) -> Result<Vec<String>, Box<dyn Error>> {
        let lines: Vec<String> = self.lines.try_iter().collect();
        match self.process.try_wait()? {
            Some(status) => {
                lines.iter().for_each(|line| println!("{}: {line}", self.name));
                Err(format!("the {} has ended: {status}", self.name).into())
            }
            None => Ok(lines),
        }
    }

    pub fn stop(&self) -> io::Result<()> {
        Ok(rustix::process::kill_process(self.pid(), Signal::STOP)?)
    }

    pub fn resume(&self) -> io::Result<()> {
        Ok(rustix::process::kill_process(self.pid(), Signal::CONT)?)
    }

    /// Sets how many descriptors it may have. Returns the limit before.
    pub fn limit_descriptors(&self, descriptors: Option<u64>) -> io::Result<Option<u64>> {
        // The limit that cannot be raised is that of this process.
        let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: descriptors, maximum };
        Ok(rustix::process::prlimit(Some(self.pid()), Resource::Nofile, limit)?.current)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Lets a panic of any thread end the process.
pub fn exit_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::exit(101);
    }));
}

/// Calls the closure with each command, until the process that sends them ends or the closure returns `false`.
pub fn obey(mut obey: impl FnMut(&str, u64) -> bool) {
    for line in io::stdin().lines().map_while(Result::ok) {
        let (command, value) = line.split_once(' ').unwrap_or((&line, "0"));
        if !obey(command, value.parse().expect("BUG: the value is a number")) {
            break;
        }
    }
}
