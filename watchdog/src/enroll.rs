//! `fleet-watchdog enroll`: asks a server for this box's token with an enrolment code, and keeps it.
//!
//! It writes the token file and nothing else: no configuration is changed, no unit started. The place for the token is
//! made before the code is used, so that a full disk or a missing right does not cost a code.

use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::enroll::{EnrollAnswer, EnrollRequestBody};
use protocol::limits;
use protocol::names::{BoxName, Labels};
use protocol::problem::Problem;
use protocol::secret::Secret;
use url::Url;

use crate::beat::lane::{Answer, Connection, LaneError, Order, Progress};
use crate::beat::target::{Target, TargetError, tls_config};
use crate::config::is_private;

const ENDPOINT: &str = "/v1/enroll";
/// Addresses tried, one after the other, as long as no connection stands.
const TRIES: u32 = 3;
/// The group that the services run as; with it a token that root wrote can be read by them.
const GROUP: &str = "fleet-watchdog";
/// Bytes of `/etc/group` that are read.
const GROUP_BYTES: u64 = 1024 * 1024;

/// What to ask, and where to keep the answer.
#[derive(Debug)]
pub struct Enrolment {
    /// The server.
    pub server: Url,
    /// The code that an operator created.
    pub code: Secret,
    /// The wanted name.
    pub name: BoxName,
    /// The declared labels.
    pub labels: Labels,
    /// Where the token is kept.
    pub token_file: PathBuf,
    /// Certificates to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// Replace an existing token file.
    pub force: bool,
}

/// What came of it; `Display` tells what to do next.
#[derive(Debug)]
pub struct Enrolled {
    /// The name that the server knows the box by.
    pub name: BoxName,
    /// The server.
    pub server: Url,
    /// Where the token is.
    pub token_file: PathBuf,
}

impl fmt::Display for Enrolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = self.server.as_str().trim_end_matches('/');
        let token_file = self.token_file.display();
        write!(
            f,
            "Enrolled as {name}. The token is in {token_file}.\n\n\
             Next, if it is not there yet, write into the configuration\n\n    \
             [server]\n    urls = [{server:?}]\n    token_file = \"{token_file}\"\n\n\
             and then\n\n    systemctl enable --now fleet-watchdog.timer fleet-watchdog-beat.service",
            name = self.name,
        )
    }
}

/// Why there is no token. Each says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The token would travel in the clear.
    #[error("{0} would send the token in the clear; write https://, or the server's address inside a tunnel")]
    InTheClear(Url),
    /// There is one already.
    #[error(
        "{0} exists: this box has a token; --force replaces it (the old one stays valid until `fleetctl box revoke`)"
    )]
    Exists(PathBuf),
    /// The token could not be kept.
    #[error("cannot write {path}: {source}; run it as root, or give --token-file", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server's URL or certificates.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The server could not be asked.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// The server said no.
    #[error("{server} refuses ({status}{}): {advice}", detail(.problem.as_deref()))]
    Refused {
        /// The server.
        server: Arc<str>,
        /// HTTP status.
        status: u16,
        /// What it said.
        problem: Option<Box<Problem>>,
        /// What to do.
        advice: &'static str,
    },
    /// 200, but not an enrolment.
    #[error("{0} answers, but not as a fleet server does; check --server")]
    NotAServer(Arc<str>),
}

fn detail(problem: Option<&Problem>) -> String {
    let text = problem.map(|p| p.detail.clone().unwrap_or_else(|| p.title.clone()));
    let text: String = text
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    if text.is_empty() {
        text
    } else {
        format!(", {text:?}")
    }
}

