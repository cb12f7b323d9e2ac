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
    let tls = format!("[tls]\ncert_file = {cert_file:?}\nkey_file = {key_file:?}\n");
    let server = Running::start(dir.path(), &tls).await;
    let url = format!("https://localhost:{}", server.address.port());
    let list = async |ca: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetctl"));
        command
            .args(["--server", &url, "--token-file"])
            .arg(dir.path().join("data/admin.token"));
        if ca {
            command.arg("--ca-file").arg(&cert_file);
        }
        command.args(["box", "list"]);
        let out = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr),
        )
    };
    assert_eq!(list(true).await, (Some(0), "no boxes\n".to_owned()));
    let (code, text) = list(false).await;
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("certificate"), "{text}");
    server.stop().await;
}
