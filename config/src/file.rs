//! A configuration file as bytes: read within a bound, held to be UTF-8 and TOML, and handed over to be walked.

use std::io::{Error, ErrorKind, Read};
use std::path::Path;

use toml::de::DeTable;

use crate::problem::{ConfigError, Problems};
use crate::section::Section;

/// Bytes of a configuration file: a hundred times what a long one takes.
const FILE_BYTES: u64 = 256 * 1024;

/// Walks `bytes`, the content of `file`: `settings` reads the top level, and every key that it did not ask for, and
/// every other mistake, is in the error.
pub fn parse<T>(
    file: &Path,
    bytes: &[u8],
    settings: impl FnOnce(&Section<'_>) -> Option<T>,
) -> Result<T, ConfigError> {
    let text = std::str::from_utf8(bytes).map_err(|err| {
        let at = err.valid_up_to();
        let line = bytes[..at].split(|&b| b == b'\n').count();
        let text = format!("line {line} is not UTF-8 (byte {at}); save the file as UTF-8");
        ConfigError::whole(file, text)
    })?;
    let problems = Problems::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for err in errors {
        problems.add_syntax(err.span(), err.message());
    }
    // What a recovering parser makes of broken syntax would only give misleading errors about keys.
    if !problems.is_empty() {
        return Err(problems.into_error(file));
    }
    let top = Section::new("", 0..0, Some(table.get_ref()), &problems);
    let settings = settings(&top);
    top.finish();
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        Some(_) | None => Err(problems.into_error(file)),
    }
}

/// The content of `path`, if it is not absurdly long.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES {
        let text = format!("it is over {FILE_BYTES} bytes long, which no configuration is");
        return Err(Error::new(ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// Why `file` could not be read, with the fix.
pub fn unreadable(file: &Path, err: &Error) -> ConfigError {
    let text = match err.kind() {
        ErrorKind::NotFound => {
            "there is no such file; give an existing one, or leave --config out for the default one"
                .to_owned()
        }
        ErrorKind::PermissionDenied => {
            format!(
                "cannot be read: {err}; run as root, or make it readable (chmod 0644): it holds no secret"
            )
        }
        _ => format!("cannot be read: {err}"),
    };
    ConfigError::whole(file, text)
}
