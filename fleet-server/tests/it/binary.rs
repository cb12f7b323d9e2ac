//! Both programs as processes: exit codes, what stands on stdout, what on stderr.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const SERVER: &str = env!("CARGO_BIN_EXE_fleet-server");
const CTL: &str = env!("CARGO_BIN_EXE_fleetctl");

fn run(program: &str, args: &[&str]) -> (i32, String, String) {
    let out = Command::new(program)
        .args(args)
        .env_remove("FLEET_SERVER")
        .env_remove("FLEET_TOKEN_FILE")
        .output()
        .unwrap();
    told(&out)
}

fn told(out: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        out.status.code().unwrap_or(-1),
        text(&out.stdout),
        text(&out.stderr),
    )
}

/// A server process; its log says on which port it listens.
struct Process {
    child: Child,
    url: String,
}

fn start(dir: &Path) -> Process {
    let config = dir.join("fleet-server.toml");
    std::fs::write(
        &config,
        format!("listen = \"127.0.0.1:0\"\ndata_dir = {:?}\n", dir.join("data")),
    )
    .unwrap();
    let mut child = Command::new(SERVER)
        .arg("--config")
        .arg(&config)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let url = loop {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended");
        if let Some(rest) = line.split("address=").nth(1) {
            break format!("http://{}", rest.split_whitespace().next().unwrap());
        }
    };
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    Process { child, url }
}

impl Process {
    fn ctl(&self, dir: &Path, args: &[&str]) -> (i32, String, String) {
        let token = dir.join("data/admin.token");
        let mut all = vec!["--server", &self.url, "--token-file", token.to_str().unwrap()];
        all.extend(args);
        run(CTL, &all)
    }

    fn signal(&mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

#[test]
fn a_wrong_configuration_ends_with_78_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.toml");
    let data = dir.path().join("data");
    std::fs::write(
        &file,
        format!("data_dir = {data:?}\n[liveness]\nevery = \"1x\"\n"),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    for args in [&["check-config", file][..], &["--config", file]] {
        let (code, out, err) = run(SERVER, args);
        assert_eq!((code, out.as_str()), (78, ""), "{err}");
        for word in [file, ":3:", "liveness.every", "1x", "such as"] {
            assert!(err.contains(word), "{err:?} lacks {word:?}");
        }
    }
    assert!(!data.exists());
    assert_eq!(run(SERVER, &["--config", "/no/such/file"]).0, 78);
    let keys = dir.path().join("tls.toml");
    std::fs::write(
        &keys,
        "[tls]\ncert_file = \"/etc/hosts\"\nkey_file = \"/etc/hosts\"\n",
    )
    .unwrap();
    let (code, _, err) = run(SERVER, &["check-config", keys.to_str().unwrap()]);
    assert_eq!(code, 78);
    assert!(
        err.contains("tls.cert_file") && err.contains("/etc/hosts"),
        "{err}"
    );
    std::fs::write(&keys, "").unwrap();
    assert_eq!(run(SERVER, &["check-config", keys.to_str().unwrap()]).0, 0);
}

#[test]
fn fleetctl_and_the_servers_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(dir.path());
    let ctl = |server: &Process, args: &[&str]| server.ctl(dir.path(), args);
    let (code, token, err) = ctl(&server, &["box", "add", "box-1", "--label", "site=fsn1"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        token.starts_with("fwb_") && token.trim().len() == 68 && token.lines().count() == 1,
        "{token:?}"
    );
    let (code, out, err) = ctl(&server, &["box", "add", "box-1"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("already a box named box-1"), "{err}");
    let (code, out, _) = ctl(&server, &["box", "list"]);
    assert!(
        code == 0 && out.contains("box-1") && out.contains("unseen") && out.contains("site=fsn1"),
        "{out}"
    );
    assert!(!out.contains('\x1b'), "no colour in a pipe");
    let (_, out, _) = ctl(&server, &["box", "list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["boxes"][0]["name"], "box-1");
    let (code, out, _) = ctl(
        &server,
        &["enroll-code", "create", "--uses", "3", "--expires", "2h"],
    );
    assert!(code == 0 && out.starts_with("fwe_"), "{out}");
    assert_eq!(ctl(&server, &["box", "show", "nobody"]).0, 1);
    assert_eq!(
        ctl(&server, &["incident", "list"]),
        (0, "no incidents\n".into(), String::new())
    );
    let (code, out, _) = ctl(
        &server,
        &[
            "box",
            "witness",
            "box-1",
            "192.0.2.1:22",
            "tailscale:box-1",
            "--json",
        ],
    );
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &json["witnesses"]),
        (0, &serde_json::json!(["192.0.2.1:22", "tailscale:box-1"]))
    );
    assert_eq!(ctl(&server, &["box", "witness", "box-1", "http://x"]).0, 2);
    assert_eq!(ctl(&server, &["box", "rotate", "box-1"]).0, 0);
    assert_eq!(ctl(&server, &["box", "revoke", "box-1"]).0, 0);
    assert_eq!(ctl(&server, &["box", "remove", "box-1"]).0, 0);
    assert_eq!(ctl(&server, &["box", "add", "bad name"]).0, 2);

    let token = dir.path().join("other.token");
    std::fs::write(&token, "fwo_nobody").unwrap();
    let with = |url: &str, token: &Path| {
        run(
            CTL,
            &[
                "--server",
                url,
                "--token-file",
                token.to_str().unwrap(),
                "box",
                "list",
            ],
        )
    };
    assert_eq!(with(&server.url, &token).0, 4);
    let (code, _, err) = with(&server.url, Path::new("/no/such"));
    assert!(code == 2 && err.contains("--token-file"), "{err}");
    let (code, _, err) = with("http://fleet.example.net", &token);
    assert!(code == 2 && err.contains("in the clear"), "{err}");
    assert_eq!(server.signal(Signal::TERM), Some(0));
    let (code, _, err) = with(&server.url, &token);
    assert!(code == 3 && err.contains("refused"), "{err}");

    // What was done is there after a kill, too.
    let mut server = start(dir.path());
    assert_eq!(ctl(&server, &["box", "add", "box-2"]).0, 0);
    server.signal(Signal::KILL);
    let mut server = start(dir.path());
    let (_, out, _) = ctl(&server, &["box", "list"]);
    assert!(out.contains("box-2") && !out.contains("box-1"), "{out}");
    assert_eq!(server.signal(Signal::INT), Some(0));
}

#[test]
fn two_servers_never_share_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = start(dir.path());
    let config = dir.path().join("fleet-server.toml");
    let (code, _, err) = run(SERVER, &["--config", config.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(err.contains(&format!("pid {}", first.child.id())), "{err}");
    assert_eq!(first.signal(Signal::TERM), Some(0));
}
