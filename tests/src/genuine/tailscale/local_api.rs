//! What a tailscaled says of itself, asked the way the watchdog asks, but with code of its own.
//!
//! It judges nothing: [`Status`] is what was answered.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::ask;
use super::boxed::SOCKET;
use crate::clock::{self, secs};
use crate::lab::TestBox;

/// LocalAPI answers in milliseconds.
const LIMIT: Duration = secs(2);
/// What LocalAPI takes as its own name.
const LOCAL_HOST: &str = "local-tailscaled.sock";

/// A tailscaled's socket.
#[derive(Debug, Clone)]
pub struct LocalApi {
    socket: PathBuf,
}

/// The socket of the tailscaled in a box, as seen from the harness. Ask again after a boot.
pub fn of_box(made: &TestBox) -> Result<LocalApi> {
    Ok(LocalApi::at(made.root()?.join(SOCKET.trim_start_matches('/'))))
}

impl LocalApi {
    /// At this path.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// One question; the error's chain holds the `std::io::Error` that tells refused from absent from hung.
    pub fn status(&self) -> Result<Status> {
        let (code, body) = ask::ask(
            self.connect()?,
            LOCAL_HOST,
            "GET",
            "/localapi/v0/status?peers=false",
        )?;
        ensure!(code == 200, "LocalAPI: {code} {}", String::from_utf8_lossy(&body));
        Ok(Status(serde_json::from_slice(&body)?))
    }

    /// The structured warnings by code, from the first lines of the watch.
    pub fn warnings(&self) -> Result<BTreeMap<String, Value>> {
        let mut socket = self.connect()?;
        ask::begin(
            &mut socket,
            LOCAL_HOST,
            "GET",
            "/localapi/v0/watch-ipn-bus?mask=130",
        )?;
        for line in BufReader::new(socket).lines() {
            let line = line.context("no health on the watch")?;
            let Ok(Value::Object(mut notice)) = serde_json::from_str::<Value>(&line) else {
                continue; // the head's lines
            };
            if let Some(health) = notice.remove("Health").filter(|health| !health.is_null()) {
                let warnings = health.get("Warnings").filter(|all| !all.is_null()).cloned();
                return Ok(warnings
                    .map(serde_json::from_value)
                    .transpose()?
                    .unwrap_or_default());
            }
        }
        anyhow::bail!("the watch ended without health")
    }

    /// Asks until the status is as wanted. The error shows the last answer.
    pub fn wait_for(&self, what: &str, limit: Duration, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        let mut last = None;
        let found = clock::wait_for(what, limit, || {
            last = Some(self.status());
            last.as_ref()?
                .as_ref()
                .ok()
                .filter(|status| wanted(status))
                .cloned()
        });
        found.with_context(|| format!("tailscaled last said {last:?}"))
    }

    /// Asks until a warning of this code stands (or does not).
    pub fn wait_for_warning(&self, code: &str, there: bool, limit: Duration) -> Result<()> {
        let what = format!(
            "the warning {code} to be {}",
            if there { "there" } else { "gone" }
        );
        clock::wait_until(&what, limit, || {
            self.warnings().is_ok_and(|all| all.contains_key(code) == there)
        })
        .map(drop)
    }

    fn connect(&self) -> Result<UnixStream> {
        let socket = UnixStream::connect(&self.socket);
        let socket = socket.with_context(|| format!("cannot connect to {}", self.socket.display()))?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.set_write_timeout(Some(LIMIT))?;
        Ok(socket)
    }
}

/// An answer of `status?peers=false`.
#[derive(Debug, Clone)]
pub struct Status(pub Value);

impl Status {
    /// `BackendState`.
    pub fn state(&self) -> &str {
        self.0["BackendState"].as_str().unwrap_or_default()
    }

    /// `Self.Online`.
    pub fn online(&self) -> bool {
        self.0["Self"]["Online"].as_bool().unwrap_or_default()
    }

    /// `HaveNodeKey`, absent as false.
    pub fn has_node_key(&self) -> bool {
        self.0["HaveNodeKey"].as_bool().unwrap_or_default()
    }

    /// `Self.KeyExpiry`.
    pub fn key_expiry(&self) -> Option<&str> {
        self.0["Self"]["KeyExpiry"].as_str()
    }

    /// `Self.Relay`.
    pub fn relay(&self) -> &str {
        self.0["Self"]["Relay"].as_str().unwrap_or_default()
    }

    /// `Health`.
    pub fn health(&self) -> Vec<&str> {
        let all = self.0["Health"].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().filter_map(Value::as_str).collect()
    }

    /// Working, as far as it tells: running, online, with a relay.
    pub fn is_up(&self) -> bool {
        self.state() == "Running" && self.online() && !self.relay().is_empty()
    }

    /// The fields that a check goes by, on one line.
    pub fn digest(&self) -> String {
        let own = &self.0["Self"];
        format!(
            "{} HaveNodeKey={} Online={} Expired={} KeyExpiry={} Relay={} Health={:?}",
            self.state(),
            self.0["HaveNodeKey"],
            own["Online"],
            own["Expired"],
            own["KeyExpiry"],
            own["Relay"],
            self.health()
        )
    }
}
