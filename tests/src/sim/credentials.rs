//! How the played boxes come by their tokens.
//!
//! Tokens are read from files only, and written to one with mode 0600; none is printed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use protocol::api::{AddBox, NewToken, RotateBox};
use protocol::enroll::{EnrollAnswer, EnrollRequestBody};
use protocol::names::{BoxName, Labels};
use protocol::secret::Secret;
use protocol::witness::Targets;

use crate::http;

/// Requests under way at once.
const AT_ONCE: usize = 8;

/// Where tokens come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file of `name<TAB>token` lines; the boxes are those in it.
    File(PathBuf),
    /// An enrolment code, in a file, good for as many uses as there are boxes.
    EnrollCode(PathBuf),
    /// The operators' API with an admin token, in a file: adds the boxes, and rotates those that are there already.
    Admin(PathBuf),
}

/// A box as the server knows it.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its name.
    pub name: BoxName,
    /// What it declares.
    pub labels: Labels,
    /// Its token.
    pub token: Secret,
}

/// Gets every box its token. With [`Source::File`] the wanted boxes only give labels to those of the same name.
pub fn obtain(server: &str, source: &Source, wanted: &[(BoxName, Labels)]) -> Result<Vec<Known>> {
    match source {
        Source::File(path) => from_file(path, wanted),
        Source::EnrollCode(path) => {
            let code = secret(path)?;
            for_each(wanted, |name, labels| enroll(server, &code, name, labels))
        }
        Source::Admin(path) => {
            let admin = secret(path)?;
            for_each(wanted, |name, labels| add(server, &admin, name, labels))
        }
    }
}

/// Writes `name<TAB>token` lines for a later run.
pub fn save(path: &Path, known: &[Known]) -> Result<()> {
    let file = fs::File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    for one in known {
        writeln!(file, "{}\t{}", one.name, one.token.expose())?;
    }
    Ok(())
}

fn from_file(path: &Path, wanted: &[(BoxName, Labels)]) -> Result<Vec<Known>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let known = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .enumerate()
        .map(|(n, line)| {
            let at = || format!("{}, line {}: want name<TAB>token", path.display(), n + 1);
            let (name, token) = line.split_once('\t').with_context(at)?;
            let name = BoxName::new(name).with_context(at)?;
            let labels = wanted.iter().find(|(other, _)| *other == name);
            let labels = labels.map(|(_, labels)| labels.clone()).unwrap_or_default();
            Ok(Known {
                name,
                labels,
                token: Secret::new(token),
            })
        });
    known.collect()
}

fn secret(path: &Path) -> Result<Secret> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let secret = Secret::new(text);
    ensure!(!secret.is_empty(), "{} is empty", path.display());
    Ok(secret)
}

fn enroll(server: &str, code: &Secret, name: &BoxName, labels: &Labels) -> Result<Secret> {
    let body = EnrollRequestBody {
        code: code.expose(),
        name,
        labels,
    };
    let url = format!("{server}/v1/enroll");
    let json = [("content-type", "application/json")];
    let answer = http::send("POST", &url, &json, &serde_json::to_vec(&body)?)?;
    let answer: EnrollAnswer = serde_json::from_value(answer.json()?)?;
    ensure!(
        answer.name == *name,
        "asked for {name}, was enrolled as {}",
        answer.name
    );
    Ok(answer.token)
}

fn add(server: &str, admin: &Secret, name: &BoxName, labels: &Labels) -> Result<Secret> {
    let bearer = format!("Bearer {}", admin.expose());
    let headers = [
        ("content-type", "application/json"),
        ("authorization", bearer.as_str()),
    ];
    let wish = AddBox {
        name: name.clone(),
        labels: labels.clone(),
        witnesses: Targets::default(),
    };
    let added = http::send(
        "POST",
        &format!("{server}/v1/boxes"),
        &headers,
        &serde_json::to_vec(&wish)?,
    )?;
    let answer = if added.status == 409 {
        let url = format!("{server}/v1/boxes/{name}/rotate");
        let at_once = RotateBox {
            overlap_secs: Some(0),
        };
        http::send("POST", &url, &headers, &serde_json::to_vec(&at_once)?)?
    } else {
        added
    };
    let answer: NewToken = serde_json::from_value(answer.json()?)?;
    Ok(answer.token)
}

/// Some at once, in the order given; the first error ends it.
fn for_each(
    wanted: &[(BoxName, Labels)],
    get: impl Fn(&BoxName, &Labels) -> Result<Secret> + Sync,
) -> Result<Vec<Known>> {
    let share = wanted.len().div_ceil(AT_ONCE).max(1);
    let stop = AtomicBool::new(false);
    let work = |part: &[(BoxName, Labels)]| -> Result<Vec<Known>> {
        let mut known = Vec::with_capacity(part.len());
        for (name, labels) in part {
            ensure!(!stop.load(Ordering::Relaxed), "another box got no token");
            let token = get(name, labels).inspect_err(|_| stop.store(true, Ordering::Relaxed));
            let token = token.with_context(|| format!("no token for {name}"))?;
            known.push(Known {
                name: name.clone(),
                labels: labels.clone(),
                token,
            });
        }
        Ok(known)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = wanted
            .chunks(share)
            .map(|part| scope.spawn(|| work(part)))
            .collect();
        let mut all = Vec::with_capacity(wanted.len());
        for worker in workers {
            all.extend(
                worker
                    .join()
                    .map_err(|_| anyhow::anyhow!("getting a token panicked"))??,
            );
        }
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn wanted(count: usize) -> Vec<(BoxName, Labels)> {
        (0..count)
            .map(|n| (BoxName::new(format!("sim-{n}")).unwrap(), Labels::default()))
            .collect()
    }

    #[test]
    fn everyone_gets_the_own_token_in_order() {
        let known = for_each(&wanted(21), |name, _| Ok(Secret::new(format!("token of {name}")))).unwrap();
        assert_eq!(known.len(), 21);
        for (n, one) in known.iter().enumerate() {
            assert_eq!(one.token.expose(), format!("token of sim-{n}"));
        }
        assert!(for_each(&wanted(21), |_, _| bail!("no")).is_err());
    }

    #[test]
    fn a_file_written_is_a_file_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let known = for_each(&wanted(3), |name, _| Ok(Secret::new(format!("t-{name}")))).unwrap();
        save(&path, &known).unwrap();
        let labels = Labels::from_texts([("site", "fsn1")]).unwrap();
        let again = from_file(&path, &[(known[1].name.clone(), labels)]).unwrap();
        assert_eq!(again[1].token.expose(), "t-sim-1");
        assert_eq!(again[1].labels.get("site"), Some("fsn1"));
        assert_eq!(again[0].labels.get("site"), None);
    }

    #[test]
    fn a_bad_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, "a\tt\nb t\n").unwrap();
        let said = format!("{:#}", from_file(&path, &[]).unwrap_err());
        assert!(said.contains("line 2"), "{said}");
    }
}
