//! A fleet server on the lab's host: started, stopped, hung, killed and started again on the same data.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::clock::{self, secs};
use crate::exec::{self, Done};
use crate::http::{self, Answer};
use crate::lab::{HOST, Lab};
use crate::programs;

/// The port of the example, free in every lab.
const PORT: u16 = 8470;
/// From the start of the process to an answer on /healthz.
const START_LIMIT: Duration = secs(30);

/// Which program runs where.
#[derive(Debug)]
pub struct Place {
    /// Unique in the lab.
    pub name: String,
    /// `host:port` to listen on.
    pub address: String,
    /// Another build of the server than the one under test.
    pub program: Option<PathBuf>,
    /// What it is started by, `ip netns exec …`; must become it, not fork.
    pub under: Vec<String>,
    /// In its environment.
    pub environment: Vec<(String, String)>,
}

/// A fleet server's process, its config and its data directory.
#[derive(Debug)]
pub struct FleetServer {
    name: String,
    address: String,
    config: PathBuf,
    data_dir: PathBuf,
    log: PathBuf,
    program: Option<PathBuf>,
    under: Vec<String>,
    environment: Vec<(String, String)>,
    child: Mutex<Option<Child>>,
}

impl FleetServer {
    /// Starts one on 10.99.0.1:8470 with `listen` and `data_dir` set and `config` (TOML: tables) after them; returns when
    /// it answers /healthz. For a judging one, call [`FleetServer::wait_ready`] too.
    pub fn start(lab: &Lab, config: &str) -> Result<Self> {
        Self::start_as(lab, "server", PORT, config)
    }

    /// A second or third one in the same lab, by name and port.
    pub fn start_as(lab: &Lab, name: &str, port: u16, config: &str) -> Result<Self> {
        let server = Self::prepare(lab, (name, port), config, Vec::new())?;
        server.start_again()?;
        Ok(server)
    }

    /// One that is not started yet, and gets these variables in its environment.
    pub fn prepare(
        lab: &Lab,
        (name, port): (&str, u16),
        config: &str,
        environment: Vec<(String, String)>,
    ) -> Result<Self> {
        let place = Place {
            name: name.to_owned(),
            address: format!("{HOST}:{port}"),
            program: None,
            under: Vec::new(),
            environment,
        };
        Self::prepare_at(lab, place, config)
    }

    /// One that runs somewhere else, or is built otherwise.
    pub fn start_at(lab: &Lab, place: Place, config: &str) -> Result<Self> {
        let server = Self::prepare_at(lab, place, config)?;
        server.start_again()?;
        Ok(server)
    }

    fn prepare_at(lab: &Lab, place: Place, config: &str) -> Result<Self> {
        let Place {
            name,
            address,
            program,
            under,
            environment,
        } = place;
        let dir = lab.host_dir(&name)?;
        let data_dir = dir.join("data");
        fs::create_dir_all(&data_dir)?;
        let log = dir.join("server.log");
        lab.watch_log(&format!("fleet-{name}"), &log);
        let path = dir.join("fleet-server.toml");
        let server = Self {
            name,
            address,
            program,
            under,
            config: path,
            data_dir,
            log,
            environment,
            child: Mutex::new(None),
        };
        server.configure(config)?;
        Ok(server)
    }

