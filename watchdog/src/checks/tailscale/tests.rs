use super::*;
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

struct Box1 {
    dir: tempfile::TempDir,
    settings: TailscaleSettings,
}

/// A root directory with `traces` in it, and settings for a socket below it.
fn box_with(traces: &[&str]) -> Box1 {
    let dir = tempfile::tempdir().unwrap();
    for trace in traces {
        let path = dir.path().join(trace);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    let settings = TailscaleSettings {
        socket: dir.path().join("tailscaled.sock"),
        key_warning: Duration::from_secs(14 * 86_400),
        key_failing: Duration::from_secs(2 * 86_400),
        restart: None,
        timeout: Duration::from_millis(400),
    };
    Box1 { dir, settings }
}

fn ctx(root: PathBuf) -> Context {
    Context {
        now: "2026-11-21T20:00:00Z".parse().unwrap(),
        root,
        operator_stops: Vec::new(),
        uptime_secs: 100_000,
        monotonic: Duration::from_secs(100_000),
        boot_id: String::new(),
    }
}

impl Box1 {
    async fn check(&self) -> Finding {
        check(
            &self.settings,
            TailscaleHistory::default(),
            &ctx(self.dir.path().to_owned()),
        )
        .await
        .0
    }

    async fn check_unconfigured(&self) -> Finding {
        check_unconfigured(
            &self.settings,
            TailscaleHistory::default(),
            &ctx(self.dir.path().to_owned()),
        )
        .await
        .0
    }

    /// Answers the status with `status`, and the bus with `bus`.
    fn serve(&self, status: &'static str, bus: &'static str) {
        let listener = UnixListener::bind(&self.settings.socket).unwrap();
        tokio::spawn(async move {
            while let Ok((mut peer, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let n = peer.read(&mut request).await.unwrap();
                let body = if request[..n].starts_with(b"GET /localapi/v0/status") {
                    status
                } else {
                    bus
                };
                peer.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes())
                    .await
                    .unwrap();
            }
        });
    }
}

#[tokio::test]
async fn no_trace_of_tailscale() {
    let none = box_with(&[]);
    let f = none.check().await;
    assert_eq!((f.status, f.why), (Status::Unknown, KnownWhy::NotInstalled));
    assert!(f.summary.contains("enabled = false"), "{}", f.summary);
    let f = none.check_unconfigured().await;
    assert_eq!((f.status, f.why), (Status::Unknown, KnownWhy::NotConfigured));
    assert!(f.summary.contains("enabled = false"), "{}", f.summary);
}

#[tokio::test]
async fn installed_and_down() {
    let down = box_with(&["usr/sbin/tailscaled"]);
    let f = down.check().await;
    assert_eq!((f.status, f.why), (Status::Failing, KnownWhy::DaemonDown));
    assert_eq!(
        down.check_unconfigured().await.why,
        KnownWhy::NotConfigured,
        "installed, and nobody uses it"
    );
    let enabled = box_with(&["usr/sbin/tailscaled", ENABLED]);
    assert_eq!(
        enabled.check_unconfigured().await.why,
        KnownWhy::DaemonDown,
        "it is meant to run"
    );
}

#[tokio::test]
async fn killed_and_hung() {
    let killed = box_with(&[]);
    drop(std::os::unix::net::UnixListener::bind(&killed.settings.socket).unwrap());
    let f = killed.check().await;
    assert_eq!(
        (f.status, f.why),
        (Status::Failing, KnownWhy::DaemonDown),
        "{}",
        f.summary
    );

    let hung = box_with(&[]);
    let _listener = std::os::unix::net::UnixListener::bind(&hung.settings.socket).unwrap();
    let f = hung.check_unconfigured().await;
    assert_eq!(
        (f.status, f.why),
        (Status::Failing, KnownWhy::DaemonHung),
        "{}",
        f.summary
    );
}

#[tokio::test]
async fn running_is_told_with_its_figures() {
    let fine = box_with(&[]);
    fine.serve(
        r#"{"Version":"1.98.3","BackendState":"Running","Self":{"Online":true,"DNSName":"box1.t.ts.net.","Relay":"fra","KeyExpiry":"2027-01-02T03:04:05Z"}}"#,
        "{\"Health\":{\"Warnings\":null}}\n",
    );
    let f = fine.check().await;
    assert_eq!((f.status, f.why), (Status::Ok, KnownWhy::Fine), "{}", f.summary);
    assert_eq!(
        f.summary,
        "box1.t.ts.net is online (relay fra); its key lasts 41 d 7 h more"
    );
    assert_eq!(f.values["backend_state"], json!("Running"));
    assert_eq!(f.values["health_codes"], json!([]));
    assert_eq!(f.values["key_left_secs"], json!(41 * 86_400 + 7 * 3600 + 245));
}

#[tokio::test]
async fn what_is_no_local_api_is_not_called_a_failure() {
    let odd = box_with(&[]);
    odd.serve("[]", "");
    let f = odd.check().await;
    assert_eq!((f.status, f.why), (Status::Unknown, KnownWhy::CheckError));
    assert!(
        f.summary.contains("tailscaled.sock") && f.summary.contains("no JSON object"),
        "{}",
        f.summary
    );
}
