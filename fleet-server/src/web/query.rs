//! A request's query: known names only, each at most once where once is meant, and an error that names the offender.

use axum::http::Uri;
use protocol::limits;

use super::problem::Refusal;

/// Parameters of one query.
const PARAMETERS: usize = 32;

/// The parameters of a query, decoded.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// The query of `uri`, if it has only parameters out of `known`.
    pub(super) fn of(uri: &Uri, known: &[&str]) -> Result<Self, Refusal> {
        let text = uri.query().unwrap_or_default();
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(text.as_bytes())
            .take(PARAMETERS + 1)
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        if pairs.len() > PARAMETERS {
            return Err(Refusal::invalid(
                "the query",
                format!("has over {PARAMETERS} parameters"),
            ));
        }
        if let Some((name, _)) = pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            let name: String = name.chars().take(64).collect();
            return Err(Refusal::invalid(
                name,
                format!("is no parameter here; known are {}", known.join(", ")),
            ));
        }
        Ok(Self(pairs))
    }

    /// The value of `name`, which may stand there once; an empty one is as none.
    pub(super) fn one(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut found = self.all(name);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(Refusal::invalid(name, "may be given once")),
            (found, _) => Ok(found.filter(|value| !value.is_empty())),
        }
    }

    /// The values of `name`.
    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let name = name.to_owned();
        self.0
            .iter()
            .filter(move |(n, _)| *n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of `name` as a `T`.
    pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Refusal> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|err: T::Err| Refusal::invalid(name, err.to_string()))
        };
        self.one(name)?.map(parse).transpose()
    }

    /// `page` (from 1) and `per_page`, as offset and limit.
    pub(super) fn page(&self) -> Result<Page, Refusal> {
        let number: u32 = self.parsed("page")?.unwrap_or(1);
        let rows: u32 = self.parsed("per_page")?.unwrap_or(limits::PAGE_ROWS);
        if number == 0 {
            return Err(Refusal::invalid("page", "the first page is 1"));
        }
        if rows == 0 || rows > limits::PAGE_ROWS {
            return Err(Refusal::invalid(
                "per_page",
                format!("must be 1 to {}", limits::PAGE_ROWS),
            ));
        }
        Ok(Page { number, rows })
    }
}

/// One page of a listing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    number: u32,
    /// Rows of a page.
    pub(super) rows: u32,
}

impl Page {
    /// Rows before it.
    pub(super) fn offset(self) -> u64 {
        u64::from(self.number - 1) * u64::from(self.rows)
    }

    /// The page after it, if `total` rows reach that far.
    pub(super) fn next(self, total: u64) -> Option<u32> {
        (self.offset() + u64::from(self.rows) < total).then(|| self.number.saturating_add(1))
    }
}
