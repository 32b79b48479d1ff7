//! Connections to Redis, and the delay between two attempts.

use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{Client, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError};

use crate::spread;

/// The time for connecting and signing in.
const CONNECT: Duration = Duration::from_secs(3);

/// The time for a reply. A command that waits for events waits for a second at most.
const REPLY: Duration = Duration::from_secs(5);

/// Where Redis is.
#[derive(Clone)]
pub(super) struct Server {
    addresses: Vec<ConnectionInfo>,
    /// The name of the primary, if the addresses are those of Sentinels.
    primary: Option<String>,
}

impl Server {
    pub(super) fn new(urls: &[String], primary: Option<&str>) -> Result<Self, RedisError> {
        let addresses: Result<Vec<_>, _> = urls.iter().map(|url| address(url)).collect();
        let addresses = addresses?;
        if addresses.is_empty() {
            return Err((redis::ErrorKind::InvalidClientConfig, "there is no URL").into());
        }
        Ok(Self { addresses, primary: primary.map(str::to_owned) })
    }

    /// Connects. Returns the error of the last attempt.
    pub(super) fn connect(&self) -> Result<Connection, RedisError> {
        let mut result = Err((redis::ErrorKind::InvalidClientConfig, "there is no URL").into());
        for address in &self.addresses {
            result = match &self.primary {
                None => connect(address.clone()),
                Some(primary) => self.primary_at(address, primary).and_then(connect),
            };
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Asks a Sentinel for the address of the primary.
    fn primary_at(&self, sentinel: &ConnectionInfo, primary: &str) -> Result<ConnectionInfo, RedisError> {
        // A Sentinel has no databases.
        let settings = sentinel.redis_settings().clone().set_db(0);
        let mut connection = connect(sentinel.clone().set_redis_settings(settings))?;
        let mut command = redis::cmd("SENTINEL");
        let found: Option<(String, u16)> =
            command.arg("GET-MASTER-ADDR-BY-NAME").arg(primary).query(&mut connection)?;
        let unknown = || (redis::ErrorKind::Client, "the Sentinel does not know a primary of this name").into();
        let (host, port) = found.ok_or_else::<RedisError, _>(unknown)?;
        let first = &self.addresses[0];
        let address = match first.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        Ok(first.clone().set_addr(address))
    }
}

fn address(url: &str) -> Result<ConnectionInfo, RedisError> {
    let info = url.into_connection_info()?;
    // Replies have the same form on every version.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    Ok(info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

fn connect(address: ConnectionInfo) -> Result<Connection, RedisError> {
    let connection = Client::open(address)?.get_connection_with_timeout(CONNECT)?;
    connection.set_read_timeout(Some(REPLY))?;
    connection.set_write_timeout(Some(REPLY))?;
    Ok(connection)
}

/// Returns the text of an error, for operators.
pub(super) fn describe(error: &RedisError) -> String {
    // The operating system's text for it is about a resource that is not available.
    if error.is_timeout() { "Redis does not answer in time".into() } else { error.to_string() }
}

/// The delay before the next attempt, which grows from 50 ms to 5 s.
pub(super) struct BackOff(Duration);

impl BackOff {
    const SHORTEST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(5);

    pub(super) fn new() -> Self {
        Self(Self::SHORTEST)
    }

    /// Returns the next delay: a random one, so that processes do not all come at once.
    pub(super) fn next(&mut self) -> Duration {
        let longest = self.0;
        self.0 = (longest * 2).min(Self::LONGEST);
        longest.mul_f64(0.5 + spread::random_share() / 2.0)
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }
}