    /// For `[server] urls` of a box.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// All that it logged, over all its starts.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Result<u32> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child
            .as_ref()
            .map(Child::id)
            .with_context(|| format!("{} does not run", self.name))
    }

    /// Processor time that it has used, seconds.
    pub fn cpu_secs(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        let after_name = stat.rsplit_once(')').context("/proc/…/stat has a name")?.1;
        let ticks: Vec<f64> = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse().ok())
            .collect();
        Ok(ticks.iter().sum::<f64>() / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Replaces the config; takes effect at the next start.
    pub fn configure(&self, config: &str) -> Result<()> {
        let text = format!(
            "listen = {:?}\ndata_dir = {:?}\n{config}",
            self.address,
            self.data_dir.to_string_lossy()
        );
        Ok(fs::write(&self.config, text)?)
    }

    // ---- process ----

    /// Starts it on the data it has, and waits for /healthz.
    pub fn start_again(&self) -> Result<Instant> {
        self.start_until(|| self.get("/healthz").is_ok_and(|answer| answer.status == 200))
    }

    /// Starts it and waits only for its port: for one that speaks TLS, which this crate's HTTP does not.
    pub fn start_listening(&self) -> Result<Instant> {
        self.start_until(|| TcpStream::connect(&self.address).is_ok())
    }

    fn start_until(&self, up: impl Fn() -> bool) -> Result<Instant> {
        let at = clock::now();
        let log = File::options().create(true).append(true).open(&self.log)?;
        let program = match &self.program {
            Some(program) => program.clone(),
            None => programs::path("fleet-server")?,
        };
        let mut command = match self.under.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .arg("--config")
            .arg(&self.config)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = command.spawn()?;
        let answered = clock::wait_for("fleet-server to answer", START_LIMIT, || match child.try_wait() {
            Ok(None) => up().then_some(Ok(())),
            Ok(Some(status)) => Some(Err(anyhow::anyhow!("fleet-server ended with {status}"))),
            Err(err) => Some(Err(err.into())),
        });
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        answered
            .and_then(|inner| inner)
            .map_err(|err| anyhow::anyhow!("{err:#}; its log:\n{}", self.log()))?;
        Ok(at)
    }

    /// Waits for /readyz: it also judges.
    pub fn wait_ready(&self, limit: Duration) -> Result<Duration> {
        clock::wait_until("/readyz", limit, || {
            self.get("/readyz").is_ok_and(|answer| answer.status == 200)
        })
    }

    /// Whether its process is there; one that has ended by itself is taken notice of.
    pub fn is_running(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = child
            .as_mut()
            .is_none_or(|child| child.try_wait().is_ok_and(|end| end.is_some()));
        if ended {
            *child = None;
        }
        !ended
    }

    /// SIGSTOP: the process hangs, its connections stay open.
    pub fn hang(&self) -> Result<Instant> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn go_on(&self) -> Result<Instant> {
        self.signal(Signal::CONT)
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) -> Result<Instant> {
        let at = self.signal(Signal::KILL)?;
        self.reap(secs(10))?;
        Ok(at)
    }

    /// SIGTERM, and waits until it has ended, which must be with status 0.
    pub fn stop(&self) -> Result<Duration> {
        let at = self.signal(Signal::TERM)?;
        let status = self.reap(secs(40))?;
        ensure!(
            status.success(),
            "fleet-server ended with {status} on SIGTERM\n{}",
            self.log()
        );
        Ok(at.elapsed())
    }

    fn signal(&self, signal: Signal) -> Result<Instant> {
        let pid = Pid::from_raw(i32::try_from(self.pid()?)?).context("a process id is not 0")?;
        let at = clock::now();
        kill_process(pid, signal)?;
        Ok(at)
    }

    fn reap(&self, limit: Duration) -> Result<std::process::ExitStatus> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let running = child.as_mut().context("it does not run")?;
        let status = clock::wait_for("fleet-server to end", limit, || running.try_wait().transpose())??;
        *child = None;
        Ok(status)
    }

    // ---- talking to it ----

    /// GET of a path, without a token.
    pub fn get(&self, path: &str) -> Result<Answer> {
        http::get(&format!("{}{path}", self.url()))
    }

    /// A request with the admin's token.
    pub fn admin(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let token = fs::read_to_string(self.admin_token())?;
        let bearer = format!("Bearer {}", token.trim());
        let headers = [("authorization", &*bearer), ("content-type", "application/json")];
        http::send(
            method,
            &format!("{}{path}", self.url()),
            &headers,
            body.as_bytes(),
        )
    }

    /// `fleetctl` with the admin's token and these arguments, however it ends.
    pub fn ctl(&self, args: &[&str]) -> Result<Done> {
        let mut command = Command::new(programs::path("fleetctl")?);
        command
            .args(["--server", &self.url(), "--token-file"])
            .arg(self.admin_token())
            .args(args);
        exec::run(&mut command)
    }

    /// `fleetctl … --json`, which must succeed.
    pub fn ctl_json(&self, args: &[&str]) -> Result<Value> {
        let text = self.ctl(&[args, &["--json"]].concat())?.ok()?;
        serde_json::from_str(&text).with_context(|| format!("fleetctl {args:?} printed no JSON: {text}"))
    }

    /// `fleetctl box add NAME`: the new box's token.
    pub fn add_box(&self, name: &str) -> Result<String> {
        self.ctl(&["box", "add", name])?.ok()
    }

    /// The lines of /metrics of one family, without comments: (`name{labels}`, value).
    pub fn metric(&self, name: &str) -> Result<Vec<(String, f64)>> {
        let text = self.get("/metrics")?.body;
        let of_family = |series: &str| {
            series == name
                || series
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('{'))
        };
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '));
        Ok(lines
            .filter(|(series, _)| of_family(series))
            .filter_map(|(s, v)| Some((s.to_owned(), v.parse().ok()?)))
            .collect())
    }

    fn admin_token(&self) -> PathBuf {
        self.data_dir.join("admin.token")
    }
}

impl Drop for FleetServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
