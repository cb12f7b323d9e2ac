//! Real programs, real process groups.

use std::time::Duration;

use super::*;

fn shell(script: &str, timeout: Duration) -> CommandRequest {
    CommandRequest {
        argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
        stdin: b"{\"key\":\"k\"}\n".to_vec(),
        timeout,
    }
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn it_reads_the_notification_and_its_words_are_kept() {
    let answer = run(&shell("cat; exit 3", LONG)).await.unwrap();
    assert_eq!(
        (answer.code, answer.output.as_str()),
        (Some(3), "{\"key\":\"k\"}")
    );
    let answer = run(&shell("echo out; echo wrong >&2", LONG)).await.unwrap();
    assert_eq!((answer.code, answer.output.as_str()), (Some(0), "wrong"));
}

#[tokio::test]
async fn endless_output_is_bounded_and_does_not_hang_it() {
    let answer = run(&shell("head -c 3000000 /dev/zero | tr '\\0' x", LONG))
        .await
        .unwrap();
    assert_eq!(answer.code, Some(0));
    assert!(answer.output.len() < OUTPUT_BYTES);
}

#[tokio::test]
async fn too_slow_is_killed_with_all_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", file.display());
    let err = run(&shell(&script, Duration::from_millis(500)))
        .await
        .unwrap_err();
    assert!(err.to_string().contains("did not end within 500ms"), "{err}");
    assert!(gone(&file).await, "the grandchild is still there");
}

#[tokio::test]
async fn nothing_stays_behind_after_a_good_end_either() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}", file.display());
    let answer = run(&shell(&script, LONG)).await.unwrap();
    assert_eq!(answer.code, Some(0));
    assert!(gone(&file).await, "the grandchild is still there");
}

#[tokio::test]
async fn the_servers_environment_is_not_the_programs() {
    let answer = run(&shell("echo ${CARGO_MANIFEST_DIR:-none}", LONG))
        .await
        .unwrap();
    assert_eq!(answer.output, "none");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named_with_the_fix() {
    let mut request = shell("", LONG);
    request.argv = vec!["/no/such/program".into()];
    let err = run(&request).await.unwrap_err();
    assert!(
        err.to_string().contains("No such file") && err.to_string().contains("must be there"),
        "{err}"
    );
    assert_eq!(err.word(), "denied");
}

/// Whether the process whose id stands in `file` is gone, or dead and only not yet waited for.
async fn gone(file: &std::path::Path) -> bool {
    let pid = std::fs::read_to_string(file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    for _ in 0..100 {
        match std::fs::read_to_string(&stat) {
            Err(_) => return true,
            Ok(text) if text.contains(") Z ") => return true,
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    false
}
