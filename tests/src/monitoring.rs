//! Debian's own Prometheus and Alertmanager on the lab's loopback, and what a test asks them.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::clock::{self, secs};
use crate::exec;
use crate::http;
use crate::lab::Lab;
use crate::runner::needs::resource;
use crate::scenario::Need;

const START_LIMIT: Duration = secs(40);

/// Whether [`show_shared_files`] has done its work.
static SHOWN: Mutex<bool> = Mutex::new(false);

/// A daemon that ends with its value.
#[derive(Debug)]
struct Daemon(Child);

impl Daemon {
    fn start(lab: &Lab, name: &str, command: &mut Command, ready: &str) -> Result<Self> {
        let path = lab.host_dir(name)?.join("daemon.log");
        lab.watch_log(name, &path);
        let log = File::create(&path)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        let mut daemon = Self(child.with_context(|| format!("cannot start {name}"))?);
        clock::wait_for(ready, START_LIMIT, || match daemon.0.try_wait() {
            Ok(None) => http::get(ready)
                .is_ok_and(|answer| answer.status == 200)
                .then_some(Ok(())),
            Ok(Some(status)) => Some(Err(anyhow::anyhow!("{name} ended with {status}"))),
            Err(err) => Some(Err(err.into())),
        })??;
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    _daemon: Daemon,
}

impl Prometheus {
    /// Where it listens.
    pub const URL: &str = "http://127.0.0.1:9090";

    /// Starts it with this configuration (YAML).
    pub fn start(lab: &Lab, config: &str) -> Result<Self> {
        let config = lab.host_file("prometheus.yml", config)?;
        let mut command = program(Need::Prometheus, "prometheus")?;
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!(
            "--storage.tsdb.path={}",
            lab.host_dir("prometheus")?.join("data").display()
        ));
        command.args(["--web.listen-address=127.0.0.1:9090", "--log.level=warn"]);
        Ok(Self {
            _daemon: Daemon::start(lab, "prometheus", &mut command, &format!("{}/-/ready", Self::URL))?,
        })
    }

    /// Starts it with one scrape target (`host:port`, path /metrics), every second.
    pub fn scraping(lab: &Lab, target: &str) -> Result<Self> {
        let scrape = format!("[{{job_name: fleet, static_configs: [{{targets: [{target:?}]}}]}}]");
        Self::start(
            lab,
            &format!("global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nscrape_configs: {scrape}\n"),
        )
    }

    /// An instant query: the list of `{metric, value: [time, text]}`.
    pub fn query(&self, promql: &str) -> Result<Vec<Value>> {
        let url = format!("{}/api/v1/query", Self::URL);
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let answer = http::send(
            "POST",
            &url,
            &form,
            format!("query={}", percent(promql)).as_bytes(),
        )?
        .json()?;
        answer["data"]["result"]
            .as_array()
            .cloned()
            .with_context(|| format!("no result: {answer}"))
    }
}

/// An Alertmanager.
#[derive(Debug)]
pub struct Alertmanager {
    port: u16,
    _daemon: Daemon,
}

impl Alertmanager {
    /// Starts one on 127.0.0.1:`port` that notifies nobody; several with different ports are independent.
    pub fn start(lab: &Lab, port: u16) -> Result<Self> {
        let name = format!("alertmanager-{port}");
        let config = lab.host_file(
            &format!("{name}.yml"),
            "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n",
        )?;
        let mut command = program(Need::Alertmanager, "prometheus-alertmanager")?;
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!(
            "--storage.path={}",
            lab.host_dir(&name)?.join("data").display()
        ));
        command.args([
            &format!("--web.listen-address=127.0.0.1:{port}"),
            "--cluster.listen-address=",
            "--log.level=warn",
        ]);
        let ready = format!("http://127.0.0.1:{port}/-/ready");
        Ok(Self {
            port,
            _daemon: Daemon::start(lab, &name, &mut command, &ready)?,
        })
    }

    /// For a receiver's `urls`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The alerts that are active now (`GET /api/v2/alerts?active=true`).
    pub fn active(&self) -> Result<Vec<Value>> {
        let alerts = http::get(&format!("{}/api/v2/alerts?active=true", self.url()))?.json()?;
        Ok(alerts.as_array().cloned().unwrap_or_default())
    }
}

/// `promtool check metrics` on a text; the error is what it complains of.
pub fn check_metrics(text: &str) -> Result<()> {
    let mut promtool = program(Need::Prometheus, "promtool")?;
    exec::run_with(promtool.args(["check", "metrics"]), text.as_bytes(), exec::LIMIT)?
        .ok()
        .map(drop)
}

/// `promtool` on a file: `check rules`, `test rules`, `check config`.
pub fn promtool(args: &[&str], file: &Path) -> Result<String> {
    exec::run(program(Need::Prometheus, "promtool")?.args(args).arg(file))?.ok()
}

/// A program of a prepared package; the scenario's `needs` names it.
fn program(need: Need, name: &str) -> Result<Command> {
    let dir = resource(need)?;
    if dir != Path::new("/usr/bin") {
        let unpacked = dir
            .ancestors()
            .nth(3)
            .context("a package is unpacked in a directory of its own")?;
        show_shared_files(unpacked)?;
    }
    Ok(Command::new(dir.join(name)))
}

/// Packages that are unpacked in the cache find their own files where an installation would put them: this mount
/// namespace alone sees them there. One mount for all of them, since overlays can be stacked only twice.
fn show_shared_files(unpacked: &Path) -> Result<()> {
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if *shown {
        return Ok(());
    }
    let packages = std::fs::read_dir(unpacked)?
        .flatten()
        .map(|entry| entry.path().join("usr/share"));
    let mut layers: Vec<String> = packages
        .filter(|share| share.is_dir())
        .map(|share| share.display().to_string())
        .collect();
    layers.push("/usr/share".to_owned());
    let layers = format!("lowerdir={}", layers.join(":"));
    exec::ok(
        "mount",
        &["-t", "overlay", "overlay", "-o", &layers, "/usr/share"],
    )?;
    *shown = true;
    Ok(())
}

fn percent(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}
