//! URL: prints each event as a line of JSON.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use eventsource_client::{Client, ClientBuilder, ReconnectOptions, SSE};
use futures_util::StreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("which URL?")?;
    let reconnect = ReconnectOptions::reconnect(true).delay(Duration::from_millis(10)).build();
    let client = ClientBuilder::for_url(&url)?.reconnect(reconnect).build_with_transport(HyperTransport::new()?);
    let mut stream = client.stream();
    while let Some(next) = stream.next().await {
        match next {
            Ok(SSE::Event(event)) => {
                let line = json!({ "type": event.event_type, "data": event.data, "id": event.id });
                writeln!(std::io::stdout(), "{line}")?;
            }
            Ok(SSE::Comment(_) | SSE::Connected(_)) => {}
            // It reconnects automatically.
            Err(error) => eprintln!("{error}"),
        }
    }
    Err("the client has given up".into())
}
