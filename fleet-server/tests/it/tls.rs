//! HTTPS from end to end: a certificate of the test's own, `fleetctl` that trusts it, and one that does not.

use std::process::Command;

use rcgen::{CertifiedKey, generate_simple_self_signed};

use crate::fixture::Running;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleetctl_over_https() {
    let dir = tempfile::tempdir().unwrap();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert_file, key_file) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert_file, cert.pem()).unwrap();
    std::fs::write(&key_file, signing_key.serialize_pem()).unwrap();
    let tls = format!("[tls]\ncert_file = {cert_file:?}\nkey_file = {key_file:?}\n[canary]\n");
    let server = Running::start(dir.path(), &tls).await;
    let url = format!("https://localhost:{}", server.address.port());
    let ctl = async |ca: bool, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetctl"));
        command
            .args(["--server", &url, "--token-file"])
            .arg(dir.path().join("data/admin.token"));
        if ca {
            command.arg("--ca-file").arg(&cert_file);
        }
        command.args(args);
        let out = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr),
        )
    };
    assert_eq!(
        ctl(true, &["box", "list"]).await,
        (Some(0), "no boxes\n".to_owned())
    );
    // The server's own canary beats over HTTPS, too.
    for attempt in 0.. {
        let (_, text) = ctl(true, &["box", "show", "fleet-canary"]).await;
        if text.contains("live") {
            break;
        }
        assert!(attempt < 100, "{text}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let (code, text) = ctl(false, &["box", "list"]).await;
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("certificate"), "{text}");
    server.stop().await;
}
