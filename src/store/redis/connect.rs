//! Connections to Redis, and the delay between two attempts.

use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{Client, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError};

use super::Redis;
use crate::spread;

/// The time for connecting and signing in.
const CONNECT: Duration = Duration::from_secs(3);

/// The time for a reply. A command that waits for events waits for a second at most.
const REPLY: Duration = Duration::from_secs(5);

/// Where Redis is.
#[derive(Clone)]
pub(super) struct Server {
    /// With Sentinels, the host is the name by which they know the primary.
    primary: ConnectionInfo,
    sentinels: Vec<ConnectionInfo>,
}

impl Server {
    pub(super) fn new(settings: &Redis) -> Result<Self, RedisError> {
        let primary = address(&settings.url, settings)?;
        #[cfg(feature = "redis_tls")]
        settings.certificates.check(&primary)?;
        let sentinels = settings.sentinels.iter().map(|url| address(url, settings));
        Ok(Self { sentinels: sentinels.collect::<Result<_, _>>()?, primary })
    }

    /// Connects. Returns the error of the last attempt.
    pub(super) fn connect(&self) -> Result<Connection, RedisError> {
        let Some((last, others)) = self.sentinels.split_last() else { return connect(self.primary.clone()) };
        let connect_by = |sentinel| self.primary_by(sentinel).and_then(connect);
        let connected = others.iter().find_map(|sentinel| connect_by(sentinel).ok());
        connected.map_or_else(|| connect_by(last), Ok)
    }

    /// Asks a Sentinel for the address of the primary.
    fn primary_by(&self, sentinel: &ConnectionInfo) -> Result<ConnectionInfo, RedisError> {
        let mut connection = connect(sentinel.clone())?;
        let name = match self.primary.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
            _ => return Err((redis::ErrorKind::InvalidClientConfig, "the URL has no name for the Sentinels").into()),
        };
        let mut command = redis::cmd("SENTINEL");
        let found: Option<(String, u16)> = command.arg("GET-MASTER-ADDR-BY-NAME").arg(name).query(&mut connection)?;
        let unknown = || (redis::ErrorKind::Client, "the Sentinel does not know a primary of this name").into();
        let (host, port) = found.ok_or_else::<RedisError, _>(unknown)?;
        let address = match self.primary.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        Ok(self.primary.clone().set_addr(address))
    }
}

fn address(url: &str, settings: &Redis) -> Result<ConnectionInfo, RedisError> {
    let info = url.into_connection_info()?;
    if !info.addr().is_supported() {
        return Err((redis::ErrorKind::InvalidClientConfig, "`rediss` needs the feature `redis_tls`").into());
    }
    #[cfg(feature = "redis_tls")]
    let info = settings.certificates.apply(info)?;
    #[cfg(not(feature = "redis_tls"))]
    let _ = settings;
    // Replies have the same form on every version.
    let own = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    Ok(info.set_redis_settings(own).set_tcp_settings(TcpSettings::default().set_nodelay(true)))
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
