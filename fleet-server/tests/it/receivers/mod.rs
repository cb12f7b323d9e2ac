//! Every receiver in a real conversation: the real server and `fleetctl`, and on the other side a local server that
//! speaks the documented API, checks what the real one checks, and says what the real one says.

mod apis;
mod fake;
mod smtp;
mod told;
mod wrong;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use self::fake::{LIMIT, now};
use crate::fixture::request;

const SERVER: &str = env!("CARGO_BIN_EXE_fleet-server");
const CTL: &str = env!("CARGO_BIN_EXE_fleetctl");

/// A real server, with its log in a file.
struct Process {
    child: Child,
    dir: PathBuf,
    address: String,
}

impl Process {
    async fn start(dir: &Path, receivers: &str) -> Self {
        let config = dir.join("fleet-server.toml");
        let data = dir.join("data");
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = {data:?}\npublic_url = \"https://fleet.example.net\"\n{receivers}"
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(SERVER)
            .arg("--config")
            .arg(&config)
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut process = Self {
            child,
            dir: dir.to_owned(),
            address: String::new(),
        };
        let began = now();
        while process.address.is_empty() {
            assert!(began.elapsed() < LIMIT, "it does not start: {}", process.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
            let log = process.log();
            let found = log
                .split("address=")
                .nth(1)
                .and_then(|rest| rest.split_whitespace().next());
            found.unwrap_or_default().clone_into(&mut process.address);
        }
        process
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap()
    }

    /// Exit status, and what stands on stdout and stderr.
    async fn ctl(&self, args: &[&str]) -> (i32, String) {
        let out = Command::new(CTL)
            .args(["--server", &format!("http://{}", self.address), "--token-file"])
            .arg(self.dir.join("data/admin.token"))
            .args(args)
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            out.status.code().unwrap_or(-1),
            text(&out.stdout) + &text(&out.stderr),
        )
    }

    /// `fleetctl … --json`.
    async fn ctl_json(&self, args: &[&str]) -> (i32, Value) {
        let (code, text) = self.ctl(&[args, &["--json"]].concat()).await;
        let json = text
            .lines()
            .take_while(|line| !line.starts_with("fleetctl:"))
            .collect::<Vec<_>>()
            .join("\n");
        (
            code,
            serde_json::from_str(&json).unwrap_or_else(|err| panic!("{err}: {text}")),
        )
    }

    async fn send(&self, method: &str, path: &str, token: &str, body: &Value) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let bytes = request(
            method,
            path,
            &[("authorization", &format!("Bearer {token}"))],
            &body,
        );
        let mut stream = tokio::net::TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Everything that anybody can read of this server.
    async fn all_that_can_be_read(&self) -> String {
        let admin = std::fs::read_to_string(self.dir.join("data/admin.token")).unwrap();
        let mut text = self.log();
        for path in ["/metrics", "/v1/receivers", "/v1/incidents", "/readyz"] {
            text.push_str(&self.send("GET", path, admin.trim(), &Value::Null).await);
        }
        text
    }

    async fn end(mut self) {
        let id = self
            .child
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()))
            .unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().await.unwrap().success());
    }
}

/// A beat with a report of one disk check.
fn disk(seq: u64, status: &str, summary: &str) -> Value {
    let mut beat = crate::fixture::beat(seq);
    let why = if status == "ok" { "fine" } else { "bytes_low" };
    beat["report"] = json!({
        "id": format!("00000000-0000-4000-8000-{seq:012}"), "at": "2026-11-21T20:00:00Z", "took_ms": 5,
        "checks": [{ "name": "disk", "status": status, "why": why, "summary": summary, "consecutive": 3,
            "since": "2026-11-21T19:54:00Z", "values": {} }],
    });
    beat["report_id"] = beat["report"]["id"].clone();
    beat
}

/// A file with a secret in `dir`.
fn secret_file(dir: &Path, name: &str, content: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, format!("{content}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}
