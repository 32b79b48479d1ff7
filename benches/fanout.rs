//! Measures what a delivery costs: `cargo bench --features server --bench fanout`.
//!
//! Starts each server as a process of its own, opens streams to it on loopback, publishes, and prints tables. The
//! columns: `write_to` with a thread per stream; `write_in_background` with a few threads for all streams; `server`,
//! the same behind an `EventServer`, whose sockets are non-blocking; and the physical limit, one thread in a loop that
//! only writes the same bytes to one socket after the other.
//!
//! Processor time is what the operating system counts for the server process. The clients share the processors, so the
//! latencies are those of a machine that runs both ends. The benchmark ends by itself, in less than 3 minutes.
//!
//! `cargo bench --features server --bench fanout -- --against PROGRAM` measures this version and another build of the
//! benchmark in turn, and prints the ratios. `--only MODE` limits it to one row, or to `publish`.

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    // Two descriptors per stream, one in each process.
    let descriptors = rlimit::increase_nofile_limit(20_000)?;
    assert!(descriptors > 6_000, "5,000 streams need more than {descriptors} open files: raise `ulimit -Hn`");
    let arguments: Vec<String> = std::env::args().collect();
    let value_of = |name| arguments.iter().position(|argument| argument == name).map(|at| &*arguments[at + 1]);
    match (value_of("--server"), value_of("--against")) {
        (Some(mode), _) => server::run(mode),
        (None, Some(baseline)) => bench::against(baseline, value_of("--only")),
        (None, None) => bench::run(),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this benchmark reads the accounting of Linux");
}

/// What both processes share.
#[cfg(target_os = "linux")]
mod shared {
    use std::time::{SystemTime, UNIX_EPOCH};

    /// The bytes of an event's data.
    pub const DATA: usize = 200;
    /// The bytes of its frame.
    pub const FRAME: usize = DATA + "data: \n\n".len();

    /// Returns nanoseconds on a clock that both processes share.
    pub fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos() as u64
    }

    /// Returns an event's data: the time at which it was published, and padding.
    pub fn data() -> String {
        format!("{:020}{}", now(), "x".repeat(DATA - 20))
    }
}

