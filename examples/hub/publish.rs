//! `hub publish`: sends an event to a channel of a hub.

use std::error::Error;
use std::io::{self, BufRead, IsTerminal, Read};
use std::time::Duration;

use form_urlencoded::Serializer;
use ureq::Agent;

use crate::MAX_BODY;
use crate::options::Publish;
use crate::output;

/// Publishes the text of the command line, or standard input: all of it as one event, or each line as one.
pub fn run(options: Publish) -> Result<(), Box<dyn Error>> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into();
    let send = |text: &str| post(&agent, &options, text);
    match &options.text {
        Some(text) => send(text),
        None if options.lines => {
            for line in io::stdin().lock().lines() {
                send(&line?)?;
            }
            Ok(())
        }
        None => {
            let mut text = String::new();
            // One more byte than the hub accepts, so that it rejects the rest.
            io::stdin().lock().take(MAX_BODY as u64 + 1).read_to_string(&mut text)?;
            send(&text)
        }
    }
}

fn post(agent: &Agent, options: &Publish, text: &str) -> Result<(), Box<dyn Error>> {
    let mut query = Serializer::new(String::new());
    if let Some(event_type) = &options.event {
        query.append_pair("event", event_type);
    }
    if let Some(retry) = options.retry {
        query.append_pair("retry", &retry.to_string());
    }
    let query = query.finish();
    let separator = if query.is_empty() { "" } else { "?" };
    let mut request = agent.post(format!("{}{separator}{query}", options.url)).header("Content-Type", "text/plain");
    if let Some(token) = &options.publish_token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let mut response = request.send(text)?;
    let status = response.status();
    if !status.is_success() {
        let reason = response.body_mut().read_to_string().unwrap_or_default();
        return Err(format!("the server answered with status {}: {}", status.as_u16(), reason.trim()).into());
    }
    // A script reads the exit code.
    if io::stdout().is_terminal()
        && let Some(watchers) = response.headers().get("X-Watchers").and_then(|value| value.to_str().ok())
    {
        output::say(format_args!("published to {watchers} streams"));
    }
    Ok(())
}
