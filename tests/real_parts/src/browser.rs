//! A real browser, Chromium, driven through WebDriver.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use fantoccini::wd::{WebDriverCompatibleCommand, WindowHandle};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::common::PATIENCE;

/// A headless browser with its own profile; all its processes are killed when it is dropped.
pub struct Browser(Rc<Session>);

struct Session {
    client: Client,
    runtime: Runtime,
    _driver: Driver,
}

/// ChromeDriver, killed together with the browser that it started.
struct Driver(Child);

impl Driver {
    /// Starts it, and returns the address on which it listens.
    fn start() -> (Self, String) {
        let mut output = String::new();
        // It needs the same port of 127.0.0.1 and of ::1. With `--port=0` it takes the port that ::1 assigns, and exits
        // if that one is not free on 127.0.0.1, which all servers and clients of the tests use. So it gets a port that
        // is free there; another process can still take that port first.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = Command::new("chromedriver");
            // All its processes form one group, to be killed together.
            command.arg(format!("--port={port}")).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
            let mut driver = Self(command.spawn().expect("chromedriver is missing: tests/run installs it"));
            let mut lines = BufReader::new(driver.0.stdout.take().unwrap()).lines().map(Result::unwrap);
            let listens = |line: String| {
                output += &(line.clone() + "\n");
                line.contains("started successfully")
            };
            if lines.any(listens) {
                // The rest of its output is read, since a pipe without a reader would end it.
                thread::spawn(move || lines.for_each(drop));
                return (driver, format!("http://127.0.0.1:{port}"));
            }
        }
        panic!("chromedriver does not start:\n{output}");
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The whole group: killing only the driver would leave the browser behind.
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

impl Browser {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let arguments = [
            "--headless=new",
            "--no-sandbox", // root has no sandbox
            "--disable-gpu",
            "--no-first-run",
            // Only requests of the tests.
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1100,800",
        ];
        let capabilities = json!({
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": arguments },
            // A page whose stream has no connection left would load forever.
            "pageLoadStrategy": "none",
        });
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (driver, url) = Driver::start();
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities.as_object().unwrap().clone());
        let client = runtime.block_on(builder.connect(&url));
        let client = client.expect("chromium is missing, or could not start: tests/run installs it");
        Self(Rc::new(Session { client, runtime, _driver: driver }))
    }

    /// Starts a browser with this page.
    pub fn with(url: &str) -> (Self, Tab) {
        let browser = Self::new();
        let tab = browser.opens(url);
        (browser, tab)
    }

    /// Opens this page in a new tab. The page may not have loaded yet.
    pub fn opens(&self, url: &str) -> Tab {
        let Session { client, runtime, .. } = &*self.0;
        let window = runtime.block_on(client.new_window(true)).unwrap().handle;
        let tab = Tab { session: Rc::clone(&self.0), window };
        tab.goes_to(url);
        tab
    }
}

/// One tab of a browser.
pub struct Tab {
    session: Rc<Session>,
    window: WindowHandle,
}

impl Tab {
    fn client(&self) -> &Client {
        let Session { client, runtime, .. } = &*self.session;
        runtime.block_on(client.switch_to_window(self.window.clone())).unwrap();
        client
    }

    pub fn goes_to(&self, url: &str) {
        self.session.runtime.block_on(self.client().goto(url)).unwrap();
    }

    pub fn closes(self) {
        self.session.runtime.block_on(self.client().close_window()).unwrap();
    }

    /// Evaluates this JavaScript expression in the page. Returns null while there is no page.
    pub fn is(&self, expression: &str) -> Value {
        let script = format!("return {expression};");
        self.session.runtime.block_on(self.client().execute(&script, vec![])).unwrap_or(Value::Null)
    }

    /// Runs these statements in the page.
    pub fn does(&self, script: &str) {
        self.session.runtime.block_on(self.client().execute(script, vec![])).unwrap();
    }

    /// Returns the visible texts of all elements that this selector finds.
    pub fn texts(&self, selector: &str) -> Vec<String> {
        let texts = self.is(&format!("[...document.querySelectorAll({selector:?})].map(found => found.innerText)"));
        let texts = texts.as_array().cloned().unwrap_or_default();
        texts.iter().map(|text| text.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Waits until these are the texts.
    #[track_caller]
    pub fn shows(&self, selector: &str, texts: &[&str]) {
        self.waits_for(&format!("{selector} shows {texts:?}"), || self.texts(selector), |found| found == texts);
    }

    /// Waits until this JavaScript expression is true.
    #[track_caller]
    pub fn until(&self, expression: &str) {
        self.waits_for(expression, || self.is(expression), |value| *value == true);
    }

    #[track_caller]
    fn waits_for<T: std::fmt::Debug>(&self, what: &str, look: impl Fn() -> T, is_right: impl Fn(&T) -> bool) {
        let start = Instant::now();
        loop {
            let seen = look();
            if is_right(&seen) {
                return;
            }
            assert!(start.elapsed() < 2 * PATIENCE, "not within {:?}: {what}; it is {seen:?}", 2 * PATIENCE);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Replaces the text of the first element that the selector finds, and presses Enter.
    pub fn enters(&self, selector: &str, text: &str) {
        self.until(&format!("document.querySelector({selector:?}) !== null"));
        let (client, runtime) = (self.client(), &self.session.runtime);
        let element = runtime.block_on(client.find(Locator::Css(selector))).unwrap();
        runtime.block_on(element.clear()).unwrap();
        runtime.block_on(element.send_keys(&format!("{text}\u{E007}"))).unwrap();
    }

    /// Sets the color scheme that the page prefers from now on, "light" or "dark".
    pub fn prefers(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let command = DevTools(json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } }));
        self.session.runtime.block_on(self.client().issue_cmd(command)).unwrap();
    }

    /// Returns the new entries of the browser's console since the last call: errors, warnings, all else.
    pub fn console(&self) -> Vec<String> {
        let entries = self.session.runtime.block_on(self.client().issue_cmd(ConsoleLog)).unwrap();
        let entries = entries.as_array().expect("a list of log entries");
        entries.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Sets the width and the height of the page from now on, in CSS pixels.
    pub fn is_sized(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        let command = DevTools(json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics }));
        self.session.runtime.block_on(self.client().issue_cmd(command)).unwrap();
    }

    /// Returns a screenshot, as a PNG.
    pub fn looks_like(&self) -> Vec<u8> {
        self.session.runtime.block_on(self.client().screenshot()).unwrap()
    }
}

/// The commands that only Chromium's driver has.
#[derive(Debug)]
struct DevTools(Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.0.to_string()))
    }
}

/// Requests the entries of the console since the last time.
#[derive(Debug)]
struct ConsoleLog;

impl WebDriverCompatibleCommand for ConsoleLog {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({ "type": "browser" }).to_string()))
    }
}
