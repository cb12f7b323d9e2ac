//! A user's number and home directory, from `/etc/passwd`.
//!
//! It asks no name service: accounts from LDAP and the like are not found here, and the error says what to set instead.

use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest `/etc/passwd` that is read; 20,000 accounts.
const PASSWD_BYTES: u64 = 2 * 1024 * 1024;

/// One account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub uid: u32,
    /// Its home directory.
    pub home: PathBuf,
}

/// Why an account is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// No line for it.
    #[error("there is no user {0} in /etc/passwd")]
    NotFound(String),
    /// The file cannot be read.
    #[error("cannot read {path}: {detail}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
}

/// The account called `name` (or numbered so) on the system under `root`.
pub fn by_name(root: &Path, name: &str) -> Result<Account, AccountError> {
    let path = root.join("etc/passwd");
    let mut text = String::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(PASSWD_BYTES).read_to_string(&mut text))
        .map_err(|error| AccountError::Unreadable {
            path,
            detail: error.to_string(),
        })?;
    find(&text, name).ok_or_else(|| AccountError::NotFound(name.to_owned()))
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (user, number) = (fields.next()?, fields.nth(1)?);
        let uid = number.parse().ok()?;
        let home = fields.nth(2)?;
        (user == name || number == name).then(|| Account {
            uid,
            home: PathBuf::from(home),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\nagent:x:1001:1001:,,,:/home/agent:/bin/sh\n";
        let agent = Account {
            uid: 1001,
            home: "/home/agent".into(),
        };
        assert_eq!(find(passwd, "agent"), Some(agent.clone()));
        assert_eq!(find(passwd, "1001"), Some(agent));
        assert_eq!(find(passwd, "agen"), None);
        let err = by_name(Path::new("/nonexistent"), "x").unwrap_err().to_string();
        assert!(err.contains("/nonexistent/etc/passwd"), "{err}");
    }
}
