//! The command line.

use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

#[cfg(feature = "redis")]
use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use server_sent_events::BuildError;
#[cfg(feature = "redis")]
use server_sent_events::store::Redis;

use crate::edge::Edge;
use crate::store::Store;

/// The events that the stream in Redis keeps at least.
#[cfg(feature = "redis")]
const MIN_STREAM_EVENTS: usize = 100_000;

const AFTER_HELP: &str = "\
Requests:
  GET /                 A page: live figures, watching channels, sending to them
  GET /CHANNEL          The event stream of a channel; /A,B is both in one stream
  POST /CHANNEL         Publishes the body (UTF-8, at most 1 MiB), with ?event=TYPE and ?retry=MS
                        if wanted. The response's headers are Event-Id, the event's ID, and
                        X-Watchers, the number of streams in its channels. 503: try again later
  GET /stats            Statistics, for Prometheus
  GET /healthz          200, or 503 if events are no longer stored, if they have not arrived yet
                        from an origin or from Redis, or if that has been away for 30 s; for
                        health checks

Examples:
  hub                                       # on http://127.0.0.1:5000, for this machine
  HUB_PUBLISH_TOKEN=secret hub 0.0.0.0:80   # for others: all can watch, only some can publish

  hub --history events.db                   # with a file for the events: a restart is no gap
  hub 0.0.0.0:80 --upstream http://10.0.0.5:5000 builds news   # an edge: carries two channels on
  hub 0.0.0.0:80 --redis redis://10.0.0.5:6379   # on several machines: they are one hub

  hub watch http://127.0.0.1:5000/builds             # in a terminal, with colors
  hub publish http://127.0.0.1:5000/builds 'all green'
  make 2>&1 | hub publish --lines http://127.0.0.1:5000/builds

  curl -N http://127.0.0.1:5000/builds
  curl -d 'all green' http://127.0.0.1:5000/builds
  curl -d 'version 2' 'http://127.0.0.1:5000/builds,news?event=release&retry=1000'
  printf 'two\\nlines' | curl --data-binary @- http://127.0.0.1:5000/builds
  curl -H 'Authorization: Bearer secret' -d 'with a token' http://127.0.0.1:5000/builds
  curl http://127.0.0.1:5000/stats
  curl http://127.0.0.1:5000/healthz

Memory:
  2 to 3 KiB per stream, and the kernel's buffers. At most 64 MiB for the events that all channels
  keep, 64 MiB for larger ones that only slow streams still need, and 16 MiB for bodies that arrive.
  Events below 16 KiB that wait for a slow stream are extra: at most 4 MiB, shared by the streams of
  a channel. A stream is disconnected if it is 1,024 events or 4 MiB behind, or if it takes nothing
  for 30 s. Its client reconnects, and gets what it missed.";

/// Channels that anything can publish to and anything can watch: server-sent events over HTTP
#[derive(Parser)]
#[command(name = "hub", version, max_term_width = 100, after_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
#[command(
    override_usage = "hub [OPTIONS] [ADDRESS]\n       hub [OPTIONS] [ADDRESS] --upstream <URL> <CHANNEL>...\n       hub <COMMAND>"
)]
pub struct Options {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The address to listen on [default: 127.0.0.1:5000]
    #[arg(value_parser = address)]
    address: Option<String>,

    /// Accepts only posts with the header `Authorization: Bearer TOKEN`. Watching needs no token, and following this hub
    /// with --upstream neither. Other users of this machine can read the command line, but not the environment
    #[arg(long, value_name = "TOKEN", env = "HUB_PUBLISH_TOKEN", hide_env_values = true)]
    pub publish_token: Option<String>,

    /// Lets pages of this origin, such as https://example.org, watch and publish. Repeatable
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    pub allowed_origins: Vec<String>,

    /// A name of the hub behind a proxy, such as events.example.org. Repeatable. A hub on the loopback
    /// refuses requests to names that it does not know
    #[arg(long = "public-host", value_name = "NAME")]
    pub public_hosts: Vec<String>,

    /// A proxy whose header X-Forwarded-For names the clients, for --max-streams-per-ip. Repeatable
    #[arg(long = "trusted-proxy", value_name = "IP")]
    pub trusted_proxies: Vec<IpAddr>,

