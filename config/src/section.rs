//! Reads one table of the file, value by value, and collects what is wrong instead of stopping at the first.
//!
//! It knows types, ranges and spelling; what a key means stands in the topic's own file beside this one.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use protocol::names::{BadName, UnitName};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problems;
use super::scalar::{self, nearest};

/// One table, with the keys that were asked for so far.
pub struct Section<'a> {
    path: String,
    span: Range<usize>,
    table: Option<&'a DeTable<'a>>,
    problems: &'a Problems<'a>,
    known: RefCell<Vec<&'static str>>,
}

/// One value and its place.
#[derive(Clone)]
pub struct Item<'a> {
    /// The key as a path.
    pub path: String,
    /// The value.
    pub value: &'a Spanned<DeValue<'a>>,
    problems: &'a Problems<'a>,
}

impl<'a> Section<'a> {
    /// `table`, whose keys are reported as `path.key`; `None` reads as an empty one.
    pub fn new(
        path: &str,
        span: Range<usize>,
        table: Option<&'a DeTable<'a>>,
        problems: &'a Problems<'a>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            span,
            table,
            problems,
            known: RefCell::default(),
        }
    }

    /// Whether the file has this table.
    pub fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// Whether `key` stands in it.
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|t| t.get(key).is_some())
    }

    /// The value of `key`.
    pub fn item(&self, key: &'static str) -> Option<Item<'a>> {
        self.known.borrow_mut().push(key);
        let value = self.table?.get(key)?;
        Some(Item {
            path: self.path_of(key),
            value,
            problems: self.problems,
        })
    }

    /// The table `key` in this one.
    #[must_use]
    pub fn section(&self, key: &'static str) -> Section<'a> {
        match self.item(key) {
            Some(item) => item.section().unwrap_or_else(|| self.absent(key)),
            None => self.absent(key),
        }
    }

    /// Something is wrong with this table as a whole.
    pub fn wrong(&self, text: impl Into<String>) {
        self.problems.add_bare(&self.path, &self.span, text);
    }

    /// Something is wrong with `key` as written.
    pub fn wrong_at(&self, key: &'static str, text: impl Into<String>) {
        match self.table.and_then(|t| t.get(key)) {
            Some(value) => self.problems.add(&self.path_of(key), &value.span(), text),
            None => self.problems.add_bare(&self.path_of(key), &self.span, text),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &'static str, default: bool) -> bool {
        self.item(key).and_then(|i| i.boolean()).unwrap_or(default)
    }

    /// A duration with its unit, within `range`.
    pub fn duration(
        &self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.item(key).and_then(|i| i.duration(range)).unwrap_or(default)
    }

    /// A whole number within `range`.
    pub fn integer(&self, key: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        self.item(key).and_then(|i| i.integer(range)).unwrap_or(default)
    }

    /// A number of bytes.
    pub fn size(&self, key: &'static str, default: u64) -> u64 {
        self.item(key).and_then(|i| i.size()).unwrap_or(default)
    }

    /// A share: 0 or more, under 1.
    pub fn ratio(&self, key: &'static str, default: f64) -> f64 {
        self.item(key).and_then(|i| i.ratio()).unwrap_or(default)
    }

    /// An absolute path.
    pub fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.item(key)?.path()
    }

    /// Reports every key that nobody asked for, with the nearest one that exists.
    pub fn finish(self) {
        let Some(table) = self.table else { return };
        let known = self.known.borrow();
        for (key, _) in table {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let hint = match nearest(name, &known) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known here: {}", known.join(", ")),
            };
            let place = if self.path.is_empty() {
                "the file's top level".to_owned()
            } else {
                format!("[{}]", self.path)
            };
            let text = format!("there is no such key in {place}; {hint}");
            self.problems.add_bare(&self.path_of(name), &key.span(), text);
        }
    }

    fn absent(&self, key: &str) -> Section<'a> {
        Section::new(&self.path_of(key), self.span.clone(), None, self.problems)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

impl<'a> Item<'a> {
    /// Something is wrong with it as written.
    pub fn wrong(&self, text: impl Into<String>) {
        self.problems.add(&self.path, &self.value.span(), text);
    }

    /// Something is wrong with it, and it is better not repeated.
    pub fn wrong_and_secret(&self, text: impl Into<String>) {
        self.problems.add_bare(&self.path, &self.value.span(), text);
    }

    /// The value as a table.
    pub fn section(&self) -> Option<Section<'a>> {
        let Some(table) = self.value.get_ref().as_table() else {
            self.wrong_type("a table");
            return None;
        };
        Some(Section::new(
            &self.path,
            self.value.span(),
            Some(table),
            self.problems,
        ))
    }

    /// The entries of a list.
    pub fn list(&self) -> Option<Vec<Item<'a>>> {
        let Some(array) = self.value.get_ref().as_array() else {
            self.wrong_type("a list");
            return None;
        };
        Some(self.entries(array.iter()))
    }

    /// The entries of a list, or the value itself where it is no list.
    pub fn one_or_list(&self) -> Vec<Item<'a>> {
        match self.value.get_ref().as_array() {
            Some(array) => self.entries(array.iter()),
            None => vec![self.clone()],
        }
    }

    /// A text that is not empty.
    pub fn text(&self) -> Option<&'a str> {
        let text = self.value.get_ref().as_str();
        match text {
            None => self.wrong_type("a text in quotes"),
            Some("") => {
                self.wrong("must not be empty; leave the key out for its default");
                return None;
            }
            Some(_) => {}
        }
        text
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        let found = self.value.get_ref().as_bool();
        if found.is_none() {
            self.wrong_type("true or false");
        }
        found
    }

    /// A duration with its unit, within `range`.
    pub fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let DeValue::String(text) = self.value.get_ref() else {
            self.wrong_type("a duration in quotes with its unit, such as \"90s\", \"26h\" or \"14d\"");
            return None;
        };
        self.keep(scalar::duration(text, &range))
    }

    /// A whole number within `range`.
    pub fn integer(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let DeValue::Integer(number) = self.value.get_ref() else {
            self.wrong_type("a whole number");
            return None;
        };
        let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
        match parsed.and_then(|n| u32::try_from(n).ok()) {
            Some(n) if range.contains(&n) => Some(n),
            Some(_) | None => {
                self.wrong(format!("must be {} to {}", range.start(), range.end()));
                None
            }
        }
    }

    /// A number of bytes.
    pub fn size(&self) -> Option<u64> {
        match self.value.get_ref() {
            DeValue::Integer(n) => {
                let bytes = u64::from_str_radix(n.as_str(), n.radix());
                self.keep(bytes.map_err(|_| "is no number of bytes: it must be 0 or more"))
            }
            DeValue::String(text) => self.keep(scalar::size(text)),
            _ => {
                self.wrong_type("a size, such as \"5GiB\", or a number of bytes");
                None
            }
        }
    }

    /// A share: 0 or more, under 1.
    pub fn ratio(&self) -> Option<f64> {
        let parsed = match self.value.get_ref() {
            DeValue::Float(f) => f.as_str().parse().ok(),
            DeValue::Integer(n) => n.as_str().parse().ok(),
            _ => {
                self.wrong_type("a share between 0 and 1, such as 0.10");
                return None;
            }
        };
        match parsed {
            Some(share) if (0.0..1.0).contains(&share) => Some(share),
            Some(_) | None => {
                self.wrong("must be a share from 0 to less than 1: 0.10 is ten per cent");
                None
            }
        }
    }

    /// A number within `range`.
    pub fn number(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let parsed: Option<f64> = match self.value.get_ref() {
            DeValue::Float(f) => f.as_str().parse().ok(),
            DeValue::Integer(n) => n.as_str().parse().ok(),
            _ => {
                self.wrong_type("a number");
                return None;
            }
        };
        let found = parsed.filter(|n| range.contains(n));
        if found.is_none() {
            self.wrong(format!("must be {} to {}", range.start(), range.end()));
        }
        found
    }

    /// An absolute path.
    pub fn path(&self) -> Option<PathBuf> {
        let path = PathBuf::from(self.text()?);
        if path.is_absolute() {
            return Some(path);
        }
        self.wrong("must be an absolute path, starting with \"/\": there is no directory that it could be relative to");
        None
    }

    /// A systemd unit's name.
    pub fn unit(&self) -> Option<UnitName> {
        let text = self.text()?;
        match UnitName::new(text) {
            Ok(unit) => Some(unit),
            Err(BadName::Suffix) if !text.contains('.') => {
                self.wrong(format!("is no unit name; write {:?}", format!("{text}.service")));
                None
            }
            Err(err) => {
                self.wrong(err.to_string());
                None
            }
        }
    }

    /// One of `words`.
    pub fn word(&self, words: &[&'static str]) -> Option<&'static str> {
        let text = self.text()?;
        let found = words.iter().find(|&&w| w == text).copied();
        if found.is_none() {
            self.wrong(format!("must be one of {}", words.join(", ")));
        }
        found
    }

    /// `Ok` as it is; an error is reported at this value.
    pub fn keep<T, E: ToString>(&self, result: Result<T, E>) -> Option<T> {
        result.map_err(|err| self.wrong(err.to_string())).ok()
    }

    fn wrong_type(&self, wanted: &str) {
        let found = self.value.get_ref().type_str();
        self.wrong(format!("is of type {found}; it must be {wanted}"));
    }

    fn entries(&self, values: impl Iterator<Item = &'a Spanned<DeValue<'a>>>) -> Vec<Item<'a>> {
        let item = |(n, value)| Item {
            path: format!("{}[{n}]", self.path),
            value,
            problems: self.problems,
        };
        values.enumerate().map(item).collect()
    }
}
