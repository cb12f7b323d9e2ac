//! `./dev demo`: the main job on this machine, with the embedded store: a server, this machine's own watchdog, 20 played
//! boxes; one goes dark, and the alert is printed as the receiver got it, with the measured seconds.
//!
//! Everything runs on 127.0.0.1 and in one temporary directory, and is gone afterwards.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use fleet_tests::clock::{now, pause, secs, wait_for, wait_until};
use fleet_tests::webhook::{Arrival, Webhook};
use fleet_tests::{exec, http, programs};

/// The main job on this machine, played.
#[derive(Debug, Parser)]
struct Args {
    /// End after the alert and its end instead of going on until Ctrl-C
    #[arg(long)]
    once: bool,
}

/// Played boxes.
const BOXES: u32 = 20;
/// The one that goes dark.
const VICTIM: &str = "demo-07";

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let stop = Arc::new(AtomicBool::new(false));
    let dir = tempfile::Builder::new().prefix("fleet-demo-").tempdir()?;
    std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || watch_ctrl_c(&stop)
    });
    let done = play(&args, dir.path(), &stop);
    dir.close()
        .context("the demo's temporary directory cannot be removed")?;
    match done {
        Err(_) if stop.load(Ordering::Relaxed) => {}
        done => done?,
    }
    say("", "ended; nothing is left behind");
    Ok(ExitCode::SUCCESS)
}

/// The first Ctrl-C ends the demo in order, by way of everything's destructors.
fn watch_ctrl_c(stop: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    if let Ok(runtime) = runtime {
        let _ = runtime.block_on(tokio::signal::ctrl_c());
        stop.store(true, Ordering::Relaxed);
        eprintln!();
    }
}

fn play(args: &Args, dir: &Path, stop: &AtomicBool) -> Result<()> {
    let hook = Webhook::start(&format!("127.0.0.1:{}", free_port(9999)?))?;
    let server = Server::start(dir, &hook)?;
    say(
        "server",
        &format!(
            "{} with the embedded store; receiver: a webhook at {}",
            server.url,
            hook.url()
        ),
    );
    wait_until("the server to be ready", secs(30), || server.ready())?;

    let config = this_machine(dir, &server)?;
    say(
        "this machine",
        "one run of the real checks (what is absent here shows as what it is):",
    );
    show(&run_check(dir, &config)?);
    let _beat = Program::start(
        "fleet-watchdog",
        &["--config", &text(&config), "beat"],
        dir,
        false,
    )?;

    say(
        "fleet",
        &format!("{BOXES} played boxes begin to beat, once a second each"),
    );
    let mut fleet = Fleet::start(dir, &server)?;
    let live = || stop.load(Ordering::Relaxed) || server.count("live") == u64::from(BOXES) + 1;
    wait_until("all boxes to be live", secs(40), live)?;
    show(&server.ctl(&["box", "list"])?);
    interruptible(secs(5), stop)?;

    say(
        "fault",
        &format!("{VICTIM} goes silent now, as if its power were cut: no goodbye, no closed connection"),
    );
    let cut = now();
    fleet.tell(&format!("cut {VICTIM}"))?;
    let alert = alert(&hook, "opened", stop)?;
    let took = (alert.at - cut).as_secs_f64();
    say(
        "alert",
        &format!(
            "received {} after the fault; its body:",
            strong(&format!("{took:.2} s"))
        ),
    );
    show(&serde_json::to_string_pretty(&alert.json)?);
    interruptible(secs(4), stop)?;

    say("repair", &format!("{VICTIM} beats again"));
    let healed = now();
    fleet.tell(&format!("heal {VICTIM}"))?;
    let end = self::alert(&hook, "resolved", stop)?;
    say(
        "resolved",
        &format!(
            "told {:.2} s after the repair: {}",
            (end.at - healed).as_secs_f64(),
            end.summary()
        ),
    );
    if args.once {
        return Ok(());
    }
    say("goes on", "until Ctrl-C. Look around meanwhile:");
    let token = text(&server.admin_token());
    show(&format!(
        "curl {url}/metrics\n{ctl} --server {url} --token-file {token} box list\n{ctl} --server {url} --token-file {token} incident list",
        url = server.url,
        ctl = programs::path("fleetctl")?.display(),
    ));
    loop {
        interruptible(secs(30), stop)?;
        let (live, dark) = (server.count("live"), server.count("dark"));
        say("", &format!("{live} live, {dark} dark"));
    }
}

/// The next notification of this event about the victim.
fn alert(hook: &Webhook, event: &str, stop: &AtomicBool) -> Result<Arrival> {
    let found = wait_for(&format!("{event:?} notification"), secs(40), || {
        let arrivals = hook.arrivals();
        let found = arrivals
            .into_iter()
            .find(|a| a.event() == event && a.box_name() == VICTIM);
        found
            .map(Some)
            .or_else(|| stop.load(Ordering::Relaxed).then_some(None))
    })?;
    found.context("interrupted")
}

fn interruptible(span: Duration, stop: &AtomicBool) -> Result<()> {
    let end = now() + span;
    while now() < end {
        if stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        pause(Duration::from_millis(50));
    }
    Ok(())
}