/// Runs the measured process, which reads one command per line from standard input and prints one response per line.
#[cfg(target_os = "linux")]
mod server {
    use std::io::{self, BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::{Duration, Instant};

    use rustix::time::{ClockId, clock_gettime};
    use server_sent_events::server::EventServer;
    use server_sent_events::{Event, Publisher};

    use crate::shared::data;

    const HEAD: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n";

    /// What delivers the events.
    #[derive(Clone)]
    enum Delivery {
        Published(Publisher),
        Loop(Arc<Mutex<Vec<TcpStream>>>),
    }

    impl Delivery {
        fn publish(&self) {
            match self {
                Self::Published(publisher) => drop(publisher.publish(data()).subscribers()),
                Self::Loop(sockets) => {
                    let frame = Event::new(data()).encode();
                    sockets.lock().unwrap().retain_mut(|socket| socket.write_all(frame.as_bytes()).is_ok());
                }
            }
        }

        fn streams(&self) -> usize {
            match self {
                Self::Published(publisher) => publisher.stats().subscribers,
                Self::Loop(sockets) => sockets.lock().unwrap().len(),
            }
        }
    }

    pub fn run(mode: &str) -> io::Result<()> {
        if mode == "publish" {
            return publish_costs();
        }
        let delivery = match mode {
            "loop" => Delivery::Loop(Arc::default()),
            _ => Delivery::Published(Publisher::builder().max_subscribers(20_000).build().unwrap()),
        };
        match mode {
            "tiny_http" => serve_tiny_http(&delivery)?,
            "server" => serve_event_server(&delivery)?,
            _ => serve(mode, &delivery)?,
        }
        commands(&delivery)
    }

    /// Runs a minimal server of event streams.
    fn serve(mode: &str, delivery: &Delivery) -> io::Result<()> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        // Small, so that a client that does not read is disconnected within seconds, not minutes.
        socket.set_send_buffer_size(64 * 1024)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        socket.listen(4096)?;
        let listener: TcpListener = socket.into();
        println!("{}", listener.local_addr()?);
        let (mode, delivery) = (mode.to_owned(), delivery.clone());
        thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                // The client sends its request in one piece.
                let _ = socket.read(&mut [0; 1024]).unwrap();
                socket.write_all(HEAD).unwrap();
                match &delivery {
                    Delivery::Loop(sockets) => sockets.lock().unwrap().push(socket),
                    Delivery::Published(publisher) => {
                        let subscription = publisher.subscribe().unwrap();
                        if mode == "write_in_background" {
                            subscription.write_in_background(socket).unwrap();
                        } else {
                            let thread = thread::Builder::new().stack_size(128 * 1024);
                            thread.spawn(move || subscription.write_to(socket)).unwrap();
                        }
                    }
                }
            }
        });
        Ok(())
    }

    fn serve_tiny_http(delivery: &Delivery) -> io::Result<()> {
        let Delivery::Published(publisher) = delivery.clone() else { unreachable!("the loop has its own server") };
        let server = server_sent_events::adapter::tiny_http::Server::bind("127.0.0.1:0")?;
        println!("{}", server.local_addr()?);
        thread::spawn(move || {
            for request in server.incoming_requests() {
                publisher.subscribe().unwrap().respond(request).unwrap();
            }
        });
        Ok(())
    }

    fn serve_event_server(delivery: &Delivery) -> io::Result<()> {
        let Delivery::Published(publisher) = delivery.clone() else { unreachable!("the loop has its own server") };
        let server = EventServer::builder().send_buffer_size(64 * 1024).max_body(64 * 1024).bind("127.0.0.1:0")?;
        println!("{}", server.local_addr());
        thread::spawn(move || server.serve(move |_| publisher.subscribe()).unwrap());
        Ok(())
    }

    fn commands(delivery: &Delivery) -> io::Result<()> {
        for line in BufReader::new(io::stdin()).lines() {
            let line = line?;
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                // Publishes this many events, evenly, from a thread of its own.
                ["paced", count, nanoseconds] => {
                    let (count, pause) = (count.parse::<u32>().unwrap(), nanoseconds.parse().unwrap());
                    let delivery = delivery.clone();
                    thread::spawn(move || {
                        let start = Instant::now();
                        for n in 0..count {
                            let due = start + Duration::from_nanos(pause) * n;
                            thread::sleep(due.saturating_duration_since(Instant::now()));
                            delivery.publish();
                        }
                    });
                }
                // Publishes this many events at once.
                ["burst", count] => {
                    for _ in 0..count.parse::<u32>().unwrap() {
                        delivery.publish();
                    }
                }
                ["report"] => println!("{}", report(delivery.streams())),
                _ => panic!("no command: {line}"),
            }
        }
        Ok(())
    }

    /// Streams, processor time in ns, resident memory in bytes, all threads, and writer threads.
    fn report(streams: usize) -> String {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let resident = statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096;
        let tasks: Vec<String> = std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .collect();
        let ours = tasks.iter().filter(|name| name.starts_with("sse ")).count();
        format!("{streams} {cpu} {resident} {} {ours}", tasks.len())
    }

    /// Measures what one call of `publish` costs, in nanoseconds, while the writer threads write to nowhere.
    fn publish_costs() -> io::Result<()> {
        for handed_over in [false, true] {
            for subscribers in [1, 100, 1_000, 10_000] {
                let publisher = Publisher::new();
                let mut held = Vec::new();
                for _ in 0..subscribers {
                    let subscription = publisher.subscribe().unwrap();
                    if handed_over {
                        subscription.write_in_background(io::sink())?;
                    } else {
                        held.push(subscription);
                    }
                }
                let calls = (200_000 / subscribers).clamp(50, 500);
                let mut costs = Vec::new();
                for _ in 0..calls {
                    let event = Event::new("x".repeat(crate::shared::DATA));
                    let start = Instant::now();
                    publisher.publish(event);
                    costs.push(start.elapsed().as_nanos() as u64);
                    if handed_over {
                        // A program also does something else between two events.
                        thread::sleep(Duration::from_micros(200 + subscribers as u64));
                    }
                    for subscription in &mut held {
                        let _ = subscription.try_recv();
                    }
                }
                costs.sort_unstable();
                println!("{handed_over} {subscribers} {}", costs[costs.len() / 2]);
            }
        }
        Ok(())
    }
}

/// The measuring process.
#[cfg(target_os = "linux")]
mod bench {
    use std::io::{self, BufRead, BufReader, Read, Write};
    use std::net::SocketAddr;
    use std::path::Path;
    use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::time::{Duration, Instant};

    use mio::net::TcpStream;
    use mio::{Events, Interest, Poll, Token};

    use crate::shared::{FRAME, now};

    /// How long events are published at a steady pace.
    const PACED: Duration = Duration::from_secs(2);
    /// How long events are published as fast as they are read.
    const SATURATED: Duration = Duration::from_secs(1);
    /// The maximum number of frames on their way to one client while saturated. It is below the queue's limit, and two
    /// million for all clients together, which the slowest way of delivery must finish too.
    fn under_way(streams: usize) -> u64 {
        (2_000_000 / streams as u64).min(1_000)
    }

    struct Server {
        process: Child,
        commands: ChildStdin,
        answers: BufReader<ChildStdout>,
    }

    #[derive(Clone, Copy)]
    struct Report {
        streams: u64,
        cpu: u64,
        resident: u64,
        threads: u64,
        writers: u64,
    }

