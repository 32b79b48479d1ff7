//! Another real browser, Firefox. It opens a page, which reports by itself.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Only requests of the tests.
const PREFERENCES: &str = r#"
user_pref("app.normandy.enabled", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("extensions.getAddons.cache.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("toolkit.telemetry.enabled", false);
"#;

/// A headless Firefox with its own profile; all its processes are killed when it is dropped.
pub struct Firefox {
    process: Child,
    _profile: TempDir,
}

impl Firefox {
    /// Starts it with this page.
    #[track_caller]
    pub fn opens(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        fs::write(profile.path().join("user.js"), PREFERENCES).unwrap();
        let mut command = Command::new("firefox-esr");
        command.args(["--headless", "--no-remote", "--profile"]).arg(profile.path()).arg(url);
        command.env("HOME", profile.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.process_group(0).spawn().expect("firefox-esr is missing: tests/run installs it");
        Self { process, _profile: profile }
    }
}

impl Drop for Firefox {
    fn drop(&mut self) {
        let group = format!("-{}", self.process.id());
        drop(Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status());
        drop(self.process.wait());
    }
}