    /// The limit of open streams. Above it, clients are made to reconnect later [default: 10000, or as many as the
    /// limit of open files allows]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_streams: Option<usize>,

    /// The limit of open streams per client address [default: no limit]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_streams_per_ip: Option<usize>,

    /// The number of events that each channel keeps for clients that reconnect
    #[arg(long, value_name = "N", default_value = "8192", value_parser = positive)]
    pub history_events: usize,

    /// Keeps the events in this file, so that a restart is no gap. A post is then answered once its event is stored
    #[cfg(feature = "sqlite")]
    #[arg(long, value_name = "FILE", group = "store")]
    history: Option<PathBuf>,

    /// Shares the events with all hubs of this Redis (7.0 or later), such as redis://10.0.0.5:6379. They are one hub: a post
    /// reaches the streams of all, and a client can resume on any. The address can hold a user and a password:
    /// redis://USER:PASSWORD@HOST:PORT. Other users of this machine can read the command line, but not the environment
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "URL", group = "store", env = "HUB_REDIS", hide_env_values = true)]
    redis: Option<String>,

    /// Asks this Sentinel, such as redis://10.0.0.6:26379, for the address of Redis. The host in --redis is then the name of
    /// the primary: redis://USER:PASSWORD@mymaster. Repeatable
    #[cfg(feature = "redis")]
    #[arg(
        long = "sentinel",
        value_name = "URL",
        requires = "redis",
        env = "HUB_SENTINELS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    sentinels: Vec<String>,

    /// The certificates that may sign that of Redis, in PEM format, for an address that begins with rediss [default: the
    /// system's]
    #[cfg(feature = "redis_tls")]
    #[arg(long, value_name = "FILE", requires = "redis")]
    redis_ca: Option<PathBuf>,

    /// The certificate by which Redis recognizes this hub, in PEM format. Redis needs it unless tls-auth-clients is no
    #[cfg(feature = "redis_tls")]
    #[arg(long, value_name = "FILE", requires_all = ["redis", "redis_key"])]
    redis_cert: Option<PathBuf>,

    /// The private key of that certificate, in PEM format
    #[cfg(feature = "redis_tls")]
    #[arg(long, value_name = "FILE", requires = "redis_cert")]
    redis_key: Option<PathBuf>,

    /// The name of the stream in Redis that has the events. It keeps 100,000 of all channels, or --history-events if
    /// that is more
    #[cfg(feature = "redis")]
    #[arg(long, value_name = "NAME", default_value = "events", requires = "redis", value_parser = NonEmptyStringValueParser::new())]
    stream: String,

    /// Makes this hub an edge: it follows these channels of the hub at this URL, its origin, and serves them with the same
    /// IDs. A client can resume on the origin and on each edge. Posts go to the origin
    #[arg(long, num_args = 2.., value_names = ["URL", "CHANNEL"], group = "store")]
    upstream: Option<Vec<String>>,

    /// The certificates that may sign that of the origin, in PEM format, for a URL that begins with https [default: those
    /// of the web's authorities]
    #[arg(long, value_name = "FILE", requires = "upstream")]
    upstream_ca: Option<PathBuf>,
}

/// What hub does instead of serving.
#[derive(Subcommand)]
pub enum Command {
    /// Prints the messages of an event stream, and reconnects
    Watch(Watch),
    /// Publishes a text, or standard input
    Publish(Publish),
}

#[derive(Args)]
pub struct Watch {
    /// The stream, such as http://127.0.0.1:5000/builds
    pub url: String,

    /// Begins after this event
    #[arg(long, value_name = "ID")]
    pub last_event_id: Option<String>,

    /// A header of the request, such as 'Authorization: Bearer TOKEN'. Repeatable
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,