    impl Server {
        fn start(mode: &str) -> io::Result<Self> {
            Self::start_program(&std::env::current_exe()?, mode)
        }

        fn start_program(program: &Path, mode: &str) -> io::Result<Self> {
            let mut process =
                Command::new(program).args(["--server", mode]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let commands = process.stdin.take().expect("piped");
            let answers = BufReader::new(process.stdout.take().expect("piped"));
            Ok(Self { process, commands, answers })
        }

        fn answer(&mut self) -> io::Result<String> {
            let mut line = String::new();
            self.answers.read_line(&mut line)?;
            Ok(line.trim().to_owned())
        }

        fn report(&mut self) -> io::Result<Report> {
            writeln!(self.commands, "report")?;
            let line = self.answer()?;
            let mut numbers = line.split(' ').map(|number| number.parse().expect("a number"));
            let mut next = || numbers.next().expect("five numbers");
            Ok(Report { streams: next(), cpu: next(), resident: next(), threads: next(), writers: next() })
        }

        fn paced(&mut self, rate: u64, time: Duration) -> io::Result<u64> {
            let count = rate * time.as_millis() as u64 / 1_000;
            writeln!(self.commands, "paced {count} {}", 1_000_000_000 / rate)?;
            Ok(count)
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    /// The reading ends of many streams.
    struct Clients {
        poll: Poll,
        clients: Vec<Client>,
        buffer: Vec<u8>,
    }

    struct Client {
        socket: TcpStream,
        /// The bytes of the body so far.
        bytes: u64,
        /// The beginning of an incomplete frame.
        partial: Vec<u8>,
    }

    impl Clients {
        /// Opens streams and reads their response headers. `first` is what follows each.
        ///
        /// The requests are HTTP/1.0, so that there are no chunks to decode.
        fn connect(address: SocketAddr, streams: usize, first: &str) -> io::Result<Self> {
            Self::connect_with(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", address, streams, first)
        }

        fn connect_with(request: &[u8], address: SocketAddr, streams: usize, first: &str) -> io::Result<Self> {
            let poll = Poll::new()?;
            let mut clients = Vec::with_capacity(streams);
            for _ in 0..streams {
                let mut socket = std::net::TcpStream::connect(address)?;
                socket.write_all(request)?;
                clients.push(socket);
            }
            let clients = clients.into_iter().enumerate().map(|(n, mut socket)| {
                let mut head = Vec::new();
                while !head.ends_with(format!("\r\n\r\n{first}").as_bytes()) {
                    let mut byte = [0];
                    socket.read_exact(&mut byte)?;
                    head.push(byte[0]);
                }
                socket.set_nonblocking(true)?;
                // An older version ends the comment with a blank line.
                if socket.peek(&mut [0]).is_ok() {
                    socket.read_exact(&mut [0])?;
                }
                let mut socket = TcpStream::from_std(socket);
                poll.registry().register(&mut socket, Token(n), Interest::READABLE)?;
                Ok(Client { socket, bytes: 0, partial: Vec::new() })
            });
            let clients = clients.collect::<io::Result<_>>()?;
            Ok(Self { poll, clients, buffer: vec![0; 256 * 1024] })
        }

        /// Reads for this time. `each` gets the age of every frame, in ns, if ages are wanted.
        fn read(&mut self, wait: Duration, mut each: Option<&mut dyn FnMut(u64)>) -> io::Result<()> {
            let mut events = Events::with_capacity(1024);
            self.poll.poll(&mut events, Some(wait))?;
            for event in &events {
                let client = &mut self.clients[event.token().0];
                loop {
                    match client.socket.read(&mut self.buffer) {
                        Ok(0) => return Err(io::Error::other("a stream ended while it was measured")),
                        Ok(read) => {
                            client.bytes += read as u64;
                            if let Some(each) = &mut each {
                                client.ages(&self.buffer[..read], each);
                            }
                            if read < self.buffer.len() {
                                break;
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(())
        }

        fn frames(&self) -> u64 {
            self.clients.iter().map(|client| client.bytes / FRAME as u64).sum()
        }

        fn slowest(&self) -> u64 {
            self.clients.iter().map(|client| client.bytes / FRAME as u64).min().unwrap_or(0)
        }

        /// Reads until all streams have received the same amount, so that the ages of later frames are defined.
        fn catch_up(&mut self) -> io::Result<()> {
            while self.frames() != self.slowest() * self.clients.len() as u64 {
                self.read(Duration::from_millis(10), None)?;
            }
            for client in &mut self.clients {
                client.partial.clear();
            }
            Ok(())
        }
    }

    impl Client {
        fn ages(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(u64)) {
            let now = now();
            let mut age = |frame: &[u8]| {
                let published = std::str::from_utf8(&frame[6..26]).ok().and_then(|digits| digits.parse().ok());
                each(now.saturating_sub(published.expect("a frame begins with its time")));
            };
            if !self.partial.is_empty() {
                let missing = (FRAME - self.partial.len()).min(bytes.len());
                self.partial.extend_from_slice(&bytes[..missing]);
                bytes = &bytes[missing..];
                if self.partial.len() < FRAME {
                    return;
                }
                age(&self.partial);
                self.partial.clear();
            }
            let whole = bytes.chunks_exact(FRAME);
            self.partial.extend_from_slice(whole.remainder());
            for frame in whole {
                age(frame);
            }
        }
    }

    /// The results of one way of delivery with this many streams.
    struct Row {
        streams: usize,
        mode: &'static str,
        /// Microseconds of processor time per delivery.
        paced_cpu: f64,
        saturated_cpu: f64,
        /// Milliseconds.
        latency: Latency,
        saturated: f64,
        threads: u64,
        /// KiB of resident memory per stream: before its first event, and after it.
        idle_memory: f64,
        memory: f64,
    }

    #[derive(Clone, Copy)]
    struct Latency {
        p50: f64,
        p99: f64,
        max: f64,
    }

    impl Latency {
        fn of(mut ages: Vec<u64>) -> Self {
            ages.sort_unstable();
            let at = |part: f64| ages[((ages.len() - 1) as f64 * part) as usize] as f64 / 1e6;
            Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
        }
    }

    fn progress(what: &str) {
        eprintln!("... {what}");
    }

    /// Returns the events per second at a steady pace. The deliveries are about equal whatever the number of streams.
    fn rate(streams: usize) -> u64 {
        match streams {
            1 => 1_000,
            100 => 500,
            1_000 => 100,
            _ => 10,
        }
    }

    /// Publishes at a steady pace and reads it all. Returns the server's processor time per delivery in us, and the
    /// ages.
    fn paced(server: &mut Server, clients: &mut Clients, rate: u64, time: Duration) -> io::Result<(f64, Latency)> {
        let (cpu, frames) = (server.report()?.cpu, clients.frames());
        let count = server.paced(rate, time)?;
        let expected = count * clients.clients.len() as u64;
        let mut ages = Vec::with_capacity(expected as usize);
        // Thousands of threads may be far behind on a busy machine.
        let deadline = Instant::now() + time * 20;
        while clients.frames() < frames + expected {
            if Instant::now() > deadline {
                return Err(io::Error::other("the server is too slow for this machine"));
            }
            clients.read(Duration::from_millis(100), Some(&mut |age| ages.push(age)))?;
        }
        Ok(((server.report()?.cpu - cpu) as f64 / expected as f64 / 1e3, Latency::of(ages)))
    }

    /// Fails after this point in time, so that the benchmark ends by itself.
    fn before_this_time(deadline: Instant) -> io::Result<bool> {
        if Instant::now() < deadline {
            Ok(true)
        } else {
            Err(io::Error::other("the server is too slow for this machine"))
        }
    }

    /// Publishes as fast as the slowest client reads. Returns deliveries per second, and processor time per delivery in
    /// us.
    fn saturated(server: &mut Server, clients: &mut Clients, time: Duration) -> io::Result<(f64, f64)> {
        let (cpu, frames, already) = (server.report()?.cpu, clients.frames(), clients.slowest());
        let (start, burst) = (Instant::now(), under_way(clients.clients.len()) / 2);
        let mut published = 0;
        loop {
            let over = start.elapsed() >= time;
            before_this_time(start + time * 60)?;
            let read = clients.slowest() - already;
            if over && read == published {
                break;
            }
            if !over && published - read <= burst {
                writeln!(server.commands, "burst {burst}")?;
                published += burst;
            }
            clients.read(Duration::from_millis(100), None)?;
        }
        let delivered = (clients.frames() - frames) as f64;
        let rate = delivered / start.elapsed().as_secs_f64();
        Ok((rate, (server.report()?.cpu - cpu) as f64 / delivered / 1e3))
    }

    fn first(mode: &str) -> &'static str {
        if mode == "server" { ":\n" } else { "" }
    }

    /// Measures how long this many streams, opened at once, take to get their response headers, and the KiB per stream
    /// after its first event.
    fn burst(streams: usize) -> io::Result<(Duration, f64)> {
        progress(&format!("{streams} streams at once, server"));
        let mut server = Server::start("server")?;
        let address = server.answer()?.parse().expect("an address");
        let before = server.report()?;
        let start = Instant::now();
        let mut clients = Clients::connect(address, streams, first("server"))?;
        let opened = start.elapsed();
        writeln!(server.commands, "burst 1")?;
        while clients.frames() < streams as u64 {
            clients.read(Duration::from_millis(10), None)?;
        }
        let after = server.report()?;
        Ok((opened, (after.resident - before.resident) as f64 / streams as f64 / 1024.0))
    }

    /// A server with this many streams, and its figures before it had any.
    fn set_up(mode: &str, streams: usize) -> io::Result<(Server, Clients, Report)> {
        set_up_program(&std::env::current_exe()?, mode, streams)
    }

    fn set_up_program(program: &Path, mode: &str, streams: usize) -> io::Result<(Server, Clients, Report)> {
        let mut server = Server::start_program(program, mode)?;
        let address = server.answer()?.parse().expect("an address");
        let before = server.report()?;
        let clients = Clients::connect(address, streams, first(mode))?;
        while server.report()?.streams < streams as u64 {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok((server, clients, before))
    }

    /// Returns the processor time per delivery as a multiple of what the physical limit takes: the lower quartile, the
    /// median and the upper quartile. Each pair is measured back to back, since the speed of a machine drifts from
    /// minute to minute.
    fn relative_to_the_loop(mode: &str, streams: usize) -> io::Result<[f64; 3]> {
        progress(&format!("{streams} streams, {mode} and loop in turn"));
        let (mut server, mut clients, _) = set_up(mode, streams)?;
        let (mut limit, mut limits_clients, _) = set_up("loop", streams)?;
        let mut ratios = Vec::new();
        for _ in 0..PAIRS {
            let time = Duration::from_millis(500);
            let (ours, _) = paced(&mut server, &mut clients, rate(streams), time)?;
            let theirs = paced(&mut limit, &mut limits_clients, rate(streams), time)?.0;
            ratios.push(ours / theirs);
        }
        ratios.sort_by(f64::total_cmp);
        Ok([PAIRS / 4, PAIRS / 2, PAIRS - 1 - PAIRS / 4].map(|n| ratios[n]))
    }

    /// Returns the median of the ratios, and the interval that contains the true one with a probability of 95 %: of 21
    /// independent pairs, it lies between the 6th and the 16th.
    fn interval(mut ratios: Vec<f64>) -> String {
        assert_eq!(ratios.len(), PAIRS);
        ratios.sort_by(f64::total_cmp);
        format!("{:.3} ({:.3} to {:.3})", ratios[PAIRS / 2], ratios[5], ratios[15])
    }

    const PAIRS: usize = 21;

    /// Measures this version and another in turn, and prints the ratios.
    pub fn against(baseline: &str, only: Option<&str>) -> io::Result<()> {
        let (own, baseline) = (std::env::current_exe()?, Path::new(baseline));
        println!("| streams | delivery | CPU each, paced | CPU each, saturated | saturated | KiB per stream |");
        println!("|---:|---|---:|---:|---:|---:|");
        for (mode, streams) in [
            ("write_to", 1_000),
            ("write_in_background", 1_000),
            ("write_in_background", 5_000),
            ("server", 1_000),
            ("server", 5_000),
        ] {
            if only.is_some_and(|only| only != mode) {
                continue;
            }
            progress(&format!("{streams} streams, {mode}, both in turn"));
            let mut sides = [set_up_program(&own, mode, streams)?, set_up_program(baseline, mode, streams)?];
            let (mut cpu, mut busy, mut rates) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..PAIRS {
                let mut pair = [(0.0, 0.0, 0.0); 2];
                for ((server, clients, _), figures) in sides.iter_mut().zip(&mut pair) {
                    let (paced, _) = paced(server, clients, rate(streams), Duration::from_millis(500))?;
                    let (rate, saturated) = saturated(server, clients, Duration::from_millis(500))?;
                    clients.catch_up()?;
                    *figures = (paced, saturated, rate);
                }
                let [own, other] = pair;
                cpu.push(own.0 / other.0);
                busy.push(own.1 / other.1);
                rates.push(own.2 / other.2);
            }
            let memory = sides.each_mut().map(|(server, _, before)| {
                server.report().map(|now| now.resident.saturating_sub(before.resident) as f64 / streams as f64 / 1024.0)
            });
            let [own_memory, other_memory] = memory;
            println!(
                "| {streams} | {mode} | {} | {} | {} | {:.2} / {:.2} |",
                interval(cpu),
                interval(busy),
                interval(rates),
                own_memory?,
                other_memory?,
            );
        }
        if only.is_some_and(|only| only != "publish") {
            return Ok(());
        }
        println!("\n| subscribers | written in the background | publish |\n|---:|---|---:|");
        let mut ratios = vec![Vec::new(); 8];
        let mut names = Vec::new();
        for pair in 0..PAIRS {
            progress(&format!("publish, pair {} of {PAIRS}", pair + 1));
            // One after the other: each uses all processors.
            let costs = |program| -> io::Result<Vec<String>> {
                let mut server = Server::start_program(program, "publish")?;
                (0..8).map(|_| server.answer()).collect()
            };
            let (own, other) = (costs(&own)?, costs(baseline)?);
            let cost = |line: &str| line.split(' ').nth(2).expect("a number").parse::<f64>().expect("a number");
            for ((ratios, own), other) in ratios.iter_mut().zip(&own).zip(&other) {
                ratios.push(cost(own) / cost(other));
            }
            names = own;
        }
        for (line, ratios) in names.iter().zip(ratios) {
            let words: Vec<&str> = line.split(' ').collect();
            println!("| {} | {} | {} |", words[1], words[0], interval(ratios));
        }
        Ok(())
    }

    fn measure(mode: &'static str, streams: usize) -> io::Result<Row> {
        progress(&format!("{streams} streams, {mode}"));
        let (mut server, mut clients, before) = set_up(mode, streams)?;
        let idle = server.report()?;
        let (paced_cpu, latency) = paced(&mut server, &mut clients, rate(streams), PACED)?;
        let after = server.report()?;
        let (saturated, saturated_cpu) = saturated(&mut server, &mut clients, SATURATED)?;
        let memory =
            |report: Report| (report.resident.saturating_sub(before.resident)) as f64 / streams as f64 / 1024.0;
        Ok(Row {
            streams,
            mode,
            paced_cpu,
            saturated_cpu,
            latency,
            saturated,
            threads: after.threads,
            idle_memory: memory(idle),
            memory: memory(after),
        })
    }

    /// Measures 5,000 streams of the tiny_http adapter: their memory, and the number of this crate's threads.
    fn tiny_http() -> io::Result<(f64, Report)> {
        const STREAMS: usize = 5_000;
        progress("5,000 streams of the tiny_http adapter");
        let mut server = Server::start("tiny_http")?;
        let address = server.answer()?.parse().expect("an address");
        let before = server.report()?;
        // Their connections stay open after the stream, so tiny_http has a thread for each.
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let _clients = Clients::connect_with(request, address, STREAMS, "00000002\r\n:\n\r\n")?;
        let after = server.report()?;
        Ok(((after.resident - before.resident) as f64 / STREAMS as f64 / 1024.0, after))
    }

    /// Opens a stream, and takes no more of it than the kernel buffers.
    fn never_reads(address: SocketAddr) -> io::Result<std::net::TcpStream> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_recv_buffer_size(4096)?;
        socket.connect(&address.into())?;
        let mut socket: std::net::TcpStream = socket.into();
        socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        Ok(socket)
    }

    /// Publishes 20 events and reads for 50 ms.
    fn burst_20(server: &mut Server, clients: &mut Clients) -> io::Result<()> {
        writeln!(server.commands, "burst 20")?;
        let pause = Instant::now() + Duration::from_millis(50);
        while Instant::now() < pause {
            clients.read(Duration::from_millis(10), None)?;
        }
        Ok(())
    }

    /// Measures the latencies of 500 streams of an `EventServer`, and of 500 streams of another one among hostile
    /// clients: 1,000 that send request headers slowly and never finish, 1,000 whose bodies never end, 1,000 that never
    /// read, and 5,000 that reset their connection.
    ///
    /// Both are measured in turn, for the reason given at `relative_to_the_loop`, and the pair with the median ratio of
    /// the p99 latencies counts. Each run is shorter than the 10 s that request headers or a body may take.
    fn among_hostile() -> io::Result<[Latency; 2]> {
        const PAIRS: usize = 7;
        const RATE: u64 = 100;
        const TIME: Duration = Duration::from_millis(600);
        const SLOW_BODY: &str = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\nG";
        let (mut quiet, mut quiet_clients, _) = set_up("server", 500)?;
        let mut server = Server::start("server")?;
        let address = server.answer()?.parse().expect("an address");
        let mut clients = Clients::connect(address, 500, first("server"))?;
        progress("500 streams of a server and 1,000 that never read, until these are full");
        let _black_holes = (0..1_000).map(|_| never_reads(address)).collect::<io::Result<Vec<_>>>()?;
        while server.report()?.streams < 1_500 {
            std::thread::sleep(Duration::from_millis(1));
        }
        for _ in 0..20 {
            burst_20(&mut server, &mut clients)?;
        }
        clients.catch_up()?;
        progress(
            "500 streams of a server among slow heads and bodies, resets, and those that never read, and 500 of a quiet one in turn",
        );
        let over = AtomicBool::new(false);
        let mut pairs = std::thread::scope(|threads| {
            threads.spawn(|| slow_clients(address, "GET", &over));
            threads.spawn(|| slow_clients(address, SLOW_BODY, &over));
            let pairs = (0..PAIRS).map(|_| {
                let without = paced(&mut quiet, &mut quiet_clients, RATE, TIME)?.1;
                let resets = threads.spawn(|| resets(address, 5_000 / PAIRS as u32, TIME));
                let among = paced(&mut server, &mut clients, RATE, TIME)?.1;
                resets.join().expect("connections");
                Ok([without, among])
            });
            let pairs = pairs.collect::<io::Result<Vec<_>>>();
            over.store(true, SeqCst);
            pairs
        })?;
        pairs.sort_by(|[a, b], [c, d]| (b.p99 / a.p99).total_cmp(&(d.p99 / c.p99)));
        Ok(pairs[PAIRS / 2])
    }

    /// Starts 1,000 clients, each of which sends this beginning and then one more byte every half second.
    fn slow_clients(address: SocketAddr, start: &str, over: &AtomicBool) {
        let mut clients: Vec<_> =
            (0..1_000).map(|_| std::net::TcpStream::connect(address).expect("a connection")).collect();
        for client in &mut clients {
            client.write_all(start.as_bytes()).expect("a connection");
        }
        while !over.load(SeqCst) {
            // It fails once the server has closed the connection.
            for client in &mut clients {
                let _ = client.write(b"G");
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Starts this many clients, one after the other within this time, that reset their connection right after the
    /// request headers or in the middle of them.
    fn resets(address: SocketAddr, clients: u32, time: Duration) {
        let start = Instant::now();
        for n in 0..clients {
            let mut client = std::net::TcpStream::connect(address).expect("a connection");
            let head: &[u8] = if n % 2 == 0 { b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" } else { b"GET" };
            let _ = client.write(head);
            let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
            drop(client);
            std::thread::sleep((start + time / clients * (n + 1)).saturating_duration_since(Instant::now()));
        }
    }

    /// The latencies, and what they belong to.
    type Stalled = Vec<(&'static str, Latency)>;

    /// Measures the p99 latency of 900 streams without and with 100 others that never read: while those are blocked,
    /// and after they were disconnected.
    fn stalled() -> io::Result<(Stalled, Report, Report)> {
        const RATE: u64 = 100;
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut server = Server::start("write_in_background")?;
        let address = server.answer()?.parse().expect("an address");
        let mut clients = Clients::connect(address, 900, "")?;
        progress("900 streams");
        let mut rows = vec![("900 streams", paced(&mut server, &mut clients, RATE, PACED)?.1)];

        let before = server.report()?;
        let stalled = (0..100).map(|_| never_reads(address)).collect::<io::Result<Vec<_>>>()?;
        while server.report()?.streams < 1_000 {
            std::thread::sleep(Duration::from_millis(1));
        }
        progress("900 streams and 100 that never read, until these are full");
        while server.report()?.writers < 100 && before_this_time(deadline)? {
            burst_20(&mut server, &mut clients)?;
        }
        clients.catch_up()?;
        progress("900 streams and 100 that hang");
        rows.push(("and 100 that hang", paced(&mut server, &mut clients, RATE, PACED)?.1));
        progress("900 streams and 100 that are ended");
        while server.report()?.streams > 900 && before_this_time(deadline)? {
            burst_20(&mut server, &mut clients)?;
        }
        rows.push(("when those are ended", paced(&mut server, &mut clients, RATE, PACED)?.1));
        drop(stalled);
        Ok((rows, before, server.report()?))
    }

    pub fn run() -> io::Result<()> {
        let start = Instant::now();
        // Stays open during all other measurements: 1,000 streams that receive no event.
        let mut idle = Server::start("write_in_background")?;
        let idle_address = idle.answer()?.parse().expect("an address");
        let _idle_clients = Clients::connect(idle_address, 1_000, "")?;
        let idle_start = (Instant::now(), idle.report()?.cpu);

        let mut rows = Vec::new();
        for streams in [1, 100, 1_000, 5_000] {
            for mode in ["write_to", "write_in_background", "server", "loop"] {
                rows.push(measure(mode, streams)?);
            }
        }
        let relative_to_the_loop =
            [("write_in_background", 1_000, 1.3), ("server", 1_000, 1.15), ("server", 5_000, 1.15)]
                .map(|(mode, streams, wanted)| (mode, streams, wanted, relative_to_the_loop(mode, streams)));
        let (stalled, before_stalled, after_stalled) = stalled()?;
        let [quiet, among_hostile] = among_hostile()?;
        let (tiny_http_memory, tiny_http) = tiny_http()?;
        // As many as the limit on open files allows.
        let descriptors = rlimit::increase_nofile_limit(20_000)? as usize;
        let most = (descriptors.saturating_sub(1_500) / 1_000 * 1_000).min(18_000);
        let bursts = [10_000.min(most), most].map(|streams| burst(streams).map(|burst| (streams, burst)));
        progress("publish");
        let mut publish = Server::start("publish")?;
        let publish: Vec<(String, u64, u64)> = (0..8)
            .map(|_| {
                let line = publish.answer()?;
                let words: Vec<&str> = line.split(' ').collect();
                let number = |n: usize| words[n].parse().expect("a number");
                Ok((words[0].to_owned(), number(1), number(2)))
            })
            .collect::<io::Result<_>>()?;
        let idle_cpu = idle.report()?.cpu - idle_start.1;
        let idle_time = idle_start.0.elapsed();

        println!(
            "\nEvents of {FRAME} bytes. `loop` is the physical limit: one thread that writes to one socket after the other.\n"
        );
        println!(
            "| streams | delivery | events/s | CPU each | p50 | p99 | max | saturated | CPU each | threads | a stream |"
        );
        println!("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
        for row in &rows {
            println!(
                "| {} | {} | {} | {:.1} us | {:.1} ms | {:.1} ms | {:.1} ms | {:.0} k/s | {:.2} us | {} | {:.1} KiB |",
                row.streams,
                row.mode,
                rate(row.streams),
                row.paced_cpu,
                row.latency.p50,
                row.latency.p99,
                row.latency.max,
                row.saturated / 1e3,
                row.saturated_cpu,
                row.threads,
                row.memory,
            );
        }
        println!("\n| subscribers | publish, iterators | each | publish, in the background | each |");
        println!("|---:|---:|---:|---:|---:|");
        for ((_, subscribers, iterators), (_, _, handed_over)) in publish[..4].iter().zip(&publish[4..]) {
            println!(
                "| {subscribers} | {:.1} us | {} ns | {:.1} us | {} ns |",
                *iterators as f64 / 1e3,
                iterators / subscribers,
                *handed_over as f64 / 1e3,
                handed_over / subscribers,
            );
        }
        println!("\n| 100 events/s to | p50 | p99 | max |");
        println!("|---|---:|---:|---:|");
        let servers = [("500 streams of a server", quiet), ("and 8,000 hostile clients", among_hostile)];
        for (what, latency) in stalled.iter().chain(&servers) {
            println!("| {what} | {:.1} ms | {:.1} ms | {:.1} ms |", latency.p50, latency.p99, latency.max);
        }

        let row = |mode: &str, streams: usize| {
            rows.iter().find(|row| row.mode == mode && row.streams == streams).expect("it was measured")
        };
        let (threads, writers) = (row("write_to", 1_000), row("write_in_background", 1_000));
        println!("\nRatios in this run, and what they should be:\n");
        println!(
            "* 1,000 streams, CPU per delivery, write_in_background / write_to: {:.2} (0.6)",
            writers.paced_cpu / threads.paced_cpu
        );
        println!(
            "* 1,000 streams, p99, write_in_background / write_to: {:.2} (0.3)",
            writers.latency.p99 / threads.latency.p99
        );
        let ratio = row("write_in_background", 100).saturated / row("write_to", 100).saturated;
        println!("* 100 streams, saturated, write_in_background / write_to: {ratio:.1} (2)");
        println!(
            "* 5,000 streams of the tiny_http adapter: {:.1} KiB each (24), {} of this crate's threads (8), {} of tiny_http's",
            tiny_http_memory,
            tiny_http.writers,
            tiny_http.threads - tiny_http.writers,
        );
        println!(
            "* 5,000 streams in the background: {:.1} KiB each before their first event",
            row("write_in_background", 5_000).idle_memory
        );
        for (mode, streams, wanted, ratios) in relative_to_the_loop {
            let [low, middle, high] = ratios?;
            println!(
                "* {streams} streams, CPU per delivery, {mode} / loop: {middle:.2} ({wanted}), quartiles {low:.2} and {high:.2}"
            );
        }
        for burst in bursts {
            let (streams, (opened, memory)) = burst?;
            println!(
                "* {streams} streams of a server, opened at once: all response headers after {:.1} s (10,000: 10), {memory:.1} KiB each after an event (3)",
                opened.as_secs_f64()
            );
        }
        println!(
            "* p99 of 500 streams of a server among 8,000 hostile clients / without them: {:.2} (1.5)",
            among_hostile.p99 / quiet.p99
        );
        println!("* publish to 1,000 in the background: {} ns each (250)", publish[6].2 / 1_000);
        println!(
            "* p99 of 900 while 100 others are blocked / without them: {:.2} (1.5)",
            stalled[1].1.p99 / stalled[0].1.p99
        );
        println!(
            "* after those have ended: {} of this crate's threads, {:.1} MiB resident, before they came {:.1} MiB",
            after_stalled.writers,
            after_stalled.resident as f64 / 1024.0 / 1024.0,
            before_stalled.resident as f64 / 1024.0 / 1024.0,
        );
        let idle_share = idle_cpu as f64 / idle_time.as_nanos() as f64 * 100.0;
        println!(
            "* 1,000 silent streams, heartbeat 15 s, for {:.0} s: {idle_share:.2} % of a core (0.5)",
            idle_time.as_secs_f64()
        );
        println!("\nThat took {:.0} s.", start.elapsed().as_secs_f64());
        Ok(())
    }
}
