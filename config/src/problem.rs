//! What is wrong with a configuration file, said so that it can be mended: file, line, key, value, and what would be right.
//!
//! It judges nothing.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One thing wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1, where known.
    pub line: Option<usize>,
    /// The key as a path (`gateway.probe.timeout`), where one is concerned.
    pub key: Option<String>,
    /// The value as written, bounded; never that of a secret.
    pub value: Option<String>,
    /// What is wrong and what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key, &self.value) {
            (Some(key), Some(value)) => write!(f, "{key} = {value}: {}", self.text),
            (Some(key), None) => write!(f, "{key}: {}", self.text),
            (None, _) => f.write_str(&self.text),
        }
    }
}

/// Every problem of one file, in the file's order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.render())]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// One problem that concerns the whole file.
    pub fn whole(file: &Path, text: impl Into<String>) -> Self {
        let problem = Problem {
            line: None,
            key: None,
            value: None,
            text: text.into(),
        };
        Self {
            file: file.to_owned(),
            problems: vec![problem],
        }
    }

    fn render(&self) -> String {
        let file = self.file.display();
        let lines = self.problems.iter().map(|problem| match problem.line {
            Some(line) => format!("{file}:{line}: {problem}"),
            None => format!("{file}: {problem}"),
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Collects the problems of one text.
pub struct Problems<'a> {
    text: &'a str,
    found: RefCell<Vec<(usize, Problem)>>,
}

/// Characters of a value that are repeated in a message.
const VALUE_CHARS: usize = 80;

impl<'a> Problems<'a> {
    /// For the problems of `text`.
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            found: RefCell::default(),
        }
    }

    /// `key` at `span` is wrong; its value is shown as written.
    pub fn add(&self, key: &str, span: &Range<usize>, text: impl Into<String>) {
        let written = self.text.get(span.clone()).unwrap_or_default();
        let mut value: String = written
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(VALUE_CHARS)
            .collect();
        if value.len() < written.trim_end().len() {
            value.push('…');
        }
        self.push(key, span.start, Some(value), text.into());
    }

    /// `key` at `span` is wrong, and its value is better not shown (or is none).
    pub fn add_bare(&self, key: &str, span: &Range<usize>, text: impl Into<String>) {
        self.push(key, span.start, None, text.into());
    }

    /// Not TOML, at `span`.
    pub fn add_syntax(&self, span: Option<Range<usize>>, text: &str) {
        let start = span.map(|s| s.start);
        let problem = Problem {
            line: start.map(|at| self.line(at)),
            key: None,
            value: None,
            text: format!("not valid TOML: {text}"),
        };
        self.found.borrow_mut().push((start.unwrap_or(0), problem));
    }

    /// Whether none was found so far.
    pub fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// All of them, by their place in the file.
    pub fn into_error(self, file: &Path) -> ConfigError {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(at, _)| *at);
        ConfigError {
            file: file.to_owned(),
            problems: found.into_iter().map(|(_, problem)| problem).collect(),
        }
    }

    fn push(&self, key: &str, at: usize, value: Option<String>, text: String) {
        let problem = Problem {
            line: Some(self.line(at)),
            key: Some(key.to_owned()),
            value,
            text,
        };
        self.found.borrow_mut().push((at, problem));
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or(self.text);
        before.bytes().filter(|&b| b == b'\n').count() + 1
    }
}