/// Asks, and writes the token file (by rename; for root and the services' group, or for its owner alone).
pub async fn run(enrolment: Enrolment) -> Result<Enrolled, EnrollError> {
    let Enrolment {
        server,
        code,
        name,
        labels,
        token_file,
        ca_file,
        force,
    } = enrolment;
    if server.scheme() == "http" && !is_private(&server) {
        return Err(EnrollError::InTheClear(server));
    }
    if !force && token_file.symlink_metadata().is_ok() {
        return Err(EnrollError::Exists(token_file));
    }
    let tls = if server.scheme() == "https" {
        Some(tls_config(ca_file.as_deref())?)
    } else {
        None
    };
    let target = Arc::new(Target::new(&server, ENDPOINT, tls.as_ref())?);
    let place = Place::make(&token_file)?;
    let body = EnrollRequestBody {
        code: code.expose(),
        name: &name,
        labels: &labels,
    };
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let answer = ask(&target, body).await?;
    let enrolled = read(&target, &answer)?;
    place.keep(&enrolled.token)?;
    Ok(Enrolled {
        name: enrolled.name,
        server,
        token_file,
    })
}

/// A second try only while no connection stands: a code that was sent may be used up.
async fn ask(target: &Arc<Target>, body: Vec<u8>) -> Result<Answer, LaneError> {
    let mut turn = 0;
    let mut connection = loop {
        match Connection::open(target, turn, &Progress::default()).await {
            Ok(connection) => break connection,
            Err(error) if turn + 1 == TRIES => return Err(error),
            Err(_) => turn += 1,
        }
    };
    let order = Order {
        late_too: true,
        authorization: None,
        body: body.into(),
    };
    connection.exchange(order).await
}

fn read(target: &Target, answer: &Answer) -> Result<EnrollAnswer, EnrollError> {
    if !(200..300).contains(&answer.status) {
        return Err(EnrollError::Refused {
            server: Arc::clone(&target.label),
            status: answer.status,
            problem: serde_json::from_slice(&answer.body).ok(),
            advice: advice(answer.status),
        });
    }
    let enrolled: Result<EnrollAnswer, _> = serde_json::from_slice(&answer.body);
    let is_token = |token: &Secret| {
        let text = token.expose();
        !text.is_empty() && text.len() <= limits::TOKEN_BYTES && text.bytes().all(|b| b.is_ascii_graphic())
    };
    let enrolled = enrolled.ok().filter(|enrolled| is_token(&enrolled.token));
    enrolled.ok_or_else(|| EnrollError::NotAServer(Arc::clone(&target.label)))
}

fn advice(status: u16) -> &'static str {
    match status {
        400 | 422 => "mend --name or the labels in the configuration",
        401 | 403 => "the code is unknown, used up or expired; `fleetctl enroll-code create` makes another",
        404 | 405 => "there is no enrolment at this URL; check --server",
        409 => {
            "a box of this name is there already; give another --name, or a token by `fleetctl box rotate`"
        }
        429 => "too many tries; wait a minute",
        300..=399 => "it redirects; give the URL that it redirects to",
        _ => "look at the server's log, and try again",
    }
}

/// A file beside the token file, ready to take its place. Removed unless it did.
struct Place {
    file: File,
    fresh: PathBuf,
    path: PathBuf,
    kept: bool,
}

impl Place {
    fn make(path: &Path) -> Result<Self, EnrollError> {
        let error = |source| EnrollError::Write {
            path: path.to_owned(),
            source,
        };
        let name = path
            .file_name()
            .ok_or_else(|| error(ErrorKind::InvalidFilename.into()))?;
        let fresh = path.with_file_name(format!(".{}.new-{}", name.to_string_lossy(), std::process::id()));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(error)?;
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(error)?;
        Ok(Self {
            file,
            fresh,
            path: path.to_owned(),
            kept: false,
        })
    }

    fn keep(mut self, token: &Secret) -> Result<(), EnrollError> {
        let result = self.write(token);
        self.kept = result.is_ok();
        result.map_err(|source| EnrollError::Write {
            path: self.path.clone(),
            source,
        })
    }

    fn write(&mut self, token: &Secret) -> io::Result<()> {
        if rustix::process::geteuid().is_root()
            && let Some(gid) = group_id()
        {
            fchown(&self.file, None, Some(gid))?;
            self.file.set_permissions(Permissions::from_mode(0o640))?;
        }
        self.file.write_all(format!("{}\n", token.expose()).as_bytes())?;
        self.file.sync_all()?;
        std::fs::rename(&self.fresh, &self.path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.fresh);
        }
    }
}

