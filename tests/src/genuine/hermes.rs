//! A genuine Hermes Agent: installed once from PyPI into the cache, set up in a box by its own command, and hung on
//! demand.
//!
//! Its programs know the path they were installed at, so they are installed under a mount namespace of their own in
//! which the cache's directory is [`PREFIX`]; the machine itself gets no such directory. A box sees it there, and may
//! write (its own byte code) to a layer that is the box's alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cache;
use super::fastclock::FastClock;
use crate::clock::secs;
use crate::exec;
use crate::lab::{BoxSpec, TestBox};

/// Where it is installed inside a box.
pub const PREFIX: &str = "/opt/hermes";
/// The user it runs as.
pub const USER: &str = "agent";
/// The unit that its own command installs.
pub const UNIT: &str = "hermes-gateway.service";
/// Its home.
pub const HOME: &str = "/home/agent/.hermes";
/// Its health page, which needs no key.
pub const HEALTH: &str = "http://127.0.0.1:8642/health";
/// While this file is there, its event loop is hung from the next second on; the hook looks once a second.
pub const HANG_FLAG: &str = "/home/agent/hang";

const UID: u32 = 1000;
/// The oldest whose facts the tests rest on; aiohttp is what its HTTP server needs.
const PACKAGES: [&str; 2] = ["hermes-agent==0.19.0", "aiohttp==3.14.5"];
/// The path is burnt into every script, so it must be one that every user of the box can run.
const PYTHON: &str = "/usr/bin/python3";
/// Some 230 MB from PyPI.
const INSTALL_LIMIT: Duration = secs(900);
/// A gateway that starts answers in a second or two; a crowded machine gets longer.
const HEALTH_LIMIT: Duration = secs(120);

const ENV_FILE: &str = "API_SERVER_ENABLED=true\nAPI_SERVER_KEY=0123456789abcdef0123456789abcdef\n";
const HOOK_YAML: &str =
    "name: hang\ndescription: hangs the event loop when told\nevents: [gateway:startup]\n";
/// Blocks the loop's own thread: nothing of the gateway answers any more, and systemd sees a running process.
const HOOK_PY: &str = r#"import asyncio, os, time

FLAG = "/home/agent/hang"

async def watch():
    while True:
        if os.path.exists(FLAG):
            time.sleep(3600)
        await asyncio.sleep(1)

async def handle(event_type, context):
    handle.task = asyncio.get_running_loop().create_task(watch())
"#;

/// The directory that holds what a box sees as [`PREFIX`]; installs it if it is not in the cache.
pub fn prepare() -> Result<PathBuf> {
    let mut ingredients: Vec<&[u8]> = PACKAGES.iter().map(|package| package.as_bytes()).collect();
    ingredients.push(PREFIX.as_bytes());
    let python = exec::run(Command::new(PYTHON).arg("--version"))
        .and_then(exec::Done::ok)
        .context("/usr/bin/python3 is missing (package python3-venv)")?;
    ingredients.push(python.as_bytes());
    cache::once("hermes", &ingredients, install)
}

fn install(dir: &Path) -> Result<()> {
    let script = r#"set -e
mount -t tmpfs -o mode=755,size=1M fleet-tests /opt
mkdir "$1" && mount --bind "$2" "$1"
"$3" -m venv "$1"
shift 3
"$0" -q --disable-pip-version-check --no-input "$@"
"#;
    let pip = format!("{PREFIX}/bin/pip");
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        &pip,
        PREFIX,
    ]);
    command.arg(dir).args([PYTHON, "install"]).args(PACKAGES);
    exec::run_with(&mut command, &[], INSTALL_LIMIT)?.ok()?;
    ensure!(dir.join("bin/hermes").is_file(), "pip installed no bin/hermes");
    Ok(())
}