/// The server's process and how it is asked.
struct Server {
    url: String,
    data_dir: PathBuf,
    _program: Program,
}

impl Server {
    fn start(dir: &Path, hook: &Webhook) -> Result<Self> {
        let port = free_port(8470)?;
        let data_dir = dir.join("server");
        fs::create_dir(&data_dir)?;
        let config = dir.join("fleet-server.toml");
        let toml = format!(
            "listen = \"127.0.0.1:{port}\"\ndata_dir = {:?}\n[[receiver]]\nname = \"hook\"\nwebhook = {{ url = {:?} }}\n",
            text(&data_dir),
            hook.url()
        );
        fs::write(&config, toml)?;
        let program = Program::start("fleet-server", &["--config", &text(&config)], dir, false)?;
        let server = Self {
            url: format!("http://127.0.0.1:{port}"),
            data_dir,
            _program: program,
        };
        let healthy =
            || http::get(&format!("{}/healthz", server.url)).is_ok_and(|answer| answer.status == 200);
        wait_until("the server to answer", secs(20), healthy)
            .with_context(|| fs::read_to_string(dir.join("fleet-server.log")).unwrap_or_default())?;
        Ok(server)
    }

    fn ready(&self) -> bool {
        http::get(&format!("{}/readyz", self.url)).is_ok_and(|answer| answer.status == 200)
    }

    fn admin_token(&self) -> PathBuf {
        self.data_dir.join("admin.token")
    }

    fn ctl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(programs::path("fleetctl")?);
        command
            .args(["--server", &self.url, "--token-file"])
            .arg(self.admin_token())
            .args(args);
        exec::run(&mut command)?.ok()
    }

    /// Boxes in this state.
    fn count(&self, state: &str) -> u64 {
        let wanted = format!("fleet_boxes{{state=\"{state}\"}} ");
        let metrics = http::get(&format!("{}/metrics", self.url))
            .map(|answer| answer.body)
            .unwrap_or_default();
        metrics
            .lines()
            .find_map(|line| line.strip_prefix(&wanted)?.parse().ok())
            .unwrap_or(0)
    }
}

/// Registers this machine and writes its configuration.
fn this_machine(dir: &Path, server: &Server) -> Result<PathBuf> {
    let token = server.ctl(&["box", "add", "this-machine", "--label", "site=here"])?;
    let token_file = dir.join("this-machine.token");
    fs::write(&token_file, token)?;
    let config = dir.join("fleet-watchdog.toml");
    let toml = format!(
        "[box]\nname = \"this-machine\"\n[server]\nurls = [{:?}]\ntoken_file = {:?}\n[gateway]\nunit = \"hermes-gateway.service\"\n",
        server.url,
        text(&token_file)
    );
    fs::write(&config, toml)?;
    Ok(config)
}

/// Exit code 1 says that something is failing: an answer too. Nothing is restarted on the user's own machine.
fn run_check(dir: &Path, config: &Path) -> Result<String> {
    let state = dir.join("fleet-watchdog");
    fs::create_dir_all(&state)?;
    let output = Command::new(programs::path("fleet-watchdog")?)
        .arg("--config")
        .arg(config)
        .args(["check", "--no-act"])
        .env("STATE_DIRECTORY", &state)
        .output()?;
    ensure!(
        matches!(output.status.code(), Some(0 | 1)),
        "fleet-watchdog check ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The played boxes.
struct Fleet {
    stdin: ChildStdin,
    _program: Program,
}

impl Fleet {
    fn start(dir: &Path, server: &Server) -> Result<Self> {
        let (count, token) = (BOXES.to_string(), text(&server.admin_token()));
        let args = [
            "--server",
            &server.url,
            "--admin-token-file",
            &token,
            "--boxes",
            &count,
            "--prefix",
            "demo-",
            "--sites",
            "fsn1,hel1",
        ];
        let mut program = Program::start("fleet-sim", &args, dir, true)?;
        let stdin = program
            .child
            .stdin
            .take()
            .context("its standard input is piped")?;
        Ok(Self {
            stdin,
            _program: program,
        })
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.stdin, "{line}").context("the played fleet has ended")
    }
}

/// A program of ours in a process group of its own (Ctrl-C is the demo's alone), ended with this value.
struct Program {
    child: Child,
}

impl Program {
    fn start(name: &str, args: &[&str], dir: &Path, piped: bool) -> Result<Self> {
        let log = fs::File::create(dir.join(format!("{name}.log")))?;
        let state = dir.join(name);
        let child = Command::new(programs::path(name)?)
            .args(args)
            .env("STATE_DIRECTORY", state)
            .stdin(if piped { Stdio::piped() } else { Stdio::null() })
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `wanted`, or any free port.
fn free_port(wanted: u16) -> Result<u16> {
    let listener =
        TcpListener::bind(("127.0.0.1", wanted)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?;
    Ok(listener.local_addr()?.port())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

static COLOUR: LazyLock<bool> =
    LazyLock::new(|| std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none());

fn strong(text: &str) -> String {
    if *COLOUR {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn say(topic: &str, line: &str) {
    println!("{} {line}", strong(&format!("{topic:>12}")));
}

fn show(block: &str) {
    for line in block.lines() {
        println!("             {line}");
    }
}