    /// Prints a JSON object per message: type, data and id
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Publish {
    /// The channel, such as http://127.0.0.1:5000/builds, or several: /A,B
    pub url: String,

    /// The event's data [default: standard input]
    pub text: Option<String>,

    /// Publishes each line of standard input as an event
    #[arg(long, conflicts_with = "text")]
    pub lines: bool,

    /// The event's type
    #[arg(long, value_name = "TYPE")]
    pub event: Option<String>,

    /// The reconnection time of the watchers, in milliseconds
    #[arg(long, value_name = "MS")]
    pub retry: Option<u64>,

    /// The hub's publish token. Other users of this machine can read the command line, but not the environment
    #[arg(long, value_name = "TOKEN", env = "HUB_PUBLISH_TOKEN", hide_env_values = true)]
    pub publish_token: Option<String>,
}

impl Options {
    /// Parses the command line. Ends the program with the exit code 2 if it is invalid.
    pub fn from_command_line() -> Self {
        let options = Self::parse();
        // Not by clap: it would print the token.
        if let Some(token) = &options.publish_token
            && (token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            reject("the publish token must be visible ASCII characters without spaces, at least one");
        }
        options
    }

    /// Returns the address to listen on.
    pub fn address(&self) -> &str {
        self.address.as_deref().unwrap_or("127.0.0.1:5000")
    }

    /// Returns where the history is kept. Ends the program if the options for it are not allowed.
    pub fn store(&self) -> Store {
        #[cfg(feature = "sqlite")]
        if let Some(file) = &self.history {
            return Store::File(file.clone());
        }
        #[cfg(feature = "redis")]
        if let Some(url) = &self.redis {
            let redis = self.with_certificates(Redis::at(url).sentinels(&self.sentinels).stream(&self.stream));
            return Store::Redis(redis.max_events(self.history_events.max(MIN_STREAM_EVENTS)));
        }
        self.edge().map_or(Store::Memory, Store::Origin)
    }

    #[cfg(all(feature = "redis", not(feature = "redis_tls")))]
    fn with_certificates(&self, redis: Redis) -> Redis {
        redis
    }

    /// Returns the settings with the certificates of the options. Ends the program if a file cannot be read.
    #[cfg(feature = "redis_tls")]
    fn with_certificates(&self, mut redis: Redis) -> Redis {
        if let Some(roots) = &self.redis_ca {
            redis = redis.root_certificates(contents("--redis-ca", roots));
        }
        if let (Some(certificate), Some(key)) = (&self.redis_cert, &self.redis_key) {
            redis = redis.client_certificate(contents("--redis-cert", certificate), contents("--redis-key", key));
        }
        redis
    }

    /// Returns the origin and its channels if this is to be an edge. Ends the program if they are not allowed.
    fn edge(&self) -> Option<Edge> {
        let root_certificates = self.upstream_ca.as_deref().map(|file| contents("--upstream-ca", file));
        let edge = Edge::new(self.upstream.as_ref()?, root_certificates);
        let edge = edge.unwrap_or_else(|reason| reject(format!("--upstream: {reason}")));
        if let (None, Some(name)) = (&self.address, edge.address_among_channels()) {
            reject(format!("--upstream: {name} counts as a channel: the address to listen on comes before --upstream"));
        }
        Some(edge)
    }
}

/// Returns what is in the file that this option names. Ends the program if it cannot be read.
fn contents(option: &str, file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap_or_else(|error| reject(format!("{option}: cannot read {}: {error}", file.display())))
}

/// Ends the program with this message, a hint to `--help`, and the exit code 2.
fn reject(message: impl Display) -> ! {
    Options::command().error(ErrorKind::ValueValidation, message).exit()
}

/// Returns the text of an error of `bind`. Ends the program if an option caused it.
pub fn bind_error(address: &str, error: io::Error) -> String {
    if error.kind() == io::ErrorKind::InvalidInput {
        reject(error);
    }
    format!("cannot listen on {address}: {error}")
}

/// Returns the text of an error of building the publisher. Ends the program if an option caused it.
pub fn build_error(error: BuildError) -> String {
    if let BuildError::SharedStore { reason } = &error {
        reject(format!("--redis: {reason}"));
    }
    error.to_string()
}

fn header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn address(text: &str) -> Result<String, &'static str> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("expected HOST:PORT, such as 127.0.0.1:5000 or [::1]:5000"),
    }
}

fn positive(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|number| *number > 0).ok_or("expected a whole number above 0")
}