/// Adds Hermes and its user to a box, without a service yet; `dir` is what [`prepare`] gave.
#[must_use]
pub fn with_hermes(spec: BoxSpec, dir: &Path) -> BoxSpec {
    let spec = spec.user(USER, UID).overlay(dir, PREFIX);
    let file = |spec: BoxSpec, name: &str, text| spec.file(&format!("{HOME}/{name}"), 0o600, USER, text);
    let spec = file(spec, ".env", ENV_FILE);
    let spec = file(spec, "hooks/hang/HOOK.yaml", HOOK_YAML);
    file(spec, "hooks/hang/handler.py", HOOK_PY)
}

/// Has Hermes install and start its service, as its guide says, and hands its home to its user.
pub fn install_gateway(made: &TestBox) -> Result<()> {
    install_crash_looping(made)?;
    give_home_to_user(made)?;
    wait_healthy(made)
}

/// Only the first half of [`install_gateway`]: the home is left to root, so the service crash-loops (200/CHDIR every
/// five seconds, never `failed`) until [`give_home_to_user`].
pub fn install_crash_looping(made: &TestBox) -> Result<()> {
    let words = "gateway install --system --run-as-user agent --start-now --start-on-login";
    let done = made.run(&format!("{PREFIX}/bin/hermes {words}"))?;
    println!(
        "{}: hermes {words}: {}\n{}{}",
        made.name(),
        done.status,
        done.stdout,
        done.stderr
    );
    made.run_ok(&format!("systemctl cat {UNIT}")).map(drop)
}

/// Ends the genuine crash loop at the service's next start.
pub fn give_home_to_user(made: &TestBox) -> Result<()> {
    made.run_ok(&format!("chown -R {USER}: /home/{USER}")).map(drop)
}

/// Starts the gateway again under a clock that runs `factor` times as fast from that moment on, and waits until it is
/// healthy. The box needs [`super::fastclock::with_fastclock`]; whatever judges the gateway's files must run under the
/// same clock ([`FastClock::drop_in`], [`FastClock::line`]).
pub fn put_on_fast_clock(made: &TestBox, factor: u32) -> Result<FastClock> {
    // A stop of the genuine unit ends as `failed`; that is no error here.
    made.run_within(
        &format!("systemctl stop {UNIT}; systemctl reset-failed {UNIT}"),
        secs(100),
    )?;
    let clock = FastClock::from_now(factor);
    clock.drop_in(made, UNIT)?;
    made.run_ok(&format!("systemctl start {UNIT}"))?;
    wait_healthy(made)?;
    Ok(clock)
}

/// Waits until its health page answers 200.
pub fn wait_healthy(made: &TestBox) -> Result<()> {
    made.wait_until(&health_line(2.0), HEALTH_LIMIT).map(drop)
}

/// Whether its health page answers within `limit_secs`.
pub fn is_healthy(made: &TestBox, limit_secs: f64) -> Result<bool> {
    Ok(made.run(&health_line(limit_secs))?.success())
}

fn health_line(limit_secs: f64) -> String {
    format!(
        "{PYTHON} -c 'import urllib.request as u; u.urlopen(\"{HEALTH}\", timeout={limit_secs})' 2>/dev/null"
    )
}

/// Hangs the event loop, for good, and waits until the health page no longer answers. systemd goes on saying
/// `active (running)`. A restart hangs again unless [`take_flag_away`] came first.
pub fn hang(made: &TestBox) -> Result<()> {
    made.run_ok(&format!("touch {HANG_FLAG}"))?;
    made.wait_until(&format!("! {}", health_line(1.0)), secs(20))
        .map(drop)
}

/// The next start will not hang; a loop that hangs already stays so.
pub fn take_flag_away(made: &TestBox) -> Result<()> {
    made.run_ok(&format!("rm -f {HANG_FLAG}")).map(drop)
}

/// A `hermes` command as its user, such as `backup --quick`.
pub fn command(made: &TestBox, words: &str) -> Result<exec::Done> {
    made.run_as(USER, &format!("{PREFIX}/bin/hermes {words}"))
}

/// A `hermes` command as root, such as `gateway restart --system`.
pub fn admin_command(made: &TestBox, words: &str) -> Result<exec::Done> {
    made.run_within(&format!("{PREFIX}/bin/hermes {words}"), secs(180))
}