fn group_id() -> Option<u32> {
    let mut text = String::new();
    File::open("/etc/group")
        .ok()?
        .take(GROUP_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    let line = text.lines().find(|line| line.split(':').next() == Some(GROUP))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with `status` and `body`; gives what was asked.
    async fn server(status: &'static str, body: &'static str) -> (Url, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let mut n = 0;
            while !String::from_utf8_lossy(&buffer[..n]).contains('}') {
                n += stream.read(&mut buffer[n..]).await.unwrap();
            }
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&buffer[..n]).into_owned()
        });
        (url, asked)
    }

    fn enrolment(server: Url, dir: &Path) -> Enrolment {
        Enrolment {
            server,
            code: Secret::new("c0de"),
            name: "box-1".parse().unwrap(),
            labels: Labels::from_texts([("site", "fsn1")]).unwrap(),
            token_file: dir.join("etc/token"),
            ca_file: None,
            force: false,
        }
    }

    #[tokio::test]
    async fn the_token_is_kept_and_not_replaced_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let (url, asked) = server("201 Created", r#"{"token":"s3cret","name":"box-1"}"#).await;
        let enrolled = run(enrolment(url.clone(), dir.path())).await.unwrap();
        let asked = asked.await.unwrap();
        assert!(
            asked.starts_with("POST /v1/enroll ") && !asked.contains("authorization"),
            "{asked}"
        );
        assert!(
            asked.ends_with(r#"{"code":"c0de","name":"box-1","labels":{"site":"fsn1"}}"#),
            "{asked}"
        );
        let next = enrolled.to_string();
        assert!(
            next.contains("systemctl enable") && !next.contains("s3cret"),
            "{next}"
        );
        let path = dir.path().join("etc/token");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "s3cret\n");
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert!(mode == 0o600 || mode == 0o640, "{mode:o}");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

        let error = run(enrolment(url, dir.path())).await.unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        let (url, _asked) = server("201 Created", r#"{"token":"an0ther","name":"box-1"}"#).await;
        let mut forced = enrolment(url, dir.path());
        forced.force = true;
        run(forced).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "an0ther\n");
    }

    #[tokio::test]
    async fn a_refusal_says_what_to_do_and_leaves_nothing() {
        for (status, body, says) in [
            ("401 Unauthorized", "{}", "enroll-code create"),
            (
                "409 Conflict",
                r#"{"title":"Taken","status":409,"detail":"box-1 exists"}"#,
                "\"box-1 exists\"",
            ),
            ("400 Bad Request", "", "--name"),
            ("200 OK", "<html>", "--server"),
            ("200 OK", r#"{"token":"two words","name":"box-1"}"#, "--server"),
            ("302 Found", "", "redirects"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (url, _asked) = server(status, body).await;
            let error = run(enrolment(url, dir.path())).await.unwrap_err().to_string();
            assert!(error.contains(says), "{status}: {error}");
            assert_eq!(
                std::fs::read_dir(dir.path().join("etc")).unwrap().count(),
                0,
                "{status}"
            );
        }
    }

    #[tokio::test]
    async fn no_code_is_used_in_the_clear_or_without_a_place_for_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let public = enrolment("http://203.0.113.9".parse().unwrap(), dir.path());
        let error = run(public).await.unwrap_err().to_string();
        assert!(error.contains("https://"), "{error}");

        std::fs::write(dir.path().join("etc"), "a file where a directory should be").unwrap();
        let (url, asked) = server("201 Created", "{}").await;
        let error = run(enrolment(url, dir.path())).await.unwrap_err().to_string();
        assert!(
            error.contains("cannot write") && error.contains("etc/token"),
            "{error}"
        );
        assert!(!asked.is_finished(), "the code was not sent");
        asked.abort();
    }
}
